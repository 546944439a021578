"""A timer of Qt that lets a session do its work on the main thread."""

from __future__ import annotations

from collections.abc import Callable

import qt

INTERVAL_MS = 20


class Pump:
    """Calls a function every 20 ms while it runs; an error in it stops the pump rather than repeat.

    Args:
        tick: what to call.
        failed: called with the error that stopped it.
    """

    def __init__(self, tick: Callable[[], None], failed: Callable[[BaseException], None]):
        self._tick = tick
        self._failed = failed
        self._timer = qt.QTimer()
        self._timer.setInterval(INTERVAL_MS)
        self._timer.connect("timeout()", self._onTimeout)

    def start(self) -> None:
        """Begin, or go on."""
        self._timer.start()

    def stop(self) -> None:
        """Pause."""
        self._timer.stop()

    def close(self) -> None:
        """For good; afterwards nothing keeps this object alive."""
        self._timer.stop()
        self._timer.disconnect("timeout()", self._onTimeout)

    def _onTimeout(self) -> None:
        try:
            self._tick()
        except Exception as error:
            self._timer.stop()
            self._failed(error)
