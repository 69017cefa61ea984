"""8-bit models: accepted only where the validation images do not suffer, and only for their own weights."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.jobs import job
from tests.networks import draw_images, drawn_weights, network_plan, source_of
from tests.quantised import accept_int8, quantised, record_of

from crista.config.engine import OpenVINOInt8, Torch
from crista.config.load import config_from_dict
from crista.errors import EngineError
from crista.inference.engines import ENGINES, EngineSource, choice, choose_engine, int8, int8_model_path, quantize_engine
from crista.inference.engines.base import check_available, installed, tolerance_of
from crista.inference.engines.int8_record import Int8Record, accepted_model, load_record, save_record
from crista.patches.prepare import make_split, prepare_samples
from crista.plan.make import make_plan
from crista.plan.plan import Plan
from crista.workflow.check import check

needs_nncf = pytest.mark.skipif(installed("nncf") is None or installed("openvino") is None, reason="NNCF is not installed")


class Samples:
    """Patches of bright discs, with their labels."""

    def __init__(self, count: int, *, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:32, :32]
        centres = rng.uniform(8, 24, (count, 2))
        self.labels = np.stack([((y - a) ** 2 + (x - b) ** 2 < 40).astype(np.uint8) for a, b in centres])
        self.images = (2.0 * self.labels - 1 + rng.normal(0, 0.4, self.labels.shape)).astype(np.float32)[:, None]
        self.placer = self
        self.size = (32, 32)

    def __len__(self) -> int:
        return len(self.labels)

    def place(self, index: int, _rng: Any) -> tuple[int, Samples]:
        return index, self

    def rng(self, index: int, epoch: int) -> np.random.Generator:
        return np.random.default_rng((epoch, index))

    def cut(self, index: int, _rng: Any) -> tuple[Any, str]:
        return type("Sample", (), {"image": self.images[index], "label": self.labels[index]}), str(index)


def made_weights(plan: Plan) -> dict[str, torch.Tensor]:
    """Drawn weights, but for one path that tells the discs from the ground: smoothed pixels through channel 1, down and up."""
    weights = drawn_weights(plan)
    smooth, keep = torch.full((3, 3), 1 / 9), torch.zeros(3, 3)
    keep[1, 1] = 1
    blocks = ("encoder.0.block", "bottleneck", "decoder.0.block")
    path = [
        (f"{block}.units.{unit}", int(unit or block != blocks[0]), smooth if unit == 0 else keep)
        for block in blocks
        for unit in (0, 1)
    ]
    for name, channel, kernel in path:
        weights[f"{name}.conv.weight"][1] = 0
        weights[f"{name}.conv.weight"][1, channel] = kernel
        weights[f"{name}.conv.bias"][1] = 0
    weights["encoder.0.block.units.0.conv.bias"][1] = 3  # so that the rectifiers let the ground through
    weights["decoder.0.up.conv.weight"][:, 1] = 0
    weights["decoder.0.up.conv.weight"][1, 1] = 1
    weights["decoder.0.up.conv.bias"][1] = 0
    weights["head.weight"][:] = 0
    weights["head.weight"][0, 1] = 4
    weights["head.bias"][0] = -12
    return weights


@pytest.fixture(scope="module")
def plan() -> Plan:
    return network_plan(normalization="none", activation="relu", conv_layers=(2, 2), engine="fastest")


@pytest.fixture(scope="module")
def train() -> Samples:
    return Samples(12)


@pytest.fixture(scope="module")
def weights(plan: Plan) -> dict[str, torch.Tensor]:
    return made_weights(plan)


def with_outliers(weights: dict[str, torch.Tensor], *blocks: str) -> dict[str, torch.Tensor]:
    """The same function in float32; in 8 bits one useless channel of huge values leaves nothing of the others.

    In these blocks channel 0 of the first convolution grows a million times, and the second convolution ignores it.
    """
    changed = {name: value.clone() for name, value in weights.items()}
    for block in blocks:
        changed[f"{block}.units.1.conv.weight"][:, 0] = 0
        changed[f"{block}.units.0.conv.weight"][0] *= 1e6
        changed[f"{block}.units.0.conv.bias"][0] = 1e6
    return changed


@needs_nncf
def test_a_model_that_does_as_well_is_accepted_and_used(
    plan: Plan, train: Samples, weights: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "a.b-checkpoint-best.pth"
    source = source_of(plan, tmp_path, weights, int8_model=int8_model_path(checkpoint))
    record = quantize_engine(source, train, Samples(8, seed=1))  # type: ignore[arg-type]
    assert record.accepted
    assert [attempt.name for attempt in record.attempts] == ["all layers"]
    assert min(value for value in record.iou if value is not None) > 0.8
    assert record.agreement > 0.99
    assert record.summary.startswith(f"8-bit model accepted (all layers): IoU on the validation images a {record.iou[0]:.4f} -> ")
    assert record.summary.endswith("; a class may lose less than 0.003")
    names = {path.name for path in tmp_path.iterdir() if "int8" in path.name}
    assert names == {f"a.b-checkpoint-best.int8.{end}" for end in ("xml", "bin", "json")}
    assert load_record(int8_model_path(checkpoint)) == record
    times = {"torch": 100.0, "openvino": 40.0, "onnxruntime": 60.0, "openvino-int8": 20.0}
    monkeypatch.setattr(choice, "measure_speeds", lambda engines, *_: {name: times[name] for name in engines})
    settings: dict[str, Any] = {"sample": train.images[:1], "num_voxels": 10**12, "cache": tmp_path, "checkpoint": checkpoint}
    chosen = choose_engine(plan, weights, torch.device("cpu"), **settings)
    assert (chosen.name, chosen.notices) == ("openvino-int8", ())
    test = plan.config.test.model_copy(update={"engine": "auto"})
    auto = plan.model_copy(update={"config": plan.config.model_copy(update={"test": test})})
    assert choose_engine(auto, weights, torch.device("cpu"), **settings).name == "openvino", "auto is float32"


@needs_nncf
def test_a_finest_level_that_needs_float32_gets_it(
    plan: Plan, train: Samples, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """The more careful recipes are tried in turn."""
    spoilt = with_outliers(weights, "encoder.0.block", "decoder.0.block")
    source = source_of(plan, tmp_path, spoilt, int8_model=tmp_path / "net.int8.xml")
    record = quantize_engine(source, train, Samples(8, seed=1))  # type: ignore[arg-type]
    assert record.accepted
    assert [attempt.name for attempt in record.attempts] == [recipe.name for recipe in int8.RECIPES[:3]]
    assert record.attempts[0].iou[1] == 0
    assert record.agreement > 0.99


@needs_nncf
def test_a_model_that_does_worse_is_refused_after_every_recipe(
    plan: Plan, train: Samples, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    spoilt = with_outliers(weights, "bottleneck")
    source = source_of(plan, tmp_path, spoilt, int8_model=tmp_path / "net.int8.xml")
    validation = Samples(8, seed=1)
    engine = ENGINES.build(Torch(), source=source)
    assert (engine.labels(validation.images, 0.5) == validation.labels).mean() > 0.95, "in float32 it does its work"
    record = quantize_engine(source, train, validation)  # type: ignore[arg-type]
    assert not record.accepted
    assert [attempt.name for attempt in record.attempts] == [recipe.name for recipe in int8.RECIPES]
    assert "8-bit model refused after 4 attempts: IoU on the validation images a " in record.summary
    assert not (tmp_path / "net.int8.xml").exists()
    with pytest.raises(EngineError, match="refused after 4 attempts"):
        check_available(OpenVINOInt8(), source)


@pytest.mark.parametrize(
    ("before", "after", "accepted"),
    [
        ((0.9, 0.8), (0.9, 0.8), True),
        ((0.9, 0.8), (0.9, 0.7971), True),
        ((0.9, 0.8), (0.9, 0.7969), False),
        ((0.9, 0.8), (0.8969, 0.9), False),
        ((0.9, None), (0.9, None), True),
        ((0.9, None), (0.9, 0.0), True),
        ((0.9, 0.002), (0.95, None), True),
        ((0.9, 0.5), (0.95, None), False),
    ],
)
def test_no_class_may_lose_three_thousandths(before: tuple[Any, ...], after: tuple[Any, ...], accepted: bool) -> None:
    assert int8.is_acceptable(before, after) is accepted


def test_patches_are_spread_evenly_and_limited() -> None:
    samples: Any = Samples(10)
    assert int8.spread(samples, 4, 10**9) == [0, 3, 6, 9]
    assert int8.spread(samples, 100, 10**9) == list(range(10))
    assert int8.spread(samples, 100, 3 * 32 * 32) == [0, 4, 9]
    assert int8.spread(samples, 100, 1) == [0]


@needs_nncf
def test_what_was_decided_for_the_same_weights_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = network_plan()
    source = source_of(plan, tmp_path, int8_model=tmp_path / "net.int8.xml")
    samples: Any = Samples(2)
    refused = record_of(source, accepted=False, versions=int8._versions())
    save_record(tmp_path / "net.int8.xml", refused)
    monkeypatch.setattr(int8, "_quantize", lambda *_: pytest.fail("quantised again"))
    assert quantize_engine(source, samples, samples) == refused
    accepted = accept_int8(source, tmp_path)
    assert quantize_engine(accepted, samples, samples).accepted
    monkeypatch.setattr(int8, "_quantize", lambda *_: quantised(source))
    save_record(tmp_path / "net.int8.xml", replace(refused, versions={"nncf": "1.0"}))
    assert quantize_engine(source, samples, samples).versions == int8._versions(), "another version may do better"
    assert accepted.int8_model is not None
    accepted.int8_model.unlink()
    assert quantize_engine(accepted, samples, samples).attempts[0].name == "all layers"


def test_of_several_processes_one_makes_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of a job array begin at once; the files of two that write the same ones could be mixed."""
    source = source_of(network_plan(), tmp_path, int8_model=tmp_path / "net.int8.xml")
    made: list[int] = []

    def quantise(*_: object) -> Int8Record:
        made.append(1)
        time.sleep(0.5)
        save_record(tmp_path / "net.int8.xml", record_of(source, accepted=False, versions=int8._versions()))
        record = int8.known_record(source)
        assert record is not None
        return record

    monkeypatch.setattr(int8, "_import_nncf", lambda: None)
    monkeypatch.setattr(int8, "check_installed", lambda _: None)
    monkeypatch.setattr(int8, "_quantize_network", quantise)
    samples: Any = Samples(2)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: quantize_engine(source, samples, samples), range(3)))
    assert found == [int8.known_record(source)] * 3
    assert len(made) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["net.int8.json"]


