"""Which voxels hang together with the click: the cheapest way to each of them through the image.

Convolutions see what is alike and near, but not whether something unlike lies between; a whole vessel is one
thing, and the bone on its other side is another. Interactive segmentation has long used such geodesic
distances (Criminisi et al., ECCV 2008; Wang et al., DeepIGeoS, TPAMI 2018).

Everything is float32 at half the patch's resolution, (B, D, H, W); distances run along the axes. A few
sweeps over the three axes to and fro find the cheapest ways with a few bends; others look costlier.
"""

from __future__ import annotations

import numpy as np
import torch

SWEEPS = 3
FAR = 1e4  # more than any way costs
PADDING = 16  # floats between planes


def voxel_of(position: torch.Tensor, shape) -> list[torch.Tensor]:
    """Indices K, J, I, (B,) each, of the voxels that hold the points (B, 3) given as fractions."""
    return [(position[:, axis].float() * size).long().clamp(0, size - 1) for axis, size in enumerate(shape)]


def cheapest_ways(
    cost: torch.Tensor, unlike: torch.Tensor, seed: list[torch.Tensor], spacing: list[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the ways from the seed to every voxel: the least sum of cost times length, and the least peak.

    The peak is the greatest unlikeness on a way: the tolerance at which region growing from the click would
    reach the voxel.

    Args:
        cost: (B, D, H, W), at least 0, per mm; a step between two voxels costs their mean.
        unlike: (B, D, H, W), at least 0.
        seed: of `voxel_of`.
        spacing: mm per voxel along D, H, W.

    Returns:
        Two (B, D, H, W), cost times mm and the unit of `unlike`; 0 at the seed.
    """
    values = torch.full((2, *cost.shape), FAR, dtype=cost.dtype, device=cost.device)
    values[(slice(None), torch.arange(len(cost), device=cost.device), *seed)] = 0.0
    lines = [_Lines(cost, unlike, axis, length) for axis, length in enumerate(spacing)]
    for _ in range(SWEEPS):
        for along in lines:
            values = along.sweep(values)
    return tuple(values.contiguous().unbind(0))


class _Lines:
    """Plane by plane along one axis, every plane takes what its neighbour offers.

    The axis is in front, so that each step is over memory that lies together; both quantities share a plane.
    Planes lie a few floats more than a power of two apart, or they would compete for the same cache lines.
    On the CPU numpy does the steps: the same numbers, with half of torch's overhead per call.
    """

    def __init__(self, cost: torch.Tensor, unlike: torch.Tensor, axis: int, length: float) -> None:
        self.axis = axis
        front = cost.movedim(axis + 1, 0)
        self.shape = front.shape
        count, size = len(front), front[0].numel()
        room = cost.new_empty(count + 1, 2, size + PADDING)[..., :size]
        steps, peaks = cost.new_empty(2, count, size + PADDING)[..., :size].unbind(0)
        torch.add(front[:-1], front[1:], out=steps[:-1].unflatten(1, front.shape[1:])).mul_(length / 2)
        peaks.unflatten(1, front.shape[1:]).copy_(unlike.movedim(axis + 1, 0))
        self.front = room[:-1].unflatten(2, front.shape[1:])
        if cost.device.type == "cpu":
            room, steps, peaks = room.numpy(), steps.numpy(), peaks.numpy()
            self.add, self.maximum, self.minimum = np.add, np.maximum, np.minimum
        else:
            self.add, self.maximum, self.minimum = torch.add, torch.maximum, torch.minimum
        *self.planes, self.offer = room
        self.sums = [plane[0] for plane in self.planes]
        self.tops = [plane[1] for plane in self.planes]
        self.steps, self.peaks = list(steps), list(peaks)

    def sweep(self, values: torch.Tensor) -> torch.Tensor:
        """To and fro; (2, B, D, H, W) -> the same, in memory that the next call overwrites."""
        self.front.copy_(values.movedim(self.axis + 2, 0))
        last = len(self.planes) - 1
        offered_sum, offered_top = self.offer[0], self.offer[1]
        for index in range(1, last + 1):
            self.add(self.sums[index - 1], self.steps[index - 1], out=offered_sum)
            self.maximum(self.tops[index - 1], self.peaks[index], out=offered_top)
            self.minimum(self.planes[index], self.offer, out=self.planes[index])
        for index in range(last - 1, -1, -1):
            self.add(self.sums[index + 1], self.steps[index], out=offered_sum)
            self.maximum(self.tops[index + 1], self.peaks[index], out=offered_top)
            self.minimum(self.planes[index], self.offer, out=self.planes[index])
        return self.front.movedim(0, self.axis + 2)
