"""Request: one run, made from a YAML file, a tree of keys, or a checkpoint and a folder of images."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any

from crista.config.automatic import Quality, make_automatic_config
from crista.config.document import read_overrides
from crista.config.fields import show_value
from crista.config.load import LoadedConfig, config_from_dict, load_config, parse_config
from crista.config.overridden import overridden_text
from crista.config.root import Config
from crista.errors import CheckpointError
from crista.images.listing import expand_home
from crista.plan.budget import MINUTES
from crista.plan.plan import Plan
from crista.results.run_folder import RunFolder

ConfigLike = Config | Mapping[str, Any] | Path | str
"""A configuration, a tree of keys (any case), or the path of a YAML file."""


PLAIN_NAMES = {"x", "raw", "image", "images", "img", "imgs", "imagestr", "train", "training", "trainset", "data"}
"""Names of folders that do not tell one data set from another."""


OF_PREDICTION = ("TEST.", "DATA.TEST.", "SYSTEM.", "PATHS.")
"""How the keys begin that a prediction takes from its own request, see `crista.plan.make.plan_for_prediction`."""
OF_THE_MACHINE = ("DEVICE", "NUM_CPUS", "NUM_WORKERS", "CLUSTER")
"""Keys of SYSTEM that tell of the machines of a training; its network may predict on others, which are given anew."""
OF_THE_IMAGES = ("Z_START", "Z_END")
"""Keys of TEST.BY_CHUNKS that choose slices of the volumes that were predicted with the training."""
RESOLUTION_OF_OTHERS = (
    "DATA.TEST.RESOLUTION = {}, of the test images of the training, is not taken over: these images have the voxel size that "
    "their files say. Where they do not say it, DATA.TEST.RESOLUTION gives it"
)
CHANGEABLE = "TEST, DATA.TEST, PATHS and SYSTEM (but SEED) can be changed"


@dataclass(frozen=True)
class Request:
    """One run: what is wanted and where its results go."""

    config: Config
    result_dir: Path
    name: str = "crista"
    run_id: int = 1
    config_text: str = ""
    """The YAML as given; kept in `config_files`."""
    notices: tuple[str, ...] = ()
    """What the loader of the configuration had to say."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why a configuration that crista made says what it says, by key."""
    stop: Event = field(default_factory=Event, compare=False)
    """Once it is set, the training ends in order with what it has."""
    begun: float = field(default_factory=time.monotonic, compare=False)
    """When the run was asked for, on the monotonic clock; a time budget counts from here."""
    folder: RunFolder = field(init=False)

    def __post_init__(self) -> None:
        folder = RunFolder(self.result_dir, self.name, self.run_id, self.config.paths)
        object.__setattr__(self, "folder", folder)


def as_path(name: str, value: Path | str) -> Path:
    """`value` as a path, with the home folder for a ~. Raises a `TypeError` that says what `name` takes for anything else."""
    if isinstance(value, str | os.PathLike):
        return expand_home(os.fspath(value))
    what = f"{name} takes the path of a file or a folder, not {type(value).__name__}"
    if hasattr(value, "__len__"):
        what += ": save arrays to files (numpy.save, tifffile.imwrite), put several into a folder, and give its path"
    raise TypeError(what)


def find_checkpoint(path: Path) -> Path:
    """`path`, or the only best checkpoint below it; raises a `CheckpointError` that names what is near."""
    if path.is_file():
        return path
    folder = path if path.is_dir() else path.parent
    patterns = ("*.pth", "checkpoints/*.pth", "*/checkpoints/*.pth")
    near = [file for pattern in patterns for file in sorted(folder.glob(pattern))]
    best = [file for file in near if file.name.endswith("checkpoint-best.pth")]
    if path.is_dir() and len(best) == 1:
        return best[0]
    listed = ", ".join(map(str, (best or near)[:3]))
    hint = f"here are {listed}" if near else "a training leaves it in <result_dir>/<name>/checkpoints"
    many = f"is a folder with {len(best)} networks: name one" if best else "is a folder without a network"
    raise CheckpointError(f"{path}: {many if path.is_dir() else 'no such checkpoint'}\n    -> {hint}")


