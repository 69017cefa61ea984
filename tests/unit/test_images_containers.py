"""Zarr, HDF5 and NIfTI: which array is read, what the metadata say, and what is damaged."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
import zarr

from crista.errors import ImageReadError
from crista.images.open import open_image
from crista.images.stored import lies_in_several_files

VOLUME = np.random.default_rng(0).integers(0, 200, (6, 20, 30), dtype=np.uint8)


def _write_hdf5(path: Path, names: list[str], **attributes: object) -> None:
    with h5py.File(path, "w") as file:
        for number, name in enumerate(names):
            file[name] = VOLUME + number
            file[name].attrs.update(attributes)
        file["meta/notes"] = np.arange(3)
        file["meta/text"] = "words"


def test_the_only_dataset_of_a_file_is_used(tmp_path: Path) -> None:
    _write_hdf5(tmp_path / "a.h5", ["exported/data"])

    image = open_image(tmp_path / "a.h5")

    assert image.inner == "exported/data"
    np.testing.assert_array_equal(image.read()[0], VOLUME)


@pytest.mark.parametrize(("is_label", "key"), [(False, "RAW_PATH"), (True, "GT_PATH")])
@pytest.mark.parametrize("name", ["a.h5", "a.zarr"])
def test_several_arrays_are_listed_with_the_key_that_names_one(name: str, is_label: bool, key: str, tmp_path: Path) -> None:
    if name == "a.h5":
        _write_hdf5(tmp_path / name, ["raw", "volumes/label"])
    else:
        group = zarr.create_group(str(tmp_path / name))
        for inner in ("raw", "volumes/label"):
            group.create_array(inner, shape=VOLUME.shape, dtype="u1")[:] = VOLUME

    with pytest.raises(ImageReadError) as caught:
        open_image(tmp_path / name, is_label=is_label)

    message = str(caught.value)
    assert "raw (6, 20, 30), volumes/label (6, 20, 30)" in message
    assert f"DATA.TRAIN.INPUT_ZARR_MULTIPLE_DATA_{key}" in message


def test_a_compression_that_is_not_installed_is_named(tmp_path: Path) -> None:
    """Blosc, say, whose filter comes with other packages: such a file is not damaged."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk((16, 16))
        made.set_filter(32099, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((16, 16))
        dataset = h5py.h5d.create(file.id, b"raw", h5py.h5t.NATIVE_UINT8, space, made)
        dataset.write_direct_chunk((0, 0), b"packed")
    image = open_image(tmp_path / "a.h5")
    with pytest.raises(ImageReadError, match=r"a\.h5: dataset raw is compressed with HDF5 filter 32099(?s:.*)hdf5plugin"):
        image.read()


def test_a_file_that_another_program_writes_is_not_called_damaged(tmp_path: Path) -> None:
    _write_hdf5(tmp_path / "a.h5", ["raw"])
    image = open_image(tmp_path / "a.h5")
    script = f"import h5py\nfile = h5py.File({str(tmp_path / 'a.h5')!r}, 'r+')\nprint('open', flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"open\n"
        for read in (image.read, lambda: open_image(tmp_path / "a.h5")):
            with pytest.raises(ImageReadError, match=r"a\.h5: is open for writing in another program\n    -> close it there"):
                read()
        writer.communicate(b"\n")
    assert open_image(tmp_path / "a.h5").inner == "raw"


@pytest.mark.parametrize("inner", ["volumes/label", "volumes.label", "/volumes/label/"])
@pytest.mark.parametrize("name", ["a.h5", "a.zarr"])
def test_an_inner_path_is_written_with_slashes_or_dots(name: str, inner: str, tmp_path: Path) -> None:
    if name == "a.h5":
        _write_hdf5(tmp_path / name, ["raw", "volumes/label"])
    else:
        group = zarr.create_group(str(tmp_path / name))
        group.create_array("raw", shape=VOLUME.shape, dtype="u1")
        group.create_array("volumes/label", shape=VOLUME.shape, dtype="u1")[:] = VOLUME + 1

    image = open_image(tmp_path / name, inner=inner)

    assert image.inner == "volumes/label"
    np.testing.assert_array_equal(image.read()[0], VOLUME + 1)


@pytest.mark.parametrize("name", ["a.h5", "a.zarr"])
def test_an_inner_path_that_is_not_there_lists_what_is(name: str, tmp_path: Path) -> None:
    if name == "a.h5":
        _write_hdf5(tmp_path / name, ["raw"])
    else:
        zarr.create_group(str(tmp_path / name)).create_array("raw", shape=VOLUME.shape, dtype="u1")

    with pytest.raises(ImageReadError, match=r"holds no array 'gt'; found: raw \(6, 20, 30\)"):
        open_image(tmp_path / name, inner="gt")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("axes", "yxz"),
        ("axes", ["y", "x", "z"]),
        ("DIMENSION_LABELS", ["y", "x", "z"]),
        ("axistags", json.dumps({"axes": [{"key": "y"}, {"key": "x"}, {"key": "z"}]})),
    ],
)
def test_axes_named_by_attributes(name: str, value: object, tmp_path: Path) -> None:
    _write_hdf5(tmp_path / "a.h5", ["data"], **{name: value})

    image = open_image(tmp_path / "a.h5")

    assert (image.axes, image.axes_reason) == ("YXZ", "metadata")


