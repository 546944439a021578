"""The module's panel: SAMUSegment.py on a real scene, widgets faked; the .ui file against the code."""

from __future__ import annotations

import ast
import importlib
import sys
import time
import types

import numpy as np
import panel_fakes
import pytest
from click_support import PATIENCE_S, Gate
from gui_fakes import MODULE_FOLDER, PROPERTIES
from mrml_scene import StandInPredictor, assertBall, segmentationState, segmentOnVolume, volumeDistances
from SAMUSegmentLib.options import ClickMode, FieldOfView

from samu_core.candidates import LARGER, nested_thresholds

A, B, C = (14.0, 14.0, 14.0), (20.0, 20.0, 16.0), (26.0, 30.0, 22.0)


class Panel:
    """The module as the user has it."""

    def __init__(self, mrml, monkeypatch, torch=True):
        self.mrml, self.volume = mrml, mrml.volume()
        self.fakes = panel_fakes.install(monkeypatch, mrml)
        self.module = importlib.import_module("SAMUSegment")
        self.registered = []
        monkeypatch.setattr(self.module, "registerEffect", lambda: self.registered.append(1))
        from SAMUSegmentLib import runtime
        from SAMUSegmentLib.dependencies import SlicerPackages

        monkeypatch.setattr(SlicerPackages, "torchFound", lambda _self: torch)
        monkeypatch.setattr(SlicerPackages, "extensionFound", lambda _self: True)
        runtime.close()
        self.runtime, self.predictor = runtime, StandInPredictor(radius=8.0)
        self.predictor.warm_up = lambda: 0.0
        runtime.use(self.predictor)
        parent = types.SimpleNamespace(layout=panel_fakes.Layout(), isEntered=True)
        self.widget = self.module.SAMUSegmentWidget(parent)
        self.widget.setup()
        self.widget.enter()

    @property
    def ui(self):
        return self.fakes.ui

    @property
    def parameters(self):
        return self.widget._parameterNode

    @property
    def segmentation(self):
        return self.parameters.segmentation

    def tick(self):
        for timer in list(self.fakes.timers):
            timer.fire()

    def finish(self):
        self.tick()
        deadline = time.monotonic() + PATIENCE_S
        while self.widget.session.controller.busy:
            assert time.monotonic() < deadline
            self.tick()
            time.sleep(0.001)
        self.tick()

    def place(self, point):
        if not self.ui.placeButton.checked:
            self.ui.placeButton.checked = True
        self.parameters.clicks.AddControlPointWorld(*point)
        self.finish()

    def voxels(self, segmentID=None):
        return segmentOnVolume(self.segmentation, segmentID or self.parameters.segmentID, self.volume)

    def assertBalls(self, *points, threshold=0.5, segmentID=None):
        distance = np.minimum.reduce([volumeDistances(self.volume, point) for point in points])
        assertBall(self.voxels(segmentID), distance, self.predictor.radiusAt(threshold))

    def close(self):
        self.widget.cleanup()
        self.runtime.close()


@pytest.fixture
def panel(mrml, monkeypatch):
    panel = Panel(mrml, monkeypatch)
    yield panel
    panel.close()


def test_the_first_click_makes_a_segmentation_and_the_next_one_goes_on(panel):
    assert panel.parameters.inputVolume is panel.volume and panel.segmentation is None
    panel.place(A)
    assert panel.ui.placeButton.checked and panel.ui.placeWidget.placeModeEnabled
    assert panel.segmentation is not None and panel.ui.segmentsTable.segmentationNode() is panel.segmentation
    assert panel.ui.segmentsTable.selectedSegmentIDs() == (panel.parameters.segmentID,)
    assert panel.ui.show3DButton.segmentationNode() is panel.segmentation
    panel.place(B)
    panel.assertBalls(A, B)
    assert panel.segmentation.GetSegmentation().GetNumberOfSegments() == 1
    assert "voxels" in panel.ui.statusLabel.text and panel.ui.latencyLabel.text.endswith(" s")
    assert panel.ui.deviceLabel.text == "CPU, float32"


