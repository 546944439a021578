"""Half precision for training, where it can be trusted."""

from __future__ import annotations

import torch
from torch import nn

from samu_core.engine import cpu_gains_from_bfloat16

# oneDNN's bfloat16 weight gradient of a 3x3x3 convolution over 2x2x2 voxels is memory that nobody wrote
# (torch 2.13 on AVX512-BF16: infinite, NaN or, worse, finite). Clipping then takes every other gradient to
# nothing. Levels that small cost nothing in float32.
SMALLEST = 4  # voxels along the shortest axis


def trains_in_bfloat16(device: torch.device) -> bool:
    """Whether convolutions gain from bfloat16 on this device."""
    return device.type == "cuda" or cpu_gains_from_bfloat16(torch)


def keep_small_convolutions_exact(network: nn.Module) -> None:
    """Let the network's 3D convolutions leave autocast where their input is smaller than SMALLEST voxels."""
    for module in network.modules():
        if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)):
            module.forward = _exact_where_small(module)


def _exact_where_small(convolution: nn.Module):
    autocast_forward = type(convolution).forward

    def forward(features: torch.Tensor) -> torch.Tensor:
        if not is_small(features):
            return autocast_forward(convolution, features)
        with torch.autocast(features.device.type, enabled=False):
            return autocast_forward(convolution, features.float())

    return forward


def is_small(features: torch.Tensor) -> bool:
    """Whether features (B, C, D, H, W) leave autocast: fewer than SMALLEST voxels along an axis."""
    return min(features.shape[2:]) < SMALLEST
