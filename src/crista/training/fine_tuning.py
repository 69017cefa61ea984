"""Fine-tuning: the weights of a trained network as the start of one with other classes or channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crista.images.wording import list_names
from crista.models.initialization import shift_logits
from crista.plan.plan import Classes, Plan
from crista.training.checkpoint import Checkpoint, load_weights

HEAD = ("head.weight", "head.bias")
"""The last convolution: one row per class (one row for two classes)."""


@dataclass(frozen=True)
class Adapted:
    """Tensors of some layers brought into the shape of another network, and what to say of it."""

    tensors: Mapping[str, Tensor]
    said: str


def start_from(model: nn.Module, plan: Plan, start: Checkpoint) -> str:
    """Put the weights of `start` into `model`, the network of `plan`; returns what was loaded and what not, in one line.

    The rows of the last convolution follow the names of the classes, and the first convolutions take another number of
    channels; all else must fit, or is left out with MODEL.SKIP_UNMATCHED_LAYERS.

    Raises
    ------
    CheckpointError
        If other layers do not fit, listing them.
    """
    own, (weights, said) = model.state_dict(), _as_learnt(start, plan)
    adapted = [
        one
        for one in (
            adapt_head(weights, own, start.plan.classes, plan.classes),
            adapt_stem(weights, own, start.plan.num_channels, plan.num_channels),
        )
        if one is not None
    ]
    changed = {name: tensor for one in adapted for name, tensor in one.tensors.items()}
    skip = plan.config.model.skip_unmatched_layers
    left_out = load_weights(model, {**weights, **changed}, skip_unmatched=skip, where="starting weights")
    return _report(own, changed, left_out, [*(one.said for one in adapted), *said])


def _as_learnt(start: Checkpoint, plan: Plan) -> tuple[Mapping[str, Tensor], list[str]]:
    """The weights of `start`, and what to say of them: those from before it was told how frequent the classes are, if `plan`
    estimates that again; its training shows all classes alike often, and the network would count them as rare twice."""
    if start.class_shift is None or not plan.estimates_class_shares:
        return start.weights, []
    bias = shift_logits(start.weights[HEAD[1]], [-value for value in start.class_shift])
    said = "the class shares that it was told are taken back, and estimated again after this training"
    return {**start.weights, HEAD[1]: bias}, [said]


def adapt_head(given: Mapping[str, Tensor], own: Mapping[str, Tensor], old: Classes, new: Classes) -> Adapted | None:
    """The last convolution for other classes: rows of classes with the same name are copied, the others stay as drawn.

    A network of two classes has one row, the logit of its foreground; its background has the logit 0. None if the classes
    are the same, or there is nothing to adapt.
    """
    if old.names == new.names or any(name not in given or name not in own for name in HEAD):
        return None
    if given[HEAD[0]].shape[1:] != own[HEAD[0]].shape[1:]:
        return None
    tensors = {name: adapt_rows(given[name], own[name], old.names, new.names) for name in HEAD}
    copied = [name for name in new.names if name in old.names]
    if new.num_logits == 1 and new.names[1] not in old.names:
        copied = []  # its one row is the foreground's
    rows = f"rows {list_names(copied)} copied" if copied else "no class of the same name"
    return Adapted(tensors, f"new: head ({old.num_classes} -> {new.num_classes} classes; {rows})")


def adapt_rows(given: Tensor, own: Tensor, old_names: Sequence[str], new_names: Sequence[str]) -> Tensor:
    """Rows (K, …) of a head with the classes `old_names` for one with `new_names`, which starts as `own`.

    Where a head has one row, it is that of the second class; the first has zeros.
    """
    rows = dict(zip(old_names, given if len(given) > 1 else (torch.zeros_like(given[0]), given[0]), strict=True))
    result = own.clone()
    if len(own) > 1:
        for index, name in enumerate(new_names):
            result[index] = rows.get(name, own[index])
    elif new_names[1] in rows:
        result[0] = rows[new_names[1]] - rows.get(new_names[0], torch.zeros_like(own[0]))
    return result


def adapt_stem(given: Mapping[str, Tensor], own: Mapping[str, Tensor], old: int, new: int) -> Adapted | None:
    """The convolutions that see the image, for `new` channels instead of `old`; None if there are as many.

    Their weights are summed over the old channels, divided by the new ones, and repeated: an image whose channels are all
    the same gives what it gave before.
    """
    if old == new:
        return None

    def sees_the_image(name: str) -> bool:
        if name not in given or not 4 <= own[name].ndim == given[name].ndim:
            return False
        here, there = own[name].shape, given[name].shape
        return (there[1], here[1]) == (old, new) and (there[0], *there[2:]) == (here[0], *here[2:])

    names = [name for name in own if sees_the_image(name)]
    tensors = {name: adapt_channels(given[name], new) for name in names}
    how = "weights summed" if new == 1 else f"weights {'' if old == 1 else 'summed, '}repeated and divided by {new}"
    return Adapted(tensors, f"stem: {old} -> {new} channels, {how}") if names else None


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """Weights (C_out, C_in, …) of a convolution for another number of input channels."""
    summed = weight.sum(dim=1, keepdim=True) / channels
    return summed.expand(-1, channels, *[-1] * (weight.ndim - 2)).clone()


def _report(own: Mapping[str, Tensor], changed: Mapping[str, Tensor], left_out: Sequence[str], said: Sequence[str]) -> str:
    """``loaded 41 of 43 layers; new: head (…); stem: …``."""
    layers, other = _layers(own), _layers(left_out) | _layers(changed)
    kept = [layer for layer in layers if layer in _layers(left_out)]
    unused = [layer for layer in _layers(left_out) if layer not in layers]
    loaded = sum(layer not in other for layer in layers)
    parts = [f"starting weights: loaded {loaded} of {len(layers)} layers", *said]
    if kept:
        parts.append(f"not loaded, their shape or name does not fit: {list_names(kept)}")
    if unused:
        parts.append(f"not used: {list_names(unused)}")
    return "; ".join(parts)


def _layers(names: Mapping[str, Tensor] | Sequence[str]) -> dict[str, None]:
    """The layers that hold tensors of these names, in order."""
    return dict.fromkeys(name.rpartition(".")[0] for name in names)
