"""Fine-tuning: rows of the head by the names of classes, channels of the stem, the network of the checkpoint in the plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.unit.test_plan import facts, plan

from crista.config.load import config_from_dict
from crista.errors import CheckpointError, PlanError
from crista.models import build_model
from crista.plan.fine_tuning import plan_fine_tuning, settled_otherwise
from crista.plan.plan import Classes, Plan
from crista.training.checkpoint import Checkpoint
from crista.training.fine_tuning import adapt_channels, adapt_head, adapt_rows, start_from

SMALL = {"MODEL__FEATURE_MAPS": "[4,8]"}


def rows(*values: float) -> torch.Tensor:
    """Rows of a head; 7 is the value that a row was drawn with."""
    return torch.tensor(values)[:, None]


@pytest.mark.parametrize(
    ("given", "old", "own", "new", "expected"),
    [
        # three classes to four: by name, whatever the order
        (rows(1, 2, 3), "bg a b", rows(7, 7, 7, 7), "bg b c a", rows(1, 3, 7, 2)),
        # two to three: the background of a binary network has the logit 0
        (rows(5), "bg a", rows(7, 7, 7), "bg b a", rows(0, 7, 5)),
        (rows(5), "bg a", rows(7, 7, 7), "bg b c", rows(0, 7, 7)),
        # three to two: softmax of two logits is the sigmoid of their difference
        (rows(1, 2, 3), "bg a b", rows(7), "bg b", rows(2)),
        (rows(1, 2, 3), "bg a b", rows(7), "none b", rows(3)),
        (rows(1, 2, 3), "bg a b", rows(7), "bg c", rows(7)),
        # two to two
        (rows(5), "bg a", rows(7), "bg c", rows(7)),
        (rows(5), "bg a", rows(7), "a bg", rows(-5)),
    ],
)
def test_rows_of_the_head(given: torch.Tensor, old: str, own: torch.Tensor, new: str, expected: torch.Tensor) -> None:
    assert torch.equal(adapt_rows(given, own, old.split(), new.split()), expected)
    assert torch.equal(adapt_rows(given[:, 0], own[:, 0], old.split(), new.split()), expected[:, 0])  # biases


def test_three_logits_become_one_with_the_same_odds() -> None:
    logits = torch.tensor([0.3, 9.0, -1.2])
    one = adapt_rows(logits, torch.zeros(1), ["bg", "a", "b"], ["bg", "b"])
    torch.testing.assert_close(one.sigmoid()[0], logits[[0, 2]].softmax(0)[1])


@pytest.mark.parametrize(("old", "new"), [(1, 3), (3, 1), (2, 3), (4, 2)])
def test_an_image_of_equal_channels_gives_what_it_gave(old: int, new: int) -> None:
    weight = torch.randn(5, old, 3, 3, generator=torch.Generator().manual_seed(0))
    image = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    before = torch.nn.functional.conv2d(image.expand(-1, old, -1, -1), weight)
    after = torch.nn.functional.conv2d(image.expand(-1, new, -1, -1), adapt_channels(weight, new))
    torch.testing.assert_close(after, before)


def test_channels_by_hand() -> None:
    grey = torch.tensor([3.0, 6.0]).view(2, 1, 1, 1)
    assert adapt_channels(grey, 3)[:, :, 0, 0].tolist() == [[1, 1, 1], [2, 2, 2]]
    colour = torch.tensor([[1.0, 2.0, 4.0]]).view(1, 3, 1, 1)
    assert adapt_channels(colour, 1)[:, :, 0, 0].tolist() == [[7]]


def network(made: Plan) -> torch.nn.Module:
    return build_model(made.model, num_channels=made.num_channels, num_logits=made.classes.num_logits, ndim=made.ndim)


def trained(made: Plan, seed: int = 1) -> Checkpoint:
    """A network of `made` whose weights and running statistics are all other than at the start."""
    torch.manual_seed(seed)
    model = network(made)
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: value + 0.1 * torch.rand(value.shape, generator=generator) if value.is_floating_point() else value + 3
        for name, value in model.state_dict().items()
    }
    return Checkpoint(made, weights, epoch=1)


ARCHITECTURES = ["unet", "resunet", "attention_unet"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_identical_model_starts_with_identical_predictions(architecture: str) -> None:
    made = plan(facts(channels=2, num_classes=3, counts=(5, 3, 2)), **SMALL, MODEL__ARCHITECTURE=architecture)
    start, model = trained(made), network(made)
    reference = network(made)
    reference.load_state_dict(dict(start.weights))
    said = start_from(model, made, start)
    count = len({name.rpartition(".")[0] for name in start.weights})
    assert said == f"starting weights: loaded {count} of {count} layers"
    image = torch.randn(1, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(model.eval()(image), reference.eval()(image))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("larger", [False, True])
def test_other_classes_and_channels(architecture: str, larger: bool) -> None:
    """Everything between stem and head is the checkpoint's; a grey image as colours gives the same logit for its class."""
    keys = {**SMALL, "MODEL__ARCHITECTURE": architecture, "MODEL__LARGER_IO": larger}
    old = plan(facts(), **keys, DATA__CLASS_NAMES="[background, nucleus]")
    new = plan(
        facts(channels=3, num_classes=4, counts=(5, 3, 2, 1)), **keys, DATA__CLASS_NAMES="[background, cell, nucleus, spot]"
    )
    start, model, reference = trained(old), network(new), network(old)
    drawn = {name: value.clone() for name, value in model.state_dict().items()}
    said = start_from(model, new, start)
    reference.load_state_dict(dict(start.weights))
    assert "new: head (2 -> 4 classes; rows background, nucleus copied)" in said
    assert said.endswith("stem: 1 -> 3 channels, weights repeated and divided by 3")
    loaded = model.state_dict()
    assert not loaded["head.weight"][0].any()
    assert torch.equal(loaded["head.weight"][2], start.weights["head.weight"][0])
    assert torch.equal(loaded["head.weight"][[1, 3]], drawn["head.weight"][[1, 3]])
    image = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    with torch.inference_mode():
        logits = model.double().eval()(image.expand(-1, 3, -1, -1))
        torch.testing.assert_close(logits[:, 2:3], reference.double().eval()(image), rtol=1e-4, atol=1e-4)
    total = len({name.rpartition(".")[0] for name in loaded})
    stems = 2 if architecture == "resunet" and not larger else 1
    assert said.startswith(f"starting weights: loaded {total - 1 - stems} of {total} layers; ")


