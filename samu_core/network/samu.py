"""SAMU: one UNet that is image encoder and mask decoder at once (paper, Fig. 1, Sec. 2.2)."""

from __future__ import annotations

import torch
from torch import nn

from samu_core.network.averages import smooth
from samu_core.network.blocks import UpBlock, conv_stack
from samu_core.network.click_maps import ClickMaps
from samu_core.network.config import SAMUConfig
from samu_core.network.prompt_attention import (
    LARGEST_EFFECT,
    LARGEST_EFFECT_ON_HEAD,
    PromptAttention,
    PromptEncoder,
)
from samu_core.network.typical import Typical
from samu_core.prompt import PointPrompt


class Encoder(nn.Module):
    """Convolutions and max-pooling. It never sees the prompt, so its features can be cached for a patch."""

    def __init__(self, config: SAMUConfig) -> None:
        super().__init__()
        channels = (1,) + config.channels
        self.levels = nn.ModuleList(
            conv_stack(channels[level], channels[level + 1], count, config.normalisation)
            for level, count in enumerate(config.encoder_convs)
        )

    def forward(self, patch: torch.Tensor, frozen: int = 0) -> list[torch.Tensor]:
        features, smoothed = [], smooth(patch)
        for level, stack in enumerate(self.levels):
            with torch.set_grad_enabled(torch.is_grad_enabled() and level >= frozen):
                if level:
                    patch = nn.functional.max_pool3d(patch, 2)
                patch = stack(patch)
            features.append(patch)
        return [*features, smoothed]


class DecoderLevel(nn.Module):
    """Up from the level below, join the skip, convolve."""

    def __init__(self, config: SAMUConfig, level: int) -> None:
        super().__init__()
        channels = config.channels[level]
        self.concatenate = level in config.concatenated_levels
        self.up = UpBlock(config.channels[level + 1], channels, config.normalisation)
        self.convs = conv_stack(
            2 * channels if self.concatenate else channels,
            channels,
            config.decoder_convs[level],
            config.normalisation,
        )

    def forward(self, below: torch.Tensor, skip: torch.Tensor, click: torch.Tensor | None) -> torch.Tensor:
        up = self.up(below)
        if click is not None:
            up = up + click
        return self.convs(torch.cat([up, skip], dim=1) if self.concatenate else up + skip)


