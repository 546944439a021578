"""Slicer's slice and 3D views without Slicer: its own view code from `slicer-core`, drawn off screen.

What is seen is what Slicer's displayable managers draw: the slice as the slice logic blends it, segments,
markups, ROI boxes. Frames, controllers and menus belong to the application and are missing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

SLICE_MANAGERS = (
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLRulerDisplayableManager",
)
THREE_D_MANAGERS = (
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
)
# The application's default, bottom and top.
BACKGROUND_3D = ((0.76, 0.76, 0.91), (0.45, 0.47, 0.74))
CAPTION_POINTS, CAPTION_TOP = 15, 14


class View:
    """A render window off screen.

    Args:
        size: (width, height) in pixels.
    """

    def __init__(self, size: tuple[int, int]):
        self.renderer = vtk.vtkRenderer()
        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.SetMultiSamples(8)
        self.window.SetSize(*size)
        self.window.AddRenderer(self.renderer)
        # Markups ask for one; it is never started.
        self._interactor = vtk.vtkGenericRenderWindowInteractor()
        self._interactor.SetRenderWindow(self.window)
        self._group: Any | None = None
        self._caption: Any | None = None

    def _manage(self, factory: Any, application: Any, names: tuple[str, ...], node: Any) -> None:
        """Let Slicer's displayable managers draw the scene into this view."""
        factory.SetMRMLApplicationLogic(application)
        for name in names:
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        self._group = factory.InstantiateDisplayableManagers(self.renderer)
        self._group.SetMRMLDisplayableNode(node)

    def caption(self, text: str) -> None:
        """Write into the upper left corner; replaces what stood there."""
        if self._caption is None:
            self._caption = vtk.vtkTextActor()
            style = self._caption.GetTextProperty()
            style.SetFontSize(CAPTION_POINTS)
            style.SetColor(1.0, 1.0, 0.6)
            style.SetVerticalJustificationToTop()
            self._caption.SetPosition(8, self.window.GetSize()[1] - CAPTION_TOP)
            self.renderer.AddViewProp(self._caption)
        self._caption.SetInput(text)

    def picture(self) -> np.ndarray:
        """(height, width, 3) uint8, the top row first."""
        self.window.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self.window)
        grab.ReadFrontBufferOff()
        grab.Update()
        image = grab.GetOutput()
        width, height = image.GetDimensions()[:2]
        pixels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)
        return np.ascontiguousarray(pixels[::-1, :, :3])


class SliceView(View):
    """A slice view.

    Args:
        mrml: scene and application logic, as Testing/Python/mrml's MrmlScene.
        name: "Red", "Green" or "Yellow", for axial, coronal and sagittal.
        volumeNode: in the background.
        size: in pixels.
        fieldOfViewMm: width shown.
    """

    ORIENTATIONS = {"Red": "Axial", "Green": "Coronal", "Yellow": "Sagittal"}

    def __init__(self, mrml: Any, name: str, volumeNode: Any, size: tuple[int, int], fieldOfViewMm: float):
        super().__init__(size)
        scene = mrml.scene
        # For nodes that are made from now on.
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene)
        self._logic = slicer.vtkMRMLSliceLogic()
        self._logic.SetMRMLApplicationLogic(mrml.application)
        self._logic.SetMRMLScene(scene)
        self._logic.AddSliceNode(name)
        self.node = self._logic.GetSliceNode()
        self.node.SetOrientation(self.ORIENTATIONS[name])
        self._logic.GetSliceCompositeNode().SetBackgroundVolumeID(volumeNode.GetID())
        width, height = size
        self.node.SetDimensions(width, height, 1)
        self.node.SetFieldOfView(fieldOfViewMm, fieldOfViewMm * height / width, 1.0)
        self._showImage()
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        self._manage(factory, mrml.application, SLICE_MANAGERS, self.node)

    def _showImage(self) -> None:
        mapper, actor = vtk.vtkImageMapper(), vtk.vtkActor2D()
        mapper.SetColorWindow(255)
        mapper.SetColorLevel(127.5)
        mapper.SetInputConnection(self._logic.GetImageDataConnection())
        actor.SetMapper(mapper)
        actor.SetLayerNumber(0)
        self.renderer.AddViewProp(actor)
        self.renderer.GetActiveCamera().ParallelProjectionOn()

    def center(self, pointRAS: Any) -> None:
        """Show the slice through a point, with the point in the middle."""
        matrix = self.node.GetSliceToRAS()
        for row in range(3):
            matrix.SetElement(row, 3, float(pointRAS[row]))
        self.node.UpdateMatrices()


class ThreeDView(View):
    """A 3D view.

    Args:
        mrml: as for SliceView.
        size: in pixels.
    """

    def __init__(self, mrml: Any, size: tuple[int, int]):
        super().__init__(size)
        self.node = slicer.vtkMRMLViewNode()
        self.node.SetName("View1")
        self.node.SetLayoutName("1")
        mrml.scene.AddNode(self.node)
        lower, upper = BACKGROUND_3D
        self.renderer.SetBackground(*lower)
        self.renderer.SetBackground2(*upper)
        self.renderer.GradientBackgroundOn()
        factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
        self._manage(factory, mrml.application, THREE_D_MANAGERS, self.node)

    def look(self, center: Any, direction: Any, distanceMm: float) -> None:
        """Look at a point from a direction (RAS), with the head up."""
        camera = self.renderer.GetActiveCamera()
        camera.SetFocalPoint(*center)
        direction = np.asarray(direction, float) / np.linalg.norm(direction)
        camera.SetPosition(*(np.asarray(center, float) + distanceMm * direction))
        camera.SetViewUp(0, 0, 1)
        camera.SetViewAngle(30)
        self.renderer.ResetCameraClippingRange()
