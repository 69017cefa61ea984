"""The choice of the engine: numbers first, then speed, and only where it pays; what goes wrong is one line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.networks import draw_images, drawn_weights, eager_scores, network_plan, source_of
from tests.quantised import record_of

from crista.config.engine import OnnxRuntime, OpenVINO, OpenVINOInt8, Torch, engine_named
from crista.config.load import parse_config
from crista.errors import ConfigError
from crista.inference.engines import (
    ENGINES,
    EngineChoice,
    EngineSource,
    base,
    choice,
    choose_engine,
    conversion,
    speeds,
)
from crista.inference.engines.probe import cut_sample, measure_speeds
from crista.workflow.engine import build_chosen_engine

LARGE = 10**12
"""Voxels of a job for which no probe is too dear."""
Change = Callable[[np.ndarray], np.ndarray]


class FakeEngine(base.ScoringEngine):
    """PyTorch's scores, changed."""

    def __init__(self, name: str, source: EngineSource, change: Change) -> None:
        self.name = name
        self._source = source
        self._change = change

    def scores(self, images: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self._change(eager_scores(self._source, images)))


class Machine:
    """A machine with engines that do as they are told, and a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.cache = folder / "cache"
        self.milliseconds = {"torch": 100.0, "openvino": 40.0, "onnxruntime": 60.0}
        self.per_voxel = 1e-6
        self.built: list[str] = []
        self.measured: list[list[str]] = []
        self.missing: set[str] = set()
        self._patch = monkeypatch
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "home"))
        monkeypatch.setattr(base, "installed", lambda package: None if package in self.missing else "1.0")
        monkeypatch.setattr(choice, "seconds_per_voxel", lambda *_: self.per_voxel)
        monkeypatch.setattr(choice, "measure_speeds", self.measure)
        for kind in (OpenVINO, OnnxRuntime):
            self.give(kind, lambda scores: scores)

    def give(self, kind: Any, change: Change) -> None:
        """Let an engine give PyTorch's scores with a change."""

        def build(config: Any, *, source: EngineSource) -> FakeEngine:
            base.check_installed(config)
            self.built.append(config.name)
            return FakeEngine(config.name, source, change)

        self._patch.setitem(ENGINES._builders, kind, build)

    def fail_to_build(self, kind: Any, error: Exception) -> None:
        """Let an engine not be made."""

        def build(_config: Any, *, source: EngineSource) -> FakeEngine:
            raise error

        self._patch.setitem(ENGINES._builders, kind, build)

    def choose(self, engine: str = "auto", *, num_voxels: int = LARGE, seed: int = 0, **settings: Any) -> EngineChoice:
        """A choice for a network in 2D."""
        plan = network_plan(engine=engine)
        sample = draw_images(plan, (32, 48))
        given = {"device": torch.device("cpu"), "cache": self.cache} | settings
        return choose_engine(plan, drawn_weights(plan, seed=seed), sample=sample, num_voxels=num_voxels, **given)

    def measure(self, engines: Any, _part: np.ndarray, _failed: Any) -> dict[str, float]:
        """Times as this machine has been told."""
        self.measured.append(sorted(engines))
        return {name: self.milliseconds[name] for name in engines}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return Machine(monkeypatch, tmp_path)


def test_the_fastest_engine_with_right_numbers_wins(machine: Machine) -> None:
    chosen = machine.choose()
    assert chosen.name == chosen.engine.name == "openvino"
    assert chosen.notices == ()
    assert chosen.milliseconds == {"torch": 100.0, "openvino": 40.0, "onnxruntime": 60.0}
    assert machine.built == ["openvino", "onnxruntime", "openvino"], "the last is handed over: it holds no memory yet"
    assert chosen.reason.startswith(
        "milliseconds for 32 × 48 pixels: openvino 40, onnxruntime 60, torch 100; its probabilities differ"
    )
    assert re.search(r"by at most \de-0[5-9]$|by at most 0e\+00$", chosen.reason)