def test_mode_of_each_click(panel):
    panel.place(A)
    first = panel.parameters.segmentID
    panel.parameters.mode = ClickMode.NEW
    panel.place(C)
    second = panel.parameters.segmentID
    assert second != first
    panel.assertBalls(C, segmentID=second)
    panel.ui.segmentsTable.setSelectedSegmentIDs([first])
    assert panel.parameters.segmentID == first
    panel.parameters.mode = ClickMode.SUBTRACT
    panel.place(B)
    near = volumeDistances(panel.volume, B) < 7.8
    assert not (panel.voxels(first) & near).any() and panel.voxels(first).any()


def test_undo_redo_and_their_buttons(panel):
    assert not panel.ui.undoButton.enabled and not panel.ui.redoButton.enabled
    panel.place(A)
    after = segmentationState(panel.segmentation)
    panel.ui.undoButton.click()
    panel.finish()
    assert panel.segmentation.GetSegmentation().GetNumberOfSegments() == 0
    assert panel.parameters.clicks.GetNumberOfControlPoints() == 0 and panel.ui.redoButton.enabled
    panel.ui.redoButton.click()
    panel.finish()
    assert segmentationState(panel.segmentation) == after
    assert panel.parameters.clicks.GetNumberOfControlPoints() == 1 and panel.predictor.calls == 1


def test_threshold_and_component_act_at_once(panel):
    panel.place(A)
    panel.parameters.threshold = 0.3
    panel.tick()
    panel.assertBalls(A, threshold=0.3)
    panel.parameters.clickedComponent = False
    panel.tick()
    assert panel.predictor.calls == 1


def test_the_button_for_another_mask_acts_on_the_last_click(panel):
    panel.predictor.slope = 2.0
    assert not panel.ui.otherMaskButton.visible
    panel.place(A)
    panel.ui.otherMaskButton.click()
    panel.assertBalls(A, threshold=nested_thresholds()[LARGER])
    assert panel.predictor.calls == 1 and panel.parameters.threshold == 0.5
    panel.ui.undoButton.click()
    panel.finish()
    assert not panel.ui.otherMaskButton.visible


def test_field_of_view_and_its_outline(panel):
    outline = panel.widget.session.outline
    panel.parameters.fieldOfView = FieldOfView.WIDE_2
    panel.place(A)
    assert outline.node is None, "not before it is asked for"
    panel.parameters.showPatch = True
    assert outline.node.GetDisplayVisibility() and not outline.node.GetSaveWithScene()
    assert outline.node.GetSize() == (144.0,) * 3 and outline.node.GetCenterWorld() == pytest.approx(A)
    panel.place(B)
    assert outline.node.GetCenterWorld() == pytest.approx(B)
    panel.parameters.showPatch = False
    assert not outline.node.GetDisplayVisibility()


def test_a_cut_structure_gets_a_notice_and_a_button(panel):
    panel.place(C)
    assert not panel.ui.borderLabel.visible and not panel.ui.widerButton.visible
    panel.predictor.size, panel.predictor.radius = 10, 11.0
    panel.place(B)
    assert panel.ui.borderLabel.visible and "may be cut" in panel.ui.borderLabel.text
    panel.ui.widerButton.click()
    panel.finish()
    panel.ui.widerButton.click()
    panel.finish()
    assert not panel.ui.borderLabel.visible and not panel.ui.widerButton.visible
    assert panel.parameters.clicks.GetNumberOfControlPoints() == 2


def test_progress_and_cancel(panel):
    panel.ui.placeButton.checked = True
    gate = Gate(panel.predictor)
    panel.parameters.clicks.AddControlPointWorld(*A)
    panel.tick()
    gate.waitUntilEntered()
    panel.tick()
    assert panel.ui.progressBar.visible and panel.ui.cancelButton.visible
    panel.ui.cancelButton.click()
    gate.open.set()
    panel.finish()
    assert not panel.ui.progressBar.visible and not panel.ui.cancelButton.visible
    assert panel.segmentation is None and panel.parameters.clicks.GetNumberOfControlPoints() == 0


