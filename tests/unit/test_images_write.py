"""What `write_image` puts under a name: a whole TIFF that reads back the same, or nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from crista.geometry.axes import to_canonical
from crista.geometry.spacing import Spacing
from crista.images import write
from crista.images.atomic import aside
from crista.images.open import open_image
from crista.images.write import write_image

SHAPES = {"YX": (21, 30), "CYX": (3, 21, 30), "ZYX": (5, 21, 30), "CZYX": (2, 5, 21, 30), "XYZ": (30, 21, 5)}


@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "int32", "float64"])
@pytest.mark.parametrize("axes", SHAPES)
def test_what_is_written_is_read(axes: str, dtype: str, is_large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if is_large:
        monkeypatch.setattr(write, "MAX_IMAGEJ_BYTES", 100)
    array = (np.random.default_rng(0).random(SHAPES[axes]) * 255).astype(dtype)
    ndim = 3 if "Z" in axes else 2
    spacing = Spacing((0.05, 0.0092, 0.0093)[-ndim:])

    write_image(tmp_path / "a.tif", array, axes, spacing=spacing)

    image = open_image(tmp_path / "a.tif", ndim=ndim)
    assert (set(image.axes), image.dtype, image.notes) == (set(axes), np.dtype(dtype), ())
    assert image.axes_reason == "metadata"
    assert image.spacing is not None
    assert image.spacing.values == pytest.approx(spacing.values, rel=1e-7)
    np.testing.assert_array_equal(image.read(), to_canonical(array, axes, ndim))


@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ("YX", (20, 1)),
        ("YX", (1, 20)),
        ("YX", (1, 1)),
        ("YX", (20, 3)),
        ("ZYX", (5, 20, 1)),
        ("ZYX", (5, 1, 20)),
        ("CYX", (2, 20, 1)),
    ],
)
def test_images_of_one_row_or_column_keep_their_sides(
    axes: str, shape: tuple[int, ...], is_large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tifffile takes a last axis of length 1 for samples: a column became a row."""
    if is_large:
        monkeypatch.setattr(write, "MAX_IMAGEJ_BYTES", 0)
    array = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    write_image(tmp_path / "a.tif", array, axes)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert (file.pages[0].imagelength, file.pages[0].imagewidth) == shape[-2:]
    image = open_image(tmp_path / "a.tif", ndim=3 if "Z" in axes else 2)
    np.testing.assert_array_equal(image.read().reshape(shape), array)


@pytest.mark.parametrize(
    ("name", "dtype", "limit", "kind", "is_big"),
    [
        ("a.tif", "uint8", 10**9, "imagej", False),
        ("a.tif", "float32", 10**9, "imagej", False),
        ("a.tif", "uint8", 1000, "ome", True),
        ("a.tif", "int32", 10**9, "ome", False),
        ("a.ome.tif", "uint8", 10**9, "ome", False),
    ],
)
def test_hyperstack_or_ome(
    name: str, dtype: str, limit: int, kind: str, is_big: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "MAX_IMAGEJ_BYTES", limit)

    write_image(tmp_path / name, np.zeros((2, 5, 21, 30), dtype), "CZYX")

    with tifffile.TiffFile(tmp_path / name) as tif:
        assert (tif.is_imagej, tif.is_ome, tif.is_bigtiff) == (kind == "imagej", kind == "ome", is_big)
        assert tif.pages.first.compression in (8, 32946)


def test_a_plane_that_java_cannot_hold_goes_to_ome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "MAX_IMAGEJ_PLANE_BYTES", 100)

    write_image(tmp_path / "a.tif", np.zeros((21, 30), np.uint8), "YX")

    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.is_ome


@pytest.mark.parametrize(("dtype", "written"), [("bool", "uint8"), ("float16", "float32"), (">u2", "uint16")])
def test_types_that_fiji_does_not_know_are_widened(dtype: str, written: str, tmp_path: Path) -> None:
    array = (np.arange(630).reshape(21, 30) % 2).astype(dtype)

    write_image(tmp_path / "a.tif", array, "YX")

    image = open_image(tmp_path / "a.tif")
    assert image.dtype == np.dtype(written)
    np.testing.assert_array_equal(image.read()[0], array)


