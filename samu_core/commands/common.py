"""What several sub-commands share: options, points, progress lines, the predictor."""

from __future__ import annotations

import argparse
import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from samu_core.predictor import Predictor

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def finite(text: str) -> float:
    """A number of the command line that is neither NaN nor infinite."""
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value


def probability(text: str) -> float:
    """A number strictly between 0 and 1."""
    value = finite(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def patch_spacing(text: str) -> float | str:
    """A voxel size of the patch in mm, or the word native."""
    if text == "native":
        return text
    value = finite(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not a voxel size; give millimetres or native")
    return value


def device(text: str) -> str:
    """A name of a device; whether it is there is known only later."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text} is not auto, cpu, cuda or cuda:N")
    return text


class AppendClick(argparse.Action):
    """Collects --point and --ijk in one list, in the order of the command line: (kind, (a, b, c))."""

    def __call__(self, parser, namespace, values, option_string=None):
        clicks = list(getattr(namespace, self.dest) or [])
        clicks.append((option_string.lstrip("-"), tuple(values)))
        setattr(namespace, self.dest, clicks)


def add_click_arguments(parser: argparse.ArgumentParser) -> None:
    """--point and --ijk, both repeatable."""
    group = parser.add_argument_group("points", "give as many as you like; each becomes a segment")
    shared = {"dest": "clicks", "action": AppendClick, "nargs": 3, "type": finite}
    group.add_argument(
        "--point", metavar=("R", "A", "S"), help="RAS millimetres, as Slicer shows them", **shared
    )
    group.add_argument("--ijk", metavar=("I", "J", "K"), help="voxel index in the image, from 0", **shared)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Weights, device and precision."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model", type=Path, metavar="FILE", help="weights or checkpoint (default: the bundled)"
    )
    group.add_argument(
        "--device",
        type=device,
        default="auto",
        help="auto, cpu, cuda or cuda:N (default: cuda if there is any)",
    )
    group.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="default: the fastest that is exact"
    )
    group.add_argument(
        "--one-look",
        action="store_true",
        help="do not ask again by what the first mask holds, nor look again, in finer voxels "
        "at what is small, in a wider patch at what is doubtful, and take no more of what remains in doubt",
    )


def make_predictor(args: argparse.Namespace) -> Predictor:
    """The predictor that the options ask for. Sub-commands call it through this module."""
    from samu_core.predictor import Predictor

    return Predictor(
        weights=args.model,
        device=args.device,
        precision=args.precision,
        second_look=not args.one_look,
        on_notice=warn,
    )


def report(message: str) -> None:
    """Progress for a human: stderr, at once, so that stdout stays clean for results."""
    print(message, file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Something the user should know although the work goes on."""
    report(f"samu: warning: {message}")


def table(rows: list[list[str]], header: list[str]) -> str:
    """A Markdown table with aligned columns; all but the first column to the right."""
    widths = [max(len(row[n]) for row in [header, *rows]) for n in range(len(header))]

    def line(cells: list[str]) -> str:
        padded = [
            cell.rjust(width) if n else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(cells, widths))
        ]
        return "| " + " | ".join(padded) + " |"

    ruler = (
        "|" + "|".join("-" * (width + 1) + ("-" if not n else ":") for n, width in enumerate(widths)) + "|"
    )
    return "\n".join([line(header), ruler, *(line(row) for row in rows)])
