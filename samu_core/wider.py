"""A wider look at what the first one is in doubt about.

Now and then the network has no good answer at 1.5 mm: it leaks into everything around, or holds on to a
piece, and its own logits say so. In a patch of larger voxels, which shows more of what is around, the same
click may have one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from samu_core.candidates import AS_FOUND, LARGER, STEP, expected_iou, expected_overlap, nested_masks
from samu_core.geometry import PATCH_SPACING_MM
from samu_core.prediction import Prediction

WIDER = 1.6  # times the first patch's spacing
# Expected overlap (samu_core.candidates) below which a wider look is taken, and by how much more that must
# expect to be the result; figures: benchmarks/README.md, `wider.py`.
DOUBT, SURER = 0.4, 0.1
LARGEST_GROWTH = 5.0  # times the first mask's volume: what is larger has leaked


def look_wider(first: Prediction, look: Callable[[np.ndarray, float], Prediction]) -> Prediction:
    """The first prediction, or one of the same click in a wider patch, which is surer of itself.

    Args:
        first: of its click.
        look: the prediction of a click at a point (RAS mm) in a patch of another spacing (mm).

    Returns:
        `first`, unless it is in doubt and the wider look is clearly less so; where the first look finds
        nothing, a wider one that finds something counts. A view that somebody chose wider stays.
    """
    if first.grid.spacing > PATCH_SPACING_MM or is_expected(first, DOUBT):
        return first
    second = look(first.point_ras, first.grid.spacing * WIDER)
    largest = mask_volume(first) * LARGEST_GROWTH or math.inf
    return second if is_expected(second, expected_iou(first) + SURER, largest) else first


def mask_volume(prediction: Prediction) -> float:
    """mm^3 of the mask at one half; 0 where there is none."""
    return _volume(prediction, _own_mask(prediction, AS_FOUND))


def is_expected(prediction: Prediction, overlap: float, largest: float = math.inf) -> bool:
    """Whether `candidates.expected_iou` is at least so much, and the mask not larger than `largest` mm^3.

    Told by bounds where they suffice, in half the time and memory: the expected overlap is at least what it
    would be if all that is likely anywhere in the patch were around the mask, at most if nothing were. False
    where there is no mask.
    """
    logits, mask = prediction.logits, _own_mask(prediction, AS_FOUND)
    if not 0 < _volume(prediction, mask) <= largest:
        return False
    if expected_overlap(logits, mask, logits >= -STEP) >= overlap:
        return True
    if expected_overlap(logits, mask, mask) < overlap:
        return False
    return expected_overlap(logits, mask, _own_mask(prediction, LARGER)) >= overlap


def _own_mask(prediction: Prediction, name: str) -> np.ndarray:
    return nested_masks(prediction, names=(name,))[name]


def _volume(prediction: Prediction, mask: np.ndarray) -> float:
    return int(np.count_nonzero(mask)) * prediction.grid.spacing**3
