"""One click in a volume of the MRML scene -> one segment: the entry for module, effect, batch and tests.

    logic = SAMUSegmentLogic(predictor)
    result = logic.segmentFromPoint(volumeNode, (12.0, -30.5, 88.0), segmentationNode)
    result = logic.reapplyThreshold(result, 0.3)

The three steps can be called one by one, so that the inference runs on another thread:
``prepare`` and ``apply`` touch MRML and belong on the main thread, ``predict`` does not.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Callable, Protocol

from samu_core.errors import SamuError
from samu_core.geometry import PATCH_SPACING_MM, Volume
from SAMUSegmentLib import messages
from SAMUSegmentLib.clicks import SegmentRequest, prepareRequest, requireUnchanged
from SAMUSegmentLib.editing import SegmentWriter, contentFingerprint
from SAMUSegmentLib.results import SegmentResult
from SAMUSegmentLib.segmentations import findGrid
from SAMUSegmentLib.targets import TargetMask, maskOnSegmentation
from SAMUSegmentLib.transaction import SegmentAppearance, SegmentTransaction

ProgressCallback = Callable[[str], None]


class PredictorProtocol(Protocol):
    """What the logic needs of samu_core.predictor.Predictor; tests inject a stand-in."""

    def predict(
        self,
        volume: Volume,
        point_ras: Sequence[float],
        *,
        spacing: float | str = PATCH_SPACING_MM,
        cancelled: Callable[[], bool] | None = None,
        progress: ProgressCallback | None = None,
    ) -> Any:
        """samu_core Prediction of the structure at a world RAS point."""


@dataclass(frozen=True)
class _Attempt:
    """A mask that is ready to be written.

    segmentID: the segment; if there is none of that ID, the ID that the new one gets (None: any).
    appearance: what a new segment is to look like; None leaves it to Slicer.
    """

    request: SegmentRequest
    prediction: Any
    threshold: float
    clickedComponent: bool
    target: TargetMask
    maskSeconds: float
    segmentID: str | None
    appearance: SegmentAppearance | None


@dataclass
class _Contribution:
    """What the last click did, as long as another threshold can take its place."""

    attempt: _Attempt
    result: SegmentResult
    fingerprint: tuple
    undoneSteps: int = 0


class SAMUSegmentLogic:
    """Clicks to segments. One instance serves one user at a time, on the main thread.

    Args:
        predictor: samu_core.predictor.Predictor or anything with its `predict`.
        editorNode: vtkMRMLSegmentEditorNode with the masking settings to honour. Without one the
            logic makes its own, which overwrites no neighbouring segment; see `editorNode`.
        writer: a SegmentWriter, to share engine and undo history with others.
    """

    def __init__(
        self,
        predictor: PredictorProtocol,
        editorNode: Any | None = None,
        writer: SegmentWriter | None = None,
    ):
        self.predictor = predictor
        self._writer = writer or SegmentWriter(editorNode)
        self._last: _Contribution | None = None

    def editorNode(self, scene: Any) -> Any:
        """The vtkMRMLSegmentEditorNode whose masking settings apply: overwrite mode, editable area, range."""
        return self._writer.editorNode(scene)

    def segmentFromPoint(
        self,
        volumeNode: Any,
        pointRAS: Sequence[float],
        segmentationNode: Any,
        segmentID: str | None = None,
        mode: str = "add",
        threshold: float = 0.5,
        *,
        spacing: float | str = PATCH_SPACING_MM,
        clickedComponent: bool = True,
        segmentName: str | None = None,
        cancelled: Callable[[], bool] | None = None,
        progress: ProgressCallback | None = None,
    ) -> SegmentResult:
        """Segment the structure at one point.

        Args:
            volumeNode: vtkMRMLScalarVolumeNode with one component.
            pointRAS: (3,) world RAS mm, inside the volume as its parent transforms place it.
            segmentationNode: vtkMRMLSegmentationNode in the same scene; None makes one under the
                volume's parent transform. Its own geometry is kept; without one it gets the volume's.
            segmentID: the segment to change; None makes a new one.
            mode: "add" to the segment, "subtract" from it, "new" segment whatever segmentID says,
                "set": the mask replaces the segment.
            threshold: probability between 0 and 1 from which a voxel belongs to the structure.
            spacing: patch spacing in mm, or "native" (see samu_core.geometry.PatchGrid.for_click).
            clickedComponent: keep only what hangs together with the click.
            segmentName: name of a new segment; None leaves it to Slicer.
            cancelled: asked between the stages; True raises Cancelled.
            progress: called with the name of each stage.

        Returns:
            SegmentResult. When there is nothing to write (empty mask, or masked away) nothing is
            changed, and `applied` is False; `reapplyThreshold` can still make something of it.

        Raises:
            SamuError (PointOutsideVolumeError, VolumeError, Cancelled, ...): nothing was changed.
        """
        request = self.prepare(volumeNode, pointRAS, segmentationNode, segmentID, mode, segmentName)
        prediction = self.predict(request, spacing=spacing, cancelled=cancelled, progress=progress)
        return self.apply(request, prediction, threshold, clickedComponent=clickedComponent)

    def prepare(
        self,
        volumeNode: Any,
        pointRAS: Sequence[float],
        segmentationNode: Any,
        segmentID: str | None = None,
        mode: str = "add",
        segmentName: str | None = None,
    ) -> SegmentRequest:
        """Check a click and collect what the prediction needs; main thread, changes nothing.

        Args and errors as `segmentFromPoint`.
        """
        return prepareRequest(volumeNode, pointRAS, segmentationNode, segmentID, mode, segmentName)

    def predict(
        self,
        request: SegmentRequest,
        *,
        spacing: float | str = PATCH_SPACING_MM,
        cancelled: Callable[[], bool] | None = None,
        progress: ProgressCallback | None = None,
    ) -> Any:
        """The inference for a prepared click: no MRML, any thread. Returns samu_core's Prediction."""
        return self.predictor.predict(
            request.volume, request.pointRAS, spacing=spacing, cancelled=cancelled, progress=progress
        )

    def apply(
        self,
        request: SegmentRequest,
        prediction: Any,
        threshold: float = 0.5,
        *,
        clickedComponent: bool = True,
    ) -> SegmentResult:
        """Write a prediction into the scene; main thread. One undo step, or nothing at all.

        Raises:
            SamuError: the scene changed while the prediction was made, or a write failed; nothing
                was changed.
        """
        requireUnchanged(request)
        return self._carryOut(_attempt(request, prediction, threshold, clickedComponent))

    def reapplyThreshold(
        self, result: SegmentResult, threshold: float, clickedComponent: bool | None = None
    ) -> SegmentResult:
        """Replace what the last click wrote by the mask of another threshold, without inference.

        Undo still goes back to the state before the click, in one step.

        Args:
            result: what `segmentFromPoint`, `apply` or `reapplyThreshold` returned last.
            threshold: the new probability, between 0 and 1.
            clickedComponent: keep only what hangs together with the click; None: as before.

        Returns:
            The new SegmentResult; use it from now on.

        Raises:
            SamuError: it is not the last click any more, the segmentation was edited or undone
                since, or volume or threshold do not allow it; nothing was changed.
        """
        last = self._last
        if last is None or last.result is not result:
            raise SamuError("Only the threshold of the last click can be changed; click again instead.")
        request = replace(result.request, segmentationNode=result.segmentationNode)
        requireUnchanged(request)
        if result.applied:
            self._requireInPlace(last)
        component = last.attempt.clickedComponent if clickedComponent is None else clickedComponent
        # Before anything is taken back: a threshold that is no probability must change nothing.
        attempt = _attempt(request, result.prediction, threshold, component)
        node = result.segmentationNode
        if not result.applied:
            again = replace(attempt, segmentID=result.segmentID, appearance=last.attempt.appearance)
            return self._carryOut(again)
        look = SegmentAppearance.of(node, result.segmentID) if request.segmentID is None else None
        # Undo takes a new segment away and the next write makes it again: views hear of it once.
        wasModifying = node.StartModify()
        try:
            self._writer.undo()
            return self._carryOut(replace(attempt, segmentID=result.segmentID, appearance=look))
        finally:
            node.EndModify(wasModifying)

    def canUndo(self) -> bool:
        """True when there is a step to undo in the segmentation that was edited last."""
        return self._writer.canUndo()

    def canRedo(self) -> bool:
        """True when there is an undone step to redo."""
        return self._writer.canRedo()

    def undo(self) -> bool:
        """Undo the last click (or other edit known to this logic's history); False if there is none."""
        last = self._last
        intact = last is not None and last.result.applied and self._isIntact(last)
        undone = self._writer.undo()
        if undone and last is not None and (intact or last.undoneSteps):
            last.undoneSteps += 1
        return undone

    def redo(self) -> bool:
        """Redo the last undone step; False if there is none."""
        redone = self._writer.redo()
        last = self._last
        if redone and last is not None and last.undoneSteps:
            last.undoneSteps -= 1
            if not last.undoneSteps:
                last.fingerprint = contentFingerprint(last.result.segmentationNode)
        return redone

    def _isIntact(self, last: _Contribution) -> bool:
        node = last.result.segmentationNode
        return not last.undoneSteps and node is not None and last.fingerprint == contentFingerprint(node)

    def _requireInPlace(self, last: _Contribution) -> None:
        if last.undoneSteps:
            raise SamuError("This click was undone; redo it or click again to use another threshold.")
        if not self._isIntact(last):
            raise SamuError(
                "The segmentation was edited after this click; click again to use another threshold."
            )

    def _carryOut(self, attempt: _Attempt) -> SegmentResult:
        """Write, and remember what was done."""
        started, target, request = time.perf_counter(), attempt.target, attempt.request
        node, segmentID, changedCount, touches = request.segmentationNode, attempt.segmentID, 0, False
        if target.voxelCount:
            touches = bool(attempt.prediction.touches_border(attempt.threshold))
            node, segmentID, changedCount, message = self._write(attempt)
            message = messages.withRemarks(message, attempt.prediction, touches)
        else:
            message = messages.nothingFound(attempt.threshold)
        seconds = dict(getattr(attempt.prediction, "seconds", {}))
        seconds.update(mask=attempt.maskSeconds, write=time.perf_counter() - started)
        result = SegmentResult(
            segmentationNode=node,
            segmentID=segmentID,
            mode=request.mode,
            threshold=attempt.threshold,
            voxelCount=target.voxelCount,
            changedVoxelCount=changedCount,
            extent=target.extent,
            touchesBorder=touches,
            message=message,
            prediction=attempt.prediction,
            request=request,
            seconds=seconds,
        )
        self._last = _Contribution(attempt, result, () if node is None else contentFingerprint(node))
        return result

    def _write(self, attempt: _Attempt) -> tuple:
        """(segmentation node, segment ID, changed voxels, message); all or nothing."""
        request, target, segmentID = attempt.request, attempt.target, attempt.segmentID
        mode = "add" if request.mode == "new" else request.mode
        with SegmentTransaction(self._writer, request, target.grid) as transaction:
            segmentation = transaction.segmentationNode.GetSegmentation()
            writtenID = segmentID
            if segmentID is None or segmentation.GetSegment(segmentID) is None:
                writtenID = transaction.addSegment(segmentID, attempt.appearance)
            name = segmentation.GetSegment(writtenID).GetName()
            changedCount, held = transaction.write(writtenID, target, mode)
            if changedCount:
                transaction.commit()
                message = messages.changed(name, mode, target, changedCount)
                return transaction.segmentationNode, writtenID, changedCount, message
        return request.segmentationNode, segmentID, 0, messages.nothingChanged(name, mode, target, held)


def _attempt(request: SegmentRequest, prediction: Any, threshold: float, clickedComponent: bool) -> _Attempt:
    """The mask of a prediction on the grid where it goes; changes nothing."""
    started = time.perf_counter()
    grid = findGrid(request.segmentationNode, request.volumeNode)
    target = maskOnSegmentation(prediction, grid, request.imageGeometry, threshold, clickedComponent)
    return _Attempt(
        request=replace(request, volume=None),
        prediction=prediction,
        threshold=threshold,
        clickedComponent=clickedComponent,
        target=target,
        maskSeconds=time.perf_counter() - started,
        segmentID=request.segmentID,
        appearance=None,
    )
