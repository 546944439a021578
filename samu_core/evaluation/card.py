"""`samu card`: the measured figures of the model card and of docs/evaluation.md, written from files.

A document marks what is measured:

    <!-- measured:begin NAME -->
    ... replaced ...
    <!-- measured:end NAME -->

NAME is `weights` (the weights file's own facts), or the name given to an evaluation folder with
`--evaluation NAME=FOLDER`: its command, day and tables; `NAME.summary` is its figures in sentences. An
evaluation may lie in several folders (model and baselines measured apart): NAME=FOLDER,FOLDER, on the same
clicks.
Markers whose evaluation is not given stay as they are.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from samu_core.errors import SamuError
from samu_core.evaluation.reading import read_clicks, read_record
from samu_core.evaluation.results import EvaluationResult, by_method
from samu_core.evaluation.tables import markdown_table, summary_table

DOCUMENTS = (Path("SAMUSegment/Resources/Models/model-card.md"), Path("docs/evaluation.md"))
MARKER = re.compile(r"<!-- measured:(begin|end) ([\w.-]+) -->")
WEIGHTS, SUMMARY, MODEL = "weights", ".summary", "model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `samu card`."""
    parser.add_argument(
        "documents",
        nargs="*",
        type=Path,
        default=list(DOCUMENTS),
        help="files with markers (default: the model card and docs/evaluation.md)",
    )
    parser.add_argument(
        "--evaluation",
        action="append",
        default=[],
        metavar="NAME=DIR[,DIR]",
        help="results of 'samu evaluate --out DIR' under the name of their marker; may be repeated",
    )
    parser.add_argument("--model", type=Path, help="weights file described (default: the bundled one)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file would change")


def run(args: argparse.Namespace) -> int:
    """Fill the markers. Returns the exit code."""
    from samu_core.weights import read_info

    info = read_info(args.model)
    sections = {WEIGHTS: weights_section(info)}
    for text in args.evaluation:
        name, equals, folders = text.partition("=")
        if not (name and equals and folders) or name == WEIGHTS:
            raise SamuError(f"--evaluation takes NAME=FOLDER, not '{text}'.")
        paths = [Path(folder) for folder in folders.split(",")]
        results, records = load_evaluation(paths, info["sha256"])
        sections[name] = table_section(results, records)
        sections[name + SUMMARY] = summary_section(results)
    stale = 0
    for path in args.documents:
        try:
            old = path.read_text(encoding="utf-8")
        except OSError as error:
            raise SamuError(f"cannot read {path}: {error.strerror}; name the documents.") from error
        new, filled, left = fill(old, sections, str(path))
        stale += new != old
        if not args.check and new != old:
            temporary = path.with_name(path.name + ".part")
            temporary.write_text(new, encoding="utf-8")
            os.replace(temporary, path)
        state = "up to date" if new == old else "would change" if args.check else "written"
        kept = f"; left as they are: {', '.join(left)}" if left else ""
        print(f"{path}: {state}; measured: {', '.join(filled) or 'nothing'}{kept}")
    return 1 if args.check and stale else 0


def fill(text: str, sections: dict[str, str], name: str = "the document") -> tuple[str, list[str], list[str]]:
    """Put the sections between their markers.

    Returns:
        the text, the names filled, the names left as they are.

    Raises:
        SamuError: a marker without its partner, or one within another.
    """
    parts: list[str] = []
    filled: list[str] = []
    left: list[str] = []
    place, opened = 0, None
    for match in MARKER.finditer(text):
        kind, marker = match.groups()
        if (kind == "begin") != (opened is None) or (kind == "end" and opened != marker):
            raise SamuError(f"{name}: the marker '{match.group()}' has no partner; pair begin and end.")
        if kind == "begin":
            parts.append(text[place : match.end()])
            opened = marker
        else:
            (filled if marker in sections else left).append(marker)
            parts.append(
                f"\n{sections[marker].strip()}\n" if marker in sections else text[place : match.start()]
            )
            parts.append(match.group())
            opened = None
        place = match.end()
    if opened is not None:
        raise SamuError(f"{name}: the marker 'measured:begin {opened}' has no end.")
    return "".join([*parts, text[place:]]), filled, left


