"""The contact sheet of training samples, and the slices it and the failure gallery are made of."""

from __future__ import annotations

import numpy as np
import pytest
from cli_support import error_line, run

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")
pytest.importorskip("yaml")

from samu_core.evaluation.slices import (  # noqa: E402
    CLICK,
    MASK,
    TRUTH,
    grey_window,
    picture,
    three_slices,
    write_png,
)
from samu_core.training import pack, preview  # noqa: E402
from samu_core.training.pack import PackedVolume  # noqa: E402
from samu_core.training.stream import Sources  # noqa: E402

SHAPES_ONLY = """
shapes: 3
shape_size: 40
phases:
  - {minutes: 1, real: 0, labelmaps: 0, crops: [{size: 32, spacing: [1.5, 3.0], batch: 2}]}
"""


def packed(name, modality, with_image=True):
    labels = np.zeros((40, 40, 40), np.int32)
    labels[8:30, 10:32, 9:31] = 4
    rng = np.random.default_rng(3)
    image = (400 * (labels > 0) + rng.integers(100, 200, labels.shape)).astype(np.uint16)
    ids, values, counts, boxes = pack.components(labels)
    return PackedVolume(
        name, f"source/{name}", modality, 1.5, ids, image if with_image else None, values, counts, boxes
    )


def make_sources():
    ct, mr, shape = packed("ct", "CT"), packed("mr", "MR-T1"), packed("map", "", with_image=False)
    return Sources([ct, mr], [ct, mr, shape], [shape], skeletons=[shape])


@pytest.fixture
def sources():
    return make_sources()


def test_samples_of_every_source_are_drawn_and_named(sources):
    previews = preview.draw_previews(sources, 2, 32, 1.5, 1.0, seed=1)
    assert [p.group for p in previews] == [g for g in preview.groups_of(sources) for _ in range(2)]
    names = {p.group: p.name for p in previews}
    assert names["real CT"] == "ct" and names["real MR"] == "mr"
    for each in previews:
        click = (each.sample.positions[0].numpy() * 32 - 0.5).round().astype(int).clip(0, 31)
        assert each.sample.targets[0][tuple(click)] > 0.5
    again = preview.draw_previews(make_sources(), 2, 32, 1.5, 1.0, seed=1)
    assert all(torch.equal(a.sample.patch, b.sample.patch) for a, b in zip(previews, again))


def test_a_source_that_gives_no_sample_is_an_error_not_a_hang(sources, monkeypatch):
    monkeypatch.setattr(preview, "TRIES", 3)
    with pytest.raises(preview.SamuError, match="real CT"):
        preview.draw_previews(sources, 1, 32, 40.0, 1.0, seed=1)  # a voxel of 40 mm holds the whole target


def test_the_command_writes_a_sheet_of_shapes_alone(capsys, tmp_path):
    image = pytest.importorskip("matplotlib.image")
    (tmp_path / "run.yaml").write_text(SHAPES_ONLY)
    target = tmp_path / "sheets" / "preview.png"
    options = ("--config", tmp_path / "run.yaml", "--count", 3, "--size", 32, "--spacing", 3, "--out", target)
    code, out, err = run(capsys, "preview-data", *options)
    assert (code, err) == (0, "") and "3 samples of 1 source" in out
    pixels = (image.imread(target)[..., :3] * 255).round().astype(int)
    for color in (TRUTH, CLICK):
        assert (np.abs(pixels - color).sum(-1) < 40).any()


def test_the_command_refuses_what_it_cannot_draw(capsys, tmp_path):
    (tmp_path / "run.yaml").write_text(SHAPES_ONLY)
    code, _, err = run(capsys, "preview-data", "--config", tmp_path / "run.yaml", "--count", 0)
    assert code == 1 and "--count" in error_line(err)
    code, _, err = run(capsys, "preview-data", "--config", tmp_path / "run.yaml", "--data", tmp_path / "no")
    assert code == 1 and "manifest.csv" in error_line(err)


def test_slices_show_the_head_up_and_the_right_on_the_left():
    array = np.zeros((6, 7, 8))
    array[4, 5, 6] = 1  # superior, anterior, right of the middle
    axial, coronal, sagittal = three_slices(array, (4.2, 4.8, 6.4))
    assert axial.shape == (7, 8) and coronal.shape == (6, 8) and sagittal.shape == (6, 7)
    assert axial[1, 1] == coronal[1, 1] == sagittal[1, 1] == 1
    assert axial.sum() == coronal.sum() == sagittal.sum() == 1


def test_outlines_lie_just_inside_their_mask_and_open_at_the_border():
    mask = np.zeros((20, 20, 20), bool)
    mask[5:15, 5:15, :12] = True
    rgb = picture(np.zeros(mask.shape), (10, 10, 9), [(mask, MASK)], zoom=1, window=(0, 1))
    axial = (rgb[:, :20] == MASK).all(-1)
    assert axial.any() and not (axial & ~mask[10, ::-1, ::-1]).any()
    assert not axial[7:13, 19].any()  # where the patch cuts the mask there is no edge to draw
    assert (rgb == CLICK).all(-1).any()


def test_the_window_ignores_what_lies_outside_the_volume():
    image = np.full((20, 20, 20), -5.0)
    image[8:12, 8:12, 8:12] = np.linspace(1, 2, 64).reshape(4, 4, 4)
    low, high = grey_window(image)
    assert 1 <= low < high <= 2


def test_pictures_are_written_with_a_palette_and_come_back(tmp_path):
    image_file = pytest.importorskip("PIL.Image")
    noise = np.random.default_rng(0).normal(size=(64, 64, 64))
    rgb = picture(noise, (30, 31, 32), [(noise > 1, TRUTH)], zoom=1)
    write_png(tmp_path / "a" / "b.png", rgb)
    with image_file.open(tmp_path / "a" / "b.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image.convert("RGB")), rgb)
    assert not list((tmp_path / "a").glob("*.part"))
