"""Images as of an electron microscope: packed cells with dark membranes; their mitochondria are class 1.

Cells are a Voronoi tessellation with bent walls. Mitochondria are bent ellipsoids with a dark rim and striped inside
(cristae). What a threshold would confuse with them is there too: dark solid bodies, vesicles, dark cells, membranes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from crista.samples.texture import Field, coordinates, shade, smooth_noise, soft_step, warp

CELL_DIAMETER = 66.0
"""Mean distance of neighbouring cell centres, in x pixels."""


@dataclass(frozen=True)
class _Tissue:
    """The cells of one image."""

    wall: Field
    """Distance to the nearest cell wall, in x pixels (approximate)."""
    cell: NDArray[np.int64]
    """Number of the cell of each voxel."""
    num_cells: int


@dataclass(frozen=True)
class _Scene:
    """One image while it is painted."""

    image: Field
    label: NDArray[np.uint8]
    free: Field
    """Distance to the nearest thing already there, in x pixels."""
    bent: list[Field]
    """Coordinates in which bodies are straight, in x pixels."""
    step: list[float]
    """Voxel size in x pixels, (Z)YX."""

    @property
    def extent(self) -> float:
        """How many cells of the usual size would fit in."""
        sizes = [n * size for n, size in zip(self.label.shape, self.step, strict=True)]
        return float(np.prod(sizes)) / CELL_DIAMETER**self.label.ndim


@dataclass(frozen=True)
class _Body:
    """A blunt ellipsoid: where it is and how it lies."""

    centre: NDArray[np.float64]
    """In x pixels along (Z)YX."""
    axes: NDArray[np.float64]
    """Orthonormal directions, one per row, the long one first."""
    radii: NDArray[np.float64]
    """Half lengths along `axes`, in x pixels."""


def draw_cells(rng: np.random.Generator, shape: Sequence[int], z_step: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image and label of `shape` (Z)YX; slices are `z_step` x pixels apart."""
    step = [z_step, 1.0, 1.0][-len(shape) :]
    grid = coordinates(shape, step)
    tissue = _grow_cells(rng, grid, step)
    scene = _Scene(
        image=_draw_cytoplasm(rng, tissue, shape, step),
        label=np.zeros(tuple(shape), np.uint8),
        free=tissue.wall.copy(),
        bent=warp(rng, grid, step, width=14.0, reach=1.8),
        step=step,
    )
    _draw_mitochondria(rng, scene, tissue.cell)
    _draw_distractors(rng, scene)
    wall = 1 - soft_step(tissue.wall - 1.1, 1.6)
    return _develop(rng, scene.image + wall * (0.2 - scene.image) * 0.93, step), scene.label


