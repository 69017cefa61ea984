"""make_plan: Config and fingerprint become a Plan."""

from __future__ import annotations

from crista.config.root import Config
from crista.images.fingerprint import Fingerprint
from crista.images.labels import make_coding
from crista.plan.budget import decide_epochs
from crista.plan.effort import FULL, Effort
from crista.plan.growing import decide_first_patch
from crista.plan.learning import (
    decide_batch_size,
    decide_class_weights,
    decide_loss,
    decide_optimizer,
    decide_patience,
    decide_schedule,
)
from crista.plan.ledger import Ledger
from crista.plan.network import decide_model, decide_patch_size
from crista.plan.plan import Classes, Plan
from crista.plan.preparation import decide_flips_of_z, note_preparation
from crista.plan.sparse_labels import decide_class_shares, decide_sparse_sampling, learnt_diameter
from crista.plan.tiling import check_training_patches, decide_inference


def make_plan(config: Config, fingerprint: Fingerprint, effort: Effort = FULL) -> Plan:
    """Fill in everything that `config` leaves out, from the facts about the training data.

    `effort` bounds network and patches where they are left out.

    Raises
    ------
    PlanError
        With every setting that does not fit the data or the other settings.
    """
    ledger = Ledger()
    ndim = 2 if fingerprint.ndim == 2 else 3
    asked_ndim = int(config.problem.ndim[0]) if config.problem.ndim else None
    ledger.settle("PROBLEM.NDIM", asked_ndim, ndim, f"the images have {ndim} spatial axes")
    classes = _decide_classes(config, fingerprint, ledger)
    note_preparation(config, ndim, ledger)
    patch = decide_patch_size(config, fingerprint, effort, ledger)
    model = decide_model(config, fingerprint, patch, effort, ledger)
    check_training_patches(config, patch, ledger)
    batch = decide_batch_size(config.train, patch, effort, ledger)
    length = decide_epochs(config, fingerprint, patch, batch, ledger)
    flips_z = decide_flips_of_z(config, fingerprint, model, length.most_steps, ledger)
    loss, class_weights = decide_loss(config, ledger), decide_class_weights(config, fingerprint, ledger)
    sparse, shares = decide_sparse_sampling(config, fingerprint, ledger), decide_class_shares(config, fingerprint, ledger)
    first_patch, optimizer = decide_first_patch(config, patch, model, length, ledger), decide_optimizer(config.train, ledger)
    schedule = decide_schedule(config.train, length.epochs, optimizer.lr, ledger)
    patience = decide_patience(config.train, schedule, length, ledger)
    if not ledger.problems:  # tiles need a patch and a network that fit
        inference = decide_inference(config, patch, model, batch, ledger)
    save_probabilities = _decide_output(config, ledger)
    ledger.require_fit("in how the configuration and the data fit together")
    return Plan(
        config=config,
        ndim=ndim,
        num_channels=fingerprint.num_channels,
        classes=classes,
        spacing=fingerprint.spacing,
        object_diameter=learnt_diameter(fingerprint),
        patch_size=patch,
        first_patch=first_patch,
        model=model,
        loss=loss,
        class_weights=class_weights,
        class_frequencies=fingerprint.class_frequencies,
        sparse_labels=sparse,
        estimates_class_shares=shares,
        optimizer=optimizer,
        schedule=schedule,
        batch_size=batch,
        epochs=length.epochs,
        minutes=length.minutes,
        flips_z=flips_z,
        class_share=length.class_share,
        average_share=length.average_share,
        patience=patience,
        amp=config.train.amp,
        inference=inference,
        save_probabilities=save_probabilities,
        decisions=tuple(ledger.decisions),
    )


def plan_for_prediction(trained: Plan, config: Config) -> Plan:
    """The plan of a trained network with the TEST, DATA.TEST, SYSTEM and PATHS sections of another configuration.

    Classes, channels, normalisation, network and seed stay those of the training: by the seed it is known which images validated.

    Raises
    ------
    PlanError
        If the new settings do not fit the network.
    """
    ledger = Ledger()
    data = trained.config.data.model_copy(update={"test": config.data.test})
    system = config.system.model_copy(update={"seed": trained.config.system.seed})
    merged = trained.config.model_copy(update={"data": data, "test": config.test, "system": system, "paths": config.paths})
    if config.data.test.use_val_as_test and not trained.config.data.val.from_train:
        own = trained.config.data.val.path
        what = f"the network was validated on images that are none of the training (DATA.VAL.PATH: {own})"
        ledger.refuse("DATA.TEST.USE_VAL_AS_TEST", what, "give their folders as DATA.TEST.PATH and GT_PATH, with LOAD_GT: True")
    inference = decide_inference(merged, trained.patch_size, trained.model, trained.batch_size, ledger)
    save = _decide_output(merged, ledger)
    ledger.require_fit("in how the configuration and the network fit together")
    return trained.model_copy(
        update={
            "config": merged,
            "inference": inference,
            "save_probabilities": save,
            "decisions": tuple(ledger.decisions),
        }
    )


def _decide_classes(config: Config, fingerprint: Fingerprint, ledger: Ledger) -> Classes:
    coding = fingerprint.coding
    given, ignored = config.data.n_classes, ", ".join(map(str, config.loss.ignored_values))
    if fingerprint.class_counts is not None and not any(fingerprint.class_counts[1:]):
        unless = f" or {ignored} (LOSS.IGNORE_INDEX)" if ignored else ""
        folder = config.data.train.gt_path or config.data.train.path or ""
        ledger.refuse(
            f"DATA.TRAIN.GT_PATH {folder}".strip(),
            f"no training label image holds foreground: every pixel is 0{unless}, so there is nothing to learn",
            "check that these are the label images, and that their values are classes",
        )
    ledger.settle("DATA.N_CLASSES", given, coding.num_classes, "counted in the label images")
    names = _decide_class_names(config, fingerprint, ledger)
    left_out = make_coding(coding.num_classes, config.loss.ignored_values)
    return Classes(names=names, ignore_index=left_out.ignore_index, mapping=coding.mapping, ignored=left_out.ignored)


def _decide_class_names(config: Config, fingerprint: Fingerprint, ledger: Ledger) -> tuple[str, ...]:
    """One name per class, background first."""
    count, named = fingerprint.coding.num_classes, fingerprint.named
    plain = ("foreground",) if count == 2 else tuple(f"class {i}" for i in range(1, count))
    default = ("background", *plain)
    reason = f"no file beside the labels (classes.txt or nnU-Net's dataset.json) names {count} classes"
    if named is not None:
        default, reason = named.names, f"from {named.file}"
    names = ledger.settle("DATA.CLASS_NAMES", config.data.class_names, default, reason)
    if len(names) != count:
        ledger.refuse(
            "DATA.CLASS_NAMES",
            f"{len(names)} names for {count} classes in the label images ({', '.join(names)})",
            "give one name per class, background first",
        )
        return default
    return names


def _decide_output(config: Config, ledger: Ledger) -> bool:
    """Whether probabilities are written."""
    argmax, raw, chunks = config.data.test.argmax_to_output, config.test.save_model_raw_output, config.test.by_chunks
    if chunks.enable and chunks.write_raw_predictions:
        raw = True
    if argmax is None and raw is not None:
        argmax = not raw
    settled = ledger.settle(
        "DATA.TEST.ARGMAX_TO_OUTPUT",
        argmax,
        True,
        "label images are small and what most people open; False writes one probability channel per class",
    )
    return not settled
