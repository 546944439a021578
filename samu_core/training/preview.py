"""`samu preview-data`: a contact sheet of training samples, to be looked at before a run.

A row of samples per source: real CT, real MR, label maps, random shapes and skeletons with synthetic
contrast. Each sample is three slices through the click with the target's outline, as the network gets it:
normalised, warped and with the limited field of view.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from samu_core.errors import SamuError

if TYPE_CHECKING:
    from samu_core.training.pack import PackedVolume
    from samu_core.training.samples import Sample
    from samu_core.training.stream import Sources

TRIES = 200  # draws before a group counts as unable to give a sample


@dataclass
class Preview:
    """One sample of the sheet: where it comes from and what the network gets."""

    group: str
    name: str
    sample: Sample


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `samu preview-data`."""
    parser.add_argument("--config", type=Path, required=True, help="YAML file with the run's settings")
    parser.add_argument("--data", type=Path, help="folder with manifest.csv; packed into --pack on first use")
    parser.add_argument("--pack", type=Path, help="folder of the packed data (default: none, shapes only)")
    parser.add_argument("--out", type=Path, default=Path("preview.png"), help="PNG to write (preview.png)")
    parser.add_argument("--count", type=int, default=4, help="samples per source (default: 4)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws (default: 0)")
    parser.add_argument("--size", type=int, default=128, help="voxels along a patch's edge (default: 128)")
    parser.add_argument("--spacing", type=float, default=1.5, help="mm per voxel (default: 1.5)")
    parser.add_argument(
        "--difficulty", type=float, default=1.0, help="of the contrast curriculum, 0 to 1 (default: 1)"
    )


def run(args: argparse.Namespace) -> int:
    """Draw samples and write the sheet. Returns the exit code."""
    from samu_core.training.chain import read_config
    from samu_core.training.cli import pack_of
    from samu_core.training.stream import load_sources

    if args.count < 1 or args.size < 16 or not args.spacing > 0 or not 0 <= args.difficulty <= 1:
        raise SamuError(
            "--count must be 1 or more, --size 16 or more, --spacing above 0, --difficulty 0 to 1."
        )
    settings, _ = read_config(args.config)
    pack = args.pack
    if args.data is not None:
        pack = pack_of(args.data, pack or args.out.parent / "pack")
    sources = load_sources(pack, settings, cache=pack)
    previews = draw_previews(sources, args.count, args.size, args.spacing, args.difficulty, args.seed)
    draw_sheet(previews, args.out)
    print(f"wrote {args.out}: {len(previews)} samples of {len({p.group for p in previews})} sources")
    return 0


@dataclass
class Group:
    """Volumes of one kind, the probability of each, and whether they get synthetic contrast."""

    volumes: list[PackedVolume]
    weights: np.ndarray
    synthetic: bool


def groups_of(sources: Sources) -> dict[str, Group]:
    """{title: Group} of what a run draws from, with the run's own shares within a group; empty ones are left
    out."""
    from samu_core.training.stream import source_weights

    def group(volumes, synthetic, keep=lambda volume: True):
        chosen = [keep(volume) for volume in volumes]
        if not any(chosen):
            return None
        weights = source_weights(volumes)[chosen]
        return Group(list(compress(volumes, chosen)), weights / weights.sum(), synthetic)

    groups = {
        "real CT": group(sources.real, False, lambda volume: volume.modality == "CT"),
        "real MR": group(sources.real, False, lambda volume: volume.modality != "CT"),
        "real image, unlabelled region": group(sources.regions, False),
        "label map, synthetic contrast": group(sources.labelmaps, True),
        "random shapes, synthetic contrast": group(sources.shapes, True),
        "random skeletons, painted by tissue": group(sources.skeletons, True),
    }
    return {title: group for title, group in groups.items() if group is not None}


def draw_previews(
    sources: Sources, count: int, size: int, spacing: float, difficulty: float, seed: int
) -> list[Preview]:
    """`count` samples per group, drawn as `BatchStream` draws them; the same seed gives the same samples.

    Args:
        size: voxels along a patch's edge; spacing: mm per voxel; difficulty: 0...1.

    Raises:
        SamuError: no sample came of a group in TRIES draws.
    """
    from samu_core.training.samples import CropSpec, make_sample

    spec = CropSpec(size, spacing, difficulty)
    previews = []
    for number, (title, group) in enumerate(groups_of(sources).items()):
        rng = np.random.default_rng((seed, number))
        found: list[Preview] = []
        for _ in range(TRIES * count):
            volume = group.volumes[int(rng.choice(len(group.volumes), p=group.weights))]
            sample = make_sample(volume, spec, rng, synthetic=group.synthetic)
            if sample is not None:
                found.append(Preview(title, volume.name, sample))
            if len(found) == count:
                break
        if not found:
            raise SamuError(f"no sample of '{title}' in {TRIES * count} draws: try a finer --spacing.")
        previews += found
    return previews


def draw_sheet(previews: list[Preview], path: Path) -> None:
    """Write the contact sheet: two samples a line, grouped, each named with its target's size.

    Raises:
        ModuleNotFoundError: matplotlib is missing.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from samu_core.evaluation.slices import TRUTH, picture

    columns = 2
    lines: list[list[Preview]] = []
    for group in dict.fromkeys(preview.group for preview in previews):
        own = [preview for preview in previews if preview.group == group]
        lines += [own[n : n + columns] for n in range(0, len(own), columns)]
    figure = Figure(figsize=(7.9 * columns, 2.85 * len(lines)), dpi=100, facecolor="black")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(lines), columns, squeeze=False)
    figure.subplots_adjust(0.002, 0.002, 0.998, 1 - 0.22 / (2.85 * len(lines)), 0.01, 0.1)
    for line, row in zip(lines, axes):
        for axis in row:
            axis.set_axis_off()
        for axis, preview in zip(row, line):
            patch, target = preview.sample.patch.numpy(), preview.sample.targets[0].numpy()
            click = preview.sample.positions[0].numpy() * patch.shape[0] - 0.5
            zoom = max(1, 256 // patch.shape[0])
            axis.imshow(picture(patch, click, [(target, TRUTH)], zoom), interpolation="nearest")
            title = f"{preview.group}: {preview.name}, target {np.count_nonzero(target):,} voxels"
            axis.set_title(title, color="white", fontsize=9, pad=3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", facecolor="black")
