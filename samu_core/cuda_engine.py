"""The network on an NVIDIA GPU as two CUDA graphs: one for the encoder, one for the decoder.

Launching some two hundred kernels one by one takes longer than they run. Uploads and downloads go through
pinned memory, and the patch is normalised on the device.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch

from samu_core.engine import is_out_of_memory
from samu_core.errors import VolumeError
from samu_core.intensity import CT_GUESS_BELOW, CT_RANGE_HU, DARKER_THAN_OUTSIDE
from samu_core.network.folded import FoldedNetwork, supports
from samu_core.network.typical import Typical

LOGGER = logging.getLogger(__name__)
WARM_UP_RUNS = 3
# The trial's largest difference between graph and plain calls of the same functions, of the largest logit.
TOLERANCE = 0.02


def cuda_engine(network: Any, device: str, precision: str, size: int) -> CudaEngine | None:
    """A CudaEngine, or None where this network, torch or GPU does not allow it.

    Args:
        network: a SAMU; stays as it is.
        device: "cuda" or "cuda:N".
        precision: "float32", "bfloat16" or "float16".
        size: edge length of the patches.

    Raises:
        RuntimeError: the GPU's memory is too small (`is_out_of_memory`).
    """
    if not device.startswith("cuda") or size % 32 or not supports(network):
        return None
    if not torch.cuda.is_available() or not hasattr(torch.cuda, "graph"):
        return None
    try:
        engine = CudaEngine(network.eval(), device, precision, size)
        return engine if engine.agrees() else None
    except (AttributeError, RuntimeError, NotImplementedError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        LOGGER.info("no CUDA graphs here, clicks run without: %s", error)
        return None


def normalized_on_device(patch: torch.Tensor, modality: str | None) -> torch.Tensor:
    """`samu_core.intensity.normalize_patch` of (D, H, W) float32 on any device, reading nothing back.

    A patch without any finite value gives NaN, which the caller has to look for.
    """
    inside = torch.isfinite(patch)
    count = inside.sum()
    clamped = patch.clamp(*CT_RANGE_HU)
    if modality == "CT":
        values = clamped
    elif modality is None:
        lowest = torch.where(inside, patch, float("inf")).min()
        values = torch.where(lowest < CT_GUESS_BELOW, clamped, patch)
    else:
        values = patch
    known = torch.where(inside, values, 0.0)
    mean = (known.double().sum() / count).float()
    centred = torch.where(inside, values - mean, 0.0)
    # Scaled to at most 1 before squaring: float32 squares of raw intensities may overflow.
    peak = centred.abs().max()
    scores = centred / peak
    scores = scores / (scores.double().square().sum() / count).sqrt().float()
    scores = torch.where(peak > 0, scores, 0.0)  # a constant patch
    place = (DARKER_THAN_OUTSIDE * count.double()).long()
    outside = torch.where(inside, scores, float("inf")).flatten().sort().values.gather(0, place[None])
    return torch.where(count > 0, torch.where(inside, scores, outside), float("nan"))


class CudaEngine:
    """Encoder and decoder captured for patches of one size; offers what TorchEngine does, and `encode_raw`.

    Features are valid until the next encode: they live in the graphs' own memory.

    Args:
        network: a SAMU that `samu_core.network.folded.supports` holds of, in evaluation.
        device: "cuda" or "cuda:N".
        precision: a name of samu_core.engine.PRECISIONS.
        size: edge length of the patches.
    """

    def __init__(self, network: Any, device: str, precision: str, size: int):
        self.device = torch.device(device)
        self.network = FoldedNetwork(network, self.device, getattr(torch, precision)).eval()
        self.patches = 0
        shape = (1, 1, size, size, size)
        with torch.inference_mode(), torch.cuda.device(self.device):
            self.pinned = torch.zeros(shape, pin_memory=True)
            self.result = torch.zeros(shape, pin_memory=True)
            self.position_pinned = torch.full((1, 3), 0.5, pin_memory=True)
            self.patch = torch.zeros(shape, device=self.device)
            self.position = torch.full((1, 3), 0.5, device=self.device)
            self.bottom = len(network.config.channels) - 1
            self.typical = Typical.unknown(shape[2:], self.bottom, self.device)
            self._capture()

    def _capture(self) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # cuDNN chooses its plans, constants reach the device
            for _ in range(WARM_UP_RUNS):
                self.network.decode(self.network.encode(self.patch), self.position, self.typical)
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.empty_cache()  # the graphs have memory of their own
        self.encoding, self.decoding = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.encoding, capture_error_mode="thread_local"):
            self.features = self.network.encode(self.patch)
        with torch.cuda.graph(self.decoding, capture_error_mode="thread_local"):
            self.logits = self.network.decode(self.features, self.position, self.typical)

    def agrees(self) -> bool:
        """Whether the graphs compute what the functions do that were captured."""
        size = self.patch.shape[2]
        rng = np.random.default_rng(0)
        patch = rng.normal(size=(size,) * 3).astype(np.float32)
        ours = self.decode(self.encode(patch), np.array([0.4, 0.55, 0.62]))
        with torch.inference_mode(), torch.cuda.device(self.device):
            theirs = self.network.decode(self.network.encode(self.patch), self.position)[0, 0].cpu().numpy()
            torch.cuda.empty_cache()
        return bool(np.abs(ours - theirs).max() <= TOLERANCE * np.abs(theirs).max())

    def encode(self, patch: np.ndarray) -> Any:
        """Features of a normalised patch, (D, H, W) float32."""
        return self._encode(patch, lambda uploaded: uploaded)

    def encode_raw(self, patch: np.ndarray, modality: str | None) -> Any:
        """Features of a patch as it was sampled, (D, H, W) float32 with NaN outside the volume.

        Raises:
            VolumeError: no voxel of the patch has a finite value.
        """
        if not np.isfinite(patch).any():
            raise VolumeError(
                "There is no image data around the click (every voxel is NaN or outside the volume); "
                "click where the image shows something."
            )
        return self._encode(patch, lambda uploaded: normalized_on_device(uploaded, modality))

    def _encode(self, patch: np.ndarray, prepare) -> int:
        self.patches += 1
        with torch.inference_mode(), torch.cuda.device(self.device):
            self.pinned[0, 0].copy_(torch.from_numpy(np.ascontiguousarray(patch, dtype=np.float32)))
            self.patch.copy_(self.pinned, non_blocking=True)
            self.patch[0, 0].copy_(prepare(self.patch[0, 0]))
            self.encoding.replay()
            # Without this, times and errors land in a later stage.
            torch.cuda.current_stream().synchronize()
        return self.patches

    def decode(self, features: int, fraction_kji: np.ndarray) -> np.ndarray:
        """Logits (D, H, W) float32 for a click at (k, j, i) fractions of the patch."""
        return self._decode(features, fraction_kji, None)

    def decode_again(self, features: int, fraction_kji: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """`decode`, with what is typical of a mask (D, H, W) bool of the clicked structure, which is not
        empty."""
        return self._decode(features, fraction_kji, torch.from_numpy(mask))

    def _decode(self, features: int, fraction_kji: np.ndarray, mask: torch.Tensor | None) -> np.ndarray:
        if features != self.patches:
            raise ValueError("These features were overwritten by those of another patch; encode it again.")
        with torch.inference_mode(), torch.cuda.device(self.device):
            self.position_pinned[0].copy_(torch.as_tensor(np.asarray(fraction_kji, dtype=np.float32)))
            self.position.copy_(self.position_pinned, non_blocking=True)
            known = None
            if mask is not None:
                known = Typical.of(mask.to(self.device), self.features[-1][0, 0], self.bottom)
            self.typical.learn(known)
            self.decoding.replay()
            self.result.copy_(self.logits, non_blocking=True)
            torch.cuda.current_stream().synchronize()
            return self.result[0, 0].numpy().copy()