class Decoder(nn.Module):
    """Transposed convolutions with the prompt's cross-attention at the bottleneck and every resolution."""

    def __init__(self, config: SAMUConfig) -> None:
        super().__init__()
        self.auxiliary_level = config.auxiliary_level
        bottom = len(config.channels) - 1
        self.levels = nn.ModuleList(DecoderLevel(config, level) for level in range(bottom))
        places = {"all": range(bottom + 1), "skips": range(bottom + 1), "bottom": [bottom], "none": []}
        self.attention = _attentions(config, places[config.attention])
        self.skip_attention = _attentions(config, range(bottom) if config.attention == "skips" else [])
        self.prompt_encoder = PromptEncoder(config.embedding) if config.attention != "none" else None
        self.click_maps = ClickMaps(config.channels[:bottom]) if config.uses_maps else None
        self.head = nn.Conv3d(config.channels[0], 1, 1)
        self.auxiliary_head = nn.Conv3d(config.channels[config.auxiliary_level], 1, 1)

    def forward(
        self, features: list[torch.Tensor], prompt: PointPrompt, finest: int = 0, window=None
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Mask logits at the full and at the auxiliary level's resolution, float.

        Args:
            features: of the Encoder.
            finest: last level to run, at most the auxiliary one; above 0 there are no full logits, but None.
            window: `samu_core.training.windows.Window`: the levels finer than the auxiliary one, and the full
                logits, see no more than that part of the patch.
        """
        encoded = None
        if self.prompt_encoder is not None:
            with torch.autocast(prompt.position.device.type, enabled=False):
                encoded = self.prompt_encoder(prompt)
        *features, smoothed = features
        bottom = len(features) - 1
        maps = [None] * bottom
        if self.click_maps is not None:
            maps = self.click_maps(smoothed, prompt, finest, window)
        current = _attend(self.attention, bottom, features[bottom], encoded, prompt)
        auxiliary = None
        for level in reversed(range(finest, bottom)):
            skip = features[level]
            if window is not None and level < self.auxiliary_level:
                if level == self.auxiliary_level - 1:
                    current, prompt = window.crop(current, level + 1), window.prompt
                    encoded = None if encoded is None else encoded.repeat_interleave(prompt.views, 0)
                skip = window.crop(skip, level)
            skip = _attend(self.skip_attention, level, skip, encoded, prompt)
            current = self.levels[level](current, skip, maps[level])
            current = _attend(self.attention, level, current, encoded, prompt)
            if level == self.auxiliary_level:
                auxiliary = self.auxiliary_head(current)
        return None if finest else self.head(current), auxiliary


def _attentions(config: SAMUConfig, levels) -> nn.ModuleDict:
    def attention(level: int) -> PromptAttention:
        largest = (LARGEST_EFFECT if level else LARGEST_EFFECT_ON_HEAD) if config.limits else None
        return PromptAttention(config.channels[level], config.embedding, config.prompt == "content", largest)

    return nn.ModuleDict({str(level): attention(level) for level in levels})


def _attend(attentions: nn.ModuleDict, level: int, features, encoded, prompt: PointPrompt) -> torch.Tensor:
    key = str(level)
    return attentions[key](features, encoded, prompt) if key in attentions else features


class SAMU(nn.Module):
    """The promptable network: patch and click in, mask logits out.

    `encode` and `decode` are apart because only the decoder depends on the click. Patches are (B, 1, D, H,
    W), z-scored (`samu_core.intensity.normalize_patch`), KJI order, every edge a multiple of `config.stride`
    (32).
    """

    def __init__(self, config: SAMUConfig | None = None) -> None:
        super().__init__()
        self.config = config or SAMUConfig()
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)

    def encode(self, patch: torch.Tensor, frozen: int = 0) -> list[torch.Tensor]:
        """Image features from the full resolution to the bottleneck, six tensors (B, C_n, D_n, H_n, W_n), and
        the smoothed patch, which the decoder compares with the click.

        Args:
            frozen: so many of the finest levels take no gradient.

        Raises:
            ValueError: the patch is not (B, 1, D, H, W) with edges that are multiples of `config.stride`.
        """
        stride = self.config.stride
        if (
            patch.ndim != 5
            or patch.shape[1] != 1
            or any(size % stride or not size for size in patch.shape[2:])
        ):
            raise ValueError(
                f"SAMU takes patches of shape (batch, 1, D, H, W) with edges that are multiples of {stride}, "
                f"not {tuple(patch.shape)}."
            )
        return self.encoder(patch, frozen)

    def decode(self, features: list[torch.Tensor], prompt: PointPrompt) -> torch.Tensor:
        """Mask logits (B, 1, D, H, W) for one click per sample."""
        return self.decode_with_auxiliary(features, prompt)[0]

    def decode_with_auxiliary(self, features: list[torch.Tensor], prompt: PointPrompt, window=None):
        """Mask logits at full resolution and at the auxiliary level's (32^3 of a 128^3 patch), float.

        Args:
            features: of `encode`. For training, `samu_core.training.windows.repeated` ones: several clicks a
                patch.
            window: a `samu_core.training.windows.Window`; then the first of the two are the logits of the
                windows alone, (B * views, 1, n, n, n).

        Raises:
            ValueError: not one prompt for each of the features' patches.
        """
        self._check(features, prompt)
        return self.decoder(features, prompt, 0, window)

    def decode_auxiliary(self, features: list[torch.Tensor], prompt: PointPrompt) -> torch.Tensor:
        """Mask logits at the auxiliary level's resolution alone, (B, 1, D / 4, H / 4, W / 4): finer levels
        are left out. ValueError as `decode_with_auxiliary`."""
        self._check(features, prompt)
        return self.decoder(features, prompt, self.config.auxiliary_level)[1]

    def typical(self, features: list[torch.Tensor], mask: torch.Tensor) -> Typical:
        """What is typical of a mask in the patch, for a prompt that asks again.

        Args:
            features: of `encode`, one patch.
            mask: (D, H, W) bool. ValueError if it is empty or not of the patch's shape.
        """
        return Typical.of(mask, features[-1][0, 0].float(), len(self.config.channels) - 1)

    @staticmethod
    def _check(features: list[torch.Tensor], prompt: PointPrompt) -> None:
        if len(prompt.position) != len(features[-1]):
            raise ValueError(
                f"{len(prompt.position)} prompts do not fit a batch of {len(features[-1])} patches."
            )

    def forward(self, patch: torch.Tensor, prompt: PointPrompt) -> torch.Tensor:
        """`decode(encode(patch), prompt)`."""
        return self.decode(self.encode(patch), prompt)
