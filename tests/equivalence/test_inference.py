"""Two roads to one prediction: tiled and whole, blended and plain, turned and straight."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crista.config.root import Config
from crista.geometry.axes import Region
from crista.geometry.tiles import grid_blocks, whole
from crista.images.image import Image
from crista.images.open import open_image
from crista.images.write import write_image
from crista.inference.cover import BlendedAssembler, HaloAssembler, build_assembler, whole_image_assembler
from crista.inference.engines import TorchEngine
from crista.inference.engines.base import ScoringEngine
from crista.inference.orientations import OrientedEngine, orientations
from crista.inference.predicted import PredictedBlock
from crista.inference.predictor import Piece, Predictor, ahead
from crista.inference.scores import labels_of, probabilities_of
from crista.models import build_model
from crista.patches.normalization import compute_statistics
from crista.plan.plan import Classes, InferencePlan, Plan
from crista.plan.topology import network_stride, receptive_field_radius


def make_plan(ndim: int, inference: InferencePlan, *, num_classes: int = 3, depth: int = 2) -> Plan:
    model = {
        "architecture": "unet",
        "feature_maps": tuple(4 * 2**i for i in range(depth)),
        "dropout_values": (0.0,) * depth,
        "normalization": "bn",
        "activation": "relu",
        "z_down": (1,) * (depth - 1),
        "yx_down": (2,) * (depth - 1),
        "isotropy": (True,) * depth,
        "conv_layers": (1,) * depth,
    }
    return Plan(
        config=Config(),
        ndim=ndim,
        num_channels=1,
        classes=Classes(names=tuple("abc"[:num_classes])),
        spacing=None,
        patch_size=(32,) * ndim,
        model=model,
        loss=(),
        class_weights=None,
        optimizer={"name": "sgd", "lr": 0.1, "weight_decay": 0.0},
        schedule={"name": "constant"},
        batch_size=2,
        epochs=1,
        patience=None,
        amp=None,
        inference=inference,
        save_probabilities=True,
    )


def halo_plan(size: Sequence[int], halo: Sequence[int]) -> InferencePlan:
    return InferencePlan(mode="halo", tile_size=tuple(size), halo=tuple(halo), overlap=(0.0,) * len(size), batch_size=2)


def build_predictor(plan: Plan) -> Predictor:
    torch.manual_seed(0)
    model = build_model(plan.model, num_channels=1, num_logits=plan.classes.num_logits, ndim=plan.ndim)
    for module in model.modules():  # statistics that matter, as after training
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return Predictor(plan, TorchEngine(model, plan, torch.device("cpu")))


def predict(plan: Plan, image: Image, *, whole_image: bool = False, blocks: Sequence[int] | None = None) -> np.ndarray:
    """Probabilities of an image, predicted whole, in tiles, or block by block."""
    predictor = build_predictor(plan)
    shape, statistics = image.spatial_shape, compute_statistics(image, plan.config.data.normalization)
    result = np.full((plan.classes.num_classes, *shape), np.nan, np.float32)

    def keep(predicted: PredictedBlock) -> tuple[int, ...]:
        assert predicted.probabilities is not None
        result[(slice(None), *predicted.block)] = predicted.probabilities
        return predicted.labels.shape

    def pieces() -> Iterator[Piece[tuple[int, ...]]]:
        for block in grid_blocks(shape, blocks) if blocks is not None else [whole(shape)]:
            assembler = predictor.tiles_of(shape, block, blocks)
            if whole_image:
                assembler = whole_image_assembler(shape, predictor.multiple)
            predicted = PredictedBlock(block, plan.classes.num_classes, 0.5, keep_probabilities=True)
            yield Piece(image, statistics, assembler, predicted, keep)

    list(predictor.predict(pieces()))
    return result


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("num_classes", [2, 3])
def test_exact_tiles_equal_the_whole_image(ndim: int, num_classes: int, tmp_path: Path) -> None:
    shape = (9, 61, 77)[-ndim:]
    pixels = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    write_image(tmp_path / "a.tif", pixels, "ZYX"[-ndim:])
    image = open_image(tmp_path / "a.tif", ndim=ndim)
    plan = make_plan(ndim, halo_plan((32,) * ndim, (0,) * ndim), num_classes=num_classes)
    stride = network_stride(plan.model, ndim)
    halo = [-(-r // s) * s for r, s in zip(receptive_field_radius(plan.model, ndim), stride, strict=True)]
    size = [2 * h + 8 * s for h, s in zip(halo, stride, strict=True)]
    plan = plan.model_copy(update={"inference": halo_plan(size, halo)})
    tiled = predict(plan, image)
    untiled = predict(plan, image, whole_image=True)
    assert len(build_assembler(plan.inference, shape, stride).tiles) > 1
    np.testing.assert_allclose(tiled, untiled, atol=1e-5)
    np.testing.assert_allclose(untiled.sum(axis=0), 1, atol=1e-5)


def test_tiles_without_halo_differ_from_the_whole_image(tmp_path: Path) -> None:
    """The exactness test above would notice a halo that is too small."""
    write_image(tmp_path / "a.tif", np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8), "YX")
    image = open_image(tmp_path / "a.tif", ndim=2)
    plan = make_plan(2, halo_plan((16, 16), (0, 0)))
    assert np.abs(predict(plan, image) - predict(plan, image, whole_image=True)).max() > 1e-4


@pytest.mark.parametrize("shape", [(64, 80), (33, 20), (10, 90), (16, 16)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75])
def test_blending_an_image_with_itself_reproduces_it(shape: tuple[int, int], overlap: float) -> None:
    truth = np.random.default_rng(0).random((2, *shape)).astype(np.float32)
    size = tuple(min(24, n) for n in shape)
    assembler = BlendedAssembler(shape, size, (overlap, overlap))
    result = np.full_like(truth, np.nan)
    written = np.zeros(shape, int)
    for tile in assembler.tiles:
        for region, scores in assembler.add(tile, torch.from_numpy(truth[(slice(None), *tile.read)])):
            result[(slice(None), *region)] = scores
            written[region] += 1
    for region, scores in assembler.finish():
        result[(slice(None), *region)] = scores
        written[region] += 1
    assert (written == 1).all()
    np.testing.assert_allclose(result, truth, atol=1e-6)


def test_blending_leaves_no_seam() -> None:
    """Two tiles that disagree (0 and 1) meet in a smooth ramp."""
    assembler = BlendedAssembler((32,), (24,), (0.5,))
    result = np.zeros(32)
    values = iter([0.0, 1.0])
    for tile in assembler.tiles:
        for region, scores in assembler.add(tile, torch.full((1, 24), next(values))):
            result[region] = scores[0]
    for region, scores in assembler.finish():
        result[region] = scores[0]
    assert np.abs(np.diff(result)).max() < 0.12
    assert (np.diff(result) >= -1e-6).all()
    assert result[0] == 0
    assert result[-1] == 1


def test_halo_keeps_nothing() -> None:
    assembler = build_assembler(halo_plan((16, 16), (4, 4)), (40, 40), (4, 4))
    assert isinstance(assembler, HaloAssembler)
    assert list(assembler.finish()) == []


@pytest.mark.parametrize(
    ("ndim", "group", "count"), [(2, "full", 8), (3, "auto", 16), (2, "flips", 4), (3, "flips", 8), (2, "none", 1)]
)
def test_orientations_are_distinct(ndim: int, group: str, count: int) -> None:
    image = np.arange(3**ndim).reshape((3,) * ndim)
    turned = {orientation(image).tobytes() for orientation in orientations(ndim, group)}  # type: ignore[arg-type]
    assert len(turned) == count


class CallingEngine(ScoringEngine):
    """Scores by a function of the images."""

    name = "calling"

    def __init__(self, function: Callable[[np.ndarray], np.ndarray]) -> None:
        self._function = function

    def scores(self, images: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self._function(images))


@pytest.mark.parametrize("mode", ["mean", "min", "max"])
@pytest.mark.parametrize("shape", [(6, 9), (4, 6, 9)])
def test_orientations_are_undone(mode: str, shape: tuple[int, ...]) -> None:
    """An engine that looks at single pixels gives the same with and without orientations."""
    engine = CallingEngine(lambda images: np.concatenate([images, 1 - images], axis=1))
    images = np.random.default_rng(0).random((2, 1, *shape)).astype(np.float32)
    oriented = OrientedEngine(engine, orientations=orientations(len(shape), "full"), mode=mode)  # type: ignore[arg-type]
    np.testing.assert_allclose(oriented(images), engine(images), atol=1e-6)
    np.testing.assert_array_equal(oriented.labels(images, 0.5), oriented(images).argmax(axis=1))
    assert oriented.name == "calling"


def test_mean_over_orientations_by_hand() -> None:
    """The engine marks the left column; flips along both axes move it to every side."""

    def mark(images: np.ndarray) -> np.ndarray:
        scores = np.zeros_like(images)
        scores[..., 0] = 1
        return scores

    engine = CallingEngine(mark)
    scores = OrientedEngine(engine, orientations=orientations(2, "flips"), mode="mean")(np.zeros((1, 1, 2, 3), np.float32))
    np.testing.assert_allclose(scores[0, 0], [[0.5, 0, 0.5], [0.5, 0, 0.5]])


def test_orientations_that_rule_out_every_class_leave_all_equally_likely() -> None:
    """The engine is certain of class 1 in the left column and of class 2 elsewhere: flipped, both sides contradict themselves."""

    def decide(images: np.ndarray) -> np.ndarray:
        scores = np.zeros((1, 3, *images.shape[2:]), np.float32)
        scores[:, 1, :, 0] = 1
        scores[:, 2, :, 1:] = 1
        return scores

    oriented = OrientedEngine(CallingEngine(decide), orientations=orientations(2, "flips"), mode="min")
    scores = oriented(np.zeros((1, 1, 2, 3), np.float32))
    np.testing.assert_array_equal(scores[0, :, :, 1], [[0, 0], [0, 0], [1, 1]])
    np.testing.assert_allclose(scores[0, :, :, [0, 2]], 1 / 3)
    assert oriented.labels(np.zeros((1, 1, 2, 3), np.float32), 0.5).tolist() == [[[0, 2, 0]] * 2]


def test_orientations_do_not_hide_what_is_no_number() -> None:
    broken = CallingEngine(lambda images: np.full((1, 3, *images.shape[2:]), np.nan, np.float32))
    assert np.isnan(
        OrientedEngine(broken, orientations=orientations(2, "flips"), mode="min")(np.zeros((1, 1, 2, 3), np.float32))
    ).all()


def test_scores_to_labels_and_probabilities() -> None:
    foreground = torch.tensor([[[0.5, 0.500001, 0.2]]])
    assert labels_of(foreground, 0.5).tolist() == [[0, 1, 0]]
    np.testing.assert_allclose(probabilities_of(foreground)[:, 0, 2], [0.8, 0.2])
    several = torch.tensor([[[0.2]], [[0.4]], [[0.4]]])
    assert labels_of(several, 0.5)[0, 0] == 1
    assert probabilities_of(several) is several


@st.composite
def exact_cases(draw: st.DrawFn) -> tuple[int, int, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Dimensions, depth of the network, shape, steps per tile, and shape of the blocks."""
    ndim, depth = draw(st.sampled_from([(2, 1), (2, 2), (2, 3), (3, 2)]))
    longest = 90 if ndim == 2 else 28
    shape = tuple(draw(st.integers(3, longest)) for _ in range(ndim))
    steps = tuple(draw(st.integers(1, 4)) for _ in range(ndim))
    blocks = tuple(draw(st.integers(5, longest)) for _ in range(ndim))
    return ndim, max(2, depth), shape, steps, blocks


