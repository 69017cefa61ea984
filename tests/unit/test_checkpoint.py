"""Checkpoints: safe to load, whole or not there, and a plain message for every file that is none."""

from __future__ import annotations

import errno
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.test_plan import facts
from torch import nn

from crista.config.load import config_from_dict
from crista.errors import CheckpointError
from crista.plan.make import make_plan
from crista.plan.plan import Plan
from crista.training.checkpoint import VERSION, Checkpoint, _save, load_checkpoint, load_weights, save_checkpoint


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(config_from_dict({}, ["MODEL.FEATURE_MAPS=[4,8]"]).config, facts())


@pytest.fixture
def saved(plan: Plan, tmp_path: Path) -> Path:
    path = tmp_path / "deep" / "a.pth"
    history = ({"epoch": 1.0, "loss": 0.5},)
    save_checkpoint(
        path, Checkpoint(plan, {"w": torch.arange(4.0)}, 1, history, {"state": {}, "param_groups": []}, finished=True)
    )
    return path


def test_what_is_saved_is_loaded(saved: Path, plan: Plan) -> None:
    loaded = load_checkpoint(saved)
    assert loaded.plan == plan
    assert torch.equal(loaded.weights["w"], torch.arange(4.0))
    assert (loaded.epoch, loaded.history, loaded.finished) == (1, ({"epoch": 1.0, "loss": 0.5},), True)
    assert loaded.optimizer == {"state": {}, "param_groups": []}
    assert [path.name for path in saved.parent.iterdir()] == ["a.pth"]


def test_a_full_disk_is_the_reason_that_is_raised() -> None:
    """PyTorch itself complains of an unexpected position in the file."""

    class Full(io.BytesIO):
        def write(self, data: Any, /) -> int:
            if self.tell() + len(data) > 500:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    with pytest.raises(OSError, match=r"No space left on device: 'a\.pth'") as caught:
        _save({"weights": torch.zeros(1000)}, Full(), Path("a.pth"))
    assert caught.value.errno == errno.ENOSPC


def test_it_holds_tensors_and_text_only(saved: Path) -> None:
    """What torch's safe loader takes; nothing needs crista to be read."""
    content = torch.load(saved, weights_only=True)
    assert content["format"] == "crista checkpoint"
    assert content["version"] == VERSION
    assert isinstance(content["plan"], str)


def test_a_failed_writing_keeps_the_old_file(saved: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def fail(content: object, file: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(saved, Checkpoint(plan, {}, 2))
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["a.pth"]


@pytest.mark.parametrize("room", [0, 5_000, 300_000, 1_000_000])
def test_a_disk_that_becomes_full_is_named_as_such(saved: Path, plan: Plan, room: int) -> None:
    """torch ends with an error of its own about the file that it could not finish."""
    resource = pytest.importorskip("resource")
    before, (soft, hard) = saved.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_checkpoint(saved, Checkpoint(plan, {"a": torch.zeros(10), "w": torch.zeros(2**20)}, 2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["a.pth"]


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.pth: no such checkpoint\. Train first, or set PATHS\.CHECKPOINT_FILE"):
        load_checkpoint(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("size", [0, 10, 300, 0.5, 0.99])
def test_cut_off(saved: Path, size: float) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(size if size >= 1 or size == 0 else size * len(whole))])
    with pytest.raises(CheckpointError, match=r"a\.pth: not a readable checkpoint .*damaged"):
        load_checkpoint(saved)


def test_damaged_inside(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    middle = len(content) // 3
    content[middle : middle + 400] = b"\x00" * 400
    saved.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.pth"):
        load_checkpoint(saved)


@pytest.mark.parametrize("text", ["hello", "<html></html>", "\x89PNG"])
def test_another_kind_of_file(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=r"a\.pth: not a readable checkpoint"):
        load_checkpoint(path)


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('executed')",)


@pytest.mark.parametrize("way", ["torch", "pickle"])
def test_code_in_a_file_is_never_run(way: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    if way == "torch":
        torch.save({"format": "crista checkpoint", "plan": Evil()}, path)
    else:
        path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match=r"not a readable checkpoint .*never unpickles"):
        load_checkpoint(path)


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Conv2d(1, 1, 1), tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="never unpickles"):
        load_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("content", [{"w": torch.zeros(2)}, {"model": {}, "epoch": 3}, [1, 2], {"format": "other"}])
def test_a_checkpoint_of_another_program(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"a\.pth: not a checkpoint written by crista"):
        load_checkpoint(tmp_path / "a.pth")


def edited(path: Path, **changes: object) -> Path:
    torch.save({**torch.load(path, weights_only=True), **changes}, path)
    return path


def test_a_newer_format(saved: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"format version {VERSION + 1} is newer than this crista; update crista"):
        load_checkpoint(edited(saved, version=VERSION + 1))


def test_a_plan_that_cannot_be_read(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="its plan cannot be read by this version of crista"):
        load_checkpoint(edited(saved, plan='{"version": 1}'))


def test_a_checkpoint_with_a_part_missing(saved: Path) -> None:
    content = torch.load(saved, weights_only=True)
    del content["weights"]
    torch.save(content, saved)
    with pytest.raises(CheckpointError, match=r"a\.pth: .*'weights'"):
        load_checkpoint(saved)


def test_weights_that_fit_and_those_that_do_not() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 3, 1))
    weights = {**nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 4, 1)).state_dict(), "extra": torch.zeros(1)}
    before = model[1].weight.clone()
    with pytest.raises(CheckpointError, match=r"here: 3 layers do not fit this network \(1\.weight, 1\.bias, extra\)") as caught:
        load_weights(model, weights, skip_unmatched=False, where="here")
    assert "MODEL.SKIP_UNMATCHED_LAYERS: True" in str(caught.value)
    assert load_weights(model, weights, skip_unmatched=True, where="here") == ["1.weight", "1.bias", "extra"]
    assert torch.equal(model[0].weight, weights["0.weight"])
    assert torch.equal(model[1].weight, before)
