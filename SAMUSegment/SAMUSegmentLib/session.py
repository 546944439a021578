"""The module's panel without its widgets: what it shows, and what its buttons do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from samu_core.errors import SamuError
from SAMUSegmentLib import statustexts
from SAMUSegmentLib.clickeditor import ClickEditor
from SAMUSegmentLib.clicklist import ClickList, ClickTarget
from SAMUSegmentLib.controller import ClickController
from SAMUSegmentLib.dependencies import Dependencies
from SAMUSegmentLib.logic import SAMUSegmentLogic
from SAMUSegmentLib.options import ClickMode, ClickOptions, clampedThreshold
from SAMUSegmentLib.orders import Place
from SAMUSegmentLib.outline import PatchOutline
from SAMUSegmentLib.recording import RecordingWriter
from SAMUSegmentLib.statustexts import Status
from SAMUSegmentLib.volumes import requireScalarVolume
from SAMUSegmentLib.worker import InferenceWorker


@dataclass(frozen=True)
class PanelView:
    """What the panel shows now; texts are empty where there is nothing to show."""

    status: Status
    busy: bool
    canPlace: bool
    canUndo: bool
    canRedo: bool
    hasOtherMask: bool
    borderNotice: str
    widerButton: str
    latency: str
    device: str
    dependencyText: str
    dependencyButton: str


class PanelSession:
    """One user in one scene.

    Args:
        scene: vtkMRMLScene.
        predictor: samu_core Predictor or a stand-in.
        worker: InferenceWorker; its thread runs the predictions.
        dependencies: says whether PyTorch is there.
        onChange: called when `view` may have changed.

    Attributes:
        parameters: the module's parameter node, or anything with its attributes; None while there is
            no scene to work in. See `parameters.SAMUSegmentParameterNode`.
    """

    def __init__(
        self,
        scene: Any,
        predictor: Any,
        worker: InferenceWorker,
        dependencies: Dependencies | None = None,
        onChange: Callable[[], None] | None = None,
    ):
        self.parameters: Any | None = None
        self._scene = scene
        self._dependencies = dependencies or Dependencies()
        self._onChange = onChange or (lambda: None)
        self._ready = self._dependencies.check()
        writer = RecordingWriter()
        self.logic = SAMUSegmentLogic(predictor, writer=writer)
        editor = ClickEditor(self.logic, writer)
        self.controller = ClickController(
            editor, worker.client(), self._onControllerChange, where=self._place
        )
        self.clicks = ClickList(self.controller, self._target)
        self.outline = PatchOutline()
        self._seen: Any | None = None

    def setParameters(self, parameters: Any | None) -> None:
        """Work with a parameter node; None when the scene is closed, which drops everything."""
        if parameters is None:
            self.parameters = None
            self.clicks.release()
            self.controller.reset(statustexts.SCENE_CLOSED)
            self._seen = None
            return
        self.parameters = parameters
        self.parametersChanged()

    def parametersChanged(self) -> None:
        """Something in the parameter node is different: heed it."""
        parameters = self.parameters
        # While a scene is loaded the points of its list are not there yet: they would pass for new clicks.
        if parameters is None or self._scene.IsImporting():
            return
        self.clicks.use(parameters.clicks)
        self.controller.setOptions(
            ClickOptions(
                threshold=clampedThreshold(parameters.threshold),
                clickedComponent=bool(parameters.clickedComponent),
                fieldOfView=parameters.fieldOfView,
            )
        )
        self._updateOutline()
        self._onChange()

    def tick(self) -> None:
        """From a timer, some 50 times a second."""
        if self.parameters is not None:
            self.clicks.tick()
        self.controller.tick()

    def view(self) -> PanelView:
        """What the panel is to show."""
        controller, result, wider = self.controller, self.controller.result, self.controller.widerView
        return PanelView(
            status=controller.status,
            busy=controller.busy,
            canPlace=self._ready.ready and self.parameters is not None and bool(self.parameters.inputVolume),
            canUndo=controller.editor.canUndo,
            canRedo=controller.editor.canRedo,
            hasOtherMask=controller.hasOtherMask,
            borderNotice=controller.borderNotice,
            widerButton=f"Use {wider.label()}" if wider is not None else "",
            latency=statustexts.latency(result.seconds) if result is not None else "",
            device=statustexts.device(result.prediction) if result is not None else "",
            dependencyText=self._ready.text,
            dependencyButton=self._ready.button,
        )

    def beginPlacing(self) -> Any | None:
        """The fiducial node to place clicks in; None, and a word about it, when clicks cannot work."""
        if self.parameters is None or not self._ready.ready:
            self.controller.say(self._ready.text or statustexts.SCENE_CLOSED, "error")
            return None
        try:
            requireScalarVolume(self.parameters.inputVolume)
        except SamuError as error:
            self.controller.say(str(error), "error")
            return None
        node = self.clicks.ensureNode(self._scene)
        self.parameters.clicks = node
        self.controller.warmUp()
        return node

    def selectSegment(self, segmentID: str | None) -> None:
        """The segment that the next click adds to or subtracts from."""
        if self.parameters is not None and self.parameters.segmentID != (segmentID or ""):
            self.parameters.segmentID = segmentID or ""

    def checkDependencies(self) -> None:
        """Look again what is missing, e.g. when the module is entered."""
        self._ready = self._dependencies.check()
        self._onChange()

    def getDependencies(self) -> None:
        """What the button under the note about missing packages does."""
        try:
            self._ready = self._dependencies.proceed()
        except SamuError as error:
            self.controller.say(str(error), "error")
            return
        if self._ready.ready:
            self.controller.say(statustexts.READY)
        self._onChange()

    def use(self, predictor: Any, dependencies: Dependencies) -> tuple:
        """Work with another predictor, as self-tests do; returns what was used before."""
        before = self.logic.predictor, self._dependencies
        self.controller.cancel()
        self.logic.predictor, self._dependencies = predictor, dependencies
        self.checkDependencies()
        return before

    def close(self) -> None:
        """The panel is gone."""
        self.clicks.release()
        self.controller.reset()

    def _target(self) -> ClickTarget:
        place, mode = self._place(), ClickMode(self.parameters.mode).value
        return ClickTarget(place.volumeNode, place.segmentationNode, place.segmentID, mode)

    def _place(self) -> Place | None:
        parameters = self.parameters
        if parameters is None:
            return None
        node, segmentID = parameters.segmentation, parameters.segmentID or None
        if node is None or segmentID is None or node.GetSegmentation().GetSegment(segmentID) is None:
            segmentID = None
        return Place(parameters.inputVolume, node, segmentID)

    def _onControllerChange(self) -> None:
        result = self.controller.result
        if result is not self._seen:
            self._seen = result
            self._follow(result)
        self._onChange()

    def _follow(self, result: Any | None) -> None:
        """The next click goes on where the last one ended."""
        if self.parameters is None:
            return
        if result is not None and result.segmentationNode is not None:
            if self.parameters.segmentation is not result.segmentationNode:
                self.parameters.segmentation = result.segmentationNode
            if result.segmentID is not None and result.applied:
                self.selectSegment(result.segmentID)
        self._updateOutline()

    def _updateOutline(self) -> None:
        result = self.controller.result
        if self.parameters.showPatch and result is not None:
            self.outline.show(self._scene, result.prediction.grid)
        else:
            self.outline.hide()
