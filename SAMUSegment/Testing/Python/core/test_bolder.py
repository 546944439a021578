"""Bolder masks of what the network is in doubt about, and of nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from samu_core import looks
from samu_core.bolder import DOUBT, RAISE, SURE, bolder, raise_for
from samu_core.candidates import LARGER, expected_iou, nested_masks
from samu_core.geometry import PatchGrid, Volume
from samu_core.prediction import Prediction
from samu_core.wider import DOUBT as WIDER_DOUBT

SIZE = 64


def shells(inner: float, outer: float, radius: float = 24.0, spacing: float = 1.5) -> Prediction:
    """A ball of 15 mm at one logit in one of `radius` mm at another, clicked in the middle; none around."""
    axis = (np.arange(SIZE) - (SIZE - 1) / 2) * spacing
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    logits = np.where(distance <= 15.0, inner, np.where(distance <= radius, outer, -20.0))
    return Prediction(logits, PatchGrid((0.0, 0.0, 0.0), SIZE, spacing), (0.0, 0.0, 0.0))


def voxels(prediction: Prediction) -> int:
    geometry = prediction.grid.geometry
    return int(prediction.mask(geometry).full(geometry).sum())


def test_a_doubtful_mask_takes_what_is_nearly_as_likely():
    first = shells(3.0, -0.5 * RAISE)
    before, logits = voxels(first), first.logits.copy()
    assert expected_iou(first) < DOUBT
    found = bolder(first)
    assert voxels(found) == pytest.approx(before * (24 / 15) ** 3, rel=0.05)
    assert np.allclose(found.logits, logits + RAISE) and np.array_equal(first.logits, logits)
    assert found.asked_spacing == first.asked_spacing and found.grid == first.grid
    larger = nested_masks(first, names=(LARGER,))[LARGER]
    assert nested_masks(found, names=(LARGER,))[LARGER].sum() >= larger.sum(), "there is still a larger one"


def test_what_is_sure_stays():
    first = shells(6.0, -4.0)
    assert expected_iou(first) > SURE
    assert bolder(first) is first


def test_the_more_doubt_the_more_is_taken_without_a_step():
    raises = [float(raise_for(expected)) for expected in np.linspace(0.0, 1.0, 101)]
    assert raises[0] == raises[40] == RAISE and raises[50] == raises[-1] == 0.0
    assert all(-0.2 < later - earlier <= 0 for earlier, later in zip(raises, raises[1:]))
    between = shells(4.5, -2.2)
    assert DOUBT < expected_iou(between) < SURE
    added = bolder(between).logits - between.logits
    assert np.allclose(added, raise_for(expected_iou(between))) and 0 < added[0, 0, 0] < RAISE


@pytest.mark.parametrize(
    "first", [shells(3.0, -0.5, spacing=2.4), shells(-0.2, -0.5), shells(3.0, -0.5, radius=40.0)]
)
def test_a_wider_patch_no_mask_and_a_leak_stay(first):
    assert expected_iou(first) < DOUBT
    before = voxels(first)
    assert bolder(first) is first and voxels(first) == before


def test_doubtful_masks_are_bolder_after_the_wider_look():
    volume = Volume(np.zeros((96, 96, 96), np.float32), np.diag([1.5, 1.5, 1.5, 1.0]))
    first, asked = shells(3.0, -0.5 * RAISE), []
    assert expected_iou(first) < WIDER_DOUBT
    before = voxels(first)

    def look(point, spacing):
        asked.append(spacing)
        return shells(-3.0, -4.0, spacing=spacing)

    assert voxels(looks.look_again(volume, first, look)) > 2 * before
    assert asked == [pytest.approx(2.4)], "judged by the logits as they were"
