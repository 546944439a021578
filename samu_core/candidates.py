"""Three nested masks of one click, and how far each is expected to be right.

A click seldom says whether the whole or a part is meant. The network's logits hold more answers than the one
at the user's threshold: a larger mask around it and a smaller one in it, STEP logits away. They cost no
inference. The paper has one mask only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from samu_core.prediction import Prediction, logit_of

STEP = 2.5  # logits; what the best of three gains by it: benchmarks/README.md, `candidates.py`
LEAST_THRESHOLD, GREATEST_THRESHOLD = 0.02, 0.98  # below the least the fast engine knows nothing
AS_FOUND, LARGER, SMALLER = "as found", "larger", "smaller"
# The network is surer than it is right. With these the expected overlap has hardly a bias on the training
# split (benchmarks/candidates.py --split train).
SPREAD, BIAS = 3.0, 2.0


@dataclass(frozen=True)
class Candidate:
    """One of the masks.

    Attributes:
        name: AS_FOUND, LARGER or SMALLER.
        threshold: probability that gives this mask (`Prediction.mask`).
        voxels: of the mask in the patch.
        expected_iou: 0...1, intersection over union that it is expected to have with what was meant.
    """

    name: str
    threshold: float
    voxels: int
    expected_iou: float


def nested_thresholds(threshold: float = 0.5) -> dict[str, float]:
    """Probability of each of the three masks by its name; `threshold` is the one of the mask as found.

    Raises:
        SamuError: the threshold is not between 0 and 1.
    """
    level = logit_of(threshold)
    found = {AS_FOUND: threshold}
    for name, value in ((LARGER, level - STEP), (SMALLER, level + STEP)):
        found[name] = min(max(1 / (1 + math.exp(-value)), LEAST_THRESHOLD), GREATEST_THRESHOLD)
    return found


def nested_masks(
    prediction: Prediction,
    threshold: float = 0.5,
    clicked_component: bool = True,
    names: Sequence[str] = (AS_FOUND, LARGER, SMALLER),
) -> dict[str, np.ndarray]:
    """The masks by their `names`, bool (n, n, n), KJI, on the patch; all else as in `nested_candidates`."""
    geometry, thresholds = prediction.grid.geometry, nested_thresholds(threshold)
    return {
        name: prediction.mask(geometry, thresholds[name], clicked_component).full(geometry).view(bool)
        for name in names
    }


def nested_candidates(
    prediction: Prediction, threshold: float = 0.5, clicked_component: bool = True
) -> list[Candidate]:
    """The masks of a click, as found first, then the larger and the smaller one.

    Args:
        prediction: of the click.
        threshold, clicked_component: as in `Prediction.mask`, of the mask as found.

    Returns:
        Those that are there: a mask without voxels is left out, and so is one of as many voxels as another.
        Empty when all three are.

    Raises:
        SamuError: the threshold is not between 0 and 1.
    """
    masks = nested_masks(prediction, threshold, clicked_component)
    found: list[Candidate] = []
    for name, value in nested_thresholds(threshold).items():
        mask, around = masks[name], masks[LARGER]
        voxels = int(np.count_nonzero(mask))
        if voxels and voxels not in [other.voxels for other in found]:
            found.append(Candidate(name, value, voxels, expected_overlap(prediction.logits, mask, around)))
    return found


def expected_iou(prediction: Prediction, threshold: float = 0.5) -> float:
    """Intersection over union that the mask of a threshold is expected to have with what was meant, 0...1; 0
    where there is no mask.

    It is what the logits say, each taken for as probable as logits of its kind were in training images. A
    mask of the wrong structure that the network is sure of looks right to it.

    Raises:
        SamuError: the threshold is not between 0 and 1.
    """
    masks = nested_masks(prediction, threshold, names=(AS_FOUND, LARGER))
    if not masks[AS_FOUND].any():
        return 0.0
    return expected_overlap(prediction.logits, masks[AS_FOUND], masks[LARGER])


def expected_overlap(
    logits: np.ndarray, mask: np.ndarray, around: np.ndarray, spread: float = SPREAD, bias: float = BIAS
) -> float:
    """Expected intersection over union of a mask with what is meant, which lies within `mask` or `around`.

    Args:
        logits: float32 (n, n, n), KJI. mask, around: bool (n, n, n), the mask not empty.
        spread, bias: a voxel is taken to be part of it with probability sigmoid((logit - bias) / spread).
    """
    probability = 1 / (1 + np.exp((bias - logits[mask | around]) / spread))
    inside = mask[mask | around]
    return float(probability[inside].sum() / (np.count_nonzero(inside) + probability[~inside].sum()))
