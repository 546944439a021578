"""BatchNorms with fixed statistics, folded into the weights in training: the same numbers and gradients."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from samu_core.network.blocks import ConvBlock, UpBlock  # noqa: E402
from samu_core.training.normalisation import fold_fixed_statistics  # noqa: E402
from samu_core.training.precision import SMALLEST  # noqa: E402


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


@pytest.mark.parametrize("kind", (ConvBlock, UpBlock))
def test_gradients_in_half_precision_are_those_of_float32(kind):
    block, features = block_of(kind).eval(), torch.randn(2, 3, SMALLEST, SMALLEST, SMALLEST)
    fold_fixed_statistics(block)
    expected = result_and_gradients(block, features)[1:]
    with torch.autocast("cpu", torch.bfloat16):
        found = result_and_gradients(block, features)[1:]
    for ours, theirs in zip(found, expected):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < 0.03 * theirs.norm()
