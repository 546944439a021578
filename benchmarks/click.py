"""Times the stages of one click on a large synthetic volume, through the real Predictor.

    python benchmarks/click.py [--shape 512 512 400] [--clicks 9] [--device cpu] [--precision float32]
                               [--random-weights] [--csv click.csv]

Prints medians and peak memory as Markdown; the CSV holds every single measurement.
"""

from __future__ import annotations

import argparse
import csv
import platform
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from samu_core import cli
from samu_core.commands import common
from samu_core.geometry import Volume
from samu_core.predictor import Predictor

STAGES = ("sample", "normalize", "encode", "decode", "mask", "click", "second click")
SPACING_MM = (0.8, 0.8, 1.25)
TILE = 16


def peak_mib() -> float | None:
    """Peak resident memory of this process in MiB; None where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kilobytes on Linux, bytes on macOS.
    return peak / (1024**2 if sys.platform == "darwin" else 1024)


def make_volume(shape_ijk: tuple[int, int, int], seed: int = 0) -> Volume:
    """Blocks of soft-tissue HU, int16: what the voxels hold does not change the times, their number does."""
    rng = np.random.default_rng(seed)
    shape = shape_ijk[::-1]
    blocks = rng.integers(-200, 300, [-(-n // TILE) for n in shape]).astype(np.int16)
    array = np.empty(shape, np.int16)
    for k in range(shape[0]):
        plane = blocks[k // TILE].repeat(TILE, 0).repeat(TILE, 1)
        array[k] = plane[: shape[1], : shape[2]]
    matrix = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0])
    return Volume(array, matrix, name="benchmark", modality="CT", version=seed)


def make_points(volume: Volume, count: int, seed: int = 1) -> np.ndarray:
    """(count, 3) RAS points in the middle half of the volume, where the whole patch has image."""
    rng = np.random.default_rng(seed)
    shape = np.array(volume.geometry.shape_ijk)
    return np.array([volume.geometry.ijk_to_point(shape * rng.uniform(0.25, 0.75, 3)) for _ in range(count)])


def measure(predictor: Predictor, volume: Volume, point: np.ndarray) -> dict[str, float]:
    """Seconds of every stage of a first click at a point and of a second one in the same patch."""
    start = time.perf_counter()
    prediction = predictor.predict(volume, point)
    predicted = time.perf_counter()
    prediction.mask(volume.geometry)
    done = time.perf_counter()
    again = predictor.predict(volume, point)
    again.mask(volume.geometry)
    end = time.perf_counter()
    if "encode" in again.seconds:
        raise RuntimeError("the second click in a patch encoded it again: the feature cache does not work")
    totals = {"mask": done - predicted, "click": done - start, "second click": end - done}
    return {**prediction.seconds, **totals}


def make_predictor(args: argparse.Namespace) -> Predictor:
    """With the weights that the options name, or with random ones of the same size."""
    if not args.random_weights:
        args.one_look = True  # a second look would be a patch of its own
        return common.make_predictor(args)
    import torch

    from samu_core.network import SAMU

    torch.manual_seed(0)
    return Predictor(network=SAMU().eval(), device=args.device, precision=args.precision, second_look=False)


def report(args: argparse.Namespace, predictor: Predictor, rows: list[dict[str, float]]) -> str:
    """Markdown: the machine, a table of medians and ranges."""
    import torch

    header = [
        f"- {platform.machine()}, {torch.get_num_threads()} threads, {platform.system()}",
        f"- torch {torch.__version__}, {predictor.description}",
        f"- volume {' x '.join(map(str, args.shape))} int16",
        f"- {args.clicks} clicks, after {args.warm_up} to warm up",
    ]
    cells = []
    for stage in STAGES:
        values = [row[stage] * 1000 for row in rows]
        cells.append(
            [stage] + [f"{number:.1f}" for number in (statistics.median(values), min(values), max(values))]
        )
    return "\n".join(header) + "\n\n" + common.table(cells, ["stage", "median ms", "min", "max"])


def write_csv(path: Path, rows: list[dict[str, float]]) -> None:
    """One row per click, seconds."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["click", *STAGES])
        writer.writerows([[n, *(f"{row[stage]:.6f}" for stage in STAGES)] for n, row in enumerate(rows)])


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 400), metavar=("I", "J", "K"))
    parser.add_argument("--clicks", type=int, default=9)
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--random-weights", action="store_true", help="time the network without its weights")
    parser.add_argument("--csv", type=Path, help="where to write the single measurements")
    common.add_model_arguments(parser)
    args = parser.parse_args(argv)
    if args.clicks < 1 or args.warm_up < 0 or min(args.shape) < 2:
        parser.error("at least one click and two voxels along each axis are needed")
    return args


def main(argv: list[str] | None = None) -> int:
    """Measure and print; exit code 1 and one line for an error."""
    args = parse(argv)
    try:
        before = peak_mib()
        volume = make_volume(tuple(args.shape))
        predictor = make_predictor(args)
        common.report(f"Warming up ({predictor.description})")
        predictor.warm_up()
        points = make_points(volume, args.warm_up + args.clicks)
        rows = []
        for n, point in enumerate(points):
            common.report(f"Click {n + 1} of {len(points)}")
            rows.append(measure(predictor, volume, point))
        rows = rows[args.warm_up :]
    except Exception as error:
        print(f"click.py: error: {cli.explain(error)}", file=sys.stderr)
        return 1
    print(report(args, predictor, rows))
    peak, size = peak_mib(), volume.array.nbytes / 1024**2
    if peak is not None:
        print(f"\nPeak resident memory {peak:.0f} MiB: the volume {size:.0f}, the imports {before:.0f}.")
    if args.csv:
        write_csv(args.csv, rows)
        print(f"wrote {args.csv}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
