"""Training data: packing, random shapes, synthetic contrast, samples and their balance."""

from __future__ import annotations

import csv

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from training_volumes import packed  # noqa: E402

from samu_core.training import pack, samples, shapes, stream  # noqa: E402
from samu_core.training.contrast import blur, synthetic_image  # noqa: E402
from samu_core.training.pack import PackedVolume  # noqa: E402
from samu_core.training.structure import maximum_filter  # noqa: E402


def two_boxes() -> np.ndarray:
    labels = np.zeros((40, 40, 40), int)
    labels[5:15, 5:15, 5:15] = 7
    labels[25:35, 22:36, 24:33] = 7
    labels[6:20, 28:36, 6:12] = 3
    labels[38, 38, 38] = 9  # a speck
    return labels


def test_components_are_numbered_apart_and_specks_dropped():
    volume = packed(two_boxes())
    assert sorted(volume.labels.tolist()) == [3, 7, 7]
    assert volume.ids[38, 38, 38] == 0
    for index, (k0, k1, j0, j1, i0, i1) in enumerate(volume.boxes):
        inside = volume.ids == index + 1
        assert inside.sum() == volume.counts[index]
        assert inside[k0:k1, j0:j1, i0:i1].sum() == volume.counts[index]


def test_packed_volumes_come_back_as_they_were(tmp_path):
    volume = packed(two_boxes(), np.arange(64000, dtype=np.uint16).reshape(40, 40, 40))
    volume.save(tmp_path / "v.npz")
    loaded = PackedVolume.load(tmp_path / "v.npz")
    for name in ("ids", "image", "labels", "counts", "boxes"):
        assert np.array_equal(getattr(loaded, name), getattr(volume, name))
    assert (loaded.name, loaded.source, loaded.spacing) == (volume.name, volume.source, volume.spacing)


@pytest.fixture
def data(tmp_path):
    """A folder as ../shared/data: one CT with labels for training, one for dev, one label map."""
    sitk = pytest.importorskip("SimpleITK")
    (tmp_path / "vol").mkdir()
    (tmp_path / "labelmaps").mkdir()
    labels = two_boxes().astype(np.uint8)
    rows = []
    for name, folder, split in (
        ("ct1", "vol", "train"),
        ("ct2", "vol", "dev"),
        ("map", "labelmaps", "train"),
    ):
        for kind, values in (("lab", labels), ("img", (labels * 30 - 50).astype(np.int16))):
            if kind == "img" and folder != "vol":
                continue
            image = sitk.GetImageFromArray(values)
            image.SetSpacing((1.0, 1.0, 3.0))
            sitk.WriteImage(image, str(tmp_path / folder / f"{name}_{kind}.nii.gz"))
        has_image = "1" if folder == "vol" else "0"
        rows.append([name, has_image, split, "CT", "visible", "a/b"])
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "has_image", "split", "modality", "boundary", "source_repo"])
        writer.writerows(rows)
    return tmp_path


def test_packing_takes_one_split_and_resamples_to_the_pack_grid(data, tmp_path):
    paths = pack.pack_data(data, tmp_path / "pack")
    assert sorted(path.stem for path in paths) == ["ct1", "map"], "dev subjects must stay out"
    volume = PackedVolume.load(tmp_path / "pack" / "ct1.npz")
    assert volume.ids.shape == (80, 27, 27)
    body = volume.image[volume.ids == 1 + int(np.flatnonzero(volume.labels == 7)[0])]
    expected = (160 + 1000) / 2000 * pack.LEVELS
    assert abs(np.median(body.astype(float)) - expected) <= 1
    assert PackedVolume.load(tmp_path / "pack" / "map.npz").image is None


def test_packing_says_which_folder_it_wants(tmp_path):
    with pytest.raises(FileNotFoundError, match="manifest.csv"):
        pack.pack_data(tmp_path, tmp_path / "pack")


def test_shape_maps_hold_many_objects_and_repeat_with_their_seed():
    first = shapes.shape_map(48, np.random.default_rng(5))
    assert first.shape == (48, 48, 48)
    assert len(np.unique(first)) > 6
    assert np.array_equal(first, shapes.shape_map(48, np.random.default_rng(5)))
    assert not np.array_equal(first, shapes.shape_map(48, np.random.default_rng(6)))


def test_rotations_are_rotations():
    for seed in range(5):
        rotation = shapes.random_rotation(np.random.default_rng(seed))
        assert np.allclose(rotation @ rotation.T, np.eye(3)) and np.linalg.det(rotation) == pytest.approx(1)


def test_maxima_and_blur_against_their_definitions():
    image = torch.zeros(9, 9, 9)
    image[4, 4, 4] = 1
    assert maximum_filter(image, 2).sum() == 125
    smooth = blur(image, (1.0, 1.0, 1.0))
    assert smooth.sum().item() == pytest.approx(1, abs=1e-3)
    assert smooth[4, 4, 4] / smooth[4, 4, 5] == pytest.approx(np.exp(0.5), rel=1e-3)


def test_synthetic_targets_differ_from_their_surroundings_when_easy():
    labels = torch.from_numpy(shapes.shape_map(40, np.random.default_rng(1)).astype(np.int64))
    ids, counts = labels.unique(return_counts=True)
    target = labels == ids[counts.argsort()[-2]]
    rim = (maximum_filter(target.float(), 2) > 0) & ~target
    for seed in range(6):
        image = synthetic_image(labels, [target], np.random.default_rng(seed), difficulty=0.1)
        assert image.shape == labels.shape and bool(torch.isfinite(image).all())
        spread = image.std()
        assert abs(image[target].median() - image[rim].median()) > 0.02 * spread


