"""Which segment a click changes: a new one, an existing one, one of a saved segmentation."""

from __future__ import annotations

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
from SAMUSegmentLib import editing
from SAMUSegmentLib.logic import SAMUSegmentLogic

FIRST, SECOND = (12, 15, 18), (22, 24, 18)


class Site:
    def __init__(self, mrml, predictor):
        self.volume, self.segmentation = mrml.volume(), mrml.segmentation()
        self.logic = SAMUSegmentLogic(predictor)
        self.radius = predictor.radius

    def click(self, ijk, **options):
        return self.logic.segmentFromPoint(
            self.volume, worldOf(self.volume, ijk), self.segmentation, **options
        )

    def voxels(self, segmentID):
        return segmentOnVolume(self.segmentation, segmentID, self.volume)

    def distance(self, ijk):
        return volumeDistances(self.volume, worldOf(self.volume, ijk))


@pytest.fixture
def site(mrml, predictor):
    return Site(mrml, predictor)


def test_add_to_an_existing_segment_keeps_what_it_has(site):
    first = site.click(FIRST)
    second = site.click(SECOND, segmentID=first.segmentID)
    assert second.segmentID == first.segmentID
    assert site.segmentation.GetSegmentation().GetNumberOfSegments() == 1
    actual = site.voxels(first.segmentID)
    assertBall(actual, np.minimum(site.distance(FIRST), site.distance(SECOND)), site.radius)
    assert second.changedVoxelCount == actual.sum() - first.voxelCount < second.voxelCount
    assert f"{second.changedVoxelCount:,} of them new" in second.message


def test_subtract_takes_the_mask_away(site):
    first = site.click(FIRST)
    second = site.click(SECOND, segmentID=first.segmentID, mode="subtract")
    actual = site.voxels(first.segmentID)
    away = site.distance(SECOND) < site.radius
    assert not (actual & (site.distance(SECOND) < site.radius - 0.15)).any()
    assertBall(actual | away, np.where(away, 0, site.distance(FIRST)), site.radius)
    assert second.changedVoxelCount == first.voxelCount - actual.sum() > 0


def test_set_replaces_the_segment(site):
    first = site.click(FIRST)
    site.click(SECOND, segmentID=first.segmentID, mode="set")
    assertBall(site.voxels(first.segmentID), site.distance(SECOND), site.radius)


def test_new_makes_a_segment_even_if_one_is_selected(site):
    first = site.click(FIRST)
    second = site.click(SECOND, segmentID=first.segmentID, mode="new")
    assert second.segmentID != first.segmentID
    assertBall(site.voxels(first.segmentID), site.distance(FIRST), site.radius)
    assertBall(site.voxels(second.segmentID), site.distance(SECOND), site.radius)


def test_several_clicks_make_several_segments_with_own_names_and_colours(site):
    results = [site.click(ijk) for ijk in (FIRST, SECOND, (30, 10, 10))]
    segments = [site.segmentation.GetSegmentation().GetSegment(result.segmentID) for result in results]
    assert len({segment.GetName() for segment in segments}) == 3
    assert len({segment.GetColor() for segment in segments}) == 3
    named = site.click((5, 5, 5), segmentName="left kidney")
    assert site.segmentation.GetSegmentation().GetSegment(named.segmentID).GetName() == "left kidney"


def test_a_second_click_in_the_same_place_adds_nothing(site):
    first = site.click(FIRST)
    again = site.click(FIRST, segmentID=first.segmentID)
    assert not again.applied and "already holds all" in again.message
    away = site.click((35, 40, 30), segmentID=first.segmentID, mode="subtract")
    assert not away.applied and "holds none" in away.message
    site.logic.undo()
    assert site.segmentation.GetSegmentation().GetNumberOfSegments() == 0, "no undo step of nothing"


def test_without_a_segmentation_one_is_made_beside_the_volume(mrml, predictor):
    move = mrml.transform(matrixFrom((0, 0, 40), origin=(30, 20, 10)))
    volume = mrml.volume(parent=move, name="Abdomen")
    click = worldOf(volume, (20, 22, 18))
    result = SAMUSegmentLogic(predictor).segmentFromPoint(volume, click, None)
    node = result.segmentationNode
    assert node.GetName() == "Abdomen segmentation" and node.GetParentTransformNode() is move
    assert node.GetDisplayNode() is not None and node.GetScene() is mrml.scene
    assertBall(
        segmentOnVolume(node, result.segmentID, volume), volumeDistances(volume, click), predictor.radius
    )


def test_an_empty_result_makes_no_segmentation(mrml, predictor):
    volume, before = mrml.volume(), mrml.snapshot()
    logic = SAMUSegmentLogic(predictor)
    predictor.slope = 0.01
    result = logic.segmentFromPoint(volume, (20, 22, 18), None, threshold=0.9)
    assert not result.applied and result.segmentationNode is None and mrml.snapshot() == before
    result = logic.reapplyThreshold(result, 0.5)
    assert result.applied and result.segmentationNode.GetSegmentation().GetNumberOfSegments() == 1


