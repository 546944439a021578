"""Slicer's own storage node reads what samu_core writes as a segmentation."""

import numpy as np
import pytest
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from samu_core.geometry import GridGeometry
from samu_core.io import Segment, write_seg_nrrd

SHAPE = (6, 7, 8)
MATRIX = np.array([[-0.5, 0, 0, 10], [0, -0.6, 0.2, 20], [0, 0.06, 2, 30], [0, 0, 0, 1.0]])


@pytest.fixture
def segmentation(tmp_path):
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3, 2:5, 3:4] = 1
    labels[3:, 0, :2] = 7
    segments = [Segment("left kidney", (0.1, 0.5, 1.0), 1), Segment("cyst ä", (1, 0, 0), 7)]
    write_seg_nrrd(tmp_path / "out.seg.nrrd", labels, GridGeometry(SHAPE, MATRIX), segments)
    scene = slicer.vtkMRMLScene()
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(tmp_path / "out.seg.nrrd"))
    assert storage.ReadData(node)
    yield node, labels
    scene.Clear(True)


def test_names_colours_and_label_values(segmentation):
    node, _ = segmentation
    content = node.GetSegmentation()
    assert list(content.GetSegmentIDs()) == ["Segment_1", "Segment_7"]
    kidney, cyst = content.GetSegment("Segment_1"), content.GetSegment("Segment_7")
    assert (kidney.GetName(), cyst.GetName()) == ("left kidney", "cyst ä")
    assert kidney.GetColor() == pytest.approx((0.1, 0.5, 1.0))
    assert (kidney.GetLabelValue(), cyst.GetLabelValue()) == (1, 7)


def test_every_voxel_is_where_it_was_written(segmentation):
    node, labels = segmentation
    for identifier, value in (("Segment_1", 1), ("Segment_7", 7)):
        image = slicer.vtkOrientedImageData()
        assert node.GetBinaryLabelmapRepresentation(identifier, image)
        i0, i1, j0, j1, k0, k1 = image.GetExtent()
        shape = (k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1)
        whole = np.zeros(SHAPE, np.uint8)
        voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape)
        whole[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1] = voxels
        np.testing.assert_array_equal(whole > 0, labels == value)


def test_the_volumes_grid_is_the_reference_geometry(segmentation):
    node, _ = segmentation
    text = node.GetSegmentation().GetConversionParameter("Reference image geometry")
    image = slicer.vtkOrientedImageData()
    assert slicer.vtkSegmentationConverter.DeserializeImageGeometry(text, image)
    assert image.GetExtent() == (0, 7, 0, 6, 0, 5)
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    found = [[matrix.GetElement(row, column) for column in range(4)] for row in range(4)]
    np.testing.assert_allclose(found, MATRIX, atol=1e-9)
