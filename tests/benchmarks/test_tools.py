"""How the tools are started: what goes into BiaPy's configuration, and folders of copies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from measuring.jobs import all_jobs, iter_copies, make_copies
from measuring.tools import Interpreters, build_tools, write_biapy_test
from ruamel.yaml import YAML


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two small test images of the 2D set and one volume of the 3D set, each with its label."""
    for name, shape, count in (("isbi2012_membrane_2d", (8, 8), 2), ("vnc_mito_3d", (4, 8, 8), 1)):
        for index in range(count):
            for kind in ("x", "y"):
                folder = tmp_path / name / "test" / kind
                folder.mkdir(parents=True, exist_ok=True)
                tifffile.imwrite(folder / f"{index:03}.tif", np.full(shape, index + 1, np.uint8), photometric="minisblack")
    return tmp_path


def test_biapy_only_tests(data: Path, tmp_path: Path) -> None:
    """The YAML of the training with training off, its checkpoint, the folders and the padding."""
    job = all_jobs(data)["3d"]
    job.write_config(data, tmp_path / "biapy_3d.yaml")
    path = write_biapy_test(job, tmp_path, (Path("images"), Path("labels")), (4, 16, 16), tmp_path / "test.yaml")
    tree = YAML(typ="safe").load(path)
    assert not tree["TRAIN"]["ENABLE"]
    assert tree["MODEL"]["FEATURE_MAPS"] == [16, 32, 64, 128]
    assert tree["MODEL"]["LOAD_CHECKPOINT"]
    assert tree["DATA"]["TEST"] == {"PATH": "images", "GT_PATH": "labels", "LOAD_GT": True, "PADDING": "(4, 16, 16)"}
    assert tree["PATHS"]["CHECKPOINT_FILE"].endswith("biapy/3d/checkpoints/3d_1-checkpoint-best.pth")


def test_images_are_repeated(data: Path, tmp_path: Path) -> None:
    """Five copies of two images, in turn, with their labels."""
    job = all_jobs(data)["2d"]
    images, labels = make_copies(job, 5, tmp_path / "copies")
    assert [path.name for path in sorted(images.iterdir())] == [f"{i:04}.tif" for i in range(5)]
    assert [int(tifffile.imread(path)[0, 0]) for path in sorted(labels.iterdir())] == [1, 2, 1, 2, 1]
    assert [path.name for _, path in iter_copies(job, 3)] == ["000.tif", "001.tif", "000.tif"]


def test_nnunet_wants_channel_numbers_and_spacings(data: Path, tmp_path: Path) -> None:
    """Of volumes only."""
    images, _ = make_copies(all_jobs(data)["3d"], 1, tmp_path / "copies", nnunet_names=True)
    assert sorted(path.name for path in images.iterdir()) == ["0000.json", "0000_0000.tif"]


def test_the_tools_beside_each_other(data: Path, tmp_path: Path) -> None:
    """Peers that are not there are left out; only crista's engines may be missing."""
    job = all_jobs(data)["3d"]
    alone = build_tools(job, Interpreters(None, None), tmp_path)
    assert [tool.name for tool in alone] == ["crista", "crista torch", "crista openvino", "crista onnxruntime", "crista fastest"]
    assert [tool.optional for tool in alone] == [False, True, True, True, True]
    peers = build_tools(job, Interpreters(Path("biapy"), Path("bin/python")), tmp_path)[5:]
    assert [tool.name for tool in peers] == ["BiaPy", "BiaPy, no padding in z", "MONAI", "nnU-Net"]
    assert [tool.same_weights for tool in peers] == [False, False, True, True]
    command = peers[3].command(Path("x"), Path("y"), Path("out"))
    assert command[0] == "bin/nnUNetv2_predict_from_modelfolder"
    assert command[1:3] == ["-i", "x"]
