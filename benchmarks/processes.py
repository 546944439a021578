"""What a whole process costs: cold start, peak memory with ten clicks, leaks, growth with the volume's size.

    python benchmarks/processes.py [--precisions float32,bfloat16] [--edges 64,128,256,512] [--clicks 10]
                                   [--model FILE | random by default] [--csv FILE] [--plot FILE]

Every number comes from a process of its own. Memory is the peak resident memory besides the volume's voxels;
"import" is everything from the interpreter's start, "first mask" ends with the first click's mask.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHAPE = (512, 512, 400)


def child(args: argparse.Namespace) -> None:
    """One process: import, load, click; prints one line of JSON."""
    start = time.perf_counter()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from click import make_points, make_volume, peak_mib

    from samu_core.predictor import Predictor

    imported = time.perf_counter()
    volume = make_volume(tuple(args.shape))
    points = make_points(volume, args.clicks)
    made = time.perf_counter()
    predictor = Predictor(args.model, device="cpu", precision=args.precision)
    seconds, peaks = [], []
    for point in points:
        begin = time.perf_counter()
        predictor.predict(volume, point).mask(volume.geometry)
        seconds.append(time.perf_counter() - begin)
        peaks.append(peak_mib())
    result = {
        "import": imported - start,
        "first mask": (imported - start) + (time.perf_counter() - made - sum(seconds[1:])),
        "click": statistics.median(seconds[1:] or seconds),
        "volume MiB": volume.array.nbytes / 2**20,
        "peak MiB": peaks[-1],
        "peak after 3 MiB": peaks[min(2, len(peaks) - 1)],
    }
    print(json.dumps(result))


def measure(args: argparse.Namespace, shape, precision: str) -> dict[str, float]:
    """Runs one child; seconds and MiB."""
    command = [sys.executable, __file__, "--child", "--shape", *map(str, shape), "--precision", precision]
    command += ["--clicks", str(args.clicks), "--model", str(args.model)]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    result = json.loads(done.stdout.splitlines()[-1])
    return {**result, "process": time.perf_counter() - start}


def report(args: argparse.Namespace) -> list[dict[str, float]]:
    """Prints both tables; all rows."""
    from measuring import load_average, machine

    from samu_core.commands.common import table

    print(f"- {machine()}, {load_average()}\n")
    rows, header = (
        [],
        ["precision", "volume", "first mask s", "click ms", "peak besides the volume MiB", "grown"],
    )
    cells = []
    shapes = [SHAPE, *((edge,) * 3 for edge in args.edges)]
    for shape in shapes:
        for precision in args.precisions.split(","):
            found = measure(args, shape, precision)
            rows.append({"precision": precision, "shape": " x ".join(map(str, shape)), **found})
            cells.append(
                [
                    precision,
                    rows[-1]["shape"],
                    f"{found['first mask']:.2f}",
                    f"{1000 * found['click']:.0f}",
                    f"{found['peak MiB'] - found['volume MiB']:.0f}",
                    f"{found['peak MiB'] - found['peak after 3 MiB']:.0f}",
                ]
            )
            print(" ".join(cells[-1]), file=sys.stderr, flush=True)
    print(table(cells, header))
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precisions", default="float32,bfloat16")
    parser.add_argument("--edges", type=lambda text: [int(n) for n in text.split(",") if n], default=[])
    parser.add_argument("--clicks", type=int, default=10)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--shape", type=int, nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--precision", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        if args.model is None:
            from measuring import random_network

            from samu_core.weights import save_weights

            args.model = Path(folder) / "random.npz"
            save_weights(args.model, random_network(), {})
        rows = report(args)
    if args.csv:
        with args.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    if args.plot:
        from measuring import plot_bars

        plot_bars(
            args.plot,
            {f"{row['precision']}, {row['shape']}": 1000 * row["click"] for row in rows},
            "ms per click",
        )


if __name__ == "__main__":
    main()
