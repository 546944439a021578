"""How sharp the network sees an image does not depend on where the patch falls between its voxels."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from samu_core.evaluation import copies  # noqa: E402
from samu_core.geometry import PatchGrid, Volume  # noqa: E402
from samu_core.sharpness import EVEN, LARGEST_SHARE, neighbour_shares, sample_evenly  # noqa: E402

SIZE = 16


def volume_of(array, spacing=(1.5, 1.5, 1.5), turned: float = 0.0) -> Volume:
    """The array (KJI) with its middle at the origin, turned about S by so many degrees."""
    matrix = np.eye(4)
    turn = np.radians(turned)
    about_s = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    matrix[:3, :3] = about_s @ np.diag(spacing)
    matrix[:3, 3] = -matrix[:3, :3] @ ((np.array(array.shape[::-1]) - 1) / 2)
    return Volume(array, matrix)


def grid_at(offset_kji) -> PatchGrid:
    """A patch of 1.5 mm whose voxel in the middle lies so many voxels beside the origin, along K, J and I."""
    return PatchGrid(tuple(1.5 * (np.asarray(offset_kji[::-1]) - 0.5)), SIZE, 1.5)


def noise() -> np.ndarray:
    return np.random.default_rng(0).normal(100, 20, (41, 41, 41)).astype(np.float32)


def test_where_both_grids_meet_a_voxel_is_spread_as_half_way_between():
    array = np.zeros((41, 41, 41), np.float32)
    array[20, 20, 20] = 1
    patch = sample_evenly(grid_at((0, 0, 0)), volume_of(array))
    middle = SIZE // 2
    line = np.array([EVEN / 2, 1 - EVEN, EVEN / 2])
    wanted = np.einsum("k,j,i->kji", line, line, line)
    np.testing.assert_allclose(patch[(slice(middle - 1, middle + 2),) * 3], wanted, atol=1e-6)
    assert patch.sum() == pytest.approx(1)


def test_half_way_between_nothing_is_added():
    volume, grid = volume_of(noise()), grid_at((0.5, 0.5, 0.5))
    np.testing.assert_allclose(sample_evenly(grid, volume), grid.sample(volume), rtol=1e-4)
    assert np.abs(neighbour_shares(grid, volume.geometry)).max() < 1e-6


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.25, 0.4, 0.5, 0.8])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_blur_is_the_same_everywhere_between_two_voxels(fraction, axis):
    array = np.zeros((41, 41, 41), np.float32)
    array[20, 20, 20] = 1
    offset = [0.0, 0.0, 0.0]
    offset[axis] = fraction
    patch = sample_evenly(grid_at(offset), volume_of(array))
    line = patch.sum(axis=tuple({0, 1, 2} - {axis}))
    places = np.arange(SIZE)
    mean = (line * places).sum() / line.sum()
    assert (line * (places - mean) ** 2).sum() / line.sum() == pytest.approx(EVEN, abs=1e-4)


def test_the_axes_order_and_direction_of_the_volume_do_not_matter():
    volume = volume_of(noise(), spacing=(1.5, 1.1, 2.0))
    grid = grid_at((0.3, 0.0, 0.45))
    ours = sample_evenly(grid, copies.reordered(volume))
    np.testing.assert_allclose(ours, sample_evenly(grid, volume), rtol=1e-5)


def test_oblique_lines_pass_all_places_and_take_the_mean():
    volume = volume_of(noise(), turned=20)
    k, j, i = neighbour_shares(grid_at((0.5, 0, 0)), volume.geometry)
    np.testing.assert_allclose(np.stack([j, i]), (EVEN - 1 / 6) / 2, rtol=1e-5)
    assert k.max() < 1e-6, "S is an axis of both"


def test_a_direction_matrix_with_rounding_is_not_oblique():
    volume = volume_of(noise(), turned=0.01)
    assert np.abs(neighbour_shares(grid_at((0.5, 0.5, 0.5)), volume.geometry)).max() < 1e-3


def test_fine_voxels_need_little_and_thick_slices_stay_within_the_kernel():
    fine = neighbour_shares(grid_at((0, 0, 0)), volume_of(noise(), (0.5, 0.5, 0.5)).geometry)
    assert np.stack(fine).max() == pytest.approx(EVEN / 2 / 9, rel=1e-4)
    thick = neighbour_shares(grid_at((0, 0, 0)), volume_of(noise(), (1.5, 1.5, 6.0)).geometry)
    assert thick[0].max() == pytest.approx(LARGEST_SHARE) and thick[0].min() == 0


def test_what_lies_outside_is_not_mixed_in():
    volume, grid = volume_of(np.full((9, 41, 41), 7.0, np.float32)), grid_at((0, 0.2, 0.3))
    patch = sample_evenly(grid, volume)
    np.testing.assert_array_equal(np.isnan(patch), np.isnan(grid.sample(volume)))
    assert np.isnan(patch).any()
    np.testing.assert_array_equal(patch[np.isfinite(patch)], 7)


def test_the_largest_intensities_do_not_overflow():
    signs = np.where(np.indices((41, 41, 41)).sum(0) % 2, 1, -1)
    patch = sample_evenly(grid_at((0, 0, 0)), volume_of((signs * 3e38).astype(np.float32)))
    assert np.isfinite(patch).all() and np.abs(patch).max() > 1e37


def test_a_copy_on_another_grid_looks_like_its_original():
    volume, grid = volume_of(noise()), grid_at((0, 0, 0))
    copy = copies.resampled(volume, copies.rotated_grid(volume.geometry, (1.5, 1.5, 1.4), 0))

    def difference(sample) -> float:
        return float(np.abs(sample(volume) - sample(copy)).mean())

    assert difference(lambda v: sample_evenly(grid, v)) < 0.7 * difference(grid.sample)


def test_the_predictor_and_the_evaluation_see_the_even_patch():
    from samu_core.evaluation.cases import Click, Structure
    from samu_core.evaluation.protocol import Options, one_click
    from samu_core.intensity import normalize_patch
    from samu_core.predictor import Predictor

    class Mirror(torch.nn.Module):
        def encode(self, patch):
            return patch

        def decode(self, features, prompt):
            return features

    volume, point = volume_of(noise()), (0.0, 0.0, 0.0)
    predictor = Predictor(network=Mirror(), device="cpu", patch_size=SIZE, fused=False, second_look=False)
    prediction = predictor.predict(volume, point)
    wanted = sample_evenly(prediction.grid, volume)
    np.testing.assert_allclose(prediction.logits, normalize_patch(wanted), atol=1e-5)
    structure = Structure(1, "ball", (slice(19, 22),) * 3, np.ones((3, 3, 3), np.int32))
    click = Click("0", (20, 20, 20), (20.0, 20.0, 20.0), 1)
    patch, _target = one_click(volume, structure, click, Options(size=SIZE))
    np.testing.assert_array_equal(patch.raw, wanted)
