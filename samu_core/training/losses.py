"""Soft Dice plus binary cross-entropy, with a coarser copy for the auxiliary head."""

from __future__ import annotations

import torch
from torch.nn import functional

from samu_core.training.windows import Window


def dice_and_cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and the hard Dice of a batch.

    Args:
        logits, target: (B, views, D, H, W), usually one view; target in 0...1.

    Returns:
        scalar loss, float32: mean over samples of 1 - soft Dice, plus BCE; and Dice per sample, detached
        (B,).
    """
    logits, target = logits.float(), target.float()
    probability = torch.sigmoid(logits)
    axes = (1, 2, 3, 4)
    overlap = (probability * target).sum(axes)
    dice = (2 * overlap + 1) / (probability.sum(axes) + target.sum(axes) + 1)
    # Unweighted: weighed up for small targets, the cross-entropy outgrows the Dice term (docs/model.md).
    entropy = functional.binary_cross_entropy_with_logits(logits, target)
    with torch.no_grad():
        mask = logits > 0
        wanted = target > 0.5
        hard = 2.0 * (mask & wanted).sum(axes) / (mask.sum(axes) + wanted.sum(axes)).clamp(min=1)
    return (1 - dice).mean() + entropy, hard


def coarse_loss(auxiliary: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`dice_and_cross_entropy` of the auxiliary head's logits (B, 1, d, h, w) against the target (B, 1, D, H,
    W) averaged to their resolution."""
    factor = target.shape[2] // auxiliary.shape[2]
    return dice_and_cross_entropy(auxiliary, functional.avg_pool3d(target.float(), factor))


def samu_loss(
    logits: torch.Tensor, auxiliary: torch.Tensor, target: torch.Tensor, window: Window | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The head's loss plus half of the auxiliary head's against the average-pooled target; Dice per sample.

    With a `window` the head's `logits` (B * views, 1, n, n, n) are judged in it alone, and the auxiliary
    head, which answers for the rest of the patch, counts in full.
    """
    if window is None:
        loss, dice = dice_and_cross_entropy(logits, target)
    else:
        shown = (window.inner(logits), window.inner(window.crop(target, 0)))
        # All that is seen of a click is one sample: a window without the target has no Dice of its own.
        loss, dice = dice_and_cross_entropy(
            *(view.unflatten(0, (len(target), -1))[:, :, 0] for view in shown)
        )
    coarse, _ = coarse_loss(auxiliary, target)
    return loss + (0.5 if window is None else 1.0) * coarse, dice
