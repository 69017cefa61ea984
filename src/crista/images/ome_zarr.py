"""Writing OME-Zarr 0.5: a pyramid of resolutions with voxel size, filled block by block by one or many processes.

The life of a store: `create_ome_zarr` under a hidden name, `write_block` for each region of `PyramidLevel.iter_blocks`,
`downsample_region` level by level (`images/downsampling.py`), `publish_folder` (`images/atomic.py`). Every call may be
repeated: the same block gives the same bytes.

A file of a chunk or shard is never half written, however its writer ends: zarr's LocalStore writes
``<key>.<uuid>.partial`` beside it and renames (``zarr.storage._local._atomic_write``, read in 3.1.6). What a killed
writer leaves under such a name is removed by `publish_folder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from crista.geometry.axes import Array, Region
from crista.geometry.spacing import spacing_from_units
from crista.geometry.tiles import shape_of
from crista.images.pyramid import Pyramid, PyramidLevel

VERSION = "0.5"

LABEL_CODEC = {"cname": "zstd", "clevel": 1, "shuffle": "bitshuffle"}
"""Of Blosc. Labels shrink 30 to 170 times at 500 MB/s per core; plain zstd 1 shrinks them 20 to 150 times at the same speed,
higher levels gain a quarter and take two to six times as long."""

PROBABILITY_CODEC = {"cname": "lz4", "clevel": 5, "shuffle": "shuffle"}
"""The low bits of floats are noise: zstd saves no more than 5 % over lz4 and is 3 to 15 times slower."""

WRITTEN_DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")


def create_ome_zarr(
    path: Path, pyramid: Pyramid, *, is_label: bool, name: str | None = None, channel_names: Sequence[str] = ()
) -> None:
    """Make an OME-Zarr 0.5 store with all levels of `pyramid`, complete but for the pixels. What lay there is replaced.

    Parameters
    ----------
    path : the folder of the store
    is_label : pixels are classes: ``image-label`` is written, and lower resolutions take the majority, never a mean
    name : what viewers call it; the name of the folder without its extension by default
    channel_names : one per channel, for probabilities: viewers show them in [0, 1]

    Raises
    ------
    ValueError
        If the dtype cannot be written, or `channel_names` do not fit the channels.
    """
    import zarr  # slow to import, and most predictions are TIFF
    from zarr.codecs import BloscCodec
    from zarr.storage import LocalStore

    if pyramid.dtype.name not in WRITTEN_DTYPES:
        allowed = ", ".join(WRITTEN_DTYPES)
        raise ValueError(f"{pyramid.dtype} cannot be written as OME-Zarr; convert to one of {allowed}")
    num_channels = pyramid.levels[0].shape[0] if "C" in pyramid.axes else 1
    if channel_names and len(channel_names) != num_channels:
        raise ValueError(f"{len(channel_names)} channel names for {num_channels} channels: {', '.join(channel_names)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    ome: dict[str, Any] = {"version": VERSION, "multiscales": [_multiscale(pyramid, is_label, name or path.name.split(".")[0])]}
    if is_label:
        ome["image-label"] = {"version": VERSION}
    if channel_names:
        ome["omero"] = {"channels": [_channel(channel) for channel in channel_names]}
    codec: dict[str, Any] = LABEL_CODEC if is_label or pyramid.dtype.kind != "f" else PROBABILITY_CODEC

    class OwnStore(LocalStore):
        """A folder under a hidden name, which nobody else fills: zarr's hard links, that tell who was first, are not needed.

        Many disks and shares have none (exFAT, SMB).
        """

        async def set_if_not_exists(self, key: str, value: Any) -> None:
            if not await self.exists(key):
                await self.set(key, value)

    group = zarr.create_group(OwnStore(path), overwrite=True, zarr_format=3, attributes={"ome": ome})
    for number, level in enumerate(pyramid.levels):
        group.create_array(
            str(number),
            shape=level.shape,
            dtype=pyramid.dtype,
            chunks=level.chunks,
            shards=level.shards,
            compressors=[BloscCodec(**codec)],
            fill_value=0,
            dimension_names=list(pyramid.axes.lower()),
        )


def _multiscale(pyramid: Pyramid, is_label: bool, name: str) -> dict[str, Any]:
    unit = {"unit": "micrometer"} if pyramid.spacing is not None else {}
    return {
        "name": name,
        "axes": [
            {"name": "c", "type": "channel"} if letter == "C" else {"name": letter.lower(), "type": "space", **unit}
            for letter in pyramid.axes
        ],
        "datasets": [
            {"path": str(number), "coordinateTransformations": _transformations(pyramid, level.factors)}
            for number, level in enumerate(pyramid.levels)
        ],
        "type": "majority" if is_label else "mean",
    }


def _transformations(pyramid: Pyramid, factors: tuple[int, ...]) -> list[dict[str, Any]]:
    """Scale, and the shift of the first voxel's centre: a voxel of f voxels lies (f - 1) / 2 of them further in."""
    spatial = len(pyramid.axes.removeprefix("C"))
    size = pyramid.spacing.values if pyramid.spacing is not None else (1.0,) * spatial
    sizes = (1.0,) * (len(factors) - spatial) + size
    transformations: list[dict[str, Any]] = [
        {"type": "scale", "scale": [voxel * factor for voxel, factor in zip(sizes, factors, strict=True)]}
    ]
    if max(factors) > 1:
        shift = [voxel * (factor - 1) / 2 for voxel, factor in zip(sizes, factors, strict=True)]
        transformations.append({"type": "translation", "translation": shift})
    return transformations


