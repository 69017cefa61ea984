"""Results stay what they were: three training steps and a prediction against kept figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.golden.curve import FILE, compute_figures


def test_figures_are_those_that_were_kept(tmp_path: Path) -> None:
    """Where this is meant to change: ``python -m tests.golden.curve``."""
    kept, found = json.loads(FILE.read_text()), compute_figures(tmp_path)
    assert kept.keys() == found.keys()
    for key, tolerance in (("loss", 1e-4), ("val_loss", 1e-4), ("lr", 1e-9), ("probability", 1e-3), ("mean_probability", 1e-4)):
        np.testing.assert_allclose(found[key], kept[key], atol=tolerance, err_msg=key)
