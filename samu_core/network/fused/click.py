"""What the decoder is told about one click: maps of likeness, nearness and ways, by slabs and boxes.

The same numbers as `samu_core.network.click_maps`, without ever holding the maps of the whole patch at full
resolution: likeness is computed where it is needed, nearness is the product of three short factors. Always
float32; bfloat16 would lose the narrow widths.
"""

from __future__ import annotations

import torch

from samu_core.network.averages import halved
from samu_core.network.blocks import sample_at
from samu_core.network.click_maps import (
    COUNT,
    LOCAL_WIDTHS,
    RADII,
    WIDTHS,
    connectedness,
    local_spread,
    nearness,
)
from samu_core.network.fused.buffers import Buffers
from samu_core.network.prompt_attention import PLACE_RADIUS

SLAB = 8  # slices of the full resolution at a time
IDLE, IDLE_PLANES = "pooled 1", 2  # scratch of the encoder's that is free here, and what it has room for
# Below these the exponentials and products would be denormal numbers, which are very slow on some CPUs.
SMALLEST_EXPONENT = -80.0
SMALLEST_FACTOR = 1e-12

Box = tuple[slice, slice, slice]  # KJI, every slice with start and stop


def factors_of(shape, prompt, radius: float) -> list[torch.Tensor]:
    """`click_maps.nearness` of one prompt: three (n,), without values that only cost time."""
    factors = [factor[0] for factor in nearness(shape, prompt, radius)]
    return [torch.where(factor < SMALLEST_FACTOR, 0.0, factor) for factor in factors]


def product_into(factors: list[torch.Tensor], box: Box, out: torch.Tensor) -> None:
    """The outer product of three factors within a box, written to `out` (d, h, w)."""
    k, j, i = (factor[part] for factor, part in zip(factors, box))
    torch.mul(k[:, None, None], torch.outer(j, i), out=out)


