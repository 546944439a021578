"""The trainer on a tiny network and random shapes: it learns, stops, resumes, and its checkpoints load."""

from __future__ import annotations

import argparse
import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from training_ranks import TINY, rank_main  # noqa: E402

from samu_core import weights  # noqa: E402
from samu_core.errors import SamuError  # noqa: E402
from samu_core.prompt import PointPrompt  # noqa: E402
from samu_core.training import cli, export  # noqa: E402
from samu_core.training import trainer as trainer_module  # noqa: E402
from samu_core.training.losses import dice_and_cross_entropy, samu_loss  # noqa: E402
from samu_core.training.normalisation import remeasure_statistics  # noqa: E402
from samu_core.training.settings import PhaseSettings, TrainingSettings  # noqa: E402
from samu_core.training.stream import BatchStream, load_sources  # noqa: E402
from samu_core.training.trainer import STATISTICS_BATCHES, Trainer  # noqa: E402

BATCHED = ("patch", "target", "position")


@pytest.fixture(scope="module")
def settings():
    return TrainingSettings.from_dict(TINY)


@pytest.fixture(scope="module")
def sources(settings):
    return load_sources(None, settings)


@pytest.fixture
def trainer(settings, sources, tmp_path):
    return Trainer(settings, sources, tmp_path / "run")


@pytest.fixture
def batch(settings, sources, trainer):
    phase = settings.phases[0]
    return BatchStream(sources, phase, trainer.difficulty, 0).batch(
        phase.crops[0], 2.0, np.random.default_rng(0)
    )


def test_losses_at_their_extremes():
    target = torch.zeros(2, 1, 32, 32, 32)
    target[:, :, 8:16, 8:16, 8:16] = 1
    right, wrong = (target * 40 - 20), (20 - target * 40)
    loss, dice = dice_and_cross_entropy(right, target)
    assert loss.item() == pytest.approx(0, abs=1e-3) and dice.tolist() == [1.0, 1.0]
    loss, dice = dice_and_cross_entropy(wrong, target)
    assert loss.item() > 15 and dice.max() == 0
    coarse = torch.nn.functional.avg_pool3d(right, 4)
    assert samu_loss(right, coarse, target)[0].item() < 0.01


def test_training_on_one_batch_lowers_its_loss(trainer, batch):
    losses = [trainer.train_step(batch)[0] for _ in range(20)]
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    assert trainer.samples == 80 and trainer.step == 20


def test_coarse_training_leaves_the_finer_levels_alone(trainer, batch):
    network, frozen = trainer.network, trainer.network.config.auxiliary_level
    before = {name: value.clone() for name, value in network.state_dict().items()}
    coarse = PhaseSettings(minutes=1, crops=(), coarse=True)
    losses = [trainer.train_step(batch, coarse)[0] for _ in range(12)]
    assert min(losses[-3:]) < 0.9 * losses[0]
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    fine = [f"{part}.levels.{level}." for part in ("encoder", "decoder") for level in range(frozen)]
    fine += [
        f"decoder.{part}.{level}." for part in ("attention", "click_maps.to_level") for level in range(frozen)
    ]
    assert not [name for name in changed if name.startswith((*fine, "decoder.head."))]
    for part in ("encoder.levels.5.", "decoder.levels.2.", "decoder.attention.5.", "decoder.auxiliary_head."):
        assert [name for name in changed if name.startswith(part)], part
    trainer.train_step(batch)  # and the whole network is trained again
    assert not torch.equal(network.state_dict()["decoder.head.bias"], before["decoder.head.bias"])


def test_the_auxiliary_mask_does_not_need_the_finer_levels(trainer, batch):
    network, prompt = trainer.network.eval(), PointPrompt(batch.position, batch.span)
    with torch.no_grad():
        features = network.encode(batch.patch)
        torch.testing.assert_close(
            network.decode_auxiliary(features, prompt), network.decode_with_auxiliary(features, prompt)[1]
        )
        with pytest.raises(ValueError, match="prompts"):
            network.decode_auxiliary(features, PointPrompt(batch.position[:1], batch.span))


def test_small_batches_together_make_the_step_of_a_large_one(settings, sources, batch, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "trains_in_bfloat16", lambda device: False)  # whose sums are rough
    keep = PhaseSettings(minutes=1, crops=(), kept_statistics=True)
    large = Trainer(settings, sources, tmp_path / "large")
    small = Trainer(dataclasses.replace(settings, accumulate=2), sources, tmp_path / "small")
    before = {name: value.clone() for name, value in small.network.state_dict().items()}
    halves = [
        dataclasses.replace(batch, **{name: getattr(batch, name)[part] for name in BATCHED})
        for part in (slice(0, 2), slice(2, 4))
    ]
    small.train_step(halves[0], keep)
    for name, value in small.network.state_dict().items():
        assert torch.equal(value, before[name]), name
    small.train_step(halves[1], keep)
    large.train_step(batch, keep)
    assert small.samples == large.samples == 4
    for (name, wanted), found in zip(large.network.named_parameters(), small.network.parameters()):
        torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-3, atol=1e-5, msg=name)
    for network in (small.network, small.ema):
        assert not torch.equal(network.decoder.head.bias, before["decoder.head.bias"])


