"""What can be said about a network of the U-Net family without building it: kernels, strides, receptive field.

The plan needs these numbers to choose patches and tiles, and `crista.models` builds its layers from the same
`Level`s, so the two cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeVar

from crista.config.model import Model

Value = TypeVar("Value")
Interval = tuple[int, int]
"""First and last index (inclusive) of a run of voxels along one axis."""


@dataclass(frozen=True)
class Level:
    """One resolution of the network; level 0 has that of the image, the last is the bottleneck."""

    channels: int
    num_convs: int
    """Convolutions of a block."""
    dropout: float
    kernel: tuple[int, ...]
    """Side of the convolutions, (Z)YX."""
    factor: tuple[int, ...]
    """Pooling from this level to the next, (Z)YX; all 1 at the bottleneck."""


def compute_levels(model: Model, ndim: int) -> tuple[Level, ...]:
    """The levels of a network, from top to bottleneck.

    `model` must be filled in by the plan: FEATURE_MAPS, DROPOUT_VALUES, YX_DOWN, CONV_LAYERS and in 3D also Z_DOWN
    and ISOTROPY (one value each for all levels, or one per level). Raises ValueError, naming the key, where a value
    is missing.
    """
    channels = _filled("FEATURE_MAPS", model.feature_maps)
    count = len(channels)
    convs = _per_level("CONV_LAYERS", model.conv_layers, count)
    dropout = _per_level("DROPOUT_VALUES", model.dropout_values, count)
    in_plane = _factors("YX_DOWN", model.yx_down, count)
    along_z = _factors("Z_DOWN", model.z_down, count) if ndim == 3 else (1,) * count
    isotropic = _per_level("ISOTROPY", model.isotropy, count) if ndim == 3 else (True,) * count
    levels = []
    for index in range(count):
        depth = model.kernel_size if isotropic[index] else 1
        kernel = (depth, model.kernel_size, model.kernel_size)[-ndim:]
        factor = (along_z[index], in_plane[index], in_plane[index])[-ndim:]
        levels.append(Level(channels[index], convs[index], dropout[index], kernel, factor))
    return tuple(levels)


def network_stride(model: Model, ndim: int) -> tuple[int, ...]:
    """Voxels of the image per voxel of the bottleneck, (Z)YX. An input must be a multiple of it along each axis."""
    levels = compute_levels(model, ndim)
    return tuple(prod(level.factor[axis] for level in levels) for axis in range(ndim))


def input_multiple(model: Model, ndim: int) -> tuple[int, ...]:
    """What the sides of an input are made a multiple of, (Z)YX: the stride of the network.

    Twice that with instance and group normalisation: they have no variance to divide by where the bottleneck is one voxel.
    """
    factor = 2 if model.normalization in ("in", "gn") else 1
    return tuple(factor * stride for stride in network_stride(model, ndim))


def receptive_field_radius(model: Model, ndim: int) -> tuple[int, ...]:
    """How far the input can be from an output voxel that depends on it, (Z)YX, in voxels.

    Exact for convolutions, pooling and upsampling: the largest distance over all positions of the output voxel on the
    grid of the bottleneck. Normalisation is taken as fixed (batch norm in evaluation); instance, group and layer norm
    in truth reach over the whole input.
    """
    levels = compute_levels(model, ndim)
    return tuple(_axis_radius(model, levels, axis) for axis in range(ndim))


def io_kernel(model: Model, ndim: int) -> tuple[int, ...]:
    """Side of the wider convolutions at input and output (LARGER_IO), (Z)YX: two more than KERNEL_SIZE, 1 where level
    0 has 1."""
    top = compute_levels(model, ndim)[0]
    return tuple(side if side == 1 and model.kernel_size > 1 else side + 2 for side in top.kernel)


def _axis_radius(model: Model, levels: Sequence[Level], axis: int) -> int:
    """Radius along one axis, by following the dependencies of one output voxel of each phase back to the input."""
    margin = io_kernel(model, len(levels[0].kernel))[axis] // 2 if model.larger_io else 0
    period = prod(level.factor[axis] for level in levels)
    radius = 0
    for position in range(period):
        first, last = _trace(levels, axis, (position - margin, position + margin), model.upsample_layer == "upsampling")
        radius = max(radius, position - first + margin, last + margin - position)
    return radius


def _trace(levels: Sequence[Level], axis: int, wanted: Interval, interpolated: bool) -> Interval:
    """Input voxels that the output voxels `wanted` of the decoder at `levels[0]` depend on."""
    top, below = levels[0], levels[1:]
    reach = top.num_convs * (top.kernel[axis] // 2)
    needed = (wanted[0] - reach, wanted[1] + reach)
    if not below:
        return needed
    factor = top.factor[axis]
    deeper = _trace(below, axis, _upsampling_source(needed, factor, interpolated), interpolated)
    pooled = (deeper[0] * factor, deeper[1] * factor + factor - 1)
    return min(needed[0], pooled[0]) - reach, max(needed[1], pooled[1]) + reach


def _upsampling_source(fine: Interval, factor: int, interpolated: bool) -> Interval:
    """Coarse voxels from which the `fine` ones are made."""
    if factor == 1 or not interpolated:
        return fine[0] // factor, fine[1] // factor
    # Fine voxel i lies at (i + 1/2) / factor - 1/2 on the coarse grid and mixes the two coarse voxels around that point.
    first = (2 * fine[0] + 1 - factor) // (2 * factor)
    last = -((-2 * fine[1] - 1 + factor) // (2 * factor))
    return first, last


def nearest_multiples(size: int, multiple: int) -> tuple[int, ...]:
    """The multiples just below and above `size`, without 0."""
    below = size // multiple * multiple
    return tuple(value for value in (below, below + multiple) if value > 0)


def _filled(key: str, values: tuple[Value, ...] | None) -> tuple[Value, ...]:
    if not values:
        raise ValueError(f"MODEL.{key} is not filled in; the plan decides it before a network is built")
    return values


def _per_level(key: str, values: tuple[Value, ...] | None, count: int) -> tuple[Value, ...]:
    """`values` with one value per level."""
    known = _filled(key, values)
    if len(known) == count:
        return known
    if len(set(known)) > 1:
        raise ValueError(f"MODEL.{key} has {len(known)} values for {count} levels; give one per level, or one for all")
    return (known[0],) * count


def _factors(key: str, values: tuple[int, ...] | None, count: int) -> tuple[int, ...]:
    """Pooling factors with 1 for the bottleneck."""
    if count == 1:
        return (1,)
    factors = _per_level(key, values, count - 1)
    if 0 in factors:
        raise ValueError(f"MODEL.{key} {list(factors)} holds a 0, which leaves the choice to the plan; give 1 or 2")
    return (*factors, 1)
