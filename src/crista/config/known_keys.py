"""Keys of BiaPy 3.7 that crista has no field for: their default there, and what to do here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from crista.config.base import coerce
from crista.config.document import Document
from crista.config.fields import show_value
from crista.config.model import ARCHITECTURES
from crista.config.old_values import as_switch
from crista.errors import Problem

BIAPY_ARCHITECTURES = (
    "unet", "resunet", "resunet++", "seunet", "attention_unet", "resunet_se", "unetr", "multiresunet", "unext_v1",
    "unext_v2", "hrnet", "hrnet18", "hrnet32", "hrnet48", "hrnet64", "stunet", "edsr", "rcan", "dfcan", "wdsr",
)  # fmt: skip


class Kind(Enum):
    """What a value other than BiaPy's default leads to."""

    UNSUPPORTED = "an error: the user would miss something"
    PART = "nothing: it belongs to a feature whose switch speaks for it"
    NO_EFFECT = "a notice: the result is the same without it"
    DEAD = "a notice: it changes nothing in BiaPy either"


@dataclass(frozen=True)
class Known:
    """One key of BiaPy."""

    kind: Kind
    default: Any = None
    advice: str = ""
    """What to do instead (unsupported) or why it does not matter (no effect)."""
    needs: tuple[str, ...] = ()
    """Switches of which one must be on for the key to matter."""


def _unsupported(default: Any, advice: str = "leave it out", needs: tuple[str, ...] = ()) -> Known:
    return Known(Kind.UNSUPPORTED, default, advice, needs)


def _no_effect(default: Any, why: str) -> Known:
    return Known(Kind.NO_EFFECT, default, why)


_PART, _DEAD = Known(Kind.PART), Known(Kind.DEAD)
_OTHER = _no_effect(None, "it belongs to another workflow than semantic segmentation")
_TREE = "the results tree has fixed places"
_PHASES = ("DATA.PREPROCESS.TRAIN", "DATA.PREPROCESS.VAL", "DATA.PREPROCESS.TEST")
_STEPS = tuple(
    f"DATA.PREPROCESS.{step}.ENABLE"
    for step in ("RESIZE", "ZOOM", "GAUSSIAN_BLUR", "MEDIAN_BLUR", "MATCH_HISTOGRAM", "CLAHE", "CANNY")
)
_PREPARE = "prepare the images with Fiji or a script before"
_AUGMENTATIONS = (
    "GRAYSCALE", "CHANNEL_SHUFFLE", "CUTBLUR", "CUTMIX", "CUTNOISE", "MISALIGNMENT", "MISSING_SECTIONS", "GRIDMASK",
    "MOTION_BLUR", "SALT", "PEPPER", "SALT_AND_PEPPER",
)  # fmt: skip
_AUGMENTATION_PARTS = (
    "CBLUR_SIZE", "CBLUR_DOWN_RANGE", "CBLUR_INSIDE", "CMIX_SIZE", "CNOISE_SCALE", "CNOISE_NB_ITERATIONS", "CNOISE_SIZE",
    "MS_DISPLACEMENT", "MS_ROTATE_RATIO", "MISSP_CHANNEL_PB", "MISSP_ITERATIONS", "GRID_RATIO", "GRID_D_RANGE",
    "GRID_ROTATE", "GRID_INVERT", "MOTB_K_RANGE", "SALT_AMOUNT", "PEPPER_AMOUNT", "SALT_AND_PEPPER_AMOUNT",
    "SALT_AND_PEPPER_PROP",
)  # fmt: skip
_WORKFLOWS = (
    "INSTANCE_SEG", "DETECTION", "DENOISING", "SUPER_RESOLUTION", "SELF_SUPERVISED", "CLASSIFICATION", "IMAGE_TO_IMAGE",
)  # fmt: skip

