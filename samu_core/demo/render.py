"""The demo's picture: axial, coronal and sagittal slices through each click, with outlines.

Slices lie along the patient's axes whatever the image's grid, in radiological convention: the patient's
right is on the left, anterior and superior are up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from samu_core.geometry import GridGeometry, Volume

if TYPE_CHECKING:
    from samu_core.prediction import Prediction

# Plane: its name, the RAS axes across and up, and whether the axis across runs to the left.
PLANES = (("axial", 0, 1, True), ("coronal", 0, 2, True), ("sagittal", 1, 2, True))
AXIS_ENDS = (("R", "L"), ("A", "P"), ("S", "I"))
STEP_MM = 1.0
MARGIN_MM = 12.0
SOFT_WINDOW_HU = (-160.0, 300.0)
LUNG_WINDOW_HU = (-1350.0, 150.0)
BONE_WINDOW_HU = (-500.0, 1300.0)
PREDICTED, TRUTH, CLICK = "#ff9d2e", "#35d0ff", "#ff2bd6"


@dataclass
class Panel:
    """One row of the picture: a click and its masks on the image's grid.

    Attributes:
        title: what is written beside the row.
        prediction: gives the click and the field of view.
        mask: (K, J, I) predicted mask; truth: (K, J, I) true mask or None.
    """

    title: str
    prediction: Prediction
    mask: np.ndarray
    truth: np.ndarray | None = None


@dataclass(frozen=True)
class Plane:
    """A slice through a point: RAS positions of its pixels and where it is in the picture."""

    points_ras: np.ndarray
    extent: tuple[float, float, float, float]


def plane_through(point_ras: np.ndarray, across: int, up: int, center: np.ndarray, half: float) -> Plane:
    """A square plane of RAS axes `across` and `up`, (n, n, 3) points STEP_MM apart, around `center`."""
    offsets = np.arange(-half, half + STEP_MM / 2, STEP_MM)
    points = np.empty((len(offsets), len(offsets), 3))
    points[...] = point_ras
    points[..., across] = center[across] + offsets[None, :]
    points[..., up] = center[up] + offsets[:, None]
    edge = half + STEP_MM / 2
    extent = (center[across] - edge, center[across] + edge, center[up] - edge, center[up] + edge)
    return Plane(points, tuple(float(value) for value in extent))


def sample_plane(array: np.ndarray, geometry: GridGeometry, plane: Plane) -> np.ndarray:
    """Trilinear values (n, n) of a KJI array at the plane's points; NaN outside the grid."""
    matrix = geometry.ras_to_ijk
    kji = (plane.points_ras @ matrix[:3, :3].T + matrix[:3, 3])[..., ::-1]
    shape = np.array(array.shape)
    inside = np.all((kji >= -0.5) & (kji <= shape - 0.5), axis=-1)
    kji = np.clip(kji, 0, shape - 1)
    base = np.minimum(kji.astype(int), shape - 2)
    part = kji - base
    total = np.zeros(kji.shape[:2])
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, part, 1 - part), axis=-1)
        total += weight * array[tuple(np.moveaxis(base + corner, -1, 0))]
    return np.where(inside, total, np.nan)


def window_of(volume: Volume, value: float) -> tuple[float, float]:
    """Grey levels from black to white, for a click on a voxel of this value.

    CT: the radiologist's window for lung, bone or soft tissue. Otherwise the 1st to 99.5th percentile.
    """
    values = volume.array[:: max(1, volume.array.shape[0] // 32), ::4, ::4]
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, (1, 99.5)) if values.size else (0.0, 1.0)
    if volume.modality == "CT" or (volume.modality is None and low < -300):
        return LUNG_WINDOW_HU if value < -400 else BONE_WINDOW_HU if value > 450 else SOFT_WINDOW_HU
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)


