"""The pools behind reading by region: few open files, few decoded bytes, nothing shared with a forked process."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile

from crista.images.open import open_image
from crista.images.open_files import DecodedCache, FilePool


class _Handle:
    def __init__(self) -> None:
        self.is_open = True

    def close(self) -> None:
        self.is_open = False


def _files(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{number}.bin" for number in range(count)]
    for path in paths:
        path.write_bytes(b"x")
    return paths


def test_a_handle_is_kept_and_lent_again(tmp_path: Path) -> None:
    pool, [path] = FilePool(), _files(tmp_path, 1)

    with pool.borrow(path, _Handle) as first:
        pass
    with pool.borrow(path, _Handle) as second, pool.borrow(path, _Handle) as third:
        assert second is first
        assert third is not first


def test_the_oldest_handle_is_closed_first(tmp_path: Path) -> None:
    pool, paths = FilePool(limit=2), _files(tmp_path, 3)
    handles = []
    for path in paths:
        with pool.borrow(path, _Handle) as handle:
            handles.append(handle)

    assert [handle.is_open for handle in handles] == [False, True, True]
    pool.close()
    assert not any(handle.is_open for handle in handles)


def test_a_failed_read_closes_its_handle(tmp_path: Path) -> None:
    pool, [path] = FilePool(), _files(tmp_path, 1)

    with pytest.raises(KeyError), pool.borrow(path, _Handle) as handle:
        raise KeyError

    assert not handle.is_open


def test_decoded_arrays_stay_within_the_budget_but_the_newest_is_kept() -> None:
    cache, decoded = DecodedCache(budget=100), []

    def read(key: str, size: int) -> None:
        cache.get(key, lambda: decoded.append(key) or np.zeros(size, np.uint8))

    for key, size in [("a", 60), ("a", 60), ("b", 60), ("a", 60), ("large", 1000), ("large", 1000), ("a", 60)]:
        read(key, size)

    assert decoded == ["a", "b", "a", "large", "a"]


def _sum(image: object) -> list[int]:
    return [int(image.read((slice(i, i + 3), slice(5, 30), slice(2, 40))).sum()) for i in range(9)]  # type: ignore[attr-defined]


def test_threads_and_forked_processes_read_the_same(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 200, (12, 40, 50), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression="zlib", tile=(16, 16), metadata={"axes": "ZYX"})
    image = open_image(tmp_path / "a.tif", ndim=3)
    expected = _sum(image)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(_sum, [image] * 8)) == [expected] * 8
    with multiprocessing.get_context("fork").Pool(2) as processes:
        assert processes.map(_sum, [image] * 4) == [expected] * 4
