"""TIFF pages that are compressed, tiled or scattered: strips and tiles are decoded only where a region touches them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice, product
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np
from tifffile import TiffFile

from crista.geometry.axes import Array, Region
from crista.geometry.tiles import shape_of
from crista.images.open_files import DECODED, FILES, file_version
from crista.images.regions import overlap
from crista.images.stored import decoding_errors, num_bytes

_JPEG_COMPRESSIONS = (6, 7, 34892, 33007)

DECODED_TOGETHER = 8 * 2**20
"""Bytes of strips or tiles decoded side by side; larger ones are decoded one at a time."""

MAX_THREADS = 4

WORTH_A_THREAD = 2**16
"""Smaller strips and tiles are decoded faster than they are handed to a thread."""


@dataclass(frozen=True)
class AxesSplit:
    """How the stored axes fall into pages and the (sample, depth, length, width, sample) of one page."""

    num_lead: int
    """So many leading axes count pages."""
    paged: tuple[int | None, ...]
    """For each other axis its place in the five of a page; None for an axis of length 1."""

    def chunks_of(self, shape: tuple[int, ...], keyframe: Any) -> tuple[int, ...]:
        """Lengths of one strip or tile along the stored axes of `shape`."""
        size = (*segment_size(keyframe), keyframe.shaped[-1])
        tail = shape[self.num_lead :]
        return (1,) * self.num_lead + tuple(
            1 if place is None else min(size[place], n) for place, n in zip(self.paged, tail, strict=True)
        )


def split_axes(shape: tuple[int, ...], shaped: tuple[int, ...], num_pages: int) -> AxesSplit | None:
    """The split of `shape`, or None where the axes of a page are reshaped too freely to be told apart."""
    for num_lead in range(len(shape) + 1):
        tail = shape[num_lead:]
        long = [place for place, n in enumerate(shaped) if n > 1]
        if prod(shape[:num_lead]) == num_pages and [n for n in tail if n > 1] == [shaped[place] for place in long]:
            places = iter(long)
            return AxesSplit(num_lead, tuple(next(places) if n > 1 else None for n in tail))
    return None


@dataclass(frozen=True)
class TiffPages:
    """Pixels of the pages of one series."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    split: AxesSplit

    def read(self, region: Region) -> Array:
        """The pixels of `region`; strips and tiles outside it are not decoded."""
        lead, tail = region[: self.split.num_lead], region[self.split.num_lead :]
        box = [slice(0, 1)] * 5
        for place, part in zip(self.split.paged, tail, strict=True):
            if place is not None:
                box[place] = part
        pixels = np.empty((prod(shape_of(lead)), *shape_of(tuple(box))), self.dtype)
        with decoding_errors(self.path), FILES.borrow(self.path, lambda: TiffFile(self.path)) as tif:
            pages = _Pages(self.path, tif.series[0].pages)
            wanted = list(self._iter_wanted(lead, tuple(box), pages))
            for (row, _, piece), segment in zip(wanted, pages.iter_segments(wanted), strict=True):
                pixels[row][piece.target] = segment[piece.source]
        return pixels.reshape(shape_of(region))

    def _iter_wanted(self, lead: Region, box: Region, pages: _Pages) -> Iterator[tuple[int, int, _Piece]]:
        """Row of the result, number of the page and piece of it, for all that the region touches."""
        pieces: dict[int, list[_Piece]] = {}
        for row, position in enumerate(product(*(range(part.start, part.stop) for part in lead))):
            number = int(np.ravel_multi_index(position, self.shape[: self.split.num_lead])) if position else 0
            keyframe = pages.pages[number].keyframe
            if keyframe.hash not in pieces:
                pieces[keyframe.hash] = [_piece(keyframe, index, box) for index in _segments_of(keyframe, box)]
            for piece in pieces[keyframe.hash]:
                yield row, number, piece


@dataclass(frozen=True)
class _Piece:
    """What one strip or tile contributes to a box of a page."""

    index: int
    source: tuple[slice, ...]
    """In the segment, (depth, length, width, sample)."""
    target: tuple[slice | int, ...]
    """In the box, (separate sample, depth, length, width, sample)."""
    num_bytes: int
    """Of the decoded segment."""


