"""The patch that the network sees, as a box in the views."""

from __future__ import annotations

from typing import Any

from samu_core.geometry import PatchGrid

OUTLINE_NAME = "SAMUSegment field of view"
COLOR = (1.0, 0.8, 0.2)


class PatchOutline:
    """A locked ROI node that shows a PatchGrid; made when it is shown for the first time.

    It belongs to the moment and is not saved with the scene.
    """

    def __init__(self) -> None:
        self._node: Any | None = None

    @property
    def node(self) -> Any | None:
        """The vtkMRMLMarkupsROINode; None before the first use and after the scene was closed."""
        if self._node is not None and self._node.GetScene() is None:
            self._node = None
        return self._node

    def show(self, scene: Any, grid: PatchGrid) -> None:
        """Show the box of a patch: its outer faces, in world RAS."""
        node = self.node or self._make(scene)
        size = grid.size * grid.spacing
        node.SetCenterWorld(*grid.center_ras)
        node.SetSize(size, size, size)
        # Its centre would be drawn as a dot on top of the click.
        node.SetNthControlPointVisibility(0, False)
        node.SetDisplayVisibility(True)

    def hide(self) -> None:
        """Take the box out of the views."""
        if self.node is not None:
            self.node.SetDisplayVisibility(False)

    def _make(self, scene: Any) -> Any:
        node = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", OUTLINE_NAME)
        node.SetLocked(True)
        node.SetSaveWithScene(False)
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetSaveWithScene(False)
        display.SetHandlesInteractive(False)
        display.SetPropertiesLabelVisibility(False)
        display.SetFillVisibility(False)
        display.SetColor(*COLOR)
        display.SetSelectedColor(*COLOR)
        self._node = node
        return node
