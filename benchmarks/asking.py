"""What asking again by the first mask gives, and when the second answer should count.

    python benchmarks/asking.py --data DIR [--split dev] [--clicks 2] [--limit N] [--model FILE]

Clicks as `samu evaluate` draws them, one look at each: Dice of the first mask, of the second answer, whatever
is expected of it, and of what the rule in `samu_core/asking.py` makes of both, by the overlap that was
expected of the first mask, and by data set.
"""

from __future__ import annotations

from dataclasses import replace

import measuring  # puts the repository on the path

from samu_core import asking
from samu_core.candidates import expected_iou
from samu_core.evaluation.metrics import dice

HEADER = ["first", "second", "what counts"]
BOUNDS = (0.0, 0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 1.0)


def masks_of(method, patch, target) -> dict:
    """One click: overlap expected of its mask, whether the second answer counts, dices of the first mask, the
    second answer and what counts."""
    first, decode_again = method.first(patch)
    second = first

    def remember(mask):
        nonlocal second
        logits = decode_again(mask)
        second = replace(first, logits=logits)
        return logits

    result, geometry = asking.ask_again(first, remember), patch.grid.geometry
    dices = [dice(each.mask(geometry).full(geometry) > 0, target.part) for each in (first, second, result)]
    return {"expected": expected_iou(first), "taken": result is not first, "dices": dices}


if __name__ == "__main__":
    measuring.print_by_expectation(__doc__, masks_of, BOUNDS, HEADER, "of all, the second answer counts")