def test_an_engine_must_be_clearly_faster_than_pytorch(machine: Machine) -> None:
    machine.milliseconds = {"torch": 100.0, "openvino": 97.0, "onnxruntime": 99.0}
    chosen = machine.choose()
    assert chosen.name == "torch"
    assert chosen.reason == "milliseconds for 32 × 48 pixels: openvino 97, onnxruntime 99, torch 100"
    again = machine.choose(seed=1)
    assert (again.name, again.reason) == ("torch", chosen.reason), "known, so that nothing is made or measured"
    assert len(machine.measured) == 1


def test_wrong_numbers_are_refused_with_figures_and_the_next_engine_is_taken(machine: Machine) -> None:
    machine.give(OpenVINO, lambda scores: scores + np.float32(0.02))
    chosen = machine.choose()
    assert chosen.name == "onnxruntime"
    assert chosen.notices == (
        "OpenVINO gives probabilities that differ by 2.0e-02 from PyTorch's (allowed: 0.0001); predicting without it",
    )
    assert machine.measured == [["onnxruntime", "torch"]]


def test_scores_that_are_no_numbers_are_refused(machine: Machine) -> None:
    machine.give(OpenVINO, lambda scores: np.where(scores > 0.5, np.nan, scores))
    chosen = machine.choose("openvino")
    assert chosen.name == "torch"
    assert chosen.reason == "TEST.ENGINE: openvino cannot be used"
    assert chosen.notices == (
        "OpenVINO gives probabilities that differ by nan from PyTorch's (allowed: 0.0001); predicting without it",
    )


