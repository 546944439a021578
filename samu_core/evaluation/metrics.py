"""Overlap and surface metrics on boolean masks, and summaries of a list of numbers.

All masks are KJI (z, y, x) arrays on one common grid; spacings are (k, j, i) in mm.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage


def dice(prediction: np.ndarray, target: np.ndarray) -> float:
    """Dice coefficient 2|P and T| / (|P| + |T|) of two masks of one shape; in [0, 1].

    NaN if the target is empty: such a click has no right answer and must not count (the caller drops it).
    An empty prediction of a real target is 0. ValueError if the shapes differ.
    """
    prediction, target = _as_masks(prediction, target)
    size = int(np.count_nonzero(target))
    if size == 0:
        return float("nan")
    both = int(np.count_nonzero(prediction & target))
    return 2.0 * both / (int(np.count_nonzero(prediction)) + size)


def surface_dice(
    prediction: np.ndarray, target: np.ndarray, spacing_kji: Sequence[float], tolerance_mm: float = 2.0
) -> float:
    """Normalised surface Dice (NSD): the share of both surfaces within tolerance_mm of the other surface.

    The surface is the set of the mask's voxels that have a face neighbour outside the mask (the volume's own
    border does not count as a surface), each voxel weighing the same, as in MONAI's SurfaceDiceMetric
    (Nikolov et al., 2018). NaN if the target is empty, 0 if only the prediction is.
    """
    prediction, target = _as_masks(prediction, target)
    if not target.any():
        return float("nan")
    if not prediction.any():
        return 0.0
    box = _union_box(prediction, target, np.asarray(spacing_kji, float), tolerance_mm)
    surfaces = [_surface(mask)[box] for mask in (prediction, target)]
    counts = [int(np.count_nonzero(surface)) for surface in surfaces]
    if sum(counts) == 0:  # both masks fill the whole grid: there is no surface to miss
        return 1.0
    near = 0
    for own, other in (surfaces, surfaces[::-1]):
        if other.any():
            distance = ndimage.distance_transform_edt(~other, sampling=spacing_kji)
            near += int(np.count_nonzero(distance[own] <= tolerance_mm))
    return near / sum(counts)


def round_half_up(x: float) -> int:
    """The nearest integer, halves upwards: a patch centre (63.5) is always voxel 64, never 63 (banker's)."""
    return int(np.floor(float(x) + 0.5))


def bootstrap_interval(
    groups: Sequence[Sequence[Sequence[float]]], samples: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean over data sets, resampling volumes within each data set.

    groups: one entry per data set, each a list of volumes, each a list of per-structure values. A data set of
    a single volume contributes no variance, so with many of those the interval is too narrow: it says how
    much the figure depends on the subjects drawn, not on the data sets. Returns (low, high), NaN if empty.
    """
    sums = [(np.array([np.sum(v) for v in g]), np.array([len(v) for v in g])) for g in groups if len(g)]
    if not sums:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    means = np.zeros(samples)
    for total, count in sums:
        draw = rng.integers(0, len(total), size=(samples, len(total)))
        means += total[draw].sum(axis=1) / count[draw].sum(axis=1)
    means /= len(sums)
    tail = 50.0 * (1.0 - level)
    low, high = np.percentile(means, [tail, 100.0 - tail])
    return float(low), float(high)


def _as_masks(prediction, target):
    prediction, target = np.asarray(prediction, bool), np.asarray(target, bool)
    if prediction.shape != target.shape:
        raise ValueError(f"masks of different shape: {prediction.shape} and {target.shape}")
    return prediction, target


def _surface(mask):
    return mask & ~ndimage.binary_erosion(mask, border_value=1)


def _union_box(a, b, spacing_kji, margin_mm):
    """Slices around both masks plus the tolerance, so that the distance maps stay small."""
    found = ndimage.find_objects((a | b).astype(np.uint8))[0]
    margin = np.ceil(margin_mm / spacing_kji).astype(int) + 1
    return tuple(slice(max(s.start - m, 0), s.stop + m) for s, m in zip(found, margin))
