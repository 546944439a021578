"""The clicked part of a mask whose bodies hang together by doubtful voxels."""

from __future__ import annotations

import numpy as np
import pytest

from samu_core import parts
from samu_core.geometry import PatchGrid
from samu_core.prediction import Prediction

SURE, DOUBTFUL, OUTSIDE = 4.0, 0.5, -6.0
LEFT, RIGHT = (32, 32, 16), (32, 32, 48)  # KJI


def two_balls(bridge: float = DOUBTFUL, radius: float = 9.0) -> np.ndarray:
    """Logits (64, 64, 64): two balls of which the network is sure, and a rod between them."""
    index = np.stack(np.meshgrid(*[np.arange(64)] * 3, indexing="ij"), axis=-1)
    logits = np.full((64,) * 3, OUTSIDE, np.float32)
    logits[30:35, 30:35, 16:49] = bridge
    for centre in (LEFT, RIGHT):
        logits[np.linalg.norm(index - np.array(centre), axis=-1) <= radius] = SURE
    return logits


def part_of(logits: np.ndarray, click, level: float = 0.0) -> np.ndarray:
    return parts.clicked_part(logits, logits >= level, level, np.array(click, float))


def test_a_doubtful_bridge_parts_two_bodies():
    logits = two_balls()
    left, right = part_of(logits, LEFT), part_of(logits, RIGHT)
    assert left[LEFT] and not left[RIGHT] and right[RIGHT] and not right[LEFT]
    assert not (left & right).any()
    sure = logits == SURE
    assert (left | right)[sure].all(), "each body stays whole"
    halves = [int(side[30:35, 30:35, 16:49].sum()) for side in (left, right)]
    assert abs(halves[0] - halves[1]) < 0.3 * max(halves), "the bridge is shared"


def test_a_sure_bridge_makes_one_structure_of_both():
    logits = two_balls(bridge=SURE)
    assert np.array_equal(part_of(logits, LEFT), logits >= 0)


def test_spots_of_certainty_are_no_structures():
    logits = two_balls()
    logits[logits == SURE] = DOUBTFUL
    logits[30:33, 30:33, 14:19] = SURE
    logits[31:33, 31:33, 47:49] = SURE
    assert np.array_equal(part_of(logits, (31, 31, 16)), logits >= 0)


def test_a_click_in_doubt_keeps_the_mask_whole():
    logits = two_balls()
    assert np.array_equal(part_of(logits, (32, 32, 32)), logits >= 0)
    inside = logits >= 0
    outside_the_array = parts.clicked_part(logits, inside, 0.0, np.array([-30.0, 200.0, 5.0]))
    assert np.array_equal(outside_the_array, inside)


def test_odd_shapes_and_other_thresholds():
    logits = two_balls()[1:, 3:, :61]
    left = part_of(logits, (31, 29, 16), level=-0.5)
    assert left.shape == logits.shape and left[31, 29, 16] and not left[31, 29, 48]
    assert part_of(logits, (31, 29, 16), level=2.0)[31, 29, 48] == (logits >= 2.0)[31, 29, 48]


@pytest.mark.parametrize("whole", [False, True])
def test_the_segment_is_the_clicked_body(whole):
    grid = PatchGrid((0.0, 0.0, 0.0), 64, 1.5)
    click = grid.geometry.ijk_to_point(np.array(LEFT[::-1], float))
    prediction = Prediction(two_balls(bridge=SURE if whole else DOUBTFUL), grid, click)
    mask = prediction.mask(grid.geometry).full(grid.geometry).astype(bool)
    assert mask[LEFT] and mask[RIGHT] == whole
    assert prediction.mask(grid.geometry, clicked_component=False).full(grid.geometry)[RIGHT]


def test_a_body_beyond_the_bridge_is_no_reason_to_widen_the_view():
    logits = two_balls()
    logits[30:35, 30:35, 48:] = SURE
    grid = PatchGrid((0.0, 0.0, 0.0), 64, 1.5)
    ends = [grid.geometry.ijk_to_point(np.array(end[::-1], float)) for end in (LEFT, RIGHT)]
    assert not Prediction(logits, grid, ends[0]).touches_border()
    assert Prediction(logits, grid, ends[1]).touches_border()
