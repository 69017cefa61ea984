"""What was seen in a file is remembered: a second check of the same files reads no pixels.

One small JSON file per image in the user's cache folder, under a digest of path, size, times of change and settings.
The environment variable CRISTA_CACHE names another folder, or turns it off (``off``).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from crista.images.atomic import atomic_write
from crista.images.digest import files_of
from crista.images.image import Image
from crista.images.labels import LabelSummary, summarise_label
from crista.images.scan import ImageScan, Intensity, scan_image
from crista.images.stored import lies_in_several_files

VERSION = 4
"""Part of every key: raise it when a scan or a summary changes its meaning."""
SETTLED_NS = 20_000_000
"""A file changed less than this ago could change again within the same tick of the clock: it is not remembered."""
MOST_ENTRIES = 20_000
"""Beyond so many the oldest are removed; each has about 4 kB."""
OFF = ("off", "0", "none", "no")

Found = TypeVar("Found")


def cache_folder() -> Path | None:
    """Where things are remembered: CRISTA_CACHE, else ``crista`` in the user's cache folder; None if that is turned off.

    None also where the user has no home folder, as under a number without a name in a container.
    """
    given = os.environ.get("CRISTA_CACHE", "")
    if given.strip().lower() in OFF:
        return None
    try:
        if given:
            return Path(given).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crista"
    except RuntimeError:
        return None


def look_at_image(image: Image) -> ImageScan:
    """`scan_image`, or what it found before."""
    return _remember("image", image, scan_image, _scan_from_json)


def look_at_label(image: Image) -> LabelSummary:
    """`summarise_label`, or what it found before."""
    return _remember("label", image, summarise_label, _summary_from_json)


def _remember(kind: str, image: Image, look: Callable[[Image], Found], load: Callable[[dict[str, Any]], Found]) -> Found:
    folder = cache_folder()
    key = _key(kind, image) if folder is not None else None
    if folder is None or key is None:
        return look(image)
    entry = folder / "looks" / f"{key}.json"
    try:
        return load(json.loads(entry.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass  # not seen before, or a damaged entry: it is written anew
    found = look(image)
    with suppress(OSError):
        atomic_write(entry, json.dumps(asdict(found)))  # type: ignore[call-overload]
    return found


def _key(kind: str, image: Image) -> str | None:
    """A digest of all that the result depends on; None where the files cannot be identified."""
    if lies_in_several_files(image.notes):
        return None
    try:
        files = list(_iter_states(image.path))
    except OSError:
        return None
    if not files or max(changed for *_, changed, _ in files) > time.time_ns() - SETTLED_NS:
        return None
    settings = [VERSION, kind, image.axes, image.shape, image.dtype.str, image.ndim, image.inner]
    settings += [] if image.recoded is None else [image.recoded]
    return sha256(json.dumps([str(image.path.resolve()), settings, files]).encode()).hexdigest()[:40]


def _iter_states(path: Path) -> Iterator[tuple[str, int, int, int]]:
    """Name, size, and times of change of each file."""
    for file in files_of(path):
        state = file.stat()
        yield str(file.relative_to(path)), state.st_size, state.st_mtime_ns, state.st_ctime_ns


def forget_oldest(most: int = MOST_ENTRIES) -> None:
    """Remove the oldest entries, so that at most `most` stay."""
    folder = cache_folder()
    if folder is None or not (folder / "looks").is_dir():
        return
    with suppress(OSError):
        entries = list((folder / "looks").glob("*.json"))
        if len(entries) > most:
            for entry in sorted(entries, key=lambda path: path.stat().st_mtime_ns)[: len(entries) - most * 3 // 4]:
                entry.unlink(missing_ok=True)


def _scan_from_json(tree: dict[str, Any]) -> ImageScan:
    return ImageScan(**tree | {"channels": tuple(Intensity(**channel) for channel in tree["channels"])})


def _summary_from_json(tree: dict[str, Any]) -> LabelSummary:
    counted = {name: {int(value): count for value, count in tree[name].items()} for name in ("counts", "runs", "enclosed")}
    colours = tuple((colour, count) for colour, count in tree["colours"])
    diameters = tuple((value, tuple(found)) for value, found in tree["diameters"])
    return LabelSummary(**tree | counted | {"colours": colours, "diameters": diameters})
