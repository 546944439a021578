"""`samu segment`: points in an image -> a Slicer segmentation or a label map on the image's own grid."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from samu_core.commands import common, outputs, painting
from samu_core.errors import SamuError

if TYPE_CHECKING:
    from samu_core.geometry import Volume


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
    painting.add_mask_arguments(parser)
    group = parser.add_argument_group("segments", "one value per point, in the order of the points")
    group.add_argument("--names", nargs="+", metavar="NAME")
    group.add_argument("--labels", nargs="+", type=int, metavar="N", help="label values (default 1, 2, ...)")
    group.add_argument("--colors", nargs="+", metavar="#RRGGBB")
    common.add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Segment, write, and print a table. Nothing is written unless every point could be segmented."""
    check_counts(args)
    output = args.output or outputs.default_output(args.image)
    outputs.check_output(output, args.image, args.force)
    common.report(f"Reading {args.image}")
    volume = painting.read_image(args.image)
    clicks = read_clicks(args, volume)
    predictor = common.make_predictor(args)
    common.report(f"Loading the network ({predictor.description})")
    labels = painting.LabelMap(volume, max(click.label for click in clicks), args.overwrite)
    for n, click in enumerate(clicks):
        painting.announce(click, n + 1, len(clicks))
        labels.add(click, predictor)
    if not labels.found_any:
        raise SamuError(
            "nothing was found at the given points, so nothing is written; try a lower --threshold"
        )
    common.report(f"Writing {output}")
    labels.write(output)
    print(table_of(labels))
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
    if min(labels) < 1 or max(labels) > painting.LARGEST_LABEL or len(set(labels)) < count:
        raise SamuError(f"the label values must be distinct and from 1 to {painting.LARGEST_LABEL}")
    for color in args.colors or ():
        painting.parse_color(color)


def read_clicks(args: argparse.Namespace, volume: Volume) -> list[painting.Click]:
    """The points in RAS, all checked to lie in the volume, with name, label and colour."""
    clicks = []
    for n, (kind, numbers) in enumerate(args.clicks):
        clicks.append(
            painting.Click(
                point_ras=painting.point_in(volume, kind, numbers),
                name=args.names[n] if args.names else painting.default_name(n + 1),
                label=args.labels[n] if args.labels else n + 1,
                color=painting.parse_color(args.colors[n] if args.colors else painting.default_color(n)),
                threshold=args.threshold,
                spacing=args.spacing,
            )
        )
    return clicks


def table_of(labels: painting.LabelMap) -> str:
    """One row per segment, counted in the finished label map: a later point may have taken voxels."""
    rows = []
    for outcome in labels.outcomes:
        voxels, ml = labels.size_of(outcome.click)
        figures = [f"{ml:.2f}", f"{outcome.seconds * 1000:.0f}", f"{outcome.expected_iou:.2f}"]
        rows.append([outcome.click.name, str(outcome.click.label), str(voxels), *figures])
    return common.table(rows, ["segment", "label", "voxels", "ml", "ms", "expected overlap"])
