"""The network on one device in one precision: arrays in, arrays out.

This is the seam for other ways to run the same network: whatever offers `encode` and `decode` like
TorchEngine can take its place in the Predictor. FusedEngine and CudaEngine do where they can. It may offer
`encode_raw`, which normalises the patch itself, `decode_again`, which knows a mask of what was clicked, and
`release`, which gives memory back between clicks.
"""

from __future__ import annotations

import gc
import os
import platform
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from samu_core.errors import SamuError

PRECISIONS = ("float32", "bfloat16", "float16")
CPU_INFO = Path("/proc/cpuinfo")


def import_torch() -> Any:
    """torch, or a SamuError that says how to get it."""
    # oneDNN keeps the code of 1,024 shapes by default, .4 MiB each. A click needs some 35 for the whole patch
    # and 20 for its region, which differ from click to click; making those anew takes 5 ms (benchmarks/
    # README.md). oneDNN reads this when it computes first.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "72")
    # MKL's matrix products keep what they have worked in, some 15 MiB, for the next ones; here those are few.
    os.environ.setdefault("MKL_DISABLE_FAST_MM", "1")
    try:
        with _without_collection():
            import torch
    except OSError as error:  # on Windows, a library of torch's own that cannot be loaded
        raise SamuError(f"PyTorch is there but cannot be loaded ({error}); reinstall it.") from error
    except ImportError as error:
        raise SamuError(
            "PyTorch is missing; install it (in Slicer: the PyTorch extension; elsewhere: pip install torch)."
        ) from error
    return torch


