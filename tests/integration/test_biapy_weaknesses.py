"""What BiaPy does wrong, loses in silence or crashes on (its rows A 1-11, B 12-16, C 17-21): each done right here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from tests.jobs import job, labels, plan_of, predict_only, run_and_listen, table, write_data, write_pairs
from tests.unit.test_plan import facts

import crista
from crista.augmentations import build_pipeline
from crista.config.data import Normalization
from crista.config.load import config_from_dict
from crista.errors import CheckpointError, ConfigError, CristaError
from crista.geometry.tiles import whole
from crista.images.image import ImagePair
from crista.images.open import open_image
from crista.images.write import write_image
from crista.inference.cover import whole_image_assembler
from crista.inference.engines.base import ScoringEngine
from crista.inference.predicted import PredictedBlock
from crista.inference.predictor import Predictor
from crista.inference.stage import PredictionJob, predict_images
from crista.inference.task import OutputFolders
from crista.losses import build_loss
from crista.metrics.overlap import biapy_iou, foreground_iou
from crista.models import build_model
from crista.patches.cutting import read_reflected
from crista.patches.normalization import compute_statistics
from crista.patches.probability_map import compute_probability_map
from crista.patches.sample import Sample
from crista.plan.make import make_plan
from crista.plan.topology import network_stride
from crista.training.checkpoint import load_checkpoint
from crista.training.distributed import choose_device
from crista.workflow.api import run
from crista.workflow.request import request_run
from crista.workflow.run import run as run_events

pytestmark = pytest.mark.usefixtures("no_drawings_in_module")


def config_of(*overrides: str) -> Any:
    return config_from_dict({}, overrides)


def augmented(sample: Sample, *overrides: str, seed: int = 0) -> Sample:
    config = config_of("AUGMENTOR.ENABLE=True", "AUGMENTOR.DA_PROB=1", *overrides).config
    return build_pipeline(config.augmentor.transforms(2), ndim=2, ignore_index=None)(sample, np.random.default_rng(seed))


class Oracle(ScoringEngine):
    """An engine that knows: a pixel is 20 times its class (images normalised by `div`)."""

    name = "oracle"

    def __init__(self, num_classes: int, change: Callable[[np.ndarray], None] | None = None) -> None:
        self.num_classes = num_classes
        self._change = change

    def scores(self, images: np.ndarray) -> torch.Tensor:
        classes = np.rint(images[:, 0] * 255 / 20).astype(int)
        scores = np.moveaxis(np.eye(self.num_classes, dtype=np.float32)[classes], -1, 1).copy()
        if self._change is not None:
            self._change(scores)
        return torch.from_numpy(scores)


def oracle_job(
    folder: Path, arrays: Sequence[np.ndarray], *overrides: str, num_classes: int = 10, batch_size: int = 2
) -> PredictionJob:
    """Prediction of images whose label images are `arrays`."""
    pairs = []
    for index, array in enumerate(arrays):
        paths = [folder / kind / f"{index}.tif" for kind in "xy"]
        for path, values in zip(paths, (20 * array, array), strict=True):
            write_image(path, values, "ZYX"[-array.ndim :])
        pairs.append(ImagePair(*(open_image(path, ndim=array.ndim) for path in paths)))
    size = (8, 16, 16, 1) if arrays[0].ndim == 3 else (16, 16, 1)
    common = ("DATA.NORMALIZATION.TYPE=div", f"DATA.PATCH_SIZE={size}", "MODEL.FEATURE_MAPS=[4,8]", "MODEL.Z_DOWN=[1]")
    config = config_of(*common, *overrides).config
    plan = make_plan(config, facts([array.shape for array in arrays], num_classes=num_classes, counts=(1,) * num_classes))
    plan = plan.model_copy(update={"inference": plan.inference.model_copy(update={"batch_size": batch_size})})
    names = ("per_image", "per_image_bin", "full", "full_bin", "post", "stack", "state")
    folders = OutputFolders(*(folder / "out" / name for name in names))
    return PredictionJob(Predictor(plan, Oracle(num_classes)), pairs, folders, "oracle", [pair.name for pair in pairs])


def finish(job_: PredictionJob) -> list[Any]:
    events = predict_images(job_)
    while True:
        try:
            next(events)
        except StopIteration as stop:
            return list(stop.value)


# --- A: wrong results without an error -------------------------------------------------------------------


def test_a1_elastic_deformation_moves_image_and_label_together() -> None:
    """A checkerboard of 16 pixels: BiaPy disagrees on 5-8 % of the pixels; here only on the interpolated edges, if at all."""
    board = ((np.indices((128, 128)) // 16).sum(axis=0) % 2).astype(np.uint8)
    sample = Sample(board[np.newaxis].astype(np.float32), board)
    changed = augmented(sample, "AUGMENTOR.ELASTIC=True")
    assert (changed.label != board).mean() > 0.02
    assert ((changed.image[0] > 0.5) != changed.label).mean() < 0.005


def test_a2_no_otsu_on_images_without_foreground() -> None:
    scores = np.random.default_rng(0).uniform(0, 0.06, (1, 64, 64)).astype(np.float32)
    predicted = PredictedBlock(whole((64, 64)), 2, 0.5, keep_probabilities=False)
    predicted.write(whole((64, 64)), torch.from_numpy(scores))
    assert not predicted.labels.any()


@pytest.mark.parametrize("cut", ["OVERLAP=(0,0)", "OVERLAP=(0.25,0.25)", "OVERLAP=(0.5,0.5)", "PADDING=(4,4)", "PADDING=(0,0)"])
def test_a3_label_values_survive_the_merging_of_patches(cut: str, tmp_path: Path) -> None:
    """Ten classes, a perfect network: every class is counted right, none loses 1."""
    truth = np.random.default_rng(0).integers(0, 10, (37, 45)).astype(np.uint8)
    prediction = oracle_job(tmp_path, [truth], f"DATA.TEST.{cut}")
    [record] = finish(prediction)
    np.testing.assert_array_equal(record.confusions["per_image"], np.diag(np.bincount(truth.ravel(), minlength=10)))
    np.testing.assert_array_equal(labels(prediction.folders.per_image_binarized / "0.tif", 2), truth)
    assert record.patch_iou == 1


def test_a3_in_3d(tmp_path: Path) -> None:
    truth = np.random.default_rng(0).integers(0, 10, (11, 21, 37)).astype(np.uint8)
    [record] = finish(oracle_job(tmp_path, [truth], "DATA.TEST.OVERLAP=(0.5,0.25,0.5)"))
    np.testing.assert_array_equal(record.confusions["per_image"], np.diag(np.bincount(truth.ravel(), minlength=10)))


@pytest.mark.parametrize("terms", ["[CE]", "[DICE]", "[DICE,CE]"])
def test_a4_ignored_pixels_and_class_weights_of_two_classes(terms: str) -> None:
    plan = make_plan(
        config_of(
            f"LOSS.TYPE={terms}", "LOSS.IGNORE_INDEX=255", "LOSS.CLASS_REBALANCE=manual", "LOSS.CLASS_WEIGHTS=[1,4]"
        ).config,
        facts(),
    )
    loss = build_loss(plan.loss, classes=plan.classes, class_weights=plan.class_weights)
    torch.manual_seed(0)
    logits = torch.randn(2, 1, 8, 8, requires_grad=True)
    target = torch.randint(0, 2, (2, 8, 8))
    target[:, :3] = 255
    value = loss(logits, target)
    value.backward()
    plain = build_loss(plan.loss, classes=plan.classes, class_weights=None)(logits, target)
    assert (value.item() != pytest.approx(plain.item(), rel=1e-3)) == (terms != "[DICE]")  # Dice balances by itself
    changed = target.clone()
    changed[:, :3] = 1
    assert loss(logits, changed).item() != pytest.approx(value.item(), rel=1e-3)
    assert logits.grad is not None
    assert not logits.grad[:, :, :3].any()
    assert logits.grad[:, :, 3:].all()


def test_a4_class_weights_are_used_only_when_asked_for() -> None:
    loaded = config_of("LOSS.TYPE=[DICE,CE]", "LOSS.CLASS_REBALANCE=none", "LOSS.CLASS_WEIGHTS=[1,9]")
    assert make_plan(loaded.config, facts()).class_weights is None
    assert any("LOSS.CLASS_WEIGHTS has no effect" in notice for notice in loaded.notices)


@pytest.mark.parametrize("kind", ["div", "scale_range", "zero_mean_unit_variance"])
def test_a5_zarr_and_tiff_are_normalised_alike(kind: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 4000, (9, 40, 50)).astype(np.uint16)
    write_image(tmp_path / "a.tif", pixels, "ZYX")
    stored = zarr.open_array(str(tmp_path / "a.zarr"), mode="w", shape=pixels.shape, chunks=(4, 16, 16), dtype="uint16")
    stored[:] = pixels
    config = Normalization.model_validate({"TYPE": kind, "PERC_CLIP": {"ENABLE": True, "LOWER_PERC": 1, "UPPER_PERC": 99}})
    found = [compute_statistics(open_image(tmp_path / name, ndim=3), config) for name in ("a.tif", "a.zarr")]
    assert found[0] == found[1]


def test_a6_a_first_test_label_without_foreground_does_not_fix_the_coding(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", train=3)
    for name in ("train/y", "test/y"):
        for path in sorted((data / name).iterdir()):
            write_image(path, labels(path, 2) * 255, "YX")
    write_image(data / "test/y/00.tif", np.zeros((48, 48), np.uint8), "YX")
    outcome = run(job(data, {"TRAIN": {"EPOCHS": 1}}), result_dir=tmp_path / "out", name="job")
    counts = np.array([[int(v) for k, v in row.items() if k != "truth"] for row in table(outcome.folder.confusion).values()])
    assert counts[1].sum() == (labels(data / "test/y/01.tif", 2) == 255).sum()


def test_a6_values_beyond_the_classes_are_refused_and_never_cut_to_8_bits(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", train=3)
    for path in (data / "train" / "y").iterdir():
        write_image(path, labels(path, 2).astype(np.uint16) * 257, "YX")
    write_image(data / "train/y/00.tif", np.arange(48 * 48).reshape(48, 48).astype(np.uint16) % 300, "YX")
    with pytest.raises(CristaError, match=r"(?s)00\.tif.*300 label values"):  # 256 of them in 8 bits
        run(job(data), result_dir=tmp_path / "out", name="job")
    for path in (data / "train" / "y").iterdir():
        write_image(path, 256 * (np.indices((48, 48)).sum(axis=0) % 2).astype(np.uint16), "YX")  # 0 and 0 in 8 bits
    counted = crista.check(job(data, {"TEST": {"ENABLE": False}})).fingerprint
    assert counted is not None
    assert counted.class_counts == (3 * 48 * 24,) * 2


def test_a7_filters_that_crista_does_not_have_are_refused_not_misapplied() -> None:
    for key in (
        "DATA.TRAIN.FILTER_SAMPLES.ENABLE=True",
        "DATA.TEST.FILTER_SAMPLES.ENABLE=True",
        "DATA.VAL.FILTER_SAMPLES.ENABLE=True",
    ):
        with pytest.raises(ConfigError, match="not supported by crista yet"):
            config_of(key)


def test_a8_what_foreground_iou_means() -> None:
    """Of the foreground alone, 1 for an empty image found empty; BiaPy's number has its own name."""
    empty = np.array([[100, 0], [0, 0]])
    assert (foreground_iou(empty), biapy_iou(empty)) == (1, 0)
    three = np.array([[90, 0, 0], [0, 4, 4], [0, 0, 2]])
    assert foreground_iou(three) == pytest.approx((4 / 8 + 2 / 6) / 2)
    assert biapy_iou(three) == pytest.approx((1 + 4 / 8 + 2 / 6) / 3)


