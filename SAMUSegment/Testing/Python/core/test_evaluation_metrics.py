"""Metrics against values worked out by hand, and the arithmetic of the aggregation."""

import math

import numpy as np
import pytest
from evaluation_data import ball

from samu_core.evaluation import tables
from samu_core.evaluation.metrics import bootstrap_interval, dice, round_half_up, surface_dice
from samu_core.evaluation.results import (
    UNSEEN_SOURCE,
    UNSEEN_SUBJECT,
    ClickRow,
    EvaluationResult,
    StructureRow,
    by_method,
)


def test_dice_by_hand():
    target, mask = np.zeros((4, 4, 4), bool), np.zeros((4, 4, 4), bool)
    target[0, 0, :4] = True
    mask[0, 0, 1:3] = True
    assert dice(mask, target) == pytest.approx(2 * 2 / (2 + 4))
    assert dice(target, target) == 1.0
    assert dice(np.zeros_like(target), target) == 0.0
    assert math.isnan(dice(mask, np.zeros_like(target)))
    with pytest.raises(ValueError, match="shape"):
        dice(mask, target[1:])


def test_surface_dice_of_shifted_cubes():
    target, mask = np.zeros((20, 20, 20), bool), np.zeros((20, 20, 20), bool)
    target[5:10, 5:10, 5:10] = True
    mask[8:13, 5:10, 5:10] = True  # 3 voxels further along K
    assert surface_dice(target, target, (1, 1, 1)) == 1.0
    assert surface_dice(mask, target, (1, 1, 1), tolerance_mm=3.0) == 1.0
    # A surface of 5^3 - 3^3 = 98 voxels. At 0 mm tolerance only shared surface voxels count: the walls in
    # the two common slices, 16 each, of which the inner faces (K = 9 of target, K = 8 of mask) add nothing.
    assert surface_dice(mask, target, (1, 1, 1), tolerance_mm=0.0) == pytest.approx(32 / 98)
    # With voxels of 0.5 mm along K the shift is 1.5 mm.
    assert surface_dice(mask, target, (0.5, 1, 1), tolerance_mm=1.5) == 1.0
    assert surface_dice(mask, target, (1, 1, 1), tolerance_mm=2.0) < 1.0


def test_surface_dice_of_nothing():
    something = np.zeros((6, 6, 6), bool)
    something[2:4, 2:4, 2:4] = True
    nothing = np.zeros_like(something)
    assert surface_dice(nothing, something, (1, 1, 1)) == 0.0
    assert math.isnan(surface_dice(something, nothing, (1, 1, 1)))
    full = np.ones_like(something)
    assert surface_dice(full, full, (1, 1, 1)) == 1.0


def test_a_surface_at_the_volume_border_is_none():
    half, whole = np.zeros((8, 8, 8), bool), np.zeros((8, 8, 8), bool)
    half[:4] = True
    whole[:4] = True
    whole[0, 0, 0] = False  # a missing corner makes a surface of its three neighbours alone
    assert surface_dice(whole, half, (1, 1, 1), 0.5) == pytest.approx(2 * 64 / (2 * 64 + 3))


@pytest.mark.parametrize("x, expected", [(63.5, 64), (62.5, 63), (63.49, 63), (0.0, 0), (-0.4, 0)])
def test_halves_round_upwards(x, expected):
    assert round_half_up(x) == expected


def test_bootstrap_interval():
    assert bootstrap_interval([[[0.5, 0.5]], [[0.7]]]) == pytest.approx(
        (0.6, 0.6)
    )  # one volume each: no variance
    low, high = bootstrap_interval([[[0.0], [1.0]]], samples=500)
    assert (low, high) == (0.0, 1.0)
    many = [[[v] for v in np.random.default_rng(0).normal(0.5, 0.1, 100)]]
    low, high = bootstrap_interval(many)
    assert low < np.mean(many) < high
    assert high - low == pytest.approx(2 * 1.96 * 0.1 / 10, rel=0.25)
    assert all(math.isnan(x) for x in bootstrap_interval([]))


