"""What a click asks for: checked once before the inference, and again before its result is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from samu_core.errors import SamuError
from samu_core.geometry import GridGeometry, Volume
from SAMUSegmentLib.segmentations import findGrid, requireSegment, requireSegmentation
from SAMUSegmentLib.targets import requireInsideSegmentation
from SAMUSegmentLib.volumes import nameOf, volumeFromNode, volumeIjkToWorld, volumeVersion

MODES = ("add", "subtract", "new", "set")


@dataclass(frozen=True)
class SegmentRequest:
    """A click that passed every check and can be given to the predictor on any thread.

    Attributes:
        volume: the image in world RAS; the array is a view of the node's voxels. None in the request
            of a result, which would otherwise keep the voxels of a deleted volume in memory.
        imageGeometry: the volume's grid in world RAS when the click was made.
        imageVersion: which voxels it had then (see volumes.volumeVersion).
        pointRAS: (3,) world RAS mm.
        volumeNode, segmentationNode: where it came from and goes to; the latter None for a new one.
        segmentID: the segment to change; None for a new one.
        mode: one of MODES.
        segmentName: name of a new segment; None leaves the naming to Slicer.
    """

    volume: Volume | None
    imageGeometry: GridGeometry
    imageVersion: tuple
    pointRAS: tuple[float, float, float]
    volumeNode: Any
    segmentationNode: Any
    segmentID: str | None
    mode: str
    segmentName: str | None = None


def prepareRequest(
    volumeNode: Any,
    pointRAS: Sequence[float],
    segmentationNode: Any,
    segmentID: str | None,
    mode: str,
    segmentName: str | None = None,
) -> SegmentRequest:
    """Every check that can be made before the inference; changes nothing.

    Args and errors as SAMUSegmentLogic.segmentFromPoint.
    """
    if mode not in MODES:
        raise ValueError(f"The mode is one of {', '.join(MODES)}; got {mode!r}.")
    volume = volumeFromNode(volumeNode)
    scene = volumeNode.GetScene()
    if scene is None:
        raise SamuError(f"'{nameOf(volumeNode)}' is in no scene; add it to the scene first.")
    if segmentationNode is not None:
        requireSegmentation(segmentationNode)
        if segmentationNode.GetScene() is not scene:
            raise SamuError(f"'{nameOf(segmentationNode)}' is not in the scene of the volume.")
    if mode == "new":
        segmentID = None
    elif segmentID is None and mode == "subtract":
        raise SamuError("Select the segment to subtract from.")
    requireSegment(segmentationNode, segmentID)
    point = volume.require_inside(pointRAS)
    grid = findGrid(segmentationNode, volumeNode)
    requireInsideSegmentation(grid, point, segmentationNode)
    return SegmentRequest(
        volume=volume,
        imageGeometry=volume.geometry,
        imageVersion=volume.version,
        pointRAS=tuple(float(x) for x in point),
        volumeNode=volumeNode,
        segmentationNode=segmentationNode,
        segmentID=segmentID,
        mode=mode,
        segmentName=segmentName,
    )


def requireUnchanged(request: SegmentRequest) -> None:
    """SamuError when what a prediction belongs to is gone, moved or changed since it was asked for."""
    volumeNode, node = request.volumeNode, request.segmentationNode
    if volumeNode.GetScene() is None or (node is not None and node.GetScene() is None):
        raise SamuError("Volume or segmentation were removed from the scene; the result was dropped.")
    same = volumeNode.GetImageData() is not None and volumeVersion(volumeNode) == request.imageVersion
    if not same or not np.array_equal(volumeIjkToWorld(volumeNode), request.imageGeometry.ijk_to_ras):
        raise SamuError(f"'{nameOf(volumeNode)}' was moved or changed after the click; click again.")
    if node is not None:
        requireSegmentation(node)
    requireSegment(node, request.segmentID)
