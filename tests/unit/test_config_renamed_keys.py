"""Every old key and old value of BiaPy becomes what it meant, and says so in one line."""

from __future__ import annotations

import pytest

from crista.config.base import Section
from crista.config.fields import all_keys
from crista.config.known_keys import find_known
from crista.config.load import LoadedConfig, parse_config
from crista.config.renamed_keys import RENAMED, Moved, Removed, old_names
from crista.errors import ConfigError


def load(text: str) -> LoadedConfig:
    return parse_config(text, "job.yaml")


def nested(key: str, value: str) -> str:
    """``A.B: value`` as nested YAML."""
    parts = key.split(".")
    lines = [f"{'  ' * depth}{part}:" for depth, part in enumerate(parts)]
    return "\n".join(lines) + f" {value}\n"


def value_of(config: Section, key: str):
    found = config
    for part in key.lower().split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(
    ("old", "given", "new", "value"),
    [
        ("MODEL.N_CLASSES", "3", "DATA.N_CLASSES", 3),
        ("DATA.TRAIN.MASK_PATH", "a", "DATA.TRAIN.GT_PATH", "a"),
        ("DATA.VAL.MASK_PATH", "a", "DATA.VAL.GT_PATH", "a"),
        ("DATA.TEST.MASK_PATH", "a", "DATA.TEST.GT_PATH", "a"),
        ("DATA.EXTRACT_RANDOM_PATCH", "True", "DATA.TRAIN.EXTRACT_RANDOM_PATCH", True),
        ("DATA.PROBABILITY_MAP", "False", "DATA.TRAIN.PROBABILITY_MAP", False),
        ("DATA.W_FOREGROUND", "0.8", "DATA.TRAIN.W_FOREGROUND", 0.8),
        ("DATA.W_BACKGROUND", "0.2", "DATA.TRAIN.W_BACKGROUND", 0.2),
        ("DATA.NORMALIZATION.PERC_CLIP", "False", "DATA.NORMALIZATION.PERC_CLIP.ENABLE", False),
        ("DATA.NORMALIZATION.PERC_LOWER", "0.2", "DATA.NORMALIZATION.PERC_CLIP.LOWER_PERC", 0.2),
        ("DATA.NORMALIZATION.PERC_UPPER", "99.8", "DATA.NORMALIZATION.PERC_CLIP.UPPER_PERC", 99.8),
        ("DATA.NORMALIZATION.CUSTOM_MEAN", "3.5", "DATA.NORMALIZATION.ZERO_MEAN_UNIT_VAR.MEAN_VAL", (3.5,)),
        ("DATA.NORMALIZATION.CUSTOM_STD", "2", "DATA.NORMALIZATION.ZERO_MEAN_UNIT_VAR.STD_VAL", (2,)),
        ("MODEL.BATCH_NORMALIZATION", "True", "MODEL.NORMALIZATION", "bn"),
        ("MODEL.BATCH_NORMALIZATION", "no", "MODEL.NORMALIZATION", "none"),
        ("MODEL.CONVNEXT_LAYERS", "[3]", "MODEL.CONV_LAYERS", (3,)),
        ("TEST.STATS.FULL_IMG", "True", "TEST.FULL_IMG", True),
        ("TEST.STATS.FULL_IMG", "False", "TEST.FULL_IMG", False),
        ("TEST.DET_IGNORE_POINTS_OUTSIDE_BOX", "[2, 2]", "TEST.EVAL_BORDER_CROP", (2, 2)),
        ("TEST.BY_CHUNKS.INPUT_IMG_AXES_ORDER", "ZYX", "DATA.TEST.INPUT_IMG_AXES_ORDER", "ZYX"),
        ("TEST.BY_CHUNKS.INPUT_MASK_AXES_ORDER", "ZYX", "DATA.TEST.INPUT_MASK_AXES_ORDER", "ZYX"),
        ("TEST.BY_CHUNKS.INPUT_ZARR_MULTIPLE_DATA", "True", "DATA.TEST.INPUT_ZARR_MULTIPLE_DATA", True),
        (
            "TEST.BY_CHUNKS.INPUT_ZARR_MULTIPLE_DATA_RAW_PATH",
            "volumes.raw",
            "DATA.TEST.INPUT_ZARR_MULTIPLE_DATA_RAW_PATH",
            "volumes.raw",
        ),
    ],
)
def test_moved_key(old, given, new, value):
    loaded = load(nested(old, given))
    assert value_of(loaded.config, new) == value
    line = len(old.split("."))
    assert loaded.notices[0].startswith(f"line {line}: {old} is now {new}")
    assert old in old_names(new)