def _channel(name: str) -> dict[str, Any]:
    window = {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0}
    return {"label": name, "color": "FFFFFF", "window": window, "active": True}


def open_level(path: Path, level: int) -> Any:
    """The Zarr array of one level, writable; opened once per process.

    Safe in forked and spawned workers: it holds a path and metadata, no open file, and zarr starts a new event loop
    after a fork. A store that is created anew is opened anew.
    """
    return _open_level(path, level, _version(path, level))


def _version(path: Path, level: int | None = None) -> tuple[int, int]:
    status = ((path / str(level) if level is not None else path) / "zarr.json").stat()
    return status.st_mtime_ns, status.st_ino


@lru_cache(maxsize=64)
def _open_level(path: Path, level: int, version: tuple[int, int]) -> Any:  # noqa: ARG001 - part of the key
    import zarr
    from zarr.storage import LocalStore

    # Chunks of background are stored as well: a chunk that is missing is one that was lost, not one that is empty.
    with zarr.config.set({"array.write_empty_chunks": True}):
        return zarr.open_array(store=LocalStore(path), path=str(level), mode="r+")


def read_pyramid(path: Path) -> Pyramid:
    """The layout of a store made by `create_ome_zarr`, from its metadata; read once per process."""
    return _read_store(path, _version(path))[0]


def is_label_store(path: Path) -> bool:
    """Whether the store was created with `is_label`."""
    return _read_store(path, _version(path))[1]


@lru_cache(maxsize=64)
def _read_store(path: Path, version: tuple[int, int]) -> tuple[Pyramid, bool]:  # noqa: ARG001 - part of the key
    import zarr
    from zarr.storage import LocalStore

    group: Any = zarr.open_group(LocalStore(path, read_only=True), mode="r")
    ome: Any = dict(group.attrs)["ome"]
    axes = "".join(axis["name"].upper() for axis in ome["multiscales"][0]["axes"])
    datasets = ome["multiscales"][0]["datasets"]
    scales = [dataset["coordinateTransformations"][0]["scale"] for dataset in datasets]
    units = tuple(axis.get("unit", "") for axis in ome["multiscales"][0]["axes"] if axis["type"] == "space")
    levels = [
        _stored_level(group[dataset["path"]], tuple(round(b / a) for a, b in zip(scales[0], scale, strict=True)))
        for dataset, scale in zip(datasets, scales, strict=True)
    ]
    spacing = spacing_from_units(tuple(scales[0][-len(units) :]), units)
    return Pyramid(axes, np.dtype(group["0"].dtype), spacing, tuple(levels)), "image-label" in ome


def _stored_level(array: Any, factors: tuple[int, ...]) -> PyramidLevel:
    return PyramidLevel(tuple(array.shape), factors, tuple(array.chunks), None if array.shards is None else tuple(array.shards))


def write_block(path: Path, level: int, region: Region, block: Array) -> None:
    """Write `block` to `region` (one slice per stored axis) of a level.

    Different regions may be written by different processes at the same time. This holds only for whole units of
    writing: two writers of one shard lose what the other wrote (zarr-python issue 3683).

    Raises
    ------
    ValueError
        If `region` is not made of whole units of writing (`PyramidLevel.block_shape`), or `block` does not fit it.
    """
    layout = read_pyramid(path).levels[level]
    if not layout.is_aligned(region):
        shown = ", ".join(f"{part.start}:{part.stop}" for part in region)
        raise ValueError(
            f"{path}: region [{shown}] of level {level} {layout.shape} does not consist of whole blocks of "
            f"{layout.block_shape}: start on multiples of them and end on multiples or at the border"
        )
    if block.shape != shape_of(region):
        raise ValueError(f"{path}: a block of shape {block.shape} for a region of shape {shape_of(region)}")
    open_level(path, level)[region] = block
