"""A SegmentWriter that remembers what it changed, and can join edits into one undo step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from samu_core.geometry import Extent
from SAMUSegmentLib.contributions import VoxelSet
from SAMUSegmentLib.editing import SegmentWriter, segmentArray
from SAMUSegmentLib.segmentations import SegmentationGrid


@dataclass(frozen=True, eq=False)
class RecordedEdit:
    """One call of SegmentWriter.modify.

    Attributes:
        segmentID, mode: as they were given.
        found: the voxels of the mask that are now as the mode wants them; masking may hold others back.
        changed: those of the segment that are different now.
        ijkToNode: (4, 4) of the grid that the indices count on.
    """

    segmentID: str
    mode: str
    found: VoxelSet
    changed: VoxelSet
    ijkToNode: np.ndarray


class RecordingWriter(SegmentWriter):
    """SegmentWriter whose last edit can be asked for; args as there."""

    def __init__(self, editorNode: Any | None = None, editorLogic: Any | None = None):
        super().__init__(editorNode, editorLogic)
        self.lastEdit: RecordedEdit | None = None
        self._joining = False
        self._joined = False

    @contextmanager
    def oneStep(self) -> Iterator[None]:
        """All edits within are undone together; an error, or revert() of one of them, reverts them all."""
        self._joining, self._joined = True, False
        try:
            yield
        except BaseException:
            if self._joined:
                self.revert()
            raise
        finally:
            self._joining = False

    def saveState(self) -> None:
        """As SegmentWriter.saveState; within `oneStep` only the first call counts."""
        if self._joining and self._joined:
            return
        super().saveState()
        self._joined = True

    def modify(
        self, segmentID: str, mask: np.ndarray, extent: Extent, grid: SegmentationGrid, mode: str
    ) -> None:
        """As SegmentWriter.modify; `lastEdit` tells afterwards what became of it."""
        self.lastEdit = None
        before = segmentArray(self.segmentationNode, segmentID, extent, grid)
        super().modify(segmentID, mask, extent, grid, mode)
        after = segmentArray(self.segmentationNode, segmentID, extent, grid)
        self.lastEdit = RecordedEdit(
            segmentID=segmentID,
            mode=mode,
            found=VoxelSet.of((mask != 0) & (after == (mode != "subtract")), extent),
            changed=VoxelSet.of(before != after, extent),
            ijkToNode=grid.ijkToNode,
        )
