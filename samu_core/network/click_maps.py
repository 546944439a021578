"""How every voxel relates to the click: alike in intensity (region growing's cue), near, and connected."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.nn import functional

from samu_core.network.averages import halved
from samu_core.network.blocks import sample_at
from samu_core.network.paths import cheapest_ways, voxel_of
from samu_core.prompt import FIELD_OF_VIEW, PointPrompt

# Standard deviations of the patch. The finest is 10-15 HU in a CT patch with air and bone in it, where a
# z-score leaves soft tissues a few hundredths apart.
WIDTHS = (0.03, 0.1, 0.3)
# Widths in units of the spread around the click, so that "alike" means beyond the noise, whatever its level.
LOCAL_WIDTHS = (1.5, 4.0)
LOCAL_REACH = 2  # voxels to each side: the spread is taken over 5^3
LOCAL_RANGE = (0.02, 0.5)  # SD of the patch
# Fields of view: 12, 30 and 75 mm of 192.
RADII = (1 / 16, 5 / 32, 25 / 64)
# Ways from the click: a voxel is unlike beyond so many units of the spread around the click ...
PATH_WIDTH = 3.0
PATH_LENGTHS = (6.0, 20.0)  # mm of unlike tissue to cross
PATH_STEP = 0.02  # what a mm of like tissue costs
PATH_PEAK = 0.25  # ... or beyond so many SD of the patch
COUNT = len(WIDTHS) + len(LOCAL_WIDTHS) + len(RADII) + len(PATH_LENGTHS) + 2


def nearness(shape, prompt: PointPrompt, radius: float) -> list[torch.Tensor]:
    """Gaussian of the distance to the click, as three factors (B, n), one per axis K, J, I.

    Their outer product is the map: 1 at the click, `radius` is the standard deviation in fields of view.
    """
    factors = []
    for axis, size in enumerate(shape):
        index = (torch.arange(size, device=prompt.position.device, dtype=torch.float32) + 0.5) / size
        offset = (index[None] - prompt.position[:, axis, None].float()) * prompt.span
        factors.append(torch.exp(-0.5 * (offset / radius).square()))
    return factors


def outer(factors: list[torch.Tensor]) -> torch.Tensor:
    """(B, 1, D, H, W), the outer product of three (B, n)."""
    k, j, i = factors
    return k[:, None, :, None, None] * j[:, None, None, :, None] * i[:, None, None, None, :]


def local_spread(smoothed: torch.Tensor, prompt: PointPrompt) -> torch.Tensor:
    """Standard deviation of the smoothed patch within LOCAL_REACH voxels of the click, (B,), LOCAL_RANGE."""
    size = torch.tensor(smoothed.shape[2:], device=smoothed.device)
    centre = (prompt.position.float() * size).long()
    centre = torch.minimum(centre.clamp(min=0), size - 1)
    steps = torch.arange(-LOCAL_REACH, LOCAL_REACH + 1, device=smoothed.device)
    # (B, 5) per axis; at the border voxels are counted twice rather than windows made smaller.
    windows = torch.minimum((centre[..., None] + steps).clamp(min=0), (size - 1)[:, None])
    k, j, i = windows.unbind(1)
    batch = torch.arange(len(smoothed), device=smoothed.device)[:, None, None, None]
    window = smoothed[batch, 0, k[:, :, None, None], j[:, None, :, None], i[:, None, None, :]]
    return window.float().flatten(1).std(dim=1).clamp(*LOCAL_RANGE)


def doubled(maps: torch.Tensor) -> torch.Tensor:
    """Every voxel twice along each axis, (B, C, D, H, W)."""
    return functional.interpolate(maps, scale_factor=2, mode="nearest")


def connectedness(
    half: torch.Tensor, clicked: torch.Tensor, spread: torch.Tensor, prompt: PointPrompt
) -> torch.Tensor:
    """How cheaply every voxel is reached from the click, at half the resolution, (B, 4, D/2, H/2, W/2).

    Two maps fall with the length of unlike tissue that must be crossed (PATH_LENGTHS), two with the greatest
    unlikeness on the way: in units of the spread around the click, and in SD of the patch (PATH_PEAK).

    Args:
        half: the smoothed patch `halved`, float32. clicked: (B,), the smoothed patch's value at the click.
        spread: (B,), `local_spread`.
    """
    with torch.no_grad(), torch.autocast(half.device.type, enabled=False):
        shape = half.shape[1:]
        width = PATH_WIDTH * spread.float().view(-1, 1, 1, 1)
        unlike = (half - clicked.float().view(-1, 1, 1, 1)).abs()
        cost = 1 + PATH_STEP - torch.exp(-0.5 * (unlike / width).square())
        seed = voxel_of(prompt.position, shape)
        spacing = [FIELD_OF_VIEW * prompt.span / size for size in shape]
        length, peak = cheapest_ways(cost, unlike, seed, spacing)
        maps = [torch.exp(length / -reach) for reach in PATH_LENGTHS]
        maps += [torch.exp(-0.5 * (peak / scale).square()) for scale in (width, PATH_PEAK)]
        return torch.stack(maps, dim=1)


class ClickMaps(nn.Module):
    """Maps of the click for the decoder levels, each brought to the level's channels by a 1x1x1 convolution.

    They depend on the click and enter in the decoder only, so the encoder's features stay cacheable.

    Args:
        channels: of the decoder levels, finest first.

    The maps are the Gaussian likeness of the smoothed intensity to the clicked one in WIDTHS and
    LOCAL_WIDTHS, nearness in RADII, and `connectedness`.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.to_level = nn.ModuleList(nn.Conv3d(COUNT, width, 1) for width in channels)

    def finest(self, smoothed: torch.Tensor, prompt: PointPrompt) -> torch.Tensor:
        """The maps at the patch's resolution, (B, 12, D, H, W) in 0...1."""
        clicked, spread = _clicked(smoothed, prompt)
        connected = connectedness(halved(smoothed[:, 0].float()), clicked, spread, prompt)
        return _stacked(_likenesses(smoothed, clicked, spread), prompt, doubled(connected))

    def maps(self, smoothed: torch.Tensor, prompt: PointPrompt, window=None) -> list[torch.Tensor]:
        """The maps averaged to the decoder levels' resolutions, finest first.

        Args:
            window: as of `forward`; the finest maps are then made within the windows alone, which is a part
                of the work and of the memory.
        """
        windowed = window is not None and window.level > 0
        maps = self._finest_two(smoothed, prompt, window) if windowed else [self.finest(smoothed, prompt)]
        while len(maps) < len(self.to_level):
            maps.append(functional.avg_pool3d(maps[-1], 2))
        if windowed:
            for level in range(1, window.level):
                maps[level] = window.crop(maps[level], level)
        return maps

    def _finest_two(self, smoothed: torch.Tensor, prompt: PointPrompt, window) -> list[torch.Tensor]:
        """The maps of the windows at the patch's resolution, and of the whole patches at half of it."""
        clicked, spread = _clicked(smoothed, prompt)
        connected = connectedness(halved(smoothed[:, 0].float()), clicked, spread, prompt)
        views = window.prompt.views
        windows = _stacked(
            _likenesses(
                window.crop(smoothed, 0), clicked.repeat_interleave(views), spread.repeat_interleave(views)
            ),
            window.prompt,
            doubled(window.crop(connected, 1)),
        )
        alike = [halved(each) for each in _likenesses(smoothed, clicked, spread)]
        return [windows, _stacked(alike, prompt, connected, finer=1)]

    def forward(
        self, smoothed: torch.Tensor, prompt: PointPrompt, finest: int = 0, window=None
    ) -> list[torch.Tensor | None]:
        """What each decoder level adds before its convolutions, (B, C_n, D_n, H_n, W_n), finest first.

        Args:
            smoothed: `smooth(patch)`.
            finest: level to begin with; None stands for those before it.
            window: part of the patch that the finest levels see (`Decoder.forward`).
        """
        layers = list(zip(self.to_level, self.maps(smoothed, prompt, window)))[finest:]
        # In the order of the features that they are added to.
        last = torch.channels_last_3d
        return [None] * finest + [layer(level.contiguous(memory_format=last)) for layer, level in layers]


