"""`samu segment`: points in an image -> a Slicer segmentation or a label map on the image's own grid."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from samu_core.commands import common, outputs
from samu_core.errors import SamuError

if TYPE_CHECKING:
    from samu_core.geometry import Volume
    from samu_core.prediction import Prediction
    from samu_core.predictor import Predictor

# Told apart by people with any colour vision (after Okabe and Ito), then repeated.
COLORS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
LARGEST_LABEL = np.iinfo(np.uint16).max


@dataclass
class Click:
    """One point of the command line and the segment it makes."""

    point_ras: np.ndarray
    name: str
    label: int
    color: tuple[float, float, float]


@dataclass
class Outcome:
    """What one click gave; `found` is false for an empty mask."""

    click: Click
    seconds: float
    found: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `samu segment`."""
    parser.add_argument("image", type=Path, metavar="IMAGE", help="NIfTI, NRRD, MHA or a DICOM folder")
    common.add_click_arguments(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="OUT",
        help="NAME.seg.nrrd, or a label map: .nii.gz, .nii, .nrrd, .mha (default: IMAGE's name + .seg.nrrd)",
    )
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    parser.add_argument("--threshold", type=common.probability, default=0.5, help="probability, default 0.5")
    parser.add_argument(
        "--spacing",
        type=common.patch_spacing,
        default=1.5,
        metavar="MM",
        help="voxel size of the 128-voxel field of view, or native (default 1.5: 192 mm)",
    )
    group = parser.add_argument_group("segments", "one value per point, in the order of the points")
    group.add_argument("--names", nargs="+", metavar="NAME")
    group.add_argument("--labels", nargs="+", type=int, metavar="N", help="label values (default 1, 2, ...)")
    group.add_argument("--colors", nargs="+", metavar="#RRGGBB")
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="give a voxel of several segments to the last of them; by default the first keeps it",
    )
    common.add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Segment, write, and print a table. Nothing is written unless every point could be segmented."""
    from samu_core.io import read_volume

    check_counts(args)
    output = args.output or outputs.default_output(args.image)
    outputs.check_output(output, args.image, args.force)
    common.report(f"Reading {args.image}")
    volume = read_volume(args.image)
    for note in volume.notes:
        common.warn(note)
    clicks = read_clicks(args, volume)
    predictor = common.make_predictor(args)
    common.report(f"Loading the network ({predictor.description})")
    labels, outcomes = segment(volume, clicks, predictor, args)
    if not any(outcome.found for outcome in outcomes):
        raise SamuError(
            "nothing was found at the given points, so nothing is written; try a lower --threshold"
        )
    common.report(f"Writing {output}")
    write(output, labels, volume, clicks)
    print(table_of(outcomes, labels, volume))
    return 0


def check_counts(args: argparse.Namespace) -> None:
    """Complain about what the command line alone gets wrong, before the image is read."""
    count = len(args.clicks or [])
    if not count:
        raise SamuError("give at least one point: --point R A S (millimetres) or --ijk I J K (voxels)")
    for option in ("names", "labels", "colors"):
        values = getattr(args, option)
        if values is not None and len(values) != count:
            raise SamuError(f"--{option} has {len(values)} values for {count} points; give one for each")
    labels = args.labels or range(1, count + 1)
    if min(labels) < 1 or max(labels) > LARGEST_LABEL or len(set(labels)) < count:
        raise SamuError(f"the label values must be distinct and from 1 to {LARGEST_LABEL}")
    for color in args.colors or ():
        parse_color(color)


def parse_color(text: str) -> tuple[float, float, float]:
    """'#rrggbb' as three numbers from 0 to 1."""
    digits = text.lstrip("#")
    try:
        if len(digits) != 6:
            raise ValueError
        return tuple(int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4))
    except ValueError:
        raise SamuError(f"{text!r} is not a colour; write #RRGGBB, as in #e69f00") from None


def read_clicks(args: argparse.Namespace, volume: Volume) -> list[Click]:
    """The points in RAS, all checked to lie in the volume, with name, label and colour."""
    clicks = []
    for n, (kind, numbers) in enumerate(args.clicks):
        point = volume.geometry.ijk_to_point(numbers) if kind == "ijk" else np.array(numbers)
        name = args.names[n] if args.names else f"Segment_{n + 1}"
        label = args.labels[n] if args.labels else n + 1
        color = parse_color(args.colors[n] if args.colors else COLORS[n % len(COLORS)])
        clicks.append(Click(volume.require_inside(point), name, label, color))
    return clicks


def segment(
    volume: Volume, clicks: list[Click], predictor: Predictor, args: argparse.Namespace
) -> tuple[np.ndarray, list[Outcome]]:
    """Label map (K, J, I) of all clicks on the volume's grid, and what each click gave."""
    largest = max(click.label for click in clicks)
    labels = np.zeros(volume.geometry.shape_kji, np.uint8 if largest < 256 else np.uint16)
    outcomes = []
    for n, click in enumerate(clicks):
        where = ", ".join(f"{value:.1f}" for value in click.point_ras)
        common.report(f"Point {n + 1} of {len(clicks)}: {click.name} at RAS {where}")
        start = time.perf_counter()
        prediction = predictor.predict(volume, click.point_ras, spacing=args.spacing)
        found, painted = paint(labels, prediction, volume, click.label, args)
        outcomes.append(Outcome(click, time.perf_counter() - start, found > 0))
        advise(click, found, painted, prediction, args)
    return labels, outcomes


