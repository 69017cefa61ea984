"""A crista network inside nnU-Net: the class that a `plans.json` names, and the model folder around it.

    python nnunet_network.py CHECKPOINT MODEL_FOLDER --patch 20 128 128

writes a folder for `nnUNetv2_predict_from_modelfolder`, which then predicts with everything of its own (reading, z-score,
tiles of half a step, Gaussian weights, mirroring along all axes, worker processes, export) but the network.
"""

from __future__ import annotations

import argparse
import atexit
import json
from pathlib import Path

import torch
from crista_network import TimedNetwork, load_network


class CristaNetwork(TimedNetwork):
    """Built by nnU-Net from the keys of `arch_kwargs`."""

    def __init__(self, input_channels: int, num_classes: int, checkpoint: str, deep_supervision: bool = False) -> None:
        assert input_channels == 1
        assert num_classes == 1
        assert not deep_supervision
        super().__init__(load_network(Path(checkpoint)))
        atexit.register(self.report)


def plans(checkpoint: Path, patch: list[int]) -> dict[str, object]:
    """Plans with the entries that prediction reads; the spacing is 1, so that nothing is resampled."""
    ndim = len(patch)
    order = 0 if ndim == 2 else 1
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "benchmark",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": patch,
        "spacing": [1.0] * ndim,
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": order},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "architecture": {
            "network_class_name": "nnunet_network.CristaNetwork",
            "arch_kwargs": {"checkpoint": str(checkpoint.resolve())},
            "_kw_requires_import": [],
        },
        "batch_dice": False,
    }
    return {
        "dataset_name": "Dataset001_benchmark",
        "plans_name": "benchmark",
        "image_reader_writer": "NaturalImage2DIO" if ndim == 2 else "Tiff3DIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {}},
        "configurations": {"benchmark": configuration},
    }


def dataset() -> dict[str, object]:
    """One foreground region (so that there is one sigmoid channel), one image channel."""
    return {
        "channel_names": {"0": "microscopy"},
        "labels": {"background": 0, "foreground": [1, 2]},
        "regions_class_order": [1],
        "file_ending": ".tif",
        "numTraining": 1,
    }


def main() -> None:
    """Write the model folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--patch", type=int, nargs="+", required=True)
    arguments = parser.parse_args()
    (arguments.folder / "fold_0").mkdir(parents=True, exist_ok=True)
    (arguments.folder / "plans.json").write_text(json.dumps(plans(arguments.checkpoint, arguments.patch), indent=2))
    (arguments.folder / "dataset.json").write_text(json.dumps(dataset(), indent=2))
    network = CristaNetwork(1, 1, str(arguments.checkpoint))
    content = {
        "network_weights": network.state_dict(),
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": "benchmark"},
        "inference_allowed_mirroring_axes": tuple(range(len(arguments.patch))),
    }
    torch.save(content, arguments.folder / "fold_0" / "checkpoint_final.pth")


if __name__ == "__main__":
    main()
