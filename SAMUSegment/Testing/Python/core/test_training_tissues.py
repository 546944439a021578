"""Anatomy painted by tissue: bones with a cortex, organs with means of their own, wholes made of parts."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from training_volumes import packed  # noqa: E402

from samu_core.training import clicks, samples, stream, tissues  # noqa: E402
from samu_core.training.contrast import anatomy_image  # noqa: E402
from samu_core.training.settings import TrainingSettings  # noqa: E402

ABDOMEN = "mhalle/spl-abdominal-atlas"


def trunk() -> np.ndarray:
    """Two vertebrae with a disc, and a liver beside them, with the abdominal atlas's label values."""
    labels = np.zeros((40, 40, 40), np.int32)
    labels[2:16, 8:24, 4:20] = 501
    labels[16:20, 8:24, 4:20] = 551
    labels[20:34, 8:24, 4:20] = 502
    labels[4:36, 6:36, 24:38] = 3
    return labels


def painted(is_ct: bool, seed: int, spacing: float = 1.5):
    volume = packed(trunk(), source=ABDOMEN)
    ids = torch.from_numpy(volume.ids.astype(np.int64))
    kinds = tissues.tissues_of(volume.source, volume.labels)
    rng = np.random.default_rng(seed)
    return volume, ids, tissues.paint_anatomy(ids, kinds, volume.labels, spacing, is_ct, rng)


def test_every_table_names_tissues_that_can_be_painted():
    for source, table in tissues.SOURCES.items():
        assert table, source
        assert all(0 <= kind < tissues.COUNT for kind in table.values())
    for appearance in (tissues.CT, *tissues.MR):
        assert set(appearance) == set(range(tissues.COUNT))


def test_labels_without_a_table_have_no_tissues_and_those_not_listed_are_organs():
    assert tissues.tissues_of("somewhere/else", np.array([1, 2])) is None
    kinds = tissues.tissues_of(ABDOMEN, np.array([501, 551, 3, 7]))
    assert kinds.tolist() == [tissues.BONE, tissues.DISC, tissues.ORGAN, tissues.ARTERY]


def test_bones_have_a_bright_cortex_around_marrow_that_all_of_them_share():
    for seed in range(12):
        _, _, image = painted(True, seed)
        marrow = [float(image[part, 12:20, 8:16].mean()) for part in (slice(6, 12), slice(24, 30))]
        cortex = float(torch.cat([image[6:12, 12:20, 4], image[24:30, 12:20, 4]]).mean())
        assert abs(marrow[0] - marrow[1]) < 100, "two vertebrae are of one tissue"
        assert cortex > np.mean(marrow) + 20
        assert cortex > float(image[17:19, 12:20, 8:16].mean()), "a disc has no cortex"


def test_a_cortex_thinner_than_a_voxel_fills_a_share_of_it():
    fine = np.mean([float(painted(True, seed, 1.0)[2][6:12, 12:20, 4].mean()) for seed in range(8)])
    coarse = np.mean([float(painted(True, seed, 4.0)[2][6:12, 12:20, 4].mean()) for seed in range(8)])
    assert fine > coarse + 50


def test_mr_images_show_a_dark_cortex():
    darker = 0
    for seed in range(12):
        _, _, image = painted(False, seed)
        darker += float(image[6:12, 12:20, 4].mean()) < float(image[6:12, 12:20, 8:16].mean())
    assert darker >= 10


def test_air_lies_beyond_the_body_only():
    labels = np.zeros((64, 64, 64), np.int32)
    labels[4:20, 4:20, 4:20] = 501
    volume = packed(labels, source=ABDOMEN)
    ids = torch.from_numpy(volume.ids.astype(np.int64))
    kinds = tissues.tissues_of(volume.source, volume.labels)
    airy = 0
    for seed in range(12):
        image = tissues.paint_anatomy(ids, kinds, volume.labels, 1.5, True, np.random.default_rng(seed))
        assert float(image[ids > 0].min()) > -600, "no air in bones"
        airy += float(image[56:, 56:, 56:].mean()) < -900
    assert 4 <= airy < 12, "most patches end at a skin"