def test_the_learning_rate_warms_up_and_decays_by_time(trainer):
    assert trainer.learning_rate() == pytest.approx(1e-3 / 5)
    trainer.step = 100
    assert trainer.learning_rate() == pytest.approx(1e-3)
    trainer.seconds = 70 * 60  # of 80 minutes, the last 20 of which decay
    assert trainer.learning_rate() == pytest.approx(0.5e-3)
    trainer.seconds = 80 * 60
    assert trainer.learning_rate() == pytest.approx(1e-5)


def test_normalisation_statistics_are_frozen_at_the_end(trainer, batch):
    norm = trainer.network.encoder.levels[0][0][1]
    trainer.train_step(batch)
    moved = norm.running_mean.clone()
    assert moved.abs().max() > 0
    trainer.seconds = 79 * 60
    trainer.train_step(batch)
    assert torch.equal(norm.running_mean, moved)


def test_a_phase_can_keep_the_statistics_it_began_with(sources, tmp_path):
    phase = {**TINY["phases"][0], "minutes": 0.02, "fixed_statistics": True}
    trainer = Trainer(TrainingSettings.from_dict({**TINY, "phases": [phase]}), sources, tmp_path / "run")
    layer = trainer.network.encoder.levels[1][0][1]
    assert trainer.run() and trainer.step >= 1
    assert layer.running_mean.abs().max() > 0
    assert int(layer.num_batches_tracked) == STATISTICS_BATCHES  # none of the steps' own


def test_a_phase_can_keep_the_statistics_of_what_it_begins_with(sources, tmp_path):
    phase = {**TINY["phases"][0], "minutes": 0.02, "kept_statistics": True}
    trainer = Trainer(TrainingSettings.from_dict({**TINY, "phases": [phase]}), sources, tmp_path / "run")
    layer = trainer.network.encoder.levels[1][0][1]
    weight = trainer.network.encoder.levels[1][0][0].weight.clone()
    assert trainer.run() and trainer.step >= 1
    assert not layer.running_mean.any() and int(layer.num_batches_tracked) == 0
    assert not torch.equal(trainer.network.encoder.levels[1][0][0].weight, weight)


def test_a_phase_can_take_its_statistics_from_patches_as_wide_as_inference_has(
    sources, tmp_path, monkeypatch
):
    seen = []

    def remeasure(network, batches):
        seen.extend((tuple(batch.patch.shape), batch.span) for batch in batches)
        return len(seen)

    monkeypatch.setattr(trainer_module, "remeasure_statistics", remeasure)
    phase = {**TINY["phases"][0], "minutes": 0.02, "fixed_statistics": True, "statistics_size": 48}
    trainer = Trainer(TrainingSettings.from_dict({**TINY, "phases": [phase]}), sources, tmp_path / "run")
    assert trainer.run()
    assert seen == [((1, 1, 48, 48, 48), 1.0)] * trainer_module.WHOLE_PATCHES


def test_a_stopped_run_goes_on_where_it_was(settings, sources, tmp_path, batch):
    first = Trainer(settings, sources, tmp_path / "run")
    assert first.run(stop_after=0.5) is False
    assert first.step > 0
    second = Trainer(settings, sources, tmp_path / "run")
    second.load(tmp_path / "run" / "checkpoint.pt")
    assert (second.step, second.samples, second.seconds) == (first.step, first.samples, first.seconds)
    assert second.train_step(batch)[0] == pytest.approx(first.train_step(batch)[0], rel=1e-4)


def test_a_run_can_begin_with_the_weights_of_a_smaller_network(settings, sources, trainer, tmp_path):
    plain = {**TINY, "network": {**TINY["network"], "maps": "none"}}
    older = Trainer(TrainingSettings.from_dict(plain), sources, tmp_path)
    torch.nn.init.constant_(older.ema.decoder.head.bias, 1.25)
    older.save(tmp_path / "older.pt")
    fresh = trainer.start_from(tmp_path / "older.pt")
    assert trainer.network.decoder.head.bias.item() == 1.25
    assert fresh and all(name.startswith("decoder.click_maps.") for name in fresh)
    assert trainer.step == 0 and trainer.seconds == 0


