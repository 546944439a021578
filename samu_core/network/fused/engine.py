"""The fused network: what `SAMU` offers, on arrays of one patch."""

from __future__ import annotations

import torch

from samu_core.network.fused.buffers import Buffers, keep_freed_memory
from samu_core.network.fused.decoder import FusedDecoder
from samu_core.network.fused.encoder import Features, FusedEncoder
from samu_core.network.fused.region import RegionOfInterest
from samu_core.network.typical import Typical
from samu_core.prompt import PointPrompt


class FusedNetwork:
    """Encoder and decoder with folded weights. One call at a time: the calls share their memory.

    Args:
        network: a SAMU that `supports` holds of, in evaluation.
        dtype: torch.float32 or torch.bfloat16.
        size: (D, H, W) of typical patches.
    """

    def __init__(self, network, dtype: torch.dtype, size) -> None:
        self.scratch = Buffers()
        self.encoder = FusedEncoder(network, dtype, size, self.scratch)
        self.decoder = FusedDecoder(network, dtype, size, self.scratch)
        keep_freed_memory()  # only now: what folding the weights used may go

    def release(self) -> None:
        """Forget memory that holds nothing between calls, and that of features which are gone."""
        self.scratch.clear()
        self.encoder.lender.clear()

    @torch.inference_mode()
    def encode(self, patch: torch.Tensor) -> Features:
        """(D, H, W) float32, normalised, edges multiples of 32 -> features for any click in it."""
        return self.encoder(patch)

    @torch.inference_mode()
    def typical(self, features: Features, mask: torch.Tensor) -> Typical:
        """What is typical of a mask (D, H, W) bool in the patch; ValueError if that is empty."""
        return Typical.of(mask, features.smoothed, self.decoder.parts.bottom)

    @torch.inference_mode()
    def decode(
        self, features: Features, prompt: PointPrompt, region: RegionOfInterest | None = None
    ) -> torch.Tensor:
        """Logits (D, H, W) float32 of one click; with `region`, exact within it and negative elsewhere."""
        return self.decode_with_auxiliary(features, prompt, region)[0]

    @torch.inference_mode()
    def decode_with_auxiliary(
        self, features: Features, prompt: PointPrompt, region: RegionOfInterest | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (D, H, W) and those of the auxiliary head at a quarter of the resolution, float32."""
        choose_box = None if region is None else lambda auxiliary: region.box(auxiliary, prompt)
        return self.decoder(features, prompt, choose_box)
