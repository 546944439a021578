"""What users of comparable extensions complain about: each complaint has a test that says so."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest
import torch

from samu_core import engine

TESTS = Path(__file__).resolve().parents[1]
SAYING = "Complaint about the peers: "
COMPLAINTS = (
    "neighbouring segments erased",
    "masks ignored",
    "no undo",
    "server and install pain",
    "wrong torch/CUDA",
    "no offline use",
    "small GPUs",
    "Macs",
    "click in one place, result in another",
    "RGB crash",
    "an error that leaves the application unusable",
    "a structure larger than the field of view cut without a word",
    "cannot continue a saved segmentation",
    "no batch",
    "no API",
)


@functools.cache
def sayings():
    """{what a test's docstring says of complaints: the names of such tests}."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.glob("*/test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            text = ast.get_docstring(node) if isinstance(node, ast.FunctionDef) else None
            if text and node.name.startswith("test_") and SAYING in text:
                found.setdefault(" ".join(text.split(SAYING, 1)[1].split()), []).append(node.name)
    return found


@pytest.mark.parametrize("complaint", COMPLAINTS)
def test_every_complaint_has_its_test(complaint):
    assert [name for saying, names in sayings().items() if complaint in saying for name in names]


def test_no_test_speaks_of_a_complaint_that_nobody_knows():
    assert len(sayings()) > 5
    for saying, names in sayings().items():
        assert any(complaint in saying for complaint in COMPLAINTS), names


def test_a_mac_without_cuda_computes_on_its_cpu(monkeypatch):
    """Complaint about the peers: Macs. A device that the network was never tried on is not chosen."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert engine.choose_device("auto") == "cpu"

    class Operators:
        """An Arm build has no oneDNN operators to ask."""

    monkeypatch.setattr(torch.ops, "mkldnn", Operators(), raising=False)
    assert engine.choose_precision("auto", "cpu") == "float32"
