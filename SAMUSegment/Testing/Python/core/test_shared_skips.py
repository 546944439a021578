"""Skips that the clicks in a patch share in training: the same numbers as repeated ones."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from samu_core.network import SAMU, SAMUConfig  # noqa: E402
from samu_core.prompt import PointPrompt  # noqa: E402
from samu_core.training.normalisation import fold_fixed_statistics  # noqa: E402
from samu_core.training.shared_skips import share_skips  # noqa: E402
from samu_core.training.windows import Window, repeated, summed_over_clicks  # noqa: E402

SMALL = SAMUConfig(channels=(8, 8, 8, 16, 16, 16), embedding=16)


def decoded(network, shared, fixed):
    """Both logits of three clicks in each of two patches, and the gradients of all parameters."""
    torch.manual_seed(3)
    patch = torch.randn(2, 1, 64, 64, 64).to(memory_format=torch.channels_last_3d)
    prompt = PointPrompt(0.2 + 0.6 * torch.rand(6, 3), 0.5)
    network.train(not fixed)
    features = repeated(network.encode(patch), 3, 2, shared)
    assert [len(each) for each in features] == [2 if level in (0, 1, *shared) else 6 for level in range(7)]
    logits, auxiliary = network.decode_with_auxiliary(features, prompt, Window.around(prompt, 64, 32, 2))
    network.zero_grad()
    (logits.square().mean() + auxiliary.square().mean()).backward()
    gradients = {name: value.grad for name, value in network.named_parameters() if value.grad is not None}
    return logits.detach(), auxiliary.detach(), gradients


@pytest.mark.parametrize("normalisation", ("batch", "group"))
@pytest.mark.parametrize("fixed", (True, False))
def test_shared_skips_do_what_repeated_ones_do(fixed, normalisation):
    torch.manual_seed(0)
    plain = SAMU(SAMUConfig(channels=SMALL.channels, embedding=16, normalisation=normalisation))
    sharing = copy.deepcopy(plain)
    fold_fixed_statistics(plain)
    fold_fixed_statistics(sharing)
    shared = share_skips(sharing)
    assert shared == (2, 3)
    torch.manual_seed(1)
    expected = decoded(plain, (), fixed)
    found = decoded(sharing, shared, fixed)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1e-5)
    assert found[2].keys() == expected[2].keys() and "decoder.levels.2.convs.0.0.weight" in found[2]
    for name, gradient in expected[2].items():
        # Against the largest of its tensor: single numbers near zero are what rounding leaves.
        assert (found[2][name] - gradient).abs().max() <= 1e-3 * gradient.abs().max() + 1e-7, name


def test_single_clicks_and_tiny_levels_go_the_usual_way():
    torch.manual_seed(0)
    config = SAMUConfig(channels=SMALL.channels, embedding=16, concatenated_levels=(2, 3, 4))
    network = SAMU(config).eval()
    sharing = copy.deepcopy(network)
    shared = share_skips(sharing)
    patch, prompt = torch.randn(2, 1, 32, 32, 32), PointPrompt(torch.rand(2, 3), 0.5)
    assert torch.equal(sharing(patch, prompt), network(patch, prompt))
    several = PointPrompt(torch.rand(3, 3), 0.5)
    with torch.no_grad():  # level 4 has two voxels along an edge
        found = sharing.decode(repeated(sharing.encode(patch[:1]), 3, 0, shared), several)
        expected = network.decode(repeated(network.encode(patch[:1]), 3), several)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_attention_on_the_skips_needs_a_skip_for_every_click():
    network = SAMU(SAMUConfig(channels=SMALL.channels, embedding=16, attention="skips"))
    assert share_skips(network) == ()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_sums_over_clicks_keep_the_order_of_memory(layout):
    gradient = torch.randn(6, 3, 4, 4, 4).to(memory_format=layout)
    total = summed_over_clicks(gradient, 2)
    torch.testing.assert_close(total, gradient.unflatten(0, (2, 3)).sum(1))
    assert total.is_contiguous(memory_format=layout)
