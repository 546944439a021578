"""What self-tests inside Slicer need: a phantom, and a predictor whose answer is known without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from samu_core.geometry import PatchGrid, Volume
from samu_core.prediction import Prediction

SPACING_MM = 2.0
SHAPE_KJI = (40, 44, 48)


def makePhantom(scene: Any, name: str = "Phantom") -> Any:
    """A CT-like scalar volume of 48 x 44 x 40 voxels of 2 mm with its centre at the origin of the world."""
    rng = np.random.default_rng(0)
    array = rng.normal(40, 10, SHAPE_KJI).astype(np.int16)
    image = vtk.vtkImageData()
    image.SetDimensions(*SHAPE_KJI[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(array.ravel(), deep=True))
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    node.SetAndObserveImageData(image)
    node.SetSpacing(SPACING_MM, SPACING_MM, SPACING_MM)
    node.SetOrigin(*(-SPACING_MM * (count - 1) / 2 for count in SHAPE_KJI[::-1]))
    node.CreateDefaultDisplayNodes()
    return node


class NothingMissing:
    """Packages for Dependencies: a Slicer that has everything."""

    def torchFound(self) -> bool:
        """Yes."""
        return True

    def torchVersion(self) -> str:
        """Nobody asks."""
        return ""


class BallPredictor:
    """Finds a ball around each click.

    Args:
        radius: mm, at threshold 0.5.
        slope: how much the logit falls per mm.
    """

    description = "stand-in"

    def __init__(self, radius: float = 10.0, slope: float = 0.5):
        self.radius = radius
        self.slope = slope
        self.whilePredicting: Callable[[], None] = lambda: None

    def warm_up(self) -> float:
        """There is nothing to load."""
        return 0.0

    def predict(
        self,
        volume: Volume,
        point_ras: Sequence[float],
        *,
        spacing: float | str = 1.5,
        cancelled: Callable[[], bool] | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> Prediction:
        """As samu_core's Predictor."""
        if progress is not None:
            progress("encode")
        self.whilePredicting()
        grid = PatchGrid.for_click(volume, point_ras, spacing, size=64)
        matrix = grid.geometry.ijk_to_ras
        axes = [matrix[axis, axis] * np.arange(grid.size) + matrix[axis, 3] for axis in range(3)]
        squares = [(positions - point) ** 2 for positions, point in zip(axes, point_ras)]
        distance2 = squares[2][:, None, None] + squares[1][None, :, None] + squares[0][None, None, :]
        logits = self.slope * (self.radius**2 - distance2) / (2 * self.radius)
        return Prediction(logits, grid, point_ras, {"encode": 0.0}, inside=np.isfinite(grid.sample(volume)))
