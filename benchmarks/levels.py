"""Does every level of the decoder take part? What attention adds, and what the mask loses without a level.

    python benchmarks/levels.py --data DIR [--split dev] [--cases 8] [--model FILE] [--csv FILE]

One click in the largest structure of every case, plain PyTorch in float32. Per level: the size of what
attention adds, as a multiple of the features' standard deviation over the voxels; how far its gates are from
being switches (mean of 4 g (1 - g), 1 is half open); and the Dice between the mask and the one that comes out
when all that the level hands upwards is its mean over the voxels: 1 means that nothing depends on it.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
from pathlib import Path

import measuring  # puts the repository on the path
import torch
from regions import click_of

from samu_core.commands.common import table
from samu_core.evaluation import cases
from samu_core.evaluation.metrics import dice
from samu_core.network.prompt_attention import PromptAttention, per_sample_conv
from samu_core.prompt import PointPrompt
from samu_core.weights import load_network

COLUMNS = ("case", "level", "added", "gates", "mask without")


@contextlib.contextmanager
def watched(network, found: dict[int, tuple[float, float]]):
    """Notes (added, gates) of every level's attention in `found` while the network runs."""
    plain = PromptAttention.forward
    levels = {id(module): int(name) for name, module in network.decoder.attention.items()}

    def forward(attention, features, encoded, prompt):
        slope, constant, place, step, base = attention.folded(features, encoded, prompt)
        bias = attention.place_bias(features.shape[2:], constant, place, prompt)
        gates = torch.sigmoid(per_sample_conv(features, slope) + bias)
        added = per_sample_conv(gates, step, base)
        spread = features.flatten(2).std(dim=2).square().mean().sqrt()
        size = float(added.square().mean().sqrt() / spread.clamp(min=1e-12))
        found[levels[id(attention)]] = (size, float((4 * gates * (1 - gates)).mean()))
        return features + added

    PromptAttention.forward = forward
    try:
        yield
    finally:
        PromptAttention.forward = plain


@contextlib.contextmanager
def silenced(network, level: int):
    """What `level` hands to the next finer one is its mean over the voxels."""

    def flat(module, arguments):
        return (arguments[0].mean(dim=(2, 3, 4), keepdim=True).expand_as(arguments[0]).contiguous(),)

    handle = network.decoder.levels[level - 1].up.register_forward_pre_hook(flat)
    try:
        yield
    finally:
        handle.remove()


def examine(network, case: cases.Case) -> list[dict]:
    """One row of COLUMNS per level; none where the case has no structure or the mask no voxel."""
    chosen = click_of(case)
    if chosen is None:
        return []
    volume, point, _, _ = chosen
    patch, fraction = measuring.patch_at(volume, point)
    prompt = PointPrompt.from_fraction(fraction)
    found: dict[int, tuple[float, float]] = {}
    with torch.inference_mode():
        features = network.encode(torch.from_numpy(patch)[None, None])
        with watched(network, found):
            mask = network.decode(features, prompt).numpy() > 0
        if not mask.any():
            return []
        rows = []
        for level, (added, gates) in sorted(found.items()):
            without = float("nan")
            if level:
                with silenced(network, level):
                    without = dice(network.decode(features, prompt).numpy() > 0, mask)
            rows.append(dict(zip(COLUMNS, (case.name, level, added, gates, without))))
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--csv", type=Path)
    args = parser.parse_args()
    network = load_network(args.model)
    every = cases.read_cases(args.data, args.split)
    every = every[:: max(1, len(every) // args.cases)][: args.cases]  # over all data sets
    rows = [row for case in every for row in examine(network, case)]
    summary = []
    for level in sorted({row["level"] for row in rows}):
        mine = [row for row in rows if row["level"] == level]
        cells = [f"{statistics.median(row[name] for row in mine):.3g}" for name in COLUMNS[2:]]
        summary.append([str(level), *cells[:2], cells[2] if level else "-"])
    print(f"- {len(rows) // len(summary)} clicks, medians\n")
    print(table(summary, ["level", "attention adds", "gates", "same mask without"]))
    if args.csv:
        measuring.write_rows(args.csv, COLUMNS, rows)


if __name__ == "__main__":
    main()
