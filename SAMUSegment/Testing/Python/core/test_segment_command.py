"""`samu segment` in process: points, files and refusals. The network is a stand-in, but for two tests."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from cli_support import FIRST, FIRST_IJK, SECOND, SECOND_IJK, SPACING, dice, error_line, ras_of, run

from samu_core import cli
from samu_core.commands import painting


def test_one_ras_point_makes_a_slicer_segmentation_beside_the_image(capsys, predictor, image_path):
    code, out, _ = run(capsys, "segment", image_path, "--point", *ras_of(image_path, FIRST_IJK))
    assert code == 0
    image, written = (
        sitk.ReadImage(str(image_path)),
        sitk.ReadImage(str(image_path.with_name("head.seg.nrrd"))),
    )
    assert written.GetMetaData("Segment0_Name") == "Segment_1"
    assert written.GetMetaData("Segment0_LabelValue") == "1"
    assert written.GetSize() == image.GetSize()
    assert np.allclose(written.GetOrigin(), image.GetOrigin())
    assert np.allclose(written.GetDirection(), image.GetDirection())
    truth = sitk.GetArrayFromImage(image) == FIRST
    assert dice(sitk.GetArrayFromImage(written) == 1, truth) > 0.9
    assert "Segment_1" in out


def test_several_points_names_labels_and_colors(capsys, predictor, image_path, tmp_path):
    out_path = tmp_path / "both.seg.nrrd"
    code, out, err = run(
        capsys,
        *("segment", image_path, "--ijk", *FIRST_IJK, "--point", *ras_of(image_path, SECOND_IJK)),
        *(
            "-o",
            out_path,
            "--names",
            "left eye",
            "brain",
            "--labels",
            7,
            300,
            "--colors",
            "#ff0000",
            "#00ff00",
        ),
    )
    assert code == 0
    written = sitk.ReadImage(str(out_path))
    array, truth = sitk.GetArrayFromImage(written), sitk.GetArrayFromImage(sitk.ReadImage(str(image_path)))
    assert set(np.unique(array)) == {0, 7, 300}
    assert dice(array == 7, truth == FIRST) > 0.9
    assert dice(array == 300, truth == SECOND) > 0.9
    assert written.GetMetaData("Segment0_Name") == "left eye"
    assert written.GetMetaData("Segment1_Color").split() == ["0", "1", "0"]
    assert "Point 2 of 2: brain" in err
    rows = {row.split("|")[1].strip(): row.split("|") for row in out.splitlines()}
    voxels = np.count_nonzero(array == 300)
    assert int(rows["brain"][3]) == voxels
    assert float(rows["brain"][4]) == pytest.approx(voxels * np.prod(SPACING) / 1000, abs=0.01)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_label_map_by_extension(capsys, predictor, image_path, tmp_path, suffix):
    out_path = tmp_path / f"mask{suffix}"
    code, _, _ = run(capsys, "segment", image_path, "--ijk", *SECOND_IJK, "-o", out_path)
    assert code == 0
    written, image = sitk.ReadImage(str(out_path)), sitk.ReadImage(str(image_path))
    assert "Segment0_Name" not in written.GetMetaDataKeys()
    assert np.allclose(written.GetDirection(), image.GetDirection(), atol=1e-5)
    truth = sitk.GetArrayFromImage(image) == SECOND
    assert dice(sitk.GetArrayFromImage(written) == 1, truth) > 0.9


@pytest.mark.parametrize("overwrite, winner", [(False, 1), (True, 2)])
def test_overlapping_segments(capsys, predictor, image_path, tmp_path, overwrite, winner):
    extra = ["--overwrite"] if overwrite else []
    code, _, err = run(
        capsys,
        *("segment", image_path, "--ijk", *FIRST_IJK, "--ijk", *FIRST_IJK, "-o", tmp_path / "m.nrrd", *extra),
    )
    assert code == 0
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "m.nrrd")))
    k, j, i = FIRST_IJK[::-1]
    assert array[k, j, i] == winner
    assert ("stays empty" in err) == (not overwrite)


def test_points_keep_the_order_of_the_command_line(capsys, predictor, image_path, tmp_path):
    second = ras_of(image_path, SECOND_IJK)
    run(
        capsys,
        *("segment", image_path, "--point", *second, "--ijk", *FIRST_IJK, "-o", tmp_path / "m.nrrd"),
    )
    assert predictor.clicks[0] == pytest.approx([float(value) for value in second], abs=1e-3)
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "m.nrrd")))
    assert array[SECOND_IJK[::-1]] == 1
    assert array[FIRST_IJK[::-1]] == 2


def test_point_outside_names_the_bounds_and_writes_nothing(capsys, predictor, image_path, tmp_path):
    code, _, err = run(capsys, "segment", image_path, "--ijk", *FIRST_IJK, "--point", 900, 0, 0)
    assert code == cli.EXIT_ERROR
    assert "outside" in error_line(err)
    assert "S 203.8 to 271.0 mm" in err
    assert predictor.clicks == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head.nii.gz"]


@pytest.mark.parametrize(
    "argv, message",
    [
        ([], "at least one point"),
        (["--ijk", 1, 2, 3, "--names", "a", "b"], "2 values for 1 points"),
        (["--ijk", 1, 2, 3, "--labels", 0], "from 1 to 65535"),
        (["--ijk", 1, 2, 3, "--ijk", 4, 5, 6, "--labels", 3, 3], "distinct"),
        (["--ijk", 1, 2, 3, "--colors", "reddish"], "#RRGGBB"),
        (["--ijk", 1, 2, 3, "-o", "mask.png"], "must end in"),
        (["--ijk", 1, 2, 3, "-o", "no/such/folder/mask.nrrd"], "does not exist"),
    ],
)
def test_requests_that_cannot_be_met(capsys, predictor, image_path, tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "segment", image_path, *argv)
    assert code == cli.EXIT_ERROR
    assert message in error_line(err)
    assert [path.name for path in tmp_path.iterdir()] == ["head.nii.gz"]


def test_missing_and_broken_images(capsys, predictor, tmp_path):
    (tmp_path / "noise.nrrd").write_text("this is no image")
    for name in ("absent.nrrd", "noise.nrrd"):
        code, _, err = run(capsys, "segment", tmp_path / name, "--point", 0, 0, 0)
        assert code == cli.EXIT_ERROR
        assert name in error_line(err)


def test_the_input_is_never_overwritten(capsys, predictor, image_path):
    before = image_path.read_bytes()
    link = image_path.with_name("alias.nii.gz")
    link.symlink_to(image_path)
    for target in (image_path, link):
        code, _, err = run(capsys, "segment", image_path, "--ijk", *FIRST_IJK, "-o", target, "--force")
        assert code == cli.EXIT_ERROR
        assert "is the input" in error_line(err)
    assert image_path.read_bytes() == before


def test_an_existing_output_needs_force(capsys, predictor, image_path):
    existing = image_path.with_name("head.seg.nrrd")
    existing.write_text("hours of manual work")
    code, _, err = run(capsys, "segment", image_path, "--ijk", *FIRST_IJK)
    assert code == cli.EXIT_ERROR
    assert "--force" in error_line(err)
    assert existing.read_text() == "hours of manual work"
    code, _, _ = run(capsys, "segment", image_path, "--ijk", *FIRST_IJK, "--force")
    assert code == 0
    assert sitk.ReadImage(str(existing)).GetMetaData("Segment0_Name") == "Segment_1"


def test_failure_at_the_second_point_leaves_nothing(capsys, predictor, image_path, tmp_path, monkeypatch):
    original = predictor.predict

    def fail_later(volume, point_ras, **options):
        if predictor.clicks:
            raise RuntimeError("first line\nsecond line")
        return original(volume, point_ras, **options)

    monkeypatch.setattr(predictor, "predict", fail_later)
    code, _, err = run(capsys, "segment", image_path, "--ijk", *FIRST_IJK, "--ijk", *SECOND_IJK)
    assert code == cli.EXIT_ERROR
    assert "RuntimeError: first line second line" in error_line(err)
    assert [path.name for path in tmp_path.iterdir()] == ["head.nii.gz"]


def test_interrupted_while_writing_leaves_the_old_file(capsys, predictor, image_path, monkeypatch):
    existing = image_path.with_name("head.seg.nrrd")
    existing.write_text("old")

    def interrupted(image, name, *args, **kwargs):
        with open(name, "wb") as file:
            file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(sitk, "WriteImage", interrupted)
    code, _, err = run(capsys, "segment", image_path, "--ijk", *FIRST_IJK, "--force")
    assert code == cli.EXIT_INTERRUPTED
    assert "Traceback" not in err
    assert existing.read_text() == "old"
    assert sorted(path.name for path in existing.parent.iterdir()) == ["head.nii.gz", "head.seg.nrrd"]


def test_nothing_found_is_an_error_and_writes_nothing(capsys, predictor, image_path, tmp_path):
    predictor.tolerance = -1000.0
    code, _, err = run(capsys, "segment", image_path, "--ijk", *FIRST_IJK)
    assert code == cli.EXIT_ERROR
    assert "--threshold" in error_line(err)
    assert [path.name for path in tmp_path.iterdir()] == ["head.nii.gz"]


def test_a_cut_structure_is_warned_of(capsys, predictor, image_path, tmp_path):
    predictor.size = 8
    code, _, err = run(capsys, "segment", image_path, "--ijk", *FIRST_IJK, "-o", tmp_path / "m.nrrd")
    assert code == 0
    assert "field of view of 12 mm" in err
    assert "--spacing 2.25" in err


def test_segment_with_the_real_predictor(capsys, weights, image_path, tmp_path):
    # Untrained: what it finds means nothing, so the threshold lets nearly everything through.
    code, _, err = run(
        capsys,
        *("segment", image_path, "--ijk", *FIRST_IJK, "-o", tmp_path / "m.nrrd", "--threshold", 1e-6),
        *("--model", weights, "--device", "cpu", "--precision", "float32"),
    )
    assert code == 0, err
    assert "CPU, float32" in err
    written = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "m.nrrd")))
    assert written[FIRST_IJK[::-1]] == 1


def test_segment_with_a_file_that_holds_no_weights(capsys, image_path, tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"PK no archive")
    code, _, err = run(capsys, "segment", image_path, "--ijk", *FIRST_IJK, "--model", tmp_path / "bad.npz")
    assert code == cli.EXIT_ERROR
    assert "bad.npz" in error_line(err)
    assert not image_path.with_name("head.seg.nrrd").exists()


def test_colors():
    assert painting.parse_color("#ff8000") == pytest.approx((1, 128 / 255, 0))
    assert len({painting.parse_color(color) for color in painting.COLORS}) == len(painting.COLORS)
