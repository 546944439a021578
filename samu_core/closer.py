"""A closer look at what is small: the same click again, in a patch of finer voxels.

At 1.5 mm a lesion of a few millimetres is a handful of voxels, though many images show more of it. Where the
first mask is small and the image has the detail, the second one is the result; all else keeps the first.
"""

from __future__ import annotations

from collections.abc import Callable

from samu_core.geometry import Volume
from samu_core.prediction import Prediction

FINER = 2 / 3  # of the first patch's spacing
LARGEST_VOXELS = 2000  # of the first patch, 6.75 ml at 1.5 mm; figures by size: benchmarks/README.md
REACH_VOXELS = 24  # from the click, along each axis; what goes on beyond is not small
FINE_ENOUGH = 0.8  # of the first patch's spacing: an image without finer voxels has nothing more to show


def look_closer(volume: Volume, first: Prediction, look: Callable[[float], Prediction]) -> Prediction:
    """The first prediction, or a closer one of the same click.

    Args:
        volume: what was clicked.
        first: of its click.
        look: the prediction of the same click in a patch of another spacing (mm).

    Returns:
        `first`, unless it is small (`finer_spacing`) and the closer look finds a whole structure.
    """
    spacing = finer_spacing(volume, first)
    if spacing is None:
        return first
    second = look(spacing)
    second.asked_spacing = first.grid.spacing
    found = not second.mask(second.grid.geometry).empty
    return second if found and not second.touches_border() else first


def shows_more(volume: Volume, spacing: float) -> bool:
    """Whether the volume has voxels finer than those of a patch of `spacing` mm, along an axis at least."""
    return float(volume.geometry.spacing.min()) <= FINE_ENOUGH * spacing


def finer_spacing(volume: Volume, first: Prediction) -> float | None:
    """Spacing (mm) for a closer look; None where none is worth while: the mask is empty or large, or the
    volume has no finer voxels along any axis."""
    spacing = first.grid.spacing
    if not shows_more(volume, spacing):
        return None
    voxels = first.clicked_voxels(REACH_VOXELS)
    return spacing * FINER if voxels is not None and 0 < voxels <= LARGEST_VOXELS else None
