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

from samu_core.geometry import bounding_box

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
        bool (k, j, i); all of `inside` where there is no other confident body, or none at the click.
    """
    box = bounding_box(inside)
    if box is None:
        return inside
    low = box[0] // STEP * STEP
    crop = tuple(slice(first, last + 1) for first, last in zip(low, box[1]))
    part = np.zeros_like(inside)
    part[crop] = _part_of_crop(logits[crop], inside[crop], level, np.subtract(click, low))
    return part


def _part_of_crop(logits: np.ndarray, inside: np.ndarray, level: float, click: np.ndarray) -> np.ndarray:
    """`clicked_part` where the mask fills the arrays."""
    confident = inside & (logits >= level + CONFIDENCE)
    components = sitk.ConnectedComponent(sitk.GetImageFromArray(confident.view(np.uint8)))
    labels = sitk.GetArrayViewFromImage(components)
    last = int(labels.max())
    counts = sum(np.bincount(part.ravel(), minlength=last + 1) for part in labels)  # as in `looked_up`
    own = _label_at(labels, click)
    bodies = counts >= LEAST_VOXELS
    bodies[0] = False
    if own == 0 or not np.delete(bodies, own).any():
        return inside
    marker_of = np.where(bodies, 2, 0).astype(np.uint8)
    marker_of[own] = 1
    markers = looked_up(marker_of, labels)
    del labels, components
    basins = _watershed(np.where(inside, logits, np.float32(level - 20)), markers)
    return inside & ((basins == 1) | (markers == 1)) & (markers != 2)


def looked_up(table: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """table[labels], slice by slice, because numpy makes eight bytes of every label first."""
    found = np.empty(labels.shape, table.dtype)
    for slice_of_found, slice_of_labels in zip(found, labels):
        slice_of_found[:] = table[slice_of_labels]
    return found


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
    heights, coarse = -_maxima(logits), _maxima(markers)
    basins = sitk.MorphologicalWatershedFromMarkers(
        sitk.GetImageFromArray(heights), sitk.GetImageFromArray(coarse), markWatershedLine=False
    )
    fine = sitk.GetArrayFromImage(basins)
    for axis in range(3):
        fine = fine.repeat(STEP, axis)
    return fine[tuple(slice(0, edge) for edge in logits.shape)]


def _maxima(array: np.ndarray) -> np.ndarray:
    """The maximum of every STEP^3 voxels of (k, j, i), fewer at the ends. Axis by axis: numpy takes several
    times as long for three of six axes at once."""
    for axis, size in enumerate(array.shape):
        starts = np.arange(0, size, STEP)
        shifted = (array.take(np.minimum(starts + shift, size - 1), axis) for shift in range(STEP))
        array = reduce(np.maximum, shifted)
    return array
