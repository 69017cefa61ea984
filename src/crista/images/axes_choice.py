"""Naming the axes of a stored array for a 2D or 3D task: what is given, else metadata, else a stated guess."""

from __future__ import annotations

from dataclasses import dataclass, replace

from crista.geometry.axes import LETTERS

MAX_OBVIOUS_CHANNELS = 4
"""An unnamed first or last axis this short is taken as channels in a 2D task: grey + alpha, RGB, RGBA."""

# How to go on with files of other dimensions than the task has; those of a trained network stay what they are.
VOLUME_IN_2D = "train with PROBLEM.NDIM: 3D for volumes, or split the volume into slices"
VOLUME_TO_A_2D_NETWORK = (
    "save its slices as images of their own, which a 2D network predicts one by one (TEST.ANALIZE_2D_IMGS_AS_3D_STACK: True puts "
    "their labels together to a volume again), or predict with a network that was trained on volumes"
)
IMAGE_IN_3D = "stack the slices of a volume into one file, or train with PROBLEM.NDIM: 2D for images"
IMAGE_TO_A_3D_NETWORK = "stack the slices of a volume into one file, or predict with a network that was trained on 2D images"


class AxesError(ValueError):
    """The axes do not fit the task."""

    def __init__(self, what: str, next_step: str) -> None:
        super().__init__(what)
        self.what = what
        self.next_step = next_step


