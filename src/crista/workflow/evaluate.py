"""Evaluate: label images against label images, without any network."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crista.errors import DataError, ImageReadError, Problem
from crista.geometry.spacing import common_spacing
from crista.geometry.tiles import whole
from crista.images.coding import CodingDecision, decide_coding
from crista.images.dataset import as_problem, merge_equal
from crista.images.image import Image
from crista.images.label_faults import Summaries, numbered_objects_warnings
from crista.images.labels import LabelCoding, read_label, summarise_label
from crista.images.listing import list_images
from crista.images.open import open_image
from crista.images.pairing import pair_files
from crista.images.wording import list_files, show_values
from crista.inference.measure import boundary_in, iter_slabs
from crista.metrics import (
    Estimate,
    ImageCounts,
    compute_confusion,
    describe_tolerance,
    estimate,
    iou,
    near_offsets,
    summarise,
)
from crista.metrics.boundary import BoundaryCounts
from crista.metrics.overlap import Confusion
from crista.plan.events import Event, ImageFinished, Said, StageStarted, Warned
from crista.workflow.check import check_names

WORDS = {
    "LOSS.IGNORE_INDEX: ": "--ignore-index ",
    "LOSS.IGNORE_INDEX": "--ignore-index",
    "DATA.N_CLASSES: ": "--classes ",
    "DATA.N_CLASSES": "--classes",
}
"""How `crista evaluate` calls the keys of a configuration."""
NO_KEYS = re.compile(r"; if the \d+ channels are slices of a volume, .*DATA\.TRAIN\.INPUT.*")
"""Advice that only a configuration can follow."""
LIST = re.compile(r"\[[\d, ]+\]")
"""Several values as a configuration has them; a command line takes them as one word, ``254,255``."""


@dataclass(frozen=True)
class Evaluation:
    """How well some label images agree with the true ones."""

    names: tuple[str, ...]
    """One per image."""
    confusions: tuple[Confusion, ...]
    """(K, K) counts per image, rows truth."""
    summary: Mapping[str, float]
    """Means over images and pooled values, see `crista.metrics.summarise`."""

    boundaries: tuple[BoundaryCounts, ...]
    """(K, 4) edge counts per image, see `crista.metrics.boundary`."""
    estimates: tuple[Estimate, ...]
    """Figures over all images with their intervals, see `crista.metrics.estimate`."""
    class_names: tuple[str, ...]
    tolerance: str
    """Up to which distance edges count as the same, in words."""

    @property
    def pooled(self) -> NDArray[np.int64]:
        """Counts over all images."""
        total: NDArray[np.int64] = np.sum(self.confusions, axis=0)
        return total

    @property
    def pooled_boundary(self) -> NDArray[np.int64]:
        """Edge counts over all images."""
        total: NDArray[np.int64] = np.sum(self.boundaries, axis=0)
        return total

    @property
    def class_iou(self) -> tuple[float, ...]:
        """IoU of each class over all pixels; NaN for a class that is nowhere."""
        return tuple(float(value) for value in iou(self.pooled))


def evaluate_folders(
    labels: Path,
    predictions: Path,
    *,
    num_classes: int | None = None,
    ignore_index: int | Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
) -> Generator[Event, None, Evaluation]:
    """Compare two folders (or files) of label images, paired by name.

    Parameters
    ----------
    labels, predictions : true and predicted label images
    num_classes : background included; None: counted in both folders
    ignore_index : value of true pixels that are not measured, or several; below 0: none
    class_names : one per class, background first; None: ``class 0``, ``class 1``…

    Raises
    ------
    DataError
        If the files do not pair, differ in shape, or hold no classes.
    """
    pairs, notices = _pair(predictions, labels)
    for notice in notices:
        yield Said(notice)
    opened = _open(pairs)
    problems = [
        Problem(str(predicted.path), f"has shape {predicted.spatial_shape}, the label image {true.path} {true.spatial_shape}")
        for predicted, true in opened
        if predicted.spatial_shape != true.spatial_shape
    ]
    given = () if ignore_index is None else np.ravel(ignore_index).tolist()  # whole numbers of NumPy too
    ignored = tuple(sorted({value for value in given if value >= 0}))
    codings, found = _decide_codings(opened, num_classes, ignored, str(labels))
    said = [problem for decision in found for problem in _in_own_words(decision.problems)]
    problems.extend(_or_probabilities(said, [predicted for predicted, _ in opened]))
    if problems or codings is None:
        raise DataError("with the label images", problems)
    for warning in dict.fromkeys(warning for decision in found for warning in _in_own_words(decision.warnings)):
        yield Warned(str(warning))
    classes = _names_of_classes(codings[0].num_classes, class_names)
    counts = yield from _measure(opened, codings)
    return Evaluation(
        names=tuple(true.name for _, true in opened),
        confusions=tuple(image.confusion for image in counts),
        summary=summarise([image.confusion for image in counts]),
        boundaries=tuple(image.boundary for image in counts if image.boundary is not None),
        estimates=estimate(counts, classes),
        class_names=classes,
        tolerance=_tolerance([predicted for predicted, _ in opened]),
    )


def _pair(predictions: Path, labels: Path) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Files of the same name, and notices."""
    predicted, true = list_images(predictions), list_images(labels)
    predicted, twins = _without_twins(predicted)
    try:
        pairs, notices = pair_files(predicted, true)
        return pairs, [*twins, *notices]
    except DataError as error:
        title = f"{error.title}; here the predictions are the images"
        raise DataError(title, _in_own_words(error.problems)) from error


