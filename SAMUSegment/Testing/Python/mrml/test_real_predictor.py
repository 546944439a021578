"""The bundled network in a real scene, with the network cable pulled."""

from __future__ import annotations

import socket

import numpy as np
import pytest
from mrml_scene import distances, ijkToWorld, matrixFrom, segmentOnVolume, worldOf
from SAMUSegmentLib.logic import SAMUSegmentLogic

from samu_core.errors import WeightsError

SHAPE, SPACING, ORGAN_MM, CENTER = (64, 64, 64), 2.5, 22.0, (30, 34, 31)


@pytest.fixture(scope="module")
def realPredictor():
    pytest.importorskip("torch", reason="the real predictor needs torch")
    from samu_core.predictor import Predictor
    from samu_core.weights import find_bundled

    try:
        find_bundled()
    except WeightsError as error:
        pytest.skip(f"no weights are bundled yet: {error}")
    return Predictor(device="cpu")


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("something tried to use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


def abdomen(mrml):
    """A soft-tissue body in air with one brighter organ, in HU, with noise."""
    matrix = matrixFrom(spacing=(SPACING,) * 3, origin=(-80, -85, -78))
    center = (matrix @ (*CENTER, 1))[:3]
    body = distances(matrix, SHAPE, (0, 0, 0)) < 74
    organ = distances(matrix, SHAPE, center) < ORGAN_MM
    values = np.where(organ, 150, np.where(body, 30, -1000)) + np.random.default_rng(1).normal(0, 8, SHAPE)
    return mrml.volume(values.astype(np.int16), matrix), organ


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def test_a_click_with_the_bundled_network_needs_no_network_connection(mrml, realPredictor, offline):
    """Complaint about the peers: server and install pain, no offline use."""
    volume, organ = abdomen(mrml)
    logic, segmentation = SAMUSegmentLogic(realPredictor), mrml.segmentation()
    result = logic.segmentFromPoint(volume, worldOf(volume, CENTER), segmentation)
    mask = segmentOnVolume(segmentation, result.segmentID, volume)
    assert mask[CENTER[::-1]], "the click itself is in the segment"
    # How good masks are, `samu evaluate` measures; a bright ball in a plain body is the least to expect.
    assert dice(mask, organ) > 0.6
    assert result.prediction.device.startswith("cpu") and result.seconds["encode"] > 0

    stricter = logic.reapplyThreshold(result, 0.8)
    inner = segmentOnVolume(segmentation, stricter.segmentID, volume)
    assert not (inner & ~mask).any() and inner.sum() < mask.sum()

    # The same voxels, moved in space: the same segment, moved in space.
    move = mrml.transform(matrixFrom(origin=(40, -25, 60)))
    volume.SetAndObserveTransformNodeID(move.GetID())
    assert ijkToWorld(volume)[0, 3] == -40
    other = mrml.segmentation(parent=mrml.transform(matrixFrom((0, 0, 30))))
    moved = logic.segmentFromPoint(volume, worldOf(volume, CENTER), other)
    assert dice(segmentOnVolume(other, moved.segmentID, volume), mask) > 0.98
    assert logic.undo() and other.GetSegmentation().GetNumberOfSegments() == 0


def test_the_predictor_and_the_logic_fit_together_without_weights(mrml):
    """An untrained network: what it says means nothing, but every voxel of it must arrive."""
    torch = pytest.importorskip("torch", reason="the real predictor needs torch")
    from samu_core.geometry import GridGeometry
    from samu_core.network import SAMU
    from samu_core.predictor import Predictor

    torch.manual_seed(0)
    predictor = Predictor(
        device="cpu", precision="float32", network=SAMU().eval(), patch_size=32, second_look=False
    )
    volume, _ = abdomen(mrml)
    volume.SetAndObserveTransformNodeID(mrml.transform(matrixFrom((10, 0, 0))).GetID())
    logic, segmentation, stages = SAMUSegmentLogic(predictor), mrml.segmentation(), []
    request = logic.prepare(volume, worldOf(volume, CENTER), segmentation)
    prediction = logic.predict(request, progress=stages.append)
    threshold = float(1 / (1 + np.exp(-np.median(prediction.logits))))
    result = logic.apply(request, prediction, threshold, clickedComponent=False)
    expected = prediction.mask(GridGeometry(SHAPE, ijkToWorld(volume)), threshold, False).full(
        GridGeometry(SHAPE, ijkToWorld(volume))
    )
    assert "encode" in stages and result.voxelCount == expected.sum() > 100
    assert np.array_equal(segmentOnVolume(segmentation, result.segmentID, volume), expected != 0)
