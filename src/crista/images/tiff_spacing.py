"""Voxel size from TIFF metadata: OME-XML, ImageJ, or the resolution tags."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from tifffile import TiffFile

from crista.geometry.spacing import MICROMETRES_PER_UNIT, spacing_from_units

SCREEN_RESOLUTIONS = (1, 72, 96, 100, 150, 300, 600, 1200)
"""Dots per inch that graphics programs write by default: they say nothing about the sample."""

_UNIT_OF_TAG = {2: "inch", 3: "cm", 4: "mm", 5: "um"}


def read_tiff_spacing(tif: TiffFile, series: Any) -> dict[str, float]:
    """Micrometres per voxel by axis letter, as far as the file says."""
    if series.kind == "ome":
        return _ome_spacing(tif.ome_metadata or "")
    if series.kind == "imagej":
        return _imagej_spacing(tif.imagej_metadata or {}, _pixels_per_unit(series.keyframe))
    return _tag_spacing(series.keyframe)


def _ome_spacing(xml: str) -> dict[str, float]:
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return {}
    pixels = next((element for element in root.iter() if element.tag.rpartition("}")[2] == "Pixels"), None)
    spacing: dict[str, float] = {}
    for letter in "ZYX" if pixels is not None else "":
        value = pixels.get(f"PhysicalSize{letter}") if pixels is not None else None
        unit = pixels.get(f"PhysicalSize{letter}Unit", "µm") if pixels is not None else ""
        if value is not None:
            spacing |= _in_micrometres({letter: float(value)}, unit)
    return spacing


def _imagej_spacing(metadata: dict[str, Any], pixels_per_unit: dict[str, float]) -> dict[str, float]:
    unit = str(metadata.get("unit", "")).replace("\\u00B5", "µ")
    sizes = {letter: 1 / value for letter, value in pixels_per_unit.items()}
    if "spacing" in metadata:
        sizes["Z"] = abs(float(metadata["spacing"]))
    spacing: dict[str, float] = {}
    for letter, size in sizes.items():
        # ImageJ names a unit of its own for y and z where they differ from x.
        spacing |= _in_micrometres({letter: size}, str(metadata.get(f"{letter.lower()}unit", unit)).replace("\\u00B5", "µ"))
    return spacing


def _tag_spacing(page: Any) -> dict[str, float]:
    unit = _UNIT_OF_TAG.get(int(page.resolutionunit), "")
    pixels_per_unit = _pixels_per_unit(page)
    if unit not in MICROMETRES_PER_UNIT:
        return {}
    inches = 25400.0 / MICROMETRES_PER_UNIT[unit]
    if any(abs(value * inches - dots) < 0.51 for value in pixels_per_unit.values() for dots in SCREEN_RESOLUTIONS):
        return {}
    return _in_micrometres({letter: 1 / value for letter, value in pixels_per_unit.items()}, unit)


def _pixels_per_unit(page: Any) -> dict[str, float]:
    x, y = page.get_resolution()
    return {"Y": float(y), "X": float(x)} if x > 0 and y > 0 else {}


def _in_micrometres(sizes: dict[str, float], unit: str) -> dict[str, float]:
    spacing = spacing_from_units(tuple(sizes.values()), (unit,) * len(sizes)) if sizes else None
    return dict(zip(sizes, spacing.values, strict=True)) if spacing is not None else {}