def test_an_image_of_anatomy_is_finite_and_repeats_with_its_seed():
    volume = packed(trunk(), source=ABDOMEN)
    ids = torch.from_numpy(volume.ids.astype(np.int64))
    kinds = tissues.tissues_of(volume.source, volume.labels)
    for seed in range(6):
        first, second = (
            anatomy_image(ids, kinds, volume.labels, 1.5, np.random.default_rng(seed), 0.7) for _ in range(2)
        )
        assert bool(torch.isfinite(first).all()) and torch.equal(first, second)
        assert float(first.std()) > 0


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_samples_of_such_a_map_are_painted_by_tissue(monkeypatch, share):
    calls = []
    monkeypatch.setattr(samples, "anatomy_image", lambda *given: calls.append(given) or anatomy_image(*given))
    rng, spec = np.random.default_rng(3), samples.CropSpec(32, 1.5, clicks=2, anatomy=share)
    drawn = [
        samples.make_sample(packed(trunk(), source=source), spec, rng, True)
        for source in [ABDOMEN] * 8 + ["somewhere/else"] * 8
    ]
    made = sum(sample is not None for sample in drawn[:8])
    assert made and len(calls) == made * share, "maps of other sources are painted at random"


def test_a_phase_says_how_its_samples_are_made(monkeypatch):
    specs = []
    crop = {"size": 32, "spacing": [2, 3], "batch": 1}
    phase = {"minutes": 1, "labelmaps": 1.0, "real": 0.0, "crops": [crop]}
    for changes in ({}, {"anatomy": 0.1, "centred": 1.0, "plain": True}):
        settings = TrainingSettings.from_dict({"phases": [{**phase, **changes}]})
        sources = stream.Sources([], [packed(trunk(), source=ABDOMEN)], [])
        batches = stream.BatchStream(sources, settings.phases[0], torch.ones(1), 0)
        monkeypatch.setattr(batches, "_sample", lambda spec, rng: specs.append(spec) or made_up())
        batches.batch(settings.phases[0].crops[0], 2.5, np.random.default_rng(0))
    assert [(spec.anatomy, spec.centred, spec.plain) for spec in specs] == [
        (0.8, 0.65, False),
        (0.1, 1.0, True),
    ]


def made_up() -> samples.Sample:
    """A sample of nothing."""
    return samples.Sample(torch.zeros(32, 32, 32), torch.zeros(1, 32, 32, 32) > 0, torch.zeros(1, 3), 1.0)


def test_bones_and_discs_are_clicked_more_often():
    volume = packed(trunk(), source=ABDOMEN)
    assert tissues.click_factors(ABDOMEN, volume.labels).tolist() == [
        1.0 if label == 3 else 2.5 for label in volume.labels
    ]
    assert tissues.click_factors("somewhere/else", volume.labels).tolist() == [1.0] * len(volume.labels)
    shares = []
    for source in (ABDOMEN, "somewhere/else"):
        rng = np.random.default_rng(0)
        drawn = [clicks.draw_component(packed(np.pad(trunk(), 16), source=source), rng) for _ in range(300)]
        shares.append(np.mean(volume.labels[drawn] != 3))
    assert shares[0] > shares[1] + 0.1


def test_parts_of_vertebrae_are_left_out_of_a_run(tmp_path):
    (name,) = tissues.LEFT_OUT
    for each in (name, "other"):
        packed(trunk(), source="BrainLesion/panoptica", name=each).save(tmp_path / f"{each}.npz")
    settings = TrainingSettings.from_dict(
        {
            "shapes": 0,
            "phases": [
                {"minutes": 1, "labelmaps": 1.0, "crops": [{"size": 32, "spacing": [2, 3], "batch": 1}]}
            ],
        }
    )
    sources = stream.load_sources(tmp_path, settings, cache=tmp_path)
    assert [volume.name for volume in sources.labelmaps] == ["other"]


def test_lobes_become_one_lung():
    labels = np.zeros((20, 20, 20), np.int32)
    labels[2:8, 2:18, 2:8], labels[8:18, 2:18, 2:8] = 1, 2
    labels[2:18, 2:18, 12:18] = 4
    volume = packed(labels, source="muschellij2/lungct")
    merged = volume.merged(tissues.WHOLES[volume.source])
    assert merged.labels.tolist() == [1, 4] and merged.counts.tolist() == [16 * 16 * 6] * 2
    assert merged.boxes.tolist() == [[2, 18, 2, 18, 2, 8], [2, 18, 2, 18, 12, 18]]
    assert (merged.ids == np.where(labels == 4, 2, labels > 0)).all()
    assert (volume.ids == labels.clip(max=3)).all(), "what it was made of stays"
    assert packed(labels).merged(()).labels.tolist() == [1, 2, 4]
