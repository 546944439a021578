"""The Slicer application around the module's panel, as far as SAMUSegment.py needs it. See gui_fakes."""

from __future__ import annotations

import enum
import importlib.util
import sys
import types
import typing
import xml.etree.ElementTree as ElementTree

import gui_fakes
import slicer
from gui_fakes import MODULE_FOLDER, FakeWidget, module

UI_FILE = MODULE_FOLDER / "Resources" / "UI" / "SAMUSegment.ui"


def uiWidgets():
    """{name: (class, SlicerParameterName or None)} of the widgets in the .ui file."""
    found = {}
    for element in ElementTree.parse(UI_FILE).getroot().iter("widget"):
        properties = {entry.get("name"): "".join(entry.itertext()).strip() for entry in element}
        assert element.get("name") not in found, "two widgets of one name"
        found[element.get("name")] = element.get("class"), properties.get("SlicerParameterName")
    return found


STORED: dict = {}


class FakeParameterWrapper:
    """What slicer.parameterNodeWrapper makes of a class: typed attributes that tell of their changes."""

    def __init__(self, parameterNode):
        self.__dict__.update(parameterNode=parameterNode, _observers={}, connected=None)
        defaults = {name: getattr(type(self), name, None) for name in self.allParameters}
        # Kept with the node, as the real one does, but not in it.
        values = self.__dict__["values"] = STORED.setdefault(parameterNode, defaults)
        for name, kind in self.allParameters.items():
            # The real one keeps the names of choices: after a reload they are of the new class.
            if isinstance(kind, type) and issubclass(kind, enum.Enum) and values[name] is not None:
                values[name] = kind[values[name].name]

    def __getattribute__(self, name):
        if name != "allParameters" and name in type(self).allParameters:
            value = object.__getattribute__(self, "values")[name]
            # A reference to a node that was removed is none.
            return None if isinstance(value, slicer.vtkMRMLNode) and value.GetScene() is None else value
        return object.__getattribute__(self, name)

    def __setattr__(self, name, value):
        assert name in self.allParameters, f"{name} is no parameter"
        if self.values[name] is not value:
            self.values[name] = value
            for callback in list(self._observers.values()):
                callback(self, "ModifiedEvent")

    def AddObserver(self, _event, callback):
        tag = len(self._observers) + 1
        self._observers[tag] = callback
        return tag

    def RemoveObserver(self, tag):
        del self._observers[tag]

    def connectGui(self, ui):
        names = {parameter for _class, parameter in uiWidgets().values() if parameter}
        assert names <= set(self.allParameters)
        self.__dict__["connected"] = ui
        return 1

    def disconnectGui(self, _tag):
        assert self.connected is not None
        self.__dict__["connected"] = None


def parameterNodeWrapper(described):
    """The decorator."""
    names = typing.get_type_hints(described, include_extras=True)
    return type(described.__name__, (FakeParameterWrapper, described), {"allParameters": names})


class WithinRange:
    """As slicer.parameterNodeWrapper's."""

    def __init__(self, minimum, maximum):
        self.minimum, self.maximum = minimum, maximum


class VTKObservationMixin:
    """As slicer.util's."""

    def __init__(self):
        self._observations = []

    def addObserver(self, subject, event, callback):
        self._observations.append((subject, event, callback, subject.AddObserver(event, callback)))

    def removeObserver(self, subject, event, callback):
        match = [entry for entry in self._observations if entry[:3] == (subject, event, callback)]
        assert match, "nothing to remove"
        subject.RemoveObserver(match[0][3])
        self._observations.remove(match[0])

    def removeObservers(self):
        for subject, _event, _callback, tag in self._observations:
            subject.RemoveObserver(tag)
        self._observations = []


class ScriptedLoadableModule:
    """As slicer.ScriptedLoadableModule's."""

    def __init__(self, parent):
        self.parent = parent


class ScriptedLoadableModuleWidget:
    """As slicer.ScriptedLoadableModule's; `parent` comes with a layout."""

    def __init__(self, parent):
        self.parent, self.layout = parent, parent.layout
        self.reloaded = False

    def setup(self):
        """No developer section."""

    def resourcePath(self, name):
        return str(MODULE_FOLDER / "Resources" / name)

    def onReload(self):
        self.reloaded = True
        slicer.util.reloadScriptedModule("SAMUSegment")


class ScriptedLoadableModuleLogic:
    """As slicer.ScriptedLoadableModule's, for the module SAMUSegment."""

    def __init__(self):
        """Nothing to do."""

    def getParameterNode(self):
        scene, tag = slicer.mrmlScene, "SAMUSegment"
        node = scene.GetSingletonNode(tag, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.vtkMRMLScriptedModuleNode()
            node.SetSingletonTag(tag)
            node = scene.AddNode(node)
        return node


class ScriptedLoadableModuleTest:
    """As slicer.ScriptedLoadableModule's."""

    def assertTrue(self, value, message=""):
        assert value, message

    def assertEqual(self, first, second):
        assert first == second

    def assertAlmostEqual(self, first, second, delta):
        assert abs(first - second) <= delta

    def delayDisplay(self, message):
        self.said = message


def reloadScriptedModule(widgets):
    """slicer.util's, for the module whose panel is the last of `widgets`.

    The module's file is run again, the old panel is cleaned up but not deleted, a new one takes its place.
    """

    def reload(name):
        specification = importlib.util.spec_from_file_location(name, MODULE_FOLDER / f"{name}.py")
        loaded = sys.modules[name] = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(loaded)
        widgets[-1].cleanup()
        widgets.append(getattr(loaded, f"{name}Widget")(widgets[-1].parent))
        widgets[-1].setup()

    return reload


class Layout:
    """A QVBoxLayout."""

    def __init__(self):
        self.widgets = []

    def addWidget(self, widget):
        self.widgets.append(widget)


def install(monkeypatch, mrml):
    """gui_fakes.install, and what else SAMUSegment.py imports. Returns the fakes."""
    fakes = gui_fakes.install(monkeypatch, mrml)
    fakes.signals = {}
    STORED.clear()

    def loadUI(path):
        assert path == str(UI_FILE)
        return FakeWidget("qMRMLWidget")

    def childWidgetVariables(_widget):
        widgets = {name: FakeWidget(kind, name=name) for name, (kind, _) in uiWidgets().items()}
        fakes.ui = types.SimpleNamespace(**widgets)
        return fakes.ui

    fakes.util.__dict__.update(
        loadUI=loadUI,
        childWidgetVariables=childWidgetVariables,
        VTKObservationMixin=VTKObservationMixin,
        reloadScriptedModule=lambda name: None,
    )
    base = module("slicer.ScriptedLoadableModule")
    for member in (
        ScriptedLoadableModule,
        ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest,
    ):
        setattr(base, member.__name__, member)
    translations = module("slicer.i18n", tr=lambda text: text, translate=lambda _context, text: text)
    wrapper = module(
        "slicer.parameterNodeWrapper", WithinRange=WithinRange, parameterNodeWrapper=parameterNodeWrapper
    )
    for fake in (base, translations, wrapper):
        monkeypatch.setitem(sys.modules, fake.__name__, fake)
    app = types.SimpleNamespace(
        connect=lambda signal, slot: fakes.signals.setdefault(signal, []).append(slot)
    )
    monkeypatch.setattr(slicer, "app", app, raising=False)
    place = types.SimpleNamespace(ForcePlaceMultipleMarkups=3)
    monkeypatch.setattr(slicer, "qSlicerMarkupsPlaceWidget", place, raising=False)
    monkeypatch.delitem(sys.modules, "SAMUSegmentLib.parameters", raising=False)
    return fakes