class _Counted:
    """An array that notes how much of it is asked for at once."""

    shape = (2, 5, 21, 30)
    dtype = np.dtype(np.uint8)

    def __init__(self) -> None:
        self.largest = 0

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        part = np.zeros(self.shape, self.dtype)[index]
        self.largest = max(self.largest, part.size)
        return part


def test_planes_are_streamed_one_by_one(tmp_path: Path) -> None:
    array = _Counted()

    write_image(tmp_path / "a.tif", array, "CZYX")

    assert array.largest == 21 * 30


def test_a_memory_map_is_written(tmp_path: Path) -> None:
    mapped = np.lib.format.open_memmap(tmp_path / "a.npy", mode="w+", dtype=np.uint8, shape=(5, 21, 30))
    mapped[:] = 3

    write_image(tmp_path / "a.tif", mapped, "ZYX")

    assert open_image(tmp_path / "a.tif").read().min() == 3


class _Failing(_Counted):
    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        if index[1] == slice(3, 4):
            raise RuntimeError("no more pixels")
        return super().__getitem__(index)


def test_a_failed_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write_image(path, np.full((21, 30), 7, np.uint8), "YX")

    with pytest.raises(RuntimeError, match="no more pixels"):
        write_image(path, _Failing(), "CZYX")

    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]
    assert open_image(path).read().min() == 7


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    """Two machines: the numbers of their processes may be equal, those of this test are."""
    path = tmp_path / "a.txt"
    with aside(path) as one, aside(path) as other:
        one.write_text("whole")
        other.write_text("whole")
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_a_kill_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    script = f"""
        import os, signal
        import numpy as np
        from pathlib import Path
        from crista.images.write import write_image

        class Killed:
            shape, dtype = (5, 21, 30), np.dtype(np.uint8)
            def __getitem__(self, index):
                if index[0] == slice(3, 4):
                    os.kill(os.getpid(), signal.SIGKILL)
                return np.zeros((1, 21, 30), np.uint8)

        write_image(Path({str(tmp_path / "a.tif")!r}), Killed(), "ZYX")
    """

    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)

    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "a.tif").exists()
    assert all(left.name.startswith(".") for left in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("axes", "dtype", "message"),
    [
        ("ZYX", "uint8", "name 3 axes, the array has 2"),
        ("YY", "uint8", "allowed are T C Z Y X"),
        ("ZY", "uint8", "allowed are T C Z Y X"),
        ("QX", "uint8", "allowed are T C Z Y X"),
        ("YX", "int64", "int64 cannot be written as TIFF for Fiji; convert to one of uint8"),
        ("YX", "complex64", "cannot be written"),
    ],
)
def test_what_cannot_be_written_is_refused(axes: str, dtype: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        write_image(tmp_path / "a.tif", np.zeros((21, 30), dtype), axes)

    assert list(tmp_path.iterdir()) == []


def test_an_empty_array_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="empty image"):
        write_image(tmp_path / "a.tif", np.zeros((0, 30), np.uint8), "YX")


class _Recorded:
    """An array that is only read by index; tells what was asked of it."""

    def __init__(self, array: Any, chunks: tuple[int, ...] | None) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.asked: list[tuple[int, ...]] = []
        if chunks is not None:
            self.chunks = chunks

    def __getitem__(self, index: tuple[slice, ...]) -> Any:
        part = self.array[index]
        self.asked.append(part.shape)
        return part


