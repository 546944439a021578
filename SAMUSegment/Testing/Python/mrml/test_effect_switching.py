"""The effect after the user went on elsewhere: its last result is left alone, and so is the selection."""

from __future__ import annotations

import pytest
from SAMUSegmentLib.options import FieldOfView
from test_effect import A, B, Site


@pytest.fixture
def site(mrml, monkeypatch):
    site = Site(mrml, monkeypatch)
    yield site
    site.close()


def switch(site, what):
    """Select another segmentation, volume or segment, as the user does; returns what asks for it."""
    node = site.editor.node
    if what == "segmentation":
        other = site.mrml.segmentation(site.volume, name="Other")
        node.SetAndObserveSegmentationNode(other)
        selected = node.GetSegmentationNode
    elif what == "volume":
        other = site.mrml.volume(name="Other")
        node.SetAndObserveSourceVolumeNode(other)
        site.effect.sourceVolumeNodeChanged()
        selected = node.GetSourceVolumeNode
    else:
        other = site.segmentation.GetSegmentation().AddEmptySegment("", "Other")
        node.SetSelectedSegmentID(other)
        selected = node.GetSelectedSegmentID
    site.effect.updateGUIFromMRML()
    return lambda: selected() == other


@pytest.mark.parametrize("what", ["segmentation", "volume", "segment"])
def test_the_threshold_is_for_the_next_click_after_a_switch(site, what):
    site.press(A)
    stays = switch(site, what)
    before = site.state
    site.effect.thresholdSlider.value = 0.3
    site.finish()
    assert stays() and site.state == before
    assert "next click" in site.status
    site.press(B)
    assert stays() and site.predictor.calls == 2
    assert site.effect.session.controller.result.threshold == 0.3


@pytest.mark.parametrize("what", ["segmentation", "volume", "segment"])
def test_no_wider_view_of_a_result_that_was_left(site, what):
    site.predictor.size, site.predictor.radius = 10, 11.0
    site.press(A)
    assert site.effect.widerButton.visible
    switch(site, what)
    assert not site.effect.widerButton.visible


def emptySegment(site, neighbour):
    """Let a threshold empty the clicked segment, and the editor select a neighbour, as Slicer's does."""
    segmentation, node = site.segmentation.GetSegmentation(), site.editor.node
    tag = segmentation.AddObserver(
        segmentation.SegmentRemoved, lambda *_: node.SetSelectedSegmentID(neighbour)
    )
    site.effect.thresholdSlider.value = 0.98
    site.finish()
    segmentation.RemoveObserver(tag)


def test_the_slider_goes_on_after_it_emptied_a_segment_and_the_editor_selected_another(site):
    segmentation = site.segmentation.GetSegmentation()
    neighbour = segmentation.AddEmptySegment("", "Neighbour")
    site.predictor.radius = 4.0
    site.press(A)
    mine, before = site.selected, site.state
    emptySegment(site, neighbour)
    assert segmentation.GetSegment(mine) is None and site.selected == neighbour
    site.effect.thresholdSlider.value = 0.5
    site.finish()
    assert site.state == before and site.selected == mine


def test_a_click_after_an_emptied_segment_does_not_go_to_the_neighbour_that_the_editor_selected(site):
    """The user asked for a new segment; the neighbour was nobody's choice."""
    segmentation = site.segmentation.GetSegmentation()
    neighbour = segmentation.AddEmptySegment("", "Neighbour")
    site.predictor.radius = 4.0
    site.press(A)
    emptySegment(site, neighbour)
    assert site.selected == neighbour
    site.effect.thresholdSlider.value = 0.5
    site.effect.session.controller._reapply = False  # the click comes before the slider acts
    site.press(B)
    assert not site.voxels(neighbour).any() and site.selected != neighbour
    site.assertBalls(B)


def test_a_segment_that_the_user_selects_after_an_emptied_one_gets_the_click(site):
    segmentation = site.segmentation.GetSegmentation()
    neighbour = segmentation.AddEmptySegment("", "Neighbour")
    chosen = segmentation.AddEmptySegment("", "Chosen")
    site.predictor.radius = 4.0
    site.press(A)
    emptySegment(site, neighbour)
    site.editor.node.SetSelectedSegmentID(chosen)
    site.effect.thresholdSlider.value = 0.5
    site.finish()
    site.press(B)
    assert site.selected == chosen
    site.assertBalls(B)


def test_writing_one_option_does_not_lose_another(site, monkeypatch):
    """In Slicer a parameter that is set modifies the editor's node, which updates the effect's widgets."""
    write = site.editor.setParameter

    def setParameter(name, value):
        changed = site.editor.parameter(name) != str(value)
        write(name, value)
        if changed:
            site.effect.updateGUIFromMRML()

    monkeypatch.setattr(site.editor, "setParameter", setParameter)
    site.editor.parameters["Threshold"] = "0.4999999999"
    site.effect.componentBox.checked = False
    assert site.editor.integerParameter("ClickedComponent") == 0 and not site.effect.componentBox.checked
    site.effect.fieldOfViewBox.currentIndex = 2
    assert site.effect.session.controller.options.fieldOfView is list(FieldOfView)[2]


def test_the_effect_stays_while_a_threshold_makes_its_new_segment_anew(site):
    """qMRMLSegmentEditorWidget deselects effects "per segment" when the last segment goes."""
    segmentation, node = site.segmentation.GetSegmentation(), site.editor.node

    def onRemoved(*_):
        node.SetSelectedSegmentID(None)
        if site.editor.perSegment:
            site.effect.deactivate()

    tag = segmentation.AddObserver(segmentation.SegmentRemoved, onRemoved)
    site.press(A)
    for threshold in (0.3, 0.6):
        site.effect.thresholdSlider.value = threshold
        site.finish()
        site.assertBalls(A, threshold=threshold)
    assert site.editor.logic.CanUndo()
    site.editor.logic.Undo()
    segmentation.RemoveObserver(tag)
    assert segmentation.GetNumberOfSegments() == 0
    site.press(B)
    site.assertBalls(B, threshold=0.6)
