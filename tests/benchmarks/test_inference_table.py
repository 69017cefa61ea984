"""The tables of the prediction benchmark, from rows made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from inference_table import engine_of, engine_rate, flops_per_voxel, ratio_table, work_factor, write_tables
from measuring.records import Records, Row

SHAPES = [
    {
        "shape": [1, 1, 10, 10],
        "flops": 5e9,
        "engines": {"eager": {"best": 0.1, "median": 0.2}, "torch": {"best": 0.05, "median": 0.1}},
    },
    {
        "shape": [1, 1, 5, 5],
        "flops": 1.25e9,
        "engines": {"eager": {"best": 0.02, "median": 0.03}, "torch": {"best": 0.02, "median": 0.02}},
    },
]
CEILING: Row = {
    "kind": "ceiling",
    "job": "2d",
    "repetition": 1,
    "gemm": 100.0,
    "gemm_after": 200.0,
    "triad": 3.0,
    "shapes": SHAPES,
}


def speed(tool: str, repetition: int, per_image: float) -> Row:
    """A row of one measurement."""
    memory = {"peak_process": 2**20, "peak_tree": 2**21, "peak_anonymous": 2**19}
    quality = {"iou": 0.5, "differs": 0.001, "images": 11, "voxels": 100, "gemm": 1.0}
    key = {"kind": "speed", "job": "2d", "tool": tool, "repetition": repetition}
    return {**key, "per_image": per_image, "cpu_per_image": 2 * per_image, "startup": 4.0, **memory, **quality}


def test_ratios_are_taken_within_a_repetition() -> None:
    """A slow minute of the machine slows both: 4/1 and 12/4, not 8/2.5."""
    speeds = {
        "crista": [speed("crista", 1, 1.0), speed("crista", 2, 4.0)],
        "MONAI": [speed("MONAI", 1, 4.0), speed("MONAI", 2, 12.0)],
    }
    assert ratio_table(speeds, "per_image").splitlines()[-1] == "| MONAI | 3.50 (3.00–4.00) |"


@pytest.mark.parametrize(("engine", "rate"), [("torch", 2000.0), ("eager", 1250.0), ("openvino", None)])
def test_the_ceiling_is_the_engine_on_the_shape_that_suits_it(engine: str, rate: float | None) -> None:
    """100 voxels in 0.05 s or 25 in 0.02; eager 100 in 0.1 or 25 in 0.02; an engine that was not there has none."""
    assert engine_rate(CEILING, engine) == rate


@pytest.mark.parametrize(
    ("row", "engine"),
    [
        ({"tool": "crista"}, "torch"),
        ({"tool": "crista fastest", "engine": "openvino-int8"}, "openvino int8"),
        ({"tool": "crista", "engine": "openvino"}, "openvino"),
        ({"tool": "nnU-Net"}, "eager"),
    ],
)
def test_each_tool_is_held_against_what_it_runs(row: Row, engine: str) -> None:
    """What crista said that it ran; the plain network for the peers."""
    assert engine_of(row) == engine


def test_voxels_through_the_network() -> None:
    """As crista says, or as a peer counted."""
    assert work_factor({"work_factor": 1.5}) == 1.5
    assert work_factor({"network_voxels": 300, "voxels": 100}) == 3.0
    assert work_factor({}) is None


def test_flops_per_voxel() -> None:
    """Of the first shape."""
    assert flops_per_voxel(CEILING) == 5e7


def test_all_tables(tmp_path: Path) -> None:
    """One image of 100 voxels in 0.1 s is half of what the engine alone does, and a tool that is absent says why."""
    records = Records(tmp_path / "rows.jsonl")
    records.add({"kind": "count", "job": "2d", "tool": "crista fastest", "images": 0, "reason": "TEST.ENGINE: unknown key"})
    records.add(CEILING)
    records.add({**speed("crista", 1, 0.1), "network_per_image": 0.08, "work_factor": 1.25, "engine": "torch"})
    records.add(
        {"kind": "profile", "job": "2d", "images": 10, "whole": 9.0, "seconds": {"test": 8.0, "network": 6.0}, "calls": {}}
    )
    write_tables(records, tmp_path / "table.md")
    text = (tmp_path / "table.md").read_text()
    assert "Not there: crista fastest (TEST.ENGINE: unknown key)" in text
    assert "| crista | 100 | 50 % | 80 % | 80 % | 50.0 | 50 % |" in text
    assert "| network |  | 0.600 | 75.0 % |" in text
