"""Where samples come from: unlabelled regions, mirrored shape maps, cropped volumes, shares."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from training_volumes import packed  # noqa: E402

from samu_core.training import clicks, pack, regions, samples, stream  # noqa: E402
from samu_core.training.settings import CropSettings, PhaseSettings  # noqa: E402


@pytest.fixture
def bright_boxes():
    """A body of 300 with two boxes of 800 that touch nothing else, on black: uint16 (40, 44, 48)."""
    image = np.zeros((40, 44, 48), np.uint16)
    image[6:34, 6:38, 6:42] = 300
    image[10:18, 10:18, 10:18] = 800
    image[22:30, 22:34, 20:32] = 800
    return image


def test_regions_are_connected_pieces_of_one_intensity(bright_boxes, monkeypatch):
    monkeypatch.setattr(regions, "BANDS", 250)  # enough that some are drawn around the boxes' value
    labels = regions.region_labels(bright_boxes, np.random.default_rng(0))
    found = [labels == value for value in np.unique(labels) if value]
    assert found
    for region in found:
        assert regions.LEAST <= region.sum() <= regions.MOST
        assert region[0].sum() == 0 and np.median(bright_boxes[region]) > 0, (
            "the darkness around is no object"
        )
    boxes = [region for region in found if np.median(bright_boxes[region]) == 800]
    assert len(boxes) == 2, "pieces that do not touch are two regions"


def test_dark_cavities_count_as_inside_and_the_darkness_around_does_not(bright_boxes):
    bright_boxes[12:16, 24:32, 26:34] = 0
    inside = regions._inside(bright_boxes)
    assert inside[14, 28, 30] and inside[20, 20, 20] and not inside[2, 2, 2]


def test_a_flat_image_has_no_regions():
    assert not regions.region_labels(np.full((20, 20, 20), 7, np.uint16), np.random.default_rng(0)).any()


def test_region_volumes_are_kept_and_read_again(bright_boxes, tmp_path, monkeypatch):
    volume = packed(np.zeros(bright_boxes.shape), bright_boxes.astype(np.float32) / pack.LEVELS)
    first = regions.region_volumes([volume, volume], tmp_path, most_per_source=1)
    assert len(first) == 1 and first[0].image is volume.image
    monkeypatch.setattr(regions, "region_labels", lambda *_: pytest.fail("computed again"))
    again = regions.region_volumes([volume], tmp_path, most_per_source=1)
    assert np.array_equal(again[0].ids, first[0].ids)
    assert not regions.region_volumes([packed(np.zeros((9, 9, 9)), np.ones((9, 9, 9)))], tmp_path, 1)


def test_cropping_keeps_labels_where_they_are_in_the_image(bright_boxes):
    labels = (bright_boxes == 800).astype(int)
    volume = packed(labels, bright_boxes)
    small = volume.cropped(margin=2)
    assert small.ids.shape == (32, 36, 40)
    for index, (k0, k1, j0, j1, i0, i1) in enumerate(small.boxes):
        inside = small.ids == index + 1
        assert inside[k0:k1, j0:j1, i0:i1].sum() == volume.counts[index] == inside.sum()
        assert (small.image[inside] == 800).all()


def test_kept_voxels_are_voxels_of_the_component(bright_boxes):
    volume = packed((bright_boxes == 800).astype(int), bright_boxes)
    for component in range(len(volume.labels)):
        voxels = volume.voxels(component, np.random.default_rng(0))
        assert len(voxels) == min(volume.counts[component], pack.KEPT_VOXELS)
        assert (volume.ids[tuple(voxels.T)] == component + 1).all()
        assert len(np.unique(voxels, axis=0)) == len(voxels)


def test_depth_is_the_distance_to_the_nearest_other_voxel():
    ids = np.zeros((30, 30, 30), np.uint16)
    ids[5:20, 5:20, 5:20] = 1
    assert clicks._depth(ids, 1, np.array([5, 12, 12])) == 1
    assert clicks._depth(ids, 1, np.array([8, 12, 12])) == 4
    assert clicks._depth(ids, 1, np.array([12, 12, 12])) == clicks.DEPTH_REACH + 1


def test_shape_maps_go_on_as_their_mirror_image_beyond_their_border():
    ids = np.zeros((8, 8, 8), np.uint16)
    ids[:, :, 6:] = 1
    ids[:, :, 0] = 2
    line = torch.stack(
        [torch.full((1, 1, 24), 4.0), torch.full((1, 1, 24), 4.0), torch.arange(24.0).view(1, 1, -1) - 8]
    )
    found = samples._gather_ids(ids, line, mirrored=True)[1].flatten().tolist()
    assert found[8:16] == [2, 0, 0, 0, 0, 0, 1, 1]
    assert found[16:24] == [3, 3, 0, 0, 0, 0, 0, 4], "copies are structures of their own"
    assert found[:8] == [3, 3, 0, 0, 0, 0, 0, 4]
    outside = samples._gather_ids(ids, line, mirrored=False)[1].flatten().tolist()
    assert not any(outside[:8]) and not any(outside[16:])


def test_patches_of_shapes_are_filled(monkeypatch):
    monkeypatch.setattr(
        samples, "_limited_field_of_view", lambda size, *_: torch.ones((size,) * 3, dtype=torch.bool)
    )
    labels = np.ones((32, 32, 32), int)
    labels[10:20, 10:20, 10:20] = 2
    volume = packed(labels, source="shapes")
    rng = np.random.default_rng(0)
    sample = next(
        filter(None, (samples.make_sample(volume, samples.CropSpec(32, 6.0), rng, True) for _ in range(50)))
    )
    lowest = (sample.patch == sample.patch.min()).float().mean()
    assert lowest < 0.02, "no voxel is padding"


def test_crops_of_one_structure_are_drawn_less_often_than_whole_volumes():
    small, large = (np.zeros((n, n, n), int) for n in (20, 90))
    weights = stream.source_weights([packed(small, source="a"), packed(large, source="b")])
    assert weights.sum() == pytest.approx(1)
    assert weights[0] < 0.2


def test_regions_take_their_share_of_the_real_samples(bright_boxes, monkeypatch):
    image = bright_boxes.astype(np.float32) / pack.LEVELS
    real, region = (
        packed((bright_boxes == 800).astype(int), image, name=name) for name in ("real", "region")
    )
    sources = stream.Sources([real], [], [], [region])
    phase = PhaseSettings(1, (CropSettings(32, (1.5, 1.5), 1),), real=1.0, labelmaps=0.0, regions=0.25)
    drawn = []
    monkeypatch.setattr(stream, "make_sample", lambda volume, *_, **__: drawn.append(volume.name))
    batches = stream.BatchStream(sources, phase, torch.ones(1), 0)
    rng = np.random.default_rng(0)
    for _ in range(400):
        batches._sample(samples.CropSpec(32, 1.5), rng)
    assert drawn.count("region") / 400 == pytest.approx(0.25, abs=0.06)
