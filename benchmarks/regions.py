"""Does leaving out what lies far from the coarse mask change masks, and what does it save?

    python benchmarks/regions.py --data DIR [--split dev] [--cases 40] [--model FILE] [--margin 2]
                                 [--probability 0.05] [--csv FILE]

One click in the largest structure of every case: Dice with the reference of the full decode and of the decode
in the region of interest, the Dice between the two masks, and the decoder's time for both.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import measuring  # puts the repository on the path
import numpy as np

from samu_core.commands.common import table
from samu_core.evaluation import cases
from samu_core.evaluation.metrics import dice
from samu_core.io import read_volume
from samu_core.network.fused.region import RegionOfInterest
from samu_core.predictor import Predictor

COLUMNS = ("case", "structure", "full", "region", "agreement", "full ms", "region ms")


def click_of(case: cases.Case):
    """Volume, click (RAS mm), the case's largest structure and the clicked part; None without one."""
    volume, labels = read_volume(case.image_path), read_volume(case.label_path)
    spacing = volume.geometry.spacing
    found = cases.find_structures(case, labels.array, spacing, 0)
    if not found:
        return None
    structure = max(found, key=lambda item: np.count_nonzero(item.parts))
    click = cases.draw_clicks(case, structure, spacing[::-1], 1, 0, True)[-1]
    point = volume.geometry.ijk_to_point(click.position_kji[::-1])
    return volume, point, structure, click.part


def compare(predictor: Predictor, case: cases.Case, region: RegionOfInterest) -> dict | None:
    """One row of COLUMNS."""
    found = click_of(case)
    if found is None:
        return None
    volume, point, structure, part = found
    masks, seconds = [], []
    for each in (None, region):
        predictor._engine.region = each
        predictor.predict(volume, point)  # encodes, and warms up
        prediction = predictor.predict(volume, point)
        seconds.append(prediction.seconds["decode"])
        masks.append(prediction.mask(volume.geometry).full(volume.geometry) > 0)
    reference = np.zeros(volume.array.shape, bool)
    reference[structure.box] = structure.parts == part
    values = (dice(masks[0], reference), dice(masks[1], reference), dice(*masks))
    return dict(zip(COLUMNS, (case.name, structure.name, *values, *(1000 * s for s in seconds))))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--margin", type=int, default=RegionOfInterest.margin)
    parser.add_argument("--probability", type=float, default=RegionOfInterest.probability)
    parser.add_argument("--csv", type=Path)
    args = parser.parse_args()
    predictor = Predictor(args.model, device="cpu", precision=args.precision, second_look=False)
    predictor.warm_up()
    if not hasattr(predictor._engine, "region"):
        raise SystemExit("These weights or this machine have no fused engine, and so no region of interest.")
    region = RegionOfInterest(args.probability, args.margin)
    every = cases.read_cases(args.data, args.split)[: args.cases]
    rows = [row for row in (compare(predictor, case, region) for case in every) if row is not None]
    print(f"- {measuring.machine()}, {measuring.load_average()}, {predictor.description}, {region}\n")
    cells = [[row["case"], row["structure"], *(f"{row[name]:.4f}" for name in COLUMNS[2:])] for row in rows]
    means = [statistics.mean(row[name] for row in rows) for name in COLUMNS[2:]]
    print(table([*cells, ["mean", "", *(f"{value:.4f}" for value in means)]], list(COLUMNS)))
    worst = max(abs(row["full"] - row["region"]) for row in rows)
    print(f"\nDice changes by {means[1] - means[0]:+.5f} on average, by {worst:.5f} at most.")
    if args.csv:
        measuring.write_rows(args.csv, COLUMNS, rows)


if __name__ == "__main__":
    main()
