"""One key through the nested masks of a click: as found, larger, smaller, and round again."""

from __future__ import annotations

import math
from typing import Any

from samu_core.candidates import Candidate, nested_candidates
from SAMUSegmentLib.options import ClickOptions


class MaskCycle:
    """Knows the nested masks of the click that was asked about last."""

    def __init__(self) -> None:
        self._of: tuple[Any, ClickOptions] | None = None
        self._candidates: list[Candidate] = []

    def following(self, prediction: Any, options: ClickOptions, shown: float) -> tuple[Candidate | None, str]:
        """The mask after the one that is shown, and its place, e.g. "2 of 3"; None where there is no other.

        Args:
            prediction: samu_core Prediction of the click.
            options: the user's; its threshold is that of the mask as found.
            shown: threshold of the mask that is shown.
        """
        if self._of is None or self._of[0] is not prediction or self._of[1] != options:
            self._of = prediction, options
            self._candidates = nested_candidates(prediction, options.threshold, options.clickedComponent)
        thresholds = [candidate.threshold for candidate in self._candidates]
        place = next((n for n, value in enumerate(thresholds) if math.isclose(value, shown)), -1)
        others = len(thresholds) - (place >= 0)
        if not others:
            return None, ""
        place = (place + 1) % len(thresholds)
        return self._candidates[place], f"{place + 1} of {len(thresholds)}"