def load_any(config: ConfigLike, overrides: Sequence[str] = ()) -> LoadedConfig:
    """Load a configuration of any form; `overrides` are ``TRAIN.EPOCHS=20``."""
    if isinstance(config, Config):
        config = config.given()
    if isinstance(config, Mapping):
        return config_from_dict(config, overrides)
    return load_config(as_path("config", config), overrides)


def request_run(
    config: ConfigLike,
    *,
    result_dir: Path | str,
    name: str | None = None,
    run_id: int = 1,
    overrides: Sequence[str] = (),
) -> Request:
    """The run of a configuration; without `name` it is called as its YAML file."""
    loaded = load_any(config, overrides)
    default = Path(config).stem if isinstance(config, str | Path) else "crista"
    text = _with_changes(loaded.text, overrides)
    return Request(loaded.config, as_path("result_dir", result_dir), name or default, run_id, text, loaded.notices)


def _with_changes(text: str, overrides: Sequence[str]) -> str:
    """The YAML that is kept beside the results, and what was changed of it, as comments."""
    return text + "".join(f"\n# changed on the command line: {change}" for change in overrides)


def request_training(config: ConfigLike, **where: Any) -> Request:
    """The training part of a configuration; arguments as `request_run`."""
    request = request_run(config, **where)
    return replace(request, config=only_training(request.config))


def only_training(config: Config) -> Config:
    """The configuration of the training alone."""
    train, test = config.train.model_copy(update={"enable": True}), config.test.model_copy(update={"enable": False})
    return config.model_copy(update={"train": train, "test": test})


def request_automatic(
    images: Path | str,
    labels: Path | str,
    *,
    minutes: float | None = None,
    quality: Quality = "standard",
    result_dir: Path | str,
    name: str | None = None,
    run_id: int = 1,
    overrides: Sequence[str] = (),
) -> Request:
    """A training on two folders, with everything else decided; without `name` it is called as the folder of the data.

    Without `minutes`, and without TRAIN.MAX_MINUTES or TRAIN.EPOCHS among the `overrides`, it takes as long as its quality says.
    """
    images, labels = (as_path(name, path).absolute() for name, path in (("images", images), ("labels", labels)))

    def load(limit: float | None) -> tuple[LoadedConfig, dict[str, str]]:
        made = make_automatic_config(images, labels, minutes=limit, quality=quality)
        return parse_config(made.text, "the configuration that crista made", overrides), made.reasons

    loaded, reasons = load(minutes)
    train = loaded.config.train
    # The file beside the results is to be run again: it says the minutes, also where they were typed.
    if train.max_minutes is not None or train.epochs is None:
        again, reasons = load(train.max_minutes or MINUTES[train.quality])
        loaded = replace(again, notices=loaded.notices)
        if train.max_minutes is None and loaded.config.train.max_minutes is not None:  # null among the overrides: by steps
            reasons["TRAIN.MAX_MINUTES"] = f"no time is given, and TRAIN.QUALITY: {train.quality} stands for that many minutes"
    text = _with_changes(overridden_text(loaded.text, overrides), overrides)
    own = _not_overridden(reasons, overrides)
    where = as_path("result_dir", result_dir)
    return Request(loaded.config, where, name or _name_of(images), run_id, text, loaded.notices, own)


def _not_overridden(reasons: Mapping[str, str], overrides: Sequence[str]) -> dict[str, str]:
    """Those of keys and sections of which nothing was changed."""
    changed = [f"{key}." for key in read_overrides(overrides)[0].entries]
    return {key: why for key, why in reasons.items() if not any(one.startswith(f"{key}.") for one in changed)}


def _network_at(name: str, checkpoint: Path | str) -> Path:
    """The file that `checkpoint` names; of the results of a job their only best network, as on the command line."""
    path = as_path(name, checkpoint)
    return find_checkpoint(path) if path.is_dir() else path


