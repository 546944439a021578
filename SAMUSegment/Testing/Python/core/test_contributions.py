"""Taking one click of several back, against a brute-force replay; and the options of a click."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from SAMUSegmentLib.contributions import ClickEdit, VoxelSet, withdraw
from SAMUSegmentLib.options import ClickMode, FieldOfView, clampedThreshold

EXTENT = (2, 5, -1, 2, 3, 5)
SHAPE = (3, 4, 4)


def replay(start, clicks):
    """The segment after clicks (key, adds, mask), and the edits that lead to it."""
    state, edits = start.copy(), []
    for key, adds, mask in clicks:
        after = state | mask if adds else state & ~mask
        edits.append(
            ClickEdit(key, "S", adds, VoxelSet.of(mask, EXTENT), VoxelSet.of(after != state, EXTENT))
        )
        state = after
    return state, edits


def applied(state, withdrawal):
    result = state.copy()
    for voxels, value in ((withdrawal.clear, False), (withdrawal.fill, True)):
        k, j, i = (voxels.indices() - np.array(EXTENT[::2])).T[::-1]
        result[k, j, i] = value
    return result


masks = st.binary(min_size=48, max_size=48).map(
    lambda raw: (np.frombuffer(raw, np.uint8) % 3 == 0).reshape(SHAPE)
)


@settings(max_examples=60, deadline=None)
@given(start=masks, clicks=st.lists(st.tuples(st.booleans(), masks), min_size=1, max_size=5), data=st.data())
def test_withdrawing_clicks_equals_replaying_the_others(start, clicks, data):
    clicks = [(key, adds, mask) for key, (adds, mask) in enumerate(clicks)]
    state, edits = replay(start, clicks)
    order = data.draw(st.permutations([key for key, _, _ in clicks]))
    for key in order:
        withdrawal = withdraw(edits, key)
        state, edits = applied(state, withdrawal), withdrawal.remaining
        clicks = [click for click in clicks if click[0] != key]
        expected, expectedEdits = replay(start, clicks)
        assert np.array_equal(state, expected)
        for edit, other in zip(edits, expectedEdits):
            assert edit.key == other.key and np.array_equal(edit.changed.mask(), other.changed.mask())
    assert np.array_equal(state, start)


def test_clicks_into_other_segments_do_not_matter():
    mask = np.ones(SHAPE, bool)
    first = ClickEdit(1, "A", True, VoxelSet.of(mask, EXTENT), VoxelSet.of(mask, EXTENT))
    second = ClickEdit(2, "B", True, VoxelSet.of(mask, EXTENT), VoxelSet.of(mask, EXTENT))
    withdrawal = withdraw([first, second], 1)
    assert withdrawal.remaining == (second,)
    assert len(withdrawal.clear) == mask.size and len(withdrawal.fill) == 0


def test_a_click_that_changed_nothing_takes_nothing_with_it():
    nothing = VoxelSet.of(np.zeros(SHAPE, bool), EXTENT)
    withdrawal = withdraw([ClickEdit(1, "A", True, nothing, nothing)], 1)
    assert withdrawal.remaining == () and len(withdrawal.clear) == len(withdrawal.fill) == 0


def test_an_unknown_click_cannot_be_taken_back():
    with pytest.raises(KeyError):
        withdraw([], 1)


def test_voxel_sets_give_back_what_they_were_made_of():
    mask = np.random.default_rng(0).random(SHAPE) < 0.4
    voxels = VoxelSet.of(mask, EXTENT)
    assert np.array_equal(voxels.mask(), mask) and len(voxels) == mask.sum()
    again = VoxelSet.at(voxels.indices())
    assert len(again) == len(voxels) and again.holds(voxels.indices()).all()
    outside = np.array([[99, 0, 4], [2, -1, -3]])
    assert not voxels.holds(outside).any()
    with pytest.raises(ValueError):
        VoxelSet.of(mask, (0, 1, 0, 1, 0, 1))


def test_each_wider_view_is_wider_and_the_last_has_none():
    choice, seen = FieldOfView.STANDARD, []
    while choice is not None:
        seen.append(choice)
        choice = FieldOfView.widerThan(choice.spacing)
    assert [view.spacing for view in seen] == [1.5, 2.25, 3.0, 4.5]
    assert FieldOfView.widerThan(0.7) is FieldOfView.STANDARD
    assert FieldOfView.NATIVE.spacing == "native"
    labels = [view.label() for view in FieldOfView]
    assert len(set(labels)) == len(labels) and labels[0] == "192 mm" and "x3" in labels[3]


def test_every_mode_and_threshold_can_be_used():
    assert len({mode.label() for mode in ClickMode}) == 3
    assert 0 < clampedThreshold(0) < clampedThreshold(0.3) == 0.3 < clampedThreshold(1) < 1
