"""Images that a trained network knows: a warning where what is measured may have been learnt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from crista.images.check import DatasetReport
from crista.images.digest import digest_files
from crista.images.image import ImagePair
from crista.images.wording import plural
from crista.plan.events import Event, Warned
from crista.plan.plan import Plan
from crista.training.checkpoint import Checkpoint


def warn_of_known_images(pairs: Sequence[ImagePair], plan: Plan) -> Iterator[Event]:
    """A warning if images that are measured lie where those of the training lay: the network has seen them."""
    if not plan.config.data.train.path:
        return
    learnt = Path(plan.config.data.train.path).expanduser().resolve()
    measured = [pair.image.path.resolve() for pair in pairs if pair.label is not None]
    known = sum(learnt in (path, path.parent) for path in measured)
    if known:
        yield Warned(
            f"{known} of {plural(len(measured), 'image')} that {'is' if len(measured) == 1 else 'are'} measured lie where the "
            f"training images were ({learnt}): the network has learnt from them, and the figures say little about new images"
        )


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
