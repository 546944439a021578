"""Do the fused engines find what the plain network finds, on real volumes and the shipped weights?

    python benchmarks/agreement.py --data DIR [--split dev] [--cases 40] [--model FILE] [--precisions A,B]

One click in the largest structure of every case: for each precision that this machine computes in, or of
`--precisions`, however slow, the largest difference between the fused engine's logits and plain PyTorch's in
float32, as a share of the largest logit, and the share of the patch's voxels where the masks differ.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import measuring  # puts the repository on the path
import numpy as np
from regions import click_of

from samu_core.commands.common import table
from samu_core.engine import TorchEngine, choose_precision, fused_engine
from samu_core.evaluation import cases
from samu_core.geometry import PATCH_SIZE
from samu_core.weights import load_network

COLUMNS = ("case", "structure", "precision", "logits", "voxels", "mask voxels")


def make_engines(weights: Path | None, precisions: list[str]) -> tuple[TorchEngine, dict[str, object]]:
    """Plain float32, and the fused engines of these precisions."""
    fused = {}
    for precision in precisions:
        engine = fused_engine(load_network(weights).eval(), "cpu", precision, PATCH_SIZE)
        if engine is None:
            raise SystemExit("These weights or this machine have no fused engine: nothing to compare.")
        fused[precision] = engine
    return TorchEngine(load_network(weights).eval(), "cpu", "float32"), fused


def compare(plain: TorchEngine, fused: dict[str, object], case: cases.Case) -> list[dict]:
    """One row of COLUMNS per engine; none where the case has no structure."""
    found = click_of(case)
    if found is None:
        return []
    volume, point, structure, _ = found
    patch, fraction = measuring.patch_at(volume, point)
    expected = plain.decode(plain.encode(patch), fraction)
    rows = []
    for precision, engine in fused.items():
        logits = engine.decode(engine.encode(patch), fraction)
        difference = float(np.abs(logits - expected).max() / np.abs(expected).max())
        voxels = float(((logits > 0) != (expected > 0)).mean())
        values = (case.name, structure.name, precision, difference, voxels, int((expected > 0).sum()))
        rows.append(dict(zip(COLUMNS, values)))
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--precisions", help="as float32,bfloat16; default: float32, and what a click uses")
    args = parser.parse_args()
    default = dict.fromkeys(("float32", choose_precision("auto", "cpu")))
    precisions = args.precisions.split(",") if args.precisions else list(default)
    plain, fused = make_engines(args.model, precisions)
    every = cases.read_cases(args.data, args.split)[: args.cases]
    rows = [row for case in every for row in compare(plain, fused, case)]
    print(f"- {measuring.machine()}, {len(rows) // len(fused)} clicks\n")
    summary = []
    for precision in fused:
        of_one = [row for row in rows if row["precision"] == precision]
        cells = [f"{take(row[name] for row in of_one):.2e}"
                 for name in ("logits", "voxels") for take in (statistics.median, max)]  # fmt: skip
        summary.append([precision, *cells])
    header = ["precision", "logits, median", "logits, most", "voxels, median", "voxels, most"]
    print(table(summary, header))
    if args.csv:
        measuring.write_rows(args.csv, COLUMNS, rows)


if __name__ == "__main__":
    main()
