"""Clicks through the worker: busy, superseded, cancelled, late; threshold, wider view, undo."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from click_support import Clicking, Gate
from mrml_scene import StandInPredictor, segmentationState
from SAMUSegmentLib import statustexts
from SAMUSegmentLib.clicks import MODES
from SAMUSegmentLib.options import ClickMode, FieldOfView

from samu_core.candidates import AS_FOUND, LARGER, SMALLER, nested_thresholds
from samu_core.errors import SamuError, WeightsError

A, B, C = (14.0, 14.0, 14.0), (22.0, 24.0, 18.0), (26.0, 30.0, 22.0)


@pytest.fixture
def clicking(mrml):
    clicking = Clicking(mrml, StandInPredictor(radius=8.0))
    yield clicking
    clicking.close()


class Listener:
    def __init__(self):
        self.ends = []

    def landed(self, order, result):
        self.ends.append(("landed", order.key))

    def dropped(self, order):
        self.ends.append(("dropped", order.key))


def test_a_click_ends_in_a_segment_and_says_so(clicking):
    gate, listener = Gate(clicking.predictor), Listener()
    clicking.controller.listener = listener
    before = clicking.state
    assert clicking.controller.click(clicking.order(B, key=7))
    gate.waitUntilEntered()
    clicking.controller.tick()
    assert clicking.controller.busy and clicking.status.kind == "busy" and clicking.state == before
    gate.open.set()
    clicking.finish()
    result = clicking.controller.result
    clicking.assertBalls(result.segmentID, B)
    assert clicking.status.text == result.message and clicking.status.kind == "info"
    assert listener.ends == [("landed", 7)]
    assert statustexts.STAGES["encode"] in [status.text for status in clicking.said]


def test_prediction_never_runs_on_the_main_thread(clicking):
    threads = []
    clicking.predictor.whilePredicting = lambda: threads.append(threading.current_thread())
    clicking.click(B)
    assert threads and threading.main_thread() not in threads


def test_a_newer_click_supersedes_the_one_under_way(clicking):
    gate, listener = Gate(clicking.predictor), Listener()
    clicking.controller.listener = listener
    clicking.controller.click(clicking.order(A, key=1))
    gate.waitUntilEntered()
    clicking.controller.click(clicking.order(B, key=2))
    gate.open.set()
    clicking.finish()
    assert listener.ends == [("dropped", 1), ("landed", 2)]
    assert clicking.segmentation.GetSegmentation().GetNumberOfSegments() == 1
    clicking.assertBalls(clicking.controller.result.segmentID, B)


def test_cancel_drops_the_click_and_the_next_one_works(clicking):
    gate, before = Gate(clicking.predictor), clicking.state
    clicking.controller.click(clicking.order(A))
    gate.waitUntilEntered()
    clicking.controller.cancel()
    assert not clicking.controller.busy and clicking.status.text == statustexts.CANCELLED
    gate.open.set()
    clicking.finish()
    assert clicking.state == before
    clicking.assertBalls(clicking.click(B).segmentID, B)


def test_a_scene_that_is_closed_drops_the_result(clicking):
    gate = Gate(clicking.predictor)
    clicking.controller.click(clicking.order(A))
    gate.waitUntilEntered()
    clicking.mrml.close()
    clicking.controller.reset(statustexts.SCENE_CLOSED)
    gate.open.set()
    clicking.finish()
    assert clicking.segmentation.GetSegmentation().GetNumberOfSegments() == 0
    assert clicking.controller.result is None and clicking.status.text == statustexts.SCENE_CLOSED
    assert not clicking.editor.canUndo


def test_a_refused_click_says_why_and_nothing_runs(clicking):
    """Complaint about the peers: an error that leaves the application unusable."""
    listener = Listener()
    clicking.controller.listener = listener
    assert not clicking.controller.click(clicking.order((500, 0, 0), key=3))
    assert clicking.status.kind == "error" and "outside" in clicking.status.text
    assert not clicking.controller.busy and clicking.predictor.calls == 0
    assert listener.ends == [("dropped", 3)]
    assert clicking.click(B).applied


@pytest.mark.parametrize("error", [WeightsError("The weights are damaged."), ZeroDivisionError("x")])
def test_an_error_of_the_prediction_is_told_and_the_next_click_works(clicking, error):
    def fail():
        raise error

    clicking.predictor.whilePredicting = fail
    before = clicking.state
    assert clicking.click(B) is None
    assert clicking.status.kind == "error" and str(error) in clicking.status.text
    assert "\n" not in clicking.status.text and clicking.state == before
    clicking.predictor.whilePredicting = None
    assert clicking.click(B).applied


def test_a_result_can_be_refused_when_it_comes(mrml):
    refuse = [SamuError("Another segmentation was selected.")]
    clicking = Clicking(mrml, StandInPredictor(radius=8.0), refuse=lambda _request: refuse[0])
    before = clicking.state
    assert clicking.click(B) is None and clicking.state == before
    assert clicking.status.text == "Another segmentation was selected."
    refuse[0] = None
    assert clicking.click(B).applied
    clicking.close()


def test_the_threshold_acts_on_the_last_mask_without_inference(clicking):
    result = clicking.click(B)
    for threshold in (0.3, 0.7, 0.3):
        clicking.set(threshold=threshold)
        clicking.assertBalls(result.segmentID, B, threshold=threshold)
    assert clicking.predictor.calls == 1
    clicking.controller.undo()
    assert clicking.segmentation.GetSegmentation().GetNumberOfSegments() == 0, "one step back to the start"
    assert not clicking.editor.canUndo


def test_a_threshold_that_moves_during_the_inference_is_used(clicking):
    gate = Gate(clicking.predictor)
    clicking.controller.click(clicking.order(B))
    gate.waitUntilEntered()
    clicking.set(threshold=0.7)
    gate.open.set()
    clicking.finish()
    clicking.assertBalls(clicking.controller.result.segmentID, B, threshold=0.7)


def test_a_threshold_that_finds_nothing_can_be_lowered_again(clicking):
    start = clicking.state
    result = clicking.click(B)
    clicking.predictor.slope = 0.1
    clicking.controller.undo()
    result = clicking.click(B)
    clicking.set(threshold=0.9)
    assert clicking.status.kind == "warning" and clicking.state[0] == start[0]
    assert not clicking.editor.canUndo
    clicking.set(threshold=0.5)
    clicking.assertBalls(clicking.controller.result.segmentID, B)
    assert clicking.controller.result.segmentID == result.segmentID
    clicking.controller.undo()
    assert clicking.state[0] == start[0]


def test_a_threshold_after_another_edit_is_refused_with_a_word(clicking):
    clicking.click(B)
    clicking.mrml.addSegment(clicking.segmentation, np.ones((36, 44, 40), bool), "painted")
    after = clicking.state
    clicking.set(threshold=0.3)
    assert clicking.state == after and clicking.status.kind == "warning"
    assert statustexts.NEXT_CLICK_ONLY in clicking.status.text


def test_undo_and_redo_follow_each_other(clicking):
    states = [clicking.state]
    segmentID = None
    for point in (A, B, C):
        segmentID = clicking.click(point, segmentID).segmentID
        states.append(clicking.state)
    for expected in reversed(states[:-1]):
        clicking.controller.undo()
        assert clicking.state == expected
    assert not clicking.editor.canUndo and clicking.editor.canRedo and clicking.controller.result is None
    clicking.controller.undo()
    assert clicking.status.text == statustexts.NO_STEP
    for expected in states[1:]:
        clicking.controller.redo()
        assert clicking.state == expected
    assert not clicking.editor.canRedo and clicking.editor.canUndo
    clicking.set(threshold=0.3)
    assert clicking.controller.result.threshold == 0.3, "a click that was redone can be changed"


def test_a_structure_that_is_cut_gets_a_wider_view_with_one_call(mrml):
    """Complaint about the peers: a structure larger than the field of view cut without a word."""
    clicking = Clicking(mrml, StandInPredictor(radius=14.0, size=12))
    clicking.click(B)
    controller, first = clicking.controller, clicking.controller.result
    assert first.touchesBorder and "18 mm view" in controller.borderNotice
    assert clicking.status.kind == "warning" and controller.widerView is FieldOfView.WIDE_1_5
    assert controller.widen()
    assert controller.widerView is None, "not while it is under way"
    clicking.finish()
    assert controller.result.prediction.grid.spacing == 2.25
    assert controller.widen()
    clicking.finish()
    assert not controller.result.touchesBorder and controller.borderNotice == ""
    assert controller.widerView is None and not controller.widen()
    assert clicking.segmentation.GetSegmentation().GetNumberOfSegments() == 1
    assert controller.result.segmentID == first.segmentID
    actual, distance = clicking.voxels(first.segmentID), clicking.distance(B)
    assert actual[distance < 13.6].all() and not actual[distance > 14.4].any()
    clicking.close()


def test_a_wider_view_than_a_closer_look_is_wider_than_the_view_before_it(mrml):
    """Otherwise a lowered threshold would offer the standard view, whose closer look is the same again."""

    class Closer(StandInPredictor):
        def predict(self, volume, point_ras, *, spacing=1.5, **rest):
            prediction = super().predict(volume, point_ras, spacing=spacing / 1.5, **rest)
            prediction.asked_spacing = spacing
            return prediction

    clicking = Clicking(mrml, Closer(radius=14.0, size=12))
    clicking.click(B)
    controller = clicking.controller
    assert controller.result.touchesBorder and "12 mm view" in controller.borderNotice
    assert controller.widerView is FieldOfView.WIDE_1_5
    assert controller.widen()
    clicking.finish()
    assert controller.result.prediction.asked_spacing == 2.25
    assert controller.widerView is FieldOfView.WIDE_2, "and so to an end"
    clicking.close()


def test_the_widest_view_has_no_button(mrml):
    clicking = Clicking(mrml, StandInPredictor(radius=12.0, size=4))
    clicking.click(B, fieldOfView=FieldOfView.WIDE_3)
    assert clicking.controller.result.touchesBorder and clicking.controller.widerView is None
    assert "widest view" in clicking.controller.borderNotice
    clicking.close()


def test_warming_up_is_told_and_a_click_may_come_in_between(clicking):
    gate = Gate(clicking.predictor)
    clicking.predictor.warm_up = gate._wait
    clicking.controller.warmUp()
    assert clicking.status.text == statustexts.WARMING_UP and not clicking.controller.busy
    gate.waitUntilEntered()
    clicking.controller.click(clicking.order(B))
    gate.open.set()
    clicking.finish()
    assert clicking.controller.result.applied


def test_a_network_that_cannot_be_loaded_is_told_at_once(clicking):
    def fail():
        raise WeightsError("The weights are damaged; reinstall the extension.")

    clicking.predictor.warm_up = fail
    clicking.controller.warmUp()
    for _ in range(2000):
        clicking.controller.tick()
        if clicking.status.kind == "error":
            break
        threading.Event().wait(0.005)
    assert "reinstall" in clicking.status.text


def test_texts_of_the_last_click(clicking):
    result = clicking.click(B)
    assert statustexts.latency(result.seconds).endswith(" s")
    assert "2.5 s to load" in statustexts.latency({"load": 2.5, "encode": 0.5})
    assert statustexts.device(result.prediction) == "CPU, float32"
    assert {mode.value for mode in ClickMode} < set(MODES)


def test_clicks_of_one_segmentation_do_not_undo_into_another(clicking):
    clicking.click(B)
    first, other = clicking.segmentation, clicking.mrml.segmentation(name="Other")
    after = clicking.state
    clicking.segmentation = other
    clicking.click(A)
    clicking.controller.undo()
    assert other.GetSegmentation().GetNumberOfSegments() == 0
    assert not clicking.editor.canUndo
    clicking.controller.undo()
    assert segmentationState(first) == after


# -- other masks of a click --


def test_one_key_goes_through_larger_smaller_and_as_found_without_inference(clicking):
    clicking.predictor.slope = 2.0
    clicking.set(threshold=0.4)
    clicking.click(B)
    thresholds = nested_thresholds(0.4)
    said = []
    for name in (LARGER, SMALLER, AS_FOUND, LARGER):
        assert clicking.controller.hasOtherMask and clicking.controller.otherMask()
        clicking.assertBalls(clicking.controller.result.segmentID, B, threshold=thresholds[name])
        assert name in clicking.status.text and clicking.controller.result.message in clicking.status.text
        said.append(clicking.status.text)
    assert said[0] == said[3] and "2 of 3" in said[0] and "1 of 3" in said[2]
    assert clicking.predictor.calls == 1 and clicking.controller.options.threshold == 0.4
    assert clicking.editor.undo() and not clicking.editor.canUndo
    assert clicking.segmentation.GetSegmentation().GetNumberOfSegments() == 0


def test_a_new_click_and_a_new_threshold_show_the_mask_as_found(clicking):
    clicking.predictor.slope = 2.0
    clicking.click(A)
    assert clicking.controller.otherMask()
    clicking.set(threshold=0.6)
    clicking.assertBalls(clicking.controller.result.segmentID, A, threshold=0.6)
    assert clicking.controller.otherMask() and LARGER in clicking.status.text
    result = clicking.click(B)
    clicking.assertBalls(result.segmentID, B, threshold=0.6)


def test_the_key_leaves_a_click_before_the_last_one_alone(clicking):
    clicking.predictor.slope = 2.0
    clicking.click(A)
    assert clicking.controller.otherMask()
    after = clicking.state
    clicking.click(B)
    assert clicking.controller.otherMask()
    clicking.controller.undo()
    assert clicking.state == after
    assert not clicking.controller.otherMask()
    assert clicking.status.kind == "warning" and "last click" in clicking.status.text
    assert clicking.state == after


def test_without_a_click_or_another_mask_the_key_says_so(clicking):
    assert not clicking.controller.hasOtherMask and not clicking.controller.otherMask()
    assert clicking.status.text == statustexts.NO_CLICK_TO_CHANGE
    clicking.predictor.slope = 1e6  # all thresholds give the same ball
    clicking.click(B)
    before = clicking.state
    assert not clicking.controller.otherMask() and clicking.status.text == statustexts.NO_OTHER_MASK
    assert clicking.state == before


def test_an_edit_after_the_click_is_not_overwritten_by_another_mask(clicking):
    clicking.predictor.slope = 2.0
    clicking.click(B)
    clicking.mrml.addSegment(clicking.segmentation, np.ones((36, 44, 40), np.uint8), "wall")
    before = clicking.state
    assert not clicking.controller.otherMask()
    assert clicking.status.kind == "warning" and "edited after this click" in clicking.status.text
    assert statustexts.NEXT_CLICK_ONLY not in clicking.status.text and clicking.state == before
