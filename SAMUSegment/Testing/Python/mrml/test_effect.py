"""The Segment Editor effect, on Slicer's own editing engine, with the widgets faked."""

from __future__ import annotations

import time
import types

import gui_fakes
import numpy as np
import pytest
from gui_fakes import EVENTS, FakeEditor, FakeInteractor, FakeWidget
from mrml_scene import StandInPredictor, assertBall, segmentationState, segmentOnVolume, volumeDistances
from SAMUSegmentLib.options import FieldOfView

from samu_core.candidates import AS_FOUND, LARGER, SMALLER, nested_thresholds

A, B = (14, 14), (24, 28)
PATIENCE_S = 30


class Site:
    """An effect in an editor, and a mouse."""

    def __init__(self, mrml, monkeypatch):
        self.mrml = mrml
        self.volume = mrml.volume()
        self.segmentation = mrml.segmentation(self.volume)
        self.editor = FakeEditor(mrml, self.segmentation, self.volume)
        self.fakes = gui_fakes.install(monkeypatch, mrml, self.editor)
        from SAMUSegmentLib import runtime
        from SAMUSegmentLib.SegmentEditorEffect import SegmentEditorEffect

        runtime.close()
        self.runtime, self.predictor = runtime, StandInPredictor(radius=8.0)
        runtime.use(self.predictor)
        self.effect = SegmentEditorEffect(self.editor)
        self.effect.setMRMLDefaults()
        self.effect.setupOptionsFrame()
        self.effect.activate()
        self.ready(True)

    def ready(self, found):
        packages = types.SimpleNamespace(
            torchFound=lambda: found, torchVersion=lambda: "", extensionFound=lambda: found
        )
        self.effect.session._dependencies._packages = packages

    def event(self, eventId, position=A, view="qMRMLSliceWidget", **keys):
        return self.effect.processInteractionEvents(
            FakeInteractor(position, **keys), eventId, FakeWidget(view)
        )

    def press(self, position=A, **keys):
        """A whole click and its end."""
        aborted = self.event(EVENTS.LeftButtonPressEvent, position, **keys)
        self.event(EVENTS.LeftButtonReleaseEvent, position, **keys)
        self.finish()
        return aborted

    def finish(self):
        deadline = time.monotonic() + PATIENCE_S
        while self.effect.session.controller.busy:
            assert time.monotonic() < deadline
            for timer in self.fakes.timers:
                timer.fire()
            time.sleep(0.001)
        for timer in self.fakes.timers:
            timer.fire()

    @property
    def selected(self):
        return self.editor.node.GetSelectedSegmentID()

    @property
    def state(self):
        return segmentationState(self.segmentation)

    @property
    def status(self):
        return self.effect.statusLabel.text

    def voxels(self, segmentID=None):
        return segmentOnVolume(self.segmentation, segmentID or self.selected, self.volume)

    def assertBalls(self, *positions, threshold=0.5):
        distance = np.minimum.reduce([volumeDistances(self.volume, (*at, 18.0)) for at in positions])
        assertBall(self.voxels(), distance, self.predictor.radiusAt(threshold))

    def close(self):
        self.effect.cleanup()
        self.runtime.close()


@pytest.fixture
def site(mrml, monkeypatch):
    site = Site(mrml, monkeypatch)
    yield site
    site.close()


def test_a_left_click_adds_and_the_editors_undo_takes_it_back(site):
    """Complaint about the peers: no undo."""
    segmentID = site.segmentation.GetSegmentation().AddEmptySegment("", "liver")
    site.editor.node.SetSelectedSegmentID(segmentID)
    before = site.state
    assert site.press(A)
    site.assertBalls(A)
    assert site.selected == segmentID and "liver" in site.status
    site.press(B)
    site.assertBalls(A, B)
    site.editor.logic.Undo()
    site.assertBalls(A)
    site.editor.logic.Undo()
    assert site.state == before and not site.editor.logic.CanUndo(), "one step per click"


def test_without_a_segment_the_click_makes_one_and_selects_it(site):
    assert site.press(A)
    assert site.segmentation.GetSegmentation().GetNumberOfSegments() == 1
    site.assertBalls(A)
    site.press(B)
    site.assertBalls(A, B)
    assert site.segmentation.GetSegmentation().GetNumberOfSegments() == 1


def test_ctrl_click_subtracts(site):
    site.press(A)
    before = site.voxels()
    assert site.press((A[0] + 6, A[1]), control=True)
    after = site.voxels()
    near = volumeDistances(site.volume, (A[0] + 6, A[1], 18.0))
    assert not after[near < 7.8].any() and np.array_equal(after[near > 8.2], before[near > 8.2])


def test_ctrl_click_without_a_segment_says_what_to_do(site):
    before = site.state
    assert site.press(A, control=True)
    assert "Select the segment" in site.status and site.state == before


