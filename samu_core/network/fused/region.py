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
        step: coarse voxels that the box's edges are a multiple of. oneDNN keeps code for every shape that it
            has met, and the C library's free blocks fit only like shapes: every click would cost memory.
    """

    probability: float = 0.02
    margin: int = 2
    largest: float = 0.6
    step: int = 4

    def box(self, auxiliary: torch.Tensor, prompt) -> tuple[slice, slice, slice] | None:
        """KJI slices of the auxiliary logits (d, h, w), the click among them; None is everything."""
        above = auxiliary >= math.log(self.probability / (1 - self.probability))
        box, fraction = [], 1.0
        for axis, size in enumerate(auxiliary.shape):
            others = [other for other in range(3) if other != axis]
            found = torch.nonzero(above.sum(dim=others))[:, 0].tolist()
            click = min(max(int(float(prompt.position[0, axis]) * size), 0), size - 1)
            first, last = min([click, *found[:1]]), max([click, *found[-1:]])
            part = self._rounded(max(first - self.margin, 0), min(last + 1 + self.margin, size), size)
            fraction *= (part.stop - part.start) / size
            box.append(part)
        return None if fraction > self.largest else tuple(box)

    def _rounded(self, start: int, stop: int, size: int) -> slice:
        """Grown to a multiple of `step`, as far as there is room."""
        length = min(-(-(stop - start) // self.step) * self.step, size)
        start = min(start, size - length)
        return slice(start, start + length)
