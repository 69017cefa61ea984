"""The corner-case corpus decodes to exactly the pixels its manifest lists."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from crista.errors import ImageReadError
from crista.images.open import open_image

pytestmark = pytest.mark.data

DATA = os.environ.get("CRISTA_DATA")
ROOT = Path(DATA or ".") / "corner_cases"
INNER = {"hdf5_raw_and_label": {"x": "raw", "y": "label"}}
DELIBERATELY_OTHER = {
    "imagej_hyperstack_tzcyx": "time points are refused",
    "png_rgba": "alpha is dropped",
    "png_grey_alpha": "alpha is dropped",
}


def _cases(is_wanted: Callable[[dict[str, Any]], bool]) -> list[Any]:
    if DATA is None or not (ROOT / "manifest.json").exists():
        return [pytest.param({}, marks=pytest.mark.skip(reason="CRISTA_DATA names no folder with corner_cases"))]
    cases = json.loads((ROOT / "manifest.json").read_text())["cases"]
    return [pytest.param(case, id=case["id"]) for case in cases if is_wanted(case)]


def _is_decoded(case: dict[str, Any]) -> bool:
    return case["id"] not in DELIBERATELY_OTHER and bool(_entries(case))


def _is_broken(case: dict[str, Any]) -> bool:
    return case["group"] == "broken" and case["expect"] == "error" and "make" not in case


def _entries(case: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(side, entry) for each listed file that has its pixels in the manifest and is not packed away."""
    return [
        (side, entry)
        for side in "xy"
        for entry in case[side]
        if isinstance(entry, dict) and isinstance(entry.get("decoded"), dict) and (ROOT / entry["path"]).exists()
    ]


def _digest(pixels: NDArray[Any]) -> str:
    little = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("<")))
    return hashlib.sha256(little.tobytes()).hexdigest()


@pytest.mark.parametrize("case", _cases(_is_decoded))
def test_corner_case_decoding(case: dict[str, Any]) -> None:
    for side, entry in _entries(case):
        decoded = entry["decoded"]
        inner = INNER.get(case["id"], {}).get(side)

        image = open_image(ROOT / entry["path"], inner=inner, is_label=side == "y")

        pixels = image.source.read(tuple(slice(0, n) for n in image.shape))
        wanted = decoded["axes"].split()[0]
        if sorted(wanted) == sorted(image.axes):
            pixels = pixels.transpose([image.axes.index(letter) for letter in wanted])
        assert [n for n in pixels.shape if n > 1] == [n for n in decoded["shape"] if n > 1]
        assert pixels.dtype.name == decoded["dtype"].replace("bool", "uint8")
        assert _digest(pixels) == decoded["sha256"]


@pytest.mark.parametrize("case", _cases(_is_broken))
def test_broken_corner_case_names_the_file(case: dict[str, Any]) -> None:
    listed = case["x"] if isinstance(case["x"], list) else [case["x"]]
    path = ROOT / case.get("bad_file", listed[0])

    with pytest.raises(ImageReadError, match=path.name):
        open_image(path).read()


@pytest.mark.skipif(DATA is None, reason="CRISTA_DATA names no folder")
@pytest.mark.parametrize("name", ["png_rgba", "png_grey_alpha"])
def test_alpha_of_the_corpus_is_dropped_with_a_note(name: str) -> None:
    image = open_image(ROOT / name / "x" / "a.png")

    assert image.num_channels == {"png_rgba": 3, "png_grey_alpha": 1}[name]
    assert "the alpha channel is dropped" in image.notes


@pytest.mark.skipif(DATA is None, reason="CRISTA_DATA names no folder")
def test_time_points_of_the_corpus_are_refused() -> None:
    with pytest.raises(ImageReadError, match="T = 2 time points"):
        open_image(ROOT / "imagej_hyperstack_tzcyx" / "x" / "a.tif")
