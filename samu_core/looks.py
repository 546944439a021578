"""Whether a click is looked at again, and what counts then."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from samu_core.bolder import bolder
from samu_core.closer import finer_spacing, look_closer
from samu_core.geometry import Volume
from samu_core.prediction import Prediction
from samu_core.wider import look_wider


def look_again(
    volume: Volume, first: Prediction, look: Callable[[np.ndarray, float], Prediction]
) -> Prediction:
    """The first prediction, or a closer one of what is small (`look_closer`, which tells the arguments), or a
    wider one of what is doubtful (`look_wider`); with a bolder mask (`bolder`) if that is in doubt, too."""
    if finer_spacing(volume, first) is not None:
        return look_closer(volume, first, look)
    return bolder(look_wider(first, look))
