"""The effect without its widgets: clicks into the segment that the Segment Editor has selected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from samu_core.errors import SamuError
from SAMUSegmentLib.clickeditor import ClickEditor
from SAMUSegmentLib.clicks import SegmentRequest
from SAMUSegmentLib.controller import ClickController
from SAMUSegmentLib.dependencies import Dependencies
from SAMUSegmentLib.effectengine import EffectEngine, EffectWriter
from SAMUSegmentLib.logic import SAMUSegmentLogic
from SAMUSegmentLib.options import THRESHOLD_DEFAULT, ClickOptions, FieldOfView, clampedThreshold
from SAMUSegmentLib.orders import ClickOrder, Place
from SAMUSegmentLib.resting import RestingCursor
from SAMUSegmentLib.worker import InferenceWorker

# Parameters of the effect in the vtkMRMLSegmentEditorNode, with their defaults.
PARAMETER_DEFAULTS = {
    "Threshold": THRESHOLD_DEFAULT,
    "ClickedComponent": 1,
    "FieldOfView": FieldOfView.STANDARD.value,
}


def optionsFromParameters(threshold: float, clickedComponent: int, fieldOfView: str) -> ClickOptions:
    """Options from the effect's parameters, whatever an old scene may say."""
    known = {choice.value: choice for choice in FieldOfView}
    view = known.get(fieldOfView, FieldOfView.STANDARD)
    return ClickOptions(clampedThreshold(threshold), bool(clickedComponent), view)


class EffectSession:
    """One editor's effect.

    Args:
        editorNode: called for the vtkMRMLSegmentEditorNode of the editor.
        engine: EffectEngine.
        predictor, worker: shared with the module.
        dependencies: says whether PyTorch is there.
        onChange: called when there is something new to show.
    """

    def __init__(
        self,
        editorNode: Callable[[], Any],
        engine: EffectEngine,
        predictor: Any,
        worker: InferenceWorker,
        dependencies: Dependencies | None = None,
        onChange: Callable[[], None] | None = None,
    ):
        self._editorNode = editorNode
        self._dependencies = dependencies or Dependencies()
        writer = EffectWriter(engine)
        logic = SAMUSegmentLogic(predictor, writer=writer)
        self.controller = ClickController(
            ClickEditor(logic, writer), worker.client(), onChange, self._refusal, self._place
        )
        self._cursor = RestingCursor(self._rested)

    def click(self, pointRAS: Sequence[float], mode: str) -> bool:
        """A click in a view. Returns False when it was refused at once.

        Args:
            pointRAS: (3,) world RAS mm.
            mode: "add" or "subtract".
        """
        self._cursor.left()
        state, node = self._dependencies.check(), self._editorNode()
        if not state.ready:
            self.controller.say(f"{state.text} See the module SAMUSegment.", "error")
            return False
        if node is None or node.GetSegmentationNode() is None:
            self.controller.say("Select or create a segmentation first.", "error")
            return False
        return self.controller.click(
            ClickOrder(
                key=self.controller.newKey(),
                pointRAS=tuple(float(value) for value in pointRAS),
                volumeNode=node.GetSourceVolumeNode(),
                segmentationNode=node.GetSegmentationNode(),
                segmentID=self.controller.segmentMeant(self._selectedSegment(node)),
                mode=mode,
            )
        )

    def cursorMoved(self, pointRAS: Sequence[float]) -> None:
        """The cursor is at a world RAS point of a view; where it rests, a click is prepared."""
        self._cursor.moved(pointRAS)

    def cursorLeft(self) -> None:
        """The cursor is in no view of ours."""
        self._cursor.left()

    def tick(self) -> None:
        """Some 50 times a second: results, sliders, the cursor at rest."""
        self.controller.tick()
        self._cursor.tick()

    def selectionChanged(self) -> None:
        """Another source volume or segmentation: what is under way belongs to the one before."""
        pending, node = self.controller.pendingOrder, self._editorNode()
        if pending is None:
            return
        if (
            node is None
            or pending.volumeNode is not node.GetSourceVolumeNode()
            or pending.segmentationNode is not node.GetSegmentationNode()
        ):
            self.controller.cancel()

    def deactivate(self) -> None:
        """The effect was left; a click that is under way is dropped."""
        self._cursor.left()
        self.controller.cancel()

    def _rested(self, pointRAS: Sequence[float]) -> None:
        node = self._editorNode()
        if node is not None and self._dependencies.check().ready:
            self.controller.lookAhead(node.GetSourceVolumeNode(), pointRAS)

    def _place(self) -> Place | None:
        node = self._editorNode()
        if node is None or node.GetSegmentationNode() is None:
            return Place(None, None, None)
        return Place(node.GetSourceVolumeNode(), node.GetSegmentationNode(), self._selectedSegment(node))

    @staticmethod
    def _selectedSegment(node: Any) -> str | None:
        segmentID = node.GetSelectedSegmentID()
        if not segmentID or node.GetSegmentationNode().GetSegmentation().GetSegment(segmentID) is None:
            return None
        return segmentID

    def _refusal(self, request: SegmentRequest) -> SamuError | None:
        node = self._editorNode()
        if (
            node is not None
            and node.GetSegmentationNode() is request.segmentationNode
            and node.GetSourceVolumeNode() is request.volumeNode
        ):
            return None
        return SamuError("Segmentation or source volume were changed meanwhile; the result was dropped.")
