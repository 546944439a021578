"""The Segment Editor's masking settings hold for clicks: overwrite mode, editable area, intensity range."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from mrml_scene import assertBall, matrixFrom, segmentOnVolume, volumeDistances, worldOf
from SAMUSegmentLib.logic import SAMUSegmentLogic

EDITOR = slicer.vtkMRMLSegmentEditorNode
EDIT = slicer.vtkMRMLSegmentationNode
CENTER = (20, 22, 18)


class Neighbourhood:
    """A volume with two existing segments that the ball around CENTER overlaps; the second is hidden."""

    def __init__(self, mrml, predictor, array=None):
        self.volume = mrml.volume(array, matrix=matrixFrom((8, -5, 12), (1, 1.1, 0.9)))
        self.segmentation = mrml.segmentation(self.volume)
        shape = self.volume.GetImageData().GetDimensions()[::-1]
        self.visibleArray, self.hiddenArray = np.zeros(shape, bool), np.zeros(shape, bool)
        self.visibleArray[:, :, 24:34] = True
        self.hiddenArray[:, :, 6:16] = True
        self.visible = mrml.addSegment(self.segmentation, self.visibleArray, "visible")
        self.hidden = mrml.addSegment(self.segmentation, self.hiddenArray, "hidden")
        self.segmentation.GetDisplayNode().SetSegmentVisibility(self.hidden, False)
        self.click = worldOf(self.volume, CENTER)
        self.distance = volumeDistances(self.volume, self.click)
        self.radius = predictor.radius
        self.logic = SAMUSegmentLogic(predictor)
        self.editor = self.logic.editorNode(mrml.scene)

    def voxels(self, segmentID):
        return segmentOnVolume(self.segmentation, segmentID, self.volume)

    def click_(self, **options):
        return self.logic.segmentFromPoint(self.volume, self.click, self.segmentation, **options)

    def assertNeighbours(self, ball, visibleErased, hiddenErased):
        expected = self.visibleArray & ~ball if visibleErased else self.visibleArray
        assert np.array_equal(self.voxels(self.visible), expected)
        expected = self.hiddenArray & ~ball if hiddenErased else self.hiddenArray
        assert np.array_equal(self.voxels(self.hidden), expected)


@pytest.fixture
def site(mrml, predictor):
    return Neighbourhood(mrml, predictor)


def test_neighbouring_segments_are_not_erased(site):
    """Complaint about the peers: neighbouring segments erased. The default leaves them alone."""
    result = site.click_()
    ball = site.voxels(result.segmentID)
    assertBall(ball, site.distance, site.radius)
    assert (ball & site.visibleArray).any() and (ball & site.hiddenArray).any()
    site.assertNeighbours(ball, visibleErased=False, hiddenErased=False)


@pytest.mark.parametrize(
    "mode, visibleErased, hiddenErased",
    [
        (EDITOR.OverwriteAllSegments, True, True),
        (EDITOR.OverwriteVisibleSegments, True, False),
        (EDITOR.OverwriteNone, False, False),
    ],
)
@pytest.mark.parametrize("clickMode", ["new", "add", "set"])
def test_each_overwrite_mode(site, mode, visibleErased, hiddenErased, clickMode):
    site.editor.SetOverwriteMode(mode)
    result = site.click_(mode=clickMode)
    ball = site.voxels(result.segmentID)
    assertBall(ball, site.distance, site.radius)
    site.assertNeighbours(ball, visibleErased, hiddenErased)


def test_subtracting_overwrites_nobody(site):
    site.editor.SetOverwriteMode(EDITOR.OverwriteAllSegments)
    result = site.click_(segmentID=site.visible, mode="subtract")
    ball = site.distance < site.radius
    left = site.voxels(site.visible)
    assertBall(site.visibleArray & ~left, site.distance, site.radius, where=site.visibleArray)
    assert result.changedVoxelCount == (site.visibleArray & ~left).sum() < ball.sum()
    assert np.array_equal(site.voxels(site.hidden), site.hiddenArray)


AREAS = {
    EDIT.EditAllowedEverywhere: lambda v, h: np.ones_like(v),
    EDIT.EditAllowedInsideAllSegments: lambda v, h: v | h,
    EDIT.EditAllowedInsideVisibleSegments: lambda v, h: v,
    EDIT.EditAllowedOutsideAllSegments: lambda v, h: ~(v | h),
    EDIT.EditAllowedOutsideVisibleSegments: lambda v, h: ~v,
    EDIT.EditAllowedInsideSingleSegment: lambda v, h: h,
}


@pytest.mark.parametrize("clickMode", ["new", "set"])
@pytest.mark.parametrize("area", AREAS)
def test_masks_are_not_ignored(site, area, clickMode):
    """Complaint about the peers: masks ignored. Every editable area bounds the result."""
    site.editor.SetMaskMode(area)
    site.editor.SetMaskSegmentID(site.hidden)
    result = site.click_(mode=clickMode)
    editable = AREAS[area](site.visibleArray, site.hiddenArray)
    actual = site.voxels(result.segmentID)
    assertBall(actual, site.distance, site.radius, where=editable)
    assert result.changedVoxelCount == actual.sum() <= result.voxelCount
    site.assertNeighbours(actual, visibleErased=False, hiddenErased=False)


@pytest.mark.parametrize("area", AREAS)
def test_editable_area_bounds_what_is_added_to_an_existing_segment(site, area):
    site.editor.SetMaskMode(area)
    site.editor.SetMaskSegmentID(site.hidden)
    site.click_(segmentID=site.visible)
    editable = AREAS[area](site.visibleArray, site.hiddenArray)
    actual = site.voxels(site.visible)
    assert (actual & site.visibleArray).sum() == site.visibleArray.sum()
    added = actual & ~site.visibleArray
    outsideIt = editable & ~site.visibleArray
    if outsideIt.any():
        assertBall(added, site.distance, site.radius, where=outsideIt)
    else:
        assert not added.any()


def test_set_replaces_a_segment_only_where_editing_is_allowed(site):
    site.editor.SetMaskMode(EDIT.EditAllowedInsideSingleSegment)
    site.editor.SetMaskSegmentID(site.hidden)
    site.click_(segmentID=site.visible, mode="set")
    # None of "visible" is inside "hidden", so all of it is protected, also far from the click.
    actual = site.voxels(site.visible)
    assert (actual & site.visibleArray).sum() == site.visibleArray.sum()
    assertBall(actual & ~site.visibleArray, site.distance, site.radius, where=site.hiddenArray)


def test_set_without_masks_replaces_the_whole_segment(site):
    result = site.click_(segmentID=site.visible, mode="set")
    actual = site.voxels(site.visible)
    assertBall(actual, site.distance, site.radius)
    assert result.changedVoxelCount == (actual != site.visibleArray).sum()
    assert np.array_equal(site.voxels(site.hidden), site.hiddenArray)


@pytest.fixture
def brightSite(mrml, predictor):
    values = np.zeros((36, 44, 40), np.int16)
    values[:, 22:, :] = 150
    site = Neighbourhood(mrml, predictor, values)
    site.bright = values == 150
    site.editor.SetSourceVolumeIntensityMask(True)
    site.editor.SetSourceVolumeIntensityMaskRange(100, 200)
    return site


@pytest.mark.parametrize("overwrite", [EDITOR.OverwriteNone, EDITOR.OverwriteAllSegments])
def test_the_editable_intensity_range_is_honoured(brightSite, overwrite):
    site = brightSite
    site.editor.SetOverwriteMode(overwrite)
    result = site.click_()
    actual = site.voxels(result.segmentID)
    assertBall(actual, site.distance, site.radius, where=site.bright)
    erased = overwrite == EDITOR.OverwriteAllSegments
    site.assertNeighbours(actual, visibleErased=erased, hiddenErased=erased)


def test_the_intensity_range_bounds_subtraction(brightSite):
    site = brightSite
    site.click_(segmentID=site.visible, mode="subtract")
    taken = site.visibleArray & ~site.voxels(site.visible)
    assertBall(taken, site.distance, site.radius, where=site.visibleArray & site.bright)


def test_the_intensity_range_protects_the_rest_when_a_segment_is_set(brightSite):
    site = brightSite
    site.click_(segmentID=site.visible, mode="set")
    actual = site.voxels(site.visible)
    assert np.array_equal(actual & ~site.bright, site.visibleArray & ~site.bright)
    assertBall(actual & site.bright, site.distance, site.radius, where=site.bright)


@pytest.mark.parametrize("moved", ["volume", "segmentation", "both"])
def test_the_intensity_range_under_transforms(mrml, predictor, moved):
    values = np.zeros((36, 44, 40), np.int16)
    values[:, 22:, :] = 150
    a = mrml.transform(matrixFrom((0, 0, 90), origin=(10, 20, 30)))
    b = mrml.transform(matrixFrom((90, 0, 0), origin=(-7, 5, 12)))
    volume = mrml.volume(values, parent=a if moved != "segmentation" else None)
    segmentation = mrml.segmentation(parent=b if moved != "volume" else None)
    logic = SAMUSegmentLogic(predictor)
    editor = logic.editorNode(mrml.scene)
    editor.SetSourceVolumeIntensityMask(True)
    editor.SetSourceVolumeIntensityMaskRange(100, 200)
    click = worldOf(volume, CENTER)
    result = logic.segmentFromPoint(volume, click, segmentation)
    actual = segmentOnVolume(segmentation, result.segmentID, volume)
    assertBall(actual, volumeDistances(volume, click), predictor.radius, where=values == 150)


def test_masks_that_leave_nothing_leave_no_empty_segment(mrml, site):
    site.editor.SetSourceVolumeIntensityMask(True)
    site.editor.SetSourceVolumeIntensityMaskRange(1000, 2000)
    before = mrml.snapshot(site.segmentation)
    result = site.click_()
    assert not result.applied and result.voxelCount > 0 and result.segmentID is None
    assert "masking settings" in result.message
    assert mrml.snapshot(site.segmentation) == before
    assert not site.logic.canUndo() and not site.logic.canRedo()


def test_an_editor_node_of_the_user_is_honoured_and_kept(mrml, site, predictor):
    editor = mrml.scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    editor.SetOverwriteMode(EDITOR.OverwriteVisibleSegments)
    site.logic = SAMUSegmentLogic(predictor, editorNode=editor)
    result = site.click_()
    ball = site.voxels(result.segmentID)
    site.assertNeighbours(ball, visibleErased=True, hiddenErased=False)
    assert editor.GetOverwriteMode() == EDITOR.OverwriteVisibleSegments
    assert editor.GetSegmentationNode() is site.segmentation
    assert editor.GetSourceVolumeNode() is site.volume
