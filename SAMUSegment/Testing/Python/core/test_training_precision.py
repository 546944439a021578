"""Half precision in training: gradients must be those of float32, at every size that a run trains on."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from samu_core.engine import cpu_has_bfloat16  # noqa: E402
from samu_core.training.precision import SMALLEST, keep_small_convolutions_exact  # noqa: E402

needs_bfloat16 = pytest.mark.skipif(not cpu_has_bfloat16(torch), reason="this CPU has no bfloat16")


def weight_gradient(convolution, features, upstream, half: bool) -> torch.Tensor:
    convolution.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        out = convolution(features)
    out.backward(upstream.to(out.dtype))
    return convolution.weight.grad.clone()


@needs_bfloat16
@pytest.mark.parametrize("size", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("channels", [64, 256])
def test_bfloat16_gradients_are_those_of_float32(size, channels):
    """Without the exception for small inputs, weights of a level with 2^3 voxels get garbage."""
    torch.manual_seed(0)
    convolution = torch.nn.Conv3d(channels, channels, 3, padding=1, bias=False)
    convolution.to(memory_format=torch.channels_last_3d)
    keep_small_convolutions_exact(convolution)
    for batch in (2, 8, 16):
        features, upstream = (
            torch.randn(batch, channels, size, size, size).contiguous(memory_format=torch.channels_last_3d)
            for _ in range(2)
        )
        exact = weight_gradient(convolution, features, upstream, half=False)
        half = weight_gradient(convolution, features, upstream, half=True)
        assert (half - exact).norm() / exact.norm() < 0.02


def test_small_inputs_leave_autocast_and_others_do_not():
    convolution = torch.nn.Conv3d(4, 4, 3, padding=1)
    keep_small_convolutions_exact(convolution)
    with torch.autocast("cpu", torch.bfloat16):
        small, large = (convolution(torch.randn(1, 4, n, n, n)) for n in (SMALLEST - 1, SMALLEST))
    assert small.dtype == torch.float32 and large.dtype == torch.bfloat16
