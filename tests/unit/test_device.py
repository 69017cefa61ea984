"""The device of a process: the one that it computes on is the one that PyTorch means by "the GPU"."""

from __future__ import annotations

import warnings

import pytest
import torch

from crista.errors import ConfigError
from crista.training.distributed import Processes, choose_device, join_processes


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """A machine with two GPUs, and what is made the current one of them."""
    made: list[torch.device] = []
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Some GPU")
    monkeypatch.setattr(torch.cuda, "set_device", made.append)
    return made


@pytest.mark.parametrize("wanted", [None, "cuda", "cuda:0"])
@pytest.mark.parametrize("rank", [0, 1])
def test_each_process_of_torchrun_makes_its_gpu_the_current_one(
    current: list[torch.device], monkeypatch: pytest.MonkeyPatch, wanted: str | None, rank: int
) -> None:
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    assert choose_device(wanted)[0] == torch.device("cuda", rank)
    assert current == [torch.device("cuda", rank)]


def test_so_does_a_process_by_itself(current: list[torch.device]) -> None:
    choose_device("cuda:1")
    choose_device(None)
    assert current == [torch.device("cuda", 1), torch.device("cuda", 0)]


def test_a_pytorch_without_gpus_beside_a_driver_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pip's usual one for Windows."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    for driver, words in ((None, "(no GPU found)"), ("C:/nvidia-smi.exe", "this PyTorch was built without support for GPUs")):
        monkeypatch.setattr("shutil.which", lambda _, driver=driver: driver)
        assert words in choose_device(None)[1]


@pytest.mark.parametrize(("has", "backend"), [(True, "nccl"), (False, "gloo")])
def test_processes_with_gpus_join_without_nccl_on_windows(has: bool, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    joined: list[str] = []
    monkeypatch.setattr(warnings, "filterwarnings", lambda *_, **__: None)
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: has)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda name, **_: joined.append(name))
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    assert join_processes(torch.device("cuda", 1)) == Processes(1, 2, 1)
    assert joined == [backend]


@pytest.mark.parametrize("wanted", ["cpu", "cuda"])
def test_what_names_no_gpu_changes_nothing(current: list[torch.device], wanted: str) -> None:
    assert choose_device(wanted)[0] == torch.device(wanted)
    assert current == []


def test_a_gpu_that_is_not_there_is_refused_before_anything_is_made_of_it(current: list[torch.device]) -> None:
    with pytest.raises(ConfigError, match=r"cuda:5 was asked for, but 2 GPUs can be used here"):
        choose_device("cuda:5")
    assert current == []
