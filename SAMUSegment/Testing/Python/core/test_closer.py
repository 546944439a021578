"""The closer look at small structures: when it is taken, and when its result counts."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from samu_core.closer import FINER, LARGEST_VOXELS, finer_spacing, inner_point, look_closer  # noqa: E402
from samu_core.geometry import PatchGrid, Volume  # noqa: E402
from samu_core.prediction import Prediction  # noqa: E402
from samu_core.predictor import Predictor  # noqa: E402

SIZE = 64
SMALL = 5.5  # mm: 200 voxels of 1.5 mm


def volume_of(spacing: float, radius: float = SMALL) -> Volume:
    """A bright ball of `radius` mm around the origin, in 96 mm of darkness."""
    count = round(96 / spacing)
    matrix = np.diag([spacing] * 3 + [1.0])
    matrix[:3, 3] = -spacing * (count - 1) / 2
    axis = (np.arange(count) - (count - 1) / 2) * spacing
    k, j, i = np.meshgrid(axis, axis, axis, indexing="ij")
    return Volume((k**2 + j**2 + i**2 <= radius**2).astype(np.float32), matrix)


def ball(radius: float, spacing: float = 1.5, point=(0.0, 0.0, 0.0), extra=None) -> Prediction:
    """Logits of a ball of `radius` mm around the origin, clicked at `point`."""
    grid = PatchGrid((0.0, 0.0, 0.0), SIZE, spacing)
    axis = (np.arange(SIZE) - (SIZE - 1) / 2) * spacing
    k, j, i = np.meshgrid(axis, axis, axis, indexing="ij")
    logits = np.where(k**2 + j**2 + i**2 <= radius**2, 5.0, -5.0).astype(np.float32)
    if extra is not None:
        logits[extra] = 5.0
    return Prediction(logits, grid, point)


class Bright(torch.nn.Module):
    """A network that takes what is brighter than the patch's middle range."""

    def encode(self, patch):
        return patch

    def decode(self, features, prompt):
        return (features - 0.5 * (features.max() + features.min())) * 10


def test_small_masks_of_fine_images_are_looked_at_again():
    fine, coarse = volume_of(1.0), volume_of(1.5)
    assert finer_spacing(fine, ball(SMALL)) == pytest.approx(1.5 * FINER)
    assert finer_spacing(coarse, ball(SMALL)) is None, "the image has no smaller voxels"
    matrix = np.diag([1.0, 1.0, 6.5, 1.0])
    matrix[:3, 3] = -32, -32, -32.5
    slices = Volume(np.zeros((11, 65, 65), np.float32), matrix)
    assert finer_spacing(slices, ball(SMALL)) is None, "a finer patch of thick slices shows nothing more"
    matrix[2, 2], matrix[2, 3] = 1.5, -24
    assert finer_spacing(Volume(np.zeros((33, 65, 65), np.float32), matrix), ball(SMALL)) is not None
    assert finer_spacing(fine, ball(7)) is None, "large"
    assert finer_spacing(fine, ball(SMALL, point=(40.0, 0.0, 0.0))) is None, "nothing was found"


def test_what_lies_apart_or_goes_on_does_not_make_a_structure_small_or_large():
    fine = volume_of(1.0)
    apart = (slice(0, 20),) * 3
    assert finer_spacing(fine, ball(SMALL, extra=apart)) is not None, "another structure far away"
    rod = (slice(32, 33), slice(32, 33), slice(0, SIZE))
    assert ball(3, extra=rod).clicked_voxels(SIZE) < LARGEST_VOXELS
    assert finer_spacing(fine, ball(3, extra=rod)) is None, "thin, but long"


def test_clicked_voxels_at_the_border_of_the_patch():
    prediction = ball(SMALL)
    whole = int((prediction.logits > 0).sum())
    assert prediction.clicked_voxels(24) == whole == prediction.clicked_voxels(10 * SIZE)
    assert prediction.clicked_voxels(3) is None


def test_a_closer_look_counts_when_it_finds_a_whole_structure():
    fine, first = volume_of(1.0), ball(SMALL)
    second = ball(5, spacing=1.0)
    assert look_closer(fine, first, lambda point, spacing: second) is second
    assert second.asked_spacing == first.asked_spacing == 1.5, "a wider view is one wider than this"
    assert look_closer(fine, first, lambda point, spacing: ball(0, spacing=1.0)) is first, "nothing found"
    assert look_closer(fine, first, lambda point, spacing: ball(200, spacing=1.0)) is first, "cut off"


def test_a_closer_look_is_prompted_in_the_depth_and_answers_the_click():
    fine, first, prompts = volume_of(1.0), ball(SMALL, point=(0.0, 4.7, 0.0)), []

    def look(point, spacing):
        prompts.append(point)
        return ball(5, spacing=1.0, point=point)

    second = look_closer(fine, first, look)
    assert np.linalg.norm(prompts[0]) < 2.0, "the click is at the rim"
    assert second.point_ras == pytest.approx(first.point_ras)
    apart = ball(0, spacing=1.0, extra=(slice(8, 12),) * 3)
    assert look_closer(fine, first, lambda point, spacing: apart) is first, (
        "what is found is not at the click"
    )


def test_the_depth_is_the_nearest_to_the_click_and_within_the_volume():
    volume = volume_of(1.0)
    rod = ball(0, extra=(slice(30, 35), slice(30, 35), slice(4, 60)), point=(20.0, 2.0, 0.0))
    assert inner_point(volume, rod) == pytest.approx((20.0, 0.75, 0.75), abs=1.0), (
        "deep all along, nearest to the click"
    )
    assert inner_point(volume, ball(0, point=(3.0, 0.0, 0.0))) == pytest.approx((3.0, 0.0, 0.0)), "no mask"
    half = ball(8)
    half.inside = np.zeros((SIZE,) * 3, bool)
    half.inside[:, :, :30] = True
    assert inner_point(volume, half)[0] < -2.0, "what lies outside the volume is not clicked"


@pytest.mark.parametrize("known", [True, False])
def test_a_mask_that_lies_beyond_the_volume_is_looked_at_from_the_click(known):
    fine, prompts = volume_of(1.0), []
    first = ball(0, spacing=2.0, extra=(slice(28, 36), slice(28, 36), slice(56, 60)), point=(47.5, 0.0, 0.0))
    assert finer_spacing(fine, first) is not None, "the mask begins beside the click and goes on outside"
    if known:
        first.inside = np.zeros((SIZE,) * 3, bool)

    def look(point, spacing):
        prompts.append(fine.require_inside(point))
        return ball(0, spacing=1.0)

    assert look_closer(fine, first, look) is first
    assert prompts[0] == pytest.approx(first.point_ras)


@pytest.mark.parametrize("closer", [True, False])
def test_the_predictor_returns_the_finer_patch(closer):
    volume, stages = volume_of(1.0), []
    predictor = Predictor(network=Bright(), device="cpu", patch_size=SIZE, fused=False, second_look=closer)
    prediction = predictor.predict(volume, (0.0, 0.0, 0.0), progress=stages.append)
    assert prediction.grid.spacing == pytest.approx(1.0 if closer else 1.5)
    assert stages.count("encode") == (2 if closer else 1)
    mask = prediction.mask(volume.geometry).full(volume.geometry).astype(bool)
    assert 2 * (mask & (volume.array > 0)).sum() / (mask.sum() + (volume.array > 0).sum()) > 0.95
    assert predictor.predict(volume_of(1.0, 30), (0.0, 0.0, 0.0)).grid.spacing == 1.5
