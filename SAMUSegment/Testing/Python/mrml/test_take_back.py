"""Deleting and moving one click of several."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from click_support import Clicking
from mrml_scene import StandInPredictor

from samu_core.errors import SamuError

A, B, C = (14.0, 14.0, 14.0), (20.0, 20.0, 16.0), (26.0, 30.0, 22.0)


@pytest.fixture
def clicking(mrml):
    clicking = Clicking(mrml, StandInPredictor(radius=8.0))
    yield clicking
    clicking.close()


def threeClicks(clicking):
    """The segment, and the keys of clicks at A, B and C that overlap."""
    segmentID, keys = None, []
    for point in (A, B, C):
        segmentID = clicking.click(point, segmentID).segmentID
        keys.append(clicking.key)
    return segmentID, keys


def test_a_deleted_click_takes_along_what_only_it_had_added(clicking):
    segmentID, (a, b, c) = threeClicks(clicking)
    full = clicking.state
    assert clicking.controller.takeBack([b])
    clicking.assertBalls(segmentID, A, C)
    clicking.controller.undo()
    assert clicking.state == full, "one undo step"
    clicking.controller.redo()
    clicking.controller.takeBack([a])
    clicking.assertBalls(segmentID, C)
    clicking.controller.takeBack([c])
    assert not clicking.voxels(segmentID).any()


def test_several_deleted_clicks_are_one_undo_step(clicking):
    segmentID, (a, b, c) = threeClicks(clicking)
    full = clicking.state
    clicking.controller.takeBack([a, b, c])
    assert not clicking.voxels(segmentID).any()
    clicking.controller.undo()
    assert clicking.state == full
    clicking.controller.takeBack([c])
    clicking.assertBalls(segmentID, A, B)


def test_a_deleted_subtraction_gives_the_voxels_back(clicking):
    segmentID = clicking.click(A).segmentID
    clicking.click(B, segmentID, "subtract")
    assert (clicking.voxels(segmentID) & (clicking.distance(B) < 7.5)).sum() == 0
    clicking.controller.takeBack([clicking.key])
    clicking.assertBalls(segmentID, A)


def test_brush_strokes_of_the_user_survive_the_deletion(clicking):
    segmentID, (a, _b, _c) = threeClicks(clicking)
    painted = np.zeros((36, 44, 40), bool)
    painted[2:5, 2:30, 2:5] = True
    logic, node = slicer.vtkSlicerSegmentationsModuleLogic, clicking.segmentation
    current = clicking.voxels(segmentID) | painted
    name = clicking.mrml.addSegment(node, current, "temporary")
    image = slicer.vtkOrientedImageData()
    node.GetBinaryLabelmapRepresentation(name, image)
    node.GetSegmentation().RemoveSegment(name)
    assert logic.SetBinaryLabelmapToSegment(image, node, segmentID, logic.MODE_REPLACE)
    clicking.controller.takeBack([a])
    after = clicking.voxels(segmentID)
    expected = painted & (clicking.distance(A) > 8.2)
    assert after[expected].all() and not after[(clicking.distance(B, C) > 8.2) & ~painted].any()


def test_a_click_that_moves_takes_its_voxels_with_it(clicking):
    segmentID, (_a, b, _c) = threeClicks(clicking)
    before = clicking.state
    clicking.click((30.0, 14.0, 14.0), segmentID, key=b)
    clicking.assertBalls(segmentID, A, C, (30.0, 14.0, 14.0))
    clicking.controller.undo()
    assert clicking.state == before, "one undo step"
    clicking.controller.redo()
    clicking.assertBalls(segmentID, A, C, (30.0, 14.0, 14.0))
    clicking.controller.takeBack([b])
    clicking.assertBalls(segmentID, A, C)


def test_the_threshold_of_a_moved_click(clicking):
    segmentID = clicking.click(A).segmentID
    key, moved = clicking.key, (28.0, 30.0, 20.0)
    start = clicking.state
    clicking.click(moved, segmentID, key=key)
    for threshold in (0.3, 0.7, 0.5, 0.3):
        clicking.set(threshold=threshold)
        clicking.assertBalls(segmentID, moved, threshold=threshold)
    assert clicking.predictor.calls == 2
    clicking.controller.undo()
    assert clicking.state == start


def test_a_click_that_moves_to_where_nothing_is_found_leaves_nothing(clicking):
    segmentID = clicking.click(A).segmentID
    start, key = clicking.state, clicking.key
    clicking.predictor.slope = -1.0
    clicking.click(C, segmentID, key=key)
    assert not clicking.voxels(segmentID).any() and clicking.status.kind == "warning"
    clicking.controller.undo()
    assert clicking.state == start


def test_a_click_that_moves_into_what_others_hold_adds_nothing(clicking):
    segmentID, (a, b, c) = threeClicks(clicking)
    clicking.click(A, segmentID, key=b)
    clicking.assertBalls(segmentID, A, C)
    clicking.controller.takeBack([a])
    clicking.assertBalls(segmentID, A, C)  # the moved click holds the ball at A too


def test_a_deleted_click_that_had_no_effect_says_so(clicking):
    segmentID = clicking.click(A).segmentID
    clicking.click(A, segmentID)
    before = clicking.state
    assert clicking.controller.takeBack([clicking.key])
    assert clicking.state == before and "nothing was changed" in clicking.status.text
    assert clicking.controller.takeBack([999]) and clicking.state == before


def test_a_click_whose_segment_is_gone_has_nothing_to_give_back(clicking):
    segmentID = clicking.click(A).segmentID
    clicking.segmentation.GetSegmentation().RemoveSegment(segmentID)
    assert clicking.controller.takeBack([clicking.key])
    assert clicking.segmentation.GetSegmentation().GetNumberOfSegments() == 0


def test_after_a_change_of_geometry_a_click_is_not_taken_back(clicking):
    segmentID = clicking.click(A).segmentID
    finer = clicking.mrml.volume(np.zeros((72, 88, 80), np.int16), np.diag([0.5, 0.5, 0.5, 1.0]), name="Fine")
    clicking.segmentation.SetReferenceImageGeometryParameterFromVolumeNode(finer)
    before = clicking.state
    assert not clicking.controller.takeBack([clicking.key])
    assert clicking.status.kind == "error" and "geometry" in clicking.status.text
    assert clicking.state == before and segmentID


def test_a_write_that_fails_in_the_middle_of_a_move_changes_nothing(clicking, monkeypatch):
    segmentID, (_a, b, _c) = threeClicks(clicking)
    before, modify = clicking.state, type(clicking.writer).modify

    def failing(writer, segment, mask, extent, grid, mode):
        modify(writer, segment, mask, extent, grid, mode)
        if mode == "add":
            raise SamuError("disk on fire")

    with monkeypatch.context() as patch:
        patch.setattr(type(clicking.writer), "modify", failing)
        assert clicking.click((30.0, 14.0, 14.0), segmentID, "add", key=b) is None
    assert "on fire" in clicking.status.text and clicking.state == before
    clicking.controller.takeBack([b])
    clicking.assertBalls(segmentID, A, C)
