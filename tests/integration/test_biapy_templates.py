"""BiaPy's own templates, of all generations, load without an edit and mean what their authors meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from crista.config.load import LoadedConfig, load_config
from crista.errors import ConfigError

FOLDER = Path(__file__).parent / "biapy_templates"
OURS = Path(__file__).parents[2] / "templates" / "semantic_segmentation"
WITHOUT_COUNTERPART = {"t4_spinedl_training", "t5_spinedl_from_zoo"}
"""They name a network that crista does not have; tested by themselves."""


def load(name: str) -> LoadedConfig:
    return load_config(FOLDER / f"{name}.yaml")


@pytest.mark.parametrize("name", sorted({path.stem for path in FOLDER.glob("*.yaml")} - WITHOUT_COUNTERPART))
def test_every_template_loads_as_it_is(name):
    config = load(name).config
    assert config.train.enable
    assert config.test.enable
    assert config.data.train.path == "/path/to/data/train/x"
    assert config.data.train.gt_path == "/path/to/data/train/y"
    assert config.data.test.gt_path == "/path/to/data/test/y"


@pytest.mark.parametrize("path", sorted(OURS.glob("*.yaml")), ids=lambda path: path.stem)
def test_our_templates_load_without_a_notice(path):
    loaded = load_config(path)
    assert loaded.notices == ()
    assert loaded.config.problem.ndim == path.stem[:2].upper()
    assert (loaded.config.data.n_classes == 3) == ("multiclass" in path.stem)


def test_our_templates_are_there():
    assert len(list(OURS.glob("*.yaml"))) == 4


@pytest.mark.parametrize("name", ["t1_2d_v3_5_1", "t1_2d_older", "t1_2d_v3_6_5", "t2_3d_v3_5_1", "t2_3d_v3_6_5"])
def test_current_templates_need_no_notice(name):
    assert load(name).notices == ()


def test_t1_generations():
    first, older, newest = (load(name).config for name in ("t1_2d_v3_5_1", "t1_2d_older", "t1_2d_v3_6_5"))
    assert first.model.architecture == older.model.architecture == "attention_unet"
    assert (first.test.full_img, older.test.full_img) == (False, True)
    assert (first.test.augmentation, older.test.augmentation) == (False, True)
    assert first.data.test.padding == (32, 32)
    assert first.train.lr == 1e-4
    assert newest.model.architecture == "unet"
    assert newest.train.lr_scheduler.name == "onecycle"
    assert newest.train.lr == 1e-3


def test_t2_patch_and_pooling():
    old, new = load("t2_3d_v3_5_1").config, load("t2_3d_v3_6_5").config
    assert old.data.patch_size == (20, 128, 128, 1)
    assert old.model.z_down == (1, 1, 1, 1)
    assert new.data.test.padding == (10, 10, 10)
    assert new.augmentor.zflip


def test_t3_rebalances_as_its_author_asked():
    loaded = load("t3_wound_v3_6_0")
    assert loaded.config.loss.class_rebalance == "auto"
    assert loaded.notices == ("line 40: LOSS.CLASS_REBALANCE: True is now auto",)


def test_t4_fails_for_its_network_alone():
    with pytest.raises(ConfigError) as caught:
        load("t4_spinedl_training")
    [problem] = caught.value.problems
    assert problem.where == "t4_spinedl_training.yaml line 56, MODEL.ARCHITECTURE"
    assert "'hrnet48' is known in BiaPy but not supported by crista yet" in problem.what
    assert "attention_unet" in problem.what


def test_t5_fails_for_its_network_and_its_source():
    with pytest.raises(ConfigError) as caught:
        load("t5_spinedl_from_zoo")
    assert [problem.where.rpartition(", ")[2] for problem in caught.value.problems] == [
        "MODEL.ARCHITECTURE",
        "MODEL.SOURCE",
    ]


def test_t6_filtering_that_is_off_stays_off():
    config = load("t6_attention_unet_2d").config
    assert config.test.post_processing.filters == ()
    assert config.test.full_img
    assert config.test.stats.per_patch
    assert config.test.stats.merge_patches
    assert config.model.dropout_values == (0.1, 0.1, 0.2, 0.2, 0.3)


@pytest.mark.parametrize("name", ["t7_unet_2d_mask_path", "t7_resunet_2d"])
def test_t7_filter_without_a_size_has_the_old_one(name):
    loaded = load(name)
    assert loaded.config.test.post_processing.filters == (("zy", 5),)
    assert loaded.config.test.post_processing.filters_for(2) == ()
    assert any("YZ_FILTERING has no effect: PROBLEM.NDIM is 2D" in notice for notice in loaded.notices)


def test_t8_single_pooling_factor_and_old_names():
    loaded = load("t8_unet_3d_a")
    assert loaded.config.model.z_down == (1,)
    assert loaded.config.model.feature_maps == (36, 48, 64)
    assert loaded.config.loss.type == ("CE",)
    assert loaded.config.data.val.gt_path == "/path/to/data/val/y"
    assert not loaded.config.test.full_img
    assert "line 14: DATA.TRAIN.MASK_PATH is now DATA.TRAIN.GT_PATH" in loaded.notices
    assert "line 2: SYSTEM.NUM_GPUS has no effect: SYSTEM.DEVICE (or --gpu) chooses the machine" in loaded.notices
    assert load("t8_unet_3d_b").config.model.architecture == "resunet"


def test_file_of_a_user_of_the_graphical_interface():
    loaded = load("user_file_v3_6_7")
    config = loaded.config
    assert config.data.train.extract_random_patch
    assert config.data.n_classes == 2
    assert config.data.test.argmax_to_output is True
    assert config.data.train.resolution == (1, 1)
    assert config.augmentor.e_alpha == (16, 20)
    assert config.loss.type == ("DICE",)
    assert config.loss.class_rebalance == "auto"
    assert config.train.opt_betas == (0.9, 0.999)
    assert config.train.lr_scheduler.min_lr == 1e-5
    assert len(loaded.notices) == 4
    assert any("LOSS.TYPE has no CE" in notice for notice in loaded.notices)