KNOWN: dict[str, Known] = {
    "SYSTEM.NUM_GPUS": _no_effect(0, "SYSTEM.DEVICE (or --gpu) chooses the machine"),
    "PROBLEM.SEMANTIC_SEG.IGNORE_CLASS_ID": _DEAD,
    **{f"PROBLEM.{workflow}.*": _OTHER for workflow in _WORKFLOWS},
    "DATA.FILTER_BY_IMAGE": _PART,
    "DATA.SAVE_FILTERED_IMAGES": _PART,
    "DATA.SAVE_FILTERED_IMAGES_NUM": _PART,
    "DATA.RESOLUTION_NORM.ENABLE": _unsupported(False, "rescale the images to one pixel size before"),
    "DATA.RESOLUTION_NORM.TARGET_RESOLUTION": _PART,
    "DATA.NORMALIZATION.TARGET.*": _OTHER,
    **{
        f"DATA.{phase}.{key}": known
        for phase in ("TRAIN", "VAL", "TEST")
        for key, known in {
            "INPUT_ZARR_MULTIPLE_DATA_ID_PATH": _OTHER,
            "INPUT_ZARR_MULTIPLE_DATA_PARTNERS_PATH": _OTHER,
            "INPUT_ZARR_MULTIPLE_DATA_LOCATIONS_PATH": _OTHER,
            "INPUT_ZARR_MULTIPLE_DATA_RESOLUTION_PATH": _OTHER,
            "FILTER_SAMPLES.ENABLE": _unsupported(
                False, "use EXTRACT_RANDOM_PATCH and PROBABILITY_MAP, or take the images out of the folder"
            ),
            "FILTER_SAMPLES.*": _PART,
        }.items()
    },
    # BiaPy skips test images by these, whatever ENABLE says
    "DATA.TEST.FILTER_SAMPLES.PROPS": _no_effect([], "all test images are predicted and measured"),
    "DATA.TEST.ROI_MASK.ENABLE": _unsupported(False, "mask the label images afterwards"),
    "DATA.TEST.ROI_MASK.*": _PART,
    **{phase: _unsupported(False, _PREPARE, needs=_STEPS) for phase in _PHASES},
    **{step: _unsupported(False, _PREPARE, needs=_PHASES) for step in _STEPS},
    **{step.replace(".ENABLE", ".*"): _PART for step in _STEPS},
    "AUGMENTOR.SHUFFLE_TRAIN_DATA_EACH_EPOCH": _DEAD,
    "AUGMENTOR.SHUFFLE_VAL_DATA_EACH_EPOCH": _DEAD,
    **{
        f"AUGMENTOR.{name}": _unsupported(
            False, "leave it out, or use CUTOUT, DROPOUT, G_BLUR or GAUSSIAN_NOISE", needs=("AUGMENTOR.ENABLE",)
        )
        for name in _AUGMENTATIONS
    },
    **{f"AUGMENTOR.{name}_PROB": _PART for name in _AUGMENTATIONS},
    **{f"AUGMENTOR.{name}": _PART for name in _AUGMENTATION_PARTS},
    "MODEL.SOURCE": _unsupported("biapy", "choose a network with MODEL.ARCHITECTURE"),
    "MODEL.CONVNEXT_*": _PART,
    "MODEL.UNETR_*": _PART,
    "MODEL.VIT_*": _PART,
    "MODEL.HRNET.*": _PART,
    "MODEL.HRNET_*": _PART,
    "MODEL.STUNET.*": _PART,
    "MODEL.TORCHVISION_MODEL_NAME": _PART,
    "MODEL.ITEMS_TO_LOAD_FROM_CHECKPOINT": _no_effect(
        ["weights", "norm", "model_arch"], "the weights are loaded; a stopped run resumes by itself with the same command"
    ),
    "MODEL.FREEZE_LAYERS_MATCHING": _unsupported([]),
    "MODEL.OUT_CHECKPOINT_FORMAT": _unsupported("pth"),
    "MODEL.SAVE_CKPT_FREQ": _unsupported(-1, "leave it out; the best and the last checkpoint are always kept"),
    "MODEL.BMZ.EXPORT.ENABLE": _unsupported(False),
    "MODEL.BMZ.*": _PART,
    "LOSS.CONTRAST.ENABLE": _unsupported(False),
    "LOSS.CONTRAST.*": _PART,
    "TRAIN.CHECKPOINT_MONITOR": _DEAD,
    "TRAIN.SAVE_TRAIN_PREDS_FREQ": _unsupported(-1, "leave it out; the report shows predictions of test images"),
    "TRAIN.SAVE_TRAIN_PREDS_NUM_SAMPLES": _PART,
    "TRAIN.SAVE_TRAIN_PREDS_SHOW": _PART,
    "TEST.METRICS_IN_CPU": _no_effect(False, "metrics are measured on the CPU anyway"),
    "TEST.REUSE_PREDICTIONS": _unsupported(False, "leave it out; the images are predicted again"),
    "TEST.BY_CHUNKS.FLUSH_EACH": _DEAD,
    "TEST.BY_CHUNKS.PHASES": _PART,
    "TEST.BY_CHUNKS.WORKFLOW_PROCESS.ENABLE": _no_effect(True, "label images are made block by block, always"),
    "TEST.BY_CHUNKS.WORKFLOW_PROCESS.*": _PART,
    "LOG.LOG_DIR": _no_effect(None, _TREE),
    "LOG.LOG_FILE_PREFIX": _no_effect(None, _TREE),
    "LOG.TENSORBOARD_LOG_DIR": _no_effect(None, _TREE),
    "LOG.CHART_CREATION_FREQ": _no_effect(5, "the charts are drawn during the training, and always at its end"),
    "PATHS.RESULT_DIR.PATH": _no_effect(None, _TREE),
    "PATHS.RESULT_DIR.PER_IMAGE_POST_PROCESSING": _no_effect("per_image_post_processing", _TREE),
    "PATHS.RESULT_DIR.FULL_IMAGE_POST_PROCESSING": _no_effect("full_image_post_processing", _TREE),
    "PATHS.RESULT_DIR.AS_3D_STACK_BIN": _no_effect("as_3d_stack_binarized", _TREE),
    "PATHS.RESULT_DIR.AS_3D_STACK_POST_PROCESSING": _no_effect("as_3d_stack_post_processing", _TREE),
    "PATHS.BMZ_EXPORT_PATH": _PART,
    "PATHS.TRAIN_PRED_SAMPLES": _PART,
    "PATHS.FIL_SAMPLES_DIR": _PART,
    "PATHS.PROFILER": _DEAD,
    "PATHS.CHECKPOINT": _unsupported(None, "name the file to start from with PATHS.CHECKPOINT_FILE"),
    "PATHS.PROB_MAP_FILENAME": _no_effect("prob_map.npy", _TREE),
}
"""Key (a trailing ``*`` stands for any ending; exact keys go first) to what a value other than the default leads to."""


