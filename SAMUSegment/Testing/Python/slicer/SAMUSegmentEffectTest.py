"""Self-test of the effect in a running Slicer: python tools/slicer_tests.py SAMUSegmentEffectTest.

The events go through the effect's processInteractionEvents, as the Segment Editor sends them. A stand-in
predictor finds a ball around each click.
"""

import time
import unittest

import slicer
import vtk

PATIENCE_S = 60
RADIUS_MM = 10.0


class Interactor:
    """What the effect asks of the view's interactor."""

    def __init__(self, position, control):
        self.position, self.control = position, control

    def GetEventPosition(self):
        return self.position

    def GetControlKey(self):
        return int(self.control)

    def GetShiftKey(self):
        return 0

    def GetAltKey(self):
        return 0


class SAMUSegmentEffectTest(unittest.TestCase):
    """A Segment Editor of its own, and clicks in the Red view."""

    def setUp(self):
        slicer.mrmlScene.Clear(False)
        import SAMUSegment

        SAMUSegment.registerEffect()
        from SAMUSegmentLib.selftest import makePhantom

        self.useStandIn()
        self.volume = makePhantom(slicer.mrmlScene)
        self.segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        self.segmentation.CreateDefaultDisplayNodes()
        self.segmentation.SetReferenceImageGeometryParameterFromVolumeNode(self.volume)
        slicer.util.setSliceViewerLayers(background=self.volume, fit=True)
        self.view = slicer.app.layoutManager().sliceWidget("Red")
        self.openEditor()

    def useStandIn(self):
        """Sessions that begin from now on find balls."""
        from SAMUSegmentLib import runtime
        from SAMUSegmentLib.dependencies import Dependencies
        from SAMUSegmentLib.selftest import BallPredictor, NothingMissing

        self.runtime = runtime
        runtime.use(BallPredictor(RADIUS_MM), Dependencies(NothingMissing()))

    def openEditor(self):
        """A new editor with the effect."""
        self.editor = slicer.qMRMLSegmentEditorWidget()
        self.editor.setMRMLScene(slicer.mrmlScene)
        self.node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
        self.editor.setMRMLSegmentEditorNode(self.node)
        self.editor.setSegmentationNode(self.segmentation)
        self.editor.setSourceVolumeNode(self.volume)
        self.editor.setActiveEffectByName("SAMUSegment")
        self.assertIsNotNone(self.editor.activeEffect(), "the effect is not registered")
        self.effect = self.editor.activeEffect().self()

    def closeEditor(self):
        self.editor.setActiveEffect(None)
        self.editor.setMRMLSegmentEditorNode(None)

    def tearDown(self):
        self.closeEditor()
        self.runtime.use()
        slicer.mrmlScene.Clear(False)

    def send(self, eventId, ras=(0.0, 0.0, 0.0), control=False):
        position = self.effect.rasToXy(ras, self.view)
        interactor = Interactor((int(position[0]), int(position[1])), control)
        return self.effect.processInteractionEvents(interactor, eventId, self.view)

    def click(self, ras=(0.0, 0.0, 0.0), control=False):
        self.assertTrue(self.send(vtk.vtkCommand.LeftButtonPressEvent, ras, control), "the press is ours")
        self.assertTrue(self.send(vtk.vtkCommand.LeftButtonReleaseEvent, ras, control))
        deadline = time.monotonic() + PATIENCE_S
        while self.effect.session.controller.busy:
            self.assertLess(time.monotonic(), deadline)
            slicer.app.processEvents()
            time.sleep(0.005)

    def voxels(self):
        """Number of voxels of the first segment."""
        segmentation = self.segmentation.GetSegmentation()
        if segmentation.GetNumberOfSegments() == 0:
            return 0
        import numpy as np
        from vtk.util.numpy_support import vtk_to_numpy

        image = slicer.vtkOrientedImageData()
        self.segmentation.GetBinaryLabelmapRepresentation(segmentation.GetNthSegmentID(0), image)
        scalars = image.GetPointData().GetScalars()
        return 0 if scalars is None else int(np.count_nonzero(vtk_to_numpy(scalars)))

    def assertBalls(self, count):
        expected = count * 4.0 / 3.0 * 3.14159 * RADIUS_MM**3 / 8.0
        self.assertAlmostEqual(self.voxels(), expected, delta=0.12 * expected)

    def test_ClickAddsCtrlClickSubtractsAndTheEditorUndoes(self):
        self.click()
        self.assertBalls(1)
        self.click((24.0, 0.0, 0.0))
        self.assertBalls(2)
        self.click((24.0, 0.0, 0.0), control=True)
        self.assertBalls(1)
        self.editor.undo()
        self.assertBalls(2)
        self.editor.undo()
        self.assertBalls(1)
        self.editor.redo()
        self.assertBalls(2)

    def test_ThresholdSliderIsLive(self):
        self.click()
        before = self.voxels()
        self.effect.thresholdSlider.value = 0.2
        deadline = time.monotonic() + PATIENCE_S
        while self.voxels() <= before:
            self.assertLess(time.monotonic(), deadline, "the segment did not grow")
            slicer.app.processEvents()
        self.assertIsNotNone(self.editor.activeEffect(), "the editor left the effect")
        self.editor.undo()
        self.assertIsNotNone(self.editor.activeEffect(), "the editor left the effect")
        self.assertEqual(self.segmentation.GetSegmentation().GetNumberOfSegments(), 0)

    def test_TheOtherMaskButtonShowsALargerOne(self):
        import qt

        button = self.effect.otherMaskButton
        self.click()
        before = self.voxels()
        self.assertEqual(button.shortcut.toString(), qt.QKeySequence("N").toString())
        self.assertTrue(button.isVisibleTo(button.parent()))
        button.click()
        self.assertGreater(self.voxels(), before)
        self.editor.undo()
        self.assertEqual(self.segmentation.GetSegmentation().GetNumberOfSegments(), 0)

    def test_DoubleAndRightClicksAreSwallowed(self):
        for eventId in (
            vtk.vtkCommand.LeftButtonDoubleClickEvent,
            vtk.vtkCommand.LeftButtonReleaseEvent,
            vtk.vtkCommand.RightButtonPressEvent,
            vtk.vtkCommand.RightButtonReleaseEvent,
        ):
            self.assertTrue(self.send(eventId))
        self.assertFalse(self.send(vtk.vtkCommand.MouseMoveEvent))
        self.assertEqual(self.voxels(), 0)

    def test_TheEffectCanBeSelectedAgain(self):
        self.click()
        self.editor.setActiveEffectByName("Paint")
        self.editor.setActiveEffectByName("SAMUSegment")
        self.effect = self.editor.activeEffect().self()
        self.click((24.0, 0.0, 0.0))
        self.assertBalls(2)

    def test_ReloadOfTheModule(self):
        self.click()
        slicer.modules.samusegment.widgetRepresentation().self().onReload()
        # An editor that was there goes on with the code of before, a new one has the new code.
        self.click((24.0, 0.0, 0.0))
        self.assertBalls(2)
        old = self.effect
        self.closeEditor()
        self.runtime.use()
        self.useStandIn()
        self.openEditor()
        self.assertIsNot(type(self.effect), type(old))
        self.node.SetSelectedSegmentID(self.segmentation.GetSegmentation().GetNthSegmentID(0))
        self.click((-24.0, 0.0, 0.0))
        self.assertBalls(3)


if __name__ == "__main__":
    unittest.main()
