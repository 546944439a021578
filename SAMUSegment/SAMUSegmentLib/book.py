"""What every click of a session did to which segmentation, so that clicks can be moved and deleted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from samu_core.errors import SamuError
from SAMUSegmentLib.clicks import SegmentRequest
from SAMUSegmentLib.contributions import NO_VOXELS, ClickEdit, VoxelSet, Withdrawal, withdraw
from SAMUSegmentLib.recording import RecordedEdit, RecordingWriter
from SAMUSegmentLib.results import SegmentResult
from SAMUSegmentLib.segmentations import findGrid
from SAMUSegmentLib.targets import TargetMask
from SAMUSegmentLib.transaction import SegmentTransaction
from SAMUSegmentLib.volumes import nameOf


@dataclass(frozen=True, eq=False)
class Entry:
    """A click that was carried out.

    Attributes:
        request: with the segmentation and the segment that it went to.
        ijkToNode: grid of the edit's indices; None when the click changed nothing.
        edit: what it did.
    """

    request: SegmentRequest
    ijkToNode: np.ndarray | None
    edit: ClickEdit


class ClickBook:
    """Entries of clicks by key, oldest first."""

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}

    def __contains__(self, key: int) -> bool:
        return key in self._entries

    def snapshot(self) -> dict:
        """The present contents, for `restore`."""
        return dict(self._entries)

    def restore(self, snapshot: dict) -> None:
        """Go back to a snapshot."""
        self._entries = dict(snapshot)

    def clear(self) -> None:
        """Forget everything."""
        self._entries = {}

    def record(self, key: int, result: SegmentResult, edit: RecordedEdit | None) -> None:
        """Write down what a click did; a click of the same key is replaced, and counts as the newest.

        Args:
            key: names the click.
            result: its outcome.
            edit: what the writer did for it; None when there was nothing to write.
        """
        self._entries.pop(key, None)
        request = replace(
            result.request, segmentationNode=result.segmentationNode, segmentID=result.segmentID
        )
        adds, segmentID = result.mode != "subtract", result.segmentID or ""
        if edit is None:
            self._entries[key] = Entry(request, None, ClickEdit(key, segmentID, adds, NO_VOXELS, NO_VOXELS))
            return
        click = ClickEdit(key, segmentID, adds, edit.found, edit.changed)
        self._entries[key] = Entry(request, edit.ijkToNode, click)

    def takeBack(self, writer: RecordingWriter, key: int) -> int:
        """Take a click out of its segment, as one undo step, and out of the book.

        Voxels that the user edited otherwise since then stay as they are.

        Returns:
            How many voxels changed; 0 when the click had no effect (any more).

        Raises:
            SamuError: the segmentation's voxel grid is not the one of the click any more, or the write
                failed; nothing was changed.
        """
        entry = self._entries[key]
        request, segmentID = entry.request, entry.edit.segmentID
        node = request.segmentationNode
        withdrawal = self._withdrawal(key)
        present = node is not None and node.GetScene() is not None
        if present and node.GetSegmentation().GetSegment(segmentID) is not None and len(entry.edit.changed):
            changed = _write(writer, entry, withdrawal)
        else:
            changed = 0
        edits = {edit.key: edit for edit in withdrawal.remaining}
        del self._entries[key]
        for other, edit in edits.items():
            self._entries[other] = replace(self._entries[other], edit=edit)
        return changed

    def _withdrawal(self, key: int) -> Withdrawal:
        gone = self._entries[key]
        return withdraw([entry.edit for entry in self._entries.values() if _sameGrid(entry, gone)], key)


def _sameGrid(entry: Entry, other: Entry) -> bool:
    """True when the indices of two entries mean the same voxels."""
    if entry is other or entry.request.segmentationNode is not other.request.segmentationNode:
        return entry is other
    if entry.ijkToNode is None or other.ijkToNode is None:
        return False
    return np.allclose(entry.ijkToNode, other.ijkToNode, rtol=0, atol=1e-4)


def _write(writer: RecordingWriter, entry: Entry, withdrawal: Withdrawal) -> int:
    """Clear and fill in one transaction; the number of voxels that changed."""
    request, node = entry.request, entry.request.segmentationNode
    if request.volumeNode.GetScene() is None:
        raise SamuError("The volume of this click was removed; edit the segment in the Segment Editor.")
    grid = findGrid(node, request.volumeNode)
    if not np.allclose(grid.ijkToNode, entry.ijkToNode, rtol=0, atol=1e-4):
        raise SamuError(
            f"The geometry of '{nameOf(node)}' was changed after this click; what the click did stays. "
            "Edit the segment in the Segment Editor."
        )
    changed = 0
    with SegmentTransaction(writer, request, grid) as transaction:
        for voxels, mode in ((withdrawal.clear, "subtract"), (withdrawal.fill, "add")):
            if len(voxels):
                target = TargetMask(_uint8(voxels), voxels.extent, transaction.grid)
                changed += transaction.write(entry.edit.segmentID, target, mode)[0]
        if changed:
            transaction.commit()
    return changed


def _uint8(voxels: VoxelSet) -> Any:
    return voxels.mask().astype(np.uint8)
