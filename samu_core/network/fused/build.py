"""Whether a network can be run fused here, tried out rather than believed."""

from __future__ import annotations

import torch

from samu_core.network.fused.engine import FusedNetwork
from samu_core.network.samu import SAMU
from samu_core.prompt import PointPrompt

TRIAL_SIZE = 32
# Of the largest logit. float32 differs by rounding only; bfloat16 by what its seven bits make of six levels.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}


def supports(network) -> bool:
    """True for the architectures that the fused operations are written for."""
    if not isinstance(network, SAMU):
        return False
    config = network.config
    return (
        config.folds
        and config.encoder_convs[0] == 1
        and len(config.channels) > 3
        and config.decoder_convs[:2] == (1, 1)
        and not {0, 1} & set(config.concatenated_levels)
        and config.auxiliary_level == 2
        and all(channels % 16 == 0 for channels in config.channels)
    )


def build(network, precision: str, size: int = 128) -> FusedNetwork | None:
    """The network fused, or None where this machine, torch or architecture does not allow it.

    Args:
        network: a SAMU in evaluation on the CPU; not changed, later changes of its weights are not seen.
        precision: "float32" or "bfloat16".
        size: typical edge length of the patches.
    """
    if not supports(network) or precision not in ("float32", "bfloat16"):
        return None
    dtype = getattr(torch, precision)
    try:
        with torch.inference_mode():
            fused = FusedNetwork(network, dtype, (size,) * 3)
            return fused if _agrees(network, fused, TOLERANCE[dtype]) else None
    # Operators of torch may be missing, may have other arguments, may refuse a type or a shape.
    except (AttributeError, RuntimeError, TypeError, ValueError, NotImplementedError):
        return None


def _agrees(network: SAMU, fused: FusedNetwork, tolerance: float) -> bool:
    """Runs a small patch both ways."""
    generator = torch.Generator().manual_seed(0)
    patch = torch.randn((TRIAL_SIZE,) * 3, generator=generator)
    prompt = PointPrompt.from_fraction((0.4, 0.55, 0.62))
    plain = network.decode_with_auxiliary(network.encode(patch[None, None]), prompt)
    logits, auxiliary = fused.decode_with_auxiliary(fused.encode(patch), prompt)
    return all(
        bool((ours - theirs).abs().max() <= tolerance * theirs.abs().max())
        for ours, theirs in ((logits, plain[0][0, 0]), (auxiliary, plain[1][0, 0]))
    )
