"""Rows of an evaluation and the figures drawn from them.

Aggregation: clicks -> structure -> data set (source_repo) -> mean over data sets, so that neither a volume of
thirty organs nor a data set of many volumes outweighs the others. The main figure is the patch Dice of the
uniform clicks; the deepest-voxel click, the ideal user's, is reported apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from samu_core.evaluation.metrics import bootstrap_interval

UNSEEN_SOURCE = "unseen sources"
UNSEEN_SUBJECT = "unseen subjects of trained sources"
TRAINED_SUBJECT = "subjects of the training"
GROUPS = (UNSEEN_SOURCE, UNSEEN_SUBJECT, TRAINED_SUBJECT)


@dataclass(frozen=True)
class ClickRow:
    """One click answered by one method. NaN where a figure was not asked for."""

    method: str
    data_set: str
    group: str
    volume: str
    modality: str
    label: int
    structure: str
    click: str  # "0", "1", ... uniform; "deepest"
    r: float
    a: float
    s: float
    target_voxels: int  # of the clicked part in the patch
    mask_voxels: int
    dice: float  # clicked part of the label, in the patch: the main figure
    dice_label: float  # the whole label, in the patch
    dice_native: float  # clicked part, whole volume, on the volume's own grid
    nsd: float  # clicked part, in the patch, 2 mm
    seconds: float


@dataclass(frozen=True)
class StructureRow:
    """One structure of one volume, over its clicks."""

    method: str
    data_set: str
    group: str
    volume: str
    modality: str
    label: int
    structure: str
    clicks: int
    dice: float
    sd: float  # population SD over the uniform clicks
    worst: float  # over the uniform clicks
    deepest: float
    dice_label: float
    dice_native: float
    nsd: float
    seconds: float


class EvaluationResult:
    """The click rows of one method, and what follows from them.

    rows: list of ClickRow; structures: list of StructureRow.
    """

    def __init__(self, rows: Iterable[ClickRow]):
        self.rows = [row for row in rows if np.isfinite(row.dice)]
        grouped = {}
        for row in self.rows:
            grouped.setdefault((row.data_set, row.volume, row.label), []).append(row)
        self.structures = [s for s in map(_summarise, grouped.values()) if s is not None]

    @property
    def mean(self) -> float:
        """Patch Dice of the uniform clicks, mean over data sets; NaN if nothing was clicked."""
        return self.over_data_sets("dice")

    @property
    def per_dataset(self) -> dict[str, float]:
        """{source_repo: patch Dice}, in order of first appearance."""
        return self.by_data_set("dice")

    def by_data_set(self, field: str, group: str | None = None) -> dict[str, float]:
        """{source_repo: mean over its structures of a StructureRow field}, NaN values left out."""
        values = {}
        for row in self._in(group):
            if np.isfinite(getattr(row, field)):
                values.setdefault(row.data_set, []).append(getattr(row, field))
        return {name: float(np.mean(v)) for name, v in values.items()}

    def over_data_sets(self, field: str, group: str | None = None) -> float:
        """Mean over data sets of a StructureRow field: dice, sd, worst, deepest, dice_native, nsd, ..."""
        values = list(self.by_data_set(field, group).values())
        return float(np.mean(values)) if values else float("nan")

    def interval(
        self, field: str = "dice", group: str | None = None, samples: int = 1000, seed: int = 0
    ) -> tuple[float, float]:
        """95 % bootstrap interval of over_data_sets, resampling volumes within data sets."""
        groups = {}
        for row in self._in(group):
            if np.isfinite(getattr(row, field)):
                groups.setdefault(row.data_set, {}).setdefault(row.volume, []).append(getattr(row, field))
        return bootstrap_interval([list(v.values()) for v in groups.values()], samples, seed)

    @property
    def groups(self) -> dict[str, float]:
        """{group: mean over its data sets} for those of GROUPS that are present."""
        present = [g for g in GROUPS if any(s.group == g for s in self.structures)]
        return {group: self.over_data_sets("dice", group) for group in present}

    def _in(self, group):
        return [row for row in self.structures if group is None or row.group == group]

    def __str__(self):
        parts = [f"Dice {self.mean:.3f} over {len(self.per_dataset)} data sets"]
        parts += [f"{group} {value:.3f}" for group, value in self.groups.items()]
        return "; ".join(parts)


def _summarise(rows):
    uniform = [row for row in rows if row.click != "deepest"]
    if not uniform:
        return None
    dices = [row.dice for row in uniform]
    deepest = [row.dice for row in rows if row.click == "deepest"]
    shared = ("method", "data_set", "group", "volume", "modality", "label", "structure")
    return StructureRow(
        **{name: getattr(uniform[0], name) for name in shared},
        clicks=len(uniform),
        dice=float(np.mean(dices)),
        sd=float(np.std(dices)),
        worst=float(min(dices)),
        deepest=deepest[0] if deepest else float("nan"),
        **{
            name: float(np.mean([getattr(row, name) for row in uniform]))
            for name in ("dice_label", "dice_native", "nsd", "seconds")
        },
    )


def by_method(rows: Iterable[ClickRow]) -> dict[str, EvaluationResult]:
    """{method: EvaluationResult} of mixed rows, in order of first appearance."""
    grouped = {}
    for row in rows:
        grouped.setdefault(row.method, []).append(row)
    return {name: EvaluationResult(own) for name, own in grouped.items()}


def fields(row_class: type) -> list[str]:
    """Column names of ClickRow or StructureRow."""
    return [field.name for field in dataclasses.fields(row_class)]