def load_evaluation(
    folders: Sequence[Path], weights_sha256: str
) -> tuple[dict[str, EvaluationResult], list[dict[str, Any]]]:
    """{method: result} and the records of an evaluation's folders.

    Raises:
        SamuError: the model's figures are of other weights, a method comes twice, or clicks differ.
    """
    results: dict[str, EvaluationResult] = {}
    records = []
    for folder in folders:
        found, record = by_method(read_clicks(folder / "clicks.csv")), read_record(folder)
        if MODEL in found and record.get("weights_sha256") != weights_sha256:
            raise SamuError(
                f"{folder} was measured with other weights, {str(record.get('weights_sha256'))[:12]}; the "
                f"card is about {weights_sha256[:12]}: evaluate these, or name others with --model."
            )
        if set(found) & set(results):
            raise SamuError(f"{folder} repeats the method(s) {', '.join(sorted(set(found) & set(results)))}.")
        results.update(found)
        records.append(record)
    clicks = {name: _clicks_of(result) for name, result in results.items()}
    first = next(iter(clicks))
    for name, own in clicks.items():
        if own != clicks[first]:
            raise SamuError(
                f"'{name}' and '{first}' were not measured on the same clicks: evaluate both with the same "
                "--split, --boundary, --clicks, --limit and --seed."
            )
    return results, records


def _clicks_of(result: EvaluationResult) -> set[tuple]:
    return {(row.volume, row.label, row.click, round(row.r, 2), round(row.a, 2)) for row in result.rows}


def weights_section(info: dict[str, Any]) -> str:
    """What a weights file says of itself: name, size, checksum, and what it keeps of its training."""
    path = Path(info["path"])
    lines = [
        f"`{path.name}`, SHA-256 `{info['sha256']}`: {info['parameters'] / 1e6:.1f} million parameters, "
        f"{path.stat().st_size / 1e6:.1f} MB (`samu info`)."
    ]
    known = {"path", "sha256", "parameters", "config"}
    lines += [f"- {name}: {value}" for name, value in info.items() if name not in known]
    return lines[0] + ("\n\n" + "\n".join(lines[1:]) if lines[1:] else "")


def table_section(results: dict[str, EvaluationResult], records: list[dict[str, Any]]) -> str:
    """How it was measured, then the tables of Dice and of the other figures."""
    commands = "\n".join(f"    {record['command']}" for record in records)
    days = " and ".join(dict.fromkeys(record["date"] for record in records))
    return f"Measured on {days} with\n\n{commands}\n\n{markdown_table(results)}\n{summary_table(results)}"


def summary_section(results: dict[str, EvaluationResult]) -> str:
    """The main figures in sentences: means, the distance to the classical methods, robustness."""
    model = results.get(MODEL)
    rivals = {name: result for name, result in results.items() if name != MODEL}
    sentences = []
    if model is not None:
        low, high = model.interval()
        clicks = len(model.rows)
        sentences.append(
            f"Patch Dice {model.mean:.3f} (95 % interval {low:.3f} to {high:.3f}), mean over "
            f"{len(model.per_dataset)} data sets, {len(model.structures)} structures and {clicks} clicks."
        )
        sentences += [f"{group.capitalize()}: {value:.3f}." for group, value in model.groups.items()]
        if any(structure.clicks > 1 for structure in model.structures):
            sentences.append(
                f"SD over the clicks of a structure {model.over_data_sets('sd'):.3f}, worst click "
                f"{model.over_data_sets('worst'):.3f}."
            )
    if rivals:
        best = max(rivals, key=lambda name: rivals[name].mean)
        sentences.append(f"The best classical method is {best}: {rivals[best].mean:.3f}.")
        if model is not None:
            sentences.append(_comparison(model, rivals, best))
    return " ".join(sentences)


def _comparison(model: EvaluationResult, rivals: dict[str, EvaluationResult], best: str) -> str:
    own, other = model.per_dataset, rivals[best].per_dataset
    tops = {name: max(result.per_dataset[name] for result in rivals.values()) for name in own}
    above = sum(value > other[name] for name, value in own.items())
    above_all = sum(value > tops[name] for name, value in own.items())
    gap = model.mean - rivals[best].mean
    return (
        f"The model is {abs(gap):.3f} {'above' if gap >= 0 else 'below'} it, and above it on {above} of "
        f"{len(own)} data sets (above every classical method on {above_all})."
    )
