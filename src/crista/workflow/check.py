"""Check: are the data of a run sound? As events; PyTorch is not needed for it."""

from __future__ import annotations

from collections.abc import Generator

from crista.config.root import Config
from crista.images.check import DatasetReport, check_dataset
from crista.images.labels import LabelCoding
from crista.plan.events import Event, Said, StageStarted, Warned
from crista.plan.plan import Plan


def check(config: Config, trained: Plan | None = None) -> Generator[Event, None, DatasetReport]:
    """Check the data that the run needs; yields a warning or a line for each finding, returns the report."""
    yield StageStarted("check")
    fold_as_test = config.data.test.use_val_as_test
    report = check_dataset(
        config if trained is None else with_classes(config, trained),
        need_train=config.train.enable,
        need_test=config.test.enable and not fold_as_test,
        coding=_settled_coding(trained),
    )
    for notice in report.notices:
        yield Said(notice)
    for warning in report.warnings:
        yield Warned(str(warning))
    return report


def with_classes(config: Config, trained: Plan) -> Config:
    """`config` with the data settings that a trained network has settled: its classes, channels and dimensions."""
    patch = (*trained.patch_size, trained.num_channels)
    data = config.data.model_copy(update={"n_classes": trained.classes.num_classes, "patch_size": patch})
    problem = config.problem.model_copy(update={"ndim": f"{trained.ndim}D"})
    return config.model_copy(update={"data": data, "problem": problem})


def _settled_coding(trained: Plan | None) -> LabelCoding | None:
    """What label values mean to a trained network."""
    if trained is None:
        return None
    from crista.patches.prepare import coding_of  # torch is slow to import; who has a trained network has it already

    return coding_of(trained)
