"""A controller with a real worker thread on a real scene, and what its tests ask of it."""

from __future__ import annotations

import threading
import time

import numpy as np
from mrml_scene import assertBall, segmentationState, segmentOnVolume, volumeDistances
from SAMUSegmentLib.clickeditor import ClickEditor
from SAMUSegmentLib.controller import ClickController
from SAMUSegmentLib.logic import SAMUSegmentLogic
from SAMUSegmentLib.options import ClickOptions
from SAMUSegmentLib.orders import ClickOrder
from SAMUSegmentLib.recording import RecordingWriter
from SAMUSegmentLib.worker import InferenceWorker

PATIENCE_S = 30


class Gate:
    """Lets a stand-in predictor wait in the middle of a prediction; opens by itself when cancelled."""

    def __init__(self, predictor):
        self.entered, self.open = threading.Event(), threading.Event()
        predictor.whilePredicting = self._wait

    def _wait(self):
        self.entered.set()
        assert self.open.wait(PATIENCE_S)

    def waitUntilEntered(self):
        assert self.entered.wait(PATIENCE_S)


class Clicking:
    """What a panel does, without one. One volume and one segmentation, 40 x 44 x 36 mm."""

    def __init__(self, mrml, predictor, refuse=None, writer=None):
        self.mrml, self.predictor = mrml, predictor
        self.volume = mrml.volume()
        self.segmentation = mrml.segmentation(self.volume)
        self.writer = writer or RecordingWriter()
        self.logic = SAMUSegmentLogic(predictor, writer=self.writer)
        self.worker = InferenceWorker()
        self.editor = ClickEditor(self.logic, self.writer)
        self.said = []
        self.controller = ClickController(self.editor, self.worker.client(), self._onChange, refuse)

    def _onChange(self):
        self.said.append(self.controller.status)

    def close(self):
        self.controller.reset()
        assert self.worker.close(PATIENCE_S)

    def order(self, point, segmentID=None, mode="add", key=None, **options):
        key = self.controller.newKey() if key is None else key
        return ClickOrder(key, point, self.volume, self.segmentation, segmentID, mode, **options)

    def click(self, point, segmentID=None, mode="add", key=None, **options):
        """A click and its end; the result, or None if it came to nothing."""
        before = self.controller.result
        order = self.order(point, segmentID, mode, key, **options)
        self.controller.click(order)
        self.finish()
        self.key = order.key
        return self.controller.result if self.controller.result is not before else None

    def finish(self):
        """Tick until nothing is under way."""
        deadline = time.monotonic() + PATIENCE_S
        self.controller.tick()
        while self.controller.busy:
            assert time.monotonic() < deadline, "the click did not end"
            self.controller.tick()
            time.sleep(0.001)

    def set(self, **options):
        """New options, and the tick that heeds them."""
        self.controller.setOptions(ClickOptions(**options))
        self.controller.tick()

    def voxels(self, segmentID):
        return segmentOnVolume(self.segmentation, segmentID, self.volume)

    def distance(self, *points):
        return np.minimum.reduce([volumeDistances(self.volume, point) for point in points])

    def assertBalls(self, segmentID, *points, threshold=0.5):
        assertBall(self.voxels(segmentID), self.distance(*points), self.predictor.radiusAt(threshold))

    @property
    def state(self):
        return segmentationState(self.segmentation)

    @property
    def status(self):
        return self.controller.status
