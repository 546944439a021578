"""Memory that is used again from click to click.

A fresh tensor of 100 MB costs tens of milliseconds in page faults, on virtual machines hundreds, and the C
library gives large blocks back to the system as soon as they are freed.
"""

from __future__ import annotations

import contextlib
import mmap
import weakref

import torch

HUGE_PAGE = 2**21
LARGEST_TRANSIENT = 31 * 2**20  # bytes; glibc learns from blocks below 32 MiB only
HUGE_FROM = 2**22  # bytes from which huge pages are asked for


def raw_memory(size: int) -> torch.Tensor:
    """`size` bytes as uint8; on Linux in huge pages if the system grants them (a 512th of the faults)."""
    if size < HUGE_FROM or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(size, dtype=torch.uint8)
    memory = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    block = torch.frombuffer(memory, dtype=torch.uint8)  # keeps the mapping alive
    start = -block.data_ptr() % HUGE_PAGE
    with contextlib.suppress(OSError):  # a kernel without huge pages
        # Not for the rest that fills no huge page: it would occupy a whole one.
        memory.madvise(mmap.MADV_HUGEPAGE, start, size // HUGE_PAGE * HUGE_PAGE)
    return block[start : start + size]


def keep_freed_memory() -> None:
    """Have the C library keep freed blocks of up to 31 MiB for the next call instead of returning them.

    glibc takes the largest block that was ever freed for the measure. Nothing is written, so nothing is used.
    """
    torch.empty(LARGEST_TRANSIENT, dtype=torch.uint8)


class Buffers:
    """Named blocks that grow to the largest size asked for and stay."""

    def __init__(self) -> None:
        self._blocks: dict[str, torch.Tensor] = {}

    def flat(self, name: str, shape, dtype: torch.dtype) -> torch.Tensor:
        """A contiguous tensor in the block of that name; overwritten by the next call with the name."""
        count = 1
        for size in shape:
            count *= int(size)
        size = count * torch.empty(0, dtype=dtype).element_size()
        block = self._blocks.get(name)
        if block is None or len(block) < size:
            self._blocks.pop(name, None)  # the old block goes before the new one comes
            block = self._blocks[name] = raw_memory(size)
        return block[:size].view(dtype).view(tuple(shape))

    def volume(self, name: str, channels: int, shape, dtype: torch.dtype) -> torch.Tensor:
        """(1, channels, *shape) in channels_last_3d memory."""
        return self.flat(name, (1, *shape, channels), dtype).permute(0, 4, 1, 2, 3)

    def clear(self) -> None:
        """Forget all blocks; what still uses one keeps it alive."""
        self._blocks.clear()

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(len(block) for block in self._blocks.values())


class Lender:
    """Sets of buffers, each lent to one owner and lent again when that owner is gone."""

    def __init__(self) -> None:
        self._free: list[Buffers] = []

    def lend(self, owner: object) -> Buffers:
        """Buffers that belong to `owner` as long as it lives."""
        buffers = self._free.pop() if self._free else Buffers()
        weakref.finalize(owner, _give_back, weakref.ref(self), buffers).atexit = False
        return buffers

    def clear(self) -> None:
        """Forget the sets that wait."""
        self._free.clear()


def _give_back(lender: weakref.ref, buffers: Buffers) -> None:
    lender = lender()
    # One set waits at most: two patches were alive at once only by exception.
    if lender is not None and not lender._free:
        lender._free.append(buffers)