@dataclass(frozen=True)
class AxesChoice:
    """The axes of a stored array as the task sees them."""

    axes: str
    """Letters of the axes that are kept, in stored order."""
    kept: tuple[int, ...]
    """Positions of those axes in the stored array; the others have length 1."""
    ndim: int
    """Number of spatial axes, 2 or 3."""
    reason: str
    """``metadata``, ``given``, or the reason of the guess."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Naming:
    """Letters found so far, ``?`` where unnamed, for the positions that are kept."""

    letters: str
    kept: tuple[int, ...]
    shape: tuple[int, ...]
    reason: str = "metadata"
    notes: tuple[str, ...] = ()

    def __getitem__(self, letter: str) -> int:
        """Length of the axis `letter`; 1 where there is none."""
        return self.shape[self.letters.index(letter)] if letter in self.letters else 1

    def drop(self, positions: set[int]) -> _Naming:
        """The same without the axes at these positions."""
        stay = [i for i in range(len(self.letters)) if i not in positions]
        return replace(
            self,
            letters="".join(self.letters[i] for i in stay),
            kept=tuple(self.kept[i] for i in stay),
            shape=tuple(self.shape[i] for i in stay),
        )


def choose_axes(
    found: str,
    shape: tuple[int, ...],
    *,
    ndim: int | None,
    given: str | None,
    key: str = "INPUT_IMG_AXES_ORDER",
    to_predict: bool = False,
) -> AxesChoice:
    """Name the axes of an array.

    Parameters
    ----------
    found : one letter per axis as the file says, ``?`` where it does not
    shape : stored shape
    ndim : spatial axes of the task, 2 or 3; None keeps what the file has
    given : axis letters that override the file; None leaves them
    key : the configuration key that gives them, for messages
    to_predict : the image is for a network that is trained, so that `ndim` stays what it is; for messages too

    Raises
    ------
    AxesError
        If the given letters do not fit, or the array does not fit the task.
    """
    if min(shape, default=0) < 0:
        raise AxesError(f"negative lengths in its shape {shape}", "its header is damaged: export the file again")
    if 0 in shape:
        raise AxesError(f"empty image: its shape is {shape}", "remove the file or export it again")
    if len(shape) < 2:
        raise AxesError(f"not an image: shape {shape} has no y and x", "export it with at least two axes")
    naming = _Naming(found, tuple(range(len(shape))), shape)
    if given:
        naming = _use_given(naming, given.upper().replace("S", "C"), key)
    if naming.reason != "given":
        naming = _guess(_drop_singletons(naming, ndim), ndim, key)
    return _check_task(naming, ndim, key, to_predict=to_predict)


def _use_given(naming: _Naming, given: str, key: str) -> _Naming:
    if not set("YX") <= set(given) <= set(LETTERS) or len(set(given)) != len(given):
        raise AxesError(f"axes {given!r} are not valid", f"{key}: each of T C Z Y X at most once, Y and X always")
    rank = len(naming.shape)
    singletons = {i for i, length in enumerate(naming.shape) if length == 1}
    if len(given) == rank:
        return replace(naming, letters=given, reason="given")
    if len(given) == rank - len(singletons):
        return replace(naming.drop(singletons), letters=given, reason="given")
    if len(given) > rank and given in ("TZCYX", "TCZYX"):
        return replace(naming, notes=(f"axes {given} are longer than the shape {naming.shape} and ignored",))
    what = f"axes {given!r} name {len(given)} axes, the array has {rank}: shape {naming.shape}"
    raise AxesError(what, f"{key}: one letter of T C Z Y X per axis")


def _drop_singletons(naming: _Naming, ndim: int | None) -> _Naming:
    """Without axes of length 1 that are no channel and no space; unnamed ones only where too many axes are left."""
    naming = naming.drop({i for i, n in enumerate(naming.shape) if n == 1 and naming.letters[i] not in "CZYX?"})
    enough = 3 if ndim == 2 else 4
    while len(naming.shape) > enough:
        unnamed = [i for i, n in enumerate(naming.shape) if n == 1 and naming.letters[i] == "?"]
        if not unnamed:
            break
        naming = naming.drop({unnamed[0]})
    return naming


def _guess(naming: _Naming, ndim: int | None, key: str) -> _Naming:
    unnamed = [i for i, letter in enumerate(naming.letters) if letter == "?"]
    if not unnamed:
        return naming
    missing = [letter for letter in "YX" if letter not in naming.letters]
    surplus = len(unnamed) - len(missing)
    free = [letter for letter in "CZ" if letter not in naming.letters]
    if surplus < 0 or surplus > len(free):
        what = f"{len(naming.shape)} axes without names, shape {naming.shape}: cannot guess which is which"
        raise AxesError(what, f"{key}: one letter of T C Z Y X per axis")
    why = ""
    roles: dict[int, str] = {}
    if surplus == 2:
        channel = _shortest(unnamed, naming.shape)
        roles = {channel: "C", next(i for i in unnamed if i != channel): "Z"}
        why = f", the shortest ({naming.shape[channel]}) is channels"
    elif surplus == 1:
        position, letter, why = _role_of_one(naming, unnamed, free, ndim)
        roles = {position: letter}
    rest = iter(missing)
    letters = "".join(named if named != "?" else roles.get(i) or next(rest) for i, named in enumerate(naming.letters))
    task = f" in a {ndim}D task" if ndim is not None else ""
    spelled = ", ".join(letters.lower())
    reason = f"guessed ({spelled}): no axis metadata, {len(letters)} axes{task}{why}"
    # A long stack of unnamed pages can hardly be anything but slices; everything else may be meant otherwise.
    long = [letter for position, letter in roles.items() if naming.shape[position] > MAX_OBVIOUS_CHANNELS]
    is_plain = not roles or (long == ["Z"] and len(roles) == 1)
    notes = () if is_plain else (f"axes {reason}; if that is wrong, set {key}",)
    return replace(naming, letters=letters, reason=reason, notes=naming.notes + notes)


def _shortest(positions: list[int], shape: tuple[int, ...]) -> int:
    """Position of the shortest axis; of equals the last, as in the usual order (z, y, x, channels)."""
    if len(positions) == 2:
        return min(positions, key=lambda i: (shape[i], i))
    order = [positions[-1], *positions[:-1]]
    return min(order, key=lambda i: shape[i])


def _role_of_one(naming: _Naming, unnamed: list[int], free: list[str], ndim: int | None) -> tuple[int, str, str]:
    """Which of the unnamed axes is no Y and no X, and whether it is Z or C: (position, letter, why)."""
    first, last = unnamed[0], unnamed[-1]
    shape = naming.shape
    if free == ["Z"] or (ndim == 3 and free == ["C", "Z"]):
        return first, "Z", ""
    if free == ["C"]:
        return _shortest(unnamed, shape), "C", ""
    spatial = [n for i, n in enumerate(shape) if i != last]
    is_trailing = last == len(shape) - 1
    if is_trailing and shape[last] <= MAX_OBVIOUS_CHANNELS < min(spatial):
        return last, "C", f", the last axis ({shape[last]}) is short enough to be channels"
    if ndim is None:
        return first, "Z", ""
    if shape[first] <= MAX_OBVIOUS_CHANNELS:
        return first, "C", f", the first axis ({shape[first]}) is short enough to be channels"
    if is_trailing and shape[last] < min(spatial):
        return last, "C", f", the last axis ({shape[last]}) is the shortest, taken as channels"
    return first, "Z", ""


def _check_task(naming: _Naming, ndim: int | None, key: str, *, to_predict: bool) -> AxesChoice:
    if naming["T"] > 1:
        raise AxesError(
            f"a time axis: T = {naming['T']} time points (axes {naming.letters}, shape {naming.shape}); "
            "time series are not supported",
            f"split the time points into files of their own; if T is really depth, set {key} (Z in place of T)",
        )
    other = [letter for letter in naming.letters if letter not in LETTERS and naming[letter] > 1]
    if other:
        what = f"axis {other[0]} of length {naming[other[0]]} (axes {naming.letters}, shape {naming.shape})"
        raise AxesError(what, f"only T C Z Y X are known: split the file, or set {key}")
    if not set("YX") <= set(naming.letters):
        raise AxesError(f"not an image: shape {naming.shape} has no y and x", "export it with at least two axes")
    naming = naming.drop({i for i, letter in enumerate(naming.letters) if letter not in "CZYX"})
    if ndim == 2 and naming["Z"] > 1:
        next_step = VOLUME_TO_A_2D_NETWORK if to_predict else VOLUME_IN_2D
        if naming["C"] == 1:
            meant = naming.letters.replace("C", "").replace("Z", "C")
            next_step += f"; if the {naming['Z']} are channels, set {key}: {meant}"
        raise AxesError(f"3D ({naming['Z']} slices, shape {naming.shape}) but the task is 2D", next_step)
    if ndim == 3 and "Z" not in naming.letters:
        raise AxesError(
            f"2D (axes {naming.letters}, shape {naming.shape}) but the task is 3D and wants volumes",
            (IMAGE_TO_A_3D_NETWORK if to_predict else IMAGE_IN_3D)
            + (f"; if the {naming['C']} channels are slices, set {key} (Z in place of C)" if naming["C"] > 1 else ""),
        )
    chosen = ndim or (3 if naming["Z"] > 1 else 2)
    return AxesChoice(naming.letters, naming.kept, chosen, naming.reason, naming.notes)
