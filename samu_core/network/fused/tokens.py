"""What the prompt's tokens make of a decoder level, in few operations: `PromptAttention.folded` of one click.

A click is a handful of vectors, so what its arithmetic costs is the number of calls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch.nn import functional

from samu_core.network.prompt_attention import LARGEST_SLOPE, PromptAttention


class Reading(NamedTuple):
    """A level's gates and their effects, float32; names as of `PromptAttention.folded`.

    Attributes:
        slope: (heads, C). places, constants: (heads,). effects: (heads + 1, C), the steps and the base.
    """

    slope: torch.Tensor
    places: torch.Tensor
    constants: torch.Tensor
    effects: torch.Tensor


class TokenReader:
    """`PromptAttention.folded` of one click.

    Args:
        attention: of a level; its parameters are used as they are now.
    """

    def __init__(self, attention: PromptAttention) -> None:
        self.attention = attention
        heads, width = attention.heads, attention.width
        self.to_level = attention.to_level.weight.detach().flatten(1), attention.to_level.bias.detach()
        parts = (attention.query.weight, attention.query.bias, attention.place_query.weight)
        query = torch.cat([part.detach().view(heads, width, -1) for part in parts], dim=2)
        self.query = query / math.sqrt(width)
        self.out = attention.out.weight.detach().t().reshape(heads, width, -1)
        self.limits = None
        if attention.largest_effect is not None:
            slope = LARGEST_SLOPE / math.sqrt(self.out.shape[2])
            largest = attention.largest_effect
            limits = [slope] * heads + [largest / heads] * heads + [largest]
            self.limits = torch.tensor(limits)[:, None].square()

    def __call__(self, encoded: torch.Tensor, sampled: torch.Tensor) -> Reading:
        """What a click makes of the level.

        Args:
            encoded: (1, embedding, 2) of the PromptEncoder.
            sampled: (C,) float32, the level's features at the click.
        """
        attention, (heads, width, channels) = self.attention, self.out.shape
        tokens = functional.linear(encoded[0].t(), *self.to_level)
        if attention.content is not None:
            tokens[0] += attention.content(sampled)
        tokens = tokens + attention.mix(tokens)
        difference = tokens[0] - tokens[1]  # biases of key and value cancel
        keys = torch.mv(attention.key.weight, difference).view(heads, 1, width)
        scores = torch.bmm(keys, self.query)[:, 0]
        values = torch.mv(attention.value.weight, difference).view(heads, 1, width)
        steps = torch.bmm(values, self.out)[:, 0]
        base = attention.out(attention.value(tokens[1:]))
        vectors = torch.cat([scores[:, :channels], steps, base])
        if self.limits is not None:  # `prompt_attention.limited`
            vectors *= torch.rsqrt(1 + vectors.square().mean(1, keepdim=True) / self.limits)
        return Reading(vectors[:heads], scores[:, channels + 1], scores[:, channels], vectors[heads:])


def sample_one(features: torch.Tensor, fraction: Sequence[float]) -> torch.Tensor:
    """`blocks.sample_at` of one sample.

    Args:
        features: (1, C, D, H, W).
        fraction: KJI fractions of their extent, outer faces at 0 and 1.

    Returns:
        (C,) float32.
    """
    box, weights = [], []
    for place, size in zip(fraction, features.shape[2:]):
        index = min(max(place * size - 0.5, 0.0), size - 1.0)
        low = int(index)
        box.append(slice(low, low + 2))
        weights.append((1 - index + low, index - low)[: size - low])
    values = features[(0, slice(None), *box)].float().flatten(1)
    return values @ torch.tensor([math.prod(three) for three in product(*weights)])
