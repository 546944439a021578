"""The voxel grid of a segmentation, read without changing the scene.

A vtkMRMLSegmentationNode has its grid in the conversion parameter "Reference image geometry", in its
label maps if that is missing, or not at all before the first edit: then the volume gives it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk

from samu_core.errors import SamuError
from samu_core.geometry import Extent, GridGeometry
from SAMUSegmentLib.volumes import (
    arrayFromVtkMatrix,
    matrixBetweenNodes,
    nameOf,
    volumeIjkToRas,
    vtkMatrixFromArray,
)

BINARY_LABELMAP = "Binary labelmap"
REFERENCE_GEOMETRY = "Reference image geometry"


@dataclass(frozen=True, eq=False)
class SegmentationGrid:
    """The grid on which a segmentation's segments live.

    Attributes:
        ijkToNode: (4, 4) voxel index -> the segmentation's own RAS (parent transforms left out).
        nodeToWorld: (4, 4) the segmentation's own RAS -> world RAS.
        extent: (i0, i1, j0, j1, k0, k1) inclusive voxel indices of the reference image; it need
            not start at 0.
        source: "parameter", "labelmaps" or "volume": where the grid was found.
    """

    ijkToNode: np.ndarray
    nodeToWorld: np.ndarray
    extent: Extent
    source: str

    @property
    def geometry(self) -> GridGeometry:
        """World-space GridGeometry whose voxel 0 is the extent's first voxel."""
        shift = np.eye(4)
        shift[:3, 3] = self.extent[::2]
        shape = tuple(self.extent[2 * axis + 1] - self.extent[2 * axis] + 1 for axis in (2, 1, 0))
        return GridGeometry(shape, self.nodeToWorld @ self.ijkToNode @ shift)

    def shifted(self, extent: Extent) -> Extent:
        """An extent counted from voxel 0 of `geometry` as one in the segmentation's own indices."""
        return tuple(value + self.extent[2 * (index // 2)] for index, value in enumerate(extent))

    def serialized(self) -> str:
        """The value of the conversion parameter "Reference image geometry"."""
        return slicer.vtkSegmentationConverter.SerializeImageGeometry(
            vtkMatrixFromArray(self.ijkToNode), list(self.extent)
        )


def requireSegmentation(segmentationNode: Any) -> None:
    """SamuError with advice unless the node is a segmentation that can be edited voxel by voxel."""
    if not segmentationNode.IsA("vtkMRMLSegmentationNode"):
        raise SamuError(f"Choose a segmentation to write to; '{nameOf(segmentationNode)}' is none.")
    segmentation = segmentationNode.GetSegmentation()
    if segmentation is None:
        raise SamuError(f"'{nameOf(segmentationNode)}' holds no segmentation; choose or create another.")
    requireEditable(segmentationNode)


def requireEditable(segmentationNode: Any) -> None:
    """SamuError when segments are stored as surfaces, which an edit of voxels would not change."""
    segmentation = segmentationNode.GetSegmentation()
    stored = segmentation.GetSourceRepresentationName()
    if segmentation.GetNumberOfSegments() > 0 and stored != BINARY_LABELMAP:
        raise SamuError(
            f"'{nameOf(segmentationNode)}' is stored as {stored.lower()}: make 'Binary labelmap' its source "
            "representation (Segmentations module, Representations), then click again."
        )


def requireSegment(segmentationNode: Any, segmentID: str | None) -> None:
    """SamuError unless the segmentation has that segment; None asks for none."""
    if segmentID is None:
        return
    if segmentationNode is None or segmentationNode.GetSegmentation().GetSegment(segmentID) is None:
        where = "no segmentation" if segmentationNode is None else f"'{nameOf(segmentationNode)}'"
        raise SamuError(
            f"There is no segment with ID '{segmentID}' in {where}; select a segment or a new one."
        )


def gridFromParameter(segmentationNode: Any) -> SegmentationGrid | None:
    """The grid of the segmentation's conversion parameter, wide enough for all segments; None if unset."""
    segmentation = segmentationNode.GetSegmentation()
    if not segmentation.GetConversionParameter(REFERENCE_GEOMETRY):
        return None
    return _gridFromSegmentation(segmentationNode, "parameter")


def findGrid(segmentationNode: Any, volumeNode: Any) -> SegmentationGrid:
    """The grid that results go to: the segmentation's own, or the volume's if it has none yet.

    Args:
        segmentationNode: vtkMRMLSegmentationNode, or None for one that is to be created under the
            volume's parent transform.
        volumeNode: vtkMRMLScalarVolumeNode with image data.

    Raises:
        SamuError: a parent transform is not linear.
    """
    if segmentationNode is None:
        return _gridFromVolume(volumeNode, np.eye(4), matrixBetweenNodes(volumeNode, None))
    nodeToWorld = matrixBetweenNodes(segmentationNode, None)
    grid = gridFromParameter(segmentationNode) or _gridFromLabelmaps(segmentationNode, volumeNode)
    if grid is not None:
        return grid
    return _gridFromVolume(volumeNode, matrixBetweenNodes(volumeNode, segmentationNode), nodeToWorld)


def _gridFromSegmentation(segmentationNode: Any, source: str) -> SegmentationGrid | None:
    """What the Segment Editor takes: the parameter, widened to all segments, or the label maps' lattice."""
    text = slicer.vtkSlicerSegmentEditorLogic.GetReferenceImageGeometryStringFromSegmentation(
        segmentationNode.GetSegmentation()
    )
    image = slicer.vtkOrientedImageData()
    if not text or not slicer.vtkSegmentationConverter.DeserializeImageGeometry(text, image, False):
        return None
    extent = image.GetExtent()
    if any(extent[2 * axis] > extent[2 * axis + 1] for axis in range(3)):
        return None
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    nodeToWorld = matrixBetweenNodes(segmentationNode, None)
    return SegmentationGrid(arrayFromVtkMatrix(matrix), nodeToWorld, tuple(extent), source)


def _gridFromVolume(volumeNode: Any, volumeToNode: np.ndarray, nodeToWorld: np.ndarray) -> SegmentationGrid:
    # The image's own extent, as vtkMRMLSegmentationNode::SetReferenceImageGeometryParameterFromVolumeNode.
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    extent = tuple(volumeNode.GetImageData().GetExtent())
    return SegmentationGrid(volumeToNode @ arrayFromVtkMatrix(matrix), nodeToWorld, extent, "volume")


def _gridFromLabelmaps(segmentationNode: Any, volumeNode: Any) -> SegmentationGrid | None:
    """The common lattice of the label maps, widened to cover the volume.

    The label maps' own extent ends where the segments end; clipping to it would cut every new one.
    """
    grid = _gridFromSegmentation(segmentationNode, "labelmaps")
    if grid is None:
        return None
    volumeToGrid = (
        np.linalg.inv(grid.ijkToNode)
        @ matrixBetweenNodes(volumeNode, segmentationNode)
        @ volumeIjkToRas(volumeNode)
    )
    upper = np.array(volumeNode.GetImageData().GetDimensions(), dtype=float) - 1
    corners = np.array([[i, j, k, 1.0] for i in (0, upper[0]) for j in (0, upper[1]) for k in (0, upper[2])])
    indices = (corners @ volumeToGrid.T)[:, :3]
    first = np.minimum(np.floor(indices.min(axis=0) + 1e-3), grid.extent[::2]).astype(int)
    last = np.maximum(np.ceil(indices.max(axis=0) - 1e-3), grid.extent[1::2]).astype(int)
    extent = tuple(int(value) for pair in zip(first, last) for value in pair)
    return SegmentationGrid(grid.ijkToNode, grid.nodeToWorld, extent, "labelmaps")
