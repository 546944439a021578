"""The panel beside the rest of Slicer: other lists of points, other selections, a reload."""

from __future__ import annotations

import enum
import typing

import numpy as np
import panel_fakes
import pytest
from mrml_scene import segmentationState
from slicer import vtkMRMLNode
from test_panel import A, B, Panel

PLACE_MODE = "activeMarkupsPlaceModeChanged(bool)"


@pytest.fixture
def panel(mrml, monkeypatch):
    panel = Panel(mrml, monkeypatch)
    yield panel
    panel.close()


def test_placing_points_of_another_list_is_not_ended(panel):
    panel.place(A)
    # As the real widget does when another list becomes the active one; the mode stays "place".
    panel.ui.placeWidget.emit(PLACE_MODE, False)
    assert not panel.ui.placeButton.checked and panel.ui.placeWidget.placeModeEnabled
    panel.widget.exit()
    assert panel.ui.placeWidget.placeModeEnabled


def test_place_mode_that_begins_elsewhere_presses_the_button_and_its_points_are_clicks(panel):
    panel.place(A)
    panel.ui.placeButton.checked = False
    panel.ui.placeWidget.setPlaceModeEnabled(True)
    assert panel.ui.placeButton.checked
    panel.parameters.clicks.AddControlPointWorld(*B)
    panel.finish()
    panel.assertBalls(A, B)


def test_a_closed_scene_releases_the_button(panel):
    panel.place(A)
    panel.mrml.scene.Clear(False)
    assert not panel.ui.placeButton.checked and not panel.ui.placeWidget.placeModeEnabled
    panel.volume = panel.mrml.volume()
    panel.widget.enter()
    panel.place(B)
    panel.assertBalls(B)


def test_a_panel_that_was_reloaded_hears_nothing_any_more(panel):
    """slicer.util.reloadScriptedModule hides the old panel's widgets but keeps them and their connections."""
    panel.place(A)
    ui = panel.ui
    panel.widget.cleanup()
    assert ui.segmentsTable.segmentationNode() is None and not ui.placeButton.checked
    ui.placeWidget.emit(PLACE_MODE, True)
    ui.segmentsTable.emit("selectionChanged(QItemSelection,QItemSelection)", None, None)
    assert panel.widget.session is None


def test_the_volume_that_is_chosen_is_an_image(mrml, monkeypatch):
    mrml.volume(className="vtkMRMLLabelMapVolumeNode", name="labels")
    mrml.volume(np.zeros((4, 5, 6, 3), np.uint8), className="vtkMRMLVectorVolumeNode", name="RGB")
    panel = Panel(mrml, monkeypatch)
    assert panel.parameters.inputVolume is panel.volume
    panel.close()


def test_the_box_of_the_field_of_view_does_not_cover_the_click(panel):
    panel.parameters.showPatch = True
    for point in (A, B):
        panel.place(point)
        box = panel.widget.session.outline.node
        assert box.GetDisplayVisibility() and box.GetNumberOfControlPoints() == 1
        assert not box.GetNthControlPointVisibility(0)


@pytest.mark.parametrize("what", ["segment", "segmentation", "volume"])
def test_the_threshold_is_for_the_next_click_after_another_selection(panel, what):
    panel.place(A)
    first, before = panel.segmentation, segmentationState(panel.segmentation)
    if what == "segment":
        other = panel.segmentation.GetSegmentation().AddEmptySegment("", "Other")
        before = segmentationState(first)
        panel.ui.segmentsTable.setSelectedSegmentIDs([other])
    elif what == "segmentation":
        panel.parameters.segmentation = other = panel.mrml.segmentation(panel.volume, name="Other")
    else:
        panel.parameters.inputVolume = other = panel.mrml.volume(name="MR")
    panel.parameters.threshold = 0.3
    panel.finish()
    assert segmentationState(first) == before and "next click" in panel.ui.statusLabel.text
    chosen = {
        "segment": panel.parameters.segmentID,
        "segmentation": panel.parameters.segmentation,
        "volume": panel.parameters.inputVolume,
    }
    assert chosen[what] == other


# Which widget slicer.parameterNodeWrapper's connectGui takes for which type; it raises for any other pair.
CONNECTORS = {
    "ctkSliderWidget": float,
    "QCheckBox": bool,
    "QComboBox": enum.Enum,
    "qMRMLNodeComboBox": vtkMRMLNode,
}


def test_widgets_of_parameters_are_of_a_class_that_can_be_connected(panel):
    from SAMUSegmentLib.parameters import SAMUSegmentParameterNode

    kinds = SAMUSegmentParameterNode.allParameters
    for widgetClass, parameter in panel_fakes.uiWidgets().values():
        if not parameter:
            continue
        kind, notes = kinds[parameter], ()
        if typing.get_origin(kind) is typing.Annotated:
            kind, *notes = typing.get_args(kind)
        assert issubclass(kind, CONNECTORS[widgetClass]), parameter
        if kind is float:
            assert [note for note in notes if hasattr(note, "minimum")], "a slider needs a range"
        if widgetClass == "QComboBox":
            assert len({choice.label() for choice in kind}) == len(kind)


def test_widgets_that_need_the_scene_are_connected_to_it():
    root = panel_fakes.ElementTree.parse(panel_fakes.UI_FILE).getroot()
    panel = root.find("widget")
    assert panel.get("class") == "qMRMLWidget"
    connected = {
        entry.findtext("receiver")
        for entry in root.iter("connection")
        if entry.findtext("sender") == panel.get("name")
        and entry.findtext("signal") == "mrmlSceneChanged(vtkMRMLScene*)"
        and entry.findtext("slot") == "setMRMLScene(vtkMRMLScene*)"
    }
    # qMRMLSegmentationShow3DButton takes its node only.
    classes = ("qMRMLNodeComboBox", "qMRMLSegmentsTableView", "qSlicerMarkupsPlaceWidget")
    need = {name for name, (kind, _) in panel_fakes.uiWidgets().items() if kind in classes}
    assert connected == need and len(need) == 4
    described = {entry.findtext("class") for entry in root.iter("customwidget")}
    used = {kind for kind, _ in panel_fakes.uiWidgets().values() if not kind.startswith("Q")}
    assert used <= described
