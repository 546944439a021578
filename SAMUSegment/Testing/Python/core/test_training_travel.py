"""Training on a machine that little travels to: shrunk packs, a carried bank, shards, the rehearsal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")
pytest.importorskip("yaml")

from training_ranks import TINY  # noqa: E402

from samu_core.errors import SamuError  # noqa: E402
from samu_core.training import pack, travel  # noqa: E402
from samu_core.training.chain import read_config  # noqa: E402
from samu_core.training.pack import PackedVolume  # noqa: E402
from samu_core.training.settings import TrainingSettings  # noqa: E402
from samu_core.training.stream import load_sources  # noqa: E402
from samu_core.training.trainer import Trainer  # noqa: E402
from samu_core.weights import load_network  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[4]


def volume(name="v", noise=0):
    """A bright box of even bounds, a small one that halving makes too small, and the image of both."""
    labels = np.zeros((40, 44, 48), np.int32)
    labels[10:30, 8:28, 12:40] = 5
    labels[34:38, 36:39, 40:43] = 2  # 36 voxels
    image = np.where(labels > 0, 803, 203) + np.random.default_rng(0).integers(0, noise + 1, labels.shape)
    ids, values, counts, boxes = pack.components(labels)
    return PackedVolume(name, "s", "CT", 1.5, ids, image.astype(np.uint16), values, counts, boxes)


def test_half_the_resolution_keeps_labels_on_their_image():
    small = travel.shrink(volume(), halve=True)
    assert small.spacing == 3.0 and small.ids.shape == small.image.shape == (20, 22, 24)
    assert small.labels.tolist() == [5] and sorted(np.unique(small.ids)) == [0, 1]
    assert small.boxes.tolist() == [[5, 15, 4, 14, 6, 20]]
    assert small.counts.tolist() == [(small.ids == 1).sum()] == [10 * 10 * 14]
    inner = small.ids[6:14, 5:13, 7:19] == 1
    assert inner.all() and (small.image[6:14, 5:13, 7:19] == 804).all()
    # Half a voxel of shift would show as another mean of the two sides of the box.
    profile = small.image[10, 9].astype(int)
    assert profile[5] < profile[6] and profile[19] > profile[20] and (profile[:5] == 204).all()


def test_full_resolution_loses_the_two_lowest_bits_only():
    full = volume(noise=90)
    small = travel.shrink(full, halve=False)
    assert np.array_equal(small.ids, full.ids) and np.array_equal(small.boxes, full.boxes)
    assert np.abs(small.image.astype(int) - full.image).max() <= 2
    assert len(np.unique(small.image)) <= len(np.unique(full.image)) / 3


def test_the_largest_files_are_halved_until_all_fit(tmp_path):
    (tmp_path / "pack").mkdir()
    volume("plain").save(tmp_path / "pack" / "plain.npz")
    volume("noisy", noise=200).save(tmp_path / "pack" / "noisy.npz")
    whole = travel.pack_small(tmp_path / "pack", tmp_path / "whole", 10**9)
    total = travel.pack_small(tmp_path / "pack", tmp_path / "small", int(0.6 * whole))
    assert total <= 0.6 * whole and total == travel.folder_bytes(tmp_path / "small")
    spacing = {n: PackedVolume.load(tmp_path / "small" / f"{n}.npz").spacing for n in ("plain", "noisy")}
    assert spacing == {"plain": 1.5, "noisy": 3.0}
    with pytest.raises(SamuError, match="take fewer"):
        travel.pack_small(tmp_path / "pack", tmp_path / "none", 100)
    with pytest.raises(SamuError, match="samu train"):
        travel.pack_small(tmp_path / "empty", tmp_path / "none", 100)


def test_a_large_data_set_is_thinned_out_evenly(tmp_path):
    for number in range(5):
        volume(f"v{number}").save(tmp_path / f"v{number}.npz")
    assert [path.stem for path in travel.choose_volumes(tmp_path, 3)] == ["v0", "v2", "v4"]
    assert len(travel.choose_volumes(tmp_path, 9)) == 5


def test_the_carried_banks_are_the_banks(tmp_path, monkeypatch):
    wanted = {**TINY, "shapes": 3, "skeletons": 2}
    wanted["phases"] = [{**phase, "skeletons": 0.1} for phase in TINY["phases"]]
    settings = TrainingSettings.from_dict(wanted)
    drawn = load_sources(None, settings, cache=tmp_path)
    travel.save_banks(drawn, tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["shapes.bank", "skeletons.bank"]
    monkeypatch.setitem(sys.modules, "scipy", None)  # components cannot be numbered there
    carried = travel.load_carried(tmp_path, settings)
    assert (len(carried.shapes), len(carried.skeletons)) == (3, 2)
    for one, other in zip(drawn.shapes + drawn.skeletons, carried.shapes + carried.skeletons):
        assert one.name == other.name and one.source == other.source
        for name in ("ids", "labels", "counts", "boxes"):
            assert np.array_equal(getattr(one, name), getattr(other, name))


def test_shards_become_a_checkpoint_that_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(travel, "SHARD_BYTES", 20_000)
    settings = TrainingSettings.from_dict(TINY)
    sources = load_sources(None, settings)
    trainer = Trainer(settings, sources, tmp_path / "run")
    trainer.run(stop_after=0.5)
    paths = travel.write_shards(trainer, tmp_path / "out")
    assert len(paths) > 3 and all(path.stat().st_size <= 20_000 for path in paths)
    progress = travel.merge_shards(tmp_path / "out", tmp_path / "merged" / "checkpoint.pt")
    assert progress["step"] == trainer.step
    found = load_network(tmp_path / "merged" / "checkpoint.pt").state_dict()
    for name, value in trainer.ema.state_dict().items():
        assert torch.allclose(found[name].float(), value.float(), rtol=1e-3, atol=1e-4), name
    again = Trainer(settings, sources, tmp_path / "merged")
    again.load(tmp_path / "merged" / "checkpoint.pt")
    assert (again.step, again.seconds) == (trainer.step, trainer.seconds)
    again.run(stop_after=0.3)
    assert again.step > trainer.step
    first = tmp_path / "out" / "ema-00.shard"
    first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(SamuError, match="truncated"):
        travel.merge_shards(tmp_path / "out", tmp_path / "x.pt")
    first.unlink()
    with pytest.raises(SamuError, match="copy all"):
        travel.merge_shards(tmp_path / "out", tmp_path / "x.pt")


def test_a_stage_of_the_gpu_config_fits_into_a_command():
    settings, _ = read_config(REPOSITORY / "configs" / "gpu.yaml")
    assert [(phase.crops[0].size, phase.crops[0].batch) for phase in settings.phases] == [
        (64, 48), (96, 16), (128, 8),
    ]  # fmt: skip
    assert all(phase.minutes <= 8.5 for phase in settings.phases) and settings.minutes <= 11  # of 15 lent
    assert (
        settings.minutes * settings.decay_share < sum(phase.minutes for phase in settings.phases[-1:]) + 0.1
    )


@pytest.mark.slow
def test_the_rehearsal_passes_without_the_packages_that_are_not_there(tmp_path):
    command = [sys.executable, str(REPOSITORY / "tools" / "gpu_run.py"), "rehearse", "--seconds", "2"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "another machine" in done.stderr  # stage 3 lost the first one
    assert load_network(tmp_path / "checkpoint.pt") is not None
    back = [path for path in (tmp_path / "out-3").iterdir() if path.is_file()]
    assert len(back) <= 8 and all(path.stat().st_size <= 16 * 2**20 for path in back)
    assert json.loads((tmp_path / "out-3" / "quick.json").read_text())["samples"] == 2
