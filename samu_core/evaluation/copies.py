"""The same world stored otherwise: flipped, with other axes, rotated, resampled. One click must not care."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from samu_core.geometry import GridGeometry, Volume
from samu_core.resampling import resample_index_space


def reordered(volume: Volume) -> Volume:
    """Axes swapped and two of them flipped: every voxel keeps its value and its place in the world.

    The copy's (K, J, I) are the original's (J reversed, I, K reversed).
    """
    size_k, size_j, _ = volume.array.shape
    to_original = np.array([[0, 1, 0, 0], [0, 0, -1, size_j - 1], [-1, 0, 0, size_k - 1], [0, 0, 0, 1.0]])
    matrix = volume.geometry.ijk_to_ras @ to_original
    return Volume(reordered_array(volume.array), matrix, volume.name, volume.modality)


def reordered_array(array: np.ndarray) -> np.ndarray:
    """The voxels of `reordered`, for a mask on the original's grid (KJI)."""
    return array.transpose(1, 2, 0)[::-1, :, ::-1]


def rotated_grid(geometry: GridGeometry, spacing: Sequence[float], degrees: float) -> GridGeometry:
    """A grid of other spacing (I, J, K, mm) around the same centre, turned about S and then A.

    It has the RAS axes when `degrees` is 0, and reaches 10 mm beyond the original's extent along each axis.
    """
    center = geometry.ijk_to_ras @ np.append((np.array(geometry.shape_kji[::-1]) - 1) / 2, 1)
    turn = np.radians(degrees)
    about_s = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    about_a = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    low, high = geometry.bounds_ras()
    shape_ijk = np.ceil((high - low + 20) / np.asarray(spacing)).astype(int)
    matrix = np.eye(4)
    matrix[:3, :3] = about_s @ about_a @ np.diag(spacing)
    matrix[:3, 3] = center[:3] - matrix[:3, :3] @ ((shape_ijk - 1) / 2)
    return GridGeometry(tuple(int(n) for n in shape_ijk[::-1]), matrix)


def moved(array: np.ndarray, source: GridGeometry, target: GridGeometry, interpolation: str) -> np.ndarray:
    """An array (KJI) of one grid on another, in the same world.

    Args:
        interpolation: "linear" for images, float32 with NaN outside the source; "nearest" for masks, 0
            outside.
    """
    to_source = np.linalg.inv(source.ijk_to_ras) @ target.ijk_to_ras
    outside = 0 if interpolation == "nearest" else np.nan
    if interpolation == "linear":
        array = array.astype(np.float32)
    return resample_index_space(array, to_source, (0, 0, 0), target.shape_kji, interpolation, outside)


def resampled(volume: Volume, grid: GridGeometry) -> Volume:
    """A linear copy of a volume on another grid; NaN where the volume does not reach."""
    array = moved(volume.array, volume.geometry, grid, "linear")
    return Volume(array, grid.ijk_to_ras, volume.name, volume.modality)
