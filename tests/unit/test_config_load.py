"""Reading: the spellings people use, line numbers, overrides, and files that cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crista.config.document import Override
from crista.config.load import config_from_dict, load_config, parse_config
from crista.config.model import ResidualUNet
from crista.config.root import Config
from crista.errors import ConfigError


def parse(text: str, *overrides: str) -> Config:
    return parse_config(text, "job.yaml", overrides).config


def problem_of(text: str, *overrides: str):
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "job.yaml", overrides)
    [problem] = caught.value.problems
    return problem


@pytest.mark.parametrize("text", ["", "\n# only a comment\n", "---\n", "TRAIN:\nDATA: {}\n"])
def test_empty_file_is_all_defaults(text):
    loaded = parse_config(text)
    assert loaded.config == Config()
    assert loaded.notices == ()
    assert loaded.text == text


@pytest.mark.parametrize(
    "size", ["(256, 256, 1)", "[256, 256, 1]", "'256, 256, 1'", "(256,256,1)", "\n    - 256\n    - 256\n    - 1"]
)
def test_patch_size_spellings(size):
    assert parse(f"DATA:\n  PATCH_SIZE: {size}\n").data.patch_size == (256, 256, 1)


@pytest.mark.parametrize("rate", ["1e-4", "1.E-4", "0.0001", "1.0e-04", "'1e-4'", "[1.E-4]", "1E-4"])
def test_learning_rate_spellings(rate):
    assert parse(f"TRAIN:\n  LR: {rate}\n").train.lr == 1e-4


@pytest.mark.parametrize(
    ("word", "meant"),
    [("True", True), ("true", True), ("yes", True), ("on", True), ("False", False), ("no", False), ("off", False)],
)
def test_switch_spellings(word, meant):
    assert parse(f"TRAIN:\n  ENABLE: {word}\n").train.enable is meant


@pytest.mark.parametrize("betas", ["(0.9, 0.99)", "[0.9, 0.99]", "[[0.9, 0.99]]", "'(0.9, 0.99)'", "[(0.9, 0.99)]"])
def test_pairs_of_older_and_newer_files(betas):
    if betas == "[(0.9, 0.99)]":
        betas = "'[(0.9, 0.99)]'"
    assert parse(f"TRAIN:\n  OPT_BETAS: {betas}\n").train.opt_betas == (0.9, 0.99)


def test_scalar_for_list_and_list_for_scalar():
    config = parse("TRAIN:\n  OPTIMIZER: [ADAMW]\n  METRICS: iou\nLOSS:\n  TYPE: CE\nMODEL:\n  Z_DOWN: 1\n")
    assert config.train.optimizer == "ADAMW"
    assert config.train.metrics == ("iou",)
    assert config.loss.type == ("CE",)
    assert config.model.z_down == (1,)


def test_a_network_that_is_left_empty_or_in_a_list():
    assert parse("MODEL: {ARCHITECTURE: [UNet]}").model.architecture == "unet"
    assert parse("MODEL: {ARCHITECTURE: [ResUNet]}").model.architecture == "resunet"
    empty = parse_config("MODEL: {ARCHITECTURE: null, FEATURE_MAPS: [8, 16]}")
    assert (empty.config.model.architecture, empty.config.model.architecture_given) == ("unet", False)
    assert empty.notices == ("line 1: MODEL.ARCHITECTURE is empty and taken as left out ('unet')",)


def test_tabs_count_as_two_spaces():
    assert parse("TRAIN:\n\tLR_SCHEDULER:\n\t\tNAME: onecycle\n\tEPOCHS: 7\n").train.epochs == 7


@pytest.mark.parametrize("text", ["train:\n  epochs: 7\n", "Train:\n  Epochs: 7\n", "TRAIN.EPOCHS: 7\n", "train.epochs: 7\n"])
def test_keys_in_any_case_and_dotted(text):
    assert parse(text).train.epochs == 7


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("TRAIN: {OPTIMIZER: adamw}", lambda c: c.train.optimizer == "ADAMW"),
        ("MODEL: {ARCHITECTURE: ResUNet}", lambda c: c.model.architecture == "resunet"),
        ("TEST: {METRICS: [IoU]}", lambda c: c.test.metrics == ("iou",)),
        ("LOSS: {TYPE: [dice, ce]}", lambda c: c.loss.type == ("DICE", "CE")),
    ],
)
def test_names_in_any_case(text, read):
    assert read(parse(text))


def test_byte_order_mark_windows_lines_and_aliases():
    assert parse("\ufeffTRAIN:\r\n  EPOCHS: 7\r\n").train.epochs == 7
    config = parse("AUGMENTOR: {E_ALPHA: &pair [1, 2], ZOOM_RANGE: *pair}\n")
    assert config.augmentor.e_alpha == config.augmentor.zoom_range == (1, 2)


def test_merge_key():
    config = parse("DATA:\n  TRAIN: &shared {IN_MEMORY: False, PADDING: [1, 1]}\n  TEST:\n    <<: *shared\n    IN_MEMORY: True\n")
    assert config.data.test.padding == (1, 1)
    assert config.data.test.in_memory
    own = parse("DATA:\n  TRAIN: &shared {PADDING: [1, 1]}\n  TEST: {<<: *shared, padding: [2, 2]}\n")  # in another case
    assert own.data.test.padding == (2, 2)


def test_numbers_of_yaml_keep_their_value():
    config = parse("SYSTEM: {SEED: 012}\nTRAIN: {EPOCHS: 1_000, BATCH_SIZE: 0x10}\n")
    assert (config.system.seed, config.train.epochs, config.train.batch_size) == (12, 1000, 16)


def test_only_given_keys_count_as_set():
    config = parse("TRAIN:\n  EPOCHS: 7\n")
    assert config.model_fields_set == {"train"}
    assert config.train.model_fields_set == {"epochs"}


def test_empty_value_is_left_out_and_said():
    loaded = parse_config("TRAIN:\n  PATIENCE:\n  EPOCHS:\n")
    assert loaded.config.train.patience == -1
    assert loaded.config.train.epochs is None
    assert loaded.notices == ("line 2: TRAIN.PATIENCE is empty and taken as left out (-1)",)


def test_overrides_win_and_are_kept():
    loaded = parse_config("TRAIN:\n  EPOCHS: 7\n  LR: 1\n", "job.yaml", ["TRAIN.EPOCHS=20", "data.patch_size=(64, 64, 1)"])
    assert loaded.config.train.epochs == 20
    assert loaded.config.train.lr == 1
    assert loaded.config.data.patch_size == (64, 64, 1)
    assert loaded.overrides == ("TRAIN.EPOCHS=20", "data.patch_size=(64, 64, 1)")
    assert loaded.text == "TRAIN:\n  EPOCHS: 7\n  LR: 1\n"


@pytest.mark.parametrize("override", ["MODEL.N_CLASSES=4", "DATA.N_CLASSES=4"])
@pytest.mark.parametrize("text", ["MODEL: {N_CLASSES: 3}", "DATA: {N_CLASSES: 3}"])
def test_override_by_old_or_new_name(text, override):
    assert parse(text, override).data.n_classes == 4


def test_last_override_of_a_key_wins():
    assert parse("", "TRAIN.EPOCHS=3", "TRAIN.EPOCHS=4").train.epochs == 4


def test_two_flags_that_contradict_each_other_are_refused():
    minutes = Override("TRAIN.MAX_MINUTES=5", "--minutes")
    for change in ("TRAIN.MAX_MINUTES=9", "TRAIN={MAX_MINUTES: 9}"):
        problem = problem_of("", minutes, Override(change, "--set"))
        assert problem.where == "--set TRAIN.MAX_MINUTES"
        assert problem.what == "is 9, but --minutes, TRAIN.MAX_MINUTES is 5"
    assert parse("", minutes, Override("TRAIN.MAX_MINUTES=5", "--set")).train.max_minutes == 5
    assert parse("", Override("TRAIN.EPOCHS=1", "--set"), Override("TRAIN.EPOCHS=2", "--set")).train.epochs == 2


def test_override_of_a_whole_section():
    assert parse("", "TRAIN={EPOCHS: 3, LR: 1e-3}").train.lr == 1e-3


@pytest.mark.parametrize(("override", "where", "what"), [
    ("TRAIN.EPOCHS", "override 'TRAIN.EPOCHS'", "has no KEY=VALUE form"),
    ("TRAIN.EPOCHS=many", "override, TRAIN.EPOCHS", "must be a whole number, at least 1, but is 'many'"),
    ("TRAIN.EPOCH=3", "override, TRAIN.EPOCH", "there is no such key"),
    ("TRAIN.EPOCHS=[3", "override, TRAIN.EPOCHS", "the value '[3' is not YAML"),
])  # fmt: skip
def test_wrong_override(override, where, what):
    problem = problem_of("TRAIN:\n  EPOCHS: 7\n", override)
    assert (problem.where, problem.what) == (where, what)


def test_dictionary_in_capitals_lower_case_and_dotted():
    tree = {
        "train": {"epochs": np.int64(3)},
        "DATA": {"PATCH_SIZE": (64, 64, 1), "train": {"path": Path("a") / "b"}},
        "MODEL.N_CLASSES": 3,
    }
    loaded = config_from_dict(tree, ["train.lr=1e-3"])
    assert loaded.config.train.epochs == 3
    assert loaded.config.train.lr == 1e-3
    assert loaded.config.data.patch_size == (64, 64, 1)
    assert loaded.config.data.train.path == str(Path("a") / "b")
    assert loaded.config.data.n_classes == 3
    assert loaded.notices == ("MODEL.N_CLASSES is now DATA.N_CLASSES",)


def test_text_of_a_dictionary_says_the_same():
    loaded = config_from_dict({"train": {"epochs": 3}, "data": {"patch_size": (64, 64, 1), "train": {"path": r"C:\a: b"}}})
    assert parse_config(loaded.text).config == loaded.config
    assert config_from_dict({}).text == ""


def test_a_config_made_in_python_comes_back_from_its_dictionary():
    config = Config(model=ResidualUNet(feature_maps=(8, 16)), train={"epochs": 3})
    tree = config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert config_from_dict(tree).config == config
    assert tree["MODEL"] == {"ARCHITECTURE": "resunet", "FEATURE_MAPS": [8, 16]}


def test_a_network_that_is_left_out_stays_so():
    """Else a training from another network than the default would be refused, as if that had been asked for."""
    config = parse("MODEL: {LOAD_CHECKPOINT: True}\nTRAIN: {EPOCHS: 3}\n")
    assert config.given() == {"MODEL": {"LOAD_CHECKPOINT": True}, "TRAIN": {"EPOCHS": 3}}
    assert not config_from_dict(config.given()).config.model.architecture_given
    assert parse("MODEL: {ARCHITECTURE: unet}\n").given() == {"MODEL": {"ARCHITECTURE": "unet"}}
    assert Config(model=ResidualUNet()).given() == {"MODEL": {"ARCHITECTURE": "resunet"}}
    assert Config().given() == {}


@pytest.mark.parametrize("tree", [{"train": None, "train.epochs": 3}, {"train.epochs": 3, "train": None}])
def test_an_empty_section_beside_a_dotted_key(tree):
    loaded = config_from_dict(tree)
    assert loaded.config.train.epochs == 3
    assert parse_config(loaded.text).config == loaded.config


def test_problem_in_a_dictionary_names_the_key():
    with pytest.raises(ConfigError, match=r"  TRAIN\.EPOCHS: must be at least 1, but is 0"):
        config_from_dict({"train": {"epochs": 0}})


def test_load_config_from_a_file(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_bytes(b"TRAIN:\r\n  EPOCHS: 7\r\n")
    loaded = load_config(path, ["TRAIN.LR=1e-3"])
    assert (loaded.path, loaded.config.train.epochs, loaded.config.train.lr) == (path, 7, 1e-3)


def test_missing_file_names_similar_ones(tmp_path):
    (tmp_path / "mitochondria.yaml").write_text("")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "mitochondira.yaml")
    [problem] = caught.value.problems
    assert problem.where.endswith("mitochondira.yaml")
    assert problem.what == "does not exist"
    assert problem.next_step == "did you mean mitochondria.yaml?"


def test_missing_folder_and_folder_for_a_file(tmp_path):
    with pytest.raises(ConfigError, match="nor does the folder"):
        load_config(tmp_path / "nowhere" / "job.yaml")
    with pytest.raises(ConfigError, match="check the path"):
        load_config(tmp_path / "job.yaml")
    (tmp_path / "a.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"is a folder\n.*name a file in it: a\.yaml"):
        load_config(tmp_path)


def test_file_that_is_not_text(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigError, match="is not a text file in UTF-8"):
        load_config(path)


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("TRAIN:\n  EPOCHS: 3\n    LR: 1\n", "line 3, column 7", "a colon stands where none can be: LR: 1"),
        ("TRAIN: a: b\n", "line 1, column 9", "a colon stands where none can be: TRAIN: a: b"),
        ("TRAIN:\n  EPOCHS: 3\n  LR\n", "line 3, column 3", "a key without a colon: LR"),
        ('DATA:\n  X: "C:\\data"\n', "line 2, column 10", 'a backslash in double quotes is an escape sign: X: "C:\\data"'),
        ('DATA:\n  X: "C:\\Users"\n', "line 2, column 11", 'a backslash in double quotes is an escape sign: X: "C:\\Users"'),
        ("TRAIN:\n  NAME: 'x\n", "line 2, column 9", "a quote is opened and not closed: NAME: 'x"),
        ("A: [1, 2\nB: 3\n", "line 2, column 2", "a bracket is not closed, or a comma is missing: B: 3"),
        ("TRAIN:\n    A: 1\n  B: 2\n", "line 3, column 3", "the line is not indented like the lines above it: B: 2"),
        ("A: 1\n---\nB: 2\n", "line 2, column 1", "a second document starts here: ---"),
        ("A: @x\n", "line 1, column 4", "this sign cannot start a value: A: @x"),
        ("A: *x\n", "line 1, column 4", "an alias (*name) without its anchor (&name): A: *x"),
    ],
)
def test_syntax_errors_show_line_column_and_text(text, where, what):
    problem = problem_of(text)
    assert problem.where == f"job.yaml {where}"
    assert problem.what == f"is not YAML: {what}"
    assert problem.next_step


@pytest.mark.parametrize("text", ["A: \x07", "[" * 5000])
def test_texts_that_no_parser_takes(text):
    assert problem_of(text).where == "job.yaml"


@pytest.mark.parametrize("text", ["EPOCHS 20\n", "- TRAIN\n"])
def test_text_without_keys(text):
    problem = problem_of(text)
    assert problem.where == "job.yaml line 1"
    assert "holds no keys" in problem.what


def test_no_objects_and_no_endless_aliases():
    assert "plain values only" in problem_of("TRAIN:\n  EPOCHS: !!python/object:os.system 1\n").what
    assert "contains itself" in problem_of("TRAIN:\n  EPOCHS: &x [*x]\n").what
    nested = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
    )
    with pytest.raises(ConfigError, match="nested without end"):
        parse_config(nested)


def test_duplicate_keys_name_both_lines():
    problem = problem_of("TRAIN:\n  EPOCHS: 3\n  LR: 1\n  EPOCHS: 4\n")
    assert problem.where == "job.yaml line 4, TRAIN.EPOCHS"
    assert problem.what == "is given twice on line 2 and on line 4"


@pytest.mark.parametrize("second", ["TRAIN:\n  LR: 1\n", "train:\n  LR: 1\n"])
def test_duplicate_sections_name_both_lines(second):
    problem = problem_of(f"TRAIN:\n  EPOCHS: 3\n{second}")
    assert (problem.where, problem.what) == ("job.yaml line 3, TRAIN", "is given twice on line 1 and on line 3")


def test_an_inner_path_may_be_a_number():
    """The finest level of an OME-Zarr is called 0."""
    text = "DATA:\n  TRAIN:\n    INPUT_ZARR_MULTIPLE_DATA_RAW_PATH: 0"
    loaded = parse_config(text, "job.yaml", ("DATA.TRAIN.INPUT_ZARR_MULTIPLE_DATA_GT_PATH=1",))
    train = loaded.config.data.train
    assert (train.input_zarr_multiple_data_raw_path, train.input_zarr_multiple_data_gt_path) == ("0", "1")