def test_axes_attributes_that_do_not_fit_are_not_believed(tmp_path: Path) -> None:
    _write_hdf5(tmp_path / "a.h5", ["data"], axes="tczyx")

    assert open_image(tmp_path / "a.h5").axes_reason.startswith("guessed (z, y, x)")


def test_voxel_size_of_hdf5(tmp_path: Path) -> None:
    _write_hdf5(tmp_path / "a.h5", ["data"], element_size_um=(0.05, 0.01, 0.02))

    spacing = open_image(tmp_path / "a.h5").spacing

    assert spacing is not None
    assert spacing.values == (0.05, 0.01, 0.02)


def test_a_file_system_without_locks_is_no_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS and the file systems of clusters, as they are often set up."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = np.eye(20, dtype=np.uint8)
    opened = h5py.File

    def without_locks(path: Path, mode: str, *, locking: bool | None = None) -> Any:
        if locking is not False:
            raise OSError("Unable to synchronously open file (unable to lock file, errno = 37, error message = 'No locks')")
        return opened(path, mode, locking=locking)

    monkeypatch.setattr("crista.images.hdf5.h5py.File", without_locks)
    np.testing.assert_array_equal(open_image(tmp_path / "a.h5", ndim=2).read()[0], np.eye(20))


def test_a_truncated_hdf5(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    _write_hdf5(path, ["data"])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    with pytest.raises(ImageReadError, match=r"a\.h5: truncated HDF5"):
        open_image(path)


def test_a_damaged_hdf5_chunk_names_file_and_dataset(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("data", data=VOLUME, chunks=(6, 20, 30), compression="gzip")
        offset = dataset.id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[offset : offset + 300] = b"\xff" * 300
    path.write_bytes(content)

    with pytest.raises(ImageReadError, match=r"a\.h5: dataset data cannot be decoded"):
        open_image(path).read()


def test_an_hdf5_without_images(tmp_path: Path) -> None:
    _write_hdf5(tmp_path / "a.h5", [])

    with pytest.raises(ImageReadError, match="no numeric array of at least two axes"):
        open_image(tmp_path / "a.h5")


def _zarr(path: Path, **options: object) -> None:
    made = zarr.create_array(str(path), shape=VOLUME.shape, dtype="u1", **{"chunks": (3, 10, 15), **options})
    made[:] = VOLUME


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_missing_chunks_read_as_fill_value_and_are_said(zarr_format: int, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    _zarr(path, zarr_format=zarr_format)
    (path / ("0.1.0" if zarr_format == 2 else "c/0/1/0")).unlink()

    image = open_image(path)

    assert image.notes == ("1 of 8 chunks are not stored and read as the fill value 0",)
    expected = VOLUME.copy()
    expected[:3, 10:, :15] = 0
    np.testing.assert_array_equal(image.read()[0], expected)


def test_a_damaged_chunk_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    _zarr(path)
    (path / "c" / "1" / "0" / "1").write_bytes(b"rubbish")
    image = open_image(path)

    image.read((slice(0, 3), slice(0, 20), slice(0, 30)))
    with pytest.raises(ImageReadError, match=r"a\.zarr: chunk 1\.0\.1 cannot be decoded"):
        image.read()


def test_damaged_zarr_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    _zarr(path)
    (path / "zarr.json").write_text("{")

    with pytest.raises(ImageReadError, match=r"a\.zarr: "):
        open_image(path)


def test_opening_a_zarr_changes_nothing_in_it(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    _zarr(path)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}

    open_image(path).read()

    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


def _ome_zarr(path: Path) -> None:
    group = zarr.create_group(str(path), zarr_format=2)
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    for name, step in (("0", 1), ("1", 2)):
        pixels = VOLUME[None, None, :, ::step, ::step]
        group.create_array(name, shape=pixels.shape, dtype="u1")[:] = pixels
    datasets = [
        {"path": name, "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 50, 10 * step, 10 * step]}]}
        for name, step in (("0", 1), ("1", 2))
    ]
    whole = [{"type": "scale", "scale": [1, 1, 1, 2, 2]}]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": datasets, "coordinateTransformations": whole}]
    label = group.create_group("labels").create_group("mito")
    label.create_array("0", shape=VOLUME.shape, dtype="u1")[:] = VOLUME % 2
    label.attrs["multiscales"] = [{"axes": axes[2:], "datasets": [{"path": "0"}]}]


def test_level_0_of_an_ome_zarr_with_time_dropped(tmp_path: Path) -> None:
    _ome_zarr(tmp_path / "a.ome.zarr")

    image = open_image(tmp_path / "a.ome.zarr")

    assert (image.axes, image.shape, image.inner, image.name) == ("CZYX", (1, 6, 20, 30), "0", "a")
    assert image.spacing is not None
    assert image.spacing.values == pytest.approx((0.05, 0.02, 0.02))
    np.testing.assert_array_equal(image.read()[0], VOLUME)


def test_another_level_by_its_inner_path(tmp_path: Path) -> None:
    _ome_zarr(tmp_path / "a.ome.zarr")

    image = open_image(tmp_path / "a.ome.zarr", inner="1")

    assert image.shape == (1, 6, 10, 15)
    assert image.spacing is not None
    assert image.spacing.values == pytest.approx((0.05, 0.04, 0.04))


@pytest.mark.parametrize("by_path", [True, False])
def test_labels_inside_an_ome_zarr(by_path: bool, tmp_path: Path) -> None:
    _ome_zarr(tmp_path / "a.ome.zarr")
    path, inner = tmp_path / "a.ome.zarr", "labels/mito"

    image = open_image(path / inner) if by_path else open_image(path, inner=inner)

    assert image.axes == "ZYX"
    assert image.spacing is None
    np.testing.assert_array_equal(image.read()[0], VOLUME % 2)


def test_the_first_image_of_a_bioformats2raw_store(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    zarr.create_group(str(path), zarr_format=2, attributes={"bioformats2raw.layout": 3})
    _ome_zarr(path / "0")

    image = open_image(path)

    assert image.inner == "0/0"
    assert "several images may lie in this store: the first is used" in image.notes


def _nifti(path: Path, array: np.ndarray, unit: str | None = "mm") -> None:
    made = nibabel.Nifti1Image(array, np.diag([0.5, 0.25, 2, 1]))
    if unit is not None:
        made.header.set_xyzt_units(unit)
    nibabel.save(made, path)


def test_nifti_is_presented_as_zyx(tmp_path: Path) -> None:
    _nifti(tmp_path / "a.nii.gz", VOLUME.transpose(2, 1, 0))

    image = open_image(tmp_path / "a.nii.gz")

    assert (image.axes, image.shape, image.spatial_shape, image.name) == ("XYZ", (30, 20, 6), (6, 20, 30), "a")
    assert image.spacing is not None
    assert image.spacing.values == (2000, 250, 500)
    np.testing.assert_array_equal(image.read()[0], VOLUME)


def test_nifti_without_a_unit_is_in_millimetres_and_said(tmp_path: Path) -> None:
    _nifti(tmp_path / "a.nii", VOLUME, unit=None)

    image = open_image(tmp_path / "a.nii")

    (note,) = image.notes
    assert note.startswith(
        "no unit of length in the header: millimetres are assumed; if that is wrong, set DATA.TRAIN.RESOLUTION"
    )
    assert image.spacing is not None
    assert image.spacing.values == (2000, 250, 500)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti_is_scaled_as_nibabel_does(name: str, tmp_path: Path) -> None:
    made = nibabel.Nifti1Image(VOLUME.astype(np.int16), np.eye(4))
    made.header.set_slope_inter(0.5, -10)
    nibabel.save(made, tmp_path / name)
    expected = np.asarray(nibabel.load(tmp_path / name).dataobj)

    image = open_image(tmp_path / name)

    pixels = image.source.read((slice(0, 6), slice(3, 9), slice(0, 30)))
    assert (image.dtype, pixels.dtype) == (expected.dtype, expected.dtype)
    np.testing.assert_array_equal(pixels, expected[:, 3:9])


def test_a_nifti_slice_is_2d(tmp_path: Path) -> None:
    _nifti(tmp_path / "a.nii.gz", VOLUME[0, :, :, None])

    image = open_image(tmp_path / "a.nii.gz", ndim=2)

    np.testing.assert_array_equal(image.read()[0], VOLUME[0].T)


@pytest.mark.parametrize(("name", "message"), [("a.nii.gz", "cannot be decoded"), ("a.nii", "size does not fit the file")])
def test_a_truncated_nifti(name: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    _nifti(path, VOLUME)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    with pytest.raises(ImageReadError, match=rf"(?s){name}: .*{message}.*truncated"):
        open_image(path).read()


def test_a_nifti_whose_checksum_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    _nifti(path, VOLUME)
    content = bytearray(path.read_bytes())
    content[-8] ^= 255
    path.write_bytes(content)

    with pytest.raises(ImageReadError, match=r"its gzip stream cannot be decoded .*CRC"):
        open_image(path).read()


def test_a_gzip_nifti_that_lies_about_its_size(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((30000, 30000, 30000))
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    path.write_bytes(gzip.compress(header.binaryblock + bytes(1000)))

    with pytest.raises(ImageReadError, match="size does not fit the file"):
        open_image(path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("datatype", 105, "unknown pixel type"), ("scl_inter", np.nan, "unusable scaling"), ("dim", -5, "negative lengths")],
)
def test_a_damaged_nifti_header(field: str, value: float, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    _nifti(path, VOLUME)
    header = nibabel.Nifti1Header(path.read_bytes()[:348], check=False)
    header["scl_slope"] = 2
    if field == "dim":
        header["dim"][1] = value
    else:
        header[field] = value
    path.write_bytes(header.binaryblock + path.read_bytes()[348:])

    with pytest.raises(ImageReadError, match=rf"(?s)a\.nii: .*({message}|size does not fit)"):
        open_image(path)


def test_a_nifti_time_series_of_vectors_is_refused(tmp_path: Path) -> None:
    _nifti(tmp_path / "a.nii", np.zeros((4, 5, 6, 2, 3), np.float32))

    with pytest.raises(ImageReadError, match="time series and vectors are not supported"):
        open_image(tmp_path / "a.nii")


@pytest.mark.parametrize(
    "attributes", [{"axes": 3}, {"axes": "none"}, {"element_size_um": 4.0}, {"element_size_um": ["a", "b", "c"]}]
)
@pytest.mark.parametrize("name", ["a.h5", "a.zarr"])
def test_attributes_of_another_meaning_do_not_make_a_file_unreadable(
    name: str, attributes: dict[str, object], tmp_path: Path
) -> None:
    if name == "a.h5":
        _write_hdf5(tmp_path / name, ["raw"], **attributes)
    else:
        array = zarr.create_array(str(tmp_path / name), shape=VOLUME.shape, dtype="u1", attributes=dict(attributes))
        array[:] = VOLUME

    image = open_image(tmp_path / name)

    assert (image.axes, image.spacing) == ("ZYX", None)
    np.testing.assert_array_equal(image.read()[0], VOLUME)


@pytest.mark.parametrize("ome", [None, "words"])
def test_attributes_called_ome_need_not_be_those_of_ome(ome: object, tmp_path: Path) -> None:
    group = zarr.create_group(str(tmp_path / "a.zarr"), attributes={"ome": ome})
    group.create_array("raw", shape=VOLUME.shape, dtype="u1")[:] = VOLUME

    np.testing.assert_array_equal(open_image(tmp_path / "a.zarr").read()[0], VOLUME)


def _write_multiscale(group: zarr.Group, num_levels: int) -> None:
    axes = [{"name": letter, "type": "space", "unit": "nanometer"} for letter in "xyz"]
    scales = [[{"type": "scale", "scale": [4.0 * 2**level, 8.0 * 2**level, 40.0]}] for level in range(num_levels)]
    datasets = [{"path": f"level/{number}", "coordinateTransformations": scale} for number, scale in enumerate(scales)]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    for number in range(num_levels):
        group.create_array(f"level/{number}", shape=VOLUME.T[:: 2**number].shape, dtype="u1")[:] = VOLUME.T[:: 2**number]


@pytest.mark.parametrize("num_levels", [1, 3])
@pytest.mark.parametrize("inner", [None, "volumes/raw", "volumes/raw/level/0"])
def test_a_pyramid_in_a_group_is_one_array_with_its_axes_and_voxel_size(
    inner: str | None, num_levels: int, tmp_path: Path
) -> None:
    root = zarr.create_group(str(tmp_path / "a.zarr"), zarr_format=2)
    _write_multiscale(root.create_group("volumes/raw"), num_levels)

    image = open_image(tmp_path / "a.zarr", inner=inner)

    assert (image.inner, image.axes) == ("volumes/raw/level/0", "XYZ")
    assert image.spacing is not None
    assert image.spacing.values == pytest.approx((0.04, 0.008, 0.004))
    np.testing.assert_array_equal(image.read()[0], VOLUME)


def test_of_several_pyramids_the_finest_levels_are_listed(tmp_path: Path) -> None:
    root = zarr.create_group(str(tmp_path / "a.zarr"), zarr_format=2)
    for name in ("raw", "labels"):
        _write_multiscale(root.create_group(name), 2)

    with pytest.raises(ImageReadError, match=r"several arrays: labels/level/0 \(30, 20, 6\), raw/level/0 \(30, 20, 6\)\n"):
        open_image(tmp_path / "a.zarr")


@pytest.mark.parametrize("inner", ["nothing", "number", "meta"])
def test_what_is_named_and_holds_no_pixels_is_told(inner: str, tmp_path: Path) -> None:
    _write_hdf5(tmp_path / "a.h5", ["raw"])
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["nothing"], file["number"] = h5py.Empty("f"), 3

    with pytest.raises(ImageReadError, match=rf"holds no array '{inner}'; found: raw \(6, 20, 30\)"):
        open_image(tmp_path / "a.h5", inner=inner)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_arrays_that_consolidated_metadata_do_not_know_are_found(zarr_format: Any, tmp_path: Path) -> None:
    """Labels are added to a store after its metadata were gathered."""
    path = str(tmp_path / "a.zarr")
    zarr.create_group(path, zarr_format=zarr_format).create_array("0", shape=VOLUME.shape, dtype="u1")[:] = VOLUME + 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr warns that format 3 does not know them
        zarr.consolidate_metadata(path)
    labels = zarr.open_group(path, mode="r+", use_consolidated=False).create_group("labels")
    labels.create_array("mito", shape=VOLUME.shape, dtype="u1")[:] = VOLUME

    image = open_image(tmp_path / "a.zarr", inner="labels/mito", is_label=True)

    np.testing.assert_array_equal(image.read()[0], VOLUME)
    with pytest.raises(ImageReadError, match=r"holds several arrays: 0 \(6, 20, 30\), labels/mito \(6, 20, 30\)"):
        open_image(tmp_path / "a.zarr")


def test_of_many_arrays_the_first_are_listed(tmp_path: Path) -> None:
    """A plate has hundreds."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for number in range(30):
            file[f"{number:02d}"] = VOLUME[0]

    for inner in (None, "gone"):
        with pytest.raises(ImageReadError, match=r"09 \(20, 30\) and 20 more\n"):
            open_image(tmp_path / "a.h5", inner=inner)


def test_a_nifti_of_two_files_is_named_for_what_it_is(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Pair(VOLUME, np.eye(4)), tmp_path / "a.hdr")

    with pytest.raises(ImageReadError, match=r"a\.hdr: only the header of a NIfTI that is stored in two files"):
        open_image(tmp_path / "a.hdr")


@pytest.mark.parametrize("inner", ["", "raw"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_codec_that_is_not_installed_is_named(zarr_format: Any, inner: str, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    if inner:
        zarr.create_group(str(path), zarr_format=zarr_format)
    zarr.create_array(str(path / inner), shape=VOLUME.shape, dtype="u1", zarr_format=zarr_format)[:] = VOLUME
    file = path / inner / (".zarray" if zarr_format == 2 else "zarr.json")
    metadata = json.loads(file.read_text())
    if zarr_format == 2:
        metadata["compressor"] = {"id": "jpegxl", "level": 1}
    else:
        metadata["codecs"][1] = {"name": "jpegxl", "configuration": {}}
    file.write_text(json.dumps(metadata))

    with pytest.raises(ImageReadError, match=r"compressed with the codec jpegxl, which is not installed here"):
        open_image(path, inner=inner or None)


def test_types_that_numpy_does_not_know_do_not_make_an_hdf5_unreadable(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = VOLUME
        file["raw"].attrs["axes"] = "zyx"
        h5py.h5a.create(file["raw"].id, b"when", h5py.h5t.UNIX_D32LE, h5py.h5s.create(h5py.h5s.SCALAR))
        h5py.h5d.create(file.id, b"times", h5py.h5t.UNIX_D32LE, h5py.h5s.create_simple((4, 4)))

    image = open_image(tmp_path / "a.h5")

    assert (image.inner, image.axes_reason) == ("raw", "metadata")
    np.testing.assert_array_equal(image.read()[0], VOLUME)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_other_files_in_a_store_are_no_matter(zarr_format: Any, tmp_path: Path) -> None:
    """What a Mac and people leave there; zarr would warn of each on the terminal."""
    path = tmp_path / "a.zarr"
    group = zarr.create_group(str(path), zarr_format=zarr_format).create_group("volumes")
    group.create_array("raw", shape=VOLUME.shape, dtype="u1")[:] = VOLUME
    (path / "notes").mkdir()
    for file in (".DS_Store", "._volumes", "readme.txt", "notes/today.txt", "volumes/.DS_Store", "volumes/raw/.DS_Store"):
        (path / file).write_text("x")
    (path / "volumes/round").symlink_to(path)

    with pytest.raises(ImageReadError, match="holds several arrays: volumes/raw"):
        open_image(path)
    (path / "volumes/round").unlink()
    image = open_image(path)

    assert image.inner == "volumes/raw"
    np.testing.assert_array_equal(image.read()[0], VOLUME)


@pytest.mark.parametrize(("field", "value"), [("srow_x", 0.0), ("srow_x", np.nan), ("srow_x", np.inf), ("quatern_b", 2.0)])
def test_a_damaged_orientation_does_not_make_a_nifti_unreadable(field: str, value: float, tmp_path: Path) -> None:
    header = nibabel.Nifti1Image(VOLUME, np.eye(4)).header
    if field == "quatern_b":
        header["qform_code"], header["sform_code"] = 1, 0
        header["quatern_c"] = value
    header[field] = value
    (tmp_path / "a.nii").write_bytes(header.binaryblock + bytes(4) + VOLUME.tobytes(order="F"))

    image = open_image(tmp_path / "a.nii")

    assert image.orientation == ""
    np.testing.assert_array_equal(image.read()[0].T, VOLUME)


def test_colours_of_a_nifti_are_to_be_saved_as_channels(tmp_path: Path) -> None:
    colours = np.zeros((8, 9, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), tmp_path / "a.nii")

    with pytest.raises(ImageReadError, match=r"are not supported.*\n    -> save R and G and B as channels"):
        open_image(tmp_path / "a.nii")


@pytest.mark.parametrize("inner", ["", "raw"])
@pytest.mark.parametrize("separator", [".", "/"])
def test_chunks_under_other_names_than_the_metadata_say_are_no_black_image(separator: Any, inner: str, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    zarr.create_group(str(path), zarr_format=2)
    encoding: Any = {"name": "v2", "separator": separator}
    options: Any = {"shape": VOLUME.shape, "chunks": (2, 20, 30), "dtype": "u1", "zarr_format": 2}
    array = zarr.create_array(str(path / inner), chunk_key_encoding=encoding, overwrite=True, **options)
    array[:] = VOLUME
    np.testing.assert_array_equal(open_image(path).read()[0], VOLUME)
    file = path / inner / ".zarray"
    metadata = json.loads(file.read_text())
    metadata.pop("dimension_separator")
    if separator == ".":
        metadata["dimension_separator"] = "/"
    file.write_text(json.dumps(metadata))

    with pytest.raises(ImageReadError, match=rf"-> write \"dimension_separator\": \"{re.escape(separator)}\" there"):
        open_image(path)

    file.write_text(json.dumps({**metadata, "dimension_separator": separator}))
    np.testing.assert_array_equal(open_image(path).read()[0], VOLUME)


@pytest.mark.parametrize(("written", "note"), [(6, ()), (2, ("2 of 3 chunks are not stored and read as the fill value 7",))])
def test_chunks_that_an_hdf5_does_not_store_are_said(written: int, note: tuple[str, ...], tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("raw", VOLUME.shape, "u1", chunks=(2, 20, 30), fillvalue=7)
        dataset[:written] = VOLUME[:written]
        dataset.attrs["axes"] = "zyx"

    image = open_image(tmp_path / "a.h5")

    assert image.notes == note
    assert (image.read()[0, written:] == 7).all()


def test_an_hdf5_of_which_nothing_was_written_is_said(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", (40, 50), "u1")

    assert open_image(tmp_path / "a.h5").notes == ("no pixel of it is stored: all read as the fill value 0",)


def test_missing_files_of_a_virtual_dataset_are_no_black_image(tmp_path: Path) -> None:
    layout = h5py.VirtualLayout((2, 20, 30), "u1")
    for number in range(2):
        with h5py.File(tmp_path / f"part{number}.h5", "w") as file:
            file["data"] = VOLUME[number]
        layout[number] = h5py.VirtualSource(f"part{number}.h5", "data", (20, 30))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("raw", layout)

    image = open_image(tmp_path / "a.h5", ndim=3)
    assert lies_in_several_files(image.notes)
    np.testing.assert_array_equal(image.read()[0], VOLUME[:2])

    (tmp_path / "part1.h5").unlink()
    with pytest.raises(ImageReadError, match=r"lie in other files, of which part1\.h5 is not here\n    -> copy all files"):
        open_image(tmp_path / "a.h5", ndim=3)
