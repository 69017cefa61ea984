"""Images of several blocks: the same results as in memory, whoever predicts the blocks and however often that is interrupted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from tests.jobs import job, labels, pixels, plan_of, predict_only, run_and_listen, table, write_data

from crista.errors import CristaError
from crista.inference.record import ImageRecord
from crista.inference.store import Done
from crista.plan.events import Said, TileFinished
from crista.workflow import engine
from crista.workflow.api import Outcome, run
from crista.workflow.request import request_run
from crista.workflow.run import run as run_events

pytestmark = pytest.mark.usefixtures("no_drawings_in_module")
SHAPES = {2: (70, 90), 3: (20, 40, 44)}


class Trained:
    """Data and the checkpoint of a network, and what it predicts in memory."""

    def __init__(self, folder: Path, ndim: int, num_classes: int) -> None:
        self.ndim, self.num_classes = ndim, num_classes
        self.data = write_data(folder / "data", shape=SHAPES[ndim], num_classes=num_classes, spacing=(0.5,) * ndim, train=2)
        first = run(self.config({"TRAIN": {"EPOCHS": 3}, "TEST": {"ENABLE": False}}), result_dir=folder / "train", name="job")
        self.checkpoint = first.folder.checkpoint_best

    def config(self, *changes: dict[str, Any]) -> dict[str, Any]:
        return job(self.data, *changes, ndim=self.ndim, num_classes=self.num_classes)

    def predict(self, where: Path, *changes: dict[str, Any]) -> Outcome:
        return run(self.config(predict_only(self.checkpoint), *changes), result_dir=where, name="job")


@pytest.fixture(scope="module", params=[(2, 2), (3, 3)], ids=["2D two classes", "3D three classes"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, no_drawings_in_module: None) -> Trained:
    return Trained(tmp_path_factory.mktemp("trained"), *request.param)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is several blocks for gigabytes is several blocks for these images too."""
    monkeypatch.setattr("crista.inference.task.IN_MEMORY_BYTES", 0)
    monkeypatch.setattr("crista.inference.task.BLOCK_BYTES", 1)
    monkeypatch.setattr("crista.images.pyramid.CHUNK_VOXELS", {2: 32 * 32, 3: 16 * 16 * 16})
    monkeypatch.setattr("crista.inference.tuning.CHEAP", 1e9)  # exact, whatever it costs
    return


FILTERED = {"TEST": {"POST_PROCESSING": {"MEDIAN_FILTER": True, "MEDIAN_FILTER_AXIS": ["xy"], "MEDIAN_FILTER_SIZE": [3]}}}
PROBABILITIES = {"DATA": {"TEST": {"ARGMAX_TO_OUTPUT": False}}}
CHUNKS = {"TEST": {"BY_CHUNKS": {"ENABLE": True}}}
FULL = {"TEST": {"FULL_IMG": True}}


@pytest.mark.parametrize("changes", [(), (FILTERED, PROBABILITIES, FULL), (FILTERED, CHUNKS)], ids=["plain", "all", "zarr"])
def test_blocks_give_what_memory_gives(
    trained: Trained, tmp_path: Path, changes: tuple[dict[str, Any], ...], request: pytest.FixtureRequest
) -> None:
    expected = trained.predict(tmp_path / "memory", *changes)
    request.getfixturevalue("small_blocks")
    outcome = trained.predict(tmp_path / "blocks", *changes)
    assert outcome.metrics == pytest.approx(expected.metrics, abs=1e-3)
    files = sorted(path.relative_to(expected.folder.results) for path in expected.folder.results.rglob("*/0?.*"))
    files = [file for file in files if file.suffix in (".tif", ".zarr")]
    assert len(files) >= 2 * len({file.parent for file in files})
    for file in files:
        one, other = (pixels(where.folder.results / file, trained.ndim) for where in (expected, outcome))
        if one.dtype == np.float32:
            np.testing.assert_allclose(one, other, atol=2e-5)
        else:
            assert (one != other).mean() < 1e-3  # equal but for ties of rounding
    assert not list(expected.folder.state.rglob("*.zarr"))
    assert not list(outcome.folder.state.rglob("*.zarr"))
    assert table(outcome.folder.test_results_metrics).keys() == table(expected.folder.test_results_metrics).keys()


