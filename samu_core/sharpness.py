"""The volume through a patch, equally sharp wherever the patch's voxels fall between the volume's.

Linear interpolation leaves a voxel as it is where both grids meet, and averages two neighbours half-way
between them. At a fraction f from one voxel to the next that is a blur of variance f (1 - f) voxels squared,
from 0 to 1/4. So how sharp the network saw an image depended on where in a voxel the click lay, a copy of the
image on another grid looked smoother than the original, and its mask could be another one (docs/model.md,
"After the network"). What is sharper than half-way between two voxels is blurred until it is not.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from samu_core.engine import import_torch
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

    Raises:
        SamuError: there is no torch.
    """
    torch = import_torch()
    patch = grid.sample(volume)
    with torch.inference_mode():
        mixed = torch.from_numpy(patch)
        for axis, shares in enumerate(neighbour_shares(grid, volume.geometry)):
            if shares.any():
                _mix(torch, mixed, axis, torch.from_numpy(shares))
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


def _mix(torch: Any, patch: Any, axis: int, shares: Any) -> None:
    """Each plane of a tensor (D, H, W) across the axis takes its share, of a tensor (size,), from either
    neighbour, in place; from itself where there is none, so that a constant patch stays as it is. In torch,
    because numpy takes three times as long."""
    last = len(shares) - 1
    shares = (shares / LARGEST_SHARE).view([-1 if place == axis else 1 for place in range(3)])
    for block in patch.split(SLICES_AT_ONCE, 1 if axis == 0 else 0):
        # Made smaller before subtracting: intensities may be as large as float32 allows.
        flow = torch.diff(block * LARGEST_SHARE, dim=axis).nan_to_num_(0.0)
        block.narrow(axis, 0, last).addcmul_(flow, shares.narrow(axis, 0, last))
        block.narrow(axis, 1, last).addcmul_(flow, shares.narrow(axis, 1, last), value=-1)