def test_parts_of_the_network_can_be_drawn_anew(settings, sources, trainer, tmp_path):
    older = Trainer(settings, sources, tmp_path)
    for parameter in older.ema.parameters():
        torch.nn.init.constant_(parameter, 1.25)
    older.save(tmp_path / "older.pt")
    fresh = trainer.start_from(tmp_path / "older.pt", ["decoder.attention.1"])
    assert fresh and all(name.startswith("decoder.attention.1.") for name in fresh)
    assert (trainer.network.decoder.attention["1"].query.weight != 1.25).all()
    assert (trainer.network.decoder.attention["2"].query.weight == 1.25).all()
    with pytest.raises(SamuError, match="no part"):
        trainer.start_from(tmp_path / "older.pt", ["decoder.attention.9"])


def test_phases_end_by_time_and_leave_their_checkpoints(sources, tmp_path):
    quick = {**TINY, "phases": [{**phase, "minutes": 0.01} for phase in TINY["phases"]]}
    trainer = Trainer(TrainingSettings.from_dict(quick), sources, tmp_path)
    assert trainer.run() is True
    assert {path.name for path in tmp_path.glob("*.pt")} == {"phase-1.pt", "phase-2.pt", "checkpoint.pt"}
    assert weights.load_network(tmp_path / "phase-1.pt").config == trainer.network.config


def test_the_command_trains_and_says_when_it_has_to_go_on(tmp_path):
    yaml = pytest.importorskip("yaml")
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(TINY))
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    arguments = [
        "--config",
        str(config),
        "--out",
        str(tmp_path / "run"),
        "--device",
        "cpu",
        "--minutes",
        "0.01",
    ]
    assert cli.run(parser.parse_args(arguments)) == 3
    assert (tmp_path / "run" / "checkpoint.pt").is_file()


def test_exported_weights_are_the_average_that_was_asked_for(trainer, batch, tmp_path, monkeypatch):
    trainer.folder.mkdir()
    paths = []
    for name in ("a.pt", "b.pt"):
        trainer.train_step(batch)
        trainer.save(trainer.folder / name)
        paths.append(trainer.folder / name)
    out = tmp_path / "samu.npz"
    (tmp_path / "info.json").write_text('{"name": "average"}')
    parser = argparse.ArgumentParser()
    export.add_arguments(parser)
    arguments = [f"{paths[0]}:1", f"{paths[1]}:3", "--out", str(out), "--info", str(tmp_path / "info.json")]
    assert export.run(parser.parse_args(arguments)) == 0
    first, second, average = (weights.load_network(path).state_dict() for path in (*paths, out))
    name = "decoder.head.bias"
    torch.testing.assert_close(average[name], 0.25 * first[name] + 0.75 * second[name])
    assert weights.read_info(out)["name"] == "average"
    with pytest.raises(SamuError, match="--config"):
        export.run(parser.parse_args([*arguments, "--remeasure", "2"]))
    monkeypatch.setattr(weights, "LARGE", 1024)
    fine = out.stat().st_size
    assert export.run(parser.parse_args([*arguments, "--step", "0.4"])) == 0
    assert out.stat().st_size < 0.9 * fine
    with pytest.raises(SamuError, match="from 0 to 1"):
        export.run(parser.parse_args([*arguments, "--step", "2"]))


def test_remeasured_statistics_are_those_of_the_batches(trainer, batch):
    norm = trainer.network.encoder.levels[0][0][1]
    weight = trainer.network.encoder.levels[0][0][0].weight.clone()
    features = []
    hook = norm.register_forward_pre_hook(lambda _module, inputs: features.append(inputs[0]))
    assert remeasure_statistics(trainer.network, [batch, batch]) == 2
    hook.remove()
    torch.testing.assert_close(norm.running_mean, features[0].mean((0, 2, 3, 4)), rtol=2e-3, atol=1e-4)
    assert torch.equal(trainer.network.encoder.levels[0][0][0].weight, weight)
    assert norm.momentum == 0.1 and not trainer.network.training


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"phases": [{"minutes": 1}]},
        {"phases": [], "colour": 1},
        {"phases": [{"crops": [{}]}]},
        {"phases": [], "accumulate": 0},
    ],
)
def test_unusable_settings_are_named(values):
    with pytest.raises(SamuError, match="known settings"):
        TrainingSettings.from_dict(values)


def test_real_data_must_be_there_when_asked_for(tmp_path):
    wants = {**TINY, "phases": [{**TINY["phases"][0], "real": 0.5}]}
    with pytest.raises(SamuError, match="--data"):
        load_sources(tmp_path, TrainingSettings.from_dict(wants))


def test_ranks_take_the_same_steps_and_end_with_the_same_weights(tmp_path):
    torch.multiprocessing.spawn(rank_main, (str(tmp_path),), nprocs=2)
    (first, seconds, steps), (second, *other) = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert [seconds, steps] == other and steps >= 1
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], msg=name)
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["samples"] == 4 * steps
