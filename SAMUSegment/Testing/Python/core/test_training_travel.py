"""Training on a machine that little travels to: shrunk packs, a carried bank, shards, the rehearsal."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
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


def test_an_image_as_jpeg_keeps_its_place_and_its_values(tmp_path):
    full = volume(noise=90)
    full.image[5, 6, 7] = pack.LEVELS  # the brightest must not become the darkest
    full.save(tmp_path / "v.npz", quality=90)
    small = PackedVolume.load(tmp_path / "v.npz")
    assert np.array_equal(small.ids, full.ids) and np.array_equal(small.boxes, full.boxes)
    assert small.image.dtype == np.uint16 and small.image.shape == full.image.shape
    error = small.image.astype(float) - full.image
    assert np.sqrt((error**2).mean()) < 20 and abs(error.mean()) < 2
    assert small.image[5, 6, 7] > 600
    # A voxel of shift would show as another mean of the two sides of the box.
    profile = small.image[20, 18].astype(int)
    assert profile[:11].max() < 500 and profile[13:39].min() > 600 and profile[41:].max() < 500


@pytest.mark.parametrize("shape", [(1, 9, 7), (5, 3, 8), (40, 44, 48), (700, 6, 5)])
def test_slices_side_by_side_come_back_in_their_order(shape):
    slices = np.repeat(np.arange(shape[0]) % 200, shape[1] * shape[2]).reshape(shape).astype(np.uint16) * 4
    assert max(pack._tiled(slices).shape) < 65_500
    found = pack._from_jpeg(pack._jpeg(slices, 95), shape)
    assert np.abs(found.astype(int) - slices)[:, 1:-1, 1:-1].mean() < 16


def test_of_large_data_sets_as_many_volumes_travel_as_fit(tmp_path):
    (tmp_path / "pack").mkdir()
    for number in range(4):
        volume(f"v{number}", noise=200).save(tmp_path / "pack" / f"v{number}.npz")
    replace(volume("other"), source="t").save(tmp_path / "pack" / "other.npz")
    whole = travel.pack_small(tmp_path / "pack", tmp_path / "whole", 10**9)
    assert whole == travel.folder_bytes(tmp_path / "whole")
    total = travel.pack_small(tmp_path / "pack", tmp_path / "small", int(0.6 * whole))
    assert total <= 0.6 * whole and total == travel.folder_bytes(tmp_path / "small")
    assert sorted(path.stem for path in (tmp_path / "small").iterdir()) == ["other", "v0", "v3"]
    with pytest.raises(SamuError, match="one volume of each"):
        travel.pack_small(tmp_path / "pack", tmp_path / "none", 100)
    with pytest.raises(SamuError, match="samu train"):
        travel.pack_small(tmp_path / "empty", tmp_path / "none", 100)


def test_a_large_data_set_is_thinned_out_evenly():
    paths = [Path(f"v{number}") for number in range(5)]
    assert [path.name for path in travel.spread(paths, 3)] == ["v0", "v2", "v4"]
    assert travel.spread(paths, 9) == paths


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


def test_the_gpu_config_is_stretched_to_a_command():
    settings, _ = read_config(REPOSITORY / "configs" / "gpu.yaml")
    fitted = settings.fitted(480.0)
    assert 60 * fitted.minutes == pytest.approx(480.0)
    shares = [phase.minutes / settings.minutes for phase in settings.phases]
    assert [phase.minutes / fitted.minutes for phase in fitted.phases] == pytest.approx(shares)


@pytest.mark.slow
def test_the_rehearsal_passes_without_the_packages_that_are_not_there(tmp_path):
    command = [sys.executable, str(REPOSITORY / "tools" / "gpu_run.py"), "rehearse", "--seconds", "25"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "another machine" in done.stderr  # the third command lost the first one
    assert "generator and steps together" in done.stdout and "failed" not in done.stdout
    assert load_network(tmp_path / "checkpoint.pt") is not None
    back = [path for path in (tmp_path / "out-3").iterdir() if path.is_file()]
    assert len(back) <= 8 and all(path.stat().st_size <= 16 * 2**20 for path in back)
    kept = [json.loads((tmp_path / f"out-{n}" / "progress.json").read_text()) for n in (1, 2, 3)]
    assert kept[0]["settings"] == kept[1]["settings"] == kept[2]["settings"]  # one schedule for all three
