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
    if cost.device.type == "cpu":
        # One after the other: what a step of both reads does not fit the processor's first cache.
        return _by_planes(cost, seed, spacing), _by_planes(unlike, seed)
    return _by_jumps(cost, unlike, seed, spacing)


def _from_seed(like: torch.Tensor, seed: list[torch.Tensor]) -> torch.Tensor:
    """(B, D, H, W), 0 at the seed and FAR elsewhere."""
    values = torch.full_like(like, FAR, memory_format=torch.contiguous_format)
    # Not "= 0.0": a number of the host cannot be captured in a CUDA graph.
    at_seed = (torch.arange(len(like), device=like.device), *seed)
    return values.index_put_(at_seed, values.new_zeros(()))


def _by_planes(
    volumes: torch.Tensor, seed: list[torch.Tensor], spacing: list[float] | None = None
) -> torch.Tensor:
    """Least sums of costs (B, D, H, W) per mm times `spacing`, or, without it, least peaks of unlikeness."""
    values = _from_seed(volumes, seed)
    lengths = [None] * 3 if spacing is None else spacing
    lines = [_Planes(volumes, axis, length) for axis, length in enumerate(lengths)]
    for _ in range(SWEEPS):
        for along in lines:
            values = along.sweep(values)
    return values.contiguous()


class _Planes:
    """Sweeps along one axis on a CPU: plane by plane, each takes what its neighbour offers.

    The axis is in front, so that each step is over memory that lies together. Planes lie a few floats more
    than a power of two apart, or they would compete for the same cache lines. numpy does the steps: the same
    numbers as torch, with less overhead per call.

    Args:
        volumes: (B, D, H, W), costs or unlikeness.
        axis: 0...2 for D, H, W.
        length: mm from plane to plane, for sums; None for peaks.
    """

    def __init__(self, volumes: torch.Tensor, axis: int, length: float | None) -> None:
        self.axis = axis
        front = volumes.movedim(axis + 1, 0)
        count, size = len(front), front[0].numel()
        room = volumes.new_empty(2, count + 1, size + PADDING)[..., :size]
        self.front, steps = (part[:-1].unflatten(1, front.shape[1:]) for part in room)
        if length is None:
            self.extend = np.maximum
            steps.copy_(front)
        else:
            self.extend = np.add
            torch.add(front[:-1], front[1:], out=steps[:-1]).mul_(length / 2)
        (*self.planes, self.offer), steps = (list(part) for part in room.numpy())
        # What a step to a plane costs from the one before, and from the one behind.
        self.onward, self.back = (steps, steps) if length is None else ([None, *steps], steps)

    def sweep(self, values: torch.Tensor) -> torch.Tensor:
        """To and fro; (B, D, H, W) -> the same, in memory that the next call overwrites."""
        self.front.copy_(values.movedim(self.axis + 1, 0))
        extend, planes, offer, onward, back = self.extend, self.planes, self.offer, self.onward, self.back
        for index in range(1, len(planes)):
            extend(planes[index - 1], onward[index], out=offer)
            np.minimum(planes[index], offer, out=planes[index])
        for index in range(len(planes) - 2, -1, -1):
            extend(planes[index + 1], back[index], out=offer)
            np.minimum(planes[index], offer, out=planes[index])
        return self.front.movedim(0, self.axis + 1)


def _by_jumps(
    cost: torch.Tensor, unlike: torch.Tensor, seed: list[torch.Tensor], spacing: list[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """`cheapest_ways` in few calls, which a CUDA graph can capture."""
    values = torch.stack([_from_seed(cost, seed), _from_seed(unlike, seed)])
    lines = [_Jumps(cost, unlike, axis, length) for axis, length in enumerate(spacing)]
    for _ in range(SWEEPS):
        for along in lines:
            values = along.sweep(values)
    return values[0], values[1]


class _Jumps:
    """The same sweeps where a call costs more than its arithmetic, as on a GPU: by jumps of 1, 2, 4, ...
    voxels, which together reach as far as a walk from plane to plane does (a scan by doubling)."""

    def __init__(self, cost: torch.Tensor, unlike: torch.Tensor, axis: int, length: float) -> None:
        self.axis, size = axis + 1, cost.shape[axis + 1]
        way = (self._from(cost, 0, size - 1) + self._from(cost, 1, size - 1)) * (length / 2)
        onward, back = self._from(unlike, 1, size - 1), self._from(unlike, 0, size - 1)
        self.jumps, jump = [], 1
        while jump < size:
            self.jumps.append((jump, way, onward, back))
            left = size - 2 * jump
            if left > 0:
                way = self._from(way, 0, left) + self._from(way, jump, left)
                onward = torch.maximum(self._from(onward, 0, left), self._from(onward, jump, left))
                back = torch.maximum(self._from(back, 0, left), self._from(back, jump, left))
            jump *= 2

    def _from(self, volumes: torch.Tensor, start: int, count: int) -> torch.Tensor:
        return volumes.narrow(self.axis, start, count)

    def sweep(self, values: torch.Tensor) -> torch.Tensor:
        """To and fro; (2, B, D, H, W), changed in place."""
        sums, tops = values.unbind(0)
        count = sums.shape[self.axis]
        for to in (True, False):
            for jump, way, onward, back in self.jumps:
                start, end = (0, jump) if to else (jump, 0)
                for quantity, offer in (
                    (sums, self._from(sums, start, count - jump) + way),
                    (tops, torch.maximum(self._from(tops, start, count - jump), onward if to else back)),
                ):
                    taker = self._from(quantity, end, count - jump)
                    torch.minimum(taker, offer, out=taker)
        return values
