"""Asked again by what the mask holds.

A click shows the network one voxel, which may say little of the structure: at a rim, in a bone's marrow, at a
speck of noise. The first mask says more. The network is asked a second time at the same click and in the same
patch, for which it has the features already; now it compares with what is typical of that mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Optional

import numpy as np

from samu_core.candidates import AS_FOUND, expected_iou, nested_masks
from samu_core.prediction import Prediction
from samu_core.prompt import TYPICAL_VOXELS
from samu_core.wider import is_expected

# By how much less overlap (of samu_core.candidates) the second answer may expect than the first and still be
# the result; figures: benchmarks/README.md, `asking.py`.
LESS_SURE = 0.1

DecodeAgain = Callable[[np.ndarray], Optional[np.ndarray]]


def ask_again(first: Prediction, decode_again: DecodeAgain) -> Prediction:
    """The first prediction, or what the network says to its click when it knows the first mask.

    Args:
        first: of a click.
        decode_again: logits (n, n, n) for the same click in the same patch, given a mask (n, n, n) bool of
            the clicked structure; None where that cannot be had.

    Returns:
        `first` where its mask is too small to be typical of anything, and where the second answer expects
        clearly less overlap or has no mask.
    """
    mask = nested_masks(first, names=(AS_FOUND,))[AS_FOUND]
    if np.count_nonzero(mask) < TYPICAL_VOXELS:
        return first
    logits = decode_again(mask)
    if logits is None:
        return first
    second = replace(first, logits=logits)
    return second if is_expected(second, expected_iou(first) - LESS_SURE) else first
