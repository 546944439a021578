"""Asked again by what the mask holds: what is typical of it, the engines that know, and what counts."""

from __future__ import annotations

import numpy as np
import pytest
from test_fused import CLICKS, SIZE, bfloat16_or_skip, difference, fuse, make_network, make_patch
from test_wider import LESS_SURE, SURE, UNSURE, ball, in_doubt

torch = pytest.importorskip("torch")

from samu_core import looks  # noqa: E402
from samu_core.asking import ask_again  # noqa: E402
from samu_core.candidates import expected_iou  # noqa: E402
from samu_core.engine import FusedEngine, TorchEngine  # noqa: E402
from samu_core.geometry import Volume  # noqa: E402
from samu_core.network.averages import smooth  # noqa: E402
from samu_core.network.folded import FoldedNetwork  # noqa: E402
from samu_core.network.typical import FINEST_LEVEL, Typical  # noqa: E402
from samu_core.predictor import Predictor  # noqa: E402
from samu_core.prompt import TYPICAL_VOXELS, PointPrompt  # noqa: E402


def bright_part(patch):
    """A mask that is neither empty nor everything, off the clicks."""
    return patch > patch.quantile(0.8)


def asked(network, patch, click, mask=None):
    """Logits of the plain network."""
    with torch.inference_mode():
        features = network.encode(patch[None, None])
        typical = None if mask is None else network.typical(features, mask)
        return network.decode(features, PointPrompt.from_fraction(click, typical=typical))[0, 0]


def test_what_is_typical_of_a_mask_are_its_median_and_its_mean_features():
    mask = torch.zeros(SIZE, SIZE, SIZE, dtype=torch.bool)
    mask[:8, :8, :8] = mask[8:16, :8, :4] = True
    smoothed = torch.arange(SIZE**3, dtype=torch.float32).view(mask.shape)
    typical = Typical.of(mask, smoothed, 5)
    assert typical.intensity.item() == smoothed[mask].median()
    assert sorted(typical.shares) == [1, 8, 64, 512]
    for share in typical.shares.values():
        assert share.sum().item() == pytest.approx(1.0)
    features = torch.randn(1, 6, 4, 4, 4).contiguous(memory_format=torch.channels_last_3d)
    expected = (2 * features[0, :, 0, 0, 0] + features[0, :, 1, 0, 0]) / 3  # 8^3 and half as many voxels
    found = typical.instead_of_content(torch.zeros(6), features)
    assert torch.allclose(found, expected, atol=1e-6)
    finer = torch.randn(1, 6, 16, 16, 16)
    assert FINEST_LEVEL == 2 and typical.instead_of_content(torch.ones(6), finer).eq(1).all()
    for wrong in (mask & False, mask[1:]):
        with pytest.raises(ValueError, match="mask"):
            Typical.of(wrong, smoothed, 5)


def test_the_network_compares_with_the_mask_and_not_with_the_click():
    network, patch = make_network(), make_patch()
    mask = bright_part(patch)
    assert difference(asked(network, patch, CLICKS[1], mask), asked(network, patch, CLICKS[1])) > 0.05
    # A mask of one voxel where the click is, in the middle of even tissue, is what the click says already.
    even = torch.zeros(64, 64, 64)
    even[:4] = 1.0
    middle = torch.zeros(even.shape, dtype=torch.bool)
    middle[33, 33, 33] = True
    at = tuple(33.5 / 64 for _ in range(3))
    smoothed = smooth(even[None, None])[0, 0]
    assert Typical.of(middle, smoothed, 5).intensity.item() == smoothed[33, 33, 33].item()
    assert difference(asked(network, even, at, middle), asked(network, even, at)) < 0.05


@pytest.mark.parametrize("click", CLICKS)
def test_the_fused_and_the_folded_network_know_the_same(click):
    network, patch = make_network(), make_patch()
    mask = bright_part(patch)
    expected = asked(network, patch, click, mask)
    engine = fuse(network)
    features = engine.encode(patch)
    prompt = PointPrompt.from_fraction(click, typical=engine.typical(features, mask))
    assert difference(engine.decode(features, prompt), expected) <= 1e-5
    folded = FoldedNetwork(network, "cpu", torch.float32)
    with torch.inference_mode():
        features = folded.encode(patch[None, None])
        typical = Typical.of(mask, features[-1][0, 0], 5)
        position = torch.tensor([click])
        assert difference(folded.decode(features, position, typical)[0, 0], expected) <= 1e-5
        # What a CUDA graph reads: the same memory, told what to use.
        memory = Typical.unknown(patch.shape, 5, "cpu")
        unknown = folded.decode(features, position, memory)
        assert torch.equal(unknown, folded.decode(features, position))
        memory.learn(typical)
        assert difference(folded.decode(features, position, memory)[0, 0], expected) <= 1e-5
        memory.learn(None)
        assert torch.equal(folded.decode(features, position, memory), unknown)


