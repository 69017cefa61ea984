"""Loader: batches of samples, prepared by threads while the network works."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch

from crista.patches.dataset import PatchSamples


@dataclass(frozen=True)
class Batch:
    """What the network sees in one step."""

    images: torch.Tensor
    """(N, C, [Z,] Y, X) float32, channels last in memory."""
    targets: torch.Tensor
    """(N, [Z,] Y, X) uint8 classes, or the ignore value."""
    names: tuple[str, ...]
    """The image that each sample was cut from."""


Prepare = Callable[[Batch], Batch]
"""What the loader's threads do with a batch at last."""


def as_it_is(batch: Batch) -> Batch:
    """No preparation."""
    return batch


def pinned(batch: Batch) -> Batch:
    """`batch` in page-locked memory, which a GPU fetches while the processor goes on."""
    return replace(batch, images=batch.images.pin_memory(), targets=batch.targets.pin_memory())


def shuffled_order(length: int, *, epoch: int, seed: int) -> list[int]:
    """The order of the samples in one epoch; a function of seed and epoch only."""
    order: list[int] = np.random.default_rng((seed, epoch, 0x5EED)).permutation(length).tolist()
    return order


def epoch_order(length: int, count: int | None, *, epoch: int, seed: int) -> list[int]:
    """`count` samples of one epoch in random order, each as often as the others up to one; None: each once.

    A number beyond `length` is a sample again, with other random numbers.
    """
    return shuffled_order(max(length, count or 0), epoch=epoch, seed=seed)[:count]


def full_batches(order: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices of each batch of an `order` of all samples; the last is filled up, so that all steps weigh the same.

    What fills it are the first samples of the order again, with other random numbers: of a single image with random patches a
    batch holds no two that are equal.
    """
    count, length = -(-len(order) // batch_size), len(order)
    return [[order[i % length] + i // length * length for i in range(k * batch_size, (k + 1) * batch_size)] for k in range(count)]


def rank_share(batch: Sequence[int], *, rank: int, world_size: int) -> list[int]:
    """The part of a global batch that one process of a distributed run takes."""
    size = len(batch) // world_size
    return list(batch[rank * size : (rank + 1) * size])


def uniform_batches(shapes: Sequence[tuple[int, ...]], batch_size: int) -> list[list[int]]:
    """Neighbouring samples of equal shape, at most `batch_size` together (validation; nothing repeated or dropped)."""
    batches: list[list[int]] = []
    for index, shape in enumerate(shapes):
        if batches and len(batches[-1]) < batch_size and shapes[batches[-1][-1]] == shape:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def iter_batches(
    samples: PatchSamples,
    batches: Sequence[Sequence[int]],
    *,
    epoch: int,
    num_threads: int,
    ahead: int = 2,
    prepare: Prepare = as_it_is,
) -> Iterator[Batch]:
    """The batches in order, up to `ahead` of them made and prepared by `num_threads` threads while the caller computes.

    The result does not depend on the number of threads: each sample has its own random generator. Closing the iterator
    stops the threads.
    """
    pool = ThreadPoolExecutor(max_workers=num_threads, thread_name_prefix="crista-loader")
    waiting: deque[Future[Batch]] = deque()
    remaining = iter(batches)
    try:
        for batch in remaining:
            waiting.append(pool.submit(lambda indices: prepare(_collate(samples, indices, epoch)), tuple(batch)))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _collate(samples: PatchSamples, indices: Sequence[int], epoch: int) -> Batch:
    cut = [samples.sample(index, epoch) for index in indices]
    images = torch.from_numpy(np.stack([np.moveaxis(sample.image, 0, -1) for sample, _ in cut])).movedim(-1, 1)
    targets = torch.from_numpy(np.stack([sample.label for sample, _ in cut]))
    return Batch(images, targets, tuple(name for _, name in cut))
