"""The part of the plan about inference: tiles, halo, overlap."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod

from crista.config.model import Model
from crista.config.root import Config
from crista.plan.ledger import Ledger
from crista.plan.plan import InferencePlan
from crista.plan.topology import network_stride, receptive_field_radius

TILE_VOXELS = {2: 1024**2, 3: 64 * 160**2}
"""Voxels of a decided tile: what a laptop's memory bears."""
TILE_INDEPENDENT = ("bn", "sync_bn", "none")
"""Normalisation layers whose result does not depend on the tile."""


def decide_inference(config: Config, patch: tuple[int, ...], model: Model, batch: int, ledger: Ledger) -> InferencePlan:
    """Tiles of the patch's size where OVERLAP or PADDING is given; otherwise large tiles, exact where that is cheap."""
    ndim = len(patch)
    test = config.data.test
    overlap = _per_axis("DATA.TEST.OVERLAP", test.overlap, ndim, ledger)
    padding = _per_axis("DATA.TEST.PADDING", test.padding, ndim, ledger)
    if any(overlap):
        ledger.note("tiles", "blended", "DATA.TEST.OVERLAP is given: overlapping patches are averaged with smooth weights")
        if any(padding):
            ledger.note("DATA.TEST.PADDING", tuple(padding), "with OVERLAP the smooth weights take the place of the padding")
        return InferencePlan(
            mode="blended", tile_size=patch, halo=(0,) * ndim, overlap=tuple(map(float, overlap)), batch_size=batch
        )
    if any(padding):
        _check_padding("DATA.TEST.PADDING", padding, patch, network_stride(model, ndim), ledger)
        ledger.note("tiles", "halo", f"DATA.TEST.PADDING is given: {tuple(padding)} pixels at each border of a patch are context")
        return InferencePlan(mode="halo", tile_size=patch, halo=tuple(map(int, padding)), overlap=(0.0,) * ndim, batch_size=batch)
    return _large_tiles(patch, model, ledger)


def check_training_patches(config: Config, patch: tuple[int, ...], ledger: Ledger) -> None:
    """Refuse an OVERLAP or PADDING of training or validation patches that does not fit them."""
    for name, section in (("TRAIN", config.data.train), ("VAL", config.data.val)):
        _per_axis(f"DATA.{name}.OVERLAP", section.overlap, len(patch), ledger)
        padding = _per_axis(f"DATA.{name}.PADDING", section.padding, len(patch), ledger)
        _check_padding(f"DATA.{name}.PADDING", padding, patch, (1,) * len(patch), ledger)


def _large_tiles(patch: tuple[int, ...], model: Model, ledger: Ledger) -> InferencePlan:
    ndim = len(patch)
    stride = network_stride(model, ndim)
    radius = receptive_field_radius(model, ndim)
    if model.normalization not in TILE_INDEPENDENT:
        ledger.note(
            "tiles",
            "blended",
            f"{model.normalization} normalisation depends on the tile: tiles of the patch's size, a quarter shared with each "
            "neighbour, are averaged with smooth weights",
        )
        return InferencePlan(mode="blended", tile_size=patch, halo=(0,) * ndim, overlap=(0.25,) * ndim, batch_size=1)
    scale = max(1.0, (TILE_VOXELS[ndim] / prod(patch)) ** (1 / ndim))
    tile = tuple(max(p, int(p * scale) // s * s) for p, s in zip(patch, stride, strict=True))
    exact = tuple(ceil(r / s) * s for r, s in zip(radius, stride, strict=True))
    work = prod(t / max(1, t - 2 * h) for t, h in zip(tile, exact, strict=True))
    cheaper = tuple(min(e, t // 8 // s * s) for e, t, s in zip(exact, tile, stride, strict=True))
    if cheaper == exact or (all(t > 2 * h for t, h in zip(tile, exact, strict=True)) and work <= 1.3):
        halo, reason = exact, f"the halo covers the receptive field's radius {radius}: tiles give what the whole image gives"
    else:
        halo = cheaper
        reason = (
            f"a halo of the whole receptive field, {exact}, costs {work:.1f} times the work; an eighth of the tile is context"
        )
    ledger.note("tiles", f"{tile}, halo {halo}", reason)
    return InferencePlan(mode="halo", tile_size=tile, halo=halo, overlap=(0.0,) * ndim, batch_size=1)


def _check_padding(key: str, padding: Sequence[float], patch: Sequence[int], least: Sequence[int], ledger: Ledger) -> None:
    for letter, context, size, must in zip("zyx"[-len(patch) :], padding, patch, least, strict=True):
        if size - 2 * context < must:
            left = max(0, size - 2 * int(context))
            what = f"{context} along {letter} leaves {left} of a patch of {size}; at least {must} must be left"
            ledger.refuse(key, what, f"use at most {max(0, (size - must) // 2)}")


def _per_axis(key: str, given: Sequence[float] | None, ndim: int, ledger: Ledger) -> Sequence[float]:
    """One value per axis; (0, 0) and a single value serve every dimension."""
    if given is None:
        return (0,) * ndim
    if len(set(given)) == 1:
        return (given[0],) * ndim
    if len(given) != ndim:
        ledger.refuse(key, f"{tuple(given)} has {len(given)} values, the data have {ndim} axes", "one value per axis ([z,] y, x)")
        return (0,) * ndim
    return tuple(given)