def test_a_scene_closed_during_the_inference(panel):
    panel.ui.placeButton.checked = True
    gate, scene = Gate(panel.predictor), panel.mrml.scene
    panel.parameters.clicks.AddControlPointWorld(*A)
    panel.tick()
    gate.waitUntilEntered()
    # As Close Scene does: singletons such as the selection node stay.
    scene.Clear(False)
    gate.open.set()
    panel.finish()
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    assert panel.parameters is not None and panel.parameters.inputVolume is None
    panel.volume = panel.mrml.volume()
    panel.widget.enter()
    assert panel.ui.placeButton.enabled
    panel.ui.placeButton.checked = False
    panel.place(B)
    panel.assertBalls(B)


def test_a_scene_that_is_loaded_goes_on_where_it_was(panel, tmp_path):
    """Complaint about the peers: cannot continue a saved segmentation."""
    panel.place(A)
    panel.place(B)
    clicks, path = panel.parameters.clicks, tmp_path / "clicks.mrk.json"
    clicks.AddDefaultStorageNode()
    storage = clicks.GetStorageNode()
    storage.SetFileName(str(path))
    assert storage.WriteData(clicks)
    after, calls = segmentationState(panel.segmentation), panel.predictor.calls
    scene = panel.mrml.scene
    scene.StartState(scene.ImportState)
    loaded = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    panel.parameters.clicks = loaded
    loaded.AddDefaultStorageNode()
    loaded.GetStorageNode().SetFileName(str(path))
    assert loaded.GetStorageNode().ReadData(loaded) and loaded.GetNumberOfControlPoints() == 2
    scene.EndState(scene.ImportState)
    panel.finish()
    assert panel.predictor.calls == calls and segmentationState(panel.segmentation) == after
    loaded.SetNthControlPointPositionWorld(1, *C)
    panel.finish()
    panel.assertBalls(A, B, C)
    panel.place((30.0, 12.0, 14.0))
    panel.assertBalls(A, B, C, (30.0, 12.0, 14.0))


def test_place_mode_that_ends_elsewhere_releases_the_button(panel):
    panel.place(A)
    panel.ui.placeWidget.setPlaceModeEnabled(False)
    assert not panel.ui.placeButton.checked
    panel.ui.placeButton.checked = True
    panel.widget.exit()
    assert not panel.ui.placeWidget.placeModeEnabled and not panel.ui.placeButton.checked


def test_a_volume_that_cannot_be_used_is_refused_with_a_word(panel):
    rgb = np.zeros((4, 5, 6, 3), np.uint8)
    panel.parameters.inputVolume = panel.mrml.volume(rgb, className="vtkMRMLVectorVolumeNode")
    panel.ui.placeButton.checked = True
    assert not panel.ui.placeButton.checked and "Vector to Scalar Volume" in panel.ui.statusLabel.text
    assert panel.parameters.clicks is None


def test_without_torch_the_panel_says_so_and_has_one_button(mrml, monkeypatch):
    """Complaint about the peers: server and install pain."""
    panel = Panel(mrml, monkeypatch, torch=False)
    assert panel.ui.dependencyLabel.visible and "PyTorch" in panel.ui.dependencyLabel.text
    assert panel.ui.dependencyButton.visible and not panel.ui.placeButton.enabled
    from SAMUSegmentLib.dependencies import SlicerPackages

    def install(_self):
        monkeypatch.setattr(SlicerPackages, "torchFound", lambda _self: True)

    monkeypatch.setattr(SlicerPackages, "installTorch", install)
    panel.ui.dependencyButton.click()
    assert not panel.ui.dependencyLabel.visible and not panel.ui.dependencyButton.visible
    panel.place(A)
    panel.assertBalls(A)
    panel.close()


def test_a_fault_stops_the_pump_and_entering_the_module_starts_it_again(panel, monkeypatch):
    def fail():
        raise RuntimeError("x")

    with monkeypatch.context() as patch:
        patch.setattr(panel.widget.pump, "_tick", fail)
        panel.tick()
    assert "log" in panel.ui.statusLabel.text and not any(timer.running for timer in panel.fakes.timers)
    panel.widget.enter()
    panel.place(A)
    panel.assertBalls(A)


def test_cleanup_leaves_nothing_behind(panel):
    panel.place(A)
    parameters, clicks = panel.parameters, panel.parameters.clicks
    panel.widget.cleanup()
    assert parameters.connected is None and not parameters._observers
    assert not any(timer.running or timer.slots for timer in panel.fakes.timers)
    calls = panel.predictor.calls
    clicks.AddControlPointWorld(*B)
    panel.tick()
    assert panel.predictor.calls == calls