@pytest.mark.parametrize("names", ["[background, a, b]", "[background, b, c]"])
def test_class_shares_that_a_network_was_told_are_taken_back_where_they_are_estimated_again(names: str) -> None:
    """Else they would count twice; whole labels hold such shares themselves, and keep them."""
    keys = {**SMALL, "DATA__CLASS_NAMES": names, "LOSS__IGNORE_INDEX": 255}
    old = plan(facts(num_classes=3, counts=(5, 3, 2)), **SMALL, DATA__CLASS_NAMES="[background, a, b]")
    start, shift = trained(old), (0.5, -1.0, -4.0)
    bias = start.weights["head.bias"]
    told = replace(start, weights={**start.weights, "head.bias": bias + torch.tensor(shift)}, class_shift=shift)
    for new, expected in (
        (plan(facts(num_classes=3, counts=(500, 300, 200)), **keys), start),
        (plan(facts(num_classes=3, counts=(500, 300, 200)), **keys, LOSS__ESTIMATE_CLASS_SHARES=False), told),
    ):
        assert new.estimates_class_shares == (expected is start)
        model, reference = network(new), network(new)
        reference.load_state_dict(model.state_dict())
        said = start_from(model, new, told)
        start_from(reference, new, expected if expected is start else replace(told, class_shift=None))
        torch.testing.assert_close(model.state_dict(), reference.state_dict(), rtol=0, atol=1e-6)
        assert said.endswith("class shares that it was told are taken back, and estimated again after this training") == (
            expected is start
        )


def test_a_head_of_the_same_classes_is_left_alone() -> None:
    classes = Classes(names=("background", "a"))
    weights = {"head.weight": torch.ones(1, 4, 1, 1), "head.bias": torch.ones(1)}
    assert adapt_head(weights, weights, classes, classes) is None


def test_layers_that_do_not_fit_are_an_error_or_named() -> None:
    old, new = plan(**SMALL), plan(MODEL__FEATURE_MAPS="[4,16]")
    with pytest.raises(CheckpointError, match=r"starting weights: \d+ layers do not fit"):
        start_from(network(new), new, trained(old))
    skip = plan(MODEL__FEATURE_MAPS="[4,16]", MODEL__SKIP_UNMATCHED_LAYERS=True)
    said = start_from(network(skip), skip, trained(old))
    assert "not loaded, their shape or name does not fit: bottleneck." in said


# --- the plan ----------------------------------------------------------------------------------------------------------


def tuned(old: Plan, fingerprint: Any = None, **keys: Any) -> Plan:
    overrides = [f"{key.replace('__', '.')}={value}" for key, value in keys.items()]
    return plan_fine_tuning(config_from_dict({}, overrides).config, fingerprint or facts(), old, where="old.pth")