def _clicked(smoothed: torch.Tensor, prompt: PointPrompt) -> tuple[torch.Tensor, torch.Tensor]:
    """The smoothed patch's value at the click, or the typical one, and its spread around the click, (B,)
    each."""
    clicked = sample_at(smoothed, prompt.position)[:, 0]
    if prompt.typical is not None:
        clicked = prompt.typical.instead_of_intensity(clicked)
    return clicked, local_spread(smoothed, prompt).to(clicked.dtype)


def _likenesses(
    smoothed: torch.Tensor, clicked: torch.Tensor, spread: torch.Tensor
) -> Iterator[torch.Tensor]:
    """Gaussian likeness of smoothed intensities (B, 1, D, H, W) to the clicked ones (B,), in WIDTHS and in
    LOCAL_WIDTHS of the spreads (B,), one by one: (B, D, H, W) each."""
    difference = (smoothed[:, 0] - clicked[:, None, None, None]).square()
    widths = [torch.full_like(clicked, width) for width in WIDTHS]
    widths += [factor * spread for factor in LOCAL_WIDTHS]
    for width in widths:
        yield torch.exp(difference * (-0.5 / width.square())[:, None, None, None])


def _stacked(
    alike: Iterable[torch.Tensor], prompt: PointPrompt, connected: torch.Tensor, finer: int = 0
) -> torch.Tensor:
    """All maps of a place, (B, 12, D, H, W).

    Args:
        alike: the likenesses there. connected: (B, 4, D, H, W), `connectedness` there.
        prompt: the click, as fractions of that place.
        finer: nearness is the mean of 2^finer voxels along each axis.
    """
    shape = [size << finer for size in connected.shape[2:]]
    near = []
    for radius in RADII:
        factors = nearness(shape, prompt, radius)
        near.append(outer([each.unflatten(1, (-1, 1 << finer)).mean(2) for each in factors])[:, 0])
    # Stacked without their axis of one channel: with it torch.cat takes the maps for channels-last, and
    # writes every twelfth number.
    alike = list(alike)
    planes = [*alike, *[each.to(alike[0].dtype) for each in near]]
    return torch.stack([*planes, *connected.to(alike[0].dtype).unbind(1)], dim=1)
