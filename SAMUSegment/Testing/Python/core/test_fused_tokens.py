"""What the fused decoder computes of one click in few calls: the same numbers as the plain modules'."""

import itertools

import pytest

torch = pytest.importorskip("torch")

from samu_core.network.blocks import sample_at  # noqa: E402
from samu_core.network.click_maps import nearness  # noqa: E402
from samu_core.network.fused.click import SMALLEST_FACTOR, nearness_of  # noqa: E402
from samu_core.network.fused.tokens import TokenReader, sample_one  # noqa: E402
from samu_core.network.prompt_attention import PromptAttention  # noqa: E402
from samu_core.prompt import PointPrompt  # noqa: E402

CLICK = (0.4, 0.55, 0.62)


@pytest.mark.parametrize("channels", (16, 128))
@pytest.mark.parametrize("content", (True, False))
@pytest.mark.parametrize("largest", (None, 0.2, 8.0))
def test_a_reading_is_what_the_attention_folds(channels, content, largest):
    torch.manual_seed(channels)
    attention = PromptAttention(channels, 32, content, largest).eval()
    features = torch.randn(1, channels, 4, 4, 4)
    encoded = torch.randn(1, 32, 2)
    prompt = PointPrompt.from_fraction(CLICK)
    with torch.no_grad():
        slope, constant, place, step, base = attention.folded(features, encoded, prompt)
        reading = TokenReader(attention)(encoded, sample_one(features, CLICK))
    assert reading.slope.shape == (attention.heads, channels)
    torch.testing.assert_close(reading.slope, slope[0])
    torch.testing.assert_close(reading.constants, constant[0])
    torch.testing.assert_close(reading.places, place[0, :, 0])
    torch.testing.assert_close(reading.effects, torch.cat([step[0].t(), base]))


def test_a_reading_follows_the_clicked_feature():
    torch.manual_seed(0)
    attention = PromptAttention(16, 32, True).eval()
    encoded = torch.randn(1, 32, 2)
    with torch.no_grad():
        reader = TokenReader(attention)
        one, other = (reader(encoded, torch.full((16,), value)).slope for value in (0.0, 1.0))
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_sample_one_is_sample_at(dtype):
    features = torch.randn(1, 5, 4, 6, 1, generator=torch.Generator().manual_seed(0)).to(dtype)
    for place in itertools.product((-0.1, 0.0, 0.1, 0.5, 0.93, 1.0, 1.2), repeat=3):
        found = sample_one(features, place)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, sample_at(features.float(), torch.tensor([place]))[0])


def test_nearness_in_one_row_is_nearness():
    prompt = PointPrompt.from_fraction((0.1, 0.5, 0.9), span=2.0)
    shape, radii = (8, 4, 16), (1 / 16, 0.4)
    for row, radius in zip(nearness_of(shape, prompt, radii), radii):
        expected = torch.cat([factor[0] for factor in nearness(shape, prompt, radius)])
        torch.testing.assert_close(row, torch.where(expected < SMALLEST_FACTOR, 0.0, expected))
