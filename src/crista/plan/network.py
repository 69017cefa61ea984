"""The part of the plan that shapes the network: patch, levels, pooling, kernels."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod
from statistics import median
from typing import Any

from crista.config.model import Model
from crista.config.root import Config
from crista.images.consistency import LEAST_SIDE
from crista.images.fingerprint import Fingerprint
from crista.plan.effort import Effort
from crista.plan.ledger import Ledger
from crista.plan.topology import network_stride

FLAT_VOLUME = 3
"""Rows per slice from which a volume of unknown voxel size counts as cut in thick slices (nnU-Net asks the same of the shape).
On the 20 slices of a ssTEM volume it raised the IoU of mitochondria from 0.34 to 0.39 (one seed)."""
FEWEST_SLICES = 5
"""Of fewer slices a network in three dimensions sees mostly what padding makes up."""
MIN_BOTTLENECK = 4
"""Voxels that must be left along an axis for it to be halved (nnU-Net, doi:10.1038/s41592-020-01008-z, uses the same)."""


def decide_patch_size(config: Config, fingerprint: Fingerprint, effort: Effort, ledger: Ledger) -> tuple[int, ...]:
    """(Z)YX voxels of a training patch: given, or as large as images and budget allow."""
    ndim = fingerprint.ndim
    given = config.data.patch_size
    if given is not None:
        _check_channels(given, fingerprint, ledger)
        ledger.note("DATA.PATCH_SIZE", tuple(given), "given")
        return tuple(given[:ndim])
    padded = config.data.reflect_to_complete_shape
    typical = [round(median(axis)) if padded else min(axis) for axis in zip(*fingerprint.shapes, strict=True)]
    most = [2 * side for side in typical] if padded else typical  # smaller images are padded by reflection, or refused
    size = _fit_voxels(typical, fingerprint.spacing, effort.patch_voxels[ndim], most)
    size = tuple(map(_to_multiple, size, _asked_stride(config.model, effort, size), most))
    sides = "" if fingerprint.spacing is None else ", of about equal sides in micrometres where the image allows it"
    rounded = "y and x rounded to sides" if size[0] % 2 else "rounded to sides"
    shown = f"the {'typical' if padded else 'smallest'} image is {' × '.join(map(str, typical))}"
    ledger.note(
        "DATA.PATCH_SIZE",
        (*size, fingerprint.num_channels),
        f"{shown}; about {effort.patch_voxels[ndim]:,} voxels per patch at most{sides}, {rounded} that can be halved"
        f"{_padded(fingerprint.shapes, size)}",
    )
    return size


def _padded(shapes: Sequence[Sequence[int]], patch: Sequence[int]) -> str:
    """What is said of images that are smaller than a patch where others are not; empty where all are alike."""
    small = [shape for shape in shapes if any(side < size for side, size in zip(shape, patch, strict=True))]
    if not small or len(small) == len(shapes):
        return ""
    least = " × ".join(map(str, min(small, key=prod)))
    return f"; {len(small)} of {len(shapes)} images are smaller (the least {least}) and padded by reflection"


def _fit_voxels(typical: Sequence[int], spacing: tuple[float, ...] | None, budget: int, most: Sequence[int]) -> tuple[int, ...]:
    """The largest patch, of equal physical sides where the spacing is known, within the image and the budget.

    Rounded, it may be a little more than the image, but nowhere more than `most`.
    """
    ndim = len(typical)
    weights = [max(spacing) / value for value in spacing] if spacing is not None else [1.0] * ndim
    scale = (budget / prod(weights)) ** (1 / ndim)
    sides = [min(float(n), scale * weight) for n, weight in zip(typical, weights, strict=True)]
    for _ in range(ndim):  # what an axis cannot use goes to the others
        free = [i for i in range(ndim) if sides[i] < typical[i]]
        if not free:
            break
        factor = (budget / prod(sides)) ** (1 / len(free))
        sides = [min(float(typical[i]), side * factor) if i in free else side for i, side in enumerate(sides)]
    least = (1, LEAST_SIDE, LEAST_SIDE)[-ndim:]  # smaller images are padded by reflection
    return tuple(max(low, _rounded(side, limit)) for low, side, limit in zip(least, sides, most, strict=True))


def _rounded(side: float, most: int) -> int:
    """To a multiple of the largest power of two that keeps the change small."""
    for step in (32, 16, 8, 4, 2):
        if side >= 2 * step:
            near = max(step, round(side / step) * step)
            return near if near <= most else near - step
    return max(1, round(side))


def _asked_stride(asked: Model, effort: Effort, size: tuple[int, ...]) -> tuple[int, ...]:
    """What the levels and factors that are given make of the sides of a patch: multiples of this, (Z)YX."""
    times = len(asked.feature_maps or _features_of(effort, size)) - 1
    in_plane = prod(factor or 2 for factor in _repeated(asked.yx_down or (2,), times))
    along_z = prod(factor or 1 for factor in _repeated(asked.z_down or (1,), times))
    return (along_z, in_plane, in_plane)[-len(size) :]


def _repeated(values: tuple[int, ...], times: int) -> tuple[int, ...]:
    """Equal values as often as there are levels; others as they are."""
    return values[:1] * times if len(set(values)) == 1 else values


def _to_multiple(side: int, multiple: int, most: int) -> int:
    """The multiple at or below a side, or the first one if it is not more than `most`; else the side, which will be refused."""
    return side // multiple * multiple or (multiple if multiple <= most else side)


def _check_channels(given: Sequence[int], fingerprint: Fingerprint, ledger: Ledger) -> None:
    if given[-1] != fingerprint.num_channels:
        plural = "channel" if fingerprint.num_channels == 1 else "channels"
        ledger.refuse(
            "DATA.PATCH_SIZE",
            f"ends with {given[-1]} channels, the images have {fingerprint.num_channels} {plural}",
            f"write {(*given[:-1], fingerprint.num_channels)}, or leave PATCH_SIZE out",
        )


def decide_model(config: Config, fingerprint: Fingerprint, patch: tuple[int, ...], effort: Effort, ledger: Ledger) -> Model:
    """Every key of the network filled in; pooling and kernels follow patch and voxel size."""
    asked, ndim = config.model, fingerprint.ndim
    in_plane = min(patch[-2:])
    decided = _features_of(effort, patch)
    count = len(asked.feature_maps or decided)
    yx_down = tuple(factor or 2 for factor in _per_level(asked, "yx_down", count - 1, ledger) or (2,) * (count - 1))
    features = ledger.settle(
        "MODEL.FEATURE_MAPS",
        asked.feature_maps,
        decided,
        f"{len(decided)} levels: the patch of {in_plane} pixels has {in_plane // prod(yx_down)} at the last",
    )
    folded = asked.architecture != "resunet" and asked.conv_block_order == "conv_norm_act"
    normalization = ledger.settle(
        "MODEL.NORMALIZATION",
        asked.normalization,
        "bn",
        f"batch normalisation: in prediction {'folded into the convolutions' if folded else 'a fixed scale and shift'}, and "
        "independent of the tile",
    )
    activation = ledger.settle(
        "MODEL.ACTIVATION", asked.activation, "leaky_relu", "as cheap as relu, and no channel can die in a short training"
    )
    z_down, isotropy = (1,) * (count - 1), (True,) * count
    if ndim == 3:
        z_down, isotropy = _decide_depth(asked, fingerprint, patch[0], yx_down, ledger)
    model = asked.model_copy(
        update={
            "feature_maps": tuple(features),
            "dropout_values": _per_level(asked, "dropout_values", count, ledger) or (0.0,) * count,
            "conv_layers": _per_level(asked, "conv_layers", count, ledger) or (2,) * count,
            "yx_down": yx_down,
            "z_down": z_down,
            "isotropy": isotropy,
            "normalization": normalization,
            "activation": activation,
        }
    )
    _check_patch(patch, model, ndim, ledger)
    _check_batch(config, patch, model, ledger)
    return model


def _features_of(effort: Effort, patch: tuple[int, ...]) -> tuple[int, ...]:
    """Channels of as many levels as the effort has and the patch can be halved for."""
    features = effort.features[len(patch)]
    while len(features) > 2 and not _can_be_halved(patch[-2:], len(features) - 1):
        features = features[:-1]
    return features


def _can_be_halved(sides: Sequence[int], times: int) -> bool:
    """Whether every side can, with enough voxels left."""
    return all(side % 2**times == 0 and side // 2**times >= MIN_BOTTLENECK for side in sides)


def _per_level(asked: Model, key: str, count: int, ledger: Ledger) -> tuple[Any, ...] | None:
    """The given values of a key, equal ones as often as there are levels; None where it is left out."""
    values = getattr(asked, key)
    if not values:
        return None
    if len(set(values)) > 1 and len(values) != count:  # FEATURE_MAPS that are given were compared when they were read
        ledger.refuse(
            f"MODEL.{key.upper()}",
            f"{tuple(values)} has {len(values)} values, the decided network takes {count}",
            "give MODEL.FEATURE_MAPS with as many levels as are meant, or one value for all",
        )
    return tuple(values) if len(values) == count else tuple(values[:1]) * count


def _decide_depth(
    asked: Model, fingerprint: Fingerprint, depth: int, yx_down: tuple[int, ...], ledger: Ledger
) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Pooling along z and the levels whose kernels have a depth, by patch depth and voxel size."""
    count = len(yx_down) + 1
    given_down, given_isotropy = _per_level(asked, "z_down", count - 1, ledger), _per_level(asked, "isotropy", count, ledger)
    ratio, origin, guess = _depth_ratio(fingerprint)
    thin = _few_slices(fingerprint, depth)
    if guess and not thin and not (given_down and all(given_down) and given_isotropy):  # else nothing follows from it
        ledger.note("DATA.TRAIN.RESOLUTION", "unknown", guess)
    z_down = _decide_z_down(given_down, 0 if thin else depth, (ratio, yx_down), thin, ledger)
    isotropy = _decide_isotropy(
        given_isotropy, z_down, (inf if thin else ratio, yx_down), thin or _kernel_reason(ratio, origin), ledger
    )
    return z_down, isotropy