def test_reload_forgets_the_packages(panel, monkeypatch):
    before = dict(sys.modules)
    try:
        panel.widget.onReload()
        left = {name.split(".")[0] for name in sys.modules}
        assert panel.widget.reloaded and not left & {"SAMUSegmentLib", "samu_core"}
    finally:
        sys.modules.update(before)


def test_description_of_the_module(panel):
    parent = types.SimpleNamespace()
    panel.module.SAMUSegment(parent)
    assert "one-click 3D segmentation" in parent.title and parent.categories == ["Segmentation"]
    assert "medical device" in parent.helpText
    waiting = panel.fakes.signals["startupCompleted()"]
    assert waiting == [panel.module.registerEffect, panel.module.registerSampleData]


def test_sample_data_come_with_their_checksums(panel, monkeypatch):
    offered = []
    logic = types.SimpleNamespace(registerCustomSampleDataSource=lambda **source: offered.append(source))
    monkeypatch.setitem(sys.modules, "SampleData", types.SimpleNamespace(SampleDataLogic=logic))
    panel.module.registerSampleData()
    assert len(offered) == 2 and len({source["sampleName"] for source in offered}) == 2
    for source in offered:
        kind, checksum = source["checksums"].split(":")
        assert kind == "SHA256" and len(bytes.fromhex(checksum)) == 32
        assert source["uris"].endswith("/SHA256/" + checksum) and source["fileNames"].endswith(".nrrd")


def test_the_self_test_and_the_entry_for_scripts(panel):
    """Complaint about the peers: no batch, no API."""
    test = panel.module.SAMUSegmentTest()
    test.runTest()
    assert "passed" in test.said
    result = panel.module.SAMUSegmentLogic(panel.predictor).segmentFromPoint(
        panel.mrml.volume(name="MR"), A, segmentName="lesion", threshold=0.3
    )
    assert result.applied and result.threshold == 0.3


def test_module_and_packages_load_without_torch(panel):
    """Complaint about the peers: wrong torch, no offline use. Nothing is loaded before it is needed."""
    for path in [MODULE_FOLDER / "SAMUSegment.py", *sorted((MODULE_FOLDER / "SAMUSegmentLib").glob("*.py"))]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {
            alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
        }
        names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
        assert not [name for name in names if name.split(".")[0] == "torch"], path.name


def attributesOf(tree, chain):
    """Names X of `self.ui.X`, or of `ui.X`, that occur in a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in chain:
            yield node.attr


def test_widgets_named_in_code_are_in_the_ui_file_and_parameters_exist(panel):
    widgets = panel_fakes.uiWidgets()
    tree = ast.parse((MODULE_FOLDER / "SAMUSegment.py").read_text(encoding="utf-8"))
    named = set(attributesOf(tree, ("self.ui", "ui")))
    assert {"placeButton", "segmentsTable"} <= named and named <= set(widgets)
    from SAMUSegmentLib.parameters import SAMUSegmentParameterNode

    parameters = {parameter for _class, parameter in widgets.values() if parameter}
    assert parameters <= set(SAMUSegmentParameterNode.allParameters)
    assert {"inputVolume", "segmentation", "mode", "threshold", "fieldOfView"} <= parameters
    assert {kind for kind, _ in widgets.values()} <= set(PROPERTIES)


def test_the_slider_of_the_ui_file_has_the_range_of_the_threshold():
    from SAMUSegmentLib.options import THRESHOLD_DEFAULT, THRESHOLD_MAXIMUM, THRESHOLD_MINIMUM

    root = panel_fakes.ElementTree.parse(panel_fakes.UI_FILE).getroot()
    slider = next(widget for widget in root.iter("widget") if widget.get("name") == "thresholdSlider")
    values = {entry.get("name"): "".join(entry.itertext()).strip() for entry in slider.iter("property")}
    expected = THRESHOLD_MINIMUM, THRESHOLD_MAXIMUM, THRESHOLD_DEFAULT
    assert tuple(float(values[name]) for name in ("minimum", "maximum", "value")) == expected