def start_changes(checkpoint: Path | str) -> tuple[str, ...]:
    """The changes of keys by which a training starts from the network of `checkpoint`."""
    path = _network_at("start_from", checkpoint).absolute()
    return "MODEL.LOAD_CHECKPOINT=True", f"PATHS.CHECKPOINT_FILE={json.dumps(str(path))}"


def _name_of(images: Path) -> str:
    """The nearest folder above the images whose name says more than `train` or `x`."""
    names = [part for part in images.parts[1:] if part.lower() not in PLAIN_NAMES]
    return re.sub(r"[^\w.-]+", "_", names[-1]) if names else "crista"


def request_prediction(
    checkpoint: Path | str,
    images: Path | str,
    *,
    labels: Path | str | None = None,
    result_dir: Path | str,
    name: str | None = None,
    run_id: int = 1,
    overrides: Sequence[str] = (),
) -> Request:
    """Prediction of a folder (or one file) with a checkpoint; with `labels` it is measured too.

    The TEST settings are those that the checkpoint was trained with, changed by `overrides`; machines, slices and the voxel size,
    which is that of other images, are not.
    """
    from crista.training.checkpoint import load_checkpoint  # torch is slow to import

    images, path = as_path("images", images), _network_at("checkpoint", checkpoint)
    plan: Plan = load_checkpoint(path).plan
    tree = plan.config.given()
    tree.setdefault("TRAIN", {})["ENABLE"] = False
    tree.setdefault("TEST", {})["ENABLE"] = True
    tree.setdefault("MODEL", {})["LOAD_CHECKPOINT"] = True
    tree.setdefault("PATHS", {})["CHECKPOINT_FILE"] = str(path)
    test = tree.setdefault("DATA", {}).setdefault("TEST", {})
    test.update(PATH=str(images), LOAD_GT=labels is not None)
    if labels is not None:  # those count, wherever the labels of the training lay
        test.update(GT_PATH=str(as_path("labels", labels)), INPUT_ZARR_MULTIPLE_DATA=False)
    test.pop("USE_VAL_AS_TEST", None)
    resolution = test.pop("RESOLUTION", ())
    for key in OF_THE_MACHINE:
        tree.get("SYSTEM", {}).pop(key, None)
    for key in OF_THE_IMAGES:
        tree["TEST"].get("BY_CHUNKS", {}).pop(key, None)
    learnt, loaded = config_from_dict(tree), config_from_dict(tree, overrides)
    notices = [notice for notice in loaded.notices if notice not in learnt.notices]
    idle = [] if loaded.config.train.enable else _idle_changes(learnt.config, loaded.config)
    if idle:
        notices.append(kept_as_trained(idle))
    if max(resolution, default=-1) > 0 and loaded.config.data.test.resolution is None:
        notices.append(RESOLUTION_OF_OTHERS.format(show_value(resolution)))
    default = path.name.removesuffix(".pth").removesuffix("-checkpoint-best").removesuffix("-checkpoint-last")
    text = _with_changes(overridden_text(loaded.text, overrides), overrides)
    where = as_path("result_dir", result_dir)
    return Request(loaded.config, where, name or f"{default}_prediction", run_id, text, tuple(notices))


def kept_as_trained(keys: Sequence[str]) -> str:
    """The notice that `keys` change nothing in a prediction."""
    have = "has" if len(keys) == 1 else "have"
    return f"{', '.join(keys)} {have} no effect: a trained network keeps what it was trained with; {CHANGEABLE}"


def _idle_changes(learnt: Config, asked: Config) -> list[str]:
    """Keys that were changed although the plan of a trained network settles them."""
    before, after = (dict(_leaves(config.model_dump(mode="json", by_alias=True))) for config in (learnt, asked))
    changed = [key for key, value in after.items() if before.get(key) != value]
    return [key for key in changed if not key.startswith(OF_PREDICTION) or key == "SYSTEM.SEED"]


def _leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """(``TRAIN.EPOCHS``, value) of every key."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
