"""Intensities of a patch as the network expects them."""

from __future__ import annotations

import numpy as np

from samu_core.errors import VolumeError

CT_RANGE_HU = (-1000.0, 1000.0)
# An image without a known modality that goes below this is taken for CT: air and lung are there,
# while MR intensities are magnitudes and seldom negative at all.
CT_GUESS_BELOW = -300.0
# Outside is as dark as all but this share of the volume's voxels: the very darkest one may be a speck that a
# copy of the image on another grid lacks, and most of a patch may lie outside.
DARKER_THAN_OUTSIDE = 0.001


def normalize_patch(patch: np.ndarray, modality: str | None = None) -> np.ndarray:
    """Z-score of a patch over the voxels that lie inside the volume.

    CT is clamped to +-1000 HU first, so that metal and the padding values that scanners write
    outside the field of view do not stretch the scale (SAM-Med3D's convention, which the SAMU
    paper follows, Sec. 3.1).

    Args:
        patch: (D, H, W) float32, KJI; voxels outside the volume are NaN.
        modality: "CT", "MR" or None; None is taken for CT when the patch goes below -300.

    Returns:
        float32 of the same shape without NaN. Outside voxels hold `outside_value` of the inside
        ones. A constant patch gives zeros.

    Raises:
        VolumeError: no voxel of the patch has a finite value.
    """
    patch = np.asarray(patch, dtype=np.float32)
    inside = np.isfinite(patch)
    complete = bool(inside.all())
    values = patch.ravel() if complete else patch[inside]
    mine = not complete  # indexing by a mask has copied
    if values.size == 0:
        raise VolumeError(
            "There is no image data around the click (every voxel is NaN or outside the volume); "
            "click where the image shows something."
        )
    if modality == "CT" or (modality is None and values.min() < CT_GUESS_BELOW):
        values, mine = np.clip(values, *CT_RANGE_HU, out=values if mine else None), True
    scores = _z_score(values if mine else values.copy())
    if complete:
        return scores.reshape(patch.shape)
    result = np.full(patch.shape, outside_value(scores), dtype=np.float32)
    result[inside] = scores
    return result


def outside_value(scores: np.ndarray) -> float:
    """What fills a patch outside the volume: the DARKER_THAN_OUTSIDE quantile of the scores (n,) inside."""
    place = int(DARKER_THAN_OUTSIDE * scores.size)
    return float(np.partition(scores, place)[place])


def _z_score(values: np.ndarray) -> np.ndarray:
    """(values - mean) / sd as float32, in place; zeros where all values are equal.

    In place, because every further array of a patch's size is 8 MB of the process's peak.
    """
    low, high = float(values.min()), float(values.max())
    if low == high:
        values[:] = 0
        return values
    mean = float(values.mean(dtype=np.float64))
    # Scaled to at most 1 before squaring: float32 squares of raw intensities may overflow.
    peak = max(high - mean, mean - low)
    values -= np.float32(mean)
    values /= np.float32(peak)
    values /= np.float32(np.sqrt(float(np.dot(values, values)) / values.size))
    return values
