"""A predictor without a network: what looks like the clicked voxel is the segment.

Everything around it (patch, geometry, mask, files) is the real thing, so that the tests of the commands
know what must come out and need no weights.
"""

from __future__ import annotations

import numpy as np

from samu_core.geometry import PatchGrid
from samu_core.prediction import Prediction


class StandInPredictor:
    """Probability above one half where the intensity is within `tolerance` of the click's."""

    device = "cpu"
    precision = "float32"
    description = "stand-in"

    def __init__(self, tolerance: float = 200.0, size: int = 64):
        self.tolerance = tolerance
        self.size = size
        self.clicks = []

    def warm_up(self):
        pass

    def predict(self, volume, point_ras, *, spacing=1.5, cancelled=None, progress=None):
        self.clicks.append(tuple(point_ras))
        grid = PatchGrid.for_click(volume, point_ras, spacing, self.size)
        patch = grid.sample(volume)
        value = patch[tuple(np.rint(grid.point_to_kji(point_ras)).astype(int))]
        logits = np.nan_to_num((self.tolerance - np.abs(patch - value)) / 10, nan=-20.0)
        return Prediction(logits, grid, point_ras, {"decode": 0.0}, inside=np.isfinite(patch))
