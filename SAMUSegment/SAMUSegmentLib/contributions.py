"""What each click did to a segment, so that one of several clicks can be taken back.

Taking a click back means: on the voxels that it changed, the segment becomes what the clicks after it
would have made of it alone. Everything else stays, brush strokes of the user included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from samu_core.geometry import EMPTY_EXTENT, Extent


@dataclass(frozen=True, eq=False)
class VoxelSet:
    """Some voxels of a segmentation's grid, eight to a byte.

    Attributes:
        extent: (i0, i1, j0, j1, k0, k1) inclusive, in the segmentation's indices.
        bits: np.packbits of the (dk, dj, di) mask.
    """

    extent: Extent
    bits: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray, extent: Extent) -> VoxelSet:
        """The voxels of a (dk, dj, di) mask that lies at an extent."""
        result = cls(tuple(int(value) for value in extent), np.packbits(np.asarray(mask) != 0))
        if result._shape != mask.shape:
            raise ValueError(f"A mask of shape {result._shape} is needed for {extent}; got {mask.shape}.")
        return result

    @classmethod
    def at(cls, indices: np.ndarray) -> VoxelSet:
        """The voxels of an (n, 3) array of (i, j, k)."""
        if len(indices) == 0:
            return cls(EMPTY_EXTENT, np.zeros(0, np.uint8))
        low, high = indices.min(axis=0), indices.max(axis=0)
        mask = np.zeros(tuple(high - low + 1)[::-1], dtype=bool)
        mask[tuple((indices - low).T[::-1])] = True
        return cls.of(mask, tuple(int(value) for pair in zip(low, high) for value in pair))

    @property
    def _shape(self) -> tuple[int, int, int]:
        return tuple(max(self.extent[2 * axis + 1] - self.extent[2 * axis] + 1, 0) for axis in (2, 1, 0))

    def mask(self) -> np.ndarray:
        """(dk, dj, di) bool, at `extent`."""
        shape = self._shape
        count = int(np.prod(shape))
        return np.unpackbits(self.bits, count=count).astype(bool).reshape(shape)

    def indices(self) -> np.ndarray:
        """(n, 3) int array of (i, j, k)."""
        return np.argwhere(self.mask())[:, ::-1] + np.array(self.extent[::2])

    def holds(self, indices: np.ndarray) -> np.ndarray:
        """(n,) bool: which of the (n, 3) voxels (i, j, k) are among these."""
        low, high = np.array(self.extent[::2]), np.array(self.extent[1::2])
        inside = np.all((indices >= low) & (indices <= high), axis=1)
        result = np.zeros(len(indices), dtype=bool)
        result[inside] = self.mask()[tuple((indices[inside] - low).T[::-1])]
        return result

    def __len__(self) -> int:
        return int(np.unpackbits(self.bits).sum())


NO_VOXELS = VoxelSet(EMPTY_EXTENT, np.zeros(0, np.uint8))


@dataclass(frozen=True, eq=False)
class ClickEdit:
    """What one click did.

    Attributes:
        key: names the click.
        segmentID: the segment it went to.
        adds: True when it added to the segment, False when it subtracted.
        found: the voxels of its mask, as far as it had its way.
        changed: those that were different before the click.
    """

    key: int
    segmentID: str
    adds: bool
    found: VoxelSet
    changed: VoxelSet


@dataclass(frozen=True, eq=False)
class Withdrawal:
    """How to take a click back.

    Attributes:
        remaining: the edits of the other clicks, as they are afterwards.
        clear: voxels that leave the segment, provided that they are still in it.
        fill: voxels that come back to the segment, provided that they are still missing.
    """

    remaining: tuple[ClickEdit, ...]
    clear: VoxelSet
    fill: VoxelSet


def withdraw(edits: Sequence[ClickEdit], key: int) -> Withdrawal:
    """Take one click out of a sequence, oldest first. KeyError if there is none of that key."""
    edits = tuple(edits)
    position = next((index for index, edit in enumerate(edits) if edit.key == key), None)
    if position is None:
        raise KeyError(key)
    gone = edits[position]
    voxels = gone.changed.indices()
    # The state of these voxels after each click: with the one that goes, and without it.
    present = np.full(len(voxels), gone.adds)
    without = ~present
    remaining = list(edits[:position])
    for edit in edits[position + 1 :]:
        if edit.segmentID == gone.segmentID:
            reached = edit.found.holds(voxels)
            edit = _changingAlso(edit, voxels, reached & (without != edit.adds))
            present[reached] = edit.adds
            without[reached] = edit.adds
        remaining.append(edit)
    differs = present != without
    return Withdrawal(
        remaining=tuple(remaining),
        clear=VoxelSet.at(voxels[differs & present]),
        fill=VoxelSet.at(voxels[differs & without]),
    )


def _changingAlso(edit: ClickEdit, voxels: np.ndarray, changes: np.ndarray) -> ClickEdit:
    """The edit with its `changed` set anew on some voxels, all of which are in `found` where True."""
    if len(voxels) == 0:
        return edit
    mask = edit.changed.mask()
    low, high = np.array(edit.changed.extent[::2]), np.array(edit.changed.extent[1::2])
    inside = np.all((voxels >= low) & (voxels <= high), axis=1)
    mask[tuple((voxels[inside] - low).T[::-1])] = changes[inside]
    return replace(edit, changed=VoxelSet.of(mask, edit.changed.extent))