def test_a8_iou_per_patch_does_not_depend_on_the_batch(tmp_path: Path) -> None:
    """Nor do patches of background weigh differently: each patch is measured by itself."""
    image = np.random.default_rng(1).integers(0, 2, (50, 50)).astype(np.uint8)
    image[:25] = 0
    scores = []
    for batch_size in (1, 3, 50):
        prediction = oracle_job(
            tmp_path / str(batch_size), [image], "DATA.TEST.OVERLAP=(0.1,0.1)", num_classes=3, batch_size=batch_size
        )

        def spoil(scores: np.ndarray) -> None:
            scores[..., 0] = [[0], [1], [0]]  # the first column of every tile is class 1

        wrong = Oracle(3, spoil)
        record = finish(
            PredictionJob(Predictor(prediction.plan, wrong), prediction.pairs, prediction.folders, "w", prediction.names)
        )[0]
        scores.append(record.patch_iou)
    assert len(set(scores)) == 1
    assert 0 < scores[0] < 1


def test_a9_whole_images_are_padded_by_reflection_to_what_the_network_halves(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 9, (21, 18)).astype(np.uint8)
    write_image(tmp_path / "a.tif", pixels, "YX")
    image = open_image(tmp_path / "a.tif", ndim=2)
    [tile] = whole_image_assembler((21, 18), (4, 4)).tiles
    np.testing.assert_array_equal(
        read_reflected(image, tile.read, whole((21, 18)))[0], np.pad(pixels, ((0, 3), (0, 2)), mode="reflect")
    )
    flat = make_plan(config_of("MODEL.FEATURE_MAPS=[4,8,16]", "MODEL.YX_DOWN=[1,2]").config, facts())
    assert network_stride(flat.model, 2) == (2, 2)  # by the network as it is, not by the number of its levels


