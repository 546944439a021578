"""Skips of a patch with several clicks, convolved once.

A convolution over [what comes from below, skip] is the sum of one over either half, and the skip is the same
for all clicks in a patch. The fused engine caches that half for inference; here it is shared by the clicks.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from samu_core.network import SAMU
from samu_core.network.blocks import ConvBlock
from samu_core.network.fused.operations import folded
from samu_core.network.samu import DecoderLevel
from samu_core.training.precision import is_small
from samu_core.training.windows import repeated, summed_over_clicks


def share_skips(network: SAMU) -> tuple[int, ...]:
    """Let the decoder's concatenated levels take skips (patches, C, D, H, W) for more clicks than that.

    Returns:
        The levels whose skips need not be `repeated`: none where attention sees the skips.
    """
    if network.config.attention == "skips":
        return ()
    for index in network.config.concatenated_levels:
        level = network.decoder.levels[index]
        level.forward = _sharing(level)
    return tuple(network.config.concatenated_levels)


def _sharing(level: DecoderLevel):
    def forward(below: torch.Tensor, skip: torch.Tensor, click: torch.Tensor | None) -> torch.Tensor:
        clicks = len(below) // len(skip)
        if clicks == 1 or is_small(skip):
            return DecoderLevel.forward(level, below, *repeated([skip], clicks), click)
        up = level.up(below)
        if click is not None:
            up = up + click
        return level.convs[1:](_joined(level.convs[0], up, skip))

    return forward


def _joined(block: ConvBlock, up: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
    """What the block makes of [up, skip]: (clicks, C, D, H, W) and (patches, C, D, H, W), the clicks of a
    patch one after the other, give (clicks, C_out, D, H, W)."""
    convolution, norm, activation = block
    fixed = isinstance(norm, nn.BatchNorm3d) and not norm.training
    weight, bias = convolution.weight, None
    if fixed:
        weight, bias = folded(block, 0, weight.dtype)
    padding, own = convolution.padding, up.shape[1]
    current = _AddToClicks.apply(
        functional.conv3d(up, weight[:, :own], bias, padding=padding),
        functional.conv3d(skip, weight[:, own:], padding=padding),
    )
    return activation(current if fixed else norm(current))


class _AddToClicks(torch.autograd.Function):
    """Patches (patches, C, D, H, W) added, in place, to each of their clicks (clicks, C, D, H, W)."""

    @staticmethod
    def forward(ctx, clicks, patches):
        ctx.patches = len(patches)
        clicks.unflatten(0, (len(patches), -1)).add_(patches[:, None])
        ctx.mark_dirty(clicks)
        return clicks

    @staticmethod
    def backward(ctx, gradient):
        return gradient, summed_over_clicks(gradient, ctx.patches)
