"""Attention to the two prompt tokens as gates over planes of voxels."""

from __future__ import annotations

import torch

from samu_core.network.fused.buffers import Buffers
from samu_core.network.fused.click import Box, place_factors
from samu_core.network.fused.operations import voxels_of
from samu_core.network.fused.tokens import Reading


class Gates:
    """What one click makes of one level's attention.

    Args:
        reading: of the level's TokenReader.
        shape: (D, H, W) of the whole level, for places.
        prompt: the click.
    """

    def __init__(self, reading: Reading, shape, prompt) -> None:
        self.slope = reading.slope
        self.effects = reading.effects
        self.places = reading.places
        self.constants = reading.constants[:, None, None, None]
        self.factors = place_factors(shape, prompt)

    def open(self, scores: torch.Tensor, box: Box) -> torch.Tensor:
        """Gates from their scores without place, in place; (heads, d, h, w) float32."""
        k, j, i = (factor[part] for factor, part in zip(self.factors, box))
        along = (self.places[:, None] * k)[..., None, None]
        return scores.addcmul_(along, torch.outer(j, i)).add_(self.constants).sigmoid_()

    def apply(self, features: torch.Tensor, box: Box, buffers: Buffers) -> None:
        """Features (1, C, d, h, w) of a box of the level; changed in place."""
        voxels = voxels_of(features)
        heads, shape = len(self.slope), features.shape[2:]
        gates = buffers.flat("gates", (heads + 1, len(voxels)), torch.float32)
        product(self.slope, voxels, gates[:heads])
        self.open(gates[:heads].view(heads, *shape), box)
        gates[heads].fill_(1.0)
        voxels.addmm_(gates.to(voxels.dtype).t(), self.effects.to(voxels.dtype))


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
        *self.amounts, base = torch.mv(gates.effects, weight[0]).tolist()
        self.constant = base + float(bias)

    def logits_into(self, features: torch.Tensor, box: Box, out: torch.Tensor, buffers: Buffers) -> None:
        """Logits of a box of features (1, C, d, h, w), written to `out` (d, h, w) float32."""
        shape = features.shape[2:]
        planes = buffers.flat("planes", (len(self.planes), *shape), torch.float32)
        product(self.planes, voxels_of(features), planes.view(len(planes), -1))
        opened = self.gates.open(planes[1:], box)
        torch.add(planes[0], self.constant, out=out)
        for gate, amount in zip(opened, self.amounts):
            out.add_(gate, alpha=amount)