def test_a10_noise_does_not_clip() -> None:
    """z-scored intensities from -6 to 8 stay where they are."""
    image = np.linspace(-6, 8, 64 * 64, dtype=np.float32).reshape(1, 64, 64)
    changed = augmented(
        Sample(image, np.zeros((64, 64), np.uint8)), "AUGMENTOR.GAUSSIAN_NOISE=True", "AUGMENTOR.GAUSSIAN_NOISE_VAR=0.01"
    )
    assert changed.image.min() < -5
    assert changed.image.max() > 7
    assert 0 < np.abs(changed.image - image).mean() < 0.2


def test_a11_objects_at_the_border_are_foreground_of_the_probability_map() -> None:
    label = np.zeros((20, 20), np.uint8)
    label[:, 15:] = 1
    found = compute_probability_map(label, w_foreground=0.9, w_background=0.1, ignore_index=None)
    assert found[label == 1].sum() == pytest.approx(0.9)


# --- B: settings lost in silence -------------------------------------------------------------------------


def test_b12_old_keys_mean_what_they_said() -> None:
    assert config_of("LOSS.CLASS_REBALANCE=True").config.loss.class_rebalance == "auto"
    assert config_of("TEST.POST_PROCESSING.YZ_FILTERING=False").config.test.post_processing.filters == ()
    for key in ("DATA.TRAIN.MINIMUM_FOREGROUND_PER=0.1", "MODEL.BMZ.EXPORT_MODEL.ENABLE=True"):
        with pytest.raises(ConfigError, match="not supported by crista yet"):
            config_of(key)


