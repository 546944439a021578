"""A bolder mask where the network is in doubt.

Where a click is answered much worse than others in the same structure, the mask is mostly a piece of it
(docs/model.md, "What is wrong with the worst clicks"). The same logits hold more, without another look. What
the network is sure of stays.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from samu_core.candidates import expected_iou
from samu_core.geometry import PATCH_SPACING_MM
from samu_core.prediction import Prediction
from samu_core.wider import LARGEST_GROWTH, is_expected, mask_volume

# Expected overlap (samu_core.candidates) from which logits stay, and up to which they are raised by RAISE;
# in between by a part of it, so that two like clicks have like masks (figures: benchmarks/README.md,
# `bolder.py`). Raised by as much, the larger mask of three (`candidates.STEP`) reaches to where the fast
# engine stops knowing (RegionOfInterest.probability); only thresholds below .08 reach further.
SURE, DOUBT, RAISE = 0.5, 0.4, 1.5


def bolder(prediction: Prediction) -> Prediction:
    """The prediction, or one of the same patch with raised logits if it is in doubt.

    Not where there is no mask, where the mask would grow more than LARGEST_GROWTH times, which leaks do, and
    in a patch wider than usual, which was not measured.
    """
    if prediction.grid.spacing > PATCH_SPACING_MM or is_expected(prediction, SURE):
        return prediction
    volume = mask_volume(prediction)
    if not volume:
        return prediction
    raised = replace(prediction, logits=prediction.logits + raise_for(expected_iou(prediction)))
    return raised if mask_volume(raised) <= LARGEST_GROWTH * volume else prediction


def raise_for(expected: float) -> np.float32:
    """What is added to the logits of a mask of which so much overlap (0...1) is expected, 0...RAISE."""
    return np.float32(RAISE * np.clip((SURE - expected) / (SURE - DOUBT), 0.0, 1.0))