def test_a_model_is_judged_anew_where_the_threshold_is_another(tmp_path: Path) -> None:
    """No class lost much at 0.5: that says nothing of 0.9. With three classes there is no threshold."""
    source = source_of(network_plan(), tmp_path, int8_model=tmp_path / "net.int8.xml")
    refused = record_of(source, accepted=False, versions=int8._versions())
    assert int8._still_holds(refused, source)
    assert not int8._still_holds(refused, with_threshold(source))
    assert int8._still_holds(replace(refused, threshold=0.9), with_threshold(source))
    several = source_of(network_plan(num_classes=3), tmp_path, int8_model=tmp_path / "net.int8.xml")
    assert int8._still_holds(record_of(several, accepted=False, versions=int8._versions()), with_threshold(several))


def spoil_weights(source: EngineSource) -> EngineSource:
    """was made of other weights"""
    return source_of(source.plan, source.cache, drawn_weights(source.plan, seed=9), int8_model=source.int8_model)


def with_threshold(source: EngineSource) -> EngineSource:
    """was judged with TEST.THRESHOLD: 0.5, and now it is 0.9; a job with TEST.ENGINE: fastest that has the training images"""
    test = source.plan.config.test.model_copy(update={"threshold": 0.9})
    return replace(source, plan=source.plan.model_copy(update={"config": source.plan.config.model_copy(update={"test": test})}))


