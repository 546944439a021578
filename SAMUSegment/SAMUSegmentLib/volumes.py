"""From a volume in the MRML scene to samu_core's Volume: the same voxels, placed in world RAS.

Nothing here changes the scene, and voxels are never copied.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from samu_core.errors import SamuError, VolumeError
from samu_core.geometry import Volume

# DICOM codes that Slicer's readers leave on a volume (Hounsfield units in UCUM; DCM code of the quantity).
HOUNSFIELD_UNIT = "[hnsf'U]"
ATTENUATION_CODE = "112031"
MR_SIGNAL_CODE = "110852"


def arrayFromVtkMatrix(matrix: vtk.vtkMatrix4x4) -> np.ndarray:
    """(4, 4) float64 copy of a vtkMatrix4x4."""
    return np.array([[matrix.GetElement(row, col) for col in range(4)] for row in range(4)])


def vtkMatrixFromArray(array: np.ndarray) -> vtk.vtkMatrix4x4:
    """vtkMatrix4x4 of a (4, 4) array."""
    matrix = vtk.vtkMatrix4x4()
    for row in range(4):
        for col in range(4):
            matrix.SetElement(row, col, float(array[row][col]))
    return matrix


def nameOf(node: Any) -> str:
    """The node's name for messages."""
    return node.GetName() or node.GetID() or node.GetClassName()


def requireLinearParent(node: Any) -> None:
    """SamuError when the node's chain of parent transforms to world is not linear."""
    parent = node.GetParentTransformNode()
    if parent is not None and not parent.IsTransformToWorldLinear():
        raise SamuError(
            f"'{nameOf(node)}' is under the non-linear transform '{nameOf(parent)}': make a copy of it, "
            "harden the transform on the copy (Data module, right click on the transform) and use the copy."
        )


def matrixBetweenNodes(source: Any | None, target: Any | None) -> np.ndarray:
    """(4, 4) from the RAS of one transformable node to that of another; None stands for the world.

    Goes through vtkMRMLTransformNode::GetMatrixTransformBetweenNodes, so that two nodes under one
    parent stay exactly related. SamuError when either parent is not linear.
    """
    parents = []
    for node in (source, target):
        if node is not None:
            requireLinearParent(node)
        parents.append(None if node is None else node.GetParentTransformNode())
    matrix = vtk.vtkMatrix4x4()
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(parents[0], parents[1], matrix)
    return arrayFromVtkMatrix(matrix)


def requireScalarVolume(volumeNode: Any) -> None:
    """VolumeError with advice unless the node is a scalar image with voxels.

    A vtkMRMLVectorVolumeNode is a vtkMRMLScalarVolumeNode too, so the number of components decides.
    """
    if volumeNode is None or not volumeNode.IsA("vtkMRMLScalarVolumeNode"):
        what = "nothing" if volumeNode is None else f"'{nameOf(volumeNode)}' ({volumeNode.GetClassName()})"
        raise VolumeError(f"Choose a scalar volume (CT or MR) to click in; got {what}.")
    name = nameOf(volumeNode)
    if volumeNode.IsA("vtkMRMLLabelMapVolumeNode"):
        raise VolumeError(f"'{name}' is a label map, not an image; choose the CT or MR it was drawn on.")
    image = volumeNode.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0 or image.GetPointData().GetScalars() is None:
        raise VolumeError(f"'{name}' holds no voxels; load or select a volume with image data.")
    components = image.GetNumberOfScalarComponents()
    if components != 1:
        raise VolumeError(
            f"'{name}' has {components} values per voxel (RGB or vector); convert it with the module "
            "Vector to Scalar Volume and click in the result."
        )


def firstScalarVolume(scene: Any) -> Any | None:
    """The first node that can be an image to click in; label maps and vector volumes are of a subclass."""
    nodes = scene.GetNodesByClass("vtkMRMLScalarVolumeNode")
    nodes.UnRegister(None)
    for index in range(nodes.GetNumberOfItems()):
        node = nodes.GetItemAsObject(index)
        if node.GetClassName() == "vtkMRMLScalarVolumeNode" and not node.GetHideFromEditors():
            return node
    return None


def volumeArray(volumeNode: Any) -> np.ndarray:
    """(K, J, I) view of the node's voxels; writing to it writes to the volume."""
    image = volumeNode.GetImageData()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])


def volumeIjkToRas(volumeNode: Any) -> np.ndarray:
    """(4, 4), index of the array of `volumeArray` -> the volume's own RAS, parent transforms left out."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    extent = volumeNode.GetImageData().GetExtent()
    shift = np.eye(4)
    shift[:3, 3] = extent[0], extent[2], extent[4]
    return arrayFromVtkMatrix(matrix) @ shift


def volumeIjkToWorld(volumeNode: Any) -> np.ndarray:
    """(4, 4), index of the array of `volumeArray` -> world RAS, through all linear parent transforms."""
    return matrixBetweenNodes(volumeNode, None) @ volumeIjkToRas(volumeNode)


def volumeVersion(volumeNode: Any) -> tuple:
    """A key that changes whenever the node's voxels are replaced or marked as modified."""
    image = volumeNode.GetImageData()
    return volumeNode.GetID(), image.GetMTime(), image.GetPointData().GetScalars().GetMTime()


def modalityOf(volumeNode: Any) -> str | None:
    """CT or MR where the DICOM or NRRD reader left that on the node, else None."""
    units, quantity = volumeNode.GetVoxelValueUnits(), volumeNode.GetVoxelValueQuantity()
    unitCode = units.GetCodeValue() if units is not None else None
    quantityCode = quantity.GetCodeValue() if quantity is not None else None
    if unitCode == HOUNSFIELD_UNIT or quantityCode == ATTENUATION_CODE:
        return "CT"
    return "MR" if quantityCode == MR_SIGNAL_CODE else None


def volumeFromNode(volumeNode: Any) -> Volume:
    """The node as samu_core's Volume in world RAS, sharing its voxels.

    Args:
        volumeNode: vtkMRMLScalarVolumeNode with one component; its parent transforms must be linear.

    Returns:
        Volume: array is a KJI view of the node's voxels, geometry maps IJK to world RAS (mm).

    Raises:
        VolumeError: RGB or vector, label map, no image data, fewer than 2 slices, only NaN,
            singular geometry.
        SamuError: a non-linear parent transform.
    """
    requireScalarVolume(volumeNode)
    array, name = volumeArray(volumeNode), nameOf(volumeNode)
    volume = Volume(
        array,
        volumeIjkToWorld(volumeNode),
        name=name,
        modality=modalityOf(volumeNode),
        version=volumeVersion(volumeNode),
    )
    # Slice by slice: an ordinary image answers with its first slice.
    if array.dtype.kind == "f" and not any(np.isfinite(plane).any() for plane in array):
        raise VolumeError(f"'{name}' holds no numbers (NaN only); load the volume again or choose another.")
    return volume
