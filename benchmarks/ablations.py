"""Design choices at equal budget: every variant trains for the same few minutes, then clicks the dev volumes.

    python benchmarks/ablations.py --data DIR --pack DIR --out DIR [--variants a,b] [--minutes 5] [--seeds 1]

Trains configs/ablation.yaml with one thing changed, on one thread, and evaluates the averaged weights on the
dev split, visible boundaries, in 32^3 patches of 4 mm, where it trained. So small a budget tells what helps a
network to begin, not what it ends with. Writes one line per run to OUT/ablations.csv at once, skips those
already there, and prints the table of docs/model.md. Two processes with other variants and the same OUT may
run side by side, where there are 20 GB of memory.
"""

from __future__ import annotations

import argparse
import csv
import logging
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from samu_core.evaluation.protocol import evaluate_network
from samu_core.evaluation.results import UNSEEN_SOURCE, UNSEEN_SUBJECT
from samu_core.training.cli import keep_freed_memory
from samu_core.training.settings import TrainingSettings
from samu_core.training.stream import Sources, load_sources
from samu_core.training.trainer import Trainer

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "ablation.yaml"
SIZE, SPACING, CLICKS = 32, 4.0, 2
COLUMNS = ("variant", "seed", "minutes", "samples", "dice", "unseen sources", "trained sources")

# Name: (what differs, settings of the run, settings of every phase).
VARIANTS = {
    "base": ("as shipped", {}, {}),
    "position": ("paper's prompt: position only, no maps", {"network": {"prompt": "position"}}, {}),
    "no maps": ("content, without maps of the click", {"network": {"maps": "none"}}, {}),
    "baseline 1": ("no prompt", {"network": {"attention": "none"}}, {}),
    "baseline 2": ("attention at the bottom only", {"network": {"attention": "bottom"}}, {}),
    "baseline 3": ("attention on the skips, too", {"network": {"attention": "skips"}}, {}),
    "no limits": ("attention without limits", {"network": {"limits": False}}, {}),
    "group": ("GroupNorm", {"network": {"normalisation": "group"}}, {}),
    "adamw": ("AdamW for everything", {"optimizer": "adamw"}, {}),
    "synthetic": ("random shapes only", {}, {"real": 0.0, "labelmaps": 0.0}),
    "no regions": ("no unlabelled regions as targets", {}, {"regions": 0.0}),
    "real": ("80 % real images", {}, {"real": 0.8, "labelmaps": 0.1}),
    "random paint": ("label maps painted at random, not by tissue", {}, {"anatomy": 0.0}),
    "centred": ("every click in the middle of its patch", {}, {"centred": 1.0}),
    "plain": ("patches z-scored as at inference only", {}, {"plain": True}),
    "easy": ("contrast as easy as at the start", {"hardest": 0.1}, {}),
    "hard": ("contrast to the hardest", {"hardest": 1.0}, {}),
}


def settings_of(variant: str, minutes: float, seed: int) -> TrainingSettings:
    """The settings of a run."""
    _, changes, phase_changes = VARIANTS[variant]
    settings = TrainingSettings.read(CONFIG)
    phases = tuple(replace(phase, minutes=minutes, **phase_changes) for phase in settings.phases)
    return replace(settings, phases=phases, seed=settings.seed + seed, **changes)


def run(variant: str, seed: int, sources: Sources, args: argparse.Namespace) -> dict:
    """Train and evaluate one variant."""
    settings = settings_of(variant, args.minutes, seed)
    trainer = Trainer(settings, sources, args.out / f"{variant.replace(' ', '-')}-{seed}")
    trainer.run()
    found = evaluate_network(
        trainer.ema, args.data, clicks=CLICKS, size=SIZE, spacing=SPACING, second_look=False
    )
    return {
        "variant": variant,
        "seed": seed,
        "minutes": args.minutes,
        "samples": trainer.samples,
        "dice": f"{found.mean:.4f}",
        "unseen sources": f"{found.over_data_sets('dice', UNSEEN_SOURCE):.4f}",
        "trained sources": f"{found.over_data_sets('dice', UNSEEN_SUBJECT):.4f}",
    }


def done(path: Path) -> list[dict]:
    """Lines of a table that is there already."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: dict) -> None:
    """Add a line, and the head if it is the first."""
    fresh = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if fresh:
            writer.writeheader()
        writer.writerow(row)


def table(rows: list[dict]) -> str:
    """Markdown: mean over the seeds of each variant, in the order of VARIANTS."""
    lines = ["| variant | what differs | runs | samples | dev | unseen sources | trained sources |"]
    lines.append("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for name, (text, _, _) in VARIANTS.items():
        mine = [row for row in rows if row["variant"] == name]
        if mine:
            means = [sum(float(row[key]) for row in mine) / len(mine) for key in COLUMNS[3:]]
            figures = " | ".join([f"{means[0]:.0f}", *(f"{value:.3f}" for value in means[1:])])
            lines.append(f"| {name} | {text} | {len(mine)} | {figures} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pack", type=Path, required=True, help="as 'samu train' made it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    names = args.variants.split(",")
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(VARIANTS)}")
    logging.basicConfig(level=logging.WARNING)
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    path = args.out / "ablations.csv"
    args.out.mkdir(parents=True, exist_ok=True)
    # The same volumes and shapes for all runs, whatever their seeds.
    sources = load_sources(args.pack, TrainingSettings.read(CONFIG), cache=args.pack)
    for seed in range(args.seeds):
        for name in names:
            if any(row["variant"] == name and row["seed"] == str(seed) for row in done(path)):
                continue
            row = run(name, seed, sources, args)
            append(path, row)
            print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    print(table(done(path)))


if __name__ == "__main__":
    main()
