"""Which format a file is of, by its first bytes: content beats the extension."""

from __future__ import annotations

import struct
import zlib
from itertools import islice
from pathlib import Path

from crista.errors import ImageReadError
from crista.images.n5 import is_n5_store
from crista.images.stored import read_error
from crista.images.wording import list_names

SUPPORTED_FORMATS = (
    "TIFF (.tif .tiff .ome.tif .btf), PNG, JPEG, BMP, NumPy .npy, Zarr and OME-Zarr, HDF5 (.h5), N5, NIfTI (.nii .nii.gz)"
)

EXTENSIONS_OF_FORMAT = {
    "TIFF": (".ome.tif", ".ome.tiff", ".tif", ".tiff", ".btf", ".tf8"),
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "BMP": (".bmp",),
    "NPY": (".npy",),
    "Zarr": (".ome.zarr", ".zarr"),
    "HDF5": (".h5", ".hdf5", ".hdf"),
    "N5": (".n5",),
    "NIfTI": (".nii", ".nii.gz"),
}
CONTAINERS = ("Zarr", "HDF5", "N5")
"""Formats of which one file may hold several arrays."""

SUPPORTED_EXTENSIONS = tuple(extension for extensions in EXTENSIONS_OF_FORMAT.values() for extension in extensions)
"""Extensions of the files that are looked for in a folder, lower case."""

_MAGIC = {
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
    b"\x93NUMPY": "NPY",
    b"\x89HDF\r\n\x1a\n": "HDF5",
}

_VENDOR_EXTENSIONS = (
    *(".czi", ".nd2", ".lif", ".lof", ".xlif", ".oib", ".oif", ".oir", ".vsi", ".ims", ".dv", ".r3d", ".zvi"),
    *(".mrxs", ".scn", ".bif", ".flex", ".mvd2", ".sld", ".stk", ".dcm"),
)

_FOREIGN = {
    b"ZISRAWFILE": "a Zeiss CZI file",
    b"\xda\xce\xbe\x0a": "a Nikon ND2 file",
    b"\x70\0\0\0": "a Leica LIF file",
    b"\xd0\xcf\x11\xe0": "a Microsoft compound file (Olympus OIB, Zeiss ZVI or an old Office document)",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself (run `git lfs pull`)",
    b"GIF8": "a GIF",
    b"RIFF": "a RIFF file (WebP or AVI)",
    b"PK\x03\x04": "a ZIP archive (or .npz, .docx)",
    b"%PDF": "a PDF",
    b"\x1f\x8b": "a gzip archive",
    b"\x80\x04": "a Python pickle, which is never opened",
    b"\0\0\0\x0cjP": "a bare JPEG 2000",
    b"SIMPLE  =": "a FITS file",
    b"NRRD": "an NRRD file",
}

ZARR_METADATA = ("zarr.json", ".zarray", ".zgroup")
ARCHIVES = ("a ZIP", "a gzip")
MAX_ENTRIES = 1000
_HDF5_OFFSETS = (512, 1024, 2048)


def identify_content(path: Path) -> str:
    """The format of what lies at `path`: a key of `EXTENSIONS_OF_FORMAT`.

    Raises
    ------
    ImageReadError
        If it is missing, empty, a plain folder, or of no supported format; the message says what it seems to be.
    """
    try:
        if path.is_dir():
            return _identify_folder(path)
        _check_is_file(path)
    except PermissionError as error:
        what = "no permission to read it, or to enter a folder above it"
        raise read_error(path, what, "change the permissions (chmod +r, of folders +rx)") from error
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise read_error(path, f"cannot be opened ({error.strerror})", "check its permissions") from error
    if not head:
        raise read_error(path, "empty file (0 bytes)", "copy or export it again")
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    if _is_nifti(path, head):
        return "NIfTI"
    if any(head[offset : offset + 8] == b"\x89HDF\r\n\x1a\n" for offset in _HDF5_OFFSETS):
        return "HDF5"
    raise _unsupported(path, head)


