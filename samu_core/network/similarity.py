"""How alike every voxel is to the clicked one: region growing's cue, offered to the decoder to learn from."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from samu_core.network.blocks import sample_at
from samu_core.prompt import PointPrompt

# Standard deviations of the patch. The finest is 10-15 HU in a CT patch with air and bone in it, where a
# z-score leaves soft tissues a few hundredths apart.
WIDTHS = (0.03, 0.1, 0.3, 1.0)


class SimilarityMaps(nn.Module):
    """Gaussian similarities of the smoothed intensity to the clicked one, for the decoder levels.

    The maps depend on the click and enter in the decoder only, so the encoder's features stay cacheable.
    Each level gets them averaged to its resolution and brought to its channels by a 1x1x1 convolution, which
    starts at zero.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.to_level = nn.ModuleList(nn.Conv3d(len(WIDTHS), count, 1) for count in channels)
        for layer in self.to_level:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def maps(self, patch: torch.Tensor, prompt: PointPrompt) -> list[torch.Tensor]:
        """Similarities, (B, 4, D, H, W) in 0...1, at the decoder levels' resolutions, finest first."""
        smooth = functional.avg_pool3d(patch, 3, stride=1, padding=1, count_include_pad=False)
        clicked = sample_at(smooth, prompt.position)[:, :, None, None, None]
        difference = (smooth - clicked).square()
        maps = [torch.cat([torch.exp(difference * (-0.5 / width**2)) for width in WIDTHS], dim=1)]
        for _ in self.to_level[1:]:
            maps.append(functional.avg_pool3d(maps[-1], 2))
        return maps

    def forward(self, patch: torch.Tensor, prompt: PointPrompt) -> list[torch.Tensor]:
        """What each decoder level adds before its convolutions, (B, C_n, D_n, H_n, W_n), finest first."""
        return [layer(level) for layer, level in zip(self.to_level, self.maps(patch, prompt))]
