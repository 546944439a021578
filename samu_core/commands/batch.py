"""`samu batch`: a table of images and points -> a file per image, or whatever the table asks for.

The rows of one image are done together, so that it is read once. A row that fails is named in the summary
and the others go on; a second run does what is missing.
"""

from __future__ import annotations

import argparse
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from samu_core.commands import batch_summary, common, outputs, painting
from samu_core.commands.batch_rows import Row, read_rows
from samu_core.commands.batch_summary import EMPTY, FAILED, FINISHED, OK, SKIPPED, Record, Summary
from samu_core.errors import SamuError, WeightsError

if TYPE_CHECKING:
    from samu_core.geometry import Volume
    from samu_core.predictor import Predictor

# No other row would fare better.
FATAL = (WeightsError, ImportError)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `samu batch`."""
    parser.add_argument(
        "table",
        type=Path,
        metavar="CSV",
        help="columns image and r,a,s (RAS mm) or i,j,k (voxels from 0); optional: name, output, label, "
        "color, threshold, spacing. Relative paths start at the table's folder",
    )
    parser.add_argument(
        "--output-dir",
        type=Path,
        metavar="DIR",
        help="folder for the outputs, made if need be (default: beside each image)",
    )
    parser.add_argument(
        "--summary", type=Path, metavar="FILE", help="default: the table's name + -summary.csv, beside it"
    )
    parser.add_argument(
        "--force", action="store_true", help="do everything again and replace outputs that exist"
    )
    painting.add_mask_arguments(parser)
    common.add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Work through the table; exit code 1 if any row failed."""
    if args.output_dir is not None:
        args.output_dir = args.output_dir.expanduser().resolve()
    path = args.summary or args.table.with_name(f"{args.table.stem}-summary.csv")
    if path.resolve() == args.table.resolve():
        raise SamuError(f"{path} is the table itself; name another file with --summary")
    rows = read_rows(args.table, args.output_dir, batch_summary.RESULT_COLUMNS)
    refuse_conflicts(rows)
    summary = Summary(path, rows)
    if args.output_dir is not None:
        args.output_dir.mkdir(parents=True, exist_ok=True)
    # Now rather than after an hour of work: can it be written?
    summary.save()
    batch = Batch(args, summary)
    groups = by_image(rows)
    for n, (image, group) in enumerate(groups.items()):
        common.report(f"Image {n + 1} of {len(groups)}: {image or 'rows that name none'}")
        batch.do_image(image, group)
        summary.save()
    print(f"{summary.describe()}; see {path}")
    return 1 if summary.count(FAILED) else 0


def refuse_conflicts(rows: list[Row]) -> None:
    """Mark rows whose output would destroy an input or another image's output."""
    images = {row.image for row in rows if row.image}
    first: dict[Path, Path] = {}
    for row in rows:
        if row.output is None or row.problem:
            continue
        owner = first.setdefault(row.output, row.image)
        if row.output in images:
            row.problem = f"the output {row.output} is an image of this table; name another output"
        elif owner != row.image:
            row.problem = f"the output {row.output} belongs to {owner} already; name another output"


def by_image(rows: list[Row]) -> dict[Path | None, list[Row]]:
    """The rows of each image, images in the order of the table."""
    groups: dict[Path | None, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.image, []).append(row)
    return groups