def _segments_of(keyframe: Any, box: Region) -> Iterator[int]:
    """Indices of the strips or tiles that `box` touches."""
    grid, size = segment_grid(keyframe), segment_size(keyframe)
    touched = [range(part.start // n, ceil(part.stop / n)) for part, n in zip(box[:4], size, strict=True)]
    for position in product(*touched):
        yield int(np.ravel_multi_index(position, grid))


def segment_size(keyframe: Any) -> tuple[int, int, int, int]:
    """Length of a strip or tile along (separate sample, depth, length, width)."""
    if keyframe.is_tiled:
        return 1, keyframe.tiledepth, keyframe.tilelength, keyframe.tilewidth
    return 1, 1, keyframe.rowsperstrip, keyframe.imagewidth


def segment_grid(keyframe: Any) -> tuple[int, int, int, int]:
    """Number of strips or tiles along (separate sample, depth, length, width)."""
    samples, depth, length, width, _ = keyframe.shaped
    _, *size = segment_size(keyframe)
    return samples, ceil(depth / size[0]), ceil(length / size[1]), ceil(width / size[2])


def segment_bytes(keyframe: Any) -> int:
    """Bytes of one decoded strip or tile, of the largest where they differ."""
    shape: tuple[int, ...] = keyframe.decode(None, 0)[2]
    return num_bytes(shape, keyframe.dtype)


def _piece(keyframe: Any, index: int, box: Region) -> _Piece:
    # Decoding nothing tells where the segment lies.
    _, (sample, *start, _), shape = keyframe.decode(None, index)
    segment = tuple(slice(first, first + length) for first, length in zip(start, shape[:3], strict=True))
    source, target = overlap(segment, box[1:4])
    return _Piece(index, (*source, box[4]), (sample - box[0].start, *target), num_bytes(shape, keyframe.dtype))


class _Pages:
    """The pages of an open file, and their segments decoded last."""

    def __init__(self, path: Path, pages: Any) -> None:
        self.path, self.pages = path, pages
        self.version = file_version(path)

    def iter_segments(self, wanted: Iterable[tuple[int, int, _Piece]]) -> Iterator[Array]:
        """The decoded segments in the order of `wanted`; those not at hand are decoded side by side, a few at a time."""
        places = [(number, piece.index) for _, number, piece in wanted]
        largest = max((piece.num_bytes for _, _, piece in wanted), default=1)
        threads = min(MAX_THREADS, os.cpu_count() or 1, len(places))
        if threads < 2 or not self._pays_in_threads(largest):
            for number, index in places:
                yield DECODED.get((self.version, number, index), partial(self._read_and_decode, (number, index)))
            return
        with ThreadPoolExecutor(threads) as pool:
            remaining = iter(places)
            while group := list(islice(remaining, max(1, DECODED_TOGETHER // largest))):
                yield from self._decode_together(pool, group)

    def _pays_in_threads(self, num_bytes: int) -> bool:
        # The tables of JPEG are read from the file when they are asked for, which threads must not do.
        is_jpeg = int(self.pages[0].keyframe.compression) in _JPEG_COMPRESSIONS
        return WORTH_A_THREAD <= num_bytes <= DECODED_TOGETHER // 2 and not is_jpeg

    def _decode_together(self, pool: ThreadPoolExecutor, group: list[tuple[int, int]]) -> list[Array]:
        kept = {place: found for place in group if (found := DECODED.find((self.version, *place))) is not None}
        missing = [place for place in group if place not in kept]
        # Bytes are read here, in turn: the threads share one file position.
        stored = [self._read(number, index) for number, index in missing]
        decoded = dict(zip(missing, pool.map(self._decode, missing, stored), strict=True))
        for place, segment in decoded.items():
            DECODED.keep((self.version, *place), segment)
        return [(kept | decoded)[place] for place in group]

    def _read(self, number: int, index: int) -> bytes:
        """The stored bytes of one strip or tile; none where it was left out of the file."""
        page = self.pages[number]
        file, count = page.parent.filehandle, page.databytecounts[index]
        file.seek(page.dataoffsets[index])
        data: bytes = file.read(count)
        if len(data) < count:
            with decoding_errors(self.path, f"page {number + 1} of {len(self.pages)}"):
                raise EOFError(f"strip or tile {index} ends after {len(data)} of {count} bytes")
        return data

    def _decode(self, place: tuple[int, int], data: bytes) -> Array:
        number, index = place
        with decoding_errors(self.path, f"page {number + 1} of {len(self.pages)}"):
            return decode_segment(self.pages[number], index, data)

    def _read_and_decode(self, place: tuple[int, int]) -> Array:
        return self._decode(place, self._read(*place))


def decode_segment(page: Any, index: int, data: bytes) -> Array:
    """One strip or tile as (depth, length, width, sample)."""
    keyframe = page.keyframe
    if not data:
        return np.full(keyframe.decode(None, index)[2], keyframe.nodata, keyframe.dtype)
    tables = {}
    if int(keyframe.compression) in _JPEG_COMPRESSIONS:
        tables = {"jpegtables": page.jpegtables, "jpegheader": keyframe.jpegheader}
    pixels: Array = keyframe.decode(data, index, **tables)[0]
    return pixels
