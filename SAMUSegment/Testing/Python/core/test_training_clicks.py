"""Several clicks a patch, the windows that the finest levels are trained on, and how patches lie."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from training_ranks import TINY  # noqa: E402
from training_volumes import packed  # noqa: E402

from samu_core.errors import SamuError  # noqa: E402
from samu_core.geometry import PatchGrid, Volume  # noqa: E402
from samu_core.network import SAMU, SAMUConfig  # noqa: E402
from samu_core.network.averages import smooth  # noqa: E402
from samu_core.prompt import PointPrompt  # noqa: E402
from samu_core.training import clicks, samples, windows  # noqa: E402
from samu_core.training.losses import samu_loss  # noqa: E402
from samu_core.training.settings import TrainingSettings  # noqa: E402
from samu_core.training.stream import Batch, BatchStream, load_sources, source_weights  # noqa: E402
from samu_core.training.trainer import KEPT_BATCHES, Trainer, echoed  # noqa: E402
from samu_core.training.windows import Window, repeated  # noqa: E402

SMALL = SAMUConfig(channels=(8, 8, 8, 8, 8, 8), embedding=16)


def blocks() -> np.ndarray:
    labels = np.zeros((60, 60, 60), int)
    for value, low in enumerate((6, 24, 42), start=1):
        labels[low : low + 12, 8:50, 10:30] = value
        labels[low : low + 12, 8:50, 36:52] = 4
    return labels


# -- clicks --


@pytest.mark.parametrize("synthetic", [True, False])
def test_every_click_of_a_patch_lies_in_its_own_target(synthetic):
    volume = packed(blocks(), (blocks() * 200).astype(np.uint16))
    rng, made, others = np.random.default_rng(0), 0, 0
    for _ in range(20):
        sample = samples.make_sample(volume, samples.CropSpec(32, 2.0, clicks=3), rng, synthetic)
        if sample is None:
            continue
        made += 1
        assert sample.targets.shape == (3, 32, 32, 32) and sample.positions.shape == (3, 3)
        for target, position in zip(sample.targets, sample.positions):
            k, j, i = (position * 32 - 0.5).round().long().clamp(0, 31).tolist()
            assert target[k, j, i]
        others += not torch.equal(sample.targets[0], sample.targets[1])
    assert made >= 10 and others >= made / 2


def test_all_structures_of_a_patch_are_clicked_before_one_is_clicked_again(monkeypatch):
    monkeypatch.setattr(clicks, "AGAIN", 0.0)
    ids = torch.zeros(16, 16, 16, dtype=torch.long)
    for value in (1, 2, 3):
        ids[4 * value : 4 * value + 3] = value
    ids[0, 0, :2] = 4  # too small
    volume = packed(blocks())
    usable = torch.ones_like(ids, dtype=torch.bool)
    usable[:8] = False  # the first structure lies outside the volume
    found = clicks.further_clicks(ids, usable, 2, 3, 8, volume, np.random.default_rng(1))
    assert found[0][0] == 3 and {value for value, _ in found} == {2, 3}
    for value, (k, j, i) in found:
        assert ids[int(k), int(j), int(i)] == value and usable[int(k), int(j), int(i)]


def test_every_target_of_a_synthetic_image_has_a_contrast():
    labels, rng = blocks(), np.random.default_rng(3)
    volume, gaps = packed(labels), []
    while len(gaps) < 60:
        sample = samples.make_sample(volume, samples.CropSpec(32, 2.0, 0.1, clicks=3), rng, True)
        if sample is not None:
            for target in sample.targets:
                rim = (samples.blur(target.float(), (1.0,) * 3) > 0.01) & ~target
                gaps.append(float((sample.patch[target].median() - sample.patch[rim].median()).abs()))
    assert np.mean(np.array(gaps) > 0.1) > 0.9


# -- how patches lie --


def test_most_patches_lie_as_at_inference(monkeypatch):
    """Of volumes whose intensity grows along K (to S), J (to P) and I (to L), in LPS as packs are, patches
    grow to S and fall to A; left and right are drawn."""
    axes = np.meshgrid(*[np.arange(64.0)] * 3, indexing="ij")
    monkeypatch.setattr(samples, "_augment", lambda image, *_: image)
    monkeypatch.setattr(samples, "LIMITED_SHARE", 0.0)  # what is cut off would be a slope of its own
    labels = np.zeros((64, 64, 64), int)
    labels[20:44, 20:44, 20:44] = 1
    grows = []
    for axis in range(3):
        volume, rng = packed(labels, (axes[axis] / 64).astype(np.float32)), np.random.default_rng(5)
        made = [samples.make_sample(volume, samples.CropSpec(32, 1.5), rng, False) for _ in range(60)]
        made = [sample.patch for sample in made if sample is not None]
        grows.append(np.mean([float(patch.diff(dim=axis).mean()) > 0 for patch in made]))
    up, forward, right = grows
    assert 0.85 <= up < 1 and 0 < forward <= 0.15 and 0.3 < right < 0.7


def test_packs_and_patches_differ_by_their_axes_alone():
    """What PATCH_AXES says, against PatchGrid: LPS indices grow to L, P and S, a patch's to R, A and S."""
    ramp = np.arange(40.0, dtype=np.float32)
    for axis, sign in enumerate(samples.PATCH_AXES):
        array = np.broadcast_to(ramp.reshape([-1 if axis == n else 1 for n in range(3)]), (40, 40, 40))
        volume = Volume(np.ascontiguousarray(array), np.diag([-1.5, -1.5, 1.5, 1.0]))
        grid = PatchGrid.for_click(volume, volume.geometry.ijk_to_point((20, 20, 20)), 1.5, 32)
        step = float(np.nanmean(np.diff(grid.sample(volume), axis=axis)))
        assert step == pytest.approx(sign, abs=1e-4)