def note_on_extension(path: Path, kind: str) -> tuple[str, ...]:
    """A note where the extension promises another format than the content is; nothing otherwise."""
    name = path.name.lower()
    if name.endswith(EXTENSIONS_OF_FORMAT[kind]) or not name.endswith(SUPPORTED_EXTENSIONS):
        return ()
    return (f"named {path.suffix} but is a {kind} file; read as {kind}",)


def _identify_folder(path: Path) -> str:
    if any((path / name).exists() for name in ZARR_METADATA):
        return "Zarr"
    if is_n5_store(path):
        return "N5"
    if path.name.lower().endswith(".zarr"):
        what = "not a zarr array: the folder holds no zarr.json, .zarray or .zgroup"
        inside = _arrays_in(path)
        if inside:
            next_step = f"give one of them as the path: {path / inside[0]}"
            raise read_error(path, f"{what}, but {list_names(inside)} in it do", next_step)
        raise read_error(path, what, "copy the store again with its hidden files")
    if path.name.lower().endswith(".n5"):
        raise read_error(path, "not an N5 store: the folder holds no attributes.json that says so", "copy the store again")
    raise read_error(path, "is a folder, not an image file", "rename or remove it, or give it as the data folder")


def _arrays_in(path: Path) -> list[str]:
    """Folders of a store that have metadata of their own, among the first entries: there may be a million chunks."""
    entries = islice(path.iterdir(), MAX_ENTRIES)
    return sorted(sub.name for sub in entries if any((sub / name).is_file() for name in ZARR_METADATA))


def _check_is_file(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        what = f"broken link: its target {path.readlink()} is missing, or links lead in a circle"
        raise read_error(path, what, "restore the target or remove the link")
    if not path.exists():
        raise read_error(path, "no such file (missing)", "check the path")
    if not path.is_file():
        raise read_error(path, "not a regular file", "give an image file")


def _is_nifti(path: Path, head: bytes) -> bool:
    if head.startswith(b"\x1f\x8b"):
        if not path.name.lower().endswith((".nii.gz", ".nii", ".gz")):
            return False
        try:
            head = zlib.decompressobj(wbits=31).decompress(head, 1024)
        except zlib.error:
            return path.name.lower().endswith(".nii.gz")
    if len(head) < 348:
        return False
    sizes = {struct.unpack(order + "i", head[:4])[0] for order in "<>"}
    return (348 in sizes and head[344:347] in (b"n+1", b"ni1")) or (540 in sizes and head[4:7] in (b"n+2", b"ni2"))


def _unsupported(path: Path, head: bytes) -> ImageReadError:
    extension = path.suffix.lower()
    seen = next((what for magic, what in _FOREIGN.items() if head.startswith(magic)), None) or _describe_text(head)
    expected = next((kind for kind, known in EXTENSIONS_OF_FORMAT.items() if path.name.lower().endswith(known)), None)
    if expected is not None:
        what = f"not a {expected} file: it is {seen}"
        how = "unpack it" if seen.startswith(ARCHIVES) else "copy or download it again"
        return read_error(path, what, f"{how}. Supported: {SUPPORTED_FORMATS}")
    what = f"unsupported format: it is {seen}"
    if extension in _VENDOR_EXTENSIONS or seen.startswith(("a Zeiss", "a Nikon", "a Leica", "a Microsoft")):
        next_step = f"export as OME-TIFF (e.g. with Fiji/Bio-Formats). Supported: {SUPPORTED_FORMATS}"
    elif seen.startswith(ARCHIVES):
        next_step = f"unpack it. Supported: {SUPPORTED_FORMATS}"
    else:
        next_step = f"convert it, e.g. with Fiji. Supported: {SUPPORTED_FORMATS}"
    return read_error(path, what, next_step)


def _describe_text(head: bytes) -> str:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")) or b"<html" in start[:1024]:
        return "an HTML page (a failed download?)"
    if start.startswith(b"<?xml"):
        return "an XML document"
    if not head.strip(b"\0"):
        return "nothing but zero bytes"
    try:
        head.decode("utf-8")
    except UnicodeDecodeError:
        return f"of no known format (it begins with the bytes {head[:8].hex(' ')})"
    return "a text file"
