"""Clicks as edits of segmentations: land, replace, change the threshold, take back, undo, redo.

All of it is immediate and runs on the main thread; `controller` adds the inference and what is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from samu_core.errors import SamuError
from SAMUSegmentLib.book import ClickBook
from SAMUSegmentLib.clicks import SegmentRequest
from SAMUSegmentLib.editing import contentFingerprint
from SAMUSegmentLib.logic import SAMUSegmentLogic
from SAMUSegmentLib.options import ClickOptions
from SAMUSegmentLib.recording import RecordedEdit, RecordingWriter
from SAMUSegmentLib.results import SegmentResult


class ClickKeeper(Protocol):
    """Who shows the list of clicks and has to follow undo and redo."""

    def snapshot(self) -> Any:
        """The list as it is now."""

    def restore(self, snapshot: Any) -> None:
        """Make the list what it was."""


@dataclass(frozen=True, eq=False)
class LastClick:
    """The click whose threshold can be changed.

    Attributes:
        key: names it.
        result: what came of it.
        replaced: the book before it took the place of an earlier click; None if it took none.
        fingerprint: of the segmentation after it.
        isStep: True when there is an undo step for it.
    """

    key: int
    result: SegmentResult
    replaced: dict | None
    fingerprint: tuple
    isStep: bool


@dataclass(frozen=True, eq=False)
class _Written:
    """A result, whether there is an undo step for it, and what exactly was written."""

    result: SegmentResult
    isStep: bool
    edit: RecordedEdit | None


@dataclass(frozen=True, eq=False)
class _Step:
    """What undo or redo restores beside the segmentation."""

    segmentationNode: Any
    state: tuple


class ClickEditor:
    """Writes clicks into segmentations and remembers what each of them did.

    Args:
        logic: its writer must be `writer`.
        writer: knows what the last edit changed.

    Attributes:
        last: the click that landed last; None when there is none (any more).
        keeper: ClickKeeper, if there is a list of clicks.
    """

    def __init__(self, logic: SAMUSegmentLogic, writer: RecordingWriter):
        self.logic = logic
        self.last: LastClick | None = None
        self.keeper: ClickKeeper | None = None
        self._writer = writer
        self._book = ClickBook()
        self._undo: list[_Step] = []
        self._redo: list[_Step] = []

    def knows(self, key: int) -> bool:
        """True when it is known what the click of this key did."""
        return key in self._book

    def land(
        self, key: int, request: SegmentRequest, prediction: Any, options: ClickOptions
    ) -> SegmentResult:
        """Write a prediction. A click that is known already is replaced; either is one undo step.

        Raises:
            SamuError: nothing was changed.
        """
        before = self._state()
        replaced = self._book.snapshot() if key in self._book else None
        written = self._write(key, request, prediction, options, replaced is not None)
        self._note(key, written, replaced, before)
        return written.result

    def applyOptions(self, options: ClickOptions) -> SegmentResult:
        """The last click with another threshold, in place of what it wrote; no inference.

        Raises:
            SamuError: the last click is not what the segmentation shows; nothing was changed.
        """
        last = self.last
        if last is None:
            raise SamuError("There is no click whose threshold could be changed.")
        before = self._state()
        if last.replaced is None:
            self._writer.lastEdit = None
            result = self.logic.reapplyThreshold(last.result, options.threshold, options.clickedComponent)
            written = _Written(result, result.applied, self._writer.lastEdit)
        else:
            written = self._replaceAgain(last, options)
        if last.isStep and self._undo:
            # Still one step, back to before the click.
            before = self._undo.pop().state
        self._note(last.key, written, last.replaced, before)
        return written.result

    def takeBack(self, keys: Sequence[int]) -> int:
        """Remove what clicks did; one undo step for all. Returns the number of voxels that changed.

        Raises:
            SamuError: it cannot be removed; what was removed before the error is undone.
        """
        before, changed = self._state(), 0
        try:
            with self._writer.oneStep():
                for key in keys:
                    if key in self._book:
                        changed += self._book.takeBack(self._writer, key)
        except BaseException:
            self._restore(before, keeper=False)
            raise
        if self.last is not None and self.last.key in keys:
            self.last = None
        if changed:
            self._push(self._writer.segmentationNode, before)
        return changed

    @property
    def canUndo(self) -> bool:
        """True when `undo` would take a click, or its removal, back."""
        return self._available(self._undo) and self.logic.canUndo()

    @property
    def canRedo(self) -> bool:
        """True when `redo` would bring back what was undone last."""
        return self._available(self._redo) and self.logic.canRedo()

    def undo(self) -> bool:
        """Undo the last step in the segmentation and in the list of clicks; False if there is none."""
        if not self.canUndo:
            return False
        state = self._state()
        self.logic.undo()
        step = self._undo.pop()
        self._redo.append(_Step(step.segmentationNode, state))
        self._restore(step.state)
        return True

    def redo(self) -> bool:
        """Redo what was undone last; False if there is nothing."""
        if not self.canRedo:
            return False
        state = self._state()
        self.logic.redo()
        step = self._redo.pop()
        self._undo.append(_Step(step.segmentationNode, state))
        self._restore(step.state)
        if self.last is not None and self.last.result.segmentationNode is not None:
            fingerprint = contentFingerprint(self.last.result.segmentationNode)
            self.last = replace(self.last, fingerprint=fingerprint)
        return True

    def forget(self) -> None:
        """The scene is gone."""
        self._book.clear()
        self._undo, self._redo, self.last = [], [], None

    def _write(
        self, key: int, request: SegmentRequest, prediction: Any, options: ClickOptions, replaces: bool
    ) -> _Written:
        if not replaces:
            result = self._apply(request, prediction, options)
            return _Written(result, result.applied, self._writer.lastEdit)
        saved, taken = self._book.snapshot(), 0
        try:
            with self._writer.oneStep():
                taken = self._book.takeBack(self._writer, key)
                result = self._apply(request, prediction, options)
                edit = self._writer.lastEdit
        except BaseException:
            self._book.restore(saved)
            raise
        if taken and not result.applied and result.voxelCount:
            # The second edit changed nothing and was reverted, and with it the first one.
            self._book.restore(saved)
            taken = self._book.takeBack(self._writer, key)
        return _Written(result, result.applied or taken > 0, edit)

    def _apply(self, request: SegmentRequest, prediction: Any, options: ClickOptions) -> SegmentResult:
        self._writer.lastEdit = None
        return self.logic.apply(
            request, prediction, options.threshold, clickedComponent=options.clickedComponent
        )

    def _replaceAgain(self, last: LastClick, options: ClickOptions) -> _Written:
        result = last.result
        if last.fingerprint != contentFingerprint(result.segmentationNode):
            raise SamuError("The segmentation was edited after this click.")
        if not 0 < options.threshold < 1:
            raise SamuError(f"The threshold is a probability between 0 and 1; got {options.threshold}.")
        if last.isStep:
            self.logic.undo()
        self._book.restore(last.replaced)
        request = replace(result.request, segmentationNode=result.segmentationNode)
        try:
            return self._write(last.key, request, result.prediction, options, True)
        except BaseException:
            # The click is gone from the segment: from the list as well.
            if last.isStep and self._undo:
                self._restore(self._undo.pop().state)
            raise

    def _note(self, key: int, written: _Written, replaced: dict | None, before: tuple) -> None:
        result = written.result
        self._book.record(key, result, written.edit)
        node = result.segmentationNode
        fingerprint = () if node is None else contentFingerprint(node)
        self.last = LastClick(key, result, replaced, fingerprint, written.isStep)
        if written.isStep:
            self._push(node, before)

    def _push(self, node: Any, before: tuple) -> None:
        if self._undo and self._undo[-1].segmentationNode is not node:
            # The engine's history belongs to one segmentation.
            self._undo = []
        self._undo.append(_Step(node, before))
        self._redo = []

    def _available(self, steps: list) -> bool:
        return bool(steps) and steps[-1].segmentationNode is self._writer.segmentationNode

    def _state(self) -> tuple:
        kept = None if self.keeper is None else self.keeper.snapshot()
        return self._book.snapshot(), self.last, kept

    def _restore(self, state: tuple, keeper: bool = True) -> None:
        book, self.last, kept = state
        self._book.restore(book)
        if keeper and self.keeper is not None:
            self.keeper.restore(kept)
