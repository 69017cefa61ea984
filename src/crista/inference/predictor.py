"""Predictor: blocks of images through the network, tile by tile; reading, network and writing overlap."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from math import prod
from queue import Full, Queue
from threading import Event, Thread
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from crista.geometry.axes import Region
from crista.geometry.tiles import Tile, fit_tile, round_up, whole
from crista.images.image import Image
from crista.inference.cover import Assembler, build_assembler
from crista.inference.engine import Engine
from crista.inference.predicted import PredictedBlock
from crista.patches.cutting import normalized, read_reflected
from crista.patches.normalization import ImageStatistics
from crista.plan.events import Warned
from crista.plan.plan import InferencePlan, Plan
from crista.plan.topology import input_multiple

T = TypeVar("T")
AHEAD = 2
"""Batches that are read, and batches that are written, while the network works on another."""


@dataclass
class Clock:
    """Where the time of a prediction went, and how much work it was."""

    network: float = 0.0
    """Seconds in the network."""
    waiting: float = 0.0
    """Seconds in which the network waited for pixels."""
    total: float = 0.0
    """Seconds in all."""
    voxels_in: int = 0
    """Voxels that went through the network."""
    voxels_out: int = 0
    """Voxels of the result."""

    def describe(self) -> str:
        """One sentence for the log."""
        total = max(self.total, 1e-9)
        rest = max(0.0, total - self.network - self.waiting)
        factor = self.voxels_in / max(1, self.voxels_out)
        return (
            f"{self.total:.1f} s, {self.voxels_out / total / 1e6:.2f} million voxels/s: {self.network / total:.0%} network, "
            f"{self.waiting / total:.0%} waiting for pixels, {rest / total:.0%} the rest; {factor:.2f} voxels through the "
            "network per voxel of the result"
        )


@dataclass(frozen=True)
class Piece(Generic[T]):
    """One block of one image, and what is done with it when it is predicted."""

    image: Image
    statistics: ImageStatistics
    assembler: Assembler
    predicted: PredictedBlock
    finish: Callable[[PredictedBlock], T]
    """Called once all of the block is there, in the thread that writes."""


@dataclass(frozen=True)
class Progress(Generic[T]):
    """Some tiles are done."""

    piece: Piece[T]
    done: int
    """Tiles of the piece that are done."""
    result: T | None
    """What `finish` returned, with the last tile."""


@dataclass(frozen=True)
class Predictor:
    """A network ready for images of the kind that it was trained on."""

    plan: Plan
    engine: Engine
    clock: Clock = field(default_factory=Clock, compare=False)
    notices: deque[str] = field(default_factory=deque, compare=False)
    """What the engine has had to say and nobody has passed on yet."""

    @property
    def multiple(self) -> tuple[int, ...]:
        """What the sides of an input are multiples of, (Z)YX."""
        return input_multiple(self.plan.model, self.plan.ndim)

    def take_notices(self) -> Iterator[Warned]:
        """What there is to pass on, once."""
        while self.notices:
            yield Warned(self.notices.popleft())

    def tiles_of(self, shape: Sequence[int], block: Region, block_shape: Sequence[int] | None = None) -> Assembler:
        """A block of an image of `shape`, cut into tiles as the plan says; `block_shape` is the usual shape of its blocks."""
        inference = fitted(self.plan.inference, shape, block_shape, self.multiple)
        return build_assembler(inference, shape, self.multiple, block)

    def predict(self, pieces: Iterable[Piece[T]]) -> Iterator[Progress[T]]:
        """Predict the pieces in order; pixels are read and results written by two other threads meanwhile.

        Pieces are made only when they are needed. Closing the iterator stops the threads. What reading, the network or `finish`
        raise is raised here.
        """
        started = time.perf_counter()
        inputs = ahead(self._iter_inputs(pieces), AHEAD)
        writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="crista-writer")
        pending: deque[Future[Progress[T]]] = deque()
        try:
            for step in self._timed(inputs):
                begun = time.perf_counter()
                scores = self.engine.scores(step.images)
                seconds = time.perf_counter() - begun
                self.clock.network += seconds
                step.piece.predicted.network_seconds += seconds
                pending.append(writer.submit(_assemble, step, scores))
                while len(pending) > AHEAD or (pending and pending[0].done()):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except Exception:
            for future in pending:  # what was predicted beside the fault is kept, and the first fault is the one that is raised
                if future.exception() is None:
                    yield future.result()
            raise
        finally:
            self.clock.total += time.perf_counter() - started
            inputs.close()
            writer.shutdown(wait=True, cancel_futures=True)

    def _timed(self, inputs: Iterator[_Step[T]]) -> Iterator[_Step[T]]:
        while True:
            begun = time.perf_counter()
            step = next(inputs, None)
            self.clock.waiting += time.perf_counter() - begun
            if step is None:
                return
            self.clock.voxels_in += step.images.size // step.images.shape[1]
            if step.done == len(step.tiles):
                self.clock.voxels_out += _covered(step.piece.assembler.tiles)
            yield step

    def _iter_inputs(self, pieces: Iterable[Piece[T]]) -> Iterator[_Step[T]]:
        for piece in pieces:
            done = 0
            for tiles in _batched(piece.assembler, self.plan.inference.batch_size):
                done += len(tiles)
                images = self.input_of(piece.image, tiles, piece.statistics)
                yield _Step(piece, tiles, images, done)

    def input_of(self, image: Image, tiles: Sequence[Tile], statistics: ImageStatistics) -> NDArray[np.float32]:
        """Network input (N, C, (Z)YX) of some tiles of one shape."""
        limits = whole(image.spatial_shape)
        rgb = self.plan.config.data.force_rgb
        return np.stack([normalized(read_reflected(image, tile.read, limits), statistics, repeat_to_rgb=rgb) for tile in tiles])


@dataclass(frozen=True)
class _Step(Generic[T]):
    """Some tiles of a piece, read and normalised."""

    piece: Piece[T]
    tiles: Sequence[Tile]
    images: NDArray[np.float32]
    done: int
    """Tiles of the piece up to and with these."""


def _covered(tiles: Sequence[Tile]) -> int:
    """Voxels that tiles, in order, write together; those of blended tiles overlap."""
    return prod(last.stop - first.start for first, last in zip(tiles[0].write, tiles[-1].write, strict=True))


def _assemble(step: _Step[T], scores: torch.Tensor) -> Progress[T]:
    """Put the scores of some tiles where they belong; a piece that lost some is never finished, whatever comes after."""
    piece = step.piece
    if piece.predicted.is_broken:
        return Progress(piece, step.done, None)
    try:
        return _assembled(step, scores)
    except BaseException:
        piece.predicted.is_broken = True
        raise


def _assembled(step: _Step[T], scores: torch.Tensor) -> Progress[T]:
    piece = step.piece
    for tile, tile_scores in zip(step.tiles, scores, strict=True):
        for region, final in piece.assembler.add(tile, tile_scores):
            piece.predicted.write(region, final)
    if step.done < len(piece.assembler.tiles):
        return Progress(piece, step.done, None)
    for region, final in piece.assembler.finish():
        piece.predicted.write(region, final)
    return Progress(piece, step.done, piece.finish(piece.predicted))


def fitted(
    inference: InferencePlan, shape: Sequence[int], block_shape: Sequence[int] | None, multiple: Sequence[int]
) -> InferencePlan:
    """The plan with the tile that covers an image of `shape`, or each block of it, with the least work.

    Only tiles with a halo are fitted, to the most voxels that memory allows; blended tiles are as the plan says.
    """
    if inference.mode == "blended" or inference.max_tile_voxels is None:
        return inference
    inside = block_shape is not None
    box = tuple(min(b, n) for b, n in zip(block_shape, shape, strict=True)) if block_shape is not None else tuple(shape)
    tile = fit_tile(box, inference.halo, multiple, inference.max_tile_voxels, inside=inside)
    if tile is None:  # the halo was chosen for the largest image, and this one has another shape
        room = (round_up(2 * halo, step) + 2 * step for halo, step in zip(inference.halo, multiple, strict=True))
        tile = tuple(map(max, zip(inference.tile_size, room, strict=True)))
    return inference.model_copy(update={"tile_size": tile})


def ahead(items: Iterator[T], depth: int) -> Generator[T, None, None]:
    """The items in order, up to `depth` of them made by another thread while the caller works.

    What making them raises is raised here. Closing the iterator stops the thread.
    """
    queue: Queue[tuple[T | None, BaseException | None, bool]] = Queue(maxsize=depth)
    stopped = Event()

    def put(entry: tuple[T | None, BaseException | None, bool]) -> bool:
        while not stopped.is_set():
            with suppress(Full):  # look again whether anybody still wants it
                queue.put(entry, timeout=0.1)
                return True
        return False

    def make() -> None:
        try:
            for item in items:
                if not put((item, None, False)):
                    return
            put((None, None, True))
        except BaseException as error:  # noqa: BLE001 - raised in the other thread
            put((None, error, True))

    thread = Thread(target=make, name="crista-reader", daemon=True)
    thread.start()
    try:
        while True:
            item, error, is_last = queue.get()
            if error is not None:
                raise error
            if is_last:
                return
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()


def _batched(assembler: Assembler, size: int) -> Iterator[list[Tile]]:
    """Neighbouring tiles of equal shape, at most `size` together, in order."""
    batch: list[Tile] = []
    for tile in assembler.tiles:
        if batch and (len(batch) == size or batch[-1].shape != tile.shape):
            yield batch
            batch = []
        batch.append(tile)
    if batch:
        yield batch