@pytest.mark.parametrize("old", [key for key, action in RENAMED.items() if isinstance(action, Removed)])
def test_removed_key(old):
    key = old.replace("*", "")
    loaded = load(nested(key, "True"))
    action = RENAMED[old]
    assert isinstance(action, Removed)
    assert loaded.notices == (f"line {len(key.split('.'))}: {key} has no effect any more: {action.why}",)


def test_every_move_leads_to_a_key():
    for action in RENAMED.values():
        if isinstance(action, Moved):
            ends = [key for key in all_keys() if key.startswith(action.new.removesuffix("*"))]
            assert ends or find_known(action.new.removesuffix("*")), action.new


def test_no_old_name_is_a_key_of_today():
    moved = {key for key, action in RENAMED.items() if isinstance(action, Moved | Removed)}
    assert moved & set(all_keys()) == {"TEST.STATS.FULL_IMG"}


@pytest.mark.parametrize("key", ["MODEL.N_CLASSES", "DATA.N_CLASSES"])
def test_one_class_means_two(key):
    loaded = load(nested(key, "1"))
    assert loaded.config.data.n_classes == 2
    assert any("1 is now 2 (the background counts as a class)" in notice for notice in loaded.notices)


def test_custom_normalization():
    text = "DATA:\n  NORMALIZATION:\n    TYPE: custom\n    CUSTOM_MEAN: 0.5\n    CUSTOM_STD: 0.25\n"
    loaded = load(text)
    assert loaded.config.data.normalization.type == "zero_mean_unit_variance"
    assert loaded.config.data.normalization.zero_mean_unit_var.given
    assert len(loaded.notices) == 3


def test_clipping_of_older_files():
    loaded = load("DATA:\n  NORMALIZATION:\n    PERC_CLIP: True\n    PERC_LOWER: 1\n    PERC_UPPER: 99\n")
    clip = loaded.config.data.normalization.perc_clip
    assert (clip.enable, clip.lower_perc, clip.upper_perc) == (True, 1, 99)


def test_scalars_for_lists_of_limits():
    text = "DATA:\n  NORMALIZATION:\n    PERC_CLIP: {ENABLE: True, LOWER_VALUE: 10, UPPER_VALUE: 200}\n"
    assert load(text).config.data.normalization.perc_clip.lower_value == (10,)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("LOSS: {CLASS_REBALANCE: True}", "auto"),
        ("LOSS: {CLASS_REBALANCE: 'True'}", "auto"),
        ("LOSS: {CLASS_REBALANCE: True, CLASS_WEIGHTS: [1, 2]}", "manual"),
        ("LOSS: {CLASS_REBALANCE: True, CLASS_WEIGHTS: []}", "auto"),
        ("LOSS: {CLASS_REBALANCE: False}", "none"),
        ("LOSS: {CLASS_REBALANCE: auto}", "auto"),
        ("LOSS: {CLASS_REBALANCE: none}", "none"),
    ],
)
def test_class_rebalance(text, kind):
    assert load(text).config.loss.class_rebalance == kind