@pytest.mark.parametrize(
    ("axes", "shape", "chunks", "planes", "asked"),
    [
        # Without chunks plane by plane, the axes in the order of ImageJ: z, then c.
        ("ZYX", (5, 4, 6), None, 99, [(1, 4, 6)] * 5),
        ("CZYX", (2, 3, 4, 6), None, 99, [(1, 1, 4, 6)] * 6),
        # All planes of a chunk together, as many chunks as there is room for.
        ("ZYX", (9, 4, 6), (2, 4, 6), 5, [(4, 4, 6), (4, 4, 6), (1, 4, 6)]),
        ("ZYX", (9, 4, 6), (8, 4, 6), 3, [(3, 4, 6)] * 3),
        ("CZYX", (2, 9, 4, 6), (1, 3, 4, 6), 8, [(2, 3, 4, 6)] * 3),
        ("CZYX", (5, 2, 4, 6), (1, 2, 4, 6), 3, [(3, 1, 4, 6), (2, 1, 4, 6)] * 2),
        ("XYZ", (6, 4, 3), (6, 4, 3), 9, [(6, 4, 3)]),
        ("YX", (4, 6), (2, 2), 9, [(4, 6)]),
    ],
)
def test_planes_that_share_chunks_are_read_together(
    axes: str, shape: Any, chunks: Any, planes: int, asked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "SLAB_BYTES", planes * 4 * 6)
    array = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    source = _Recorded(array, chunks)

    write_image(tmp_path / "a.tif", source, axes)

    assert source.asked == asked
    ndim = 3 if "Z" in axes else 2
    np.testing.assert_array_equal(open_image(tmp_path / "a.tif", ndim=ndim).read(), to_canonical(array, axes, ndim))


class _Generated:
    """64 MB or more of planes that exist only while they are read."""

    dtype = np.dtype(np.float32)

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def __getitem__(self, index: tuple[slice, ...]) -> Any:
        part = np.empty([len(range(*along.indices(n))) for along, n in zip(index, self.shape, strict=True)], np.float32)
        part[...] = index[0].start
        return part


@pytest.mark.parametrize("limit", [2**32, 100])
def test_a_few_planes_are_in_memory(limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "MAX_IMAGEJ_BYTES", limit)
    plane = 256 * 1024 * 4
    source = _Generated((80, 256, 1024))
    write_image(tmp_path / "first.tif", _Generated((2, 256, 1024)), "ZYX")

    tracemalloc.start()
    try:
        write_image(tmp_path / "a.tif", source, "ZYX")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    # 80 planes of 1 MB: two of them, what waits for the threads, and what these make of it.
    assert peak < 2 * write.COMPRESSED_TOGETHER + 4 * plane
    assert (open_image(tmp_path / "a.tif", ndim=3).read((slice(79, 80), slice(0, 9), slice(0, 9))) == 79).all()


@pytest.mark.parametrize("limit", [2**32, 100], ids=["ImageJ", "OME"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(
    ("axes", "shape", "chunks"),
    [
        ("YX", (300, 70), None),
        ("YX", (300, 70), (64, 32)),
        ("YX", (300, 70), (256, 70)),
        ("CZYX", (2, 3, 300, 70), (1, 2, 64, 64)),
        ("XYZ", (70, 300, 3), None),
    ],
)
def test_of_a_large_plane_some_rows_are_in_memory(
    axes: str, shape: Any, chunks: Any, dtype: str, limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slide is one plane, of any size."""
    item = np.dtype(dtype).itemsize
    monkeypatch.setattr(write, "MAX_IMAGEJ_BYTES", limit)
    monkeypatch.setattr(write, "SLAB_BYTES", 100 * 70 * item)
    monkeypatch.setattr(write, "STRIP_BYTES", 20 * 70 * item)
    array = np.random.default_rng(0).integers(0, 255, shape).astype(dtype)
    source = _Recorded(array, chunks)

    write_image(tmp_path / "a.tif", source, axes, spacing=Spacing((0.5,) * (3 if "Z" in axes else 2)))

    assert max(np.prod(part) for part in source.asked) <= 100 * 70
    image = open_image(tmp_path / "a.tif", ndim=3 if "Z" in axes else 2)
    assert image.spacing is not None
    np.testing.assert_array_equal(image.read(), to_canonical(array, axes, image.ndim))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.pages.first.rowsperstrip == 16
        if "C" not in axes:
            np.testing.assert_array_equal(file.asarray().ravel(), to_canonical(array, axes, image.ndim).ravel())
