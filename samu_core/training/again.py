"""A second question in training: every click of a batch asked again by what its first mask holds.

At inference the decoder is asked twice (`samu_core/asking.py`). A network that was trained on first questions
alone does not know that it may trust what is typical of a mask more than a clicked voxel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from samu_core.network.averages import halved
from samu_core.network.typical import FINEST_LEVEL
from samu_core.prompt import TYPICAL_VOXELS
from samu_core.training.windows import SEEN_FROM, Window

# Added to the first logits, uniformly per click: masks at inference are a little smaller or larger than what
# the network says, too (samu_core/bolder.py), and worse than those of its training images.
RAISES = (-0.5, 1.5)


@dataclass(frozen=True, eq=False)
class TypicalOfClicks:
    """What is typical of the masks of a batch's clicks (`samu_core.network.typical.Typical`, which has it for
    one).

    Attributes:
        intensity: (clicks,) float32, the smoothed patches' medians within the masks.
        shares: {number of a level's voxels: (clicks, voxels) float32}, how much of a click's mask each voxel
            of a decoder level holds, in sum 1; levels from FINEST_LEVEL on.
        amount: (clicks,) float32, 0 where a mask is too small to be typical of anything, else 1.
    """

    intensity: torch.Tensor
    shares: dict[int, torch.Tensor]
    amount: torch.Tensor

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        logits: torch.Tensor,
        auxiliary: torch.Tensor,
        smoothed: torch.Tensor,
        coarsest: int,
        window: Window | None = None,
    ) -> TypicalOfClicks:
        """What is typical of first answers, whose logits are raised by a random number each.

        Args:
            logits: (clicks, 1, D, H, W), with a `window` (clicks * views, 1, n, n, n).
            auxiliary: (clicks, 1, D / 4, H / 4, W / 4), at FINEST_LEVEL.
            smoothed: (clicks, 1, D, H, W). coarsest: number of the last level.
            window: masks are then as fine as the logits in the inner part of the view that holds the click,
                and as coarse as the auxiliary head elsewhere; intensities are those of that part.
        """
        least, most = RAISES
        raised = least + (most - least) * torch.rand(len(auxiliary), 1, 1, 1, 1, device=auxiliary.device)
        if window is None:
            fine = (logits.float() + raised > 0)[:, 0]
            seen, held = smoothed[:, 0].float(), halved(halved(fine.float()))
        else:
            views, rim = window.prompt.views, SEEN_FROM >> window.level
            fine = window.inner(logits[::views].float() + raised > 0)[:, 0]
            seen = window.inner(window.crop(smoothed, 0)[::views])[:, 0].float()
            held = (auxiliary.float() + raised > 0)[:, 0].float()
            for share, mask, corner in zip(held, halved(halved(fine.float())), window.corners[::views]):
                share[tuple(slice(start + rim, start + window.size - rim) for start in corner)] = mask
        amount = (fine.flatten(1).sum(1) >= TYPICAL_VOXELS).float()
        medians = [
            values[mask].median() if known else values.new_zeros(())
            for values, mask, known in zip(seen, fine, amount.tolist())
        ]
        return cls(torch.stack(medians), _shares(held, coarsest), amount)

    def instead_of_intensity(self, clicked: torch.Tensor) -> torch.Tensor:
        """(clicks,): the typical intensities in place of the `clicked` ones, where they are known."""
        return torch.lerp(clicked, self.intensity.to(clicked.dtype), self.amount.to(clicked.dtype))

    def instead_of_content(self, clicked: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """(clicks, C) float32: a level's mean features over the masks in place of the `clicked` ones, which
        stay where nothing is known and on levels finer than FINEST_LEVEL.

        Args:
            clicked: (clicks, C) float32. features: (clicks, C, d, h, w), the level's.
        """
        share = self.shares.get(features[0, 0].numel())
        if share is None:
            return clicked
        voxels = features.permute(0, 2, 3, 4, 1).flatten(1, 3)
        content = torch.bmm(share[:, None].to(voxels.dtype), voxels)[:, 0].float()
        return torch.lerp(clicked, content, self.amount[:, None])


def _shares(held: torch.Tensor, coarsest: int) -> dict[int, torch.Tensor]:
    """Shares of masks of which each voxel of level FINEST_LEVEL `held` (clicks, d, h, w) so much, 0...1."""
    shares = {}
    for level in range(FINEST_LEVEL, coarsest + 1):
        held = held if level == FINEST_LEVEL else halved(held)
        flat = held.flatten(1)
        shares[flat.shape[1]] = flat / flat.sum(1, keepdim=True).clamp(min=1e-6)
    return shares
