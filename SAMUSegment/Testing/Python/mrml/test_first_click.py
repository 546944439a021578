"""One click into a new or existing segment: the ball is where the click is."""

from __future__ import annotations

from mrml_scene import (
    assertBall,
    segmentOnVolume,
    volumeDistances,
    worldOf,
)
from SAMUSegmentLib.logic import SAMUSegmentLogic


def test_a_click_makes_a_segment_of_the_clicked_structure(mrml, predictor):
    volume, segmentation = mrml.volume(), mrml.segmentation()
    click = worldOf(volume, (20, 22, 18))
    result = SAMUSegmentLogic(predictor).segmentFromPoint(volume, click, segmentation)
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 1
    actual = segmentOnVolume(segmentation, result.segmentID, volume)
    assertBall(actual, volumeDistances(volume, click), predictor.radius)
    assert result.applied and result.voxelCount == result.changedVoxelCount == actual.sum()
    segment = segmentation.GetSegmentation().GetSegment(result.segmentID)
    assert segment.GetName() == "Segment_1"
    assert len(set(segment.GetColor())) == 3, "a colour of its own, not grey"
    assert "\n" not in result.message and "Segment_1" in result.message
    assert result.seconds["encode"] == 0.1 and result.totalSeconds > 0.1


def test_what_the_predictor_wants_the_user_to_know_is_in_the_message(mrml, predictor):
    logic = SAMUSegmentLogic(predictor)
    request = logic.prepare(mrml.volume(), (20, 22, 18), mrml.segmentation())
    prediction = logic.predict(request)
    prediction.notice = "The GPU's memory was too small; the CPU was used."
    assert logic.apply(request, prediction).message.endswith(prediction.notice)
