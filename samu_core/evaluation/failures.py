"""`samu failures`: the worst structures of an evaluation, each with a picture and a sentence why.

The sentence is put together from what can be measured on the patch: how much too large or small the mask is,
how far the target's intensities differ from its rim's, how large and how deep it is, whether the patch cuts
it. It says what goes along with a failure, which need not be what causes it.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from samu_core.errors import SamuError

if TYPE_CHECKING:
    from samu_core.evaluation.protocol import ClickPatch, NetworkMethod, Target
    from samu_core.evaluation.results import ClickRow

RIM = 3  # voxels around a target that count as its surroundings
OTHER_MODEL = 0.05  # Dice that a click may differ from the file's, before the model must be another one
PICTURE_SIZE, VIEW_MARGIN, LEAST_VIEW = 256, 8, 24  # pixels of a slice; voxels around what is shown
PICTURES = "images/failures"  # beside the document

# From where on a fact is told.
FAINT_SD, UNEVEN_SD = 0.35, 1.0
SMALL_VOXELS, THIN_VOXELS = 300, 2.0
LARGER, SMALLER = 1.5, 0.67
CUT_SHARE, UNSTEADY_SD = 0.9, 0.15


@dataclass(frozen=True)
class Facts:
    """What is measured of one click.

    Attributes:
        dice, precision, recall: of mask and target in the patch.
        target_voxels, mask_voxels: in the patch.
        contrast: |mean of target - mean of rim| in SD of the patch's voxels in the volume.
        spread: SD within the target, likewise.
        depth: of the target's deepest voxel, in voxels.
        kept: share of the clicked part's volume that lies in the patch.
        click_sd: SD of Dice over the structure's clicks.
    """

    dice: float
    precision: float
    recall: float
    target_voxels: int
    mask_voxels: int
    contrast: float
    spread: float
    depth: float
    kept: float
    click_sd: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `samu failures`."""
    parser.add_argument("--data", type=Path, required=True, help="folder with manifest.csv and vol/")
    parser.add_argument("--results", type=Path, required=True, help="clicks.csv of 'samu evaluate'")
    parser.add_argument("--split", default="dev", help="split of the manifest (default: dev)")
    parser.add_argument("--model", type=Path, help="what was evaluated (default: the bundled weights)")
    parser.add_argument("--count", type=int, default=10, help="structures to show (default: 10)")
    parser.add_argument("--per-source", type=int, help="at most so many of one data set (default: any)")
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    parser.add_argument(
        "--out", type=Path, default=Path("docs/failures.md"), help="document (default: docs/failures.md)"
    )


def run(args: argparse.Namespace) -> int:
    """Write the gallery. Returns the exit code."""
    from samu_core.evaluation.cases import read_cases
    from samu_core.evaluation.protocol import NetworkMethod
    from samu_core.evaluation.reading import read_clicks, read_record
    from samu_core.weights import load_network

    rows = [row for row in read_clicks(args.results) if row.method == "model" and row.click != "deepest"]
    if not rows:
        raise SamuError(f"{args.results} holds no clicks of a model: evaluate one with --model.")
    record = read_record(args.results.parent)
    cases = {case.name: case for case in read_cases(args.data, args.split, "visible")}
    worst = worst_structures((row for row in rows if row.volume in cases), args.count, args.per_source)
    if not worst:
        raise SamuError(f"no visible structure of split '{args.split}' is in {args.results}.")
    method = NetworkMethod(load_network(args.model, args.device), args.device)
    folder = args.out.parent / PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("[0-9][0-9]-*.png"):
        old.unlink()
    entries = []
    for number, clicks in enumerate(worst, start=1):
        row, facts, picture = examine(cases[clicks[0].volume], clicks, method, folder, number)
        entries.append(_entry(number, clicks, row, facts, picture.relative_to(args.out.parent)))
        print(f"{number}/{len(worst)} {row.volume} {row.structure}: {facts.dice:.3f}")
    args.out.write_text(_document(args, record, len(group(rows)), entries), encoding="utf-8")
    print(f"wrote {args.out} and {len(entries)} pictures in {folder}")
    return 0


def group(rows: Iterable[ClickRow]) -> list[list[ClickRow]]:
    """Click rows by structure, worst mean Dice first; equal ones by name, so that the order is fixed."""
    structures: dict[tuple[str, int], list[ClickRow]] = {}
    for row in rows:
        if np.isfinite(row.dice):
            structures.setdefault((row.volume, row.label), []).append(row)
    return sorted(structures.values(), key=lambda own: (mean_dice(own), own[0].volume, own[0].label))


