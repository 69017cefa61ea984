"""Keys of BiaPy that crista lacks, and keys that change nothing: an error or a notice, never silence."""

from __future__ import annotations

import pytest

from crista.config.effects import IDLE, idle_in
from crista.config.fields import all_keys
from crista.config.known_keys import BIAPY_ARCHITECTURES, KNOWN, Kind
from crista.config.load import parse_config
from crista.config.model import ARCHITECTURES
from crista.config.renamed_keys import RENAMED
from crista.errors import ConfigError

UNSUPPORTED = {
    "DATA.RESOLUTION_NORM.ENABLE": "True",
    "DATA.TRAIN.FILTER_SAMPLES.ENABLE": "True",
    "DATA.VAL.FILTER_SAMPLES.ENABLE": "True",
    "DATA.TEST.FILTER_SAMPLES.ENABLE": "True",
    "DATA.TEST.ROI_MASK.ENABLE": "True",
    "MODEL.SOURCE": "torchvision",
    "MODEL.FREEZE_LAYERS_MATCHING": "['up.*']",
    "MODEL.OUT_CHECKPOINT_FORMAT": "safetensors",
    "MODEL.SAVE_CKPT_FREQ": "10",
    "MODEL.BMZ.EXPORT.ENABLE": "True",
    "LOSS.CONTRAST.ENABLE": "True",
    "TRAIN.SAVE_TRAIN_PREDS_FREQ": "5",
    "TEST.REUSE_PREDICTIONS": "True",
    "PATHS.CHECKPOINT": "/somewhere",
}


def nested(key: str, value: str) -> str:
    parts = key.split(".")
    return "\n".join(f"{'  ' * depth}{part}:" for depth, part in enumerate(parts)) + f" {value}\n"


def notices(text: str) -> tuple[str, ...]:
    return parse_config(text, "job.yaml").notices


@pytest.mark.parametrize(("key", "value"), UNSUPPORTED.items())
def test_unsupported_key_is_an_error_with_its_line_and_advice(key, value):
    with pytest.raises(ConfigError) as caught:
        notices(nested(key, value))
    [problem] = caught.value.problems
    assert problem.where == f"job.yaml line {len(key.split('.'))}, {key}"
    assert problem.what.endswith("is known in BiaPy but not supported by crista yet")
    assert problem.next_step


def test_every_unsupported_key_that_stands_alone_is_tested():
    alone = {key for key, known in KNOWN.items() if known.kind is Kind.UNSUPPORTED and not known.needs}
    assert alone == set(UNSUPPORTED)


@pytest.mark.parametrize("key", [key for key, known in KNOWN.items() if known.kind is Kind.UNSUPPORTED])
def test_the_default_of_biapy_is_accepted_in_silence(key):
    default = KNOWN[key].default
    assert notices(nested(key, "" if default is None else str(default))) == ()


@pytest.mark.parametrize("key", [key for key, known in KNOWN.items() if known.kind is Kind.DEAD])
def test_dead_key(key):
    assert notices(nested(key, "7")) == (f"line {len(key.split('.'))}: {key} has no effect (nor in BiaPy)",)


@pytest.mark.parametrize("key", [key for key, known in KNOWN.items() if known.kind is Kind.NO_EFFECT])
def test_key_without_effect(key):
    given = key.replace("*", "X")
    [notice] = notices(nested(given, "7"))
    assert notice == f"line {len(given.split('.'))}: {given} has no effect: {KNOWN[key].advice}"


@pytest.mark.parametrize("key", [key for key, known in KNOWN.items() if known.kind is Kind.PART])
def test_parts_of_a_feature_that_is_off_are_accepted_in_silence(key):
    assert notices(nested(key.replace("*", "X"), "7")) == ()


def test_a_default_in_another_case_is_the_default():
    assert notices("MODEL: {SOURCE: BiaPy, OUT_CHECKPOINT_FORMAT: PTH}\n") == ()


def test_places_that_are_left_empty_ask_for_nothing():
    assert notices("LOG: {LOG_DIR: '', LOG_FILE_PREFIX: ''}\nPATHS: {CHECKPOINT: '', RESULT_DIR: {PATH: ''}}\n") == ()


