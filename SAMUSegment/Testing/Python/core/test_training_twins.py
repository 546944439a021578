"""Twins: copies of patches with other clicks in the same targets, asked for the same masks."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from training_ranks import TINY  # noqa: E402

from samu_core.prompt import PointPrompt  # noqa: E402
from samu_core.training.samples import Sample  # noqa: E402
from samu_core.training.settings import CropSettings, TrainingSettings  # noqa: E402
from samu_core.training.stream import BatchStream, load_sources  # noqa: E402
from samu_core.training.trainer import Trainer  # noqa: E402
from samu_core.training.twins import disagreement, resampled_copy, twin_of  # noqa: E402
from samu_core.training.windows import Window  # noqa: E402


def ball(size=32, radius=9.0):
    axes = torch.stack(torch.meshgrid(*[torch.arange(size) - size / 2 + 0.5] * 3, indexing="ij"))
    return radius - axes.square().sum(0).sqrt()


def test_a_copy_is_the_same_image_a_little_softer_and_not_moved():
    rng, image = np.random.default_rng(0), torch.sigmoid(2 * ball())
    for _ in range(8):
        copy = resampled_copy(image, rng)
        assert copy.mean() == pytest.approx(float(image.mean()), abs=1e-5)
        assert copy.std() == pytest.approx(float(image.std()), rel=1e-4)
        assert 0.001 < (copy - image).abs().max() < 0.35
        half = float(image.mean() + 0.5 * (image.max() - image.mean()))
        centre = (copy > half).nonzero().float().mean(0)
        assert torch.allclose(centre, torch.full((3,), 15.5), atol=0.1)


def test_a_turned_copy_holds_the_corners_of_its_patch():
    axes = torch.meshgrid(*[torch.arange(24.0)] * 3, indexing="ij")
    ramp = axes[0] + 2 * axes[1] - axes[2]
    rng = np.random.default_rng(1)
    worst = max(float((resampled_copy(ramp, rng) - ramp).abs().max()) for _ in range(20))
    assert worst < 2.0  # a corner that the grid in between had cut off would be wrong by its distance


def test_a_twins_clicks_lie_in_its_targets_and_not_all_where_the_others_are():
    target = ball() > 0
    positions = torch.full((3, 3), 16.0 / 32)
    sample = Sample(ball(), target.expand(3, -1, -1, -1), positions, 0.25)
    twins = [twin_of(sample, np.random.default_rng(seed)) for seed in range(10)]
    moved = [float((twin.positions - positions).abs().max()) for twin in twins]
    assert max(moved) > 0.05 and torch.equal(sample.positions, torch.full((3, 3), 0.5))
    for position in torch.cat([twin.positions for twin in twins]):
        assert target[tuple((position * 32).long())]


def twin_window(clicks=2, pairs=2):
    position = torch.rand(pairs * 2 * clicks, 3)
    target = torch.zeros(len(position), 1, 32, 32, 32)
    return Window.around(PointPrompt(position, 0.5), 32, 16, 2, target, clicks)


def test_twins_see_the_same_windows_in_reverse_order():
    torch.manual_seed(0)
    window = twin_window()
    corners = torch.tensor(window.corners).unflatten(0, (2, 2, 2, 2))  # pair, twin, click, view
    assert torch.equal(corners[:, 0, :, 0], corners[:, 1, :, 1])
    assert torch.equal(corners[:, 0, :, 1], corners[:, 1, :, 0])
    held = window.prompt.position[::2]  # a click's own window still holds it
    assert ((held >= 0) & (held <= 1)).all()


def test_the_worse_mask_of_a_pair_is_drawn_to_the_better_one():
    torch.manual_seed(0)
    window = twin_window(clicks=1, pairs=1)
    whole = torch.where(ball() > 0, 4.0, -4.0)[None, None]
    better, worse = whole.expand(1, 1, 32, 32, 32), -whole
    logits = window.crop(torch.cat([better, worse]), 0).requires_grad_()
    auxiliary = torch.zeros(2, 1, 8, 8, 8, requires_grad=True)
    loss = disagreement(logits, auxiliary, torch.tensor([0.9, 0.1]), 1, window)
    loss.backward()
    assert loss > 0.8 and not logits.grad[:2].any() and logits.grad[2:].any()
    same = window.crop(torch.cat([better, better]), 0)
    assert disagreement(same, auxiliary, torch.tensor([0.9, 0.1]), 1, window) < 1e-3


def test_without_a_window_whole_masks_are_compared():
    whole = torch.where(ball() > 0, 6.0, -6.0)[None, None]
    auxiliary = torch.zeros(2, 1, 8, 8, 8)
    dice = torch.tensor([0.2, 0.9])
    assert disagreement(torch.cat([whole, whole]), auxiliary, dice, 1, None) < 1e-3
    assert disagreement(torch.cat([whole, -whole]), auxiliary, dice, 1, None) > 0.8


@pytest.mark.parametrize("wrong", [{"batch": 3}, {"batch": 2, "window": 32}])
def test_twins_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="twins"):
        CropSettings(64, (1.5, 1.5), twins=True, **wrong)


@pytest.mark.parametrize("window", [0, 16])
def test_a_run_with_twins_weighs_what_they_disagree_on(tmp_path, window):
    crop = {"size": 32, "spacing": [2.0, 2.0], "batch": 4, "clicks": 2, "twins": True,
            "window": window, "far": bool(window)}  # fmt: skip
    phases = [{**TINY["phases"][0], "crops": [crop]}]
    losses = {}
    for weight in (0.0, 1.0):
        settings = TrainingSettings.from_dict({**TINY, "agreement": weight, "phases": phases})
        sources = load_sources(None, settings)
        trainer = Trainer(settings, sources, tmp_path / str(weight))
        stream = BatchStream(sources, settings.phases[0], trainer.difficulty, 0)
        batch = stream.batch(settings.phases[0].crops[0], 2.0, np.random.default_rng(0))
        assert len(batch.patch) == 4 and batch.clicks == 2 and batch.twins
        own, twins = batch.target.unflatten(0, (2, 2, 2)).unbind(1)
        assert torch.equal(own, twins) and not torch.equal(batch.patch[0], batch.patch[1])
        torch.manual_seed(1)
        losses[weight] = trainer.train_step(batch, settings.phases[0])[0]
    assert 0.005 < losses[1.0] - losses[0.0] < 2  # untrained masks are nearly alike
