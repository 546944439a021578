"""The core layer needs neither Slicer nor an installed samu_core: the sources are put on the path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[3]
for folder in (HERE, REPOSITORY):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@pytest.fixture
def predictor(monkeypatch):
    """The stand-in that the `samu` commands get instead of a Predictor."""
    from stand_in import StandInPredictor

    from samu_core.commands import common

    stand_in = StandInPredictor()
    monkeypatch.setattr(common, "make_predictor", lambda args: stand_in)
    return stand_in


@pytest.fixture
def image_path(tmp_path):
    """An image file with two boxes, see cli_support."""
    from cli_support import write_two_boxes

    path = tmp_path / "head.nii.gz"
    write_two_boxes(path)
    return path


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A network of the real kind, but tiny and untrained, as a weights file."""
    from samu_core.network import SAMU, SAMUConfig
    from samu_core.weights import save_weights

    path = tmp_path_factory.mktemp("weights") / "tiny.npz"
    save_weights(path, SAMU(SAMUConfig(channels=(4, 4, 8, 8, 16, 16))), {"name": "tiny", "hours": 0.5})
    return path