def test_test_images_that_biapy_would_skip_are_said_to_be_predicted():
    [notice] = notices("DATA: {TEST: {FILTER_SAMPLES: {PROPS: [[foreground]], VALUES: [[0.1]], SIGNS: [[lt]]}}}\n")
    assert notice.endswith("DATA.TEST.FILTER_SAMPLES.PROPS has no effect: all test images are predicted and measured")
    assert notices("DATA: {TEST: {FILTER_SAMPLES: {PROPS: [], VALUES: []}}}\n") == ()


@pytest.mark.parametrize("on", ["1", "1.0", "'y'", "'1'", "[True]", "on", "'T'"])
def test_a_switch_is_on_however_it_is_written(on):
    """What is asked for and not there is never said to be switched off."""
    with pytest.raises(ConfigError, match=r"AUGMENTOR\.GRIDMASK: True is known in BiaPy but not supported"):
        parse_config(f"AUGMENTOR: {{ENABLE: {on}, GRIDMASK: True}}\n")
    assert parse_config(f"AUGMENTOR: {{ENABLE: {on}}}\n").config.augmentor.enable


@pytest.mark.parametrize("off", ["0", "'n'", "[False]", "off"])
def test_a_switch_is_off_however_it_is_written(off):
    assert parse_config(f"LOSS: {{CONTRAST: {{ENABLE: {off}}}}}\n").notices == ()
    [notice] = parse_config(f"AUGMENTOR: {{ENABLE: {off}, GRIDMASK: True}}\n").notices
    assert "has no effect while AUGMENTOR.ENABLE is off" in notice


def test_augmentations_that_crista_lacks():
    assert notices("AUGMENTOR:\n  CUTMIX: True\n") == ("line 2: AUGMENTOR.CUTMIX has no effect while AUGMENTOR.ENABLE is off",)
    with pytest.raises(ConfigError, match=r"line 3, AUGMENTOR\.CUTMIX"):
        notices("AUGMENTOR:\n  ENABLE: True\n  CUTMIX: True\n  CMIX_SIZE: (0.1, 0.2)\n")


def test_preprocessing_needs_a_phase_and_a_step():
    step = "    RESIZE: {ENABLE: True, OUTPUT_SHAPE: [64, 64]}\n"
    assert "has no effect while DATA.PREPROCESS.TRAIN or" in notices(f"DATA:\n  PREPROCESS:\n{step}")[0]
    assert notices("DATA:\n  PREPROCESS: {TRAIN: True}\n") == (
        "line 2: DATA.PREPROCESS.TRAIN has no effect while a step below DATA.PREPROCESS is off",
    )
    with pytest.raises(ConfigError) as caught:
        notices(f"DATA:\n  PREPROCESS:\n    TEST: True\n{step}")
    assert [problem.where.rpartition(", ")[2] for problem in caught.value.problems] == [
        "DATA.PREPROCESS.TEST",
        "DATA.PREPROCESS.RESIZE.ENABLE",
    ]


@pytest.mark.parametrize("text", ["LOG:\n", "LOG: {}\n", "TEST:\n  BY_CHUNKS:\n", "DATA: {PREPROCESS: {}}\n"])
def test_empty_sections_of_biapy(text):
    assert notices(text) == ()


def test_chunks():
    assert notices("TEST:\n  BY_CHUNKS: {ENABLE: True, Z_START: -1}\n") == ()
    assert notices("TEST:\n  BY_CHUNKS: {ENABLE: True, Z_START: 7}\n") == ()
    assert notices("TEST:\n  BY_CHUNKS: {ENABLE: False, Z_START: 7}\n") == (
        "line 2: TEST.BY_CHUNKS.Z_START has no effect: TEST.BY_CHUNKS.ENABLE is False",
    )
    with pytest.raises(ConfigError, match=r"TEST\.BY_CHUNKS.*Z_END 7 must be above Z_START 7: no slice would be predicted"):
        notices("TEST:\n  BY_CHUNKS: {ENABLE: True, Z_START: 7, Z_END: 7}\n")


@pytest.mark.parametrize("name", [name for name in BIAPY_ARCHITECTURES if name not in ARCHITECTURES])
def test_architectures_that_crista_lacks(name):
    with pytest.raises(ConfigError) as caught:
        notices(f"MODEL:\n  ARCHITECTURE: {name}\n")
    [problem] = caught.value.problems
    assert problem.where == "job.yaml line 2, MODEL.ARCHITECTURE"
    assert problem.what.endswith(f"there are: {', '.join(ARCHITECTURES)}")


