"""How much memory tiles may take: the limit less what is held, in coarse steps so that two runs cut alike."""

from __future__ import annotations

import pytest

from crista.inference import memory
from crista.inference.memory import LEAST_FOR_TILES, RESERVE, bytes_for_tiles, bytes_for_whole_image, rounded_up

MB = 1_000_000


@pytest.mark.parametrize(
    ("held", "free", "expected"),
    [
        (500 * MB, 100_000 * MB, 700 * MB),
        (330 * MB, 100_000 * MB, 700 * MB),
        (530 * MB, 100_000 * MB, 700 * MB),
        (1500 * MB - RESERVE - 199 * MB, 100_000 * MB, 100 * MB),
        (1500 * MB - RESERVE - 80 * MB, 100_000 * MB, 80 * MB),
        (1600 * MB, 100_000 * MB, LEAST_FOR_TILES),
        (500 * MB, 1000 * MB, 500 * MB),
    ],
    ids=[
        "usual",
        "not all libraries are at work yet",
        "a little more is held",
        "little is left",
        "less than a step",
        "too much is held",
        "the machine has less",
    ],
)
def test_bytes_for_tiles(monkeypatch: pytest.MonkeyPatch, held: int, free: int, expected: int) -> None:
    monkeypatch.setattr(memory, "resident_bytes", lambda: held)
    monkeypatch.setattr(memory, "free_bytes", lambda: free)
    assert bytes_for_tiles(1.5) == expected


def test_what_a_voxel_takes_is_rounded_up_to_steps_of_a_fifth() -> None:
    assert [rounded_up(value) for value in (0.0, 1.0, 680.0, 684.0, 685.0, 1024.0)] == [1, 1, 725, 725, 725, 1024]


@pytest.mark.parametrize(
    ("free", "num_processes", "expected"),
    [(8_000 * MB, 1, 2_000 * MB), (8_000 * MB, 8, 800 * MB), (100_000 * MB, 2, 4_000 * MB)],
    ids=["a quarter", "shared", "never more than 4 GB"],
)
def test_bytes_for_a_whole_image(monkeypatch: pytest.MonkeyPatch, free: int, num_processes: int, expected: int) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: free)
    assert bytes_for_whole_image(num_processes) == expected
