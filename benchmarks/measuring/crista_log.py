"""What crista says in its log about where the time of a prediction went."""

from __future__ import annotations

import re
from dataclasses import dataclass

SPLIT = re.compile(
    r"prediction: (?P<total>[\d.]+) s, [\d.]+ million voxels/s: (?P<network>\d+)% network, (?P<waiting>\d+)% waiting for pixels, "
    r"(?P<rest>\d+)% the rest; (?P<factor>[\d.]+) voxels through the network per voxel of the result"
)
ENGINE = re.compile(r"TEST\.ENGINE = (\S+): ")


@dataclass(frozen=True)
class PredictionSplit:
    """The sentence `prediction: …` of a log as numbers."""

    total: float
    """Seconds of prediction, without check, tables and report."""
    network: float
    """Seconds in the network."""
    waiting: float
    """Seconds in which the network waited for pixels."""
    work_factor: float
    """Voxels through the network per voxel of the result."""
    engine: str
    """What ran the network."""


def read_split(log: str) -> PredictionSplit | None:
    """The last such sentence of a log; None where crista does not say it."""
    sentences = list(SPLIT.finditer(log))
    if not sentences:
        return None
    found = sentences[-1]
    total = float(found["total"])
    engines = ENGINE.findall(log[: found.start()])
    return PredictionSplit(
        total=total,
        network=total * int(found["network"]) / 100,
        waiting=total * int(found["waiting"]) / 100,
        work_factor=float(found["factor"]),
        engine=engines[-1] if engines else "torch",
    )