@pytest.mark.parametrize(
    "override",
    [
        "PROBLEM.SEMANTIC_SEG.IGNORE_CLASS_ID=3",
        "DATA.TEST.IN_MEMORY=False",
        "AUGMENTOR.SHUFFLE_TRAIN_DATA_EACH_EPOCH=True",
        "TRAIN.CHECKPOINT_MONITOR=val_loss",
        "PATHS.PROB_MAP_DIR=maps",
        "TEST.BY_CHUNKS.FLUSH_EACH=3",
        "PATHS.PROFILER=here",
    ],
)
def test_b13_a_key_without_effect_says_so(override: str) -> None:
    key = override.partition("=")[0]
    assert any(key in notice and "has no effect" in notice for notice in config_of(override).notices)


def test_b13_checks_fire() -> None:
    told = {
        "MODEL.YX_DOWN=[3,-1]": "MODEL.YX_DOWN: must be at least 0",
        "MODEL.Z_DOWN=[9]": "MODEL.Z_DOWN: must be at most 8",
        "DATA.NORMALIZATION.PERC_CLIP.ENABLE=True": "PERC_CLIP.ENABLE: ENABLE is True: set LOWER_PERC and UPPER_PERC",
    }
    for override, words in told.items():
        with pytest.raises(ConfigError, match=words):
            config_of(override)


def test_b14_networks_that_would_ignore_keys_are_not_there_and_ours_say_so() -> None:
    for name in ("multiresunet", "unext_v1", "hrnet"):
        with pytest.raises(ConfigError, match="there are: unet, resunet, attention_unet"):
            config_of(f"MODEL.ARCHITECTURE={name}")
    assert any("MODEL.Z_DOWN has no effect" in notice for notice in config_of("PROBLEM.NDIM=2D", "MODEL.Z_DOWN=[1]").notices)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_b15_a_stack_without_filters_is_made_and_has_one_channel(num_classes: int, tmp_path: Path) -> None:
    slices = list(np.random.default_rng(0).integers(0, num_classes, (3, 20, 24)).astype(np.uint8))
    prediction = oracle_job(tmp_path, slices, "TEST.ANALIZE_2D_IMGS_AS_3D_STACK=True", num_classes=max(3, num_classes))
    record = finish(prediction)[-1]
    stack = open_image(prediction.folders.as_3d_stack / "stack.tif", ndim=3)
    assert stack.num_channels == 1
    np.testing.assert_array_equal(stack.read()[0], np.stack(slices))
    assert record.confusions["stack"].trace() == 3 * 20 * 24


