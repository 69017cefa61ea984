"""Statistics of large images are kept on disk, for the pixels that they are of."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.networks import network_plan

from crista.images.image import Image, crop_image
from crista.images.open import open_image
from crista.images.write import write_image
from crista.inference import statistics, turn
from crista.inference.statistics import StatisticsCache
from crista.patches.normalization import ImageStatistics, compute_statistics


@pytest.fixture
def nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "KEPT_BYTES", 0)


def test_a_part_of_an_image_has_the_statistics_of_the_whole(tmp_path: Path, nothing_is_small: None) -> None:
    """A block of a training image that is measured is normalised as it was while it validated."""
    write_image(tmp_path / "a.tif", np.arange(48 * 40, dtype=np.uint16).reshape(48, 40), "YX")
    image = open_image(tmp_path / "a.tif", ndim=2)
    part = crop_image(image, (slice(0, 48), slice(0, 9)))
    part_of_part = crop_image(part, (slice(8, 20), slice(0, 4)))
    plan = network_plan()
    expected = compute_statistics(image, plan.config.data.normalization)
    for one in (part, image, part_of_part):
        assert StatisticsCache(tmp_path, plan).of("a", one) == expected


@pytest.mark.parametrize("left", ["", "{", "\x00"])
def test_damaged_statistics_are_computed_anew(tmp_path: Path, nothing_is_small: None, left: str) -> None:
    write_image(tmp_path / "a.tif", np.arange(48 * 40, dtype=np.uint16).reshape(48, 40), "YX")
    image, plan = open_image(tmp_path / "a.tif", ndim=2), network_plan()
    expected = StatisticsCache(tmp_path, plan).of("a", image)
    [kept] = (tmp_path / "statistics").iterdir()
    kept.write_text(left)
    assert StatisticsCache(tmp_path, plan).of("a", image) == expected


@pytest.fixture
def image(tmp_path: Path) -> Image:
    write_image(tmp_path / "a.tif", np.arange(48 * 40, dtype=np.uint16).reshape(48, 40), "YX")
    return open_image(tmp_path / "a.tif", ndim=2)


def test_of_several_processes_one_reads_the_image(
    tmp_path: Path, image: Image, nothing_is_small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards of a job array begin at once; each would read all of a volume of which it predicts a hundredth."""
    began: list[Image] = []

    def slow(image: Image, settings: Any) -> ImageStatistics:
        began.append(image)
        time.sleep(0.5)
        return compute_statistics(image, settings)

    monkeypatch.setattr(statistics, "compute_statistics", slow)
    plan = network_plan()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: StatisticsCache(tmp_path, plan).of("a", image), range(4)))
    assert found == [compute_statistics(image, plan.config.data.normalization)] * 4
    assert len(began) == 1
    assert [path.name for path in (tmp_path / "statistics").iterdir()] == ["a.json"]


def test_one_that_was_killed_is_not_waited_for(
    tmp_path: Path, image: Image, nothing_is_small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "GONE_SECONDS", 0.3)
    (tmp_path / "statistics").mkdir()
    (tmp_path / "statistics" / ".a.json.turn.part").touch()
    expected = compute_statistics(image, network_plan().config.data.normalization)
    assert StatisticsCache(tmp_path, network_plan()).of("a", image) == expected
    assert [path.name for path in (tmp_path / "statistics").iterdir()] == ["a.json"]


KILLED = """
import os, signal, sys
from pathlib import Path
from crista.inference.turn import turn_at
with turn_at(Path(sys.argv[1]), lambda: False):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def leave_a_mark(path: Path) -> Path:
    """The mark of a process of this machine that was killed while it made `path`."""
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False).returncode == -signal.SIGKILL
    return path.with_name(f".{path.name}.turn.part")


@pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="the system does not tell what its process numbers count for")
def test_one_that_was_killed_on_this_machine_is_not_waited_for_at_all(tmp_path: Path) -> None:
    mark = leave_a_mark(tmp_path / "a.json")
    assert mark.is_file()
    began = time.monotonic()
    with turn.turn_at(tmp_path / "a.json", lambda: False):
        assert time.monotonic() - began < turn.GONE_SECONDS / 10
    assert not mark.exists()


@pytest.mark.parametrize("whose", ["another machine's", "one that lives"])
def test_others_that_may_live_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: str) -> None:
    monkeypatch.setattr(turn, "GONE_SECONDS", 0.5)
    mark = leave_a_mark(tmp_path / "a.json")
    text = mark.read_text()
    mark.write_text(f"x{text}" if whose == "another machine's" else f"{text.rpartition(' ')[0]} {os.getpid()}")
    began = time.monotonic()
    with turn.turn_at(tmp_path / "a.json", lambda: False):
        assert time.monotonic() - began > 0.5


def test_one_that_takes_long_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "GONE_SECONDS", 0.5)
    monkeypatch.setattr(turn, "BEAT_SECONDS", 0.05)
    path, inside, most = tmp_path / "a.json", [0], [0]

    def work(_: int) -> None:
        with turn.turn_at(path, path.is_file):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            if not path.is_file():
                time.sleep(1.5)
                path.touch()
            inside[0] -= 1

    with ThreadPoolExecutor(3) as pool:
        began = time.monotonic()
        first = pool.submit(work, 0)
        time.sleep(0.1)
        second = pool.submit(work, 1)
        first.result()
        second.result()
    assert time.monotonic() - began < 4
    assert most[0] == 1


def test_where_no_mark_can_be_set_everybody_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(turn.os, "open", refused)
    with turn.turn_at(tmp_path / "a.json", lambda: False):
        assert list(tmp_path.iterdir()) == []


def test_an_error_gives_the_turn_to_the_next(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), turn.turn_at(tmp_path / "a.json", lambda: False):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
