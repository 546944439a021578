"""The module SAMUSegment: its description, its panel and its self-test. What it decides is in SAMUSegmentLib.

From a script:

    import SAMUSegment
    logic = SAMUSegment.SAMUSegmentLogic()
    result = logic.segmentFromPoint(volumeNode, (12.0, -30.5, 88.0), segmentationNode)
"""

import logging
import sys
from pathlib import Path

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

HERE = Path(__file__).resolve().parent
PACKAGES = ("SAMUSegmentLib", "samu_core")
# Public sample volumes of Slicer: name, file, SHA256 (which is their address, too).
SAMPLES_URL = "https://github.com/Slicer/SlicerTestingData/releases/download/SHA256/"
SAMPLES = (
    ("CTChest", "CT-chest.nrrd", "4507b664690840abb6cb9af2d919377ffc4ef75b167cb6fd0f747befdb12e38e"),
    ("MRHead", "MR-head.nrrd", "cc211f0dfd9a05ca3841ce1141b292898b2dd2d3f08286affadf823a7e58df93"),
)


def addCoreToPath():
    """Make samu_core importable: installed it lies beside this file, in the repository one folder above."""
    for folder in (HERE, HERE.parent):
        if (folder / "samu_core" / "__init__.py").is_file() and str(folder) not in sys.path:
            sys.path.append(str(folder))


def registerEffect():
    """Make the effect known to the Segment Editor."""
    addCoreToPath()
    from SAMUSegmentLib import registration

    registration.registerEffect()


def registerSampleData():
    """Offer volumes to try the module on in the module Sample Data; nothing is downloaded by that."""
    import SampleData

    for name, fileName, checksum in SAMPLES:
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category="SAMUSegment",
            sampleName=f"SAMUSegment{name}",
            thumbnailFileName=str(HERE / "Resources" / "Icons" / "SAMUSegment.png"),
            uris=SAMPLES_URL + checksum,
            fileNames=fileName,
            checksums=f"SHA256:{checksum}",
            nodeNames=name,
        )


class SAMUSegment(ScriptedLoadableModule):
    """Description of the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("SAMUSegment: one-click 3D segmentation")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "Markups"]
        parent.contributors = ["The SAMUSegment developers"]
        parent.helpText = _(
            "Segments a whole structure in CT or MR from one click, on this computer, without a network "
            "connection. Not a medical device: check every result.<p>Choose a volume, press "
            "<b>Place clicks</b> and click on a structure in a slice view. The same works in the Segment "
            "Editor, with the effect SAMUSegment."
        )
        parent.acknowledgementText = _(
            "Independent implementation of the SAMU network for promptable 3D segmentation, trained on "
            "openly licensed and synthetic data."
        )
        slicer.app.connect("startupCompleted()", registerEffect)
        slicer.app.connect("startupCompleted()", registerSampleData)


class SAMUSegmentLogic(ScriptedLoadableModuleLogic):
    """The parameter node, and the entry for scripts.

    Args:
        predictor: in place of the bundled network, e.g. samu_core.predictor.Predictor(device="cpu").
    """

    def __init__(self, predictor=None):
        ScriptedLoadableModuleLogic.__init__(self)
        addCoreToPath()
        from SAMUSegmentLib import runtime
        from SAMUSegmentLib.logic import SAMUSegmentLogic as ClickLogic

        self.clicks = ClickLogic(predictor or runtime.sharedPredictor())

    def getParameterNode(self):
        """The module's choices, kept in the scene."""
        from SAMUSegmentLib.parameters import SAMUSegmentParameterNode

        return SAMUSegmentParameterNode(super().getParameterNode())

    def segmentFromPoint(self, volumeNode, pointRAS, segmentationNode=None, *args, **options):
        """One click; waits for the result. See SAMUSegmentLib.logic.SAMUSegmentLogic.segmentFromPoint."""
        return self.clicks.segmentFromPoint(volumeNode, pointRAS, segmentationNode, *args, **options)


class SAMUSegmentWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: reads widgets, tells the session, shows what the session says."""

    def __init__(self, parent=None):
        VTKObservationMixin.__init__(self)
        self.logic = self.session = self.pump = None
        self._parameterNode = self._guiTag = None
        self._showing = False
        ScriptedLoadableModuleWidget.__init__(self, parent)

    def setup(self):
        """Called when the module is opened for the first time, and after a reload."""
        ScriptedLoadableModuleWidget.setup(self)
        registerEffect()
        from SAMUSegmentLib import runtime
        from SAMUSegmentLib.pump import Pump
        from SAMUSegmentLib.session import PanelSession

        panel = slicer.util.loadUI(self.resourcePath("UI/SAMUSegment.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = SAMUSegmentLogic()
        self.session = PanelSession(
            slicer.mrmlScene,
            runtime.sharedPredictor(),
            runtime.sharedWorker(),
            runtime.sharedDependencies(),
            onChange=self.showState,
        )
        self.pump = Pump(self.session.tick, self.onFailure)
        self.connectWidgets()
        for event, callback in (
            (slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose),
            (slicer.mrmlScene.EndCloseEvent, self.onSceneEnd),
            (slicer.mrmlScene.EndImportEvent, self.onSceneEnd),
        ):
            self.addObserver(slicer.mrmlScene, event, callback)
        self.initializeParameterNode()
        self.pump.start()

    def connectWidgets(self):
        """Buttons and other widgets that are no parameters."""
        ui, session = self.ui, self.session
        ui.dependencyButton.connect("clicked()", self.onDependencyButton)
        ui.placeButton.connect("toggled(bool)", self.onPlaceToggled)
        ui.placeWidget.buttonsVisible = False
        ui.placeWidget.placeMultipleMarkups = slicer.qSlicerMarkupsPlaceWidget.ForcePlaceMultipleMarkups
        ui.placeWidget.connect("activeMarkupsPlaceModeChanged(bool)", self.onPlaceModeChanged)
        ui.segmentsTable.connect("selectionChanged(QItemSelection,QItemSelection)", self.onSegmentSelected)
        ui.cancelButton.connect("clicked()", session.controller.cancel)
        ui.otherMaskButton.connect("clicked()", session.controller.otherMask)
        ui.widerButton.connect("clicked()", session.controller.widen)
        ui.undoButton.connect("clicked()", session.controller.undo)
        ui.redoButton.connect("clicked()", session.controller.redo)
        card = HERE / "Resources" / "Models" / "model-card.md"
        ui.modelCardLabel.text = f'<a href="{card.as_uri()}">{_("What the network was trained on")}</a>'

    def cleanup(self):
        """The widget is about to be destroyed."""
        if self.session is not None:
            self.endPlacing()
            self.setParameterNode(None)
            self.pump.close()
            self.session.close()
            self.pump = self.session = None
        self.removeObservers()

    def enter(self):
        """The module was opened."""
        self.initializeParameterNode()
        self.session.checkDependencies()
        self.pump.start()

    def exit(self):
        """Another module was opened; a click that is under way still lands."""
        # Only our own place mode: that of another list belongs to the user.
        if self.ui.placeButton.checked:
            self.ui.placeWidget.setPlaceModeEnabled(False)

    def onReload(self):
        """Reload the packages of the module, too."""
        for name in [name for name in sys.modules if name.split(".")[0] in PACKAGES]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def onSceneStartClose(self, _caller, _event):
        """Nothing of the scene may be used any more; a result that is under way is dropped."""
        self.endPlacing()
        self.setParameterNode(None)

    def onSceneEnd(self, _caller, _event):
        """The scene was closed or loaded."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self):
        """Use the scene's parameter node; choose a volume if none is chosen."""
        from SAMUSegmentLib.volumes import firstScalarVolume

        self.setParameterNode(self.logic.getParameterNode())
        first = firstScalarVolume(slicer.mrmlScene)
        if first is not None and not self._parameterNode.inputVolume:
            self._parameterNode.inputVolume = first

    def setParameterNode(self, parameterNode):
        """Connect the widgets to a parameter node, or to none."""
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersModified)
        self._parameterNode = parameterNode
        if parameterNode is not None:
            self._guiTag = parameterNode.connectGui(self.ui)
            self.addObserver(parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersModified)
        self.session.setParameters(parameterNode)
        self.showState()

    def onParametersModified(self, _caller=None, _event=None):
        """The user, or the session, changed a choice."""
        self.session.parametersChanged()

    def onPlaceToggled(self, on):
        """The button for placing clicks."""
        if on:
            node = self.session.beginPlacing()
            if node is None:
                self.ui.placeButton.checked = False
                return
            self.ui.placeWidget.setCurrentNode(node)
        self.ui.placeWidget.setPlaceModeEnabled(on)

    def onPlaceModeChanged(self, on):
        """Place mode began or ended elsewhere, e.g. with Esc."""
        # The button only follows: it would end the place mode of another list that was begun instead.
        wasBlocked = self.ui.placeButton.blockSignals(True)
        self.ui.placeButton.checked = on
        self.ui.placeButton.blockSignals(wasBlocked)

    def endPlacing(self):
        """Let go of the list of clicks; a reloaded panel lives on, hidden, and must not follow it."""
        if self.ui.placeButton.checked:
            self.ui.placeWidget.setPlaceModeEnabled(False)
        self.ui.placeWidget.setCurrentNode(None)

    def onSegmentSelected(self, _selected, _deselected):
        """Another row of the table."""
        if self.session is not None and not self._showing:
            chosen = self.ui.segmentsTable.selectedSegmentIDs()
            self.session.selectSegment(chosen[0] if chosen else None)

    def onDependencyButton(self):
        """Get what is missing."""
        with slicer.util.tryWithErrorDisplay(_("The installation failed."), waitCursor=True):
            self.session.getDependencies()

    def onFailure(self, error):
        """A fault of ours stopped the pump; it goes on when the module is entered again."""
        logging.error("SAMUSegment: the panel stopped", exc_info=error)
        self.ui.statusLabel.text = _(
            "An error occurred (see the log). Leave the module and come back to go on."
        )

    def showState(self):
        """Show what the session says."""
        if self._showing or self.session is None:
            return
        self._showing = True
        try:
            self.showView(self.session.view())
            self.showSegments()
        finally:
            self._showing = False

    def showView(self, view):
        """Texts and buttons."""
        ui = self.ui
        ui.statusLabel.text = view.status.text
        ui.progressBar.setVisible(view.busy)
        ui.cancelButton.setVisible(view.busy)
        ui.placeButton.enabled = view.canPlace
        ui.undoButton.enabled = view.canUndo
        ui.redoButton.enabled = view.canRedo
        ui.otherMaskButton.setVisible(view.hasOtherMask)
        ui.latencyLabel.text = view.latency
        ui.deviceLabel.text = view.device
        for widget, text in (
            (ui.borderLabel, view.borderNotice),
            (ui.widerButton, view.widerButton),
            (ui.dependencyLabel, view.dependencyText),
            (ui.dependencyButton, view.dependencyButton),
        ):
            widget.text = text
            widget.setVisible(bool(text))

    def showSegments(self):
        """The table and the 3D button follow the segmentation and its selected segment."""
        parameters = self._parameterNode
        node = parameters.segmentation if parameters is not None else None
        if self.ui.segmentsTable.segmentationNode() is not node:
            self.ui.segmentsTable.setSegmentationNode(node)
        self.ui.show3DButton.setSegmentationNode(node)
        wanted = parameters.segmentID if node is not None else ""
        if wanted and list(self.ui.segmentsTable.selectedSegmentIDs()) != [wanted]:
            self.ui.segmentsTable.setSelectedSegmentIDs([wanted])


class SAMUSegmentTest(ScriptedLoadableModuleTest):
    """The quick self-test; those in Testing/Python/slicer go further."""

    def setUp(self):
        """An empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self):
        """Everything here needs neither torch nor a download."""
        self.setUp()
        self.test_OneClick()

    def test_OneClick(self):
        """One click in a phantom gives a segment, and undo takes it away."""
        from SAMUSegmentLib.selftest import BallPredictor, makePhantom

        volumeNode = makePhantom(slicer.mrmlScene)
        logic = SAMUSegmentLogic(BallPredictor(radius=10.0))
        result = logic.segmentFromPoint(volumeNode, (0.0, 0.0, 0.0))
        self.assertTrue(result.applied, result.message)
        volume = result.voxelCount * 8.0
        self.assertAlmostEqual(volume, 4.0 / 3.0 * 3.14159 * 10.0**3, delta=0.1 * volume)
        self.assertTrue(logic.clicks.undo())
        self.assertEqual(result.segmentationNode.GetSegmentation().GetNumberOfSegments(), 0)
        self.delayDisplay("SAMUSegment: test passed")
