"""Which part of a mask the click means, where doubtful voxels link it with another structure.

A mask is what the network finds more likely than not. Two bodies of which it is sure, joined by voxels of
which it is not, are seldom one structure: the clicked one keeps what is nearer to it, along the network's
certainty, than to the other.
"""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
import SimpleITK as sitk

CONFIDENCE = math.log(9)  # of the logits, above the threshold: at one half, voxels of a probability of .9
LEAST_VOXELS = 27  # smaller confident bodies are spots of the same structure
REACH_VOXELS = 4  # how far from the click its confident body may begin
STEP = 2  # the watershed runs on every second voxel


def clicked_part(logits: np.ndarray, inside: np.ndarray, level: float, click: np.ndarray) -> np.ndarray:
    """The voxels of a mask that belong to the click rather than to another confident body.

    Args:
        logits: (k, j, i) float32. inside: bool (k, j, i), the mask; logits there are at least `level`.
        click: (3,) continuous index KJI, which may lie outside the arrays.

    Returns:
        bool (k, j, i); `inside` itself where there is no other confident body, or none at the click.
    """
    confident = inside & (logits >= level + CONFIDENCE)
    labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(confident.view(np.uint8))))
    counts = np.bincount(labels.ravel())
    own = _label_at(labels, click)
    bodies = counts >= LEAST_VOXELS
    bodies[0] = False
    if own == 0 or not np.delete(bodies, own).any():
        return inside
    bodies[own] = True
    markers = np.where(bodies[labels], np.where(labels == own, 1, 2), 0).astype(np.uint8)
    basins = _watershed(np.where(inside, logits, level - 20).astype(np.float32), markers)
    return inside & ((basins == 1) | (markers == 1)) & (markers != 2)


def _label_at(labels: np.ndarray, click: np.ndarray) -> int:
    """The label at the click, or the nearest within REACH_VOXELS; 0 where there is none."""
    voxel = np.floor(np.asarray(click) + 0.5).astype(int)
    low = np.maximum(voxel - REACH_VOXELS, 0)
    high = np.maximum(voxel + REACH_VOXELS + 1, 0)
    window = labels[tuple(slice(a, b) for a, b in zip(low, high))]
    places = np.argwhere(window)
    if not len(places):
        return 0
    distances = np.linalg.norm(places + low - click, axis=1)
    nearest = int(distances.argmin())
    return int(window[tuple(places[nearest])]) if distances[nearest] <= REACH_VOXELS else 0


def _watershed(logits: np.ndarray, markers: np.ndarray) -> np.ndarray:
    """The marker (1 or 2) whose basin a voxel lies in, flooded from the surest voxels on; uint8 (k, j, i)."""
    size = [math.ceil(edge / STEP) * STEP for edge in logits.shape]
    padding = [(0, target - edge) for target, edge in zip(size, logits.shape)]
    coarse = _of_blocks(np.maximum, np.pad(markers, padding))
    heights = _of_blocks(np.minimum, np.pad(-logits, padding, mode="edge"))
    basins = sitk.MorphologicalWatershedFromMarkers(
        sitk.GetImageFromArray(heights), sitk.GetImageFromArray(coarse), markWatershedLine=False
    )
    fine = sitk.GetArrayFromImage(basins)
    for axis in range(3):
        fine = fine.repeat(STEP, axis)
    return fine[tuple(slice(0, edge) for edge in logits.shape)]


def _of_blocks(extreme: np.ufunc, array: np.ndarray) -> np.ndarray:
    """The maximum or minimum of STEP^3 voxels each, of (k, j, i). Axis by axis: numpy takes several times as
    long for three of six axes at once."""
    for axis in range(3):
        places = [slice(None)] * axis
        array = reduce(extreme, (array[(*places, slice(first, None, STEP))] for first in range(STEP)))
    return array
