"""Each classical baseline does what it is for."""

import numpy as np
import pytest
import SimpleITK as sitk
from evaluation_data import ball
from scipy import ndimage

from samu_core.evaluation import baselines
from samu_core.evaluation.metrics import dice
from samu_core.evaluation.protocol import ClickPatch
from samu_core.evaluation.tuning import Scores, format_tuned
from samu_core.geometry import PatchGrid

SIZE = 48


def make_patch(raw, modality=None):
    grid = PatchGrid((10.0, -20.0, 30.0), raw.shape[0], 1.5)
    point = np.array(grid.center_ras)
    return ClickPatch(raw.astype(np.float32), grid.point_to_kji(point), grid, point, modality)


@pytest.fixture
def bright_ball():
    """A ball of 18 mm radius, a little beside the click, bright on dark noise."""
    target = ball((SIZE,) * 3, (25, 22, 24), 12)
    noise = np.random.default_rng(0).normal(0, 30, target.shape)
    return make_patch(100 + 300 * target + noise), target


# What a user would set for a clean object; TUNED is a compromise between organs, lesions and bones.
CLEAN = {
    "connected_threshold": {
        "sigma": 1.2,
        "scale": "patch",
        "tolerance": 1.1,
        "max_voxels": 40000,
        "closing": 1,
    },
    "confidence_connected": {
        "sigma": 0.5,
        "multiplier": 4.0,
        "iterations": 3,
        "radius": 2,
        "max_voxels": 40000,
        "closing": 1,
    },
}


@pytest.mark.parametrize("name", list(CLEAN))
def test_region_growing_finds_a_bright_ball(name, bright_ball):
    patch, target = bright_ball
    assert dice(baselines.METHODS[name](patch, **CLEAN[name]), target) > 0.8


@pytest.mark.parametrize("seed", [(24, 24, 24), (1, 30, 46), (25, 10, 24)])
def test_region_growing_is_what_itk_gives(seed, bright_ball):
    image = np.ascontiguousarray(bright_ball[0].raw)
    picture = sitk.GetImageFromArray(image)
    value = float(image[seed])
    itk = sitk.ConnectedThreshold(picture, [seed[::-1]], lower=value - 60, upper=value + 60)
    assert (baselines.grow(image, seed, value - 60, value + 60) == sitk.GetArrayFromImage(itk)).all()
    for iterations in (0, 2):
        itk = sitk.ConfidenceConnected(
            picture, [seed[::-1]], numberOfIterations=iterations, multiplier=2.0, initialNeighborhoodRadius=2
        )
        own = baselines.grow_by_confidence(image, seed, 2.0, iterations, 2)
        assert own.sum() > 10 and dice(own, sitk.GetArrayFromImage(itk)) > 0.99, iterations


def test_a_longer_front_kept_with_the_patch_gives_the_same(bright_ball):
    """Tuning asks for many times of one front; the answers must not depend on the order."""
    parameters = {"sigma": 1.2, "contrast": 0.5, "steepness": 1.0}
    for dilation in (0, 1):
        masks = []
        for times in ([15.0], [40.0, 15.0], [6.0, 15.0]):
            patch = make_patch(bright_ball[0].raw)
            for time in times:
                mask = baselines.fast_marching(patch, time=time, dilation=dilation, **parameters)
            masks.append(mask)
        assert masks[0].any() and all((mask == masks[0]).all() for mask in masks)


def test_the_dilation_of_the_front_is_a_dilation(bright_ball):
    patch, _ = bright_ball
    parameters = {"sigma": 1.2, "contrast": 0.5, "steepness": 1.0, "time": 15.0}
    plain = baselines.fast_marching(patch, dilation=0, **parameters)
    assert (
        baselines.fast_marching(patch, dilation=2, **parameters)
        == ndimage.binary_dilation(plain, iterations=2)
    ).all()


def test_fast_marching_stops_at_the_edge_of_a_bright_ball(bright_ball):
    patch, target = bright_ball
    parameters = dict(baselines.TUNED["fast_marching"], sigma=0.7, contrast=2.0, steepness=1.0, dilation=0)
    masks = {time: baselines.fast_marching(patch, **{**parameters, "time": time}) for time in (5.0, 35.0)}
    assert dice(masks[35.0], target) > 0.8
    # One voxel per unit of time where there is no edge, never faster.
    assert np.count_nonzero(masks[5.0]) > 100
    assert not (masks[5.0] & ~ball((SIZE,) * 3, (24,) * 3, 6)).any()


