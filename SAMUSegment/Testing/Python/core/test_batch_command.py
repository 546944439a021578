"""`samu batch` in process, with the stand-in for the network: rows, files, second runs, refusals."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import SimpleITK as sitk
from cli_support import FIRST, FIRST_IJK, SECOND, SECOND_IJK, dice, error_line, ras_of, run, write_two_boxes

from samu_core import cli
from samu_core.commands import batch_rows, painting
from samu_core.errors import SamuError, WeightsError


@pytest.fixture
def images(tmp_path):
    """Two image files in folders of their own, below the table's folder."""
    paths = [tmp_path / name / "ct.nii.gz" for name in ("one", "two")]
    for path in paths:
        path.parent.mkdir()
        write_two_boxes(path)
    return paths


@pytest.fixture
def reads(monkeypatch):
    """The images that were read, in order."""
    seen, original = [], painting.read_image

    def read(path):
        seen.append(path)
        return original(path)

    monkeypatch.setattr(painting, "read_image", read)
    return seen


def write_table(folder, header, *rows, delimiter=",", encoding="utf-8"):
    path = folder / "points.csv"
    with open(path, "w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return path


def summary_of(table):
    with open(table.with_name("points-summary.csv"), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def statuses(table):
    return [row["status"] for row in summary_of(table)]


def segments_in(path):
    image = sitk.ReadImage(str(path))
    return {
        image.GetMetaData(f"Segment{n}_Name"): int(image.GetMetaData(f"Segment{n}_LabelValue"))
        for n in range(10)
        if image.HasMetaDataKey(f"Segment{n}_Name")
    }


IJK_HEADER = ["image", "i", "j", "k", "name"]


def test_rows_of_an_image_make_one_file_and_one_reading(capsys, predictor, images, reads, tmp_path):
    """Complaint about the peers: no batch."""
    table = write_table(
        tmp_path,
        ["image", "r", "a", "s", "i", "j", "k", "name"],
        ["one/ct.nii.gz", "", "", "", *FIRST_IJK, "kidney"],
        ["two/ct.nii.gz", "", "", "", *FIRST_IJK, ""],
        ["one/ct.nii.gz", *ras_of(images[0], SECOND_IJK), "", "", "", "liver"],
    )
    code, out, err = run(capsys, "batch", table)
    assert code == 0, err
    assert [path.parent.name for path in reads] == ["one", "two"]
    assert "3 rows: 3 ok" in out
    assert "Image 2 of 2" in err
    written = images[0].with_name("ct.seg.nrrd")
    assert segments_in(written) == {"kidney": 1, "liver": 2}
    labels, truth = sitk.GetArrayFromImage(sitk.ReadImage(str(written))), sitk.ReadImage(str(images[0]))
    truth = sitk.GetArrayFromImage(truth)
    assert dice(labels == 1, truth == FIRST) > 0.9
    assert dice(labels == 2, truth == SECOND) > 0.9
    assert segments_in(images[1].with_name("ct.seg.nrrd")) == {"Segment_1": 1}
    last = summary_of(table)[2]
    assert (last["line"], last["status"], last["file"]) == ("4", "ok", str(written))
    assert int(last["voxels"]) == np.count_nonzero(labels == 2)
    assert 0.5 < float(last["expected_iou"]) <= 1


def test_a_bad_row_does_not_stop_the_rest(capsys, predictor, images, tmp_path):
    table = write_table(
        tmp_path,
        IJK_HEADER,
        ["absent.nrrd", 1, 2, 3, ""],
        ["one/ct.nii.gz", 500, 2, 3, "outside"],
        ["one/ct.nii.gz", *FIRST_IJK, "inside"],
        ["one/ct.nii.gz", 1, "two", 3, "no number"],
        ["", 1, 2, 3, "no image"],
        ["two/ct.nii.gz", *FIRST_IJK, "last"],
    )
    code, out, err = run(capsys, "batch", table)
    assert code == cli.EXIT_ERROR
    assert statuses(table) == ["failed", "failed", "ok", "failed", "failed", "ok"]
    messages = [row["message"] for row in summary_of(table)]
    for n, text in {
        0: "absent.nrrd",
        1: "outside",
        3: "column j: 'two' is not a number",
        4: "no image",
    }.items():
        assert text in messages[n]
        assert f"line {n + 2}: " in err
    assert "Traceback" not in err
    # The label of a row that failed is kept for it.
    assert segments_in(images[0].with_name("ct.seg.nrrd")) == {"inside": 2}
    assert segments_in(images[1].with_name("ct.seg.nrrd")) == {"last": 1}
    assert "2 ok, 4 failed" in out


def test_a_second_run_does_what_is_missing_only(capsys, predictor, images, reads, tmp_path):
    good = ["one/ct.nii.gz", *FIRST_IJK, "a"]
    table = write_table(tmp_path, IJK_HEADER, good, ["two/ct.nii.gz", 500, 0, 0, "b"])
    assert run(capsys, "batch", table)[0] == cli.EXIT_ERROR
    first = images[0].with_name("ct.seg.nrrd")
    before = first.stat().st_mtime_ns
    del reads[:], predictor.clicks[:]
    write_table(tmp_path, IJK_HEADER, good, ["two/ct.nii.gz", *FIRST_IJK, "b"])
    code, out, _ = run(capsys, "batch", table)
    assert code == 0
    assert "1 ok, 1 skipped" in out
    assert [path.parent.name for path in reads] == ["two"]
    assert first.stat().st_mtime_ns == before
    del reads[:]
    code, out, _ = run(capsys, "batch", table)
    assert code == 0 and "2 skipped" in out and not reads
    assert all(int(row["voxels"]) > 0 and float(row["expected_iou"]) > 0 for row in summary_of(table))
    run(capsys, "batch", table, "--force")
    assert statuses(table) == ["ok", "ok"]
    assert len(reads) == 2


def test_a_row_that_failed_is_added_to_its_untouched_output_only(capsys, predictor, images, tmp_path):
    good, output = ["one/ct.nii.gz", *FIRST_IJK, "a"], images[0].with_name("ct.seg.nrrd")
    table = write_table(tmp_path, IJK_HEADER, good, ["one/ct.nii.gz", 500, 0, 0, "b"])
    assert run(capsys, "batch", table)[0] == cli.EXIT_ERROR
    assert segments_in(output) == {"a": 1}
    partial = output.read_bytes()
    write_table(tmp_path, IJK_HEADER, good, ["one/ct.nii.gz", *SECOND_IJK, "b"])
    # Somebody corrected the file by hand: it is nobody's to replace.
    output.write_bytes(partial + b"\n")
    code, _, err = run(capsys, "batch", table)
    assert code == cli.EXIT_ERROR
    assert statuses(table) == ["skipped", "failed"]
    assert "was changed since" in err and output.read_bytes() == partial + b"\n"
    output.write_bytes(partial)
    assert run(capsys, "batch", table)[0] == 0
    assert segments_in(output) == {"a": 1, "b": 2}


def test_existing_files_are_left_alone_without_force(capsys, predictor, images, reads, tmp_path):
    table = write_table(tmp_path, IJK_HEADER, ["one/ct.nii.gz", *FIRST_IJK, "a"])
    manual = images[0].with_name("ct.seg.nrrd")
    manual.write_text("hours of manual work")
    code, _, _ = run(capsys, "batch", table)
    assert code == 0
    assert statuses(table) == ["skipped"] and "--force" in summary_of(table)[0]["message"]
    assert manual.read_text() == "hours of manual work" and not reads


def test_outputs_that_would_destroy_something(capsys, predictor, images, tmp_path):
    before = images[1].read_bytes()
    table = write_table(
        tmp_path,
        ["image", "i", "j", "k", "output"],
        ["one/ct.nii.gz", *FIRST_IJK, "two/ct.nii.gz"],
        ["one/ct.nii.gz", *FIRST_IJK, "shared.nrrd"],
        ["two/ct.nii.gz", *FIRST_IJK, "shared.nrrd"],
        ["two/ct.nii.gz", *FIRST_IJK, "mask.png"],
        ["two/ct.nii.gz", *FIRST_IJK, "no/folder/mask.nrrd"],
    )
    code, _, _ = run(capsys, "batch", table, "--force")
    assert code == cli.EXIT_ERROR
    assert statuses(table) == ["failed", "ok", "failed", "failed", "failed"]
    messages = [row["message"] for row in summary_of(table)]
    wanted = ["is an image of this table", "", "belongs to", "must end in", "does not exist"]
    assert all(text in message for text, message in zip(wanted, messages))
    assert images[1].read_bytes() == before


def test_output_dir_labels_and_settings_of_rows(capsys, predictor, images, tmp_path):
    table = write_table(
        tmp_path,
        ["image", "i", "j", "k", "name", "output", "label", "color", "threshold", "spacing"],
        ["one/ct.nii.gz", *FIRST_IJK, "a", "m.seg.nrrd", 300, "#ff0000", "", ""],
        ["one/ct.nii.gz", *SECOND_IJK, "b", "m.seg.nrrd", "", "", 0.6, 1.25],
        ["one/ct.nii.gz", *SECOND_IJK, "c", "m.seg.nrrd", 300, "", "", ""],
    )
    code, _, _ = run(capsys, "batch", table, "--output-dir", tmp_path / "results" / "today")
    assert code == cli.EXIT_ERROR
    written = tmp_path / "results" / "today" / "m.seg.nrrd"
    assert segments_in(written) == {"a": 300, "b": 1}
    assert sitk.ReadImage(str(written)).GetMetaData("Segment0_Color").split() == ["1", "0", "0"]
    assert "already that of another row" in summary_of(table)[2]["message"]


def test_tables_of_spreadsheets(capsys, predictor, images, tmp_path):
    i, j, k = FIRST_IJK
    table = write_table(
        tmp_path,
        [" Image", "I", "J", "K", "Patient"],
        ["one/ct.nii.gz", f"{i},25", j, k, "Doe"],
        ["", "", "", "", ""],
        delimiter=";",
        encoding="utf-8-sig",
    )
    code, _, err = run(capsys, "batch", table)
    assert code == 0, err
    assert statuses(table) == ["ok"]
    assert "'Patient'" in err


def test_a_summary_can_be_the_table_of_another_run(capsys, predictor, images, tmp_path):
    table = write_table(tmp_path, IJK_HEADER, ["one/ct.nii.gz", *FIRST_IJK, "a"])
    assert run(capsys, "batch", table)[0] == 0
    code, _, err = run(capsys, "batch", table.with_name("points-summary.csv"))
    assert code == 0 and "not known" not in err
    assert statuses(table) == ["ok"]


def test_nothing_found_writes_nothing(capsys, predictor, images, tmp_path):
    predictor.tolerance = -1000.0
    table = write_table(tmp_path, IJK_HEADER, ["one/ct.nii.gz", *FIRST_IJK, "a"])
    assert run(capsys, "batch", table)[0] == cli.EXIT_ERROR
    assert "nothing was found" in summary_of(table)[0]["message"]
    assert not images[0].with_name("ct.seg.nrrd").exists()


def test_a_row_that_fails_again_says_so_again(capsys, predictor, images, tmp_path):
    rows = [["one/ct.nii.gz", *FIRST_IJK, "a"], ["one/ct.nii.gz", 500, 0, 0, "b"]]
    table, output = write_table(tmp_path, IJK_HEADER, *rows), images[0].with_name("ct.seg.nrrd")
    run(capsys, "batch", table)
    predictor.tolerance = -1000.0
    code, _, err = run(capsys, "batch", table, "--force")
    assert code == cli.EXIT_ERROR
    assert statuses(table) == ["failed", "failed"]
    assert "line 2: nothing was found" in err and "line 3: " in err
    # The file of the first run is still there, known and unchanged: it is completed, not refused.
    predictor.tolerance = 200.0
    write_table(tmp_path, IJK_HEADER, rows[0], ["one/ct.nii.gz", *SECOND_IJK, "b"])
    assert run(capsys, "batch", table)[0] == 0
    assert segments_in(output) == {"a": 1, "b": 2}


def test_an_interrupted_run_remembers_what_it_did(capsys, predictor, images, tmp_path, monkeypatch):
    original = predictor.predict

    def stop_later(volume, point_ras, **options):
        if predictor.clicks:
            raise KeyboardInterrupt
        return original(volume, point_ras, **options)

    monkeypatch.setattr(predictor, "predict", stop_later)
    rows = [[f"{name}/ct.nii.gz", *FIRST_IJK, "a"] for name in ("one", "two")]
    table = write_table(tmp_path, IJK_HEADER, *rows)
    assert run(capsys, "batch", table)[0] == cli.EXIT_INTERRUPTED
    assert statuses(table) == ["ok", "pending"]
    monkeypatch.setattr(predictor, "predict", original)
    assert run(capsys, "batch", table)[0] == 0
    assert statuses(table) == ["skipped", "ok"]


def test_missing_weights_stop_at_once(capsys, predictor, images, reads, tmp_path, monkeypatch):
    def without_weights(*_args, **_options):
        raise WeightsError("there is no weights file")

    monkeypatch.setattr(predictor, "predict", without_weights)
    rows = [[f"{name}/ct.nii.gz", *FIRST_IJK, "a"] for name in ("one", "two")]
    code, _, err = run(capsys, "batch", write_table(tmp_path, IJK_HEADER, *rows))
    assert code == cli.EXIT_ERROR
    assert "no weights file" in error_line(err)
    assert len(reads) == 1


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "needs a header"),
        ("image,r,a\n1,2,3\n", "needs a header"),
        ("image,r,a,s\n", "no rows"),
        ("image,r,a,s,R\nx,1,2,3,4\n", "2 columns named r"),
        ("image,r,a,s\nx,\0,2,3\n", None),
        (b"\xff\xfe\x00i", "UTF-8"),
    ],
)
def test_tables_that_are_none(capsys, tmp_path, content, message):
    table = tmp_path / "points.csv"
    table.write_bytes(content if isinstance(content, bytes) else content.encode())
    code, _, err = run(capsys, "batch", table)
    assert code == cli.EXIT_ERROR
    assert "Traceback" not in err
    if message:
        assert message in error_line(err)


