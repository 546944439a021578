"""The convolutional building blocks of the encoder and the decoder."""

from __future__ import annotations

import torch
from torch import nn


def normalisation_layer(kind: str, channels: int) -> nn.Module:
    """BatchNorm3d, or GroupNorm over groups of 8 channels."""
    if kind == "batch":
        return nn.BatchNorm3d(channels)
    return nn.GroupNorm(max(1, channels // 8), channels)


class ConvBlock(nn.Sequential):
    """3x3x3 convolution without bias, normalisation, ReLU. (B, C_in, D, H, W) -> (B, C_out, D, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, normalisation: str) -> None:
        super().__init__(
            nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False),
            normalisation_layer(normalisation, out_channels),
            nn.ReLU(inplace=True),
        )


class UpBlock(nn.Sequential):
    """Transposed 2x2x2 convolution, normalisation, ReLU: doubles the resolution."""

    def __init__(self, in_channels: int, out_channels: int, normalisation: str) -> None:
        super().__init__(
            nn.ConvTranspose3d(in_channels, out_channels, 2, stride=2, bias=False),
            normalisation_layer(normalisation, out_channels),
            nn.ReLU(inplace=True),
        )


def conv_stack(in_channels: int, out_channels: int, count: int, normalisation: str) -> nn.Sequential:
    """`count` ConvBlocks, the first of which changes the number of channels."""
    blocks = [
        ConvBlock(in_channels if index == 0 else out_channels, out_channels, normalisation)
        for index in range(count)
    ]
    return nn.Sequential(*blocks)


def sample_at(features: torch.Tensor, position: torch.Tensor, every: int = 1) -> torch.Tensor:
    """Features at one point per sample, trilinear. Nothing is copied from the host: a CUDA graph can hold it.

    Args:
        features: (B * every, C, D, H, W), of which the first, and every `every`th from there, is asked.
        position: (B, 3) KJI fractions of the patch, outer faces at 0 and 1.

    Returns:
        (B, C), in the features' dtype. A point beyond the outermost voxel centres takes the edge's value.
    """
    (k, j, i), weights = _corners(position, features.shape[2:])
    batch = torch.arange(0, features.shape[0], every, device=features.device)[:, None]
    # (B, 8, C), one gather: its backward fills the features' gradient once. With the channels last, as they
    # are in memory, so that adding that gradient to the others reads both in order.
    values = features.permute(0, 2, 3, 4, 1)[batch, k, j, i]
    return (values * weights[..., None].to(values.dtype)).sum(1)


def _corners(position: torch.Tensor, shape) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Indices K, J, I, (B, 8) each, and weights (B, 8) of the eight voxels around each point."""
    bits = torch.arange(8, device=position.device)
    corners, weights = [], 1.0
    for axis, size in enumerate(shape):
        index = (position[:, axis, None].float() * size - 0.5).clamp(0, size - 1)
        low = index.floor()
        above = bits >> (2 - axis) & 1
        corners.append((low + above).clamp(max=size - 1).long())
        fraction = index - low
        weights = weights * torch.where(above > 0, fraction, 1 - fraction)
    return corners, weights
