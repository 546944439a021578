"""The volume through a patch, equally sharp wherever the patch's voxels fall between the volume's.

Linear interpolation leaves a voxel as it is where both grids meet, and averages two neighbours half-way
between them. At a fraction f from one voxel to the next that is a blur of variance f (1 - f) voxels squared,
from 0 to 1/4. So how sharp the network saw an image depended on where in a voxel the click lay, a copy of the
image on another grid looked smoother than the original, and its mask could be another one (docs/model.md,
"After the network"). What is sharper than half-way between two voxels is blurred until it is not.
"""

from __future__ import annotations

import numpy as np

from samu_core.geometry import GridGeometry, PatchGrid, Volume

EVEN = 0.25  # variance of interpolation half-way between two voxels, in voxels squared
ANYWHERE = 1 / 6  # its mean over all places between them
LARGEST_SHARE = 0.2  # that a voxel takes from either neighbour: the patch cannot be as coarse as thick slices
ALIGNED = 0.05  # voxels of the volume that an axis may stray over the patch's whole edge
SLICES_AT_ONCE = 8  # of a patch: a block that stays in the processor's cache


def sample_evenly(grid: PatchGrid, volume: Volume) -> np.ndarray:
    """`PatchGrid.sample`, linear, then blurred along each axis to the variance of EVEN voxels of the volume.

    Args:
        grid: the patch, whose axes are those of RAS.
        volume: the image, on any grid.

    Returns:
        (size, size, size) float32, KJI, in the volume's intensities; NaN outside, which nothing mixes with.
    """
    patch = grid.sample(volume)
    gaps = bool(np.isnan(patch).any())
    for axis, shares in enumerate(neighbour_shares(grid, volume.geometry)):
        if shares.any():
            _mix(patch, axis, shares, gaps)
    return patch


def neighbour_shares(grid: PatchGrid, geometry: GridGeometry) -> list[np.ndarray]:
    """What a voxel of the patch takes from either neighbour along an axis, by its place on that axis.

    Where the axes of patch and volume are oblique to each other, every line of voxels passes all places
    between the volume's, and the mean counts.

    Args:
        grid: the patch.
        geometry: the volume's grid.

    Returns:
        for K, J and I of the patch (size,) float32 each, a share of the neighbour's value, 0...LARGEST_SHARE.
    """
    patch_to_volume = geometry.ras_to_ijk @ grid.geometry.ijk_to_ras
    steps, start = patch_to_volume[:3, :3], patch_to_volume[:3, 3]
    shares = []
    for axis in range(3):  # I, J, K of the patch
        along = int(np.abs(steps[:, axis]).argmax())
        others = np.abs(np.concatenate([np.delete(steps[:, axis], along), np.delete(steps[along], axis)]))
        variance, step = np.full(grid.size, ANYWHERE), float(np.linalg.norm(steps[:, axis]))
        if others.max() * grid.size < ALIGNED:
            place = steps[along, axis] * np.arange(grid.size) + start[along]
            variance = (place % 1) * (1 - place % 1)
        # A kernel (s, 1 - 2 s, s) has the variance 2 s, in voxels of the patch.
        share = (EVEN - variance) / (2 * step**2)
        shares.append(np.clip(share, 0, LARGEST_SHARE).astype(np.float32))
    return shares[::-1]


def _mix(patch: np.ndarray, axis: int, shares: np.ndarray, gaps: bool) -> None:
    """Each plane across the axis takes its share (size,) from either neighbour, in place; from itself where
    there is none, so that a constant patch stays as it is. `gaps`: whether the patch (D, H, W) holds NaN."""
    shares = (shares / LARGEST_SHARE)[:, None, None]
    planes_of_patch = np.moveaxis(patch, axis, 0)
    for start in range(0, planes_of_patch.shape[1], SLICES_AT_ONCE):
        planes = planes_of_patch[:, start : start + SLICES_AT_ONCE]
        # Made smaller before subtracting: intensities may be as large as float32 allows.
        flow = np.diff(planes * np.float32(LARGEST_SHARE), axis=0)
        if gaps:
            flow[np.isnan(flow)] = 0
        planes[:-1] += shares[:-1] * flow
        planes[1:] -= shares[1:] * flow
