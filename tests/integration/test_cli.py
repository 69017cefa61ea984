"""Whole commands on a tiny data set: what they write, say and return, and that they do what the Python functions do."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

import crista
from crista.cli import jobs
from crista.cli.main import main
from crista.samples import write_sample
from crista.workflow.request import load_any

TINY = ("TRAIN.EPOCHS=2", "MODEL.FEATURE_MAPS=[4, 8]", "DATA.PATCH_SIZE=(64, 64, 1)", "SYSTEM.DEVICE=cpu")
SET_TINY = [word for override in TINY for word in ("--set", override)]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four training and two test images of 64 × 64 pixels, and their configuration job.yaml."""
    folder = tmp_path_factory.mktemp("cli")
    write_sample("cells_2d", folder, num_train=4, num_test=2, shape=(64, 64), seed=0)
    flags = [
        ("--train-images", "train/x"),
        ("--train-labels", "train/y"),
        ("--test-images", "test/x"),
        ("--test-labels", "test/y"),
    ]
    words = [word for flag, place in flags for word in (flag, str(folder / place))]
    assert main(["new", str(folder / "job.yaml"), *words]) == 0
    return folder


@pytest.fixture(scope="module")
def trained(data: Path) -> Path:
    """Results of `crista --config job.yaml --name cli`."""
    arguments = ["--config", str(data / "job.yaml"), "--result_dir", str(data / "results"), "--name", "cli", *SET_TINY]
    assert main(arguments) == 0
    return data / "results" / "cli"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


def label_images(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: tifffile.imread(path) for path in sorted(folder.iterdir())}


def test_command_line_and_python_do_the_same(data: Path, trained: Path) -> None:
    outcome = crista.run(data / "job.yaml", result_dir=data / "results", name="python", overrides=TINY)
    ours = label_images(trained / "results" / "cli_1" / "per_image_binarized")
    theirs = label_images(outcome.folder.per_image_binarized)
    assert list(ours) == list(theirs) == ["cells_2d_000.tif", "cells_2d_001.tif"]
    for name, label in ours.items():
        np.testing.assert_array_equal(label, theirs[name])
    for name in ("test_results_metrics.csv", "test_results_summary.csv", "test_results_confusion.csv"):
        assert (trained / "results" / "cli_1" / name).read_bytes() == (outcome.folder.results / name).read_bytes()


def test_run_tells_its_steps_line_by_line_and_goes_on_where_it_was(data: Path, trained: Path, run: Run) -> None:
    code, out, err = run("run", data / "job.yaml", "--result-dir", data / "results", "--name", "cli", *SET_TINY)
    assert (code, err) == (0, "")
    for words in ("Checking the data\n", "Training: 2 epochs\n", "already trained", "Predicting: 2 images\n", "\nMeasured "):
        assert words in out
    assert "\x1b" not in out
    written = out[out.index("\nWritten") :]
    for place in ("results/cli_1/report.html", "results/cli_1/per_image_binarized", "results/cli_1/test_results_metrics.csv"):
        assert str(trained / place) in written
    assert str(trained / "checkpoints" / "cli_1-checkpoint-best.pth") in written


def test_train_only_trains(data: Path, run: Run) -> None:
    code, out, _ = run("train", data / "job.yaml", "--result_dir", data / "results", "--name", "only", *SET_TINY)
    assert code == 0
    assert "epoch 2/2  loss " in out
    assert "Predicting" not in out
    assert "label images" not in out
    assert (data / "results/only/checkpoints/only_1-checkpoint-best.pth").is_file()


def test_predict_gives_the_label_images_of_the_run(data: Path, trained: Path, run: Run) -> None:
    checkpoint = trained / "checkpoints" / "cli_1-checkpoint-best.pth"
    where = ("--labels", data / "test/y", "--result_dir", data / "results", "--name", "again", "--set", "SYSTEM.DEVICE=cpu")
    code, out, _ = run("predict", checkpoint, data / "test/x", *where)
    assert code == 0
    assert "Foreground IoU" in out
    again = label_images(data / "results/again/results/again_1/per_image_binarized")
    for name, label in label_images(trained / "results" / "cli_1" / "per_image_binarized").items():
        np.testing.assert_array_equal(label, again[name])


