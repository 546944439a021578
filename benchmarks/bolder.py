"""What bolder masks give, and where the network is doubtful enough for them.

    python benchmarks/bolder.py --data DIR [--split dev] [--clicks 2] [--limit N] [--model FILE]

Clicks as `samu evaluate` draws them, one look at each, whose logits are raised whatever the network thinks of
the mask: Dice of the mask as found, of the raised one and of what the rule makes of both, by the overlap that
was expected of the mask, and by data set. What decides the limits in `samu_core/bolder.py`. Last, what the
overlap that users are told is worth where the bolder mask counts.
"""

from __future__ import annotations

from dataclasses import replace

import measuring  # puts the repository on the path
import numpy as np

from samu_core import bolder
from samu_core.candidates import expected_iou
from samu_core.evaluation.metrics import dice

HEADER = ["as found", "raised", "what counts"]
BOUNDS = (0.0, 0.3, bolder.DOUBT, 0.45, bolder.SURE, 0.6, 1.0)


def masks_of(method, patch, target) -> dict:
    """One click: overlap expected of its mask, and told of what counts, whether that is the bolder one, dices
    of the mask as found, the raised one and what counts."""
    first = method.prediction(patch)
    raised = replace(first, logits=first.logits + np.float32(bolder.RAISE))
    result, geometry = bolder.bolder(first), patch.grid.geometry
    dices = [dice(each.mask(geometry).full(geometry) > 0, target.part) for each in (first, raised, result)]
    told = expected_iou(result)
    return {"expected": expected_iou(first), "told": told, "taken": result is not first, "dices": dices}


def main() -> None:
    """Measure and print."""
    rows = measuring.print_by_expectation(__doc__, masks_of, BOUNDS, HEADER, "of all, the bolder mask counts")
    taken = [row for row in rows if row["taken"]]
    if taken:
        expected, told = (np.mean([row[name] for row in taken]) for name in ("expected", "told"))
        found, counts = (np.mean([_iou(row["dices"][place]) for row in taken]) for place in (0, 2))
        print(
            f"\nintersection over union, where the bolder mask counts: expected {told:.3f}, true {counts:.3f}"
        )
        print(f"of the masks as found there: expected {expected:.3f}, true {found:.3f}")


def _iou(dice_coefficient: float) -> float:
    """Intersection over union, 0...1, of a Dice coefficient."""
    return dice_coefficient / (2 - dice_coefficient)


if __name__ == "__main__":
    main()
