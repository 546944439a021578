"""What a mask typically holds, for the decoder to compare with instead of the one clicked voxel.

The paper's prompt is a point. What its voxel looks like may say little of the structure: a click at a rim or
in a bone's marrow. Once there is a mask, its voxels together say more. Not in the paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from samu_core.network.averages import halved

FINEST_LEVEL = 2  # of the decoder that compares with what is typical; finer ones keep to the clicked voxel


@dataclass(frozen=True, eq=False)
class Typical:
    """What is typical of one structure in one patch.

    Attributes:
        intensity: (1,) float32, the smoothed patch's median within the mask.
        shares: {number of a level's voxels: (voxels,) float32}, how much of the mask each voxel of a decoder
            level holds, in sum 1, KJI order; levels from FINEST_LEVEL on. Patches have no two levels with as
            many voxels.
        amount: (1,) float32, 0 where nothing of this is to be used, else 1: what a CUDA graph can be told.
            None is 1.
    """

    intensity: torch.Tensor
    shares: dict[int, torch.Tensor]
    amount: torch.Tensor | None = None

    @classmethod
    def of(cls, mask: torch.Tensor, smoothed: torch.Tensor, coarsest: int) -> Typical:
        """What is typical of a mask.

        Args:
            mask: (D, H, W) bool, with at least one voxel, on the patch.
            smoothed: (D, H, W) float32, what likeness is measured on (`averages.smooth`).
            coarsest: number of the last level.

        Raises:
            ValueError: the mask is empty or not of the patch's shape.
        """
        if mask.shape != smoothed.shape or not mask.any():
            raise ValueError(f"A mask of the patch is needed, {tuple(smoothed.shape)} with voxels in it.")
        count = mask.view(torch.uint8)  # 1 to 8 voxels of 2^3, a quarter of the memory of their mean
        count = count[0::2] + count[1::2]
        count = count[:, 0::2] + count[:, 1::2]
        shares, current = {}, (count[..., 0::2] + count[..., 1::2]).float()[None]
        for level in range(1, coarsest + 1):
            current = current if level == 1 else halved(current)
            if level >= FINEST_LEVEL:
                shares[current.numel()] = (current / current.sum()).flatten()
        return cls(torch.tensor([_median_within(mask, smoothed)], device=mask.device), shares)

    @classmethod
    def unknown(cls, shape: Sequence[int], coarsest: int, device) -> Typical:
        """Memory on a device for what is typical of structures in patches of that `shape` (D, H, W); nothing
        is known so far. `coarsest` is the number of the last level."""
        counts = [math.prod(shape) >> 3 * level for level in range(FINEST_LEVEL, coarsest + 1)]
        shares = {count: torch.zeros(count, device=device) for count in counts}
        return cls(torch.zeros(1, device=device), shares, torch.zeros(1, device=device))

    def learn(self, other: Typical | None) -> None:
        """Copy another's numbers, of patches as large, to this one's memory, which is `unknown`'s; None:
        nothing is known."""
        self.amount.fill_(0.0 if other is None else 1.0)
        if other is not None:
            self.intensity.copy_(other.intensity)
            for count, share in other.shares.items():
                self.shares[count].copy_(share)

    def instead_of_intensity(self, clicked: torch.Tensor) -> torch.Tensor:
        """(1,): the typical intensity in place of the `clicked` one (1,)."""
        intensity = self.intensity.to(clicked.dtype)
        return intensity if self.amount is None else torch.lerp(clicked, intensity, self.amount)

    def instead_of_content(self, clicked: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """A level's mean features over the mask in place of the `clicked` ones, which stay on levels finer
        than FINEST_LEVEL.

        Args:
            clicked: (C,) or (1, C) float32. features: (1, C, d, h, w), the level's.

        Returns:
            as many float32.
        """
        share = self.shares.get(features[0, 0].numel())
        if share is None:
            return clicked
        # Voxels in rows, as channels-last memory holds them: nothing is copied but to float32.
        voxels = features[0].permute(1, 2, 3, 0).reshape(len(share), -1)
        content = torch.mv(voxels.float().t(), share).view_as(clicked)
        return content if self.amount is None else torch.lerp(clicked, content, self.amount)


def _median_within(mask: torch.Tensor, volume: torch.Tensor) -> float:
    """The (lower) median of the volume in the mask. By NumPy: torch would hold an index of 24 bytes for each
    voxel of the mask meanwhile, 10 MiB at the peak of a click in something large."""
    values = volume.cpu().numpy()[mask.cpu().numpy()]
    middle = (len(values) - 1) // 2
    values.partition(middle)
    return float(values[middle])
