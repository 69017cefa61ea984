"""The plan: every number is decided by a stated rule, what is given is kept, and what does not fit is refused with advice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from crista.config.augmentor import DepthFlip
from crista.config.load import config_from_dict
from crista.config.train import SGD, Adam, AdamW, ConstantRate, OneCycle, ReduceOnPlateau, WarmupCosine
from crista.errors import PlanError
from crista.images.fingerprint import Fingerprint, ImageFacts
from crista.images.labels import LabelCoding
from crista.plan.make import make_plan, plan_for_prediction
from crista.plan.plan import Plan
from crista.plan.preparation import with_reasons
from crista.plan.topology import network_stride, receptive_field_radius
from crista.training.schedule import SCHEDULES, Progress
from crista.training.selection import patience_is_over


def facts(
    shapes: Sequence[tuple[int, ...]] = ((256, 256),) * 8,
    *,
    channels: int = 1,
    num_classes: int = 2,
    spacing: tuple[float, ...] | None = None,
    counts: tuple[int, ...] | None = (900, 100),
    mapping: tuple[tuple[int, int], ...] | None = None,
) -> Fingerprint:
    """What a data set is like."""
    return Fingerprint(
        ndim=len(shapes[0]),
        num_channels=channels,
        images=tuple(ImageFacts(f"{i}", shape, channels, spacing, "uint8") for i, shape in enumerate(shapes)),
        spacing=spacing,
        coding=LabelCoding(num_classes, None, mapping),
        class_counts=counts,
        intensity=(),
    )


def plan(fingerprint: Fingerprint | None = None, **keys: Any) -> Plan:
    """The plan of a configuration with `keys`, ``TRAIN__EPOCHS=3``."""
    overrides = [f"{key.replace('__', '.')}={value}" for key, value in keys.items()]
    return make_plan(config_from_dict({}, overrides).config, fingerprint or facts())


def reason(made: Plan, key: str) -> str:
    return next(decision.reason for decision in made.decisions if decision.key == key)


def refusal(fingerprint: Fingerprint | None = None, **keys: Any) -> str:
    with pytest.raises(PlanError) as caught:
        plan(fingerprint, **keys)
    return str(caught.value)


# --- what is decided --------------------------------------------------------------------------------------------------


def test_everything_is_decided_from_the_data_alone() -> None:
    made = plan()
    assert made.ndim == 2
    assert made.patch_size == (256, 256)
    assert made.model.feature_maps == (16, 32, 64, 128, 256)
    assert made.batch_size == 6
    assert made.epochs == 300  # 8 images are 2 steps: 1500 steps would be 750 epochs
    assert made.classes.names == ("background", "foreground")
    assert [term.term.name for term in made.loss] == ["DICE", "CE"]
    assert isinstance(made.optimizer, AdamW)
    assert isinstance(made.schedule, OneCycle)
    assert made.inference.mode == "halo"
    assert not made.save_probabilities
    assert made.patience is None
    assert all(len(decision.reason) > 4 for decision in made.decisions)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            {},
            {
                "DATA.VAL.SPLIT_TRAIN": "0.1: so much of the training images is not trained on: it chooses the best network",
                "DATA.NORMALIZATION": "zero_mean_unit_variance: each channel of each image by its own mean and standard "
                "deviation: how bright an image was recorded does not matter",
                "AUGMENTOR": "none: AUGMENTOR.ENABLE is left out: patches are shown as they are",
            },
        ),
        (
            {
                "DATA__VAL__SPLIT_TRAIN": 0.1,
                "DATA__NORMALIZATION__TYPE": "div",
                "AUGMENTOR__ENABLE": True,
                "AUGMENTOR__ZFLIP": True,
                "AUGMENTOR__CUTOUT": True,
                "AUGMENTOR__VFLIP": True,
            },
            {"DATA.VAL.SPLIT_TRAIN": "0.1: given", "DATA.NORMALIZATION": "div: given", "AUGMENTOR": "VFLIP, CUTOUT: given"},
        ),
        (
            {
                "DATA__VAL__FROM_TRAIN": False,
                "DATA__VAL__PATH": "val/x",
                "DATA__NORMALIZATION__ZERO_MEAN_UNIT_VAR__MEAN_VAL": 3,
                "DATA__NORMALIZATION__ZERO_MEAN_UNIT_VAR__STD_VAL": 2,
                "AUGMENTOR__ENABLE": False,
                "AUGMENTOR__VFLIP": True,
            },
            {
                "DATA.VAL.PATH": "val/x: given",
                "DATA.NORMALIZATION": "zero_mean_unit_variance: by the mean and standard deviation that are given",
                "AUGMENTOR": "none: given",
            },
        ),
        (
            {"DATA__NORMALIZATION__ZERO_MEAN_UNIT_VAR__STD_VAL": 2},
            {
                "DATA.NORMALIZATION": "zero_mean_unit_variance: by the standard deviation that is given, and the mean of each "
                "channel of each image",
            },
        ),
        (
            {"DATA__VAL__CROSS_VAL": True, "DATA__VAL__CROSS_VAL_FOLD": 2},
            {"DATA.VAL.CROSS_VAL_FOLD": "2 of 5: given"},
        ),
    ],
)
def test_what_the_network_is_shown_is_told(keys: dict[str, Any], expected: dict[str, str]) -> None:
    said = {item.key: f"{item.value}: {item.reason}" for item in plan(**keys).decisions}
    assert expected.items() <= said.items()
    assert len([key for key in said if key.startswith("DATA.VAL.")]) == 1


def test_the_flip_of_z_is_told_of_volumes() -> None:
    keys = {"AUGMENTOR__ENABLE": True, "AUGMENTOR__ZFLIP": True, "AUGMENTOR__HFLIP": True}
    values = [item.value for item in plan(facts([(32, 64, 64)] * 3), **keys).decisions if item.key == "AUGMENTOR"]
    assert values == ["HFLIP, ZFLIP"]


AUTO = {"AUGMENTOR__ENABLE": True, "AUGMENTOR__ZFLIP": "auto"}


@pytest.mark.parametrize(
    ("shapes", "keys", "flips", "said"),
    [
        ([(32, 64, 64)] * 9, {**AUTO, "TRAIN__EPOCHS": 50}, True, "about 250 steps see the same few volumes often"),
        ([(32, 64, 64)] * 9, {**AUTO, "TRAIN__EPOCHS": 49}, False, "about 245 steps; of few volumes this was seen to pay"),
        ([(32, 64, 64)] * 10, {**AUTO, "TRAIN__EPOCHS": 900}, False, "there are 10 volumes; only of fewer than 10"),
        ([(32, 64, 64)], {**AUTO, "TRAIN__MAX_MINUTES": 9}, False, "when the training starts: True if 250 steps fit"),
        ([(32, 64, 64)], {**AUTO, "TRAIN__MAX_MINUTES": 9, "TRAIN__EPOCHS": 250}, False, "True if 250 steps fit"),
        ([(32, 64, 64)], {**AUTO, "TRAIN__MAX_MINUTES": 9, "TRAIN__EPOCHS": 249}, False, "about 249 steps; of few"),
        ([(3, 64, 64)], {**AUTO, "TRAIN__EPOCHS": 900}, False, "no kernel of the network reaches other slices"),
        ([(3, 64, 64)], {**AUTO, "TRAIN__EPOCHS": 900, "MODEL__ISOTROPY": True}, True, "about 900 steps see"),
        ([(64, 64)], AUTO, False, None),
        ([(64, 64)], {**AUTO, "AUGMENTOR__ZFLIP": True}, False, None),
        ([(32, 64, 64)], {**AUTO, "AUGMENTOR__ZFLIP": True}, True, None),
        ([(32, 64, 64)], {**AUTO, "AUGMENTOR__ENABLE": False}, False, None),
        ([(32, 64, 64)], {"TRAIN__EPOCHS": 900}, False, None),
    ],
)
def test_z_is_reversed_in_few_volumes_and_many_steps(
    shapes: list[tuple[int, ...]], keys: dict[str, Any], flips: bool, said: str | None
) -> None:
    """One patch from each, two patches a step."""
    made = plan(facts(shapes), **{"DATA__PATCH_SIZE": f"({str(shapes[0])[1:-1]}, 1)", "TRAIN__BATCH_SIZE": 2, **keys})
    assert made.flips_z == flips
    assert any(isinstance(change, DepthFlip) for change in made.augmentations) == flips
    reasons = [item.reason for item in made.decisions if item.key == "AUGMENTOR.ZFLIP"]
    assert len(reasons) == (said is not None)
    assert said is None or said in reasons[0]


def test_a_configuration_that_nobody_gave_has_reasons_of_its_own() -> None:
    made = plan(AUGMENTOR__ENABLE=True, AUGMENTOR__VFLIP=True, TRAIN__EPOCHS=3)
    told = with_reasons(made, {"AUGMENTOR": "as likely", "TRAIN.LR": "was not given", "TRAIN.NONE": "no such key"})
    assert reason(told, "AUGMENTOR") == "as likely"
    assert reason(told, "TRAIN.EPOCHS") == "given"
    assert reason(told, "TRAIN.LR") == reason(made, "TRAIN.LR")
    assert [item.key for item in told.decisions] == [item.key for item in made.decisions]


def test_what_is_given_is_kept_and_said_to_be_given() -> None:
    made = plan(TRAIN__EPOCHS=7, TRAIN__BATCH_SIZE=3, MODEL__FEATURE_MAPS="[8,16]", TRAIN__LR=0.5, TRAIN__PATIENCE=4)
    assert (made.epochs, made.batch_size, made.model.feature_maps, made.optimizer.lr) == (7, 3, (8, 16), 0.5)
    assert made.patience == 4
    assert {reason(made, key) for key in ("TRAIN.EPOCHS", "TRAIN.BATCH_SIZE", "MODEL.FEATURE_MAPS", "TRAIN.LR")} == {"given"}


@pytest.mark.parametrize(
    ("shapes", "spacing", "patch"),
    [
        ([(1000, 1000)] * 3, None, (256, 256)),
        ([(100, 2000)], None, (96, 640)),  # what y cannot use goes to x
        ([(512, 512), (40, 40), (48, 40)], None, (48, 32)),  # the typical image, not the largest; half to even
        ([(20, 20)], None, (32, 32)),  # smaller images are padded by reflection
        ([(3, 50)], None, (32, 48)),
        ([(128, 128, 128)], None, (64, 64, 64)),
        ([(20, 512, 512)], None, (16, 128, 128)),
        ([(100, 512, 512)], (1.0, 0.25, 0.25), (24, 96, 96)),  # cubic in micrometres
        ([(1, 64, 64)], None, (1, 64, 64)),
    ],
)
def test_patch_size(shapes: list[tuple[int, ...]], spacing: tuple[float, ...] | None, patch: tuple[int, ...]) -> None:
    made = plan(facts(shapes, spacing=spacing))
    assert made.patch_size == patch
    assert "the typical image is" in reason(made, "DATA.PATCH_SIZE")


@pytest.mark.parametrize(
    ("shape", "spacing", "keys", "patch"),
    [
        ((50, 50), None, {"MODEL__FEATURE_MAPS": "[4,4,4,4,4,4]"}, (32, 32)),  # 48 could be halved four times only
        ((50, 50), None, {"MODEL__FEATURE_MAPS": "[4,4,4,4,4,4,4]"}, (64, 64)),  # padded by reflection
        ((128, 128), None, {"MODEL__FEATURE_MAPS": "[4,4,4]", "MODEL__YX_DOWN": "[3,3]"}, (126, 126)),
        ((24, 128, 128), (2.0, 1.0, 1.0), {"MODEL__Z_DOWN": "2"}, (16, 96, 96)),
        ((24, 128, 128), (2.0, 1.0, 1.0), {"MODEL__Z_DOWN": "[0,0,0,0]"}, (24, 96, 96)),
    ],
)
def test_a_decided_patch_follows_the_levels_that_are_given(
    shape: tuple[int, ...], spacing: tuple[float, ...] | None, keys: dict[str, str], patch: tuple[int, ...]
) -> None:
    assert plan(facts([shape], spacing=spacing), **keys).patch_size == patch


@pytest.mark.parametrize(
    ("shapes", "patch"),
    [
        ([(84, 84), (512, 512), (512, 512)], (64, 64)),  # rounded down: 96 would have to be padded
        ([(30, 512, 512), (40, 512, 512), (40, 512, 512)], (24, 96, 96)),
        ([(40, 512, 512), (16, 512, 512), (40, 512, 512)], (16, 128, 128)),
    ],
)
def test_without_padding_the_patch_fits_into_the_smallest_image(shapes: list[tuple[int, ...]], patch: tuple[int, ...]) -> None:
    made = plan(facts(shapes), DATA__REFLECT_TO_COMPLETE_SHAPE=False)
    assert made.patch_size == patch
    assert "the smallest image is" in reason(made, "DATA.PATCH_SIZE")


def test_without_padding_levels_that_no_image_bears_are_refused() -> None:
    text = refusal(facts([(50, 50)]), DATA__REFLECT_TO_COMPLETE_SHAPE=False, MODEL__FEATURE_MAPS="[4,4,4,4,4,4,4]")
    assert "48 along y cannot be halved 6 times" in text


def test_the_reason_of_the_patch_is_true_of_it() -> None:
    """32 × 96 × 96 are more than 64³, and more slices than there are."""
    made = plan(facts([(30, 512, 512)]))
    assert made.patch_size == (32, 96, 96)
    assert reason(made, "DATA.PATCH_SIZE") == (
        "the typical image is 30 × 512 × 512; about 262,144 voxels per patch at most, rounded to sides that can be halved"
    )
    assert reason(plan(facts([(3, 256, 256)])), "DATA.PATCH_SIZE").endswith(
        "at most, y and x rounded to sides that can be halved"
    )
    known = reason(plan(facts([(100, 512, 512)], spacing=(1.0, 0.25, 0.25))), "DATA.PATCH_SIZE")
    assert "of about equal sides in micrometres where the image allows it" in known


def test_images_that_are_smaller_than_the_decided_patch_are_told() -> None:
    """Sets of mixed sizes: the patch follows the typical image, and says which ones are padded."""
    mixed = plan(facts([(5, 512, 512), (5, 300, 300), (64, 512, 512), (100, 512, 512), (80, 512, 512)]))
    assert mixed.patch_size[0] > 5
    assert reason(mixed, "DATA.PATCH_SIZE").endswith(
        "; 2 of 5 images are smaller (the least 5 × 300 × 300) and padded by reflection"
    )
    plane = plan(facts([(256, 256), (2048, 2048), (128, 300)]))
    assert plane.patch_size == (256, 256)
    assert reason(plane, "DATA.PATCH_SIZE").endswith("; 1 of 3 images are smaller (the least 128 × 300) and padded by reflection")
    for shapes in ([(250, 250)] * 3, [(256, 256), (2048, 2048)]):
        assert "smaller" not in reason(plan(facts(shapes)), "DATA.PATCH_SIZE")


@pytest.mark.parametrize("shape", [(n, m) for n in (1, 2, 7, 31, 32, 33, 64, 72, 100, 257) for m in (5, 40, 96, 300)])
def test_the_decided_network_fits_the_decided_patch(shape: tuple[int, int]) -> None:
    made = plan(facts([shape]))
    stride = network_stride(made.model, 2)
    assert all(size % multiple == 0 for size, multiple in zip(made.patch_size, stride, strict=True))


@pytest.mark.parametrize(
    ("patch", "levels"), [((256, 256), 5), ((32, 32), 4), ((64, 72), 4), ((16, 16), 3), ((40, 24), 3), ((8, 8), 2)]
)
def test_levels_follow_the_shorter_and_the_less_divisible_side(patch: tuple[int, int], levels: int) -> None:
    assert len(plan(DATA__PATCH_SIZE=(*patch, 1)).model.feature_maps or ()) == levels


@pytest.mark.parametrize(
    ("depth", "spacing", "z_down", "isotropy"),
    [
        (64, None, (2, 2, 2, 2), (True,) * 5),
        (8, None, (2, 1, 1, 1), (True,) * 5),  # four slices are left
        (64, (0.1, 0.05, 0.05), (1, 2, 2, 2), (False, True, True, True, True)),
        (64, (0.4, 0.1, 0.1), (1, 1, 2, 2), (False, False, True, True, True)),
        (5, None, (1, 1, 1, 1), (True,) * 5),  # odd: never halved
    ],
)
def test_anisotropic_pooling(
    depth: int, spacing: tuple[float, ...] | None, z_down: tuple[int, ...], isotropy: tuple[bool, ...]
) -> None:
    made = plan(facts([(64, 64, 64)], spacing=spacing), DATA__PATCH_SIZE=(depth, 64, 64, 1))
    assert made.model.z_down == z_down
    assert made.model.isotropy == isotropy


def test_pooling_along_z_follows_what_is_given_of_the_plane() -> None:
    """Voxels twice as deep as wide stay so where the plane is not halved, and are cubes after it is quartered by halves."""
    volumes, patch = facts([(64, 64, 64)], spacing=(2.0, 1.0, 1.0)), "(64,64,64,1)"
    made = plan(volumes, DATA__PATCH_SIZE=patch, MODEL__FEATURE_MAPS="[4,8,16,32]", MODEL__YX_DOWN="[1,1,2]")
    assert made.model.z_down == (1, 1, 1)
    assert made.model.isotropy == (False, False, False, True)
    made = plan(volumes, DATA__PATCH_SIZE=patch, MODEL__FEATURE_MAPS="[4,8,16,32]", MODEL__YX_DOWN="[4,2,2]")
    assert made.model.z_down == (1, 2, 2)
    assert made.model.isotropy == (False, True, True, True)


@pytest.mark.parametrize(
    ("spacing", "shown", "flat"),
    [
        ((0.25, 0.5, 0.5), "0.5 times", False),
        ((0.6, 0.30000003, 0.30000003), "2 times", True),  # as an ImageJ file holds 0.3
        ((1.99, 1.0, 1.0), "1.99 times", False),
    ],
)
def test_the_shown_depth_of_a_voxel_is_the_one_that_decides(spacing: tuple[float, ...], shown: str, flat: bool) -> None:
    made = plan(facts([(64, 64, 64)], spacing=spacing))
    assert f"here it is {shown} as deep as wide" in reason(made, "MODEL.ISOTROPY")
    assert made.model.isotropy is not None
    assert made.model.isotropy[0] != flat
    assert made.model.z_down is not None
    assert (made.model.z_down[0] == 1) == flat


def test_a_guess_is_told_only_where_something_follows_from_it() -> None:
    flat = facts([(20, 256, 256)] * 3)
    told = [{item.key for item in plan(flat, **keys).decisions} for keys in ({}, {"MODEL__Z_DOWN": 1, "MODEL__ISOTROPY": False})]
    assert ["DATA.TRAIN.RESOLUTION" in keys for keys in told] == [True, False]
    assert "DATA.TRAIN.RESOLUTION" not in {item.key for item in plan(facts([(3, 256, 256)])).decisions}


def test_few_slices_are_not_halved_either() -> None:
    """A given patch of 8 would be, and slices would be mixed where the reason says that they are not."""
    made = plan(facts([(4, 256, 256)] * 3), DATA__PATCH_SIZE="(8,64,64,1)")
    assert set(made.model.z_down or ()) == {1}
    assert reason(made, "MODEL.Z_DOWN") == reason(made, "MODEL.ISOTROPY")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "folded into the convolutions"),
        ({"MODEL__ARCHITECTURE": "attention_unet"}, "folded into the convolutions"),
        ({"MODEL__ARCHITECTURE": "resunet"}, "a fixed scale and shift"),
        ({"MODEL__CONV_BLOCK_ORDER": "norm_act_conv"}, "a fixed scale and shift"),
    ],
)
def test_norms_before_their_convolution_are_not_said_to_be_folded(keys: dict[str, str], words: str) -> None:
    assert words in reason(plan(**keys), "MODEL.NORMALIZATION")


def test_images_that_validate_are_counted_only_where_they_are_taken_from_training() -> None:
    assert "(8 patches, with those that validate)" in reason(plan(), "TRAIN.EPOCHS")
    other = plan(DATA__VAL__FROM_TRAIN=False, DATA__VAL__PATH="x", DATA__VAL__GT_PATH="y")
    assert "(8 patches);" in reason(other, "TRAIN.EPOCHS")


def test_patches_without_annotation_are_left_out_of_the_grid_only() -> None:
    dense = facts(counts=(500_000, 20_000))  # of 524288
    words = "(8 patches, with those that validate, less those without annotation)"
    assert words in reason(plan(dense, LOSS__IGNORE_INDEX=255), "TRAIN.EPOCHS")
    assert words not in reason(plan(LOSS__IGNORE_INDEX=255), "TRAIN.EPOCHS")  # 1000 pixels: patches are drawn around them
    assert words not in reason(plan(dense, LOSS__IGNORE_INDEX=255, DATA__TRAIN__EXTRACT_RANDOM_PATCH=True), "TRAIN.EPOCHS")


def test_overlap_and_padding_are_said_to_place_nothing_where_the_grid_is_left() -> None:
    given = {"DATA__TRAIN__OVERLAP": 0.5, "DATA__TRAIN__PADDING": 8}
    timed = reason(plan(TRAIN__MAX_MINUTES=5, **given), "DATA.TRAIN.CLASS_SHARE")
    assert timed.endswith("the others lie anywhere; DATA.TRAIN.OVERLAP and DATA.TRAIN.PADDING place no patch then")
    assert reason(plan(TRAIN__MAX_MINUTES=5, DATA__TRAIN__PADDING=0), "DATA.TRAIN.CLASS_SHARE").endswith("lie anywhere")
    sparse = plan(LOSS__IGNORE_INDEX=255, DATA__TRAIN__PADDING=8)
    assert reason(sparse, "DATA.TRAIN.PROBABILITY_MAP").endswith("; DATA.TRAIN.PADDING places no patch then")


def test_a_rate_that_may_stay_high_is_not_said_to_be_lowered() -> None:
    assert "the learning rate is lowered towards the end" in reason(plan(), "TRAIN.EMA")
    for name in ("reduceonplateau", "''"):
        assert reason(plan(TRAIN__LR_SCHEDULER__NAME=name), "TRAIN.EMA").startswith("only a training by the clock")


def test_a_zero_in_z_down_leaves_that_level_to_the_plan() -> None:
    made = plan(facts([(64, 64, 64)]), DATA__PATCH_SIZE="(64,64,64,1)", MODEL__FEATURE_MAPS="[4,8,16]", MODEL__Z_DOWN="[1,0]")
    assert made.model.z_down == (1, 2)


@pytest.mark.parametrize(("patch", "batch"), [((256, 256), 6), ((64, 64), 32), ((1024, 1024), 2)])
def test_batch_size(patch: tuple[int, int], batch: int) -> None:
    assert plan(DATA__PATCH_SIZE=(*patch, 1)).batch_size == batch


def test_epochs_aim_at_a_number_of_steps() -> None:
    many = facts([(256, 256)] * 300)
    assert plan(many).epochs == 30  # 50 steps per epoch
    assert plan(many, DATA__TRAIN__EXTRACT_RANDOM_PATCH=True).epochs == 30
    assert plan(facts([(512, 512)] * 300)).epochs == 10  # 200 steps per epoch: 7.5, at least 10
    assert plan(many, DATA__TRAIN__REPLICATE=2).epochs == 15


@pytest.mark.parametrize(("name", "kind", "rate"), [("SGD", SGD, 0.01), ("ADAM", Adam, 0.001), ("ADAMW", AdamW, 0.001)])
def test_optimizers(name: str, kind: type, rate: float) -> None:
    made = plan(TRAIN__OPTIMIZER=name, TRAIN__W_DECAY=0.1)
    assert isinstance(made.optimizer, kind)
    assert made.optimizer.lr == rate
    assert made.optimizer.weight_decay == 0.1


def test_schedules() -> None:
    assert isinstance(plan(**{"TRAIN__LR_SCHEDULER__NAME": "''"}).schedule, ConstantRate)
    plateau = plan(TRAIN__LR_SCHEDULER__NAME="reduceonplateau", TRAIN__PATIENCE=30, TRAIN__LR_SCHEDULER__MIN_LR=1e-5).schedule
    assert plateau == ReduceOnPlateau(factor=0.5, patience=10, min_lr=1e-5)
    assert plan(TRAIN__LR_SCHEDULER__NAME="reduceonplateau").schedule == ReduceOnPlateau(factor=0.5, patience=5, min_lr=0)
    cosine = plan(TRAIN__LR_SCHEDULER__NAME="warmupcosine", TRAIN__EPOCHS=50).schedule
    assert cosine == WarmupCosine(warmup_epochs=5, min_lr=0, decay_fraction=1.0)


@pytest.mark.parametrize("name", ["reduceonplateau", "warmupcosine"])
def test_a_lowest_rate_above_the_learning_rate_is_refused(name: str) -> None:
    """The training would begin with it, or rise to it, whatever TRAIN.LR says."""
    keys = {"TRAIN__LR_SCHEDULER__NAME": name, "TRAIN__LR_SCHEDULER__MIN_LR": 1e-4}
    text = refusal(**keys, TRAIN__LR=1e-5)
    assert f"TRAIN.LR_SCHEDULER.MIN_LR: 0.0001 is above the learning rate 1e-05 (TRAIN.LR): {name} would raise the rate" in text
    assert "0.01 is above the learning rate 0.001" in refusal(**{**keys, "TRAIN__LR_SCHEDULER__MIN_LR": 0.01})
    assert plan(**keys, TRAIN__LR=1e-4).schedule.name == name


def test_a_warm_up_beyond_the_decided_epochs_is_refused() -> None:
    rising = {"TRAIN__LR_SCHEDULER__NAME": "warmupcosine", "TRAIN__LR_SCHEDULER__WARMUP_COSINE_DECAY_EPOCHS": 40}
    many = facts([(512, 512)] * 300)
    assert "WARMUP_COSINE_DECAY_EPOCHS: 40 is beyond the 10 epochs that are decided" in refusal(many, **rising)
    assert "beyond the 25 epochs that a time is divided into" in refusal(TRAIN__MAX_MINUTES=5, **rising)
    assert plan(**rising).schedule == WarmupCosine(warmup_epochs=40)  # of 300
    other = {**rising, "TRAIN__LR_SCHEDULER__NAME": "onecycle"}
    assert plan(many, **other).epochs == 10  # said to have no effect when it was read


def test_loss_terms_and_weights() -> None:
    made = plan(LOSS__TYPE="[DICE, CE]", LOSS__WEIGHTS="[0.3, 0.7]")
    assert [(term.term.name, term.weight) for term in made.loss] == [("DICE", 0.3), ("CE", 0.7)]
    assert [(term.term.name, term.weight) for term in plan(LOSS__TYPE="CE").loss] == [("CE", 1.0)]


def test_class_weights_by_hand() -> None:
    """Inverse square roots of 0.9 and 0.1, with a mean of 1."""
    assert plan().class_weights is None
    raw = (0.9**-0.5, 0.1**-0.5)
    expected = tuple(2 * value / sum(raw) for value in raw)
    made = plan(LOSS__CLASS_REBALANCE="auto")
    assert made.class_weights == pytest.approx(expected, abs=1e-4)
    assert "90.00%, 10.00%" in reason(made, "LOSS.CLASS_WEIGHTS")
    assert plan(LOSS__CLASS_REBALANCE="manual", LOSS__CLASS_WEIGHTS="[1,3]").class_weights == (1, 3)


def test_a_class_without_pixels_weighs_as_much_as_the_rarest() -> None:
    """Not a hundred times as much: then the validation loss would be its pixels alone, where a validation image has some."""
    made = plan(facts(num_classes=3, counts=(900, 100, 0)), LOSS__CLASS_REBALANCE="auto")
    raw = (0.9**-0.5, 0.1**-0.5, 0.1**-0.5)
    assert made.class_weights == pytest.approx([3 * value / sum(raw) for value in raw], abs=1e-4)
    assert reason(made, "LOSS.CLASS_WEIGHTS").endswith("(90.00%, 10.00%, 0.00%), mean 1; rarer than 10.0000% counts as that")


def test_class_names() -> None:
    three = facts(num_classes=3, counts=(8, 1, 1))
    assert plan(three).classes.names == ("background", "class 1", "class 2")
    # Also where there is such a file, of four names.
    assert reason(plan(three), "DATA.CLASS_NAMES").endswith("names 3 classes")
    assert plan(three).classes.num_logits == 3
    assert plan().classes.num_logits == 1
    assert plan(three, DATA__CLASS_NAMES="[a, b, c]").classes.names == ("a", "b", "c")


def test_coding_and_ignored_value_come_along() -> None:
    made = plan(facts(mapping=((0, 0), (255, 1))), LOSS__IGNORE_INDEX=254)
    assert made.classes.mapping == ((0, 0), (255, 1))
    assert made.classes.ignored == (254,)
    assert made.classes.ignore_index == 255  # inside crista, whatever the files say
    several = plan(LOSS__IGNORE_INDEX="[255, 254]").classes
    assert (several.ignored, several.ignore_index) == ((254, 255), 255)
    assert (plan(LOSS__IGNORE_INDEX=255).classes.ignored, plan().classes.ignore_index) == ((), None)


# --- inference -------------------------------------------------------------------------------------------------------


def test_exact_tiles_where_they_are_cheap() -> None:
    made = plan(MODEL__FEATURE_MAPS="[8,16,32]")
    stride, radius = network_stride(made.model, 2), receptive_field_radius(made.model, 2)
    assert made.inference.tile_size == (1024, 1024)
    for halo, multiple, reach in zip(made.inference.halo, stride, radius, strict=True):
        assert halo % multiple == 0
        assert reach <= halo < reach + multiple
    assert "tiles give what the whole image gives" in reason(made, "tiles")


def test_a_deep_network_gets_less_context_and_says_so() -> None:
    made = plan(facts([(128, 128, 128)]))
    assert made.inference.mode == "halo"
    radius = receptive_field_radius(made.model, 3)
    assert any(halo < reach for halo, reach in zip(made.inference.halo, radius, strict=True))
    assert "(112, 112, 112), leaves nothing of such a tile; what is enough is measured" in reason(made, "tiles")
    flat = plan(MODEL__FEATURE_MAPS="[8,16,32,64,128,256,512]")
    assert "(448, 448), costs 64.0 times the work" in reason(flat, "tiles")  # 128² of 1024² are left


def test_padding_is_the_least_context() -> None:
    exact = plan().inference.halo
    assert plan(DATA__TEST__PADDING="(32,16)").inference.halo == exact  # the receptive field is wider
    assert plan(DATA__TEST__PADDING="(120,8)").inference.halo == (128, exact[1])  # in whole strides
    deep = plan(facts([(128, 128, 128)])).inference.halo
    wider = plan(facts([(128, 128, 128)]), DATA__TEST__PADDING="(24,24)").inference.halo
    assert min(deep) < 24 <= min(wider)  # equal values serve every dimension


def test_padding_of_a_network_that_depends_on_the_tile_is_the_border_of_its_patches() -> None:
    padded = plan(DATA__TEST__PADDING="(32,16)", MODEL__NORMALIZATION="in").inference
    assert (padded.mode, padded.halo, padded.tile_size, padded.max_tile_voxels) == ("halo", (32, 16), (256, 256), None)


def test_overlap_as_given() -> None:
    blended = plan(DATA__TEST__OVERLAP="(0.5,0.25)").inference
    assert (blended.mode, blended.overlap) == ("blended", (0.5, 0.25))
    both = plan(DATA__TEST__OVERLAP="(0.5,0.5)", DATA__TEST__PADDING="(8,8)")
    assert both.inference.mode == "blended"
    assert "take the place of the padding" in reason(both, "DATA.TEST.PADDING")


@pytest.mark.parametrize("normalization", ["in", "gn", "ln"])
def test_normalisation_that_depends_on_the_tile_is_blended(normalization: str) -> None:
    made = plan(MODEL__NORMALIZATION=normalization)
    assert (made.inference.mode, made.inference.tile_size) == ("blended", (256, 256))
    assert "depends on the tile" in reason(made, "tiles")
    assert "TEST.MAX_MEMORY" not in reason(made, "tiles")
    for padding in (0, 8):
        limited = plan(MODEL__NORMALIZATION=normalization, TEST__MAX_MEMORY=4, DATA__TEST__PADDING=padding)
        assert reason(limited, "tiles").endswith("; TEST.MAX_MEMORY changes nothing")


@pytest.mark.parametrize(
    ("argmax", "raw", "saved"),
    [
        (None, None, False),
        (True, None, False),
        (False, None, True),
        (None, True, True),
        (None, False, False),
        (True, True, False),
    ],
)
def test_what_per_image_holds(argmax: bool | None, raw: bool | None, saved: bool) -> None:
    keys = {"DATA__TEST__ARGMAX_TO_OUTPUT": argmax, "TEST__SAVE_MODEL_RAW_OUTPUT": raw}
    assert plan(**{key: value for key, value in keys.items() if value is not None}).save_probabilities == saved


@pytest.mark.parametrize(
    ("chunks", "argmax", "saved"), [(True, None, True), (False, None, False), (True, True, False), (True, False, True)]
)
def test_write_raw_predictions_asks_for_probabilities_too(chunks: bool, argmax: bool | None, saved: bool) -> None:
    keys = {"TEST__BY_CHUNKS__ENABLE": chunks, "TEST__BY_CHUNKS__WRITE_RAW_PREDICTIONS": True}
    given = {} if argmax is None else {"DATA__TEST__ARGMAX_TO_OUTPUT": argmax}
    assert plan(**keys, **given).save_probabilities == saved


def test_a_trained_network_keeps_what_it_learnt_and_takes_the_test_settings() -> None:
    trained = plan(facts(num_classes=3, counts=(8, 1, 1)), DATA__NORMALIZATION__TYPE="div", TEST__THRESHOLD=0.4)
    other = config_from_dict(
        {}, ["TEST.THRESHOLD=0.7", "DATA.TEST.OVERLAP=(0.5,0.5)", "DATA.NORMALIZATION.TYPE=scale_range"]
    ).config
    made = plan_for_prediction(trained, other)
    assert made.classes == trained.classes
    assert made.model == trained.model
    assert made.config.data.normalization.type == "div"
    assert made.config.test.threshold == 0.7
    assert made.inference.mode == "blended"
    with pytest.raises(PlanError, match=r"DATA\.TEST\.PADDING: 128 along y leaves 0 of a patch of 256"):
        plan_for_prediction(trained, config_from_dict({}, ["DATA.TEST.PADDING=(128,128)"]).config)


def test_the_validation_of_a_trained_network_stays_what_it_was() -> None:
    """By another seed other images would be told as those that were not trained on."""
    as_test = config_from_dict({}, ["DATA.TEST.USE_VAL_AS_TEST=True", "SYSTEM.SEED=3", "SYSTEM.NUM_CPUS=1"]).config
    made = plan_for_prediction(plan(SYSTEM__SEED=7), as_test)
    assert (made.config.system.seed, made.config.system.num_cpus) == (7, 1)
    own = {"DATA__VAL__FROM_TRAIN": False, "DATA__VAL__PATH": "val/x", "DATA__VAL__GT_PATH": "val/y"}
    with pytest.raises(PlanError, match=r"USE_VAL_AS_TEST: the network was validated on images .*DATA\.VAL\.PATH: val/x"):
        plan_for_prediction(plan(**own), as_test)


def test_a_plan_survives_its_file() -> None:
    made = plan(facts([(32, 64, 64)], spacing=(0.3, 0.1, 0.1)), LOSS__CLASS_REBALANCE="auto", MODEL__ARCHITECTURE="resunet")
    assert Plan.model_validate_json(made.model_dump_json(by_alias=True)) == made


# --- what is refused ---------------------------------------------------------------------------------------------------


def test_a_patch_that_cannot_be_halved() -> None:
    text = refusal(DATA__PATCH_SIZE="(250,256,1)", MODEL__FEATURE_MAPS="[4,8,16,32,64]")
    assert "DATA.PATCH_SIZE: 250 along y cannot be halved 4 times: it must be a multiple of 16" in text
    assert "MODEL.FEATURE_MAPS has 5 levels" in text
    assert "use 240 or 256" in text
    assert "along x" not in text


def test_a_patch_that_cannot_be_divided_by_three() -> None:
    text = refusal(DATA__PATCH_SIZE="(256,256,1)", MODEL__FEATURE_MAPS="[4,8,16]", MODEL__YX_DOWN="[3,3]")
    assert "256 along y cannot be divided by 9: it must be a multiple of 9, because MODEL.YX_DOWN is (3, 3)" in text
    assert "use 252 or 261" in text


def test_all_axes_are_refused_at_once_and_z_names_its_own_key() -> None:
    volumes = facts([(64, 64, 64)])
    text = refusal(volumes, DATA__PATCH_SIZE="(6,10,12,1)", MODEL__FEATURE_MAPS="[4,8,16,32]", MODEL__Z_DOWN="[2,2,1]")
    assert "6 along z cannot be halved 2 times" in text
    assert "MODEL.Z_DOWN with 1 at some levels" in text
    assert "10 along y cannot be halved 3 times" in text
    assert "use 8 or 16, fewer FEATURE_MAPS, or MODEL.YX_DOWN" in text
    assert "12 along x" in text


def test_a_patch_smaller_than_the_network() -> None:
    assert "use 16, fewer" in refusal(DATA__PATCH_SIZE="(8,8,1)", MODEL__FEATURE_MAPS="[4,8,16,32,64]")


def test_instance_normalisation_of_a_single_voxel() -> None:
    text = refusal(DATA__PATCH_SIZE="(16,16,1)", MODEL__FEATURE_MAPS="[4,8,16,32,64]", MODEL__NORMALIZATION="in")
    assert "one voxel at the bottleneck" in text


def test_channels_that_do_not_fit() -> None:
    text = refusal(facts(channels=3), DATA__PATCH_SIZE="(256,256,1)")
    assert "ends with 1 channels, the images have 3 channels" in text
    assert "write (256, 256, 3), or leave PATCH_SIZE out" in text


def test_padding_too_large() -> None:
    text = refusal(DATA__TEST__PADDING="(128,120)", MODEL__FEATURE_MAPS="[4,8,16,32,64]")
    assert "DATA.TEST.PADDING: 128 along y leaves 0 of a patch of 256; at least 16 must be left" in text
    assert "use at most 120" in text
    assert "along x" not in text


def test_padding_too_large_for_a_network_that_takes_twice_its_stride() -> None:
    """What is left must be a step of the tiles; that of instance normalisation is two strides."""
    text = refusal(DATA__TEST__PADDING="(120,112)", MODEL__FEATURE_MAPS="[4,8,16,32,64]", MODEL__NORMALIZATION="in")
    assert "DATA.TEST.PADDING: 120 along y leaves 16 of a patch of 256; at least 32 must be left" in text
    assert "use at most 112" in text
    assert "along x" not in text


@pytest.mark.parametrize("key", ["OVERLAP", "PADDING"])
def test_values_per_axis(key: str) -> None:
    values = "(0.1,0.2,0.3)" if key == "OVERLAP" else "(1,2,3)"
    text = refusal(**{f"DATA__TEST__{key}": values})
    assert f"DATA.TEST.{key}: " in text
    assert "has 3 values, the data have 2 axes" in text


@pytest.mark.parametrize("part", ["TRAIN", "VAL"])
@pytest.mark.parametrize("key", ["OVERLAP", "PADDING"])
def test_values_per_axis_of_training_and_validation(part: str, key: str) -> None:
    values = "(0.1,0.2,0.3)" if key == "OVERLAP" else "(1,2,3)"
    assert "has 3 values, the data have 2 axes" in refusal(**{f"DATA__{part}__{key}": values})


@pytest.mark.parametrize("part", ["TRAIN", "VAL"])
def test_training_padding_that_leaves_nothing(part: str) -> None:
    text = refusal(**{f"DATA__{part}__PADDING": "(128,8)"})
    assert f"DATA.{part}.PADDING: 128 along y leaves 0 of a patch of 256" in text


def test_class_weights_and_names_that_do_not_fit() -> None:
    three = facts(num_classes=3, counts=(8, 1, 1))
    text = refusal(three, LOSS__CLASS_REBALANCE="manual", LOSS__CLASS_WEIGHTS="[1,2]", DATA__CLASS_NAMES="[a,b]")
    assert "DATA.CLASS_NAMES: 2 names for 3 classes in the label images (a, b)\n      -> give one name per class" in text
    text = refusal(three, LOSS__CLASS_REBALANCE="manual", LOSS__CLASS_WEIGHTS="[1,2]")
    assert "LOSS.CLASS_WEIGHTS: 2 weights for 3 classes" in text
    assert "background first" in text


def test_problems_of_patch_loss_and_schedule_are_told_at_once() -> None:
    text = refusal(
        DATA__PATCH_SIZE="(250,256,1)",
        MODEL__FEATURE_MAPS="[4,8,16,32,64]",
        LOSS__WEIGHTS="[1,1,1]",
        TRAIN__LR_SCHEDULER__NAME="warmupcosine",
        TRAIN__LR_SCHEDULER__WARMUP_COSINE_DECAY_EPOCHS=1000,
    )
    assert text.startswith("3 problems")
    for key in ("DATA.PATCH_SIZE", "LOSS.WEIGHTS", "TRAIN.LR_SCHEDULER.WARMUP_COSINE_DECAY_EPOCHS"):
        assert f"{key}: " in text


def test_rebalancing_without_counts() -> None:
    text = refusal(facts(counts=None), LOSS__CLASS_REBALANCE="auto")
    assert "LOSS.CLASS_REBALANCE: the class frequencies are not known" in text
    assert "DATA.TRAIN.CHECK_DATA: True" in text


@pytest.mark.parametrize("key", ["YX_DOWN", "DROPOUT_VALUES", "CONV_LAYERS", "Z_DOWN", "ISOTROPY"])
def test_values_per_level_that_do_not_fit_the_decided_levels(key: str) -> None:
    values = {"DROPOUT_VALUES": "[0.1,0.2,0.3]", "ISOTROPY": "[False,True,True]"}.get(key, "[1,2,2]")
    asked = {f"MODEL__{key}": values}
    message = refusal(facts([(64, 128, 128)] * 3), **asked)
    assert f"MODEL.{key}: " in message
    assert "has 3 values, the decided network takes" in message


def test_the_size_at_the_last_level_is_that_of_the_given_pooling() -> None:
    assert reason(plan(), "MODEL.FEATURE_MAPS") == "5 levels: the patch of 256 pixels has 16 at the last"
    assert reason(plan(MODEL__YX_DOWN="[1,2,2,1]"), "MODEL.FEATURE_MAPS").endswith("256 pixels has 64 at the last")


def test_the_limits_of_a_batch_are_said() -> None:
    """32 patches of 32 × 32 are far from the voxels that a step is meant to have."""
    small = plan(facts([(40, 40)]))
    assert small.batch_size == 32
    assert reason(small, "TRAIN.BATCH_SIZE").endswith("voxels per step, at least 2 and at most 32 patches")


def test_batch_normalisation_needs_more_than_one_voxel() -> None:
    deep = {"DATA__PATCH_SIZE": "(16,16,1)", "MODEL__FEATURE_MAPS": "[4,4,4,4,4]"}
    message = refusal(TRAIN__BATCH_SIZE=1, **deep)
    assert "TRAIN.BATCH_SIZE: 1 patch of (16, 16) is one voxel at the bottleneck" in message
    assert plan(TRAIN__BATCH_SIZE=2, **deep).batch_size == 2
    assert plan(TRAIN__BATCH_SIZE=1, MODEL__NORMALIZATION="none", **deep).batch_size == 1


@pytest.mark.parametrize("number", [1, 3, 4, 6])
def test_equal_values_serve_any_number_of_levels(number: int) -> None:
    """BiaPy writes its default out, ``Z_DOWN: [0, 0, 0, 0]``."""
    volume = facts([(64, 128, 128)] * 3)
    for key in ("Z_DOWN", "YX_DOWN"):
        open_factors = {f"MODEL__{key}": str([0] * number)}
        assert plan(volume, MODEL__FEATURE_MAPS="[8,16,32,64]", **open_factors).model.z_down == (2, 2, 2)
    flat = plan(volume, MODEL__ISOTROPY=str([False] * number), MODEL__CONV_LAYERS=str([1] * number)).model
    assert (flat.isotropy, flat.conv_layers) == ((False,) * 5, (1,) * 5)


def test_one_loss_weight_per_decided_term() -> None:
    assert "LOSS.WEIGHTS: has 3 values for 2 terms" in refusal(LOSS__WEIGHTS="[1,1,1]")


def test_no_foreground_to_learn() -> None:
    text = refusal(facts(counts=(1000, 0)))
    assert "DATA.TRAIN.GT_PATH: no training label image holds foreground" in text
    assert "check that these are the label images" in text
    text = refusal(facts(counts=(0, 0)), DATA__TRAIN__GT_PATH="y", LOSS__IGNORE_INDEX="[254,255]")
    assert (
        "DATA.TRAIN.GT_PATH y: no training label image holds foreground: every pixel is 0 or 254, 255 (LOSS.IGNORE_INDEX)" in text
    )


def test_few_slices_get_a_network_that_is_flat_in_z() -> None:
    made = plan(facts([(3, 256, 256)] * 4, spacing=(1.0, 1.0, 1.0)))
    assert made.model.isotropy == (False,) * len(made.model.feature_maps or ())
    [decision] = [item for item in made.decisions if item.key == "MODEL.ISOTROPY"]
    assert decision.reason == "with 3 slices there is no depth to learn from: in effect a 2D network for each slice"


@pytest.mark.parametrize(
    ("shape", "spacing", "words"),
    [
        ((40, 64, 64), (2.5, 1.0, 1.0), "it is 2.5 times as deep as wide (by the voxel size)"),
        ((40, 64, 64), None, "the voxel size is unknown and taken to be the same along all axes"),
        ((20, 256, 256), None, "it is 2 times as deep as wide (by the guessed voxel size)"),
    ],
)
def test_the_reason_of_kernels_says_whence_the_voxel_size_is_known(
    shape: tuple[int, ...], spacing: tuple[float, ...] | None, words: str
) -> None:
    [decision] = [item for item in plan(facts([shape] * 4, spacing=spacing)).decisions if item.key == "MODEL.ISOTROPY"]
    assert words in decision.reason


@pytest.mark.parametrize(("patience", "is_idle"), [(8, False), (9, True), (20, True)])
def test_a_patience_that_ends_no_training_is_named(patience: int, is_idle: bool) -> None:
    """Of ten epochs with the best one first, eight without improvement are over after the ninth."""
    assert patience_is_over([0.0] + [1.0] * 8, 8)
    assert not patience_is_over([0.0] + [1.0] * 8, 9)
    made = plan(TRAIN__EPOCHS=10, TRAIN__PATIENCE=patience)
    assert made.patience == patience
    told = [item.reason for item in made.decisions if item.key == "TRAIN.PATIENCE"]
    assert bool(told) == is_idle
    assert all("has no effect: of 10 epochs" in text for text in told)


@pytest.mark.parametrize(("patience", "is_idle"), [(7, False), (8, True)])
def test_a_rate_that_never_falls_is_named(patience: int, is_idle: bool) -> None:
    keys = {"NAME": "reduceonplateau", "REDUCEONPLATEAU_PATIENCE": patience}
    made = plan(TRAIN__EPOCHS=10, **{f"TRAIN__LR_SCHEDULER__{key}": value for key, value in keys.items()})
    last = SCHEDULES.build(made.schedule)(1.0, Progress(9, 1, 10, [0.0] + [1.0] * 8))
    assert (last == 1.0) == is_idle
    told = [item.reason for item in made.decisions if item.key == "TRAIN.LR_SCHEDULER.REDUCEONPLATEAU_PATIENCE"]
    assert bool(told) == is_idle
    assert all(text.startswith("the rate never falls: of 10 epochs") for text in told)


def test_the_rate_of_a_training_by_the_clock_is_not_said_to_be_better_in_a_long_one() -> None:
    told = reason(plan(TRAIN__MAX_MINUTES=600), "TRAIN.LR")
    assert told.startswith("of about a hundred steps")
    assert told.endswith("of thousands, as on a GPU, the two were not compared")
