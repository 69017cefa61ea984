"""TIFF of every kind: OME, ImageJ, compressed, tiled, planar, big; only the needed strips and tiles are decoded.

tifffile parses the file and imagecodecs decodes; here are the checks before anything is allocated, the axes, and the
reading by region.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from tifffile import TiffFile

from crista.geometry.axes import Array
from crista.images.stored import (
    SEVERAL_FILES,
    MappedPixels,
    Stored,
    WholePixels,
    check_claimed_size,
    decoding_errors,
    note_on_pieces,
    num_bytes,
    read_error,
)
from crista.images.tiff_pages import TiffPages, segment_bytes, segment_grid, split_axes
from crista.images.tiff_spacing import read_tiff_spacing

# tifffile logs what it repairs; what matters to the user becomes a note or an error here.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

BEST_COMPRESSION = {1: 1.0, 5: 4096.0, 8: 1100.0, 32946: 1100.0, 32773: 64.0}
"""Most bytes of pixels per byte of file: none, LZW, deflate (both tags), PackBits. A header that claims more is wrong."""

BEST_OTHER_COMPRESSION = 65536.0
"""The same for every other codec; zstd and LZMA squeeze constant images to almost nothing."""


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
        split = split_axes(shape, keyframe.shaped, len(series.pages))
        is_plain = not series.is_multifile and series.transform is None
        source: MappedPixels | TiffPages | WholePixels
        chunks = None
        if is_plain and series.dataoffset is not None:
            dtype = np.dtype(tif.byteorder + series.dtype.char)
            source = MappedPixels(path, series.dataoffset, shape, dtype)
        elif is_plain and split is not None:
            source, chunks = TiffPages(path, shape, series.dtype, split), split.chunks_of(shape, keyframe)
            notes += note_on_pieces("tiles" if keyframe.is_tiled else "strips", segment_bytes(keyframe))
        else:
            # Of several files, transformed by its metadata, or with axes that pages do not tell apart.
            source = WholePixels(path, _decode_series)
            notes += note_on_pieces("one piece", num_bytes(shape, series.dtype))
        stored = Stored(shape, series.dtype, axes, source, read_tiff_spacing(tif, series), notes, chunks=chunks)
        return _without_alpha(stored, keyframe)


def _check_page_chain(path: Path, tif: TiffFile) -> None:
    """Follow the chain of page headers to its end; tifffile takes a broken chain for a shorter stack."""
    form, file, size = tif.tiff, tif.filehandle, path.stat().st_size
    if tif.is_ndpi:
        return
    offset, seen = tif.pages.first.offset, dict[int, int]()
    while offset and offset not in seen:
        seen[offset] = len(seen) + 1
        file.seek(offset)
        head = file.read(form.tagnosize)
        count = int.from_bytes(head, "little" if form.byteorder == "<" else "big")
        file.seek(offset + form.tagnosize + count * form.tagsize)
        link = file.read(form.offsetsize)
        if len(head) < form.tagnosize or len(link) < form.offsetsize:
            what = f"truncated: the header of page {len(seen)} should lie at byte {offset:,} of {size:,}"
            raise read_error(path, what, "copy or export it again")
        offset = int.from_bytes(link, "little" if form.byteorder == "<" else "big")
    if offset and seen[offset] != len(seen):  # one page that leads to itself is the last one for tifffile; a circle has no end
        what = f"damaged: after page {len(seen)} comes page {seen[offset]} again, so that its pages have no end"
        raise read_error(path, what, "copy or export it again")


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
    if len(tif.series) > 1 and series.kind != "lsm":  # the other series of an LSM are its thumbnails
        notes.append(f"{len(tif.series)} series: the first is used")
    photometric = int(series.keyframe.photometric)
    if photometric == 0 and series.dtype.kind != "b":
        notes.append("photometric MinIsWhite: pixels are used as stored, not inverted")
    if photometric == 3:
        notes.append("the colour table is not applied: pixels are used as stored")
    if series.is_multifile:
        notes.append(SEVERAL_FILES)
    turned = series.keyframe.tags.valueof(274, 1)
    if turned != 1:
        notes.append(f"orientation {turned} (TIFF tag 274) is ignored: pixels are used as stored")
    return tuple(notes)


def _check_size(path: Path, tif: TiffFile, series: Any) -> None:
    """Every strip lies inside the file, and no more pixels are claimed than it can hold."""
    size = path.stat().st_size
    keyframe, pages = series.keyframe, series.pages
    # Others, such as Micro-Manager and Bio-Formats, write a description for ImageJ beside their own: then theirs was read.
    if tif.is_imagej and series.kind == "generic":
        raise read_error(path, "truncated: fewer slices than its ImageJ metadata name", "copy or export it again")
    missing = sum(page is None for page in pages)
    if missing:
        what = f"{missing} of {len(pages)} planes are missing (truncated, or they lie in files that are not here)"
        raise read_error(path, what, "copy all files of the set, or export one file per image")
    if series.is_multifile:
        return
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
    expected = prod(segment_grid(page.keyframe))
    if len(page.dataoffsets) < expected:
        what = f"size does not fit the file: {len(page.dataoffsets)} strips or tiles of {expected}"
        raise read_error(path, what, "its header is damaged: export it again")
    end = max((offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)), default=0)
    if end > size:
        what = f"truncated: pixels should reach to byte {end:,}, the file has {size:,}"
        raise read_error(path, what, "copy or export it again")


def _without_alpha(stored: Stored, keyframe: Any) -> Stored:
    """RGBA as RGB and grey with alpha as grey, so that a picture gives the same numbers as TIFF and as PNG.

    Four separate planes stay four channels: old versions of tifffile called any four planes a picture with alpha.
    """
    extra = tuple(int(value) for value in keyframe.extrasamples)
    position = stored.axes.find("C")
    is_picture = int(keyframe.photometric) in (1, 2) and int(keyframe.planarconfig) == 1 and extra in ((1,), (2,))
    if not is_picture or position < 0 or stored.shape[position] != keyframe.samplesperpixel:
        return stored
    shape = tuple(n - 1 if i == position else n for i, n in enumerate(stored.shape))
    notes = (*stored.notes, "the alpha channel is dropped")
    return replace(stored, shape=shape, notes=notes)


def _decode_series(path: Path) -> Array:
    with decoding_errors(path), TiffFile(path) as tif:
        pixels: Array = tif.series[0].asarray()
        return pixels
