"""`samu` in process: command lines, messages, exit codes, `samu info`."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from cli_support import error_line, run

import samu_core
from samu_core import cli
from samu_core.commands import common, outputs
from samu_core.errors import SamuError


@pytest.mark.parametrize("text, value", [("-1e-3", -0.001), ("-12.5", -12.5), ("-5.", -5.0), ("2E1", 20.0)])
def test_negative_numbers_are_no_options(text, value):
    args = cli.build_parser("segment").parse_args(["segment", "x.nrrd", "--point", text, "0", "-1"])
    assert args.clicks == [("point", (value, 0.0, -1.0))]


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--point", "nan", 0, 0], "finite"),
        (["--point", "inf", 0, 0], "finite"),
        (["--point", 1, 2], "expected 3 arguments"),
        (["--point", 1, 2, "three"], "invalid"),
        (["--ijk", 1, 2, 3, "--threshold", 0], "between 0 and 1"),
        (["--ijk", 1, 2, 3, "--threshold", 1.5], "between 0 and 1"),
        (["--ijk", 1, 2, 3, "--spacing", -1], "voxel size"),
        (["--ijk", 1, 2, 3, "--device", "tpu"], "not auto, cpu, cuda"),
        (["--ijk", 1, 2, 3, "--no-such-option"], "unrecognized"),
    ],
)
def test_wrong_command_lines(capsys, image_path, argv, message):
    code, _, err = run(capsys, "segment", image_path, *argv)
    assert code == cli.EXIT_USAGE
    assert message in error_line(err)
    assert len(err.splitlines()) == 1


def test_debug_shows_the_traceback(capsys, predictor, tmp_path):
    code, _, err = run(capsys, "segment", tmp_path / "absent.nrrd", "--point", 0, 0, 0, "--debug")
    assert code == cli.EXIT_ERROR
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("samu: error:")


def test_info_describes_weights_device_and_versions(capsys, weights):
    code, out, _ = run(capsys, "info", "--model", weights, "--device", "cpu", "--precision", "float32")
    rows = dict(line.split("  ", 1) for line in out.splitlines())
    rows = {name: value.strip() for name, value in rows.items()}
    assert code == 0
    assert rows["weights"] == str(weights)
    assert rows["name"] == "tiny"
    assert rows["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert int(rows["parameters"].replace(",", "")) > 1000
    assert (rows["device"], rows["precision"]) == ("cpu", "float32")
    assert rows["samu_core"] == samu_core.__version__
    assert rows["numpy"] == np.__version__


def test_info_without_weights_still_tells_the_versions(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("SAMU_WEIGHTS", str(tmp_path / "absent.npz"))
    code, out, _ = run(capsys, "info")
    assert code == cli.EXIT_ERROR
    assert "unusable" in out and "absent.npz" in out
    assert samu_core.__version__ in out


def test_version_help_and_unknown_command(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert samu_core.__version__ in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    listed = capsys.readouterr().out
    assert all(name in listed for name in cli.COMMANDS)
    code, _, err = run(capsys, "segmentt")
    assert code == cli.EXIT_USAGE
    assert "segmentt" in error_line(err)


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_builds_its_help(capsys, name):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert stop.value.code == 0
    assert "--debug" in capsys.readouterr().out


@pytest.mark.parametrize(
    "error, text",
    [
        (SamuError("say\n this"), "say this"),
        (ModuleNotFoundError("x", name="skimage.util"), "pip install scikit-image"),
        (ModuleNotFoundError("x", name="samu_core.training.cli"), "no samu_core.training.cli"),
        (FileNotFoundError(2, "No such file or directory", "a.txt"), "No such file or directory: a.txt"),
        (MemoryError(), "out of memory"),
        (ValueError("odd"), "ValueError: odd"),
    ],
)
def test_errors_are_explained_on_one_line(error, text):
    line = cli.explain(error)
    assert text in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "name, stem",
    [("ct.nii.gz", "ct"), ("a.b.nrrd", "a.b"), ("x.seg.nrrd", "x"), ("plain", "plain"), ("UP.NII", "UP")],
)
def test_default_output_name(tmp_path, name, stem):
    (tmp_path / name).touch()
    assert outputs.default_output(tmp_path / name) == tmp_path / f"{stem}.seg.nrrd"


def test_dicom_folder_gets_its_output_beside_it(tmp_path):
    series = tmp_path / "series.nrrd"
    series.mkdir()
    assert outputs.default_output(series) == tmp_path / "series.nrrd.seg.nrrd"


def test_table_is_markdown():
    text = common.table([["a", "1"], ["long name", "22"]], ["name", "n"])
    assert text.splitlines() == [
        "| name      |  n |",
        "|-----------|---:|",
        "| a         |  1 |",
        "| long name | 22 |",
    ]
