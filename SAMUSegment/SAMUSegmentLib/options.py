"""What the user can choose for a click; no Slicer, no Qt."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from samu_core.candidates import GREATEST_THRESHOLD, LEAST_THRESHOLD
from samu_core.geometry import PATCH_SIZE, PATCH_SPACING_MM

THRESHOLD_DEFAULT = 0.5
# 0 and 1 themselves are no usable thresholds: their logits are infinite.
THRESHOLD_MINIMUM = LEAST_THRESHOLD
THRESHOLD_MAXIMUM = GREATEST_THRESHOLD
# Two spacings closer than this show the same.
SPACING_TOLERANCE_MM = 1e-3


class ClickMode(Enum):
    """What a click does to the selected segment."""

    ADD = "add"
    SUBTRACT = "subtract"
    NEW = "new"

    def label(self) -> str:
        """Text for a menu (slicer.parameterNodeWrapper asks for it under this name)."""
        return {"add": "Add to segment", "subtract": "Subtract from segment", "new": "New segment"}[
            self.value
        ]


class FieldOfView(Enum):
    """How much of the volume the network sees around a click."""

    STANDARD = "standard"
    WIDE_1_5 = "x1.5"
    WIDE_2 = "x2"
    WIDE_3 = "x3"
    NATIVE = "native"

    @property
    def spacing(self) -> float | str:
        """Patch spacing for samu_core: mm, or "native"."""
        return "native" if self is FieldOfView.NATIVE else PATCH_SPACING_MM * _FACTORS[self]

    def label(self) -> str:
        """Text for a menu."""
        if self is FieldOfView.NATIVE:
            return "Native spacing of the volume"
        factor = _FACTORS[self]
        size = f"{PATCH_SIZE * PATCH_SPACING_MM * factor:.0f} mm"
        return size if factor == 1 else f"{size} (x{factor:g})"

    @staticmethod
    def widerThan(spacingMm: float) -> FieldOfView | None:
        """The next choice that shows more than a patch of this spacing; None at the end."""
        for choice, factor in _FACTORS.items():
            if PATCH_SPACING_MM * factor > spacingMm + SPACING_TOLERANCE_MM:
                return choice
        return None


_FACTORS = {
    FieldOfView.STANDARD: 1.0,
    FieldOfView.WIDE_1_5: 1.5,
    FieldOfView.WIDE_2: 2.0,
    FieldOfView.WIDE_3: 3.0,
}


@dataclass(frozen=True)
class ClickOptions:
    """The options of one click.

    Attributes:
        threshold: probability from which a voxel belongs to the structure.
        clickedComponent: keep only what hangs together with the click.
        fieldOfView: how much the network sees.
    """

    threshold: float = THRESHOLD_DEFAULT
    clickedComponent: bool = True
    fieldOfView: FieldOfView = FieldOfView.STANDARD


def clampedThreshold(value: float) -> float:
    """A threshold that can be used, whatever a slider or a saved scene says."""
    return min(max(float(value), THRESHOLD_MINIMUM), THRESHOLD_MAXIMUM)