def test_b16_large_images_honour_overlap_and_a_rerun_leaves_nothing_of_the_run_before(tmp_path: Path) -> None:
    """There is one way of predicting: tiles. A label image is replaced as a whole."""
    assert config_of("TEST.BY_CHUNKS.ENABLE=True").notices == ()
    truth = np.random.default_rng(0).integers(0, 3, (40, 44)).astype(np.uint8)
    first = oracle_job(tmp_path, [truth], num_classes=3)
    finish(first)
    again = oracle_job(tmp_path, [truth[:20, :20]], num_classes=3)
    [record] = finish(again)
    assert labels(again.folders.per_image_binarized / "0.tif", 2).shape == (20, 20)
    assert record.confusions["per_image"].sum() == 400


# --- C: crashes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("normalization", ["bn", "sync_bn", "in", "gn", "ln", "none"])
def test_c17_every_normalisation_builds_and_runs(normalization: str, ndim: int) -> None:
    shape = (16,) * ndim
    config = config_of(
        f"MODEL.NORMALIZATION={normalization}", "MODEL.FEATURE_MAPS=[4,8]", f"DATA.PATCH_SIZE={(*shape, 1)}"
    ).config
    plan = make_plan(config, facts([shape]))
    model = build_model(plan.model, num_channels=1, num_logits=1, ndim=ndim).eval()
    assert model(torch.zeros(1, 1, *shape)).shape == (1, 1, *shape)


@pytest.mark.parametrize("border", ["constant", "reflect", "wrap", "symmetric"])
def test_c17_shift_with_every_border(border: str) -> None:
    sample = Sample(np.ones((1, 20, 20), np.float32), np.ones((20, 20), np.uint8))
    shifted = augmented(sample, "AUGMENTOR.SHIFT=True", f"AUGMENTOR.AFFINE_MODE={border}")
    assert shifted.image.shape == (1, 20, 20)
    assert (shifted.label.min() == 0) == (shifted.image.min() < 0.5) == (border == "constant")  # the others repeat the image


@pytest.mark.parametrize(
    ("train", "change"),
    [
        (4, {"DATA": {"VAL": {"CROSS_VAL": True, "CROSS_VAL_NFOLD": 2, "RANDOM": False}}}),
        (1, {"DATA": {"TRAIN": {"EXTRACT_RANDOM_PATCH": True}}}),
        (1, {"DATA": {"TRAIN": {"EXTRACT_RANDOM_PATCH": True, "PROBABILITY_MAP": True}}}),
        (4, {"TRAIN": {"METRICS": ["IoU"]}, "TEST": {"METRICS": ["Jaccard_Index"]}}),
    ],
)
def test_c17_jobs_that_crash_there(train: int, change: dict[str, Any], tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", train=train, test=1)
    assert run(job(data, {"TRAIN": {"EPOCHS": 1}}, change), result_dir=tmp_path / "out", name="job").metrics


def test_c17_last_on_train_without_a_file(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", train=1, test=1)
    change = {"TRAIN": {"ENABLE": False}, "MODEL": {"LOAD_CHECKPOINT": True, "LOAD_CHECKPOINT_EPOCH": "last_on_train"}}
    with pytest.raises(CheckpointError, match=r"job_1-checkpoint-last\.pth: no such checkpoint"):
        run(job(data, change), result_dir=tmp_path / "out", name="job")


@pytest.mark.parametrize("kind", ["in", "gn", "bn"])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (9, 16)])
def test_c17_the_smallest_images_are_predicted_with_every_normalisation(
    kind: str, shape: tuple[int, int], tmp_path: Path
) -> None:
    """One voxel is left at the bottleneck, of which no instance normalisation has a variance."""
    data = write_data(tmp_path / "data", train=2, test=1)
    for name in "xy":
        array = labels(data / "test" / name / "00.tif", 2)[: shape[0], : shape[1]]
        (data / "test" / name / "00.tif").unlink()
        np.save(data / "test" / name / "00.npy", array)
    change = {
        "MODEL": {"NORMALIZATION": kind, "FEATURE_MAPS": [2, 4, 4, 4, 4]},
        "TEST": {"FULL_IMG": True},
        "TRAIN": {"EPOCHS": 1},
    }
    outcome = run(job(data, change), result_dir=tmp_path / "out", name="job")
    assert open_image(outcome.folder.per_image_binarized / "00.tif", axes="YX", ndim=2).spatial_shape == shape