def test_a_double_click_is_one_click_and_nobody_else_sees_it(site):
    assert site.event(EVENTS.LeftButtonPressEvent)
    assert site.event(EVENTS.LeftButtonReleaseEvent)
    assert site.event(EVENTS.LeftButtonDoubleClickEvent), "or Slicer maximises the view"
    assert site.event(EVENTS.LeftButtonReleaseEvent)
    site.finish()
    assert site.predictor.calls == 1
    site.assertBalls(A)


def test_right_clicks_open_no_menu_and_do_nothing(site):
    before = site.state
    for eventId in (EVENTS.RightButtonPressEvent, EVENTS.RightButtonReleaseEvent):
        assert site.event(eventId)
    site.finish()
    assert site.predictor.calls == 0 and site.state == before


def test_other_mouse_events_belong_to_slicer(site):
    assert not site.event(EVENTS.MouseMoveEvent)
    assert not site.event(EVENTS.MouseWheelForwardEvent)
    assert not site.event(EVENTS.MiddleButtonPressEvent)
    assert not site.event(EVENTS.LeftButtonReleaseEvent), "a drag that began elsewhere"
    for keys in ({"shift": True}, {"alt": True}):
        assert not site.event(EVENTS.LeftButtonPressEvent, **keys)
        assert not site.event(EVENTS.LeftButtonReleaseEvent, **keys)
    for eventId in (EVENTS.LeftButtonPressEvent, EVENTS.RightButtonPressEvent):
        assert not site.event(eventId, view="qMRMLThreeDWidget")
    site.finish()
    assert site.predictor.calls == 0


def test_a_hidden_segment_is_asked_about(site):
    site.press(A)
    site.editor.confirmed = site.editor.NotConfirmed
    before = site.state
    assert site.event(EVENTS.LeftButtonPressEvent, B), "aborted even so"
    assert not site.event(EVENTS.LeftButtonReleaseEvent, B), "the dialog had the release"
    site.finish()
    assert site.state == before
    site.editor.confirmed = site.editor.ConfirmedWithDialog
    site.press(B)
    site.assertBalls(A, B)


def test_masking_of_the_editor_is_honoured(site):
    """Complaint about the peers: neighbouring segments erased and masks ignored."""
    wall = np.zeros((36, 44, 40), bool)
    wall[:, :, 16:] = True
    neighbour = site.mrml.addSegment(site.segmentation, wall, "neighbour")
    segmentID = site.segmentation.GetSegmentation().AddEmptySegment("", "mine")
    site.editor.node.SetSelectedSegmentID(segmentID)
    site.editor.node.SetMaskMode(0)
    from slicer import vtkMRMLSegmentationNode

    site.editor.node.SetMaskMode(vtkMRMLSegmentationNode.EditAllowedOutsideAllSegments)
    site.press(A)
    assert np.array_equal(site.voxels(neighbour), wall)
    assert site.voxels().any() and not (site.voxels() & wall).any()


def test_the_threshold_slider_acts_on_the_last_click(site):
    site.press(A)
    for threshold in (0.3, 0.7, 0.3):
        site.effect.thresholdSlider.value = threshold
        site.finish()
        site.assertBalls(A, threshold=threshold)
    assert site.predictor.calls == 1 and site.editor.parameters["Threshold"] == "0.3"
    site.editor.logic.Undo()
    assert site.segmentation.GetSegmentation().GetNumberOfSegments() == 0
    assert not site.editor.logic.CanUndo()


def test_the_button_for_another_mask_has_a_key_and_acts_on_the_last_click(site):
    site.predictor.slope = 2.0
    button = site.effect.otherMaskButton
    assert button.shortcut == "N" and not button.visible
    site.press(A)
    for name in (LARGER, SMALLER, AS_FOUND):
        button.click()
        site.assertBalls(A, threshold=nested_thresholds()[name])
        assert name in site.effect.statusLabel.text
    assert site.predictor.calls == 1 and site.effect.thresholdSlider.value == 0.5
    button.click()
    site.editor.logic.Undo()
    assert site.segmentation.GetSegmentation().GetNumberOfSegments() == 0


def test_after_ctrl_z_the_slider_leaves_the_segment_alone(site):
    site.press(A)
    site.press(B)
    site.editor.logic.Undo()
    after = site.state
    site.effect.thresholdSlider.value = 0.3
    site.finish()
    assert site.state == after and "next click" in site.status


def test_a_cut_structure_gets_a_button_for_a_wider_view(site):
    site.predictor.size = 8
    site.press(A)
    assert site.effect.widerButton.visible and "288 mm" in site.effect.widerButton.text
    assert "field of view" in site.status
    site.effect.widerButton.click()
    site.finish()
    assert site.predictor.calls == 2
    assert site.effect.session.controller.result.prediction.grid.spacing == 2.25


