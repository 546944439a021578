"""Masks into segments, through the Segment Editor's own logic.

vtkSlicerSegmentEditorLogic gives undo, editable areas, overwrite modes and the editable intensity
range for free, as its vtkMRMLSegmentEditorNode says. It reports trouble only as VTK messages; here
they become exceptions. Masks are handed over with the extent of the mask, not of the whole image:
on 512 x 512 x 400 voxels that is 7 to 56 ms instead of 300.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from samu_core.errors import SamuError
from samu_core.geometry import EMPTY_EXTENT, Extent
from SAMUSegmentLib.segmentations import BINARY_LABELMAP, SegmentationGrid
from SAMUSegmentLib.volumes import arrayFromVtkMatrix, nameOf, vtkMatrixFromArray

MAXIMUM_UNDO_STATES = 10
EDITOR_NODE_NAME = "SAMUSegment editor"
# The engine says this whenever Slicer's (Qt) subject hierarchy plugins are not running; it is harmless.
HARMLESS_MESSAGE = "Subject hierarchy items not found"


def isEmptyExtent(extent: Extent) -> bool:
    """True when an inclusive VTK extent holds no voxel."""
    return any(extent[2 * axis] > extent[2 * axis + 1] for axis in range(3))


def intersectExtents(first: Extent, second: Extent) -> Extent:
    """The voxels that two inclusive VTK extents share; EMPTY_EXTENT if there are none."""
    both = tuple((max if index % 2 == 0 else min)(a, b) for index, (a, b) in enumerate(zip(first, second)))
    return EMPTY_EXTENT if isEmptyExtent(both) else both


def uniteExtents(first: Extent, second: Extent) -> Extent:
    """The smallest inclusive VTK extent around two; an empty one counts for nothing."""
    if isEmptyExtent(first) or isEmptyExtent(second):
        return second if isEmptyExtent(first) else first
    return tuple((min if index % 2 == 0 else max)(a, b) for index, (a, b) in enumerate(zip(first, second)))


def extentShape(extent: Extent) -> tuple:
    """(K, J, I) number of voxels of an inclusive VTK extent."""
    return tuple(extent[2 * axis + 1] - extent[2 * axis] + 1 for axis in (2, 1, 0))


def extentSlices(extent: Extent, within: Extent) -> tuple:
    """KJI slices that pick `extent` out of an array that covers `within`."""
    return tuple(
        slice(extent[2 * axis] - within[2 * axis], extent[2 * axis + 1] - within[2 * axis] + 1)
        for axis in (2, 1, 0)
    )


def labelmapFromMask(mask: np.ndarray, extent: Extent, grid: SegmentationGrid) -> Any:
    """A vtkOrientedImageData of a mask's own extent, on the segmentation's lattice.

    Args:
        mask: (dk, dj, di) of 0 and 1 (or bool).
        extent: (i0, i1, j0, j1, k0, k1) inclusive voxel indices of the segmentation, of that shape.
        grid: the segmentation's grid.
    """
    if mask.shape != extentShape(extent):
        raise ValueError(f"A mask of shape {extentShape(extent)} is needed for {extent}; got {mask.shape}.")
    labelmap = slicer.vtkOrientedImageData()
    labelmap.SetExtent(*extent)
    labelmap.SetGeometryFromImageToWorldMatrix(vtkMatrixFromArray(grid.ijkToNode))
    voxels = np.ascontiguousarray(mask, dtype=np.uint8).ravel()
    labelmap.GetPointData().SetScalars(numpy_to_vtk(voxels, deep=True, array_type=vtk.VTK_UNSIGNED_CHAR))
    return labelmap


def segmentLabelmap(segmentationNode: Any, segmentID: str) -> Any:
    """The segment's (possibly shared) vtkOrientedImageData, or None without voxels."""
    segment = segmentationNode.GetSegmentation().GetSegment(segmentID)
    labelmap = None if segment is None else segment.GetRepresentation(BINARY_LABELMAP)
    if labelmap is None or isEmptyExtent(labelmap.GetExtent()):
        return None
    return labelmap if labelmap.GetPointData().GetScalars() is not None else None


def segmentArray(segmentationNode: Any, segmentID: str, extent: Extent, grid: SegmentationGrid) -> np.ndarray:
    """The segment's voxels within an extent of the segmentation's grid, as bool KJI of that shape."""
    array = np.zeros(extentShape(extent), dtype=bool)
    labelmap = segmentLabelmap(segmentationNode, segmentID)
    if labelmap is None or isEmptyExtent(extent):
        return array
    labelmap = _onLattice(labelmap, extent, grid)
    covered = tuple(labelmap.GetExtent())
    common = intersectExtents(covered, extent)
    if isEmptyExtent(common):
        return array
    voxels = vtk_to_numpy(labelmap.GetPointData().GetScalars()).reshape(extentShape(covered))
    value = segmentationNode.GetSegmentation().GetSegment(segmentID).GetLabelValue()
    array[extentSlices(common, extent)] = voxels[extentSlices(common, covered)] == value
    return array


