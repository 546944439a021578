"""The Segment Editor of the application in the place of a vtkSlicerSegmentEditorLogic.

An effect must edit through its editor: then Ctrl+Z, masking and overwriting are the editor's own. This
class offers the part of vtkSlicerSegmentEditorLogic that SegmentWriter uses and passes it on.
"""

from __future__ import annotations

from typing import Any

from SAMUSegmentLib.recording import RecordingWriter


class EffectEngine:
    """Engine for SegmentWriter on top of a segment editor effect.

    Args:
        scriptedEffect: qSlicerSegmentEditorScriptedEffect.
        editorWidget: the qMRMLSegmentEditorWidget that the effect belongs to.
        modes: has ModificationModeAdd, ...Set and ...Remove (qSlicerSegmentEditorAbstractEffect).
        canUndo, canRedo: say whether the editor has a step; the widget itself does not tell.
    """

    def __init__(self, scriptedEffect: Any, editorWidget: Any, modes: Any, canUndo: Any, canRedo: Any):
        self._effect = scriptedEffect
        self._editorWidget = editorWidget
        self.ModificationModeAdd = modes.ModificationModeAdd
        self.ModificationModeSet = modes.ModificationModeSet
        self.ModificationModeRemove = modes.ModificationModeRemove
        self.CanUndo = canUndo
        self.CanRedo = canRedo

    def GetSegmentEditorNode(self) -> Any:
        """The vtkMRMLSegmentEditorNode of the editor."""
        return self._effect.parameterSetNode()

    def SetSegmentEditorNode(self, _node: Any) -> None:
        """The editor has its node, and keeps it."""

    def HasObserver(self, _event: str) -> bool:
        """The editor reports its errors itself."""
        return True

    def SaveStateForUndo(self) -> bool:
        """Remember the segmentation in the editor's history."""
        self._effect.saveStateForUndo()
        return True

    def ModifySegmentByLabelmap(
        self, _node: Any, _segmentID: str, labelmap: Any, mode: Any, _perSegment: bool, _bypass: bool
    ) -> None:
        """Edit the selected segment, which SegmentWriter has selected before."""
        self._effect.modifySelectedSegmentByLabelmap(labelmap, mode)

    def Undo(self) -> None:
        """As the editor's button does."""
        self._editorWidget.undo()

    def Redo(self) -> None:
        """As the editor's button does."""
        self._editorWidget.redo()


class EffectWriter(RecordingWriter):
    """RecordingWriter for an editor of the application.

    Args:
        engine: EffectEngine.
    """

    def __init__(self, engine: EffectEngine):
        super().__init__(engine.GetSegmentEditorNode(), engine)
        self._engineOfEffect = engine

    def editorNode(self, scene: Any) -> Any:
        """The editor's present node; an editor gets another one when the scene is closed."""
        self._editorNode = self._engineOfEffect.GetSegmentEditorNode()
        return super().editorNode(scene)