def _grow_cells(rng: np.random.Generator, grid: Sequence[Field], step: Sequence[float]) -> _Tissue:
    """Random centres, at least partly spread out, and for every voxel the nearest one and its distance to the wall."""
    extent = [float(axis.max()) for axis in grid]
    low, high = [-CELL_DIAMETER] * len(extent), [end + CELL_DIAMETER for end in extent]
    volume = float(np.prod([b - a for a, b in zip(low, high, strict=True)]))
    count = max(4, round(volume / CELL_DIAMETER ** len(extent) * 1.35))
    centres = rng.uniform(low, high, (2 * count, len(extent)))
    crowded = np.sort(np.asarray(cKDTree(centres).query(centres, k=2)[0])[:, 1])[count // 2]
    pairs = cKDTree(centres).query_pairs(crowded, output_type="ndarray")
    centres = np.delete(centres, np.unique(pairs.max(axis=1)) if len(pairs) else [], axis=0)
    bent = warp(rng, grid, step, width=32.0, reach=8.0)
    bent = warp(rng, bent, step, width=8.0, reach=1.2)
    points = np.stack([axis.ravel() for axis in bent], axis=1)
    distance, nearest = cKDTree(centres).query(points, k=2)
    first, second = centres[nearest[:, 0]], centres[nearest[:, 1]]
    # Exact distance to the plane between the two nearest centres, in the bent space.
    wall = (distance[:, 1] ** 2 - distance[:, 0] ** 2) / (2 * np.linalg.norm(second - first, axis=1))
    shape = grid[0].shape
    return _Tissue(wall.reshape(shape), nearest[:, 0].reshape(shape).astype(np.int64), len(centres))


def _draw_cytoplasm(rng: np.random.Generator, tissue: _Tissue, shape: Sequence[int], step: Sequence[float]) -> Field:
    """Brightness of the cells: each its own level, grainy; a few are nearly as dark as mitochondria."""
    level = rng.normal(0.72, 0.05, tissue.num_cells)
    grain = rng.uniform(0.02, 0.06, tissue.num_cells)
    dark = rng.random(tissue.num_cells) < 0.1
    level[dark] -= 0.17
    fine = smooth_noise(rng, shape, [1.2 / size for size in step])
    coarse = smooth_noise(rng, shape, [4.0 / size for size in step])
    image = level[tissue.cell] + grain[tissue.cell] * (0.8 * fine + 0.7 * coarse)
    specks = smooth_noise(rng, shape, [1.0 / size for size in step])
    return np.asarray(image - 0.16 * soft_step(specks - 2.0, 0.6))


def _draw_mitochondria(rng: np.random.Generator, scene: _Scene, cell: NDArray[np.int64]) -> None:
    """Paint mitochondria where there is room, each inside one cell."""
    volume = scene.label.ndim == 3
    bend = smooth_noise(rng, scene.label.shape, [5.0 / size for size in scene.step])
    for _ in range(max(3, round((4.5 if volume else 1.3) * scene.extent))):
        stretch = rng.uniform(1.5, 4.0) if volume else rng.uniform(1.2, 2.8)
        body = _place(rng, scene, radius=rng.uniform(7.0, 11.0), stretch=stretch)
        if body is None:
            continue
        region = _around(body, scene, margin=8.0)
        depth, along = _inside(body, [axis[region] for axis in scene.bent])
        same_cell = cell[region] == cell[_voxel(body, scene)]
        whole = np.count_nonzero(depth > 0)
        depth = np.minimum(depth, np.where(same_cell, scene.free[region] - 1.5, -5.0))
        if np.count_nonzero(depth > 0) < 0.5 * whole:  # neighbours leave only a splinter
            continue
        phase = rng.uniform(0, 2 * np.pi) + 1.1 * bend[region]
        stripes = np.sin(2 * np.pi * along / rng.uniform(4.5, 7.0) + phase)
        paint = rng.normal(0.41, 0.025) + 0.06 * stripes * soft_step(depth - 2.0, 2.0)
        paint -= 0.17 * np.exp(-(((depth - 1.0) / 1.1) ** 2))
        _paint(scene, region, depth, paint)
        scene.label[region][depth > 0] = 1


def _draw_distractors(rng: np.random.Generator, scene: _Scene) -> None:
    """Paint background that is dark too: solid bodies, clear vesicles with a dark rim, dots."""
    more = scene.extent * (3 if scene.label.ndim == 3 else 1)
    for kind in ["solid"] * max(1, round(0.35 * more)) + ["vesicle"] * round(2.5 * more) + ["dot"] * round(4 * more):
        radius = {"solid": rng.uniform(3.5, 5.5), "vesicle": rng.uniform(2.0, 4.5), "dot": rng.uniform(1.0, 2.0)}[kind]
        body = _place(rng, scene, radius=radius, stretch=rng.uniform(1.0, 1.4))
        if body is None:
            continue
        region = _around(body, scene, margin=5.0)
        depth, _ = _inside(body, [axis[region] for axis in scene.bent])
        if kind == "vesicle":
            paint = rng.normal(0.8, 0.04) - 0.4 * np.exp(-(((depth - 0.8) / 0.9) ** 2))
        else:
            paint = np.full_like(depth, 0.17 if kind == "solid" else rng.uniform(0.3, 0.5))
        _paint(scene, region, depth, paint)


def _paint(scene: _Scene, region: tuple[slice, ...], depth: Field, paint: Field) -> None:
    """Blend `paint` in where `depth` is positive, and take the room."""
    inside = soft_step(depth, 1.2)
    scene.image[region] = scene.image[region] * (1 - inside) + paint * inside
    scene.free[region] = np.minimum(scene.free[region], -depth)


def _place(rng: np.random.Generator, scene: _Scene, *, radius: float, stretch: float) -> _Body | None:
    """A place with at least `radius` of room around its centre, and a direction; None if 30 trials find none."""
    for _ in range(30):
        voxel = tuple(int(rng.integers(0, n)) for n in scene.free.shape)
        if scene.free[voxel] > radius + 2.0:
            break
    else:
        return None
    directions, _ = np.linalg.qr(rng.standard_normal((len(voxel), len(voxel))))
    radii = np.full(len(voxel), radius)
    radii[0] *= stretch
    return _Body(np.array(voxel) * np.array(scene.step), directions, radii)


def _inside(body: _Body, grid: Sequence[Field]) -> tuple[Field, Field]:
    """Depth below the surface (positive inside) and position along the long axis, in x pixels."""
    offset = np.stack([axis - centre for axis, centre in zip(grid, body.centre, strict=True)])
    local = np.einsum("ij,j...->i...", body.axes, offset)
    scaled = np.abs(local) / body.radii.reshape(-1, *([1] * (local.ndim - 1)))
    # A norm of power 2.6 is blunter than an ellipsoid, as mitochondria are.
    depth = (1 - (scaled**2.6).sum(axis=0) ** (1 / 2.6)) * float(body.radii[-1])
    return np.asarray(depth), np.asarray(local[0])


def _voxel(body: _Body, scene: _Scene) -> tuple[int, ...]:
    """The voxel at the centre."""
    return tuple(round(float(centre) / size) for centre, size in zip(body.centre, scene.step, strict=True))


def _around(body: _Body, scene: _Scene, margin: float) -> tuple[slice, ...]:
    """The box of voxels that the body and its bent surface can reach."""
    reach = float(body.radii.max()) + margin
    return tuple(
        slice(max(0, int((centre - reach) / size)), min(n, int((centre + reach) / size) + 2))
        for centre, size, n in zip(body.centre, scene.step, scene.label.shape, strict=True)
    )


def _develop(rng: np.random.Generator, image: Field, step: Sequence[float]) -> NDArray[np.uint8]:
    """Blur of the beam, uneven illumination, slice-to-slice brightness, detector noise; 8 bit."""
    image = ndimage.gaussian_filter(image, [0.0 if size > 1 else 0.7 for size in step])
    image = image * shade(rng, image.shape, 0.07)
    if image.ndim == 3:
        image = image + rng.normal(0, 0.012, (image.shape[0], 1, 1))
    contrast, brightness = rng.uniform(0.9, 1.1), rng.normal(0, 0.02)
    image = (image - 0.55) * contrast + 0.55 + brightness
    image = image + rng.normal(0, 0.038, image.shape)
    return np.asarray(np.clip(np.round(image * 235), 0, 255).astype(np.uint8))
