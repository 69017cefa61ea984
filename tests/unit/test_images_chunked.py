"""Reading by region: equal to the whole however it is cut, nothing decoded twice, memory as large as the region."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import tensorstore
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image as Picture

from crista.errors import ImageReadError
from crista.images import chunked, tiff_pages, zarr_store
from crista.images.atomic import remove_folder
from crista.images.chunked import ChunkGrid, read_through_cache
from crista.images.image import Image
from crista.images.open import open_image
from crista.images.open_files import DecodedCache

Volume = NDArray[np.uint16]


def _zarr(zarr_format: int, **options: object) -> Callable[[Path, Volume], object]:
    def write(path: Path, pixels: Volume) -> None:
        array = zarr.create_array(str(path), shape=pixels.shape, dtype=pixels.dtype, zarr_format=zarr_format, **options)
        array[:] = pixels

    return write


def _hdf5(**options: object) -> Callable[[Path, Volume], object]:
    def write(path: Path, pixels: Volume) -> None:
        with h5py.File(path, "w") as file:
            file.create_dataset("a", data=pixels, **options)

    return write


def _tiff(**options: object) -> Callable[[Path, Volume], object]:
    options = {"photometric": "minisblack", "metadata": {"axes": "ZYX"}, **options}
    return lambda path, pixels: tifffile.imwrite(path, pixels, **options)


def _n5(chunks: tuple[int, ...]) -> Callable[[Path, Volume], object]:
    def write(path: Path, pixels: Volume) -> None:
        metadata = {"dimensions": pixels.shape[::-1], "blockSize": chunks[::-1], "dataType": "uint16"}
        spec = {"driver": "n5", "kvstore": {"driver": "file", "path": str(path)}, "metadata": metadata}
        tensorstore.open(spec, create=True).result()[...] = pixels.T

    return write


def _writers(chunks: tuple[int, int, int]) -> dict[str, Callable[[Path, Volume], object]]:
    return {
        "v2.zarr": _zarr(2, chunks=chunks),
        "v3.zarr": _zarr(3, chunks=chunks),
        "sharded.zarr": _zarr(3, chunks=chunks, shards=tuple(2 * n for n in chunks)),
        "chunked.h5": _hdf5(chunks=chunks, compression="gzip"),
        "contiguous.h5": _hdf5(),
        "tiled.tif": _tiff(tile=chunks[1:], compression="zlib", bigtiff=True),
        "strips.tif": _tiff(rowsperstrip=5, compression="zlib"),
        "plain.tif": _tiff(),
        "a.n5": _n5(chunks),
        "a.npy": np.save,
    }


CHUNKS = (16, 16, 32)
WRITERS = _writers(CHUNKS)


@pytest.fixture
def small_cache(monkeypatch: pytest.MonkeyPatch) -> DecodedCache:
    cache = DecodedCache(budget=2**18)
    monkeypatch.setattr("crista.images.chunked.DECODED", cache)
    monkeypatch.setattr("crista.images.tiff_pages.DECODED", cache)
    return cache


@pytest.mark.parametrize("name", list(WRITERS))
def test_any_region_is_that_of_the_whole(name: str, small_cache: DecodedCache, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 5000, (50, 70, 90), dtype=np.uint16)
    WRITERS[name](tmp_path / name, pixels)
    image = open_image(tmp_path / name, ndim=3)

    for _ in range(60):
        ends = [sorted(random.integers(0, n + 1, 2)) for n in pixels.shape]
        region = tuple(slice(int(low), int(high)) for low, high in ends)
        part = image.read(region)
        np.testing.assert_array_equal(part[0], pixels[region])
        # What was read belongs to the caller: the cache must not notice.
        part[...] = 7


@pytest.mark.parametrize("name", ["tiled.tif", "strips.tif"])
def test_strips_and_tiles_decoded_side_by_side_are_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crista.images.tiff_pages.WORTH_A_THREAD", 1)
    monkeypatch.setattr("crista.images.tiff_pages.DECODED_TOGETHER", 5000)
    monkeypatch.setattr("crista.images.tiff_pages.os.cpu_count", lambda: 3)
    pixels = np.random.default_rng(0).integers(0, 5000, (9, 70, 90), dtype=np.uint16)
    WRITERS[name](tmp_path / name, pixels)

    image = open_image(tmp_path / name, ndim=3)

    np.testing.assert_array_equal(image.read((slice(2, 7), slice(3, 60), slice(11, 90)))[0], pixels[2:7, 3:60, 11:90])
    np.testing.assert_array_equal(image.read()[0], pixels)


def _grid_reader(
    monkeypatch: pytest.MonkeyPatch, budget: int
) -> tuple[Callable[..., NDArray[np.generic]], list[tuple[int, int]]]:
    pixels = np.arange(400, dtype=np.uint8).reshape(20, 20)
    grid = ChunkGrid((20, 20), (8, 8), pixels.dtype)
    decoded: list[object] = []
    monkeypatch.setattr(chunked, "DECODED", DecodedCache(budget))

    def decode(box: tuple[slice, ...]) -> NDArray[np.generic]:
        decoded.append(tuple((part.start, part.stop) for part in box))
        return pixels[box]

    def read(*ends: tuple[int, int]) -> None:
        region = tuple(slice(*end) for end in ends)
        np.testing.assert_array_equal(read_through_cache("key", grid, region, decode), pixels[region])

    return read, decoded


def test_overlapping_reads_decode_each_chunk_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read, decoded = _grid_reader(monkeypatch, budget=4000)

    read((1, 10), (2, 9))
    read((5, 16), (0, 16))
    read((4, 10), (6, 20))
    read((4, 10), (6, 20))

    # Whole chunks; the third read lacks only the last column; the fourth lacks nothing.
    assert decoded == [((0, 16), (0, 16)), ((0, 16), (16, 20))]


def test_whole_chunks_go_past_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    read, decoded = _grid_reader(monkeypatch, budget=4000)

    read((0, 8), (8, 20))
    read((0, 8), (8, 20))

    assert decoded == [((0, 8), (8, 20))] * 2


def test_large_reads_go_past_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    read, decoded = _grid_reader(monkeypatch, budget=1000)

    read((1, 20), (1, 20))
    read((1, 20), (1, 20))

    assert decoded == [((1, 20), (1, 20))] * 2


def test_tiles_through_flat_chunks_decode_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As most microscopes' converters write OME-Zarr: a slice in each chunk, of which a tile wants a corner."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 64, 64)).astype(np.uint8)
    grid = ChunkGrid(pixels.shape, (1, 64, 64), pixels.dtype)
    cache = DecodedCache(budget=32 * 64 * 64)
    monkeypatch.setattr(chunked, "DECODED", cache)
    decoded: list[int] = []

    def decode(box: tuple[slice, ...]) -> NDArray[np.generic]:
        decoded.append(box[0].stop - box[0].start)
        assert pixels[box].nbytes <= cache.budget // 4
        return pixels[box]

    for y in range(0, 64, 16):
        for x in range(0, 64, 16):
            region = (slice(5, 28), slice(y, y + 16), slice(x, x + 16))
            np.testing.assert_array_equal(read_through_cache("key", grid, region, decode), pixels[region])
    assert sum(decoded) == 23
    assert cache._bytes <= cache.budget


def test_chunks_that_are_large_by_themselves_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    read, decoded = _grid_reader(monkeypatch, budget=100)

    read((1, 3), (2, 4))

    assert decoded == [((1, 3), (2, 4))]


@pytest.mark.parametrize("name", ["v3.zarr", "chunked.h5", "a.n5", "tiled.tif"])
def test_a_file_written_anew_is_read_anew(name: str, tmp_path: Path) -> None:
    for value in (3, 4):
        WRITERS[name](tmp_path / f"new_{name}", np.full((20, 20, 40), value, np.uint16))
        remove_folder(tmp_path / name)
        (tmp_path / f"new_{name}").replace(tmp_path / name)
        assert (open_image(tmp_path / name, ndim=3).read((slice(2, 4),) * 3) == value).all()


MEASURE = """
import json, sys
from pathlib import Path
import numpy as np
from crista.images.open import open_image
from crista.images.open_files import DECODED
DECODED.budget = 2**22
folder, grown = Path(sys.argv[1]), {}