def _depth_ratio(fingerprint: Fingerprint) -> tuple[float, str, str]:
    """Depth of a voxel over its width, whence that is known, and what is said of a guess from the shape of the volumes.

    Rounded as it is shown: files hold a voxel twice as deep as wide as 1.9999998 times.
    """
    if fingerprint.spacing is not None:
        return round(fingerprint.spacing[0] / min(fingerprint.spacing[1:]), 2), "by the voxel size", ""
    depth, *plane = (median(axis) for axis in zip(*fingerprint.shapes, strict=True))
    if min(plane) < FLAT_VOLUME * depth:
        return 1.0, "the voxel size is unknown and taken to be the same along all axes", ""
    guess = (
        f"volumes of {depth:g} slices of {plane[0]:g} × {plane[1]:g} are usually cut thicker than a pixel is wide: voxels are "
        "taken to be twice as deep as wide (give (z, y, x) in micrometres to correct that)"
    )
    return 2.0, "by the guessed voxel size", guess


def _few_slices(fingerprint: Fingerprint, depth: int) -> str:
    """Why nothing is done along z; empty where there are slices enough."""
    slices = round(median(shape[0] for shape in fingerprint.shapes))
    if min(slices, depth) >= FEWEST_SLICES:
        return ""
    return f"with {min(slices, depth)} slices there is no depth to learn from: in effect a 2D network for each slice"


