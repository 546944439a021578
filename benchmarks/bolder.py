"""What bolder masks give, and where the network is doubtful enough for them.

    python benchmarks/bolder.py --data DIR [--split dev] [--clicks 2] [--limit N] [--model FILE]

Clicks as `samu evaluate` draws them, one look at each, whose logits are raised whatever the network thinks of
the mask: Dice of the mask as found, of the raised one and of what the rule makes of both, by the overlap that
was expected of the mask, and by data set. What decides the limits in `samu_core/bolder.py`.
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
    """One click: overlap expected of its mask, whether the bolder one counts, dices of the mask as found, the
    raised one and what counts."""
    first = method.prediction(patch)
    raised = replace(first, logits=first.logits + np.float32(bolder.RAISE))
    result, geometry = bolder.bolder(first), patch.grid.geometry
    dices = [dice(each.mask(geometry).full(geometry) > 0, target.part) for each in (first, raised, result)]
    return {"expected": expected_iou(first), "taken": result is not first, "dices": dices}


def main() -> None:
    """Measure and print."""
    measuring.print_by_expectation(__doc__, masks_of, BOUNDS, HEADER, "of all, the bolder mask counts")


if __name__ == "__main__":
    main()
