"""NumPy .npy files, memory-mapped; pickles are never opened."""

from __future__ import annotations

from pathlib import Path

from numpy.lib import format as npy_format

from crista.images.stored import MappedPixels, Stored, check_claimed_size, num_bytes, read_error


def read_npy_header(path: Path) -> Stored:
    """Describe a .npy file.

    Raises
    ------
    ImageReadError
        For object arrays (they are pickles), and for a file shorter than its header claims.
    """
    with path.open("rb") as file:
        version = npy_format.read_magic(file)
        reader = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, is_fortran, dtype = reader(file)
        offset = file.tell()
    if dtype.hasobject:
        what = "holds Python objects (a pickle), which are refused because opening them could run any code"
        raise read_error(path, what, "save a numeric array: numpy.save(path, array, allow_pickle=False)")
    check_claimed_size(path, num_bytes(shape, dtype), path.stat().st_size - offset, 1)
    source = MappedPixels(path, offset, shape, dtype, "F" if is_fortran else "C")
    return Stored(shape=shape, dtype=dtype, axes="?" * len(shape), source=source)