def spoil_model(source: EngineSource) -> EngineSource:
    """is missing or damaged; delete"""
    assert source.int8_model is not None
    with source.int8_model.with_suffix(".bin").open("r+b") as file:
        file.write(b"\x00\x01\x02\x03")
    return source


def spoil_file(source: EngineSource) -> EngineSource:
    """is missing or damaged; delete"""
    assert source.int8_model is not None
    source.int8_model.with_suffix(".bin").unlink()
    return source


def spoil_record(source: EngineSource) -> EngineSource:
    """there is no 8-bit model beside the checkpoint; a training with TEST.ENGINE: fastest makes one"""
    assert source.int8_model is not None
    source.int8_model.with_suffix(".json").write_text('{"version": 1, "attempts": [')
    return source


def spoil_version(source: EngineSource) -> EngineSource:
    """there is no 8-bit model beside the checkpoint"""
    assert source.int8_model is not None
    path = source.int8_model.with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2}))
    return source


def spoil_checkpoint(source: EngineSource) -> EngineSource:
    """there is no 8-bit model beside the checkpoint"""
    return replace(source, int8_model=None)


@needs_nncf
@pytest.mark.parametrize(
    "spoil", [spoil_weights, with_threshold, spoil_model, spoil_file, spoil_record, spoil_version, spoil_checkpoint]
)
def test_a_model_that_is_not_what_was_accepted_is_not_used(spoil: Callable[[EngineSource], EngineSource], tmp_path: Path) -> None:
    """The docstring of each change is what the error says."""
    source = accept_int8(source_of(network_plan(), tmp_path), tmp_path)
    assert accepted_model(source)[0] == source.int8_model
    with pytest.raises(EngineError, match=str(spoil.__doc__)):
        accepted_model(spoil(source))