OLD = {
    **SMALL,
    "MODEL__ARCHITECTURE": "resunet",
    "MODEL__NORMALIZATION": "gn",
    "MODEL__KERNEL_SIZE": 5,
    "MODEL__CONV_LAYERS": "[1, 3]",
    "DATA__PATCH_SIZE": "(64, 64, 1)",
    "DATA__NORMALIZATION__TYPE": "div",
}


def test_what_is_left_out_is_the_checkpoints() -> None:
    old = plan(**OLD)
    made = tuned(old, facts(channels=3, num_classes=3, counts=(5, 3, 2)))
    assert made.model.model_dump() == old.model.model_dump()
    assert (made.patch_size, made.num_channels, made.classes.num_classes) == ((64, 64), 3, 3)
    assert made.config.data.normalization.type == "div"
    said = {decision.key: f"{decision.value}: {decision.reason}" for decision in reversed(made.decisions)}
    assert said["MODEL"] == "resunet (4, 8): the network of old.pth; keys that are given stay"
    assert said["DATA.PATCH_SIZE"] == "(64, 64, 3): that of old.pth"
    assert said["DATA.NORMALIZATION"] == "div: that of old.pth, which its weights expect"
    assert said["MODEL.FEATURE_MAPS"] == "(4, 8): that of old.pth"
    assert [key for key in said if said[key].endswith(": given")] == []
    assert len(said) == len(made.decisions)  # each is told once


CLIPPED = {f"DATA__NORMALIZATION__PERC_CLIP__{key}": value for key, value in {"ENABLE": True, "LOWER_PERC": 1}.items()}


def test_a_part_of_the_normalisation_that_is_left_out_is_the_checkpoints() -> None:
    """Its weights expect intensities in [0, 1], also where only clipping is asked for."""
    clip = {**CLIPPED, "DATA__NORMALIZATION__PERC_CLIP__UPPER_PERC": 99}
    made = tuned(plan(**OLD), **clip)
    assert (made.config.data.normalization.type, made.config.data.normalization.perc_clip.upper_perc) == ("div", 99)
    [told] = [item for item in made.decisions if item.key == "DATA.NORMALIZATION"]
    assert (told.value, told.reason) == ("div", "TYPE as of old.pth, which its weights expect")
    clipped = plan(**OLD, **clip)
    assert tuned(clipped, DATA__NORMALIZATION__TYPE="div").config.data.normalization == clipped.config.data.normalization
    assert not tuned(clipped, DATA__NORMALIZATION__TYPE="scale_range").config.data.normalization.perc_clip.enable


@pytest.mark.parametrize("learnt", [True, False])
def test_by_the_clock_z_is_reversed_as_in_the_checkpoint(learnt: bool) -> None:
    """Where the number of steps would tell, which nobody knows yet."""
    keys = {"AUGMENTOR__ENABLE": True, "AUGMENTOR__ZFLIP": "auto", "TRAIN__MAX_MINUTES": 5}
    volume = facts([(32, 64, 64)])
    old = plan(volume, **SMALL).model_copy(update={"flips_z": learnt})
    made = tuned(old, volume, **keys)
    assert made.flips_z == learnt
    told = [f"{item.value}: {item.reason}" for item in made.decisions if item.key == "AUGMENTOR.ZFLIP"]
    assert told == [f"{learnt}: that of old.pth"]
    assert not tuned(old, volume, **{**keys, "AUGMENTOR__ZFLIP": False}).flips_z
    assert tuned(old, volume, **{**keys, "TRAIN__MAX_MINUTES": None, "TRAIN__EPOCHS": 5000}).flips_z


def test_what_is_given_stays() -> None:
    made = tuned(
        plan(**OLD), DATA__PATCH_SIZE="(32,32,1)", DATA__NORMALIZATION__TYPE="scale_range", MODEL__DROPOUT_VALUES="[0.1]"
    )
    assert made.patch_size == (32, 32)
    assert made.config.data.normalization.type == "scale_range"
    assert made.model.dropout_values == (0.1, 0.1)
    of_checkpoint = {decision.key for decision in made.decisions if "old.pth" in decision.reason}
    assert of_checkpoint == {"MODEL", "MODEL.FEATURE_MAPS", "MODEL.NORMALIZATION", "MODEL.ACTIVATION"}
    given = tuned(plan(**OLD), MODEL__FEATURE_MAPS="[4,8]").decisions
    assert [decision.reason for decision in given if decision.key == "MODEL.FEATURE_MAPS"] == ["given"]
    assert tuned(plan(**OLD), MODEL__KERNEL_SIZE=5, MODEL__YX_DOWN="[2]", MODEL__ARCHITECTURE="resunet").model.kernel_size == 5


