"""How far from the centre of the last patch may a click fall before a patch of its own would serve it better?

    python benchmarks/reuse.py --data DIR [--split dev] [--limit 8] [--radii 0,6,12,24,36,48] [--model FILE]

One uniform click in each of a few structures per data set, predicted in patches whose centres lie at a
distance from it, in a direction drawn by seed: Dice with the clicked part on the volume's own grid, mean over
data sets, and the worst data set's loss against the centred patch. What decides `Predictor.reuse_radius_mm`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import measuring  # puts the repository on the path
import numpy as np

from samu_core.commands.common import table
from samu_core.errors import SamuError
from samu_core.evaluation import cases, protocol
from samu_core.evaluation.metrics import dice
from samu_core.predictor import Predictor


def displaced(point: np.ndarray, radius: float, volume, rng: np.random.Generator) -> np.ndarray | None:
    """A point of the volume at a distance (mm); None when ten directions lead out of it."""
    for _ in range(10):
        direction = rng.standard_normal(3)
        other = point + radius * direction / np.linalg.norm(direction)
        try:
            return volume.require_inside(other)
        except SamuError:
            continue
    return None


def dices_of(predictor: Predictor, case, labels: set[int] | None, radii: list[float]) -> list[list[float]]:
    """Dice at every radius for one click in each of the structures."""
    volume, labelled = protocol.read_case(case)
    spacing, rows = volume.geometry.spacing, []
    for structure in cases.find_structures(case, labelled.array, spacing, 0, labels):
        click = cases.draw_clicks(case, structure, spacing[::-1], 1, 0, False)[0]
        point = volume.geometry.ijk_to_point(click.position_kji[::-1])
        reference = np.zeros(volume.array.shape, bool)
        reference[structure.box] = structure.parts == click.part
        rng, row = np.random.default_rng(structure.label), []
        for radius in radii:
            centre = displaced(point, radius, volume, rng)
            if centre is None:
                break
            predictor._encoded = None  # or the patch of the radius before would be used again
            predictor.prefetch(volume, centre)
            prediction = predictor.predict(volume, point)
            row.append(dice(prediction.mask(volume.geometry).full(volume.geometry) > 0, reference))
        if len(row) == len(radii):
            rows.append(row)
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--limit", type=int, default=8, help="structures of each data set")
    parser.add_argument("--radii", default="0,6,12,24,36,48", help="mm")
    parser.add_argument("--model", type=Path)
    args = parser.parse_args()
    radii = [float(value) for value in args.radii.split(",")]
    predictor = Predictor(args.model, device="cpu", reuse_radius_mm=max(radii) + 1, second_look=False)
    found: dict[str, list[list[float]]] = {}
    options = protocol.Options(clicks=1, deepest=False, limit=args.limit)
    for case, labels in protocol.select(cases.read_cases(args.data, args.split, "visible"), options):
        found.setdefault(case.source, []).extend(dices_of(predictor, case, labels, radii))
    means = np.array([np.mean(rows, axis=0) for rows in found.values() if rows])
    count = sum(len(rows) for rows in found.values())
    print(f"- {measuring.machine()}, {predictor.description}; {count} clicks in {len(means)} data sets\n")
    cells = [
        [f"{radius:g}", f"{means[:, n].mean():.4f}", f"{(means[:, n] - means[:, 0]).min():+.4f}"]
        for n, radius in enumerate(radii)
    ]
    print(table(cells, ["mm from the centre", "Dice", "worst data set against the centre"]))


if __name__ == "__main__":
    main()
