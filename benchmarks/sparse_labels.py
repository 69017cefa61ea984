"""What 2 % of the labels are worth: the same network and steps on scribbles and on whole labels, measured on whole test labels.

    python benchmarks/sparse_labels.py --data DATA --out OUT [--share 0.02] [--seeds 0 1 2] [--change TRAIN.EPOCHS=100] [--sets …]

DATA is the folder of the data sets, each with `train/x`, `train/y`, `test/x`, `test/y`. For each training label image, strokes
are painted through every class by a random walk that stays inside the class (3 pixels wide, up to 60 long, as a person would
paint them), each class about as many pixels, until `share` of the image is annotated; all else becomes 255, with
LOSS.IGNORE_INDEX: 255. Strokes depend on the name of the image and the seed only. Nothing else is given: patch, network, batch
and epochs are those that crista decides from the images, the same for both kinds of labels.

OUT/table.md holds one row per set, seed and kind of labels: share of annotated training pixels, IoU of each class over all test
pixels together, and their mean without the background; OUT/table.json the same as numbers.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import crista
from crista.images.open import open_image
from crista.images.write import write_image
from crista.metrics import iou

OPEN = 255
SETS = ("isbi2012_membrane_2d", "vnc_5class_2d")
LONGEST_STROKE = 60
TURNS = (0.0, 0.25, -0.25, 0.6, -0.6, 1.2, -1.2)
"""Changes of direction that a stroke tries, in radians, to stay inside its class."""
MOST_STROKES = 10_000


def scribble(label: NDArray[np.uint8], *, share: float, seed: int) -> NDArray[np.uint8]:
    """`label` (Y, X) with about `share` of its pixels kept, along strokes; the others are `OPEN`."""
    rng = np.random.default_rng(seed)
    result = np.full(label.shape, OPEN, np.uint8)
    classes = np.unique(label)
    budget = share * label.size / len(classes)
    for value in classes:
        inside = label == value
        wanted = min(budget, inside.sum() / 2)
        for _ in range(MOST_STROKES):
            if (result == value).sum() >= wanted:
                break
            paint_stroke(result, inside, int(value), rng)
    return result


def paint_stroke(result: NDArray[np.uint8], inside: NDArray[np.bool_], value: int, rng: np.random.Generator) -> None:
    """One stroke from a random pixel of the class, until it is long enough or has nowhere to go; changes `result`."""
    candidates = np.flatnonzero(inside & (result == OPEN))
    if not candidates.size:
        return
    y, x = (float(i) for i in np.unravel_index(rng.choice(candidates), inside.shape))
    angle = rng.uniform(0, 2 * np.pi)
    for _ in range(LONGEST_STROKE):
        box = slice(max(0, round(y) - 1), round(y) + 2), slice(max(0, round(x) - 1), round(x) + 2)
        result[box][inside[box]] = value
        angle += rng.normal(0, 0.1)
        for turn in TURNS:
            ahead = y + np.sin(angle + turn), x + np.cos(angle + turn)
            if _is_inside(inside, *ahead):
                angle, (y, x) = angle + turn, ahead
                break
        else:
            return


def _is_inside(inside: NDArray[np.bool_], y: float, x: float) -> bool:
    row, column = round(y), round(x)
    return 0 <= row < inside.shape[0] and 0 <= column < inside.shape[1] and bool(inside[row, column])


def write_scribbles(source: Path, target: Path, *, share: float, seed: int) -> float:
    """Scribbles for every label image of a folder; returns the share of annotated pixels."""
    shutil.rmtree(target, ignore_errors=True)
    kept = total = 0
    for path in sorted(source.glob("*.tif")):
        label = open_image(path, ndim=2, is_label=True).read()[0].astype(np.uint8)
        painted = scribble(label, share=share, seed=zlib.crc32(path.stem.encode()) + seed)
        write_image(target / path.name, painted, "YX")
        kept, total = kept + int((painted != OPEN).sum()), total + painted.size
    return kept / total


def measure(folder: Path, labels: Path, out: Path, *, name: str, seed: int, changes: list[str]) -> dict[str, Any]:
    """Train on the images of a set with `labels`, and measure on its test images."""
    config = {
        "PROBLEM": {"NDIM": "2D"},
        "SYSTEM": {"SEED": seed},
        "DATA": {
            "TRAIN": {"PATH": str(folder / "train/x"), "GT_PATH": str(labels)},
            "TEST": {"PATH": str(folder / "test/x"), "GT_PATH": str(folder / "test/y"), "LOAD_GT": True},
        },
        "TRAIN": {"ENABLE": True},
        "TEST": {"ENABLE": True},
    }
    if labels.is_relative_to(out):
        config["LOSS"] = {"IGNORE_INDEX": OPEN}
    started = time.perf_counter()
    outcome = crista.run(config, result_dir=out / "runs", name=name, overrides=changes)
    scores = iou(read_confusion(outcome.folder.confusion))
    return {
        "class_iou": [round(float(value), 4) for value in scores],
        "mean_foreground_iou": round(float(np.nanmean(scores[1:])), 4),
        "seconds": round(time.perf_counter() - started),
    }


def read_confusion(path: Path) -> NDArray[np.int64]:
    """The matrix of a run, rows truth, columns prediction."""
    with path.open(newline="") as file:
        _, *rows = csv.reader(file)
    return np.array([[int(value) for value in row[1:]] for row in rows])


def write_table(rows: list[dict[str, Any]], out: Path) -> None:
    """`table.md` and `table.json`."""
    lines = [
        "| set | seed | labels | annotated | IoU of each class | mean of foreground | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        classes = " ".join(f"{value:.3f}" for value in row["class_iou"])
        lines.append(
            f"| {row['set']} | {row['seed']} | {row['labels']} | {row['annotated']:.2%} | {classes} "
            f"| {row['mean_foreground_iou']:.3f} | {row['seconds']} |"
        )
    (out / "table.md").write_text("\n".join(lines) + "\n")
    (out / "table.json").write_text(json.dumps(rows, indent=1) + "\n")


def main() -> None:
    """Every set and seed, scribbles and whole labels in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.02)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--change", action="append", default=[], help="KEY=VALUE, for both kinds of labels")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for name in arguments.sets:
        folder = arguments.data.resolve() / name
        for seed in arguments.seeds:
            painted = out / "scribbles" / f"{name}_{seed}"
            annotated = write_scribbles(folder / "train/y", painted, share=arguments.share, seed=seed)
            for kind, labels, share in (("scribbles", painted, annotated), ("whole", folder / "train/y", 1.0)):
                job = f"{name}_{kind}_{seed}"
                found = measure(folder, labels, out, name=job, seed=seed, changes=arguments.change)
                rows.append({"set": name, "seed": seed, "labels": kind, "annotated": round(share, 4), **found})
                write_table(rows, out)
    print((out / "table.md").read_text(), end="")


if __name__ == "__main__":
    main()
