"""nnU-Net trained within a time budget: its planner, its preprocessing, its trainer; only the number of iterations is cut.

    python nnunet_train.py DATA_SET OUT --seconds 300 --configuration 2d --seed 0

DATA_SET holds train/x, train/y and test/x. The budget counts from the start of planning to the end of training. The trainer's
learning rate falls over 10 "epochs"; how many iterations they have is set by timing four of them. OUT/predictions gets the label
images of the test folder, predicted with all defaults (mirroring, half overlapping tiles); their time does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import tifffile
import torch

EPOCHS = 10
NAME = "Dataset001_benchmark"


def read(path: Path) -> np.ndarray:
    """Pixels of an image file."""
    if path.suffix.lower() in (".tif", ".tiff"):
        return np.asarray(tifffile.imread(path))
    import imageio.v3 as iio

    return np.asarray(iio.imread(path))


def write_case(pixels: np.ndarray, folder: Path, name: str, ndim: int) -> None:
    """One image as nnU-Net reads it; volumes have a JSON file beside them with the spacing."""
    folder.mkdir(parents=True, exist_ok=True)
    if ndim == 3:
        tifffile.imwrite(folder / f"{name}.tif", pixels)
        case = name.removesuffix("_0000")
        (folder / f"{case}.json").write_text(json.dumps({"spacing": [1.0, 1.0, 1.0]}))
    else:
        import imageio.v3 as iio

        iio.imwrite(folder / f"{name}.png", pixels)


def make_raw(data: Path, raw: Path, ndim: int) -> list[str]:
    """The data set in nnU-Net's layout; returns the names of the test images."""
    base = raw / NAME
    labels = [read(path) for path in sorted((data / "train/y").iterdir())]
    values = np.unique(np.concatenate([np.unique(label) for label in labels]))
    images = sorted((data / "train/x").iterdir())
    for path, label in zip(images, labels, strict=True):
        write_case(as_input(read(path)), base / "imagesTr", f"{path.stem}_0000", ndim)
        write_case(np.searchsorted(values, label).astype(np.uint8), base / "labelsTr", path.stem, ndim)
    tests = sorted((data / "test/x").iterdir())
    for path in tests:
        write_case(as_input(read(path)), base / "imagesTs", f"{path.stem}_0000", ndim)
    channels = 3 if ndim == 2 and read(images[0]).ndim == 3 else 1
    description = {
        "channel_names": {str(i): "image" for i in range(channels)},
        "labels": {"background": 0, **{f"class{i}": i for i in range(1, len(values))}},
        "numTraining": len(images),
        "file_ending": ".tif" if ndim == 3 else ".png",
        "overwrite_image_reader_writer": "Tiff3DIO" if ndim == 3 else "NaturalImage2DIO",
    }
    (base / "dataset.json").write_text(json.dumps(description))
    return [path.stem for path in tests]


def as_input(pixels: np.ndarray) -> np.ndarray:
    """RGB without alpha; floats stay floats."""
    return pixels[..., :3] if pixels.ndim == 3 and pixels.shape[-1] == 4 else pixels


def train(configuration: str, started: float, seconds: float) -> object:
    """Plan, preprocess and train until `seconds` after `started`."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess
    from nnunetv2.run.run_training import get_trainer_from_args

    extract_fingerprints([1], num_processes=1, check_dataset_integrity=False, clean=True)
    plan_experiments([1])
    preprocess([1], configurations=[configuration], num_processes=[1])
    trainer = get_trainer_from_args("1", configuration, "all", "nnUNetTrainer", "nnUNetPlans", device=torch.device("cpu"))
    trainer.num_epochs = EPOCHS
    trainer.num_val_iterations_per_epoch = 1
    trainer.on_train_start()
    ends = [time.time()]
    for _ in range(4):
        trainer.train_step(next(trainer.dataloader_train))
        ends.append(time.time())
    step = min(later - sooner for sooner, later in pairwise(ends))  # the first ones wait for the loader and for memory
    left = seconds - (time.time() - started)
    trainer.num_iterations_per_epoch = max(1, int(left / EPOCHS / step))
    print(f"a step takes {step:.1f} s, {trainer.num_iterations_per_epoch} iterations in each of {EPOCHS} epochs", flush=True)
    for _ in range(EPOCHS):
        if time.time() - started > seconds - step:
            break
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        outputs = []
        for _ in range(trainer.num_iterations_per_epoch):
            outputs.append(trainer.train_step(next(trainer.dataloader_train)))
            if time.time() - started > seconds:
                break
        trainer.on_train_epoch_end(outputs)
        trainer.current_epoch += 1
    print(f"trained {time.time() - started:.0f} s after the start", flush=True)
    return trainer


def predict(trainer: object, raw: Path, out: Path, names: list[str], ndim: int) -> None:
    """Label images of the test folder."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        None,
        trainer.dataset_json,
        "nnUNetTrainer",
        trainer.inference_allowed_mirroring_axes,
    )
    trainer.set_deep_supervision_enabled(False)
    predictor.list_of_parameters = [trainer.network.state_dict()]
    reader = trainer.plans_manager.image_reader_writer_class()
    ending = ".tif" if ndim == 3 else ".png"
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        image, properties = reader.read_images([str(raw / NAME / "imagesTs" / f"{name}_0000{ending}")])
        predicted = predictor.predict_single_npy_array(image, properties, None, None, False)
        tifffile.imwrite(out / f"{name}.tif", np.squeeze(np.asarray(predicted)).astype(np.uint8))


def main() -> None:
    """Train and predict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--configuration", choices=("2d", "3d_fullres"), default="2d")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    ndim = 3 if arguments.configuration == "3d_fullres" else 2
    for kind in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{kind}"] = str(arguments.out / kind)
    os.environ.update(nnUNet_compile="0", nnUNet_n_proc_DA="1")
    random.seed(arguments.seed)
    np.random.seed(arguments.seed)  # noqa: NPY002 - what nnU-Net draws from
    torch.manual_seed(arguments.seed)
    names = make_raw(arguments.data, arguments.out / "raw", ndim)
    trainer = train(arguments.configuration, time.time(), arguments.seconds)
    predict(trainer, arguments.out / "raw", arguments.out / "predictions", names, ndim)
    os._exit(0)  # the loader's processes would keep this one waiting


if __name__ == "__main__":
    main()
