"""Around a training run: leak check, the run folder, curves, phantoms, the chain of a smoke config."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_support import error_line, run

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")
pytest.importorskip("yaml")

from samu_core.errors import SamuError  # noqa: E402
from samu_core.evaluation.cases import read_cases  # noqa: E402
from samu_core.evaluation.phantoms import PhantomSet, make_phantoms, mr_like  # noqa: E402
from samu_core.io import read_volume  # noqa: E402
from samu_core.training import chain, curves, leaks, rundir  # noqa: E402
from samu_core.training.settings import TrainingSettings  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[4]
REAL_DATA = Path("/work/shared/data")
TINY_CHAIN = """
seed: 1
shapes: 2
shape_size: 40
workers: 0
network: {channels: [8, 8, 8, 8, 8, 8], embedding: 16}
phases:
  - {minutes: 0.06, real: 0.4, labelmaps: 0.2, crops: [{size: 32, spacing: [4.0, 6.0], batch: 2}]}
chain:
  phantoms: {train: 1, labelmaps: 1, dev: 1, spacing: 6.0}
  stop_after_minutes: 0.02
  evaluate: {split: dev, clicks: 1, limit: 1}
"""


def manifest_row(name, split, source="a/b", **more):
    return {"name": name, "split": split, "source_repo": source, **more}


# -- leaks --


@pytest.mark.parametrize(
    "one, other",
    [
        ("sts_003_ct", "sts_003_mrt1"),
        ("gmch_10062Ses1", "gmch_10062Ses2"),
        ("BraTS2021_00001_flair", "BraTS2021_00001_t1ce"),
        ("sub-07_ses-01_T1w", "sub-07_ses-02_T2w"),
        ("tptbox_mr_vert", "tptbox_mr_subreg"),
    ],
)
def test_volumes_of_one_subject_are_recognised(one, other):
    rows = [manifest_row(one, "train"), manifest_row(other, "dev")]
    (line,) = leaks.find_leaks(rows)
    assert one in line and other in line and "train" in line and "dev" in line
    assert leaks.find_leaks([manifest_row(one, "train"), manifest_row(other, "train")]) == []


@pytest.mark.parametrize(
    "one, other", [("hippo_001", "hippo_011"), ("okbp_pt_2", "okbp_pt_20"), ("t1", "t2"), ("s0001", "s0002")]
)
def test_different_subjects_are_told_apart(one, other):
    assert leaks.find_leaks([manifest_row(one, "train"), manifest_row(other, "dev")]) == []


def test_sources_a_subject_column_and_files_of_origin_count():
    apart = [manifest_row("p_001", "train"), manifest_row("p_001", "dev", source="c/d")]
    assert leaks.find_leaks(apart) == []
    named = [manifest_row("x1", "train", subject="Ann"), manifest_row("x2", "dev", subject="ann ")]
    assert len(leaks.find_leaks(named)) == 1
    one_file = [manifest_row("x1", "train", path="a/img.nii"), manifest_row("x2", "dev", path="a/img.nii")]
    assert len(leaks.find_leaks(one_file)) == 1
    folder = [manifest_row("x1", "train", path="a/*"), manifest_row("x2", "dev", path="a/*")]
    assert leaks.find_leaks(folder) == []


def test_train_refuses_a_manifest_that_leaks_before_it_packs(capsys, tmp_path):
    rows = [manifest_row("s_1_ct", "train"), manifest_row("s_1_mr", "dev"), manifest_row("s_2_ct", "train")]
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["name", "split", "source_repo", "has_image"], restval="1")
        writer.writeheader()
        writer.writerows(rows)
    (tmp_path / "run.yaml").write_text(TINY_CHAIN.split("chain:")[0])
    options = ("--config", tmp_path / "run.yaml", "--data", tmp_path, "--out", tmp_path / "runs" / "x")
    code, _, err = run(capsys, "train", *options)
    assert code == 1
    assert "s_1_ct in train, s_1_mr in dev" in error_line(err)
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(not (REAL_DATA / "manifest.csv").is_file(), reason=f"{REAL_DATA} is not here")
def test_the_real_data_do_not_leak():
    assert leaks.check_manifest(REAL_DATA / "manifest.csv") > 100
    with (REAL_DATA / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    subjects = {row["name"]: leaks.subject_of(row) for row in rows}
    both = [name for name in subjects if name.endswith("_ct") and name[:-3] + "_mrt1" in subjects]
    assert len(both) >= 16  # sarcoma subjects with CT and MR
    assert all(subjects[name] == subjects[name[:-3] + "_mrt1"] for name in both)
    # Not all in one: 56 hippocampi are 56 subjects.
    assert len({s for n, s in subjects.items() if n.startswith("hippo")}) == 56


# -- the run's folder --


def test_every_start_of_a_run_is_kept(tmp_path, monkeypatch):
    settings = TrainingSettings.from_dict({"phases": [], "seed": 3})
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("seed: 3\n")
    second.write_text("seed: 4\n")
    monkeypatch.setattr(sys, "argv", ["samu", "train", "--config", "a.yaml"])
    for config in (first, first, second):
        rundir.write_run_info(tmp_path / "run", settings, "cpu", config)
    starts = json.loads((tmp_path / "run" / "run.json").read_text())["starts"]
    assert [start["config"] for start in starts] == ["config.yaml", "config.yaml", "config-2.yaml"]
    assert (tmp_path / "run" / "config-2.yaml").read_text() == second.read_text()
    assert starts[0]["settings"]["seed"] == 3 and starts[0]["command"][1] == "train"
    assert starts[0]["versions"]["torch"] == torch.__version__
    assert starts[0]["device"]["kind"] == "cpu" and starts[0]["host"]["cpus"] >= 1


def test_the_commit_is_that_of_this_checkout_or_none(tmp_path, monkeypatch):
    state = rundir.git_state()
    if (REPOSITORY / ".git").exists() and state is not None:
        assert len(state["commit"]) == 40 and state["changed"] >= 0
    else:
        assert state is None
    # An installed package in somebody else's folder has no commit of ours.
    monkeypatch.setattr(rundir.samu_core, "__file__", str(tmp_path / "__init__.py"))
    assert rundir.git_state() is None


def write_log(folder, lines):
    text = "seconds,phase,step,samples,size,loss,dice,rate,samples_per_second\n" + "".join(lines)
    (folder / "log.csv").write_text(text)


def test_curves_are_drawn_of_a_log_with_a_broken_line(tmp_path):
    pytest.importorskip("matplotlib")
    lines = [
        f"{n * 9.0},{1 + n // 6},{n * 20},{n * 80},32,{2 - n / 10},{n / 12},1e-3,12.5\n" for n in range(12)
    ]
    write_log(tmp_path, [*lines, "120.0,2,2"])
    log = curves.read_log(tmp_path / "log.csv")
    assert len(log["loss"]) == 12
    assert curves.phase_starts(log) == [(1, 0.0), (2, 0.9)]
    path = curves.draw_curves(tmp_path)
    assert path == tmp_path / "curves.png" and path.stat().st_size > 5000
    assert np.allclose(curves.running_mean(np.array([1.0, 3.0, 5.0]), 2), [1, 2, 4])


def test_nothing_to_draw_and_no_matplotlib_fail_no_run(tmp_path, monkeypatch):
    assert curves.draw_curves(tmp_path) is None
    write_log(tmp_path, [])
    assert curves.draw_curves(tmp_path) is None
    write_log(tmp_path, ["1,1,20,80,32,1.5,0.1,1e-3,9\n"])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    assert curves.draw_curves(tmp_path) is None


# -- phantoms and the chain --


def test_phantoms_are_a_data_set_that_evaluation_reads(tmp_path):
    rows = make_phantoms(tmp_path, PhantomSet(1, 1, 2, 6.0), seed=2)
    assert [row["split"] for row in rows] == ["train", "train", "dev", "dev"]
    assert leaks.check_manifest(tmp_path / "manifest.csv") == 4
    cases = read_cases(tmp_path, "dev")
    assert {case.core_modality for case in cases} == {"CT", "MR"}
    for case in cases:
        image, labels = read_volume(case.image_path), read_volume(case.label_path)
        assert np.allclose(image.geometry.ijk_to_ras, labels.geometry.ijk_to_ras, atol=1e-3)
        assert case.label_names[1] == "liver" and (labels.array == 1).sum() > 500
        assert (image.array.min() < -900) == (case.core_modality == "CT")
    assert (tmp_path / "labelmaps" / "phantom_001_lab.nii.gz").is_file()
    assert not (tmp_path / "labelmaps" / "phantom_001_img.nii.gz").exists()
    first = read_volume(cases[0].image_path).array
    make_phantoms(tmp_path, PhantomSet(1, 1, 2, 6.0), seed=2)
    assert np.array_equal(read_volume(cases[0].image_path).array, first)


def test_mr_like_greys_order_tissues_otherwise_than_hu():
    air, fat, muscle, bone = mr_like(np.array([-1000, -100, 55, 700]))
    assert air == 0 and fat > muscle > bone > air


@pytest.mark.parametrize("counts, message", [((0, 0, 0, 3.0), "above 0"), ((1, 0, 0, 0.1), "1 to 6 mm")])
def test_impossible_phantoms_are_refused(counts, message):
    with pytest.raises(SamuError, match=message):
        PhantomSet(*counts)


@pytest.mark.parametrize(
    "block, message",
    [("chain: {stop: 3}", "stop_after_minutes"), ("chain: 7", "configs/smoke.yaml"), ("typo: 1", "typo")],
)
def test_unknown_words_in_a_chain_are_named(tmp_path, block, message):
    path = tmp_path / "run.yaml"
    path.write_text(TINY_CHAIN.split("chain:")[0] + block)
    with pytest.raises(SamuError, match=message):
        chain.read_config(path)


def test_the_smoke_config_is_short_and_has_its_chain():
    settings, links = chain.read_config(REPOSITORY / "configs" / "smoke.yaml")
    assert settings.minutes <= 2.5
    assert 0 < links.stop_after_minutes < settings.minutes
    assert links.phantoms["train"] and links.phantoms["dev"] and links.evaluate["split"] == "dev"
    for path in (REPOSITORY / "configs").glob("*.yaml"):
        chain.read_config(path)


@pytest.mark.slow
def test_the_whole_chain(capsys, tmp_path):
    config, out = tmp_path / "tiny.yaml", tmp_path / "tiny"
    config.write_text(TINY_CHAIN)
    code, printed, err = run(capsys, "train", "--config", config, "--out", out, "--device", "cpu")
    assert code == 0, err
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    assert state["seconds"] >= 60 * 0.06 and state["step"] > 1
    assert len(rundir.read_run_info(out)) == 2  # it stopped, and was begun anew
    assert "| **all: mean of data sets** |" in (out / "evaluation" / "table.md").read_text()
    with (out / "evaluation" / "clicks.csv").open() as file:
        assert {row["volume"] for row in csv.DictReader(file)} == {"phantom_002"}
    assert f"{out / 'weights.npz'}:" in printed
