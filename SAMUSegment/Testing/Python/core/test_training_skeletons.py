"""Random skeletons: bones in one piece, discs between vertebrae, a free canal, and runs that draw them."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
ndimage = pytest.importorskip("scipy.ndimage")

from samu_core.errors import SamuError  # noqa: E402
from samu_core.training import banks, skeletons, stream, tissues  # noqa: E402
from samu_core.training.settings import TrainingSettings  # noqa: E402

SIZE = 80


@pytest.fixture(scope="module")
def maps() -> dict[int, np.ndarray]:
    return {seed: skeletons.skeleton_map(SIZE, np.random.default_rng(seed)) for seed in range(12)}


@pytest.fixture(scope="module")
def spines(maps) -> dict[int, np.ndarray]:
    return {seed: labels for seed, labels in maps.items() if (labels == skeletons.CORD).any()}


def settings(**changed) -> TrainingSettings:
    phase = {"minutes": 1, "real": 0, "labelmaps": 0, "skeletons": 1.0}
    phase["crops"] = [{"size": 32, "spacing": [2, 3], "batch": 2, "clicks": 2}]
    return TrainingSettings.from_dict(
        {"shapes": 1, "skeletons": 2, "shape_size": 48, "phases": [phase], **changed}
    )


def is_bone(labels: np.ndarray) -> np.ndarray:
    return (labels >= skeletons.BONES) & (labels < skeletons.DISCS)


def test_a_seed_gives_one_skeleton_and_another_seed_another(maps):
    assert np.array_equal(maps[3], skeletons.skeleton_map(SIZE, np.random.default_rng(3)))
    assert maps[3].dtype == np.uint8 and maps[3].shape == (SIZE,) * 3
    assert not np.array_equal(maps[3], maps[4])


def test_every_bone_is_in_one_piece(maps):
    for seed, labels in maps.items():
        present = np.unique(labels[is_bone(labels)])
        assert len(present) > 1, f"skeleton {seed} has no bones"
        for label in present:
            assert ndimage.label(labels == label, np.ones((3, 3, 3)))[1] == 1, (seed, label)


def test_there_are_spines_and_others(maps, spines):
    assert 3 <= len(spines) < len(maps)


def test_a_disc_lies_between_two_vertebrae(spines):
    for labels in spines.values():
        touched = []
        for disc in np.unique(labels[(labels >= skeletons.DISCS) & (labels < skeletons.CORD)]):
            where = labels == disc
            if any(where.take(end, axis).any() for axis in range(3) for end in (0, -1)):
                continue  # cut by the map's faces, and the vertebra beyond with it
            around = labels[ndimage.binary_dilation(where, np.ones((3, 3, 3)))]
            _, counts = np.unique(around[is_bone(around)], return_counts=True)
            touched.append(int((counts > 10).sum()))
        assert touched and np.median(touched) == 2


def test_the_cord_runs_through_the_whole_map_with_no_bone_in_it(spines):
    for labels in spines.values():
        cord = labels == skeletons.CORD
        assert cord.any((1, 2)).mean() > 0.95
        filled = ndimage.binary_closing(cord, iterations=1)
        assert is_bone(labels)[filled].mean() < 0.02


def test_every_label_has_a_tissue(maps):
    for labels in maps.values():
        present = np.unique(labels[labels > 0])
        kinds = tissues.tissues_of("skeletons", present)
        assert ((kinds == tissues.BONE) == is_bone(present)).all()
        discs = (present >= skeletons.DISCS) & (present < skeletons.CORD)
        assert ((kinds == tissues.DISC) == discs).all()
        assert (kinds[present == skeletons.CANAL] == tissues.FLUID).all()


def test_bones_are_clicked_rather_than_what_lies_around():
    factors = tissues.click_factors("skeletons", np.array([1, skeletons.DISCS, skeletons.SOFT]))
    assert factors[0] == factors[1] > 5 * factors[2] > 0


def test_a_run_draws_from_its_bank_and_keeps_it(tmp_path, monkeypatch):
    sources = stream.load_sources(None, settings(), cache=tmp_path)
    assert [volume.source for volume in sources.skeletons] == ["skeletons"] * 2
    batch = next(iter(stream.BatchStream(sources, settings().phases[0], torch.ones(1), 5)))
    assert batch.patch.shape == (2, 1, 32, 32, 32) and bool(torch.isfinite(batch.patch).all())
    assert bool((batch.target.sum((1, 2, 3, 4)) > 0).all())
    monkeypatch.setitem(banks.DRAW, "skeletons", lambda *_: pytest.fail("drawn again"))
    again = stream.load_sources(None, settings(), cache=tmp_path).skeletons
    assert all(np.array_equal(a.ids, b.ids) for a, b in zip(again, sources.skeletons))
    with pytest.raises(pytest.fail.Exception):
        stream.load_sources(None, settings(seed=1), cache=tmp_path)


def test_a_phase_that_wants_skeletons_of_an_empty_bank_is_refused():
    with pytest.raises(SamuError, match="set skeletons to 200"):
        settings(skeletons=0)


def test_a_run_without_skeletons_draws_none(monkeypatch):
    monkeypatch.setitem(banks.DRAW, "skeletons", lambda *_: pytest.fail("drawn"))
    without = settings(phases=[{"minutes": 1, "real": 0, "labelmaps": 0, "crops": []}])
    assert stream.load_sources(None, without).skeletons == []
