"""Draws the pictures of the user guide: views of a MRML scene after real clicks, without the application.

    python tools/draw_screenshots.py                 into docs/images, with the bundled network
    python tools/draw_screenshots.py --model FILE    with another one

The image is the phantom of `samu demo`, every click goes through SAMUSegmentLogic as in Slicer, and the
views are drawn by Slicer's own code from the package `slicer-core`. Run it again when the weights change.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
for folder in (ROOT, ROOT / "SAMUSegment", ROOT / "SAMUSegment" / "Testing" / "Python" / "mrml"):
    sys.path.insert(0, str(folder))

from mrml_scene import MrmlScene  # noqa: E402
from mrml_views import SliceView, ThreeDView  # noqa: E402
from SAMUSegmentLib.logic import SAMUSegmentLogic  # noqa: E402
from SAMUSegmentLib.options import FieldOfView  # noqa: E402
from SAMUSegmentLib.outline import PatchOutline  # noqa: E402

from samu_core.demo.phantom import CENTER_RAS, Phantom, make_phantom  # noqa: E402
from samu_core.predictor import Predictor  # noqa: E402

FOLDER = ROOT / "docs" / "images"
WINDOW_HU, LEVEL_HU = 400, 60
# Few colours: the noise of a CT is what makes such pictures large.
COLORS = 256
LIMIT_BYTES = 150_000
BARS = {"Red": (243, 74, 51), "Green": (110, 176, 75), "Yellow": (237, 213, 76), "3D": (119, 119, 209)}
GAP = 4
# Not one of the segments' colours.
POINT_COLOR = (1.0, 0.1, 0.6)
STRUCTURE = "right kidney"
EDITABLE_HU = (130, 300)


class Stage:
    """A scene with the phantom, and clicks in it."""

    def __init__(self, phantom: Phantom, predictor: Any):
        self.phantom, self.mrml = phantom, MrmlScene()
        volume = phantom.volume
        self.volume = self.mrml.volume(volume.array, volume.geometry.ijk_to_ras, name="phantom")
        self.volume.CreateDefaultDisplayNodes()
        self.volume.GetDisplayNode().AutoWindowLevelOff()
        self.volume.GetDisplayNode().SetWindowLevel(WINDOW_HU, LEVEL_HU)
        self.logic = SAMUSegmentLogic(predictor)
        self.segmentation: Any | None = None
        self.points = self.mrml.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "clicks")
        self.points.CreateDefaultDisplayNodes()
        self.points.GetDisplayNode().SetSelectedColor(*POINT_COLOR)

    def structure(self, name: str) -> Any:
        return next(entry for entry in self.phantom.structures if entry.name == name)

    def nearby(self, name: str, pointRAS: Any) -> np.ndarray:
        """The middle of a structure in the axial slice through a point."""
        label, geometry = self.structure(name).label, self.phantom.volume.geometry
        indices = np.argwhere(self.phantom.labels == label)[:, ::-1]
        points = indices @ geometry.ijk_to_ras[:3, :3].T + geometry.ijk_to_ras[:3, 3]
        middle = points[np.abs(points[:, 2] - pointRAS[2]) < 2.0].mean(axis=0)
        return np.array([middle[0], middle[1], pointRAS[2]])

    def click(self, point: Any, name: str = "", color: Any = None, **options: Any) -> Any:
        """One click; shows its point and returns the result."""
        result = self.logic.segmentFromPoint(
            self.volume, point, self.segmentation, segmentName=name or None, **options
        )
        self.mark(point, "-" if options.get("mode") == "subtract" else "+")
        self.segmentation = self.segmentation or result.segmentationNode
        if color is not None and result.segmentID is not None:
            self.segmentation.GetSegmentation().GetSegment(result.segmentID).SetColor(*color)
        print(f"  {name or 'click'}: {result.message}")
        return result

    def mark(self, point: Any, label: str = "+") -> None:
        """Show where a click was."""
        self.points.SetNthControlPointLabel(self.points.AddControlPointWorld(*point), label)

    def red(self, center: Any, size: tuple[int, int], fieldOfViewMm: float) -> SliceView:
        """The axial view through a point."""
        view = SliceView(self.mrml, "Red", self.volume, size, fieldOfViewMm)
        view.center(center)
        return view

    def close(self) -> None:
        self.mrml.close()


def barred(picture: np.ndarray, name: str) -> np.ndarray:
    """The view with the coloured bar that Slicer has above it."""
    bar = np.full((8, picture.shape[1], 3), BARS[name], np.uint8)
    return np.concatenate([bar, picture[8:]])


def beside(pictures: list[np.ndarray], axis: int = 1) -> np.ndarray:
    """Pictures in a row (axis 1) or a column (axis 0), with gaps."""
    parts: list[np.ndarray] = []
    for picture in pictures:
        shape = list(picture.shape)
        shape[axis] = GAP
        parts += [np.full(shape, 255, np.uint8), picture]
    return np.concatenate(parts[1:], axis=axis)


def four_views(stage: Stage) -> np.ndarray:
    """All structures of the phantom, one click each, in the layout that Slicer starts with."""
    for entry in stage.phantom.structures:
        stage.click(entry.click_ras, entry.name, entry.color, mode="new")
    stage.segmentation.CreateClosedSurfaceRepresentation()
    display, size = stage.points.GetDisplayNode(), (420, 300)
    display.SetPointLabelsVisibility(False)
    center, pictures = stage.structure("liver").click_ras, {}
    for name in ("Red", "Green", "Yellow"):
        view = SliceView(stage.mrml, name, stage.volume, size, 380.0)
        middle = np.array(CENTER_RAS)
        axis = {"Red": 2, "Green": 1, "Yellow": 0}[name]
        middle[axis] = center[axis]
        view.center(middle)
        pictures[name] = barred(view.picture(), name)
    display.SetVisibility(False)
    view = ThreeDView(stage.mrml, size)
    view.look(CENTER_RAS, (0.25, 1.0, 0.2), 560.0)
    pictures["3D"] = barred(view.picture(), "3D")
    rows = [beside([pictures["Red"], pictures["3D"]]), beside([pictures["Yellow"], pictures["Green"]])]
    return beside(rows, axis=0)


def first_click(stage: Stage) -> np.ndarray:
    """The point, and the segment with the box of the field of view."""
    entry, pictures = stage.structure(STRUCTURE), []
    center = np.array(CENTER_RAS)
    center[2] = entry.click_ras[2]
    view = stage.red(center, (420, 320), 370.0)
    stage.mark(entry.click_ras)
    view.caption("the click")
    pictures.append(barred(view.picture(), "Red"))
    stage.points.RemoveAllControlPoints()
    result = stage.click(entry.click_ras, entry.name, entry.color)
    outline = PatchOutline()
    outline.show(stage.mrml.scene, result.prediction.grid)
    view.caption(f"its segment, and the field of view ({FieldOfView.STANDARD.label()})")
    pictures.append(barred(view.picture(), "Red"))
    return beside(pictures)


def thresholds(stage: Stage) -> np.ndarray:
    """One click, three thresholds, one inference."""
    entry, pictures = stage.structure(STRUCTURE), []
    view = stage.red(entry.click_ras, (280, 260), 170.0)
    result = stage.click(entry.click_ras, entry.name, entry.color)
    for threshold in (0.2, 0.5, 0.8):
        result = stage.logic.reapplyThreshold(result, threshold)
        view.caption(f"threshold {threshold}")
        pictures.append(barred(view.picture(), "Red"))
    return beside(pictures)


def editing(stage: Stage) -> np.ndarray:
    """A second click that adds, and one that takes the same away."""
    first, pictures = stage.structure(STRUCTURE), []
    second = stage.nearby("aorta", first.click_ras)
    view = stage.red((np.add(first.click_ras, second)) / 2, (280, 260), 190.0)
    result = stage.click(first.click_ras, first.name, first.color)
    view.caption("one click")
    pictures.append(barred(view.picture(), "Red"))
    stage.click(second, segmentID=result.segmentID)
    view.caption("a second one adds")
    pictures.append(barred(view.picture(), "Red"))
    stage.click(second, segmentID=result.segmentID, mode="subtract")
    view.caption("with Ctrl it subtracts")
    pictures.append(barred(view.picture(), "Red"))
    return beside(pictures)


def masks(stage: Stage) -> np.ndarray:
    """The Segment Editor's editable intensity range bounds what a click may write."""
    entry, pictures = stage.structure(STRUCTURE), []
    view = stage.red(entry.click_ras, (280, 260), 170.0)
    stage.click(entry.click_ras, entry.name, entry.color)
    view.caption("everything is editable")
    pictures.append(barred(view.picture(), "Red"))
    stage.logic.undo()
    editorNode = stage.logic.editorNode(stage.mrml.scene)
    editorNode.SourceVolumeIntensityMaskOn()
    editorNode.SetSourceVolumeIntensityMaskRange(*EDITABLE_HU)
    stage.click(entry.click_ras, entry.name, entry.color)
    low, high = EDITABLE_HU
    view.caption(f"editable: {low} to {high} HU")
    pictures.append(barred(view.picture(), "Red"))
    return beside(pictures)