def paint(
    labels: np.ndarray, prediction: Prediction, volume: Volume, label: int, args: argparse.Namespace
) -> tuple[int, int]:
    """Write one prediction's mask into the label map; returns the mask's voxels and those it got."""
    region = prediction.mask(volume.geometry, threshold=args.threshold)
    if region.empty:
        return 0, 0
    i0, i1, j0, j1, k0, k1 = region.extent
    box = labels[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1]
    mask = region.array.astype(bool)
    found = int(np.count_nonzero(mask))
    if not args.overwrite:
        mask &= box == 0
    box[mask] = label
    return found, int(np.count_nonzero(mask))


def advise(click: Click, found: int, painted: int, prediction: Prediction, args: argparse.Namespace) -> None:
    """Warn of what the numbers alone would not show."""
    if not found:
        common.warn(f"{click.name}: nothing was found there; try a lower --threshold or another point")
    elif not painted:
        common.warn(f"{click.name} lies wholly in earlier segments and stays empty; try --overwrite")
    elif prediction.touches_border(args.threshold):
        edge = prediction.grid.size * prediction.grid.spacing
        common.warn(
            f"{click.name} reaches the edge of the field of view of {edge:.0f} mm and may be cut there; "
            f"try --spacing {prediction.grid.spacing * 1.5:g}"
        )


def write(output: Path, labels: np.ndarray, volume: Volume, clicks: list[Click]) -> None:
    """Whole or not at all; the format follows from the name."""
    from samu_core.io import Segment, write_labelmap, write_seg_nrrd

    if outputs.is_segmentation(output):
        segments = [Segment(name=click.name, color=click.color, label_value=click.label) for click in clicks]
        write_seg_nrrd(output, labels, volume.geometry, segments)
    else:
        write_labelmap(output, labels, volume.geometry)


def table_of(outcomes: list[Outcome], labels: np.ndarray, volume: Volume) -> str:
    """One row per segment, counted in the finished label map: a later point may have taken voxels."""
    voxel_ml = abs(np.linalg.det(volume.geometry.ijk_to_ras[:3, :3])) / 1000
    rows = []
    for outcome in outcomes:
        voxels = int(np.count_nonzero(labels == outcome.click.label))
        volume_ml, milliseconds = f"{voxels * voxel_ml:.2f}", f"{outcome.seconds * 1000:.0f}"
        rows.append([outcome.click.name, str(outcome.click.label), str(voxels), volume_ml, milliseconds])
    return common.table(rows, ["segment", "label", "voxels", "ml", "ms"])
