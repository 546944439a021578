"""What the second, wider look at doubtful masks gives, and which are doubtful enough for it.

    python benchmarks/wider.py --data DIR [--split dev] [--clicks 2] [--limit N] [--model FILE]

Clicks as `samu evaluate` draws them. Every first mask is looked at again, whatever the network thinks of it:
Dice of the first mask, of the second one and of what the rule makes of both, in the first patch, by the
overlap that was expected of the first mask, and by data set. What decides the limits in `samu_core/wider.py`.
"""

from __future__ import annotations

import measuring  # puts the repository on the path

from samu_core import wider
from samu_core.candidates import expected_iou
from samu_core.evaluation.metrics import dice

HEADER = ["first look", "wider look", "what counts"]
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


def main() -> None:
    """Measure and print."""
    measuring.print_by_expectation(__doc__, looks_at, BOUNDS, HEADER, "of all, the wider look counts")


if __name__ == "__main__":
    main()
