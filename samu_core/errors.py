"""Errors whose message is meant for the user: one line that says what to do next."""

from __future__ import annotations


class SamuError(Exception):
    """Base of every error that samu_core raises on purpose; ``str(error)`` is one line for the user."""


class PointOutsideVolumeError(SamuError):
    """The click is not in the volume; the message gives the volume's RAS bounds in mm."""


class VolumeError(SamuError):
    """The image cannot be segmented: RGB, empty, all NaN, a single slice, singular geometry."""


class WeightsError(SamuError):
    """The network's weights are missing, truncated, of another program or do not match their checksum."""


class Cancelled(SamuError):
    """The caller asked to stop before the result was ready."""

    def __init__(self, message: str = "The segmentation was cancelled."):
        super().__init__(message)
