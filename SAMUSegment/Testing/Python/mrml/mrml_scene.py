"""A MRML scene as Slicer has it, without Slicer; and a predictor whose answer is known analytically."""

from __future__ import annotations

import math

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from samu_core.errors import Cancelled
from samu_core.geometry import PatchGrid
from samu_core.prediction import Prediction

# How far from the ball's surface a voxel centre must be for its side to be certain: the logits of the
# ball are quadratic, and linear interpolation of them at 1.5 mm errs by less than this.
BALL_TOLERANCE_MM = 0.15


def matrixFrom(angles=(0.0, 0.0, 0.0), spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), flips=(1, 1, 1)):
    """(4, 4) IJK -> RAS: rotations about R, A, S in degrees, voxel sizes, place of voxel 0, axis flips."""
    rotation = np.eye(3)
    for axis, angle in enumerate(angles):
        c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        a, b = [other for other in range(3) if other != axis]
        turn = np.eye(3)
        turn[a, a], turn[a, b], turn[b, a], turn[b, b] = c, -s, s, c
        rotation = turn @ rotation
    matrix = np.eye(4)
    matrix[:3, :3] = rotation @ np.diag(np.multiply(spacing, flips))
    matrix[:3, 3] = origin
    return matrix


def toVtk(array):
    """vtkMatrix4x4 of a (4, 4) array."""
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(array, dtype=float).ravel().tolist())
    return matrix


def fromVtk(matrix):
    """(4, 4) array of a vtkMatrix4x4."""
    return np.array([[matrix.GetElement(i, j) for j in range(4)] for i in range(4)])


def parentToWorld(node):
    """(4, 4) from a node's own RAS to world RAS."""
    matrix = vtk.vtkMatrix4x4()
    if node.GetParentTransformNode() is not None:
        node.GetParentTransformNode().GetMatrixTransformToWorld(matrix)
    return fromVtk(matrix)


def ijkToWorld(volumeNode):
    """(4, 4) from a volume's voxel index to world RAS."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return parentToWorld(volumeNode) @ fromVtk(matrix)


def worldOf(volumeNode, ijk):
    """World RAS (3,) of a continuous voxel index."""
    return tuple(float(x) for x in (ijkToWorld(volumeNode) @ np.append(np.asarray(ijk, float), 1.0))[:3])


def distances(matrix, shape, point):
    """(K, J, I) distance in mm of every voxel centre of a grid from a world point."""
    k, j, i = np.indices(shape, dtype=float)
    return np.sqrt(
        sum(
            (matrix[r, 0] * i + matrix[r, 1] * j + matrix[r, 2] * k + matrix[r, 3] - point[r]) ** 2
            for r in range(3)
        )
    )


def volumeDistances(volumeNode, point):
    """(K, J, I) distance in mm of the volume's voxels from a world point."""
    shape = volumeNode.GetImageData().GetDimensions()[::-1]
    return distances(ijkToWorld(volumeNode), shape, point)


def referenceGrid(segmentationNode):
    """(matrix to world, extent) of the segmentation's stored reference geometry."""
    text = segmentationNode.GetSegmentation().GetConversionParameter("Reference image geometry")
    image, matrix = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4()
    slicer.vtkSegmentationConverter.DeserializeImageGeometry(text, image, False)
    image.GetImageToWorldMatrix(matrix)
    return parentToWorld(segmentationNode) @ fromVtk(matrix), image.GetExtent()


def segmentOnGrid(segmentationNode, segmentID, shape, first=(0, 0, 0)):
    """(K, J, I) bool voxels of a segment; array index 0 is voxel `first` (i, j, k). Asserts that all fit."""
    image, array = slicer.vtkOrientedImageData(), np.zeros(shape, dtype=bool)
    assert segmentationNode.GetBinaryLabelmapRepresentation(segmentID, image)
    extent = np.array(image.GetExtent()).reshape(3, 2) - np.array(first)[:, None]
    if (extent[:, 1] < extent[:, 0]).any() or image.GetPointData().GetScalars() is None:
        return array
    dims = (extent[:, 1] - extent[:, 0] + 1)[::-1]
    voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(dims) != 0
    filled = np.argwhere(voxels) + extent[::-1, 0]
    if len(filled):
        assert (filled >= 0).all() and (filled < np.array(shape)).all(), "the segment leaves the grid"
        array[tuple(filled.T)] = True
    return array