def test_classes_count_even_where_probabilities_are_close(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A difference below the tolerance that moves many pixels over the threshold."""
    plan = network_plan(engine="openvino")
    middle = float(np.median(eager_scores(source_of(plan, machine.cache), draw_images(plan, (32, 48)))))
    squeeze = lambda scores: middle + (scores - middle) * np.float32(1e-4)  # noqa: E731
    monkeypatch.setitem(ENGINES._builders, Torch, lambda _config, *, source: FakeEngine("torch", source, squeeze))
    machine.give(OpenVINO, lambda scores: squeeze(scores) + np.float32(2e-5))
    test = plan.config.test.model_copy(update={"threshold": middle})
    plan = plan.model_copy(update={"config": plan.config.model_copy(update={"test": test})})
    settings: dict[str, Any] = {"sample": draw_images(plan, (32, 48)), "num_voxels": LARGE, "cache": machine.cache}
    chosen = choose_engine(plan, drawn_weights(plan), torch.device("cpu"), **settings)
    assert chosen.name == "torch"
    assert re.fullmatch(
        r"OpenVINO gives another class than PyTorch at \d+\.\d\d% of the pixels \(allowed: 0\.01%\); predicting without it",
        chosen.notices[0],
    )


def test_an_engine_that_fails_is_one_line(machine: Machine) -> None:
    def fail(_scores: np.ndarray) -> np.ndarray:
        raise RuntimeError("Unsupported layer\nwith many\nlines of trace")

    machine.give(OpenVINO, fail)
    machine.give(OnnxRuntime, fail)
    chosen = machine.choose()
    assert chosen.name == "torch"
    assert chosen.notices == (
        "OpenVINO failed (RuntimeError: Unsupported layer); predicting without it",
        "ONNX Runtime failed (RuntimeError: Unsupported layer); predicting without it",
    )
    assert machine.choose(seed=1).notices == chosen.notices, "said again in the next run"


def test_a_missing_engine_that_was_named_says_what_to_install(machine: Machine) -> None:
    machine.missing = {"openvino", "onnx", "onnxruntime"}
    chosen = machine.choose("openvino")
    assert chosen.name == "torch"
    assert chosen.notices == (
        'OpenVINO needs openvino, onnx, which are not installed: pip install "crista[openvino]"; predicting without it',
    )
    assert (
        machine.choose("onnxruntime").notices[0].startswith("ONNX Runtime needs onnxruntime, onnx, which are not installed: pip")
    )
    machine.missing = {"onnx"}
    assert 'needs onnx, which is not installed: pip install "crista[onnx]"' in machine.choose("onnxruntime").notices[0]


def test_auto_is_silent_about_what_is_missing_but_says_how_to_be_faster(machine: Machine) -> None:
    machine.missing = {"openvino", "onnxruntime"}
    chosen = machine.choose()
    assert (chosen.name, chosen.notices) == ("torch", ())
    assert chosen.reason.startswith('no other engine is installed; pip install "crista[openvino]" makes processors')
    machine.missing = {"openvino"}
    assert machine.choose().name == "onnxruntime"
    assert machine.choose().notices == ()


def test_fastest_says_that_there_is_no_8_bit_model(machine: Machine) -> None:
    chosen = machine.choose("fastest")
    assert chosen.name == "openvino"
    assert chosen.notices == ("there is no 8-bit model beside the checkpoint; a training with TEST.ENGINE: fastest makes one",)


@pytest.fixture
def with_int8(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """The machine with an accepted 8-bit model."""
    accepted = lambda source: (machine.cache / "model.xml", record_of(source))  # noqa: E731
    monkeypatch.setattr("crista.inference.engines.openvino_engine.accepted_model", accepted)
    machine.give(OpenVINOInt8, lambda scores: scores)
    machine.milliseconds["openvino-int8"] = 20.0
    return machine


def test_fast_8_bit_integers_are_compared_with_pytorch_only(with_int8: Machine) -> None:
    chosen = with_int8.choose("fastest")
    assert (chosen.name, chosen.notices) == ("openvino-int8", ())
    assert with_int8.measured == [["openvino-int8", "torch"]]
    assert with_int8.choose("auto").name == "openvino", "which is float32"


@pytest.mark.parametrize("taken", [99.0, 300.0])
def test_where_8_bit_integers_are_slow_a_float32_engine_predicts(with_int8: Machine, taken: float) -> None:
    """An old processor, or one of another kind, has no instructions for them."""
    with_int8.milliseconds["openvino-int8"] = taken
    chosen = with_int8.choose("fastest")
    assert (chosen.name, chosen.engine.name, chosen.notices) == ("openvino", "openvino", ())
    assert with_int8.measured == [["openvino-int8", "torch"], ["onnxruntime", "openvino", "torch"]]
    assert f"openvino-int8 {taken:.0f}" in chosen.reason
    again = with_int8.choose("fastest", seed=1)
    assert (again.name, len(with_int8.measured)) == ("openvino", 2), "both speeds are known"
    speeds.machine_file().unlink()
    with_int8.milliseconds["openvino-int8"] = 1.0
    assert with_int8.choose("fastest").name == "openvino", "a resumed job takes the same engine"


def test_8_bit_integers_that_compute_something_else_leave_the_float32_engines(with_int8: Machine) -> None:
    with_int8.choose("fastest")
    with_int8.give(OpenVINOInt8, lambda scores: 1 - scores)
    chosen = with_int8.choose("fastest", seed=1)
    assert chosen.name == "openvino"
    assert "8-bit integers gives another class than PyTorch" in chosen.notices[0]


def test_slow_8_bit_integers_and_slow_float32_engines_leave_pytorch(with_int8: Machine) -> None:
    with_int8.milliseconds |= dict.fromkeys(("openvino-int8", "openvino", "onnxruntime"), 98.0)
    chosen = with_int8.choose("fastest")
    assert chosen.name == "torch"
    assert chosen.reason == "milliseconds for 32 × 48 pixels: openvino-int8 98, openvino 98, onnxruntime 98, torch 100"
    assert with_int8.choose("fastest", seed=1).reason == chosen.reason
    assert len(with_int8.measured) == 2


def test_torch_is_taken_at_once_where_it_is_named(machine: Machine) -> None:
    chosen = machine.choose("torch")
    assert (chosen.name, chosen.reason) == ("torch", "TEST.ENGINE asks for it")
    assert machine.built == []


def test_a_named_engine_is_not_timed(machine: Machine) -> None:
    chosen = machine.choose("openvino", num_voxels=1)
    assert chosen.name == "openvino"
    assert chosen.reason.startswith("TEST.ENGINE asks for it; its probabilities differ from PyTorch's by at most")
    assert machine.measured == []


@pytest.mark.parametrize(
    ("engine", "notices"),
    [
        ("auto", ()),
        ("torch", ()),
        (
            "openvino",
            ("TEST.ENGINE: openvino is for processors; PyTorch is used on cuda:1 (SYSTEM.DEVICE: cpu for the processor)",),
        ),
        (
            "fastest",
            ("TEST.ENGINE: fastest is for processors; PyTorch is used on cuda:1 (SYSTEM.DEVICE: cpu for the processor)",),
        ),
    ],
)
def test_on_a_gpu_always_pytorch(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, engine: str, notices: tuple[str, ...]
) -> None:
    monkeypatch.setitem(ENGINES._builders, Torch, lambda _config, *, source: FakeEngine("torch", source, lambda scores: scores))
    chosen = machine.choose(engine, device=torch.device("cuda:1"))
    assert (chosen.name, chosen.reason, chosen.notices) == ("torch", "always on cuda:1", notices)
    assert machine.built == []


def test_a_small_job_keeps_pytorch_and_makes_no_other_engine(machine: Machine) -> None:
    chosen = machine.choose(num_voxels=1_000_000)
    assert chosen.name == "torch"
    # one second in all; conversion 1 s, two engines to start 1 s, 12 runs of 1536 pixels
    assert chosen.reason == "another engine would save about 0.4 s of this job's 1.0 s and cost 2.0 s to start"
    assert (machine.built, machine.measured) == ([], [])


def test_a_probe_is_made_once_its_gain_exceeds_its_cost(machine: Machine) -> None:
    assert machine.choose(num_voxels=5_000_000).name == "torch"
    assert machine.choose(num_voxels=5_100_000).name == "openvino"
    assert machine.measured == [["onnxruntime", "openvino", "torch"]]


def test_speeds_that_are_known_make_smaller_jobs_pay(machine: Machine) -> None:
    """The gain is known then (0.6), and nothing need be measured: 1.5 s to convert and start."""
    machine.choose(num_voxels=LARGE)
    assert machine.choose(num_voxels=2_400_000).reason.startswith("another engine would save about 1.4 s of this job's 2.4 s")
    chosen = machine.choose(num_voxels=2_600_000, seed=1)
    assert chosen.name == "openvino"
    assert chosen.milliseconds == machine.milliseconds
    assert len(machine.measured) == 1


def test_a_converted_network_makes_smaller_jobs_pay(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.choose(num_voxels=LARGE)
    monkeypatch.setattr(choice, "is_converted", lambda _source: True)
    assert machine.choose(num_voxels=800_000).name == "torch"
    assert machine.choose(num_voxels=900_000).name == "openvino"


def test_the_second_run_checks_the_numbers_only(machine: Machine) -> None:
    machine.choose()
    machine.give(OpenVINO, lambda scores: scores * np.float32(0.5))
    chosen = machine.choose(seed=1)
    assert chosen.name == "onnxruntime", "the next in the order that was measured"
    assert "OpenVINO gives probabilities that differ" in chosen.notices[0]
    assert len(machine.measured) == 1


def test_a_resumed_job_takes_the_same_engine(machine: Machine) -> None:
    """Although another would be measured, or the file of the machine is gone."""
    assert machine.choose().name == "openvino"
    small = machine.choose(num_voxels=1000)
    speeds.machine_file().unlink()
    machine.milliseconds = {"torch": 100.0, "openvino": 80.0, "onnxruntime": 10.0}
    again = machine.choose()
    assert again.name == "openvino"
    assert again.reason.startswith("chosen before for this job; its probabilities differ")
    machine.per_voxel = 1.0
    assert small.name == machine.choose(num_voxels=1000).name == "torch"
    assert machine.choose(seed=1).name == "onnxruntime", "another job is measured anew"


@pytest.mark.parametrize("first", ["onnxruntime", "torch"])
def test_shards_that_choose_at_once_take_the_same_engine(machine: Machine, monkeypatch: pytest.MonkeyPatch, first: str) -> None:
    """While this one measures, another one has settled: with an engine of its own its blocks would count for nothing."""
    measure = machine.measure

    def meanwhile(engines: Any, part: np.ndarray, failed: Any) -> dict[str, float]:
        others = {name: 1.0 if name == first else 100.0 for name in machine.milliseconds}
        machine.milliseconds, own = others, machine.milliseconds
        monkeypatch.setattr(choice, "measure_speeds", measure)
        other = machine.choose()
        assert other.name == first
        machine.milliseconds = own
        return measure(engines, part, failed)

    monkeypatch.setattr(choice, "measure_speeds", meanwhile)
    chosen = machine.choose()
    assert (chosen.name, chosen.engine.name) == (first, first)
    assert "chosen before for this job" in chosen.reason
    assert not list(machine.cache.glob(".*"))


def test_what_is_installed_later_is_considered(machine: Machine) -> None:
    machine.missing = {"openvino"}
    assert machine.choose().name == "onnxruntime"
    machine.missing = set()
    assert machine.choose().name == "openvino"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"version": 99}', '{"version": 1, "milliseconds": 3}', "\x00\xff", '{"version": 1}']
)
def test_a_corrupt_file_of_the_machine_is_ignored_and_replaced(machine: Machine, content: str) -> None:
    speeds.machine_file().parent.mkdir(parents=True)
    speeds.machine_file().write_text(content, encoding="latin-1")
    assert machine.choose().name == "openvino"
    written = json.loads(speeds.machine_file().read_text())
    assert list(written["milliseconds"].values()) == [machine.milliseconds]


def test_corrupt_entries_are_measured_anew(machine: Machine) -> None:
    machine.choose()
    content = json.loads(speeds.machine_file().read_text())
    zero = dict.fromkeys(machine.milliseconds, 0)
    for wrong in ({}, {"torch": "fast"}, [1, 2], None, zero, {"openvino": 5}, machine.milliseconds | {"winograd": 1}):
        content["milliseconds"] = dict.fromkeys(content["milliseconds"], wrong)
        speeds.machine_file().write_text(json.dumps(content))
        machine.measured.clear()
        assert machine.choose(seed=1, num_voxels=LARGE + len(str(wrong))).name == "openvino"
        assert len(machine.measured) == 1


@pytest.mark.parametrize("content", ["", "[]", '{"engine": 3}', '{"engine": "winograd"}', "{"])
def test_a_corrupt_choice_is_made_anew(machine: Machine, content: str) -> None:
    machine.choose()
    (file,) = machine.cache.glob("engine-*.json")
    file.write_text(content)
    assert machine.choose().name == "openvino"
    assert json.loads(file.read_text()) == {"engine": "openvino"}


def test_folders_that_cannot_be_written_are_done_without(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert machine.choose(cache=tmp_path / "file" / "cache").name == "openvino"


def test_the_file_of_the_machine_does_not_grow_without_end(machine: Machine) -> None:
    for number in range(speeds.MOST_ENTRIES + 5):
        speeds.save_speeds(str(number), {"torch": 1.0})
    assert speeds.load_speeds("4") is None
    assert speeds.load_speeds("5") == {"torch": 1.0}


def test_speeds_are_those_of_network_tile_cores_and_rivals(tmp_path: Path) -> None:
    plan = network_plan()
    key = speeds.speed_key(source_of(plan, tmp_path), (1, 1, 32, 32), ["openvino"])
    other_weights = source_of(plan, tmp_path, drawn_weights(plan, seed=5))
    assert speeds.speed_key(other_weights, (1, 1, 32, 32), ["openvino"]) == key
    others = {
        speeds.speed_key(source_of(plan, tmp_path, num_threads=2), (1, 1, 32, 32), ["openvino"]),
        speeds.speed_key(source_of(plan, tmp_path), (1, 1, 32, 64), ["openvino"]),
        speeds.speed_key(source_of(plan, tmp_path), (1, 1, 32, 32), ["onnxruntime"]),
        speeds.speed_key(source_of(network_plan(activation="elu"), tmp_path), (1, 1, 32, 32), ["openvino"]),
    }
    assert len(others | {key}) == 5
    assert speeds.processor()


def test_the_probe_looks_at_the_middle_of_the_tile() -> None:
    sample = np.arange(64 * 128, dtype=np.float32).reshape(1, 1, 64, 128)
    np.testing.assert_array_equal(cut_sample(sample, (16, 16), 10**6), sample)
    np.testing.assert_array_equal(cut_sample(sample, (16, 16), 64 * 64), sample[..., :, 32:96])
    np.testing.assert_array_equal(cut_sample(sample, (16, 16), 2048), sample[..., 16:48, 32:96])
    assert cut_sample(sample, (16, 16), 1).shape == (1, 1, 16, 16)
    volume = np.zeros((1, 2, 20, 96, 96), np.float32)
    assert cut_sample(volume, (4, 16, 16), 50_000).shape == (1, 2, 20, 48, 48)


def test_engines_are_timed_in_turns() -> None:
    order = []

    class Recorder(FakeEngine):
        def scores(self, images: np.ndarray) -> torch.Tensor:
            order.append(self.name)
            return torch.from_numpy(images)

    engines = {name: Recorder(name, None, lambda scores: scores) for name in "ab"}  # type: ignore[arg-type]
    taken = measure_speeds(engines, np.zeros(1, np.float32), pytest.fail)
    assert order == ["a", "b"] * 3
    assert set(taken) == {"a", "b"}


@pytest.mark.parametrize("good", [1, 2, 3])
def test_an_engine_that_fails_while_it_is_timed_is_done_without(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, good: int
) -> None:
    """Its numbers were right, and it fails in one of the three rounds: another one predicts, and the next run tries again."""
    monkeypatch.setattr(choice, "measure_speeds", measure_speeds)
    calls: list[int] = []

    def fails_later(scores: np.ndarray) -> np.ndarray:
        calls.append(len(calls))
        if len(calls) > good:
            raise MemoryError("no room for another round")
        return scores

    machine.give(OpenVINO, fails_later)
    chosen = machine.choose()
    assert chosen.notices == ("OpenVINO failed (MemoryError: no room for another round); predicting without it",)
    assert set(chosen.milliseconds) == {"torch", "onnxruntime"}
    assert chosen.name in chosen.milliseconds
    assert calls == list(range(good + 1))
    machine.give(OpenVINO, lambda scores: scores)
    assert "openvino" in machine.choose(seed=1).milliseconds


def test_a_failure_of_pytorch_while_it_is_timed_is_its_own(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "measure_speeds", measure_speeds)

    calls: list[int] = []

    def once(scores: np.ndarray) -> np.ndarray:
        calls.append(1)
        if len(calls) > 1:  # the first one is what the others are compared with
            raise RuntimeError("out of something")
        return scores

    monkeypatch.setitem(ENGINES._builders, Torch, lambda _config, *, source: FakeEngine("torch", source, once))
    with pytest.raises(RuntimeError, match="out of something"):
        machine.choose()


def test_a_kill_leaves_no_half_of_a_converted_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(network_plan(), tmp_path)
    monkeypatch.setattr(conversion, "convert_to_onnx", lambda _source: b"a network")

    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            conversion.load_converted(source, len)
    assert list(tmp_path.iterdir()) == []
    assert not conversion.is_converted(source)
    assert conversion.load_converted(source, len) == 9
    assert conversion.is_converted(source)


def test_a_damaged_network_is_converted_anew(tmp_path: Path) -> None:
    source = source_of(network_plan(engine="openvino"), tmp_path)
    base_file = tmp_path / f"{conversion.conversion_key(source)}.onnx"
    try:
        base.check_installed(OpenVINO())
    except base.EngineError as error:
        pytest.skip(str(error))
    images = draw_images(source.plan, (16, 16))
    expected = ENGINES.build(OpenVINO(), source=source)(images)
    whole = base_file.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"nonsense" * 100):
        base_file.write_bytes(damaged)
        np.testing.assert_array_equal(ENGINES.build(OpenVINO(), source=source)(images), expected)
        assert base_file.read_bytes() == whole


def test_a_damaged_network_in_a_folder_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(network_plan(), tmp_path)
    (tmp_path / f"{conversion.conversion_key(source)}.onnx").write_bytes(b"cut short")

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    def load(content: bytes) -> bytes:
        assert content == b"whole"
        return content

    monkeypatch.setattr(conversion, "convert_to_onnx", lambda _: b"whole")
    monkeypatch.setattr(conversion, "atomic_write", refused)
    monkeypatch.setattr(Path, "unlink", refused)
    assert conversion.load_converted(source, load) == b"whole"


def test_networks_are_converted_once_per_weights_and_network(tmp_path: Path) -> None:
    plan = network_plan()
    keys = {
        conversion.conversion_key(source_of(plan, tmp_path)),
        conversion.conversion_key(source_of(plan, tmp_path, drawn_weights(plan, seed=1))),
        conversion.conversion_key(source_of(network_plan(activation="relu"), tmp_path, drawn_weights(plan))),
    }
    assert len(keys) == 3
    assert conversion.conversion_key(source_of(plan, tmp_path / "elsewhere")) in keys


def test_engines_of_a_real_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is faked but the size of the job: whatever is installed, the numbers are those of PyTorch."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    plan = network_plan(num_classes=3)
    weights, sample = drawn_weights(plan), draw_images(plan, (32, 48))
    settings: dict[str, Any] = {"sample": sample, "num_voxels": LARGE, "cache": tmp_path}
    chosen = choose_engine(plan, weights, torch.device("cpu"), **settings)
    assert chosen.notices == ()
    np.testing.assert_allclose(chosen.engine(sample), eager_scores(source_of(plan, tmp_path, weights), sample), atol=1e-5)
    assert choose_engine(plan, weights, torch.device("cpu"), **settings).name == chosen.name


def test_engines_are_known_by_their_names() -> None:
    """A plan keeps the name; an empty one, and one of a newer crista, are PyTorch."""
    for kind in (Torch, OpenVINO, OnnxRuntime, OpenVINOInt8):
        assert engine_named(kind().name) == kind()
    assert engine_named("") == engine_named("tensorrt") == Torch()


def test_a_worker_whose_engine_fails_in_its_own_way_predicts_with_pytorch(
    machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Libraries have exceptions of their own, which are neither ours nor Python's."""

    class LibraryError(Exception):
        pass

    plan = network_plan()
    plan = plan.model_copy(update={"inference": plan.inference.model_copy(update={"engine": "onnxruntime"})})
    where = {"state": tmp_path, "checkpoint": tmp_path / "best.pth"}
    machine.fail_to_build(OnnxRuntime, LibraryError("no such processor"))
    engine = build_chosen_engine(plan, drawn_weights(plan), torch.device("cpu"), **where)
    assert engine.name == "torch"
    assert "no such processor" in caplog.text


def test_an_unknown_engine_is_refused_with_the_names() -> None:
    with pytest.raises(ConfigError, match=r"TEST\.ENGINE") as error:
        parse_config("TEST:\n  ENGINE: tensorflow\n", "job.yaml")
    for name in ("auto", "fastest", "torch", "openvino", "onnxruntime"):
        assert name in str(error.value)


def test_without_a_home_folder_speeds_are_measured_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under a number without a name in a container."""

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    speeds.save_speeds("a", {"torch": 1.0})
    assert speeds.load_speeds("a") is None
