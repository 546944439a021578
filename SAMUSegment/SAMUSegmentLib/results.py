"""What came of a click."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from samu_core.geometry import Extent
from SAMUSegmentLib.clicks import SegmentRequest


@dataclass(frozen=True, eq=False)
class SegmentResult:
    """The outcome of one click.

    Attributes:
        segmentationNode: what was written to; None if nothing was written and none was given.
        segmentID: the segment that was changed; None if a new one would have been empty.
        mode: one of SegmentRequest's modes.
        threshold: probability above which a voxel belongs to the mask.
        voxelCount: voxels of the predicted mask on the segmentation's grid, clipped to the image.
        changedVoxelCount: how many of the segment's voxels differ from before; smaller than
            voxelCount where masks hold voxels back or the segment covered them already.
        extent: (i0, i1, j0, j1, k0, k1), inclusive, of the mask in the segmentation's indices.
        touchesBorder: True when the mask reaches the border of the field of view inside the image,
            so that the structure may be cut.
        message: one line for the user.
        prediction: samu_core Prediction with the logits; a new threshold needs no inference.
        request: what was asked for.
        seconds: stage -> s, as the predictor reports them, with "mask" and "write".
    """

    segmentationNode: Any
    segmentID: str | None
    mode: str
    threshold: float
    voxelCount: int
    changedVoxelCount: int
    extent: Extent
    touchesBorder: bool
    message: str
    prediction: Any
    request: SegmentRequest
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def applied(self) -> bool:
        """True when the segmentation was changed."""
        return self.changedVoxelCount > 0

    @property
    def totalSeconds(self) -> float:
        """Time from the click to the finished segment, waiting for other threads left out."""
        return sum(self.seconds.values())
