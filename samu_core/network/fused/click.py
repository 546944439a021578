"""What the decoder is told about one click: maps of likeness, nearness and ways, by slabs and boxes.

The same numbers as `samu_core.network.click_maps`, without ever holding the maps of the whole patch at full
resolution: likeness is computed where it is needed, nearness is the product of three short factors. Always
float32; bfloat16 would lose the narrow widths.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

from samu_core.network.averages import halved
from samu_core.network.click_maps import (
    COUNT,
    LOCAL_WIDTHS,
    RADII,
    WIDTHS,
    connectedness,
    local_spread,
)
from samu_core.network.fused.buffers import Buffers
from samu_core.network.fused.tokens import sample_one
from samu_core.network.prompt_attention import PLACE_RADIUS

SLAB = 8  # slices of the full resolution at a time
POOLED_SLAB = 4  # of likeness: five maps of so many slices stay in the processor's cache
IDLE, IDLE_PLANES = "pooled 1", 2  # scratch of the encoder's that is free here, and what it has room for
# Below these the exponentials and products would be denormal numbers, which are very slow on some CPUs.
SMALLEST_EXPONENT = -80.0
SMALLEST_FACTOR = 1e-12

Box = tuple[slice, slice, slice]  # KJI, every slice with start and stop


def nearness_of(shape, prompt, radii: Sequence[float]) -> torch.Tensor:
    """`click_maps.nearness` of one prompt, the factors of K, J and I in one row: (radii, D + H + W), without
    values that only cost time."""
    index, axis = _voxels(tuple(shape))
    offset = (index - prompt.position[0].float()[axis]) * prompt.span
    rows = torch.exp((offset / torch.tensor(radii)[:, None]).square() * -0.5)
    return torch.where(rows < SMALLEST_FACTOR, 0.0, rows)


@lru_cache(maxsize=32)
def _voxels(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Places of the voxels along each axis, as fractions, one axis after the other, and the axes' numbers."""
    places = [(torch.arange(size, dtype=torch.float32) + 0.5) / size for size in shape]
    return torch.cat(places), torch.arange(len(shape)).repeat_interleave(torch.tensor(shape))


def product_into(factors: Sequence[torch.Tensor], box: Box, out: torch.Tensor) -> None:
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
        clicked, deviation = sample_one(batch, prompt.position[0].tolist()), local_spread(batch, prompt)
        if prompt.typical is not None:
            clicked = prompt.typical.instead_of_intensity(clicked)
        self.clicked, spread = float(clicked), float(deviation)
        widths = [*WIDTHS, *(factor * spread for factor in LOCAL_WIDTHS)]
        self.scales = torch.tensor([-0.5 / width**2 for width in widths])[:, None, None, None]
        rows = nearness_of(smoothed.shape, prompt, RADII)
        self.factors = []
        for level in range(levels):
            shape = [size >> level for size in smoothed.shape]
            self.factors.append([row.split(shape) for row in rows])
            rows = rows.unflatten(1, (-1, 2)).mean(2)
        self.kept = [] if keep is None else self._room(keep)
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
        """Memory for the likeness at full resolution, (n, D, H, W) each, 5 together."""
        shape, rest = self.smoothed.shape, len(self.scales) - IDLE_PLANES
        idle = self.buffers.flat(IDLE, (IDLE_PLANES, *shape), dtype)
        return [idle, self.buffers.flat("kept", (rest, *shape), dtype)]

    def _likeness(self, box: Box) -> torch.Tensor:
        """Likeness at full resolution within a box, (5, d, h, w) float32, until the next call."""
        shape = tuple(part.stop - part.start for part in box)
        square = self.buffers.flat("square", shape, torch.float32)
        torch.sub(self.smoothed[box], self.clicked, out=square).square_()
        planes = self.buffers.flat("planes", (len(self.scales), *shape), torch.float32)
        return torch.mul(square, self.scales, out=planes).clamp_(min=SMALLEST_EXPONENT).exp_()

    def _likeness_into(self, box: Box, out: torch.Tensor) -> None:
        """Likeness at full resolution within a box, written to `out` (5, d, h, w)."""
        if not self.kept:
            out.copy_(self._likeness(box))
            return
        for part, planes in zip(out.split([len(planes) for planes in self.kept]), self.kept):
            part.copy_(planes[(slice(None), *box)])

    def _ways_into(self, box: Box, out: torch.Tensor) -> None:
        """`connectedness` within a box at full resolution, written to `out` (4, d, h, w)."""
        half = self.ways[0][(slice(None), *(slice(part.start // 2, part.stop // 2) for part in box))]
        half = half.to(out.dtype)
        wide = torch.stack([half, half], dim=-1).flatten(3)
        pairs = out.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
        pairs.copy_(wide[:, :, None, :, None].expand_as(pairs))

    def _pooled(self, levels: int) -> list[torch.Tensor]:
        """Likeness averaged to the coarser levels, (5, D / 2^level, ...), level 1 first."""
        depth, height, width = self.smoothed.shape
        shape = (len(self.scales), depth // 2, height // 2, width // 2)
        first = self.buffers.flat("pooled", shape, torch.float32)
        for start in range(0, depth, POOLED_SLAB):
            stop = min(start + POOLED_SLAB, depth)
            planes = self._likeness((slice(start, stop), slice(0, height), slice(0, width)))
            halved(planes, out=first[:, start // 2 : stop // 2])
            if self.kept:
                for kept, part in zip(self.kept, planes.split([len(kept) for kept in self.kept])):
                    kept[:, start:stop] = part
        pooled = [first]
        while len(pooled) < levels - 1:
            pooled.append(halved(pooled[-1]))
        return pooled


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


def place_factors(shape, prompt) -> Sequence[torch.Tensor]:
    """Nearness as attention knows it, three (n,)."""
    return nearness_of(shape, prompt, (PLACE_RADIUS,))[0].split(list(shape))