def test_a_dropout_of_0_is_no_open_factor() -> None:
    old = plan(**SMALL, MODEL__DROPOUT_VALUES="[0.2,0.2]")
    assert tuned(old, MODEL__DROPOUT_VALUES="[0,0]").model.dropout_values == (0, 0)


@pytest.mark.parametrize("factors", ["[0,0,0,0]", "0", "[0,0,0]", "[1,0,0,0]"])
def test_factors_that_are_left_open_are_the_checkpoints(factors: str) -> None:
    """BiaPy writes its default out, ``Z_DOWN: [0, 0, 0, 0]``; cubic voxels would else be halved at the first level too."""
    patch = "(64,64,64,1)"
    old = plan(facts([(64, 64, 64)] * 3, spacing=(2.0, 1.0, 1.0)), DATA__PATCH_SIZE=patch)
    made = tuned(old, facts([(64, 64, 64)] * 3, spacing=(1.0, 1.0, 1.0)), MODEL__Z_DOWN=factors, MODEL__YX_DOWN="[0,0,0,0]")
    tuned(old, facts([(64, 64, 64)] * 3), MODEL__CONV_LAYERS="[2,2,2]")  # equal values serve any number of levels
    with pytest.raises(PlanError, match="CONV_LAYERS"):
        tuned(old, facts([(64, 64, 64)] * 3), MODEL__CONV_LAYERS="[1,1,1]")
    assert (made.model.z_down, made.model.yx_down) == (old.model.z_down, old.model.yx_down) == ((1, 2, 2, 2), (2, 2, 2, 2))


def test_all_that_asks_for_another_network_is_refused_at_once() -> None:
    with pytest.raises(PlanError) as caught:
        tuned(
            plan(**OLD),
            facts(shapes=((16, 64, 64),) * 3),
            MODEL__ARCHITECTURE="unet",
            MODEL__KERNEL_SIZE=3,
            MODEL__FEATURE_MAPS="[4,8,16]",
        )
    text = str(caught.value)
    assert "4 problems in how the request and the starting checkpoint old.pth fit together" in text
    assert "the checkpoint is of a 2D network, the images are 3D" in text
    assert "MODEL.ARCHITECTURE: unet is asked for, the checkpoint has resunet" in text
    assert "MODEL.FEATURE_MAPS: (4, 8, 16) is asked for, the checkpoint has (4, 8)" in text
    assert "MODEL.KERNEL_SIZE: 3 is asked for, the checkpoint has 5" in text
    skipping = tuned(plan(**OLD), MODEL__FEATURE_MAPS="[4,8,16]", MODEL__SKIP_UNMATCHED_LAYERS=True)
    assert skipping.model.feature_maps == (4, 8, 16)
    assert (skipping.model.architecture, skipping.model.normalization, skipping.model.conv_layers) == ("resunet", "gn", (2, 2, 2))


def test_what_a_network_that_predicts_has_otherwise_is_listed() -> None:
    trained = plan(facts(num_classes=3, counts=(8, 1, 1)), **SMALL, DATA__NORMALIZATION__TYPE="div")

    def kept(**keys: Any) -> list[str]:
        return settled_otherwise(config_from_dict({}, [f"{k.replace('__', '.')}={v}" for k, v in keys.items()]).config, trained)

    same = {"DATA__NORMALIZATION__TYPE": "div", "DATA__N_CLASSES": 3, "DATA__PATCH_SIZE": (*trained.patch_size, 1)}
    assert kept() == kept(**SMALL, **same, MODEL__ARCHITECTURE="unet", MODEL__CONV_LAYERS="[2,2]", MODEL__YX_DOWN="[0]") == []
    other = {"DATA__NORMALIZATION__TYPE": "scale_range", "DATA__N_CLASSES": 2, "DATA__PATCH_SIZE": "(64,64,1)"}
    names = ["DATA.PATCH_SIZE", "DATA.N_CLASSES", "DATA.NORMALIZATION", "MODEL.ARCHITECTURE", "MODEL.ACTIVATION"]
    assert kept(**other, MODEL__ARCHITECTURE="resunet", MODEL__ACTIVATION="relu") == names
    assert kept(LOSS__IGNORE_INDEX=255) == ["LOSS.IGNORE_INDEX"]
    assert kept(LOSS__IGNORE_INDEX="[-1]") == []
    split = {"DATA__VAL__SPLIT_TRAIN": 0.3, "DATA__VAL__RANDOM": True, "SYSTEM__SEED": 3}
    assert kept(**split) == []
    assert kept(**split, DATA__TEST__USE_VAL_AS_TEST=True) == ["DATA.VAL.SPLIT_TRAIN", "SYSTEM.SEED"]
