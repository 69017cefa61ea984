"""TIFF of every kind: OME, ImageJ, compressed, tiled, planar, big; only the needed strips and tiles are decoded.

tifffile parses the file and imagecodecs decodes; here are the checks before anything is allocated, the axes, and the
reading by region.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np
from tifffile import TiffFile

from crista.geometry.axes import Array, Region
from crista.geometry.tiles import shape_of
from crista.images.open_files import DECODED, FILES, file_version
from crista.images.stored import (
    MappedPixels,
    Stored,
    check_claimed_size,
    decoding_errors,
    num_bytes,
    read_error,
)
from crista.images.tiff_spacing import read_tiff_spacing

# tifffile logs what it repairs; what matters to the user becomes a note or an error here.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

BEST_COMPRESSION = {1: 1.0, 5: 4096.0, 8: 1100.0, 32946: 1100.0, 32773: 64.0}
"""Most bytes of pixels per byte of file: none, LZW, deflate (both tags), PackBits. A header that claims more is wrong."""

BEST_OTHER_COMPRESSION = 65536.0
"""The same for every other codec; zstd and LZMA squeeze constant images to almost nothing."""

_JPEG_COMPRESSIONS = (6, 7, 34892, 33007)


def read_tiff_header(path: Path) -> Stored:
    """Describe the first series of a TIFF file.

    Raises
    ------
    ImageReadError
        If the file is truncated, or claims more pixels than it can hold.
    """
    with TiffFile(path) as tif:
        _check_page_chain(path, tif)
        series = tif.series[0]
        keyframe = series.keyframe
        shape, axes = tuple(int(n) for n in series.shape), _letters_of(tif, series, path)
        notes = _notes_on(tif, series)
        _check_size(path, tif, series)
        split = _split_axes(shape, keyframe.shaped, len(series.pages))
        source: MappedPixels | _TiffPages | _WholeTiff
        if series.dataoffset is not None and not series.is_multifile and series.transform is None:
            dtype = np.dtype(tif.byteorder + series.dtype.char)
            source = MappedPixels(path, series.dataoffset, shape, dtype)
        elif split is None or series.is_multifile or series.transform is not None:
            source = _WholeTiff(path)
        else:
            source = _TiffPages(path, shape, series.dtype, split)
        stored = Stored(shape, series.dtype, axes, source, read_tiff_spacing(tif, series), notes)
        return _without_alpha(stored, keyframe)


def _check_page_chain(path: Path, tif: TiffFile) -> None:
    """Follow the chain of page headers to its end; tifffile takes a broken chain for a shorter stack."""
    form, file, size = tif.tiff, tif.filehandle, path.stat().st_size
    if tif.is_ndpi:
        return
    offset, seen = tif.pages.first.offset, set[int]()
    while offset and offset not in seen:
        seen.add(offset)
        file.seek(offset)
        head = file.read(form.tagnosize)
        count = int.from_bytes(head, "little" if form.byteorder == "<" else "big")
        file.seek(offset + form.tagnosize + count * form.tagsize)
        link = file.read(form.offsetsize)
        if len(head) < form.tagnosize or len(link) < form.offsetsize:
            what = f"truncated: the header of page {len(seen)} should lie at byte {offset:,} of {size:,}"
            raise read_error(path, what, "copy or export it again")
        offset = int.from_bytes(link, "little" if form.byteorder == "<" else "big")


def _letters_of(tif: TiffFile, series: Any, path: Path) -> str:
    """Axis letters, ``?`` where the file does not name the axis."""
    axes: str = series.axes
    if series.kind == "shaped" and len(axes) > 2 and "S" not in axes and "axes" not in (tif.shaped_metadata or ({},))[0]:
        # tifffile wrote an array without naming its axes: its last two need not be y and x.
        return "?" * len(axes)
    axes = axes.replace("I", "?").replace("Q", "?")
    if "S" in axes and "C" in axes:
        channels, samples = series.shape[axes.index("C")], series.shape[axes.index("S")]
        if channels > 1 and samples > 1:
            what = f"{channels} channels of {samples} colour samples each (axes {axes}, shape {series.shape})"
            raise read_error(path, what, "split the colours into channels: axes C Z Y X")
        axes = axes.replace("S" if samples == 1 else "C", "?")
    return axes.replace("S", "C")


def _notes_on(tif: TiffFile, series: Any) -> tuple[str, ...]:
    notes = []
    if len(tif.series) > 1:
        notes.append(f"{len(tif.series)} series: the first is used")
    photometric = int(series.keyframe.photometric)
    if photometric == 0 and series.dtype.kind != "b":
        notes.append("photometric MinIsWhite: pixels are used as stored, not inverted")
    if photometric == 3:
        notes.append("the colour table is not applied: pixels are used as stored")
    if series.is_multifile:
        notes.append("its OME metadata joins several files into one image")
    return tuple(notes)


def _check_size(path: Path, tif: TiffFile, series: Any) -> None:
    """Every strip lies inside the file, and no more pixels are claimed than it can hold."""
    size = path.stat().st_size
    keyframe, pages = series.keyframe, series.pages
    if tif.is_imagej and series.kind not in ("imagej", "lsm"):
        raise read_error(path, "truncated: fewer slices than its ImageJ metadata name", "copy or export it again")
    if series.is_multifile:
        return
    if any(page is None for page in pages):
        missing = sum(page is None for page in pages)
        what = f"{missing} of {len(pages)} planes are missing (truncated, or they lie in files that are not here)"
        raise read_error(path, what, "copy all files of the set, or export one file per image")
    if keyframe.dtype is None:
        what = f"pixels of {keyframe.bitspersample} bits in sample format {keyframe.sampleformat} are not supported"
        raise read_error(path, what, "export it with 8, 16 or 32 bits")
    claimed = num_bytes(series.shape, series.dtype) * keyframe.bitspersample // (8 * series.dtype.itemsize)
    ratio = BEST_COMPRESSION.get(int(keyframe.compression), BEST_OTHER_COMPRESSION)
    check_claimed_size(path, claimed, size, ratio)
    if series.dataoffset is None and prod(series.shape) != len(pages) * prod(keyframe.shaped):
        raise read_error(path, f"truncated: shape {series.shape} in {len(pages)} pages", "copy or export it again")
    for page in pages:
        _check_strips(path, page, size)


def _check_strips(path: Path, page: Any, size: int) -> None:
    expected = prod(_segment_grid(page.keyframe))
    if len(page.dataoffsets) < expected:
        what = f"size does not fit the file: {len(page.dataoffsets)} strips or tiles of {expected}"
        raise read_error(path, what, "its header is damaged: export it again")
    end = max((offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)), default=0)
    if end > size:
        what = f"truncated: pixels should reach to byte {end:,}, the file has {size:,}"
        raise read_error(path, what, "copy or export it again")


def _without_alpha(stored: Stored, keyframe: Any) -> Stored:
    """RGBA as RGB, so that a picture gives the same numbers as TIFF and as PNG.

    Four separate planes stay four channels: old versions of tifffile called any four planes a picture with alpha.
    """
    extra = tuple(int(value) for value in keyframe.extrasamples)
    position = stored.axes.find("C")
    is_picture = int(keyframe.photometric) == 2 and int(keyframe.planarconfig) == 1 and extra in ((1,), (2,))
    if not is_picture or position < 0 or stored.shape[position] != keyframe.samplesperpixel:
        return stored
    shape = tuple(n - 1 if i == position else n for i, n in enumerate(stored.shape))
    notes = (*stored.notes, "the alpha channel is dropped")
    return Stored(shape, stored.dtype, stored.axes, stored.source, stored.spacing, notes)


def _segment_grid(keyframe: Any) -> tuple[int, int, int, int]:
    """Number of strips or tiles along (separate sample, depth, length, width)."""
    samples, depth, length, width, _ = keyframe.shaped
    if keyframe.is_tiled:
        tile = keyframe.tiledepth, keyframe.tilelength, keyframe.tilewidth
        return samples, ceil(depth / tile[0]), ceil(length / tile[1]), ceil(width / tile[2])
    return samples, depth, ceil(length / keyframe.rowsperstrip), 1


@dataclass(frozen=True)
class _AxesSplit:
    """How the stored axes fall into pages and the (sample, depth, length, width, sample) of one page."""

    num_lead: int
    """So many leading axes count pages."""
    paged: tuple[int | None, ...]
    """For each other axis its place in the five of a page; None for an axis of length 1."""


def _split_axes(shape: tuple[int, ...], shaped: tuple[int, ...], num_pages: int) -> _AxesSplit | None:
    """The split of `shape`, or None where the axes of a page are reshaped too freely to be told apart."""
    for num_lead in range(len(shape) + 1):
        tail = shape[num_lead:]
        long = [place for place, n in enumerate(shaped) if n > 1]
        if prod(shape[:num_lead]) == num_pages and [n for n in tail if n > 1] == [shaped[place] for place in long]:
            places = iter(long)
            return _AxesSplit(num_lead, tuple(next(places) if n > 1 else None for n in tail))
    return None


@dataclass(frozen=True)
class _TiffPages:
    """Pixels of pages that are compressed, tiled or scattered; strips and tiles outside the region are not decoded."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    split: _AxesSplit

    def read(self, region: Region) -> Array:
        lead, tail = region[: self.split.num_lead], region[self.split.num_lead :]
        box = [slice(0, 1)] * 5
        for place, part in zip(self.split.paged, tail, strict=True):
            if place is not None:
                box[place] = part
        pixels = np.empty((prod(shape_of(lead)), *shape_of(tuple(box))), self.dtype)
        numbers = product(*(range(part.start, part.stop) for part in lead))
        with decoding_errors(self.path), FILES.borrow(self.path, lambda: TiffFile(self.path)) as tif:
            pages = tif.series[0].pages
            for row, position in enumerate(numbers):
                number = int(np.ravel_multi_index(position, self.shape[: self.split.num_lead])) if position else 0
                with decoding_errors(self.path, f"page {number + 1} of {len(pages)}"):
                    self._read_page(pages[number], tuple(box), pixels[row], number)
        return pixels.reshape(shape_of(region))

    def _read_page(self, page: Any, box: Region, out: Array, number: int) -> None:
        version = file_version(self.path)
        for index in _segments_of(page.keyframe, box):
            # Decoding nothing tells where the segment lies.
            _, (sample, *start, _), shape = page.keyframe.decode(None, index)
            segment = DECODED.get((version, number, index), partial(_decode_segment, page, index))
            _paste(segment, (sample, *start), shape, box, out)