@needs_nncf
def test_a_processor_that_computes_something_else_is_noticed(tmp_path: Path) -> None:
    """Classes may differ by 1 % more than twice what they did on the validation images."""
    source = accept_int8(source_of(network_plan(), tmp_path), tmp_path)
    assert tolerance_of(OpenVINOInt8(), source).unequal == pytest.approx(0.012)
    assert tolerance_of(OpenVINOInt8(), source).difference == 1


@needs_nncf
def test_8_bit_scores_are_near_those_of_float32(tmp_path: Path) -> None:
    source = accept_int8(source_of(network_plan(num_classes=3), tmp_path), tmp_path)
    images = draw_images(source.plan, (16, 24), batch=2)
    difference = np.abs(ENGINES.build(OpenVINOInt8(), source=source)(images) - ENGINES.build(Torch(), source=source)(images))
    assert 1e-5 < difference.mean() < 0.03


@needs_nncf
def test_a_kill_leaves_no_model_that_could_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the model and before its record; and while the model is written."""
    plan = network_plan()
    source = source_of(plan, tmp_path, int8_model=tmp_path / "net.int8.xml")
    samples: Any = Samples(2)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(int8, "_quantize", lambda *_: quantised(source))
    monkeypatch.setattr(int8, "is_acceptable", lambda *_: True)
    for module, name in ((int8, "save_record"), (Path, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, killed)
            with pytest.raises(KeyboardInterrupt):
                quantize_engine(source, samples, samples)
        with pytest.raises(EngineError, match="there is no 8-bit model"):
            accepted_model(source)
        assert not list(tmp_path.glob(".*part*"))
    assert quantize_engine(source, samples, samples).accepted
    assert accepted_model(source)[0] == tmp_path / "net.int8.xml"


def test_nothing_is_made_that_cannot_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that a group shares, in a folder that only one of them may write."""
    monkeypatch.setattr(int8, "_import_nncf", lambda: pytest.fail("begun"))
    monkeypatch.setattr(int8.os, "access", lambda *_: False)
    source = source_of(network_plan(), tmp_path, int8_model=tmp_path / "net.int8.xml")
    samples: Any = Samples(2)
    with pytest.raises(EngineError, match=r"would lie beside the checkpoint, and .* cannot be written"):
        quantize_engine(source, samples, samples)