@contextmanager
def _without_collection() -> Iterator[None]:
    """No garbage collection: what importing torch makes stays, and looking through it again and again takes
    some 5 % of the import (2.48 s, 2.36 without; medians of five each on an Intel Xeon)."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def choose_device(wanted: str) -> str:
    """A torch device name for "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        SamuError: CUDA is asked for and not there, or the name is unknown.
    """
    name, _, number = wanted.partition(":")
    if wanted not in ("auto", "cpu") and not (name == "cuda" and (number.isdigit() or wanted == "cuda")):
        raise SamuError(f'The device is "auto", "cpu" or "cuda"; got {wanted!r}.')
    if wanted == "cpu":
        return "cpu"
    torch = import_torch()
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto":
        return "cuda" if count else "cpu"
    if not count:
        raise SamuError('PyTorch finds no CUDA device; choose the device "cpu" or "auto".')
    if number and int(number) >= count:
        raise SamuError(f"There is no CUDA device {number}; PyTorch finds {count}, numbered from 0.")
    return wanted


def choose_precision(wanted: str, device: str) -> str:
    """The precision of the convolutions for "auto" or a name of PRECISIONS.

    "auto" is bfloat16 where the hardware computes in it (a GPU, a CPU that is faster so), else float16 on a
    GPU and float32 on a CPU.

    Raises:
        SamuError: the device does not compute in the precision asked for.
    """
    if wanted not in ("auto", *PRECISIONS):
        raise SamuError(f'The precision is "auto" or one of {", ".join(PRECISIONS)}; got {wanted!r}.')
    if wanted == "float32":
        return wanted
    torch = import_torch()
    if device == "cpu":
        if wanted == "float16" or (wanted == "bfloat16" and not cpu_has_bfloat16(torch)):
            raise SamuError(
                f'This CPU does not compute in {wanted}; choose the precision "auto" or "float32".'
            )
        if wanted == "auto" and not cpu_gains_from_bfloat16(torch):
            return "float32"
        return "bfloat16"
    has_bfloat16 = bool(torch.cuda.is_bf16_supported())
    if wanted == "bfloat16" and not has_bfloat16:
        raise SamuError('This GPU does not compute in bfloat16; choose the precision "auto" or "float16".')
    return wanted if wanted != "auto" else ("bfloat16" if has_bfloat16 else "float16")


def cpu_has_bfloat16(torch: Any) -> bool:
    """Whether the CPU has instructions for bfloat16; without an answer, no.

    oneDNN says that it supports bfloat16 wherever there is AVX-512, but without AVX512-BF16 or AMX it
    computes in float32 and converts on the way: slower than float32 itself.
    """
    try:  # private operators, but the only ones that ask
        if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
    except (AttributeError, RuntimeError):
        return False
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    has_avx512_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    if has_avx512_bf16 is not None:
        return has_avx512_bf16() or torch.cpu._is_amx_tile_supported()
    try:  # an older torch
        flags = CPU_INFO.read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def cpu_gains_from_bfloat16(torch: Any) -> bool:
    """Whether convolutions are faster in bfloat16 than in float32 here, timed once per process.

    Instructions for it are not enough: an AMD EPYC with AVX512-BF16 takes half of float32's time with them,
    an Intel Xeon with the same instructions and without AMX twice as long.
    """
    return cpu_has_bfloat16(torch) and _bfloat16_is_faster()


@cache
def _bfloat16_is_faster() -> bool:
    torch = import_torch()
    with torch.inference_mode():
        fastest = []
        for kind in (torch.float32, torch.bfloat16):
            last = torch.channels_last_3d
            features = torch.ones(1, 32, 32, 32, 32, dtype=kind).contiguous(memory_format=last)
            kernel = torch.ones(32, 32, 3, 3, 3, dtype=kind).contiguous(memory_format=last)
            times = []
            for _ in range(4):
                start = time.perf_counter()
                torch.conv3d(features, kernel, padding=1)
                times.append(time.perf_counter() - start)
            fastest.append(min(times[1:]))  # the first makes the code
    return fastest[1] < fastest[0]


def device_title(device: str) -> str:
    """Name of a device for people, e.g. "CPU" or "NVIDIA H200"."""
    if device == "cpu":
        return "CPU"
    return str(import_torch().cuda.get_device_name(device))


def is_out_of_memory(error: BaseException) -> bool:
    """True for the ways in which CUDA says that its memory is full."""
    torch = import_torch()
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "CUDA out of memory" in text or "ALLOC_FAILED" in text or "CUDA error: out of memory" in text
    )


def return_freed_memory() -> None:
    """Have the C library give the system what was freed, where it can be told to (glibc).

    Loading weights takes three times their size for a moment, and leaves holes.
    """
    try:
        import ctypes

        ctypes.CDLL(None).malloc_trim(0)
    except (ImportError, OSError, AttributeError, TypeError):  # another C library
        pass


class TorchEngine:
    """A network moved to a device, with mixed precision and channels-last memory.

    Args:
        network: nn.Module with `encode(patch) -> features` and `decode(features, prompt) -> logits`;
            it is moved to the device in place and set to evaluation.
        device: as choose_device returns it.
        precision: as choose_precision returns it.
    """

    def __init__(self, network: Any, device: str, precision: str):
        torch = import_torch()
        self.network = network
        self.device = device
        self.precision = precision
        if not hasattr(network, "typical"):
            self.decode_again = None
        network.eval()
        network.to(device)
        # oneDNN and cuDNN both convolve channels-last data without repacking it. Not by network.to(),
        # which would stumble over parameters of four dimensions.
        for parameter in network.parameters():
            if parameter.dim() == 5:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)

    def encode(self, patch: np.ndarray) -> Any:
        """Image features of a normalised patch, (D, H, W) float32; they stay on the device."""
        torch = import_torch()
        with torch.inference_mode(), self._autocast(torch):
            tensor = torch.from_numpy(np.ascontiguousarray(patch, dtype=np.float32))[None, None]
            tensor = tensor.to(self.device).contiguous(memory_format=torch.channels_last_3d)
            features = self.network.encode(tensor)
            self._wait(torch)
        return features

    def decode(self, features: Any, fraction_kji: np.ndarray) -> np.ndarray:
        """Logits (D, H, W) float32 for a click at (k, j, i) fractions of the patch."""
        return self._decode(features, fraction_kji, None)

    def decode_again(self, features: Any, fraction_kji: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """`decode`, with what is typical of a mask (D, H, W) bool of the clicked structure, which is not
        empty. Not offered (None) where the network does not know what to do with it."""
        torch = import_torch()
        with torch.inference_mode():
            typical = self.network.typical(features, torch.from_numpy(mask).to(self.device))
        return self._decode(features, fraction_kji, typical)

    def _decode(self, features: Any, fraction_kji: np.ndarray, typical: Any) -> np.ndarray:
        from samu_core.prompt import PointPrompt

        torch = import_torch()
        with torch.inference_mode(), self._autocast(torch):
            prompt = PointPrompt.from_fraction(fraction_kji, typical=typical).to(self.device)
            logits = self.network.decode(features, prompt)[0, 0]
        return np.ascontiguousarray(logits.float().cpu().numpy())

    def _autocast(self, torch: Any) -> AbstractContextManager:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.partition(":")[0], dtype=getattr(torch, self.precision))

    def _wait(self, torch: Any) -> None:
        # CUDA works behind the caller's back; without this, times and errors land in a later stage.
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)


class FusedEngine:
    """The same network on a CPU in folded and fused operations, in a fraction of TorchEngine's time.

    Made by `fused_engine`, which knows where it can be.

    Args:
        fused: samu_core.network.fused.engine.FusedNetwork.
        region: samu_core.network.fused.region.RegionOfInterest; None runs the fine levels everywhere.
    """

    def __init__(self, fused: Any, region: Any = None):
        self.fused = fused
        self.region = region

    def encode(self, patch: np.ndarray) -> Any:
        """Image features of a normalised patch, (D, H, W) float32."""
        torch = import_torch()
        return self.fused.encode(torch.from_numpy(np.ascontiguousarray(patch, dtype=np.float32)))

    def release(self) -> None:
        """Give back the memory that is kept from click to click; the next one takes it anew."""
        self.fused.release()

    def decode(self, features: Any, fraction_kji: np.ndarray) -> np.ndarray:
        """Logits (D, H, W) float32 for a click at (k, j, i) fractions of the patch."""
        return self._decode(features, fraction_kji, None)

    def decode_again(self, features: Any, fraction_kji: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """`decode`, with what is typical of a mask (D, H, W) bool of the clicked structure, which is not
        empty."""
        typical = self.fused.typical(features, import_torch().from_numpy(mask))
        return self._decode(features, fraction_kji, typical)

    def _decode(self, features: Any, fraction_kji: np.ndarray, typical: Any) -> np.ndarray:
        from samu_core.prompt import PointPrompt

        prompt = PointPrompt.from_fraction(fraction_kji, typical=typical)
        return self.fused.decode(features, prompt, self.region).numpy()


def fused_engine(network: Any, device: str, precision: str, size: int, region: bool = False) -> Any:
    """A FusedEngine, on a GPU a CudaEngine; None where machine, torch or architecture does not allow it.

    Args:
        network: as TorchEngine takes it; stays as it is, and may be given to a TorchEngine as well.
        size: edge length of the patches.
        region: run the fine levels only around what the coarse ones found (RegionOfInterest).
    """
    if size % 32:
        return None
    import_torch()
    if device != "cpu":
        return _cuda_engine(network, device, precision, size)
    try:
        from samu_core.network import fused
        from samu_core.network.fused.region import RegionOfInterest
    except ImportError:  # a torch without what the operations are written with
        return None
    built = fused.build(network.eval(), precision, size)
    return None if built is None else FusedEngine(built, RegionOfInterest() if region else None)


def _cuda_engine(network: Any, device: str, precision: str, size: int) -> Any:
    try:
        from samu_core.cuda_engine import cuda_engine
    except ImportError:
        return None
    return cuda_engine(network, device, precision, size)
