"""Start: what a run leaves in its folder about itself: request, plan, drawing of the network, provenance."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import torch

from crista.config.root import Config
from crista.images.atomic import atomic_write, remove_folder
from crista.models import build_model, describe_model
from crista.plan.plan import Plan
from crista.results.model_plot import draw_model
from crista.results.provenance import build_provenance, write_provenance
from crista.results.run_folder import RunFolder


def start_run(folder: RunFolder, config_text: str, config: Config) -> None:
    """Keep the YAML as given (a run from Python keeps what it set), and clear away what a killed run left half written.

    A shard clears nothing away: what looks left over may be what another shard is writing right now.
    """
    if config.system.cluster.own_shard[1] == 1:
        remove_left_overs(folder)
    text = config_text or json.dumps(config.model_dump(mode="json", by_alias=True, exclude_unset=True), indent=2)
    atomic_write(folder.config_file, text)


def remove_left_overs(folder: RunFolder) -> None:
    """Remove files and Zarr folders written aside, those that were replaced, and scratch folders, that a kill of this run left
    behind; other runs are not touched."""
    half_written = [*folder.results.rglob(".*.part*"), *folder.checkpoints.glob(f".{folder.job}-*.part*")]
    for path in (*half_written, *folder.results.rglob(".*.zarr.old")):
        remove_folder(path)
    for scratch in folder.state.glob(".scratch-*"):
        shutil.rmtree(scratch, ignore_errors=True)


def write_plan(folder: RunFolder, plan: Plan) -> Path:
    """Write plan.json: every number, and the reason of each decision."""
    atomic_write(folder.plan_json, plan.model_dump_json(indent=2, by_alias=True))
    return folder.plan_json


def draw_network(folder: RunFolder, plan: Plan) -> Path:
    """Draw the network with shapes and parameter counts."""
    model = build_model(plan.model, num_channels=plan.num_channels, num_logits=plan.classes.num_logits, ndim=plan.ndim)
    layers = describe_model(model, plan.model, input_shape=(plan.num_channels, *plan.patch_size))
    draw_model(layers, folder.model_plot, f"{plan.model.architecture}, {folder.job}")
    return folder.model_plot


def write_provenance_of(
    folder: RunFolder, plan: Plan, inputs: Sequence[Path], *, device: torch.device, started: datetime
) -> Path:
    """Write provenance.json: versions, machine, seed, command and input files of a run that ends now."""
    provenance = build_provenance(
        inputs=inputs,
        seed=plan.config.system.seed,
        device=str(device),
        threads=torch.get_num_threads(),
        command=sys.argv,
        started=started,
    )
    write_provenance(folder.provenance_json, provenance)
    return folder.provenance_json
