"""Ledger: the notes that the plan takes of its decisions and of what does not fit."""

from __future__ import annotations

from typing import TypeVar

from crista.errors import PlanError, Problem
from crista.plan.plan import Decision

Value = TypeVar("Value")
GIVEN = "given"
"""The reason of what stands in the configuration."""


class Ledger:
    """Collects decisions, with reasons, and problems while a plan is made."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self.problems: list[Problem] = []

    def settle(self, key: str, given: Value | None, decided: Value, reason: str) -> Value:
        """`given` if the user gave it, else `decided`; notes either."""
        value = decided if given is None else given
        self.decisions.append(Decision(key=key, value=show_value(value), reason=reason if given is None else GIVEN))
        return value

    def note(self, key: str, value: object, reason: str) -> None:
        """A decision that no key overrides."""
        self.decisions.append(Decision(key=key, value=show_value(value), reason=reason))

    def refuse(self, where: str, what: str, next_step: str = "") -> None:
        """Something that does not fit."""
        self.problems.append(Problem(where, what, next_step))

    def require_fit(self, where: str) -> None:
        """Raise PlanError with all problems, if there are any."""
        if self.problems:
            raise PlanError(where, self.problems)


def show_value(value: object) -> str:
    """A value as it stands in a decision."""
    if isinstance(value, tuple | list):
        return "(" + ", ".join(show_value(item) for item in value) + ")"
    return f"{value:g}" if isinstance(value, float) else str(value)
