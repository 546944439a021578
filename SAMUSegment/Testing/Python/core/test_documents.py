"""What the documents promise: quoted messages exist, Python snippets run."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

REPOSITORY = Path(__file__).resolve().parents[4]
GUIDE = REPOSITORY / "docs" / "user-guide.md"


def python_blocks(document):
    return re.findall(r"^```python\n(.*?)^```", document.read_text(encoding="utf-8"), re.M | re.S)


@functools.cache
def said_by_the_code():
    """Every string constant of the code that users run, f-strings with dots for their values."""
    texts = set()
    folders = (REPOSITORY / "samu_core", REPOSITORY / "SAMUSegment" / "SAMUSegmentLib")
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                texts.add("".join(p.value if isinstance(p, ast.Constant) else "…" for p in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add(node.value)
    return texts


def quoted_messages():
    section = GUIDE.read_text(encoding="utf-8").split("## Messages")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| .+\|$", section, re.M)
    return [row for row in rows if row != "Message"]


def parts_of(message):
    return [part.strip() for part in message.split("…") if part.strip(" .")]


def test_messages_are_quoted():
    assert len(quoted_messages()) > 15


@pytest.mark.parametrize("message", quoted_messages())
def test_quoted_messages_are_those_of_the_code(message):
    for text in said_by_the_code():
        place = 0
        for part in parts_of(message):
            place = text.find(part, place)
            if place < 0:
                break
            place += len(part)
        else:
            return
    raise AssertionError(f"no message of the code reads: {message}")


def test_the_readme_s_snippet_runs(tmp_path, monkeypatch):
    from stand_in import StandInPredictor

    from samu_core import predictor

    (block,) = python_blocks(REPOSITORY / "README.md")
    point = [float(n) for n in re.search(r"\(volume, \(([^)]*)\)\)", block).group(1).split(",")]
    array = np.zeros((24, 30, 28), np.int16)
    array[6:16, 8:20, 8:20] = 400
    image = sitk.GetImageFromArray(array)
    # RAS to LPS: the click falls on voxel (14, 14, 11).
    image.SetOrigin((-point[0] - 14, -point[1] - 14, point[2] - 11))
    sitk.WriteImage(image, str(tmp_path / "ct.nii.gz"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(predictor, "Predictor", StandInPredictor)
    names = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["mask"].shape == array.shape
    assert names["mask"][11, 14, 14] == 1 and names["mask"][0, 0, 0] == 0


def test_the_labels_of_the_panel_are_quoted_rightly():
    guide = GUIDE.read_text(encoding="utf-8")
    section = guide.split("## First click")[1].split("\n## ")[0]
    labels = set(re.findall(r"\*\*([^*]+)\*\*", section))
    assert len(labels) > 8
    ui = (REPOSITORY / "SAMUSegment" / "Resources" / "UI" / "SAMUSegment.ui").read_text(encoding="utf-8")
    shown = set(re.findall(r"<string>([^<]*)</string>", ui)) | said_by_the_code()
    assert labels <= shown