def test_blocks_have_the_edges_and_the_uncertainty_of_the_whole(
    trained: Trained, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Edges of blocks are judged by what lies around them: equal counts for equal labels."""
    expected = trained.predict(tmp_path / "memory", FILTERED)
    request.getfixturevalue("small_blocks")
    outcome = trained.predict(tmp_path / "blocks", FILTERED)
    for name in ("00", "01"):
        one, other = (json.loads((where.folder.state / f"{name}.json").read_text()) for where in (expected, outcome))
        assert one["boundaries"].keys() == {"per_image", "post_processing"}
        for stage, counts in one["boundaries"].items():
            assert np.sum(counts) > 100
            np.testing.assert_allclose(other["boundaries"][stage], counts, atol=4)  # equal but for ties of rounding
        assert other["uncertainty"] == pytest.approx(one["uncertainty"], abs=1e-5)
        maps = [np.load(where.folder.state / "uncertainty" / f"{name}.npy") for where in (expected, outcome)]
        assert maps[0].shape == tuple(-(-n // c) for n, c in zip(SHAPES[trained.ndim], (1, 4, 4)[-trained.ndim :], strict=True))
        np.testing.assert_allclose(maps[1], maps[0], atol=1e-4)
    assert not list(outcome.folder.state.glob("work/*"))


def test_a_halo_that_is_not_exact_is_measured_and_said(
    trained: Trained, tmp_path: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crista.inference.tuning.CHEAP", 1.0)
    outcome = trained.predict(tmp_path)
    plan = plan_of(outcome)
    [reason] = [decision["REASON"] for decision in plan["DECISIONS"] if decision["KEY"] == "halo"]
    assert "less than 0.0001 of the labels differ from those of the whole frame" in reason
    halo = str(tuple(plan["INFERENCE"]["HALO"]))
    assert plan["INFERENCE"]["EXACT"] == reason.endswith(f"radius is {halo}")


@pytest.mark.parametrize("limit", [None, 1.0])
def test_an_image_that_nearly_fits_is_one_tile_unless_a_limit_is_set(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: float | None
) -> None:
    monkeypatch.setattr("crista.inference.tuning.bytes_for_tiles", lambda *_: 1_000_000)
    outcome = trained.predict(tmp_path, {"TEST": {"MAX_MEMORY": limit}} if limit else {})
    plan = plan_of(outcome)
    *_, reason = (decision["REASON"] for decision in plan["DECISIONS"] if decision["KEY"] == "tiles")
    most, size = plan["INFERENCE"]["MAX_TILE_VOXELS"], prod(SHAPES[trained.ndim])
    assert ("the largest image in one piece takes" in reason) == (most >= size) == (limit is None)


def test_zarr_out_has_voxel_size_and_levels_and_tiff_beside_it(trained: Trained, tmp_path: Path, small_blocks: None) -> None:
    folder = trained.predict(tmp_path, {"TEST": {"BY_CHUNKS": {"ENABLE": True, "SAVE_OUT_TIF": True}}}).folder
    store = folder.per_image_binarized / "00.zarr"
    group = zarr.open_group(str(store), mode="r")
    scale = group.attrs["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"]  # type: ignore[index, call-overload]
    assert scale == [0.5] * trained.ndim
    assert group.attrs["ome"]["version"] == "0.5"  # type: ignore[index, call-overload]
    np.testing.assert_array_equal(labels(store, trained.ndim), labels(store.with_suffix(".tif"), trained.ndim))


def test_a_range_of_slices(trained: Trained, tmp_path: Path, small_blocks: None) -> None:
    if trained.ndim == 2:
        pytest.skip("images have no slices")
    whole = trained.predict(tmp_path / "whole", CHUNKS)
    part = trained.predict(tmp_path / "part", {"TEST": {"BY_CHUNKS": {"ENABLE": True, "Z_START": 3, "Z_END": 11}}})
    one, other = (labels(outcome.folder.per_image_binarized / "00.zarr", 3) for outcome in (whole, part))
    assert (one[3:11] != other[3:11]).mean() < 1e-2  # the border of the range is not the border of the image
    assert not other[:3].any()
    assert not other[11:].any()
    counted = sum(int(v) for row in table(part.folder.confusion).values() for k, v in row.items() if k != "truth")
    assert counted == 2 * 8 * 40 * 44


def test_a_range_beyond_the_last_slice_is_refused(trained: Trained, tmp_path: Path) -> None:
    if trained.ndim == 2:
        pytest.skip("images have no slices")
    with pytest.raises(CristaError, match=r"(?s)Z_START: 20 is beyond the last slice of 0\d\.tif, 19"):
        trained.predict(tmp_path, {"TEST": {"BY_CHUNKS": {"ENABLE": True, "Z_START": 20}}})


def stores_of(outcome_folder: Path) -> dict[str, bytes]:
    """Every file of every store and label image."""
    files = [path for path in outcome_folder.rglob("*") if path.is_file() and "binarized" in str(path)]
    return {str(path.relative_to(outcome_folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("stop_after", [1, 2, 5])
def test_a_run_stopped_between_blocks_goes_on_and_does_no_block_twice(
    trained: Trained, tmp_path: Path, small_blocks: None, stop_after: int
) -> None:
    expected = trained.predict(tmp_path / "whole", CHUNKS).folder
    config = trained.config(predict_only(trained.checkpoint), CHUNKS)
    events = run_events(request_run(config, result_dir=tmp_path / "stopped", name="job"))
    seen = 0
    for event in events:
        seen += isinstance(event, TileFinished)
        if seen == stop_after:
            break
    events.close()
    folder = tmp_path / "stopped/job/results/job_1"
    assert not list((folder / "per_image_binarized").glob("*"))
    done = len(list(folder.rglob("per_image-*.json")))
    assert done >= stop_after
    heard: list[Any] = []
    run(config, result_dir=tmp_path / "stopped", name="job", on_event=heard.append)
    kept = [event.text for event in heard if isinstance(event, Said) and "blocks were predicted before" in event.text]
    assert sum(int(text.split(": ")[1].split(" of ")[0]) for text in kept) == done
    assert stores_of(folder) == stores_of(expected.results)


@pytest.mark.parametrize("changes", [(CHUNKS,), (CHUNKS, PROBABILITIES, FILTERED), ()], ids=["zarr", "all", "tiff"])
def test_killed_between_final_names_and_record_nothing_is_lost(
    trained: Trained, tmp_path: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch, changes: tuple[dict[str, Any], ...]
) -> None:
    """The stores have moved: no empty ones may be made, and published, in their place."""
    expected = trained.predict(tmp_path / "whole", *changes)
    with monkeypatch.context() as patch:
        patch.setattr(ImageRecord, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trained.predict(tmp_path / "killed", *changes)
    outcome = trained.predict(tmp_path / "killed", *changes)
    assert stores_of(outcome.folder.results) == stores_of(expected.folder.results)
    assert outcome.metrics == expected.metrics
    assert not list(outcome.folder.state.glob("work/*"))


def interrupted(*_: object) -> None:
    """As a kill at this place."""
    raise KeyboardInterrupt


def test_shards_and_a_last_command_give_the_same(trained: Trained, tmp_path: Path, small_blocks: None) -> None:
    expected = trained.predict(tmp_path / "whole", CHUNKS)
    for index in range(3):
        change = {"SYSTEM": {"CLUSTER": {"SHARD": f"{index}/3"}}}
        config = trained.config(predict_only(trained.checkpoint), CHUNKS, change)
        _, said = run_and_listen(config, tmp_path / "shards")
        assert any(f"shard {index}/3: its" in line for line in said)
    folder = tmp_path / "shards/job/results/job_1"
    assert not (folder / "test_results_metrics.csv").exists()
    outcome = trained.predict(tmp_path / "shards", CHUNKS)
    assert stores_of(folder) == stores_of(expected.folder.results)
    assert outcome.metrics == expected.metrics


def test_a_last_command_that_chooses_another_engine_loses_nothing(
    trained: Trained, tmp_path: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards ran on GPUs, say, and what puts them together does not."""
    for index in range(2):
        trained.predict(tmp_path, CHUNKS, {"SYSTEM": {"CLUSTER": {"SHARD": f"{index}/2"}}})
    chosen = engine.choose_engine
    monkeypatch.setattr(engine, "choose_engine", lambda *given, **more: replace(chosen(*given, **more), name="another"))
    config = trained.config(predict_only(trained.checkpoint), CHUNKS)
    outcome, said = run_and_listen(config, tmp_path)
    assert any("those of the shards, which have predicted everything" in line for line in said)
    assert not any("predicted anew" in line or "of no use here" in line for line in said)
    assert plan_of(outcome)["INFERENCE"]["ENGINE"] == "torch"
    assert table(outcome.folder.test_results_metrics)


def test_workers_give_the_same(tmp_path: Path, small_blocks: None) -> None:
    """Two processes; images of one block, TIFF, and of several, OME-Zarr."""
    pytest.importorskip("distributed")
    trained = Trained(tmp_path / "trained", 2, 2)
    expected = trained.predict(tmp_path / "alone", CHUNKS)
    outcome = trained.predict(tmp_path / "workers", CHUNKS, {"SYSTEM": {"CLUSTER": {"WORKERS": 2}}})
    assert stores_of(outcome.folder.results) == stores_of(expected.folder.results)
    assert outcome.metrics == expected.metrics


def test_a_line_that_a_kill_cut_short_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "done.txt"
    steps = [(str(number), number) for number in range(4)]
    left = Done(path).left_of(iter(steps))
    assert [next(left), next(left)] == [0, 1]  # 0 is noted, 1 is under way
    assert path.read_text() == "0\n"
    path.write_text("0\n1")  # killed within the line
    assert list(Done(path).left_of(iter(steps))) == [1, 2, 3]
    assert list(Done(path).left_of(iter(steps))) == []
