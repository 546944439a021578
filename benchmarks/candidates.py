"""Three nested masks of a click: what the best of them would give, and what their expected overlap is worth.

    python benchmarks/candidates.py --data DIR [--split dev] [--clicks 1] [--limit N] [--calibrate]

Clicks as `samu evaluate` draws them, masks as the Predictor gives them, closer look included. Prints patch
Dice by data set of the mask as found, the larger, the smaller one, the one of the three that is expected to
overlap most, and the best of the three, which only the user knows; and how expected and true overlap agree.
`--calibrate` compares other values of SPREAD and BIAS in `samu_core/candidates.py`: for the training split.
"""

from __future__ import annotations

import argparse
from itertools import product

import measuring  # puts the repository on the path
import numpy as np

from samu_core import candidates
from samu_core.commands.common import table
from samu_core.evaluation import protocol
from samu_core.evaluation.metrics import dice
from samu_core.weights import load_network

MASKS = (candidates.AS_FOUND, candidates.LARGER, candidates.SMALLER)
SHIPPED = (candidates.SPREAD, candidates.BIAS)
OTHERS = tuple(product((1.0, 2.0, 3.0, 4.0, 6.0), (0.0, 1.0, 2.0, 3.0)))


def measure(prediction, geometry, part, pairs) -> dict:
    """One click: "dices" of the three masks (3,) with the clicked part, and "expected" overlap of each by
    (spread, bias), NaN for a mask without voxels."""
    masks = candidates.nested_masks(prediction)
    thresholds = candidates.nested_thresholds()
    found = [prediction.mask(geometry, thresholds[name]).full(geometry) > 0 for name in MASKS]
    expected = {
        pair: [
            candidates.expected_overlap(prediction.logits, masks[name], masks[candidates.LARGER], *pair)
            if masks[name].any()
            else np.nan
            for name in MASKS
        ]
        for pair in pairs
    }
    return {"dices": [dice(mask, part) for mask in found], "expected": expected}


def measure_all(method, args, pairs) -> dict[str, list[dict]]:
    """`measure` of all clicks by data set."""
    found: dict[str, list[dict]] = {}
    for source, patch, target in measuring.clicks_of(args):
        row = measure(method.prediction(patch), patch.grid.geometry, target.part, pairs)
        found.setdefault(source, []).append(row)
    return found


def dices_of(row: dict, pair: tuple[float, float]) -> list[float]:
    """Dice as found, larger, smaller, of the mask with the greatest expected overlap, of the best."""
    expected = np.nan_to_num(row["expected"][pair], nan=-1.0)
    return [*row["dices"], row["dices"][int(np.argmax(expected))], max(row["dices"])]


def agreement(found: dict[str, list[dict]], pair: tuple[float, float]) -> list[str]:
    """Cells: mean Dice over data sets of the chosen mask; correlation, mean difference and mean absolute
    difference of expected and true overlap over all masks; correlation for masks as found alone."""
    everything = [row for rows in found.values() for row in rows]
    dices = np.array([row["dices"] for row in everything])
    expected, true = np.array([row["expected"][pair] for row in everything]), dices / (2 - dices)
    there = np.isfinite(expected)
    error = (expected - true)[there]
    first = there[:, 0]
    chosen = np.mean([np.mean([dices_of(row, pair)[3] for row in rows]) for rows in found.values()])
    together = np.corrcoef(expected[there], true[there])[0, 1]
    alone = np.corrcoef(expected[first, 0], true[first, 0])[0, 1]
    return [f"{value:.3f}" for value in (chosen, together, error.mean(), np.abs(error).mean(), alone)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    measuring.add_click_arguments(parser, clicks=1)
    parser.add_argument("--calibrate", action="store_true", help="other spreads and biases, too")
    args = parser.parse_args()
    pairs = tuple(dict.fromkeys((SHIPPED, *OTHERS))) if args.calibrate else (SHIPPED,)
    found = measure_all(protocol.NetworkMethod(load_network(args.model)), args, pairs)
    print(f"- {measuring.machine()}, float32; {sum(map(len, found.values()))} clicks\n")
    means = {name: np.mean([dices_of(row, SHIPPED) for row in rows], axis=0) for name, rows in found.items()}
    means["mean over data sets"] = np.mean(list(means.values()), axis=0)
    cells = [[name, *(f"{value:.3f}" for value in values)] for name, values in means.items()]
    print(table(cells, ["data set", *MASKS, "most expected overlap", "best"]), "\n")
    header = ["spread", "bias", "chosen by it", "correlation", "difference", "absolute", "as found alone"]
    print(table([[f"{a:g}", f"{b:g}", *agreement(found, (a, b))] for a, b in pairs], header))


if __name__ == "__main__":
    main()
