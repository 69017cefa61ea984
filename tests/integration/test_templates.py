"""Every template, ours and BiaPy's of all generations, runs to its end on data of its kind: only paths and sizes are replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tests.jobs import labels, write_pairs

import crista

pytestmark = pytest.mark.usefixtures("no_drawings_in_module")
OURS = Path(__file__).parents[2] / "templates" / "semantic_segmentation"
BIAPY = Path(__file__).parent / "biapy_templates"
PLACEHOLDER = "/path/to/data"
FLAT, DEEP = (100, 104), (14, 50, 52)


class Kind(NamedTuple):
    """What data a template is for, and the sizes that make it quick."""

    shape: tuple[int, ...]
    overrides: tuple[str, ...]
    num_classes: int = 2
    channels: int = 1
    stages: tuple[str, ...] = ("per_image",)


FIVE = "MODEL.FEATURE_MAPS=[2,4,6,8,8]"
OLD_2D = Kind(FLAT, ("DATA.PATCH_SIZE=(96,96,1)", FIVE), stages=("per_image", "full_image"))
T1 = Kind(FLAT, ("DATA.PATCH_SIZE=(96,96,1)", FIVE))
T8 = Kind(DEEP, ("DATA.PATCH_SIZE=(8,32,32,1)",))
KINDS = {
    "2d_semantic_segmentation": Kind((48, 50), ("MODEL.FEATURE_MAPS=[4,8]",)),
    "2d_multiclass_semantic_segmentation": Kind((48, 50), ("MODEL.FEATURE_MAPS=[4,8]",), num_classes=3),
    "3d_semantic_segmentation": Kind((9, 40, 41), ("MODEL.FEATURE_MAPS=[4,8]",), stages=("per_image", "post_processing")),
    "3d_multiclass_semantic_segmentation": Kind((9, 40, 41), ("MODEL.FEATURE_MAPS=[4,8]",), num_classes=3),
    "t1_2d_v3_5_1": T1,
    "t1_2d_v3_6_5": T1,
    "t1_2d_older": OLD_2D,
    "t2_3d_v3_5_1": Kind(DEEP, ("DATA.PATCH_SIZE=(12,48,48,1)", FIVE)),
    "t2_3d_v3_6_5": Kind((40, 40, 40), ("DATA.PATCH_SIZE=(48,48,48,1)", FIVE)),
    "t3_wound_v3_5_1": T1,
    "t3_wound_v3_6_0": T1,
    "t6_attention_unet_2d": OLD_2D,
    "t7_resunet_2d": OLD_2D,
    "t7_unet_2d_mask_path": OLD_2D,
    "t8_unet_3d_a": Kind(DEEP, (*T8.overrides, "MODEL.FEATURE_MAPS=[2,4,6]"), stages=()),
    "t8_unet_3d_b": Kind(DEEP, (*T8.overrides, "MODEL.FEATURE_MAPS=[2,4,6,8]"), stages=()),
    "user_file_v3_6_7": Kind(
        FLAT, ("DATA.PATCH_SIZE=(64,64,3)", FIVE, "TRAIN.LR_SCHEDULER.WARMUP_COSINE_DECAY_EPOCHS=1"), channels=3
    ),
}
WITHOUT_COUNTERPART = {"t4_spinedl_training", "t5_spinedl_from_zoo"}
"""They name a network that crista does not have; test_biapy_templates.py shows what is said."""


def test_every_template_is_here() -> None:
    files = {path.stem for folder in (OURS, BIAPY) for path in folder.glob("*.yaml")}
    assert files - WITHOUT_COUNTERPART == set(KINDS)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_template_runs_to_its_end(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    settings: dict[str, Any] = {"num_classes": kind.num_classes, "channels": kind.channels}
    for number, part in enumerate(("train", "val", "test")):
        count = 3 if part == "train" else 1
        write_pairs(tmp_path / "data" / part, [kind.shape] * count, seed=number, **settings)
    source = next(folder / f"{name}.yaml" for folder in (OURS, BIAPY) if (folder / f"{name}.yaml").is_file())
    text = source.read_text()
    assert PLACEHOLDER in text
    job = tmp_path / f"{name}.yaml"
    job.write_text(text.replace(PLACEHOLDER, str(tmp_path / "data")))
    overrides = ["TRAIN.EPOCHS=1", *kind.overrides]
    outcome = crista.run(job, result_dir=tmp_path / "results", overrides=overrides)
    label = labels(outcome.folder.per_image_binarized / "00.tif", len(kind.shape))
    assert label.shape == kind.shape
    assert set(np.unique(label)) <= set(range(kind.num_classes))
    stages = {"per_image": "reconstructed image", "full_image": "full image", "post_processing": "after post-processing"}
    measured = {f"Foreground IoU, {stages[stage]} (mean over images)" for stage in kind.stages}
    assert {key for key in outcome.metrics if key.startswith("Foreground IoU,") and "mean" in key} == measured
    assert outcome.folder.config_file.name == f"{name}_1.yaml"