def _without_twins(predicted: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The predictions without the TIFFs that hold the same as the OME-Zarr of their name, and a notice.

    With TEST.BY_CHUNKS.SAVE_OUT_TIF crista writes both. Where they differ one is of another run, and only the user knows which.
    """
    stores = {path.stem: path for path in predicted if path.suffix == ".zarr"}
    twins = [path for path in predicted if path.suffix == ".tif" and path.stem in stores and _is_same(path, stores[path.stem])]
    if not twins:
        return list(predicted), []
    said = f"{list_files(twins)}: holds the same as the OME-Zarr of this name (TEST.BY_CHUNKS.SAVE_OUT_TIF), which is measured"
    return [path for path in predicted if path not in twins], [said]


def _is_same(one: Path, other: Path) -> bool:
    """Whether two files hold the same pixels."""
    try:
        first, second = open_image(one, is_label=True), open_image(other, is_label=True)
    except ImageReadError:
        return False
    if first.spatial_shape != second.spatial_shape:
        return False
    return all(np.array_equal(first.read(block), second.read(block)) for block in iter_slabs(first.spatial_shape))


def _open(pairs: Sequence[tuple[Path, Path]]) -> list[tuple[Image, Image]]:
    """The (predicted, true) images, or everything that cannot be read at once."""
    opened: dict[Path, Image] = {}
    unreadable: list[tuple[Path, Problem]] = []
    for path in dict.fromkeys(path for pair in pairs for path in pair):
        try:
            opened[path] = open_image(path, is_label=True)
        except ImageReadError as error:
            problem = as_problem(path, error)
            if "INPUT_ZARR" in problem.next_step:  # a key; there is none here
                problem = replace(problem, next_step="export the label image as a file of its own")
            unreadable.append((path, problem))
    if unreadable:
        raise DataError("with the label images", merge_equal(unreadable))
    return [(opened[predicted], opened[true]) for predicted, true in pairs]


def _in_own_words(problems: Sequence[Problem]) -> list[Problem]:
    """There is no configuration here, and `crista check --fix` makes copies of images and labels, not of predictions."""
    own = [replace(one, fix="", next_step=NO_KEYS.sub("", one.next_step)).reworded(WORDS) for one in problems]
    return [replace(one, next_step=LIST.sub(lambda found: found[0][1:-1].replace(" ", ""), one.next_step)) for one in own]


def _or_probabilities(problems: Sequence[Problem], predicted: Sequence[Image]) -> Iterator[Problem]:
    """The problems; of predictions of which real numbers may be probabilities with where crista writes their label images."""
    real = {str(image.path) for image in predicted if image.dtype.kind == "f"}
    for one in problems:
        step = "; if these are probabilities that crista has written, take the label images in per_image_binarized"
        yield replace(one, next_step=one.next_step + step) if one.where in real else one


def _names_of_classes(num_classes: int, given: Sequence[str] | None) -> tuple[str, ...]:
    if given is None:
        return tuple(f"class {number}" for number in range(num_classes))
    problems = check_names("class_names", given)
    if len(given) != num_classes and not isinstance(given, str):
        what = f"has {len(given)} names, the label images have {num_classes} classes"
        problems.append(Problem("class_names", what, "give one for each, background first"))
    if problems:
        raise DataError("with the label images", problems)
    return tuple(given)


def _measure(
    opened: Sequence[tuple[Image, Image]], codings: tuple[LabelCoding, LabelCoding]
) -> Generator[Event, None, list[ImageCounts]]:
    """Counts of each (predicted, true) pair of images."""
    yield StageStarted("evaluate", len(opened))
    for_true, for_predicted = codings
    found = []
    for index, (predicted, true) in enumerate(opened, 1):
        counts = np.zeros((for_true.num_classes,) * 2, np.int64)
        for block in iter_slabs(true.spatial_shape):
            counts += compute_confusion(
                read_label(true, for_true, block),
                read_label(predicted, _without_ignore(for_predicted), block),
                num_classes=for_true.num_classes,
                ignore_index=for_true.ignore_index,
            )
        found.append(ImageCounts(counts, _boundary(predicted, true, codings)))
        yield ImageFinished(true.name, index, len(opened), summarise([counts]))
    return found


def _boundary(predicted: Image, true: Image, codings: tuple[LabelCoding, LabelCoding]) -> NDArray[np.int64]:
    """Edge counts of one image; the voxel size is that of the prediction, which crista takes from the image."""
    for_true, for_predicted = codings
    return boundary_in(
        whole(true.spatial_shape),
        (
            lambda region: read_label(true, for_true, region),
            lambda region: read_label(predicted, _without_ignore(for_predicted), region),
        ),
        near_offsets(predicted.spacing.values if predicted.spacing is not None else None, predicted.ndim),
        num_classes=for_true.num_classes,
        ignore_index=for_true.ignore_index,
    )


def _tolerance(predicted: Sequence[Image]) -> str:
    return describe_tolerance(common_spacing(image.spacing for image in predicted))


def _decide_codings(
    opened: Sequence[tuple[Image, Image]], num_classes: int | None, ignored: Sequence[int], where: str
) -> tuple[tuple[LabelCoding, LabelCoding] | None, list[CodingDecision]]:
    """What values mean in (predicted, true) images: the codings of the true and of the predicted ones.

    They are decided together, but for two classes that one side writes as 0 and 1 and the other as 0 and 255, and for predictions
    of crista where the true values have gaps: it numbers the classes, and that is what it writes.
    """
    predicted, true = ([(image.path, summarise_label(image)) for image in side] for side in zip(*opened, strict=True))
    where_predicted = str(predicted[0][0].parent)
    in_true, in_predicted = ({value for _, summary in side for value in summary.values} for side in (true, predicted))
    low, high = sorted((in_true.difference(ignored), in_predicted.difference(ignored)), key=lambda side: max(side, default=0))
    apart = num_classes in (None, 2) and low <= {0, 1} and 1 in low and high <= {0, 255} and 255 in high
    if apart:
        # That predictions hold no pixels without annotation is as it should be; only true label images are warned of.
        left_out = [value for value in ignored if value in in_predicted]
        found = [decide_coding(true, num_classes=2, ignore_index=ignored, where=where)]
        found.append(decide_coding(predicted, num_classes=2, ignore_index=left_out, where=where_predicted))
        return _both(found, predicted)
    alone = decide_coding(true, num_classes=num_classes, ignore_index=ignored, where=where)
    if alone.coding is None or alone.coding.mapping is None:
        together = decide_coding([*predicted, *true], num_classes=num_classes, ignore_index=ignored, where=where)
        if num_classes is None and _are_apart(together.coding, in_true.difference(ignored), in_predicted):
            return None, [CodingDecision(None, (_nothing_in_common(in_true.difference(ignored), in_predicted, where),))]
        numbered = [] if num_classes is not None or ignored else numbered_objects_warnings(true, where)
        found = [replace(together, warnings=(*together.warnings, *numbered))]
    elif _are_numbers_of(alone.coding, in_predicted, num_classes):
        numbers = decide_coding(predicted, num_classes=alone.coding.num_classes, ignore_index=None, where=where_predicted)
        said = _say_numbers(alone.coding, in_predicted, where_predicted)
        found = [alone, replace(numbers, warnings=(*numbers.warnings, said))]
    elif num_classes is None and _are_apart(alone.coding, in_true.difference(ignored), in_predicted):
        return None, [CodingDecision(None, (_nothing_in_common(in_true.difference(ignored), in_predicted, where),))]
    else:
        found = [decide_coding([*predicted, *true], num_classes=num_classes, ignore_index=ignored, where=where)]
    return _both(found, predicted)


def _both(
    found: list[CodingDecision], predicted: Summaries
) -> tuple[tuple[LabelCoding, LabelCoding] | None, list[CodingDecision]]:
    """The codings of the true and of the predicted images, decided together or apart, and what there is to say."""
    codings = [decision.coding for decision in found if decision.coding is not None]
    if len(codings) < len(found):
        return None, found
    return (codings[0], codings[-1]), [*found, CodingDecision(None, tuple(_unknown_predictions(predicted, codings[-1])))]


def _are_numbers_of(alone: LabelCoding, written: set[int], num_classes: int | None) -> bool:
    """Whether predictions hold the numbers that a coding gives the true values, and not those values.

    Values that could be both leave that open, unless the number of classes says it.
    """
    known = {value for value, _ in alone.mapping or ()}
    if written <= known or not written <= set(range(alone.num_classes)):
        return False
    return num_classes is not None or 0 not in known or written & known <= {0}


def _are_apart(coding: LabelCoding | None, true: set[int], written: set[int]) -> bool:
    """Whether values with gaps have none but 0 in common with those of the other side."""
    has_gaps = coding is not None and coding.mapping is not None
    return has_gaps and bool(true - {0}) and bool(written - {0}) and not (true & written) - {0}


def _nothing_in_common(true: set[int], written: set[int], where: str) -> Problem:
    what = f"the true label images hold {show_values(sorted(true))} and the predictions {show_values(sorted(written))}: "
    what += "which value of "
    what += "the one is which of the other cannot be told"
    step = "write the true label images with the numbers of the predictions; if those are numbers too, give --classes"
    return Problem(where, what, step)


def _say_numbers(coding: LabelCoding, written: set[int], where: str) -> Problem:
    true = [value for value, _ in coding.mapping or ()]
    what = f"the predictions hold {show_values(sorted(written))}, taken for the numbers of the true values {show_values(true)} "
    what += "in their order, as crista writes them"
    return Problem(where, what, "if these are other classes, give --classes, background and classes that do not occur included")


def _unknown_predictions(predicted: Summaries, coding: LabelCoding) -> Iterator[Problem]:
    """Predictions that hold what only true label images may: pixels without annotation."""
    known = _without_ignore(coding).class_of
    for path, summary in predicted:
        unknown = [value for value in summary.values if value not in known]
        if unknown:
            what = f"the prediction holds {show_values(unknown)}, and its classes are {show_values(sorted(known))}"
            step = "a prediction has a class in every pixel: --ignore-index is for true label images alone"
            if unknown == [0]:
                step += f"; if 0 is a class there, set --classes {coding.num_classes + 1}"
            yield Problem(str(path), what, step)


def _without_ignore(coding: LabelCoding) -> LabelCoding:
    """A prediction has no ignored pixels."""
    return LabelCoding(coding.num_classes, None, coding.mapping)
