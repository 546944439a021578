"""Self-test of the module's panel in a running Slicer: python tools/slicer_tests.py SAMUSegmentPanelTest.

A stand-in predictor finds a ball around each click, so neither torch nor a GPU nor a download is needed;
one test uses the real network where torch is installed.
"""

import threading
import time
import unittest

import numpy as np
import slicer
import vtk

PATIENCE_S = 60
RADIUS_MM = 10.0


class SAMUSegmentPanelTest(unittest.TestCase):
    """Clicks are points that are placed in the panel's list."""

    def setUp(self):
        slicer.mrmlScene.Clear(False)
        slicer.util.selectModule("SAMUSegment")
        self.usePanel()
        from SAMUSegmentLib.selftest import makePhantom

        self.volume = makePhantom(slicer.mrmlScene)
        self.widget.enter()
        self.parameters = self.widget._parameterNode
        self.parameters.inputVolume = self.volume
        self.parameters.segmentation = None
        self.parameters.segmentID = ""

    def usePanel(self):
        """Take the module's present panel, with the stand-in predictor."""
        from SAMUSegmentLib.dependencies import Dependencies
        from SAMUSegmentLib.selftest import BallPredictor, NothingMissing

        self.widget = slicer.modules.samusegment.widgetRepresentation().self()
        self.session, self.predictor = self.widget.session, BallPredictor(RADIUS_MM)
        self.before = self.session.use(self.predictor, Dependencies(NothingMissing()))
        self.parameters = self.widget._parameterNode

    def tearDown(self):
        if self.widget.session is self.session:
            self.widget.ui.placeButton.checked = False
            self.session.use(*self.before)
        slicer.mrmlScene.Clear(False)

    def waitFor(self, condition, what):
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            self.assertLess(time.monotonic(), deadline, f"waited in vain for {what}")
            slicer.app.processEvents()
            time.sleep(0.005)

    def finish(self):
        """The points are heeded, and what they began has ended."""
        node, controller = self.parameters.clicks, self.session.controller
        before = controller.result
        self.waitFor(
            lambda: (
                not controller.busy
                and (controller.result is not before or controller.status.kind in ("error", "warning"))
            ),
            "the click",
        )
        self.assertIsNotNone(node)

    def place(self, *point):
        if not self.widget.ui.placeButton.checked:
            self.widget.ui.placeButton.checked = True
        index = self.parameters.clicks.AddControlPointWorld(*point)
        self.finish()
        return index

    def voxels(self):
        """Number of voxels of the selected segment."""
        node = self.parameters.segmentation
        image = slicer.vtkOrientedImageData()
        node.GetBinaryLabelmapRepresentation(self.parameters.segmentID, image)
        scalars = image.GetPointData().GetScalars()
        if scalars is None:
            return 0
        from vtk.util.numpy_support import vtk_to_numpy

        return int(np.count_nonzero(vtk_to_numpy(scalars)))

    def assertBalls(self, count, radius=RADIUS_MM):
        """The segment is as large as that many balls that do not touch."""
        expected = count * 4.0 / 3.0 * np.pi * radius**3 / 8.0
        self.assertAlmostEqual(self.voxels(), expected, delta=0.12 * expected)

    def test_OneClickAddSubtractUndo(self):
        self.place(0.0, 0.0, 0.0)
        self.assertBalls(1)
        self.place(24.0, 0.0, 0.0)
        self.assertBalls(2)
        self.parameters.mode = type(self.parameters.mode)("subtract")
        self.place(24.0, 0.0, 0.0)
        self.assertBalls(1)
        self.widget.ui.undoButton.click()
        self.assertBalls(2)
        self.widget.ui.undoButton.click()
        self.assertBalls(1)
        self.assertEqual(self.parameters.clicks.GetNumberOfControlPoints(), 1)
        self.widget.ui.redoButton.click()
        self.assertBalls(2)

    def test_ThresholdChangesTheLastMask(self):
        self.place(0.0, 0.0, 0.0)
        level = np.log(0.3 / 0.7)
        self.parameters.threshold = 0.3
        self.waitFor(lambda: self.session.controller.result.threshold == 0.3, "the threshold")
        self.assertBalls(1, np.sqrt(RADIUS_MM**2 - 2 * RADIUS_MM * level / 0.5))

    def test_MovedAndDeletedPoints(self):
        self.place(0.0, 0.0, 0.0)
        index = self.place(24.0, 0.0, 0.0)
        node = self.parameters.clicks
        node.SetNthControlPointPositionWorld(index, -24.0, 0.0, 0.0)
        self.finish()
        self.assertBalls(2)
        node.RemoveNthControlPoint(0)
        self.waitFor(lambda: self.voxels() < 800, "the deletion")
        self.assertBalls(1)

    def test_VolumeUnderATransform(self):
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        matrix = vtk.vtkMatrix4x4()
        matrix.SetElement(0, 3, 300.0)
        transform.SetMatrixTransformToParent(matrix)
        self.volume.SetAndObserveTransformNodeID(transform.GetID())
        self.place(300.0, 0.0, 0.0)
        self.assertBalls(1)
        self.assertEqual(self.parameters.segmentation.GetTransformNodeID(), transform.GetID())

    def slowly(self):
        """A click that waits in the middle of its inference; returns what lets it go on."""
        entered, gate = threading.Event(), threading.Event()

        def wait():
            entered.set()
            gate.wait(PATIENCE_S)

        self.predictor.whilePredicting = wait
        self.widget.ui.placeButton.checked = True
        self.parameters.clicks.AddControlPointWorld(0.0, 0.0, 0.0)
        self.waitFor(entered.is_set, "the inference")
        return gate

    def test_CancelWhileTheWindowStaysLive(self):
        gate = self.slowly()
        self.waitFor(lambda: self.widget.ui.cancelButton.visible, "the button")
        self.widget.ui.cancelButton.click()
        gate.set()
        self.waitFor(lambda: self.parameters.clicks.GetNumberOfControlPoints() == 0, "the point to go")
        self.assertIsNone(self.parameters.segmentation)

    def test_SceneClosedDuringTheInference(self):
        gate = self.slowly()
        slicer.mrmlScene.Clear(False)
        gate.set()
        for _ in range(50):
            slicer.app.processEvents()
            time.sleep(0.005)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode"), 0)
        self.assertFalse(self.session.controller.busy)

    def test_ReloadGoesOnWhereItWas(self):
        self.place(0.0, 0.0, 0.0)
        old, state = self.widget, self.voxels()
        old.onReload()
        self.usePanel()
        self.assertIsNot(self.widget, old)
        self.assertIsNone(old.session)
        self.assertIs(self.parameters.inputVolume, self.volume)
        self.assertEqual(self.parameters.clicks.GetNumberOfControlPoints(), 1)
        for _ in range(10):
            slicer.app.processEvents()
            time.sleep(0.005)
        self.assertFalse(self.session.controller.busy, "the point of before is no new click")
        self.assertEqual(self.voxels(), state)
        self.place(24.0, 0.0, 0.0)
        self.assertBalls(2)
        self.assertFalse(old.ui.placeButton.checked, "the old panel does not follow the new one")
        self.widget.ui.undoButton.click()
        self.assertBalls(1)

    def test_RealNetwork(self):
        torchFound, dependencies = self.before[1].check().ready, self.before[1]
        if not torchFound:
            self.skipTest("torch is not installed in this Slicer")
        from samu_core.predictor import Predictor

        self.session.use(Predictor(device="cpu"), dependencies)
        self.place(0.0, 0.0, 0.0)
        result = self.session.controller.result
        self.assertIsNotNone(result, self.session.controller.status.text)
        self.assertTrue(np.isfinite(result.prediction.logits).all())
        self.assertEqual(result.prediction.device, "cpu")


if __name__ == "__main__":
    unittest.main()
