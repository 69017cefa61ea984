"""Which files of a folder are images: natural order, hidden and system files left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path, PurePath

from natsort import natsorted, ns

from crista.errors import DataError, Problem
from crista.images.content import SUPPORTED_EXTENSIONS, ZARR_METADATA
from crista.images.n5 import is_n5_store
from crista.images.wording import list_names

SYSTEM_FILES = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin", "system volume information"}
)
SIDECAR_EXTENSIONS = frozenset(
    {
        *(".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".log", ".ini", ".pdf", ".py", ".ipynb"),
        *(".xlsx", ".xls", ".ods", ".doc", ".docx", ".odt", ".rtf", ".ppt", ".pptx", ".htm", ".html", ".url", ".lnk", ".webloc"),
        *(".roi", ".geojson", ".svg", ".ijm", ".m", ".r", ".sh", ".bat", ".bib", ".tex", ".md5", ".sha1", ".sha256"),
    }
)
"""Notes, tables, scripts and outlines that people keep beside their images; never read as images."""
NOTES = frozenset({"readme", "license", "licence", "copying", "notice", "changelog", "authors", "citation", "contributing"})
"""The same without an extension."""
ROIS = "roiset"
"""How the archives of outlines begin that ImageJ writes (RoiSet.zip)."""
COMPANION = ".companion.ome"
"""The metadata of an OME-TIFF that lies in several files."""
MAX_SUBFOLDERS = 1000


def is_hidden(path: Path) -> bool:
    """Whether a file manager or an operating system put it there (`.DS_Store`, `._a.tif`, `a.tif:Zone.Identifier`)."""
    name = path.name.lower()
    return name.startswith((".", "thumbs.db:")) or name in SYSTEM_FILES or name.endswith(":zone.identifier")


def is_of_file_manager(name: str) -> bool:
    """Whether Finder or Explorer leaves a file of this name in a folder that it shows; hidden files of a Zarr store are none."""
    return name.startswith("._") or name.lower() == ".ds_store" or name.lower() in SYSTEM_FILES


def is_store(path: Path) -> bool:
    """Whether the folder is one Zarr or N5 store: by its suffix, or by the metadata in it."""
    if not _is_folder(path):
        return False
    if path.suffix.lower() in (".zarr", ".n5"):
        return True
    try:
        return any((path / name).is_file() for name in ZARR_METADATA) or is_n5_store(path)
    except PermissionError:
        return False  # lost+found, at the top of a disk


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except PermissionError:
        return False  # a link to where nobody may look


def expand_home(path: Path | str) -> Path:
    """`path` with the home folder for a ~; that of a user who is not there stays as it is, to be told as missing."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def sort_naturally(paths: Sequence[Path]) -> list[Path]:
    """Numbers by value (2 before 10), capitals as small letters; the same order on every file system."""
    return natsorted(sorted(paths), key=lambda path: path.name, alg=ns.IGNORECASE)


def list_images(folder: Path) -> list[Path]:
    """The image files of `folder` in natural order; a file or a Zarr or N5 store given instead is the only one.

    Hidden files, system files, notes and tables are skipped. Broken links and folders with the name of an
    image are kept, so that opening them says what is wrong.

    Raises
    ------
    DataError
        The folder is missing (the nearest existing folder and similar names are given), or holds no image.
    """
    try:
        if is_store(folder) or folder.is_file():
            return [folder]
        if not folder.is_dir():
            raise DataError("with the folders", [_missing(folder)])
        found = [path for path in folder.iterdir() if _is_candidate(path)]
    except PermissionError:
        what, next_step = "no permission to list it, or to enter a folder above it", "change the permissions (chmod +rx)"
        raise DataError("with the folders", [Problem(str(folder), what, next_step)]) from None
    if not found:
        raise DataError("with the folders", [_empty(folder)])
    return sort_naturally(found)


def _is_candidate(path: Path) -> bool:
    if is_hidden(path):
        return False
    if _is_folder(path):
        return _is_named_like_an_image(path) or is_store(path)
    return not _is_sidecar(path.name.lower())


def _is_sidecar(name: str) -> bool:
    """Whether the file of this name, in small letters, is a note, a table, a script or an outline."""
    is_outline = name.startswith(ROIS) and name.endswith(".zip")
    return PurePath(name).suffix in SIDECAR_EXTENSIONS or name in NOTES or name.endswith(COMPANION) or is_outline


def _is_named_like_an_image(path: Path) -> bool:
    return path.name.lower().endswith(SUPPORTED_EXTENSIONS)


def _missing(folder: Path) -> Problem:
    if folder.is_symlink():
        return Problem(str(folder), f"is a link to {folder.readlink()}, which does not exist", "mend the link")
    parent = next((parent for parent in folder.absolute().parents if parent.exists()), None)
    if parent is None:
        return Problem(str(folder), f"does not exist: there is no {folder.absolute().anchor} here", "connect that drive")
    if not parent.is_dir():
        return Problem(str(folder), f"does not exist: {parent} is a file, not a folder", "correct the path")
    wanted = folder.absolute().relative_to(parent).parts[0]
    what = f"does not exist; the nearest existing folder is {parent}"
    try:
        names = [path.name for path in sort_naturally(list(parent.iterdir())) if not is_hidden(path)]
    except PermissionError:
        return Problem(str(folder), what, "correct the path")
    lower = {name.lower(): name for name in names}
    similar = [lower[name] for name in get_close_matches(wanted.lower(), list(lower), n=3, cutoff=0.5)]
    if similar:
        return Problem(str(folder), what, f"did you mean {' or '.join(similar)} instead of {wanted}?")
    listed = f"it holds {', '.join(names[:5])}{'…' if len(names) > 5 else ''}" if names else "it is empty"
    return Problem(str(folder), what, f"correct the path ({listed})")


def _empty(folder: Path) -> Problem:
    nested = natsorted({path.parent.relative_to(folder).as_posix() for path in _iter_nested(folder)})
    if nested:
        return Problem(
            str(folder),
            f"no images found in {folder}, but some in subfolders: {list_names(nested, 5)}",
            "give one of them as the path, or move the images up",
        )
    others = sorted(path.name for path in folder.iterdir())
    seen = f" (only {', '.join(others[:4])}{'…' if len(others) > 4 else ''})" if others else ""
    extensions = " ".join(SUPPORTED_EXTENSIONS)
    return Problem(str(folder), f"no images found in {folder}{seen}", f"readable are {extensions}")


def _iter_nested(folder: Path) -> Iterator[Path]:
    """Images below `folder`; stops after many folders, so that the path of a whole disk is answered soon."""
    waiting, visited = [folder], 0
    while waiting and visited < MAX_SUBFOLDERS:
        visited += 1
        with suppress(PermissionError):
            for path in waiting.pop(0).iterdir():
                if _is_folder(path) and not path.is_symlink() and not is_hidden(path) and not is_store(path):
                    waiting.append(path)
                elif _is_candidate(path) and (_is_named_like_an_image(path) or is_store(path)):
                    yield path