def test_predict_refuses_what_is_no_checkpoint(data: Path, trained: Path, tmp_path: Path, run: Run) -> None:
    code, _, err = run("predict", tmp_path / "nope.pth", data / "test/x")
    assert code == 1
    assert "nope.pth: no such checkpoint" in err
    code, _, err = run("predict", tmp_path, data / "test/x")
    assert code == 1
    assert "is a folder without a network\n    -> a training leaves it in" in err
    (tmp_path / "text.pth").write_text("hello")
    assert "not a readable checkpoint" in run("predict", tmp_path / "text.pth", data / "test/x")[2]
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    assert "not a checkpoint written by crista" in run("predict", tmp_path / "other.pth", data / "test/x")[2]
    assert not (tmp_path / "crista_results").exists()


def test_predict_says_what_a_trained_network_keeps(data: Path, trained: Path, tmp_path: Path, run: Run) -> None:
    changes = ("--set", "DATA.NORMALIZATION.TYPE=div", "--set", "TEST.THRESHOLD=0.4", "--set", "LOSS.CLASS_REBALANCE=True")
    code, out, _ = run("predict", trained, data / "test/x", "--result_dir", tmp_path, "--name", "p", "--run_id", "3", *changes)
    assert code == 0
    assert "LOSS.CLASS_REBALANCE: True is now auto" in out
    kept = "DATA.NORMALIZATION.TYPE, LOSS.CLASS_REBALANCE have no effect: a trained network keeps what it was trained with"
    assert kept in out
    assert (tmp_path / "p/results/p_3/report.html").is_file()


def test_evaluate_counts_like_a_hand(data: Path, tmp_path: Path, run: Run) -> None:
    """Prediction: the upper half of everything is foreground; truth: the left half."""
    truth, predicted = np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint8)
    truth[:, :32], predicted[:32] = 1, 1
    for name, label in (("truth", truth), ("predicted", predicted)):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "a.tif", label)
    table = tmp_path / "out" / "scores.csv"
    code, out, _ = run("evaluate", tmp_path / "truth", tmp_path / "predicted", "--csv", table)
    assert code == 0
    assert "a                  0.3333          0.5000           0.5000" in out
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert [row["file"] for row in rows] == ["a", "mean over images", "all pixels pooled"]
    assert {row["foreground_iou"] for row in rows} == {"0.333333"}
    code, out, _ = run("evaluate", tmp_path / "truth", tmp_path / "predicted", "--classes", "3")
    assert "iou_class_2" in out
    assert "warning: " in out
    code, _, err = run("evaluate", tmp_path / "truth", data / "test/y")
    assert code == 1
    assert "2 images" in err
    assert "1 label" in err


def test_check_lists_everything(data: Path, tmp_path: Path, run: Run) -> None:
    code, out, _ = run("check", data / "job.yaml")
    assert code == 0
    assert out.endswith("4 training images with labels, 2 test images, 2D, 64 × 64, 1 channel, uint8: no problems, no warnings\n")
    missing = ("--set", f"DATA.TRAIN.GT_PATH={tmp_path}/none", "--set", f"DATA.TEST.PATH={tmp_path}/neither")
    code, out, _ = run("check", "--config", data / "job.yaml", *missing)
    assert code == 1
    assert out.count("problem: ") == 2
    assert "What will happen" in out
    assert "2 problems, no warnings" in out
    code, out, _ = run("check", data / "job.yaml", "--set", "TRAIN.ENABLE=False", "--set", "TEST.ENABLE=False")
    assert code == 0
    assert "there is nothing to do" in out


