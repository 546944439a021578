import numpy as np
import pytest

from samu_core.errors import VolumeError
from samu_core.intensity import normalize_patch


def noise(mean, sd, seed=0):
    return np.random.default_rng(seed).normal(mean, sd, (12, 13, 14)).astype(np.float32)


@pytest.mark.parametrize("mean, sd", [(0, 1), (5000, 3), (1e-12, 1e-13), (-1e20, 1e25)])
def test_mean_zero_and_deviation_one_at_any_scale(mean, sd):
    out = normalize_patch(noise(mean, sd), modality="MR")
    assert out.dtype == np.float32
    assert abs(out.mean()) < 1e-3 and abs(out.std() - 1) < 1e-3


def test_only_inside_voxels_count_and_outside_is_as_dark_as_the_darkest():
    patch = noise(100, 20)
    reference = normalize_patch(patch[4:], modality="MR")
    patch[:4] = np.nan
    out = normalize_patch(patch, modality="MR")
    np.testing.assert_allclose(out[4:], reference, atol=1e-5)
    assert np.all(out[:4] == np.sort(out[4:], axis=None)[1])  # of 1456 voxels one in a thousand is darker


def test_one_dark_voxel_does_not_darken_what_lies_outside():
    patch = noise(100, 20)
    patch[:4] = np.nan
    plain = normalize_patch(patch, modality="MR")
    patch[8, 6, 6] = -200
    speck = normalize_patch(patch, modality="MR")
    assert abs(speck[0, 0, 0] - plain[0, 0, 0]) < 0.5 and speck.min() < plain.min() - 5


def test_ct_is_clamped_before_the_score():
    patch = noise(40, 200)
    patch[0, 0, 0], patch[0, 0, 1] = 30000, -2048
    clamped = np.clip(patch, -1000, 1000)
    wanted = (clamped - clamped.mean()) / clamped.std()
    np.testing.assert_allclose(normalize_patch(patch, "CT"), wanted, atol=1e-4)
    np.testing.assert_allclose(normalize_patch(patch), wanted, atol=1e-4)  # guessed from -2048
    assert normalize_patch(patch, "MR")[0, 0, 0] > 3 * wanted[0, 0, 0]


def test_image_of_unknown_kind_without_low_values_is_not_clamped():
    patch = noise(4000, 300)
    out = normalize_patch(patch)
    assert out.max() > out.min() + 4
    np.testing.assert_array_equal(out, normalize_patch(patch, "MR"))
    assert np.all(normalize_patch(patch, "CT") == 0)  # all above 1000 HU: constant after clamping


@pytest.mark.parametrize("value", [0, 7.3, -1000, 3e38])
def test_constant_patch_gives_zeros(value):
    patch = np.full((4, 4, 4), value, np.float32)
    patch[0] = np.nan
    np.testing.assert_array_equal(normalize_patch(patch), np.zeros((4, 4, 4), np.float32))


def test_infinite_voxels_are_outside():
    patch = noise(0, 1)
    patch[0, 0, 0] = np.inf
    out = normalize_patch(patch)
    assert np.isfinite(out).all() and out[0, 0, 0] == np.sort(out, axis=None)[2]


def test_the_input_is_left_alone():
    patch = noise(40, 900)
    before = patch.copy()
    normalize_patch(patch, "CT")
    np.testing.assert_array_equal(patch, before)


def test_nothing_inside_is_refused():
    with pytest.raises(VolumeError, match="no image data around the click"):
        normalize_patch(np.full((4, 4, 4), np.nan, np.float32))
