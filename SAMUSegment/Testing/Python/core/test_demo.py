"""The phantom is what it says, and the demo's files hold what was clicked. The network is a stand-in."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from stand_in import StandInPredictor

from samu_core import cli
from samu_core.commands import common
from samu_core.demo import command, phantom, render
from samu_core.geometry import GridGeometry, PatchGrid, Volume
from samu_core.prediction import Prediction

COARSE = (3.0, 3.0, 5.0)


@pytest.fixture(scope="module")
def coarse():
    return phantom.make_phantom(COARSE)


@pytest.fixture
def predictor(monkeypatch, coarse):
    stand_in = StandInPredictor(tolerance=60.0, size=128)
    monkeypatch.setattr(common, "make_predictor", lambda args: stand_in)
    monkeypatch.setattr(phantom, "make_phantom", lambda: coarse)
    return stand_in


def picture(path):
    """The PNG as (rows, columns, RGB) numbers."""
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[..., :3].astype(int)


def count_of(pixels, color):
    """Pixels near a colour '#rrggbb'."""
    wanted = [int(color[n : n + 2], 16) for n in (1, 3, 5)]
    return int(np.count_nonzero(np.abs(pixels - wanted).max(axis=-1) < 40))


def test_phantom_is_an_oblique_anisotropic_ct(coarse):
    geometry = coarse.volume.geometry
    assert coarse.volume.modality == "CT"
    assert coarse.volume.array.dtype == np.int16
    assert np.allclose(geometry.spacing, COARSE)
    assert not geometry.is_axis_aligned
    directions = geometry.ijk_to_ras[:3, :3] / geometry.spacing
    assert np.allclose(directions.T @ directions, np.eye(3), atol=1e-9)
    assert coarse.labels.shape == coarse.volume.array.shape


def test_phantom_has_every_structure_at_its_click_in_one_piece(coarse):
    for structure in coarse.structures:
        mask = coarse.labels == structure.label
        i, j, k = np.rint(coarse.volume.geometry.point_to_ijk(structure.click_ras)).astype(int)
        assert mask[k, j, i], structure.name
        components = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)))
        sizes = np.bincount(sitk.GetArrayFromImage(components).ravel())[1:]
        assert sizes.max() > 0.98 * mask.sum(), structure.name


@pytest.mark.parametrize(
    "name, low, high",
    [("liver", 95, 130), ("aorta", 230, 300), ("right lung", -900, -750), ("liver lesion", 40, 75)],
)
def test_phantom_has_ct_numbers(coarse, name, low, high):
    values = coarse.volume.array[coarse.labels == phantom.LABELS[name]]
    assert low < np.median(values) < high
    # Texture and noise: no structure is flat.
    assert 5 < np.std(values[np.abs(values - np.median(values)) < 60]) < 40


def test_phantom_sizes_are_human():
    labels = phantom.make_phantom((4.0, 4.0, 6.0)).labels
    litres = {s.name: np.count_nonzero(labels == s.label) * 96e-6 for s in phantom.STRUCTURES}
    assert 0.8 < litres["liver"] < 1.8
    assert 0.08 < litres["right kidney"] < 0.25
    assert 0.005 < litres["liver lesion"] < 0.03


def test_phantom_is_reproducible_and_the_seed_matters(coarse):
    assert np.array_equal(phantom.make_phantom(COARSE).volume.array, coarse.volume.array)
    assert not np.array_equal(phantom.make_phantom(COARSE, seed=21).volume.array, coarse.volume.array)


def test_dice():
    a, b = np.zeros((4, 4, 4)), np.zeros((4, 4, 4))
    assert command.dice(a, b) == 1
    a[:2], b[1:3] = 1, 5
    assert command.dice(a, b) == pytest.approx(0.5)


def test_a_plane_is_sampled_where_it_is():
    matrix = np.diag([-2.0, -1.0, 3.0, 1.0])
    matrix[:3, 3] = (40, 30, -20)
    k, j, i = np.meshgrid(*(np.arange(n) for n in (12, 30, 20)), indexing="ij")
    ras_r = 40 - 2.0 * i + 0.0 * j + 0.0 * k
    geometry = GridGeometry((12, 30, 20), matrix)
    plane = render.plane_through(np.array([20.0, 15.0, 0.0]), 0, 2, np.array([20.0, 15.0, 0.0]), 40)
    values = render.sample_plane(ras_r, geometry, plane)
    inside = np.isfinite(values)
    assert 0 < np.count_nonzero(inside) < inside.size
    # Beyond the outer voxel centres the border's value is repeated.
    expected = np.clip(plane.points_ras[..., 0], 2, 40)
    assert np.allclose(values[inside], expected[inside])


def test_the_picture_shows_click_outline_and_truth(tmp_path, coarse):
    structure = coarse.structures[3]
    truth = coarse.labels == structure.label
    shifted = np.roll(truth, 4, axis=2)
    grid = PatchGrid.for_click(coarse.volume, structure.click_ras)
    prediction = Prediction(np.zeros((128,) * 3, np.float32), grid, np.array(structure.click_ras))
    path = tmp_path / "picture.png"
    render.render(path, coarse.volume, [render.Panel("left kidney", prediction, shifted, truth)], "heading")
    pixels = picture(path)
    assert pixels.shape[0] > 300 and pixels.shape[1] > 900
    for color in (render.CLICK, render.PREDICTED, render.TRUTH):
        assert count_of(pixels, color) > 100, color
    grey = pixels[np.ptp(pixels, axis=-1) < 6].mean(axis=-1)
    assert len(np.unique(grey.astype(int))) > 100, "the slices have no contrast"
    assert [file.name for file in tmp_path.iterdir()] == ["picture.png"]
    # Without masks the outlines are gone: the counts above come from the masks.
    nothing = np.zeros_like(truth)
    render.render(path, coarse.volume, [render.Panel("left kidney", prediction, nothing)], "heading")
    assert count_of(picture(path), render.TRUTH) == 0


def test_demo_of_the_phantom(capsys, tmp_path, predictor, coarse):
    code = cli.main(["demo", "-o", str(tmp_path)])
    out = capsys.readouterr().out
    assert code == 0
    names = {"phantom.nrrd", "phantom.seg.nrrd", "phantom-truth.seg.nrrd", "phantom.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert np.array_equal(
        sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "phantom.nrrd"))), coarse.volume.array
    )
    truth = sitk.ReadImage(str(tmp_path / "phantom-truth.seg.nrrd"))
    assert truth.GetMetaData("Segment0_Name") == "liver"
    rows = {
        row.split("|")[1].strip(): [cell.strip() for cell in row.split("|")] for row in out.splitlines()[:10]
    }
    for structure in coarse.structures:
        region = predictor.predict(coarse.volume, structure.click_ras).mask(coarse.volume.geometry)
        expected = command.dice(region.full(coarse.volume.geometry), coarse.labels == structure.label)
        assert float(rows[structure.name][4]) == pytest.approx(expected, abs=6e-4)
        assert float(rows[structure.name][5]) >= 0


def test_demo_of_an_image_of_ones_own(capsys, tmp_path, predictor):
    predictor.tolerance = 250.0
    array = np.zeros((20, 40, 40), np.float32)
    array[5:15, 10:30, 10:30] = 500
    image = sitk.GetImageFromArray(array)
    image.SetOrigin((-20, -20, 0))
    sitk.WriteImage(image, str(tmp_path / "mr.nii.gz"))
    out = tmp_path / "out"
    code = cli.main(["demo", str(tmp_path / "mr.nii.gz"), "--point", "-1", "2", "10", "-o", str(out)])
    assert code == 0
    assert {path.name for path in out.iterdir()} == {"mr.seg.nrrd", "mr.png"}
    written = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "mr.seg.nrrd")))
    assert command.dice(written, array) > 0.9
    assert count_of(picture(out / "mr.png"), render.PREDICTED) > 100


@pytest.mark.parametrize(
    "argv, message", [(["--point", "1", "2", "3"], "points need an image"), (["x.nrrd"], "give a point")]
)
def test_demo_arguments(capsys, tmp_path, predictor, argv, message):
    assert cli.main(["demo", *argv, "-o", str(tmp_path / "out")]) == cli.EXIT_ERROR
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_demo_never_overwrites_its_input(capsys, tmp_path, predictor):
    path = tmp_path / "a.seg.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((5, 5, 5), np.uint8)), str(path))
    before = path.read_bytes()
    assert cli.main(["demo", str(path), "--ijk", "2", "2", "2", "-o", str(tmp_path)]) == cli.EXIT_ERROR
    assert "is the input" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_grey_levels_fit_the_modality():
    array = np.arange(8**3, dtype=np.float32).reshape(8, 8, 8)
    ct = Volume(array, np.eye(4), modality="CT")
    assert render.window_of(ct, 40) == render.SOFT_WINDOW_HU
    assert render.window_of(ct, -800) == render.LUNG_WINDOW_HU
    assert render.window_of(ct, 700) == render.BONE_WINDOW_HU
    assert render.window_of(Volume(array - 1000, np.eye(4)), 0) == render.SOFT_WINDOW_HU
    low, high = render.window_of(Volume(array, np.eye(4), modality="MR"), 700)
    assert 0 <= low < high <= 511
    low, high = render.window_of(Volume(np.ones((4, 4, 4), np.float32), np.eye(4)), 1)
    assert low < high
