"""The table that `samu batch` works through: one row per point, checked before any image is read."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samu_core.commands import common, outputs, painting
from samu_core.errors import SamuError

RAS, IJK = ("r", "a", "s"), ("i", "j", "k")
COLUMNS = ("image", *RAS, *IJK, "name", "output", "label", "color", "threshold", "spacing")


@dataclass
class Row:
    """One point of the table.

    Attributes:
        line: where it stands in the file; the header is line 1.
        cells: column of COLUMNS -> text, "" where there is none.
        image, output: absolute paths; None when `problem` says that there is no image.
        kind, numbers: "ijk" or "ras", and the three coordinates.
        name, label, color, threshold, spacing: of the segment; None: not given.
        problem: why nothing can be done with the row; empty if all is well.
    """

    line: int
    cells: dict[str, str]
    image: Path | None = None
    output: Path | None = None
    kind: str = "ras"
    numbers: tuple[float, float, float] | None = None
    name: str | None = None
    label: int | None = None
    color: tuple[float, float, float] | None = None
    threshold: float | None = None
    spacing: float | str | None = None
    problem: str = ""

    @property
    def identity(self) -> tuple[str, ...]:
        """What makes it the same row in another version of the table, wherever it stands there."""
        return tuple(self.cells[column] for column in COLUMNS)


def read_rows(table: Path, output_dir: Path | None, also_known: tuple[str, ...] = ()) -> list[Row]:
    """All rows of the table, also those that cannot be worked on: their `problem` says why.

    Args:
        table: CSV in UTF-8 with a header; commas, semicolons or tabs. Relative paths in it start at
            its own folder.
        output_dir: where outputs without a folder of their own go; None: beside the image, or the
            table's folder for names that the table gives.
        also_known: columns that are passed over without a warning.

    Raises:
        SamuError: no such file, not CSV, a column is missing, no rows.
    """
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            delimiter = max(",;\t", key=header.count)
            file.seek(0)
            reader = csv.DictReader(file, delimiter=delimiter, restval="")
            rows = [(reader.line_num, cells) for cells in reader]
            names = list(reader.fieldnames or ())
    except FileNotFoundError:
        raise SamuError(f"there is no table {table}; check the path") from None
    except UnicodeDecodeError:
        raise SamuError(f"{table} is not text in UTF-8; save it as CSV UTF-8") from None
    except csv.Error as error:
        raise SamuError(f"{table} is not a CSV file ({error})") from None
    columns = check_header(table, names, also_known)
    read = [_Reader(table, output_dir, delimiter).row(line, columns, cells) for line, cells in rows]
    found = [row for row in read if any(row.cells.values())]
    if not found:
        raise SamuError(f"{table} has no rows below its header")
    _assign_labels(found)
    return found


def check_header(table: Path, names: list[str], also_known: tuple[str, ...]) -> dict[str, str]:
    """Column of COLUMNS -> its name in the file, which may differ in case and spaces.

    Raises:
        SamuError: what is needed is missing, or is there twice.
    """
    plain = [name.strip().lower() for name in names]
    for column in COLUMNS:
        if plain.count(column) > 1:
            raise SamuError(f"{table} has {plain.count(column)} columns named {column}; keep one")
    if "image" not in plain or not (set(RAS) <= set(plain) or set(IJK) <= set(plain)):
        raise SamuError(
            f"{table} needs a header with the columns image and r,a,s (millimetres) or i,j,k (voxels); "
            f"it has: {', '.join(names) or 'none'}"
        )
    for name, text in zip(names, plain):
        if text and text not in COLUMNS and text not in also_known:
            common.warn(f"column {name!r} of {table.name} is not known and passed over")
    return {text: name for name, text in zip(names, plain) if text in COLUMNS}


class _Reader:
    """Turns the text of a row into values."""

    def __init__(self, table: Path, output_dir: Path | None, delimiter: str):
        self.folder = table.resolve().parent
        self.output_dir = output_dir
        self.delimiter = delimiter

    def row(self, line: int, columns: dict[str, str], cells: dict[str, str]) -> Row:
        texts = {column: (cells.get(columns.get(column, column)) or "").strip() for column in COLUMNS}
        row = Row(line, texts)
        try:
            if not texts["image"]:
                raise SamuError("the row names no image")
            row.image = self._path(texts["image"], self.folder)
            row.output = self._output(texts["output"], row.image)
            if any(cells.get(None) or ()):
                raise SamuError("the row has more cells than the header; put texts with commas in quotes")
            row.kind, row.numbers = self._point(texts)
            row.name = " ".join(texts["name"].split()) or None
            row.label = self._value(texts, "label", int)
            row.color = self._value(texts, "color", painting.parse_color)
            row.threshold = self._value(texts, "threshold", common.probability)
            row.spacing = self._value(texts, "spacing", common.patch_spacing)
        except SamuError as error:
            row.problem = str(error)
        return row

    def _path(self, text: str, folder: Path) -> Path:
        # Links are not followed: the output of a linked image lands beside the link.
        return outputs.absolute(folder / Path(text).expanduser())

    def _output(self, text: str, image: Path) -> Path:
        if text:
            return self._path(text, self.output_dir or self.folder)
        folder = self.output_dir or image.parent
        return folder / (outputs.stem(image) + outputs.SEGMENTATION)

    def _point(self, texts: dict[str, str]) -> tuple[str, tuple[float, float, float]]:
        given = [columns for columns in (RAS, IJK) if any(texts[column] for column in columns)]
        if len(given) != 1:
            what = "both r,a,s and i,j,k; keep one of them" if given else "no point: fill r,a,s or i,j,k"
            raise SamuError(f"the row has {what}")
        values = []
        for column in given[0]:
            if not texts[column]:
                raise SamuError(f"column {column} is empty; a point needs three numbers")
            values.append(self._value(texts, column, common.finite))
        return ("ijk" if given[0] == IJK else "ras"), tuple(values)

    def _value(self, texts: dict[str, str], column: str, parse: Callable[[str], Any]) -> Any:
        text = texts[column]
        if not text:
            return None
        # Where semicolons separate columns, spreadsheets write 1,5 for one and a half.
        number = text.replace(",", ".") if self.delimiter == ";" else text
        try:
            return parse(number)
        except (ValueError, argparse.ArgumentTypeError) as error:
            known = isinstance(error, argparse.ArgumentTypeError)
            raise SamuError(f"column {column}: {error if known else f'{text!r} is not a number'}") from None


def _assign_labels(rows: list[Row]) -> None:
    """Give every row of an output a label value of its own, rows with a problem included.

    Labels thus do not change when such a row is corrected.
    """
    taken: dict[Path, set[int]] = {}
    for row in rows:
        if row.output is None or row.label is None:
            continue
        used = taken.setdefault(row.output, set())
        if not 1 <= row.label <= painting.LARGEST_LABEL:
            row.problem = row.problem or f"label {row.label} is not from 1 to {painting.LARGEST_LABEL}"
        elif row.label in used:
            row.problem = row.problem or f"label {row.label} is already that of another row for {row.output}"
        used.add(row.label)
    counters: dict[Path, int] = {}
    for row in rows:
        if row.output is None or row.label is not None:
            continue
        label = counters.get(row.output, 0) + 1
        while label in taken.get(row.output, ()):
            label += 1
        counters[row.output] = row.label = label
        if label > painting.LARGEST_LABEL:
            row.problem = row.problem or f"{row.output} has more than {painting.LARGEST_LABEL} segments"
