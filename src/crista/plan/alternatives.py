"""Alternatives: the plans among which a training by the clock chooses once steps were timed, and what is said of that before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from math import inf

from crista.config.root import Config
from crista.errors import PlanError
from crista.images.fingerprint import Fingerprint
from crista.plan.budget import EPOCHS_OF_BUDGET, FEWEST_EPOCHS, count_steps
from crista.plan.effort import EFFORTS, FEWEST_STEPS, FULL
from crista.plan.make import make_plan
from crista.plan.plan import Decision, Plan

WORK = ("DATA.PATCH_SIZE", "MODEL.FEATURE_MAPS", "MODEL.Z_DOWN", "MODEL.ISOTROPY", "TRAIN.BATCH_SIZE")
"""What a lighter plan may have otherwise."""


def plans_by_effort(config: Config, fingerprint: Fingerprint) -> list[tuple[str, Plan]]:
    """Names of the efforts and their plans, from the most work on.

    Of the lighter ones those that fit the keys that are given, and that are less work than the one before.
    """
    plans = [(FULL.name, make_plan(config, fingerprint))]
    for effort in EFFORTS[1:]:
        with suppress(PlanError):
            plan = make_plan(config, fingerprint, effort)
            if _work(plan) != _work(plans[-1][1]):
                plans.append((effort.name, plan))
    return plans


def _work(plan: Plan) -> tuple[object, ...]:
    return plan.patch_size, plan.model, plan.batch_size


def wanted_steps(plan: Plan, fingerprint: Fingerprint) -> int:
    """Steps that are to fit into the time: no more than those of TRAIN.EPOCHS, if that is given."""
    return int(min(FEWEST_STEPS, steps_of_epochs(plan, fingerprint)))


def steps_of_epochs(plan: Plan, fingerprint: Fingerprint) -> float:
    """Steps of TRAIN.EPOCHS, which a training by the clock makes at most; infinite where that is left out."""
    if plan.config.train.epochs is None:
        return inf
    _, of_a_pass = count_steps(plan.config, fingerprint, plan.patch_size, plan.batch_size)
    return plan.config.train.epochs * of_a_pass


def tell_what_is_open(plan: Plan, fingerprint: Fingerprint, *, from_scratch: bool = True) -> Plan:
    """`plan` with what only its training decides, when it has timed steps and seen the memory, among its decisions.

    Parameters
    ----------
    from_scratch : whether the network is a new one; that of a checkpoint is never made lighter
    """
    decisions = [_about_memory(plan, item) for item in plan.decisions]
    if plan.minutes is not None:
        plans = plans_by_effort(plan.config, fingerprint) if from_scratch else []
        decisions = [*_about_effort(plans, fingerprint), *decisions, *_about_epochs(plan)]
    return plan.model_copy(update={"decisions": tuple(decisions)})


def _about_memory(plan: Plan, decision: Decision) -> Decision:
    if decision.key != "TRAIN.BATCH_SIZE" or plan.config.train.batch_size is not None:
        return decision
    reason = f"{decision.reason}; fewer if a real step, before the training, shows that the memory does not bear them"
    return decision.model_copy(update={"reason": reason})


def _about_effort(plans: Sequence[tuple[str, Plan]], fingerprint: Fingerprint) -> Iterator[Decision]:
    """Which plans there are to choose from; nothing where all that would be made lighter is given."""
    if len(plans) < 2:
        return
    names, shown = [name for name, _ in plans], plans[0][1]
    said = [f"{names[0]}, which is shown here, if {wanted_steps(shown, fingerprint)} steps fit into the time that is left"]
    for name, plan in plans[1:]:
        fits = f" if {wanted_steps(plan, fingerprint)} fit" if name != names[-1] else ""
        said.append(f"else {name}{fits} ({changes_of(shown, plan)})")
    yield Decision(
        key="effort",
        value=" or ".join(names),
        reason=f"decided when the training starts, by the time that a step then takes: {'; '.join(said)}",
    )


def changes_of(shown: Plan, plan: Plan) -> str:
    """What a lighter plan has otherwise, as keys and values."""
    before = {item.key: item.value for item in shown.decisions}
    other = [f"{item.key} {item.value}" for item in plan.decisions if item.key in WORK and before.get(item.key) != item.value]
    return ", ".join(other)


def _about_epochs(plan: Plan) -> Iterator[Decision]:
    """A number of epochs that is given stays; otherwise the clock makes it."""
    if plan.config.train.epochs is not None:
        return
    yield Decision(
        key="TRAIN.EPOCHS",
        value="by the clock",
        reason=f"once a step on real patches has been timed, the time is divided into {FEWEST_EPOCHS} to {EPOCHS_OF_BUDGET} "
        "parts, each of so many steps and a validation; more or fewer of them fit if the machine becomes quicker or slower",
    )
