"""Where the cursor rests in a view, the image is encoded ahead of the click."""

from __future__ import annotations

import time

import pytest
from gui_fakes import EVENTS
from SAMUSegmentLib.resting import REST_SECONDS, RestingCursor
from test_effect import PATIENCE_S, A, B, site  # noqa: F401 - a fixture

from samu_core.errors import SamuError


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_place_is_told_once_after_the_rest():
    clock, told = Clock(), []
    cursor = RestingCursor(told.append, clock)
    cursor.tick()
    cursor.moved([1, 2, 3])
    clock.now = 0.9 * REST_SECONDS
    cursor.tick()
    cursor.moved([4, 5, 6])
    clock.now = 1.8 * REST_SECONDS
    cursor.tick()
    assert told == []
    clock.now = 2 * REST_SECONDS
    cursor.tick()
    cursor.tick()
    assert told == [(4, 5, 6)]
    cursor.moved([7, 8, 9])
    cursor.left()
    clock.now = 9.0
    cursor.tick()
    assert len(told) == 1


@pytest.fixture
def ahead(site, monkeypatch):  # noqa: F811
    """The site, with a predictor that can look ahead and a cursor that rests at once."""
    monkeypatch.setattr("SAMUSegmentLib.resting.REST_SECONDS", 0.0)
    site.fetched = []

    def prefetch(volume, point_ras, *, spacing, cancelled):
        site.fetched.append((tuple(point_ras), spacing))
        return True

    site.predictor.loaded, site.predictor.prefetch = True, prefetch
    return site


def rest(site, count=1):  # noqa: F811
    """Let timers fire until so many places were looked at, and the worker has nothing left."""
    deadline = time.monotonic() + PATIENCE_S
    client = site.effect.session.controller._client
    while len(site.fetched) < count or client.busy:
        assert time.monotonic() < deadline
        for timer in site.fakes.timers:
            timer.fire()
        time.sleep(0.001)


def test_a_resting_cursor_prepares_the_click(ahead):
    status = ahead.status
    assert not ahead.event(EVENTS.MouseMoveEvent, A), "other handlers see the cursor, too"
    rest(ahead)
    point, spacing = ahead.fetched[0]
    assert point[:2] == pytest.approx(A) and spacing == 1.5
    assert ahead.status == status and ahead.predictor.calls == 0
    ahead.press(A)
    ahead.assertBalls(A)


def test_a_cursor_that_left_the_view_prepares_nothing(ahead):
    ahead.event(EVENTS.MouseMoveEvent, A)
    ahead.event(EVENTS.LeaveEvent)
    ahead.finish()
    assert ahead.fetched == []


def test_a_click_goes_first(ahead):
    ahead.event(EVENTS.MouseMoveEvent, B)
    ahead.press(A)
    ahead.assertBalls(A)
    assert ahead.fetched == []


def test_no_network_is_loaded_for_a_cursor(ahead):
    ahead.predictor.loaded = False
    ahead.event(EVENTS.MouseMoveEvent, A)
    ahead.finish()
    assert ahead.fetched == []


def test_a_failure_ahead_is_no_failure_of_a_click(ahead, caplog):
    def prefetch(*_args, **_options):
        ahead.fetched.append(None)
        raise SamuError("no")

    status, ahead.predictor.prefetch = ahead.status, prefetch
    ahead.event(EVENTS.MouseMoveEvent, A)
    rest(ahead)
    assert ahead.status == status and "look ahead" in caplog.text
    ahead.press(A)
    ahead.assertBalls(A)


def test_a_cursor_outside_the_volume_or_without_one_is_left_alone(ahead):
    ahead.event(EVENTS.MouseMoveEvent, (1e5, 0))
    ahead.finish()
    ahead.editor.node.SetAndObserveSourceVolumeNode(None)
    ahead.event(EVENTS.MouseMoveEvent, A)
    ahead.finish()
    assert ahead.fetched == []
