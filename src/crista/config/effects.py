"""Keys that are set but change nothing in the given combination: each is said, never ignored in silence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from crista.config.document import Document
from crista.config.root import Config


@dataclass(frozen=True)
class Idle:
    """`keys` change nothing while `holds` is true of the configuration."""

    keys: tuple[str, ...]
    holds: Callable[[Config], bool]
    why: str


_PARAMETERS: dict[str, tuple[str, ...]] = {
    "VFLIP": (), "HFLIP": (), "ZFLIP": (), "ROT90": (), "POISSON_NOISE": (), "RANDOM_ROT": ("RANDOM_ROT_RANGE",),
    "ZOOM": ("ZOOM_RANGE", "ZOOM_IN_Z"), "SHEAR": ("SHEAR_RANGE",), "SHIFT": ("SHIFT_RANGE",),
    "ELASTIC": ("E_ALPHA", "E_SIGMA", "E_MODE"), "BRIGHTNESS": ("BRIGHTNESS_FACTOR",), "CONTRAST": ("CONTRAST_FACTOR",),
    "GAMMA_CONTRAST": ("GC_GAMMA",), "G_BLUR": ("G_SIGMA",), "MEDIAN_BLUR": ("MB_KERNEL",), "DROPOUT": ("DROP_RANGE",),
    "GAUSSIAN_NOISE": ("GAUSSIAN_NOISE_MEAN", "GAUSSIAN_NOISE_VAR", "GAUSSIAN_NOISE_USE_INPUT_IMG_MEAN_AND_VAR"),
    "CUTOUT": ("COUT_NB_ITERATIONS", "COUT_SIZE", "COUT_CVAL", "COUT_APPLY_TO_MASK"),
}  # fmt: skip
"""The switch of each augmentation, and what is set of it besides its probability."""
_OF_AUGMENTATIONS = (
    *(f"AUGMENTOR.{key}" for name, keys in _PARAMETERS.items() for key in (name, f"{name}_PROB", *keys)),
    *(f"AUGMENTOR.{key}" for key in ("DA_PROB", "AFFINE_MODE", "AUG_SAMPLES", "DRAW_GRID")),
)
_AFFINE = ("RANDOM_ROT", "ZOOM", "SHEAR", "SHIFT")

_OF_JOBS = tuple(
    f"SYSTEM.CLUSTER.{name}"
    for name in (
        "PARTITION", "ACCOUNT", "CORES", "MEMORY", "WALLTIME", "DIRECTIVES", "PROLOGUE", "PYTHON", "INTERFACE", "MIN_JOBS",
    )
)  # fmt: skip
_OF_WORKERS = tuple(f"SYSTEM.CLUSTER.{name}" for name in ("RETRIES", "ALLOWED_FAILURES", "STRAGGLER_FACTOR", "TIMEOUT"))


def _parameters_of(name: str) -> Idle:
    """The keys of one augmentation, which are given while it is switched off."""
    keys = tuple(f"AUGMENTOR.{key}" for key in (f"{name}_PROB", *_PARAMETERS[name]))
    return Idle(keys, lambda c: c.augmentor.enable and not getattr(c.augmentor, name.lower()), f"AUGMENTOR.{name} is off")


def _labels_inside(part: str) -> Idle:
    """Label images of their own where those inside the files of the images are taken."""
    inside = f"DATA.{part}.INPUT_ZARR_MULTIPLE_DATA is True: the labels are those inside the files of PATH"
    return Idle((f"DATA.{part}.GT_PATH",), lambda c: getattr(c.data, part.lower()).input_zarr_multiple_data, inside)


def _is_not_measured(config: Config) -> bool:
    """Whether images are predicted without label images to measure against."""
    return config.test.enable and not config.data.test.load_gt and not config.data.test.use_val_as_test


IDLE: tuple[Idle, ...] = (
    Idle(_OF_JOBS, lambda c: not c.system.cluster.queue, "SYSTEM.CLUSTER.QUEUE is empty"),
    Idle(_OF_WORKERS, lambda c: not c.system.cluster.is_used, "SYSTEM.CLUSTER.WORKERS is 0, and there is no SCHEDULER"),
    Idle(
        ("SYSTEM.CLUSTER.WORKERS",), lambda c: bool(c.system.cluster.scheduler), "SYSTEM.CLUSTER.SCHEDULER has workers of its own"
    ),
    Idle(
        ("SYSTEM.CLUSTER.ALLOWED_FAILURES",),
        lambda c: bool(c.system.cluster.scheduler),
        "the SCHEDULER, which runs already, decides it (distributed.scheduler.allowed-failures)",
    ),
    Idle(
        ("PATHS.PROB_MAP_DIR", "DATA.TRAIN.W_FOREGROUND", "DATA.TRAIN.W_BACKGROUND"),
        lambda c: not c.data.train.probability_map,
        "DATA.TRAIN.PROBABILITY_MAP is off",
    ),
    Idle(
        tuple(f"DATA.NORMALIZATION.PERC_CLIP.{key}" for key in ("LOWER_PERC", "UPPER_PERC", "LOWER_VALUE", "UPPER_VALUE")),
        lambda c: not c.data.normalization.perc_clip.enable,
        "DATA.NORMALIZATION.PERC_CLIP.ENABLE is False",
    ),
    *(
        Idle(
            (f"DATA.NORMALIZATION.PERC_CLIP.{side}_VALUE",),
            lambda c, side=side: (  # type: ignore[misc]
                c.data.normalization.perc_clip.enable and getattr(c.data.normalization.perc_clip, f"{side.lower()}_perc") >= 0
            ),
            f"DATA.NORMALIZATION.PERC_CLIP.{side}_PERC decides",
        )
        for side in ("LOWER", "UPPER")
    ),
    Idle(
        ("DATA.NORMALIZATION.ZERO_MEAN_UNIT_VAR.MEAN_VAL", "DATA.NORMALIZATION.ZERO_MEAN_UNIT_VAR.STD_VAL"),
        lambda c: c.data.normalization.type != "zero_mean_unit_variance",
        "DATA.NORMALIZATION.TYPE is not zero_mean_unit_variance",
    ),
    Idle(
        tuple(
            f"DATA.VAL.{key}"
            for key in (
                *("PATH", "GT_PATH", "RESOLUTION", "INPUT_IMG_AXES_ORDER", "INPUT_MASK_AXES_ORDER", "INPUT_ZARR_MULTIPLE_DATA"),
                *("INPUT_ZARR_MULTIPLE_DATA_RAW_PATH", "INPUT_ZARR_MULTIPLE_DATA_GT_PATH"),
            )
        ),
        lambda c: c.data.val.from_train,
        "DATA.VAL.FROM_TRAIN is True",
    ),
    Idle(("DATA.VAL.SPLIT_TRAIN", "DATA.VAL.RANDOM"), lambda c: not c.data.val.from_train, "DATA.VAL.FROM_TRAIN is False"),
    Idle(("DATA.VAL.SPLIT_TRAIN",), lambda c: c.data.val.cross_val, "DATA.VAL.CROSS_VAL is True"),
    Idle(("DATA.TEST.PATH", "DATA.TEST.GT_PATH"), lambda c: c.data.test.use_val_as_test, "USE_VAL_AS_TEST is True"),
    Idle(
        ("DATA.TEST.GT_PATH", "DATA.TEST.INPUT_MASK_AXES_ORDER", "DATA.TEST.CHECK_DATA", "TEST.EVAL_BORDER_CROP"),
        _is_not_measured,
        "DATA.TEST.LOAD_GT is False, and nothing is measured",
    ),
    *map(_labels_inside, ("TRAIN", "VAL", "TEST")),
    Idle(
        ("DATA.VAL.CROSS_VAL_NFOLD", "DATA.VAL.CROSS_VAL_FOLD"), lambda c: not c.data.val.cross_val, "DATA.VAL.CROSS_VAL is False"
    ),
    Idle(
        ("DATA.TRAIN.OVERLAP", "DATA.TRAIN.PADDING"), lambda c: c.data.train.extract_random_patch, "EXTRACT_RANDOM_PATCH is True"
    ),
    Idle(_OF_AUGMENTATIONS, lambda c: not c.augmentor.enable, "AUGMENTOR.ENABLE is False"),
    *map(_parameters_of, _PARAMETERS),
    Idle(
        ("AUGMENTOR.AFFINE_MODE",),
        lambda c: c.augmentor.enable and not any(getattr(c.augmentor, name.lower()) for name in _AFFINE),
        f"AUGMENTOR.{', '.join(_AFFINE)} are off",
    ),
    Idle(
        ("AUGMENTOR.DRAW_GRID",), lambda c: c.augmentor.enable and not c.augmentor.aug_samples, "AUGMENTOR.AUG_SAMPLES is False"
    ),
    Idle(
        ("AUGMENTOR.AUG_NUM_SAMPLES",),
        # It is also the number of patches that are shown with the pixels that they were drawn around.
        lambda c: not ((c.augmentor.enable and c.augmentor.aug_samples) or c.data.train.probability_map or c.loss.ignored_values),
        "AUGMENTOR.ENABLE or AUGMENTOR.AUG_SAMPLES is False",
    ),
    Idle(("AUGMENTOR.ZFLIP",), lambda c: c.problem.ndim == "2D" and c.augmentor.zflip != "auto", "PROBLEM.NDIM is 2D"),
    Idle(("AUGMENTOR.ZOOM_IN_Z",), lambda c: c.problem.ndim == "2D", "PROBLEM.NDIM is 2D"),
    Idle(("MODEL.Z_DOWN", "MODEL.ISOTROPY"), lambda c: c.problem.ndim == "2D", "PROBLEM.NDIM is 2D"),
    Idle(
        ("PATHS.CHECKPOINT_FILE",),
        lambda c: c.train.enable and not c.model.load_checkpoint,  # without a training it is what predicts
        "MODEL.LOAD_CHECKPOINT is False",
    ),
    Idle(
        ("MODEL.LOAD_CHECKPOINT_EPOCH", "MODEL.SKIP_UNMATCHED_LAYERS"),
        lambda c: c.train.enable and not c.model.load_checkpoint,
        "MODEL.LOAD_CHECKPOINT is False",
    ),
    Idle(
        ("MODEL.LOAD_CHECKPOINT_EPOCH",),
        lambda c: bool(c.paths.checkpoint_file) and (c.model.load_checkpoint or not c.train.enable),
        "PATHS.CHECKPOINT_FILE names the checkpoint",
    ),
    Idle(("MODEL.SKIP_UNMATCHED_LAYERS",), lambda c: not c.train.enable, "a network that is not trained is loaded whole"),
    Idle(("LOSS.CLASS_WEIGHTS",), lambda c: c.loss.class_rebalance != "manual", "LOSS.CLASS_REBALANCE is not manual"),
    Idle(
        ("TRAIN.QUALITY",),
        lambda c: c.train.epochs is not None or c.train.max_minutes is not None,
        "TRAIN.EPOCHS or TRAIN.MAX_MINUTES is given",
    ),
    Idle(("TRAIN.OPT_BETAS",), lambda c: c.train.optimizer == "SGD", "TRAIN.OPTIMIZER is SGD"),
    Idle(
        ("TRAIN.LR_SCHEDULER.REDUCEONPLATEAU_FACTOR", "TRAIN.LR_SCHEDULER.REDUCEONPLATEAU_PATIENCE"),
        lambda c: c.train.lr_scheduler.name != "reduceonplateau",  # left out it is onecycle
        "TRAIN.LR_SCHEDULER.NAME is not reduceonplateau",
    ),
    Idle(
        ("TRAIN.LR_SCHEDULER.WARMUP_COSINE_DECAY_EPOCHS", "TRAIN.LR_SCHEDULER.COSINE_DECAY_FRACTION"),
        lambda c: c.train.lr_scheduler.name != "warmupcosine",
        "TRAIN.LR_SCHEDULER.NAME is not warmupcosine",
    ),
    Idle(
        ("TRAIN.LR_SCHEDULER.MIN_LR",),
        lambda c: c.train.lr_scheduler.name in (None, "", "onecycle"),
        "TRAIN.LR_SCHEDULER.NAME has no lowest rate",
    ),
    Idle(
        ("TEST.POST_PROCESSING.Z_FILTERING", "TEST.POST_PROCESSING.YZ_FILTERING"),
        lambda c: c.problem.ndim == "2D" and not c.test.analize_2d_imgs_as_3d_stack,
        "PROBLEM.NDIM is 2D; TEST.ANALIZE_2D_IMGS_AS_3D_STACK: True takes the images as the slices of one volume",
    ),
    Idle(
        ("TEST.THRESHOLD",),
        lambda c: (c.data.n_classes or 2) > 2,
        "of more than two classes the one with the highest probability is taken",
    ),
    Idle(
        ("TEST.MAX_MEMORY",),
        lambda c: any(c.data.test.overlap or ()),
        "with DATA.TEST.OVERLAP images are predicted in patches of the training's size",
    ),
    Idle(("TEST.REDUCE_MEMORY",), lambda _: True, "images are predicted tile by tile anyway"),
    Idle(("DATA.TEST.MEDIAN_PADDING",), lambda _: True, "images are padded by reflection"),
    Idle(("DATA.TEST.IN_MEMORY",), lambda _: True, "test images are read tile by tile"),
    Idle(("DATA.VAL.DIST_EVAL",), lambda _: True, "the processes of a distributed run always share the validation"),
    Idle(("TRAIN.VERBOSE", "TEST.VERBOSE"), lambda _: True, "log.txt always holds every line"),
    Idle(
        ("TEST.STATS.PER_PATCH", "TEST.STATS.MERGE_PATCHES"),
        lambda _: True,
        "patches and the images put together from them are always measured where there are label images",
    ),
    Idle(
        ("MODEL.CONV_BLOCK_ORDER",),
        lambda c: c.model.architecture == "resunet",
        "the blocks of resunet are always pre-activated",
    ),
    Idle(
        ("LOSS.CLASS_REBALANCE",),
        lambda c: c.loss.type is not None and "CE" not in c.loss.type,
        "classes are weighted in the cross-entropy, and LOSS.TYPE has no CE",
    ),
    Idle(
        ("TEST.AUGMENTATION_MODE", "TEST.AUGMENTATION_GROUP"),
        lambda c: not c.test.augmentation,
        "TEST.AUGMENTATION is False",
    ),
    Idle(
        ("TEST.SAVE_MODEL_RAW_OUTPUT",),
        lambda c: c.data.test.argmax_to_output is not None,
        "DATA.TEST.ARGMAX_TO_OUTPUT decides",
    ),
    Idle(
        tuple(f"TEST.BY_CHUNKS.{key}" for key in ("SAVE_OUT_TIF", "WRITE_RAW_PREDICTIONS", "Z_START", "Z_END")),
        lambda c: not c.test.by_chunks.enable,
        "TEST.BY_CHUNKS.ENABLE is False",
    ),
    Idle(
        ("TEST.BY_CHUNKS.WRITE_RAW_PREDICTIONS",),
        lambda c: c.test.by_chunks.enable and c.data.test.argmax_to_output is not None,
        "DATA.TEST.ARGMAX_TO_OUTPUT decides",
    ),
    Idle(("TEST.BY_CHUNKS.Z_START", "TEST.BY_CHUNKS.Z_END"), lambda c: c.problem.ndim == "2D", "PROBLEM.NDIM is 2D"),
    Idle(
        ("TEST.POST_PROCESSING.Z_FILTERING_SIZE",),
        lambda c: not c.test.post_processing.z_filtering,
        "TEST.POST_PROCESSING.Z_FILTERING is False",
    ),
    Idle(
        ("TEST.POST_PROCESSING.YZ_FILTERING_SIZE",),
        lambda c: not c.test.post_processing.yz_filtering,
        "TEST.POST_PROCESSING.YZ_FILTERING is False",
    ),
    Idle(
        ("TEST.POST_PROCESSING.MEDIAN_FILTER_AXIS", "TEST.POST_PROCESSING.MEDIAN_FILTER_SIZE"),
        lambda c: not c.test.post_processing.median_filter,
        "TEST.POST_PROCESSING.MEDIAN_FILTER is False",
    ),
)


def idle_keys(config: Config, document: Document) -> list[str]:
    """A notice for each given key that differs from its default and changes nothing."""
    return [document.says(given[0], text) for given, text in _idle(config) if given[0] in document.entries]


def idle_in(config: Config, *, ndim: int | None = None, num_classes: int | None = None) -> list[str]:
    """Notices for keys that change nothing because the images have `ndim` axes, which PROBLEM.NDIM left open, or the labels
    `num_classes` classes, which DATA.N_CLASSES did."""
    known, seen = {text for _, text in _idle(config)}, config
    if ndim is not None and config.problem.ndim is None:
        seen = seen.model_copy(update={"problem": seen.problem.model_copy(update={"ndim": f"{ndim}D"})})
    if num_classes is not None and config.data.n_classes is None:
        seen = seen.model_copy(update={"data": seen.data.model_copy(update={"n_classes": num_classes})})
    return [text.replace("PROBLEM.NDIM is", "the images are") for _, text in _idle(seen) if text not in known]


def _idle(config: Config) -> Iterator[tuple[list[str], str]]:
    """Keys that change nothing, and what to say of them."""
    for rule in IDLE:
        given = [key for key in rule.keys if _differs(config, key)]
        if given and rule.holds(config):
            verb = "has" if len(given) == 1 else "have"
            yield given, f"{', '.join(given)} {verb} no effect: {rule.why}"


def _differs(config: Config, key: str) -> bool:
    """Whether the value of `key` is another than its default."""
    *parents, leaf = key.lower().split(".")
    section = config
    for parent in parents:
        section = getattr(section, parent)
    return bool(getattr(section, leaf) != type(section).model_fields[leaf].default)