def test_plan_gives_reasons(data: Path, run: Run) -> None:
    code, out, _ = run("plan", "--config", data / "job.yaml", "--set", "TRAIN.EPOCHS=7")
    assert code == 0
    rows = [line.split(maxsplit=2) for line in out.splitlines()]
    assert ["Key", "Value", "Reason"] in rows
    assert ["TRAIN.EPOCHS", "7", "given"] in rows
    assert any(row[:1] == ["TRAIN.BATCH_SIZE"] and len(row[2]) > 10 for row in rows if len(row) == 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--config", "nope.yaml"), ("nope.yaml: does not exist",)),
        (("--config", "bad.yaml"), ("3 problems", "bad.yaml line 2", "line 3, TRIAN", "did you mean TRAIN?", "TRAIN.EPOCS")),
        (("--config", "job.yaml", "--set", "TRAIN.EPOCS=2"), ("TRAIN.EPOCS", "did you mean TRAIN.EPOCHS?")),
        (("--config", "job.yaml", "--set", "TRAIN.EPOCHS"), ("KEY=VALUE",)),
        (("--config", "job.yaml", "--name", "a/b"), ("--name", "'a_b'")),
        (("--config", "job.yaml", "--result_dir", "job.yaml/x"), ("--result_dir", "job.yaml is a file, not a folder")),
        (("--config", "job.yaml", "--set", "DATA.TRAIN.PATH=trian/x"), ("trian/x: does not exist", "did you mean train")),
        (("--config", "job.yaml", "--set", "SYSTEM.DEVICE=banana"), ("SYSTEM.DEVICE: banana is no device",)),
    ],
)
def test_errors_of_the_user_end_with_1_and_words(
    arguments: tuple[str, ...], words: tuple[str, ...], data: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.chdir(data)
    Path("bad.yaml").write_text("DATA: {TRAIN: {PATH: train/x}}\nPROBLEM: {NDIM: 5D}\nTRIAN: {EPOCHS: 3}\nTRAIN: {EPOCS: 3}\n")
    code, _, err = run(*arguments)
    assert code == 1
    assert err.startswith("error: ")
    assert "Traceback" not in err
    for word in words:
        assert word in err


def test_on_a_machine_without_gpus_the_processor_is_used(data: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setattr("crista.cli.options.machine_has_gpus", lambda: False)
    tiny = SET_TINY[:-2]  # without SYSTEM.DEVICE, which --gpu contradicts
    code, out, err = run("--config", data / "job.yaml", "--result_dir", data / "results", "--name", "gpu", *tiny, "--gpu", "0")
    assert code == 0, err
    assert "--gpu 0: this machine has no GPU, the processor is used" in out


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine where PyTorch finds no GPU")
def test_a_missing_gpu_is_an_error(data: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr("crista.cli.options.machine_has_gpus", lambda: True)
    code, _, err = run("--config", data / "job.yaml", "--result_dir", data / "results", "--gpu", "0")
    assert code == 1
    assert "--gpu: 0 was asked for, but 0 of 1 can be used here" in err


def test_ctrl_c_stops_in_order_and_can_be_resumed(data: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    def interrupt(self: object, event: object) -> None:
        raise KeyboardInterrupt

    where = ("--config", data / "job.yaml", "--result_dir", data / "results", "--name", "stopped", *SET_TINY)
    with monkeypatch.context() as patched:
        patched.setattr(jobs.LineListener, "epoch_finished", interrupt)
        code, out, err = run(*where)
    assert (code, err) == (130, "")
    assert "the same command goes on after the last finished epoch" in out
    code, out, _ = run(*where)
    assert code == 0
    assert "resuming after epoch 1 of 2" in out


def test_a_bug_names_the_log(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, event: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(jobs.LineListener, "epoch_finished", fail)
    with pytest.raises(ZeroDivisionError) as caught:
        main(["--config", str(data / "job.yaml"), "--result_dir", str(data / "results"), "--name", "bug", *SET_TINY])
    assert caught.value.__notes__[0] == f"The log of this run: {data}/results/bug/results/bug_1/log.txt"


def test_only_the_first_process_speaks(data: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setenv("RANK", "1")  # WORLD_SIZE stays 1: no peers to wait for
    code, out, err = run("--config", data / "job.yaml", "--result_dir", data / "results", "--name", "cli", *SET_TINY)
    assert (code, out, err) == (0, "", "")


def test_new_writes_what_the_data_show_and_never_overwrites(data: Path, tmp_path: Path, run: Run) -> None:
    folders = ("--train-images", data / "train/x", "--train-labels", data / "train/y")
    code, out, _ = run("new", tmp_path / "a.yaml", *folders, "--classes", "nothing,mitochondrion")
    assert code == 0
    assert f"then: crista --config {tmp_path}/a.yaml --result_dir crista_results --name a" in out
    settings = load_any(tmp_path / "a.yaml").config
    assert (settings.problem.ndim, settings.data.n_classes) == ("2D", 2)
    assert settings.data.class_names == ("nothing", "mitochondrion")
    assert settings.data.train.path == str(data / "train/x")
    before = (tmp_path / "a.yaml").read_bytes()
    code, _, err = run("new", tmp_path / "a.yaml", "--ndim", "3D", "--classes", "4")
    assert code == 1
    assert "exists already" in err
    assert "--force" in err
    assert (tmp_path / "a.yaml").read_bytes() == before
    code, out, _ = run("new", tmp_path / "a.yaml", "--ndim", "3D", "--classes", "4", "--force")
    assert code == 0
    assert "fill in the folders" in out
    assert "NDIM: 3D" in (tmp_path / "a.yaml").read_text()


def test_new_names_every_wrong_folder(data: Path, tmp_path: Path, run: Run) -> None:
    code, _, err = run(
        "new",
        tmp_path / "a.yaml",
        "--train-images",
        data / "trainx",
        "--train-labels",
        tmp_path,
        "--test-labels",
        data / "test/y",
    )
    assert code == 1
    assert "3 problems" in err
    assert "did you mean train instead of trainx" in err
    assert "--test-labels" in err
    assert "--train-images: training needs labels" in run("new", tmp_path / "a.yaml", "--train-images", data / "train/x")[2]
    assert "--ndim: is not given" in run("new", tmp_path / "a.yaml", "--classes", "2")[2]
    assert "no name of a YAML file" in run("new", tmp_path / "a.txt", "--classes", "2", "--ndim", "2D")[2]
    assert "is a folder" in run("new", tmp_path, "--classes", "2", "--ndim", "2D")[2]
    assert list(tmp_path.iterdir()) == []


def test_new_without_flags_asks_in_a_terminal_only(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    code, _, err = run("new")
    assert code == 2
    assert "--train-images" in err
    answers = [tmp_path / "asked.yaml", data / "nope", data / "train/x", data / "train/y", "", "5D", "", "1", "2"]
    monkeypatch.setattr(sys, "stdin", Terminal("".join(f"{answer}\n" for answer in answers)))
    code, out, _ = run("new")
    assert code == 0
    assert "nope: does not exist" in out
    assert "4 images: cells_2d_000.tif … cells_2d_003.tif" in out
    assert "4 training images with labels, 2D, 64 × 64, 1 channel, uint8" in out
    assert "at least 2 classes are needed" in out
    assert load_any(tmp_path / "asked.yaml").config.data.n_classes == 2
    monkeypatch.setattr(sys, "stdin", Terminal(""))
    code, _, err = run("new", tmp_path / "other.yaml")
    assert code == 130
    assert "nothing was written" in err
    assert not (tmp_path / "other.yaml").exists()


def test_looking_never_imports_torch(data: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from crista.cli.main import main\n"
        "job, new = sys.argv[1:]\n"
        "for words in (['--help'], ['explain', 'TRAIN.EPOCHS'], ['check', job], ['plan', job],\n"
        "              ['new', new, '--ndim', '2D', '--classes', '2']):\n"
        "    assert main(words) == 0, words\n"
        "    assert 'torch' not in sys.modules, words\n"
        "    assert 'matplotlib' not in sys.modules, words\n"
    )
    command = [sys.executable, "-c", code, str(data / "job.yaml"), str(tmp_path / "new.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_demo_makes_data_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from crista.workflow import demo

    small = demo.DemoSettings(num_train=3, num_test=1, shape=(64, 64), classes=2, overrides=TINY)
    monkeypatch.setitem(demo.SETTINGS, "cells_2d", small)
    assert main(["demo", "--folder", str(tmp_path / "demo")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Sample data cells_2d -> ")
    assert "\nMeasured " in out
    assert (tmp_path / "demo/data/cells_2d/train/x/cells_2d_000.tif").is_file()
    assert (tmp_path / "demo/demo_cells_2d/results/demo_cells_2d_1/per_image_binarized/cells_2d_000.tif").is_file()
