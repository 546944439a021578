"""The one predictor and the one worker thread that panel and effects share."""

from __future__ import annotations

import atexit
from typing import Any

from samu_core.predictor import Predictor
from SAMUSegmentLib.dependencies import Dependencies
from SAMUSegmentLib.worker import InferenceWorker

_shared: dict[str, Any] = {}


def sharedPredictor() -> Any:
    """The predictor; it loads torch and the network at its first prediction, not before."""
    if "predictor" not in _shared:
        _shared["predictor"] = Predictor()
    return _shared["predictor"]


def sharedWorker() -> InferenceWorker:
    """The worker; its thread starts with the first task."""
    if "worker" not in _shared:
        _shared["worker"] = InferenceWorker()
        # A thread that computes while the interpreter is torn down would crash the application.
        atexit.register(_shared["worker"].close, 1.0)
    return _shared["worker"]


def sharedDependencies() -> Dependencies:
    """Says whether PyTorch is there."""
    if "dependencies" not in _shared:
        _shared["dependencies"] = Dependencies()
    return _shared["dependencies"]


def use(predictor: Any | None = None, dependencies: Dependencies | None = None) -> None:
    """Let others take the place of the shared ones, for sessions that begin afterwards.

    Self-tests need that in a Slicer without torch. None: the real one.
    """
    for name, stand in (("predictor", predictor), ("dependencies", dependencies)):
        _shared.pop(name, None)
        if stand is not None:
            _shared[name] = stand


def close() -> None:
    """Stop the thread and forget the network; the next use begins anew."""
    worker = _shared.pop("worker", None)
    _shared.clear()
    if worker is not None:
        atexit.unregister(worker.close)
        worker.close(timeoutSeconds=1.0)