def _kernel_reason(ratio: float, origin: str) -> str:
    shown = f"{ratio:g} times as deep as wide ({origin})"
    return f"kernels have depth 1 while a voxel is at least twice as deep as wide; here it is {shown}"


def _decide_z_down(
    given: tuple[int, ...] | None, depth: int, voxel: tuple[float, tuple[int, ...]], thin: str, ledger: Ledger
) -> tuple[int, ...]:
    """Halve z where the voxels are no longer flat and enough slices are left; `voxel` is depth over width, and YX_DOWN."""
    (ratio, yx_down), decided = voxel, []
    for in_plane in yx_down:
        pool = ratio < 2 and depth % 2 == 0 and depth // 2 >= MIN_BOTTLENECK
        decided.append(2 if pool else 1)
        depth //= decided[-1]
        ratio *= decided[-1] / in_plane
    reason = (
        thin or "z is halved where a voxel is less than twice as deep as wide and half of an even number of slices is 4 or more"
    )
    if given is not None and any(factor == 0 for factor in given):
        given = tuple(factor or own for factor, own in zip(given, decided, strict=True))
    return ledger.settle("MODEL.Z_DOWN", given, tuple(decided), reason)


def _decide_isotropy(
    given: tuple[bool, ...] | None,
    z_down: Sequence[int],
    voxel: tuple[float, tuple[int, ...]],
    reason: str,
    ledger: Ledger,
) -> tuple[bool, ...]:
    """Kernels are flat in z while a voxel is at least twice as deep as wide (nnU-Net's rule)."""
    (ratio, yx_down), decided = voxel, []
    for along_z, in_plane in zip((*z_down, 1), (*yx_down, 1), strict=True):
        decided.append(ratio < 2)
        ratio *= along_z / in_plane
    return ledger.settle("MODEL.ISOTROPY", given, tuple(decided), reason)


