"""How the network computes in training: half precision where it can be trusted, and no more passes over the
features than it takes."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from samu_core.engine import cpu_gains_from_bfloat16
from samu_core.network.blocks import ConvBlock, UpBlock

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
        if not _is_small(features):
            return autocast_forward(convolution, features)
        with torch.autocast(features.device.type, enabled=False):
            return autocast_forward(convolution, features.float())

    return forward


def _is_small(features: torch.Tensor) -> bool:
    return min(features.shape[2:]) < SMALLEST


def fold_fixed_statistics(network: nn.Module) -> None:
    """Let blocks whose BatchNorm evaluates take it into the weights of their convolution.

    The numbers, and the gradients of all parameters, are the same, without its passes over the features and
    the memory these need. Without gradients, and where it normalises by the batch, nothing changes.
    """
    for module in network.modules():
        if isinstance(module, (ConvBlock, UpBlock)) and isinstance(module[1], nn.BatchNorm3d):
            module.forward = _folded_where_fixed(module)


def _folded_where_fixed(block: ConvBlock | UpBlock):
    convolution, norm, activation = block
    transposed = isinstance(convolution, nn.ConvTranspose3d)

    def convolve(features: torch.Tensor) -> torch.Tensor:
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        bias = norm.bias - norm.running_mean * scale
        if transposed:
            weight = convolution.weight * scale.view(1, -1, 1, 1, 1)
            return functional.conv_transpose3d(features, weight, bias, convolution.stride)
        weight = convolution.weight * scale.view(-1, 1, 1, 1, 1)
        return functional.conv3d(features, weight, bias, padding=convolution.padding)

    def forward(features: torch.Tensor) -> torch.Tensor:
        if norm.training or not torch.is_grad_enabled():
            return nn.Sequential.forward(block, features)
        if not _is_small(features):
            return activation(convolve(features))
        with torch.autocast(features.device.type, enabled=False):
            return activation(convolve(features.float()))

    return forward