def test_no_known_key_is_a_key_of_crista_or_an_old_name():
    assert not set(KNOWN) & set(all_keys())
    assert not set(KNOWN) & set(RENAMED)


@pytest.mark.parametrize(
    ("text", "notice"),
    [
        ("PATHS: {PROB_MAP_DIR: maps}", "PATHS.PROB_MAP_DIR has no effect: DATA.TRAIN.PROBABILITY_MAP is off"),
        ("DATA: {VAL: {PATH: a, GT_PATH: b}}", "DATA.VAL.PATH, DATA.VAL.GT_PATH have no effect: DATA.VAL.FROM_TRAIN is True"),
        (
            "DATA: {VAL: {FROM_TRAIN: False, SPLIT_TRAIN: 0.2}}",
            "DATA.VAL.SPLIT_TRAIN has no effect: DATA.VAL.FROM_TRAIN is False",
        ),
        ("DATA: {VAL: {CROSS_VAL: True, SPLIT_TRAIN: 0.2}}", "DATA.VAL.SPLIT_TRAIN has no effect: DATA.VAL.CROSS_VAL is True"),
        (
            "DATA: {TEST: {PATH: a, USE_VAL_AS_TEST: True}, VAL: {CROSS_VAL: True}}",
            "DATA.TEST.PATH has no effect: USE_VAL_AS_TEST is True",
        ),
        (
            "DATA: {TRAIN: {EXTRACT_RANDOM_PATCH: True, OVERLAP: [0.5, 0.5]}}",
            "DATA.TRAIN.OVERLAP has no effect: EXTRACT_RANDOM_PATCH is True",
        ),
        ("DATA: {TRAIN: {W_FOREGROUND: 0.5}}", "DATA.TRAIN.W_FOREGROUND has no effect: DATA.TRAIN.PROBABILITY_MAP is off"),
        ("DATA: {VAL: {CROSS_VAL_FOLD: 2}}", "DATA.VAL.CROSS_VAL_FOLD has no effect: DATA.VAL.CROSS_VAL is False"),
        (
            "DATA: {TRAIN: {EXTRACT_RANDOM_PATCH: True, PADDING: [8, 8]}}",
            "DATA.TRAIN.PADDING has no effect: EXTRACT_RANDOM_PATCH is True",
        ),
        ("AUGMENTOR: {VFLIP: True, HFLIP: True}", "AUGMENTOR.VFLIP, AUGMENTOR.HFLIP have no effect: AUGMENTOR.ENABLE is False"),
        ("PROBLEM: {NDIM: 2D}\nMODEL: {Z_DOWN: [1]}", "MODEL.Z_DOWN has no effect: PROBLEM.NDIM is 2D"),
        (
            "PATHS: {CHECKPOINT_FILE: a.pth}\nTRAIN: {ENABLE: True}",
            "PATHS.CHECKPOINT_FILE has no effect: MODEL.LOAD_CHECKPOINT is False",
        ),
        (
            "AUGMENTOR: {ENABLE: True, ZOOM: True, ZOOM_RANGE: [0.5, 2], ELASTIC_PROB: 0.8, E_ALPHA: [1, 2]}",
            "AUGMENTOR.ELASTIC_PROB, AUGMENTOR.E_ALPHA have no effect: AUGMENTOR.ELASTIC is off",
        ),
        (
            "DATA: {NORMALIZATION: {PERC_CLIP: {LOWER_PERC: 1, UPPER_PERC: 99}}}",
            "DATA.NORMALIZATION.PERC_CLIP.LOWER_PERC, DATA.NORMALIZATION.PERC_CLIP.UPPER_PERC have no effect: "
            "DATA.NORMALIZATION.PERC_CLIP.ENABLE is False",
        ),
        (
            "DATA: {NORMALIZATION: {TYPE: div, ZERO_MEAN_UNIT_VAR: {MEAN_VAL: 3}}}",
            "DATA.NORMALIZATION.ZERO_MEAN_UNIT_VAR.MEAN_VAL has no effect: "
            "DATA.NORMALIZATION.TYPE is not zero_mean_unit_variance",
        ),
        ("DATA: {VAL: {INPUT_IMG_AXES_ORDER: ZYX}}", "DATA.VAL.INPUT_IMG_AXES_ORDER has no effect: DATA.VAL.FROM_TRAIN is True"),
        (
            "TEST: {POST_PROCESSING: {YZ_FILTERING_SIZE: 7}}",
            "TEST.POST_PROCESSING.YZ_FILTERING_SIZE has no effect: TEST.POST_PROCESSING.YZ_FILTERING is False",
        ),
        ("DATA: {VAL: {FROM_TRAIN: False, RANDOM: False}}", "DATA.VAL.RANDOM has no effect: DATA.VAL.FROM_TRAIN is False"),
        (
            "TRAIN: {ENABLE: True}\nMODEL: {SKIP_UNMATCHED_LAYERS: True, LOAD_CHECKPOINT_EPOCH: last_on_train}",
            "MODEL.LOAD_CHECKPOINT_EPOCH, MODEL.SKIP_UNMATCHED_LAYERS have no effect: MODEL.LOAD_CHECKPOINT is False",
        ),
        (
            "PATHS: {CHECKPOINT_FILE: a.pth}\nMODEL: {LOAD_CHECKPOINT_EPOCH: last_on_train}",
            "MODEL.LOAD_CHECKPOINT_EPOCH has no effect: PATHS.CHECKPOINT_FILE names the checkpoint",
        ),
        (
            "MODEL: {SKIP_UNMATCHED_LAYERS: True}",
            "MODEL.SKIP_UNMATCHED_LAYERS has no effect: a network that is not trained is loaded whole",
        ),
        (
            "DATA: {N_CLASSES: 3}\nTEST: {THRESHOLD: 0.4}",
            "TEST.THRESHOLD has no effect: of more than two classes the one with the highest probability is taken",
        ),
        ("LOSS: {CLASS_WEIGHTS: [1, 2]}", "LOSS.CLASS_WEIGHTS has no effect: LOSS.CLASS_REBALANCE is not manual"),
        ("TRAIN: {QUALITY: fast, EPOCHS: 3}", "TRAIN.QUALITY has no effect: TRAIN.EPOCHS or TRAIN.MAX_MINUTES is given"),
        ("TRAIN: {QUALITY: best, MAX_MINUTES: 3}", "TRAIN.QUALITY has no effect: TRAIN.EPOCHS or TRAIN.MAX_MINUTES is given"),
        ("TRAIN: {OPTIMIZER: SGD, OPT_BETAS: [0.8, 0.9]}", "TRAIN.OPT_BETAS has no effect: TRAIN.OPTIMIZER is SGD"),
        (
            "TRAIN: {LR_SCHEDULER: {NAME: onecycle, REDUCEONPLATEAU_FACTOR: 0.2}}",
            "TRAIN.LR_SCHEDULER.REDUCEONPLATEAU_FACTOR has no effect: TRAIN.LR_SCHEDULER.NAME is not reduceonplateau",
        ),
        (
            "TRAIN: {LR_SCHEDULER: {NAME: onecycle, WARMUP_COSINE_DECAY_EPOCHS: 2}}",
            "TRAIN.LR_SCHEDULER.WARMUP_COSINE_DECAY_EPOCHS has no effect: TRAIN.LR_SCHEDULER.NAME is not warmupcosine",
        ),
        (
            "TRAIN: {LR_SCHEDULER: {NAME: onecycle, MIN_LR: 1e-5}}",
            "TRAIN.LR_SCHEDULER.MIN_LR has no effect: TRAIN.LR_SCHEDULER.NAME has no lowest rate",
        ),
        (
            "TRAIN: {LR_SCHEDULER: {REDUCEONPLATEAU_FACTOR: 0.2}}",
            "TRAIN.LR_SCHEDULER.REDUCEONPLATEAU_FACTOR has no effect: TRAIN.LR_SCHEDULER.NAME is not reduceonplateau",
        ),
        (
            "TRAIN: {LR_SCHEDULER: {COSINE_DECAY_FRACTION: 0.5}}",
            "TRAIN.LR_SCHEDULER.COSINE_DECAY_FRACTION has no effect: TRAIN.LR_SCHEDULER.NAME is not warmupcosine",
        ),
        (
            "TRAIN: {LR_SCHEDULER: {MIN_LR: 1e-5}}",
            "TRAIN.LR_SCHEDULER.MIN_LR has no effect: TRAIN.LR_SCHEDULER.NAME has no lowest rate",
        ),
        (
            "LOSS: {TYPE: DICE, CLASS_REBALANCE: auto}",
            "LOSS.CLASS_REBALANCE has no effect: classes are weighted in the cross-entropy, and LOSS.TYPE has no CE",
        ),
        ("TEST: {AUGMENTATION_MODE: max}", "TEST.AUGMENTATION_MODE has no effect: TEST.AUGMENTATION is False"),
        ("TEST: {REDUCE_MEMORY: True}", "TEST.REDUCE_MEMORY has no effect: images are predicted tile by tile anyway"),
        (
            "TEST: {SAVE_MODEL_RAW_OUTPUT: True}\nDATA: {TEST: {ARGMAX_TO_OUTPUT: True}}",
            "TEST.SAVE_MODEL_RAW_OUTPUT has no effect: DATA.TEST.ARGMAX_TO_OUTPUT decides",
        ),
        (
            "TEST: {BY_CHUNKS: {ENABLE: True, WRITE_RAW_PREDICTIONS: True}}\nDATA: {TEST: {ARGMAX_TO_OUTPUT: True}}",
            "TEST.BY_CHUNKS.WRITE_RAW_PREDICTIONS has no effect: DATA.TEST.ARGMAX_TO_OUTPUT decides",
        ),
        (
            "PROBLEM: {NDIM: 2D}\nTEST: {POST_PROCESSING: {Z_FILTERING: True}}",
            "TEST.POST_PROCESSING.Z_FILTERING has no effect: PROBLEM.NDIM is 2D; TEST.ANALIZE_2D_IMGS_AS_3D_STACK: True "
            "takes the images as the slices of one volume",
        ),
        (
            "TEST: {POST_PROCESSING: {MEDIAN_FILTER_AXIS: [z], MEDIAN_FILTER_SIZE: [3]}}",
            "TEST.POST_PROCESSING.MEDIAN_FILTER_AXIS, TEST.POST_PROCESSING.MEDIAN_FILTER_SIZE have no effect: "
            "TEST.POST_PROCESSING.MEDIAN_FILTER is False",
        ),
        (
            "AUGMENTOR: {ENABLE: False, RANDOM_ROT: True, RANDOM_ROT_RANGE: [-10, 10], DA_PROB: 0.2}",
            "AUGMENTOR.RANDOM_ROT, AUGMENTOR.RANDOM_ROT_RANGE, AUGMENTOR.DA_PROB have no effect: AUGMENTOR.ENABLE is False",
        ),
        (
            "AUGMENTOR: {ENABLE: True, VFLIP: True, AFFINE_MODE: constant}",
            "AUGMENTOR.AFFINE_MODE has no effect: AUGMENTOR.RANDOM_ROT, ZOOM, SHEAR, SHIFT are off",
        ),
        (
            "AUGMENTOR: {ENABLE: True, VFLIP: True, AUG_SAMPLES: False, AUG_NUM_SAMPLES: 3}",
            "AUGMENTOR.AUG_NUM_SAMPLES has no effect: AUGMENTOR.ENABLE or AUGMENTOR.AUG_SAMPLES is False",
        ),
        (
            "AUGMENTOR: {ENABLE: True, VFLIP: True, AUG_SAMPLES: False, DRAW_GRID: False}",
            "AUGMENTOR.DRAW_GRID has no effect: AUGMENTOR.AUG_SAMPLES is False",
        ),
        (
            "DATA: {TEST: {GT_PATH: y}}\nTEST: {ENABLE: True, EVAL_BORDER_CROP: [4]}",
            "DATA.TEST.GT_PATH, TEST.EVAL_BORDER_CROP have no effect: DATA.TEST.LOAD_GT is False, and nothing is measured",
        ),
        (
            "DATA: {TRAIN: {GT_PATH: y, INPUT_ZARR_MULTIPLE_DATA: True}}",
            "DATA.TRAIN.GT_PATH has no effect: DATA.TRAIN.INPUT_ZARR_MULTIPLE_DATA is True: the labels are those inside the "
            "files of PATH",
        ),
        (
            "DATA: {VAL: {INPUT_ZARR_MULTIPLE_DATA: True, INPUT_ZARR_MULTIPLE_DATA_GT_PATH: labels}}",
            "DATA.VAL.INPUT_ZARR_MULTIPLE_DATA, DATA.VAL.INPUT_ZARR_MULTIPLE_DATA_GT_PATH have no effect: "
            "DATA.VAL.FROM_TRAIN is True",
        ),
        (
            "DATA: {NORMALIZATION: {PERC_CLIP: {ENABLE: True, LOWER_PERC: 1, UPPER_PERC: 99, UPPER_VALUE: 250}}}",
            "DATA.NORMALIZATION.PERC_CLIP.UPPER_VALUE has no effect: DATA.NORMALIZATION.PERC_CLIP.UPPER_PERC decides",
        ),
        (
            "DATA: {TEST: {OVERLAP: 0.5}}\nTEST: {MAX_MEMORY: 4}",
            "TEST.MAX_MEMORY has no effect: with DATA.TEST.OVERLAP images are predicted in patches of the training's size",
        ),
    ],
)
def test_keys_that_change_nothing_in_this_combination(text, notice):
    [found] = notices(text)
    assert found.partition(": ")[2] == notice