def test_without_nncf_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    source = source_of(network_plan(), tmp_path, int8_model=tmp_path / "net.int8.xml")
    samples: Any = Samples(2)
    with pytest.raises(EngineError, match=r'NNCF, which makes 8-bit models, is not installed: pip install "crista\[int8\]"'):
        quantize_engine(source, samples, samples)


def test_without_openvino_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "_import_nncf", lambda: None)
    monkeypatch.setattr("crista.inference.engines.base.installed", lambda package: None if package == "openvino" else "1")
    source = source_of(network_plan(), tmp_path, int8_model=tmp_path / "net.int8.xml")
    samples: Any = Samples(2)
    with pytest.raises(EngineError, match=r'openvino, which is not installed: pip install "crista\[openvino\]"'):
        quantize_engine(source, samples, samples)


@pytest.mark.parametrize("place", ["_float_model", "compile_engine"])
def test_a_network_that_cannot_be_converted_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("unsupported operator\nand more")

    for name in ("_import_nncf", "check_installed", "_float_model", "compile_engine"):
        monkeypatch.setattr(int8, name, fail if name == place else lambda *_, **__: None)
    source = source_of(network_plan(), tmp_path, int8_model=tmp_path / "net.int8.xml")
    samples: Any = Samples(2)
    with pytest.raises(EngineError, match=r"^making an 8-bit model failed \(RuntimeError: unsupported operator\);"):
        quantize_engine(source, samples, samples)


@needs_nncf
def test_a_library_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And leaves no record: the next run tries again."""
    import nncf

    def fail(*_: object, **__: object) -> None:
        raise ValueError("no such layer\nand more")

    monkeypatch.setattr(nncf, "quantize", fail)
    source = source_of(network_plan(), tmp_path, int8_model=tmp_path / "net.int8.xml")
    samples: Any = Samples(2)
    with pytest.raises(EngineError, match=r"^NNCF failed \(ValueError: no such layer\); there is no 8-bit model$"):
        quantize_engine(source, samples, samples)
    assert load_record(tmp_path / "net.int8.xml") is None


@needs_nncf
def test_real_patches_calibrate_and_judge(make_data: Callable[..., Path], tmp_path: Path) -> None:
    """Samples as a training prepares them, of three classes; a network that was not trained."""
    config = config_from_dict(job(make_data(num_classes=3), num_classes=3)).config
    report = _result_of(check(config, None))
    plan = make_plan(config, report.fingerprint)
    samples = prepare_samples(plan, make_split(plan, report.train, report.val), map_folder=tmp_path, cache_bytes=2**20)
    source = source_of(plan, tmp_path, drawn_weights(plan), int8_model=tmp_path / "net.int8.xml")
    record = quantize_engine(source, samples.train, samples.validation, recipes=int8.RECIPES[:1])
    assert record.classes == plan.classes.names
    assert len(record.iou) == len(record.attempts[0].iou) == 3
    assert record.accepted is int8.is_acceptable(record.iou, record.attempts[0].iou)
    assert 0.9 < record.agreement <= 1


def _result_of(events: Any) -> Any:
    """What a generator returns."""
    while True:
        try:
            next(events)
        except StopIteration as stop:
            return stop.value
