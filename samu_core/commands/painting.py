"""Clicks into a label map on the image's own grid, and the file that it becomes.

What `samu segment` and `samu batch` share.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
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
    """One point and the segment it makes.

    Attributes:
        point_ras: (3,) RAS mm, inside the image.
        name: of the segment.
        label: its value in the label map, 1 to 65535.
        color: (r, g, b) from 0 to 1.
        threshold: probability from which a voxel belongs to the structure.
        spacing: patch spacing in mm, or "native".
    """

    point_ras: np.ndarray
    name: str
    label: int
    color: tuple[float, float, float]
    threshold: float = 0.5
    spacing: float | str = 1.5


@dataclass
class Outcome:
    """What one click gave; `found` is false for an empty mask; `expected_iou`: see `samu_core.candidates`."""

    click: Click
    seconds: float
    found: bool
    expected_iou: float


def add_mask_arguments(parser: argparse.ArgumentParser) -> None:
    """--threshold, --spacing and --overwrite."""
    parser.add_argument("--threshold", type=common.probability, default=0.5, help="probability, default 0.5")
    parser.add_argument(
        "--spacing",
        type=common.patch_spacing,
        default=1.5,
        metavar="MM",
        help="voxel size of the 128-voxel field of view, or native (default 1.5: 192 mm)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="give a voxel of several segments to the last of them; by default the first keeps it",
    )


def default_name(label: int) -> str:
    """What a segment without a name is called."""
    return f"Segment_{label}"


def default_color(number: int) -> str:
    """'#rrggbb' of the segment with this number, counted from 0."""
    return COLORS[number % len(COLORS)]


def parse_color(text: str) -> tuple[float, float, float]:
    """'#rrggbb' as three numbers from 0 to 1."""
    digits = text.lstrip("#")
    try:
        if len(digits) != 6:
            raise ValueError
        return tuple(int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4))
    except ValueError:
        raise SamuError(f"{text!r} is not a colour; write #RRGGBB, as in #e69f00") from None


def point_in(volume: Volume, kind: str, numbers: Sequence[float]) -> np.ndarray:
    """A point given as RAS mm or as a voxel index (kind "ijk"), in RAS mm and checked.

    Raises:
        PointOutsideVolumeError: it is not in the volume.
    """
    point = volume.geometry.ijk_to_point(numbers) if kind == "ijk" else np.array(numbers)
    return volume.require_inside(point)


def read_image(path: Path) -> Volume:
    """The image, with what is odd about it said as warnings."""
    from samu_core.io import read_volume

    volume = read_volume(path)
    for note in volume.notes:
        common.warn(note)
    return volume


class LabelMap:
    """A label map on a volume's grid, filled click by click.

    A click that fails leaves the map as it was.

    Args:
        volume: the image.
        largest_label: of all clicks to come; decides between 8 and 16 bits.
        overwrite: give a voxel of several segments to the last of them; otherwise the first keeps it.
    """

    def __init__(self, volume: Volume, largest_label: int, overwrite: bool):
        self.volume = volume
        self.overwrite = overwrite
        dtype = np.uint8 if largest_label <= np.iinfo(np.uint8).max else np.uint16
        self.labels = np.zeros(volume.geometry.shape_kji, dtype)
        self.outcomes: list[Outcome] = []

    @property
    def found_any(self) -> bool:
        """Whether any click so far found something."""
        return any(outcome.found for outcome in self.outcomes)

    def add(self, click: Click, predictor: Predictor) -> Outcome:
        """Segment at one click and paint the result; warns of what the numbers would not show."""
        from samu_core.candidates import expected_iou

        start = time.perf_counter()
        prediction = predictor.predict(self.volume, click.point_ras, spacing=click.spacing)
        found, painted = self._paint(prediction, click)
        seconds = time.perf_counter() - start
        outcome = Outcome(click, seconds, found > 0, expected_iou(prediction, click.threshold))
        self.outcomes.append(outcome)
        _advise(click, found, painted, prediction)
        return outcome

    def _paint(self, prediction: Prediction, click: Click) -> tuple[int, int]:
        """Voxels of the mask, and how many of them it got."""
        region = prediction.mask(self.volume.geometry, threshold=click.threshold)
        if region.empty:
            return 0, 0
        i0, i1, j0, j1, k0, k1 = region.extent
        box = self.labels[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1]
        mask = region.array.astype(bool)
        found = int(np.count_nonzero(mask))
        if not self.overwrite:
            mask &= box == 0
        box[mask] = click.label
        return found, int(np.count_nonzero(mask))

    def size_of(self, click: Click) -> tuple[int, float]:
        """Voxels and millilitres of a segment in the map as it is: a later click may have taken some."""
        voxels = int(np.count_nonzero(self.labels == click.label))
        voxel_ml = abs(np.linalg.det(self.volume.geometry.ijk_to_ras[:3, :3])) / 1000
        return voxels, voxels * voxel_ml

    def write(self, output: Path) -> None:
        """Whole or not at all; the format follows from the name. One segment per click, empty ones too."""
        from samu_core.io import Segment, write_labelmap, write_seg_nrrd

        if outputs.is_segmentation(output):
            clicks = [outcome.click for outcome in self.outcomes]
            segments = [Segment(name=c.name, color=c.color, label_value=c.label) for c in clicks]
            write_seg_nrrd(output, self.labels, self.volume.geometry, segments)
        else:
            write_labelmap(output, self.labels, self.volume.geometry)


def announce(click: Click, number: int, count: int) -> None:
    """The progress line of a click."""
    where = ", ".join(f"{value:.1f}" for value in click.point_ras)
    common.report(f"Point {number} of {count}: {click.name} at RAS {where}")


def _advise(click: Click, found: int, painted: int, prediction: Prediction) -> None:
    if not found:
        common.warn(f"{click.name}: nothing was found there; try a lower --threshold or another point")
    elif not painted:
        common.warn(f"{click.name} lies wholly in earlier segments and stays empty; try --overwrite")
    elif prediction.touches_border(click.threshold):
        edge = prediction.grid.size * prediction.grid.spacing
        common.warn(
            f"{click.name} reaches the edge of the field of view of {edge:.0f} mm and may be cut there; "
            f"try --spacing {prediction.asked_spacing * 1.5:g}"
        )
