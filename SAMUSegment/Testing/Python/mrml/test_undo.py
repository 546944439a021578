"""Undo, redo and the threshold of the last click."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from mrml_scene import assertBall, segmentationState, segmentOnVolume, volumeDistances, worldOf
from SAMUSegmentLib.logic import SAMUSegmentLogic

from samu_core.errors import SamuError

EDITOR = slicer.vtkMRMLSegmentEditorNode


class Site:
    """A volume, a segmentation with one segment, and a logic that overwrites all neighbours."""

    def __init__(self, mrml, predictor):
        self.volume, self.predictor = mrml.volume(), predictor
        self.segmentation = mrml.segmentation(self.volume)
        self.array = np.zeros((36, 44, 40), bool)
        self.array[:, :, 24:34] = True
        self.neighbour = mrml.addSegment(self.segmentation, self.array, "neighbour")
        self.logic = SAMUSegmentLogic(predictor)
        self.logic.editorNode(mrml.scene).SetOverwriteMode(EDITOR.OverwriteAllSegments)
        self.point = worldOf(self.volume, (20, 22, 18))

    def click(self, ijk=(20, 22, 18), **options):
        return self.logic.segmentFromPoint(
            self.volume, worldOf(self.volume, ijk), self.segmentation, **options
        )

    def voxels(self, segmentID):
        return segmentOnVolume(self.segmentation, segmentID, self.volume)

    @property
    def state(self):
        return segmentationState(self.segmentation)

    def assertBallAt(self, segmentID, threshold, ijk=(20, 22, 18)):
        distance = volumeDistances(self.volume, worldOf(self.volume, ijk))
        assertBall(self.voxels(segmentID), distance, self.predictor.radiusAt(threshold))


@pytest.fixture
def site(mrml, predictor):
    return Site(mrml, predictor)


def test_undo_restores_overwritten_neighbours(site):
    """Complaint about the peers: no undo."""
    before = site.state
    result = site.click()
    assert not np.array_equal(site.voxels(site.neighbour), site.array)
    assert site.logic.canUndo() and not site.logic.canRedo()
    assert site.logic.undo()
    assert site.state == before
    assert site.segmentation.GetSegmentation().GetSegment(result.segmentID) is None
    assert not site.logic.canUndo() and not site.logic.undo()


def test_redo_brings_the_click_back(site):
    result = site.click()
    after = site.state
    site.logic.undo()
    assert site.logic.canRedo() and site.logic.redo()
    assert site.state == after and site.segmentation.GetSegmentation().GetSegment(result.segmentID)
    assert not site.logic.canRedo() and not site.logic.redo()


def test_each_click_is_one_undo_step(site):
    states, clicks = [site.state], [(12, 15, 18), (20, 22, 18), (28, 30, 18)]
    segmentID = None
    for ijk in clicks:
        segmentID = site.click(ijk, segmentID=segmentID).segmentID
        states.append(site.state)
    for expected in reversed(states[:-1]):
        assert site.logic.undo() and site.state == expected
    for expected in states[1:]:
        assert site.logic.redo() and site.state == expected


def test_undo_of_subtract_and_of_set(site):
    before = site.state
    site.click(segmentID=site.neighbour, mode="subtract")
    middle = site.state
    site.click(segmentID=site.neighbour, mode="set")
    assert before != middle != site.state
    site.logic.undo()
    assert site.state == middle
    site.logic.undo()
    assert site.state == before


@pytest.mark.parametrize("threshold", [0.2, 0.35, 0.65, 0.8])
def test_a_new_threshold_needs_no_inference(site, threshold):
    before = site.state
    result = site.click()
    name = site.segmentation.GetSegmentation().GetSegment(result.segmentID).GetName()
    assert site.predictor.calls == 1
    again = site.logic.reapplyThreshold(result, threshold)
    assert site.predictor.calls == 1 and again.prediction is result.prediction
    assert again.segmentID == result.segmentID and again.threshold == threshold
    assert site.segmentation.GetSegmentation().GetSegment(result.segmentID).GetName() == name
    site.assertBallAt(result.segmentID, threshold)
    # The neighbour has only lost what the mask of the new threshold overwrites.
    assert np.array_equal(site.voxels(site.neighbour), site.array & ~site.voxels(result.segmentID))
    site.logic.undo()
    assert site.state == before, "still one undo step back to before the click"
    assert not site.logic.canUndo()


def test_sliding_the_threshold_back_and_forth_ends_where_it_began(site):
    site.click((10, 10, 10))
    first = site.state
    result = site.click()
    middle = site.state
    for threshold in (0.6, 0.3, 0.9, 0.2, 0.7, 0.45, 0.55, 0.3, 0.6, 0.4, 0.5):
        result = site.logic.reapplyThreshold(result, threshold)
    assert site.state == middle and site.predictor.calls == 2
    site.logic.undo()
    assert site.state == first


@pytest.mark.parametrize("mode", ["add", "subtract", "set"])
def test_a_new_threshold_in_an_existing_segment(site, mode):
    result = site.click(segmentID=site.neighbour, mode=mode)
    site.logic.reapplyThreshold(result, 0.3)
    slid = site.voxels(site.neighbour)
    site.logic.undo()
    site.click(segmentID=site.neighbour, mode=mode, threshold=0.3)
    assert np.array_equal(slid, site.voxels(site.neighbour))


def test_name_colour_and_visibility_survive_a_new_threshold(site):
    result = site.click()
    segment = site.segmentation.GetSegmentation().GetSegment(result.segmentID)
    segment.SetName("liver")
    segment.SetColor(0.1, 0.2, 0.3)
    display = site.segmentation.GetDisplayNode()
    display.SetSegmentOpacity2DFill(result.segmentID, 0.25)
    display.SetSegmentVisibility3D(result.segmentID, False)
    site.logic.reapplyThreshold(result, 0.3)
    segment = site.segmentation.GetSegmentation().GetSegment(result.segmentID)
    assert segment.GetName() == "liver" and segment.GetColor() == pytest.approx((0.1, 0.2, 0.3))
    assert display.GetSegmentOpacity2DFill(result.segmentID) == 0.25
    assert not display.GetSegmentVisibility3D(result.segmentID)


def test_a_threshold_that_finds_nothing_can_be_lowered(mrml, site):
    before = mrml.snapshot(site.segmentation)
    site.predictor.radius = 6.0
    site.predictor.slope = 0.1
    nodes = mrml.snapshot()[0]
    result = site.click(threshold=0.99)
    assert not result.applied and result.voxelCount == 0 and "lower the threshold" in result.message
    assert mrml.snapshot(site.segmentation) == before and not site.logic.canUndo()
    result = site.logic.reapplyThreshold(result, 0.5)
    assert result.applied
    site.assertBallAt(result.segmentID, 0.5)
    # And back to nothing, and to something again: the same segment.
    nothing = site.logic.reapplyThreshold(result, 0.99)
    assert not nothing.applied and site.state == before[1][0]
    again = site.logic.reapplyThreshold(nothing, 0.5)
    assert again.segmentID == result.segmentID
    site.assertBallAt(again.segmentID, 0.5)
    assert site.predictor.calls == 1 and mrml.snapshot()[0] == nodes


def test_the_threshold_of_an_undone_click_is_not_changed_until_it_is_redone(site):
    before = site.state
    result = site.click()
    site.logic.undo()
    with pytest.raises(SamuError, match="undone"):
        site.logic.reapplyThreshold(result, 0.3)
    assert site.state == before
    site.logic.redo()
    site.logic.reapplyThreshold(result, 0.3)
    site.assertBallAt(result.segmentID, 0.3)


def test_an_edit_in_between_is_not_lost_to_the_threshold(mrml, site):
    result = site.click()
    other = mrml.addSegment(site.segmentation, ~site.array, "painted")
    after = site.state
    with pytest.raises(SamuError, match="edited"):
        site.logic.reapplyThreshold(result, 0.3)
    assert site.state == after and site.voxels(other).any()


def test_a_segment_that_was_removed_does_not_come_back_with_a_threshold(site):
    segmentID = site.click((10, 10, 10)).segmentID
    result = site.click((10, 10, 10), segmentID=segmentID)
    assert not result.applied
    site.segmentation.GetSegmentation().RemoveSegment(segmentID)
    with pytest.raises(SamuError, match="no segment with ID"):
        site.logic.reapplyThreshold(result, 0.3)
    assert site.segmentation.GetSegmentation().GetSegment(segmentID) is None


@pytest.mark.parametrize("threshold", [0, 1, -3, 1.5])
def test_a_threshold_that_is_no_probability_changes_nothing(site, threshold):
    result = site.click()
    after = site.state
    with pytest.raises(SamuError, match="between 0 and 1"):
        site.logic.reapplyThreshold(result, threshold)
    assert site.state == after
    site.logic.reapplyThreshold(result, 0.3)
    site.assertBallAt(result.segmentID, 0.3)


def test_only_the_last_click_can_get_a_new_threshold(site):
    first = site.click((10, 10, 10))
    site.click()
    after = site.state
    with pytest.raises(SamuError, match="last click"):
        site.logic.reapplyThreshold(first, 0.3)
    assert site.state == after


def test_nothing_to_redo_after_a_click_that_masks_hold_back(mrml, site):
    first, start = site.click((10, 10, 10)), site.state
    editor = site.logic.editorNode(mrml.scene)
    editor.SetSourceVolumeIntensityMask(True)
    editor.SetSourceVolumeIntensityMaskRange(1000, 2000)
    assert not site.click(segmentID=first.segmentID).applied
    assert site.state == start and not site.logic.canRedo()
    site.logic.undo()
    assert site.segmentation.GetSegmentation().GetNumberOfSegments() == 1
    site.logic.redo()
    assert site.state == start and not site.logic.canRedo()
