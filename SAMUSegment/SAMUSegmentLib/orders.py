"""Clicks as the user made them, where they go, and who wants to know how they end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from SAMUSegmentLib.options import FieldOfView
from SAMUSegmentLib.results import SegmentResult


@dataclass(frozen=True, eq=False)
class ClickOrder:
    """A click as the user made it.

    Attributes:
        key: names the click; an order with the key of an earlier click takes that one's place.
        pointRAS: (3,) world RAS mm.
        volumeNode, segmentationNode, segmentID: where it was made and where it goes, as
            SAMUSegmentLogic.segmentFromPoint.
        mode: "add", "subtract" or "new".
        fieldOfView: None is that of the controller's options.
    """

    key: int
    pointRAS: tuple[float, float, float]
    volumeNode: Any
    segmentationNode: Any
    segmentID: str | None
    mode: str
    fieldOfView: FieldOfView | None = None


@dataclass(frozen=True, eq=False)
class Place:
    """What the user has selected at the moment: where the next click would go."""

    volumeNode: Any
    segmentationNode: Any
    segmentID: str | None


class ClickListener(Protocol):
    """Who wants to know how clicks end."""

    def landed(self, order: ClickOrder, result: SegmentResult) -> None:
        """The click was carried out, which may have changed nothing."""

    def dropped(self, order: ClickOrder) -> None:
        """The click came to nothing: refused, failed, cancelled or superseded."""
