"""What a painted structure is made of: one tissue, two, a core with a rim, or the same tissue as others.

Label maps give every structure an appearance of its own. Real ones seldom have that: all vertebrae look alike
and are told apart by what lies between them, and each has a bright cortex around a darker core that belong
together.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from samu_core.training.shapes import smooth_noise

# Few have two tissues or a rim: runs with 15 % of each gave masks that take in what lies around a tumour
# (docs/model.md).
HALVES, ALIKE, RIM = 0.05, 0.3, 0.03  # of the samples: two tissues, others alike, a rim; else one tissue
RIM_OF_ALIKE = 0.2  # of the samples with structures alike have rims, the others lines between what touches


@dataclass
class Structure:
    """Classes of a patch, int64 (n, n, n), numbered from 0 to count - 1.

    Attributes:
        alike: classes that look as the first target does, its own included.
        rim: class of the rims of all that are `alike`, or None.
        line: class of the lines where two of them touch, or None.
    """

    classes: torch.Tensor
    count: int
    alike: set[int] = field(default_factory=set)
    rim: int | None = None
    line: int | None = None

    def outer(self, value: int) -> int:
        """The class with which a structure of class `value` meets its surroundings."""
        return self.rim if self.rim is not None and value in self.alike else value

    def apart(self, value: int, neighbours: list[int]) -> list[int]:
        """Those of the neighbours of class `value` whose means must differ from its own: lines or rims tell
        it from its like."""
        same = self.alike | {self.line} if value in self.alike | {self.rim} else set()
        return [neighbour for neighbour in neighbours if neighbour not in same]


def draw_structure(
    classes: torch.Tensor, count: int, target: torch.Tensor, own: int, rng: np.random.Generator
) -> Structure:
    """Decide what the first target is made of, and what looks like it.

    Args:
        classes: int64 (n, n, n) KJI, numbered from 0 (the background, where there is any) to count - 1.
        target: bool (n, n, n), the first target. own: its class.
    """
    draw = rng.random()
    if draw < HALVES:  # as a heterogeneous tumour or a kidney
        half = smooth_noise(classes.shape, int(rng.integers(3, 6)), rng)[0] > rng.uniform(-0.3, 0.6)
        return Structure(torch.where(target & half, torch.full_like(classes, count), classes), count + 1)
    if draw >= HALVES + ALIKE + RIM:
        return Structure(classes, count)
    alike, rimmed = {own}, True
    if draw < HALVES + ALIKE:
        share = rng.uniform(0.2, 0.8)
        alike |= {value for value in range(1, count) if rng.random() < share}
        rimmed = rng.random() < RIM_OF_ALIKE
    among = torch.zeros(count, dtype=torch.bool)
    among[list(alike)] = True
    among = among[classes]
    if rimmed:
        reach = 1 if rng.random() < 0.6 else 2
        edge = among & (maximum_filter(classes, reach) != -maximum_filter(-classes, reach))
        return Structure(torch.where(edge, torch.full_like(classes, count), classes), count + 1, alike, count)
    instances = torch.where(among, classes, torch.full_like(classes, -1))
    between = among & (maximum_filter(instances, 1) != classes)
    classes = torch.where(between, torch.full_like(classes, count), classes)
    return Structure(classes, count + 1, alike, None, count)


def maximum_filter(values: torch.Tensor, reach: int) -> torch.Tensor:
    """Maximum over a cube of 2 * reach + 1 voxels, (n, n, n) -> the same; axis by axis and of shifted copies,
    because torch's pooling takes five to ten times as long."""
    for axis in range(3):
        size = values.shape[axis]
        found = values.clone()
        for shift in range(1, min(reach, size - 1) + 1):
            for taker, giver in ((0, shift), (shift, 0)):
                part = found.narrow(axis, taker, size - shift)
                torch.maximum(part, values.narrow(axis, giver, size - shift), out=part)
        values = found
    return values
