"""From clicks to results without ever waiting: what the panel and the effect decide, free of widgets.

The GUI calls `click` and, from a timer, `tick`; it shows `status`, `busy`, `borderNotice` and so on
after each `onChange`. All of this runs on the main thread; only the prediction does not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from samu_core.errors import Cancelled, SamuError
from SAMUSegmentLib import statustexts
from SAMUSegmentLib.clickeditor import ClickEditor
from SAMUSegmentLib.clicks import SegmentRequest
from SAMUSegmentLib.maskcycle import MaskCycle
from SAMUSegmentLib.options import ClickOptions, FieldOfView
from SAMUSegmentLib.orders import ClickListener, ClickOrder, Place
from SAMUSegmentLib.results import SegmentResult
from SAMUSegmentLib.statustexts import Status
from SAMUSegmentLib.volumes import volumeFromNode
from SAMUSegmentLib.worker import Finished, Progress, WorkerClient


class ClickController:
    """Carries clicks out; the newest wins.

    Args:
        editor: writes them.
        client: of the InferenceWorker.
        onChange: called after every change of what is to be shown.
        refuse: asked with the request before a result is written; an error keeps it from being
            written. The effect refuses when another segmentation was selected meanwhile.
        where: asked where the user is; None is "where the last click was". A result is left alone once
            the user has selected something else, which a new threshold would otherwise deselect.

    Attributes:
        options: of the next click, and of the last one as far as they need no inference.
        status: what to say.
        listener: ClickListener, if any.
    """

    def __init__(
        self,
        editor: ClickEditor,
        client: WorkerClient,
        onChange: Callable[[], None] | None = None,
        refuse: Callable[[SegmentRequest], SamuError | None] | None = None,
        where: Callable[[], Place | None] | None = None,
    ):
        self.editor = editor
        self.options = ClickOptions()
        self.status = Status()
        self.listener: ClickListener | None = None
        self._client = client
        self._onChange = onChange or (lambda: None)
        self._refuse = refuse or (lambda _request: None)
        self._where = where or (lambda: None)
        self._selectedAfter: str | None = None
        self._pending: tuple[ClickOrder, SegmentRequest] | None = None
        self._warming = False
        self._lastOrder: ClickOrder | None = None
        self._reapply = False
        self._cycle = MaskCycle()
        self._nextKey = 0

    # What the GUI shows

    @property
    def busy(self) -> bool:
        """True while a click is under way."""
        return self._pending is not None

    @property
    def pendingOrder(self) -> ClickOrder | None:
        """The click that is under way."""
        return self._pending[0] if self._pending is not None else None

    @property
    def result(self) -> SegmentResult | None:
        """What came of the last click; None after it was undone."""
        return self.editor.last.result if self.editor.last is not None else None

    @property
    def widerView(self) -> FieldOfView | None:
        """What the button for a wider view would use; None when there is nothing to offer."""
        order, result = self._lastOrder, self.result
        if self.busy or not self._isCurrent or not result.touchesBorder:
            return None
        if order is None or order.key != self.editor.last.key:
            return None
        return FieldOfView.widerThan(result.prediction.asked_spacing)

    @property
    def borderNotice(self) -> str:
        """Says that the last structure may be cut; empty when it is not."""
        result = self.result
        if not self._isCurrent or not result.touchesBorder:
            return ""
        grid, wider = result.prediction.grid, FieldOfView.widerThan(result.prediction.asked_spacing)
        return statustexts.border(grid.size * grid.spacing, wider)

    @property
    def hasOtherMask(self) -> bool:
        """True when `otherMask` has a click to work on."""
        return not self.busy and self._isCurrent

    @property
    def _isCurrent(self) -> bool:
        """True when there is a last result and the user is still where it went."""
        result, place = self.result, self._where()
        if result is None or place is None:
            return result is not None
        if place.volumeNode is not result.request.volumeNode:
            return False
        if result.segmentationNode is not None and place.segmentationNode is not result.segmentationNode:
            return False
        # A segment that a threshold emptied is gone, and the editor selects another: no choice of the user.
        return (place.segmentID or None) in (None, result.segmentID, self._selectedAfter)

    def segmentMeant(self, selected: str | None) -> str | None:
        """The segment that the next click is for, given the one the editor has selected; None for a new one.

        When a threshold emptied the new segment of the last click, the editor selects one of its neighbours.
        Nobody chose that one: a click would spoil it.
        """
        result = self.result
        if result is None or selected is None or selected != self._selectedAfter or not self._isCurrent:
            return selected
        node = result.segmentationNode
        emptied = result.request.segmentID is None and (
            not result.segmentID
            or node is None
            or node.GetSegmentation().GetSegment(result.segmentID) is None
        )
        return None if emptied else selected

    # What the GUI asks for

    def newKey(self) -> int:
        """A key for a click that was not there before."""
        self._nextKey += 1
        return self._nextKey

    def click(self, order: ClickOrder) -> bool:
        """Begin a click; the one under way, if any, is dropped. False when it was refused at once."""
        if self._pending is not None and self._pending[0].key == order.key:
            # The same click at another place: not dropped, only begun again.
            self._pending = None
            self._client.cancel()
        self._dropPending()
        try:
            request = self.editor.logic.prepare(
                order.volumeNode, order.pointRAS, order.segmentationNode, order.segmentID, order.mode
            )
        except Exception as error:
            # In a callback of Slicer it would only be printed.
            known = isinstance(error, SamuError)
            self._drop(order, Status(str(error), "error") if known else self._unexpected(error))
            return False
        view = order.fieldOfView or self.options.fieldOfView
        self._pending, self._warming = (order, request), False
        self._client.submit(
            lambda cancelled, progress: self.editor.logic.predict(
                request, spacing=view.spacing, cancelled=cancelled, progress=progress
            )
        )
        self.say(statustexts.STARTED, "busy")
        return True

    def widen(self) -> bool:
        """Repeat the last click with the next wider view, in place of its result."""
        wider, result = self.widerView, self.result
        if wider is None:
            return False
        return self.click(
            replace(
                self._lastOrder,
                segmentationNode=result.segmentationNode,
                segmentID=result.segmentID,
                mode="subtract" if result.mode == "subtract" else "add",
                fieldOfView=wider,
            )
        )

    def otherMask(self) -> bool:
        """The next of the last click's nested masks (samu_core.candidates) in its place; no inference.

        A new click, and a new threshold, show the mask as found again.

        Returns:
            True when another mask is shown.
        """
        if not self.hasOtherMask:
            self.say(statustexts.NO_CLICK_TO_CHANGE, "warning")
            return False
        result = self.result
        candidate, place = self._cycle.following(result.prediction, self.options, result.threshold)
        if candidate is None:
            self.say(statustexts.NO_OTHER_MASK)
            return False
        if not self._applyOptions(replace(self.options, threshold=candidate.threshold), orElse=""):
            return False
        said = statustexts.otherMask(candidate.name, place, candidate.expected_iou)
        self.say(f"{said} {self.status.text}", self.status.kind)
        return True

    def cancel(self) -> None:
        """Drop the click that is under way."""
        if self._dropPending():
            self.say(statustexts.CANCELLED)

    def warmUp(self) -> None:
        """Load the network ahead of the first click, unless a click is under way."""
        if self.busy or self._warming:
            return
        predictor = self.editor.logic.predictor
        self._warming = True
        self._client.submit(lambda _cancelled, _progress: predictor.warm_up())
        self.say(statustexts.WARMING_UP, "busy")

    def lookAhead(self, volumeNode: Any, pointRAS: Sequence[float]) -> bool:
        """Encode the image where a click may come, if there is nothing else to do; says nothing about it.

        Returns:
            True when that was begun.
        """
        predictor = self.editor.logic.predictor
        # Loading the network is for `warmUp`, which says what takes so long.
        if self.busy or self._client.busy or volumeNode is None or not getattr(predictor, "loaded", False):
            return False
        try:
            volume = volumeFromNode(volumeNode)
            point = volume.require_inside(pointRAS)
        except SamuError:
            return False
        spacing = self.options.fieldOfView.spacing
        self._client.submit(
            lambda cancelled, _progress: predictor.prefetch(
                volume, point, spacing=spacing, cancelled=cancelled
            )
        )
        return True

    def setOptions(self, options: ClickOptions) -> None:
        """New options; threshold and component change the last result at the next tick."""
        old, self.options = self.options, options
        if (options.threshold, options.clickedComponent) != (old.threshold, old.clickedComponent):
            self._reapply = self.result is not None

    def tick(self) -> None:
        """Take in what the worker found and what the sliders say; main thread, some 50 times a second."""
        for event in self._client.poll():
            if isinstance(event, Progress):
                self.say(statustexts.stage(event.stage), "busy")
            elif isinstance(event, Finished):
                self._finish(event)
        if self._reapply and not self.busy:
            self._reapply = False
            self._applyOptions(self.options)

    def takeBack(self, keys: list[int], nothing: str = statustexts.NOTHING_TO_GIVE_BACK) -> bool:
        """Remove what clicks did to their segments; False when that failed.

        Args:
            keys: of the clicks.
            nothing: what to say when no voxel changed.
        """
        try:
            changed = self.editor.takeBack(keys)
        except SamuError as error:
            self.say(str(error), "error")
            return False
        self.say(statustexts.gaveBack(changed) if changed else nothing)
        return True

    def undo(self) -> None:
        """Undo the last click or removal."""
        self._step(self.editor.undo, statustexts.UNDONE)

    def redo(self) -> None:
        """Redo what was undone last."""
        self._step(self.editor.redo, statustexts.REDONE)

    def reset(self, text: str = statustexts.READY) -> None:
        """The scene is gone: nothing of it may be touched any more, and no result may land."""
        self._client.cancel()
        self._pending, self._lastOrder, self._reapply, self._warming = None, None, False, False
        self.editor.forget()
        self.say(text)

    def say(self, text: str, kind: str = "info") -> None:
        """Show a line."""
        self.status = Status(text, kind)
        self._onChange()

    # How a click ends

    def _finish(self, event: Finished) -> None:
        if self._pending is None:
            if self._warming:
                self._finishWarmUp(event.error)
            elif event.error is not None:
                logging.warning("SAMUSegment: could not look ahead", exc_info=event.error)
            return
        order, request = self._pending
        self._pending, error = None, event.error
        if error is None:
            error = self._land(order, request, event.value)
        if isinstance(error, Cancelled):
            self._drop(order, Status(statustexts.CANCELLED))
        elif isinstance(error, SamuError):
            self._drop(order, Status(str(error), "error"))
        elif error is not None:
            self._drop(order, self._unexpected(error))

    def _finishWarmUp(self, error: BaseException | None) -> None:
        self._warming = False
        if error is None:
            self.say(statustexts.READY)
        elif isinstance(error, SamuError):
            self.say(str(error), "error")
        else:
            status = self._unexpected(error)
            self.say(status.text, status.kind)

    def _land(self, order: ClickOrder, request: SegmentRequest, prediction: Any) -> BaseException | None:
        """Write a prediction; the error, if it cannot be written."""
        error = self._refuse(request)
        if error is not None:
            return error
        try:
            result = self.editor.land(order.key, request, prediction, self.options)
        except Exception as failure:
            return failure
        self._lastOrder, self._reapply = order, False
        self._announce(order, result)
        return None

    def _applyOptions(self, options: ClickOptions, orElse: str = statustexts.NEXT_CLICK_ONLY) -> bool:
        """Use options for the last click; False when that can not be, with a word about it and `orElse`."""
        if not self._isCurrent:
            self.say(orElse)
            return False
        try:
            result = self.editor.applyOptions(options)
        except SamuError as error:
            self.say(f"{error} {orElse}".strip(), "warning")
            return False
        self._announce(self._lastOrder, result)
        return True

    def _announce(self, order: ClickOrder | None, result: SegmentResult) -> None:
        if self.listener is not None and order is not None:
            self.listener.landed(order, result)
        self.say(result.message, "info" if result.applied and not result.touchesBorder else "warning")
        self._noteSelection()

    def _noteSelection(self) -> None:
        place = self._where()
        self._selectedAfter = None if place is None else place.segmentID or None

    def _step(self, step: Callable[[], bool], text: str) -> None:
        if self.busy:
            self._dropPending()
        if step():
            self._reapply = False
            self.say(text)
            self._noteSelection()
        else:
            self.say(statustexts.NO_STEP, "warning")

    def _dropPending(self) -> bool:
        if self._pending is None:
            return False
        order, self._pending = self._pending[0], None
        self._client.cancel()
        if self.listener is not None:
            self.listener.dropped(order)
        return True

    def _drop(self, order: ClickOrder, status: Status) -> None:
        if self.listener is not None:
            self.listener.dropped(order)
        self.say(status.text, status.kind)

    @staticmethod
    def _unexpected(error: BaseException) -> Status:
        logging.error("SAMUSegment: unexpected error", exc_info=error)
        return Status(statustexts.unexpected(error), "error")
