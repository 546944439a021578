"""SAM's point-prompt encoding, and the cross-attention that brings it to a decoder level."""

from __future__ import annotations

import math

import torch
from torch import nn

from samu_core.network.blocks import sample_at
from samu_core.network.click_maps import nearness, outer
from samu_core.prompt import PointPrompt

PLACE_RADIUS = 5 / 32  # fields of view (30 mm): the standard deviation of nearness as attention knows it
CHANNELS_PER_HEAD = 32
# What attention adds stays about as large as the features it is added to (their standard deviation is about a
# half), and its scores stay where a sigmoid has a slope. Without limits, and with much wider ones, the coarse
# levels' features drowned in training (docs/model.md).
LARGEST_EFFECT = 1.0  # root mean square over the channels, of all heads together and of the constant
LARGEST_SLOPE = 8.0  # Euclidean norm
# The finest level's goes to the head alone, where it is a part of the logits; nothing can drown in it.
LARGEST_EFFECT_ON_HEAD = 8.0


class PromptEncoder(nn.Module):
    """A click as two tokens (Segment Anything, prompt encoder; paper, Sec. 2.2).

    The point token is the random Fourier encoding of the click plus a learned point embedding; the second
    token is SAM's learned not-a-point embedding. Two tokens are the least that attention needs: softmax over
    a single key is identically one.
    """

    def __init__(self, embedding: int = 256) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(3, embedding // 2))
        self.point = nn.Parameter(torch.randn(embedding))
        self.not_a_point = nn.Parameter(torch.randn(embedding))

    def forward(self, prompt: PointPrompt) -> torch.Tensor:
        """(B, embedding, 2): point token, then not-a-point token; float32."""
        angles = 2 * math.pi * (2 * prompt.position_in_field_of_view - 1) @ self.frequencies.float()
        point = torch.cat([angles.sin(), angles.cos()], dim=1) + self.point
        return torch.stack([point, self.not_a_point.expand_as(point)], dim=2)


class PromptAttention(nn.Module):
    """Cross-attention from the voxels of one decoder level to the two prompt tokens.

    Queries are the voxels' features and how near they are to the click (a Gaussian of the distance: terms per
    axis make gates into crosses, and masks in even tissue spread along the axes);
    keys and values are the prompt tokens, brought to the level's channel count by a 1D convolution. With
    `content`, the image feature at the click joins the point token, so that a voxel is compared with what
    was clicked.

    Args:
        largest_effect: limit to what is added (LARGEST_EFFECT); None is without limits.

    Softmax over two keys is a sigmoid of the difference of their scores, and the score is linear in the
    features, so a head costs one dot product per voxel: the same numbers as textbook attention (tested), at
    a fraction of the time and memory.
    """

    def __init__(
        self, channels: int, embedding: int, content: bool, largest_effect: float | None = LARGEST_EFFECT
    ) -> None:
        super().__init__()
        self.largest_effect = largest_effect
        self.heads = max(2, channels // CHANNELS_PER_HEAD)
        self.width = channels // self.heads
        self.to_level = nn.Conv1d(embedding, channels, 1)
        self.content = nn.Linear(channels, channels) if content else None
        self.mix = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, channels // 2),
            nn.GELU(),
            nn.Linear(channels // 2, channels),
        )
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)
        self.place_query = nn.Linear(1, channels, bias=False)
        self._start_attentive()

    def _start_attentive(self) -> None:
        """Scale the default initialisation so that gates leave 1/2 and the clicked feature counts from the
        first
        step (docs/model.md has the one comparison made)."""
        with torch.no_grad():
            self.query.weight.mul_(4)
            self.out.weight.mul_(2)
            if self.content is not None:
                self.content.weight.mul_(3)

    def tokens(self, features: torch.Tensor, encoded: torch.Tensor, prompt: PointPrompt) -> torch.Tensor:
        """The level's two prompt tokens p_n, (B, 2, C), float32."""
        tokens = self.to_level(encoded).transpose(1, 2)
        if self.content is not None:
            clicked = sample_at(features, prompt.position[:: prompt.views], prompt.views)
            if prompt.typical is not None:
                clicked = prompt.typical.instead_of_content(clicked.float(), features)
            seen = self.content(clicked.float()).repeat_interleave(prompt.views, 0)
            tokens = torch.stack([tokens[:, 0] + seen, tokens[:, 1]], dim=1)
        return tokens + self.mix(tokens)

    def folded(self, features: torch.Tensor, encoded: torch.Tensor, prompt: PointPrompt):
        """What the two tokens make of this level: gates and their effects.

        Returns:
            slope (B, heads, C), constant (B, heads) and place (B, heads, 1): a head's gate for a voxel is
            sigmoid(slope . feature + constant + place * nearness of the voxel);
            step (B, C, heads) is added times the gate and base (B, C) always. With a `largest_effect`, slopes
            and what is added are `limited`.
        """
        tokens = self.tokens(features, encoded, prompt)
        batch = tokens.shape[0]
        key = self.key(tokens).view(batch, 2, self.heads, self.width)
        value = self.value(tokens).view(batch, 2, self.heads, self.width)
        difference = (key[:, 0] - key[:, 1]) / math.sqrt(self.width)
        query = self.query.weight.view(self.heads, self.width, -1)
        slope = torch.einsum("bhw,hwc->bhc", difference, query)
        constant = torch.einsum("bhw,hw->bh", difference, self.query.bias.view(self.heads, self.width))
        place = torch.einsum(
            "bhw,hwf->bhf", difference, self.place_query.weight.view(self.heads, self.width, -1)
        )
        out = self.out.weight.view(-1, self.heads, self.width)
        step = torch.einsum("bhw,chw->bch", value[:, 0] - value[:, 1], out)
        base = self.out(value[:, 1].flatten(1))
        if self.largest_effect is not None:
            slope = limited(slope, LARGEST_SLOPE / math.sqrt(slope.shape[2]), 2)
            step = limited(step, self.largest_effect / self.heads, 1)
            base = limited(base, self.largest_effect, 1)
        return slope, constant, place, step, base

    def place_bias(self, shape, constant, place, prompt: PointPrompt) -> torch.Tensor:
        """What a voxel's place adds to the heads' scores, (B, heads, D, H, W), float32."""
        bias = outer(nearness(shape, prompt, PLACE_RADIUS)) * place[:, :, 0, None, None, None]
        return bias + constant[:, :, None, None, None]

    def forward(self, features: torch.Tensor, encoded: torch.Tensor, prompt: PointPrompt) -> torch.Tensor:
        """(B, C, D, H, W) -> the same shape: features plus what the voxels read from the prompt."""
        with torch.autocast(features.device.type, enabled=False):
            slope, constant, place, step, base = self.folded(features, encoded, prompt)
            bias = self.place_bias(features.shape[2:], constant, place, prompt)
        dtype = features.dtype
        gate = torch.sigmoid(per_sample_conv(features, slope.to(dtype)) + bias.to(dtype))
        return features + per_sample_conv(gate, step.to(dtype), base.to(dtype))


def limited(vectors: torch.Tensor, largest: float, axis: int) -> torch.Tensor:
    """Vectors along an axis, made shorter so that their root mean square stays below `largest`: short ones
    hardly, long ones to just that."""
    return vectors * torch.rsqrt(1 + vectors.square().mean(axis, keepdim=True) / largest**2)


def per_sample_conv(
    features: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """1x1x1 convolution whose weights differ per sample: (B, C, D, H, W) x (B, O, C) -> (B, O, D, H, W).

    Written as a product over voxels of channels-last data: with channels_last_3d input nothing is copied,
    forward or backward, and the result is channels-last again.
    """
    voxels = features.permute(0, 2, 3, 4, 1)
    flat = voxels.reshape(features.shape[0], -1, features.shape[1])
    weight = weight.transpose(1, 2)
    out = torch.bmm(flat, weight) if bias is None else torch.baddbmm(bias[:, None], flat, weight)
    return out.view(*voxels.shape[:4], -1).permute(0, 4, 1, 2, 3)
