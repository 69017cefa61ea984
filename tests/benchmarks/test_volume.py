"""The synthetic volume: the same voxels however it is cut, not empty, and readable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from measuring.volume import iter_chunks, true_labels, voxels, write_volume

from crista.images.open import open_image

SHAPE = (40, 50, 60)
WHOLE = tuple(slice(0, n) for n in SHAPE)


@pytest.mark.parametrize("fill", [voxels, true_labels])
def test_pieces_are_the_whole(fill) -> None:  # type: ignore[no-untyped-def]
    """Every voxel is a function of its place."""
    whole = fill(WHOLE)
    for region in iter_chunks(SHAPE, 16):
        np.testing.assert_array_equal(fill(region), whole[region])


def test_it_has_content() -> None:
    """Between a tenth and half is blob, blobs are brighter than all else, and noise has all its values."""
    image, labels = voxels(WHOLE), true_labels(WHOLE)
    assert 0.1 < labels.mean() < 0.5
    assert image[labels == 1].min() > image[labels == 0].max()
    assert len(np.unique((image - image.min())[0][labels[0] == 0])) == 8


def test_it_is_written_as_ome_zarr(tmp_path: Path) -> None:
    """Chunks, voxels, and the voxel size as a reader of OME-Zarr sees it."""
    path = write_volume(tmp_path / "volume.ome.zarr", SHAPE, chunk=16)
    array = zarr.open_array(path / "0", mode="r")
    assert array.chunks == (16, 16, 16)
    np.testing.assert_array_equal(array[:], voxels(WHOLE))
    image = open_image(path)
    assert image.spatial_shape == SHAPE
    assert image.spacing is not None
    assert image.spacing.values == (0.1, 0.05, 0.05)


def test_a_half_written_volume_is_written_anew_and_a_whole_one_kept(tmp_path: Path) -> None:
    """A mark beside it says that it is whole."""
    path = write_volume(tmp_path / "volume.ome.zarr", SHAPE, chunk=16)
    chunk = path / "0/c/0/0/0"
    first = chunk.stat().st_mtime_ns
    write_volume(path, SHAPE, chunk=16)
    assert chunk.stat().st_mtime_ns == first
    (tmp_path / "volume.ome.zarr.complete").unlink()
    chunk.unlink()
    write_volume(path, SHAPE, chunk=16)
    assert chunk.is_file()
