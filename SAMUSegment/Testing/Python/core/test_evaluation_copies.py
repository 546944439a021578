"""Copies of a volume in other geometries hold the same world."""

from __future__ import annotations

import numpy as np
import pytest

from samu_core.evaluation import copies
from samu_core.geometry import Volume


@pytest.fixture
def volume():
    """Oblique and anisotropic, a smooth ramp in world R + 2 A - S, so that values tell the place."""
    turn = np.radians(20)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = rotation @ np.diag([-1.0, 1.5, 2.0])
    matrix[:3, 3] = (10, -20, 30)
    shape = (12, 16, 20)
    k, j, i = np.indices(shape)
    world = matrix @ np.stack([i.ravel(), j.ravel(), k.ravel(), np.ones(i.size)])
    return Volume((world[0] + 2 * world[1] - world[2]).reshape(shape).astype(np.float32), matrix)


def expected(geometry, voxel_kji):
    r, a, s = geometry.ijk_to_point(voxel_kji[::-1])
    return r + 2 * a - s


def test_reordered_voxels_keep_their_place(volume):
    copy = copies.reordered(volume)
    assert copy.array.shape == (16, 20, 12)
    for voxel in ((0, 0, 0), (15, 19, 11), (3, 7, 5)):
        assert copy.array[voxel] == pytest.approx(expected(copy.geometry, voxel), abs=1e-3)
    assert np.array_equal(copies.reordered_array(volume.array), copy.array)


@pytest.mark.parametrize("degrees", [0.0, 25.0])
def test_resampled_voxels_show_the_value_of_their_place(volume, degrees):
    grid = copies.rotated_grid(volume.geometry, (1.1, 0.9, 1.3), degrees)
    copy = copies.resampled(volume, grid)
    known = np.argwhere(np.isfinite(copy.array))
    assert 0.05 < len(known) / copy.array.size < 0.9, "it reaches beyond the original, and holds it"
    inner = [
        v for v in known[::97] if volume_holds(volume, grid.ijk_to_point(v[::-1]), rim=0.51)
    ]  # beyond the outer voxel centres ITK repeats the edge
    assert len(inner) > 20
    for voxel in inner:
        assert copy.array[tuple(voxel)] == pytest.approx(expected(grid, voxel), abs=2e-3)


def volume_holds(volume, point, rim):
    index = volume.geometry.point_to_ijk(point)
    return bool((index >= rim).all() and (index <= np.array(volume.array.shape[::-1]) - 1 - rim).all())


def test_a_mask_comes_back_from_another_grid(volume):
    mask = np.zeros(volume.array.shape, np.uint8)
    mask[2:10, 3:14, 4:16] = 1
    grid = copies.rotated_grid(volume.geometry, (0.5, 0.5, 0.5), 25.0)
    back = copies.moved(
        copies.moved(mask, volume.geometry, grid, "nearest"), grid, volume.geometry, "nearest"
    )
    assert np.array_equal(back, mask)
    assert copies.moved(mask, volume.geometry, grid, "nearest").max() == 1
