"""The plan of a training that starts from a checkpoint: its network, patch and normalisation, where keys are left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from crista.config.data import Data, Normalization
from crista.config.model import LEFT_OUT, Model
from crista.config.root import Config
from crista.errors import PlanError, Problem
from crista.images.fingerprint import Fingerprint
from crista.plan.ledger import GIVEN, show_value
from crista.plan.make import make_plan
from crista.plan.plan import Decision, Plan
from crista.plan.preparation import FLIPS_OF_Z, leaves_flips_of_z_open

PER_LEVEL = ("feature_maps", "conv_layers", "z_down", "yx_down", "isotropy")
UNIFORM = ("kernel_size", "upsample_layer", "conv_block_order", "larger_io", "normalization")
SHAPING = (*PER_LEVEL, *UNIFORM)
"""Keys of MODEL that decide which weights there are."""
ONLY_3D = ("z_down", "isotropy")
FACTORS = ("z_down", "yx_down")
"""Keys of which a 0 leaves a level open."""
SPLITTING = ("split_train", "random", "cross_val", "cross_val_nfold", "cross_val_fold")
"""Keys of DATA.VAL that decide which training images validate."""


def plan_fine_tuning(config: Config, fingerprint: Fingerprint, trained: Plan, *, where: str) -> Plan:
    """The plan of a training on the data of `fingerprint` that starts from the network of `trained`.

    Keys of MODEL, DATA.PATCH_SIZE and DATA.NORMALIZATION that are left out are those of the checkpoint, which is told as a
    decision. Classes and channels are those of the data.

    Parameters
    ----------
    where : names the checkpoint in messages

    Raises
    ------
    PlanError
        With every key that asks for another network than the checkpoint's. MODEL.SKIP_UNMATCHED_LAYERS allows all but
        another number of axes.
    """
    problems = list(_misfits(config, fingerprint, trained))
    if problems:
        raise PlanError(f"in how the request and the starting checkpoint {where} fit together", problems)
    model = _network(config.model, trained.model)
    data = config.data
    update: dict[str, Any] = {}
    notes = [Decision(key="MODEL", value=_in_words(model), reason=f"the network of {where}; keys that are given stay")]
    if data.patch_size is None:
        update["patch_size"] = (*trained.patch_size, fingerprint.num_channels)
        notes.append(Decision(key="DATA.PATCH_SIZE", value=show_value(update["patch_size"]), reason=f"that of {where}"))
    taken = _taken_of_normalization(data, trained.config.data.normalization)
    if taken:
        update["normalization"] = data.normalization.model_copy(update=taken)
        whole = "normalization" not in data.model_fields_set
        which = "that" if whole else f"{' and '.join(key.upper() for key in taken)} as"
        reason = f"{which} of {where}, which its weights expect"
        notes.append(Decision(key="DATA.NORMALIZATION", value=update["normalization"].type, reason=reason))
    filled = config.model_copy(update={"model": model, "data": data.model_copy(update=update)})
    made = make_plan(filled, fingerprint)
    if made.minutes is not None and leaves_flips_of_z_open(
        config, fingerprint, made.model
    ):  # no step is timed before its samples are made
        made = made.model_copy(update={"flips_z": trained.flips_z})
        notes.append(Decision(key=FLIPS_OF_Z, value=str(trained.flips_z), reason=f"that of {where}"))
    own = [_of_checkpoint(item, config, where) for item in made.decisions if item.key not in {note.key for note in notes}]
    return made.model_copy(update={"decisions": (*notes, *own)})


def _taken_of_normalization(data: Data, had: Normalization) -> dict[str, Any]:
    """The keys of DATA.NORMALIZATION that are the checkpoint's: all where the section is left out, else those that are left out
    in it and differ, unless another TYPE is given."""
    if "normalization" not in data.model_fields_set:
        return {key: getattr(had, key) for key in Normalization.model_fields}
    given = data.normalization
    if "type" in given.model_fields_set and given.type != had.type:
        return {}
    left_out = (key for key in Normalization.model_fields if key not in given.model_fields_set)
    return {key: getattr(had, key) for key in left_out if getattr(had, key) != getattr(given, key)}


def _of_checkpoint(decision: Decision, config: Config, where: str) -> Decision:
    """`decision`, which says that a key is given, where the checkpoint gave it."""
    section, _, name = decision.key.lower().partition(".")
    if section != "model" or decision.reason != GIVEN or getattr(config.model, name) is not None:
        return decision
    return decision.model_copy(update={"reason": f"that of {where}"})


def _misfits(config: Config, fingerprint: Fingerprint, trained: Plan) -> Iterator[Problem]:
    """Everything in which the request asks for another network than the trained one."""
    if fingerprint.ndim != trained.ndim:
        yield Problem(
            "MODEL.LOAD_CHECKPOINT",
            f"the checkpoint is of a {trained.ndim}D network, the images are {fingerprint.ndim}D: its weights do not fit",
            f"start from a {fingerprint.ndim}D network, or train from scratch (MODEL.LOAD_CHECKPOINT: False)",
        )
    asked, has = config.model, trained.model
    if asked.skip_unmatched_layers:
        return
    next_step = "leave it out to take the checkpoint's, or set MODEL.SKIP_UNMATCHED_LAYERS: True to load the layers that fit"
    for key in _asked_otherwise(asked, trained, SHAPING):
        what = f"{show_value(getattr(asked, key))} is asked for, the checkpoint has {show_value(getattr(has, key))}"
        yield Problem(f"MODEL.{key.upper()}", what, next_step)


def _asked_otherwise(asked: Model, trained: Plan, keys: Sequence[str]) -> Iterator[str]:
    """Of the architecture and `keys` those that `asked` gives and that the trained network has otherwise."""
    has = trained.model
    if asked.architecture_given and asked.architecture != has.architecture:
        yield "architecture"
    for key in keys:
        given, idle = getattr(asked, key), trained.ndim == 2 and key in ONLY_3D
        if key in asked.model_fields_set and given is not None and not idle and not _is_same(key, given, getattr(has, key)):
            yield key


def settled_otherwise(config: Config, trained: Plan) -> list[str]:
    """Keys of network, classes, intensities and split that a request to predict gives, and that the trained network has
    otherwise."""
    data, learnt, classes, ignored = config.data, trained.config.data, trained.classes, trained.config.loss.ignored_values
    differ = {
        "DATA.PATCH_SIZE": data.patch_size is not None and data.patch_size[: trained.ndim] != trained.patch_size,
        "DATA.N_CLASSES": data.n_classes is not None and max(2, data.n_classes) != classes.num_classes,
        "DATA.CLASS_NAMES": data.class_names is not None and data.class_names != classes.names,
        "DATA.FORCE_RGB": "force_rgb" in data.model_fields_set and data.force_rgb != learnt.force_rgb,
        "DATA.NORMALIZATION": "normalization" in data.model_fields_set and data.normalization != learnt.normalization,
        "LOSS.IGNORE_INDEX": "ignore_index" in config.loss.model_fields_set and config.loss.ignored_values != ignored,
    }
    network = _asked_otherwise(config.model, trained, (*SHAPING, "activation"))
    split = _split_otherwise(config, trained.config) if data.test.use_val_as_test else ()
    return [*(key for key, is_other in differ.items() if is_other), *(f"MODEL.{key.upper()}" for key in network), *split]


def _split_otherwise(asked: Config, learnt: Config) -> Iterator[str]:
    """Keys that are given and would have chosen other images to validate than those that did."""
    sections = (("DATA.VAL", asked.data.val, learnt.data.val, SPLITTING), ("SYSTEM", asked.system, learnt.system, ("seed",)))
    for section, given, had, keys in sections:
        for key in keys:
            if key in given.model_fields_set and getattr(given, key) != getattr(had, key):
                yield f"{section}.{key.upper()}"


def _is_same(key: str, given: Any, value: Any) -> bool:
    """Whether a key means the same; a 0 leaves a factor open."""
    given = _per_level(key, given, value)
    if not isinstance(given, tuple) or not isinstance(value, tuple):
        return bool(given == value)
    return len(given) == len(value) and all(one == other or _is_open(one) for one, other in zip(given, value, strict=True))


def _per_level(key: str, given: Any, value: Any) -> Any:
    """What is given, equal values as often as the checkpoint has them: they serve any number of levels."""
    serves_all = isinstance(given, tuple) and isinstance(value, tuple) and len(set(given)) == 1 and key != "feature_maps"
    return given[:1] * len(value) if serves_all else given


def _is_open(factor: Any) -> bool:
    return factor == 0 and not isinstance(factor, bool)


def _closed(key: str, given: Any, value: Any) -> Any:
    """What is given, with the checkpoint's factor where a 0 leaves one open."""
    fitted = _per_level(key, given, value)
    if key not in FACTORS or not isinstance(fitted, tuple) or not _is_same(key, fitted, value):
        return given
    return tuple(own if _is_open(factor) else factor for factor, own in zip(fitted, value, strict=True))


def _network(asked: Model, has: Model) -> Model:
    """`asked` with the keys that it leaves out from `has`; per-level keys only where there are as many levels."""
    names = asked.model_fields_set - {"architecture", LEFT_OUT}
    given = {key: _closed(key, getattr(asked, key), getattr(has, key)) for key in names}
    kind = type(asked) if asked.architecture_given else type(has)
    levels = given.get("feature_maps") or has.feature_maps
    same_levels = len(levels or ()) == len(has.feature_maps or ())
    taken = (*UNIFORM, "activation", *(PER_LEVEL if same_levels else ()))
    values = {key: getattr(has, key) for key in taken} | {key: value for key, value in given.items() if value is not None}
    return kind(**values)


def _in_words(model: Model) -> str:
    return f"{model.architecture} {show_value(model.feature_maps)}"
