"""tools/draw_screenshots.py: Slicer's views draw what clicks did."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from gui_fakes import MODULE_FOLDER
from mrml_scene import StandInPredictor

from samu_core.demo.phantom import make_phantom

TOOLS = MODULE_FOLDER.parent / "tools"
RADIUS_MM = 24.0

# Without OpenGL, drawing may end the process: another one tries first.
TRIAL = """
import vtk
window = vtk.vtkRenderWindow()
window.SetOffScreenRendering(1)
window.AddRenderer(vtk.vtkRenderer())
window.Render()
"""


@pytest.fixture(scope="module", autouse=True)
def drawing():
    """Off-screen OpenGL, or no test; on Linux without a screen by way of EGL, without a warning about X."""
    with pytest.MonkeyPatch.context() as patch:
        if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
            patch.setenv("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
        trial = subprocess.run([sys.executable, "-c", TRIAL], capture_output=True, check=False)
        if trial.returncode != 0:
            pytest.skip("no off-screen OpenGL here (on Linux: libegl1, libgl1)")
        yield


@pytest.fixture(scope="module")
def phantom():
    return make_phantom((4.0, 4.0, 6.0))


@pytest.fixture
def draw(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    import draw_screenshots

    return draw_screenshots


@pytest.fixture
def stage(draw, phantom):
    stage = draw.Stage(phantom, StandInPredictor(radius=RADIUS_MM, slope=0.3, size=64))
    yield stage
    stage.close()


def panels(picture, draw, count):
    """The panels of a row, without gaps and bars."""
    width = (picture.shape[1] - draw.GAP * (count - 1)) // count
    return [picture[8:, n * (width + draw.GAP) :][:, :width].astype(int) for n in range(count)]


def amber(panel):
    """Where the right kidney's segment is: tissue is grey, points and captions have other colours."""
    red, green, blue = (panel[..., channel] for channel in range(3))
    return (red - blue > 60) & (red - green > 10) & (green - blue > 20)


def test_a_lower_threshold_shows_a_larger_segment_around_the_click(draw, stage):
    found = [amber(panel) for panel in panels(draw.thresholds(stage), draw, 3)]
    sizes = [int(mask.sum()) for mask in found]
    assert sizes[0] > 1.3 * sizes[1] > 1.5 * sizes[2] > 0
    rows, columns = np.nonzero(found[1])
    millimetre = found[1].shape[1] / 170.0
    # The middle of the view is the click; the bar above it is cut off.
    assert abs(columns.mean() - found[1].shape[1] / 2) < 3 * millimetre
    assert abs(rows.mean() + 8 - 130) < 3 * millimetre
    assert sizes[1] == pytest.approx(np.pi * (RADIUS_MM * millimetre) ** 2, rel=0.2)


def test_subtracting_what_was_added_shows_the_segment_of_before(draw, stage):
    one, two, three = (amber(panel) for panel in panels(draw.editing(stage), draw, 3))
    assert two.sum() > 1.3 * one.sum()
    # A second point lies on top at the end.
    assert np.count_nonzero(one != three) < 0.05 * one.sum()


def test_the_other_pictures_show_segments_in_every_view(draw, stage, phantom):
    four = draw.four_views(stage).astype(int)
    height, width = four.shape[0] // 2, four.shape[1] // 2
    for row in (0, 1):
        for column in (0, 1):
            view = four[row * height :][12:height, column * width :][:, :width]
            colored = view.max(axis=2) - view.min(axis=2) > 60
            assert colored.mean() > 0.01, (row, column)
    other = draw.Stage(phantom, stage.logic.predictor)
    before, after = panels(draw.first_click(other), draw, 2)
    assert amber(after).sum() > 10 * max(amber(before).sum(), 1)
    other.close()
