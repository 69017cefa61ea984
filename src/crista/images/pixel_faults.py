"""What is odd about the pixels of images: NaN, constant, saturated, negative, swapped with labels, unlike the training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from crista.config.data import Data
from crista.errors import Problem
from crista.images.dataset import merge_equal
from crista.images.pairing import find_labels_beside
from crista.images.scan import ImageScan, Intensity
from crista.images.split import Split
from crista.images.wording import LEFT_OUT, list_files, place_of

SATURATED = 0.05
"""Share of pixels at the largest value from which a grey image counts as saturated."""
FULL_SCALES = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16))
"""Largest values of the usual cameras and files."""
FEW_VALUES = 8
"""An image of at most so many values looks like labels; label images of more than `MANY_VALUES` look like images."""
MANY_VALUES = 32
FAR = 4.0
"""Contrast that differs by more than this factor is far from training."""


def check_pixels(split: Split, data: Data) -> tuple[list[Problem], list[Problem]]:
    """Problems and warnings about the images of a split by themselves."""
    problems = []
    for pair, scan in split.scanned:
        if scan.is_empty_of_values:
            what = f"holds no finite value: all {scan.num_nonfinite} pixels are NaN or infinite"
            problem = Problem(str(pair.image.path), what, "remove it, or export it again", fix=LEFT_OUT)
            problems.append((pair.image.path, problem))
    return merge_equal(problems), [
        *_labels_among(split),
        *_nonfinite(split),
        *_constant(split),
        *_saturated(split),
        *_negative(split, data),
    ]


def _labels_among(split: Split) -> Iterator[Problem]:
    """Label images that lie beside the images, told by their names and by what they hold."""
    values = {pair.image.path: scan.num_values for pair, scan in split.scanned if scan.num_values is not None}
    beside = [label for _, label in find_labels_beside([pair.image.path for pair in split.pairs])]
    found = [label for label in beside if values.get(label, MANY_VALUES) <= FEW_VALUES]
    if found:
        what = f"label images among the images, as names and few values say: {list_files(found)}"
        yield Problem(place_of(found), what, "move them to a folder of their own", "they are taken for images like the others")


def _nonfinite(split: Split) -> Iterator[Problem]:
    found = [(pair.image.path, scan) for pair, scan in split.scanned if scan.num_nonfinite and not scan.is_empty_of_values]
    if found:
        paths, scans = zip(*found, strict=True)
        counted = f"({sum(scan.num_nonfinite for scan in scans)} pixels)"
        one = f"holds NaN or infinite values {counted}"
        what = one if len(paths) == 1 else f"{len(paths)} images hold NaN or infinite values {counted}: {list_files(paths)}"
        effect, fix = "they count as pixels of mean intensity", "they become the mean of the finite pixels of their channel"
        step = "check where they come from"
        yield Problem(place_of(paths), f"{what}: they are replaced by 0 after normalisation", step, effect, fix)


def _constant(split: Split) -> Iterator[Problem]:
    constant = [(pair.image.path, scan) for pair, scan in split.scanned if scan.is_constant]
    if constant:
        paths = [path for path, _ in constant]
        one = f"the image is constant: every pixel is {constant[0][1].channels[0].min:g}"
        what = one if len(paths) == 1 else f"{len(paths)} images are constant: {list_files(paths)}"
        step = "nothing can be seen in it; remove it if that is not meant"
        yield Problem(place_of(paths), what, step, "it becomes 0 after normalisation, and teaches nothing")


def _saturated(split: Split) -> Iterator[Problem]:
    """Grey images with many pixels at full scale. Colour images are left out: white is the background of stained tissue."""
    found = [
        (pair, scan)
        for pair, scan in split.scanned
        if len(scan.channels) == 1
        and scan.num_values is not None
        and scan.num_values > MANY_VALUES
        and scan.share_at_top >= SATURATED
        and scan.channels[0].max in FULL_SCALES
    ]
    if found:
        worst, scan = max(found, key=lambda item: item[1].share_at_top)
        share = f"{scan.share_at_top:.0%} of the pixels have the largest value, {scan.channels[0].max:g}"
        others = f" ({len(found)} images: {list_files([pair.image.path for pair, _ in found])})" if len(found) > 1 else ""
        step = "expose less, or export without stretching the contrast"
        effect = "what lies in the saturated parts cannot be told apart"
        yield Problem(str(worst.image.path), f"saturated: {share}{others}", step, effect)


def _negative(split: Split, data: Data) -> Iterator[Problem]:
    """Negative intensities, where they are divided by the largest value that a file can hold."""
    if data.normalization.type != "div":
        return
    found = [pair.image.path for pair, scan in split.scanned if any(channel.min < 0 for channel in scan.channels)]
    if found:
        lowest = min(channel.min for _, scan in split.scanned for channel in scan.channels)
        listed = f": {list_files(found)}" if len(found) > 1 else ""
        what = f"negative intensities down to {lowest:g}{listed}; DATA.NORMALIZATION.TYPE: div is made for 0 to 255 or 65535"
        step = "set DATA.NORMALIZATION.TYPE: zero_mean_unit_variance"
        yield Problem(place_of(found), what, step, "they stay negative after the division")


def check_swapped(split: Split) -> Problem | None:
    """A problem if the folder of images holds label images and the folder of labels images."""
    both = [
        (scan, summary)
        for scan, summary in zip(split.scans, split.summaries, strict=True)
        if scan is not None and summary is not None
    ]
    odd = [
        scan
        for scan, summary in both
        if scan.num_values is not None
        and 1 < scan.num_values <= FEW_VALUES
        and (summary.num_values > MANY_VALUES or (summary.channels == "different" and (summary.num_colours or 0) > MANY_VALUES))
    ]
    if not odd or 2 * len(odd) <= len(both):
        return None
    images = place_of([pair.image.path for pair in split.pairs])
    labels = place_of([pair.label.path for pair in split.pairs if pair.label is not None])
    what = f"looks swapped with {labels}: the images hold {odd[0].num_values} distinct values, the label images many"
    key = f"DATA.{split.role.upper()}"
    fix = f"{key}.PATH and {key}.GT_PATH change places"
    return Problem(images, what, f"exchange {key}.PATH and {key}.GT_PATH", fix=fix)


def check_unlike(learnt: Split, test: Split, data: Data) -> list[Problem]:
    """Warnings where the test images are of another dtype, or far from the training images in brightness or contrast."""
    if not learnt.scanned or not test.scanned:
        return []
    where = place_of([pair.image.path for pair, _ in test.scanned])
    types = [sorted({pair.image.dtype.name for pair, _ in split.scanned}) for split in (learnt, test)]
    found = []
    how, harm = _after_normalisation(data)
    if not set(types[0]) & set(types[1]):
        what = f"test images are {', '.join(types[1])}, training images {', '.join(types[0])}"
        found.append(Problem(where, what, "use images of one kind, exported in the same way", how))
    known, seen = (_pool([scan for _, scan in split.scanned]) for split in (learnt, test))
    ratio = seen.std / known.std if known.std > 0 and seen.std > 0 else 1.0
    outside = not known.min <= seen.mean <= known.max
    if outside or not 1 / FAR <= ratio <= FAR:
        what = f"intensities of the test images ({_show(seen)}) are far from those of the training images ({_show(known)})"
        step = harm or "check that both come from the same kind of image"
        found.append(Problem(where, what, step, how))
    return found


def _after_normalisation(data: Data) -> tuple[str, str]:
    """What normalisation makes of other intensities, and the advice where that is not enough."""
    if data.normalization.type == "zero_mean_unit_variance" and data.normalization.zero_mean_unit_var.given:
        return "the same fixed mean and standard deviation serve both: the network meets values that it has not learnt", (
            "leave DATA.NORMALIZATION.ZERO_MEAN_UNIT_VAR out, so that each image is normalised by itself"
        )
    if data.normalization.type == "div":
        return "both are divided by the same number: the network meets values that it has not learnt", (
            "set DATA.NORMALIZATION.TYPE: zero_mean_unit_variance, so that each image is normalised by itself"
        )
    return "each image is normalised by itself, which makes up for brightness and contrast, not for noise or saturation", ""


def _pool(scans: Sequence[ImageScan]) -> Intensity:
    return Intensity.merge([channel for scan in scans for channel in scan.channels])


def _show(found: Intensity) -> str:
    return f"{found.min:.4g} to {found.max:.4g}, mean {found.mean:.4g}, standard deviation {found.std:.3g}"
