"""Whether a click is looked at again, and what counts then."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from samu_core.asking import DecodeAgain, ask_again
from samu_core.bolder import bolder
from samu_core.closer import finer_spacing, look_closer
from samu_core.geometry import Volume
from samu_core.prediction import Prediction
from samu_core.wider import look_wider


def look_again(
    volume: Volume,
    first: Prediction,
    look: Callable[[np.ndarray, float], Prediction],
    decode_again: DecodeAgain | None = None,
) -> Prediction:
    """The first prediction, or one that knows the first mask (`ask_again`); of what is small then a closer
    one (`look_closer`, which tells the arguments), of what is doubtful a wider one (`look_wider`); with a
    bolder mask (`bolder`) if that is in doubt, too. Without `decode_again` nothing is asked again.

    A wider look is taken where the first answer is in doubt, and counts if it is surer than that: the second
    answer is surer of what the first one found, right or wrong.
    """
    second = first if decode_again is None else ask_again(first, decode_again)
    if finer_spacing(volume, second) is not None:
        return look_closer(volume, second, look)
    wider = look_wider(first, look)
    return bolder(second if wider is first else wider)
