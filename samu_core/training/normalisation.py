"""Statistics of the normalisation: measured anew for averaged weights, and fixed ones taken into the weights.

BatchNorm's running statistics belong to the weights that produced them and to the patch sizes seen last.
Averaged weights (EMA, or of several checkpoints) and the full 128^3 patch of inference have others: they are
measured anew.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional

from samu_core.network import SAMU
from samu_core.network.blocks import ConvBlock, UpBlock
from samu_core.network.fused.operations import folded
from samu_core.prompt import FIELD_OF_VIEW, PointPrompt
from samu_core.training.precision import is_small
from samu_core.training.settings import CropSettings
from samu_core.training.stream import Batch


def inference_crop(size: int) -> CropSettings:
    """Single patches of size^3 voxels that are as wide as inference's patch (1.5 mm for 128). Statistics of
    batches of four did worse in what shipped (docs/model.md)."""
    spacing = FIELD_OF_VIEW / size
    return CropSettings(size, (spacing, spacing), 1)


def remeasure_statistics(network: SAMU, batches: Iterable[Batch]) -> int:
    """Replace all running means and variances by the plain average over some batches; weights stay.

    Args:
        network: changed in place, left in eval mode. Networks without BatchNorm are left alone.
        batches: of the patch size that inference uses, at least one; of a patch's clicks the first counts.

    Returns:
        Number of batches used.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm3d)]
    momenta = [layer.momentum for layer in layers]
    count = 0
    network.train()
    device = next(network.parameters()).device
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # cumulative average
    with torch.no_grad():
        for batch in batches:
            patch = batch.patch.to(device, memory_format=torch.channels_last_3d)
            first = batch.position[:: batch.clicks].to(device)
            network(patch, PointPrompt(first, batch.span))
            count += 1
    for layer, momentum in zip(layers, momenta):
        layer.momentum = momentum
    network.eval()
    return count


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
        weight, bias = folded(block, 1 if transposed else 0, convolution.weight.dtype)
        if transposed:
            return _Transposed.apply(features, weight, bias, convolution.stride)
        return functional.conv3d(features, weight, bias, padding=convolution.padding)

    def forward(features: torch.Tensor) -> torch.Tensor:
        if norm.training or not torch.is_grad_enabled():
            return nn.Sequential.forward(block, features)
        if not is_small(features):
            return activation(convolve(features))
        with torch.autocast(features.device.type, enabled=False):
            return activation(convolve(features.float()))

    return forward


class _Transposed(torch.autograd.Function):
    """`conv_transpose3d` without padding: (B, C_in, D, H, W) and (C_in, C_out, 2, 2, 2) give (B, C_out, 2 D,
    2 H, 2 W). The gradient of its bias is a sum, for which oneDNN takes up to six times as long as for the
    two others together."""

    @staticmethod
    def forward(ctx, features, weight, bias, stride):
        ctx.save_for_backward(features, weight)
        ctx.stride = stride
        return functional.conv_transpose3d(features, weight, bias, stride)

    @staticmethod
    def backward(ctx, gradient):
        features, weight = (each.to(gradient.dtype) for each in ctx.saved_tensors)
        none, one = (0, 0, 0), (1, 1, 1)
        of_features, of_weight, _ = torch.ops.aten.convolution_backward(
            gradient, features, weight, None, ctx.stride, none, one, True, none, 1, (True, True, False)
        )
        return of_features, of_weight, gradient.sum((0, 2, 3, 4)), None
