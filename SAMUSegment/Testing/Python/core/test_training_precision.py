"""Half precision in training: gradients must be those of float32, at every size that a run trains on."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from samu_core.network import SAMU, SAMUConfig  # noqa: E402
from samu_core.prompt import PointPrompt  # noqa: E402
from samu_core.training.losses import samu_loss  # noqa: E402
from samu_core.training.precision import (  # noqa: E402
    SMALLEST,
    keep_small_convolutions_exact,
    trains_in_bfloat16,
)

CPU = torch.device("cpu")
needs_bfloat16 = pytest.mark.skipif(not trains_in_bfloat16(CPU), reason="this CPU has no bfloat16")


def gradients(network, patch, prompt, target, half: bool) -> dict:
    network.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        logits, auxiliary = network.decode_with_auxiliary(network.encode(patch), prompt)
    samu_loss(logits, auxiliary, target)[0].backward()
    return {name: value.grad.clone() for name, value in network.named_parameters()}


@needs_bfloat16
@pytest.mark.parametrize("size", [32, 64])
def test_bfloat16_gradients_are_those_of_float32(size):
    """Without the exception for small inputs, weights of the level with 2^3 voxels get garbage."""
    torch.manual_seed(0)
    network = SAMU(SAMUConfig(channels=(8, 16, 32, 64, 64, 64), embedding=32)).train()
    network.to(memory_format=torch.channels_last_3d)
    keep_small_convolutions_exact(network)
    patch = torch.randn(4, 1, size, size, size).contiguous(memory_format=torch.channels_last_3d)
    target, prompt = (patch > 0.5).float(), PointPrompt(torch.rand(4, 3))
    exact = gradients(network, patch, prompt, target, half=False)
    for _ in range(3):
        half = gradients(network, patch, prompt, target, half=True)
        for name, expected in exact.items():
            if name.startswith(("encoder.levels", "decoder.levels")) and expected.dim() == 5:
                difference = (half[name] - expected).norm() / expected.norm()
                assert difference < 0.5, f"{name}: relative difference {difference:.3g}"


def test_small_inputs_leave_autocast_and_others_do_not():
    convolution = torch.nn.Conv3d(4, 4, 3, padding=1)
    keep_small_convolutions_exact(convolution)
    with torch.autocast("cpu", torch.bfloat16):
        small, large = (convolution(torch.randn(1, 4, n, n, n)) for n in (SMALLEST - 1, SMALLEST))
    assert small.dtype == torch.float32 and large.dtype == torch.bfloat16
