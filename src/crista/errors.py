"""Every exception a user can meet, and the form of a problem report.

A message says what was seen, where (file, key, line, axis), what is allowed, and what to do next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong (or worth saying) about a configuration or a data set."""

    where: str
    """The file, or the key with its line: ``train/x/a.tif``, ``job.yaml line 7, TRAIN.EPOCHS``."""

    what: str
    """What was seen and what is allowed."""

    next_step: str = ""
    """What the user can do about it."""

    effect: str = ""
    """What will happen if nothing is done; empty: the run stops (a problem), or goes on with the data as they are (a warning)."""

    fix: str = ""
    """What ``crista check --fix OUT`` does about it; empty: only the user can decide that."""

    def reworded(self, words: Mapping[str, str]) -> Problem:
        """The same where keys are given in another way: each text of `words` is replaced, in their order."""
        said = {"where": self.where, "what": self.what, "next_step": self.next_step}
        for name, text in said.items():
            for old, new in words.items():
                text = text.replace(old, new)
            said[name] = text
        return replace(self, **said)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        steps = [self.next_step] if self.next_step else []
        steps += [f"`crista check … --fix OUT` writes corrected copies: {self.fix}"] if self.fix else []
        return f"{text}\n    -> {'; or '.join(steps)}" if steps else text


def render_problems(title: str, problems: Sequence[Problem]) -> str:
    """All problems at once, one paragraph each, under a counted title."""
    count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''} {title}"
    return "\n".join([count, *(f"  {str(problem).replace(chr(10), chr(10) + '  ')}" for problem in problems)])


class CristaError(Exception):
    """Base of every error that a user, a file or a configuration can cause."""


class ProblemsError(CristaError, ValueError):
    """Several problems found in one pass, reported together."""

    def __init__(self, title: str, problems: Sequence[Problem]) -> None:
        self.title = title
        self.problems = tuple(problems)
        super().__init__(render_problems(title, self.problems))

    def __reduce__(self) -> tuple[type[ProblemsError], tuple[str, tuple[Problem, ...]]]:
        """Made anew of title and problems when it comes from another process."""
        return type(self), (self.title, self.problems)


class ConfigError(ProblemsError):
    """The configuration cannot be used as it is."""


class DataError(ProblemsError):
    """Images or labels cannot be used as they are."""


class PlanError(ProblemsError):
    """The configuration and the data do not fit each other."""


class ImageReadError(CristaError, ValueError):
    """One file cannot be read; the message names it and says why."""


class CheckpointError(CristaError, ValueError):
    """A checkpoint is missing, damaged, or of another network."""


class TrainingError(CristaError, RuntimeError):
    """Training had to stop: the loss or a gradient is not finite, or another training writes the same files."""


class UnstableTrainingError(TrainingError):
    """A loss or a gradient is not finite, or the loss exploded; the training may go back and try a lower learning rate."""

    def __init__(self, message: str, *, what: str, images: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.what = what
        """In a few words: ``the loss became nan``."""
        self.images = tuple(images)
        """Images of the batch in which it was seen, as far as that is known."""

    @property
    def listed(self) -> str:
        """The first images, in words."""
        return f"{', '.join(self.images[:8])}{' …' if len(self.images) > 8 else ''}"

    def after(self, rollbacks: int) -> UnstableTrainingError:
        """The same, saying how often the training went back before."""
        again = f"{self} (It went back {rollbacks} times to the last finished epoch, each time with half the learning rate.)"
        return UnstableTrainingError(again, what=self.what, images=self.images)


class PredictionError(CristaError, RuntimeError):
    """What a network gives for an image cannot be taken for a prediction, or another run predicts into the same folder."""


class EngineError(CristaError, RuntimeError):
    """An engine for prediction cannot be had here: its library is missing, or its model is."""


class ClusterError(CristaError, RuntimeError):
    """Other processes or machines cannot do their part; what they have done is kept."""
