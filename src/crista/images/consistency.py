"""Checks that need no pixels: shapes, channels, dtypes, voxel sizes, and sizes against the patch."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import permutations
from typing import Any

from crista.config.data import Data
from crista.errors import Problem
from crista.geometry.spacing import Spacing
from crista.images.fingerprint import median_spacing
from crista.images.image import Image, ImagePair
from crista.images.open import axes_key
from crista.images.wording import LEFT_OUT, list_files, list_names, place_of, plural, show_shape

LEAST_SIDE = 32
"""Images with a shorter y or x side are smaller than any patch the plan would choose, pixels."""
SPACING_TOLERANCE = 0.05
SAVE_TURNED = "save it turned (ImageMagick: -auto-orient; Pillow: ImageOps.exif_transpose)"


def check_shapes(pairs: Iterable[ImagePair]) -> Iterator[Problem]:
    """Image and label of a pair must have the same (Z)YX shape; pairs with the same difference are one problem."""
    groups: dict[Any, list[tuple[Image, Image]]] = defaultdict(list)
    for pair in pairs:
        image, label = pair.image, pair.label
        if label is not None and label.spatial_shape != image.spatial_shape:
            alike = label.path.parent, image.spatial_shape, label.spatial_shape, label.axes, *map(_is_turned, (image, label))
            groups[alike].append((image, label))
    for found in groups.values():
        image, label = found[0]
        shapes = label.spatial_shape, image.spatial_shape
        what = f"has shape {show_shape(shapes[0])}, its image {image.path.name} has {show_shape(shapes[1])}"
        next_step = f"both must be the same ({'zyx'[-image.ndim :]} order); is it the label of another image?"
        if sorted(shapes[0]) == sorted(shapes[1]):
            what += ": it looks transposed"
            next_step = _turning_step(image, label)
        if len(found) > 1:
            what += f" (the same in {len(found) - 1} more: {_names([other for _, other in found[1:]])})"
        yield Problem(str(label.path), what, next_step, fix=LEFT_OUT)


def _turning_step(image: Image, label: Image) -> str:
    """What to do about a label image with the lengths of its image in another order."""
    turned = [side.path.name for side in (image, label) if _is_turned(side)]
    if turned:
        # Named axes would mirror what has to be turned.
        what = f"{turned[0]} is to be turned by its EXIF orientation, which is ignored"
        return f"{what}: {SAVE_TURNED}; or is it the label of another image?"
    letters = "ZYX"[-image.ndim :]
    length = dict(zip(letters, label.spatial_shape, strict=True))
    orders = permutations(letters)
    order = next(order for order in orders if tuple(length[letter] for letter in order) == image.spatial_shape)
    named = dict(zip(order, letters, strict=True))
    axes = "".join(named.get(letter, letter) for letter in label.axes)
    return f"transpose it, or name the axes of all label images with {axes_key(is_label=True)}, here {axes}"


def effective_channels(image: Image, data: Data) -> int:
    """Channels that the network gets of an image: DATA.FORCE_RGB repeats a single one three times."""
    return 3 if data.force_rgb and image.num_channels == 1 else image.num_channels


def check_channels(pairs: Sequence[ImagePair], data: Data, *, to_predict: bool = False) -> Iterator[Problem]:
    """All images must have the same number of channels, the one of DATA.PATCH_SIZE where that is given.

    `to_predict`: with a network that is trained, whose DATA.FORCE_RGB stays what it is.
    """
    images = [pair.image for pair in pairs]
    groups = _group(images, lambda image: effective_channels(image, data))
    if len(groups) > 1:
        listed = "; ".join(
            f"{_names(group)} {'has' if len(group) == 1 else 'have'} {plural(count, 'channel')}"
            for count, group in sorted(groups.items())
        )
        next_step = "convert them to the same number of channels"
        if set(groups) == {1, 3} and not data.force_rgb and not to_predict:
            next_step += ", or set DATA.FORCE_RGB: True to repeat single channels three times"
        yield Problem(_place(images), f"images with different numbers of channels: {listed}", next_step)
        return
    if data.patch_size is None or not images:
        return
    found = next(iter(groups))
    wanted = data.patch_size[-1]
    if found != wanted:
        size = (*data.patch_size[:-1], found)
        next_step = f"set DATA.PATCH_SIZE: {size}"
        if found == 1 and wanted == 3:
            next_step += ", or DATA.FORCE_RGB: True to repeat the channel three times"
        what = f"{data.patch_size} asks for {plural(wanted, 'channel')}, "
        what += f"the images have {found} ({images[0].path.name})"
        yield Problem("DATA.PATCH_SIZE", what, next_step)


def check_patch_axes(pairs: Sequence[ImagePair], data: Data) -> Iterator[Problem]:
    """DATA.PATCH_SIZE must have one value per axis of the images, and the channels."""
    if data.patch_size is None or not pairs:
        return
    ndim = pairs[0].image.ndim
    if len(data.patch_size) != ndim + 1:
        form = "(y, x, channels)" if ndim == 2 else "(z, y, x, channels)"
        what = f"{data.patch_size} has {len(data.patch_size)} values, the images are {ndim}D and take {form}"
        yield Problem("DATA.PATCH_SIZE", what, "correct it, or leave it out to have it decided")


def check_sizes(pairs: Sequence[ImagePair], data: Data) -> Iterator[Problem]:
    """Images smaller than a patch: the caller makes these warnings or, without padding, problems."""
    if not pairs:
        return
    ndim = pairs[0].image.ndim
    least = (1, LEAST_SIDE, LEAST_SIDE)[-ndim:]
    if data.patch_size is not None and len(data.patch_size) == ndim + 1:
        least = data.patch_size[:-1]
    images = [pair.image for pair in pairs]
    small = [image for image in images if any(n < size for n, size in zip(image.spatial_shape, least, strict=True))]
    if not small:
        return
    where = _place(small)
    shape = show_shape(small[0].spatial_shape)
    who = f"{shape} is" if len(small) == 1 else f"{len(small)} images (e.g. {small[0].path.name}, {shape}) are"
    named = "the patch" if data.patch_size is not None else "any patch"
    what = f"{who} smaller than {named} ({show_shape(least)})"
    if data.reflect_to_complete_shape:
        yield Problem(where, f"{what}: padded by reflection")
    else:
        next_step = "set DATA.REFLECT_TO_COMPLETE_SHAPE: True to pad by reflection, or a smaller DATA.PATCH_SIZE"
        yield Problem(where, f"{what}; the minimum is {show_shape(least)}, because padding is turned off", next_step)


def check_dtypes(pairs: Sequence[ImagePair], data: Data) -> Iterator[Problem]:
    """A warning where images of several dtypes are trained on together."""
    groups = _group([pair.image for pair in pairs], lambda image: image.dtype.name)
    if len(groups) < 2:
        return
    listed = "; ".join(f"{dtype} ({_names(group)})" for dtype, group in sorted(groups.items()))
    fixed = data.normalization.type == "zero_mean_unit_variance" and data.normalization.zero_mean_unit_var.given
    how = "the same fixed mean and standard deviation serve all" if fixed else "each image is normalised by itself"
    next_step = "use images of one dtype, or leave the statistics to each image" if fixed else ""
    images = [pair.image for pair in pairs]
    yield Problem(_place(images), f"images of different dtypes: {listed}; {how}", next_step)


def check_spacings(pairs: Sequence[ImagePair]) -> Iterator[Problem]:
    """A warning where voxel sizes differ by more than 5 %."""
    images = [pair.image for pair in pairs if pair.image.spacing is not None]
    values = [image.spacing.values for image in images if image.spacing is not None]
    for axis in zip(*values, strict=True):
        if max(axis) > min(axis) * (1 + SPACING_TOLERANCE):
            low, high = images[axis.index(min(axis))], images[axis.index(max(axis))]
            what = f"voxel sizes differ: {low.path.name} {low.spacing}, {high.path.name} {high.spacing}"
            next_step = "images are used as they are; resample them to one voxel size if objects look different"
            effect = "the same object has several sizes in pixels, and the network has to learn them all"
            yield Problem(_place(images), what, next_step, effect)
            return


def check_test_spacing(learnt: Sequence[ImagePair], test: Sequence[ImagePair]) -> Iterator[Problem]:
    """A warning where the voxels of test images are not of the size of those that are trained on."""
    known = median_spacing([pair.image.spacing for pair in learnt])
    if known is None:
        return
    found: dict[str, list[Image]] = defaultdict(list)
    for pair in test:
        if pair.image.spacing is not None and spacing_factors(pair.image.spacing, known):
            found[str(pair.image.spacing)].append(pair.image)
    for size, images in found.items():
        assert images[0].spacing is not None
        factors = spacing_factors(images[0].spacing, known)
        named = f"{len(images)} images ({_names(images)}): " if len(images) > 1 else ""
        what = f"{named}pixel size {size}, training was {Spacing(known)} (a factor of {show_factors(factors)})"
        effect = f"objects are {show_factors([1 / factor for factor in factors])} times as large in pixels as those learnt"
        yield Problem(_place(images), what, rescaling_step(images[0], factors), effect)


def spacing_factors(own: Spacing, learnt: Sequence[float]) -> tuple[float, ...]:
    """Voxel size over the one that was learnt, per axis; empty where they agree within the tolerance."""
    factors = tuple(size / known for size, known in zip(own.values, learnt, strict=True))
    far = any(not 1 / (1 + SPACING_TOLERANCE) <= factor <= 1 + SPACING_TOLERANCE for factor in factors)
    return factors if far else ()


def show_factors(factors: Sequence[float]) -> str:
    """``0.62``, or ``1 × 0.62 × 0.62`` where the axes differ."""
    shown = [f"{factor:.3g}" for factor in factors]
    return shown[0] if len(set(shown)) == 1 else " × ".join(shown)


def rescaling_step(image: Image, factors: Sequence[float]) -> str:
    """What to do about voxels of another size: the shape that makes them equal, and a line of Python that makes it."""
    shape = tuple(max(1, round(length * factor)) for length, factor in zip(image.spatial_shape, factors, strict=True))
    zoom = ", ".join(f"{factor:.4g}" for factor in factors)
    return (
        f"rescale to the size that was learnt: {image.path.name} becomes {show_shape(shape)}, e.g. with "
        f"scipy.ndimage.zoom(image, ({zoom}), order=1) (label images: order=0), or in Fiji with Image › Scale…"
    )


def check_orientations(pairs: Sequence[ImagePair]) -> Iterator[Problem]:
    """A warning where NIfTI headers say that image and label run in other directions: their shapes may be the same."""
    found = [
        (pair.image, pair.label)
        for pair in pairs
        if pair.label is not None and pair.image.orientation and pair.label.orientation not in ("", pair.image.orientation)
    ]
    if found:
        image, label = found[0]
        labels = [label for _, label in found]
        more = f" (and other ones in {len(found)} files: {_names(labels)})" if len(found) > 1 else ""
        what = f"{label.path.name} is stored in the directions {label.orientation}, its image in {image.orientation}{more}"
        effect = "pixels are paired as they are stored: if both headers are right, the labels are mirrored or turned"
        step = "look at image and label (crista check … --report); if need be, save both with nibabel.as_closest_canonical"
        yield Problem(_place(labels), what, step, effect)


def gather_notes(pairs: Sequence[ImagePair]) -> tuple[list[Problem], list[str]]:
    """What the readers tell: warnings (equal ones of several files as one), and notices about guessed axes."""
    images = [image for pair in pairs for image in (pair.image, pair.label) if image is not None]
    notes: dict[str, list[tuple[str, Image]]] = defaultdict(list)
    guesses: dict[str, list[Image]] = defaultdict(list)
    for image in images:
        for note in image.notes:
            notes[re.sub(r"\d+", "0", note)].append((note, image))
        told = image.axes == "YX" or any(image.axes_reason in note for note in image.notes)
        if image.axes_reason not in ("metadata", "given") and not told:
            guesses[image.axes_reason].append(image)
    warnings = [_warn_of(group) for group in notes.values()]
    notices = [f"{_different_names(group)}: axes {guess}" for guess, group in guesses.items()]
    return warnings, notices


def _warn_of(noted: Sequence[tuple[str, Image]]) -> Problem:
    """One warning for notes that differ in their numbers only."""
    texts, images = zip(*noted, strict=True)
    note = texts[0]
    alike = "" if len(set(texts)) == 1 else "and the like, "
    what = note if len(images) == 1 else f"{note} ({alike}{len(images)} files: {_names(images)})"
    if not _is_of_exif(note):
        return Problem(_place(images), what)
    effect = "a label image that was drawn on the turned picture does not lie on this one"
    return Problem(_place(images), what, f"look at image and label (crista check … --report); if need be, {SAVE_TURNED}", effect)


def _is_turned(image: Image) -> bool:
    return any(map(_is_of_exif, image.notes))


def _is_of_exif(note: str) -> bool:
    return note.startswith("EXIF orientation")


def _group(images: Sequence[Image], key: Callable[[Image], Any]) -> dict[Any, list[Image]]:
    groups: dict[Any, list[Image]] = defaultdict(list)
    for image in images:
        groups[key(image)].append(image)
    return groups


def _place(images: Sequence[Image]) -> str:
    return place_of([image.path for image in images])


def _different_names(images: Sequence[Image]) -> str:
    """Each name once: a label image is often called as its image."""
    return list_names(list(dict.fromkeys(image.path.name for image in images)))


def _names(images: Sequence[Image]) -> str:
    return list_files([image.path for image in images])
