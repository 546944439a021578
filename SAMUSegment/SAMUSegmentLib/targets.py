"""The predicted mask on the segmentation's grid, clipped to what may be written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from samu_core.errors import PointOutsideVolumeError
from samu_core.geometry import EMPTY_EXTENT, Extent, GridGeometry
from SAMUSegmentLib.segmentations import SegmentationGrid
from SAMUSegmentLib.volumes import nameOf

# A voxel centre this far (in voxels) beyond the image's outer face still counts as inside: round-off.
FACE_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class TargetMask:
    """A mask on the segmentation's grid.

    Attributes:
        array: (dk, dj, di) uint8 of 0 and 1.
        extent: its inclusive extent in the segmentation's own indices; EMPTY_EXTENT without voxels.
        grid: that grid.
    """

    array: np.ndarray
    extent: Extent
    grid: SegmentationGrid

    @property
    def voxelCount(self) -> int:
        """Number of voxels in the mask."""
        return int(np.count_nonzero(self.array))

    @property
    def volumeCm3(self) -> float:
        """World volume of the mask in cubic centimetres."""
        voxel = abs(np.linalg.det((self.grid.nodeToWorld @ self.grid.ijkToNode)[:3, :3]))
        return self.voxelCount * voxel / 1000


def requireInsideSegmentation(
    grid: SegmentationGrid, pointRAS: Sequence[float], segmentationNode: Any
) -> None:
    """PointOutsideVolumeError when the click is outside the grid that the segmentation already has."""
    if segmentationNode is not None and not grid.geometry.contains(pointRAS):
        raise PointOutsideVolumeError(
            f"The click is outside the geometry of segmentation '{nameOf(segmentationNode)}': use a new "
            "segmentation, or set its geometry from the volume (Segment Editor, Specify geometry)."
        )


def maskOnSegmentation(
    prediction: Any, grid: SegmentationGrid, image: GridGeometry, threshold: float, clickedComponent: bool
) -> TargetMask:
    """The prediction's mask on a segmentation's grid, clipped to its reference image and to the image.

    Args:
        prediction: samu_core Prediction.
        grid: where the mask goes.
        image: world-space grid of the source volume; no voxel centre outside it is written.
        threshold: probability from which a voxel belongs to the mask.
        clickedComponent: keep only what hangs together with the click.
    """
    geometry = grid.geometry
    region = prediction.mask(geometry, threshold, clickedComponent)
    if region.empty:
        return TargetMask(region.array, EMPTY_EXTENT, grid)
    array = _clippedToImage(region.array, region.extent, image.ras_to_ijk @ geometry.ijk_to_ras, image)
    if not array.any():
        return TargetMask(np.zeros((0, 0, 0), np.uint8), EMPTY_EXTENT, grid)
    return TargetMask(array, grid.shifted(region.extent), grid)


def _clippedToImage(
    array: np.ndarray, extent: Extent, gridToImage: np.ndarray, image: GridGeometry
) -> np.ndarray:
    """The mask without the voxels whose centres lie outside the image's outer faces."""
    upper = np.array(image.shape_ijk) - 0.5 + FACE_TOLERANCE
    ranges = [np.arange(extent[2 * axis], extent[2 * axis + 1] + 1, dtype=float) for axis in range(3)]
    inside = None
    for axis in range(3):
        i, j, k = (gridToImage[axis, column] * ranges[column] for column in range(3))
        offset = gridToImage[axis, 3]
        low = offset + i.min() + j.min() + k.min()
        high = offset + i.max() + j.max() + k.max()
        if low >= -0.5 - FACE_TOLERANCE and high <= upper[axis]:
            continue
        index = offset + i[None, None, :] + j[None, :, None] + k[:, None, None]
        within = (index >= -0.5 - FACE_TOLERANCE) & (index <= upper[axis])
        inside = within if inside is None else inside & within
    return array if inside is None else (array * inside).astype(np.uint8)
