"""What is said about wrong keys and values: each message once, all of them at once, with the right line."""

from __future__ import annotations

import pytest

from crista.config.load import parse_config
from crista.errors import ConfigError, Problem


def problems_of(text: str) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "job.yaml")
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("text", "where", "what", "next_step"),
    [
        ("EPOCHS: 3", "line 1, EPOCHS", "there is no such key", "EPOCHS is TRAIN.EPOCHS"),
        ("TEST: {EPOCHS: 3}", "line 1, TEST.EPOCHS", "there is no such key", "EPOCHS is TRAIN.EPOCHS"),
        ("TRAIN:\n  EPOCH: 3", "line 2, TRAIN.EPOCH", "there is no such key", "did you mean TRAIN.EPOCHS?"),
        ("TRAIN:\n  EPOCSH: 3", "line 2, TRAIN.EPOCSH", "there is no such key", "did you mean TRAIN.EPOCHS?"),
        ("TRIAN:\n  A: 1\n  B: 2", "line 1, TRIAN", "there is no such section", "did you mean TRAIN?"),
        ("TRIAN: {}", "line 1, TRIAN", "there is no such section", "did you mean TRAIN?"),
        ("QQQ: 1", "line 1, QQQ", "there is no such key", "remove it, or see: crista explain"),
        (
            "DATA:\n  TRAIN: 5",
            "line 2, DATA.TRAIN",
            "is a section and takes no value of its own, but is 5",
            "put its keys below it, indented, e.g. INPUT_IMG_AXES_ORDER: …",
        ),
        (
            "TRAIN:\n  EPOCHS:\n    X: 1",
            "line 2, TRAIN.EPOCHS",
            "takes a value (a whole number, at least 1), not keys of its own",
            "write a value after EPOCHS:, or leave it out",
        ),
    ],
)
def test_unknown_keys(text, where, what, next_step):
    assert problems_of(text) == [Problem(f"job.yaml {where}", what, next_step)]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("TRAIN:\n  EPOCHS: many", "must be a whole number, at least 1, but is 'many'"),
        ("TRAIN:\n  EPOCHS: 1.5", "must be a whole number, at least 1, but is 1.5"),
        ("TRAIN:\n  EPOCHS: True", "must be a whole number, at least 1, but is True"),
        ("TRAIN:\n  EPOCHS: [1, 2]", "must be a whole number, at least 1, but is (1, 2)"),
        ("TRAIN:\n  EPOCHS: 0", "must be at least 1, but is 0"),
        ("TRAIN:\n  LR: 0", "must be above 0, but is 0"),
        ("TRAIN:\n  LR: .nan", "must be a number, above 0, but is nan"),
        ("TRAIN:\n  LR: .inf", "must be a number, above 0, but is inf"),
        ("LOSS:\n  IGNORE_INDEX: 65536", "must be at most 65535, but is 65536"),
        ("TEST:\n  THRESHOLD: 1.0", "must be below 1, but is 1"),
        ("TEST:\n  ENABLE: maybe", "must be True or False, but is 'maybe'"),
        ("TEST:\n  ENABLE: 2", "must be True or False, but is 2"),
        ("PATHS:\n  CHARTS: 5", "must be text, but is 5"),
        ("PATHS:\n  CHARTS: True", "must be text, but is True"),
        ("TRAIN:\n  OPTIMIZER: ADAMWW", "must be one of SGD, ADAM, ADAMW, but is 'ADAMWW'"),
        ("TRAIN:\n  OPTIMIZER: [SGD, ADAM]", "must be one of SGD, ADAM, ADAMW, but is ['SGD', 'ADAM']"),
        ("LOSS:\n  TYPE: [CE, FOCAL]", "must be a list, each one of CE, DICE, but is ['CE', 'FOCAL']; value 2 is 'FOCAL'"),
        (
            "DATA:\n  PATCH_SIZE: (256, x, 1)",
            "must be a list of whole numbers, each at least 1, but is '(256, x, 1)'",
        ),
        ("DATA:\n  PATCH_SIZE: (256, 0, 1)", "must be at least 1, but is (256, 0, 1); value 2 is 0"),
        ("AUGMENTOR:\n  ZOOM_RANGE: 0.5", "must be 2 numbers, each at least 0.1, at most 10, but is 0.5"),
        ("AUGMENTOR:\n  ZOOM_RANGE: [0.5, 1, 2]", "must be 2 numbers, each at least 0.1, at most 10, but is (0.5, 1, 2)"),
        ("PROBLEM:\n  TYPE: INSTANCE_SEG", "must be SEMANTIC_SEG, but is 'INSTANCE_SEG'"),
        ("PROBLEM:\n  NDIM: 4D", "must be one of 2D, 3D, but is '4D'"),
        ("MODEL:\n  ARCHITECTURE: unett", "must be one of unet, resunet, attention_unet, but is 'unett'"),
    ],
)
def test_wrong_values(text, what):
    [problem] = problems_of(text)
    assert problem.what == what
    section, key = (line.strip().split(":")[0] for line in text.split("\n"))
    assert problem.where == f"job.yaml line 2, {section}.{key}"
    assert problem.next_step


