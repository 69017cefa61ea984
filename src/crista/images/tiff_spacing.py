"""Voxel size from TIFF metadata: OME-XML, ImageJ, what microscopes' programs write, or the resolution tags."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import numpy as np
from tifffile import TiffFile
from tifffile.tifffile import svs_description_metadata

from crista.geometry.spacing import MICROMETRES_PER_UNIT
from crista.images.stored import micrometres_by_axis

SCREEN_RESOLUTIONS = (1, 72, 96, 100, 150, 300, 600, 1200)
"""Dots per inch that graphics programs write by default: they say nothing about the sample."""

_UNIT_OF_TAG = {2: "inch", 3: "cm", 4: "mm", 5: "um"}


def read_tiff_spacing(tif: TiffFile, series: Any) -> dict[str, float]:
    """Micrometres per voxel by axis letter, as far as the file says."""
    if series.kind == "ome":
        return _ome_spacing(tif.ome_metadata or "")
    if series.kind == "imagej":
        return _imagej_spacing(tif.imagej_metadata or {}, _pixels_per_unit(series.keyframe))
    own = _OF_A_PROGRAM[series.kind](tif) if series.kind in _OF_A_PROGRAM else {}
    return own or _tag_spacing(series.keyframe)


def _lsm_spacing(tif: TiffFile) -> dict[str, float]:
    """Zeiss LSM, in metres."""
    written = tif.lsm_metadata or {}
    return micrometres_by_axis("ZYX", [_as_number(written.get(f"VoxelSize{letter}")) for letter in "ZYX"], "m")


def _stk_spacing(tif: TiffFile) -> dict[str, float]:
    """MetaMorph: slices lie apart in micrometres, pixels in a unit of their own."""
    written = tif.stk_metadata or {}
    unit = str(written.get("CalibrationUnits", "")) if written.get("SpatialCalibration", True) else ""
    apart = abs(_as_number(next(iter(np.ravel(written.get("ZDistance", 0))), 0)))
    sizes = [apart, *(_as_number(written.get(f"{letter}Calibration")) for letter in "YX")]
    return micrometres_by_axis("ZYX", sizes, ["um", unit, unit])


def _micromanager_spacing(tif: TiffFile) -> dict[str, float]:
    summary = (tif.micromanager_metadata or {}).get("Summary") or {}
    pixel, step = _as_number(summary.get("PixelSize_um")), abs(_as_number(summary.get("z-step_um")))
    return micrometres_by_axis("ZYX", [step, pixel, pixel], "um")


def _aperio_spacing(tif: TiffFile) -> dict[str, float]:
    """Slide scanners by Aperio write micrometres per pixel, MPP."""
    pixel = _as_number(svs_description_metadata(tif.pages.first.description).get("MPP"))
    return micrometres_by_axis("YX", [pixel, pixel], "um")


_OF_A_PROGRAM: dict[str, Callable[[TiffFile], dict[str, float]]] = {
    "lsm": _lsm_spacing,
    "stk": _stk_spacing,
    "mmstack": _micromanager_spacing,
    "svs": _aperio_spacing,
}
"""By tifffile's name of the kind of file; where one says nothing, the resolution tags may."""


def _ome_spacing(xml: str) -> dict[str, float]:
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return {}
    pixels = next((element for element in root.iter() if element.tag.rpartition("}")[2] == "Pixels"), None)
    if pixels is None:
        return {}
    known = [letter for letter in "ZYX" if f"PhysicalSize{letter}" in pixels.attrib]
    sizes = [_as_number(pixels.attrib[f"PhysicalSize{letter}"]) for letter in known]
    return micrometres_by_axis("".join(known), sizes, [pixels.get(f"PhysicalSize{letter}Unit", "µm") for letter in known])


def _as_number(value: Any) -> float:
    """The size that is written; 0, which is none, where it is no number: the pixels can be read all the same."""
    try:
        return float(str(value).replace(",", "."))
    except ValueError:
        return 0.0


def _imagej_spacing(metadata: dict[str, Any], pixels_per_unit: dict[str, float]) -> dict[str, float]:
    sizes = {letter: 1 / value for letter, value in pixels_per_unit.items()}
    if "spacing" in metadata:
        sizes["Z"] = abs(_as_number(metadata["spacing"]))
    # ImageJ names a unit of its own for y and z where they differ from x.
    units = [str(metadata.get(f"{letter.lower()}unit", metadata.get("unit", ""))) for letter in sizes]
    if units and units[0] in ("inch", "cm") and _is_of_a_screen(pixels_per_unit, units[0]):
        return {}  # taken over from a picture
    return micrometres_by_axis("".join(sizes), list(sizes.values()), [unit.replace("\\u00B5", "µ") for unit in units])


def _tag_spacing(page: Any) -> dict[str, float]:
    unit, pixels_per_unit = _UNIT_OF_TAG.get(int(page.resolutionunit), ""), _pixels_per_unit(page)
    if not unit or _is_of_a_screen(pixels_per_unit, unit):
        return {}
    return micrometres_by_axis("".join(pixels_per_unit), [1 / value for value in pixels_per_unit.values()], unit)


def _is_of_a_screen(pixels_per_unit: dict[str, float], unit: str) -> bool:
    dots_per_inch = [value * 25400.0 / MICROMETRES_PER_UNIT[unit] for value in pixels_per_unit.values()]
    return any(abs(found - dots) < 0.51 for found in dots_per_inch for dots in SCREEN_RESOLUTIONS)


def _pixels_per_unit(page: Any) -> dict[str, float]:
    x, y = page.get_resolution()
    return {"Y": float(y), "X": float(x)} if x > 0 and y > 0 else {}