def test_engines_ask_again_in_any_precision():
    network, patch = make_network(2), make_patch()
    mask = bright_part(patch)
    expected = asked(network, patch, CLICKS[1], mask).numpy()
    engines = [TorchEngine(network, "cpu", "float32"), FusedEngine(fuse(network))]
    for engine in engines:
        features = engine.encode(patch.numpy())
        again = engine.decode_again(features, np.array(CLICKS[1]), mask.numpy())
        assert np.abs(again - expected).max() <= 1e-5 * np.abs(expected).max()
        assert np.abs(engine.decode(features, np.array(CLICKS[1])) - again).max() > 0.05
    half = FusedEngine(fuse(network, bfloat16_or_skip()))
    again = half.decode_again(half.encode(patch.numpy()), np.array(CLICKS[1]), mask.numpy())
    assert 0 < np.abs(again - expected).max() <= 0.03 * np.abs(expected).max()


def test_a_network_that_knows_no_masks_is_not_asked_again():
    class Plain(torch.nn.Module):
        def encode(self, patch):
            return patch

        def decode(self, features, prompt):
            return features

    assert TorchEngine(Plain(), "cpu", "float32").decode_again is None
    assert TorchEngine(make_network(), "cpu", "float32").decode_again is not None


def test_the_second_answer_counts_unless_it_is_clearly_less_sure():
    first, masks = ball(LESS_SURE), []

    def surer(mask):
        masks.append(mask)
        return ball(SURE, 24.0).logits

    second = ask_again(first, surer)
    assert np.array_equal(masks[0], first.logits > 0) and masks[0].dtype == bool
    assert np.array_equal(second.logits, ball(SURE, 24.0).logits)
    assert (second.grid, second.asked_spacing) == (first.grid, first.asked_spacing)
    nearly = ball(LESS_SURE - 0.3, 18.0)
    assert 0 < expected_iou(first) - expected_iou(nearly) < 0.1
    assert np.array_equal(ask_again(first, lambda mask: nearly.logits).logits, nearly.logits)
    assert expected_iou(ball(UNSURE)) < expected_iou(first) - 0.1
    for worse in (ball(UNSURE).logits, ball(-1.0).logits, None):
        assert ask_again(first, lambda mask, logits=worse: logits) is first


def test_what_has_hardly_a_voxel_is_typical_of_nothing():
    def never(mask):
        raise AssertionError("asked again")

    just_enough = ball(SURE, 1.5)
    assert (just_enough.logits > 0).sum() == TYPICAL_VOXELS
    with pytest.raises(AssertionError, match="asked again"):
        ask_again(just_enough, never)
    fewer = ball(SURE, 1.5)
    fewer.logits[tuple(np.argwhere(fewer.logits > 0)[0])] = -20.0
    for prediction in (fewer, ball(-1.0)):
        assert ask_again(prediction, never) is prediction


def test_a_wider_look_is_judged_by_the_first_answer():
    volume = Volume(np.zeros((96, 96, 96), np.float32), np.diag([1.5, 1.5, 1.5, 1.0]))
    asked = []

    def look(point, spacing):
        asked.append(spacing)
        return wide

    def sure(mask):
        return ball(SURE, 22.0).logits

    wide = ball(SURE, 24.0, 2.4)
    assert looks.look_again(volume, in_doubt(), look, sure) is wide, "though the second answer is sure"
    wide = ball(-1.0, spacing=2.4)
    found = looks.look_again(volume, in_doubt(), look, sure)
    assert np.array_equal(found.logits, ball(SURE, 22.0).logits)
    assert asked == [pytest.approx(2.4)] * 2
    found = looks.look_again(volume, ball(LESS_SURE), look, sure)
    assert np.array_equal(found.logits, ball(SURE, 22.0).logits) and len(asked) == 2


@pytest.mark.parametrize("fused", [True, False])
def test_the_predictor_asks_again_in_the_same_patch(fused, monkeypatch):
    rng = np.random.default_rng(0)
    volume = Volume(rng.normal(size=(64, 64, 64)).astype(np.float32), np.diag([1.5, 1.5, 1.5, 1.0]))
    network, masks = make_network(), []

    def remember(first, decode_again):
        mask = first.logits > np.median(first.logits)
        masks.append((first.logits, decode_again(mask)))
        return first

    monkeypatch.setattr(looks, "ask_again", remember)
    monkeypatch.setattr(looks, "finer_spacing", lambda *_: None)
    monkeypatch.setattr(looks, "look_wider", lambda first, look: first)
    monkeypatch.setattr(looks, "bolder", lambda first: first)
    predictor, stages = Predictor(network=network, device="cpu", patch_size=SIZE, fused=fused), []
    predictor.predict(volume, (48.0,) * 3, progress=stages.append)
    assert stages.count("encode") == 1 and stages.count("decode") == 2
    ((logits, again),) = masks
    assert again.shape == logits.shape and np.abs(again - logits).max() > 1e-3
    once = Predictor(network=network, device="cpu", patch_size=SIZE, fused=fused, second_look=False)
    once.predict(volume, (48.0,) * 3)
    assert len(masks) == 1
