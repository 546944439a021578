"""The list of clicks: a fiducial node whose points are the clicks.

Placing a point is a click, moving it segments anew, deleting it takes back what it did. Mode and segment
of each click are kept in its point's description, so that a saved scene can go on where it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import slicer

from SAMUSegmentLib import statustexts
from SAMUSegmentLib.controller import ClickController
from SAMUSegmentLib.options import ClickMode
from SAMUSegmentLib.orders import ClickOrder
from SAMUSegmentLib.results import SegmentResult

LIST_NAME = "SAMUSegment clicks"
# Points that differ by less did not move; saving a scene rounds.
MOVED_MM = 1e-3
LABELS = {"add": "+", "subtract": "-", "new": "+"}


@dataclass(frozen=True)
class ClickTarget:
    """Where the next click goes."""

    volumeNode: Any
    segmentationNode: Any
    segmentID: str | None
    mode: str


@dataclass(frozen=True, eq=False)
class ListedClick:
    """A click that landed.

    Attributes:
        pointRAS: where.
        mode: "add" or "subtract".
        segmentationNode, segmentID: where it went.
        restored: True for a click of a saved scene, of which nobody knows what it did.
    """

    pointRAS: tuple[float, float, float]
    mode: str
    segmentationNode: Any
    segmentID: str | None
    restored: bool = False

    @property
    def description(self) -> str:
        """What is saved with the point."""
        nodeID = self.segmentationNode.GetID() if self.segmentationNode is not None else ""
        return f"{self.mode} {nodeID} {self.segmentID or ''}".strip()


class ClickList:
    """Keeps fiducial points and clicks in step.

    Events of the node only raise a flag; `tick` does the work, outside of the node's callbacks, and not
    while a point is being dragged.

    Args:
        controller: carries the clicks out.
        target: asked where a new click goes.
    """

    def __init__(self, controller: ClickController, target: Callable[[], ClickTarget]):
        self._controller = controller
        self._target = target
        self._node: Any | None = None
        self._tags: list[int] = []
        self._clicks: dict[int, ListedClick] = {}
        self._pointIDs: dict[int, str] = {}
        self._dirty = self._dragging = False
        controller.listener = self
        controller.editor.keeper = self

    @property
    def node(self) -> Any | None:
        """The vtkMRMLMarkupsFiducialNode; None when there is none in the scene (any more)."""
        return self._node if self._node is not None and self._node.GetScene() is not None else None

    def ensureNode(self, scene: Any) -> Any:
        """The node of the list, made if there is none."""
        if self.node is None:
            node = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", scene.GenerateUniqueName(LIST_NAME))
            node.CreateDefaultDisplayNodes()
            self.use(node)
        return self.node

    def use(self, node: Any | None) -> None:
        """Follow a node; the points that it has already are clicks of an earlier session."""
        if node is self._node:
            return
        self.release()
        self._node = node
        if node is None:
            return
        events = {
            node.PointPositionDefinedEvent: self._onChange,
            node.PointModifiedEvent: self._onChange,
            node.PointRemovedEvent: self._onChange,
            node.PointStartInteractionEvent: self._onDragStart,
            node.PointEndInteractionEvent: self._onDragEnd,
        }
        self._tags = [node.AddObserver(event, callback) for event, callback in events.items()]
        for pointID, position in self._points().items():
            index = node.GetNthControlPointIndexByID(pointID)
            self._restoreClick(pointID, position, node.GetNthControlPointDescription(index))

    def release(self) -> None:
        """Follow no node any more; the points stay where they are."""
        if self._node is not None:
            for tag in self._tags:
                self._node.RemoveObserver(tag)
        self._node, self._tags, self._clicks, self._pointIDs = None, [], {}, {}
        self._dirty = self._dragging = False

    def tick(self) -> None:
        """Heed what happened to the points since the last call."""
        if not self._dirty or self._dragging:
            return
        self._dirty = False
        if self.node is None:
            return
        points = self._points()
        known = {pointID: key for key, pointID in self._pointIDs.items()}
        deleted = [key for key, pointID in self._pointIDs.items() if pointID not in points]
        if deleted:
            self._delete(deleted)
        for pointID, position in points.items():
            if pointID not in known:
                self._place(pointID, position)
            elif self._hasMoved(known[pointID], position):
                self._move(known[pointID], position)

    # ClickListener

    def landed(self, order: ClickOrder, result: SegmentResult) -> None:
        """The click is in the segment now: its point is confirmed."""
        mode = "subtract" if result.mode == "subtract" else "add"
        click = ListedClick(order.pointRAS, mode, result.segmentationNode, result.segmentID)
        self._clicks[order.key] = click
        self._write(order.key, click)

    def dropped(self, order: ClickOrder) -> None:
        """A click that came to nothing leaves no point; one that was moved goes back."""
        click = self._clicks.get(order.key)
        if click is None:
            self._removePoint(order.key)
        else:
            self._write(order.key, click)

    # ClickKeeper

    def snapshot(self) -> dict:
        """The clicks that landed."""
        return dict(self._clicks)

    def restore(self, snapshot: dict) -> None:
        """Undo and redo: points come, go and move along with the segment."""
        for key in [key for key in self._pointIDs if key not in snapshot]:
            self._removePoint(key)
        self._clicks = dict(snapshot)
        for key, click in self._clicks.items():
            self._write(key, click)

    def _onChange(self, *_args: Any) -> None:
        self._dirty = True

    def _onDragStart(self, *_args: Any) -> None:
        self._dragging = True

    def _onDragEnd(self, *_args: Any) -> None:
        self._dragging, self._dirty = False, True

    def _points(self) -> dict[str, tuple[float, float, float]]:
        """ID -> world RAS of the points that have been placed."""
        node, points = self._node, {}
        for index in range(node.GetNumberOfControlPoints()):
            if node.GetNthControlPointPositionStatus(index) == slicer.vtkMRMLMarkupsNode.PositionDefined:
                position = [0.0, 0.0, 0.0]
                node.GetNthControlPointPositionWorld(index, position)
                points[node.GetNthControlPointID(index)] = tuple(position)
        return points

    def _hasMoved(self, key: int, position: tuple) -> bool:
        pending = self._controller.pendingOrder
        if pending is not None and pending.key == key:
            expected = pending.pointRAS
        elif key in self._clicks:
            expected = self._clicks[key].pointRAS
        else:
            return False
        return bool(np.linalg.norm(np.subtract(expected, position)) > MOVED_MM)

    def _place(self, pointID: str, position: tuple) -> None:
        key, target = self._controller.newKey(), self._target()
        self._pointIDs[key] = pointID
        self._controller.click(
            ClickOrder(
                key, position, target.volumeNode, target.segmentationNode, target.segmentID, target.mode
            )
        )

    def _move(self, key: int, position: tuple) -> None:
        click, target = self._clicks.get(key), self._target()
        if click is None:
            # It was on its way for the first time when it was moved.
            pending = self._controller.pendingOrder
            self._controller.click(replace(pending, pointRAS=position))
            return
        self._controller.click(
            ClickOrder(key, position, target.volumeNode, click.segmentationNode, click.segmentID, click.mode)
        )

    def _delete(self, keys: list[int]) -> None:
        pending = self._controller.pendingOrder
        for key in keys:
            self._pointIDs.pop(key)
        if pending is not None and pending.key in keys:
            self._controller.cancel()
        landed = [key for key in keys if key in self._clicks]
        if not landed:
            return
        restored = any(self._clicks[key].restored for key in landed)
        nothing = statustexts.FROM_SAVED_SCENE if restored else statustexts.NOTHING_TO_GIVE_BACK
        if not self._controller.takeBack(landed, nothing):
            for key in landed:
                self._write(key, self._clicks[key])
            return
        for key in landed:
            self._clicks.pop(key, None)

    def _restoreClick(self, pointID: str, position: tuple, description: str) -> None:
        words = description.split(" ", 2) + ["", "", ""]
        scene = self._node.GetScene()
        segmentationNode = scene.GetNodeByID(words[1]) if words[1] else None
        mode = words[0] if words[0] in (ClickMode.ADD.value, ClickMode.SUBTRACT.value) else "add"
        segmentID = words[2] or None
        if segmentationNode is None or segmentationNode.GetSegmentation().GetSegment(segmentID or "") is None:
            segmentID = None
        key = self._controller.newKey()
        self._pointIDs[key] = pointID
        self._clicks[key] = ListedClick(position, mode, segmentationNode, segmentID, restored=True)

    def _write(self, key: int, click: ListedClick) -> None:
        """Make the point of a click say what the click is; a point that was deleted comes back."""
        if self.node is None:
            return
        index = self._indexOf(key)
        if index < 0:
            index = self._node.AddControlPointWorld(*click.pointRAS)
            self._pointIDs[key] = self._node.GetNthControlPointID(index)
        else:
            self._node.SetNthControlPointPositionWorld(index, *click.pointRAS)
        self._node.SetNthControlPointLabel(index, LABELS[click.mode])
        self._node.SetNthControlPointDescription(index, click.description)

    def _removePoint(self, key: int) -> None:
        index = self._indexOf(key)
        self._pointIDs.pop(key, None)
        if index >= 0:
            self._node.RemoveNthControlPoint(index)

    def _indexOf(self, key: int) -> int:
        if self.node is None or key not in self._pointIDs:
            return -1
        return self._node.GetNthControlPointIndexByID(self._pointIDs[key])
