"""The network for a GPU: BatchNorms folded, weights in half precision once and for all, capturable.

Nothing here copies from the host or waits for the device, so that encoding and decoding can be captured as
CUDA graphs. It runs on any device, which is how it is tested.
"""

from __future__ import annotations

import copy
import types

import torch
from torch import nn
from torch.nn import functional

from samu_core.network.averages import halved, smooth
from samu_core.network.blocks import sample_at
from samu_core.network.click_maps import (
    LOCAL_RANGE,
    LOCAL_REACH,
    LOCAL_WIDTHS,
    RADII,
    WIDTHS,
    connectedness,
    doubled,
    nearness,
    outer,
)
from samu_core.network.fused.operations import folded_block
from samu_core.network.prompt_attention import PromptAttention
from samu_core.network.samu import SAMU
from samu_core.network.typical import Typical
from samu_core.prompt import PointPrompt


def supports(network) -> bool:
    """True for the architectures that FoldedNetwork is written for."""
    return isinstance(network, SAMU) and network.config.folds


class FoldedNetwork(nn.Module):
    """`SAMU` for one patch and click at a time.

    Args:
        network: a SAMU that `supports` holds of, in evaluation; copied.
        device: torch device.
        dtype: of the convolutions; maps, tokens and scores are float32.
    """

    def __init__(self, network: SAMU, device, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        network = copy.deepcopy(network).requires_grad_(False)
        for module in list(network.modules()):
            for name, child in list(module.named_children()):
                if (
                    isinstance(child, nn.Sequential)
                    and len(child) == 3
                    and isinstance(child[1], nn.BatchNorm3d)
                ):
                    setattr(module, name, _folded(child, dtype))
        for head in (
            network.decoder.head,
            network.decoder.auxiliary_head,
            network.decoder.click_maps.to_level,
        ):
            head.to(dtype)
        network.to(device)
        self.encoder, self.decoder = network.encoder, network.decoder
        self.device = torch.device(device)
        self._sizes: dict[tuple, torch.Tensor] = {}
        for attention in self.decoder.attention.values():
            attention.tokens = types.MethodType(self._tokens, attention)

    def encode(self, patch: torch.Tensor) -> list[torch.Tensor]:
        """(1, 1, D, H, W) float32 -> features of all levels, and the smoothed patch (float32)."""
        current = patch.to(self.dtype).contiguous(memory_format=torch.channels_last_3d)
        features = []
        for level, stack in enumerate(self.encoder.levels):
            current = stack(functional.max_pool3d(current, 2) if level else current)
            features.append(current)
        return [*features, smooth(patch)]

    def decode(
        self, features: list[torch.Tensor], position: torch.Tensor, typical: Typical | None = None
    ) -> torch.Tensor:
        """Logits (1, 1, D, H, W) float32 for a click at (1, 3) fractions of the patch, with what is `typical`
        of the clicked structure where that is known."""
        prompt = PointPrompt(position, typical=typical)
        *features, smoothed = features
        decoder = self.decoder
        encoded = decoder.prompt_encoder(prompt)
        maps = self._maps(smoothed, prompt)
        bottom = len(features) - 1
        current = decoder.attention[str(bottom)](features[bottom], encoded, prompt)
        for level in reversed(range(bottom)):
            current = decoder.levels[level](current, features[level], maps[level])
            current = decoder.attention[str(level)](current, encoded, prompt)
        return decoder.head(current).float()

    def _maps(self, smoothed: torch.Tensor, prompt: PointPrompt) -> list[torch.Tensor]:
        """`ClickMaps.forward`, maps in float32."""
        clicked = sample_at(smoothed, prompt.position)[0]
        if prompt.typical is not None:
            clicked = prompt.typical.instead_of_intensity(clicked)
        clicked = clicked[0]
        spread = self._spread(smoothed, prompt.position)
        square = (smoothed[:, 0] - clicked).square()
        maps = [torch.exp(square * (-0.5 / width**2)) for width in WIDTHS]
        maps += [torch.exp(square * (-0.5 / (factor * spread).square())) for factor in LOCAL_WIDTHS]
        maps += [outer(nearness(smoothed.shape[2:], prompt, radius))[:, 0] for radius in RADII]
        connected = connectedness(halved(smoothed[:, 0]), clicked[None], spread[None], prompt)
        current = torch.cat([torch.stack(maps, dim=1), doubled(connected)], dim=1)
        results = []
        for level, convolution in enumerate(self.decoder.click_maps.to_level):
            current = functional.avg_pool3d(current, 2) if level else current
            narrow = current.to(self.dtype).contiguous(memory_format=torch.channels_last_3d)
            results.append(convolution(narrow))
        return results

    def _size(self, shape) -> torch.Tensor:
        """(3,) float32 on the device; copied there at the first call only, before any capture."""
        key = tuple(shape)
        if key not in self._sizes:
            self._sizes[key] = torch.tensor(key, dtype=torch.float32, device=self.device)
        return self._sizes[key]

    def _spread(self, smoothed: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """`click_maps.local_spread` of one sample, a scalar."""
        size = self._size(smoothed.shape[2:])
        centre = torch.minimum((position[0] * size).floor().clamp(min=0), size - 1)
        steps = torch.arange(-LOCAL_REACH, LOCAL_REACH + 1, device=smoothed.device)
        windows = torch.minimum((centre[:, None] + steps).clamp(min=0), (size - 1)[:, None]).long()
        k, j, i = windows
        window = smoothed[0, 0][k[:, None, None], j[None, :, None], i[None, None, :]]
        return window.std().clamp(*LOCAL_RANGE)

    def _tokens(self, attention: PromptAttention, features, encoded, prompt: PointPrompt) -> torch.Tensor:
        """`PromptAttention.tokens` without copies from the host."""
        tokens = attention.to_level(encoded).transpose(1, 2)
        if attention.content is not None:
            clicked = sample_at(features, prompt.position).float()
            if prompt.typical is not None:
                clicked = prompt.typical.instead_of_content(clicked, features)
            seen = attention.content(clicked)
            tokens = torch.stack([tokens[:, 0] + seen, tokens[:, 1]], dim=1)
        return tokens + attention.mix(tokens)


def _folded(block: nn.Sequential, dtype: torch.dtype) -> nn.Sequential:
    """A ConvBlock or UpBlock without its BatchNorm."""
    convolution = block[0]
    transposed = isinstance(convolution, nn.ConvTranspose3d)
    weight, bias = folded_block(block, 1 if transposed else 0)
    kind = nn.ConvTranspose3d if transposed else nn.Conv3d
    new = kind(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,
        stride=convolution.stride,
        padding=convolution.padding,
    )
    memory = torch.channels_last_3d
    new.weight = nn.Parameter(weight.to(dtype).contiguous(memory_format=memory), requires_grad=False)
    new.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
    return nn.Sequential(new, nn.ReLU(inplace=True))
