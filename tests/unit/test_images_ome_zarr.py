"""Writing OME-Zarr 0.5: valid metadata, aligned blocks, several processes, and kills at any moment."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from crista.geometry.spacing import Spacing
from crista.images.atomic import folder_aside, publish_folder
from crista.images.downsampling import build_pyramid, iter_blocks_of_level
from crista.images.ome_zarr import create_ome_zarr, is_label_store, open_level, read_pyramid, write_block
from crista.images.open import open_image
from crista.images.pyramid import choose_pyramid

CASES = [
    ("YX", (300, 400), "uint8", (0.25, 0.25), True),
    ("ZYX", (20, 300, 400), "uint16", (2.0, 0.5, 0.5), True),
    ("CYX", (2, 300, 40), "float32", None, False),
    ("CZYX", (3, 5, 260, 30), "float32", (0.05, 0.008, 0.008), False),
]


@pytest.mark.parametrize(("axes", "shape", "dtype", "size", "is_label"), CASES)
def test_the_validator_of_ome_zarr_accepts_every_kind(
    axes: str, shape: tuple[int, ...], dtype: str, size: tuple[float, ...] | None, is_label: bool, tmp_path: Path
) -> None:
    from ome_zarr_models.v05.image import Image
    from ome_zarr_models.v05.image_label import ImageLabel

    pyramid = choose_pyramid(axes, shape, np.dtype(dtype), None if size is None else Spacing(size))
    create_ome_zarr(tmp_path / "a.ome.zarr", pyramid, is_label=is_label)

    model = (ImageLabel if is_label else Image).from_zarr(zarr.open_group(str(tmp_path / "a.ome.zarr"), mode="r"))

    multiscale = model.attributes.ome.multiscales[0]
    assert model.attributes.ome.version == "0.5"
    assert [axis.name for axis in multiscale.axes] == list(axes.lower())
    assert [axis.unit for axis in multiscale.axes if axis.type == "space"] == [size and "micrometer"] * len(axes.strip("C"))
    assert len(multiscale.datasets) == len(pyramid.levels) == 2


def test_the_metadata_in_full(tmp_path: Path) -> None:
    pyramid = choose_pyramid("ZYX", (20, 300, 400), np.dtype(np.uint8), Spacing((2.0, 0.5, 0.5)))
    create_ome_zarr(tmp_path / "cells.ome.zarr", pyramid, is_label=True)

    stored = json.loads((tmp_path / "cells.ome.zarr" / "zarr.json").read_text())

    assert stored["attributes"]["ome"] == {
        "version": "0.5",
        "multiscales": [
            {
                "name": "cells",
                "axes": [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"],
                "datasets": [
                    {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [2.0, 0.5, 0.5]}]},
                    {
                        "path": "1",
                        "coordinateTransformations": [
                            {"type": "scale", "scale": [2.0, 1.0, 1.0]},
                            {"type": "translation", "translation": [0.0, 0.25, 0.25]},
                        ],
                    },
                ],
                "type": "majority",
            }
        ],
        "image-label": {"version": "0.5"},
    }
    level = json.loads((tmp_path / "cells.ome.zarr" / "0" / "zarr.json").read_text())
    assert level["dimension_names"] == ["z", "y", "x"]
    assert level["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "/"}}


@pytest.mark.parametrize(("axes", "shape", "dtype", "size", "is_label"), CASES)
def test_what_is_written_is_what_is_read(
    axes: str, shape: tuple[int, ...], dtype: str, size: tuple[float, ...] | None, is_label: bool, tmp_path: Path
) -> None:
    spacing = None if size is None else Spacing(size)
    pyramid = choose_pyramid(axes, shape, np.dtype(dtype), spacing)
    pixels = (np.random.default_rng(0).random(shape) * 3).astype(dtype)
    create_ome_zarr(tmp_path / "a.ome.zarr", pyramid, is_label=is_label)
    for region in iter_blocks_of_level(tmp_path / "a.ome.zarr", 0):
        write_block(tmp_path / "a.ome.zarr", 0, region, pixels[region])
    build_pyramid(tmp_path / "a.ome.zarr")

    image = open_image(tmp_path / "a.ome.zarr", ndim=len(axes.strip("C")))

    assert (image.axes, image.shape, image.dtype, image.spacing, image.notes) == (axes, shape, np.dtype(dtype), spacing, ())
    np.testing.assert_array_equal(image.read().reshape(shape), pixels)
    assert read_pyramid(tmp_path / "a.ome.zarr") == pyramid
    assert is_label_store(tmp_path / "a.ome.zarr") == is_label


def test_background_is_stored_so_that_a_lost_chunk_is_seen(tmp_path: Path) -> None:
    pyramid = choose_pyramid("YX", (2048, 1024), np.dtype(np.uint8), None)
    create_ome_zarr(tmp_path / "a.zarr", pyramid, is_label=True)
    for region in iter_blocks_of_level(tmp_path / "a.zarr", 0):
        write_block(tmp_path / "a.zarr", 0, region, np.zeros((1024, 1024), np.uint8))

    assert open_image(tmp_path / "a.zarr").notes == ()
    (tmp_path / "a.zarr" / "0" / "c" / "1" / "0").unlink()
    assert open_image(tmp_path / "a.zarr").notes == ("1 of 2 chunks are not stored and read as the fill value 0",)


def test_a_lost_shard_is_seen(tmp_path: Path) -> None:
    array = zarr.create_array(str(tmp_path / "a.zarr"), shape=(100, 300), chunks=(16, 16), shards=(64, 64), dtype="u1")
    array[:] = 1
    assert open_image(tmp_path / "a.zarr").notes == ()

    (tmp_path / "a.zarr" / "c" / "0" / "0").unlink()

    # Its border shards have more chunks than the array has: counting those, zarr finds more than enough.
    assert open_image(tmp_path / "a.zarr").notes == ("1 of 10 shards are not stored and read as the fill value 0",)


def test_names_of_channels_come_with_the_range_of_probabilities(tmp_path: Path) -> None:
    pyramid = choose_pyramid("CYX", (2, 30, 40), np.dtype(np.float32), None)
    create_ome_zarr(tmp_path / "a.zarr", pyramid, is_label=False, name="scores", channel_names=("background", "cell"))

    from ome_zarr_models.common.omero import Omero

    ome = dict(zarr.open_group(str(tmp_path / "a.zarr"), mode="r").attrs)["ome"]
    assert [channel.label for channel in Omero.model_validate(ome["omero"]).channels] == ["background", "cell"]  # type: ignore[attr-defined]
    assert ome["omero"]["channels"][1]["window"] == {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0}
    assert ome["multiscales"][0]["name"] == "scores"
    with pytest.raises(ValueError, match="1 channel names for 2 channels: cell"):
        create_ome_zarr(tmp_path / "a.zarr", pyramid, is_label=False, channel_names=("cell",))


def test_a_dtype_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    pyramid = choose_pyramid("YX", (30, 40), np.dtype(np.int64), None)

    with pytest.raises(ValueError, match="int64 cannot be written as OME-Zarr; convert to one of uint8, uint16"):
        create_ome_zarr(tmp_path / "a.zarr", pyramid, is_label=True)


def test_blocks_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    create_ome_zarr(tmp_path / "a.zarr", choose_pyramid("YX", (2000, 1500), np.dtype(np.uint8), None), is_label=True)

    message = r"region \[0:1000, 0:1024\] of level 0 \(2000, 1500\) does not consist of whole blocks of \(1024, 1024\)"
    with pytest.raises(ValueError, match=message):
        write_block(tmp_path / "a.zarr", 0, (slice(0, 1000), slice(0, 1024)), np.zeros((1000, 1024), np.uint8))
    with pytest.raises(ValueError, match=r"a block of shape \(3, 3\) for a region of shape \(2000, 1500\)"):
        write_block(tmp_path / "a.zarr", 0, (slice(0, 2000), slice(0, 1500)), np.zeros((3, 3), np.uint8))


def _write_share(path: Path, share: int, of: int) -> None:
    for number, region in enumerate(iter_blocks_of_level(path, 0)):
        if number % of == share:
            write_block(path, 0, region, np.full([part.stop - part.start for part in region], number % 250 + 1, np.uint8))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_write_blocks_side_by_side(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crista.images.pyramid.CHUNK_VOXELS", {3: 2**12})
    pyramid = choose_pyramid("ZYX", (128, 200, 200), np.dtype(np.uint8), None, shard_bytes=2**18)
    create_ome_zarr(tmp_path / "a.zarr", pyramid, is_label=True)
    assert pyramid.levels[0].shards == (64, 64, 64)
    # The parent has used the store, and zarr's threads, before it forks.
    write_block(tmp_path / "a.zarr", 0, next(iter_blocks_of_level(tmp_path / "a.zarr", 0)), np.ones((64, 64, 64), np.uint8))

    context = multiprocessing.get_context(method)
    workers = [context.Process(target=_write_share, args=(tmp_path / "a.zarr", share, 3)) for share in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)

    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    pixels = open_level(tmp_path / "a.zarr", 0)[:]
    regions = list(iter_blocks_of_level(tmp_path / "a.zarr", 0))
    assert len(regions) == 32
    for number, region in enumerate(regions):
        assert (pixels[region] == number % 250 + 1).all()


def test_a_store_made_anew_is_opened_anew(tmp_path: Path) -> None:
    for shape in ((30, 40), (50, 60)):
        create_ome_zarr(tmp_path / "a.zarr", choose_pyramid("YX", shape, np.dtype(np.uint8), None), is_label=True)
        assert open_level(tmp_path / "a.zarr", 0).shape == shape
        assert read_pyramid(tmp_path / "a.zarr").levels[0].shape == shape


WRITER = """
import sys
from pathlib import Path
import numpy as np
from crista.images.downsampling import iter_blocks_of_level
from crista.images.ome_zarr import write_block
path = Path(sys.argv[1])
noise = np.random.default_rng(0).integers(0, 255, (128, 128, 128), dtype=np.uint8)
print("ready", flush=True)
while True:
    for region in iter_blocks_of_level(path, 0):
        write_block(path, 0, region, noise)
