"""As much of qt, ctk and the Slicer application as the GUI files need to be run without them.

Widgets are strict: they have the attributes of the real classes that the GUI files use and no others, so
that a misspelt property fails. What edits and undoes behind the fake editor is Slicer's own engine.
"""

from __future__ import annotations

import sys
import types
from contextlib import contextmanager
from pathlib import Path

import slicer
import vtk

HERE = Path(__file__).resolve().parent
MODULE_FOLDER = HERE.parents[2]

# Attributes that each widget class really has, with their values at first.
WIDGET = {"visible": True, "enabled": True, "toolTip": "", "name": ""}
LABEL = {**WIDGET, "text": "", "wordWrap": False}
BUTTON = {**WIDGET, "text": "", "checkable": False, "checked": False, "shortcut": ""}
PROPERTIES = {
    "QWidget": WIDGET,
    "QFrame": WIDGET,
    "QLabel": {**LABEL, "openExternalLinks": False, "styleSheet": ""},
    "QPushButton": BUTTON,
    "QToolButton": BUTTON,
    "QCheckBox": BUTTON,
    "QComboBox": {**WIDGET, "currentIndex": 0},
    "QProgressBar": {**WIDGET, "minimum": 0, "maximum": 100, "value": 0},
    "ctkSliderWidget": {
        **WIDGET,
        "minimum": 0.0,
        "maximum": 99.0,
        "value": 0.0,
        "singleStep": 1.0,
        "decimals": 2,
    },
    "ctkCollapsibleButton": {**WIDGET, "text": "", "collapsed": False},
    "qMRMLNodeComboBox": {**WIDGET, "nodeTypes": ()},
    "qMRMLSegmentsTableView": WIDGET,
    "qMRMLSegmentationShow3DButton": BUTTON,
    "qMRMLWidget": WIDGET,
    "qSlicerMarkupsPlaceWidget": {
        **WIDGET,
        "placeModeEnabled": False,
        "placeMultipleMarkups": 0,
        "buttonsVisible": True,
    },
    "qMRMLSegmentEditorWidget": WIDGET,
    "qMRMLSliceWidget": WIDGET,
    "qMRMLThreeDWidget": WIDGET,
}
SIGNALS = {
    "QPushButton": {"clicked()", "clicked(bool)", "toggled(bool)"},
    "QCheckBox": {"toggled(bool)"},
    "QComboBox": {"currentIndexChanged(int)"},
    "ctkSliderWidget": {"valueChanged(double)"},
    "qMRMLSegmentsTableView": {"selectionChanged(QItemSelection,QItemSelection)"},
    "qSlicerMarkupsPlaceWidget": {"activeMarkupsPlaceModeChanged(bool)"},
}


class FakeWidget:
    """A widget of a class of PROPERTIES."""

    def __init__(self, className, parent=None, **properties):
        assert className in PROPERTIES, f"the fakes know no {className}"
        values = {**PROPERTIES[className], **properties}
        self.__dict__.update(_class=className, _parent=parent, _values=values, _slots={}, _blocked=False)
        self.__dict__.update(_items=[], _selected=(), _node=None)

    def __getattr__(self, name):
        if name in self._values:
            return self._values[name]
        raise AttributeError(f"{self._class} has no '{name}'")

    def __setattr__(self, name, value):
        assert name in self._values, f"{self._class} has no property '{name}'"
        old, self._values[name] = self._values[name], value
        signal = {"value": "valueChanged(double)", "currentIndex": "currentIndexChanged(int)"}.get(
            name, "toggled(bool)" if name == "checked" else ""
        )
        if old != value and signal:
            self.emit(signal, value)

    def connect(self, signal, slot):
        assert signal in SIGNALS.get(self._class, ()), f"{self._class} has no signal {signal}"
        self._slots.setdefault(signal, []).append(slot)

    def emit(self, signal, *arguments):
        if not self._blocked:
            for slot in self._slots.get(signal, []):
                slot(*arguments)

    def click(self):
        assert self.visible and self.enabled, "nobody can click this button"
        self.emit("clicked()")
        self.emit("clicked(bool)", False)

    def className(self):
        return self._class

    def parent(self):
        return self._parent

    def blockSignals(self, blocked):
        previous, self.__dict__["_blocked"] = self._blocked, blocked
        return previous

    def setVisible(self, visible):
        self._values["visible"] = bool(visible)

    def isVisibleTo(self, _ancestor):
        return self.visible

    def setToolTip(self, text):
        self._values["toolTip"] = text

    def addItem(self, text):
        assert self._class == "QComboBox"
        self._items.append(text)

    def setMRMLScene(self, _scene):
        assert self._class.startswith(("qMRML", "qSlicer"))

    def setSegmentationNode(self, node):
        assert self._class in ("qMRMLSegmentsTableView", "qMRMLSegmentationShow3DButton")
        self.__dict__["_node"] = node

    def segmentationNode(self):
        assert self._class in ("qMRMLSegmentsTableView", "qMRMLSegmentationShow3DButton")
        return self._node

    def setCurrentNode(self, node):
        assert self._class in ("qMRMLNodeComboBox", "qSlicerMarkupsPlaceWidget")
        self.__dict__["_node"] = node
        if self._class == "qSlicerMarkupsPlaceWidget" and node is None and self.placeModeEnabled:
            self._values["placeModeEnabled"] = False
            self.emit("activeMarkupsPlaceModeChanged(bool)", False)

    def selectedSegmentIDs(self):
        assert self._class == "qMRMLSegmentsTableView"
        return tuple(self._selected)

    def setSelectedSegmentIDs(self, segmentIDs):
        assert self._class == "qMRMLSegmentsTableView"
        if tuple(segmentIDs) != self._selected:
            self.__dict__["_selected"] = tuple(segmentIDs)
            self.emit("selectionChanged(QItemSelection,QItemSelection)", None, None)

    def setPlaceModeEnabled(self, enabled):
        assert self._class == "qSlicerMarkupsPlaceWidget"
        assert self._node is not None or not enabled, "without a list the real one fails with a message"
        if self.placeModeEnabled != enabled:
            self._values["placeModeEnabled"] = enabled
            self.emit("activeMarkupsPlaceModeChanged(bool)", enabled)


