"""Choosing the classical baselines' one global parameter set each, on a split."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from samu_core.evaluation import baselines
from samu_core.evaluation import cases as protocol_cases
from samu_core.evaluation.metrics import dice
from samu_core.evaluation.protocol import ClickPatch, Options, Progress, click_patches, select

# One click on each of five structures per data set.
SUBSAMPLE = Options(clicks=1, deepest=False, limit=5)


class Scores:
    """Sum and count of Dice for every (baseline, parameter set, data set); rows in the order of GRID."""

    def __init__(self, names: list[str]):
        self.sets = {name: baselines.combinations(name) for name in names}
        self.values = {name: {} for name in names}

    def add(self, source: str, patch: ClickPatch, part: np.ndarray) -> None:
        """Try every parameter set of every baseline on one click."""
        for name, sets in self.sets.items():
            method = baselines.METHODS[name]
            found = np.array([dice(method(patch, **parameters), part) for parameters in sets])
            if np.isfinite(found).all():
                self.values[name].setdefault(source, []).append(found)

    def best(self) -> dict[str, tuple[dict, float]]:
        """{name: (parameters, Dice)} of each baseline's best set; Dice: clicks -> data set -> mean."""
        result = {}
        for name, sources in self.values.items():
            means = np.mean([np.mean(found, axis=0) for found in sources.values()], axis=0)
            winner = int(np.argmax(means))
            result[name] = (self.sets[name][winner], float(means[winner]))
        return result


def tune(
    data_dir: str | Path,
    split: str = "dev",
    boundary: str = "visible",
    options: Options = SUBSAMPLE,
    progress: Progress | None = None,
) -> dict[str, tuple[dict, float]]:
    """{name: (parameters, Dice)}: the best of baselines.GRID over a sub-sample of the clicks.

    Every parameter set sees the same clicks; the mean is over data sets, so none of them decides alone.
    Memory stays at one patch; all sets of a click share smoothings, regions and fronts.
    """
    chosen = select(protocol_cases.read_cases(data_dir, split, boundary), options)
    scores = Scores(list(baselines.GRID))
    for number, (case, only) in enumerate(chosen):
        if progress is not None:
            progress(case, number, len(chosen))
        for patch, target in click_patches(case, options, only):
            scores.add(case.source, patch, target.part)
    return scores.best()


def format_tuned(best: dict[str, tuple[dict, float]]) -> str:
    """The lines to paste into baselines.TUNED, and what each set reached."""
    lines = ["TUNED = {"]
    for name, (parameters, value) in best.items():
        lines.append(
            f"    {name!r}: {parameters!r},  # Dice {value:.3f} on the tuning clicks".replace("'", '"')
        )
    return "\n".join([*lines, "}"])
