"""The console command `samu`.

Each sub-command is a module with ``add_arguments(parser)`` and ``run(args) -> exit code``, imported only
when it is the one asked for. This file knows their names, and what becomes of errors: one line on stderr
that begins with ``samu: error:``, exit code 1 (2 for a wrong command line, 130 after Ctrl+C), the
traceback only with ``--debug``.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
import traceback
from collections.abc import Sequence
from typing import NamedTuple

import samu_core
from samu_core.errors import SamuError

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
# Where the package to install is not called as the module is.
PIP_NAMES = {"skimage": "scikit-image"}


class Command(NamedTuple):
    """Where a sub-command lives and its line in `samu --help`."""

    module: str
    summary: str


COMMANDS = {
    "segment": Command(
        "samu_core.commands.segment", "segment the structures at one or more points of an image"
    ),
    "batch": Command("samu_core.commands.batch", "segment many images and points of a table"),
    "info": Command("samu_core.commands.info", "show the weights, the device and the versions in use"),
    "demo": Command("samu_core.demo.command", "click through a phantom or an image of yours, with pictures"),
    "evaluate": Command("samu_core.evaluation.cli", "measure one-click accuracy on labelled volumes"),
    "failures": Command("samu_core.evaluation.failures", "show the worst structures of an evaluation"),
    "card": Command("samu_core.evaluation.card", "write measured figures into the documents"),
    "make-phantoms": Command(
        "samu_core.evaluation.phantoms", "make a small labelled data set of formulas, to try things"
    ),
    "train": Command("samu_core.training.cli", "train the network"),
    "preview-data": Command("samu_core.training.preview", "draw training samples on a contact sheet"),
    "export": Command("samu_core.training.export", "make a weights file of training checkpoints"),
}


class UsageError(SamuError):
    """The command line itself is wrong."""


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors and with negative numbers in exponent notation as arguments."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # argparse (before 3.14) takes "-1e-3" and "-5." for options.
        self._negative_number_matcher = re.compile(r"^-(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?$")

    def error(self, message):
        raise UsageError(f"{message} (see {self.prog} --help)")


def build_parser(selected: str | None) -> Parser:
    """The parser of `samu`, with the arguments of the sub-command `selected` filled in."""
    parser = Parser(prog="samu", description="One click in a CT or MR volume gives the 3D segment.")
    parser.add_argument("--version", action="version", version=f"samu {samu_core.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name, command in COMMANDS.items():
        sub = commands.add_parser(name, help=command.summary, description=_sentence(command.summary))
        if name == selected:
            module = importlib.import_module(command.module)
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def explain(error: BaseException) -> str:
    """One line for the user about an exception."""
    text = " ".join(str(error).split())
    if isinstance(error, SamuError):
        return text
    if isinstance(error, ModuleNotFoundError):
        name = error.name or "a package"
        if name.split(".")[0] == "samu_core":
            # The Slicer extension carries no training and no evaluation.
            return f"this installation has no {name}; install samu_core from its sources"
        package = PIP_NAMES.get(name.split(".")[0], name.split(".")[0])
        return f"{name} is not installed; install it with: pip install {package}"
    if isinstance(error, MemoryError):
        return "out of memory; close other programs, or use a smaller image"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return f"{type(error).__name__}: {text} (--debug shows where)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run `samu` with the given arguments (default: the process's own); returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        selected = next((word for word in arguments if not word.startswith("-")), None)
        args = build_parser(selected if selected in COMMANDS else None).parse_args(arguments)
        return int(args.run(args) or 0)
    except KeyboardInterrupt:
        print("\nsamu: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe went away (`samu info | head -1`): nothing more to say, not even at exit.
        sys.stdout = None
        return EXIT_ERROR
    except Exception as error:
        if debug:
            traceback.print_exc()
        print(f"samu: error: {explain(error)}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, UsageError) else EXIT_ERROR


if __name__ == "__main__":
    sys.exit(main())