"""


@pytest.mark.parametrize("sharded", [False, True])
def test_a_killed_writer_never_leaves_half_a_chunk(sharded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sharded:
        monkeypatch.setattr("crista.images.pyramid.MAX_FILES", 1)
        monkeypatch.setattr("crista.images.pyramid.CHUNK_VOXELS", {3: 2**18})
    pyramid = choose_pyramid("ZYX", (128, 128, 512), np.dtype(np.uint8), None, shard_bytes=2**21)
    assert pyramid.levels[0].block_shape == (128, 128, 128)
    final = tmp_path / "a.ome.zarr"
    part = folder_aside(final)
    create_ome_zarr(part, pyramid, is_label=True)
    noise = np.random.default_rng(0).integers(0, 255, (128, 128, 128), dtype=np.uint8)
    rng, whole = random.Random(0), 0
    for tries in range(40):  # on a busy machine many are killed before they have written any
        if tries >= 4 and whole:
            break
        with subprocess.Popen([sys.executable, "-c", WRITER, str(part)], stdout=subprocess.PIPE, env=os.environ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            time.sleep(rng.uniform(0.0, 0.4))
            writer.send_signal(signal.SIGKILL)
        level = open_level(part, 0)
        for region in iter_blocks_of_level(part, 0):
            if (part / "0" / "c" / "0" / "0" / str(region[2].start // 128)).exists():
                np.testing.assert_array_equal(level[region], noise)
                whole += 1

    assert whole > 0
    publish_folder(part, final)
    assert list(final.rglob("*.partial")) == []
    assert not part.exists()


def test_publishing_replaces_an_older_store_and_cleans_up(tmp_path: Path) -> None:
    final = tmp_path / "a.zarr"
    for round_ in range(2):
        part = folder_aside(final)
        (part / "0").mkdir(parents=True)
        (part / "0" / "c.123.partial").write_text("half")
        (part / f"file{round_}").write_text("whole")
        publish_folder(part, final)

    assert sorted(path.name for path in final.rglob("*")) == ["0", "file1"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_a_kill_between_the_two_renames_is_mended_by_the_next_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final, part = tmp_path / "a.zarr", folder_aside(tmp_path / "a.zarr")
    for folder in (final, part):
        folder.mkdir()
        (folder / "name").write_text(folder.name)
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if target == final:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        publish_folder(part, final)
    assert not final.exists()
    monkeypatch.setattr(Path, "replace", replace)
    publish_folder(part, final)

    assert (final / "name").read_text() == part.name
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_nothing_to_publish_leaves_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()

    with pytest.raises(FileNotFoundError, match="nothing to publish"):
        publish_folder(folder_aside(tmp_path / "a.zarr"), tmp_path / "a.zarr")
    assert (tmp_path / "a.zarr").is_dir()


def test_a_store_is_made_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On exFAT and many shares; zarr makes each file of metadata by one."""

    def unsupported(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", unsupported)
    pixels = np.random.default_rng(0).integers(0, 4, (300, 400)).astype(np.uint8)
    path = tmp_path / "a.zarr"
    create_ome_zarr(path, choose_pyramid("YX", pixels.shape, np.dtype(np.uint8), None), is_label=True)
    write_block(path, 0, (slice(0, 300), slice(0, 400)), pixels)
    build_pyramid(path)
    np.testing.assert_array_equal(open_image(path, is_label=True).read()[0], pixels)
