"""Random-shape label maps: bodies, tissues and organs that no anatomy has, for targets of every kind.

What a one-click model must learn is not an organ but what "one thing" looks like. The maps come without
intensities; `samu_core.training.contrast` paints them.
"""

from __future__ import annotations

import numpy as np
import torch

KINDS = ("ellipsoid", "superellipsoid", "tube", "shell", "blob")
KIND_SHARES = (0.36, 0.12, 0.25, 0.12, 0.15)


def smooth_noise(size, cells: int, rng: np.random.Generator, channels: int = 1) -> torch.Tensor:
    """Gaussian noise on a coarse grid, interpolated: float32 (channels, *size), about unit variance at the
    nodes."""
    values = torch.from_numpy(rng.standard_normal((channels, cells, cells, cells), dtype=np.float32))
    # Axis by axis as matrix products, the innermost last: a fraction of what torch's interpolation takes.
    over_k, over_j, over_i = (_interpolation(cells, int(count)) for count in size)
    values = torch.einsum("kc,bcde->bkde", over_k, values)
    values = torch.einsum("jd,bkde->bkje", over_j, values)
    return values @ over_i.T


def _interpolation(cells: int, size: int) -> torch.Tensor:
    """Matrix (size, cells) of the linear interpolation that leaves the end points in their places."""
    place = torch.linspace(0, cells - 1, size)[:, None]
    return (1 - (place - torch.arange(cells)).abs()).clamp(min=0)


def strongest(volumes: torch.Tensor) -> torch.Tensor:
    """Index of the largest of (n, ...), int64 (...); the first one of equals. torch's argmax over an outer
    axis takes ten times as long."""
    best, index = volumes[0].clone(), torch.zeros(volumes.shape[1:], dtype=torch.int64)
    for number, values in enumerate(volumes[1:], start=1):
        index[values > best] = number
        torch.maximum(best, values, out=best)
    return index


def random_rotation(rng: np.random.Generator, max_angle: float = np.pi) -> np.ndarray:
    """3x3 rotation about a uniformly random axis by an angle uniform in +-max_angle (radians)."""
    axis = rng.standard_normal(3)
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = rng.uniform(-max_angle, max_angle)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def shape_map(size: int, rng: np.random.Generator) -> np.ndarray:
    """One label map, uint16 (size, size, size), KJI; 0 is outside everything.

    A warped superellipsoid body (15 % without), 1-6 tissues by the argmax of smooth noise, in half of the
    maps an envelope (a rind like skin or skull), then 8-34 objects of log-uniform radius, each with its own
    label.
    """
    shape = (size,) * 3
    axis = torch.linspace(-1, 1, size)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
    radius = _superellipsoid(
        grid, rng.uniform(0.6, 1.05, 3), rng.uniform(1.8, 4.0), random_rotation(rng, 0.5)
    )
    radius = radius + 0.12 * smooth_noise(shape, int(rng.integers(3, 7)), rng)[0]
    body = torch.ones(shape, dtype=torch.bool) if rng.random() < 0.15 else radius < 1
    tissues = int(rng.integers(1, 7))
    partition = strongest(smooth_noise(shape, int(rng.integers(3, 9)), rng, tissues)) + 1
    labels = torch.where(body, partition, torch.zeros_like(partition))
    label = tissues + 1
    if rng.random() < 0.5:
        labels[body & (radius > 1 - rng.uniform(0.04, 0.2))] = label
        label += 1
    for _ in range(int(rng.integers(8, 35))):
        _paint_object(labels, label, rng)
        label += 1
    return labels.numpy().astype(np.uint16)


def _superellipsoid(grid: torch.Tensor, semi_axes, power: float, rotation: np.ndarray) -> torch.Tensor:
    """Implicit radius, 1 on the surface, of a superellipsoid centred in `grid` (3, ...)."""
    turned = torch.einsum("ab,b...->a...", torch.from_numpy(rotation.astype(np.float32)), grid)
    scaled = turned.abs() / torch.tensor(np.asarray(semi_axes, np.float32)).view(3, *[1] * (grid.ndim - 1))
    return scaled.clamp(min=1e-6).pow(power).sum(0).pow(1 / power)


def _paint_object(labels: torch.Tensor, label: int, rng: np.random.Generator) -> None:
    """Draw one object over what is there, mostly inside the body."""
    size = labels.shape[0]
    radius = float(np.exp(rng.uniform(np.log(2.0), np.log(0.22 * size))))
    for _ in range(4):
        centre = rng.uniform(0.08 * size, 0.92 * size, 3)
        if labels[tuple(centre.astype(int))] > 0:
            break
    kind = rng.choice(KINDS, p=KIND_SHARES)
    if kind == "tube":
        _paint_tube(labels, label, centre, min(radius, 0.08 * size), rng)
        return
    reach = int(np.ceil(radius * 1.9)) + 1
    low = np.maximum(np.floor(centre).astype(int) - reach, 0)
    high = np.minimum(np.floor(centre).astype(int) + reach + 1, size)
    region = tuple(slice(int(a), int(b)) for a, b in zip(low, high))
    axes = [
        torch.arange(int(a), int(b), dtype=torch.float32) - float(c) for a, b, c in zip(low, high, centre)
    ]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij")) / radius
    power = rng.uniform(2.5, 6.0) if kind == "superellipsoid" else 2.0
    value = _superellipsoid(grid, np.exp(rng.uniform(-0.5, 0.4, 3)), power, random_rotation(rng))
    roughness = rng.uniform(0.35, 0.6) if kind == "blob" else rng.uniform(0, 0.18)
    cells = int(rng.integers(4, 8)) if kind == "blob" else int(rng.integers(2, 5))
    value = value + roughness * smooth_noise(value.shape, cells, rng)[0]
    inside = value < 1
    if kind == "shell":
        inside &= value > 1 - max(rng.uniform(0.15, 0.45), 1.6 / radius)
    labels[region][inside] = label


def _paint_tube(
    labels: torch.Tensor, label: int, start: np.ndarray, radius: float, rng: np.random.Generator
) -> None:
    """A curved tube of slowly changing calibre: overlapping balls along a smooth random walk."""
    size = labels.shape[0]
    radius = max(radius, 1.3)
    direction = rng.standard_normal(3)
    direction /= np.linalg.norm(direction)
    bend = rng.standard_normal(3) * rng.uniform(0.02, 0.12)
    position = start.copy()
    for _ in range(int(rng.uniform(0.4, 1.3) * size / (0.7 * radius))):
        bend = 0.95 * bend + 0.03 * rng.standard_normal(3)
        direction = direction + bend
        direction /= np.linalg.norm(direction)
        position = position + direction * radius * 0.7
        if (position < -radius).any() or (position > size + radius).any():
            break
        local = radius * (1 + 0.15 * np.sin(position.sum() / (6 * radius)))
        low = np.maximum(np.floor(position - local).astype(int), 0)
        high = np.minimum(np.ceil(position + local).astype(int) + 1, size)
        if (low >= high).any():
            continue
        axes = [
            torch.arange(int(a), int(b), dtype=torch.float32) - float(c)
            for a, b, c in zip(low, high, position)
        ]
        distance = sum(axis.view([-1 if n == m else 1 for m in range(3)]) ** 2 for n, axis in enumerate(axes))
        region = tuple(slice(int(a), int(b)) for a, b in zip(low, high))
        labels[region][distance < local**2] = label