def test_the_ball_has_its_radius_and_stays_in_the_volume(bright_ball):
    patch, _ = bright_ball
    mask = baselines.ball(patch, radius=10.0)
    assert np.count_nonzero(mask) == pytest.approx(4 / 3 * np.pi * 1000, rel=0.03)
    assert dice(mask, ball((SIZE,) * 3, (23.5,) * 3, 10)) == 1.0
    raw = patch.raw.copy()
    raw[:23] = np.nan
    cut = baselines.ball(make_patch(raw), radius=10.0)
    assert not cut[:23].any()
    assert (cut == (mask & np.isfinite(raw))).all()


@pytest.mark.parametrize("name", list(baselines.METHODS))
def test_baselines_stay_inside_a_volume_that_fills_the_patch_partly(name, bright_ball):
    patch, target = bright_ball
    raw = np.full_like(patch.raw, np.nan)
    raw[22:26, 5:40, 10:45] = patch.raw[22:26, 5:40, 10:45]
    mask = baselines.tuned_methods()[name](make_patch(raw))
    assert mask.dtype == bool and mask.shape == raw.shape and mask.any()
    assert not mask[np.isnan(raw)].any()


def test_a_leak_is_held_back(bright_ball):
    """On a ramp every tolerance leaks; the limit makes the region shrink until it fits."""
    ramp = np.broadcast_to(np.linspace(0, 100, SIZE)[:, None, None], (SIZE,) * 3)
    parameters = dict(baselines.TUNED["connected_threshold"], tolerance=1.0, scale="patch", closing=0)
    free = baselines.connected_threshold(make_patch(ramp), **{**parameters, "max_voxels": 10**9})
    held = baselines.connected_threshold(make_patch(ramp), **{**parameters, "max_voxels": 20000})
    assert np.count_nonzero(free) > 50000
    assert 0 < np.count_nonzero(held) <= 20000


def test_ct_is_clamped_so_that_metal_does_not_set_the_scale():
    target = ball((SIZE,) * 3, (24, 24, 24), 10)
    raw = np.where(target, 150.0, 0.0) + np.random.default_rng(0).normal(0, 10, target.shape)
    raw[0, 0, :8] = 30000
    found = baselines.connected_threshold(make_patch(raw, "CT"), **CLEAN["connected_threshold"])
    assert dice(found, target) > 0.8


def test_constant_patch_and_border_click_do_not_fail():
    for name, method in baselines.tuned_methods().items():
        constant = make_patch(np.zeros((SIZE,) * 3))
        assert method(constant).shape == (SIZE,) * 3, name


def test_every_tuned_value_is_on_its_grid():
    """TUNED comes from --tune; a hand-edited value would not be one of the grid's combinations."""
    assert set(baselines.TUNED) == set(baselines.GRID) == set(baselines.METHODS)
    for name, parameters in baselines.TUNED.items():
        assert parameters in baselines.combinations(name), name


def test_tuning_picks_the_best_radius_over_data_sets():
    """Two data sets, one with three times as many clicks: they weigh the same."""
    scores = Scores(["ball"])
    patch = make_patch(np.zeros((SIZE,) * 3))
    small, large = (ball((SIZE,) * 3, (23.5,) * 3, radius) for radius in (6.0, 13.0))
    for _ in range(3):
        scores.add("many", patch, small)
    scores.add("few", patch, large)
    radii = baselines.GRID["ball"]["radius"]
    by_hand = [
        (dice(baselines.ball(patch, r), small) + dice(baselines.ball(patch, r), large)) / 2 for r in radii
    ]
    parameters, value = scores.best()["ball"]
    assert parameters == {"radius": radii[int(np.argmax(by_hand))]}
    assert value == pytest.approx(max(by_hand))
    namespace = {}
    exec(format_tuned(scores.best()), namespace)
    assert namespace["TUNED"] == {"ball": parameters}
