"""Half precision in training: gradients must be those of float32, at every size that a run trains on."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from samu_core.engine import cpu_has_bfloat16  # noqa: E402
from samu_core.network.blocks import ConvBlock, UpBlock  # noqa: E402
from samu_core.training.precision import (  # noqa: E402
    SMALLEST,
    fold_fixed_statistics,
    keep_small_convolutions_exact,
)

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


def block_of(kind, normalisation="batch"):
    torch.manual_seed(0)
    block = kind(3, 5, normalisation)
    if normalisation == "batch":
        block[1].running_mean.normal_()
        block[1].running_var.uniform_(0.2, 3.0)
        block[1].weight.data.uniform_(-1.0, 2.0)
        block[1].bias.data.normal_()
    return block


def result_and_gradients(block, features):
    features = features.clone().requires_grad_()
    out = block(features)
    weights = torch.arange(out.numel()).view_as(out).sin()
    parameters = [features, *block.parameters()]
    return [out, *torch.autograd.grad((out * weights).sum(), parameters)]


@pytest.mark.parametrize("size", (SMALLEST - 2, SMALLEST + 1))
@pytest.mark.parametrize("kind", (ConvBlock, UpBlock))
def test_folding_fixed_statistics_changes_no_number(kind, size):
    block, features = block_of(kind).eval(), torch.randn(2, 3, size, size, size)
    expected = result_and_gradients(block, features)
    folded = []
    hook = block[1].register_forward_hook(lambda *_: folded.append("not"))
    fold_fixed_statistics(block)
    for ours, theirs in zip(result_and_gradients(block, features), expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert not folded
    with torch.no_grad():
        torch.testing.assert_close(block(features), expected[0])
    assert folded == ["not"]
    hook.remove()


def test_statistics_of_the_batch_are_left_alone():
    features = torch.randn(2, 3, 4, 4, 4)
    plain, block = block_of(ConvBlock).train(), block_of(ConvBlock).train()
    fold_fixed_statistics(block)
    torch.testing.assert_close(block(features), plain(features))
    torch.testing.assert_close(block[1].running_var, plain[1].running_var)
    grouped = block_of(ConvBlock, "group").eval()
    expected = grouped(features)
    fold_fixed_statistics(grouped)
    torch.testing.assert_close(grouped(features), expected)


def test_folded_blocks_leave_autocast_where_small():
    block = block_of(ConvBlock).eval()
    fold_fixed_statistics(block)
    with torch.autocast("cpu", torch.bfloat16):
        small, large = (block(torch.randn(1, 3, n, n, n)) for n in (SMALLEST - 1, SMALLEST))
    assert small.dtype == torch.float32 and large.dtype == torch.bfloat16
