"""The list of clicks: placing, moving and deleting points; undo; a saved scene that goes on."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from click_support import Clicking, Gate
from mrml_scene import StandInPredictor
from SAMUSegmentLib.clicklist import ClickList, ClickTarget

A, B, C = (14.0, 14.0, 14.0), (20.0, 20.0, 16.0), (26.0, 30.0, 22.0)


class Listing(Clicking):
    """Clicks that are made by placing points."""

    def __init__(self, mrml, predictor):
        super().__init__(mrml, predictor)
        self.mode, self.segmentID = "add", None
        self.list = ClickList(self.controller, self._target)
        self.node = self.list.ensureNode(mrml.scene)

    def _target(self):
        return ClickTarget(self.volume, self.segmentation, self.segmentID, self.mode)

    def place(self, point):
        index = self.node.AddControlPointWorld(*point)
        self.finish()
        if self.controller.result is not None:
            self.segmentID = self.controller.result.segmentID
        return index

    def finish(self):
        self.list.tick()
        super().finish()
        self.list.tick()

    @property
    def points(self):
        found = []
        for index in range(self.node.GetNumberOfControlPoints()):
            position = [0.0, 0.0, 0.0]
            self.node.GetNthControlPointPositionWorld(index, position)
            found.append(tuple(position))
        return found


@pytest.fixture
def listing(mrml):
    listing = Listing(mrml, StandInPredictor(radius=8.0))
    yield listing
    listing.list.release()
    listing.close()


def test_each_point_is_a_click(listing):
    for point in (A, B, C):
        listing.place(point)
    listing.assertBalls(listing.segmentID, A, B, C)
    listing.mode = "subtract"
    listing.place(B)
    assert not (listing.voxels(listing.segmentID) & (listing.distance(B) < 7.8)).any()
    labels = [listing.node.GetNthControlPointLabel(index) for index in range(4)]
    assert labels == ["+", "+", "+", "-"]
    assert listing.predictor.calls == 4 and len(listing.points) == 4


def test_a_point_without_a_position_is_no_click(listing):
    listing.node.AddControlPointWorld(*A)
    listing.node.UnsetNthControlPointPosition(0)
    assert listing.node.GetNthControlPointPositionStatus(0) != slicer.vtkMRMLMarkupsNode.PositionDefined
    listing.finish()
    assert listing.predictor.calls == 0


def test_a_deleted_point_takes_its_contribution_along(listing):
    for point in (A, B, C):
        listing.place(point)
    full = listing.state
    listing.node.RemoveNthControlPoint(1)
    listing.finish()
    listing.assertBalls(listing.segmentID, A, C)
    listing.controller.undo()
    assert listing.state == full and sorted(listing.points) == sorted([A, B, C])
    listing.node.RemoveAllControlPoints()
    listing.finish()
    assert not listing.voxels(listing.segmentID).any()
    listing.controller.undo()
    listing.finish()
    assert listing.state == full and len(listing.points) == 3 and listing.predictor.calls == 3


def test_a_moved_point_segments_anew_when_it_is_let_go(listing):
    listing.place(A)
    index = listing.place(B)
    listing.node.InvokeEvent(listing.node.PointStartInteractionEvent)
    for step in (0.3, 0.6, 1.0):
        listing.node.SetNthControlPointPositionWorld(index, *(np.array(B) + step * (np.array(C) - B)))
        listing.finish()
    assert listing.predictor.calls == 2, "not while it is dragged"
    listing.node.InvokeEvent(listing.node.PointEndInteractionEvent)
    listing.finish()
    assert listing.predictor.calls == 3
    listing.assertBalls(listing.segmentID, A, C)
    listing.controller.undo()
    listing.finish()
    listing.assertBalls(listing.segmentID, A, B)
    assert listing.points == [A, B] and listing.predictor.calls == 3


def test_undo_and_redo_move_the_points_along(listing):
    listing.place(A)
    listing.place(B)
    listing.controller.undo()
    listing.finish()
    assert listing.points == [A]
    listing.controller.undo()
    listing.finish()
    assert listing.points == []
    listing.controller.redo()
    listing.controller.redo()
    listing.finish()
    assert listing.points == [A, B] and listing.predictor.calls == 2
    listing.assertBalls(listing.controller.result.segmentID, A, B)


def test_a_click_that_comes_to_nothing_leaves_no_point(listing):
    listing.place((500.0, 0.0, 0.0))
    assert listing.points == [] and listing.status.kind == "error"
    gate = Gate(listing.predictor)
    listing.node.AddControlPointWorld(*A)
    listing.list.tick()
    gate.waitUntilEntered()
    listing.controller.cancel()
    gate.open.set()
    listing.finish()
    assert listing.points == []


def test_a_newer_point_takes_the_place_of_the_one_under_way(listing):
    gate = Gate(listing.predictor)
    listing.node.AddControlPointWorld(*A)
    listing.list.tick()
    gate.waitUntilEntered()
    listing.node.AddControlPointWorld(*B)
    listing.list.tick()
    gate.open.set()
    listing.finish()
    assert listing.points == [B]
    listing.assertBalls(listing.controller.result.segmentID, B)


def test_a_point_moved_while_its_click_is_under_way(listing):
    gate = Gate(listing.predictor)
    listing.node.AddControlPointWorld(*A)
    listing.list.tick()
    gate.waitUntilEntered()
    listing.node.SetNthControlPointPositionWorld(0, *C)
    listing.list.tick()
    gate.open.set()
    listing.finish()
    assert listing.points == [C]
    listing.assertBalls(listing.controller.result.segmentID, C)


def test_a_point_deleted_while_its_click_is_under_way(listing):
    gate, before = Gate(listing.predictor), listing.state
    listing.node.AddControlPointWorld(*A)
    listing.list.tick()
    gate.waitUntilEntered()
    listing.node.RemoveNthControlPoint(0)
    listing.list.tick()
    assert not listing.controller.busy
    gate.open.set()
    listing.finish()
    assert listing.state == before and listing.points == []


def test_a_point_moved_out_of_the_volume_goes_back(listing):
    index = listing.place(A)
    before = listing.state
    listing.node.SetNthControlPointPositionWorld(index, 500.0, 0.0, 0.0)
    listing.finish()
    assert listing.points == [A] and listing.state == before and "outside" in listing.status.text


def test_a_list_of_a_saved_scene_goes_on(mrml, listing):
    """Complaint about the peers: cannot continue a saved segmentation."""
    listing.place(A)
    listing.place(B)
    segmentID = listing.segmentID
    again = ClickList(listing.controller, listing._target)
    listing.list.release()
    listing.controller.editor.forget()
    again.use(listing.node)
    again.tick()
    assert listing.predictor.calls == 2, "nothing is segmented again"
    listing.list = again
    listing.place(C)
    listing.assertBalls(segmentID, A, B, C)
    before = listing.state
    listing.node.RemoveNthControlPoint(0)
    listing.finish()
    assert listing.state == before and "saved" in listing.status.text
    listing.node.SetNthControlPointPositionWorld(0, 30.0, 14.0, 14.0)
    listing.finish()
    listing.assertBalls(segmentID, A, B, C, (30.0, 14.0, 14.0))


def test_a_list_that_is_removed_is_left_alone(mrml, listing):
    listing.place(A)
    mrml.scene.RemoveNode(listing.node)
    listing.finish()
    listing.controller.undo()
    assert listing.list.node is None
    listing.node = listing.list.ensureNode(mrml.scene)
    listing.segmentID = None
    listing.place(B)
    assert listing.points == [B]