def test_options_are_kept_in_the_editors_node(site):
    site.effect.fieldOfViewBox.currentIndex = 2
    site.effect.componentBox.checked = False
    assert site.editor.parameters["FieldOfView"] == FieldOfView.WIDE_2.value
    assert site.editor.parameters["ClickedComponent"] == "0"
    site.press(A)
    assert site.effect.session.controller.result.prediction.grid.spacing == 3.0
    site.editor.parameters.update(Threshold="0.7", FieldOfView="of an old version", ClickedComponent="1")
    site.effect.updateGUIFromMRML()
    assert site.effect.thresholdSlider.value == 0.7 and site.effect.fieldOfViewBox.currentIndex == 0
    assert site.effect.componentBox.checked


def slowly(site):
    from click_support import Gate

    gate = Gate(site.predictor)
    assert site.event(EVENTS.LeftButtonPressEvent, A)
    gate.waitUntilEntered()
    assert site.effect.cancelButton.visible
    return gate


def test_cancel(site):
    gate, before = slowly(site), site.state
    site.effect.cancelButton.click()
    gate.open.set()
    site.finish()
    assert site.state == before and not site.effect.cancelButton.visible


def test_leaving_the_effect_drops_what_is_under_way_and_it_can_be_selected_again(site):
    gate, before = slowly(site), site.state
    site.effect.deactivate()
    gate.open.set()
    assert not any(timer.running for timer in site.fakes.timers)
    site.effect.activate()
    site.finish()
    assert site.state == before
    site.press(B)
    site.assertBalls(B)


@pytest.mark.parametrize("what", ["segmentation", "volume"])
def test_a_result_does_not_land_after_a_switch(site, what):
    gate, before = slowly(site), site.state
    if what == "segmentation":
        other = site.mrml.segmentation(site.volume, name="Other")
        site.editor.node.SetAndObserveSegmentationNode(other)
        site.effect.updateGUIFromMRML()
    else:
        other = site.mrml.volume(name="Other")
        site.editor.node.SetAndObserveSourceVolumeNode(other)
        site.effect.sourceVolumeNodeChanged()
    gate.open.set()
    site.finish()
    assert site.state == before
    site.segmentation = site.editor.node.GetSegmentationNode()
    site.press(B)
    site.assertBalls(B)


def test_a_switch_that_nobody_announced_is_noticed_when_the_result_comes(site):
    gate, before = slowly(site), site.state
    other = site.mrml.segmentation(site.volume, name="Other")
    site.editor.node.SetAndObserveSegmentationNode(other)
    gate.open.set()
    site.finish()
    assert site.state == before and other.GetSegmentation().GetNumberOfSegments() == 0
    assert site.editor.node.GetSegmentationNode() is other and "dropped" in site.status


def test_without_torch_the_click_says_where_to_get_it(site):
    site.ready(False)
    assert site.press(A)
    assert "PyTorch" in site.status and site.predictor.calls == 0


def test_without_segmentation_or_volume(site):
    site.editor.node.SetAndObserveSegmentationNode(None)
    site.press(A)
    assert "segmentation" in site.status
    site.editor.node.SetAndObserveSegmentationNode(site.segmentation)
    site.editor.node.SetAndObserveSourceVolumeNode(None)
    site.press(A)
    assert "scalar volume" in site.status


def test_calls_before_activation_are_harmless(site):
    effect = type(site.effect)(site.editor)
    effect.sourceVolumeNodeChanged()
    effect.updateGUIFromMRML()
    assert not effect.processInteractionEvents(
        FakeInteractor(), EVENTS.LeftButtonPressEvent, FakeWidget("qMRMLSliceWidget")
    )
    effect.deactivate()
    effect.cleanup()


def test_a_fault_stops_the_pump_and_is_told(site, monkeypatch):
    def fail():
        raise RuntimeError("x")

    monkeypatch.setattr(site.effect.session.controller, "tick", fail)
    site.effect._pump._tick = fail
    for timer in site.fakes.timers:
        timer.fire()
    assert "log" in site.status and not any(timer.running for timer in site.fakes.timers)


def test_name_and_kind(site):
    assert site.editor.name == "SAMUSegment"
    assert not site.editor.perSegment and not site.editor.requireSegments
    assert "<b>Left-click</b>" in site.effect.helpText() and site.effect.icon()


def test_registration_exposes_the_class_once_and_keeps_the_package(site, monkeypatch):
    """slicer-facts: setPythonSource would otherwise put the file in the place of the package."""
    import SAMUSegmentLib

    made = gui_fakes.installEffectFactory(monkeypatch)
    from SAMUSegmentLib.registration import registerEffect

    registerEffect()
    registerEffect()
    assert len(made) == 1 and made[0].registered
    assert isinstance(SAMUSegmentLib.SegmentEditorEffect, type)
    assert SAMUSegmentLib.__path__, "still a package"
    clone = site.effect.clone()
    assert isinstance(clone.self(), SAMUSegmentLib.SegmentEditorEffect)
