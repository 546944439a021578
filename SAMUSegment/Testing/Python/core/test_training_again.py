"""A second question in training: what is typical of a batch's first masks, and that both answers teach."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from samu_core.network import SAMU, SAMUConfig  # noqa: E402
from samu_core.network.averages import smooth  # noqa: E402
from samu_core.network.typical import Typical  # noqa: E402
from samu_core.prompt import PointPrompt  # noqa: E402
from samu_core.training import again  # noqa: E402
from samu_core.training.again import TypicalOfClicks  # noqa: E402
from samu_core.training.settings import CropSettings, PhaseSettings, TrainingSettings  # noqa: E402
from samu_core.training.stream import Batch, Sources  # noqa: E402
from samu_core.training.trainer import Trainer  # noqa: E402
from samu_core.training.windows import Window  # noqa: E402

CLICKS = torch.tensor([[0.4, 0.5, 0.6], [0.5, 0.5, 0.5], [0.3, 0.7, 0.5]])
CROP = CropSettings(32, (1.5, 1.5), 1)


@pytest.fixture
def unraised(monkeypatch):
    """First logits as they are."""
    monkeypatch.setattr(again, "RAISES", (0.0, 0.0))


def first_answers(edge: int = 32):
    """Logits, auxiliary logits and smoothed patches of three clicks: a large mask, a smaller one, and one
    of 7 voxels."""
    patches = torch.randn(3, 1, edge, edge, edge, generator=torch.Generator().manual_seed(0))
    logits = torch.full_like(patches, -2.0)
    logits[0, :, 6:22, 8:24, 10:30] = 2.0
    logits[1, :, 12:21, 13:20, 14:19] = 2.0
    logits[2, :, 9, 22, 12:19] = 2.0
    return logits, torch.nn.functional.avg_pool3d(logits, 4), smooth(patches)


def test_a_batch_knows_what_each_of_its_masks_would_alone(unraised):
    logits, auxiliary, smoothed = first_answers()
    found = TypicalOfClicks.of(logits, auxiliary, smoothed, 5)
    assert found.amount.tolist() == [1, 1, 0]
    features = torch.randn(3, 6, 4, 4, 4)
    clicked = torch.randn(3, 6)
    contents = found.instead_of_content(clicked, features)
    for index in (0, 1):
        alone = Typical.of(logits[index, 0] > 0, smoothed[index, 0], 5)
        assert found.intensity[index] == alone.intensity[0]
        expected = alone.instead_of_content(clicked[index], features[index : index + 1])
        torch.testing.assert_close(contents[index], expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(contents[2], clicked[2])
    assert torch.equal(found.instead_of_intensity(clicked[:, 0])[2], clicked[2, 0])


def test_with_windows_the_mask_is_fine_within_and_coarse_elsewhere(unraised):
    torch.manual_seed(1)
    logits, auxiliary, smoothed = first_answers()
    prompt = PointPrompt(CLICKS, 0.25)
    window = Window.around(prompt, 32, 16, 2, logits > 0)
    low = window.corners[window.prompt.views]  # the second click's, around it
    # The coarse head takes whatever holds a voxel of the mask.
    whole = torch.nn.functional.avg_pool3d((logits > 0).float(), 4)
    found = TypicalOfClicks.of(window.crop(logits, 0), whole - 1e-3, smoothed, 5, window)
    place = tuple(slice(start + 1, start + 3) for start in low)
    expected = (whole[1, 0] > 0).float()
    assert not torch.equal(expected[place], whole[1, 0][place])
    expected[place] = whole[1, 0][place]
    torch.testing.assert_close(found.shares[512][1], expected.flatten() / expected.sum())
    assert sorted(found.shares) == [1, 8, 64, 512]
    inner = (0, *[slice(4 * start + 4, 4 * start + 12) for start in low])
    assert found.intensity[1] == smoothed[1][inner][logits[1][inner] > 0].median()


@pytest.mark.parametrize("window", [0, 16])
def test_both_answers_teach(tmp_path, window, unraised):
    phase = PhaseSettings(minutes=1, crops=(CROP,), real=0, labelmaps=0, asked_again=True)
    trainer = Trainer(TrainingSettings(phases=(phase,)), Sources([], [], []), tmp_path)
    trainer.network.eval()  # a patch this small has no statistics at its bottleneck
    patch = torch.randn(1, 1, 32, 32, 32)
    target = torch.zeros(3, 1, 32, 32, 32, dtype=torch.bool)
    target[:, :, 8:24, 8:24, 8:24] = True
    batch = Batch(patch, target, CLICKS, 0.25, window)
    asked = []
    decode = trainer.network.decode_with_auxiliary

    def counting(features, prompt, window):
        asked.append(prompt.typical)
        logits, auxiliary = decode(features, prompt, window)
        # An untrained network's first masks may be empty: these are not.
        return logits + (0 if len(asked) % 2 == 0 else 1e3 * (logits > logits.mean())), auxiliary

    trainer.network.decode_with_auxiliary = counting
    loss, dice = trainer._loss(batch, phase)
    assert [each is None for each in asked] == [True, False] and len(dice) == 6
    loss.backward()
    assert all(
        value.grad is not None and torch.isfinite(value.grad).all() for value in trainer.network.parameters()
    )
    trainer._loss(batch, PhaseSettings(minutes=1, crops=(CROP,), real=0, labelmaps=0))
    assert len(asked) == 3


def test_the_second_answer_of_a_batch_is_that_of_each_click_alone(unraised):
    network = SAMU(SAMUConfig()).eval()
    torch.manual_seed(3)
    patch = torch.randn(1, 1, 32, 32, 32)
    logits = first_answers()[0]
    with torch.no_grad():
        features = network.encode(patch)
        smoothed = features[-1].expand(3, -1, -1, -1, -1)
        typical = TypicalOfClicks.of(logits, logits, smoothed, 5)
        repeated = [value.expand(3, -1, -1, -1, -1) for value in features]
        together = network.decode(repeated, PointPrompt(CLICKS, typical=typical))
        for index in range(3):
            known = network.typical(features, logits[index, 0] > 0) if index < 2 else None
            alone = network.decode(features, PointPrompt(CLICKS[index : index + 1], typical=known))
            np.testing.assert_allclose(together[index], alone[0], atol=2e-4)


def test_a_kept_encoder_stays_as_it_is(tmp_path):
    phase = PhaseSettings(minutes=1, crops=(CROP,), real=0, labelmaps=0, kept_encoder=True)
    trainer = Trainer(TrainingSettings(phases=(phase,), learning_rate=0.1), Sources([], [], []), tmp_path)
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    target = torch.zeros(2, 1, 64, 64, 64, dtype=torch.bool)
    target[:, :, 8:24, 8:24, 8:24] = True
    trainer.train_step(Batch(torch.randn(2, 1, 64, 64, 64), target, CLICKS[:2], 0.5), phase)
    changed = {
        name.split(".")[0]
        for name, value in trainer.network.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == {"decoder"}
