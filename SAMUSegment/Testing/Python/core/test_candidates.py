"""Three nested masks of one click, and the overlap that is expected of them."""

from __future__ import annotations

import numpy as np
import pytest

from samu_core import candidates
from samu_core.candidates import AS_FOUND, LARGER, SMALLER, expected_iou, nested_candidates, nested_thresholds
from samu_core.errors import SamuError
from samu_core.geometry import PatchGrid
from samu_core.prediction import Prediction

SIZE = 32


def ball(slope: float, radius: float = 8.0, elsewhere: float = 0.0) -> Prediction:
    """Logits that fall by `slope` a voxel from the middle and are 0 at `radius`; `elsewhere` are those of a
    cube in a corner."""
    places = np.stack(np.meshgrid(*[np.arange(SIZE) - (SIZE - 1) / 2] * 3, indexing="ij"))
    logits = slope * (radius - np.linalg.norm(places, axis=0))
    if elsewhere:
        logits[:5, :5, :5] = elsewhere
    return Prediction(logits.astype(np.float32), PatchGrid((0.0, 0.0, 0.0), SIZE), (0.0, 0.0, 0.0))


def test_the_masks_are_nested_and_come_as_found_first():
    prediction = ball(1.0)
    found = nested_candidates(prediction)
    assert [item.name for item in found] == [AS_FOUND, LARGER, SMALLER]
    assert found[2].voxels < found[0].voxels < found[1].voxels
    for item in found:
        region = prediction.mask(prediction.grid.geometry, item.threshold)
        assert np.count_nonzero(region.array) == item.voxels
        assert 0 < item.expected_iou < 1
    radius = (3 * found[1].voxels / (4 * np.pi)) ** (1 / 3)
    assert radius == pytest.approx(8 + candidates.STEP, abs=0.1)


def test_thresholds_stay_where_the_network_knows_something():
    assert nested_thresholds(0.5)[LARGER] == pytest.approx(1 - nested_thresholds(0.5)[SMALLER])
    assert nested_thresholds(0.03) == {AS_FOUND: 0.03, LARGER: 0.02, SMALLER: pytest.approx(0.2737, abs=1e-4)}
    assert nested_thresholds(0.97)[SMALLER] == 0.98


def test_masks_that_are_not_there_are_left_out():
    assert [item.name for item in nested_candidates(ball(100.0))] == [AS_FOUND]
    unsure = nested_candidates(ball(1.0, radius=1.5))
    assert [item.name for item in unsure] == [AS_FOUND, LARGER]  # no voxel is 2.5 above the threshold
    faint = nested_candidates(ball(1.0, radius=-1.0))
    assert [item.name for item in faint] == [LARGER]
    assert nested_candidates(ball(1.0, radius=-9.0)) == []


def test_what_is_sure_is_expected_to_overlap_more():
    sure, unsure = expected_iou(ball(100.0)), expected_iou(ball(0.7))
    assert 0.95 < sure <= 1 and unsure < 0.7 * sure
    assert expected_iou(ball(1.0, radius=-9.0)) == 0 and expected_iou(ball(1.0, radius=-1.0)) == 0


def test_other_structures_do_not_count():
    alone, beside = ball(1.0), ball(1.0, elsewhere=9.0)
    assert expected_iou(beside) == pytest.approx(expected_iou(alone))
    whole = nested_candidates(beside, clicked_component=False)[0]
    assert whole.voxels == nested_candidates(alone)[0].voxels + 125


def test_a_threshold_that_is_no_probability_is_refused():
    with pytest.raises(SamuError, match="between 0 and 1"):
        nested_candidates(ball(1.0), 1.0)