def test_data_sets_of_images_count_less_as_label_maps():
    volumes = [packed(blocks(), source="map")]
    volumes.append(packed(blocks(), np.zeros((60, 60, 60), np.uint16), source="image"))
    assert source_weights(volumes) == pytest.approx([0.5, 0.5])
    assert source_weights(volumes, 0.25) == pytest.approx([0.5, 0.5]), "two data sets: both at the cap"
    volumes += [packed(blocks(), source=f"map{n}") for n in range(4)]
    weights = source_weights(volumes, 0.25)
    assert weights[1] == pytest.approx(weights[0] / 4)


# -- windows --


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return SAMU(SMALL).eval()


def drawn(count=6, size=40):
    torch.manual_seed(1)
    return Window.around(PointPrompt(torch.rand(count, 3), 0.5), 64, size, 2)


def test_windows_hold_their_click():
    for window in (drawn(200), drawn(200, 16), drawn(200, 64)):
        inner = window.prompt.position
        assert inner.min() >= 0 and inner.max() <= 1
        corners = torch.tensor(window.corners)
        assert corners.min() >= 0 and corners.max() + window.size <= 16
        assert window.prompt.span == pytest.approx(0.5 * window.size / 16)


def test_a_window_shows_what_the_whole_patch_would(network):
    patch, prompt = torch.randn(2, 1, 64, 64, 64), PointPrompt(0.1 + 0.8 * torch.rand(6, 3), 0.5)
    window = Window.around(prompt, 64, 40, 2)
    with torch.no_grad():
        features = network.encode(patch)
        whole, auxiliary = network.decode_with_auxiliary(repeated(features, 3), prompt)
        part, same = network.decode_with_auxiliary(repeated(features, 3, 2), prompt, window)
    torch.testing.assert_close(same, auxiliary)
    assert part.shape == (6, 1, 40, 40, 40)
    torch.testing.assert_close(window.inner(part), window.inner(window.crop(whole, 0)))
    assert not torch.allclose(part, window.crop(whole, 0)), "what `inner` takes off differs"


def test_second_windows_show_what_the_whole_patch_would(network):
    patch, prompt = torch.randn(2, 1, 64, 64, 64), PointPrompt(0.1 + 0.3 * torch.rand(6, 3), 0.5)
    target = torch.zeros(6, 1, 64, 64, 64)
    target[..., 50:60, 50:60, 50:60] = 1
    window = Window.around(prompt, 64, 32, 2, target)
    assert len(window.corners) == 12 and window.prompt.views == 2
    far = torch.tensor(window.corners[1::2])
    assert (far == 8).all(1).any(), "none lies around the target"
    assert (window.prompt.position[::2] <= 1).all() and (window.prompt.position[1::2] < 0).any()
    with torch.no_grad():
        features = network.encode(patch)
        whole, _ = network.decode_with_auxiliary(repeated(features, 3), prompt)
        part, _ = network.decode_with_auxiliary(repeated(features, 3, 2), prompt, window)
    assert part.shape == (12, 1, 32, 32, 32)
    torch.testing.assert_close(window.inner(part), window.inner(window.crop(whole, 0)))


