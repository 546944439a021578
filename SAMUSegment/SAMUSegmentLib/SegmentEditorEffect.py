"""The Segment Editor effect: widgets only. What it decides is in `interaction` and `effectsession`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import ctk
import qt
import slicer
import vtk
from SegmentEditorEffects import AbstractScriptedSegmentEditorEffect

from SAMUSegmentLib import runtime
from SAMUSegmentLib.effectengine import EffectEngine
from SAMUSegmentLib.effectsession import PARAMETER_DEFAULTS, EffectSession, optionsFromParameters
from SAMUSegmentLib.interaction import ClickInterpreter
from SAMUSegmentLib.options import THRESHOLD_MAXIMUM, THRESHOLD_MINIMUM, FieldOfView
from SAMUSegmentLib.pump import Pump

OTHER_MASK_KEY = "N"  # free in the Segment Editor (Slicer's keyboard shortcuts)
OTHER_MASK_TEXT = "Other mask (N)"
OTHER_MASK_TIP = "The last click means something larger or smaller: show the next of its three masks."
ICON = Path(__file__).parent.parent / "Resources" / "Icons" / "SegmentEditorEffect.png"
HELP = """<html>Segments a whole structure in 3D from one click.<p>
<ul style="margin: 0">
<li><b>Left-click</b> on a structure in a slice view: adds it to the selected segment.
<li><b>Ctrl + left-click</b>: subtracts what is found there from the selected segment.
<li><b>Threshold</b>: lower for more, higher for less; changes the last click at once.
<li><b>N</b>: another mask of the last click: larger, smaller, as found.
</ul><p>Masking and overwriting are as set below; each click is one step of Undo.<p></html>"""


class SegmentEditorEffect(AbstractScriptedSegmentEditorEffect):
    """One-click 3D segmentation in the Segment Editor."""

    def __init__(self, scriptedEffect: Any):
        # Modules look effects up by name: it is not translated.
        scriptedEffect.name = "SAMUSegment"
        scriptedEffect.title = "SAMUSegment"
        # The editor deselects a "per segment" effect as soon as no segment is selected. Ours makes one where
        # there is none, and another threshold takes it away and makes it anew.
        scriptedEffect.perSegment = False
        scriptedEffect.requireSegments = False
        AbstractScriptedSegmentEditorEffect.__init__(self, scriptedEffect)
        self.interpreter = ClickInterpreter()
        self.session: EffectSession | None = None
        self._pump: Pump | None = None
        self._widgetsReady = False

    def clone(self) -> Any:
        """A new effect for another editor."""
        import qSlicerSegmentationsEditorEffectsPythonQt as effects

        from SAMUSegmentLib.registration import exposeEffectClass

        exposeEffectClass()
        effect = effects.qSlicerSegmentEditorScriptedEffect(None)
        effect.setPythonSource(Path(__file__).as_posix())
        return effect

    def icon(self) -> Any:
        """For the effect's button and cursor."""
        return qt.QIcon(str(ICON)) if ICON.exists() else qt.QIcon()

    def helpText(self) -> str:
        """Shown above the options."""
        return HELP

    def setupOptionsFrame(self) -> None:
        """Make the widgets below the effect's button."""
        self.thresholdSlider = ctk.ctkSliderWidget()
        self.thresholdSlider.minimum, self.thresholdSlider.maximum = THRESHOLD_MINIMUM, THRESHOLD_MAXIMUM
        self.thresholdSlider.singleStep, self.thresholdSlider.decimals = 0.01, 2
        self.thresholdSlider.setToolTip("Lower for more, higher for less; changes the last click at once.")
        self.fieldOfViewBox = qt.QComboBox()
        for choice in FieldOfView:
            self.fieldOfViewBox.addItem(choice.label())
        self.fieldOfViewBox.setToolTip("How much of the volume around the click is looked at.")
        self.componentBox = qt.QCheckBox("Only the part that holds the click")
        self.statusLabel = qt.QLabel()
        self.statusLabel.wordWrap = True
        self.otherMaskButton = qt.QPushButton(OTHER_MASK_TEXT)
        self.otherMaskButton.setToolTip(OTHER_MASK_TIP)
        # After the text, which would take it away. It works while the button can be seen.
        self.otherMaskButton.shortcut = qt.QKeySequence(OTHER_MASK_KEY)
        self.widerButton = qt.QPushButton()
        self.cancelButton = qt.QPushButton("Cancel")
        self.scriptedEffect.addLabeledOptionsWidget("Threshold:", self.thresholdSlider)
        self.scriptedEffect.addLabeledOptionsWidget("Field of view:", self.fieldOfViewBox)
        buttons = (self.otherMaskButton, self.widerButton, self.cancelButton)
        for widget in (self.componentBox, self.statusLabel, *buttons):
            self.scriptedEffect.addOptionsWidget(widget)
        self.thresholdSlider.connect("valueChanged(double)", self.updateMRMLFromGUI)
        self.fieldOfViewBox.connect("currentIndexChanged(int)", self.updateMRMLFromGUI)
        self.componentBox.connect("toggled(bool)", self.updateMRMLFromGUI)
        self.otherMaskButton.connect("clicked()", self.onOtherMask)
        self.widerButton.connect("clicked()", self.onWider)
        self.cancelButton.connect("clicked()", self.onCancel)
        self._widgetsReady = True

    def activate(self) -> None:
        """The effect was selected."""
        if self.session is None:
            self.session = self._makeSession()
            self._pump = Pump(self.session.tick, self._onFailure)
        self._pump.start()
        self.updateGUIFromMRML()

    def deactivate(self) -> None:
        """Another effect was selected, or the editor was left."""
        self.interpreter.reset()
        if self.session is not None:
            self.session.deactivate()
            self._pump.stop()

    def cleanup(self) -> None:
        """The effect is about to be deleted: nothing may hold on to it."""
        self.deactivate()
        if self._pump is not None:
            self._pump.close()
            self._pump = self.session = None

    def setMRMLDefaults(self) -> None:
        """Parameters of a new segment editor node."""
        for name, value in PARAMETER_DEFAULTS.items():
            self.scriptedEffect.setParameterDefault(name, value)

    def updateGUIFromMRML(self) -> None:
        """The editor's node changed: options, segmentation or source volume."""
        if self.scriptedEffect.parameterSetNode() is None:
            return
        options = self._options()
        if self.session is not None:
            self.session.selectionChanged()
            self.session.controller.setOptions(options)
        if not self._widgetsReady:
            return
        widgets = (self.thresholdSlider, self.fieldOfViewBox, self.componentBox)
        blocked = [widget.blockSignals(True) for widget in widgets]
        self.thresholdSlider.value = options.threshold
        self.fieldOfViewBox.currentIndex = list(FieldOfView).index(options.fieldOfView)
        self.componentBox.checked = options.clickedComponent
        for widget, wasBlocked in zip(widgets, blocked):
            widget.blockSignals(wasBlocked)
        self.showState()

    def updateMRMLFromGUI(self, *_args: Any) -> None:
        """The user changed an option."""
        view = list(FieldOfView)[max(self.fieldOfViewBox.currentIndex, 0)]
        # All are read before the first is written: that updates the widgets from the node.
        for name, value in (
            ("Threshold", float(self.thresholdSlider.value)),
            ("ClickedComponent", int(self.componentBox.checked)),
            ("FieldOfView", view.value),
        ):
            self.scriptedEffect.setParameter(name, value)
        if self.session is not None:
            self.session.controller.setOptions(self._options())

    def sourceVolumeNodeChanged(self) -> None:
        """May come before activate()."""
        if self.session is not None:
            self.session.selectionChanged()
            self.showState()

    def processInteractionEvents(self, callerInteractor: Any, eventId: int, viewWidget: Any) -> bool:
        """Clicks in slice views. True keeps all others from seeing the event."""
        if self.session is None or viewWidget.className() != "qMRMLSliceWidget":
            return False
        if eventId == vtk.vtkCommand.MouseMoveEvent:
            self.session.cursorMoved(self.xyToRas(callerInteractor.GetEventPosition(), viewWidget))
        elif eventId == vtk.vtkCommand.LeaveEvent:
            self.session.cursorLeft()
        decision = self.interpreter.decide(
            eventId,
            control=bool(callerInteractor.GetControlKey()),
            shift=bool(callerInteractor.GetShiftKey()),
            alt=bool(callerInteractor.GetAltKey()),
        )
        if decision.mode:
            point = self.xyToRas(callerInteractor.GetEventPosition(), viewWidget)
            confirmed = self.scriptedEffect.confirmCurrentSegmentVisible()
            if confirmed != self.scriptedEffect.ConfirmedWithoutDialog:
                # The dialog saw the release of the button.
                self.interpreter.reset()
            if confirmed != self.scriptedEffect.NotConfirmed:
                self.session.click(point, decision.mode)
        return decision.abort

    def onOtherMask(self) -> None:
        """The next of the last click's nested masks."""
        self.session.controller.otherMask()

    def onWider(self) -> None:
        """Repeat the last click with a wider field of view."""
        self.session.controller.widen()

    def onCancel(self) -> None:
        """Drop the click that is under way."""
        self.session.controller.cancel()

    def showState(self) -> None:
        """Show what the session says."""
        if self.session is None or not self._widgetsReady:
            return
        controller = self.session.controller
        wider = controller.widerView
        self.statusLabel.text = controller.status.text
        self.cancelButton.setVisible(controller.busy)
        self.otherMaskButton.setVisible(controller.hasOtherMask)
        self.widerButton.setVisible(wider is not None)
        self.widerButton.text = f"Use {wider.label()}" if wider is not None else ""

    def _makeSession(self) -> EffectSession:
        editor = self._editorWidget()
        engine = EffectEngine(
            self.scriptedEffect,
            editor,
            slicer.qSlicerSegmentEditorAbstractEffect,
            canUndo=lambda: slicer.util.findChild(editor, "UndoButton").enabled,
            canRedo=lambda: slicer.util.findChild(editor, "RedoButton").enabled,
        )
        return EffectSession(
            self.scriptedEffect.parameterSetNode,
            engine,
            runtime.sharedPredictor(),
            runtime.sharedWorker(),
            runtime.sharedDependencies(),
            onChange=self.showState,
        )

    def _editorWidget(self) -> Any:
        """The qMRMLSegmentEditorWidget around the options: the effect itself has no way to undo."""
        widget = self.scriptedEffect.optionsFrame()
        while widget is not None and widget.className() != "qMRMLSegmentEditorWidget":
            widget = widget.parent()
        return widget

    def _options(self) -> Any:
        effect = self.scriptedEffect
        return optionsFromParameters(
            effect.doubleParameter("Threshold"),
            effect.integerParameter("ClickedComponent"),
            effect.parameter("FieldOfView"),
        )

    def _onFailure(self, error: BaseException) -> None:
        logging.error("SAMUSegment: the effect stopped", exc_info=error)
        self.statusLabel.text = "An error occurred (see the log). Select the effect again to go on."
