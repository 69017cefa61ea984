"""Check: are the data of a run sound? As events; PyTorch is not needed for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

from crista.config.effects import idle_in
from crista.config.root import Config, check_across_sections
from crista.errors import ConfigError, Problem
from crista.geometry.spacing import Spacing
from crista.images.check import DatasetReport, check_dataset
from crista.images.consistency import effective_channels, rescaling_step, show_factors, spacing_factors
from crista.images.dataset import merge_equal
from crista.images.image import Image, ImagePair
from crista.images.labels import LabelCoding
from crista.images.wording import plural, show_shape
from crista.metrics import FOREGROUND
from crista.plan.events import Event, Said, StageStarted, Warned
from crista.plan.plan import Plan

NOTHING_TO_DO = Problem("TRAIN.ENABLE", "and TEST.ENABLE are both False: there is nothing to do", "set one of them to True")


def require_a_stage(config: Config) -> None:
    """Raise a `ConfigError` if neither training nor prediction is asked for."""
    if not config.train.enable and not config.test.enable:
        raise ConfigError("in the configuration", [NOTHING_TO_DO])


def check(config: Config, trained: Plan | None = None) -> Generator[Event, None, DatasetReport]:
    """Check the data that the run needs; yields a warning or a line for each finding, returns the report.

    `trained` is the plan of a network that only predicts: what it has settled is held against the images.
    """
    yield StageStarted("check")
    fold_as_test = config.test.enable and config.data.test.use_val_as_test
    report = check_dataset(
        config if trained is None else with_classes(config, trained),
        need_train=config.train.enable or fold_as_test,
        need_test=config.test.enable and not fold_as_test,
        coding=_settled_coding(trained),
    )
    tested = (report.train if fold_as_test else report.test) if config.test.enable else ()
    problems = [*report.problems, *check_testing(config, tested)]
    if not config.train.enable and not config.test.enable:  # or data that nobody has looked at would seem sound
        problems.append(NOTHING_TO_DO)
    warnings = list(report.warnings)
    if config.problem.ndim is None and report.ndim is not None:
        problems.extend(_check_seen(config, report.ndim))
    idle = idle_in(config, ndim=report.ndim, num_classes=_num_classes(report, trained))
    report = replace(report, notices=(*report.notices, *idle))
    if trained is None:
        problems.extend(check_names(*_given_names(config, report)))
    else:
        problems.extend(_check_channels(tested, trained))
        warnings.extend(_check_spacing(tested, trained))
    for notice in report.notices:
        yield Said(notice)
    for warning in warnings:
        yield Warned(str(warning))
    return replace(report, problems=tuple(problems), warnings=tuple(warnings))


def _num_classes(report: DatasetReport, trained: Plan | None) -> int | None:
    """Classes of the trained network, else of the training labels; None if neither is known."""
    if trained is not None:
        return trained.classes.num_classes
    return report.fingerprint.coding.num_classes if report.fingerprint is not None else None


def _check_seen(config: Config, ndim: int) -> Iterator[Problem]:
    """What contradicts the axes of the images, where PROBLEM.NDIM left them open; `check_dataset` has compared the patch."""
    seen = config.problem.model_copy(update={"ndim": f"{ndim}D"})
    for problem in check_across_sections(config.model_copy(update={"problem": seen})):
        if problem.where != "DATA.PATCH_SIZE":
            yield problem.reworded({"PROBLEM.NDIM is": "the images are"})


def with_classes(config: Config, trained: Plan) -> Config:
    """`config` with the data settings that a trained network has settled: its classes, channels and dimensions."""
    settled = {"n_classes": trained.classes.num_classes, "patch_size": None, "force_rgb": trained.config.data.force_rgb}
    data = config.data.model_copy(update=settled)
    problem = config.problem.model_copy(update={"ndim": f"{trained.ndim}D"})
    return config.model_copy(update={"data": data, "problem": problem})


def _given_names(config: Config, report: DatasetReport) -> tuple[str, Sequence[str]]:
    """Where the classes are named, and their names: in the configuration, or in a file beside the labels."""
    named = report.fingerprint.named if report.fingerprint is not None else None
    if config.data.class_names is None and named is not None:
        return named.file, named.names
    return "DATA.CLASS_NAMES", config.data.class_names or ()


def check_names(where: str, names: Sequence[str]) -> list[Problem]:
    """What speaks against names of classes: tables and figures find a class by its name."""
    if isinstance(names, str):  # a sequence of letters, to Python
        return [Problem(where, f"{names!r} is one text, not a list of names", "e.g. ['background', 'cell']")]
    problems = [
        Problem(where, f"{name!r} twice; tables could not tell these classes apart", "give each class a name of its own")
        for name, count in Counter(names).items()
        if count > 1
    ]
    if FOREGROUND in names:
        what = f"{FOREGROUND!r} is what the mean over the classes but the background is called"
        problems.append(Problem(where, what, "choose another name"))
    return problems


def check_testing(config: Config, pairs: Sequence[ImagePair]) -> Iterator[Problem]:
    """What TEST asks of the images."""
    shapes = {pair.image.spatial_shape: pair.image for pair in pairs}
    if config.test.analize_2d_imgs_as_3d_stack and len(shapes) > 1:
        listed = ", ".join(f"{image.path.name} {show_shape(shape)}" for shape, image in list(shapes.items())[:3])
        what = f"the slices of a volume have one size, these images have several ({listed})"
        yield Problem("TEST.ANALIZE_2D_IMGS_AS_3D_STACK", what, "leave it out, or crop the images to one size")
    chunks = config.test.by_chunks
    thin = [(image, shape[0]) for shape, image in shapes.items() if len(shape) == 3 and chunks.z_start >= shape[0]]
    if chunks.enable and thin:
        image, depth = thin[0]
        what = f"{chunks.z_start} is beyond the last slice of {image.path.name}, {depth - 1} (the first is 0)"
        yield Problem("TEST.BY_CHUNKS.Z_START", what, "a range of slices must hold some of every image")
    crop = config.test.eval_border_crop
    measured = {pair.image.spatial_shape: pair.image for pair in pairs if pair.label is not None}
    for shape, image in measured.items():
        if len(crop) not in (0, 1, len(shape)):
            what = f"{crop} has {plural(len(crop), 'value')}, the images have {len(shape)} axes"
            yield Problem("TEST.EVAL_BORDER_CROP", what, "one value per axis ([z,] y, x)")
            return
        if crop and any(n <= 2 * c for n, c in zip(shape, crop * (len(shape) // len(crop)), strict=True)):
            what = f"{crop} leaves nothing of {image.path.name} ({show_shape(shape)})"
            yield Problem("TEST.EVAL_BORDER_CROP", what, "it is taken off both ends of each axis: use less than half the image")


def check_validation(config: Config, pairs: Sequence[ImagePair]) -> Iterator[Event]:
    """What TEST asks of the parts of training images that validate, where these are measured: the check has seen whole images.

    Raises
    ------
    ConfigError
        If they cannot be the slices of one volume.
    """
    for problem in check_testing(config, pairs):
        if problem.where == "TEST.ANALIZE_2D_IMGS_AS_3D_STACK":
            raise ConfigError("with the validation images, which are measured", [problem])
        yield Warned(f"of the images a part validates and is measured, and for it {problem}")


def _check_channels(pairs: Sequence[ImagePair], trained: Plan) -> list[Problem]:
    problems = []
    for pair in pairs:
        found = effective_channels(pair.image, trained.config.data)
        if found != trained.num_channels:
            what = f"has {plural(found, 'channel')}, the network was trained on {plural(trained.num_channels, 'channel')}"
            step = "predict images of the kind that it was trained on, or train on these"
            problems.append((pair.image.path, Problem(str(pair.image.path), what, step)))
    return merge_equal(problems)


def _check_spacing(pairs: Sequence[ImagePair], trained: Plan) -> list[Problem]:
    """Warnings, with the factor, where voxels are not of the size that the network was trained on; one for all of a size."""
    told: dict[str, Problem] = {}
    warnings = []
    for pair in pairs:
        own, learnt = pair.image.spacing, trained.spacing
        factors = spacing_factors(own, learnt) if own is not None and learnt is not None else ()
        if factors and learnt is not None:
            found = told.setdefault(str(own), _other_spacing(pair.image, factors, learnt))
            warnings.append((pair.image.path, found))
    return merge_equal(warnings)


def _other_spacing(image: Image, factors: tuple[float, ...], learnt: tuple[float, ...]) -> Problem:
    shown = " × ".join(f"{factor:.3g}" for factor in factors)
    what = f"voxels are {shown} times those that the network was trained on"
    what += f" (pixel size {image.spacing}, training was {Spacing(learnt)})"
    effect = f"objects are {show_factors([1 / factor for factor in factors])} times as large in pixels as those learnt"
    return Problem(str(image.path), what, f"{rescaling_step(image, factors)}; or expect worse labels", effect)


def _settled_coding(trained: Plan | None) -> LabelCoding | None:
    """What label values mean to a trained network."""
    if trained is None:
        return None
    from crista.patches.prepare import coding_of  # torch is slow to import; who has a trained network has it already

    return coding_of(trained)
