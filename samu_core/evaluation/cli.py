"""`samu evaluate`: the one-click protocol on a data directory, as CSV files and a Markdown table."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from samu_core.errors import SamuError

# Defaults that a reader of the command wants to see.
ALWAYS_SAID = ("split", "boundary", "clicks", "seed")


def add_arguments(parser):
    """The options of `samu evaluate`."""
    parser.add_argument("--data", required=True, metavar="DIR", help="folder with manifest.csv and vol/")
    parser.add_argument("--split", default="dev", help="split of the manifest (default: dev)")
    parser.add_argument(
        "--boundary",
        choices=("visible", "all"),
        default="visible",
        help="only volumes whose labels have edges visible in the image (the main set), or all",
    )
    parser.add_argument(
        "--model",
        metavar="PATH",
        help="weights: .npz, a .pt checkpoint, or the word bundled (the default unless --baselines is given)",
    )
    parser.add_argument(
        "--baselines",
        action="store_true",
        help="the classical methods, and a model only if --model names one",
    )
    parser.add_argument(
        "--tune", action="store_true", help="choose the baselines' parameters on this split and print them"
    )
    parser.add_argument(
        "--clicks", type=int, default=5, metavar="N", help="uniform clicks per structure (default: 5)"
    )
    parser.add_argument(
        "--no-deepest", action="store_true", help="leave out the click in each structure's deepest voxel"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of structures and clicks (default: 0)")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="at most N structures per data set, drawn by the seed"
    )
    parser.add_argument(
        "--native", action="store_true", help="also Dice on the volume's own grid, whole volume (slower)"
    )
    parser.add_argument("--nsd", action="store_true", help="also normalised surface Dice at 2 mm (slower)")
    parser.add_argument(
        "--one-look",
        action="store_true",
        help="no second question and no second look of the network at what is small or doubtful, "
        "no bolder masks",
    )
    parser.add_argument("--device", default="cpu", help="torch device of the network (default: cpu)")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes, one volume each (default: 1)"
    )
    parser.add_argument("--out", metavar="DIR", help="write clicks.csv, structures.csv and table.md there")


def run(args):
    """Evaluate as the arguments say; returns the exit code. SamuError for bad input."""
    if args.workers < 1:
        raise SamuError("--workers must be at least 1.")
    if args.tune:
        return _tune(args)
    from samu_core.evaluation import reading, tables
    from samu_core.evaluation.protocol import Options
    from samu_core.evaluation.results import by_method

    if args.out and Path(args.out).is_file():
        raise SamuError(f"--out {args.out} is a file; name a folder.")
    options = Options(
        clicks=args.clicks,
        seed=args.seed,
        deepest=not args.no_deepest,
        native=args.native,
        nsd=args.nsd,
        limit=args.limit,
    )
    methods = Methods(args.model, args.baselines, args.device, not args.one_look)
    # Now, not afterwards: a run that goes on may have replaced its checkpoint by then.
    checksum = methods.weights_sha256() if args.out else None
    results = by_method(_evaluate(args, methods, options))
    if not any(result.structures for result in results.values()):
        raise SamuError("No structure of this split is large enough to be clicked (60 voxels of 1.5 mm).")
    results = {name: result for name, result in results.items() if result.structures}
    table = _heading(args) + tables.markdown_table(results) + "\n" + tables.summary_table(results)
    print(table)
    if args.out:
        paths = tables.write_all(args.out, results, table)
        words = ["evaluate", *command_words(args)]
        paths.append(reading.write_record(args.out, words, checksum))
        for path in paths:
            _say(f"wrote {path}")
    return 0


@dataclass(frozen=True)
class Methods:
    """Which methods to run; small, so that worker processes can be given it and build their own."""

    model: str
    baselines: bool
    device: str
    second_look: bool = True

    @property
    def has_model(self):
        """Whether a network is to run: always, unless only the baselines are asked for."""
        return bool(self.model) or not self.baselines

    @property
    def path(self):
        """Of the model's file; None for the bundled one."""
        return None if self.model in (None, "bundled") else self.model

    def weights_sha256(self):
        """SHA-256 of the model's file; None when no model runs (a missing file is told when it is loaded)."""
        from samu_core.weights import find_bundled, sha256

        path = Path(self.path or find_bundled())
        return sha256(path) if self.has_model and path.is_file() else None

    def build(self):
        """{name: method}, the network loaded."""
        from samu_core.evaluation.baselines import tuned_methods

        methods = {}
        if self.has_model:
            from samu_core.evaluation.protocol import NetworkMethod
            from samu_core.weights import load_network

            network = load_network(self.path, map_location=self.device)
            methods["model"] = NetworkMethod(network, self.device, self.second_look)
        return {**methods, **(tuned_methods() if self.baselines else {})}


def command_words(args):
    """The options that give these results, as words of a command line; defaults are left out."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = []
    for action in parser._actions:
        value = getattr(args, action.dest, None)
        if action.dest == "help" or (value == action.default and action.dest not in ALWAYS_SAID):
            continue
        words += [action.option_strings[0], *([] if action.nargs == 0 else [str(value)])]
    return words


def _evaluate(args, methods, options):
    from samu_core.evaluation import protocol
    from samu_core.evaluation.cases import read_cases

    if args.workers == 1:
        return protocol.evaluate(args.data, args.split, methods.build(), args.boundary, options, _progress)
    chosen = protocol.select(read_cases(args.data, args.split, args.boundary), options)
    # spawn: a forked child of a process that has used torch's threads may hang.
    context = multiprocessing.get_context("spawn")
    rows = []
    with ProcessPoolExecutor(args.workers, context, _start_worker, (methods,)) as pool:
        jobs = [pool.submit(_work, case, options, only) for case, only in chosen]
        for number, ((case, _), job) in enumerate(zip(chosen, jobs)):
            rows.extend(job.result())
            _say(f"done {number + 1}/{len(chosen)} {case.name}")
    return rows


_WORKER = {}


def _start_worker(methods):
    """In a worker process: build the methods once, with one thread each, as the processes share the cores."""
    import SimpleITK as sitk

    if methods.has_model:
        import torch

        torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    _WORKER["methods"] = methods.build()


def _work(case, options, only):
    from samu_core.evaluation.protocol import evaluate_case

    return evaluate_case(case, _WORKER["methods"], options, only)


def _tune(args):
    from samu_core.evaluation.protocol import Options
    from samu_core.evaluation.tuning import format_tuned, tune

    limit = 5 if args.limit is None else args.limit
    options = Options(clicks=1, seed=args.seed, deepest=False, limit=limit)
    print(format_tuned(tune(args.data, args.split, args.boundary, options, _progress)))
    return 0


def _heading(args):
    limit = f", at most {args.limit} structures per data set" if args.limit else ""
    return (
        f"Patch Dice on split `{args.split}`, boundary {args.boundary}, "
        f"{args.clicks} uniform clicks per structure, seed {args.seed}{limit}.\n\n"
    )


def _progress(case, number, total):
    _say(f"{number + 1}/{total} {case.name}")


def _say(text):
    print(text, file=sys.stderr, flush=True)
