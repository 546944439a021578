"""Structures, clicks and targets of the protocol, and the command from end to end."""

import csv
import sys
import types

import numpy as np
import pytest
import torch
from evaluation_data import ball, two_balls, write_manifest, write_volume

from samu_core import cli
from samu_core.errors import SamuError
from samu_core.evaluation import cases as protocol_cases
from samu_core.evaluation import evaluate_network
from samu_core.evaluation.cases import Case, draw_clicks, find_structures, read_cases, working_spacing
from samu_core.evaluation.metrics import dice
from samu_core.evaluation.protocol import (
    NetworkMethod,
    Options,
    click_patches,
    evaluate,
    native_dice,
    select,
)
from samu_core.evaluation.results import TRAINED_SUBJECT, UNSEEN_SOURCE, UNSEEN_SUBJECT, by_method
from samu_core.evaluation.tables import markdown_table

UNIT = (1.5, 1.5, 1.5)
SMALL = Options(clicks=2, size=48, native=True, nsd=True)


class HalfAsBright(torch.nn.Module):
    """A network's interface with an answer that depends on the click, and is sure: half as bright as its
    voxel."""

    def encode(self, patch):
        return [patch]

    def decode(self, features, prompt):
        image = features[0]
        d, h, w = (int(f * n) for f, n in zip(prompt.position[0].tolist(), image.shape[2:]))
        return 10 * (image - (image[0, 0, d, h, w] + image.median()) / 2)


@pytest.fixture
def data(tmp_path):
    return two_balls(tmp_path)


def make_case(name="case", boundary="visible", label_names=None):
    return Case(name, "MR-T1", boundary, label_names or {}, "a/b", UNSEEN_SOURCE, None, None)


# --- what is clicked


def test_manifest_rows_and_groups(data):
    cases = read_cases(data, "dev")
    assert [c.name for c in cases] == ["pair", "single"]  # not the training row, not the one without image
    assert [c.group for c in cases] == [UNSEEN_SUBJECT, UNSEEN_SOURCE]
    assert cases[0].label_names == {1: "both_balls", 7: "speck"}
    assert [c.core_modality for c in cases] == ["MR", "CT"]


def test_what_was_trained_on_is_not_called_unseen(data):
    labels = np.zeros((30, 36, 40))
    labels[10:20, 10:20, 10:20] = 1
    write_volume(data, "elsewhere", labels, labels)  # the fixture's training row
    found = by_method(evaluate(data, "train", {"model": NetworkMethod(HalfAsBright())}, options=SMALL))
    assert found["model"].groups.keys() == {TRAINED_SUBJECT}
    table = markdown_table(found)
    assert f"| *{TRAINED_SUBJECT}: mean of 1* | 1 | 1 |" in table and "unseen" not in table


def test_bad_data_directories_are_explained(tmp_path, data):
    with pytest.raises(SamuError, match="no manifest.csv"):
        read_cases(tmp_path / "nowhere", "dev")
    with pytest.raises(SamuError, match=r"no volumes of split 'test'.*splits: dev, train"):
        read_cases(data, "test")
    (data / "vol" / "single_lab.nii.gz").unlink()
    with pytest.raises(SamuError, match="single_lab.nii.gz is in the manifest but not on disk"):
        read_cases(data, "dev")
    (data / "manifest.csv").write_text("name,split\nx,dev\n")
    with pytest.raises(SamuError, match="has_image, modality, boundary"):
        read_cases(data, "dev")


def test_structures_are_labels_with_a_part_of_sixty_voxels():
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[1:5, 1:5, 1:5] = 3  # 64 voxels of 1.5 mm
    labels[10:13, 10:13, 10:13] = 3  # 27: too small to be clicked
    labels[15:18, 15:18, 15:18] = 9  # 27
    [structure] = find_structures(make_case(label_names={3: "cube"}), labels, UNIT)
    assert (structure.label, structure.name) == (3, "cube")
    assert (structure.parts > 0).sum() == 64 and (structure.parts == -1).sum() == 27
    both = find_structures(make_case(), labels, (3.0, 3.0, 3.0))  # the same voxels, eight times the volume
    assert [s.label for s in both] == [3, 9] and (both[0].parts > 0).sum() == 91