class Batch:
    """The work itself; what becomes of each row goes to the summary.

    Args:
        args: of the command line.
        summary: of this run.
    """

    def __init__(self, args: argparse.Namespace, summary: Summary):
        self.args = args
        self.summary = summary
        self._predictor: Predictor | None = None

    def do_image(self, image: Path | None, rows: list[Row]) -> None:
        """All rows of one image, which is read only if something is to be done."""
        waiting: dict[Path, list[Row]] = {}
        for row in rows:
            if row.problem:
                self._fail([row], SamuError(row.problem))
            else:
                waiting.setdefault(row.output, []).append(row)
        jobs = {output: mine for output, mine in waiting.items() if self._is_to_do(output, mine)}
        if not jobs:
            return
        try:
            volume = painting.read_image(image)
        except FATAL:
            raise
        except Exception as error:
            self._fail([row for mine in jobs.values() for row in mine], error)
            return
        for output, mine in jobs.items():
            try:
                self._do_output(output, mine, volume)
            except FATAL:
                raise
            except Exception as error:
                self._fail(mine, error)
            # At once: a run that is stopped here must know this output again.
            self.summary.save()

    def _is_to_do(self, output: Path, rows: list[Row]) -> bool:
        """Whether an output is to be made; if not, the rows' records say why."""
        try:
            if self._is_done(output, rows):
                return False
            outputs.check_output(output, rows[0].image, force=True)
            return True
        except (SamuError, OSError) as error:
            self._fail(rows, error)
            return False

    def _is_done(self, output: Path, rows: list[Row]) -> bool:
        if self.args.force or not output.is_file():
            return False
        written = self.summary.written(output)
        if not written:
            for row in rows:
                self._settle(row, SKIPPED, f"{output} exists already; --force replaces it")
            return True
        missing = [row for row in rows if not is_finished(written.get(row.identity))]
        if missing and is_unchanged(output, written):
            return False
        for row in rows:
            if row in missing:
                message = f"{output} was changed since it was written and lacks this row; --force replaces it"
                self._fail([row], SamuError(message))
            else:
                earlier = written[row.identity]
                self._settle(row, EMPTY if earlier.status == EMPTY else SKIPPED, earlier.message, earlier)
        return True

    def _do_output(self, output: Path, rows: list[Row], volume: Volume) -> None:
        """Segment, write, and settle the rows of one file."""
        labels = painting.LabelMap(volume, max(row.label for row in rows), self.args.overwrite)
        done: list[tuple[Row, painting.Outcome]] = []
        for n, row in enumerate(rows):
            try:
                click = self._click(row, n, volume)
                painting.announce(click, n + 1, len(rows))
                done.append((row, labels.add(click, self._get_predictor())))
            except FATAL:
                raise
            except Exception as error:
                self._fail([row], error)
        if not done:
            return
        try:
            if not labels.found_any:
                raise SamuError(f"nothing was found, so {output.name} is not written; try a lower threshold")
            labels.write(output)
        except Exception as error:
            self._fail([row for row, _ in done], error)
            return
        from samu_core.weights import sha256

        checksum = sha256(output)
        for row, outcome in done:
            self._record(row, outcome, labels)
        for row in rows:
            self.summary.of(row).sha256 = checksum

    def _click(self, row: Row, number: int, volume: Volume) -> painting.Click:
        return painting.Click(
            point_ras=painting.point_in(volume, row.kind, row.numbers),
            name=row.name or painting.default_name(row.label),
            label=row.label,
            color=row.color or painting.parse_color(painting.default_color(number)),
            threshold=row.threshold or self.args.threshold,
            spacing=row.spacing or self.args.spacing,
        )

    def _record(self, row: Row, outcome: painting.Outcome, labels: painting.LabelMap) -> None:
        voxels, ml = labels.size_of(outcome.click)
        if not outcome.found:
            self._settle(row, EMPTY, "nothing was found there; try a lower threshold or another point")
        elif not voxels:
            self._settle(row, EMPTY, "it lies wholly in other segments of this output")
        else:
            self._settle(row, OK)
        record = self.summary.of(row)
        record.voxels, record.ml, record.ms = str(voxels), f"{ml:.3f}", f"{outcome.seconds * 1000:.0f}"
        record.expected_iou = f"{outcome.expected_iou:.2f}"

    def _get_predictor(self) -> Predictor:
        if self._predictor is None:
            self._predictor = common.make_predictor(self.args)
            common.report(f"Loading the network ({self._predictor.description})")
        return self._predictor

    def _settle(self, row: Row, status: str, message: str = "", earlier: Record | None = None) -> None:
        record = Record.of(row)
        # What is known of a file on the disk stays known when nothing is written in this run.
        record.sha256 = self.summary.of(row).sha256
        if earlier is not None:
            record.voxels, record.ml, record.sha256 = earlier.voxels, earlier.ml, earlier.sha256
            record.expected_iou = earlier.expected_iou
        record.status, record.message = status, message
        self.summary.records[id(row)] = record

    def _fail(self, rows: list[Row], error: Exception) -> None:
        from samu_core.cli import explain

        if getattr(self.args, "debug", False):
            traceback.print_exception(type(error), error, error.__traceback__)
        for row in rows:
            self._settle(row, FAILED, explain(error))
            common.warn(f"line {row.line}: {explain(error)}")


def is_finished(record: Record | None) -> bool:
    """Whether an earlier run left nothing to do for a row."""
    return record is not None and record.status in FINISHED


def is_unchanged(output: Path, written: dict[tuple[str, ...], Record]) -> bool:
    """Whether the output is still as an earlier run wrote it, so that replacing it destroys no one's work."""
    from samu_core.weights import sha256

    return sha256(output) in {record.sha256 for record in written.values()}