def test_a_saved_segmentation_can_be_continued(mrml, predictor, site, tmp_path):
    """Complaint about the peers: cannot continue a saved segmentation."""
    first = site.click(FIRST, segmentName="liver")
    path = str(tmp_path / "saved.seg.nrrd")
    storage = mrml.scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(path)
    assert storage.WriteData(site.segmentation)
    loaded = mrml.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Loaded")
    storage = mrml.scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(path)
    assert storage.ReadData(loaded)
    before = segmentOnVolume(loaded, first.segmentID, site.volume)
    assert before.sum() == first.voxelCount
    logic = SAMUSegmentLogic(predictor)
    click = worldOf(site.volume, SECOND)
    added = logic.segmentFromPoint(site.volume, click, loaded, segmentID=first.segmentID)
    actual = segmentOnVolume(loaded, first.segmentID, site.volume)
    assertBall(actual, np.minimum(site.distance(FIRST), site.distance(SECOND)), site.radius)
    assert added.applied and logic.undo()
    assert np.array_equal(segmentOnVolume(loaded, first.segmentID, site.volume), before)


def test_a_segmentation_without_stored_geometry_is_not_cut_to_its_segments(mrml, predictor, site):
    """Imported label maps end where their segments end; a click beside them must not be clipped there."""
    first = site.click(FIRST)
    conversion = "Reference image geometry"
    site.segmentation.GetSegmentation().SetConversionParameter(conversion, "")
    result = site.click((30, 34, 25))
    assertBall(site.voxels(result.segmentID), site.distance((30, 34, 25)), site.radius)
    assertBall(site.voxels(first.segmentID), site.distance(FIRST), site.radius)
    matrix, extent = referenceGrid(site.segmentation)
    assert np.allclose(matrix, ijkToWorld(site.volume))
    assert extent == site.volume.GetImageData().GetExtent()


@pytest.mark.parametrize("mode", ["add", "set", "subtract"])
def test_an_imported_segment_on_a_lattice_of_its_own(site, mode):
    """A segment whose label map lies on another lattice than the segmentation's reference geometry."""
    lattice = matrixFrom((0, 0, 45), (2, 2, 2), origin=(40, 0, -2))
    image = slicer.vtkOrientedImageData()
    image.SetExtent(0, 19, 0, 19, 0, 18)
    image.SetGeometryFromImageToWorldMatrix(toVtk(lattice))
    image.AllocateScalars(3, 1)
    slicer.vtkOrientedImageDataResample.FillImage(image, 1)
    site.segmentation.SetReferenceImageGeometryParameterFromVolumeNode(site.volume)
    segmentID = site.segmentation.AddSegmentFromBinaryLabelmapRepresentation(image, "imported")
    result = site.click((20, 22, 18), segmentID=segmentID, mode=mode)

    # The engine has moved the segment to the reference lattice, which here is world RAS in mm.
    shape, first = (120, 120, 120), (-30, -30, -30)
    actual = segmentOnGrid(site.segmentation, segmentID, shape, first)
    world = np.stack(np.indices(shape, dtype=float)[::-1]) + np.reshape(first, (3, 1, 1, 1))
    inverse = np.linalg.inv(lattice)
    own = np.einsum("ab,b...->a...", inverse[:3, :3], world) + inverse[:3, 3].reshape(3, 1, 1, 1)
    upper = np.array([19.0, 19.0, 18.0]).reshape(3, 1, 1, 1)
    certain, possible = ((own > 0) & (own < upper)).all(0), ((own > -1) & (own < upper + 1)).all(0)
    distance = distances(matrixFrom(origin=first), shape, (20, 22, 18))
    inVolume = ((world >= 0) & (world <= np.reshape((39, 43, 35), (3, 1, 1, 1)))).all(axis=0)
    assert (certain & (distance < site.radius)).any() and (~possible & (distance < site.radius)).any()
    if mode == "set":
        assertBall(actual, distance, site.radius, where=inVolume)
    elif mode == "add":
        assertBall(actual & ~possible, distance, site.radius, where=inVolume & ~possible)
        assert actual[certain].all()
    else:
        assert not actual[distance < site.radius - 0.15].any() and not actual[~possible].any()
        assert actual[certain & (distance > site.radius + 0.15)].all()
    assert result.changedVoxelCount > 0


@pytest.mark.parametrize("mode", ["add", "subtract"])
def test_masks_are_written_with_their_own_extent(mrml, predictor, site, monkeypatch, mode):
    """Writing the whole image would take ten times as long in a large CT."""
    predictor.radius = 12.4
    handed, build = [], editing.labelmapFromMask
    monkeypatch.setattr(editing, "labelmapFromMask", lambda *args: handed.append(build(*args)) or handed[-1])
    volume = mrml.volume(np.zeros((80, 90, 100), np.int16))
    segmentation = mrml.segmentation(volume)
    segmentID = mrml.addSegment(segmentation, np.ones((80, 90, 100), bool), "all")
    if mode == "add":
        segmentID = None
    click = worldOf(volume, (50, 45, 40))
    result = site.logic.segmentFromPoint(volume, click, segmentation, segmentID=segmentID, mode=mode)
    (labelmap,) = handed
    assert labelmap.GetExtent() == result.extent == (38, 62, 33, 57, 28, 52)
    assert labelmap.GetNumberOfPoints() == 25**3
    assert labelmap.GetScalarType() == 3  # VTK_UNSIGNED_CHAR
