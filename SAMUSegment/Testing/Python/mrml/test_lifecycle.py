"""Results that come late, writes that fail, structures that are cut, and what may be imported."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from mrml_scene import (
    StandInPredictor,
    assertBall,
    matrixFrom,
    segmentationState,
    segmentOnVolume,
    volumeDistances,
    worldOf,
)
from SAMUSegmentLib.editing import SegmentWriter
from SAMUSegmentLib.logic import SAMUSegmentLogic

from samu_core.errors import SamuError

REPOSITORY = Path(__file__).resolve().parents[4]
POINT = (20, 22, 18)


@pytest.fixture
def logic(predictor):
    return SAMUSegmentLogic(predictor)


def test_the_prediction_may_run_on_another_thread(mrml, predictor, logic):
    volume, segmentation = mrml.volume(), mrml.segmentation()
    request = logic.prepare(volume, POINT, segmentation)
    before, predictions = mrml.snapshot(segmentation), []
    thread = threading.Thread(target=lambda: predictions.append(logic.predict(request)))
    thread.start()
    thread.join(20)
    assert mrml.snapshot(segmentation) == before
    result = logic.apply(request, predictions[0])
    actual = segmentOnVolume(segmentation, result.segmentID, volume)
    assertBall(actual, volumeDistances(volume, POINT), predictor.radius)


def test_a_result_does_not_land_in_a_closed_scene(mrml, predictor, logic):
    volume, segmentation = mrml.volume(), mrml.segmentation()
    predictor.whilePredicting = mrml.close
    with pytest.raises(SamuError, match="removed from the scene"):
        logic.segmentFromPoint(volume, POINT, segmentation)
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 0
    assert mrml.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    assert not logic.canUndo() and not logic.undo()


@pytest.mark.parametrize("removed", ["volume", "segmentation"])
def test_a_result_is_dropped_when_its_node_was_removed(mrml, predictor, logic, removed):
    nodes = {"volume": mrml.volume(), "segmentation": mrml.segmentation()}
    predictor.whilePredicting = lambda: mrml.scene.RemoveNode(nodes[removed])
    with pytest.raises(SamuError, match="removed from the scene"):
        logic.segmentFromPoint(nodes["volume"], POINT, nodes["segmentation"])
    assert nodes["segmentation"].GetSegmentation().GetNumberOfSegments() == 0


def test_a_result_is_dropped_when_its_segment_was_removed(mrml, predictor, logic):
    volume, segmentation = mrml.volume(), mrml.segmentation()
    first = logic.segmentFromPoint(volume, (8, 8, 8), segmentation)
    predictor.whilePredicting = lambda: segmentation.GetSegmentation().RemoveSegment(first.segmentID)
    with pytest.raises(SamuError, match="no segment with ID"):
        logic.segmentFromPoint(volume, POINT, segmentation, segmentID=first.segmentID)
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 0


def test_a_result_is_dropped_when_the_volume_was_moved_or_changed(mrml, predictor, logic):
    volume, segmentation = mrml.volume(), mrml.segmentation()
    move = mrml.transform(matrixFrom(origin=(0, 0, 9)))
    predictor.whilePredicting = lambda: volume.SetAndObserveTransformNodeID(move.GetID())
    with pytest.raises(SamuError, match="moved or changed"):
        logic.segmentFromPoint(volume, POINT, segmentation)
    predictor.whilePredicting = lambda: volume.GetImageData().GetPointData().GetScalars().Modified()
    with pytest.raises(SamuError, match="moved or changed"):
        logic.segmentFromPoint(volume, POINT, segmentation)
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 0


def test_a_new_threshold_is_refused_after_the_volume_was_moved(mrml, logic):
    volume, segmentation = mrml.volume(), mrml.segmentation()
    result = logic.segmentFromPoint(volume, POINT, segmentation)
    after = segmentationState(segmentation)
    volume.SetAndObserveTransformNodeID(mrml.transform(matrixFrom(origin=(0, 0, 9))).GetID())
    with pytest.raises(SamuError, match="moved or changed"):
        logic.reapplyThreshold(result, 0.3)
    assert segmentationState(segmentation) == after


def test_a_result_does_not_keep_the_voxels_of_a_deleted_volume(mrml, logic):
    volume, segmentation = mrml.volume(), mrml.segmentation()
    result = logic.segmentFromPoint(volume, POINT, segmentation)
    assert result.request.volume is None
    assert logic.reapplyThreshold(result, 0.3).applied


class HalfWriter(SegmentWriter):
    """Writes, and then reports an error as the engine does."""

    broken = True

    def _handOver(self, segmentID, labelmap, mode):
        super()._handOver(segmentID, labelmap, mode)
        if self.broken:
            self._logic.InvokeEvent("ErrorEvent", "ERROR: In X.cxx, line 1\nX (0x1): disk on fire\n\n")


@pytest.mark.parametrize("into", ["new segmentation", "new segment", "existing segment"])
def test_a_failed_write_leaves_no_trace_and_no_empty_segment(mrml, predictor, into):
    """Complaint about the peers: an error that leaves the application unusable."""
    writer = HalfWriter()
    logic, volume, segmentation, segmentID = (
        SAMUSegmentLogic(predictor, writer=writer),
        mrml.volume(),
        None,
        None,
    )
    logic.editorNode(mrml.scene)
    if into != "new segmentation":
        segmentation = mrml.segmentation()
    if into == "existing segment":
        array = np.zeros((36, 44, 40), bool)
        array[:, :, :20] = True
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        segmentID = mrml.addSegment(segmentation, array, "half")
    nodes = [] if segmentation is None else [segmentation]
    before = mrml.snapshot(*nodes)
    with pytest.raises(SamuError, match="disk on fire") as info:
        logic.segmentFromPoint(volume, POINT, segmentation, segmentID=segmentID)
    assert "\n" not in str(info.value)
    assert mrml.snapshot(*nodes) == before
    assert not logic.canUndo() and not logic.canRedo()
    writer.broken = False
    assert logic.segmentFromPoint(volume, POINT, segmentation, segmentID=segmentID).applied


def test_a_click_that_fails_before_it_writes_leaves_the_click_before_alone(mrml, logic, monkeypatch):
    volume, segmentation = mrml.volume(), mrml.segmentation()
    logic.segmentFromPoint(volume, (8, 8, 8), segmentation)
    before = mrml.snapshot(segmentation)

    def fail(_writer):
        raise SamuError("no room for another undo state")

    with monkeypatch.context() as patch:
        patch.setattr(SegmentWriter, "saveState", fail)
        for target in (segmentation, None):
            with pytest.raises(SamuError, match="no room"):
                logic.segmentFromPoint(volume, POINT, target)
    assert mrml.snapshot(segmentation) == before
    assert logic.segmentFromPoint(volume, POINT, segmentation).applied


def test_an_engine_that_refuses_in_silence_is_heard(mrml, predictor, logic):
    """vtkSlicerSegmentEditorLogic only writes to the log; here it must become an exception."""
    volume, segmentation = mrml.volume(), mrml.segmentation()
    result = logic.segmentFromPoint(volume, POINT, segmentation)
    writer = logic._writer
    target = np.ones((2, 2, 2), np.uint8)
    from SAMUSegmentLib.segmentations import findGrid

    with pytest.raises(SamuError, match="Invalid segment"):
        writer.modify("no such segment", target, (0, 1, 0, 1, 0, 1), findGrid(segmentation, volume), "add")
    assert segmentOnVolume(segmentation, result.segmentID, volume).sum() == result.voxelCount


def test_a_structure_larger_than_the_field_of_view_is_reported(mrml):
    """Complaint about the peers: a structure larger than the field of view cut without a word."""
    predictor = StandInPredictor(radius=30.0, size=32)
    volume, segmentation = mrml.volume(np.zeros((90, 90, 90), np.int16)), mrml.segmentation()
    logic = SAMUSegmentLogic(predictor)
    result = logic.segmentFromPoint(volume, (45, 45, 45), segmentation)
    assert result.touchesBorder and "48 mm field of view" in result.message and "wider" in result.message
    smaller = logic.reapplyThreshold(result, 0.99)
    assert not smaller.touchesBorder and "field of view" not in smaller.message
    wider = logic.segmentFromPoint(volume, (45, 45, 45), segmentation, result.segmentID, spacing=3.0)
    assert not wider.touchesBorder
    assertBall(
        segmentOnVolume(segmentation, wider.segmentID, volume),
        volumeDistances(volume, (45, 45, 45)),
        30.0,
        tolerance=0.5,
    )


def test_the_border_of_the_image_is_no_border_of_the_field_of_view(mrml):
    predictor = StandInPredictor(radius=30.0, size=48)
    volume, segmentation = mrml.volume(), mrml.segmentation()
    result = SAMUSegmentLogic(predictor).segmentFromPoint(volume, POINT, segmentation)
    assert not result.touchesBorder


def test_switching_between_segmentations(mrml, predictor, logic):
    volume, first, second = mrml.volume(), mrml.segmentation(name="One"), mrml.segmentation(name="Two")
    one = logic.segmentFromPoint(volume, (8, 8, 8), first)
    two = logic.segmentFromPoint(volume, POINT, second)
    assert logic.undo()
    assert second.GetSegmentation().GetSegment(two.segmentID) is None
    assert first.GetSegmentation().GetSegment(one.segmentID) is not None
    again = logic.segmentFromPoint(volume, POINT, first, segmentID=one.segmentID)
    distance = np.minimum(volumeDistances(volume, POINT), volumeDistances(volume, (8, 8, 8)))
    assertBall(segmentOnVolume(first, again.segmentID, volume), distance, predictor.radius)


def test_many_volumes_from_a_script(mrml, predictor, logic):
    """Complaint about the peers: no batch, no API. One call per volume and point is all it takes."""
    for number in range(3):
        volume = mrml.volume(matrix=matrixFrom((10 * number, 0, 0)), name=f"Case {number}")
        point = worldOf(volume, POINT)
        result = logic.segmentFromPoint(volume, point, None, segmentName="lesion")
        actual = segmentOnVolume(result.segmentationNode, result.segmentID, volume)
        assertBall(actual, volumeDistances(volume, point), predictor.radius)
    assert mrml.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 3
    assert mrml.scene.GetNumberOfNodesByClass("vtkMRMLSegmentEditorNode") == 1


def test_the_editor_node_is_neither_shown_nor_saved(mrml, logic):
    logic.segmentFromPoint(mrml.volume(), POINT, mrml.segmentation())
    node = logic.editorNode(mrml.scene)
    assert node.GetHideFromEditors() and not node.GetSaveWithScene()


def test_what_may_be_imported_without_slicer_and_without_torch():
    code = f"""
import sys
sys.path[:0] = [{str(REPOSITORY)!r}, {str(REPOSITORY / "SAMUSegment")!r}]
absent = dict(slicer=None, vtk=None, qt=None, torch=None)
sys.modules.update(absent)
import SAMUSegmentLib
for name in ("slicer", "vtk"):
    del sys.modules[name]
import SAMUSegmentLib.logic
assert "samu_core.geometry" in sys.modules
"""
    # Generous: a busy machine takes its time over VTK.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
