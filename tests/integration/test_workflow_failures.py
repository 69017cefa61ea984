"""What goes wrong in the middle of a run leaves nothing half done under a final name, and a message that names the file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.jobs import job, labels, pixels, predict_only, run_and_listen, table, write_data

from crista.cli.main import main
from crista.errors import ConfigError, CristaError, DataError, ImageReadError, PlanError
from crista.images.write import write_image
from crista.plan.events import ImageFinished, StageStarted
from crista.workflow.api import run, train
from crista.workflow.request import request_run
from crista.workflow.run import run as run_events

pytestmark = pytest.mark.usefixtures("no_drawings_in_module")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, no_drawings_in_module: None) -> Iterator[tuple[Path, Path]]:
    """Data and a checkpoint."""
    folder = tmp_path_factory.mktemp("failures")
    data = write_data(folder / "data", test=3)
    return data, run(job(data, {"TRAIN": {"EPOCHS": 12}}), result_dir=folder, name="job").folder.checkpoint_best


def copy_test_images(data: Path, where: Path) -> dict[str, Any]:
    """Test images that a test may damage, and the change that names them."""
    for path in (data / "test").rglob("*.tif"):
        write_image(where / path.relative_to(data), pixels(path, 2)[0], "YX")
    return {"DATA": {"TEST": {"PATH": str(where / "test/x"), "GT_PATH": str(where / "test/y")}}}


def test_an_image_that_breaks_after_the_check(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, checkpoint = trained
    config = job(data, predict_only(checkpoint), copy_test_images(data, tmp_path))
    request = request_run(config, result_dir=tmp_path / "out", name="job")
    broken = tmp_path / "test" / "x" / "01.tif"
    whole = broken.read_bytes()
    events = run_events(request)
    for event in events:
        if isinstance(event, StageStarted) and event.stage == "predict":
            broken.write_bytes(whole[: len(whole) // 3])
            break
    with pytest.raises(ImageReadError, match=r"01\.tif"):
        list(events)
    folder = request.folder
    for place in (folder.per_image, folder.per_image_binarized):
        assert [path.name for path in place.iterdir()] == ["00.tif"]
        assert labels(place / "00.tif", 2).shape == (48, 48)
    assert not folder.test_results_metrics.exists()
    assert not folder.report_html.exists()
    assert not [path for path in folder.results.rglob("*") if ".part" in path.name or ".scratch" in path.name]
    assert "error: " in folder.log_txt.read_text()
    broken.write_bytes(whole)  # repaired: the same command goes on
    outcome, said = run_and_listen(config, tmp_path / "out")
    assert "00: predicted before with the same network and settings, kept" in said
    assert list(table(outcome.folder.test_results_metrics)) == ["00", "01", "02", "mean"]


def test_the_exit_code_and_the_message_of_the_command(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, checkpoint = trained
    copy_test_images(data, tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise ImageReadError("/data/test/x/01.tif: broken in the middle")

    monkeypatch.setattr("crista.inference.statistics.compute_statistics", refuse)
    arguments = ["predict", str(checkpoint), str(tmp_path / "test" / "x"), "--result_dir", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert "01.tif: broken in the middle" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*.tif"))


@pytest.mark.parametrize("kind", ["per_image", "per_image_binarized", "test_results_metrics", "plan", "checkpoint"])
def test_a_full_disk_leaves_no_file_under_its_final_name(kind: str, trained: tuple[Path, Path], tmp_path: Path) -> None:
    """The renaming of one file fails, as it does on a full or lost disk."""
    data, checkpoint = trained
    change = {} if kind == "checkpoint" else predict_only(checkpoint)
    request = request_run(job(data, change), result_dir=tmp_path, name="job")
    rename = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if Path(target).is_relative_to(tmp_path) and kind in str(Path(target).relative_to(tmp_path)):  # others are the cache's
            raise OSError(28, "No space left on device", str(target))
        return rename(self, target)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="No space left"):
            list(run_events(request))
    names = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in names if kind in str(path.relative_to(tmp_path))]
    assert not [path for path in names if ".part" in path.name]
    outcome = run(job(data, change), result_dir=tmp_path, name="job")  # room again
    assert len(list(outcome.folder.per_image_binarized.iterdir())) == 3


def test_closing_the_events_is_the_stop_button(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, checkpoint = trained
    config = job(data, predict_only(checkpoint))
    events = run_events(request_run(config, result_dir=tmp_path, name="job"))
    for event in events:
        if isinstance(event, ImageFinished):
            break
    events.close()
    folder = tmp_path / "job" / "results" / "job_1"
    written = sorted(path.name for path in (folder / "per_image").iterdir())
    assert written[0] == "00.tif"
    # others may have been on their way; they are whole
    assert all(labels(folder / "per_image" / name, 2).shape == (48, 48) for name in written)
    _, said = run_and_listen(config, tmp_path)
    kept = [line.partition(":")[0] for line in said if "predicted before" in line]
    assert kept == [name.removesuffix(".tif") for name in written]


def test_a_changed_setting_or_folder_is_not_answered_with_old_files(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """Whatever the labels depend on, and where they are to be written, belongs to the memory of finished images."""
    data, checkpoint = trained
    changes: list[dict[str, Any]] = [
        {"TEST": {"THRESHOLD": 0.3}},
        {"DATA": {"TEST": {"INPUT_IMG_AXES_ORDER": "XY"}}},
        {"PATHS": {"RESULT_DIR": {"PER_IMAGE_BIN": "my_labels"}}},
        {"DATA": {"TEST": {"ARGMAX_TO_OUTPUT": False}}},
    ]
    for change in changes:
        run(job(data, predict_only(checkpoint)), result_dir=tmp_path, name="job")
        outcome, said = run_and_listen(job(data, predict_only(checkpoint), change), tmp_path)
        assert not [line for line in said if "predicted before" in line], change
        assert len(list(outcome.folder.per_image_binarized.iterdir())) == 3


def test_a_lost_label_image_is_made_again(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, checkpoint = trained
    config = job(data, predict_only(checkpoint))
    first = run(config, result_dir=tmp_path, name="job")
    (first.folder.per_image_binarized / "01.tif").unlink()
    _, said = run_and_listen(config, tmp_path)
    assert sorted(line[:2] for line in said if "predicted before" in line) == ["00", "02"]
    assert (first.folder.per_image_binarized / "01.tif").is_file()


def test_equal_stems_do_not_overwrite_each_other(trained: tuple[Path, Path], tmp_path: Path) -> None:
    from PIL import Image as PillowImage

    data, checkpoint = trained
    image = pixels(data / "test/x/00.tif", 2)[0]
    write_image(tmp_path / "x" / "a.tif", image, "YX")
    PillowImage.fromarray(image).save(tmp_path / "x" / "a.png")
    change = {"DATA": {"TEST": {"PATH": str(tmp_path / "x"), "LOAD_GT": False}}}
    outcome = run(job(data, predict_only(checkpoint), change), result_dir=tmp_path / "out", name="job")
    assert sorted(path.name for path in outcome.folder.per_image_binarized.iterdir()) == ["a.png.tif", "a.tif.tif"]


def test_what_is_wrong_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    """All at once, and no result folder with pictures or checkpoints."""
    data = write_data(tmp_path / "data")
    write_image(data / "train/y/02.tif", np.full((48, 48), 7, np.uint8), "YX")
    write_image(data / "train/y/03.tif", np.zeros((48, 40), np.uint8), "YX")
    with pytest.raises(DataError) as caught:
        run(job(data), result_dir=tmp_path / "out", name="job")
    assert "03.tif" in str(caught.value)
    assert "02.tif" in str(caught.value)
    assert not (tmp_path / "out" / "job" / "checkpoints").exists()


def test_labels_without_foreground_train_nothing(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    for path in (data / "train" / "y").iterdir():
        write_image(path, np.zeros((48, 48), np.uint8), "YX")
    with pytest.raises(PlanError, match=r"DATA\.TRAIN\.GT_PATH \S+/y: no training label image holds foreground"):
        run(job(data), result_dir=tmp_path / "out", name="job")


def test_a_missing_device_is_an_error_of_the_user(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, checkpoint = trained
    for device in ("cuda:77", "tpu"):
        with pytest.raises(CristaError, match=rf"(?s){device}.*--gpu"):
            run(job(data, predict_only(checkpoint), {"SYSTEM": {"DEVICE": device}}), result_dir=tmp_path, name="job")


def test_results_that_cannot_be_written(trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, checkpoint = trained
    (tmp_path / "file").write_text("in the way")
    arguments = ["predict", str(checkpoint), str(data / "test/x"), "--result_dir", str(tmp_path / "file")]
    assert main(arguments) == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_aside_files_of_a_killed_run_do_not_pile_up(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, checkpoint = trained
    folder = run(job(data, predict_only(checkpoint)), result_dir=tmp_path, name="job").folder
    left = folder.state / ".scratch-killed"
    left.mkdir()
    (left / "1.npy").write_bytes(b"half")
    os.utime(left, (0, 0))
    stores = [folder.per_image_binarized / name for name in (".00.zarr.part", ".00.zarr.old")]  # written aside, and replaced
    for store in stores:
        (store / "0").mkdir(parents=True)
        (store / "zarr.json").write_text("half")
    part = folder.per_image / ".00.1234.part.tif"
    part.write_bytes(b"half")
    run(job(data, predict_only(checkpoint), {"TEST": {"THRESHOLD": 0.4}}), result_dir=tmp_path, name="job")
    assert not any(path.exists() for path in (left, part, *stores))


def test_a_shard_leaves_alone_what_another_one_writes(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, checkpoint = trained
    part = tmp_path / "job/results/job_1/per_image/.00.1234.part.tif"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"half")
    shard = {"SYSTEM": {"CLUSTER": {"SHARD": "0/2"}}}
    run(job(data, predict_only(checkpoint), shard), result_dir=tmp_path, name="job")
    assert part.is_file()
    run(job(data, predict_only(checkpoint)), result_dir=tmp_path, name="job")
    assert not part.exists()


def test_a_shard_does_not_train(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """The others would train beside it; once the network is there, the same command predicts."""
    data, _ = trained
    config, shard = job(data, {"TRAIN": {"EPOCHS": 1}}), {"SYSTEM": {"CLUSTER": {"SHARD": "1/2"}}}
    with pytest.raises(ConfigError, match=r"(?s)SYSTEM\.CLUSTER\.SHARD: is a part of the prediction.*run `crista train` first"):
        run(job(data, {"TRAIN": {"EPOCHS": 1}}, shard), result_dir=tmp_path, name="job")
    assert not (tmp_path / "job").exists()
    train(config, result_dir=tmp_path, name="job")
    _, said = run_and_listen(job(data, {"TRAIN": {"EPOCHS": 1}}, shard), tmp_path)
    assert any(line.startswith("shard 1/2: its") for line in said)


def test_a_changed_zarr_is_predicted_anew(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """Its folder keeps its time of change when a chunk is written."""
    import zarr

    data, checkpoint = trained
    stored = zarr.open_array(str(tmp_path / "x" / "a.zarr"), mode="w", shape=(48, 48), chunks=(16, 16), dtype="uint8")
    stored[:] = pixels(data / "test/x/00.tif", 2)[0]
    change = {"DATA": {"TEST": {"PATH": str(tmp_path / "x"), "LOAD_GT": False}}}
    config = job(data, predict_only(checkpoint), change)
    first = run(config, result_dir=tmp_path / "out", name="job")
    before = labels(first.folder.per_image_binarized / "a.zarr", 2).copy()
    stored[:] = pixels(data / "test/x/01.tif", 2)[0]
    run(config, result_dir=tmp_path / "out", name="job")
    assert not np.array_equal(labels(first.folder.per_image_binarized / "a.zarr", 2), before)