def render(path: Path, volume: Volume, panels: list[Panel], heading: str) -> None:
    """Write the PNG: a row per click, a column per plane.

    Args:
        path: of the PNG; written whole or not at all.
        volume: the image.
        panels: at least one.
        heading: a line above everything.

    Raises:
        ModuleNotFoundError: matplotlib is missing.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Without pyplot: no display is looked for and no global state changes.
    figure = Figure(figsize=(9.6, 3.3 * len(panels) + 0.9), dpi=110, facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), len(PLANES), squeeze=False)
    for row, panel in zip(axes, panels):
        for axis, plane in zip(row, PLANES):
            _draw(axis, volume, panel, plane)
        row[0].set_ylabel(panel.title, color="white", fontsize=10, labelpad=8)
    for axis, plane in zip(axes[0], PLANES):
        axis.set_title(plane[0], color="white", fontsize=11)
    figure.suptitle(heading, color="white", fontsize=11)
    figure.legend(
        handles=_legend(any(panel.truth is not None for panel in panels)),
        loc="outside lower center",
        ncols=4,
        frameon=False,
        labelcolor="white",
        fontsize=9,
    )
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        figure.savefig(temporary, format="png", facecolor="black")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _draw(axis, volume: Volume, panel: Panel, plane: tuple[str, int, int, bool]) -> None:
    _, across, up, reverse = plane
    grid, click = panel.prediction.grid, panel.prediction.point_ras
    half_patch = grid.size * grid.spacing / 2
    center = np.array(grid.center_ras)
    view = plane_through(click, across, up, center, half_patch + MARGIN_MM)
    grey = sample_plane(volume.array, volume.geometry, view)
    nearest = np.linalg.norm(view.points_ras - click, axis=-1).argmin()
    low, high = window_of(volume, grey.flat[nearest])
    grey = np.nan_to_num(grey, nan=low)
    axis.imshow(
        grey, cmap="gray", vmin=low, vmax=high, origin="lower", extent=view.extent, interpolation="bilinear"
    )
    masks = ((panel.truth, TRUTH, 0.9, "dashed"), (panel.mask, PREDICTED, 1.5, "solid"))
    for mask, color, width, style in masks:
        if mask is None:
            continue
        values = np.nan_to_num(sample_plane(mask, volume.geometry, view))
        if values.max() >= 0.5 > values.min():
            across_mm, up_mm = view.points_ras[0, :, across], view.points_ras[:, 0, up]
            axis.contour(across_mm, up_mm, values, [0.5], colors=color, linewidths=width, linestyles=style)
    axis.plot(click[across], click[up], "+", color=CLICK, markersize=11, markeredgewidth=1.8)
    _decorate(axis, center, half_patch, across, up, reverse)


def _decorate(axis, center: np.ndarray, half_patch: float, across: int, up: int, reverse: bool) -> None:
    from matplotlib.patches import Rectangle

    corner = (center[across] - half_patch, center[up] - half_patch)
    box = Rectangle(corner, 2 * half_patch, 2 * half_patch, fill=False, edgecolor="#777777", linewidth=0.7)
    axis.add_patch(box)
    if reverse:
        axis.invert_xaxis()
    left, right = AXIS_ENDS[across]
    style = {"color": "#bbbbbb", "fontsize": 8, "transform": axis.transAxes}
    axis.text(0.015, 0.5, left, va="center", **style)
    axis.text(0.985, 0.5, right, va="center", ha="right", **style)
    axis.text(0.5, 0.985, AXIS_ENDS[up][0], va="top", ha="center", **style)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)


def _legend(with_truth: bool) -> list:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=CLICK, marker="+", linestyle="none", markersize=10, label="click"),
        Line2D([], [], color=PREDICTED, label="segment"),
    ]
    if with_truth:
        handles.append(Line2D([], [], color=TRUTH, linestyle="dashed", label="true outline"))
    return [*handles, Line2D([], [], color="#777777", linewidth=0.7, label="field of view")]
