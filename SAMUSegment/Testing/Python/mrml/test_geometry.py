"""The segment is where the click is, however volume and segmentation lie and are moved."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import slicer
from mrml_scene import (
    assertBall,
    distances,
    ijkToWorld,
    matrixFrom,
    referenceGrid,
    segmentOnGrid,
    segmentOnVolume,
    toVtk,
    volumeDistances,
    worldOf,
)
from SAMUSegmentLib.logic import SAMUSegmentLogic

from samu_core.errors import PointOutsideVolumeError

PLACES = {
    "plain": matrixFrom(),
    "oblique": matrixFrom((17, -31, 44), (1.2, 1.2, 1.2), (-20, 30, 11)),
    "anisotropic": matrixFrom((0, 0, 0), (0.8, 1.1, 2.5), (5, -60, 12)),
    "flipped": matrixFrom((0, 0, 0), (1, 1, 1.5), (70, 60, 0), (-1, -1, 1)),
    "left-handed oblique anisotropic": matrixFrom((12, 25, -8), (0.9, 1.3, 2.2), (4, 9, -33), (1, -1, 1)),
    "sagittal": np.array([[0, 0, 2.0, -30], [-1.1, 0, 0, 40], [0, -1.1, 0, 22], [0, 0, 0, 1]]),
}
MOVES = {
    "not moved": (None, None),
    "volume moved": ("a", None),
    "segmentation moved": (None, "a"),
    "both moved alike": ("a", "a"),
    "moved differently": ("a", "b"),
    "nested transforms": ("ab", "b"),
}
RIGID = matrixFrom((9, -14, 33), origin=(15, -25, 40))
SCALING = matrixFrom((-20, 5, 11), spacing=(1.15, 0.9, 1.05), origin=(-8, 3, 20))


def parents(mrml, volumeMove, segmentationMove):
    b = mrml.transform(SCALING, name="b")
    nodes = {None: None, "a": mrml.transform(RIGID, name="a"), "b": b}
    nodes["ab"] = mrml.transform(RIGID, parent=b, name="ab")
    return nodes[volumeMove], nodes[segmentationMove]


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("place", PLACES)
def test_click_in_one_place_gives_the_result_in_that_place(mrml, predictor, place, move):
    """Complaint about the peers: click in one place, result in another (transforms, oblique, non-axial)."""
    volumeParent, segmentationParent = parents(mrml, *MOVES[move])
    volume = mrml.volume(matrix=PLACES[place], parent=volumeParent)
    segmentation = mrml.segmentation(parent=segmentationParent)
    click = worldOf(volume, (19.3, 22.8, 17.6))
    result = SAMUSegmentLogic(predictor).segmentFromPoint(volume, click, segmentation)
    actual = segmentOnVolume(segmentation, result.segmentID, volume)
    assertBall(actual, volumeDistances(volume, click), predictor.radius)
    # The segmentation got the volume's voxels, in world space, and stays under its own parent.
    matrix, extent = referenceGrid(segmentation)
    assert np.allclose(matrix, ijkToWorld(volume), atol=1e-4) and extent == volume.GetImageData().GetExtent()
    assert segmentation.GetParentTransformNode() is segmentationParent
    assert segmentation.GetNodeReference(segmentation.GetReferenceImageGeometryReferenceRole()) is volume


@pytest.mark.parametrize("move", ["not moved", "moved differently"])
def test_a_segmentation_keeps_its_own_geometry(mrml, predictor, move):
    volumeParent, segmentationParent = parents(mrml, *MOVES[move])
    volume = mrml.volume(parent=volumeParent)
    segmentation = mrml.segmentation(parent=segmentationParent)
    own = matrixFrom((30, 10, -20), (1.4, 0.9, 1.7), (-30, -20, -25))
    # A lattice of its own, which covers the volume, with indices that do not start at 0.
    toNode = np.linalg.inv(np.eye(4) if segmentationParent is None else SCALING)
    extent = [-30, 80, -40, 90, -20, 70]
    ijkToNode = toNode @ (np.eye(4) if volumeParent is None else RIGID) @ own
    text = slicer.vtkSegmentationConverter.SerializeImageGeometry(toVtk(ijkToNode), extent)
    segmentation.GetSegmentation().SetConversionParameter("Reference image geometry", text)
    click = worldOf(volume, (21, 20, 17))
    result = SAMUSegmentLogic(predictor).segmentFromPoint(volume, click, segmentation)

    assert segmentation.GetSegmentation().GetConversionParameter("Reference image geometry") == text
    matrix, stored = referenceGrid(segmentation)
    shape = tuple(stored[2 * axis + 1] - stored[2 * axis] + 1 for axis in (2, 1, 0))
    shifted = matrix.copy()
    shifted[:3, 3] += matrix[:3, :3] @ stored[::2]
    actual = segmentOnGrid(segmentation, result.segmentID, shape, stored[::2])
    assertBall(actual, distances(shifted, shape, click), predictor.radius)
    assert result.extent[0] >= stored[0] and result.voxelCount == actual.sum()


@pytest.mark.parametrize("corner", list(itertools.product((0, 1), repeat=3)))
def test_a_click_at_the_edge_stays_inside_the_volume(mrml, predictor, corner):
    volume = mrml.volume(matrix=PLACES["left-handed oblique anisotropic"])
    segmentation = mrml.segmentation()
    upper = np.array([39, 43, 35])
    click = worldOf(volume, np.array(corner) * upper + (np.array(corner) * 2 - 1) * 0.45)
    result = SAMUSegmentLogic(predictor).segmentFromPoint(volume, click, segmentation)
    # segmentOnVolume asserts that no voxel lies outside the volume.
    actual = segmentOnVolume(segmentation, result.segmentID, volume)
    assertBall(actual, volumeDistances(volume, click), predictor.radius)
    _, extent = referenceGrid(segmentation)
    assert extent == volume.GetImageData().GetExtent()


def test_a_segmentation_larger_than_the_volume_is_not_filled_outside_the_image(mrml, predictor):
    volume, segmentation = mrml.volume(), mrml.segmentation()
    text = slicer.vtkSegmentationConverter.SerializeImageGeometry(
        toVtk(matrixFrom((0, 0, 30))), [-60, 60, -60, 60, -60, 60]
    )
    segmentation.GetSegmentation().SetConversionParameter("Reference image geometry", text)
    click = worldOf(volume, (0.2, 20, 35.1))
    result = SAMUSegmentLogic(predictor).segmentFromPoint(volume, click, segmentation)
    matrix = matrixFrom((0, 0, 30), origin=matrixFrom((0, 0, 30))[:3, :3] @ [-60, -60, -60])
    actual = segmentOnGrid(segmentation, result.segmentID, (121,) * 3, (-60,) * 3)
    k, j, i = np.indices(actual.shape, dtype=float)
    world = np.einsum("ab,b...->a...", matrix, np.stack([i, j, k, np.ones_like(i)]))[:3]
    upper = np.array([39.5, 43.5, 35.5]).reshape(3, 1, 1, 1)
    inside = ((world >= -0.5) & (world <= upper)).all(axis=0)
    assertBall(actual, distances(matrix, actual.shape, click), predictor.radius, where=inside)


@pytest.mark.parametrize("shape", [(2, 2, 2), (2, 30, 30), (9, 6, 7)])
def test_a_volume_smaller_than_the_patch(mrml, predictor, shape):
    volume = mrml.volume(np.zeros(shape, np.float32), PLACES["oblique"])
    segmentation = mrml.segmentation()
    click = worldOf(volume, (np.array(shape[::-1]) - 1) / 2)
    result = SAMUSegmentLogic(predictor).segmentFromPoint(volume, click, segmentation)
    actual = segmentOnVolume(segmentation, result.segmentID, volume)
    assertBall(actual, volumeDistances(volume, click), predictor.radius)


def test_a_native_spacing_patch_lands_in_the_same_place(mrml, predictor):
    volume = mrml.volume(matrix=matrixFrom((5, 6, 7), (0.7, 0.7, 0.9)))
    segmentation = mrml.segmentation()
    click = worldOf(volume, (20, 22, 18))
    logic = SAMUSegmentLogic(predictor)
    result = logic.segmentFromPoint(volume, click, segmentation, spacing="native")
    assert result.prediction.grid.spacing == pytest.approx(0.7)
    actual = segmentOnVolume(segmentation, result.segmentID, volume)
    assertBall(actual, volumeDistances(volume, click), predictor.radius)


def test_a_volume_whose_image_extent_does_not_start_at_zero(mrml, predictor):
    volume, segmentation = mrml.volume(), mrml.segmentation()
    volume.GetImageData().SetExtent(5, 44, -3, 40, 7, 42)
    click = worldOf(volume, (25, 20, 20))
    result = SAMUSegmentLogic(predictor).segmentFromPoint(volume, click, segmentation)
    actual = segmentOnGrid(segmentation, result.segmentID, (36, 44, 40), (5, -3, 7))
    assertBall(actual, distances(matrixFrom(origin=(5, -3, 7)), actual.shape, click), predictor.radius)


def test_a_click_outside_the_volume_says_where_the_volume_is(mrml, predictor):
    volume, segmentation = mrml.volume(parent=mrml.transform(RIGID)), mrml.segmentation()
    before = mrml.snapshot(segmentation)
    with pytest.raises(PointOutsideVolumeError, match="CT.*R .* to "):
        SAMUSegmentLogic(predictor).segmentFromPoint(volume, (500, 0, 0), segmentation)
    # Where the volume was before it was moved is outside, too.
    with pytest.raises(PointOutsideVolumeError):
        SAMUSegmentLogic(predictor).segmentFromPoint(volume, (0, 0, 0), segmentation)
    assert mrml.snapshot(segmentation) == before and predictor.calls == 0


def test_a_click_outside_the_geometry_of_the_segmentation_is_refused(mrml, predictor):
    volume = mrml.volume()
    small = mrml.volume(np.zeros((10, 10, 10), np.int16), name="Small")
    segmentation = mrml.segmentation(small)
    before = mrml.snapshot(segmentation)
    with pytest.raises(PointOutsideVolumeError, match="geometry of segmentation 'Segmentation'"):
        SAMUSegmentLogic(predictor).segmentFromPoint(volume, (30, 30, 30), segmentation)
    assert mrml.snapshot(segmentation) == before and predictor.calls == 0
