"""Fixtures of the MRML layer: a real scene from slicer-core, and no VTK error goes unnoticed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[3]
for folder in (HERE, REPOSITORY / "SAMUSegment", REPOSITORY):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

pytest.importorskip("slicer", reason="the MRML tests need slicer-core: pip install -e .[slicer]")

import vtk  # noqa: E402
from mrml_scene import MrmlScene, StandInPredictor  # noqa: E402

# Said by the Segment Editor's engine wherever Slicer's Qt plugins are missing.
HARMLESS = "Subject hierarchy items not found"


@pytest.fixture(autouse=True)
def vtkMessages():
    """Fail the test on any error or warning that VTK or Slicer wrote, thrown or not."""
    window, previous = vtk.vtkStringOutputWindow(), vtk.vtkOutputWindow.GetInstance()
    vtk.vtkOutputWindow.SetInstance(window)
    yield window
    vtk.vtkOutputWindow.SetInstance(previous)
    blocks = [text.strip() for text in window.GetOutput().split("\n\n") if text.strip()]
    unexpected = [text for text in blocks if HARMLESS not in text]
    assert not unexpected, "VTK reported:\n" + "\n\n".join(unexpected)


@pytest.fixture
def mrml():
    """A scene as Slicer has it, with helpers that make volumes, segmentations and transforms."""
    scene = MrmlScene()
    yield scene
    scene.close()


@pytest.fixture
def predictor():
    """Predicts a ball of 12 mm radius around the click, with analytically known logits."""
    return StandInPredictor()