PICTURES = {
    "views-structures.png": four_views,
    "views-first-click.png": first_click,
    "views-threshold.png": thresholds,
    "views-editing.png": editing,
    "views-masks.png": masks,
}


def save(path: Path, picture: np.ndarray) -> None:
    """A PNG of few colours; says so when it is larger than the repository wants it."""
    from PIL import Image

    image = Image.fromarray(picture).quantize(COLORS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    image.save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path}: {picture.shape[1]} x {picture.shape[0]}, {size / 1000:.0f} kB")
    if size > LIMIT_BYTES:
        raise SystemExit(f"{path} is larger than {LIMIT_BYTES / 1000:.0f} kB: fewer colours or pixels")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PICTURES)}; all by default")
    parser.add_argument("-o", "--output", type=Path, default=FOLDER, metavar="FOLDER")
    parser.add_argument("--model", type=Path, help="weights or checkpoint; the bundled ones by default")
    args = parser.parse_args(argv)
    unknown = sorted(set(args.names) - set(PICTURES))
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}")
    predictor, phantom = Predictor(args.model, device="cpu"), make_phantom()
    args.output.mkdir(parents=True, exist_ok=True)
    for name in args.names or PICTURES:
        stage = Stage(phantom, predictor)
        save(args.output / name, PICTURES[name](stage))
        stage.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
