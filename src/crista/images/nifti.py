"""NIfTI: stored x, y, z (channels), scaled by its header, voxel size in micrometres."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling

from crista.geometry.axes import Array, Region
from crista.images.image import PixelSource
from crista.images.stored import (
    MappedPixels,
    Stored,
    WholePixels,
    check_claimed_size,
    decoding_errors,
    micrometres_by_axis,
    note_on_pieces,
    num_bytes,
    read_error,
)

BEST_COMPRESSION = 1100.0
"""Most bytes of pixels per byte of a gzip file: deflate reaches 1032."""

_AXES = {2: "XY", 3: "XYZ", 4: "XYZC"}
_NO_UNIT = "unknown"
RESOLUTION_KEY = "set DATA.TRAIN.RESOLUTION (DATA.VAL…, DATA.TEST… alike)"


def read_nifti_header(path: Path) -> Stored:
    """Describe a NIfTI-1 or NIfTI-2 file; a fourth axis is taken as channels.

    Raises
    ------
    ImageReadError
        If the file is damaged, shorter than its header claims, or has more than four axes.
    """
    with path.open("rb") as file:
        is_compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        header = _parse_header(gzip.GzipFile(fileobj=file) if is_compressed else file)
    if header["magic"].item()[:3] in (b"ni1", b"ni2"):
        what = "only the header of a NIfTI that is stored in two files (.hdr and .img), which are not read"
        raise read_error(path, what, "save it as one file: nibabel.save(nibabel.load('a.hdr'), 'a.nii.gz')")
    stored_shape = tuple(int(n) for n in header.get_data_shape())
    shape = stored_shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == 5 and shape[3] == 1:
        shape = (*shape[:3], shape[4])
    if len(shape) not in _AXES:
        what = f"NIfTI of shape {stored_shape}: time series and vectors are not supported"
        raise read_error(path, what, "split it into volumes of axes x, y, z and channels")
    dtype, offset = _pixel_type(path, header), max(int(header["vox_offset"]), header.single_vox_offset)
    ratio = BEST_COMPRESSION if is_compressed else 1.0
    check_claimed_size(path, num_bytes(shape, dtype) + offset, path.stat().st_size, ratio)
    mapped = MappedPixels(path, offset, shape, dtype, "F")
    # A gzip file can only be decompressed from its start.
    pixels = WholePixels(path, _decompress, (offset, shape, dtype)) if is_compressed else mapped
    scaled = _ScaledPixels(pixels, *_scaling(path, header))
    spacing, notes = _spacing(header)
    if len(shape) == 4:
        notes.append(f"the fourth axis ({shape[3]}) is taken as channels")
    if is_compressed:
        notes += note_on_pieces("one piece", num_bytes(shape, dtype))
    presented = scaled.scale(np.zeros((1,), dtype)).dtype
    orientation = _orientation(header) if len(shape) > 2 else ""
    return Stored(shape, presented, _AXES[len(shape)], scaled, spacing, tuple(notes), orientation=orientation)


def _parse_header(file: Any) -> Any:
    """The header, NIfTI-2 or NIfTI-1 by its first number."""
    start = file.read(4)
    rest = file.read(536)
    is_second = 540 in (int.from_bytes(start, "little"), int.from_bytes(start, "big"))
    header_class: Any = nibabel.Nifti2Header if is_second else nibabel.Nifti1Header
    # Unchecked, because nibabel prints what it repairs; what matters here is checked here.
    return header_class((start + rest)[: 540 if is_second else 348], check=False)


def _pixel_type(path: Path, header: Any) -> np.dtype:
    try:
        dtype: np.dtype = header.get_data_dtype()
        return dtype
    except (KeyError, HeaderDataError) as error:
        raise read_error(path, f"unknown pixel type ({error})", "its header is damaged: export it again") from error


def _scaling(path: Path, header: Any) -> tuple[float, float]:
    """Slope and intercept; 1 and 0 where the header names none."""
    try:
        slope, intercept = header.get_slope_inter()
    except HeaderDataError as error:
        raise read_error(path, f"unusable scaling ({error})", "its header is damaged: export it again") from error
    return (1.0, 0.0) if slope is None else (float(slope), float(intercept))


def _spacing(header: Any) -> tuple[dict[str, float], list[str]]:
    sizes = tuple(abs(float(value)) for value in header.get_zooms()[:3])
    unit = header.get_xyzt_units()[0]
    notes = (
        [f"no unit of length in the header: millimetres are assumed; if that is wrong, {RESOLUTION_KEY}"]
        if unit == _NO_UNIT
        else []
    )
    name = {"meter": "m", "micron": "um"}.get(unit, "mm" if unit == _NO_UNIT else unit)
    return micrometres_by_axis("XYZ"[: len(sizes)], sizes, name), notes


def _orientation(header: Any) -> str:
    """Which way the stored axes run, ``RAS`` say; empty where the header does not say."""
    if not header["qform_code"] and not header["sform_code"]:
        return ""
    axcodes: Any = nibabel.aff2axcodes
    try:
        affine = header.get_best_affine()
        codes: Any = axcodes(affine) if np.isfinite(affine).all() else (None,)
    except (ValueError, HeaderDataError, np.linalg.LinAlgError):
        return ""
    return "" if None in codes else "".join(codes)


def _decompress(path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> Array:
    expected = num_bytes(shape, dtype)
    with decoding_errors(path, "its gzip stream"), gzip.open(path, "rb") as file:
        file.read(offset)
        data = file.read(expected)
        if len(data) < expected:
            raise EOFError(f"truncated: {len(data):,} of {expected:,} bytes of pixels")
        # Reading to the end makes gzip compare its checksum.
        while file.read(2**20):
            pass
    return np.frombuffer(data, dtype).reshape(shape, order="F")


@dataclass(frozen=True)
class _ScaledPixels:
    """Stored numbers as intensities: value × slope + intercept, as nibabel computes them."""

    source: PixelSource
    slope: float
    intercept: float

    def read(self, region: Region) -> Array:
        """Scaled pixels of `region`."""
        return self.scale(self.source.read(region))

    def scale(self, pixels: Array) -> Array:
        """Scaled copy of `pixels`; the same array where slope is 1 and intercept 0."""
        if (self.slope, self.intercept) == (1.0, 0.0):
            return pixels
        # Arrays of one axis make nibabel promote to the type that holds every result exactly enough.
        slope: Any = np.array([self.slope])
        intercept: Any = np.array([self.intercept])
        scaled: Array = apply_read_scaling(pixels, slope, intercept)
        return scaled
