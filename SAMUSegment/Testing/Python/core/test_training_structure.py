"""What painted structures are made of: rims, lines between like neighbours; how often a map is drawn."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from training_volumes import packed  # noqa: E402

from samu_core.errors import SamuError  # noqa: E402
from samu_core.training import contrast, shapes, stream, structure  # noqa: E402
from samu_core.training.settings import TrainingSettings  # noqa: E402


def column() -> torch.Tensor:
    """Three touching blocks, as vertebrae in a row, 1 to 3, and a fourth apart; int64 (24, 24, 24)."""
    ids = torch.zeros(24, 24, 24, dtype=torch.int64)
    for number in range(3):
        ids[3 + 6 * number : 9 + 6 * number, 6:14, 6:14] = number + 1
    ids[8:14, 17:22, 6:14] = 4
    return ids


def drawn(wanted) -> list[structure.Structure]:
    """Structures of the column's middle block that `wanted` accepts, of 200 draws."""
    ids = column()
    draws = (
        structure.draw_structure(ids, 5, ids == 2, 2, np.random.default_rng(seed)) for seed in range(200)
    )
    return [each for each in draws if wanted(each)]


def test_rims_belong_to_each_structure_of_the_same_look():
    rimmed = drawn(lambda each: each.rim is not None and each.alike == {1, 2, 3, 4})
    assert rimmed
    for each in rimmed:
        edge = each.classes == each.rim
        assert not bool((edge & (column() == 0)).any()), "a rim lies inside its structure"
        assert bool(edge[9:15, 6, 6:14].all()), "all around"
        assert bool(edge[8, 6:14, 6:14].all() and edge[9, 6:14, 6:14].all()), "on both sides of a joint"
        assert int(each.classes[11, 10, 10]) == 2, "the core keeps its class"
        assert each.outer(2) == each.rim and each.outer(0) == 0


def test_a_line_parts_what_touches_and_looks_alike_and_nothing_else():
    lined = drawn(lambda each: each.line is not None and {1, 2, 3} <= each.alike)
    assert lined
    for each in lined:
        line = each.classes == each.line
        for joint in (9, 15):
            assert bool(line[joint - 1 : joint + 1, 6:14, 6:14].any(0).all())
        assert int(line.sum()) == 2 * 8 * 8, "one voxel wide, and only there"
        assert each.apart(2, [0, 1, each.line, 3]) == [0]
        assert each.apart(0, [1, 2]) == [1, 2]


def test_like_structures_have_one_intensity_in_the_image():
    ids, alike, different = column(), 0, 0
    for seed in range(120):
        image = contrast.synthetic_image(ids, [ids == 2], np.random.default_rng(seed), difficulty=0.05)
        cores = [float(image[5:7, 9:11, 9:11].median()), float(image[11:13, 9:11, 9:11].median())]
        outside = float(image[11:13, 2:4, 9:11].median())
        if abs(cores[0] - cores[1]) < 0.2 * abs(cores[1] - outside):
            alike += 1
        else:
            different += 1
    assert alike >= 20, "neighbours of the target seldom look like it"
    assert different >= 30, "neighbours of the target always look like it"


def test_maximum_is_that_of_a_cube():
    values = torch.zeros(7, 7, 7, dtype=torch.int64)
    values[3, 3, 3] = 5
    assert int((structure.maximum_filter(values, 2) == 5).sum()) == 125
    assert structure.maximum_filter(values, 1).dtype == torch.int64


@pytest.mark.parametrize("reach", [1, 2, 7])
def test_the_maximum_filter_is_torchs_pooling(reach):
    values = torch.randint(-9, 9, (6, 11, 13), generator=torch.Generator().manual_seed(reach))
    padded = torch.nn.functional.pad(values.float(), [reach] * 6, value=-99)[None, None]
    pooled = torch.nn.functional.max_pool3d(padded, 2 * reach + 1, 1)[0, 0]
    assert torch.equal(structure.maximum_filter(values, reach), pooled.to(values.dtype))


def test_label_maps_are_drawn_as_often_as_the_settings_say(tmp_path):
    boxes = np.zeros((20, 20, 20), int)
    boxes[4:12, 4:12, 4:12] = 1
    volumes = [
        packed(boxes, source="a"),
        packed(boxes, source="b"),
        *[packed(boxes, source=f"s{n}") for n in range(8)],
    ]
    plain, more = stream.source_weights(volumes), stream.source_weights(volumes, factors={"b": 2.0})
    assert plain[0] == pytest.approx(plain[1])
    assert more[1] == pytest.approx(2 * more[0]) and more.sum() == pytest.approx(1)

    volumes[0].save(tmp_path / "a.npz")
    values = {
        "phases": [{"minutes": 1, "crops": [{"size": 32, "spacing": [2.0, 3.0], "batch": 2}]}],
        "shapes": 1,
        "shape_size": 32,
    }
    for setting in ("labelmap_factors", "real_factors"):
        settings = TrainingSettings.from_dict({**values, setting: {"nobody/nothing": 2.0}})
        with pytest.raises(SamuError, match=f"{setting} names nobody/nothing"):
            stream.load_sources(tmp_path, settings)


def test_real_images_are_drawn_as_often_as_their_factor_says():
    boxes = np.zeros((20, 20, 20), int)
    boxes[4:12, 4:12, 4:12] = 1
    volumes = [packed(boxes, source=f"s{n}") for n in range(10)]
    phase = TrainingSettings.from_dict(
        {"phases": [{"minutes": 1, "crops": [{"size": 32, "spacing": [2.0, 3.0], "batch": 2}]}]}
    ).phases[0]
    sources = stream.Sources(volumes, [], [], real_factors={"s3": 0.25})
    chances = stream.BatchStream(sources, phase, torch.ones(1), seed=0).real_weights
    assert chances[3] == pytest.approx(0.25 * chances[0]) and chances.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("size", "cells", "channels"), [((9, 12, 20), 3, 2), ((8, 8, 8), 8, 1), ((5, 6, 7), 30, 1)]
)
def test_smooth_noise_is_torchs_linear_interpolation(size, cells, channels):
    nodes = np.random.default_rng(4).standard_normal((1, channels, cells, cells, cells), dtype=np.float32)
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(nodes), size=size, mode="trilinear", align_corners=True
    )[0]
    found = shapes.smooth_noise(size, cells, np.random.default_rng(4), channels)
    assert found.shape == wanted.shape and found.is_contiguous() and torch.allclose(found, wanted, atol=1e-4)


def test_the_strongest_is_torchs_argmax_and_the_first_of_equals():
    volumes = torch.randint(0, 4, (5, 7, 8, 9), generator=torch.Generator().manual_seed(0)).float()
    best = volumes.max(0).values
    found = shapes.strongest(volumes)
    assert torch.equal(volumes.gather(0, found[None])[0], best)
    assert all(bool((volumes[n][found > n] < best[found > n]).all()) for n in range(4))
