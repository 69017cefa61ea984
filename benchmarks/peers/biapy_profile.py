"""Run BiaPy with clocks in its test phase, to see what is network and what is not.

    python biapy_profile.py REPORT.json --config … --result_dir … --name … --run_id 1

The flags after the report are BiaPy's. The report holds seconds and calls per part; parts within parts are counted in both.
`network` is the forward pass alone; `flops_per_voxel` is its arithmetic, counted on the first batch.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

METHODS = (
    "test",
    "process_test_sample",
    "predict_batches_in_test",
    "model_call_func",
    "metric_calculation",
    "after_merge_patches",
)
FUNCTIONS = (
    "crop_data_with_overlap",
    "crop_3D_data_with_overlap",
    "merge_data_with_overlap",
    "merge_3D_data_with_overlap",
    "save_tif",
    "normalize_image",
)

seconds: dict[str, float] = defaultdict(float)
calls: dict[str, int] = defaultdict(int)
counted: dict[str, float] = {}


def clocked(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """`function` with its seconds added to `name`."""

    @wraps(function)
    def timed(*arguments: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            seconds[name] += time.perf_counter() - started
            calls[name] += 1

    return timed


def watch_network(prepare_model: Callable[..., Any]) -> Callable[..., Any]:
    """`prepare_model` of a workflow, with a clock around the network that it makes."""

    @wraps(prepare_model)
    def prepared(workflow: Any) -> Any:
        result = prepare_model(workflow)
        forward = workflow.model.forward

        def first(images: Any) -> Any:
            from measuring.flops import count_flops

            del workflow.model.forward  # the network as it was, to be copied and counted
            counted["flops_per_voxel"] = count_flops(workflow.model, (1, *images.shape[1:])) / images[0, 0].numel()
            workflow.model.forward = clocked(forward, "network")
            return workflow.model.forward(images)

        workflow.model.forward = first
        return result

    return prepared


def main() -> None:
    """Put the clocks in, run BiaPy, write the report."""
    report = Path(sys.argv.pop(1))
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import biapy
    from biapy.engine import base_workflow, semantic_seg

    base = base_workflow.Base_Workflow
    for owner in (base, semantic_seg.Semantic_Segmentation_Workflow):
        for name in METHODS:
            if name in vars(owner):
                setattr(owner, name, clocked(vars(owner)[name], name))
    for name in FUNCTIONS:
        for module in (base_workflow, semantic_seg):
            if hasattr(module, name):
                setattr(module, name, clocked(getattr(module, name), name))
    base.prepare_model = watch_network(base.prepare_model)
    started = time.perf_counter()
    with suppress(SystemExit):  # that is how BiaPy ends
        biapy.main()
    whole = time.perf_counter() - started
    report.write_text(json.dumps({"whole": whole, "seconds": seconds, "calls": calls, **counted}, indent=2))


if __name__ == "__main__":
    main()
