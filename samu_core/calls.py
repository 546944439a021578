"""What belongs to one call of the Predictor, and the patch that outlives it."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from samu_core.errors import Cancelled
from samu_core.geometry import PatchGrid, Volume


@dataclass
class Call:
    """What one call of predict() brings along."""

    cancelled: Callable[[], bool] | None
    progress: Callable[[str], None] | None
    seconds: dict[str, float] = field(default_factory=dict)
    notice: str = ""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Cancellation before, progress at, and the time of a stage."""
        self.check()
        if self.progress is not None:
            self.progress(name)
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def check(self) -> None:
        if self.cancelled is not None and self.cancelled():
            raise Cancelled()


class Counter:
    """How many threads are inside `counted`."""

    def __init__(self) -> None:
        self.value = 0
        self._lock = threading.Lock()

    @contextmanager
    def counted(self) -> Iterator[None]:
        with self._lock:
            self.value += 1
        try:
            yield
        finally:
            with self._lock:
                self.value -= 1


@dataclass
class Encoded:
    """A patch whose features are at hand, and what they were made of."""

    grid: PatchGrid
    volume: weakref.ref
    geometry: Any
    modality: str | None
    version: Any
    patch: np.ndarray
    inside: np.ndarray
    features: Any = None

    def holds(self, grid: PatchGrid, modality: str | None, patch: np.ndarray) -> bool:
        """True when the features are those of this very patch."""
        if self.grid != grid or self.modality != modality:
            return False
        # Compared as bits, in which NaN equals NaN.
        return np.array_equal(patch.view(np.uint32), self.patch.view(np.uint32))

    def same_volume(self, volume: Volume) -> bool:
        """By promise of its version, or the very same object (whose voxels may have changed)."""
        return self.promised(volume) or (volume.version is None and self.volume() is volume)

    def promised(self, volume: Volume) -> bool:
        """True when the version says that place and voxels are unchanged."""
        return (
            volume.version is not None
            and volume.version == self.version
            and volume.geometry == self.geometry
            and volume.modality == self.modality
        )
