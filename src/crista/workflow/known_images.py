"""Images that a trained network knows: a warning where what is measured may have been learnt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from crista.images.check import DatasetReport
from crista.images.digest import digest_files
from crista.images.image import ImagePair
from crista.images.listing import expand_home
from crista.images.wording import plural
from crista.patches.prepare import make_split
from crista.patches.split import Source, Split
from crista.plan.events import Event, Warned
from crista.plan.plan import Plan
from crista.training.checkpoint import Checkpoint


def warn_of_known_images(pairs: Sequence[ImagePair], plan: Plan) -> Iterator[Event]:
    """A warning if images that are measured lie where those of the training lay: the network has seen them."""
    if not plan.config.data.train.path:
        return
    learnt = expand_home(plan.config.data.train.path).resolve()
    measured = [pair.image.path.resolve() for pair in pairs if pair.label is not None]
    known = sum(learnt in (path, path.parent) for path in measured)
    if known:
        yield Warned(
            f"{known} of {plural(len(measured), 'image')} that {'is' if len(measured) == 1 else 'are'} measured lie where the "
            f"training images were ({learnt}): the network has learnt from them, and the figures say little about new images"
        )


def warn_of_learnt_images(split: Split, report: DatasetReport, start: Checkpoint) -> Iterator[Event]:
    """Warnings if images that validate a training, or test it, were trained on by the network `start` that it starts from.

    Which they were is known where the images are still those of that training; else it is only known where those lay.
    """
    yield from warn_of_known_images(report.test, start.plan)
    learnt, measured = start.plan.config.data, len(split.validation)
    folder = expand_home(learnt.train.path or "").resolve()
    if not learnt.train.path:
        return
    inside = [source for source in split.validation if folder in (path := source.pair.image.path.resolve(), path.parent)]
    if not inside and folder.exists():  # other images; where the folder is gone they may have come from another machine
        return
    if learnt.val.from_train and _is_data_of(start, report):
        before = make_split(start.plan, report.train, ())
        known = [source for source in split.validation if any(_overlap(source, other) for other in before.train)]
        verb = "was" if len(known) == 1 else "were"
    else:
        known, verb = inside, "may have been"
    if known:
        yield Warned(
            f"{len(known)} of {plural(measured, 'image')} that {'validates' if measured == 1 else 'validate'} {verb} trained on "
            "by the network that this training starts from: then the validation figures are too good. The images, SYSTEM.SEED "
            "and DATA.VAL of its training would keep the same ones aside; images that it never saw (DATA.TEST.PATH) give figures "
            "to rely on"
        )


def _is_data_of(start: Checkpoint, report: DatasetReport) -> bool:
    """Whether the images of `report` are those that `start` was trained with."""
    files = training_files(report)
    if digest_files(files) == start.data_key:
        return True
    own = start.plan.config.paths.checkpoint_file  # with which its training began in turn
    begun = expand_home(own) if start.plan.config.model.load_checkpoint and own else None
    return begun is not None and begun.is_file() and digest_files([*files, begun]) == start.data_key


def _overlap(one: Source, other: Source) -> bool:
    """Whether two sources share pixels."""
    if (one.pair.image.path, one.pair.image.inner) != (other.pair.image.path, other.pair.image.inner):
        return False
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one.region, other.region, strict=True))


def warn_of_other_split(report: DatasetReport, trained: Checkpoint) -> Iterator[Event]:
    """A warning if the images that training and validation are split from are no more those of the training of `trained`.

    The same choice among other images may take some to validate that were trained on.
    """
    if trained.plan.config.model.load_checkpoint or not trained.data_key:  # then it identifies the starting network as well
        return
    if digest_files(training_files(report)) != trained.data_key:
        yield Warned(
            "the images of DATA.TRAIN are not those that the network was trained with (some were added, taken away or changed): "
            "what is measured as its validation may have been trained on. New images (DATA.TEST.PATH) give figures to rely on"
        )


def training_files(report: DatasetReport) -> list[Path]:
    """The files of the training and validation images and of their labels, in their order."""
    images = [image for pair in (*report.train, *report.val) for image in (pair.image, pair.label)]
    return [image.path for image in images if image is not None]
