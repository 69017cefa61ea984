"""One image, and two, are enough for a whole run, in 2D and in 3D, and the run says what its validation is worth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.jobs import job, log_rows, run_and_listen, write_data

pytestmark = pytest.mark.usefixtures("no_drawings_in_module")


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("shape", [(64, 64), (8, 48, 48)])
def test_few_images_train_validate_and_are_measured(count: int, shape: tuple[int, ...], tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", shape=shape, train=count, test=1)
    config = job(data, {"DATA": {"VAL": {"SPLIT_TRAIN": 0.2}}}, ndim=len(shape))
    outcome, said = run_and_listen(config, tmp_path / "out")
    (notice,) = [line for line in said if line.startswith("only ")]
    assert notice.startswith("only one image: " if count == 1 else "only two images: ")
    assert all(f"of {index:02d} (" in notice for index in range(count))
    rows = log_rows(outcome)
    assert len(rows) == 2
    assert all(np.isfinite(row["val_loss"]) for row in rows)
    assert len(list(outcome.folder.per_image_binarized.iterdir())) == 1
    assert np.isfinite(outcome.metrics["Foreground IoU, reconstructed image (mean over images)"])
