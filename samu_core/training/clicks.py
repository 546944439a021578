"""Where a training sample is clicked: in a component of a volume, and in others that its patch holds."""

from __future__ import annotations

import numpy as np
import torch

from samu_core.training.pack import PackedVolume
from samu_core.training.tissues import click_factors

DEPTH_REACH = 5  # voxels around a click that are looked at to see how deep it lies
POWERS = (0.1, 0.6)  # of its volume, with which a component is drawn: most are small, but all must be seen
AGAIN = 0.25  # of the further clicks may fall into what has been clicked, so that its masks learn to agree


def draw_component(volume: PackedVolume, rng: np.random.Generator) -> int:
    """Index of a component, p ~ volume^power with a power drawn from POWERS; in label maps what fills a good
    part of the map (a tissue with holes, rather than an object) is rare."""
    power = rng.uniform(*POWERS)
    if volume.image is None:
        weights = volume.counts.astype(float) ** power * click_factors(volume.source, volume.labels)
        weights[_tissues(volume)] *= 0.1
        return int(rng.choice(len(weights), p=weights / weights.sum()))
    labels, place = np.unique(volume.labels, return_inverse=True)
    sizes = np.bincount(place, volume.counts) ** power
    label = rng.choice(labels, p=sizes / sizes.sum())
    candidates = np.flatnonzero(volume.labels == label)
    weights = volume.counts[candidates].astype(float) ** 0.7
    return int(rng.choice(candidates, p=weights / weights.sum()))


def draw_click(volume: PackedVolume, component: int, rng: np.random.Generator) -> np.ndarray:
    """A voxel of the component, KJI: 70 % uniform, 20 % towards its depth, 10 % at its rim."""
    return _one_of(volume.voxels(component, rng), volume.ids, component + 1, rng)


def further_clicks(
    ids: torch.Tensor, usable: torch.Tensor, clicked: int, count: int, least: float,
    volume: PackedVolume, rng: np.random.Generator,
) -> list[tuple[int, np.ndarray]]:  # fmt: skip
    """More clicks in a patch: its image then teaches more than one answer.

    Args:
        ids: int64 (n, n, n) component ids of the patch (KJI), 0 for background.
        usable: bool (n, n, n), voxels of the volume.
        clicked: id of the component clicked first.
        least: voxels of it in the patch that a component must have.

    Returns:
        `count` of (component id, voxel KJI of the patch). p ~ (voxels in the patch)^power (`draw_component`)
        among components not yet clicked; with AGAIN, and when all were clicked, among all of them.
    """
    shown = torch.where(usable, ids, torch.zeros_like(ids))
    counts = torch.bincount(shown.flatten()).numpy().astype(float)
    counts[0] = 0
    weights = np.where(counts >= least, counts, 0.0) ** rng.uniform(*POWERS)
    if volume.image is None:
        factors = click_factors(volume.source, volume.labels)
        factors[_tissues(volume)] *= 0.1
        known = min(len(factors), len(weights) - 1)  # mirror images of random shapes have ids beyond
        weights[1 : known + 1] *= factors[:known]
    array, found, free = shown.numpy(), [], weights.copy()
    free[clicked] = 0
    for _ in range(count):
        chances = free if free.any() and rng.random() >= AGAIN else weights
        component = int(rng.choice(len(chances), p=chances / chances.sum()))
        free[component] = 0
        flat = np.flatnonzero(array == component)
        voxels = np.stack(np.unravel_index(flat[rng.integers(len(flat), size=8)], array.shape), axis=1)
        found.append((component, _one_of(voxels, array, component, rng)))
    return found


def _tissues(volume: PackedVolume) -> np.ndarray:
    """Indices of the components that fill a good part of a label map."""
    return np.flatnonzero(volume.counts > 0.15 * volume.ids.size)


def _one_of(voxels: np.ndarray, ids: np.ndarray, value: int, rng: np.random.Generator) -> np.ndarray:
    """One of the voxels (n, 3): 70 % uniform, 20 % towards the depth of the object, 10 % at its rim."""
    draw = rng.random()
    if draw < 0.7:
        return voxels[rng.integers(len(voxels))].astype(float)
    candidates = voxels[rng.integers(len(voxels), size=8)]
    depths = np.array([_depth(ids, value, voxel) for voxel in candidates], float)
    if draw < 0.9:
        return candidates[rng.choice(len(candidates), p=depths**2 / (depths**2).sum())].astype(float)
    return candidates[int(depths.argmin())].astype(float)


def _depth(ids: np.ndarray, value: int, voxel: np.ndarray) -> int:
    """Chessboard distance from a voxel of `value` to the nearest other one, at most DEPTH_REACH + 1."""
    low = np.maximum(voxel - DEPTH_REACH, 0)
    window = ids[tuple(slice(a, v + DEPTH_REACH + 1) for a, v in zip(low, voxel))]
    others = np.argwhere(window != value) + low - voxel
    return int(np.abs(others).max(axis=1).min()) if len(others) else DEPTH_REACH + 1
