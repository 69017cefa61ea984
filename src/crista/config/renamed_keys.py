"""One table of old key names and old values: what each of them became, applied before anything is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from crista.config import old_values
from crista.config.base import coerce
from crista.config.document import Document
from crista.config.fields import all_keys, show_value
from crista.errors import Problem


@dataclass(frozen=True)
class Moved:
    """The key lives under another name."""

    new: str
    convert: Callable[[Any], Any] | None = None
    """Old value to new value, where they differ."""
    only: Callable[[Any], bool] | None = None
    """The values for which this is the old form."""


@dataclass(frozen=True)
class Removed:
    """The key is gone; why its value does not matter any more."""

    why: str


@dataclass(frozen=True)
class Rewritten:
    """The key is still there, or needs its neighbours to be understood."""

    step: old_values.Step
    """Changes the document in place; returns a notice, a problem, or nothing."""


Action = Moved | Removed | Rewritten

_STATISTICS = "each image is normalised by its own statistics, or by fixed ones (ZERO_MEAN_UNIT_VAR)"
_KEPT_IN_CHECKPOINT = "the checkpoint holds what is needed to normalise new images"
_CHECKPOINT = "the weights are loaded; a stopped run resumes by itself with the same command"
_EM = "BiaPy removed it; BRIGHTNESS and CONTRAST are what there is"

RENAMED: dict[str, Action] = {
    # moved: old place -> new place
    "MODEL.N_CLASSES": Moved("DATA.N_CLASSES"),
    "DATA.TRAIN.MASK_PATH": Moved("DATA.TRAIN.GT_PATH"),
    "DATA.VAL.MASK_PATH": Moved("DATA.VAL.GT_PATH"),
    "DATA.TEST.MASK_PATH": Moved("DATA.TEST.GT_PATH"),
    "DATA.EXTRACT_RANDOM_PATCH": Moved("DATA.TRAIN.EXTRACT_RANDOM_PATCH"),
    "DATA.PROBABILITY_MAP": Moved("DATA.TRAIN.PROBABILITY_MAP"),
    "DATA.W_FOREGROUND": Moved("DATA.TRAIN.W_FOREGROUND"),
    "DATA.W_BACKGROUND": Moved("DATA.TRAIN.W_BACKGROUND"),
    "DATA.NORMALIZATION.PERC_CLIP": Moved("DATA.NORMALIZATION.PERC_CLIP.ENABLE", only=old_values.is_switch),
    "DATA.NORMALIZATION.PERC_LOWER": Moved("DATA.NORMALIZATION.PERC_CLIP.LOWER_PERC"),
    "DATA.NORMALIZATION.PERC_UPPER": Moved("DATA.NORMALIZATION.PERC_CLIP.UPPER_PERC"),
    "DATA.NORMALIZATION.CUSTOM_MEAN": Moved("DATA.NORMALIZATION.ZERO_MEAN_UNIT_VAR.MEAN_VAL"),
    "DATA.NORMALIZATION.CUSTOM_STD": Moved("DATA.NORMALIZATION.ZERO_MEAN_UNIT_VAR.STD_VAL"),
    "AUGMENTOR.MISSING_PARTS*": Moved("AUGMENTOR.MISSING_SECTIONS*"),
    "MODEL.BATCH_NORMALIZATION": Moved("MODEL.NORMALIZATION", convert=old_values.batch_norm_or_none),
    "MODEL.CONVNEXT_LAYERS": Moved("MODEL.CONV_LAYERS"),
    "MODEL.BMZ.SOURCE_MODEL_DOI": Moved("MODEL.BMZ.SOURCE_MODEL_ID"),
    "MODEL.BMZ.EXPORT_MODEL.*": Moved("MODEL.BMZ.EXPORT.*"),
    "TEST.STATS.FULL_IMG": Moved("TEST.FULL_IMG"),
    "TEST.APPLY_MASK": Moved("DATA.TEST.ROI_MASK.ENABLE"),
    "TEST.POST_PROCESSING.APPLY_MASK": Moved("DATA.TEST.ROI_MASK.ENABLE"),
    "DATA.TEST.BINARY_MASKS": Moved("DATA.TEST.ROI_MASK.PATH"),
    "TEST.DET_IGNORE_POINTS_OUTSIDE_BOX": Moved("TEST.EVAL_BORDER_CROP"),
    "TEST.BY_CHUNKS.INPUT_IMG_AXES_ORDER": Moved("DATA.TEST.INPUT_IMG_AXES_ORDER"),
    "TEST.BY_CHUNKS.INPUT_MASK_AXES_ORDER": Moved("DATA.TEST.INPUT_MASK_AXES_ORDER"),
    "TEST.BY_CHUNKS.INPUT_ZARR_MULTIPLE_DATA*": Moved("DATA.TEST.INPUT_ZARR_MULTIPLE_DATA*"),
    # removed: nothing to decide any more
    "DATA.NORMALIZATION.MEASURE_BY": Removed(_STATISTICS),
    "DATA.NORMALIZATION.CUSTOM_MODE": Removed(_STATISTICS),
    "DATA.NORMALIZATION.APPLICATION_MODE": Removed(_STATISTICS),
    "DATA.TRAIN.BINARY_MASKS": Removed("region masks were for test images only"),
    "DATA.VAL.BINARY_MASKS": Removed("region masks were for test images only"),
    "DATA.ROOT_DIR": Removed("each folder is named by its own key, DATA.TRAIN.PATH and the like"),
    "DATA.CHANNELS": Removed("channels are read from the images (the last value of DATA.PATCH_SIZE)"),
    "AUGMENTOR.BRIGHTNESS_EM*": Removed(_EM),
    "AUGMENTOR.CONTRAST_EM*": Removed(_EM),
    "AUGMENTOR.BRIGHTNESS_MODE": Removed("brightness and contrast work on 2D and 3D alike"),
    "AUGMENTOR.CONTRAST_MODE": Removed("brightness and contrast work on 2D and 3D alike"),
    "MODEL.LAST_ACTIVATION": Removed("the network returns logits; the classes decide between sigmoid and softmax"),
    "MODEL.KERNEL_INIT": Removed("each layer is initialised as its activation needs it"),
    "MODEL.DEPTH": Removed("the number of levels is the number of MODEL.FEATURE_MAPS"),
    "MODEL.LOAD_CHECKPOINT_ONLY_WEIGHTS": Removed(_CHECKPOINT),
    "MODEL.LOAD_MODEL_FROM_CHECKPOINT": Removed(_CHECKPOINT),
    "PATHS.MEAN_INFO_FILE": Removed(_KEPT_IN_CHECKPOINT),
    "PATHS.STD_INFO_FILE": Removed(_KEPT_IN_CHECKPOINT),
    "PATHS.LWR_X_FILE": Removed(_KEPT_IN_CHECKPOINT),
    "PATHS.UPR_X_FILE": Removed(_KEPT_IN_CHECKPOINT),
    "PATHS.MAP_*": Removed("there is no mAP in semantic segmentation"),
    "TEST.EVALUATE": Removed("the metrics are measured whenever DATA.TEST.LOAD_GT is True"),
    "TEST.MAP": Removed("there is no mAP in semantic segmentation"),
    "TEST.POST_PROCESSING.BLENDING": Removed("seams between patches are avoided in every prediction"),
    "TEST.BY_CHUNKS.FORMAT": Removed("with TEST.BY_CHUNKS.ENABLE predictions are written as OME-Zarr"),
    "TEST.BY_CHUNKS.WORKFLOW_PROCESS.INSTANCE_SEG_HALO": Removed("it belongs to instance segmentation"),
    # rewritten: the key stays, the old value is understood (after the moves)
    "DATA.N_CLASSES": Rewritten(old_values.one_class),
    "DATA.VAL.SPLIT_TRAIN": Rewritten(old_values.no_split),
    "DATA.TRAIN.MINIMUM_FOREGROUND_PER": Rewritten(old_values.minimum_foreground),
    "DATA.NORMALIZATION.TYPE": Rewritten(old_values.normalization_type),
    "AUGMENTOR.AFFINE_MODE": Rewritten(old_values.affine_mode),
    "MODEL.SPATIAL_DROPOUT": Rewritten(old_values.spatial_dropout),
    "LOSS.TYPE": Rewritten(old_values.loss_type),
    "LOSS.WEIGHTS": Rewritten(old_values.empty_list),
    "LOSS.CLASS_REBALANCE": Rewritten(old_values.class_rebalance),
    "TRAIN.METRICS": Rewritten(old_values.empty_list),
    "TEST.METRICS": Rewritten(old_values.empty_list),
    "TRAIN.LR_SCHEDULER.NAME": Rewritten(old_values.cosine_schedule),
    "TRAIN.LR_SCHEDULER.ENABLE": Rewritten(old_values.schedule_switch),
}
"""Old key (a trailing ``*`` stands for any ending) to what became of it."""


def apply_renamed_keys(document: Document) -> tuple[list[str], list[Problem]]:
    """Bring every old key and value of `document` to its present form, in place; notices and contradictions."""
    notices: list[str] = []
    problems: list[Problem] = []
    for old, action in _given(document):
        outcome = _apply(document, old, action)
        if isinstance(outcome, Problem):
            problems.append(outcome)
        elif outcome:
            notices.append(outcome)
    return notices, problems


def old_names(key: str) -> list[str]:
    """The old names of `key`."""
    found = []
    for old, action in RENAMED.items():
        if isinstance(action, Moved) and not old.endswith("*") and action.new == key:
            found.append(old)
        elif isinstance(action, Moved) and old.endswith("*") and key.startswith(action.new[:-1]):
            found.append(old[:-1] + key[len(action.new) - 1 :])
    return found


def find_action(key: str) -> Action | None:
    """What became of the old key `key`; None if it is not in the table."""
    if key in RENAMED:
        return RENAMED[key]
    for old, action in RENAMED.items():
        if old.endswith("*") and key.startswith(old[:-1]):
            if isinstance(action, Moved):
                return replace(action, new=action.new[:-1] + key[len(old) - 1 :])
            return action
    return None


def _given(document: Document) -> Iterator[tuple[str, Action]]:
    """The rows of the table that concern `document`, in the order of the table; a move adds to what follows."""
    for old in RENAMED:
        matches = [key for key in document.entries if key.startswith(old[:-1])] if old.endswith("*") else [old]
        for key in matches:
            action = find_action(key)
            if key in document.entries and action is not None:
                yield key, action


def _apply(document: Document, old: str, action: Action) -> str | Problem | None:
    entry = document.entries[old]
    if isinstance(action, Rewritten):
        return action.step(document, old)
    if isinstance(action, Removed):
        notice = document.says(old, f"{old} has no effect any more: {action.why}")
        del document.entries[old]
        return notice
    if action.only is not None and not action.only(entry.value):
        return None
    return _move(document, old, action)


def _move(document: Document, old: str, action: Moved) -> str | Problem | None:
    entry, present = document.entries[old], document.entries.get(action.new)
    value = entry.value if action.convert is None else action.convert(entry.value)
    notice = document.says(old, f"{old} is now {action.new}")
    if value != entry.value:
        notice += f" ({show_value(entry.value)} is now {show_value(value)})"
    if entry.value is None and present is not None:  # left empty, it says nothing against the new name
        del document.entries[old]
        return notice
    if present is None or present.value is None or (entry.is_override and not present.is_override):
        document.entries[action.new] = replace(entry, value=value)
    elif present.is_override == entry.is_override and not _same(action.new, value, present.value):
        problem = Problem(
            document.place(old),
            f"is {show_value(entry.value)}, but {document.place(action.new)} is {show_value(present.value)}; "
            f"{old} is the old name of {action.new}",
            f"keep {action.new} only",
        )
        del document.entries[old]
        return problem
    del document.entries[old]
    return notice


def _same(key: str, first: Any, second: Any) -> bool:
    known = all_keys().get(key)
    if known is None:
        return bool(first == second)
    left, right = coerce(first, known.annotation), coerce(second, known.annotation)
    if key == "DATA.N_CLASSES":
        left, right = max(left, 2) if left == 1 else left, max(right, 2) if right == 1 else right
    return bool(left == right)
