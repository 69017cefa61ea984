"""Predict a folder of TIFF files as a user of MONAI does: read, z-score, `sliding_window_inference`, threshold, write.

    python monai_predict.py CHECKPOINT IMAGES OUT --window 256 256

The network is that of a crista checkpoint, as an eager float32 module. Overlap 0.25, Gaussian weights, a batch of one
window (MONAI's default).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import tifffile
import torch
from crista_network import TimedNetwork, load_network
from monai.inferers import sliding_window_inference


def main() -> None:
    """Predict every image and write its label image."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--window", type=int, nargs="+", required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    network = TimedNetwork(load_network(arguments.checkpoint))
    for path in sorted(arguments.images.glob("*.tif")):
        pixels = tifffile.imread(path).astype(np.float32)
        image = torch.from_numpy((pixels - pixels.mean()) / pixels.std())[None, None]
        with torch.inference_mode():
            logits = sliding_window_inference(image, arguments.window, 1, network, overlap=0.25, mode="gaussian")
        labels = (logits[0, 0] > 0).to(torch.uint8).numpy()
        tifffile.imwrite(arguments.out / path.name, labels, compression="zlib")
    network.report()


if __name__ == "__main__":
    main()