@pytest.mark.parametrize("synthetic", [True, False])
def test_the_click_of_a_sample_lies_in_its_target(synthetic):
    rng = np.random.default_rng(2)
    image = (two_boxes() * 100 + rng.integers(0, 50, (40, 40, 40))).astype(np.uint16)
    volume = packed(two_boxes(), image)
    made = 0
    for _ in range(20):
        sample = samples.make_sample(volume, samples.CropSpec(32, 2.0), rng, synthetic)
        if sample is None:
            continue
        made += 1
        k, j, i = (sample.positions[0] * 32 - 0.5).round().long().tolist()
        assert sample.targets[0][k, j, i]
        assert sample.patch.shape == sample.targets[0].shape == (32, 32, 32)
        assert bool(torch.isfinite(sample.patch).all())
        assert sample.span == pytest.approx(32 * 2.0 / 192)
    assert made >= 10


def test_a_real_sample_shows_the_image_where_the_target_is(monkeypatch):
    """Labels and intensities are warped together: inside the target the image is what it was there."""
    monkeypatch.setattr(samples, "LIMITED_SHARE", 0.0)  # what is cut off has no image
    rng = np.random.default_rng(4)
    labels = two_boxes()
    volume = packed(labels, (labels * 100).astype(np.uint16))
    for _ in range(30):
        sample = samples.make_sample(volume, samples.CropSpec(32, 1.5), rng, synthetic=False)
        if sample is None or sample.targets[0].sum() < 60:
            continue
        eroded = maximum_filter((~sample.targets[0]).float(), 1) == 0
        if eroded.sum() < 10:
            continue
        outside = maximum_filter(sample.targets[0].float(), 2) == 0
        assert abs(sample.patch[eroded].mean() - sample.patch[outside].mean()) > 0.5


def test_data_sets_are_drawn_by_a_power_of_their_size_with_a_cap():
    small, large = packed(two_boxes(), source="small"), packed(two_boxes(), source="large")
    volumes = [small] + [large] * 99 + [packed(two_boxes(), source=f"s{n}") for n in range(8)]
    weights = stream.source_weights(volumes)
    of_large = sum(weight for weight, volume in zip(weights, volumes) if volume.source == "large")
    assert weights.sum() == pytest.approx(1)
    assert of_large == pytest.approx(0.25), "capped"
    assert weights[0] == pytest.approx(0.75 / 9)


@pytest.mark.parametrize("draw", [0.1, 0.25, 0.9])
def test_no_patch_is_stretched_far_beyond_a_z_score(draw):
    # A body of one grey level in air: its own spread is next to nothing.
    generator = torch.Generator().manual_seed(0)
    image = torch.zeros(24, 24, 24)
    image[4:20, 4:20, 4:20] = 1.0
    image += 0.002 * torch.randn(image.shape, generator=generator)
    patch = samples.random_normalisation(image, torch.ones_like(image, dtype=torch.bool), draw)
    assert patch.std() <= samples.LARGEST_STRETCH + 1e-3
    if draw == 0.9:
        torch.testing.assert_close(patch, (image - image.mean()) / image.std())


def test_some_volumes_end_close_to_the_click_on_one_side_or_both():
    size, click = 32, (16, 16, 16)
    slabs = reaching = 0
    for seed in range(300):
        inside = samples._limited_field_of_view(size, click, np.random.default_rng(seed))
        assert bool(inside[click])
        spans = [torch.nonzero(inside.any(tuple({0, 1, 2} - {axis}))).flatten() for axis in range(3)]
        assert int(inside.sum()) == np.prod([len(span) for span in spans]), "no box"
        reaching += not bool(inside.all())
        slabs += any(len(span) < 10 and span[0] > 0 and span[-1] < size - 1 for span in spans)
    assert 0.25 < reaching / 300 < 0.45 and slabs > 3


def test_a_single_dark_voxel_does_not_colour_all_that_is_outside():
    # A third of a patch was at -42 once, and made the statistics of a batch its own.
    image = torch.randn(24, 24, 24, generator=torch.Generator().manual_seed(0))
    image[3, 3, 3] = -1000.0
    inside = torch.zeros_like(image, dtype=torch.bool)
    inside[:16] = True
    patch = samples.random_normalisation(image, inside, 0.9)
    assert patch[3, 3, 3] < -40 and len(patch[16:].unique()) == 1 and patch[16:].min() > -1


def test_plain_samples_are_z_scored(monkeypatch):
    draws = []

    def normalise(image, inside, draw):
        draws.append(draw)
        return image

    monkeypatch.setattr(samples, "random_normalisation", normalise)
    volume = packed(two_boxes(), np.zeros((40, 40, 40), np.uint16))
    for plain in (True, False):
        spec = samples.CropSpec(32, 1.5, plain=plain)
        for seed in range(20):
            samples.make_sample(volume, spec, np.random.default_rng(seed), False)
    half = len(draws) // 2
    assert half > 3 and set(draws[:half]) == {1.0} and min(draws[half:]) < 0.3