def peak():
    # Not ru_maxrss: that begins with the memory of the parent.
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024

# Every library is loaded, and zarr's threads run, before anything is measured.
for path in sorted(folder.glob("small/*")):
    open_image(path, ndim=3).read()
for path in sorted(folder.glob("large/*")):
    before, image = peak(), open_image(path, ndim=3)
    for start in (0, 20, 60):
        region = tuple(slice(start, start + 64) for _ in range(3))
        assert (image.read(region)[0] == np.arange(start, start + 64, dtype=np.uint16)[:, None, None]).all()
    grown[path.name] = peak() - before
print(json.dumps(grown))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_that_of_the_region_in_every_format(tmp_path: Path) -> None:
    for folder, shape, chunks in (("small", (32, 64, 64), CHUNKS), ("large", (128, 512, 512), (32, 64, 64))):
        (tmp_path / folder).mkdir()
        pixels = np.broadcast_to(np.arange(shape[0], dtype=np.uint16)[:, None, None], shape)
        for name, write in _writers(chunks).items():
            write(tmp_path / folder / name, np.ascontiguousarray(pixels))

    output = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], env=os.environ, check=True, capture_output=True, text=True
    ).stdout

    grown = json.loads(output)
    assert set(grown) == set(WRITERS)
    # The volume has 64 MB, the region half a megabyte; the rest is the cache and what libraries keep. Of files that are
    # mapped, pages of the file that lie around the region are counted too, though the system may take them back.
    mapped = {"a.npy", "plain.tif"}
    assert max(size for name, size in grown.items() if name not in mapped) < 16, grown
    assert max(grown.values()) < 48, grown