def segmentExtent(segmentationNode: Any, segmentID: str, grid: SegmentationGrid) -> Extent:
    """An extent of the segmentation's grid that holds all of the segment's voxels (not the tightest)."""
    labelmap = segmentLabelmap(segmentationNode, segmentID)
    if labelmap is None:
        return EMPTY_EXTENT
    if not _isOnLattice(labelmap, grid):
        return grid.extent
    return intersectExtents(tuple(labelmap.GetExtent()), grid.extent)


def _isOnLattice(labelmap: Any, grid: SegmentationGrid) -> bool:
    matrix = vtk.vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(matrix)
    return np.allclose(arrayFromVtkMatrix(matrix), grid.ijkToNode, rtol=0, atol=1e-4)


def _onLattice(labelmap: Any, extent: Extent, grid: SegmentationGrid) -> Any:
    # An imported segment may lie on a lattice of its own until it is edited for the first time.
    if _isOnLattice(labelmap, grid):
        return labelmap
    reference, resampled = slicer.vtkOrientedImageData(), slicer.vtkOrientedImageData()
    reference.SetExtent(*extent)
    reference.SetGeometryFromImageToWorldMatrix(vtkMatrixFromArray(grid.ijkToNode))
    slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
        labelmap, reference, resampled, False
    )
    return resampled


def contentFingerprint(segmentationNode: Any) -> tuple:
    """Changes whenever the voxels of any segment do (but not with names, colours or 3D display)."""
    segmentation = segmentationNode.GetSegmentation()
    marks: list[tuple] = []
    for index in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(index)
        labelmap = segment.GetRepresentation(BINARY_LABELMAP)
        # A modification time is never used twice, not even by another object.
        modified = None if labelmap is None else labelmap.GetMTime()
        marks.append((segmentation.GetNthSegmentID(index), segment.GetLabelValue(), modified))
    return tuple(marks)


