"""Attention to the two prompt tokens as gates over planes of voxels."""

from __future__ import annotations

import torch

from samu_core.network.fused.buffers import Buffers
from samu_core.network.fused.click import Box, place_factors, product_into
from samu_core.network.fused.operations import voxels_of


class Gates:
    """What one click makes of one level's attention (`PromptAttention.folded`).

    Args:
        attention: the level's PromptAttention.
        features: (1, C, D, H, W), those the attention reads at the click.
        shape: (D, H, W) of the whole level, for places.
        encoded: of the PromptEncoder.
        prompt: the click.
        sampled: (1, C) features at the click; then `features` is not read.
    """

    def __init__(self, attention, encoded, prompt, shape, features=None, sampled=None) -> None:
        if sampled is not None:  # a single voxel is everywhere what it is at the click
            features = sampled[..., None, None, None]
        slope, constant, place, step, base = attention.folded(features, encoded, prompt)
        self.slope = slope[0]
        self.places = place[0, :, 0].tolist()
        self.constants = constant[0].tolist()
        self.step = step[0]
        self.base = base[0]
        self.factors = place_factors(shape, prompt)

    def open(self, scores: torch.Tensor, box: Box, buffers: Buffers) -> torch.Tensor:
        """Gates from their scores without place, in place; (heads, d, h, w) float32."""
        near = buffers.flat("near", scores.shape[1:], torch.float32)
        product_into(self.factors, box, near)
        for score, place, constant in zip(scores, self.places, self.constants):
            score.add_(near, alpha=place).add_(constant)
        return scores.sigmoid_()

    def apply(self, features: torch.Tensor, box: Box, buffers: Buffers) -> None:
        """Features (1, C, d, h, w) of a box of the level; changed in place."""
        voxels = voxels_of(features)
        heads, shape = len(self.slope), features.shape[2:]
        gates = buffers.flat("gates", (heads + 1, len(voxels)), torch.float32)
        product(self.slope, voxels, gates[:heads])
        self.open(gates[:heads].view(heads, *shape), box, buffers)
        gates[heads].fill_(1.0)
        weight = torch.cat([self.step.t(), self.base[None]]).to(voxels.dtype)
        voxels.addmm_(gates.to(voxels.dtype).t(), weight)


def product(weight: torch.Tensor, voxels: torch.Tensor, out: torch.Tensor) -> None:
    """weight (O, C) times voxels (n, C), as planes (O, n) float32, written to `out`."""
    if voxels.dtype == torch.float32:
        torch.mm(weight, voxels.t(), out=out)
    else:
        out.copy_(torch.mm(weight.to(voxels.dtype), voxels.t()))


class HeadWithGates:
    """The head of the finest level and its attention as one product: heads + 1 planes instead of 16.

    Args:
        gates: of the finest level.
        weight: (1, C) of the head.
        bias: (1,) of the head.
    """

    def __init__(self, gates: Gates, weight: torch.Tensor, bias: torch.Tensor) -> None:
        self.gates = gates
        self.planes = torch.cat([weight, gates.slope])
        self.constant = float(weight[0] @ gates.base + bias[0])
        self.amounts = (weight @ gates.step)[0].tolist()

    def logits_into(self, features: torch.Tensor, box: Box, out: torch.Tensor, buffers: Buffers) -> None:
        """Logits of a box of features (1, C, d, h, w), written to `out` (d, h, w) float32."""
        shape = features.shape[2:]
        planes = buffers.flat("planes", (len(self.planes), *shape), torch.float32)
        product(self.planes, voxels_of(features), planes.view(len(planes), -1))
        opened = self.gates.open(planes[1:], box, buffers)
        torch.add(planes[0], self.constant, out=out)
        for gate, amount in zip(opened, self.amounts):
            out.add_(gate, alpha=amount)
