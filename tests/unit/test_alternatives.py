"""What a training by the clock chooses from, and what the plan says of it before anything was timed."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.test_plan import facts

from crista.config.load import config_from_dict
from crista.images.fingerprint import Fingerprint
from crista.plan.alternatives import plans_by_effort, tell_what_is_open
from crista.plan.make import make_plan

BIG = facts([(512, 512)] * 8)


def told(fingerprint: Fingerprint, *overrides: str, **rest: Any) -> dict[str, str]:
    """Key to ``value: reason`` of everything that the plan says."""
    config = config_from_dict({}, overrides).config
    plan = tell_what_is_open(make_plan(config, fingerprint), fingerprint, **rest)
    assert len({item.key for item in plan.decisions}) == len(plan.decisions)
    return {item.key: f"{item.value}: {item.reason}" for item in plan.decisions}


def test_a_training_by_the_clock_says_between_what_it_will_choose() -> None:
    said = told(BIG, "TRAIN.MAX_MINUTES=5")
    assert said["effort"] == (
        "full or light or least: decided when the training starts, by the time that a step then takes: full, which is shown "
        "here, if 250 steps fit into the time that is left; else light if 250 fit (DATA.PATCH_SIZE (192, 192, 1), "
        "MODEL.FEATURE_MAPS (16, 32, 64, 128)); else least (DATA.PATCH_SIZE (128, 128, 1), "
        "MODEL.FEATURE_MAPS (8, 16, 32, 64, 128), TRAIN.BATCH_SIZE 8)"
    )
    assert said["TRAIN.EPOCHS"].startswith("by the clock: once a step on real patches has been timed, the time is divided into 5")
    assert said["DATA.PATCH_SIZE"].startswith("(256, 256, 1)")


def test_what_is_said_is_what_the_efforts_are() -> None:
    config = config_from_dict({}, ["TRAIN.MAX_MINUTES=5"]).config
    for shape in ((512, 512), (20, 256, 256)):
        volumes = facts([shape] * 4)
        said = told(volumes, "TRAIN.MAX_MINUTES=5")["effort"]
        for name, plan in plans_by_effort(config, volumes)[1:]:
            own = said.partition(f"else {name}")[2].partition("; else")[0]
            assert f"DATA.PATCH_SIZE {(*plan.patch_size, 1)}" in own
            assert f"MODEL.FEATURE_MAPS {plan.model.feature_maps}" in own


def test_few_given_epochs_need_few_steps() -> None:
    said = told(BIG, "TRAIN.MAX_MINUTES=5", "TRAIN.EPOCHS=4")
    assert "full, which is shown here, if 24 steps fit" in said["effort"]
    assert said["TRAIN.EPOCHS"] == "4: given; the time may end before"


def test_what_is_given_leaves_less_to_choose() -> None:
    given = ["TRAIN.MAX_MINUTES=5", "MODEL.FEATURE_MAPS=[8,16,32]", "TRAIN.BATCH_SIZE=4"]
    assert "effort" not in told(BIG, *given, "DATA.PATCH_SIZE=(256,256,1)")
    small = told(facts([(160, 160)] * 8), *given)  # as small as the patch of `light`
    assert small["effort"].startswith("full or least: ")
    assert small["effort"].endswith("else least (DATA.PATCH_SIZE (128, 128, 1))")


def test_a_lighter_plan_that_given_keys_do_not_fit_is_left_out() -> None:
    """`light` has four levels, the others five."""
    said = told(BIG, "TRAIN.MAX_MINUTES=5", "MODEL.CONV_LAYERS=[1,1,1,2,2]")
    assert said["effort"].startswith("full or least: ")


def test_without_a_clock_nothing_is_open_but_the_memory() -> None:
    said = told(BIG)
    assert "effort" not in said
    assert "by the clock" not in said["TRAIN.EPOCHS"]
    assert said["TRAIN.BATCH_SIZE"].endswith(
        "; fewer if a real step, before the training, shows that the memory does not bear them"
    )
    assert told(BIG, "TRAIN.BATCH_SIZE=4")["TRAIN.BATCH_SIZE"] == "4: given"


@pytest.mark.parametrize("minutes", ["5", "600"])
def test_the_network_of_a_checkpoint_is_never_made_lighter(minutes: str) -> None:
    said = told(BIG, f"TRAIN.MAX_MINUTES={minutes}", from_scratch=False)
    assert "effort" not in said
    assert said["TRAIN.EPOCHS"].startswith("by the clock")
