"""Pictures: arrays as text for the `src` of an image, small enough for a page that carries them all."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crista.geometry.axes import Array
from crista.results.overlays import Picture

SMALL = 128 * 128
"""Pixels up to which a picture is kept as it is (PNG); larger ones are JPEG."""

QUALITY = 82


def encode_picture(picture: Picture) -> str:
    """A picture YX3 in [0, 1] as a data URI."""
    from PIL import Image as Pillow

    pixels = Pillow.fromarray((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8))
    stream = BytesIO()
    if picture.shape[0] * picture.shape[1] <= SMALL:
        pixels.save(stream, "PNG", optimize=True)
        return _data_uri("png", stream.getvalue())
    # Not optimised: for that Pillow holds the file in a buffer of a byte per pixel, and fails where noise in colour takes more.
    pixels.save(stream, "JPEG", quality=QUALITY, subsampling=0)
    return _data_uri("jpeg", stream.getvalue())


def encode_file(picture: Path) -> str:
    """A PNG file as a data URI."""
    return _data_uri("png", picture.read_bytes())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64," + b64encode(content).decode("ascii")


def colour_uncertainty(cells: NDArray[np.float32], shape: Sequence[int]) -> Picture:
    """A map of cells YX (0 to 1; NaN: unknown, black) as a picture of `shape`, from dark to light, smoothed."""
    import matplotlib as mpl
    from PIL import Image as Pillow

    image = Pillow.fromarray(np.nan_to_num(cells, nan=0.0).astype(np.float32))
    smooth = np.asarray(image.resize((shape[1], shape[0]), Pillow.Resampling.BILINEAR))
    coloured: Array = mpl.colormaps["inferno"](np.clip(smooth, 0, 1))
    return np.asarray(coloured[..., :3], np.float64)