def row(data_set, volume, label, click, value, method="m", group=UNSEEN_SOURCE):
    nan = float("nan")
    return ClickRow(
        method, data_set, group, volume, "MR", label, f"s{label}", click, 1.0, 2.0, 3.0, 100, 90,
        value, value / 2, nan, nan, 0.25,
    )  # fmt: skip


@pytest.fixture
def rows():
    return [
        row("A", "v1", 1, "0", 0.2),
        row("A", "v1", 1, "1", 0.6),
        row("A", "v1", 1, "deepest", 1.0),
        row("A", "v1", 2, "0", 0.8),
        row("A", "v2", 1, "0", 0.6),
        row("B", "v3", 1, "0", 0.1, group=UNSEEN_SUBJECT),
        row("B", "v3", 2, "0", float("nan"), group=UNSEEN_SUBJECT),
    ]


def test_clicks_structures_data_sets(rows):
    result = EvaluationResult(rows)
    assert len(result.structures) == 4  # the NaN click is dropped with its structure
    first = result.structures[0]
    assert first.dice == pytest.approx(0.4)  # without the deepest click
    assert (first.sd, first.worst, first.deepest, first.clicks) == pytest.approx((0.2, 0.2, 1.0, 2))
    assert result.per_dataset == pytest.approx({"A": (0.4 + 0.8 + 0.6) / 3, "B": 0.1})
    assert result.mean == pytest.approx((0.6 + 0.1) / 2)
    assert result.groups == pytest.approx({UNSEEN_SOURCE: 0.6, UNSEEN_SUBJECT: 0.1})
    assert result.over_data_sets("deepest") == pytest.approx(1.0)
    assert result.over_data_sets("dice_label") == pytest.approx(0.175)
    assert math.isnan(result.over_data_sets("nsd"))
    low, high = result.interval()
    assert low <= result.mean <= high


def test_markdown_table(rows):
    other = [row(r.data_set, r.volume, r.label, r.click, 0.5, "other", r.group) for r in rows]
    text = tables.markdown_table(by_method(rows + other))
    lines = text.splitlines()
    assert lines[0] == "| data set | volumes | structures | m | other |"
    assert "| A | 2 | 3 | **0.600** | 0.500 |" in lines
    assert "| B | 1 | 1 | 0.100 | **0.500** |" in lines
    assert f"| *{UNSEEN_SOURCE}: mean of 1* | 2 | 3 | **0.600** | 0.500 |" in lines
    assert "| **all: mean of data sets** | 3 | 4 | 0.350 | **0.500** |" in lines
    assert len({line.count("|") for line in lines}) == 1
    summary = tables.summary_table(by_method(rows))
    assert "| deepest voxel instead of a random one | 1.000 |" in summary
    assert "NSD" not in summary  # not measured, not shown


def test_csv_files(rows, tmp_path):
    import csv

    paths = tables.write_all(tmp_path / "new" / "folder", by_method(rows), "table\n")
    assert [p.name for p in paths] == ["clicks.csv", "structures.csv", "table.md"]
    with open(paths[0], newline="") as file:
        clicks = list(csv.DictReader(file))
    assert len(clicks) == 6
    assert clicks[0]["dice"] == "0.2000"
    assert clicks[0]["nsd"] == ""
    with open(paths[1], newline="") as file:
        assert [float(r["dice"]) for r in csv.DictReader(file)] == pytest.approx([0.4, 0.8, 0.6, 0.1])
    assert sorted(p.name for p in paths[0].parent.iterdir()) == ["clicks.csv", "structures.csv", "table.md"]


def test_a_failing_write_leaves_nothing(tmp_path):
    with pytest.raises(AttributeError):
        tables.write_csv(tmp_path / "x.csv", [object()], StructureRow)
    assert list(tmp_path.iterdir()) == []


def test_ball_fixture_is_a_ball():
    assert np.count_nonzero(ball((30, 30, 30), (15, 15, 15), 8)) == pytest.approx(
        4 / 3 * math.pi * 512, rel=0.03
    )
