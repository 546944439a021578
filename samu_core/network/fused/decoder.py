"""The decoder in fused operations: coarse levels whole, the two finest by slabs, in a box or everywhere."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from samu_core.network.fused.attention import Gates, HeadWithGates
from samu_core.network.fused.buffers import Buffers
from samu_core.network.fused.click import SLAB, Box, ClickJoin, ClickMapsOfOne
from samu_core.network.fused.encoder import COARSE_SLAB, Features
from samu_core.network.fused.operations import Convolution, UpConvolution, folded_block, voxels_of
from samu_core.network.fused.tokens import TokenReader, sample_one
from samu_core.network.typical import FINEST_LEVEL
from samu_core.prompt import PointPrompt

# Logit where a box left the network out: no threshold that can be chosen reaches it.
OUTSIDE = -20.0


def whole(shape) -> Box:
    """The box of a whole level."""
    return tuple(slice(0, n) for n in shape)


class Level:
    """The operations of one `DecoderLevel`.

    Attributes:
        first: the first convolution; of a concatenated level, its half over what comes from below.
        others: the further ones.
    """

    def __init__(self, network, level: int, dtype: torch.dtype, size) -> None:
        module = network.decoder.levels[level]
        shape = [n >> level for n in size]
        below = [n // 2 for n in shape]
        weight, bias = folded_block(module.up, output_axis=1)
        self.channels = weight.shape[1]
        self.up = UpConvolution(weight, bias, dtype, (1, weight.shape[0], *below))
        self.concatenated = module.concatenate
        self.join = ClickJoin(network.decoder.click_maps.to_level[level], level, dtype)
        convolutions = []
        for index, block in enumerate(module.convs):
            weight, bias = folded_block(block)
            if self.concatenated and index == 0:
                weight, bias = weight[:, : self.channels].contiguous(), None  # the skip's half has the bias
            convolutions.append(Convolution(weight, bias, dtype, (1, weight.shape[1], *shape)))
        self.first, *self.others = convolutions

    def __call__(self, below: torch.Tensor, skip: torch.Tensor, maps: ClickMapsOfOne) -> torch.Tensor:
        """A coarse level as a whole: (1, C_below, d, h, w) -> (1, C, 2d, 2h, 2w)."""
        current = self.up(below)
        if not self.concatenated:
            current.add_(skip)
        self.join.add_to(voxels_of(current), maps, whole(current.shape[2:]))
        current = self.first.plus(current, skip) if self.concatenated else self.first(current)
        for convolution in self.others:
            current = convolution(current)
        return current


class SlabLevel(Level):
    """A fine level, whose skip is added and which has one convolution: run slab by slab, within a box."""

    def __init__(self, network, level: int, dtype: torch.dtype, size, slab: int) -> None:
        super().__init__(network, level, dtype, size)
        self.slab = slab

    def run(self, below, below_box: Box, skip, maps, box: Box, buffers: Buffers, take) -> None:
        """Convolved features of a box, handed over in slabs from first slice to last.

        Where the box ends inside the level, its outermost voxels are wrong: they lack neighbours.

        Args:
            below: (1, C_below, ...) attended features of the box `below_box` of the level below, which covers
                `box`.
            skip: given KJI slices, returns the skip's features there.
            box: edges are even.
            take: called with (slice of k, features (1, C, slices, h, w)).
        """
        k, j, i = box
        shape = (self.slab + 3, j.stop - j.start, i.stop - i.start)
        joined = buffers.volume("joined", self.channels, shape, below.dtype)
        joined[:, :, :2].zero_()
        done = k.start
        for start in range(k.start, k.stop, self.slab):
            stop = min(start + self.slab, k.stop)
            count = stop - start
            target = joined[:, :, 2 : 2 + count]
            part = (slice(start, stop), j, i)
            # Not kept in a variable: the next one shall find this one's memory free.
            torch.add(
                self.up(_of_box(below, below_box, part)),
                skip(part),
                out=target,
            )
            self.join.add_to(voxels_of(target), maps, part)
            last = stop == k.stop
            if last:
                joined[:, :, 2 + count].zero_()
            first = 1 if start == k.start else 0
            source = joined[:, :, first : 2 + count + last]
            made = source.shape[2] - 2
            # Fresh memory, but small enough that the C library keeps it for the next slab: faster than
            # `into` memory that is there.
            take(slice(done, done + made), self.first(source, [0, 1, 1]))
            done += made
            joined[:, :, :2] = joined[:, :, count : count + 2]


class DecoderParts:
    """What is used of the plain decoder as it is. The convolutions are not held, so their memory can go."""

    def __init__(self, decoder) -> None:
        self.bottom = len(decoder.levels)
        self.readers = [TokenReader(decoder.attention[str(level)]) for level in range(self.bottom + 1)]
        self.prompt_encoder = decoder.prompt_encoder
        self.head, self.auxiliary_head = (
            tuple(p.detach().flatten(1) if p.dim() > 1 else p.detach() for p in head.parameters())
            for head in (decoder.head, decoder.auxiliary_head)
        )


class FusedDecoder:
    """`Decoder` for one click at a time.

    Args:
        network: a SAMU that `supports` holds of.
        dtype: torch.float32 or torch.bfloat16.
        size: (D, H, W) of typical patches.
        scratch: memory that holds nothing between calls.
    """

    def __init__(self, network, dtype: torch.dtype, size, scratch: Buffers) -> None:
        self.scratch = scratch
        self.parts = DecoderParts(network.decoder)
        self.fine = [
            SlabLevel(network, 0, dtype, size, SLAB),
            SlabLevel(network, 1, dtype, size, COARSE_SLAB),
        ]
        count = len(network.decoder.levels)
        self.coarse = {level: Level(network, level, dtype, size) for level in range(2, count)}

    def __call__(self, features: Features, prompt: PointPrompt, choose_box=None):
        """Logits (D, H, W) and those of the auxiliary head (D / 4, H / 4, W / 4), float32.

        Args:
            choose_box: given the auxiliary logits, returns the Box of the auxiliary level outside of which
                nothing is of interest (logits there are OUTSIDE), or None for everything.
        """
        everywhere = features.finest.dtype if choose_box is None else None
        click = _Click(self.parts, features, prompt, self.scratch, everywhere)
        current = self._coarse_levels(click)
        auxiliary = self._auxiliary(current)
        box = None if choose_box is None else choose_box(auxiliary)
        logits = torch.empty(features.smoothed.shape)
        if box is None:
            fine_box, coarse_box = whole(logits.shape), whole([n // 2 for n in logits.shape])
        else:
            logits.fill_(OUTSIDE)
            coarse_box = _scaled(box, 2, 2, features.skips[1].shape[2:])
            fine_box = _scaled(box, 4, 2, logits.shape)
        current = self._second_level(click, current, coarse_box)
        keep = whole(logits.shape) if box is None else _scaled(box, 4, 0, logits.shape)
        self._first_level(click, current, coarse_box, fine_box, keep, logits)
        return logits, auxiliary

    def _coarse_levels(self, click: _Click) -> torch.Tensor:
        """Attended features of level 2, (1, C, D / 4, H / 4, W / 4)."""
        current = click.features.bottom.clone(memory_format=torch.channels_last_3d)
        bottom = self.parts.bottom
        click.attend(bottom, current)
        for level in reversed(range(2, bottom)):
            current = self.coarse[level](current, click.features.skips[level], click.maps)
            click.attend(level, current)
        return current

    def _auxiliary(self, current: torch.Tensor) -> torch.Tensor:
        weight, bias = self.parts.auxiliary_head
        logits = voxels_of(current) @ weight[0].to(current.dtype)
        return logits.float().add_(bias).view(current.shape[2:])

    def _second_level(self, click: _Click, below: torch.Tensor, box: Box) -> torch.Tensor:
        """Attended features of a box of level 1, dense."""
        level = self.fine[1]
        shape = [part.stop - part.start for part in box]
        made = self.scratch.volume("level 1, 0", level.channels, shape, below.dtype)
        start = box[0].start

        def take(k: slice, slab: torch.Tensor) -> None:
            made[:, :, k.start - start : k.stop - start] = slab

        skip = click.features.skips[1]
        level.run(
            below,
            whole(below.shape[2:]),
            lambda part: skip[(slice(None), slice(None), *part)],
            click.maps,
            box,
            self.scratch,
            take,
        )
        gates = click.gates(1, made, _within(click.prompt, box, skip.shape[2:]), skip.shape[2:])
        gates.apply(made, box, self.scratch)
        return made

    def _first_level(self, click: _Click, below, below_box: Box, box: Box, keep: Box, logits) -> None:
        """Logits of the box `keep`, which lies in `box` by at least a voxel or at its border."""
        finest = click.features.finest
        arguments = (below, below_box, finest.part, click.maps)
        gates = self._finest_gates(click, arguments, finest.shape)
        head = HeadWithGates(gates, *self.parts.head)

        def take(k: slice, slab: torch.Tensor) -> None:
            part = slice(max(k.start, keep[0].start), min(k.stop, keep[0].stop))
            if part.stop <= part.start:
                return
            slab = slab[:, :, part.start - k.start : part.stop - k.start]
            if (box[1], box[2]) == (keep[1], keep[2]):
                head.logits_into(slab, (part, *keep[1:]), logits[part], self.scratch)
                return
            out = self.scratch.flat("box logits", slab.shape[2:], torch.float32)
            head.logits_into(slab, (part, *box[1:]), out, self.scratch)
            inner = tuple(slice(b.start - a.start, b.stop - a.start) for a, b in zip(box[1:], keep[1:]))
            logits[(part, *keep[1:])] = out[(slice(None), *inner)]

        self.fine[0].run(*arguments, box, self.scratch, take)

    def _finest_gates(self, click: _Click, arguments, shape) -> Gates:
        """Attention reads the finest features at the click before any slab exists: convolve a few voxels."""
        box = []
        for place, size in zip(click.prompt.position[0].tolist(), shape):
            low = int(min(max(place * size - 0.5, 0), size - 1))
            # One voxel on either side of the two that are read, and even edges.
            box.append(slice(max(low - 1, 0) // 2 * 2, min((low + 4) // 2 * 2, size)))
        parts = []
        self.fine[0].run(*arguments, tuple(box), self.scratch, lambda k, slab: parts.append(slab.clone()))
        around = torch.cat(parts, dim=2)
        return click.gates(0, around, _within(click.prompt, box, shape), shape)


class _Click:
    """One click during its decoding."""

    def __init__(self, parts, features: Features, prompt: PointPrompt, scratch: Buffers, keep) -> None:
        self.parts = parts
        self.features = features
        self.prompt = prompt
        self.scratch = scratch
        self.encoded = parts.prompt_encoder(prompt)
        self.maps = ClickMapsOfOne(features.smoothed, features.half, prompt, parts.bottom, scratch, keep)

    def attend(self, level: int, features: torch.Tensor) -> None:
        """The attention of a level, on its whole features, in place."""
        shape = features.shape[2:]
        gates = self.gates(level, features, self.prompt.position[0].tolist(), shape)
        gates.apply(features, whole(shape), self.scratch)

    def gates(self, level: int, features: torch.Tensor, fraction: Sequence[float], shape) -> Gates:
        """The gates of a level of that `shape`; what is clicked are its features (1, C, d, h, w) at a
        `fraction` of their own extent."""
        clicked = sample_one(features, fraction)
        if self.prompt.typical is not None and level >= FINEST_LEVEL:  # finer ones may be parts of a level
            clicked = self.prompt.typical.instead_of_content(clicked, features)
        reading = self.parts.readers[level](self.encoded, clicked)
        return Gates(reading, shape, self.prompt)


def _within(prompt: PointPrompt, box, shape) -> list[float]:
    """The click's KJI fractions of a box of a level of that shape."""
    return [
        (place * size - part.start) / (part.stop - part.start)
        for place, size, part in zip(prompt.position[0].tolist(), shape, box)
    ]


def _scaled(box: Box, factor: int, margin: int, shape) -> Box:
    """A box of the auxiliary level on a finer level, grown by `margin` of its voxels within the level."""
    return tuple(
        slice(max(part.start * factor - margin, 0), min(part.stop * factor + margin, size))
        for part, size in zip(box, shape)
    )


def _of_box(below: torch.Tensor, below_box: Box, part: Box) -> torch.Tensor:
    """The voxels of the level below that lie under a part of this level, dense."""
    inside = tuple(
        slice(fine.start // 2 - coarse.start, fine.stop // 2 - coarse.start)
        for fine, coarse in zip(part, below_box)
    )
    return below[(slice(None), slice(None), *inside)].contiguous(memory_format=torch.channels_last_3d)
