"""The network: size, shapes, what the click does at every level, the paper's baselines."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from samu_core.network import SAMU, SAMUConfig  # noqa: E402
from samu_core.network.averages import halved, smooth  # noqa: E402
from samu_core.network.blocks import sample_at  # noqa: E402
from samu_core.network.click_maps import (  # noqa: E402
    COUNT,
    LOCAL_RANGE,
    RADII,
    WIDTHS,
    ClickMaps,
    local_spread,
    nearness,
    outer,
)
from samu_core.network.prompt_attention import (  # noqa: E402
    LARGEST_EFFECT,
    LARGEST_SLOPE,
    PLACE_RADIUS,
    PromptAttention,
    PromptEncoder,
    limited,
    per_sample_conv,
)
from samu_core.prompt import PointPrompt  # noqa: E402

LEVELS = range(6)
SMALL = {"channels": (4, 8, 8, 8, 8, 8), "embedding": 16}


def network(**settings) -> SAMU:
    torch.manual_seed(0)
    return SAMU(SAMUConfig(**settings)).eval()


def prompt(*position, span=1.0) -> PointPrompt:
    return PointPrompt.from_fraction(position, span)


@pytest.fixture(scope="module")
def patch():
    return torch.randn(1, 1, 64, 32, 32, generator=torch.Generator().manual_seed(1))


def test_the_shipped_architecture_has_about_twelve_million_parameters():
    count = sum(parameter.numel() for parameter in SAMU().parameters())
    assert 11.5e6 <= count <= 12.5e6


def test_logits_have_the_patch_shape_and_features_halve_from_level_to_level(patch):
    samu = network(**SMALL)
    *features, smoothed = samu.encode(patch)
    assert torch.equal(smoothed, smooth(patch))
    assert [tuple(level.shape[2:]) for level in features] == [
        (64 >> level, 32 >> level, 32 >> level) for level in LEVELS
    ]
    logits, auxiliary = samu.decode_with_auxiliary([*features, smoothed], prompt(0.5, 0.5, 0.5))
    assert logits.shape == patch.shape
    assert auxiliary.shape[2:] == (16, 8, 8)


@pytest.mark.parametrize("shape", [(1, 1, 33, 32, 32), (1, 2, 32, 32, 32), (32, 32, 32), (1, 1, 0, 32, 32)])
def test_patches_of_other_shapes_are_refused_with_the_rule(shape):
    with pytest.raises(ValueError, match="multiples of 32"):
        network(**SMALL).encode(torch.zeros(shape))


def test_prompts_must_fit_the_batch(patch):
    samu = network(**SMALL)
    two = PointPrompt(torch.full((2, 3), 0.5))
    with pytest.raises(ValueError, match="2 prompts"):
        samu.decode(samu.encode(patch), two)


@pytest.mark.parametrize("content", ["content", "position"])
@pytest.mark.parametrize("level", LEVELS)
def test_moving_the_click_changes_what_every_level_adds_to_its_features(level, content, patch):
    samu = network(**SMALL, prompt=content)
    attention = samu.decoder.attention[str(level)]
    features = samu.encode(patch)[level]
    added = []
    for click in ((0.3, 0.4, 0.5), (0.7, 0.4, 0.5)):
        where = prompt(*click)
        added.append(attention(features, samu.decoder.prompt_encoder(where), where) - features)
    assert added[0].abs().max() > 1e-4
    assert (added[0] - added[1]).abs().max() > 1e-4


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_alone_carries_the_click_into_the_mask(level, patch):
    """With the attention of all other levels silenced, the mask still follows the click."""
    # Batch statistics keep an untrained network's signals from fading.
    samu = network(**SMALL, maps="none").train()
    for key, attention in samu.decoder.attention.items():
        if key != str(level):
            torch.nn.init.zeros_(attention.out.weight)
    with torch.no_grad():
        features = samu.encode(patch)
        first, second = (samu.decode(features, prompt(*at)) for at in ((0.3, 0.4, 0.5), (0.7, 0.6, 0.5)))
        silenced = samu.decoder.attention[str(level)]
        torch.nn.init.zeros_(silenced.out.weight)
        third, fourth = (samu.decode(features, prompt(*at)) for at in ((0.3, 0.4, 0.5), (0.7, 0.6, 0.5)))
    assert (first - second).abs().max() > 1e-4
    assert torch.equal(third, fourth), "with every level silenced nothing is left that knows the click"


def test_without_attention_the_click_is_ignored(patch):
    samu = network(**SMALL, attention="none")
    features = samu.encode(patch)
    assert torch.equal(
        samu.decode(features, prompt(0.3, 0.4, 0.5)), samu.decode(features, prompt(0.7, 0.6, 0.5))
    )


@pytest.mark.parametrize(
    ("place", "attended", "skips"),
    [("all", 6, 0), ("bottom", 1, 0), ("none", 0, 0), ("skips", 6, 5)],
)
def test_the_papers_baselines_differ_in_where_attention_sits(place, attended, skips, patch):
    samu = network(**SMALL, attention=place)
    assert len(samu.decoder.attention) == attended
    assert len(samu.decoder.skip_attention) == skips
    assert samu(patch, prompt(0.5, 0.5, 0.5)).shape == patch.shape


def test_the_literal_prompt_does_not_look_at_the_image_under_the_click():
    samu = network(**SMALL, prompt="position")
    attention = samu.decoder.attention["1"]
    where = prompt(0.5, 0.5, 0.5)
    encoded = samu.decoder.prompt_encoder(where)
    dark, bright = torch.zeros(1, 8, 8, 8, 8), torch.ones(1, 8, 8, 8, 8)
    assert torch.equal(attention.tokens(dark, encoded, where), attention.tokens(bright, encoded, where))
    seeing = network(**SMALL).decoder.attention["1"]
    assert not torch.equal(seeing.tokens(dark, encoded, where), seeing.tokens(bright, encoded, where))


def test_folded_attention_equals_textbook_attention():
    """Softmax over two keys, heads side by side, against the gate form that the network computes."""
    torch.manual_seed(3)
    attention, encoder = PromptAttention(64, 32, content=True, largest_effect=None).eval(), PromptEncoder(32)
    features = torch.randn(2, 64, 3, 4, 5)
    where = PointPrompt(torch.rand(2, 3), 0.5)
    encoded = encoder(where)
    tokens = attention.tokens(features, encoded, where)
    place = outer(nearness(features.shape[2:], where, PLACE_RADIUS)).flatten(2).transpose(1, 2)
    voxels = features.flatten(2).transpose(1, 2)
    query = attention.query(voxels) + attention.place_query(place)
    split = (2, -1, attention.heads, attention.width)
    query, key, value = (
        part.reshape(split) for part in (query, attention.key(tokens), attention.value(tokens))
    )
    weights = torch.einsum("bnhw,bthw->bhnt", query, key).div(math.sqrt(attention.width)).softmax(-1)
    read = torch.einsum("bhnt,bthw->bnhw", weights, value).flatten(2)
    expected = features + attention.out(read).transpose(1, 2).reshape(features.shape)
    torch.testing.assert_close(attention(features, encoded, where), expected, rtol=1e-5, atol=1e-5)


def test_attention_cannot_drown_the_features():
    """Weights grew until coarse levels handed a constant a thousand times their features on."""
    torch.manual_seed(3)
    attention, encoder = PromptAttention(64, 32, content=True).eval(), PromptEncoder(32)
    features, where = torch.randn(2, 64, 3, 4, 5), PointPrompt(torch.rand(2, 3), 0.5)
    encoded = encoder(where)
    with torch.no_grad():
        attention.value.weight.mul_(1000)
        attention.key.weight.mul_(1000)
        added = attention(features, encoded, where) - features
        assert added.square().mean().sqrt() < 2 * LARGEST_EFFECT
        slope = attention.folded(features, encoded, where)[0]
        assert slope.norm(dim=2).max() <= LARGEST_SLOPE * 1.001
        attention.largest_effect = None
        assert (attention(features, encoded, where) - features).square().mean().sqrt() > 100


def test_limits_leave_short_vectors_and_shorten_long_ones():
    short, long = torch.full((1, 8), 0.04), torch.full((1, 8), -400.0)
    torch.testing.assert_close(limited(short, 4.0, 1), short, rtol=1e-4, atol=0)
    torch.testing.assert_close(limited(long, 4.0, 1), torch.full((1, 8), -4.0), rtol=1e-3, atol=0)


def test_likeness_maps_show_what_is_as_bright_as_the_click():
    maps = ClickMaps((4, 8, 8))
    patch = torch.zeros(1, 1, 16, 16, 16)
    patch[..., 8:] = 0.3
    where = prompt(0.5, 0.5, 0.25)
    found = maps.maps(smooth(patch), where)
    assert [tuple(level.shape) for level in found] == [(1, COUNT, n, n, n) for n in (16, 8, 4)]
    assert found[0][0, :5, 8, 8, 3].tolist() == pytest.approx([1] * 5)
    expected = [math.exp(-0.5 * (0.3 / width) ** 2) for width in WIDTHS]
    assert found[0][0, :3, 8, 8, 12].tolist() == pytest.approx(expected, abs=1e-4)
    assert [tuple(level.shape) for level in maps(smooth(patch), where)] == [
        (1, count, n, n, n) for count, n in ((4, 16), (8, 8), (8, 4))
    ]


def test_likeness_is_wider_where_the_image_is_noisy():
    noise = torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    at = prompt(0.5, 0.5, 0.5)
    assert local_spread(smooth(0 * noise), at).item() == pytest.approx(LOCAL_RANGE[0])
    quiet, loud = (local_spread(smooth(level * noise), at).item() for level in (0.3, 0.9))
    assert loud == pytest.approx(3 * quiet, rel=1e-4)
    assert local_spread(smooth(noise), prompt(0.0, 1.0, 0.5)).isfinite().all(), "a click at the very edge"


def test_nearness_maps_are_round_and_one_at_the_click():
    shape = torch.zeros(1, 1, 33, 33, 33)
    at = prompt(0.5, 0.5, 0.5)
    found = torch.cat([outer(nearness(shape.shape[2:], at, radius)) for radius in RADII])[:, 0]
    assert found[:, 16, 16, 16].tolist() == pytest.approx([1, 1, 1])
    assert found[:, 16, 16, 21].tolist() == pytest.approx(found[:, 19, 12, 16].tolist())  # 5^2 = 3^2 + 4^2
    expected = [math.exp(-0.5 * (5 / 33 / radius) ** 2) for radius in RADII]
    assert found[:, 16, 16, 21].tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "present"),
    [
        ({}, True),
        ({"prompt": "position"}, False),
        ({"attention": "none"}, False),
        ({"maps": "none"}, False),
    ],
)
def test_only_a_prompt_with_content_brings_maps_of_the_click(settings, present):
    assert (network(**SMALL, **settings).decoder.click_maps is not None) is present


def test_maps_of_the_click_reach_the_mask(patch):
    samu = network(**SMALL).train()
    where = prompt(0.4, 0.5, 0.6)
    with torch.no_grad():
        before = samu(patch, where)
        for layer in samu.decoder.click_maps.to_level:
            torch.nn.init.normal_(layer.weight)
        assert (samu(patch, where) - before).abs().max() > 1e-3


def test_span_keeps_a_millimetre_the_same_in_crops_of_the_field_of_view():
    """Half the patch at the same spacing: the same places relative to the click are encoded the same."""
    whole = nearness((64, 64, 64), prompt(0.5, 0.5, 0.5), 0.1)
    half = nearness((32, 32, 32), prompt(0.5, 0.5, 0.5, span=0.5), 0.1)
    for axis in range(3):
        torch.testing.assert_close(whole[axis][:, 16:48], half[axis])


def test_sample_at_is_trilinear_and_clamps_at_the_edge():
    ramp = torch.arange(4.0).view(1, 1, 4, 1, 1).expand(1, 1, 4, 3, 2)
    assert sample_at(ramp, torch.tensor([[0.5, 0.5, 0.5]])).item() == pytest.approx(1.5)
    assert sample_at(ramp, torch.tensor([[0.99, 0.5, 0.5]])).item() == pytest.approx(3.0)
    assert sample_at(ramp, torch.tensor([[0.125 + 0.25, 0.1, 0.9]])).item() == pytest.approx(1.0)


def test_per_sample_conv_uses_each_samples_own_weights():
    features = torch.randn(2, 3, 4, 5, 6)
    weight, bias = torch.randn(2, 7, 3), torch.randn(2, 7)
    expected = torch.einsum("bcdhw,boc->bodhw", features, weight) + bias[:, :, None, None, None]
    torch.testing.assert_close(per_sample_conv(features, weight, bias), expected, rtol=1e-4, atol=1e-5)


def test_settings_survive_their_dictionary_and_wrong_ones_are_named():
    config = SAMUConfig(attention="skips", prompt="position", normalisation="group")
    assert SAMUConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="attention"):
        SAMUConfig(attention="everywhere")
    with pytest.raises(ValueError, match="colour"):
        SAMUConfig.from_dict({"colour": 1})


def test_gradients_reach_every_parameter(patch):
    samu = network(**SMALL).train()
    batch = torch.cat([patch, patch.flip(2)])
    logits, auxiliary = samu.decode_with_auxiliary(samu.encode(batch), PointPrompt(torch.rand(2, 3)))
    (logits.square().mean() + auxiliary.square().mean()).backward()
    silent = [name for name, value in samu.named_parameters() if value.grad is None]
    assert not silent


@pytest.mark.parametrize("shape", [(2, 1, 6, 4, 8), (3, 5, 7, 3)])
def test_averages_are_those_of_torchs_pooling(shape):
    volume = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    pool = torch.nn.functional.avg_pool3d
    expected = pool(volume, 3, stride=1, padding=1, count_include_pad=False)
    torch.testing.assert_close(smooth(volume), expected)
    torch.testing.assert_close(smooth(volume, out=torch.empty_like(volume)), expected)
    if all(size % 2 == 0 for size in shape[-3:]):
        torch.testing.assert_close(halved(volume), pool(volume, 2))
