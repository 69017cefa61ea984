"""The words every stage shares: axes, spacing, tiles. NumPy only."""

from crista.geometry.axes import Region, canonical_axes, from_canonical, to_canonical
from crista.geometry.spacing import Spacing
from crista.geometry.tiles import Tile, grid_starts, iter_tiles

__all__ = ["Region", "Spacing", "Tile", "canonical_axes", "from_canonical", "grid_starts", "iter_tiles", "to_canonical"]
