"""What `open_image` says of files that are missing, broken, foreign or misnamed."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image as Picture

from crista.errors import ImageReadError
from crista.geometry.spacing import Spacing
from crista.images import stored
from crista.images.content import SUPPORTED_EXTENSIONS
from crista.images.ome_zarr import create_ome_zarr, open_level
from crista.images.open import open_image, open_written
from crista.images.pyramid import choose_pyramid
from crista.images.write import write_image


@pytest.mark.parametrize(
    ("name", "content", "messages"),
    [
        ("a.tif", b"", ["a.tif", "empty file (0 bytes)"]),
        ("a.tif", b"<!DOCTYPE html><html></html>", ["a.tif", "not a TIFF file: it is an HTML page"]),
        ("a.png", b"\0" * 100, ["not a PNG file", "zero bytes"]),
        ("a.tif", b"version https://git-lfs.github.com/spec/v1\n", ["Git LFS pointer", "git lfs pull"]),
        ("a.czi", b"ZISRAWFILE" + b"\7" * 90, ["unsupported format", "Zeiss CZI", "OME-TIFF", ".nii.gz", ".npy"]),
        ("a.lif", b"\x70\0\0\0" + b"\7" * 90, ["unsupported format", "export as OME-TIFF"]),
        ("a.nd2", b"\xda\xce\xbe\x0a" + b"\7" * 90, ["Nikon ND2", "export as OME-TIFF"]),
        ("a.oir", b"\xff\xfe\xfd\xfc" * 9, ["unsupported format", "export as OME-TIFF"]),
        ("a.gif", b"GIF89a" + b"\7" * 90, ["it is a GIF", "Supported: TIFF"]),
        ("a.tif", b"a,b\n1,2\n", ["not a TIFF file: it is a text file"]),
        ("a.npy", b"\x80\x04\x95" + b"\7" * 90, ["not a NPY file", "pickle"]),
        ("a.tif", bytes(range(200, 256)), ["of no known format", "c8 c9"]),
        ("a.h5", b"<?xml version='1.0'?>", ["not a HDF5 file", "XML"]),
        ("a.nrrd", b"NRRD0004\ntype: uchar\n", ["unsupported format: it is an NRRD file", "convert it, e.g. with Fiji"]),
        ("a.tif.gz", b"\x1f\x8b\x08" + b"\7" * 90, ["unsupported format: it is a gzip archive", "unpack it"]),
        ("a.ome.zarr", b"PK\x03\x04" + b"\7" * 90, ["not a Zarr file: it is a ZIP archive", "unpack it"]),
        ("images.zip", b"PK\x03\x04" + b"\7" * 90, ["it is a ZIP archive", "unpack it"]),
    ],
)
def test_a_foreign_file_is_named_for_what_it_is(name: str, content: bytes, messages: list[str], tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(ImageReadError) as caught:
        open_image(path)

    for message in [name, *messages]:
        assert message in str(caught.value)


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.tif").mkdir()

    with pytest.raises(ImageReadError, match=r"a\.tif: is a folder"):
        open_image(tmp_path / "a.tif")


def test_a_zarr_folder_without_metadata_is_no_zarr(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()

    with pytest.raises(ImageReadError, match=r"a\.zarr: not a zarr array"):
        open_image(tmp_path / "a.zarr")


def test_arrays_in_a_zarr_folder_without_metadata_are_named(tmp_path: Path) -> None:
    """TensorStore writes arrays without groups above them."""
    for name in ("raw", "labels"):
        zarr.create_array(str(tmp_path / "a.zarr" / name), shape=(4, 5, 6), dtype="u1", zarr_format=2)

    with pytest.raises(ImageReadError, match=r"but labels, raw in it do\n    -> give one of them as the path: .*a\.zarr/labels"):
        open_image(tmp_path / "a.zarr")
    assert open_image(tmp_path / "a.zarr/raw").shape == (4, 5, 6)


def test_a_broken_link_names_its_target(tmp_path: Path) -> None:
    (tmp_path / "a.tif").symlink_to(tmp_path / "gone.tif")

    with pytest.raises(ImageReadError, match=r"a\.tif: broken link.*gone\.tif is missing"):
        open_image(tmp_path / "a.tif")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ImageReadError, match=r"a\.tif: no such file"):
        open_image(tmp_path / "a.tif")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tif")

    with pytest.raises(ImageReadError, match="not a regular file"):
        open_image(tmp_path / "a.tif")


def test_a_file_that_vanishes_between_opening_and_reading(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((8, 9), np.uint8), compression="zlib")
    image = open_image(path)
    path.unlink()

    with pytest.raises(ImageReadError, match=r"a\.tif: no such file"):
        image.read()


def test_a_file_written_anew_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for value in (1, 2):
        tifffile.imwrite(path, np.full((8, 9), value, np.uint8), compression="zlib")
        os.utime(path, ns=(value, value))
        assert open_image(path).read().max() == value


@pytest.mark.parametrize(("name", "kind"), [("a.tif", "PNG"), ("a.jpg", "PNG"), ("a.png", "TIFF")])
def test_content_beats_extension_with_a_note(name: str, kind: str, tmp_path: Path) -> None:
    pixels = np.arange(72, dtype=np.uint8).reshape(8, 9)
    buffer = io.BytesIO()
    Picture.fromarray(pixels).save(buffer, kind)
    (tmp_path / name).write_bytes(buffer.getvalue())

    image = open_image(tmp_path / name)

    assert f"named {Path(name).suffix} but is a {kind} file; read as {kind}" in image.notes
    np.testing.assert_array_equal(image.read()[0], pixels)


def test_an_extension_of_its_own_is_no_mismatch(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.dat", np.zeros((8, 9), np.uint8))

    assert open_image(tmp_path / "a.dat").notes == ()


@pytest.mark.parametrize("dtype", [np.complex64, np.longdouble, "datetime64[s]"])
def test_pixels_that_are_no_real_numbers_are_refused(dtype: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((8, 9), dtype))

    with pytest.raises(ImageReadError, match=r"a\.npy: pixels of type .* are not supported"):
        open_image(tmp_path / "a.npy")


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}, {}], dtype=object), allow_pickle=True)

    with pytest.raises(ImageReadError, match=r"Python objects .a pickle., which are refused"):
        open_image(tmp_path / "a.npy")


def test_a_truncated_npy(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((80, 90)))
    path.write_bytes(path.read_bytes()[:1000])

    with pytest.raises(ImageReadError, match="size does not fit the file"):
        open_image(path)


@pytest.mark.parametrize("shape", [(), (80,)])
def test_a_row_of_numbers_is_no_image_whatever_the_axes_are_called(shape: tuple[int, ...], tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))

    with pytest.raises(ImageReadError, match=r"a\.npy: not an image: shape .* has no y and x\n    -> export it with at least"):
        open_image(tmp_path / "a.npy")


def test_an_empty_axis(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((0, 90)))

    with pytest.raises(ImageReadError, match="empty image"):
        open_image(tmp_path / "a.npy")


@pytest.mark.parametrize(("is_label", "key"), [(False, "INPUT_IMG_AXES_ORDER"), (True, "INPUT_MASK_AXES_ORDER")])
def test_axes_that_do_not_fit_name_file_and_key(is_label: bool, key: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((20, 48, 64), np.uint8))

    with pytest.raises(ImageReadError, match=f"(?s)a.npy: 3D .20 slices.*{key}"):
        open_image(tmp_path / "a.npy", ndim=2, is_label=is_label)


def test_an_inner_path_without_meaning_is_said(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((48, 64), np.uint8))

    image = open_image(tmp_path / "a.npy", inner="volumes/raw")

    assert image.notes == ("the inner path 'volumes/raw' has no meaning for a NPY file and is ignored",)


def test_extensions_are_lower_case_and_hold_the_double_ones() -> None:
    assert all(extension == extension.lower() and extension.startswith(".") for extension in SUPPORTED_EXTENSIONS)
    assert {".ome.zarr", ".nii.gz", ".ome.tif", ".tif", ".png", ".h5"} <= set(SUPPORTED_EXTENSIONS)


@pytest.mark.parametrize(("size", "known"), [(1e-10, False), (4e-4, True), (1e12, False)])
def test_a_voxel_size_that_cannot_be_is_ignored(tmp_path: Path, size: float, known: bool) -> None:
    """Metres that are called micrometres, say; no label image could be written with it."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = np.zeros((20, 30), np.uint8)
        file["raw"].attrs["element_size_um"] = (size, size)
    image = open_image(tmp_path / "a.h5", ndim=2)
    assert image.spacing == (Spacing((size, size)) if known else None)
    assert any(f"{size:g}" in note and "is ignored" in note for note in image.notes) == (not known)