class FakeKeySequence(str):
    """qt.QKeySequence of a text."""

    def toString(self):
        return str(self)


class FakeTimer:
    """qt.QTimer that fires when the test says so."""

    instances: list = []

    def __init__(self):
        self.slots, self.running, self.interval = [], False, 0
        FakeTimer.instances.append(self)

    def connect(self, signal, slot):
        assert signal == "timeout()"
        self.slots.append(slot)

    def disconnect(self, signal, slot):
        assert signal == "timeout()"
        self.slots.remove(slot)

    def setInterval(self, interval):
        self.interval = interval

    def start(self):
        self.running = True

    def stop(self):
        self.running = False

    def fire(self):
        if self.running:
            for slot in list(self.slots):
                slot()


def widgetClass(name):
    """A constructor of fake widgets, as qt.QLabel is; a text comes first where the real one takes it."""

    def make(text=None):
        return FakeWidget(name) if text is None else FakeWidget(name, text=text)

    return make


class FakeEditor:
    """A qMRMLSegmentEditorWidget with one effect: Slicer's engine, and the effect's C++ half."""

    NotConfirmed, ConfirmedWithoutDialog, ConfirmedWithDialog = 0, 1, 2

    def __init__(self, mrml, segmentationNode, volumeNode, node=None):
        self.node = node or mrml.scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
        self.node.SetOverwriteMode(self.node.OverwriteNone)
        self.node.SetAndObserveSegmentationNode(segmentationNode)
        self.node.SetAndObserveSourceVolumeNode(volumeNode)
        self.logic = slicer.vtkSlicerSegmentEditorLogic()
        self.logic.SetSegmentEditorNode(self.node)
        self.widget = FakeWidget("qMRMLSegmentEditorWidget")
        self.widget.__dict__.update(undo=self.logic.Undo, redo=self.logic.Redo)
        self.options, self.parameters, self.confirmed = [], {}, self.ConfirmedWithoutDialog
        self.name = self.title = ""
        self.perSegment, self.requireSegments, self.registered = True, True, False

    # qSlicerSegmentEditorScriptedEffect

    def parameterSetNode(self):
        return self.node

    def optionsFrame(self):
        return FakeWidget("QFrame", parent=FakeWidget("QFrame", parent=self.widget))

    def addOptionsWidget(self, widget):
        self.options.append(widget)

    def addLabeledOptionsWidget(self, label, widget):
        assert label.endswith(":")
        self.options.append(widget)

    def saveStateForUndo(self):
        self.logic.SaveStateForUndo()

    def modifySelectedSegmentByLabelmap(self, labelmap, mode):
        segmentID = self.node.GetSelectedSegmentID()
        self.logic.ModifySegmentByLabelmap(
            self.node.GetSegmentationNode(), segmentID, labelmap, mode, self.perSegment, False
        )

    def confirmCurrentSegmentVisible(self):
        return self.confirmed

    def setParameterDefault(self, name, value):
        self.parameters.setdefault(name, str(value))

    def setParameter(self, name, value):
        self.parameters[name] = str(value)

    def parameter(self, name):
        return self.parameters.get(name, "")

    def doubleParameter(self, name):
        return float(self.parameters.get(name) or 0.0)

    def integerParameter(self, name):
        return int(self.parameters.get(name) or 0)

    def button(self, name):
        able = {"UndoButton": self.logic.CanUndo, "RedoButton": self.logic.CanRedo}[name]
        return FakeWidget("QToolButton", enabled=bool(able()))


