"""What a kill hit, and what was done again, read from what a run left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from measuring.records import Records
from random_kills import Bench, chunk_files, compared_files, stage_of

FIRST = "---- 2026-01-01 10:00:00 UTC\n10:00:01 == check\n10:00:02 == plan\n10:00:02 == train\n10:00:09 epoch 1/6\n"
SECOND = "---- 2026-01-01 10:01:00 UTC\n10:01:01 == check\n10:01:02 == plan\n10:01:02 == train\n10:01:03 == predict\n"


@pytest.mark.parametrize(
    ("log", "starts_before", "stage"),
    [
        ("", 0, "start"),
        (FIRST, 0, "training"),
        (FIRST, 1, "start"),
        (FIRST + SECOND, 1, "prediction"),
        (FIRST + "---- 2026-01-01 10:01:00 UTC\n10:01:01 == check\n", 1, "check"),
        (FIRST + "---- 2026-01-01 10:01:00 UTC\n", 1, "start"),
    ],
)
def test_the_stage_of_a_kill(tmp_path: Path, log: str, starts_before: int, stage: str) -> None:
    """The last stage of the last start, unless that start wrote no log yet."""
    bench = Bench(tmp_path, Records(tmp_path / "rows.jsonl"))
    folder = bench.results("cycle_1")
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text(log)
    assert stage_of(bench, "cycle_1", starts_before) == stage


def test_a_chunk_that_is_written_again_is_another_file(tmp_path: Path) -> None:
    """Moving the store keeps its chunks; writing one again, also the same bytes aside and renamed, does not."""
    chunks = tmp_path / "volume.ome.zarr" / "0" / "c"
    chunks.mkdir(parents=True)
    for name in ("0", "1", ".2.part"):
        (chunks / name).write_bytes(b"x")
    before = chunk_files(tmp_path)
    assert sorted(Path(name).name for name in before.values()) == ["0", "1"]
    (chunks / "aside").write_bytes(b"x")
    (chunks / "aside").replace(chunks / "1")
    (tmp_path / "volume.ome.zarr").rename(tmp_path / "other.ome.zarr")
    assert [Path(before[key]).name for key in before.keys() - chunk_files(tmp_path).keys()] == ["1"]


def test_what_is_compared(tmp_path: Path) -> None:
    """Label images, tables and whole stores; not what holds seconds or the state of the run."""
    for name in (
        "a.tif",
        "metrics.csv",
        "log.txt",
        "train_logs/k.csv",
        ".state/a.csv",
        "v.ome.zarr/zarr.json",
        "v.ome.zarr/0/c/0",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert sorted(compared_files(tmp_path)) == ["a.tif", "metrics.csv", "v.ome.zarr/0/c/0", "v.ome.zarr/zarr.json"]