def test_pieces_that_can_only_be_decoded_whole_are_pointed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crista.images.stored.LARGE_PIECE", 2**20)
    pixels = np.zeros((2, 800, 1000), np.uint16)
    cases = {
        "strips.tif": (_tiff(compression="zlib", rowsperstrip=800), "strips"),
        "chunk.zarr": (_zarr(3, chunks=(1, 800, 1000)), "chunks"),
        "chunk.h5": (_hdf5(chunks=(1, 800, 1000), compression="gzip"), "chunks"),
    }
    for name, (write, kind) in cases.items():
        write(tmp_path / name, pixels)
        note = f"stored in {kind} of 0.0 GB that can only be decoded whole: reading it takes as much memory"
        assert _notes(open_image(tmp_path / name, ndim=3)) == [note]
    for name in ("a.nii.gz", "a.nii"):
        nibabel.save(nibabel.Nifti1Image(pixels[:1].T, np.eye(4)), tmp_path / name)
    Picture.fromarray(pixels[0]).save(tmp_path / "a.png")
    for name, notes in {"a.nii.gz": 1, "a.png": 1, "a.nii": 0}.items():
        expected = ["stored in one piece of 0.0 GB that can only be decoded whole"] * notes
        assert [note.partition(":")[0] for note in _notes(open_image(tmp_path / name, ndim=2))] == expected
    _tiff(compression="zlib", rowsperstrip=100)(tmp_path / "fine.tif", pixels)
    assert _notes(open_image(tmp_path / "fine.tif", ndim=3)) == []


def _notes(image: Image) -> list[str]:
    return [note for note in image.notes if note.startswith("stored in")]


def test_chunks_written_anew_are_read_anew_by_who_opens_the_store_again(tmp_path: Path) -> None:
    """Their metadata do not change; only what was opened before may show what it decoded before."""
    stored = zarr.open_array(str(tmp_path / "a.zarr"), mode="w", shape=(64, 64), chunks=(32, 32), dtype="uint8")
    region = (slice(3, 40), slice(5, 50))
    stored[:] = 1
    assert (open_image(tmp_path / "a.zarr", ndim=2).read(region) == 1).all()
    stored[:] = 2
    assert (open_image(tmp_path / "a.zarr", ndim=2).read(region) == 2).all()


@pytest.mark.parametrize("name", ["zarr", "tiff"])
def test_a_full_memory_is_not_taken_for_a_damaged_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under `ulimit -v` it is the reading of a chunk, in the middle of a volume, that gets no more memory."""
    volume = np.arange(6 * 20 * 20, dtype=np.uint16).reshape(6, 20, 20)
    path = tmp_path / ("a.zarr" if name == "zarr" else "a.tif")
    (_zarr(2) if name == "zarr" else _tiff(compression="zlib"))(path, volume)

    def full(*_: object) -> None:
        raise MemoryError("Unable to allocate 4.00 MiB for an array")

    monkeypatch.setattr(zarr_store, "read_through_cache", full)
    monkeypatch.setattr(tiff_pages, "decode_segment", full)
    with pytest.raises(
        ImageReadError, match=r"(?s)a\.(zarr|tif): no memory left to read .*4\.00 MiB.*ulimit -v.*TEST\.MAX_MEMORY"
    ):
        open_image(path, ndim=3).read()
