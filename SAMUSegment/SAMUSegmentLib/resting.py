"""The cursor at rest: where the next click may come."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

REST_SECONDS = 0.25


class RestingCursor:
    """Tells once for every place where the cursor rests; main thread.

    Args:
        rested: called with the place, (3,) world RAS mm.
        clock: seconds.
    """

    def __init__(
        self, rested: Callable[[Sequence[float]], None], clock: Callable[[], float] = time.monotonic
    ):
        self._rested, self._clock = rested, clock
        self._point: Sequence[float] | None = None
        self._since = 0.0

    def moved(self, point: Sequence[float]) -> None:
        """The cursor is somewhere else now."""
        self._point, self._since = tuple(point), self._clock()

    def left(self) -> None:
        """The cursor left the view, or something was clicked."""
        self._point = None

    def tick(self) -> None:
        """Called often; looks whether the cursor has rested for REST_SECONDS."""
        if self._point is None or self._clock() - self._since < REST_SECONDS:
            return
        point, self._point = self._point, None
        self._rested(point)
