"""What every reader hands over: the pixels as they are stored, not yet named for a task."""

from __future__ import annotations

import errno
import lzma
import re
import struct
import tokenize
import zlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path

import numpy as np

from crista.errors import ImageReadError
from crista.geometry.axes import Array, Region
from crista.geometry.spacing import spacing_from_units
from crista.images.image import PixelSource
from crista.images.open_files import DECODED, file_version

DECODING_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    SyntaxError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    tokenize.TokenError,
)
"""What decoders raise on damaged files; Pillow even raises SyntaxError for a PNG, and NumPy TokenError for a header."""

READING_ERRORS: tuple[type[Exception], ...] = (MemoryError, *DECODING_ERRORS)

_UNKNOWN_WAY = re.compile(r"not supported|unsupported|not implemented", re.IGNORECASE)
"""What decoders say of sound files that they cannot decode."""


@dataclass(frozen=True)
class Stored:
    """One stored array and what its file says about it."""

    shape: tuple[int, ...]
    """Stored shape."""
    dtype: np.dtype
    """Stored dtype, in any byte order."""
    axes: str
    """One letter per axis; ``?`` where the file does not say."""
    source: PixelSource = field(repr=False)
    """Reads a region of `shape`."""
    spacing: Mapping[str, float] = field(default_factory=dict)
    """Voxel size in micrometres by axis letter, as far as the file says."""
    notes: tuple[str, ...] = ()
    """What the user has to be told."""
    inner: str | None = None
    """Path inside a Zarr, N5 or HDF5 file."""
    chunks: tuple[int, ...] | None = None
    """Stored values that are decoded as one, along each axis; None where any region costs what it holds."""
    orientation: str = ""
    """Of a NIfTI, where its header says: which way x, y and z run in the body, e.g. ``RAS``."""


MAPPED_BYTES = 2**28
"""Of a file that are mapped at a time, where rows allow: under ``ulimit -v`` what is mapped counts, touched or not."""


