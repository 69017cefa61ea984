"""What every registered engine promises: the numbers of PyTorch, whatever the network, the shape and the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from tests.networks import draw_images, drawn_weights, eager_scores, network_plan, source_of
from tests.quantised import accept_int8

from crista.config.engine import CANDIDATES, EngineConfig, OpenVINOInt8, Torch
from crista.errors import EngineError
from crista.inference.engine import Engine
from crista.inference.engines import ENGINES, EngineSource
from crista.inference.engines.base import check_installed, tolerance_of
from crista.inference.scores import labels_of

KINDS = sorted(ENGINES, key=lambda kind: kind.__name__)
SHAPES = {2: ((16, 24), (8, 40), (32, 32), (16, 24)), 3: ((4, 16, 8), (2, 8, 24), (4, 16, 8))}

NETWORKS: tuple[dict[str, Any], ...] = (
    {"ndim": 2},
    {"ndim": 2, "num_classes": 3, "architecture": "resunet", "conv_block_order": "norm_act_conv"},
    {"ndim": 2, "num_classes": 5, "architecture": "attention_unet", "normalization": "in", "num_channels": 3},
    {"ndim": 2, "normalization": "none", "activation": "elu", "upsample_layer": "upsampling", "larger_io": True},
    {"ndim": 2, "num_classes": 3, "normalization": "gn", "activation": "gelu"},
    {"ndim": 3},
    {"ndim": 3, "num_classes": 3, "architecture": "attention_unet", "z_down": (2,)},
    {"ndim": 3, "architecture": "resunet", "normalization": "none", "isotropy": (False, True), "activation": "silu"},
    {"ndim": 3, "num_classes": 4, "normalization": "in", "upsample_layer": "upsampling", "activation": "relu"},
)

FLOAT32 = [kind for kind in KINDS if kind is not OpenVINOInt8]

each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
each_network = pytest.mark.parametrize("network", NETWORKS, ids=lambda keys: " ".join(map(str, keys.values())))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Converted networks, shared by the engines."""
    return tmp_path_factory.mktemp("converted")


def make_source(kind: Any, cache: Path, **network: Any) -> EngineSource:
    """A network for an engine; skips the test, saying so, where the engine's library is missing."""
    try:
        check_installed(kind())
    except EngineError as error:
        pytest.skip(str(error))
    plan = network_plan(**network)
    source = source_of(plan, cache, drawn_weights(plan))
    return accept_int8(source, cache) if kind is OpenVINOInt8 else source


def build(kind: Any, cache: Path, **network: Any) -> tuple[Engine, EngineSource]:
    """An engine and what it was made from."""
    source = make_source(kind, cache, **network)
    return ENGINES.build(kind(), source=source), source


def test_the_registry_has_every_engine_that_can_be_asked_for() -> None:
    assert set(ENGINES) == set(get_args(EngineConfig))
    assert {type(config) for found in CANDIDATES.values() for config in found} | {Torch} == set(ENGINES)
    assert len(KINDS) == 4


@pytest.mark.parametrize("kind", FLOAT32, ids=lambda kind: kind.__name__)
@each_network
def test_scores_are_those_of_plain_pytorch(kind: Any, network: dict[str, Any], cache: Path) -> None:
    """One engine for several shapes and batch sizes, also back and forth."""
    engine, source = build(kind, cache, **network)
    for batch, shape in enumerate(SHAPES[source.plan.ndim], 1):
        images = draw_images(source.plan, shape, batch=1 + batch % 3, seed=batch)
        expected = eager_scores(source, images)
        scores = engine(images)
        assert scores.dtype == np.float32
        assert scores.shape == expected.shape
        assert expected.std() > 0.01
        np.testing.assert_allclose(scores, expected, atol=1e-5, rtol=0)


@each_kind
@pytest.mark.parametrize("num_classes", [2, 3])
def test_labels_are_those_of_the_scores(kind: Any, num_classes: int, cache: Path) -> None:
    engine, source = build(kind, cache, num_classes=num_classes)
    images = draw_images(source.plan, (16, 24), batch=3)
    scores = engine(images)
    for threshold in (0.3, 0.5):
        labels = engine.labels(images, threshold)
        assert labels.dtype == np.uint8
        np.testing.assert_array_equal(labels, np.stack([labels_of(torch.from_numpy(each), threshold) for each in scores]))
        foreground = scores[:, 0] > threshold if num_classes == 2 else scores.argmax(axis=1)
        np.testing.assert_array_equal(labels, foreground)
    assert len(np.unique(labels)) == num_classes


@each_kind
def test_scores_belong_to_the_caller(kind: Any, cache: Path) -> None:
    """The next batch does not change them, and they may be changed."""
    engine, source = build(kind, cache)
    first = engine(draw_images(source.plan, (16, 16), seed=1))
    kept = first.copy()
    second = engine(draw_images(source.plan, (16, 16), seed=2))
    np.testing.assert_array_equal(first, kept)
    assert np.abs(first - second).max() > 1e-3
    first[:] = 0
    assert torch.equal(engine.scores(draw_images(source.plan, (16, 16), seed=2)), torch.from_numpy(second))


@each_kind
def test_images_of_a_batch_do_not_meet(kind: Any, cache: Path) -> None:
    """Together as alone, and the same twice."""
    engine, source = build(kind, cache)
    images = draw_images(source.plan, (16, 24), batch=3)
    together = engine(images)
    np.testing.assert_array_equal(engine(images), together)
    np.testing.assert_allclose(np.concatenate([engine(image[None]) for image in images]), together, atol=1e-6)


@each_kind
def test_any_array_of_numbers_will_do(kind: Any, cache: Path) -> None:
    """Views, other memory orders, float64, arrays that cannot be written."""
    engine, source = build(kind, cache)
    images = draw_images(source.plan, (16, 24), batch=2)
    expected = engine(images)
    turned = np.ascontiguousarray(images[..., ::-1])[..., ::-1]
    frozen = images.copy()
    frozen.flags.writeable = False
    for same in (turned, np.asfortranarray(images), images.astype(np.float64), frozen):
        np.testing.assert_array_equal(engine(same), expected)


@each_kind
def test_an_engine_says_its_name(kind: Any, cache: Path) -> None:
    engine, source = build(kind, cache)
    assert engine.name == kind().name
    assert tolerance_of(kind(), source).difference == (1.0 if kind is OpenVINOInt8 else 1e-4)
