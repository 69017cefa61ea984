"""The part of the plan about what a training is shown: images that validate, normalisation, augmentation."""

from __future__ import annotations

from collections.abc import Mapping

from crista.config.data import NOT_SET, ValidationData
from crista.config.model import Model
from crista.config.root import Config
from crista.images.fingerprint import Fingerprint
from crista.plan.ledger import GIVEN, Ledger
from crista.plan.plan import Plan

FLIPS_OF_Z = "AUGMENTOR.ZFLIP"
FEW_VOLUMES = 10
"""Volumes below which many steps show the same objects again and again; of more it was not measured."""
MANY_STEPS = 250
"""Steps from which z is flipped in few volumes. Validation IoU of mitochondria in one volume, without and with: 0.79 and 0.86
after 1600 and 1350 steps, 0.53 and 0.61 after 600, 0.54 and 0.63 where 270 of whole patches fit, in another volume 0.30 and
0.40; once, after 400, 0.78 and 0.74."""


def note_preparation(config: Config, ndim: int, ledger: Ledger) -> None:
    """Note what the configuration, or its defaults, make of the images before a network sees them."""
    _note_validation(config.data.val, ledger)
    _note_normalization(config, ledger)
    augmentor = config.augmentor
    changes = augmentor.switched_on(ndim)
    if changes or "enable" in augmentor.model_fields_set:
        ledger.note("AUGMENTOR", ", ".join(changes) or "none", GIVEN)
    else:
        ledger.note("AUGMENTOR", "none", "AUGMENTOR.ENABLE is left out: patches are shown as they are")


def _note_validation(val: ValidationData, ledger: Ledger) -> None:
    if not val.from_train:
        ledger.note("DATA.VAL.PATH", val.path or "", GIVEN)
    elif val.cross_val:
        ledger.note("DATA.VAL.CROSS_VAL_FOLD", f"{val.cross_val_fold} of {val.cross_val_nfold}", GIVEN)
    else:
        given = val.split_train if "split_train" in val.model_fields_set else None
        reason = "so much of the training images is not trained on: it chooses the best network"
        ledger.settle("DATA.VAL.SPLIT_TRAIN", given, val.split_train, reason)


def _note_normalization(config: Config, ledger: Ledger) -> None:
    """Only fine-tuning decides it by more than the default: then `crista.plan.fine_tuning` says so."""
    normalization = config.data.normalization
    given = normalization.type if "type" in normalization.model_fields_set else None
    fixed = normalization.zero_mean_unit_var
    reason = "each channel of each image by its own mean and standard deviation: how bright an image was recorded does not matter"
    if fixed.given:
        reason = "by the mean and standard deviation that are given"
    elif fixed.mean_val != fixed.std_val:  # one of them is left out
        known, own = ("standard deviation", "mean") if fixed.mean_val == NOT_SET else ("mean", "standard deviation")
        reason = f"by the {known} that is given, and the {own} of each channel of each image"
    ledger.settle("DATA.NORMALIZATION", given, normalization.type, reason)


def leaves_flips_of_z_open(config: Config, fingerprint: Fingerprint, model: Model) -> bool:
    """Whether it depends on the number of steps if z is reversed."""
    augmentor = config.augmentor
    is_asked = augmentor.enable and augmentor.zflip == "auto" and fingerprint.ndim == 3
    return is_asked and len(fingerprint.shapes) < FEW_VOLUMES and _sees_depth(model)


def _sees_depth(model: Model) -> bool:
    """Whether a voxel of the output depends on other slices."""
    return any(model.isotropy or (True,)) or any(factor > 1 for factor in model.z_down or ())


def decide_flips_of_z(config: Config, fingerprint: Fingerprint, model: Model, steps: int | None, ledger: Ledger) -> bool:
    """Whether z is reversed in a training of `steps`, by the clock at most so many; None: any number.

    By the clock it is not, until a step has been timed.
    """
    augmentor = config.augmentor
    if fingerprint.ndim == 2 or not augmentor.enable or augmentor.zflip != "auto":
        return fingerprint.ndim == 3 and augmentor.enable and augmentor.zflip is True
    flips = False
    if not leaves_flips_of_z_open(config, fingerprint, model):
        reason = f"there are {len(fingerprint.shapes)} volumes; only of fewer than {FEW_VOLUMES} z is reversed in a long training"
        if not _sees_depth(model):
            reason = "no kernel of the network reaches other slices: in whatever order they lie, it sees the same"
    elif steps is None or (config.train.max_minutes is not None and steps >= MANY_STEPS):
        reason = f"decided when the training starts: True if {MANY_STEPS} steps fit into the time, which see few volumes often"
        ledger.note(FLIPS_OF_Z, "by the steps", reason)
        return False
    else:
        flips, reason = flips_of_z_in(steps)
    ledger.note(FLIPS_OF_Z, flips, reason)
    return flips


def flips_of_z_in(steps: int) -> tuple[bool, str]:
    """Whether z of few volumes is reversed in a training of about so many steps, and the reason."""
    if steps >= MANY_STEPS:
        return True, f"about {steps} steps see the same few volumes often: reversed in z they show something new"
    return False, f"about {steps} steps; of few volumes this was seen to pay from {MANY_STEPS} on, and not tried with fewer"


def with_reasons(plan: Plan, reasons: Mapping[str, str]) -> Plan:
    """`plan` with the reasons of what is given by a configuration that crista made itself, by key."""
    decisions = (
        item.model_copy(update={"reason": reasons[item.key]}) if item.reason == GIVEN and item.key in reasons else item
        for item in plan.decisions
    )
    return plan.model_copy(update={"decisions": tuple(decisions)})