def test_diagonal_voxels_are_one_part():
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[2:6, 2:6, 2:6] = labels[6:10, 6:10, 6:10] = 1
    [structure] = find_structures(make_case(), labels, UNIT)
    assert structure.parts.max() == 1


def test_atlases_are_merged_and_limited():
    labels = np.zeros((40, 40, 40), np.uint16)
    ids = [1001, 1035, 2007, 3001, 4001, 5002, 11101, 12150, 10, 11, 12, 13, 17, 18]
    for number, value in enumerate(ids):
        labels[5 * (number // 5) : 5 * (number // 5) + 4, :4, 6 * (number % 5) : 6 * (number % 5) + 5] = value
    case = make_case(boundary="mixed: parcels")
    found = [s.label for s in find_structures(case, labels, UNIT)]
    assert len(found) == protocol_cases.ATLAS_STRUCTURES
    assert set(found) <= {3, 42, 2, 41, 10, 11, 12, 13, 17, 18}
    assert found == [s.label for s in find_structures(case, labels, UNIT)]
    draws = {tuple(s.label for s in find_structures(case, labels, UNIT, seed)) for seed in range(5)}
    assert len(draws) > 1
    merged = protocol_cases.clean_labels(labels, visible=False)
    assert set(np.unique(merged)) == {0, 2, 3, 10, 11, 12, 13, 17, 18, 41, 42}
    assert protocol_cases.clean_labels(labels, visible=True) is labels
    assert len(find_structures(make_case(), labels, UNIT)) == len(ids)  # visible: all, as written


def test_micro_images_are_worked_in_voxels():
    assert working_spacing((1.0, 1.0, 5.0)) == 1.5
    assert working_spacing((0.2, 0.2, 2.5)) == 1.5
    assert working_spacing((0.14, 0.14, 0.15)) == pytest.approx(0.14)
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[1:5, 1:5, 1:5] = 3
    assert len(find_structures(make_case(), labels, (0.14, 0.14, 0.14))) == 1


def test_clicks_lie_in_the_structure_and_are_reproducible():
    labels = np.zeros((30, 30, 30), np.uint8)
    labels[5:11, 6:12, 7:13] = 4
    labels[20:25, 20:25, 20:25] = 4
    labels[0, 0, 0] = 4  # a fragment, never clicked
    [structure] = find_structures(make_case(), labels, UNIT)
    clicks = draw_clicks(make_case(), structure, UNIT, clicks=40, seed=3)
    assert [c.index for c in clicks] == [*map(str, range(40)), "deepest"]
    assert all(labels[c.voxel_kji] == 4 and c.voxel_kji != (0, 0, 0) for c in clicks)
    assert len({c.part for c in clicks[:-1]}) == 2
    assert all(0 < abs(p - v) < 0.5 for c in clicks for p, v in zip(c.position_kji, c.voxel_kji))
    assert clicks[-1].voxel_kji in {(k, j, i) for k in (7, 8) for j in (8, 9) for i in (9, 10)}
    assert draw_clicks(make_case(), structure, UNIT, clicks=2, seed=3, deepest=False) == clicks[:2]
    assert draw_clicks(make_case(), structure, UNIT, clicks=40, seed=4)[:40] != clicks[:40]
    assert draw_clicks(make_case("other"), structure, UNIT, clicks=40, seed=3)[:40] != clicks[:40]


def test_the_click_numbers_never_change():
    """Results of different days are comparable only if the same seed means the same clicks for ever."""
    assert protocol_cases.generator(0, "okbp_pt_34", "1").integers(0, 1000, 5).tolist() == [
        912,
        710,
        82,
        799,
        779,
    ]


# --- what is asked and what is right


def test_target_is_the_clicked_ball_and_not_its_namesake(data):
    [pair, _] = read_cases(data, "dev")
    seen = set()
    for patch, target in click_patches(pair, Options(clicks=8, size=64)):
        centre = (slice(31, 33),) * 3  # the click is the corner of these eight voxels
        assert patch.click_kji == pytest.approx([31.5] * 3) and patch.raw.shape == (64,) * 3
        assert target.part[centre].any() and patch.raw[centre].max() > 200
        assert (target.part <= target.whole_label).all()
        radius = {1: 6, 2: 4}[target.click.part]
        # The volume has the patch's spacing: sampled nearest, the count stays.
        assert target.part.sum() == pytest.approx(ball((20,) * 3, (10,) * 3, radius).sum(), rel=0.02)
        assert target.whole_label.sum() > target.part.sum()
        assert target.native_part().sum() == ball((20,) * 3, (10,) * 3, radius).sum()
        assert np.isnan(patch.raw).any() and np.isfinite(patch.normalized).all()
        seen.add(target.click.part)
    assert seen == {1, 2}


def test_patch_and_label_crop_agree_in_space(tmp_path):
    """Anisotropic voxels, a structure at the volume's edge: bright where the target is, dark elsewhere."""
    labels = np.zeros((12, 40, 50), np.uint8)
    labels[0:5, 0:14, 30:50] = 2
    write_volume(tmp_path, "edge", 1000.0 * labels, labels, spacing_ijk=(0.9, 1.1, 4.0))
    write_manifest(tmp_path, [{"name": "edge", "source_repo": "x"}])
    for patch, target in click_patches(read_cases(tmp_path, "dev")[0], Options(clicks=3, size=64)):
        inside = patch.raw[target.part]
        assert np.isfinite(inside).all()
        outside = patch.raw[~target.part & patch.inside]
        # Nearest against linear: even at a corner of the structure an eighth of the bright voxel is seen.
        assert inside.min() > 2000 / 8 and outside.max() < 2000 * 7 / 8
        assert dice(patch.raw >= 1000, target.part) > 0.95


def test_a_label_map_on_another_grid_is_refused(data):
    labels = np.zeros((30, 36, 40))
    labels[10:20, 10:20, 10:20] = 1
    write_volume(data, "pair", labels, labels)
    write_volume(data, "other", labels[:-1], labels[:-1])
    (data / "vol" / "other_lab.nii.gz").replace(data / "vol" / "pair_lab.nii.gz")
    with pytest.raises(SamuError, match="pair_lab.nii.gz is not on the grid"):
        next(click_patches(read_cases(data, "dev")[0]))


# --- methods and results


def test_network_against_known_answer(data):
    methods = {"model": NetworkMethod(HalfAsBright())}
    result = by_method(evaluate(data, "dev", methods, options=SMALL))["model"]
    assert result.groups.keys() == {UNSEEN_SOURCE, UNSEEN_SUBJECT}
    assert result.per_dataset.keys() == {"a/known", "b/new"}
    assert min(result.per_dataset.values()) > 0.9
    assert result.mean == pytest.approx(np.mean(list(result.groups.values())))
    assert result.over_data_sets("dice_native") > 0.9
    assert result.over_data_sets("nsd") > 0.95
    # In "pair" one of two balls is found, so the whole label is not.
    assert result.by_data_set("dice_label")["a/known"] < 0.93
    assert result.by_data_set("dice_label")["b/new"] == result.per_dataset["b/new"]


def test_evaluate_network_repeats_itself_and_restores_the_mode(data):
    network = HalfAsBright().train()
    runs = [evaluate_network(network, data, clicks=2, size=32, spacing=3.0) for _ in range(2)]
    assert network.training
    assert [r.dice for r in runs[0].rows] == [r.dice for r in runs[1].rows]
    assert {r.click for r in runs[0].rows} == {"0", "1"}
    assert runs[0].mean > 0.85
    assert evaluate_network(network, data, clicks=2, size=32, spacing=3.0, seed=1).rows != runs[0].rows


def test_the_real_network_fits(data):
    """Untrained, so only that patch, prompt and logits meet: finite scores that depend on the weights."""
    from samu_core.network import SAMU

    scores = []
    for seed in range(2):
        torch.manual_seed(seed)
        network = SAMU()
        torch.nn.init.constant_(network.decoder.head.bias, 0.0)
        result = evaluate_network(network, data, clicks=1, size=32, spacing=3.0)
        assert len(result.rows) == 2 and all(0 <= row.dice <= 1 for row in result.rows)
        scores.append([row.mask_voxels for row in result.rows])
    assert scores[0] != scores[1]


def test_native_dice_counts_what_the_patch_does_not_reach(data):
    """A rod longer than the patch: right inside the patch, half of it missing on the native grid."""
    labels = np.zeros((14, 14, 60), np.uint8)
    labels[3:11, 3:11, :] = 1
    write_volume(data, "single", 500.0 * labels, labels)
    case = read_cases(data, "dev")[1]
    for patch, target in click_patches(case, Options(clicks=2, size=32)):
        if not 17 <= target.click.voxel_kji[2] <= 42:
            continue
        part = native_dice(lambda _: None, patch, target.part, target)
        assert part == pytest.approx(2 * 32 / (32 + 60), abs=0.04)


def test_limit_keeps_all_data_sets_and_takes_few_structures(data):
    labels = np.zeros((30, 36, 40), np.uint8)
    for number in range(5):
        labels[4:9, 4:9, 7 * number : 7 * number + 5] = number + 1
    write_volume(data, "pair", labels, labels)
    cases = read_cases(data, "dev")
    assert [only for _, only in select(cases, Options())] == [None, None]
    (_, first), (_, second) = select(cases, Options(limit=2))
    assert len(first) == 2 and first < {1, 2, 3, 4, 5} and second == {5}
    rows = evaluate(
        data, "dev", {"ball": lambda patch: patch.inside}, options=Options(clicks=1, size=32, limit=2)
    )
    assert {(r.volume, r.label) for r in rows} == {("pair", label) for label in first} | {("single", 5)}


# --- the command


def run_cli(*arguments):
    return cli.main(["evaluate", *map(str, arguments)])


def test_command_with_baselines(data, tmp_path, capsys):
    out = tmp_path / "out"
    assert run_cli("--data", data, "--baselines", "--clicks", 1, "--out", out) == 0
    captured = capsys.readouterr()
    assert "| data set | volumes | structures | ball | connected_threshold |" in captured.out
    assert "| a/known | 1 | 1 |" in captured.out and "| b/new | 1 | 1 |" in captured.out
    assert "2/2 single" in captured.err
    assert (out / "table.md").read_text() in captured.out
    with open(out / "clicks.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 4  # two structures, a uniform and the deepest click, four methods
    assert {r["method"] for r in rows} == {
        "ball",
        "connected_threshold",
        "confidence_connected",
        "fast_marching",
    }
    best = max(float(r["dice"]) for r in rows if r["volume"] == "single")
    assert best > 0.8


def test_command_with_a_model(data, capsys, monkeypatch):
    weights = types.SimpleNamespace(load_network=lambda path, map_location: HalfAsBright())
    monkeypatch.setitem(sys.modules, "samu_core.weights", weights)
    assert (
        run_cli("--data", data, "--clicks", 1, "--limit", 1, "--model", "x.npz", "--native", "--no-deepest")
        == 0
    )
    out = capsys.readouterr().out
    assert "| data set | volumes | structures | model |" in out
    assert "whole volume, native grid" in out
    assert "deepest voxel" not in out


def test_command_in_worker_processes(data, tmp_path, capsys):
    """Same rows, whoever computes them."""
    for workers in (1, 2):
        arguments = ("--baselines", "--clicks", 1, "--workers", workers, "--out", tmp_path / str(workers))
        assert run_cli("--data", data, *arguments) == 0
    tables = []
    for workers in (1, 2):
        with open(tmp_path / str(workers) / "clicks.csv", newline="") as file:
            tables.append([{k: v for k, v in r.items() if k != "seconds"} for r in csv.DictReader(file)])
    assert tables[0] == tables[1]


def test_command_errors_are_one_line(data, tmp_path, capsys):
    assert run_cli("--data", tmp_path / "none", "--baselines") == 1
    assert run_cli("--data", data, "--baselines", "--clicks", 0) == 1
    assert run_cli("--data", data, "--baselines", "--split", "holdout") == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and all(line.startswith("samu: error: ") for line in lines)