def test_weighted_sum_of_two_losses():
    loaded = load("LOSS:\n  TYPE: W_CE_DICE\n  WEIGHTS: [0.66, 0.34]\n")
    assert loaded.config.loss.type == ("DICE", "CE")
    assert loaded.config.loss.weights == (0.66, 0.34)
    assert loaded.notices == ("line 2: LOSS.TYPE: W_CE_DICE is now [DICE, CE]; LOSS.WEIGHTS has their weights",)
    for text in ("LOSS:\n  TYPE: W_CE_DICE\n", "LOSS:\n  TYPE: W_CE_DICE\n  WEIGHTS: []\n"):
        default = load(text)
        assert default.config.loss.weights == (0.66, 0.34)
        assert default.notices == (
            "line 2: LOSS.TYPE: W_CE_DICE is now [DICE, CE]; LOSS.WEIGHTS is left out and (0.66, 0.34), as it was",
        )


@pytest.mark.parametrize("name", ["w_ce_dice", "[W_CE_DICE]", "' W_Ce_Dice '"])
def test_old_names_of_values_in_any_case(name):
    assert load(f"LOSS:\n  TYPE: {name}\n").config.loss.type == ("DICE", "CE")
    assert load("DATA: {NORMALIZATION: {TYPE: Custom}}").config.data.normalization.type == "zero_mean_unit_variance"
    assert load("TRAIN: {LR_SCHEDULER: {NAME: Cosine}}").config.train.lr_scheduler.name == "warmupcosine"


def test_empty_lists_of_biapy_are_left_out():
    loaded = load("LOSS: {TYPE: [], WEIGHTS: [], CLASS_WEIGHTS: []}\nTRAIN: {METRICS: []}\nTEST: {METRICS: []}\n")
    assert loaded.config.loss.type is None
    assert loaded.config.train.metrics == loaded.config.test.metrics == ("iou",)
    assert loaded.notices == ()


@pytest.mark.parametrize(
    ("text", "name", "notice"),
    [
        ("{NAME: cosine}", "warmupcosine", "cosine is now warmupcosine with WARMUP_COSINE_DECAY_EPOCHS: 0"),
        ("{ENABLE: False, NAME: onecycle}", "", "ENABLE: False is now TRAIN.LR_SCHEDULER.NAME: ''"),
        ("{ENABLE: True, NAME: onecycle}", "onecycle", "ENABLE has no effect any more"),
    ],
)
def test_schedules_of_older_files(text, name, notice):
    loaded = load(f"TRAIN:\n  LR_SCHEDULER: {text}\n")
    assert loaded.config.train.lr_scheduler.name == name
    assert notice in loaded.notices[0]


def test_border_rules_of_older_files():
    loaded = load("AUGMENTOR:\n  AFFINE_MODE: mirror\n")
    assert loaded.config.augmentor.affine_mode == "reflect"
    assert loaded.notices == ("line 2: AUGMENTOR.AFFINE_MODE: mirror is now reflect",)


@pytest.mark.parametrize("rest", ["FROM_TRAIN: False", "CROSS_VAL: True"])
def test_a_share_of_zero_where_nothing_is_split_off(rest):
    assert load(f"DATA:\n  VAL: {{SPLIT_TRAIN: 0, {rest}}}\n").config.data.val.split_train == 0.1
    with pytest.raises(ConfigError, match="must be above 0, but is 0"):
        load("DATA:\n  VAL: {SPLIT_TRAIN: 0}\n")


