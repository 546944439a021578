"""What the benchmarks share: networks with random weights, interleaved timing, tables, CSV, machine."""

from __future__ import annotations

import argparse
import csv
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def random_network(seed: int = 0):
    """A SAMU of the default architecture whose BatchNorms do something; times depend on no weight."""
    import torch

    from samu_core.network import SAMU

    torch.manual_seed(seed)
    network = SAMU().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 1.5)
    return network


def add_click_arguments(parser: argparse.ArgumentParser, clicks: int) -> None:
    """--data, --split, --clicks (by default `clicks`), --limit and --model, for `clicks_of`."""
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--clicks", type=int, default=clicks, help="of each structure")
    parser.add_argument("--limit", type=int, help="structures of each data set")
    parser.add_argument("--model", type=Path)


def clicks_of(args: argparse.Namespace) -> Iterator[tuple]:
    """(data set, ClickPatch, Target) of the clicks that `samu evaluate` draws, visible borders, without the
    deepest ones."""
    from samu_core.evaluation import cases, protocol

    options = protocol.Options(clicks=args.clicks, deepest=False, limit=args.limit)
    for case, only in protocol.select(cases.read_cases(args.data, args.split, "visible"), options):
        for patch, target in protocol.click_patches(case, options, only):
            yield case.source, patch, target


def print_by_expectation(
    description: str, measure: Callable, bounds: Sequence[float], header: Sequence[str], counted: str
) -> list[dict]:
    """What second thoughts about a mask give: the benchmark's main, with `add_click_arguments`.

    Args:
        measure: given (NetworkMethod of one look, ClickPatch, Target), returns a dict: "expected", the
            overlap expected of the first mask; "dices", one per column of `header`; "taken", whether the
            other counts.
        bounds: of the expected overlap, for the rows of the first table; `counted` names the last one, of all
            clicks in which the other counts. The second table is by data set.

    Returns:
        What was measured of every click.
    """
    from samu_core.commands.common import table
    from samu_core.evaluation import protocol
    from samu_core.weights import load_network

    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    add_click_arguments(parser, clicks=2)
    args = parser.parse_args()
    method = protocol.NetworkMethod(load_network(args.model), second_look=False)
    found: dict[str, list[dict]] = {}
    for source, patch, target in clicks_of(args):
        found.setdefault(source, []).append(measure(method, patch, target))
    everything = [row for rows in found.values() for row in rows]
    print(f"- {machine()}, float32; {len(everything)} clicks\n")
    bins = {
        f"expected {low:.2f} to {high:.2f}": [row for row in everything if low <= row["expected"] < high]
        for low, high in zip(bounds, bounds[1:])
    }
    bins[counted] = [row for row in everything if row["taken"]]
    print(table(_mean_rows(bins), ["first mask", "clicks", *header]), "\n")
    print(table(_mean_rows(dict(sorted(found.items()))), ["data set", "clicks", *header]))
    return everything


def _mean_rows(groups: dict[str, list[dict]]) -> list[list[str]]:
    """Cells of the groups that are not empty: name, clicks, mean of each of their dices."""
    cells = []
    for name, rows in groups.items():
        if rows:
            columns = zip(*(row["dices"] for row in rows))
            cells.append([name, str(len(rows)), *(f"{statistics.fmean(column):.3f}" for column in columns)])
    return cells


def machine(threads: int | None = None) -> str:
    """One line: processor, threads, system, torch."""
    import torch

    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    isa = torch.backends.cpu.get_cpu_capability()
    threads = threads or torch.get_num_threads()
    return f"{name} ({isa}), {threads} threads, {platform.system()}, torch {torch.__version__}"


def load_average() -> str:
    """What else the machine does, for honesty: "load 0.1"; empty where the system does not tell."""
    import os

    return f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""


def timed(times: dict[str, list[float]], name: str, function: Callable):
    """What the function returns; its seconds are added to `times`."""
    start = time.perf_counter()
    result = function()
    times.setdefault(name, []).append(time.perf_counter() - start)
    return result


def medians(times: dict[str, list[float]], warm_up: int = 1) -> dict[str, float]:
    """Median seconds per name, without the first rounds."""
    return {name: statistics.median(values[warm_up:]) for name, values in times.items()}


def write_csv(path: Path, times: dict[str, list[float]]) -> None:
    """One row per measurement: name, round, seconds."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "round", "seconds"])
        for name, values in times.items():
            writer.writerows([name, n, f"{value:.6f}"] for n, value in enumerate(values))
    print(f"wrote {path}")


def plot_bars(path: Path, values: dict[str, float], label: str) -> None:
    """Horizontal bars, one per name."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 0.4 * len(values) + 1), layout="constrained")
    bars = axes.barh(list(values)[::-1], list(values.values())[::-1])
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.set_xlabel(label)
    figure.savefig(path, dpi=120)
    print(f"wrote {path}")


def write_rows(path: Path, columns: Sequence[str], rows: Sequence[dict]) -> None:
    """One line per row under a head of columns."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def patch_at(volume, point):
    """What the network is given for a click at a RAS point (mm): the normalised patch (D, H, W) float32, and
    the click as (k, j, i) fractions of it. PointOutsideVolumeError if the click is not in the volume."""
    from samu_core.evaluation.cases import working_spacing
    from samu_core.geometry import PatchGrid
    from samu_core.intensity import normalize_patch
    from samu_core.sharpness import sample_evenly

    grid = PatchGrid.for_click(volume, point, working_spacing(volume.geometry.spacing))
    return normalize_patch(sample_evenly(grid, volume), volume.modality), grid.fraction_kji(point)
