"""`explain`, the reference page and new configurations: what they say is what the loader does."""

from __future__ import annotations

from pathlib import Path

import pytest

from crista.config.explain import explain_key
from crista.config.fields import all_keys, all_sections, show_value
from crista.config.load import parse_config
from crista.config.new import new_config_text
from crista.config.reference import render_reference, write_reference
from crista.errors import ConfigError

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_explain_one_key():
    assert explain_key("TRAIN.EPOCHS").splitlines() == [
        "TRAIN.EPOCHS",
        "  " + all_keys()["TRAIN.EPOCHS"].description,
        "  takes:    a whole number, at least 1",
        "  default:  left out",
    ]


@pytest.mark.parametrize("key", ["data.n_classes", "N_CLASSES", " DATA.N_CLASSES "])
def test_explain_in_any_case_or_by_the_last_part(key):
    assert explain_key(key).startswith("DATA.N_CLASSES\n")


def test_explain_an_old_name():
    text = explain_key("MODEL.N_CLASSES")
    assert text.startswith("MODEL.N_CLASSES is an old name of DATA.N_CLASSES.\n\nDATA.N_CLASSES\n")
    assert "  old name: MODEL.N_CLASSES" in text


@pytest.mark.parametrize(
    ("key", "part"),
    [
        ("MODEL.KERNEL_INIT", "has no effect any more"),
        ("MODEL.SPATIAL_DROPOUT", "was a key of older releases"),
        ("AUGMENTOR.CUTMIX", "not supported by crista yet. Instead: "),
        ("SYSTEM.NUM_GPUS", "without effect here: SYSTEM.DEVICE"),
        ("PATHS.PROFILER", "nor has it in BiaPy"),
        ("MODEL.HRNET.VARIANT", "a feature of BiaPy that crista does not have"),
        ("LOSS.TYPE", "  takes:    a list, each one of CE, DICE"),
        ("AUGMENTOR.ZOOM_RANGE", "  default:  (0.8, 1.2)"),
        ("PATHS.CHECKPOINT_FILE", "  default:  empty"),
    ],
)
def test_explain_says(key, part):
    assert part in explain_key(key)


@pytest.mark.parametrize("section", ["TRAIN", "data.normalization"])
def test_explain_a_section_lists_its_keys_and_sections(section):
    text, section = explain_key(section), section.upper()
    below = [path for path in (*all_keys(), *all_sections()) if path.rpartition(".")[0] == section]
    assert below
    assert all(path.rpartition(".")[2] in text for path in below)


def test_explain_nothing_lists_the_sections():
    assert [line.split(":")[0].strip() for line in explain_key("").splitlines()] == [
        name for name in all_sections() if "." not in name
    ]


@pytest.mark.parametrize(("section", "key"), [("LOG", "LOG_DIR"), ("data.preprocess", "RESIZE.ENABLE"), ("MODEL.HRNET", "*")])
def test_explain_a_section_that_only_biapy_has(section, key):
    text = explain_key(section)
    assert text.startswith(f"{section.upper()} is a section of BiaPy of which crista has no key")
    assert key in text


def test_explain_an_unknown_key():
    with pytest.raises(ConfigError, match=r"TRAIN\.EPOCH: there is no such key\n.*did you mean TRAIN\.EPOCHS\?"):
        explain_key("TRAIN.EPOCH")


def test_every_key_and_section_says_what_it_is():
    assert not [key.path for key in all_keys().values() if not key.description]
    assert not [name for name, text in all_sections().items() if not text]


def test_every_key_can_be_explained():
    for path, key in all_keys().items():
        assert f"  takes:    {key.words}" in explain_key(path)


def test_values_are_shown_as_one_writes_them():
    shown = [show_value(value) for value in (None, 1e-5, (1, 2), [3.0], [], "a", True, "x" * 99)]
    assert shown[:-1] == ["left out", "1e-05", "(1, 2)", "[3]", "[]", "'a'", "True"]
    assert len(shown[-1]) == 60


def test_reference_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == render_reference(), "run: python -m crista.config.reference"


def test_reference_page_has_every_key(tmp_path):
    write_reference(tmp_path / "docs" / "page.md")
    page = (tmp_path / "docs" / "page.md").read_text(encoding="utf-8")
    assert all(f"| `{path.rpartition('.')[2]}` |" in page for path in all_keys())
    assert "| `MODEL.N_CLASSES` | `DATA.N_CLASSES` |" in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert all(line.replace(r"\|", "").count("|") in (3, 5) for line in rows)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("classes", [2, 5, ["background", "cell's wall"]])
def test_new_configuration_loads_without_a_notice(ndim, classes):
    loaded = parse_config(new_config_text(ndim=ndim, classes=classes, name="mitochondria"))
    config = loaded.config
    assert loaded.notices == ()
    assert config.problem.ndim == f"{ndim}D"
    assert config.data.n_classes == (classes if isinstance(classes, int) else 2)
    assert config.data.class_names == (None if isinstance(classes, int) else ("background", "cell's wall"))
    assert config.train.enable
    assert config.test.enable
    assert config.augmentor.zflip == (ndim == 3)


def test_new_configuration_keeps_difficult_paths():
    paths = {"train_images": r"C:\new\train: x", "train_labels": "it's #1", "test_images": Path("a b"), "test_labels": "-"}
    data = parse_config(new_config_text(ndim=2, classes=2, **paths)).config.data
    assert (data.train.path, data.train.gt_path) == (r"C:\new\train: x", "it's #1")
    assert (data.test.path, data.test.gt_path, data.test.load_gt) == ("a b", "-", True)


def test_new_configuration_for_training_or_prediction_only():
    training = parse_config(new_config_text(ndim=2, classes=2, train_images="a", train_labels="b")).config
    assert (training.train.enable, training.test.enable, training.data.test.path) == (True, False, None)
    prediction = parse_config(new_config_text(ndim=2, classes=2, test_images="a")).config
    assert (prediction.train.enable, prediction.test.enable, prediction.model.load_checkpoint) == (False, True, True)
    assert not prediction.data.test.load_gt


def test_what_is_switched_off_in_a_new_configuration_loads_as_well():
    text = new_config_text(ndim=3, classes=2)
    decided = "\n".join(
        line.replace("# ", "", 1) if line.strip().split(":")[0].removeprefix("# ").isupper() else line
        for line in text.splitlines()
    )
    config = parse_config(decided).config
    assert config.data.patch_size == (32, 128, 128, 1)
    assert config.train.epochs is not None
    assert config.model.feature_maps is not None


def test_new_configuration_needs_two_classes():
    with pytest.raises(ValueError, match="1 classes; at least 2 are needed"):
        new_config_text(ndim=2, classes=1)