def segmentOnVolume(segmentationNode, segmentID, volumeNode):
    """(K, J, I) bool voxels of a segment whose grid is the volume's."""
    return segmentOnGrid(segmentationNode, segmentID, volumeNode.GetImageData().GetDimensions()[::-1])


def assertBall(actual, distance, radius, where=None, tolerance=BALL_TOLERANCE_MM):
    """The mask is the ball: every voxel is on its right side of the sphere, up to interpolation error.

    where: voxels that can be filled at all; the others must be empty.
    tolerance: mm around the sphere in which either side is right.
    """
    where = np.ones(actual.shape, dtype=bool) if where is None else where
    assert actual.any(), "the segment is empty"
    missing = (distance < radius - tolerance) & where & ~actual
    extra = actual & ((distance > radius + tolerance) | ~where)
    assert not missing.any(), f"{missing.sum()} voxels of the ball are missing"
    assert not extra.any(), f"{extra.sum()} voxels are outside the ball"


class StandInPredictor:
    """Says that the structure is a ball around the click; counts its calls.

    Args:
        radius: mm of the ball at threshold 0.5.
        slope: how much the logit falls per mm there.
        size: voxels of the patch along each axis.
    """

    def __init__(self, radius=12.0, slope=0.5, size=48):
        self.radius, self.slope, self.size = radius, slope, size
        self.calls = 0
        self.volumes = []
        self.whilePredicting = None

    def predict(self, volume, point_ras, *, spacing=1.5, cancelled=None, progress=None):
        if progress is not None:
            progress("encode")
        if cancelled is not None and cancelled():
            raise Cancelled()
        self.calls += 1
        self.volumes.append(volume)
        grid = PatchGrid.for_click(volume, point_ras, spacing, self.size)
        distance = distances(grid.geometry.ijk_to_ras, (self.size,) * 3, point_ras)
        logits = self.slope * (self.radius**2 - distance**2) / (2 * self.radius)
        inside = ~np.isnan(grid.sample(volume))
        if self.whilePredicting is not None:
            self.whilePredicting()
        return Prediction(logits.astype(np.float32), grid, point_ras, {"encode": 0.1}, inside=inside)

    def radiusAt(self, threshold):
        """Radius in mm of the ball at another threshold."""
        level = math.log(threshold / (1 - threshold))
        return math.sqrt(self.radius**2 - 2 * self.radius * level / self.slope)


