"""What became of every row of a batch: a CSV that is also the memory for the next run."""

from __future__ import annotations

import csv
import os
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

from samu_core.commands.batch_rows import COLUMNS, Row
from samu_core.errors import SamuError

PENDING, OK, EMPTY, SKIPPED, FAILED = "pending", "ok", "empty", "skipped", "failed"
# With these nothing is left to do for the row.
FINISHED = (OK, EMPTY, SKIPPED)
RESULT_COLUMNS = (
    "line",
    "status",
    "file",
    "value",
    "voxels",
    "ml",
    "ms",
    "expected_iou",
    "message",
    "sha256",
)
ALL_COLUMNS = ("line", *COLUMNS, *RESULT_COLUMNS[1:])


@dataclass
class Record:
    """What became of one row.

    Attributes:
        identity: see Row.identity.
        line: of the row in the table.
        status: one of the constants above.
        file: the output.
        value: the segment's label value in it.
        voxels, ml, ms: of the segment; empty if there is none.
        expected_iou: of the mask, 0...1 (samu_core.candidates).
        message: what went wrong, or why nothing was done.
        sha256: of the output when it was written, also for a row of it that failed.
    """

    identity: tuple[str, ...]
    line: int
    status: str = PENDING
    file: str = ""
    value: str = ""
    voxels: str = ""
    ml: str = ""
    ms: str = ""
    expected_iou: str = ""
    message: str = ""
    sha256: str = ""

    @classmethod
    def of(cls, row: Row) -> Record:
        """A row with which nothing has happened yet."""
        return cls(row.identity, row.line, file=str(row.output or ""), value=str(row.label or ""))


class Summary:
    """The summary file of a batch.

    Args:
        path: of the CSV; if it exists it must be an earlier summary.
        rows: the table's rows.

    Raises:
        SamuError: the file that exists is something else, or cannot be read.
    """

    def __init__(self, path: Path, rows: list[Row]):
        self.path = path
        self._earlier = self._read()
        self.records = {id(row): self._start(row) for row in rows}

    def of(self, row: Row) -> Record:
        """The record of a row of this run; until the row's turn comes, what the earlier runs left."""
        return self.records[id(row)]

    def written(self, output: Path) -> dict[tuple[str, ...], Record]:
        """Identity -> record of the rows that were there when an earlier run wrote this output."""
        return {identity: r for identity, r in self._earlier.get(str(output), {}).items() if r.sha256}

    def _start(self, row: Row) -> Record:
        # An interrupted run must not forget what the runs before it did.
        earlier = self._earlier.get(str(row.output or ""), {}).get(row.identity)
        return Record.of(row) if earlier is None else replace(earlier, line=row.line)

    def count(self, *statuses: str) -> int:
        """How many rows have one of these statuses."""
        return sum(record.status in statuses for record in self.records.values())

    def describe(self) -> str:
        """For people: how many rows there are of each status."""
        parts = [f"{self.count(status)} {status}" for status in (OK, EMPTY, SKIPPED, FAILED, PENDING)]
        said = [part for part in parts if not part.startswith("0 ")]
        total = len(self.records)
        return f"{total} row{'' if total == 1 else 's'}: {', '.join(said)}"

    def save(self) -> None:
        """Write the file, whole or not at all.

        Raises:
            SamuError: it cannot be written.
        """
        temporary = self.path.with_name(f".{self.path.name}-{uuid.uuid4().hex[:8]}")
        try:
            with open(temporary, "w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, ALL_COLUMNS)
                writer.writeheader()
                for record in self.records.values():
                    cells = dict(zip(COLUMNS, record.identity))
                    writer.writerow({**cells, **{name: getattr(record, name) for name in RESULT_COLUMNS}})
            os.replace(temporary, self.path)
        except OSError as error:
            raise SamuError(f"cannot write the summary {self.path}: {error.strerror or error}") from error
        finally:
            temporary.unlink(missing_ok=True)

    def _read(self) -> dict[str, dict[tuple[str, ...], Record]]:
        if not self.path.exists():
            return {}
        try:
            with open(self.path, encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file)
                if tuple(reader.fieldnames or ()) != ALL_COLUMNS:
                    raise ValueError
                earlier: dict[str, dict[tuple[str, ...], Record]] = {}
                for cells in reader:
                    identity = tuple(cells[column] or "" for column in COLUMNS)
                    results = {name: cells[name] or "" for name in RESULT_COLUMNS[1:]}
                    record = Record(identity, int(cells["line"]), **results)
                    earlier.setdefault(record.file, {})[identity] = record
                return earlier
        except (ValueError, OSError, csv.Error):
            raise SamuError(
                f"{self.path} exists and is no summary of samu batch; name another file with --summary"
            ) from None