def test_a_foreign_summary_file_is_not_replaced(capsys, predictor, images, tmp_path):
    table = write_table(tmp_path, IJK_HEADER, ["one/ct.nii.gz", *FIRST_IJK, "a"])
    (tmp_path / "points-summary.csv").write_text("my,own,notes\n")
    code, _, err = run(capsys, "batch", table)
    assert code == cli.EXIT_ERROR
    assert "--summary" in error_line(err)
    assert (tmp_path / "points-summary.csv").read_text() == "my,own,notes\n"
    assert run(capsys, "batch", table, "--summary", table)[0] == cli.EXIT_ERROR
    assert run(capsys, "batch", tmp_path / "absent.csv")[0] == cli.EXIT_ERROR


@pytest.mark.parametrize(
    "cells, message",
    [
        ("x.nrrd,1,2,3,4,5,6", "both"),
        ("x.nrrd,,,,,,", "no point"),
        ("x.nrrd,1,2,,,,", "column s is empty"),
        ("x.nrrd,1,nan,3,,,", "finite"),
        ("x.nrrd,1,2,3,,,,7", "more cells"),
    ],
)
def test_what_can_be_wrong_with_a_row(tmp_path, cells, message):
    table = tmp_path / "points.csv"
    table.write_text(f"image,r,a,s,i,j,k\n{cells}\n")
    (row,) = batch_rows.read_rows(table, None)
    assert message in row.problem


def test_a_color_that_is_none_is_named(tmp_path):
    table = tmp_path / "points.csv"
    table.write_text("image,r,a,s,color\nx.nrrd,1,2,3,reddish\n")
    (row,) = batch_rows.read_rows(table, None)
    assert "#RRGGBB" in row.problem
    with pytest.raises(SamuError, match="check the path"):
        batch_rows.read_rows(tmp_path / "absent.csv", None)
