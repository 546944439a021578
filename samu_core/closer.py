"""A closer look at what is small: another click in it, in a patch of finer voxels.

At 1.5 mm a lesion of a few millimetres is a handful of voxels, though many images show more of it. Where the
first mask is small and the image has the detail, the second one is the result; all else keeps the first. The
second look is prompted in the depth of the first mask: in a thing so small a click is often at the rim, where
what it means is doubtful.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import SimpleITK as sitk

from samu_core.geometry import Volume
from samu_core.prediction import Prediction

FINER = 2 / 3  # of the first patch's spacing
LARGEST_VOXELS = 300  # of the first patch, 1 ml at 1.5 mm; figures by size: benchmarks/README.md
REACH_VOXELS = 24  # from the click, along each axis; what goes on beyond is not small
DEEP = 0.9  # of the greatest depth is deep enough; of such voxels the nearest to the click is prompted
FINE_ENOUGH = 0.8  # of the first patch's spacing: an image without smaller voxels has nothing more to show


def look_closer(
    volume: Volume, first: Prediction, look: Callable[[np.ndarray, float], Prediction]
) -> Prediction:
    """The first prediction, or a closer one of the same structure.

    Args:
        volume: what was clicked.
        first: of its click.
        look: the prediction of a click at a point (RAS mm) in a patch of another spacing (mm).

    Returns:
        `first`, unless it is small (`finer_spacing`) and the closer look finds a whole structure there.
    """
    spacing = finer_spacing(volume, first)
    if spacing is None:
        return first
    second = look(inner_point(volume, first), spacing)
    second.point_ras, second.asked_spacing = first.point_ras, first.grid.spacing
    found = not second.mask(second.grid.geometry).empty
    return second if found and not second.touches_border() else first


def inner_point(volume: Volume, prediction: Prediction) -> np.ndarray:
    """A point in the depth of the clicked structure, as near to the click as may be.

    Returns:
        (3,) RAS mm, the centre of a voxel of the patch; the click itself where there is no mask, or none in
        the volume.
    """
    region = prediction.mask(prediction.grid.geometry)
    if region.empty:
        return prediction.point_ras
    found = np.pad(region.array, 1)
    distances = sitk.SignedMaurerDistanceMap(
        sitk.GetImageFromArray(found), insideIsPositive=True, squaredDistance=False
    )
    depths = sitk.GetArrayFromImage(distances)[1:-1, 1:-1, 1:-1]
    if prediction.inside is not None:
        depths = np.where(prediction.inside[region.slices_kji], depths, 0)
    places = np.argwhere((depths >= DEEP * depths.max()) & (region.array > 0)) + region.extent[::2][::-1]
    click = prediction.grid.point_to_kji(prediction.point_ras)
    nearest = places[np.linalg.norm(places - click, axis=1).argmin()]
    point = prediction.grid.geometry.ijk_to_point(nearest[::-1])
    return point if volume.geometry.contains(point) else prediction.point_ras


def shows_more(volume: Volume, spacing: float) -> bool:
    """Whether the volume has smaller voxels than a patch of `spacing` mm: judged by the edge of a cube of the
    same size, since a finer patch of thick slices is interpolated for the most part."""
    return float(np.cbrt(volume.geometry.spacing.prod())) <= FINE_ENOUGH * spacing


def finer_spacing(volume: Volume, first: Prediction) -> float | None:
    """Spacing (mm) for a closer look; None where none is worth while: the mask is empty or large, or the
    volume has no smaller voxels."""
    spacing = first.grid.spacing
    if not shows_more(volume, spacing):
        return None
    voxels = first.clicked_voxels(REACH_VOXELS)
    return spacing * FINER if voxels is not None and 0 < voxels <= LARGEST_VOXELS else None