def test_every_key_of_an_augmentation_goes_with_its_switch():
    said = {key for rule in IDLE for key in rule.keys if key.startswith("AUGMENTOR.")}
    assert {key for key in all_keys() if key.startswith("AUGMENTOR.")} == said | {"AUGMENTOR.ENABLE"}


@pytest.mark.parametrize(
    "text",
    [
        "AUGMENTOR: {AUG_NUM_SAMPLES: 3}\nLOSS: {IGNORE_INDEX: 255}",  # patches are shown with their annotated pixel
        "AUGMENTOR: {AUG_NUM_SAMPLES: 3}\nDATA: {TRAIN: {EXTRACT_RANDOM_PATCH: True, PROBABILITY_MAP: True}}",
        "AUGMENTOR: {ENABLE: True, SHIFT: True, AFFINE_MODE: constant}",
        "DATA: {TEST: {GT_PATH: y}}",  # nothing is tested
        "DATA: {TEST: {GT_PATH: y, LOAD_GT: True}}\nTEST: {ENABLE: True}",
        "DATA: {TEST: {USE_VAL_AS_TEST: True}}\nTEST: {ENABLE: True, EVAL_BORDER_CROP: [4]}",
        "DATA: {TEST: {OVERLAP: [0, 0]}}\nTEST: {MAX_MEMORY: 4}",
    ],
)
def test_keys_that_do_have_an_effect_are_not_said_to_be_idle(text):
    assert notices(text) == ()


