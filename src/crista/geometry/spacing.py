"""Physical voxel size, in micrometres."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Spacing:
    """Distance between voxel centres along (Z)YX, in micrometres."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not all(value > 0 for value in self.values):
            raise ValueError(f"spacing must be positive, got {self.values}")

    @property
    def anisotropy(self) -> float:
        """Coarsest over finest axis; 1 for cubic voxels."""
        return max(self.values) / min(self.values)

    def __str__(self) -> str:
        return " × ".join(f"{value:g}" for value in self.values) + " µm"


def common_spacing(spacings: Iterable[Spacing | None]) -> tuple[float, ...] | None:
    """The voxel size that all have; None where one is not known, or they differ."""
    found = set(spacings)
    only = found.pop() if len(found) == 1 else None
    return only.values if only is not None else None


MICROMETRES_PER_UNIT = {
    "m": 1e6,
    "meter": 1e6,
    "metre": 1e6,
    "cm": 1e4,
    "centimeter": 1e4,
    "centimetre": 1e4,
    "mm": 1e3,
    "millimeter": 1e3,
    "millimetre": 1e3,
    "inch": 25400.0,
    "inches": 25400.0,
    "in": 25400.0,
    "um": 1.0,
    "µm": 1.0,
    "\u03bcm": 1.0,
    "micron": 1.0,
    "micrometer": 1.0,
    "micrometre": 1.0,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "nanometre": 1e-3,
    "pm": 1e-6,
    "picometer": 1e-6,
    "picometre": 1e-6,
    "angstrom": 1e-4,
    "Å": 1e-4,
}
"""Unit names as they occur in TIFF, OME and NIfTI metadata. Pixels and empty units are absent on purpose."""


def _factor_of(unit: str) -> float | None:
    """Micrometres in a unit, whatever its capitals; words may be in the plural (ms, which is none of length, is no word)."""
    lower = unit.lower()
    singular = lower.removesuffix("s") if len(lower) > 3 else lower
    return next((MICROMETRES_PER_UNIT[name] for name in (unit, lower, singular) if name in MICROMETRES_PER_UNIT), None)


def spacing_from_units(values: tuple[float, ...], units: tuple[str, ...]) -> Spacing | None:
    """`values` in `units` as a `Spacing`; None if a unit is no length or a value is not positive."""
    factors = [_factor_of(unit.strip()) for unit in units]
    micrometres = tuple(value * factor for value, factor in zip(values, factors, strict=True) if factor is not None)
    if len(micrometres) != len(values) or not all(value > 0 for value in micrometres):
        return None
    return Spacing(micrometres)
