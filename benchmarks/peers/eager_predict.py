"""The reference for labels: each image as one tile through the plain network in eager float32 PyTorch.

    python eager_predict.py CHECKPOINT IMAGES OUT

No folding of norms, no other memory order, no tiles. Image sides must be multiples of the network's stride.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import tifffile
import torch
from crista_network import TimedNetwork, load_network


def main() -> None:
    """Predict every image and write its label image."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    network = TimedNetwork(load_network(arguments.checkpoint))
    for path in sorted(arguments.images.glob("*.tif")):
        pixels = tifffile.imread(path).astype(np.float64)
        image = ((pixels - pixels.mean()) / pixels.std()).astype(np.float32)
        with torch.inference_mode():
            logits = network(torch.from_numpy(image)[None, None])
        tifffile.imwrite(arguments.out / path.name, (logits[0, 0] > 0).to(torch.uint8).numpy(), compression="zlib")
    network.report()


if __name__ == "__main__":
    main()
