"""What is made of an evaluation's files: read again, the failure gallery, the measured parts of documents."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from cli_support import error_line, run
from evaluation_data import two_balls

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from samu_core import weights as weights_module  # noqa: E402
from samu_core.errors import SamuError  # noqa: E402
from samu_core.evaluation import card, failures, reading, tables  # noqa: E402
from samu_core.evaluation.cases import read_cases  # noqa: E402
from samu_core.evaluation.protocol import Options, evaluate_case  # noqa: E402
from samu_core.evaluation.results import ClickRow, by_method  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[4]
ROW = ClickRow(
    "model", "a/known", "unseen sources", "pair", "MR-T1", 1, "ball", "0", 1.0, 2.0, 3.0, 100, 200, 0.5, 0.4,
    float("nan"), float("nan"), 0.1,
)  # fmt: skip
FACTS = failures.Facts(0.1, 0.05, 1.0, 5000, 100000, 0.9, 0.4, 9.0, 1.0, 0.02)


def rows_of(**dices):
    """Rows of one structure per volume: rows_of(pair=[.1, .2]) has two clicks."""
    return [
        dataclasses.replace(ROW, volume=volume, click=str(number), dice=value, r=float(number))
        for volume, values in dices.items()
        for number, value in enumerate(values)
    ]


def write_results(folder, rows, sha="w", command=("evaluate", "--data", "/here", "--split", "dev")):
    folder.mkdir(parents=True, exist_ok=True)
    tables.write_csv(folder / "clicks.csv", rows, ClickRow)
    reading.write_record(folder, list(command), sha)
    return folder


def marked(name, text):
    return f"<!-- measured:begin {name} -->\n{text}\n<!-- measured:end {name} -->\n"


class Everything:
    """A method that answers with the whole volume."""

    def __call__(self, patch):
        return patch.inside


# -- reading --


def test_click_rows_come_back_as_they_were_written(tmp_path):
    tables.write_csv(tmp_path / "clicks.csv", [ROW], ClickRow)
    (found,) = reading.read_clicks(tmp_path / "clicks.csv")
    assert np.isnan(found.nsd) and found.label == 1 and found.click == "0"
    assert dataclasses.replace(found, nsd=0.0, dice_native=0.0) == dataclasses.replace(
        ROW, nsd=0.0, dice_native=0.0
    )


@pytest.mark.parametrize("text, message", [("a,b\n1,2\n", "no clicks.csv"), ("", "no clicks")])
def test_other_files_are_refused(tmp_path, text, message):
    (tmp_path / "clicks.csv").write_text(text)
    with pytest.raises(SamuError, match=message):
        reading.read_clicks(tmp_path / "clicks.csv")
    with pytest.raises(SamuError, match="evaluation.json"):
        reading.read_record(tmp_path)


def test_the_recorded_command_names_no_folder_of_this_machine():
    words = ["evaluate", "--data", "/my own/data", "--workers", "2", "--split", "dev", "--nsd"]
    assert reading.command_line(words) == "samu evaluate --data DIR --split dev --nsd"


def test_evaluate_records_its_command_and_weights(capsys, tmp_path, weights):
    data, out = two_balls(tmp_path), tmp_path / "out"
    options = ("--split", "dev", "--clicks", 1, "--no-deepest", "--limit", 1)
    code, _, err = run(capsys, "evaluate", "--data", data, "--model", weights, "--out", out, *options)
    assert code == 0, err
    record = reading.read_record(out)
    assert record["weights_sha256"] == weights_module.sha256(weights)
    assert record["command"] == (
        f"samu evaluate --data DIR --split dev --boundary visible --model {weights} --clicks 1 --no-deepest "
        f"--seed 0 --limit 1 --out {out}"
    )
    code, _, err = run(capsys, "evaluate", "--data", data, "--baselines", "--out", out, *options)
    assert code == 0 and reading.read_record(out)["weights_sha256"] is None


# -- failures --


def test_the_worst_structures_come_first():
    rows = rows_of(a=[0.5, 0.7], b=[0.1, 0.2], c=[0.9, 0.0], d=[0.95, 0.95])
    worst = failures.worst_structures(rows, 3)
    assert [own[0].volume for own in worst] == ["b", "c", "a"]
    assert len(failures.worst_structures(rows, 3, per_source=2)) == 2


def test_a_click_of_the_results_is_done_again_exactly(tmp_path):
    (case, _) = read_cases(two_balls(tmp_path), "dev")
    rows = evaluate_case(case, {"model": Everything()}, Options(clicks=3, deepest=True))
    path = tmp_path / "clicks.csv"
    tables.write_csv(path, rows, ClickRow)
    for row in reading.read_clicks(path):
        patch, target = failures.repeat_click(case, row)
        facts = failures.measure(patch, target, patch.inside, 0.0)
        assert facts.dice == pytest.approx(row.dice, abs=2e-3)
        assert facts.target_voxels == row.target_voxels
        assert facts.recall == 1.0 and facts.kept > 0.9
        assert facts.contrast > 1  # a bright ball on dark noise
        assert 2 < facts.depth < 7


def test_clicks_beside_the_structure_and_other_models_are_refused(tmp_path):
    (case, _) = read_cases(two_balls(tmp_path), "dev")
    (row,) = evaluate_case(case, {"model": Everything()}, Options(clicks=1, deepest=False))
    with pytest.raises(SamuError, match="misses it"):
        failures.repeat_click(case, dataclasses.replace(row, r=row.r + 30))
    other = dataclasses.replace(row, dice=row.dice + 0.3)
    with pytest.raises(SamuError, match="name with --model"):
        failures.examine(case, [other], Everything(), tmp_path, 1)


@pytest.mark.parametrize(
    "change, words",
    [
        ({}, ["20.0 times as large", "stands out by 0.90 SD", "no measured fact"]),
        ({"mask_voxels": 0}, ["mask is empty"]),
        ({"mask_voxels": 500, "precision": 0.5}, ["10% of the target's size", "50% of it inside"]),
        ({"mask_voxels": 5100, "precision": 0.2}, ["80% of it lies elsewhere"]),
        ({"contrast": 0.1}, ["differs from its rim by 0.10 SD"]),
        ({"target_voxels": 80, "depth": 1.4}, ["80 voxels", "and is thin"]),
        ({"kept": 0.5, "spread": 1.4}, ["cut by the patch, which holds 50%", "uneven itself (SD 1.4"]),
        ({"click_sd": 0.3}, ["depends on the click"]),
    ],
)
def test_the_sentence_tells_the_facts(change, words):
    sentence = failures.explain(dataclasses.replace(FACTS, **change))
    assert all(word in sentence for word in words), sentence
    assert sentence.endswith(".") and ("no measured fact" in sentence) == ("stands out" in sentence)


def test_the_view_holds_what_is_shown():
    shown = np.zeros((128, 128, 128), bool)
    shown[60:70, 60:70, 20:66] = True
    box, click = failures.view_box((64.2, 63.8, 64.0), shown)
    assert shown[box].sum() == shown.sum()
    assert [part.start for part in box] == [12, 12, 12] and np.allclose(click, [52.2, 51.8, 52.0])
    box, _ = failures.view_box((64, 64, 64), shown & False)
    assert [part.stop - part.start for part in box] == [49, 49, 49]


def test_the_gallery_is_written(capsys, tmp_path, weights):
    pytest.importorskip("PIL")
    data, out = two_balls(tmp_path), tmp_path / "out"
    options = ("--clicks", 2, "--no-deepest", "--model", weights)
    assert run(capsys, "evaluate", "--data", data, "--out", out, *options)[0] == 0
    document = tmp_path / "docs" / "failures.md"
    (document.parent / "images" / "failures").mkdir(parents=True)
    old = document.parent / "images" / "failures" / "09-old.png"
    old.write_bytes(b"")
    options = ("--data", data, "--results", out / "clicks.csv", "--model", weights, "--out", document)
    code, _, err = run(capsys, "failures", *options)
    assert code == 0, err
    text = document.read_text()
    pictures = re.findall(r"\]\((images/failures/\S+\.png)\)", text)
    assert len(pictures) == 2 and all((document.parent / name).stat().st_size < 60e3 for name in pictures)
    assert not old.exists()
    assert reading.read_record(out)["command"] in text and "samu failures --data DIR" in text


# -- card --


def test_marked_parts_are_replaced_and_nothing_else():
    text = f"a\n{marked('x', 'old')}b\n{marked('y', 'keep')}"
    new, filled, left = card.fill(text, {"x": "new"})
    assert new == text.replace("old", "new") and (filled, left) == (["x"], ["y"])
    assert card.fill(new, {"x": "new"})[0] == new


@pytest.mark.parametrize(
    "text",
    [
        "<!-- measured:begin x -->",
        "<!-- measured:end x -->",
        "<!-- measured:begin x --><!-- measured:end y -->",
        "<!-- measured:begin x --><!-- measured:begin y --><!-- measured:end y --><!-- measured:end x -->",
    ],
)
def test_markers_without_partner_are_refused(text):
    with pytest.raises(SamuError, match="measured:"):
        card.fill(text, {"x": "new"})


def test_the_summary_counts_where_the_model_wins():
    model = [dataclasses.replace(r, data_set=r.volume) for r in rows_of(a=[0.6, 0.4], b=[0.2, 0.2])]
    rival = [dataclasses.replace(r, method="ball", dice=0.3) for r in model]
    other = [dataclasses.replace(r, method="front", dice=0.1) for r in model]
    text = card.summary_section(by_method([*model, *rival, *other]))
    assert "Patch Dice 0.350" in text and "best classical method is ball: 0.300" in text
    assert "0.050 above it, and above it on 1 of 2 data sets (above every classical method on 1)" in text
    assert "SD over the clicks of a structure 0.050, worst click 0.300" in text


def test_figures_of_other_weights_or_clicks_are_refused(tmp_path):
    model = write_results(tmp_path / "model", rows_of(a=[0.5, 0.6]), sha="this")
    rows = [dataclasses.replace(row, method="ball") for row in rows_of(a=[0.5])]
    fewer = write_results(tmp_path / "ball", rows, sha=None)
    with pytest.raises(SamuError, match="--model"):
        card.load_evaluation([model], "other")
    with pytest.raises(SamuError, match="same clicks"):
        card.load_evaluation([model, fewer], "this")
    with pytest.raises(SamuError, match="repeats"):
        card.load_evaluation([model, model], "this")


def test_the_card_is_written_once_and_then_up_to_date(capsys, tmp_path, weights):
    sha = weights_module.sha256(weights)
    model = write_results(tmp_path / "model", rows_of(a=[0.5, 0.6]), sha)
    rival = [dataclasses.replace(row, method="ball", dice=0.25) for row in rows_of(a=[0.5, 0.6])]
    ball = write_results(tmp_path / "ball", rival, None, ("evaluate", "--data", "d", "--baselines"))
    document = tmp_path / "card.md"
    names = ("weights", "dev", "dev.summary", "later")
    parts = [marked(name, f"{name} 0.123") for name in names]
    document.write_text("# Card\n\n" + "\n".join(parts))
    options = (document, "--model", weights, "--evaluation", f"dev={model},{ball}")
    assert run(capsys, "card", *options, "--check")[0] == 1
    assert "dev 0.123" in document.read_text()
    code, out, err = run(capsys, "card", *options)
    assert code == 0 and "left as they are: later" in out, err
    text = document.read_text()
    assert sha in text and "- hours: 0.5" in text and "later 0.123" in text and "dev 0.123" not in text
    assert "    samu evaluate --data DIR --split dev\n    samu evaluate --data DIR --baselines\n" in text
    assert "| **all: mean of data sets** | 1 | 1 | **0.550** | 0.250 |" in text
    assert run(capsys, "card", *options, "--check")[0] == 0
    code, _, err = run(capsys, "card", document, "--model", weights, "--evaluation", "dev")
    assert code == 1 and "NAME=FOLDER" in error_line(err)


def test_the_markers_of_the_documents_are_paired():
    for name in card.DOCUMENTS:
        _, _, left = card.fill((REPOSITORY / name).read_text(encoding="utf-8"), {}, str(name))
        assert "dev" in left, name