class MrmlScene:
    """vtkMRMLScene with the application and module logics that nodes rely on, and makers of nodes."""

    def __init__(self):
        self.scene = slicer.vtkMRMLScene()
        self.application = slicer.vtkSlicerApplicationLogic()
        self.application.SetMRMLScene(self.scene)
        colors = self.application.GetColorLogic()
        colors.SetMRMLScene(self.scene)
        colors.AddDefaultColorNodes()
        self.logics = {}
        for name, logicClass in (
            ("Segmentations", slicer.vtkSlicerSegmentationsModuleLogic),
            ("Volumes", slicer.vtkSlicerVolumesLogic),
            ("SubjectHierarchy", slicer.vtkSlicerSubjectHierarchyModuleLogic),
            ("Markups", slicer.vtkSlicerMarkupsLogic),
        ):
            logic = logicClass()
            logic.SetMRMLScene(self.scene)
            logic.SetMRMLApplicationLogic(self.application)
            self.application.SetModuleLogic(name, logic)
            self.logics[name] = logic

    def close(self):
        """Empty the scene, as closing it in Slicer does."""
        self.scene.Clear(True)

    def volume(self, array=None, matrix=None, parent=None, name="CT", className="vtkMRMLScalarVolumeNode"):
        """A volume node of a (K, J, I) or (K, J, I, components) array; 40 x 44 x 36 mm by default."""
        if array is None:
            array = np.zeros((36, 44, 40), dtype=np.int16)
        node = self.scene.AddNewNodeByClass(className, name)
        image = vtk.vtkImageData()
        image.SetDimensions(*array.shape[2::-1])
        flat = np.ascontiguousarray(array).reshape(array.shape[0] * array.shape[1] * array.shape[2], -1)
        image.GetPointData().SetScalars(numpy_to_vtk(flat if array.ndim == 4 else flat.ravel(), deep=True))
        node.SetAndObserveImageData(image)
        node.SetIJKToRASMatrix(toVtk(np.eye(4) if matrix is None else matrix))
        if parent is not None:
            node.SetAndObserveTransformNodeID(parent.GetID())
        return node

    def transform(self, matrix, parent=None, name="Transform"):
        """A linear transform node: node's RAS -> parent."""
        node = self.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
        node.SetMatrixTransformToParent(toVtk(matrix))
        if parent is not None:
            node.SetAndObserveTransformNodeID(parent.GetID())
        return node

    def warp(self, name="Warp"):
        """A non-linear (thin plate spline) transform node."""
        spline, source, target = vtk.vtkThinPlateSplineTransform(), vtk.vtkPoints(), vtk.vtkPoints()
        for point in np.random.default_rng(0).uniform(0, 40, (6, 3)):
            source.InsertNextPoint(point)
            target.InsertNextPoint(point + [0.0, 0.0, 0.1 * point[0] ** 1.5])
        spline.SetSourceLandmarks(source)
        spline.SetTargetLandmarks(target)
        spline.SetBasisToR()
        node = self.scene.AddNewNodeByClass("vtkMRMLTransformNode", name)
        node.SetAndObserveTransformToParent(spline)
        return node

    def segmentation(self, volumeNode=None, parent=None, name="Segmentation"):
        """An empty segmentation node, with the volume's geometry if one is given."""
        node = self.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        node.CreateDefaultDisplayNodes()
        if parent is not None:
            node.SetAndObserveTransformNodeID(parent.GetID())
        if volumeNode is not None:
            node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
        return node

    def addSegment(self, segmentationNode, array, name):
        """A segment with the voxels of a (K, J, I) bool array on the reference geometry; returns its ID."""
        matrix, extent = referenceGrid(segmentationNode)
        image = slicer.vtkOrientedImageData()
        image.SetExtent(*extent)
        image.SetGeometryFromImageToWorldMatrix(
            toVtk(np.linalg.inv(parentToWorld(segmentationNode)) @ matrix)
        )
        voxels = np.ascontiguousarray(array, dtype=np.uint8).ravel()
        image.GetPointData().SetScalars(numpy_to_vtk(voxels, deep=True, array_type=vtk.VTK_UNSIGNED_CHAR))
        segmentID = segmentationNode.GetSegmentation().AddEmptySegment("", name)
        write = slicer.vtkSlicerSegmentationsModuleLogic.SetBinaryLabelmapToSegment
        modes = slicer.vtkSlicerSegmentationsModuleLogic
        assert write(image, segmentationNode, segmentID, modes.MODE_REPLACE)
        return segmentID

    def snapshot(self, *segmentationNodes):
        """Everything that a refused click must leave as it was, comparable with ==."""
        nodes = [self.scene.GetNthNode(n).GetID() for n in range(self.scene.GetNumberOfNodes())]
        return nodes, [segmentationState(node) for node in segmentationNodes]


def segmentationState(node):
    """IDs, names, voxels, geometry and parent of a segmentation, comparable with ==."""
    segmentation, state = node.GetSegmentation(), []
    for index in range(segmentation.GetNumberOfSegments()):
        segmentID = segmentation.GetNthSegmentID(index)
        image = slicer.vtkOrientedImageData()
        if segmentation.GetSegment(segmentID).GetRepresentation("Binary labelmap") is not None:
            node.GetBinaryLabelmapRepresentation(segmentID, image)
        scalars, extent = image.GetPointData().GetScalars(), image.GetExtent()
        voxels = ()
        if scalars is not None and extent[0] <= extent[1]:
            shape = [extent[2 * axis + 1] - extent[2 * axis] + 1 for axis in (2, 1, 0)]
            filled = np.argwhere(vtk_to_numpy(scalars).reshape(shape)) + np.array(extent[::2])[::-1]
            voxels = tuple(map(tuple, filled))
        segment = segmentation.GetSegment(segmentID)
        state.append((segmentID, segment.GetName(), segment.GetColor(), voxels))
    role = node.GetReferenceImageGeometryReferenceRole()
    geometry = segmentation.GetConversionParameter("Reference image geometry")
    return state, geometry, node.GetNodeReferenceID(role), node.GetTransformNodeID(), node.GetDisplayNodeID()
