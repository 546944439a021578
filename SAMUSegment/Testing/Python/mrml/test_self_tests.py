"""Slicer's self-tests, run here with the application faked, so that they work when they are tried."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
import unittest

import gui_fakes
import panel_fakes
import pytest
import slicer
from gui_fakes import MODULE_FOLDER, FakeEditor, FakeWidget

FOLDER = MODULE_FOLDER / "Testing" / "Python" / "slicer"


def load(name):
    """The test case of a self-test file."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return getattr(loaded, name)


def namesIn(name):
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    return [line.split("(")[0].split()[1] for line in text.splitlines() if line.startswith("    def test_")]


def runOne(name, test):
    """Run one method; fails with its message."""
    result = unittest.TestResult()
    load(name)(test).run(result)
    problems = [text for _case, text in result.errors + result.failures]
    assert result.testsRun == 1 and not problems, "\n".join(problems)
    return result


class EditorWidget:
    """qMRMLSegmentEditorWidget as scripts use it."""

    def __init__(self, mrml, fakes):
        self.mrml, self.fakes, self.active = mrml, fakes, None

    def setMRMLScene(self, scene):
        assert scene is self.mrml.scene

    def setMRMLSegmentEditorNode(self, node):
        if node is not None:
            self.editor = FakeEditor(self.mrml, None, None, node)
            self.fakes.util.findChild = lambda _widget, name: self.editor.button(name)

    def setSegmentationNode(self, node):
        self.editor.node.SetAndObserveSegmentationNode(node)

    def setSourceVolumeNode(self, node):
        self.editor.node.SetAndObserveSourceVolumeNode(node)

    def setActiveEffectByName(self, name):
        from SAMUSegmentLib.SegmentEditorEffect import SegmentEditorEffect

        if not hasattr(self, "effect"):
            self.effect = SegmentEditorEffect(self.editor)
            self.effect.setMRMLDefaults()
            self.effect.setupOptionsFrame()
        self.setActiveEffect(self.effect if name == self.editor.name else None)

    def setActiveEffect(self, effect):
        if self.active is not None:
            self.active.deactivate()
        self.active = effect
        if effect is not None:
            effect.activate()

    def activeEffect(self):
        return types.SimpleNamespace(self=lambda: self.active)

    def undo(self):
        self.editor.logic.Undo()

    def redo(self):
        self.editor.logic.Redo()


@pytest.fixture
def application(mrml, monkeypatch):
    """Slicer with the module loaded; events are processed by firing the timers."""
    fakes = panel_fakes.install(monkeypatch, mrml)
    module = importlib.import_module("SAMUSegment")
    gui_fakes.installEffectFactory(monkeypatch)
    from SAMUSegmentLib import runtime

    runtime.close()
    widgets = []
    fakes.util.reloadScriptedModule = panel_fakes.reloadScriptedModule(widgets)

    def representation():
        if not widgets:
            parent = types.SimpleNamespace(layout=panel_fakes.Layout(), isEntered=True)
            widgets.append(module.SAMUSegmentWidget(parent))
            widgets[0].setup()
        return types.SimpleNamespace(self=lambda: widgets[-1])

    def processEvents():
        for timer in list(fakes.timers):
            timer.fire()

    manager = types.SimpleNamespace(sliceWidget=lambda _name: FakeWidget("qMRMLSliceWidget"))
    slicer.app.processEvents, slicer.app.layoutManager = processEvents, lambda: manager
    samusegment = types.SimpleNamespace(widgetRepresentation=representation)
    monkeypatch.setattr(slicer, "modules", types.SimpleNamespace(samusegment=samusegment), raising=False)
    monkeypatch.setattr(slicer, "qMRMLSegmentEditorWidget", lambda: EditorWidget(mrml, fakes), raising=False)
    monkeypatch.setattr(gui_fakes.AbstractScriptedSegmentEditorEffect, "slice", 0.0)
    fakes.util.selectModule = lambda name: None
    fakes.util.setSliceViewerLayers = lambda background, fit: None
    loaded = {name: found for name, found in sys.modules.items() if isOurs(name)}
    yield fakes
    for widget in widgets:
        widget.cleanup()
    runtime.close()
    importlib.import_module("SAMUSegmentLib.runtime").close()
    # A reload replaced them; other tests know the classes of before.
    for name in [name for name in sys.modules if isOurs(name)]:
        del sys.modules[name]
    sys.modules.update(loaded)


def isOurs(name):
    return name.split(".")[0] in ("SAMUSegment", "SAMUSegmentLib", "samu_core")


# Slow and dependent on the weights; the self-test of the real network is for Slicer alone.
@pytest.mark.parametrize("test", [n for n in namesIn("SAMUSegmentPanelTest") if n != "test_RealNetwork"])
def test_panel(application, test):
    runOne("SAMUSegmentPanelTest", test)


@pytest.mark.parametrize("test", namesIn("SAMUSegmentEffectTest"))
def test_effect(application, test):
    runOne("SAMUSegmentEffectTest", test)


def test_a_self_test_that_fails_is_seen(application, monkeypatch):
    from SAMUSegmentLib.selftest import BallPredictor

    make = BallPredictor.__init__
    monkeypatch.setattr(BallPredictor, "__init__", lambda self, radius=10.0: make(self, radius - 2.0))
    with pytest.raises(AssertionError):
        runOne("SAMUSegmentEffectTest", "test_ClickAddsCtrlClickSubtractsAndTheEditorUndoes")


def test_without_torch_the_real_network_is_skipped(application, monkeypatch):
    from SAMUSegmentLib.dependencies import SlicerPackages

    monkeypatch.setattr(SlicerPackages, "torchFound", lambda _self: False)
    monkeypatch.setattr(SlicerPackages, "extensionFound", lambda _self: False)
    assert runOne("SAMUSegmentPanelTest", "test_RealNetwork").skipped
