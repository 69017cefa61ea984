"""The part of the plan about labels of which most pixels are left open: scribbles."""

from __future__ import annotations

from crista.config.root import Config
from crista.images.fingerprint import Fingerprint
from crista.plan.ledger import Ledger

SPARSE = 0.5
"""Labels with fewer annotated pixels than this share are sparse: patches are drawn around the annotated ones."""


def learnt_diameter(fingerprint: Fingerprint) -> float | None:
    """The diameter of the objects in the training labels; None where these are sparse: that of strokes is none of objects."""
    share = fingerprint.annotated_share
    return None if share is not None and share < SPARSE else fingerprint.object_diameter


def is_drawn_around_annotation(config: Config, fingerprint: Fingerprint) -> bool:
    """Whether training patches are drawn around annotated pixels; keys that say how patches are chosen win."""
    share, train = fingerprint.annotated_share, config.data.train
    if not config.loss.ignored_values or share is None or share >= SPARSE:
        return False
    return not (train.extract_random_patch or {"extract_random_patch", "probability_map", "class_share"} & train.model_fields_set)


def without_grid(config: Config) -> str:
    """What is said of keys of the grid where patches are placed in another way; empty where none is given."""
    train = config.data.train
    given = [f"DATA.TRAIN.{key}" for key, values in (("OVERLAP", train.overlap), ("PADDING", train.padding)) if any(values or ())]
    return f"; {' and '.join(given)} {'places' if len(given) == 1 else 'place'} no patch then" if given else ""


def decide_sparse_sampling(config: Config, fingerprint: Fingerprint, ledger: Ledger) -> bool:
    """The same, noted."""
    if not is_drawn_around_annotation(config, fingerprint):
        return False
    ledger.note(
        "DATA.TRAIN.PROBABILITY_MAP",
        "around annotated pixels",
        f"{fingerprint.annotated_share:.2%} of the pixels are annotated: patches are drawn around them, each class as often as "
        f"the others (EXTRACT_RANDOM_PATCH, PROBABILITY_MAP and CLASS_SHARE choose otherwise){without_grid(config)}",
    )
    return True


def decide_class_shares(config: Config, fingerprint: Fingerprint, ledger: Ledger) -> bool:
    """Whether the frequency of the classes is estimated after the training, noted."""
    asked = config.loss.estimate_class_shares
    if asked and not config.loss.ignored_values:
        ledger.refuse(
            "LOSS.ESTIMATE_CLASS_SHARES",
            "all pixels count as annotated, so the labels say how frequent the classes are",
            "leave it out, or say with LOSS.IGNORE_INDEX which label value stands for no annotation",
        )
    if asked is None and not is_drawn_around_annotation(config, fingerprint):
        return False
    reason = "what is scribbled does not show how frequent the classes are: after the training they are estimated in all pixels"
    return ledger.settle("LOSS.ESTIMATE_CLASS_SHARES", asked, True, reason)