def find_known(key: str) -> Known | None:
    """What is known of BiaPy's key `key`; None if BiaPy has no such key (or crista has it)."""
    if key in KNOWN:
        return KNOWN[key]
    return next((known for name, known in KNOWN.items() if name.endswith("*") and key.startswith(name[:-1])), None)


def is_known_section(name: str) -> bool:
    """Whether BiaPy has keys below `name`."""
    return any(key.startswith(f"{name}.") for key in KNOWN)


def judge_known_key(document: Document, key: str, known: Known) -> str | Problem | None:
    """What to say about `key` with its given value: a notice, a problem, or nothing."""
    value = document.value(key)
    if known.kind is Kind.PART or _is_default(value, known.default):
        return document.says(key, f"{key} has no effect (nor in BiaPy)") if known.kind is Kind.DEAD else None
    if known.kind is Kind.DEAD:
        return document.says(key, f"{key} has no effect (nor in BiaPy)")
    if known.kind is Kind.NO_EFFECT:
        return document.says(key, f"{key} has no effect: {known.advice}")
    if known.needs and not any(as_switch(document.value(switch)) for switch in known.needs):
        on = as_switch(value) is True
        others = " or ".join(known.needs) if len(known.needs) < 4 else "a step below DATA.PREPROCESS"
        return document.says(key, f"{key} has no effect while {others} is off") if on else None
    return Problem(
        document.place(key),
        f"{show_value(value)} is known in BiaPy but not supported by crista yet",
        known.advice,
    )


def check_architecture(document: Document) -> Problem | None:
    """A network that crista does not have: say which there are."""
    given = document.value("MODEL.ARCHITECTURE")
    value = str(given[0] if isinstance(given, list | tuple) and len(given) == 1 else given).strip()
    if given is None or value.lower() in ARCHITECTURES:
        return None
    there = ", ".join(ARCHITECTURES)
    if value.lower() in BIAPY_ARCHITECTURES:
        what = f"{value!r} is known in BiaPy but not supported by crista yet; there are: {there}"
    else:
        what = f"must be one of {there}, but is {value!r}"
    return Problem(document.place("MODEL.ARCHITECTURE"), what, "choose one of these, or leave MODEL.ARCHITECTURE out")


def _is_default(value: Any, default: Any) -> bool:
    if value is None or (value == "" and default is None):
        return True
    if isinstance(default, bool):
        return as_switch(value) is default
    if isinstance(default, int | float | list):
        value = coerce(value, tuple[str, ...] if isinstance(default, list) else type(default))
    if isinstance(value, str) and isinstance(default, str):
        return value.strip().lower() == default.lower()
    return bool(value == default)
