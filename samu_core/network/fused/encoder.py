"""The encoder in fused operations, and the features it leaves for the decoder."""

from __future__ import annotations

import torch

from samu_core.network.averages import halved, smooth
from samu_core.network.fused.buffers import Buffers, Lender
from samu_core.network.fused.click import SLAB
from samu_core.network.fused.operations import Convolution, folded_block, max_pool

COARSE_SLAB = 8  # slices of the second level at a time


class StemFeatures:
    """The finest features of a patch, computed where they are needed.

    Kept, they would be the largest thing in memory; computing them again is a twentieth of the decoder.

    Args:
        stem: 2D convolution over three stacked slices.
        padded: (D + 2, H + 2, W + 2), the patch within a margin of zeros.
        scratch: memory that holds nothing between calls.
    """

    def __init__(self, stem: Convolution, padded: torch.Tensor, scratch: Buffers) -> None:
        self.stem = stem
        self.padded = padded
        self.scratch = scratch
        self.shape = tuple(n - 2 for n in padded.shape)
        self.dtype = padded.dtype

    def part(self, box) -> torch.Tensor:
        """(1, C, d, h, w) of three KJI slices."""
        k, j, i = box
        rows = self.padded[k.start : k.stop + 2, j.start : j.stop + 2, i.start : i.stop + 2]
        triples = rows.unfold(0, 3, 1).permute(0, 3, 1, 2)  # (d, 3, h + 2, w + 2), overlapping
        stacked = self.scratch.flat("triples", triples.shape, self.dtype).copy_(triples)
        return self.stem(stacked, [0, 0]).transpose(0, 1)[None]


class Features:
    """What a patch is to the decoder. Its memory is used again when the object is gone.

    Attributes:
        smoothed: (D, H, W) float32.
        half: (D / 2, H / 2, W / 2) float32, the means of 2^3 voxels of `smoothed`.
        finest: StemFeatures, the skip of level 0.
        skips: per decoder level from 1 on: the encoder's features where they are added, else the skip's
            half of the convolution over the concatenation, bias included. (1, C_n, D_n, H_n, W_n).
        bottom: (1, C, d, h, w) of the lowest level.
    """

    smoothed: torch.Tensor
    half: torch.Tensor
    finest: StemFeatures
    skips: dict[int, torch.Tensor]
    bottom: torch.Tensor


class FusedEncoder:
    """`Encoder` with one finest convolution, and the skip halves of the decoder's concatenated levels.

    Args:
        network: a SAMU that `supports` holds of.
        dtype: torch.float32 or torch.bfloat16.
        size: (D, H, W) of typical patches.
        scratch: memory that holds nothing between calls.
    """

    def __init__(self, network, dtype: torch.dtype, size, scratch: Buffers) -> None:
        self.dtype = dtype
        self.scratch = scratch
        self.lender = Lender()
        levels = network.encoder.levels
        weight, bias = folded_block(levels[0][0])
        # Three stacked slices as the channels of a 2D convolution: a third of the time of one channel in 3D.
        self.stem = Convolution(weight[:, 0], bias, dtype, (SLAB, 3, size[1], size[2]))
        self.levels = []
        for level, stack in enumerate(levels[1:], 1):
            shape = [n >> level for n in size]
            self.levels.append([self._convolution(block, shape) for block in stack])
        self.halves = [None] * (len(levels) - 1)
        for level in network.config.concatenated_levels:
            weight, bias = folded_block(network.decoder.levels[level].convs[0])
            weight = weight[:, weight.shape[1] // 2 :].contiguous()
            shape = (1, weight.shape[1], *(n >> level for n in size))
            self.halves[level] = Convolution(weight, bias, dtype, shape, relu=False)

    def _convolution(self, block, shape) -> Convolution:
        weight, bias = folded_block(block)
        return Convolution(weight, bias, self.dtype, (1, weight.shape[1], *shape))

    def __call__(self, patch: torch.Tensor) -> Features:
        """patch: (D, H, W) float32, normalised; every edge a multiple of the network's stride."""
        features = Features()
        own = self.lender.lend(features)
        features.smoothed = own.flat("smoothed", patch.shape, torch.float32)
        smooth(patch, features.smoothed, between=self.scratch.flat("pooled 1", patch.shape, torch.float32))
        features.half = halved(features.smoothed)
        features.finest = self._first_level(patch, own)
        current = self._second_level(patch.shape, own)
        features.skips = {1: current}
        current = max_pool(current)
        for level, convolutions in enumerate(self.levels[1:], 2):
            for convolution in convolutions:
                current = convolution(current)
            if level < len(self.levels):
                half = self.halves[level]
                features.skips[level] = current if half is None else half(current)
                current = max_pool(current)
        features.bottom = current
        return features

    def _first_level(self, patch: torch.Tensor, own: Buffers) -> StemFeatures:
        """Stem and pooling, slab by slab; the pooled features go to the scratch "pooled 1"."""
        depth, height, width = patch.shape
        padded = own.flat("padded", (depth + 2, height + 2, width + 2), self.dtype).zero_()
        padded[1:-1, 1:-1, 1:-1] = patch
        finest = StemFeatures(self.stem, padded, self.scratch)
        pooled = self._with_margin("pooled 1", self.stem.out_channels, [n // 2 for n in patch.shape])
        for start in range(0, depth, SLAB):
            stop = min(start + SLAB, depth)
            slab = finest.part((slice(start, stop), slice(0, height), slice(0, width)))
            max_pool(slab, out=pooled[:, :, 1 + start // 2 : 1 + stop // 2])
        return finest

    def _second_level(self, shape, own: Buffers) -> torch.Tensor:
        """The convolutions of level 1, slab by slab, into the skip's memory; returns that."""
        shape = [n // 2 for n in shape]
        depth = shape[0]
        current = self._with_margin("pooled 1", self.stem.out_channels, shape, cleared=False)
        for index, convolution in enumerate(self.levels[0]):
            last = index == len(self.levels[0]) - 1
            if last:
                out = own.volume("skip 1", convolution.out_channels, shape, self.dtype)
            else:
                name = f"level 1, {index % 2}"
                whole = self._with_margin(name, convolution.out_channels, shape)
                out = whole[:, :, 1:-1]
            for start in range(0, depth, COARSE_SLAB):
                stop = min(start + COARSE_SLAB, depth)
                convolution.into(out[:, :, start:stop], current[:, :, start : stop + 2], [0, 1, 1])
            current = out if last else whole
        return current

    def _with_margin(self, name: str, channels: int, shape, cleared: bool = True) -> torch.Tensor:
        """Scratch volume with a slice of zeros before the first and after the last: slabs reach into them."""
        volume = self.scratch.volume(name, channels, (shape[0] + 2, *shape[1:]), self.dtype)
        if cleared:
            volume[:, :, 0].zero_()
            volume[:, :, -1].zero_()
        return volume