class ClickMapsOfOne:
    """Maps of one click in one patch.

    Args:
        smoothed: (D, H, W) float32.
        half: (D / 2, H / 2, W / 2), its `halved`.
        prompt: a batch of one.
        levels: decoder levels that maps are needed for.
        buffers: memory for them.
        keep: type in which the likeness at full resolution, which the coarse levels' averages need, is kept
            for the finest level; None computes it again where that is run, less work for a small box.
    """

    def __init__(
        self, smoothed: torch.Tensor, half: torch.Tensor, prompt, levels: int, buffers: Buffers, keep=None
    ) -> None:
        self.smoothed = smoothed
        self.buffers = buffers
        batch = smoothed[None, None]
        clicked, deviation = sample_at(batch, prompt.position)[0], local_spread(batch, prompt)
        self.clicked, spread = float(clicked), float(deviation)
        widths = [*WIDTHS, *(factor * spread for factor in LOCAL_WIDTHS)]
        self.scales = [-0.5 / width**2 for width in widths]
        self.factors = [[factors_of(smoothed.shape, prompt, radius) for radius in RADII]]
        for _ in range(1, levels):
            self.factors.append([[f.view(-1, 2).mean(1) for f in factors] for factors in self.factors[-1]])
        self.kept = None if keep is None else self._room(keep)
        self.pooled = self._pooled(levels)
        self.ways = [connectedness(half[None], clicked, deviation, prompt)[0]]
        while len(self.ways) < levels - 1:
            self.ways.append(halved(self.ways[-1]))

    def rows(self, level: int, box: Box, dtype: torch.dtype) -> torch.Tensor:
        """The maps and a row of ones for the bias, (13, voxels of the box), until the next call.

        At the full resolution the box has even edges.
        """
        shape = tuple(part.stop - part.start for part in box)
        rows = self.buffers.flat("rows", (COUNT + 1, *shape), dtype)
        count = len(self.scales)
        alike, near, ways = rows[:count], rows[count : count + len(RADII)], rows[count + len(RADII) : -1]
        if level:
            part = (slice(None), *box)
            alike.copy_(self.pooled[level - 1][part])
            ways.copy_(self.ways[level - 1][part])
        else:
            self._likeness_into(box, alike)
            self._ways_into(box, ways)
        for row, factors in zip(near, self.factors[level]):
            plane = self._plane(row)
            product_into(factors, box, plane)
            if plane is not row:
                row.copy_(plane)
        rows[-1].fill_(1.0)
        return rows.view(len(rows), -1)

    def _plane(self, row: torch.Tensor) -> torch.Tensor:
        """Where a row is computed in float32: itself, or memory to copy from while it is in the cache."""
        if row.dtype == torch.float32:
            return row
        return self.buffers.flat("plane", row.shape, torch.float32)

    def _room(self, dtype: torch.dtype) -> list[torch.Tensor]:
        """Memory for each likeness at full resolution."""
        shape, rest = self.smoothed.shape, len(self.scales) - IDLE_PLANES
        idle = self.buffers.flat(IDLE, (IDLE_PLANES, *shape), dtype)
        return [*idle, *self.buffers.flat("kept", (rest, *shape), dtype)]

    def _square(self, box: Box) -> torch.Tensor:
        """Squared difference to the clicked value within a box at the full resolution."""
        square = self.buffers.flat("square", tuple(part.stop - part.start for part in box), torch.float32)
        return torch.sub(self.smoothed[box], self.clicked, out=square).square_()

    def _likeness_into(self, box: Box, out: torch.Tensor) -> None:
        """Likeness at full resolution within a box, written to `out` (5, d, h, w)."""
        if self.kept is not None:
            for row, plane in zip(out, self.kept):
                row.copy_(plane[box])
            return
        square = self._square(box)
        for row, scale in zip(out, self.scales):
            plane = _likeness(square, scale, self._plane(row))
            if plane is not row:
                row.copy_(plane)

    def _ways_into(self, box: Box, out: torch.Tensor) -> None:
        """`connectedness` within a box at full resolution, written to `out` (4, d, h, w)."""
        half = self.ways[0][(slice(None), *(slice(part.start // 2, part.stop // 2) for part in box))]
        wide = half.repeat_interleave(2, dim=3)
        count, depth, height, width = wide.shape
        pairs = out.view(count, depth, 2, height, 2, width)
        pairs.copy_(wide[:, :, None, :, None].expand_as(pairs))

    def _pooled(self, levels: int) -> list[torch.Tensor]:
        """Likeness averaged to the coarser levels, (5, D / 2^level, ...), level 1 first."""
        depth, height, width = self.smoothed.shape
        shape = (len(self.scales), depth // 2, height // 2, width // 2)
        first = self.buffers.flat("pooled", shape, torch.float32)
        for start in range(0, depth, SLAB):
            stop = min(start + SLAB, depth)
            square = self._square((slice(start, stop), slice(0, height), slice(0, width)))
            plane = self.buffers.flat("plane", square.shape, torch.float32)
            for index, scale in enumerate(self.scales):
                _likeness(square, scale, plane)
                halved(plane[None], out=first[index : index + 1, start // 2 : stop // 2])
                if self.kept is not None:
                    self.kept[index][start:stop] = plane
        pooled = [first]
        while len(pooled) < levels - 1:
            pooled.append(halved(pooled[-1]))
        return pooled


def _likeness(square: torch.Tensor, scale: float, out: torch.Tensor) -> torch.Tensor:
    return torch.mul(square, scale, out=out).clamp_(min=SMALLEST_EXPONENT).exp_()


class ClickJoin:
    """Adds the maps of a level, brought to its channels, to the level's features.

    Args:
        convolution: `ClickMaps.to_level[level]`, a 1x1x1 convolution (C, 12).
    """

    def __init__(self, convolution, level: int, dtype: torch.dtype) -> None:
        weight = convolution.weight.flatten(1)
        self.weight = torch.cat([weight, convolution.bias[:, None]], dim=1).t().contiguous().to(dtype)
        self.level = level

    def add_to(self, voxels: torch.Tensor, maps: ClickMapsOfOne, box: Box) -> None:
        """voxels: (n, C), those of the box; changed in place."""
        voxels.addmm_(maps.rows(self.level, box, voxels.dtype).t(), self.weight)


def place_factors(shape, prompt) -> list[torch.Tensor]:
    """Nearness as attention knows it, three (n,)."""
    return factors_of(shape, prompt, PLACE_RADIUS)