@pytest.mark.parametrize("text", ["TRAIN:\n  ENABLE:True", "TRAIN:\n  ENABLE：True"])
def test_a_colon_without_a_space(text):
    assert [problem.next_step for problem in problems_of(text)] == ["put a space after the colon: ENABLE: …"]


@pytest.mark.parametrize("text", ["DATA:\n  TRAIN: {PATH: 2024_01}", "DATA:\n  CLASS_NAMES: [ground, 1]"])
def test_text_that_looks_like_a_number_takes_quotes(text):
    assert [problem.next_step for problem in problems_of(text)] == ["put text that looks like a number in quotes: '2024_01'"]


@pytest.mark.parametrize("text", ["DATA:\n  TRAIN: {PATH: {{ folder }}}", "? [a, b]\n: c", "{a: 1}: 2"])
def test_a_placeholder_or_list_for_a_key_is_told_without_the_parsers_words(text):
    first, *_ = problems_of(text)
    assert first.what == "has a list or a section where the name of a key should be"
    assert first.next_step.endswith("fill in a {{placeholder}}")
    assert not any("Node" in str(problem) for problem in problems_of(text))


def test_nearest_choice_is_offered():
    [problem] = problems_of("TRAIN:\n  OPTIMIZER: ADAMWW")
    assert problem.next_step == "did you mean ADAMW?"


def test_another_workflow_is_not_taken_for_the_one_that_there_is():
    [problem] = problems_of("PROBLEM:\n  TYPE: INSTANCE_SEG")
    assert problem.next_step == "see: crista explain PROBLEM.TYPE"


def test_a_tuple_between_braces_is_cut_at_its_comma():
    problem = problems_of("DATA:\n  TEST: {PADDING: (4, 4)}")[-1]
    assert problem.where == "job.yaml line 2, DATA.TEST.PADDING"
    assert problem.next_step == "between { and } a list takes square brackets: [1, 2]"


def test_two_wrong_elements_are_two_problems():
    first, second = problems_of("AUGMENTOR:\n  ZOOM_RANGE: [0.01, 20]")
    assert first.what.endswith("value 1 is 0.01")
    assert second.what.endswith("value 2 is 20")


@pytest.mark.parametrize(
    ("text", "where", "part"),
    [
        ("DATA:\n  TRAIN:\n    PROBABILITY_MAP: True", "line 3, DATA.TRAIN.PROBABILITY_MAP", "EXTRACT_RANDOM_PATCH: True"),
        ("LOSS:\n  CLASS_REBALANCE: manual", "line 2, LOSS.CLASS_REBALANCE", "needs CLASS_WEIGHTS"),
        ("LOSS:\n  WEIGHTS: [0, 0]", "line 2, LOSS.WEIGHTS", "are all 0"),
        (
            "LOSS:\n  CLASS_REBALANCE: manual\n  CLASS_WEIGHTS: [0, 0]",
            "line 3, LOSS.CLASS_WEIGHTS",
            "are all 0, so that no pixel would count",
        ),
        ("LOSS:\n  TYPE: [CE]\n  WEIGHTS: [1, 2]", "line 3, LOSS.WEIGHTS", "2 values for 1 terms"),
        ("MODEL:\n  FEATURE_MAPS: [8, 16]\n  Z_DOWN: [1, 2]", "line 3, MODEL.Z_DOWN", "it takes 1"),
        ("MODEL:\n  ARCHITECTURE: resunet\n  KERNEL_SIZE: 4", "line 3, MODEL.KERNEL_SIZE", "must be odd"),
        ("AUGMENTOR:\n  E_ALPHA: (5, 2)", "line 2, AUGMENTOR.E_ALPHA", "must rise"),
        (
            "TRAIN:\n  EPOCHS: 5\n  LR_SCHEDULER:\n    WARMUP_COSINE_DECAY_EPOCHS: 6",
            "line 4, TRAIN.LR_SCHEDULER.WARMUP_COSINE_DECAY_EPOCHS",
            "is beyond EPOCHS 5",
        ),
        ("TRAIN:\n  EPOCHS: 5\n  PATIENCE: 0", "line 3, TRAIN.PATIENCE", "-1 trains all epochs, and 1 ends it"),
        ("DATA:\n  NORMALIZATION:\n    PERC_CLIP:\n      ENABLE: True", "line 4, DATA.NORMALIZATION.PERC_CLIP.ENABLE", "LOWER"),
        (
            "DATA:\n  NORMALIZATION:\n    PERC_CLIP: {ENABLE: True, LOWER_VALUE: [0, 255], UPPER_VALUE: [200, 0]}",
            "line 3, DATA.NORMALIZATION.PERC_CLIP.LOWER_VALUE",
            "255 must be below UPPER_VALUE 0",
        ),
        ("TEST:\n  POST_PROCESSING:\n    MEDIAN_FILTER: True", "line 3, TEST.POST_PROCESSING.MEDIAN_FILTER", "needs"),
    ],
)
def test_keys_of_one_section_that_do_not_fit(text, where, part):
    [problem] = problems_of(text)
    assert problem.where == f"job.yaml {where}"
    assert part in problem.what