def _segments_of(keyframe: Any, box: Region) -> Iterator[int]:
    """Indices of the strips or tiles that `box` touches."""
    grid = _segment_grid(keyframe)
    size = (1, keyframe.tiledepth, keyframe.tilelength, keyframe.tilewidth)
    if not keyframe.is_tiled:
        size = (1, 1, keyframe.rowsperstrip, keyframe.imagewidth)
    touched = [range(part.start // n, ceil(part.stop / n)) for part, n in zip(box[:4], size, strict=True)]
    for position in product(*touched):
        yield int(np.ravel_multi_index(position, grid))


def _decode_segment(page: Any, index: int) -> Array:
    """One strip or tile as (depth, length, width, sample)."""
    keyframe = page.keyframe
    count = page.databytecounts[index]
    _, _, shape = keyframe.decode(None, index)
    if count == 0:
        return np.full(shape, keyframe.nodata, keyframe.dtype)
    file = page.parent.filehandle
    file.seek(page.dataoffsets[index])
    data = file.read(count)
    if len(data) < count:
        raise EOFError(f"strip or tile {index} ends after {len(data)} of {count} bytes")
    tables = {}
    if int(keyframe.compression) in _JPEG_COMPRESSIONS:
        tables = {"jpegtables": page.jpegtables, "jpegheader": keyframe.jpegheader}
    pixels: Array = keyframe.decode(data, index, **tables)[0]
    return pixels


def _paste(segment: Array, start: tuple[int, ...], shape: tuple[int, ...], box: Region, out: Array) -> None:
    """Copy what `segment` and `box` share; `start` is (separate sample, depth, length, width)."""
    sample, *origin = start
    source: list[slice] = []
    target: list[slice | int] = [sample - box[0].start]
    for first, length, available, part in zip(origin, shape[:3], segment.shape[:3], box[1:4], strict=True):
        low, high = max(first, part.start), min(first + min(length, available), part.stop)
        source.append(slice(low - first, high - first))
        target.append(slice(low - part.start, high - part.start))
    out[tuple(target)] = segment[(*source, box[4])]


@dataclass(frozen=True)
class _WholeTiff:
    """A series that can only be decoded as a whole: of several files, or transformed by its metadata."""

    path: Path

    def read(self, region: Region) -> Array:
        return np.array(DECODED.get((file_version(self.path), "whole"), self._decode)[region])

    def _decode(self) -> Array:
        with decoding_errors(self.path), TiffFile(self.path) as tif:
            pixels: Array = tif.series[0].asarray()
            return pixels
