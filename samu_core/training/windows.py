"""The part of a patch that the finest decoder levels are trained on.

They take more than a third of a step, and most of what they see is far from any border. Of each click's
patch they get a cube that holds the click somewhere, and a second one elsewhere if that is wanted: what is
far from the click should not go unjudged. The auxiliary head still answers for the whole patch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from samu_core.prompt import PointPrompt

RIM = 1  # voxels of the auxiliary level between a click and the window's faces, where the patch has them
SEEN_FROM = 4  # voxels from a window's faces on; nearer ones feel the end of the convolutions
CENTRED = 0.5  # of the windows lie around the click; the others anywhere that holds it
IN_TARGET = 0.6  # of the second windows lie around a voxel of the target; the others anywhere


@dataclass(frozen=True)
class Window:
    """A cube, or two, of every click's patch.

    Attributes:
        corners: (clicks * views, 3) KJI index of the cubes' first voxels, at the resolution of `level`.
        size: edge length of the cubes there.
        level: the finest decoder level that still sees whole patches (the auxiliary head's).
        prompt: the clicks as fractions of their cubes, outside 0...1 in the second ones.
    """

    corners: list[list[int]]
    size: int
    level: int
    prompt: PointPrompt

    @classmethod
    def around(
        cls,
        prompt: PointPrompt,
        patch_size: int,
        size: int,
        level: int,
        target: torch.Tensor | None = None,
    ) -> Window:
        """Windows drawn by torch's generator.

        Args:
            prompt: clicks in patches of patch_size^3 voxels. size: edge length of the windows in such voxels,
                a multiple of 2^level.
            target: (clicks, 1, D, H, W), above 0 in the targets: every click gets a second window, around a
                voxel of its target or anywhere.
        """
        count, edge = patch_size >> level, size >> level
        voxel = (prompt.position.cpu().float() * count).long().clamp(0, count - 1)
        lowest = (voxel - edge + 1 + RIM).clamp(0, count - edge)
        highest = (voxel - RIM).clamp(0, count - edge)
        anywhere = lowest + (torch.rand(voxel.shape) * (highest - lowest + 1)).long()
        centred = (voxel - edge // 2).clamp(0, count - edge)
        corners = torch.where(torch.rand(len(voxel), 1) < CENTRED, centred, anywhere)
        views, position = 1, prompt.position
        if target is not None:
            elsewhere = (_elsewhere(target, level) - edge // 2).clamp(0, count - edge)
            views, position = 2, position.repeat_interleave(2, 0)
            corners = torch.stack([corners, elsewhere], 1).flatten(0, 1)
        inner = (position - corners.to(position) / count) * (count / edge)
        return cls(corners.tolist(), edge, level, PointPrompt(inner, prompt.span * edge / count, views))

    @staticmethod
    def inner(volumes: torch.Tensor) -> torch.Tensor:
        """Windows at full resolution without what may differ from the same place in a whole patch."""
        return volumes[(..., *[slice(SEEN_FROM, -SEEN_FROM)] * 3)]

    def crop(self, volumes: torch.Tensor, level: int) -> torch.Tensor:
        """Windows of volumes at a level's resolution.

        Args:
            volumes: (clicks or patches, C, D, H, W).

        Returns:
            (clicks * views, C, size, size, size) at that level.
        """
        crops = _Crop if volumes.device.type == "cpu" else _GatheredCrop
        return crops.apply(volumes, self.corners, self.size, self.level - level)


class _Crop(torch.autograd.Function):
    """Copies forward, and one sum backward; torch's slices would fill a volume of zeros for every window."""

    @staticmethod
    def forward(ctx, volumes, corners, size, finer):
        ctx.shape, ctx.places = volumes.shape, _places(len(volumes), corners, size, finer)
        edge = size << finer
        shape = (len(corners), volumes.shape[1], edge, edge, edge)
        out = torch.empty(shape, dtype=volumes.dtype, device=volumes.device, memory_format=_format(volumes))
        for window, (owner, place) in zip(out, ctx.places):
            window.copy_(volumes[owner][place])
        return out

    @staticmethod
    def backward(ctx, gradient):
        total = gradient.new_zeros(ctx.shape).contiguous(memory_format=_format(gradient))
        for window, (owner, place) in zip(gradient, ctx.places):
            total[owner][place].add_(window)
        return total, None, None, None


class _GatheredCrop(torch.autograd.Function):
    """The same in a few calls, where a call costs more than its copying, as on a GPU."""

    @staticmethod
    def forward(ctx, volumes, corners, size, finer):
        ctx.shape, ctx.rows = volumes.shape, _rows(volumes, corners, size, finer)
        found = volumes.permute(0, 2, 3, 4, 1).reshape(-1, volumes.shape[1]).index_select(0, ctx.rows)
        windows = found.view(len(corners), *[size << finer] * 3, -1).permute(0, 4, 1, 2, 3)
        return windows.contiguous(memory_format=_format(volumes))

    @staticmethod
    def backward(ctx, gradient):
        count, channels, *edges = ctx.shape
        total = gradient.new_zeros(count * edges[0] * edges[1] * edges[2], channels)
        total.index_add_(0, ctx.rows, gradient.permute(0, 2, 3, 4, 1).reshape(-1, channels))
        whole = total.view(count, *edges, channels).permute(0, 4, 1, 2, 3)
        return whole.contiguous(memory_format=_format(gradient)), None, None, None


def _rows(volumes: torch.Tensor, corners, size: int, finer: int) -> torch.Tensor:
    """Which voxels the windows hold, int64 (windows * edge^3,): indices into all voxels of the volumes (B, C,
    D, H, W), one volume after the other; arguments as `Window.crop`'s, `finer` levels below the corners'."""
    count, _, *shape = volumes.shape
    starts = torch.tensor(corners).to(volumes.device) << finer
    steps = torch.arange(size << finer, device=volumes.device)
    k, j, i = (starts[:, axis, None] + steps for axis in range(3))
    owner = torch.arange(len(corners), device=volumes.device) // (len(corners) // count)
    rows = (owner[:, None] * shape[0] + k)[:, :, None, None] * shape[1] + j[:, None, :, None]
    return (rows * shape[2] + i[:, None, None, :]).flatten()


def _elsewhere(target: torch.Tensor, level: int) -> torch.Tensor:
    """A voxel (clicks, 3), KJI at the resolution of `level`, of each target (clicks, 1, D, H, W), or of its
    patch."""
    coarse = target[(slice(None), 0, *[slice(None, None, 1 << level)] * 3)].cpu() > 0
    voxels = (torch.rand(len(coarse), 3) * torch.tensor(coarse.shape[1:])).long()
    for voxel, wanted in zip(voxels, coarse):
        if torch.rand(()) < IN_TARGET and bool(wanted.any()):
            found = wanted.nonzero()
            voxel.copy_(found[int(torch.randint(len(found), ()))])
    return voxels


def _format(volumes: torch.Tensor):
    last = volumes.is_contiguous(memory_format=torch.channels_last_3d)
    return torch.channels_last_3d if last else torch.contiguous_format


def _places(count: int, corners, size: int, finer: int):
    """(index of the volume, slices of it) per window; the clicks of a patch follow one another."""
    clicks = len(corners) // count
    return [
        (n // clicks, (slice(None), *(slice(low << finer, (low + size) << finer) for low in corner)))
        for n, corner in enumerate(corners)
    ]


def repeated(
    features: list[torch.Tensor], clicks: int, first: int = 0, shared: tuple[int, ...] = ()
) -> list[torch.Tensor]:
    """Encoder features of patches as features of their clicks: every patch's `clicks` times.

    Args:
        first: finest level that is repeated; windows are taken out of the finer ones instead.
        shared: levels that stay as they are (`samu_core.training.shared_skips`).
    """
    if clicks == 1:
        return features
    return [
        value if level < first or level in shared else _RepeatPatches.apply(value, clicks)
        for level, value in enumerate(features)
    ]


def summed_over_clicks(gradient: torch.Tensor, patches: int) -> torch.Tensor:
    """(patches * clicks, C, D, H, W) -> (patches, C, D, H, W), in the same order of memory: torch would sum
    into the other one, slowly, and all that is added to it would be slow as well."""
    if _format(gradient) == torch.contiguous_format:
        return gradient.unflatten(0, (patches, -1)).sum(1)
    last = gradient.permute(0, 2, 3, 4, 1).unflatten(0, (patches, -1))
    return last.sum(1).permute(0, 4, 1, 2, 3)


class _RepeatPatches(torch.autograd.Function):
    """`repeat_interleave` along the batch that keeps the order of memory."""

    @staticmethod
    def forward(ctx, volumes, clicks):
        ctx.patches = len(volumes)
        shape = (len(volumes) * clicks, *volumes.shape[1:])
        out = torch.empty(shape, dtype=volumes.dtype, device=volumes.device, memory_format=_format(volumes))
        out.unflatten(0, (len(volumes), clicks)).copy_(volumes[:, None])
        return out

    @staticmethod
    def backward(ctx, gradient):
        return summed_over_clicks(gradient, ctx.patches), None
