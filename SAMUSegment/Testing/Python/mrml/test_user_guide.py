"""The user guide's snippets for Slicer's Python console, carried out on a real scene."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import panel_fakes
import pytest
from mrml_scene import StandInPredictor, segmentOnVolume

GUIDE = Path(__file__).resolve().parents[4] / "docs" / "user-guide.md"


@pytest.fixture
def console(mrml, monkeypatch):
    """Names of the console, where the module SAMUSegment can be imported."""
    fakes = panel_fakes.install(monkeypatch, mrml)
    fakes.util.getNode = mrml.scene.GetFirstNodeByName
    from SAMUSegmentLib import runtime

    # All of the image is in the intensity range that the guide sets.
    volume = mrml.volume(np.full((36, 44, 40), 100, np.int16), name="CT")
    markups = mrml.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "F")
    for point in ((8.0, 10.0, 10.0), (30.0, 34.0, 25.0)):
        markups.AddControlPointWorld(point)
    predictor = StandInPredictor(radius=5.0)
    monkeypatch.setattr(runtime, "sharedPredictor", lambda: predictor)
    return {"expectedVolume": volume}


def test_the_snippets_do_what_they_say(console, mrml, capsys):
    """Complaint about the peers: no API."""
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.M | re.S)
    clicks, masks = blocks
    exec(compile(clicks, str(GUIDE), "exec"), console)
    assert "'liver'" in capsys.readouterr().out
    node, volume = console["segmentationNode"], console["volumeNode"]
    assert volume is console["expectedVolume"]
    segmentation = node.GetSegmentation()
    names = [segmentation.GetNthSegment(n).GetName() for n in range(segmentation.GetNumberOfSegments())]
    # Of the two points of the list, the second one's segment was undone.
    assert names[:2] == ["liver", "kidney"] and len(names) == 3
    liver = segmentOnVolume(node, console["segmentID"], volume)
    assert liver[18, 22, 20] and liver[18, 22, 29]
    exec(compile(masks, str(GUIDE), "exec"), console)
    editorNode = console["editorNode"]
    assert editorNode.GetOverwriteMode() == editorNode.OverwriteAllSegments
    assert tuple(editorNode.GetSourceVolumeIntensityMaskRange()) == (-50, 250)
    result = console["logic"].segmentFromPoint(volume, (21.0, 22.0, 18.0), node, mode="new")
    # The new segment took its voxels from the liver.
    assert result.applied and not segmentOnVolume(node, console["segmentID"], volume)[18, 22, 21]