@pytest.mark.parametrize(
    ("text", "where", "part"),
    [
        ("PROBLEM: {NDIM: 3D}\nDATA:\n  PATCH_SIZE: (256, 256, 1)", "line 3, DATA.PATCH_SIZE", "takes (z, y, x, channels)"),
        ("DATA:\n  PATCH_SIZE: 256", "line 2, DATA.PATCH_SIZE", "(256,) has 1 values; it takes (y, x, channels) or"),
        ("DATA: {N_CLASSES: 3}\nLOSS:\n  IGNORE_INDEX: 2", "line 3, LOSS.IGNORE_INDEX", "is also a class"),
        (
            "MODEL: {N_CLASSES: 3}\nLOSS:\n  CLASS_REBALANCE: manual\n  CLASS_WEIGHTS: [1, 2]",
            "line 4, LOSS.CLASS_WEIGHTS",
            "2 weights for 3 classes",
        ),
        ("DATA:\n  N_CLASSES: 2\n  CLASS_NAMES: [a, b, c]", "line 3, DATA.CLASS_NAMES", "3 names for 2 classes"),
        (
            "DATA:\n  TEST: {USE_VAL_AS_TEST: True}\n  VAL: {FROM_TRAIN: False}",
            "line 2, DATA.TEST.USE_VAL_AS_TEST",
            "needs DATA.VAL.FROM_TRAIN: True",
        ),
        (
            "PROBLEM: {NDIM: 2D}\nTEST:\n  POST_PROCESSING: {MEDIAN_FILTER: True, MEDIAN_FILTER_AXIS: z, MEDIAN_FILTER_SIZE: 3}",
            "line 3, TEST.POST_PROCESSING.MEDIAN_FILTER_AXIS",
            "along z needs volumes",
        ),
        (
            "PROBLEM: {NDIM: 3D}\nTEST:\n  ANALIZE_2D_IMGS_AS_3D_STACK: True",
            "line 3, TEST.ANALIZE_2D_IMGS_AS_3D_STACK",
            "is for 2D images",
        ),
    ],
)
def test_sections_that_do_not_fit(text, where, part):
    [problem] = problems_of(text)
    assert problem.next_step
    assert problem.where == f"job.yaml {where}"
    assert part in problem.what


def test_backslashes_that_became_control_characters():
    [problem] = problems_of('DATA:\n  TRAIN:\n    PATH: "C:\\new\\train"')
    assert problem.where == "job.yaml line 3, DATA.TRAIN.PATH"
    assert "holds a control character" in problem.what
    assert "single quotes" in problem.next_step


def test_all_problems_at_once_in_the_order_of_the_lines():
    text = """\
EPOCHS: 3
TRAIN:
  EPOCHS: many
  LR: -1
  LR: 3
  BATCH_SIZE: True
LOSS: CE
MODEL:
  ARCHITECTURE: hrnet48
  FEATURE_MAPS: [1, 2, 3]
  Z_DOWN: [2, 1, 1]
AUGMENTOR:
  ENABLE: True
  CUTMIX: True
PROBLEM:
  NDIM: 3D
DATA:
  PATCH_SIZE: (8, 8, 1)
"""
    where = [problem.where.removeprefix("job.yaml ") for problem in problems_of(text)]
    assert where == [
        "line 1, EPOCHS",
        "line 3, TRAIN.EPOCHS",
        "line 4, TRAIN.LR",
        "line 5, TRAIN.LR",
        "line 6, TRAIN.BATCH_SIZE",
        "line 7, LOSS",
        "line 9, MODEL.ARCHITECTURE",
        "line 11, MODEL.Z_DOWN",
        "line 14, AUGMENTOR.CUTMIX",
        "line 18, DATA.PATCH_SIZE",
    ]


def test_a_wrong_value_does_not_blame_its_neighbours():
    [problem] = problems_of("DATA:\n  TRAIN:\n    PROBABILITY_MAP: True\n    EXTRACT_RANDOM_PATCH: maybe\n")
    assert problem.where == "job.yaml line 4, DATA.TRAIN.EXTRACT_RANDOM_PATCH"
    [problem] = problems_of("DATA:\n  VAL: {CROSS_VAL: maybe}\n  TEST: {USE_VAL_AS_TEST: True}\n")
    assert problem.where == "job.yaml line 2, DATA.VAL.CROSS_VAL"


def test_the_message_as_a_user_sees_it():
    with pytest.raises(ConfigError) as caught:
        parse_config("TRAIN:\n  EPOCHS: 0\n  LRR: 1\n", "job.yaml")
    assert str(caught.value) == (
        "2 problems in the configuration\n"
        "  job.yaml line 2, TRAIN.EPOCHS: must be at least 1, but is 0\n"
        "      -> see: crista explain TRAIN.EPOCHS\n"
        "  job.yaml line 3, TRAIN.LRR: there is no such key\n"
        "      -> did you mean TRAIN.LR?"
    )
