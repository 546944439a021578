"""Which voxels hang together with the click: the cheapest way to each of them through the image.

Convolutions see what is alike and near, but not whether something unlike lies between; a whole vessel is one
thing, and the bone on its other side is another. Interactive segmentation has long used such geodesic
distances (Criminisi et al., ECCV 2008; Wang et al., DeepIGeoS, TPAMI 2018).

Everything is float32 at half the patch's resolution, (B, D, H, W); distances run along the axes. A few
sweeps over the three axes to and fro find the cheapest ways with a few bends; others look costlier.
"""

from __future__ import annotations

import torch

SWEEPS = 3
FAR = 1e4  # more than any way costs


def voxel_of(position: torch.Tensor, shape) -> list[torch.Tensor]:
    """Indices K, J, I, (B,) each, of the voxels that hold the points (B, 3) given as fractions."""
    return [(position[:, axis].float() * size).long().clamp(0, size - 1) for axis, size in enumerate(shape)]


def path_sum(cost: torch.Tensor, seed: list[torch.Tensor], spacing: list[float]) -> torch.Tensor:
    """Least sum of cost times length over the ways from the seed to every voxel.

    Args:
        cost: (B, D, H, W), at least 0, per mm; a step between two voxels costs their mean.
        seed: of `voxel_of`.
        spacing: mm per voxel along D, H, W.

    Returns:
        (B, D, H, W), cost times mm; 0 at the seed.
    """
    steps = []
    for axis, length in enumerate(spacing, start=1):
        front = cost.movedim(axis, 0)
        steps.append(((front[:-1] + front[1:]) * (length / 2)).unbind(0))

    def relax(axis: int, planes: tuple[torch.Tensor, ...], index: int, before: int, room: torch.Tensor):
        torch.add(planes[before], steps[axis][min(index, before)], out=room)
        torch.minimum(planes[index], room, out=planes[index])

    return _sweep(_only_seed(cost, seed), relax)


def path_peak(cost: torch.Tensor, seed: list[torch.Tensor]) -> torch.Tensor:
    """Least maximum of the cost over the ways from the seed: the tolerance at which region growing from the
    click would reach the voxel. Arguments as for `path_sum`; (B, D, H, W), in the cost's units."""
    costs = [cost.movedim(axis, 0).contiguous().unbind(0) for axis in (1, 2, 3)]

    def relax(axis: int, planes: tuple[torch.Tensor, ...], index: int, before: int, room: torch.Tensor):
        torch.maximum(planes[before], costs[axis][index], out=room)
        torch.minimum(planes[index], room, out=planes[index])

    return _sweep(_only_seed(cost, seed), relax)


def _sweep(values: torch.Tensor, relax) -> torch.Tensor:
    """Let every plane take what the plane before it offers, along each axis to and fro, SWEEPS times.

    Plane by plane with the axis in front, so that each step is over memory that lies together.
    """
    for _ in range(SWEEPS):
        for axis in range(3):
            front = values.movedim(axis + 1, 0).contiguous()
            planes, room = front.unbind(0), torch.empty_like(front[0])
            last = len(planes) - 1
            for index in range(1, last + 1):
                relax(axis, planes, index, index - 1, room)
            for index in range(last - 1, -1, -1):
                relax(axis, planes, index, index + 1, room)
            values = front.movedim(0, axis + 1)
    return values.contiguous()


def _only_seed(cost: torch.Tensor, seed: list[torch.Tensor]) -> torch.Tensor:
    far = torch.full_like(cost, FAR)
    far[(torch.arange(len(cost), device=cost.device), *seed)] = 0.0
    return far
