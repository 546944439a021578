"""Two looks at the same targets that should give the same masks: a patch and a resampled copy of it, clicked
elsewhere.

A user's second try in a structure, and the same scan exported on another grid, differ from the first in what
should not matter. The labels alone ask for that only on average.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from samu_core.training.clicks import one_of
from samu_core.training.shapes import random_rotation
from samu_core.training.windows import Window

if TYPE_CHECKING:
    from samu_core.training.samples import Sample

SAME_CLICK = 0.35  # of a copy's clicks are where the patch itself was clicked
GRID = (0.75, 1.05)  # voxels of the patch: the spacing of the grid that a copy was on in between
STRENGTH = (0.3, 1.0)  # of the copy, the rest is the patch itself: most grids are finer than a patch


def twin_of(sample: Sample, rng: np.random.Generator) -> Sample:
    """A sample as a copy of its volume on another grid would show it, with other clicks in its targets."""
    positions = sample.positions.clone()
    size = sample.patch.shape[-1]
    for position, target in zip(positions, sample.targets.numpy()):
        if rng.random() >= SAME_CLICK:
            found = np.flatnonzero(target)
            voxels = np.stack(np.unravel_index(found[rng.integers(len(found), size=8)], target.shape), axis=1)
            voxel = one_of(voxels, target, True, rng) + rng.uniform(-0.5, 0.5, 3)
            position.copy_(torch.from_numpy((voxel + 0.5) / size))
    return replace(sample, patch=resampled_copy(sample.patch, rng), positions=positions)


def resampled_copy(patch: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """A patch (n, n, n) interpolated linearly to a turned grid and back, with its mean and SD as before."""
    size = patch.shape[-1]
    spacing = rng.uniform(*GRID)
    turn = random_rotation(rng, np.radians(25)) if rng.random() < 0.5 else np.eye(3)
    count = int(np.ceil(size * abs(turn).sum(axis=0).max() / spacing)) + 1  # turned, it still holds all
    shift = rng.uniform(-0.5, 0.5, 3) * spacing
    # align_corners=False: -1 and 1 are the outer faces, of the patch and of the grid in between.
    scale = count * spacing / size
    there = np.column_stack([turn * scale, 2 * shift / size])
    back = np.linalg.inv(np.vstack([there, (0, 0, 0, 1)]))[:3]
    copy = patch[None, None]
    for matrix, edge in ((there, count), (back, size)):
        theta = torch.from_numpy(matrix.astype(np.float32))[None]
        grid = functional.affine_grid(theta, [1, 1, edge, edge, edge], align_corners=False)
        copy = functional.grid_sample(copy, grid, padding_mode="border", align_corners=False)
    copy = torch.lerp(patch, copy[0, 0], float(rng.uniform(*STRENGTH)))
    spread = patch.std() / copy.std().clamp(min=1e-6)
    return (copy - copy.mean()) * spread + patch.mean()


def disagreement(
    logits: torch.Tensor, auxiliary: torch.Tensor, dice: torch.Tensor, clicks: int, window: Window | None
) -> torch.Tensor:
    """How far the worse mask of each pair of clicks is from the better one, in 0...1.

    Args:
        logits, auxiliary: of the head and the auxiliary head, as `samu_loss` takes them, of patches and their
            twins in turn with `clicks` clicks each.
        dice: (patches * clicks,), with the targets: which of a pair is the better one. It is not moved.
        window: with two views of which twins show the same (`Window.around`).

    Returns:
        scalar: mean of 1 - soft Dice (of squares, so that alike means 1) of the head's masks and of the
        auxiliary head's, which counts half without a window and as much with one.
    """
    shown = logits if window is None else window.inner(logits)
    views = 1 if window is None else window.prompt.views
    first_is_better = dice.unflatten(0, (-1, 2, clicks)).diff(dim=1)[:, 0] <= 0
    head = _apart(shown.float().unflatten(0, (-1, 2, clicks, views)), first_is_better, views == 2)
    coarse = _apart(auxiliary.float().unflatten(0, (-1, 2, clicks, 1)), first_is_better, False)
    return head + (0.5 if window is None else 1.0) * coarse


def _apart(logits: torch.Tensor, first_is_better: torch.Tensor, swapped: bool) -> torch.Tensor:
    """Of logits (pairs, 2, clicks, views, 1, D, H, W); `swapped`: the second's views are in reverse order."""
    first, second = torch.sigmoid(logits).unbind(1)
    if swapped:
        second = second.flip(2)
    better = torch.where(first_is_better[(..., *[None] * 5)], first, second).detach()
    worse = torch.where(first_is_better[(..., *[None] * 5)], second, first)
    axes = (2, 3, 4, 5, 6)
    overlap = 2 * (better * worse).sum(axes) + 1
    return (1 - overlap / (better.square().sum(axes) + worse.square().sum(axes) + 1)).mean()
