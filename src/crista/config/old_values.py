"""Old values of keys that are still there, each brought to its present form by one small step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from crista.config.document import Document, Entry
from crista.config.fields import show_value
from crista.errors import Problem

Step = Callable[[Document, str], "str | Problem | None"]
EMPTY: tuple[Any, ...] = (None, [], (), "[]", "()")
"""A list that is left out, in every way to write it."""
OLD_WEIGHTS = (0.66, 0.34)
"""LOSS.WEIGHTS of Dice and cross-entropy in the releases that had W_CE_DICE."""


def as_switch(value: Any) -> bool | None:
    """True or False as people write them, and as keys are read (also ``yes``, ``off``, ``"True"``, 1); None for anything else."""
    if isinstance(value, list | tuple) and len(value) == 1:
        return as_switch(value[0])
    if isinstance(value, bool | int | float):
        return bool(value) if value in (0, 1) else None
    words = {
        **dict.fromkeys(("true", "yes", "on", "y", "t", "1"), True),
        **dict.fromkeys(("false", "no", "off", "n", "f", "0"), False),
    }
    return words.get(value.strip().lower()) if isinstance(value, str) else None


def is_switch(value: Any) -> bool:
    """Whether `value` is True or False."""
    return as_switch(value) is not None


def _word(value: Any) -> str:
    """An old name, also as the one element of a list, in capitals; empty for anything else."""
    single = value[0] if isinstance(value, list | tuple) and len(value) == 1 else value
    return single.strip().upper() if isinstance(single, str) else ""


def batch_norm_or_none(value: Any) -> Any:
    """BATCH_NORMALIZATION as NORMALIZATION."""
    switch = as_switch(value)
    return value if switch is None else "bn" if switch else "none"


def one_class(document: Document, key: str) -> str | None:
    """Very old files did not count the background: 1 class is background and foreground."""
    entry = document.entries[key]
    if entry.value not in (1, "1") or isinstance(entry.value, bool):
        return None
    document.entries[key] = replace(entry, value=2)
    return document.says(key, f"{key}: 1 is now 2 (the background counts as a class)")


def no_split(document: Document, key: str) -> None:
    """A share of 0 is fine where no validation images are split off."""
    split_off = as_switch(document.value("DATA.VAL.FROM_TRAIN", True)) is not False
    folds = as_switch(document.value("DATA.VAL.CROSS_VAL", False)) is True
    if document.entries[key].value in (0, "0", "0.0") and (folds or not split_off):
        del document.entries[key]


def minimum_foreground(document: Document, key: str) -> str | Problem:
    """The old way to discard samples without foreground; 0 and -1 meant off."""
    value = document.entries[key].value
    place, notice = document.place(key), document.says(key, f"{key}: {show_value(value)} has no effect")
    del document.entries[key]
    if value in (0, -1, 0.0, -1.0):
        return notice
    return Problem(
        place,
        "discarding samples by their share of foreground is known in BiaPy but not supported by crista yet",
        "leave it out; EXTRACT_RANDOM_PATCH: True with PROBABILITY_MAP: True centres the patches on foreground",
    )


def normalization_type(document: Document, key: str) -> str | Problem | None:
    """``custom`` is z-score with typed-in statistics; an empty text (none) has no equivalent."""
    entry = document.entries[key]
    if _word(entry.value) == "CUSTOM":
        document.entries[key] = replace(entry, value="zero_mean_unit_variance")
        return document.says(key, f"{key}: custom is now zero_mean_unit_variance (with MEAN_VAL and STD_VAL)")
    if entry.value == "":
        place = document.place(key)
        del document.entries[key]
        return Problem(place, "is empty; there is no way to skip normalisation", "use div, or leave the key out")
    return None


def affine_mode(document: Document, key: str) -> str | None:
    """Border rules that older releases had besides the four of today."""
    entry = document.entries[key]
    if str(entry.value).lower() not in ("nearest", "mirror", "edge", "grid-wrap", "grid-mirror", "grid-constant"):
        return None
    document.entries[key] = replace(entry, value="reflect")
    return document.says(key, f"{key}: {entry.value} is now reflect")


def spatial_dropout(document: Document, key: str) -> str | Problem:
    """Dropout of whole feature maps, of very old releases."""
    place, notice = document.place(key), document.says(key, f"{key}: False has no effect")
    switched_on = as_switch(document.entries.pop(key).value)
    if switched_on:
        return Problem(place, "dropout of whole feature maps is gone from BiaPy", "use MODEL.DROPOUT_VALUES")
    return notice


def loss_type(document: Document, key: str) -> str | None:
    """``W_CE_DICE`` is Dice and cross-entropy with weights; an empty list is the default."""
    entry = document.entries[key]
    if _word(entry.value) == "W_CE_DICE":
        document.entries[key] = replace(entry, value=["DICE", "CE"])
        weights, came = "LOSS.WEIGHTS", "has their weights"
        if document.value(weights) in EMPTY:
            document.entries[weights] = replace(entry, value=list(OLD_WEIGHTS))
            came = f"is left out and {show_value(OLD_WEIGHTS)}, as it was"
        return document.says(key, f"{key}: W_CE_DICE is now [DICE, CE]; {weights} {came}")
    empty_list(document, key)
    return None


def empty_list(document: Document, key: str) -> None:
    """BiaPy writes its default as an empty list; here the key is left out."""
    if document.entries[key].value in EMPTY[1:]:
        del document.entries[key]


def class_rebalance(document: Document, key: str) -> str | None:
    """True rebalances: by the given weights, else by the class frequencies. False does not."""
    entry = document.entries[key]
    switch = as_switch(entry.value)
    if switch is None:
        return None
    weights = document.value("LOSS.CLASS_WEIGHTS")
    new = "none" if not switch else "manual" if weights not in EMPTY else "auto"
    document.entries[key] = replace(entry, value=new)
    return document.says(key, f"{key}: {switch} is now {new}")


def cosine_schedule(document: Document, key: str) -> str | None:
    """``cosine`` was the cosine without a warm-up."""
    entry = document.entries[key]
    if _word(entry.value) != "COSINE":
        return None
    document.entries[key] = replace(entry, value="warmupcosine")
    warmup = "TRAIN.LR_SCHEDULER.WARMUP_COSINE_DECAY_EPOCHS"
    document.entries.setdefault(warmup, replace(entry, value=0))
    return document.says(key, f"{key}: cosine is now warmupcosine with WARMUP_COSINE_DECAY_EPOCHS: {document.value(warmup)}")


def schedule_switch(document: Document, key: str) -> str:
    """ENABLE: False is a constant rate; True left the choice to NAME."""
    entry = document.entries.pop(key)
    name = "TRAIN.LR_SCHEDULER.NAME"
    if as_switch(entry.value) is False:
        document.entries[name] = Entry("", entry.line, entry.written_as, entry.given_by)
        return document.says(name, f"{key}: False is now {name}: '' (a constant learning rate)")
    notice = f"{key} has no effect any more: {name} switches the schedule on"
    return f"line {entry.line}: {notice}" if entry.line is not None else notice