@pytest.mark.parametrize("far", (False, True))
def test_maps_made_within_windows_are_crops_of_the_whole_maps(network, far):
    smoothed, prompt = smooth(torch.randn(4, 1, 64, 64, 64)), PointPrompt(0.1 + 0.8 * torch.rand(4, 3), 0.5)
    target = (torch.rand(4, 1, 64, 64, 64) < 0.001) if far else None
    window = Window.around(prompt, 64, 24, 2, target)
    maps = network.decoder.click_maps
    whole, windowed = maps.maps(smoothed, prompt), maps.maps(smoothed, prompt, window)
    assert [len(each) for each in windowed[:2]] == [8 if far else 4] * 2
    for level, (ours, theirs) in enumerate(zip(windowed, whole)):
        expected = window.crop(theirs, level) if level < window.level else theirs
        torch.testing.assert_close(ours, expected)


def test_both_windows_of_a_click_are_one_sample():
    target = torch.zeros(2, 1, 64, 64, 64)
    target[:, :, 20:28, 20:28, 20:28] = 1
    prompt = PointPrompt(torch.full((4, 3), 24 / 64), 0.5, 2)
    window = Window([[2, 2, 2], [8, 8, 8]] * 2, 8, 2, prompt)
    right = window.crop(target, 0) * 40 - 20
    auxiliary = torch.nn.functional.avg_pool3d(target, 4) * 40 - 20
    loss, dice = samu_loss(right, auxiliary, target, window)
    assert dice.tolist() == [1.0, 1.0], "a window without the target counts as a miss"
    right[1] = 20.0
    loss_of_false, dice = samu_loss(right, auxiliary, target, window)
    assert dice[0] < 0.1 and dice[1] == 1.0 and loss_of_false > loss + 0.4


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_gradients_go_back_to_where_windows_and_repeats_came_from(layout):
    window = drawn(6, 16)
    volumes = torch.randn(2, 3, 64, 64, 64).to(memory_format=layout).requires_grad_()
    weights = torch.randn(6, 3, 16, 16, 16)
    (window.crop(volumes, 0) * weights).sum().backward()
    expected = torch.zeros_like(volumes)
    for n, (k, j, i) in enumerate(np.array(window.corners) * 4):
        expected[n // 3, :, k : k + 16, j : j + 16, i : i + 16] += weights[n]
    torch.testing.assert_close(volumes.grad, expected)

    small = torch.randn(2, 3, 4, 4, 4).to(memory_format=layout).requires_grad_()
    (again,) = repeated([small], 3)
    assert torch.equal(again, small.repeat_interleave(3, 0))
    assert again.is_contiguous(memory_format=layout)
    weights = torch.randn_like(again)
    (again * weights).sum().backward()
    torch.testing.assert_close(small.grad, weights.unflatten(0, (2, 3)).sum(1))


def test_a_mirrored_batch_shows_the_same_on_the_other_side():
    patch, position = torch.rand(2, 1, 32, 32, 32), torch.rand(4, 3)
    target = torch.rand(4, 1, 32, 32, 32) > 0.5
    batch = Batch(patch, target, position, 0.5, 16, True)
    mirrored = batch.mirrored()
    voxel, other = ((each.position * 32).long() for each in (batch, mirrored))
    for click in range(4):
        (k, j, i), (k1, j1, i1) = voxel[click].tolist(), other[click].tolist()
        assert (k1, j1) == (k, j) and patch[click // 2, 0, k, j, i] == mirrored.patch[click // 2, 0, k, j, i1]
        assert target[click, 0, k, j, i] == mirrored.target[click, 0, k, j, i1]
    assert torch.equal(mirrored.mirrored().patch, patch) and (mirrored.window, mirrored.far) == (16, True)


def test_echoes_are_mirrored_batches_of_a_while_ago():
    batches = [
        Batch(torch.full((1, 1, 2, 2, 2), float(n)), torch.ones(1, 1, 2, 2, 2), torch.rand(1, 3), 1.0)
        for n in range(40)
    ]
    numbers = [int(b.patch[0, 0, 0, 0, 0]) for b in echoed(batches, 2, np.random.default_rng(0))]
    assert numbers[::3] == list(range(40))
    late = [(numbers[n], numbers[n - n % 3]) for n in range(len(numbers)) if n % 3]
    assert all(new - KEPT_BATCHES < old <= new for old, new in late) and len({n - o for o, n in late}) > 8
    assert list(echoed(batches, 0, np.random.default_rng(0))) == batches


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_crops_gathered_as_on_a_gpu_are_the_crops(level, last):
    prompt = PointPrompt(torch.rand(6, 3), 1.0)
    window = Window.around(prompt, 32, 16, 2, (torch.rand(6, 1, 32, 32, 32) > 0.9).float())
    shape = (3, 5, *[32 >> level] * 3)
    order = torch.channels_last_3d if last else torch.contiguous_format
    found = []
    for kind in (windows._Crop, windows._GatheredCrop):
        volumes = torch.arange(float(np.prod(shape))).view(shape).contiguous(memory_format=order)
        volumes.requires_grad_()
        crops = kind.apply(volumes, window.corners, window.size, 2 - level)
        (crops * torch.linspace(-1, 1, crops.numel()).view_as(crops)).sum().backward()
        found.append((crops.detach(), volumes.grad))
    torch.testing.assert_close(found[1][0], found[0][0])
    torch.testing.assert_close(found[1][1], found[0][1])
    assert found[1][0].stride() == found[0][0].stride()


def test_the_head_is_judged_in_its_window_alone():
    window = drawn(2, 40)
    target = torch.zeros(2, 1, 64, 64, 64)
    target[:, :, 10:50, 10:50, 10:50] = 1
    auxiliary = torch.nn.functional.avg_pool3d(target, 4) * 40 - 20
    right = window.crop(target, 0) * 40 - 20
    loss, dice = samu_loss(right, auxiliary, target, window)
    assert loss < 0.4 and dice.tolist() == [1.0, 1.0]
    rim = windows.SEEN_FROM
    right[..., :rim] *= -1  # what is not judged may be wrong
    assert samu_loss(right, auxiliary, target, window)[0] == pytest.approx(float(loss))
    assert samu_loss(right, -auxiliary, target, window)[0] > loss + 5


# -- training with both --


@pytest.fixture
def windowed(tmp_path):
    crop = {"size": 64, "spacing": [1.5, 2.0], "batch": 2, "clicks": 2, "window": 40}
    phase = {**TINY["phases"][0], "crops": [crop]}
    settings = TrainingSettings.from_dict({**TINY, "phases": [phase]})
    return Trainer(settings, load_sources(None, settings), tmp_path / "run")


def test_training_on_windows_lowers_the_loss_of_whole_patches(windowed):
    phase = windowed.settings.phases[0]
    stream = BatchStream(windowed.sources, phase, windowed.difficulty, 0)
    batch = stream.batch(phase.crops[0], 1.5, np.random.default_rng(0))
    assert batch.patch.shape[0] == 2 and batch.target.shape[0] == batch.position.shape[0] == 4

    def whole() -> float:
        with torch.no_grad():
            return float(windowed._loss(replace(batch, window=0), None)[0])

    before = whole()
    for _ in range(20):
        windowed.train_step(batch, phase)
    assert whole() < 0.95 * before
    assert windowed.samples == 80, "clicks are counted, not patches"
    before = {name: value.clone() for name, value in windowed.network.named_parameters()}
    windowed.train_step(batch, replace(phase, coarse=True))
    head = "decoder.head.weight"
    assert torch.equal(before[head], dict(windowed.network.named_parameters())[head])


def test_statistics_are_measured_on_one_click_a_patch(windowed):
    windowed.settings = replace(
        windowed.settings, phases=(replace(windowed.settings.phases[0], minutes=0.02, fixed_statistics=True),)
    )
    assert windowed.run() and windowed.step >= 1


@pytest.mark.parametrize("wrong", [{"clicks": 0}, {"window": 8}, {"window": 20}, {"window": 72}])
def test_settings_say_what_clicks_and_windows_can_be(wrong):
    phase = {**TINY["phases"][0], "crops": [{"size": 64, "spacing": [1.5, 2.0], "batch": 2, **wrong}]}
    with pytest.raises(SamuError, match="multiple of 8"):
        TrainingSettings.from_dict({**TINY, "phases": [phase]})