def test_what_the_data_tell_may_make_keys_idle():
    config = parse_config("TEST: {THRESHOLD: 0.4}\nMODEL: {Z_DOWN: [1]}\n").config
    [threshold] = idle_in(config, num_classes=3)
    assert threshold.startswith("TEST.THRESHOLD has no effect: of more than two classes")
    assert idle_in(config, ndim=3, num_classes=2) == []
    assert [text for text in idle_in(config, ndim=2, num_classes=3) if text != threshold] == [
        "MODEL.Z_DOWN has no effect: the images are 2D"
    ]
    known = parse_config("TEST: {THRESHOLD: 0.4}\nDATA: {N_CLASSES: 2}\n").config
    assert idle_in(known, num_classes=3) == []  # what is given was heard before


def test_a_checkpoint_that_predicts_is_not_said_to_be_idle():
    assert notices("PATHS: {CHECKPOINT_FILE: a.pth}\nTEST: {ENABLE: True}\n") == ()


def test_weights_of_the_decided_loss_are_not_said_to_be_idle():
    """They are those of DICE and CE."""
    assert notices("LOSS: {WEIGHTS: [1, 2]}\n") == ()


def test_defaults_that_change_nothing_are_not_worth_a_word():
    assert notices("LOSS: {CLASS_WEIGHTS: []}\nDATA: {VAL: {FROM_TRAIN: False, SPLIT_TRAIN: 0.1}}\n") == ()
    assert notices("AUGMENTOR: {ENABLE: False, VFLIP: False}\nPATHS: {CHECKPOINT_FILE: ''}\n") == ()
