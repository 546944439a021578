"""What the second, wider look at doubtful masks gives, and which are doubtful enough for it.

    python benchmarks/wider.py --data DIR [--split dev] [--clicks 2] [--limit N] [--model FILE]

Clicks as `samu evaluate` draws them. Every first mask is looked at again, whatever the network thinks of it:
Dice of the first mask, of the second one and of what the rule makes of both, in the first patch, by the
overlap that was expected of the first mask, and by data set. What decides the limits in `samu_core/wider.py`.
"""

from __future__ import annotations

import argparse

import measuring  # puts the repository on the path
import numpy as np

from samu_core import wider
from samu_core.candidates import expected_iou
from samu_core.commands.common import table
from samu_core.evaluation import protocol
from samu_core.evaluation.metrics import dice
from samu_core.weights import load_network

HEADER = ["clicks", "first look", "wider look", "what counts"]
BOUNDS = (0.0, 0.3, wider.DOUBT, 0.5, 0.6, 1.0)


def looks_at(method, patch, target) -> dict:
    """Both looks at one click: overlap expected of the first, whether the second counts, dices of the first,
    the second and what counts."""
    first = method.prediction(patch)
    second = method.look_again(patch, patch.point_ras, patch.grid.spacing * wider.WIDER)
    result = wider.look_wider(first, lambda _point, _spacing: second)
    geometry = patch.grid.geometry
    dices = [dice(each.mask(geometry).full(geometry) > 0, target.part) for each in (first, second, result)]
    return {"expected": expected_iou(first), "taken": result is second, "dices": dices}


def row_of(name: str, rows: list[dict]) -> list[str]:
    """Cells: name, clicks, mean Dice of each."""
    means = np.mean([row["dices"] for row in rows], axis=0)
    return [name, str(len(rows)), *(f"{mean:.3f}" for mean in means)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    measuring.add_click_arguments(parser, clicks=2)
    args = parser.parse_args()
    method = protocol.NetworkMethod(load_network(args.model), second_look=False)
    found: dict[str, list[dict]] = {}
    for source, patch, target in measuring.clicks_of(args):
        found.setdefault(source, []).append(looks_at(method, patch, target))
    everything = [row for rows in found.values() for row in rows]
    print(f"- {measuring.machine()}, float32; {len(everything)} clicks\n")
    cells = []
    for low, high in zip(BOUNDS, BOUNDS[1:]):
        rows = [row for row in everything if low <= row["expected"] < high]
        cells += [row_of(f"expected {low:.1f} to {high:.1f}", rows)] if rows else []
    taken = [row for row in everything if row["taken"]]
    cells += [row_of("of all, the wider look counts", taken)] if taken else []
    print(table(cells, ["first mask", *HEADER]), "\n")
    print(table([row_of(name, rows) for name, rows in sorted(found.items())], ["data set", *HEADER]))


if __name__ == "__main__":
    main()