@pytest.mark.parametrize("kind", ["in", "gn", "bn"])
def test_c17_the_smallest_images_validate_with_every_normalisation(kind: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_pairs(data / "train", [(9, 10)] * 4)
    write_pairs(data / "test", [(9, 10)])
    change = {"MODEL": {"NORMALIZATION": kind, "FEATURE_MAPS": [2, 4, 4, 4, 4]}, "TRAIN": {"EPOCHS": 1}}
    assert run(job(data, change), result_dir=tmp_path / "out", name="job").metrics


def test_c18_resuming_goes_on_with_optimizer_schedule_and_best_loss(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", test=1)
    config = job(data, {"TRAIN": {"EPOCHS": 3}})
    request = request_run(config, result_dir=tmp_path / "out", name="job")
    for event in (events := run_events(request)):
        if type(event).__name__ == "EpochFinished":
            break
    events.close()
    stopped = load_checkpoint(request.folder.checkpoint_last)
    assert stopped.epoch == 1
    assert stopped.optimizer is not None
    assert stopped.optimizer["state"]
    assert not stopped.finished
    _, said = run_and_listen(config, tmp_path / "out")
    assert "resuming after epoch 1 of 3" in said
    history = load_checkpoint(request.folder.checkpoint_last).history
    assert [row["epoch"] for row in history] == [1, 2, 3]
    losses = [row["val_loss"] for row in history]
    assert load_checkpoint(request.folder.checkpoint_best).epoch == 1 + int(np.argmin(losses))


def test_c19_the_device_is_said_and_a_gpu_is_used_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    device, why = choose_device(None)
    assert device.type in why.lower() or "GPU" in why
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Some GPU")
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    assert choose_device(None)[0] == torch.device("cuda", 0)
    assert choose_device("cuda:1")[0] == torch.device("cuda", 1)
    with pytest.raises(ConfigError, match=r"cuda:5 was asked for, but 2 GPUs can be used here"):
        choose_device("cuda:5")


def test_c20_files_too_large_for_imagej_are_still_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is lowered: what is beyond 4 GB takes the same way."""
    monkeypatch.setattr("crista.images.write.MAX_IMAGEJ_BYTES", 1000)
    volume = np.random.default_rng(0).integers(0, 9, (5, 30, 40)).astype(np.uint8)
    write_image(tmp_path / "a.tif", volume, "ZYX")
    np.testing.assert_array_equal(labels(tmp_path / "a.tif", 3), volume)


def test_c21_flips_and_shifts_do_what_they_are_called() -> None:
    """VFLIP turns top and bottom, HFLIP left and right; shifts go to all sides."""
    image = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    sample = Sample(image, image[0].astype(np.uint8))
    np.testing.assert_array_equal(augmented(sample, "AUGMENTOR.VFLIP=True").image[0], image[0, ::-1])
    np.testing.assert_array_equal(augmented(sample, "AUGMENTOR.HFLIP=True").image[0], image[0, :, ::-1])
    point = np.zeros((1, 41, 41), np.float32)
    point[0, 20, 20] = 1
    sides = set()
    for seed in range(30):
        moved = augmented(
            Sample(point, point[0].astype(np.uint8)), "AUGMENTOR.SHIFT=True", "AUGMENTOR.AFFINE_MODE=constant", seed=seed
        )
        y, x = np.unravel_index(moved.image[0].argmax(), (41, 41))
        sides.add((bool(y > 20), bool(x > 20)))
    assert len(sides) == 4


def test_c21_long_names(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", train=2, test=1)
    for path in sorted(data.rglob("*.tif")):
        path.rename(path.with_name(f"{path.stem}_{'long' * 48}.tif"))
    sampling = {
        "DATA": {"TRAIN": {"EXTRACT_RANDOM_PATCH": True, "PROBABILITY_MAP": True}},
        "AUGMENTOR": {"ENABLE": True, "AUG_NUM_SAMPLES": 1},
    }
    outcome = run(job(data, {"TRAIN": {"EPOCHS": 1}}, sampling), result_dir=tmp_path / "out", name="job")
    assert len(list(outcome.folder.per_image_binarized.iterdir())) == 1
    assert list(outcome.folder.aug.iterdir())
    assert plan_of(outcome)
    again = run(job(data, predict_only(outcome.folder.checkpoint_best)), result_dir=tmp_path / "again", name="job")
    assert again.metrics == outcome.metrics