def _check_batch(config: Config, patch: tuple[int, ...], model: Model, ledger: Ledger) -> None:
    """A batch of which batch normalisation would see one value is refused."""
    of_batch = model.normalization in ("bn", "sync_bn")
    if of_batch and config.train.batch_size == 1 and tuple(patch) == network_stride(model, len(patch)):
        ledger.refuse(
            "TRAIN.BATCH_SIZE",
            f"1 patch of {tuple(patch)} is one voxel at the bottleneck, where batch normalisation has no variance to divide by",
            "use at least 2, a larger patch, or fewer FEATURE_MAPS",
        )


def _check_patch(patch: tuple[int, ...], model: Model, ndim: int, ledger: Ledger) -> None:
    """A patch that the network cannot halve is refused, with the nearest sizes that it can."""
    stride = network_stride(model, ndim)
    if model.normalization == "in" and tuple(patch) == stride:
        ledger.refuse(
            "DATA.PATCH_SIZE",
            f"{tuple(patch)} is one voxel at the bottleneck, where instance normalisation has no variance to divide by",
            "use a larger patch, fewer FEATURE_MAPS, or MODEL.NORMALIZATION: bn",
        )
    for letter, size, multiple in zip("zyx"[-ndim:], patch, stride, strict=True):
        if size % multiple:
            low, high = size // multiple * multiple, -(-size // multiple) * multiple
            nearest = f"{low} or {high}" if low else f"{high}"
            key, factors = ("Z_DOWN", model.z_down) if letter == "z" else ("YX_DOWN", model.yx_down)
            cannot, because = f"cannot be divided by {multiple}", f"MODEL.{key} is {factors}"
            if set(factors or ()) <= {1, 2}:
                cannot = f"cannot be halved {multiple.bit_length() - 1} times"
                because = f"MODEL.FEATURE_MAPS has {len(model.feature_maps or ())} levels"
            ledger.refuse(
                "DATA.PATCH_SIZE",
                f"{size} along {letter} {cannot}: it must be a multiple of {multiple}, because {because}",
                f"use {nearest}, fewer FEATURE_MAPS, or MODEL.{key} with 1 at some levels",
            )