class SegmentWriter:
    """The Segment Editor's engine with its undo history, for one segmentation at a time.

    Its vtkMRMLSegmentEditorNode holds what the user set: overwrite mode, editable area, editable
    intensity range. Without one from outside it makes its own, hidden and not saved with the scene,
    which starts with "overwrite none": neighbouring segments are never erased unless asked for.

    Args:
        editorNode: a vtkMRMLSegmentEditorNode in the scene whose settings are to be honoured.
        editorLogic: a vtkSlicerSegmentEditorLogic, to share its undo history with others.
    """

    def __init__(self, editorNode: Any | None = None, editorLogic: Any | None = None):
        self._editorNode = editorNode
        self._logic = editorLogic
        self._segmentationNode: Any | None = None
        self._messages: list[str] = []
        self._observed: Any | None = None
        self._observerTags: list[int] = []
        self._edits = 0
        # How many steps redo() may go forward; None: as many as the engine has.
        self._redoSteps: int | None = None

    @property
    def segmentationNode(self) -> Any | None:
        """The segmentation that undo() and redo() act on."""
        node = self._segmentationNode
        return node if node is not None and node.GetScene() is not None else None

    def editorNode(self, scene: Any) -> Any:
        """The vtkMRMLSegmentEditorNode with the masking settings, made on first use."""
        if self._editorNode is None or self._editorNode.GetScene() is None:
            node = slicer.vtkMRMLSegmentEditorNode()
            node.SetName(EDITOR_NODE_NAME)
            node.SetHideFromEditors(True)
            node.SetSaveWithScene(False)
            node.SetOverwriteMode(node.OverwriteNone)
            self._editorNode = scene.AddNode(node)
        return self._editorNode

    def bind(self, segmentationNode: Any, volumeNode: Any) -> None:
        """Make this segmentation and source volume the ones that are edited.

        The undo history belongs to one segmentation; binding another one starts a new history.
        """
        editorNode = self.editorNode(segmentationNode.GetScene())
        logic = self._engine()
        if editorNode.GetSegmentationNode() is not segmentationNode:
            editorNode.SetAndObserveSegmentationNode(segmentationNode)
        if editorNode.GetSourceVolumeNode() is not volumeNode:
            editorNode.SetAndObserveSourceVolumeNode(volumeNode)
        if logic.GetSegmentEditorNode() is not editorNode:
            logic.SetSegmentEditorNode(editorNode)
        self._segmentationNode = segmentationNode
        self._observe(segmentationNode.GetSegmentation())

    def saveState(self) -> None:
        """Remember all segments as they are now: what undo() goes back to after the next edit."""
        if not self._logic.SaveStateForUndo():
            raise SamuError("The state for Undo could not be saved; nothing was changed.")
        self._edits = 0
        self._redoSteps = None

    def select(self, segmentID: str) -> None:
        """Select a segment; the editable area is computed for the selected one."""
        self._editorNode.SetSelectedSegmentID(segmentID)

    def modify(
        self, segmentID: str, mask: np.ndarray, extent: Extent, grid: SegmentationGrid, mode: str
    ) -> None:
        """Apply a mask to a segment as the editor node's settings allow.

        Args:
            segmentID: a segment of the bound segmentation.
            mask: (dk, dj, di) of 0 and 1.
            extent: its inclusive voxel extent in the segmentation's indices.
            grid: the segmentation's grid.
            mode: "add", "subtract" or "set" (the mask replaces the segment's editable voxels).

        Raises:
            SamuError: the engine reported an error; the segmentation may be half written, call
                `revert`.
        """
        self._messages.clear()
        self.select(segmentID)
        if mode == "set":
            self._moveToLattice(segmentID, extent, grid)
            mask, extent = self._widenedToSegment(segmentID, mask, extent, grid)
        self._handOver(segmentID, labelmapFromMask(mask, extent, grid), mode)
        if self._messages:
            raise SamuError(
                f"'{nameOf(self._segmentationNode)}' could not be edited ({self._messages[0]}); "
                "nothing was changed."
            )

    def _handOver(self, segmentID: str, labelmap: Any, mode: str) -> None:
        logic = self._logic
        modes = {
            "add": logic.ModificationModeAdd,
            "subtract": logic.ModificationModeRemove,
            "set": logic.ModificationModeSet,
        }
        # Per segment; masking is not bypassed, which would also switch overwriting off.
        logic.ModifySegmentByLabelmap(self._segmentationNode, segmentID, labelmap, modes[mode], True, False)

    def _moveToLattice(self, segmentID: str, extent: Extent, grid: SegmentationGrid) -> None:
        # The engine's set mode takes an imported segment's own lattice for the reference lattice and so
        # erases in the wrong place; adding nothing makes it resample the segment first.
        labelmap = segmentLabelmap(self._segmentationNode, segmentID)
        if labelmap is not None and not _isOnLattice(labelmap, grid):
            nothing = np.zeros(extentShape(extent), dtype=np.uint8)
            self._handOver(segmentID, labelmapFromMask(nothing, extent, grid), "add")

    def _widenedToSegment(
        self, segmentID: str, mask: np.ndarray, extent: Extent, grid: SegmentationGrid
    ) -> tuple:
        # In set mode the engine keeps what the masks protect only within the extent that it is given.
        wide = uniteExtents(extent, segmentExtent(self._segmentationNode, segmentID, grid))
        widened = np.zeros(extentShape(wide), dtype=np.uint8)
        widened[extentSlices(extent, wide)] = mask
        return widened, wide

    def revert(self) -> None:
        """Go back to the state of the last saveState() as if nothing had been edited since.

        Leaves neither a redo step nor an undo step behind; does nothing if nothing was edited.
        """
        if self._edits and self.canUndo():
            self._logic.Undo()
            # Saving again replaces the state that was left, so that redo cannot bring it back. What
            # remains as the last redo step equals the present state: not offered.
            self._logic.SaveStateForUndo()
            self._redoSteps = 0
        self._edits = 0

    def canUndo(self) -> bool:
        """True when undo() would change something."""
        return self.segmentationNode is not None and bool(self._logic.CanUndo())

    def canRedo(self) -> bool:
        """True when redo() would change something."""
        return self.segmentationNode is not None and self._redoSteps != 0 and bool(self._logic.CanRedo())

    def undo(self) -> bool:
        """Restore all segments of the bound segmentation to the previous state; False if there is none."""
        available = self.canUndo()
        if available:
            self._logic.Undo()
            self._redoSteps = None if self._redoSteps is None else self._redoSteps + 1
        return available

    def redo(self) -> bool:
        """Take back the last undo(); False if there is none."""
        available = self.canRedo()
        if available:
            self._logic.Redo()
            self._redoSteps = None if self._redoSteps is None else self._redoSteps - 1
        return available

    def _observe(self, segmentation: Any) -> None:
        if self._observed is segmentation:
            return
        for tag in self._observerTags:
            self._observed.RemoveObserver(tag)
        # What vtkSegmentationHistory counts as an edit: from then on undo means "back to the saved state".
        edits = ("SegmentAdded", "SegmentRemoved", "SegmentModified", "SourceRepresentationModified")
        self._observerTags = [
            segmentation.AddObserver(getattr(segmentation, event), self._onEdit) for event in edits
        ]
        self._observed = segmentation
        self._edits = 0
        self._redoSteps = None

    def _onEdit(self, _caller: Any, _event: str) -> None:
        self._edits += 1

    def _engine(self) -> Any:
        # No scene is set: editing needs none, and the method to do so changed its name between versions.
        if self._logic is None:
            self._logic = slicer.vtkSlicerSegmentEditorLogic()
            self._logic.SetMaximumNumberOfUndoStates(MAXIMUM_UNDO_STATES)
        if not self._logic.HasObserver("ErrorEvent"):
            # Verbose: otherwise the engine fails without a word.
            self._logic.SetVerbose(True)
            self._logic.AddObserver("ErrorEvent", self._onMessage)
            self._logic.AddObserver("WarningEvent", self._onMessage)
        return self._logic

    @vtk.calldata_type(vtk.VTK_STRING)
    def _onMessage(self, _caller: Any, _event: str, message: str) -> None:
        if HARMLESS_MESSAGE not in message:
            self._messages.append(" ".join(message.split()).split("): ", 1)[-1])