class FakeInteractor:
    """What the effect asks of a vtkRenderWindowInteractor."""

    def __init__(self, position=(0, 0), control=False, shift=False, alt=False):
        self.position, self.keys = position, (control, shift, alt)

    def GetEventPosition(self):
        return self.position

    def GetControlKey(self):
        return int(self.keys[0])

    def GetShiftKey(self):
        return int(self.keys[1])

    def GetAltKey(self):
        return int(self.keys[2])


class AbstractScriptedSegmentEditorEffect:
    """As in SegmentEditorEffects; the views of the tests show RAS = (x, y, slice)."""

    slice = 18.0

    def __init__(self, scriptedEffect):
        self.scriptedEffect = scriptedEffect

    def register(self):
        self.scriptedEffect.registered = True

    def xyToRas(self, xy, _viewWidget):
        return [float(xy[0]), float(xy[1]), self.slice]

    def rasToXy(self, ras, _viewWidget):
        return [int(ras[0]), int(ras[1])]


def module(name, **contents):
    """A module object."""
    result = types.ModuleType(name)
    result.__dict__.update(contents)
    return result


def install(monkeypatch, mrml, editor=None):
    """Put the fakes where the GUI files import them from; `monkeypatch` takes them away again."""
    FakeTimer.instances.clear()
    names = ("QLabel", "QPushButton", "QComboBox", "QCheckBox", "QProgressBar")
    qt = module("qt", QTimer=FakeTimer, QIcon=lambda path="": ("icon", path), QKeySequence=FakeKeySequence)
    qt.__dict__.update({name: widgetClass(name) for name in names})
    ctk = module("ctk", ctkSliderWidget=widgetClass("ctkSliderWidget"))
    effects = module(
        "SegmentEditorEffects", AbstractScriptedSegmentEditorEffect=AbstractScriptedSegmentEditorEffect
    )

    @contextmanager
    def tryWithErrorDisplay(_message=None, show=True, waitCursor=False):
        yield

    util = module(
        "slicer.util",
        findChild=lambda _widget, name: editor.button(name),
        tryWithErrorDisplay=tryWithErrorDisplay,
    )
    for name, fake in (("qt", qt), ("ctk", ctk), ("SegmentEditorEffects", effects)):
        monkeypatch.setitem(sys.modules, name, fake)
    monkeypatch.setitem(sys.modules, "slicer.util", util)
    logic = slicer.vtkSlicerSegmentEditorLogic
    modes = {f"ModificationMode{mode}": getattr(logic, f"ModificationMode{mode}") for mode in MODES}
    for name, value in (
        ("util", util),
        ("mrmlScene", mrml.scene),
        ("qSlicerSegmentEditorAbstractEffect", types.SimpleNamespace(**modes)),
    ):
        monkeypatch.setattr(slicer, name, value, raising=False)
    for name in [name for name in sys.modules if name in GUI_MODULES]:
        monkeypatch.delitem(sys.modules, name)
    return types.SimpleNamespace(qt=qt, ctk=ctk, util=util, timers=FakeTimer.instances)


def installEffectFactory(monkeypatch):
    """What registers effects with the Segment Editor; returns the list of the effects made by it."""
    made, properties = [], {}

    class Instance(FakeEditor):
        def __init__(self, _parent):
            made.append(self)

        def setPythonSource(self, path):
            assert path.endswith("/SAMUSegmentLib/SegmentEditorEffect.py") and "\\" not in path
            package = sys.modules["SAMUSegmentLib"]
            self.instance = package.SegmentEditorEffect(self)

        def self(self):
            return self.instance

    effects = types.SimpleNamespace(qSlicerSegmentEditorScriptedEffect=Instance)
    monkeypatch.setitem(sys.modules, "qSlicerSegmentationsEditorEffectsPythonQt", effects)
    factory = types.SimpleNamespace(property=properties.get, setProperty=properties.__setitem__)
    factories = types.SimpleNamespace(instance=lambda: factory)
    monkeypatch.setattr(slicer, "qSlicerSegmentEditorEffectFactory", factories, raising=False)
    return made


MODES = ("Add", "Set", "Remove")
GUI_MODULES = ("SAMUSegment", "SAMUSegmentLib.SegmentEditorEffect", "SAMUSegmentLib.pump")
EVENTS = vtk.vtkCommand