@pytest.mark.parametrize("shape", [(40, 48), (1, 40, 48), (2, 40, 48), (9, 40, 48)])
@pytest.mark.parametrize("extension", [".tif", ".ome.tif", ".zarr"])
def test_a_label_image_of_crista_has_the_axes_that_it_was_written_with(
    tmp_path: Path, shape: tuple[int, ...], extension: str
) -> None:
    """Also a volume of one slice, of which a TIFF does not say that it is one."""
    path, axes = tmp_path / f"a{extension}", "ZYX"[-len(shape) :]
    written = np.random.default_rng(0).integers(0, 3, shape).astype(np.uint8)
    if extension == ".zarr":
        create_ome_zarr(path, choose_pyramid(axes, shape, written.dtype, None), is_label=True)
        open_level(path, 0)[...] = written
    else:
        write_image(path, written, axes)
    image = open_written(path, len(shape))
    assert image.spatial_shape == shape
    np.testing.assert_array_equal(image.read()[0], written)
    region = (*(slice(0, n) for n in shape[:-2]), slice(3, 20), slice(7, 9))
    np.testing.assert_array_equal(image.read(region)[0], written[region])


@pytest.mark.parametrize("mapped", [1, 100, 1500, 2**28])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(5, 21, 30), (21, 30), (2, 5, 21, 30)])
def test_of_uncompressed_pixels_a_part_is_mapped_at_a_time(
    shape: tuple[int, ...], order: Any, mapped: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "MAPPED_BYTES", mapped)
    array = np.asarray(np.random.default_rng(0).integers(0, 9999, shape), ">u2", order=order)
    np.save(tmp_path / "a.npy", array)
    image = open_image(tmp_path / "a.npy", ndim=min(3, len(shape)), axes="CZYX"[-len(shape) :])
    for region in (tuple(slice(0, n) for n in image.spatial_shape), tuple(slice(n // 3, n - 1) for n in image.spatial_shape)):
        np.testing.assert_array_equal(image.read(region), array[(..., *region)].reshape(image.read(region).shape))
    assert image.read(tuple(slice(1, 1) for _ in image.spatial_shape)).size == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a limit of addresses")
def test_a_volume_larger_than_the_addresses_that_are_allowed_is_read(tmp_path: Path) -> None:
    """As on a cluster that limits jobs by `ulimit -v` (h_vmem)."""
    shape = (300, 2500, 4000)
    volume = np.lib.format.open_memmap(tmp_path / "a.npy", mode="w+", dtype=np.uint8, shape=shape)
    volume[-1, -1, -1] = 7
    del volume
    script = f"""
        import resource
        from pathlib import Path
        from crista.images.npy import read_npy_header
        from crista.plan.machine import status_bytes

        image = read_npy_header(Path({str(tmp_path / "a.npy")!r}))
        limit = status_bytes("VmSize") + 800_000_000
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        print(image.source.read((slice(290, 300), slice(2400, 2500), slice(3900, 4000))).sum())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("7", "")


def test_no_room_for_a_map_is_no_damaged_file(tmp_path: Path) -> None:
    with (
        pytest.raises(ImageReadError, match=r"a\.npy: no memory left to read it .*Cannot allocate"),
        stored.decoding_errors(tmp_path / "a.npy"),
    ):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")
