"""The wider look at what is doubtful: when it is taken, and when its result counts."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from samu_core import looks  # noqa: E402
from samu_core.bolder import RAISE  # noqa: E402
from samu_core.candidates import expected_iou  # noqa: E402
from samu_core.geometry import PatchGrid, Volume  # noqa: E402
from samu_core.prediction import Prediction  # noqa: E402
from samu_core.predictor import Predictor  # noqa: E402
from samu_core.wider import DOUBT, LARGEST_GROWTH, SURER, WIDER, is_expected, look_wider, mask_volume  # noqa: E402

SIZE = 64
SURE, UNSURE, LESS_SURE = 12.0, 1.0, 3.0  # logits of a mask's voxels
EXPECTED = {SURE: 0.97, UNSURE: 0.42, LESS_SURE: 0.58}  # of a mask with nothing around, roughly


def ball(logit: float, radius: float = 20.0, spacing: float = 1.5) -> Prediction:
    """A ball of `radius` mm in which all logits are the same, clicked in the middle; none around."""
    axis = (np.arange(SIZE) - (SIZE - 1) / 2) * spacing
    k, j, i = np.meshgrid(axis, axis, axis, indexing="ij")
    logits = np.where(k**2 + j**2 + i**2 <= radius**2, logit, -20.0)
    return Prediction(logits, PatchGrid((0.0, 0.0, 0.0), SIZE, spacing), (0.0, 0.0, 0.0))


def in_doubt(radius: float = 20.0) -> Prediction:
    """A ball with as doubtful voxels all around."""
    prediction = ball(UNSURE, radius)
    prediction.logits[prediction.logits < 0] = -2.0
    return prediction


def never(point, spacing):
    raise AssertionError("looked again")


def test_a_mask_is_judged_by_its_logits_and_measured_in_mm():
    for logit, expected in EXPECTED.items():
        assert expected_iou(ball(logit)) == pytest.approx(expected, abs=0.02)
        assert mask_volume(ball(logit)) == pytest.approx(4 / 3 * np.pi * 20**3, rel=0.02)
    assert mask_volume(ball(SURE, spacing=3.0)) == pytest.approx(mask_volume(ball(SURE)), rel=0.1)
    assert expected_iou(ball(-1.0)) == mask_volume(ball(-1.0)) == 0.0
    assert expected_iou(in_doubt()) < DOUBT


def test_bounds_tell_the_same_of_a_mask_as_its_expected_overlap():
    for logit in (SURE, LESS_SURE, UNSURE):
        prediction = ball(logit)
        prediction.logits[:8, :8, :] = 1.0  # something else in the patch
        expected, volume = expected_iou(prediction), mask_volume(prediction)
        assert expected == pytest.approx(EXPECTED[logit], abs=0.02)
        for overlap in (0.2, DOUBT, 0.5, 0.9):
            assert is_expected(prediction, overlap) is (expected >= overlap)
            assert is_expected(prediction, overlap, volume) is (expected >= overlap)
            assert not is_expected(prediction, overlap, volume - 1)
    assert not is_expected(ball(-1.0), 0.0), "there is no mask"


def test_what_is_sure_or_seen_from_far_is_not_looked_at_again():
    for first in (ball(SURE), ball(-1.0, spacing=2.25)):  # or in a view that was chosen wider
        assert look_wider(first, never) is first


def test_a_doubtful_mask_gives_way_to_a_surer_one_of_a_wider_patch():
    first, asked = in_doubt(), []
    second = ball(SURE, spacing=1.5 * WIDER)

    def look(point, spacing):
        asked.append((tuple(point), spacing))
        return second

    assert look_wider(first, look) is second
    assert asked == [((0.0, 0.0, 0.0), pytest.approx(1.5 * WIDER))]
    assert second.asked_spacing == 1.5 * WIDER, "a wider view is one wider than this"


def test_a_wider_look_that_is_hardly_surer_or_has_leaked_does_not_count():
    first = in_doubt()
    assert expected_iou(first) < 0.5 * EXPECTED[UNSURE], "or the following would not be in doubt"
    first.logits[first.logits == UNSURE] = 2.0
    barely = in_doubt()
    barely.logits[barely.logits == UNSURE] = 2.5
    assert expected_iou(first) < expected_iou(barely) < expected_iou(first) + SURER
    assert look_wider(first, lambda point, spacing: barely) is first
    assert look_wider(first, lambda point, spacing: ball(-1.0)) is first, "nothing found"
    grown = [ball(SURE, 20 * factor ** (1 / 3), 3.0) for factor in (LARGEST_GROWTH - 1, LARGEST_GROWTH + 1)]
    assert look_wider(first, lambda point, spacing: grown[0]) is grown[0]
    assert look_wider(first, lambda point, spacing: grown[1]) is first


def test_where_nothing_was_found_anything_counts():
    second = ball(SURE, 40.0, 2.4)
    assert look_wider(ball(-1.0), lambda point, spacing: second) is second


@pytest.mark.parametrize("radius", [5.0, 20.0])
def test_what_is_small_is_looked_at_closer_and_never_wider(radius):
    volume = Volume(np.zeros((96, 96, 96), np.float32), np.eye(4))
    first, spacings = ball(UNSURE, radius), []
    first.logits[first.logits < 0] = -2.0

    def look(point, spacing):
        spacings.append(spacing)
        return first

    found = looks.look_again(volume, first, look)
    if radius == 5.0:
        assert found is first
    else:  # still in doubt, so that its mask is a bolder one (test_bolder.py)
        assert np.allclose(found.logits, first.logits + RAISE)
    assert spacings == [pytest.approx(1.0 if radius == 5.0 else 1.5 * WIDER)]


@pytest.mark.parametrize("second_look", [True, False])
def test_the_predictor_returns_the_wider_patch(second_look):
    class Farsighted(torch.nn.Module):
        """Knows the ball where the patch shows darkness around the cube, too; else takes everything."""

        def encode(self, patch):
            return patch

        def decode(self, features, prompt):
            cube = features.quantile(0.75)
            if features.min() > cube - 0.1:
                return torch.full_like(features, 0.2)
            return torch.where(features > (features.max() + cube) / 2, 10.0, -10.0)

    k, j, i = np.meshgrid(*[np.arange(128.0) - 63.5] * 3, indexing="ij")
    array = (np.maximum(np.maximum(abs(k), abs(j)), abs(i)) < 40) + 2.0 * (k**2 + j**2 + i**2 < 400)
    matrix = np.diag([1.5, 1.5, 1.5, 1.0])
    volume, stages = Volume(array.astype(np.float32), matrix), []
    predictor = Predictor(
        network=Farsighted(), device="cpu", patch_size=SIZE, fused=False, second_look=second_look
    )
    prediction = predictor.predict(volume, (95.25,) * 3, progress=stages.append)
    assert stages.count("decode") == (2 if second_look else 1)
    assert prediction.grid.spacing == pytest.approx(1.5 * WIDER if second_look else 1.5)
    assert (predictor._encoded is None) is second_look, "nothing of a second look is kept"
    mask = prediction.mask(volume.geometry).full(volume.geometry).astype(bool)
    found = 2 * (mask & (array > 2)).sum() / (mask.sum() + (array > 2).sum())
    assert bool(found > 0.9) is second_look
