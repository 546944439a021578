"""What bolder masks give, and where the network is doubtful enough for them.

    python benchmarks/bolder.py --data DIR [--split dev] [--clicks 2] [--limit N] [--model FILE]

Clicks as `samu evaluate` draws them, one look at each, whose logits are raised whatever the network thinks of
the mask: Dice of the mask as found, of the raised one and of what the rule makes of both, by the overlap that
was expected of the mask, and by data set. What decides the limits in `samu_core/bolder.py`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import measuring  # puts the repository on the path
import numpy as np
from wider import row_of

from samu_core import bolder
from samu_core.candidates import expected_iou
from samu_core.commands.common import table
from samu_core.evaluation import protocol
from samu_core.evaluation.metrics import dice
from samu_core.weights import load_network

HEADER = ["clicks", "as found", "raised", "what counts"]
BOUNDS = (0.0, 0.3, bolder.DOUBT, 0.45, bolder.SURE, 0.6, 1.0)


def masks_of(method, patch, target) -> dict:
    """One click: overlap expected of its mask, whether the bolder one counts, dices of the mask as found, the
    raised one and what counts."""
    first = method.prediction(patch)
    raised = replace(first, logits=first.logits + np.float32(bolder.RAISE))
    result, geometry = bolder.bolder(first), patch.grid.geometry
    dices = [dice(each.mask(geometry).full(geometry) > 0, target.part) for each in (first, raised, result)]
    return {"expected": expected_iou(first), "taken": result is not first, "dices": dices}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    measuring.add_click_arguments(parser, clicks=2)
    args = parser.parse_args()
    method = protocol.NetworkMethod(load_network(args.model), second_look=False)
    found: dict[str, list[dict]] = {}
    for source, patch, target in measuring.clicks_of(args):
        found.setdefault(source, []).append(masks_of(method, patch, target))
    everything = [row for rows in found.values() for row in rows]
    print(f"- {measuring.machine()}, float32; {len(everything)} clicks\n")
    cells = []
    for low, high in zip(BOUNDS, BOUNDS[1:]):
        rows = [row for row in everything if low <= row["expected"] < high]
        cells += [row_of(f"expected {low:.2f} to {high:.2f}", rows)] if rows else []
    taken = [row for row in everything if row["taken"]]
    cells += [row_of("of all, the bolder mask counts", taken)] if taken else []
    print(table(cells, ["mask", *HEADER]), "\n")
    print(table([row_of(name, rows) for name, rows in sorted(found.items())], ["data set", *HEADER]))


if __name__ == "__main__":
    main()
