"""Means over neighbouring voxels. torch's pooling is several times as slow on few channels, and rounds
otherwise; the plain and the fused network share these, because likeness to the click amplifies round-off."""

from __future__ import annotations

import torch


def smooth(
    volume: torch.Tensor, out: torch.Tensor | None = None, between: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean over 3^3 voxels, fewer at the borders, of (..., D, H, W): what likeness is measured on.

    `out` and `between` are memory of the same shape; what is left in the latter has no meaning.
    """
    out = torch.empty_like(volume, memory_format=torch.contiguous_format) if out is None else out
    between = torch.empty_like(out) if between is None else between
    _sum_of_three(volume, -1, out)
    _sum_of_three(out, -2, between)
    _sum_of_three(between, -3, out)
    for axis in (-3, -2, -1):
        size = out.shape[axis]
        share = torch.full((size,), 1 / 3, dtype=out.dtype, device=out.device)
        share[:1] = share[-1:] = 1 / min(size, 2)
        out.mul_(share.view(size, *[1] * (-1 - axis)))
    return out


def _sum_of_three(volume: torch.Tensor, axis: int, out: torch.Tensor) -> None:
    """Every voxel with its two neighbours along an axis (fewer at the ends), written to `out`."""
    size = volume.shape[axis]
    out.copy_(volume)
    out.narrow(axis, 1, size - 1).add_(volume.narrow(axis, 0, size - 1))
    out.narrow(axis, 0, size - 1).add_(volume.narrow(axis, 1, size - 1))


def halved(maps: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """Mean over 2^3 voxels of (..., D, H, W)."""
    maps = maps[..., 0::2, :, :] + maps[..., 1::2, :, :]
    maps = maps[..., 0::2, :] + maps[..., 1::2, :]
    out = torch.add(maps[..., 0::2], maps[..., 1::2], out=out)
    return out.mul_(0.125)
