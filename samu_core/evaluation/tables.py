"""Results as CSV files and as a Markdown table."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from samu_core.evaluation.results import (
    GROUPS,
    ClickRow,
    EvaluationResult,
    StructureRow,
    fields,
)

SUMMARY = [
    ("mean Dice over data sets", "dice"),
    ("deepest voxel instead of a random one", "deepest"),
    ("SD over clicks of a structure", "sd"),
    ("worst click of a structure", "worst"),
    ("whole label as the target", "dice_label"),
    ("whole volume, native grid", "dice_native"),
    ("NSD at 2 mm", "nsd"),
    ("seconds per click", "seconds"),
]


def write_csv(path: str | Path, rows: Iterable, row_class: type) -> None:
    """Rows (dataclass instances) as CSV, one header line; written whole or not at all."""
    path = Path(path)
    temporary = path.with_name(path.name + ".part")
    names = fields(row_class)
    try:
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            writer.writerows([_cell(getattr(row, name)) for name in names] for row in rows)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_all(folder: str | Path, results: dict[str, EvaluationResult], markdown: str) -> list[Path]:
    """clicks.csv, structures.csv and table.md of {method: EvaluationResult}; returns the three paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "clicks.csv", folder / "structures.csv", folder / "table.md"]
    write_csv(paths[0], [row for result in results.values() for row in result.rows], ClickRow)
    write_csv(paths[1], [row for result in results.values() for row in result.structures], StructureRow)
    paths[2].write_text(markdown, encoding="utf-8")
    return paths


def markdown_table(results: dict[str, EvaluationResult]) -> str:
    """Patch Dice per data set, one column per method; then means per group and over all, with intervals.

    results: {method: EvaluationResult} on the same clicks. The best method of a line is bold.
    """
    first = next(iter(results.values()))
    lines = [
        _line(["data set", "volumes", "structures", *results]),
        _line(["---", *["---:"] * (2 + len(results))]),
    ]
    per_method = [result.by_data_set("dice") for result in results.values()]
    for group in GROUPS:
        names = list(first.by_data_set("dice", group))
        if not names:
            continue
        for name in names:
            volumes, structures = _counts(first, lambda row, name=name: row.data_set == name)
            lines.append(
                _line([name, volumes, structures, *_bold([m.get(name, float("nan")) for m in per_method])])
            )
        counts = _counts(first, lambda row, group=group: row.group == group)
        means = _bold([result.over_data_sets("dice", group) for result in results.values()])
        lines.append(_line([f"*{group}: mean of {len(names)}*", *counts, *means]))
    counts = _counts(first, lambda row: True)
    lines.append(_line(["**all: mean of data sets**", *counts, *_bold([r.mean for r in results.values()])]))
    intervals = ["{:.3f} to {:.3f}".format(*result.interval()) for result in results.values()]
    lines.append(_line(["95 % interval (bootstrap over volumes)", "", "", *intervals]))
    return "\n".join(lines) + "\n"


def summary_table(results: dict[str, EvaluationResult]) -> str:
    """The other figures (robustness, other targets, other metrics), mean over data sets, where measured."""
    lines = [_line(["mean over data sets", *results]), _line(["---", *["---:"] * len(results)])]
    for title, field in SUMMARY[1:]:
        values = [result.over_data_sets(field) for result in results.values()]
        if np.isfinite(values).any():
            lines.append(_line([title, *[_number(v) for v in values]]))
    return "\n".join(lines) + "\n"


def _counts(result, keep):
    rows = [row for row in result.structures if keep(row)]
    return len({(row.data_set, row.volume) for row in rows}), len(rows)


def _bold(values):
    texts = [_number(value) for value in values]
    if len(values) > 1 and np.isfinite(values).any():
        best = max(t for t, v in zip(texts, values) if np.isfinite(v))
        texts = [f"**{text}**" if text == best else text for text in texts]
    return texts


def _number(value):
    return f"{value:.3f}" if np.isfinite(value) else "-"


def _cell(value):
    if isinstance(value, float):
        return f"{value:.4f}" if np.isfinite(value) else ""
    return value


def _line(cells):
    return "| " + " | ".join(str(cell) for cell in cells) + " |"
