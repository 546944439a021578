"""The network as few calls of oneDNN, for inference on a CPU; `build` returns None where that cannot be."""

from samu_core.network.fused.build import build, supports

__all__ = ["build", "supports"]
