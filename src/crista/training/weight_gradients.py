"""Gradients of convolution weights as products of matrices that lie in memory as channels-last tensors are.

oneDNN's own kernel for them is slow on channels-last tensors of processors with AVX2 only: it walks through the image once per
eight channels, each time over all cache lines. Here a block of image and gradient stays in the cache until it is done with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import torch
from torch import Tensor

ROW_VOXELS = 4096
"""Inner length of one matrix product. Shorter ones lose time between them, longer ones leave the cache."""
BLOCK_BYTES = 1 << 21
"""Image and gradient that are used together, by all threads."""


def convolution_weight_gradient(gradient: Tensor, image: Tensor, kernel: Sequence[int]) -> Tensor:
    """Gradient (C_out, C_in, *kernel) of the weights of a convolution that keeps the spatial shape.

    w'[o, i, tap] = Σ_v gradient[o, v]·image[i, v + tap]: per tap one matrix product, whose second matrix starts some voxels
    later. At the ends of rows it runs on into the next row; what that adds is taken away again.

    Parameters
    ----------
    gradient : (N, C_out, [Z,] Y, X), of the output
    image : (N, C_in, [Z,] Y, X), the input
    kernel : odd sides, [z,] y, x; that along x is at most 2·X + 1
    """
    taps = (1,) * (3 - len(kernel)) + tuple(kernel)
    planes = _Planes(_planes(gradient, taps), _planes(image, taps))
    shifts = {tap: tuple(i - side // 2 for i, side in zip(tap, taps, strict=True)) for tap in product(*map(range, taps))}
    sums = gradient.new_zeros((*taps, planes.per_block, gradient.shape[1], image.shape[1]))
    for block in planes.iter_blocks():
        for tap, shift in shifts.items():
            planes.add_products(sums[tap], block, shift)
    total = sums.sum(3)
    for tap, shift in shifts.items():
        planes.take_wrapped_away(total[tap], shift)
    return total.permute(3, 4, 0, 1, 2).reshape(gradient.shape[1], image.shape[1], *kernel)


def transposed_weight_gradient(gradient: Tensor, image: Tensor, factor: Sequence[int]) -> Tensor:
    """Gradient (C_in, C_out, *factor) of the weights of a transposed convolution whose kernel and stride are `factor`.

    Parameters
    ----------
    gradient : (N, C_out, [Z·f,] Y·f, X·f), of the output
    image : (N, C_in, [Z,] Y, X), the input
    """
    ndim, (out_channels, in_channels) = len(factor), (gradient.shape[1], image.shape[1])
    split = [side for pair in zip(image.shape[2:], factor, strict=True) for side in pair]
    inner = gradient.movedim(1, -1).reshape(-1, *split, out_channels)
    voxels_first = (0, *range(1, 2 * ndim, 2), *range(2, 2 * ndim + 1, 2), 2 * ndim + 1)
    columns = inner.permute(voxels_first).reshape(-1, prod(factor) * out_channels)
    weights = tall_product(image.movedim(1, -1).reshape(-1, in_channels), columns)
    return weights.view(in_channels, *factor, out_channels).movedim(-1, 1)


def tall_product(left: Tensor, right: Tensor) -> Tensor:
    """`left`ᵀ·`right` of (P, M) and (P, N) with P far above M and N, by pieces of P that go to the threads."""
    whole = len(left) // ROW_VOXELS * ROW_VOXELS
    pieces = [side[:whole].unflatten(0, (-1, ROW_VOXELS)) for side in (left, right)] if whole else []  # type: ignore[no-untyped-call]
    rest = left[whole:].T @ right[whole:]
    return rest + torch.bmm(pieces[0].transpose(1, 2), pieces[1]).sum(0) if pieces else rest


@dataclass(frozen=True)
class _Block:
    volume: int
    planes: range
    rows: range


@dataclass(frozen=True)
class _Planes:
    """Gradient and image as (volumes, planes, Y, X, channels); shifts along z stay within a volume."""

    gradient: Tensor
    image: Tensor

    @property
    def rows(self) -> int:
        """Rows of a block."""
        height, width = self.gradient.shape[2:4]
        return max(1, min(height, ROW_VOXELS // width))

    @property
    def per_block(self) -> int:
        """Planes of a block: as many as stay in the cache together."""
        depth, _, width, channels = self.gradient.shape[1:]
        plane_bytes = self.rows * width * (channels + self.image.shape[-1]) * self.image.element_size()
        return max(1, min(depth, BLOCK_BYTES // plane_bytes))

    def iter_blocks(self) -> Iterator[_Block]:
        """Parts that together are the whole."""
        volumes, depth, height = self.gradient.shape[:3]
        for volume, z, y in product(range(volumes), range(0, depth, self.per_block), range(0, height, self.rows)):
            yield _Block(volume, range(z, min(depth, z + self.per_block)), range(y, min(height, y + self.rows)))

    def add_products(self, sums: Tensor, block: _Block, shift: tuple[int, ...]) -> None:
        """Add the products of one block and one tap to `sums`, (planes, C_out, C_in)."""
        depth, height, width = self.gradient.shape[1:4]
        dz, dy, dx = shift
        z, rows = _inside(block.planes, dz, depth), _inside(block.rows, dy, height)
        offset = dy * width + dx
        start, stop = max(rows.start * width, -offset), min(rows.stop * width, height * width - offset)
        if not z or start >= stop:
            return
        left = self.gradient[block.volume, z.start : z.stop].flatten(1, 2)[:, start:stop]
        right = self.image[block.volume, z.start + dz : z.stop + dz].flatten(1, 2)[:, start + offset : stop + offset]
        sums[: len(z)].baddbmm_(left.transpose(1, 2), right)

    def take_wrapped_away(self, total: Tensor, shift: tuple[int, ...]) -> None:
        """Subtract from `total` what the ends of rows brought in from the rows beside them."""
        _, depth, height, width, _ = self.gradient.shape
        dz, dy, dx = shift
        turn = 1 if dx > 0 else -1
        z = _inside(range(depth), dz, depth)
        rows = _inside(_inside(range(height), dy, height), dy + turn, height)
        if dx == 0 or not z or not rows:
            return
        for x in range(width - dx, width) if dx > 0 else range(-dx):
            left = self.gradient[:, z.start : z.stop, rows.start : rows.stop, x]
            right = self.image[
                :, z.start + dz : z.stop + dz, rows.start + dy + turn : rows.stop + dy + turn, x + dx - turn * width
            ]
            total -= left.flatten(0, 2).T @ right.flatten(0, 2)


def _planes(tensor: Tensor, taps: Sequence[int]) -> Tensor:
    """(N, C, [Z,] Y, X) as (volumes, planes, Y, X, C); all planes are of one volume where no tap reaches across them."""
    planes = tensor.movedim(1, -1)
    return planes.reshape(1, -1, *planes.shape[-3:]) if taps[0] == 1 else planes


def _inside(indices: range, shift: int, length: int) -> range:
    """The `indices` that stay in [0, length) when `shift` is added."""
    return range(max(indices.start, -shift), min(indices.stop, length - shift))