def mean_dice(rows: list[ClickRow]) -> float:
    """Mean Dice of some clicks."""
    return float(np.mean([row.dice for row in rows]))


def worst_structures(
    rows: Iterable[ClickRow], count: int, per_source: int | None = None
) -> list[list[ClickRow]]:
    """The clicks of each of the `count` structures with the lowest mean Dice, at most `per_source` of a data
    set."""
    chosen: list[list[ClickRow]] = []
    for own in group(rows):
        same = sum(other[0].data_set == own[0].data_set for other in chosen)
        if per_source is None or same < per_source:
            chosen.append(own)
        if len(chosen) == count:
            break
    return chosen


def examine(
    case, clicks: list[ClickRow], method: NetworkMethod, folder: Path, number: int
) -> tuple[ClickRow, Facts, Path]:
    """Do the structure's typical click (nearest to its mean Dice) again, measure it, and draw it.

    Raises:
        SamuError: the model's answer is not what the results say.
    """
    from samu_core.evaluation.slices import MASK, TRUTH, picture, write_png

    row = min(clicks, key=lambda each: (abs(each.dice - mean_dice(clicks)), each.click))
    patch, target = repeat_click(case, row)
    mask = method(patch)
    facts = measure(patch, target, mask, float(np.std([each.dice for each in clicks])))
    if abs(facts.dice - row.dice) > OTHER_MODEL:
        raise SamuError(
            f"this model's Dice on {row.volume} {row.structure} is {facts.dice:.3f}, but the results say "
            f"{row.dice:.3f}: name with --model the one that was evaluated."
        )
    name = re.sub(r"[^a-z0-9]+", "-", f"{row.volume}-{row.structure}".lower()).strip("-")
    path = folder / f"{number:02d}-{name}.png"
    box, click = view_box(patch.click_kji, mask | target.part)
    outlines = [(mask[box], MASK), (target.part[box], TRUTH)]
    zoom = max(2, PICTURE_SIZE // max(patch.raw[box].shape))
    write_png(path, picture(patch.raw[box], click, outlines, zoom, window_of(patch)))
    return row, facts, path


def view_box(click_kji, shown: np.ndarray) -> tuple[tuple[slice, ...], np.ndarray]:
    """The cube around the click that holds what is shown, cut to the patch, and the click in it."""
    voxel = np.floor(np.asarray(click_kji) + 0.5).astype(int)
    reach = np.abs(np.argwhere(shown) - voxel).max(initial=0) + VIEW_MARGIN
    half = max(int(reach), LEAST_VIEW)
    box = tuple(slice(max(v - half, 0), min(v + half + 1, n)) for v, n in zip(voxel, shown.shape))
    return box, np.asarray(click_kji) - [part.start for part in box]


def window_of(patch: ClickPatch) -> tuple[float, float] | None:
    """Black and white in the image's values: as radiologists look at CT; None: by percentiles."""
    from samu_core.demo.render import BONE_WINDOW_HU, LUNG_WINDOW_HU, SOFT_WINDOW_HU

    if patch.modality != "CT":
        return None
    k, j, i = (int(np.clip(np.floor(c + 0.5), 0, n - 1)) for c, n in zip(patch.click_kji, patch.raw.shape))
    value = patch.raw[k, j, i]
    return LUNG_WINDOW_HU if value < -400 else BONE_WINDOW_HU if value > 450 else SOFT_WINDOW_HU


def repeat_click(case, row: ClickRow) -> tuple[ClickPatch, Target]:
    """The patch and the target of a click from its place in the results."""
    from samu_core.evaluation.cases import Click, find_structures
    from samu_core.evaluation.protocol import one_click, read_case

    image, labels = read_case(case)
    found = find_structures(case, labels.array, image.geometry.spacing, only={row.label})
    position = image.geometry.point_to_ijk((row.r, row.a, row.s))[::-1]
    voxel = tuple(int(v) for v in np.floor(np.asarray(position) + 0.5))
    inside = found and all(s.start <= v < s.stop for v, s in zip(voxel, found[0].box))
    if not inside or found[0].part_at(voxel) < 1:
        raise SamuError(
            f"the click in {row.volume} {row.structure} misses it: these are not the data evaluated."
        )
    click = Click(row.click, voxel, tuple(float(p) for p in position), found[0].part_at(voxel))
    return one_click(image, found[0], click)


def measure(patch: ClickPatch, target: Target, mask: np.ndarray, click_sd: float) -> Facts:
    """The facts of one click."""
    from scipy import ndimage

    from samu_core.evaluation.metrics import dice

    truth, values = target.part, patch.normalized
    both = np.count_nonzero(mask & truth)
    spread = float(values[patch.inside].std()) or 1.0
    rim = ndimage.binary_dilation(truth, iterations=RIM) & ~truth & patch.inside
    apart = abs(values[truth].mean() - values[rim].mean()) if rim.any() else 0.0
    volume = float(np.prod(target.geometry.spacing)) * np.count_nonzero(target.native_part())
    return Facts(
        dice=dice(mask, truth),
        precision=both / max(np.count_nonzero(mask), 1),
        recall=both / max(np.count_nonzero(truth), 1),
        target_voxels=int(np.count_nonzero(truth)),
        mask_voxels=int(np.count_nonzero(mask)),
        contrast=float(apart) / spread,
        spread=float(values[truth].std()) / spread,
        depth=float(ndimage.distance_transform_edt(np.pad(truth, 1)).max()),
        kept=min(1.0, np.count_nonzero(truth) * patch.spacing**3 / max(volume, 1e-9)),
        click_sd=click_sd,
    )


def explain(facts: Facts) -> str:
    """One sentence: what came out, and what goes along with it."""
    factor = facts.mask_voxels / max(facts.target_voxels, 1)
    if facts.mask_voxels == 0:
        outcome = "The mask is empty"
    elif factor >= LARGER:
        outcome = f"The mask is {factor:.1f} times as large as the target and holds {facts.recall:.0%} of it"
    elif factor <= SMALLER:
        outcome = f"The mask has {factor:.0%} of the target's size, {facts.precision:.0%} of it inside"
    else:
        outcome = f"The mask has about the target's size, but {1 - facts.precision:.0%} of it lies elsewhere"
    reasons = []
    if facts.contrast < FAINT_SD:
        reasons.append(f"differs from its rim by {facts.contrast:.2f} SD of the patch only")
    if facts.spread > UNEVEN_SD:
        reasons.append(f"is uneven itself (SD {facts.spread:.1f} of the patch's)")
    if facts.target_voxels < SMALL_VOXELS:
        reasons.append(f"has {facts.target_voxels} voxels of the patch only")
    if facts.depth <= THIN_VOXELS:
        reasons.append(f"is thin (no voxel deeper than {facts.depth:.1f})")
    if facts.kept < CUT_SHARE:
        reasons.append(f"is cut by the patch, which holds {facts.kept:.0%} of it")
    parts = [outcome]
    if reasons:
        parts.append("the target " + (", ".join(reasons[:-1]) + " and " if reasons[1:] else "") + reasons[-1])
    else:
        parts.append(f"the target stands out by {facts.contrast:.2f} SD, and no measured fact explains it")
    if facts.click_sd > UNSTEADY_SD:
        parts.append(f"much depends on the click (SD of Dice {facts.click_sd:.2f})")
    return "; ".join(parts) + "."


def _entry(number, clicks, row, facts, picture) -> str:
    dices = ", ".join(f"{each.dice:.2f}" for each in clicks)
    return (
        f"## {number}. {row.structure} in {row.volume}: Dice {mean_dice(clicks):.3f}\n\n"
        f"![three slices through the click]({picture.as_posix()})\n\n"
        f"{row.data_set}, {row.modality}, {row.group}; Dice per click {dices}; shown: {facts.dice:.2f}. "
        f"Target {facts.target_voxels:,} voxels of the patch, mask {facts.mask_voxels:,}; contrast to the "
        f"rim {facts.contrast:.2f} SD of the patch.\n\n{explain(facts)}\n"
    )


def _document(args, record, structures, entries) -> str:
    model = f" --model {args.model.as_posix()}" if args.model else ""
    few = f" --per-source {args.per_source}" if args.per_source else ""
    checksum = record.get("weights_sha256") or "unknown"
    return (
        "# Failures: the worst visible structures\n\n"
        f"The {len(entries)} structures with the lowest mean Dice over their clicks, of {structures} "
        "evaluated. Truth is blue, the mask orange, the click pink; axial, coronal and sagittal slice of the "
        "patch. The sentences are put together from measured facts: they tell what goes along with a "
        "failure, which need not be its cause.\n\n"
        f"Weights with SHA-256 `{checksum}`, evaluated on {record['date']}:\n\n"
        f"    {record['command']}\n"
        f"    samu failures --data DIR --split {args.split} --results {args.results.as_posix()}{model}"
        f"{few} --count {args.count} --out {args.out.as_posix()}\n\n" + "\n".join(entries)
    )
