"""The part of the plan about inference: tiles, halo, overlap."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from crista.config.model import Model
from crista.config.root import Config
from crista.geometry.tiles import round_up
from crista.plan.ledger import Ledger
from crista.plan.plan import InferencePlan
from crista.plan.topology import input_multiple, network_stride, receptive_field_radius

TILE_VOXELS = {2: 1024**2, 3: 64 * 160**2}
"""Voxels of a decided tile: what a laptop's memory bears."""
TILE_INDEPENDENT = ("bn", "sync_bn", "none")
"""Normalisation layers whose result does not depend on the tile."""
CHEAP = 1.3
"""Exact tiles are taken where they cost at most so many times the work of the whole image."""


def decide_inference(config: Config, patch: tuple[int, ...], model: Model, batch: int, ledger: Ledger) -> InferencePlan:
    """Blended tiles of the patch's size with OVERLAP; otherwise tiles as large as memory allows, exact where that is cheap.

    The size of the tiles and a halo that is not exact are measured later, on the trained network
    (`crista.inference.tuning`); here they are estimated.
    """
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
    _check_padding("DATA.TEST.PADDING", padding, patch, input_multiple(model, ndim), ledger)
    if model.normalization not in TILE_INDEPENDENT:
        idle = "; TEST.MAX_MEMORY changes nothing" if config.test.max_memory is not None else ""
        why = f"{model.normalization} normalisation depends on the tile: tiles of the patch's size"
        return _tile_dependent(patch, tuple(map(int, padding)), batch, (why, idle), ledger)
    return _large_tiles(patch, model, tuple(map(int, padding)), ledger)


def check_training_patches(config: Config, patch: tuple[int, ...], ledger: Ledger) -> None:
    """Refuse an OVERLAP or PADDING of training or validation patches that does not fit them."""
    for name, section in (("TRAIN", config.data.train), ("VAL", config.data.val)):
        _per_axis(f"DATA.{name}.OVERLAP", section.overlap, len(patch), ledger)
        padding = _per_axis(f"DATA.{name}.PADDING", section.padding, len(patch), ledger)
        _check_padding(f"DATA.{name}.PADDING", padding, patch, (1,) * len(patch), ledger)


def _tile_dependent(
    patch: tuple[int, ...], padding: tuple[int, ...], batch: int, said: tuple[str, str], ledger: Ledger
) -> InferencePlan:
    """Tiles of the patch's size, as in training: the normalisation of the network depends on the tile.

    `said` is the begin of the reason, which says so, and its end.
    """
    ndim, (why, idle) = len(patch), said
    if any(padding):
        ledger.note("tiles", "halo", f"{why}; DATA.TEST.PADDING is given: {padding} pixels at each border are context{idle}")
        return InferencePlan(mode="halo", tile_size=patch, halo=padding, overlap=(0.0,) * ndim, batch_size=batch)
    ledger.note("tiles", "blended", f"{why}, a quarter shared with each neighbour, are averaged with smooth weights{idle}")
    return InferencePlan(mode="blended", tile_size=patch, halo=(0,) * ndim, overlap=(0.25,) * ndim, batch_size=1)


def _large_tiles(patch: tuple[int, ...], model: Model, padding: tuple[int, ...], ledger: Ledger) -> InferencePlan:
    """As large as memory allows; `padding` (DATA.TEST.PADDING) is the least context."""
    ndim = len(patch)
    stride = network_stride(model, ndim)
    radius = receptive_field_radius(model, ndim)
    scale = max(1.0, (TILE_VOXELS[ndim] / prod(patch)) ** (1 / ndim))
    tile = tuple(max(p, int(p * scale) // s * s) for p, s in zip(patch, stride, strict=True))
    exact = tuple(round_up(max(r, p), s) for r, p, s in zip(radius, padding, stride, strict=True))
    work = prod(t / max(1, t - 2 * h) for t, h in zip(tile, exact, strict=True))
    cheaper = tuple(min(e, max(t // 8 // s * s, round_up(p, s))) for e, t, s, p in zip(exact, tile, stride, padding, strict=True))
    is_exact = cheaper == exact or (all(t > 2 * h for t, h in zip(tile, exact, strict=True)) and work <= CHEAP)
    if is_exact:
        halo, reason = exact, f"the halo covers the receptive field's radius {radius}: tiles give what the whole image gives"
    else:
        halo = cheaper
        room = all(t > 2 * h for t, h in zip(tile, exact, strict=True))
        price = f"costs {work:.1f} times the work" if room else "leaves nothing of such a tile"
        reason = f"a halo of the whole receptive field, {exact}, {price}; what is enough is measured"
    ledger.note("tiles", f"about {tile}, halo {halo}", f"an image that fits into memory is one tile; else {reason}")
    return InferencePlan(
        mode="halo",
        tile_size=tile,
        halo=halo,
        overlap=(0.0,) * ndim,
        batch_size=1,
        max_tile_voxels=prod(tile),
        exact=is_exact,
    )


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