@settings(max_examples=25, deadline=None)
@given(case=exact_cases())
def test_exact_tiles_and_blocks_of_any_size_equal_the_whole_image(
    case: tuple[int, int, tuple[int, ...], tuple[int, ...], tuple[int, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    ndim, depth, shape, steps, blocks = case
    image = image_of(np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8), tmp_path_factory.mktemp("image"))
    plan = make_plan(ndim, halo_plan((32,) * ndim, (0,) * ndim), depth=depth)
    stride = network_stride(plan.model, ndim)
    halo = [-(-r // s) * s for r, s in zip(receptive_field_radius(plan.model, ndim), stride, strict=True)]
    size = [2 * h + n * s for h, n, s in zip(halo, steps, stride, strict=True)]
    plan = plan.model_copy(update={"inference": halo_plan(size, halo)})
    expected = predict(plan, image, whole_image=True)
    np.testing.assert_allclose(predict(plan, image), expected, atol=1e-5)
    np.testing.assert_allclose(predict(plan, image, blocks=blocks), expected, atol=1e-5)


@pytest.mark.parametrize("blocks", [(20, 31), (64, 80), (7, 80)])
def test_blended_blocks_equal_the_whole_image_blended(blocks: tuple[int, int], tmp_path: Path) -> None:
    """The same tiles with the same weights, whatever the blocks."""
    image = image_of(np.random.default_rng(0).integers(0, 255, (64, 80)).astype(np.uint8), tmp_path)
    inference = InferencePlan(mode="blended", tile_size=(24, 24), halo=(0, 0), overlap=(0.5, 0.25), batch_size=3)
    plan = make_plan(2, inference)
    np.testing.assert_allclose(predict(plan, image, blocks=blocks), predict(plan, image), atol=1e-6)


def test_what_is_made_ahead_comes_in_order_and_errors_come_through() -> None:
    assert list(ahead(iter(range(100)), 2)) == list(range(100))

    def failing() -> Iterator[int]:
        yield 1
        raise KeyError("two")

    items = ahead(failing(), 2)
    assert next(items) == 1
    with pytest.raises(KeyError, match="two"):
        next(items)


def test_nothing_is_made_ahead_for_a_caller_who_left() -> None:
    made = []

    def numbers() -> Iterator[int]:
        for number in range(1000):
            made.append(number)
            yield number

    items = ahead(numbers(), 2)
    next(items)
    items.close()
    assert len(made) < 10


BLENDED = InferencePlan(mode="blended", tile_size=(32, 32), halo=(0, 0), overlap=(0.5, 0.5), batch_size=3)


@pytest.mark.parametrize("inference", [halo_plan((32, 32), (8, 8)), BLENDED], ids=["halo", "blended"])
def test_the_clock_counts_work_and_time(inference: InferencePlan, tmp_path: Path) -> None:
    """What tiles share counts once in the result, and each time in the work."""
    image = image_of(np.zeros((64, 64), np.uint8), tmp_path)
    plan = make_plan(2, inference)
    predictor = build_predictor(plan)
    statistics = compute_statistics(image, plan.config.data.normalization)
    predicted = PredictedBlock(whole((64, 64)), 3, 0.5, keep_probabilities=False)
    tiles = predictor.tiles_of((64, 64), whole((64, 64)))
    list(predictor.predict([Piece(image, statistics, tiles, predicted, lambda _: None)]))
    clock = predictor.clock
    assert clock.voxels_out == 64 * 64
    assert clock.voxels_in == len(tiles.tiles) * 32 * 32
    assert 0 < clock.network <= clock.total
    assert predicted.network_seconds == clock.network
    assert f"{clock.voxels_in / clock.voxels_out:.2f} voxels through the network per voxel" in clock.describe()


def test_a_block_that_lost_a_tile_is_never_finished(tmp_path: Path) -> None:
    """Its later tiles are under way when the first one fails: they must not pass for the whole block."""
    image = image_of(np.zeros((16, 96), np.uint8), tmp_path)
    plan = make_plan(2, halo_plan((16, 16), (0, 0)).model_copy(update={"batch_size": 2}))
    predictor = build_predictor(plan)
    statistics = compute_statistics(image, plan.config.data.normalization)
    finished: list[PredictedBlock] = []

    class FullMemory(PredictedBlock):
        def write(self, region: Region, scores: torch.Tensor) -> None:
            if region[1].start == 0:
                time.sleep(0.5)  # the other batches are submitted meanwhile
                raise MemoryError("no room for the first tile")
            super().write(region, scores)

    predicted = FullMemory(whole((16, 96)), 3, 0.5, keep_probabilities=False)
    tiles = predictor.tiles_of((16, 96), whole((16, 96)))
    assert len(tiles.tiles) == 6
    with pytest.raises(MemoryError, match="no room for the first tile"):
        list(predictor.predict([Piece(image, statistics, tiles, predicted, finished.append)]))
    assert not finished


def image_of(pixels: np.ndarray, folder: Path) -> Image:
    write_image(folder / "a.tif", pixels, "ZYX"[-pixels.ndim :])
    return open_image(folder / "a.tif", ndim=pixels.ndim)
