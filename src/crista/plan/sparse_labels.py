"""The part of the plan about labels of which most pixels are left open: scribbles."""

from __future__ import annotations

from crista.config.root import Config
from crista.images.fingerprint import Fingerprint
from crista.plan.ledger import Ledger

SPARSE = 0.5
"""Labels with fewer annotated pixels than this share are sparse: patches are drawn around the annotated ones."""


def decide_sparse_sampling(config: Config, fingerprint: Fingerprint, ledger: Ledger) -> bool:
    """Whether training patches are drawn around annotated pixels; keys that say how patches are chosen win."""
    share, train = fingerprint.annotated_share, config.data.train
    if not config.loss.ignored_values or share is None or share >= SPARSE:
        return False
    if train.extract_random_patch or {"extract_random_patch", "probability_map"} & train.model_fields_set:
        return False
    ledger.note(
        "DATA.TRAIN.PROBABILITY_MAP",
        "around annotated pixels",
        f"{share:.2%} of the pixels are annotated: patches are drawn around them, each class as often as the others "
        "(EXTRACT_RANDOM_PATCH and PROBABILITY_MAP choose otherwise)",
    )
    return True