@pytest.mark.parametrize(("text", "filters"), [
    ("{YZ_FILTERING: False}", ()),
    ("{YZ_FILTERING: True}", (("zy", 5),)),
    ("{Z_FILTERING: True, Z_FILTERING_SIZE: 4}", (("z", 5),)),
    ("{MEDIAN_FILTER: True, MEDIAN_FILTER_AXIS: [yz, z], MEDIAN_FILTER_SIZE: [3, 7]}", (("zy", 3), ("z", 7))),
])  # fmt: skip
def test_median_filters_of_all_generations(text, filters):
    assert load(f"TEST:\n  POST_PROCESSING: {text}\n").config.test.post_processing.filters == filters


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("DATA.NORMALIZATION.TYPE", "''", "no way to skip normalisation"),
        ("MODEL.SPATIAL_DROPOUT", "True", "use MODEL.DROPOUT_VALUES"),
        ("DATA.TRAIN.MINIMUM_FOREGROUND_PER", "0.1", "known in BiaPy but not supported"),
        ("TEST.APPLY_MASK", "True", "DATA.TEST.ROI_MASK.ENABLE"),
        ("TEST.POST_PROCESSING.APPLY_MASK", "True", "DATA.TEST.ROI_MASK.ENABLE"),
        ("MODEL.BMZ.EXPORT_MODEL.ENABLE", "True", "MODEL.BMZ.EXPORT.ENABLE"),
        ("AUGMENTOR.MISSING_PARTS", "False", ""),
    ],
)
def test_old_keys_without_a_counterpart(key, value, part):
    text = nested(key, value)
    if not part:
        assert load(text).notices == (f"line 2: {key} is now AUGMENTOR.MISSING_SECTIONS",)
        return
    with pytest.raises(ConfigError) as caught:
        load(text)
    [problem] = caught.value.problems
    assert problem.where.startswith(f"job.yaml line {len(key.split('.'))}, {key}")
    assert part in str(problem)


@pytest.mark.parametrize(("key", "value"), [
    ("MODEL.SPATIAL_DROPOUT", "False"), ("DATA.TRAIN.MINIMUM_FOREGROUND_PER", "-1"), ("TEST.APPLY_MASK", "False"),
    ("DATA.TEST.BINARY_MASKS", "a"), ("MODEL.BMZ.SOURCE_MODEL_DOI", "x"), ("MODEL.BMZ.EXPORT_MODEL.ENABLE", "False"),
])  # fmt: skip
def test_old_switches_that_are_off(key, value):
    assert len(load(nested(key, value)).notices) == 1


def test_old_and_new_name_that_agree():
    assert load("MODEL: {N_CLASSES: 3}\nDATA: {N_CLASSES: 3}\n").config.data.n_classes == 3
    assert load("MODEL: {N_CLASSES: 1}\nDATA: {N_CLASSES: 2}\n").config.data.n_classes == 2


@pytest.mark.parametrize("text", ["{MASK_PATH: null, GT_PATH: y}", "{MASK_PATH: y, GT_PATH: null}", "{MASK_PATH: y}"])
def test_a_name_that_is_left_empty_contradicts_nothing(text):
    loaded = load(f"DATA: {{TRAIN: {text}}}\n")
    assert loaded.config.data.train.gt_path == "y"
    assert "line 1: DATA.TRAIN.MASK_PATH is now DATA.TRAIN.GT_PATH" in loaded.notices


def test_old_and_new_name_that_disagree():
    with pytest.raises(ConfigError) as caught:
        load("DATA:\n  N_CLASSES: 2\nMODEL:\n  N_CLASSES: 3\n")
    [problem] = caught.value.problems
    assert problem.where == "job.yaml line 4, MODEL.N_CLASSES"
    assert "is 3, but job.yaml line 2, DATA.N_CLASSES is 2" in problem.what
    assert problem.next_step == "keep DATA.N_CLASSES only"


def test_a_wrong_value_under_an_old_name_points_at_the_old_name():
    with pytest.raises(ConfigError) as caught:
        load("MODEL:\n  N_CLASSES: many\n")
    [problem] = caught.value.problems
    assert problem.where == "job.yaml line 2, MODEL.N_CLASSES (now DATA.N_CLASSES)"


def test_notices_of_old_names_can_be_switched_off():
    assert load("PROBLEM: {PRINT_OLD_KEY_CHANGES: False}\nMODEL: {N_CLASSES: 3}\n").notices == ()
