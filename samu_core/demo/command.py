"""`samu demo`: click structures, write segmentations and a picture, print Dice and milliseconds."""

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

CLICK_COLOR = (1.0, 0.616, 0.18)


@dataclass
class Target:
    """One click to make, and what is known of the answer: `truth` is a (K, J, I) mask or None."""

    name: str
    point_ras: np.ndarray
    color: tuple[float, float, float]
    truth: np.ndarray | None = None


@dataclass
class Result:
    """A click made: `mask` is (K, J, I) uint8 on the image's grid."""

    target: Target
    prediction: Prediction
    mask: np.ndarray
    seconds: float

    @property
    def dice(self) -> float | None:
        """Overlap with the truth, if that is known."""
        return None if self.target.truth is None else dice(self.mask, self.target.truth)


def dice(mask: np.ndarray, truth: np.ndarray) -> float:
    """2 |A and B| / (|A| + |B|) of two masks of one shape; 1 if both are empty."""
    mask, truth = mask != 0, truth != 0
    total = np.count_nonzero(mask) + np.count_nonzero(truth)
    return 2 * np.count_nonzero(mask & truth) / total if total else 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `samu demo`."""
    parser.add_argument("image", nargs="?", type=Path, metavar="IMAGE", help="default: a CT-like phantom")
    common.add_click_arguments(parser)
    parser.add_argument("-o", "--output", type=Path, default=Path("demo-output"), metavar="FOLDER")
    parser.add_argument("--threshold", type=common.probability, default=0.5, help="probability, default 0.5")
    parser.add_argument("--spacing", type=common.patch_spacing, default=1.5, metavar="MM")
    common.add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Make or read the image, click, write, print."""
    # First of all, so that no work is lost when the picture cannot be drawn.
    import matplotlib  # noqa: F401

    start = time.perf_counter()
    if args.image is not None:
        outputs.refuse_input(args.output / f"{outputs.stem(args.image)}{outputs.SEGMENTATION}", args.image)
    volume, targets = load(args)
    predictor = common.make_predictor(args)
    common.report(f"Loading the network ({predictor.description})")
    predictor.warm_up()
    results = [click(volume, target, predictor, args) for target in targets]
    name = "phantom" if args.image is None else outputs.stem(args.image)
    paths = write(args.output, name, volume, results)
    print(table_of(results))
    print()
    for path in paths:
        print(f"wrote {path}")
    common.report(f"Done in {time.perf_counter() - start:.0f} s")
    return 0


def load(args: argparse.Namespace) -> tuple[Volume, list[Target]]:
    """The user's image with the user's points, or the phantom with its own."""
    if args.image is None:
        if args.clicks:
            raise SamuError("points need an image: samu demo IMAGE --point R A S (make demo IMAGE=...)")
        from samu_core.demo import phantom as phantoms

        common.report("Making the phantom")
        phantom = phantoms.make_phantom()
        return phantom.volume, [
            Target(s.name, np.array(s.click_ras), s.color, phantom.labels == s.label)
            for s in phantom.structures
        ]
    if not args.clicks:
        raise SamuError('give a point in the image: --point R A S (make demo IMAGE=... POINT="r a s")')
    from samu_core.io import read_volume

    common.report(f"Reading {args.image}")
    volume = read_volume(args.image)
    for note in volume.notes:
        common.warn(note)
    targets = []
    for n, (kind, numbers) in enumerate(args.clicks):
        point = volume.geometry.ijk_to_point(numbers) if kind == "ijk" else np.array(numbers)
        targets.append(Target(f"click {n + 1}", volume.require_inside(point), CLICK_COLOR))
    return volume, targets


def click(volume: Volume, target: Target, predictor: Predictor, args: argparse.Namespace) -> Result:
    """One click through the real pipeline, timed from the point to the mask on the image's grid."""
    start = time.perf_counter()
    prediction = predictor.predict(volume, target.point_ras, spacing=args.spacing)
    region = prediction.mask(volume.geometry, threshold=args.threshold)
    seconds = time.perf_counter() - start
    if region.empty:
        common.warn(f"{target.name}: nothing was found there")
    common.report(f"Clicked {target.name}: {seconds * 1000:.0f} ms")
    return Result(target, prediction, region.full(volume.geometry), seconds)


def write(folder: Path, name: str, volume: Volume, results: list[Result]) -> list[Path]:
    """The segmentation, the picture, and of a phantom also the image and the truth."""
    from samu_core.demo.render import render

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.seg.nrrd"]
    write_segments(paths[0], volume, results, [result.mask for result in results])
    if results[0].target.truth is not None:
        paths += [folder / f"{name}-truth.seg.nrrd", folder / f"{name}.nrrd"]
        write_segments(paths[1], volume, results, [result.target.truth for result in results])
        write_image(paths[2], volume)
    paths.append(folder / f"{name}.png")
    panels = [panel_of(result) for result in results]
    last = results[-1].prediction
    heading = f"{name}: one click each, {last.device}, {last.precision}"
    render(paths[-1], volume, panels, heading)
    return paths


def write_segments(path: Path, volume: Volume, results: list[Result], masks: list[np.ndarray]) -> None:
    """One segment per result. Where masks overlap, the smaller one shows: it is the one inside."""
    from samu_core.io import Segment, write_seg_nrrd

    labels = np.zeros(volume.geometry.shape_kji, np.uint8 if len(masks) < 256 else np.uint16)
    for n in sorted(range(len(masks)), key=lambda n: -np.count_nonzero(masks[n])):
        labels[masks[n] != 0] = n + 1
    segments = [Segment(r.target.name, r.target.color, n + 1) for n, r in enumerate(results)]
    write_seg_nrrd(path, labels, volume.geometry, segments)


def write_image(path: Path, volume: Volume) -> None:
    """The phantom itself, for whoever wants to click it in Slicer."""
    from samu_core.io import write_labelmap

    write_labelmap(path, volume.array, volume.geometry)


def panel_of(result: Result):
    """The row of the picture that shows a result."""
    from samu_core.demo.render import Panel

    score = "" if result.dice is None else f"\nDice {result.dice:.3f}"
    title = f"{result.target.name}{score}\n{result.seconds * 1000:.0f} ms"
    return Panel(title, result.prediction, result.mask, result.target.truth)


def table_of(results: list[Result]) -> str:
    """Markdown: a row per click, and the means."""
    rows = []
    for result in results:
        where = " ".join(f"{value:.0f}" for value in result.target.point_ras)
        score = "" if result.dice is None else f"{result.dice:.3f}"
        voxels = str(np.count_nonzero(result.mask))
        rows.append([result.target.name, where, voxels, score, f"{result.seconds * 1000:.0f}"])
    scores = [result.dice for result in results if result.dice is not None]
    mean = f"{np.mean(scores):.3f}" if scores else ""
    rows.append(["mean (ms: median)", "", "", mean, f"{np.median([r.seconds for r in results]) * 1000:.0f}"])
    return common.table(rows, ["structure", "click RAS", "voxels", "Dice", "ms"])
