"""Where in the patch the fine levels are worth running, by the auxiliary head's coarse mask."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class RegionOfInterest:
    """How the box is drawn around the coarse mask.

    Attributes:
        probability: coarse voxels from this probability on are inside. The least threshold that can be chosen
            after the network has run (SAMUSegmentLib.options).
        margin: coarse voxels (4 of the patch, 6 mm) added on every side.
        largest: fraction of the patch; a larger box is not worth leaving something out.
    """

    probability: float = 0.02
    margin: int = 2
    largest: float = 0.6

    def box(self, auxiliary: torch.Tensor, prompt) -> tuple[slice, slice, slice] | None:
        """KJI slices of the auxiliary logits (d, h, w), the click among them; None is everything."""
        above = auxiliary >= math.log(self.probability / (1 - self.probability))
        box, fraction = [], 1.0
        for axis, size in enumerate(auxiliary.shape):
            others = [other for other in range(3) if other != axis]
            found = torch.nonzero(above.sum(dim=others))[:, 0].tolist()
            click = min(max(int(float(prompt.position[0, axis]) * size), 0), size - 1)
            first, last = min([click, *found[:1]]), max([click, *found[-1:]])
            part = slice(max(first - self.margin, 0), min(last + 1 + self.margin, size))
            fraction *= (part.stop - part.start) / size
            box.append(part)
        return None if fraction > self.largest else tuple(box)