@dataclass(frozen=True)
class MappedPixels:
    """Uncompressed pixels in one piece of a file; a region is read through a memory map."""

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype
    order: str = "C"

    def read(self, region: Region) -> Array:
        """The pixels of `region`, copied out of the map."""
        is_turned = self.order == "F"
        shape, box = (self.shape[::-1], region[::-1]) if is_turned else (self.shape, region)
        pixels = np.empty(tuple(part.stop - part.start for part in box), self.dtype)
        with decoding_errors(self.path):
            self._copy(pixels, shape, box, self.offset)
        return pixels.T if is_turned else pixels

    def _copy(self, pixels: Array, shape: tuple[int, ...], box: Region, offset: int) -> None:
        """Fill `pixels` with the `box` of an array that begins at `offset`, a part along its first axis after the other."""
        first, *rest = box
        step = num_bytes(shape[1:], self.dtype)
        if step > MAPPED_BYTES and rest:
            for place in range(first.start, first.stop):
                self._copy(pixels[place - first.start], shape[1:], tuple(rest), offset + place * step)
            return
        length = max(1, MAPPED_BYTES // max(1, step))
        for start in range(first.start, first.stop, length):
            stop = min(start + length, first.stop)
            part = (stop - start, *shape[1:])
            mapped = np.memmap(self.path, dtype=self.dtype, mode="r", offset=offset + start * step, shape=part)
            pixels[start - first.start : stop - first.start] = mapped[(slice(None), *rest)]


@dataclass(frozen=True)
class WholePixels:
    """Pixels that can only be decoded as a whole; those decoded last stay at hand."""

    path: Path
    decode: Callable[..., Array]
    """All pixels, from the path and `args`; a function of a module, so that it can go to another process."""
    args: tuple[Hashable, ...] = ()

    def read(self, region: Region) -> Array:
        """A copy of the pixels of `region`."""
        key = (file_version(self.path), self.decode, self.args)
        return np.array(DECODED.get(key, partial(self.decode, self.path, *self.args))[region])


def micrometres_by_axis(letters: str, sizes: Sequence[float], units: str | Sequence[str]) -> dict[str, float]:
    """Voxel sizes as `Stored.spacing`: those of the axes in space whose unit is a length; none if the lengths do not agree."""
    named = (units,) * len(sizes) if isinstance(units, str) else units
    spacing: dict[str, float] = {}
    if len(letters) == len(sizes) == len(named):
        for letter, size, unit in zip(letters.upper(), sizes, named, strict=True):
            converted = spacing_from_units((float(size),), (str(unit),)) if letter in "XYZ" else None
            if converted is not None:
                spacing[letter] = converted.values[0]
    return spacing


def read_error(path: Path, what: str, next_step: str = "") -> ImageReadError:
    """The error for a file: which, what was seen, what to do."""
    return ImageReadError(f"{path}: {what}" + (f"\n    -> {next_step}" if next_step else ""))


@contextmanager
def decoding_errors(path: Path, part: str = "") -> Iterator[None]:
    """Turn whatever a decoder raises inside the block into an `ImageReadError` that names the file (and `part`)."""
    try:
        yield
    except ImageReadError:
        raise
    except FileNotFoundError as error:
        raise read_error(path, "no such file (missing)", "it was there when the run began: restore it") from error
    except PermissionError as error:
        raise read_error(path, "no permission to read it", "change its permissions (chmod +r)") from error
    except READING_ERRORS as error:
        raise _explained(path, part, error) from error


def _explained(path: Path, part: str, error: Exception) -> ImageReadError:
    """What a decoder raises, in words."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        reason = str(error).partition("\n")[0][:300] or "MemoryError"
        what = f"no memory left to read {part or 'it'} ({reason})"
        next_step = (
            "close other programs, allow this one more (ulimit -v, the memory of the job), or lower TEST.MAX_MEMORY; with memory "
            "to spare, the file is damaged and claims a size that it does not have"
        )
        return read_error(path, what, next_step)
    where = f"{part} cannot be decoded" if part else "cannot be decoded"
    reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
    next_step = "the file is truncated or damaged: copy or export it again"
    if _UNKNOWN_WAY.search(reason):
        next_step = "it is stored in a way that is not known here: export it again, e.g. without compression"
    return read_error(path, f"{where} ({reason})", next_step)


def check_claimed_size(path: Path, claimed: int, available: int, max_ratio: float) -> None:
    """Refuse a header that claims more bytes of pixels than the file can hold, before anything is allocated.

    Parameters
    ----------
    claimed : bytes of pixels that the header names
    available : bytes of the file
    max_ratio : the best compression that the codec can reach, 1 for uncompressed pixels

    Raises
    ------
    ImageReadError
        If `claimed` exceeds `available` × `max_ratio`.
    """
    if claimed < 0 or claimed > available * max_ratio:
        raise read_error(
            path,
            f"size does not fit the file: its header claims {claimed:,} bytes of pixels, the file has {available:,} bytes",
            "the file is truncated or its header is damaged: copy or export it again",
        )


LARGE_PIECE = 2**28
"""Pieces that are decoded as one are pointed out above so many bytes: reading by region saves no memory below them."""


def note_on_pieces(kind: str, piece_bytes: int) -> tuple[str, ...]:
    """What to tell of an image whose strips, tiles or chunks (`kind`) can only be decoded whole, if they are large."""
    if piece_bytes <= LARGE_PIECE:
        return ()
    return (f"stored in {kind} of {piece_bytes / 2**30:.1f} GB that can only be decoded whole: reading it takes as much memory",)


def note_on_missing(kind: str, stored: int, expected: int, fill: object) -> tuple[str, ...]:
    """What to tell of an image of which not all chunks (`kind`) are stored."""
    if stored >= expected:
        return ()
    return (f"{expected - stored} of {expected} {kind} are not stored and read as the fill value {fill}",)


SEVERAL_FILES = "its OME metadata joins several files into one image"
VIRTUAL = "its pixels lie in other files"
"""The notes of images that are more than the file at their path: OME-TIFF and HDF5."""


def lies_in_several_files(notes: Sequence[str]) -> bool:
    """Whether an image with these notes is more than the file at its path."""
    return SEVERAL_FILES in notes or VIRTUAL in notes


def num_bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Bytes of an array, as a Python integer that cannot overflow."""
    return prod(shape) * dtype.itemsize
