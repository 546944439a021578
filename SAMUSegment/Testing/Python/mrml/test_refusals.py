"""What cannot be segmented is refused with advice, and the scene stays as it was."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import vtk
from mrml_scene import matrixFrom
from SAMUSegmentLib.logic import SAMUSegmentLogic
from SAMUSegmentLib.volumes import volumeFromNode

from samu_core.errors import Cancelled, SamuError, VolumeError


class Refusal:
    """Clicks and expects an error of one line; neither segmentation nor scene may change."""

    def __init__(self, mrml, predictor):
        self.mrml, self.predictor = mrml, predictor
        self.logic = SAMUSegmentLogic(predictor)

    def __call__(self, volume, match, error=SamuError, segmentation=None, point=(5, 5, 5), **options):
        segmentation = segmentation or self.mrml.segmentation()
        before = self.mrml.snapshot(segmentation)
        with pytest.raises(error, match=match) as info:
            self.logic.segmentFromPoint(volume, point, segmentation, **options)
        assert "\n" not in str(info.value) and len(str(info.value)) < 250
        assert self.mrml.snapshot(segmentation) == before
        assert self.predictor.calls == 0 and not self.logic.canUndo()


@pytest.fixture
def refuse(mrml, predictor):
    return Refusal(mrml, predictor)


@pytest.mark.parametrize("components", [2, 3, 4])
def test_an_rgb_volume_is_refused_without_a_crash(mrml, refuse, components):
    """Complaint about the peers: RGB crash. A vector volume is a scalar volume by class."""
    array = np.zeros((10, 11, 12, components), np.uint8)
    volume = mrml.volume(array, className="vtkMRMLVectorVolumeNode", name="Photo")
    assert isinstance(volume, slicer.vtkMRMLScalarVolumeNode)
    refuse(volume, f"'Photo' has {components} values per voxel.*Vector to Scalar Volume", VolumeError)


def test_a_scalar_volume_node_with_rgb_voxels_is_refused(mrml, refuse):
    refuse(mrml.volume(np.zeros((10, 11, 12, 3), np.uint8)), "3 values per voxel", VolumeError)


def test_a_volume_without_image_data_is_refused(mrml, refuse):
    volume = mrml.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Nothing")
    refuse(volume, "'Nothing' holds no voxels", VolumeError)


def test_a_volume_with_empty_image_data_is_refused(mrml, refuse):
    volume = mrml.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Nothing")
    volume.SetAndObserveImageData(vtk.vtkImageData())
    refuse(volume, "'Nothing' holds no voxels", VolumeError)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_volume_of_nan_only_is_refused(mrml, refuse, value):
    refuse(mrml.volume(np.full((10, 11, 12), value, np.float32)), "no numbers", VolumeError)


def test_a_volume_with_some_nan_is_segmented(mrml, predictor):
    array = np.full((36, 44, 40), np.nan, np.float64)
    array[18:] = 1.0
    volume, segmentation = mrml.volume(array), mrml.segmentation()
    assert SAMUSegmentLogic(predictor).segmentFromPoint(volume, (20, 22, 20), segmentation).applied


@pytest.mark.parametrize("shape", [(1, 20, 20), (20, 1, 20), (20, 20, 1)])
def test_a_single_slice_is_refused(mrml, refuse, shape):
    refuse(mrml.volume(np.zeros(shape, np.int16), name="Radiograph"), "'Radiograph' .*2 slices", VolumeError)


def test_a_label_map_is_refused_as_an_image(mrml, refuse):
    volume = mrml.volume(className="vtkMRMLLabelMapVolumeNode", name="Labels")
    refuse(volume, "'Labels' is a label map", VolumeError)


def test_other_nodes_are_refused_as_an_image(mrml, refuse):
    refuse(None, "scalar volume", VolumeError)
    refuse(mrml.transform(np.eye(4)), "scalar volume.*vtkMRMLLinearTransformNode", VolumeError)


def test_other_nodes_are_refused_as_a_segmentation(mrml, predictor):
    volume = mrml.volume()
    with pytest.raises(SamuError, match="Choose a segmentation"):
        SAMUSegmentLogic(predictor).segmentFromPoint(volume, (5, 5, 5), volume)


def test_a_singular_geometry_is_refused(mrml, refuse):
    squashed = mrml.transform(np.diag([1.0, 0.0, 1.0, 1.0]))
    refuse(mrml.volume(parent=squashed), "singular", VolumeError)


def test_a_non_linear_transform_of_the_volume_is_refused_with_advice(mrml, refuse):
    volume = mrml.volume()
    volume.SetAndObserveTransformNodeID(mrml.warp().GetID())
    refuse(volume, "'CT' is under the non-linear transform 'Warp'.*copy.*harden")


def test_a_non_linear_transform_of_the_segmentation_is_refused_with_advice(mrml, refuse):
    volume, segmentation = mrml.volume(), mrml.segmentation()
    segmentation.SetAndObserveTransformNodeID(mrml.warp().GetID())
    refuse(volume, "'Segmentation' is under the non-linear transform", segmentation=segmentation)


def test_a_linear_transform_under_a_non_linear_one_is_refused(mrml, refuse):
    volume = mrml.volume(parent=mrml.transform(matrixFrom((0, 0, 5)), parent=mrml.warp()))
    refuse(volume, "non-linear")


def test_a_segmentation_stored_as_surfaces_is_refused_with_advice(mrml, refuse):
    volume = mrml.volume()
    segmentation = mrml.segmentation(volume)
    sphere = vtk.vtkSphereSource()
    sphere.SetCenter(20, 20, 20)
    sphere.SetRadius(5)
    sphere.Update()
    segmentation.GetSegmentation().SetSourceRepresentationName("Closed surface")
    segmentation.AddSegmentFromClosedSurfaceRepresentation(sphere.GetOutput(), "surface")
    before = segmentation.GetSegmentation().GetSourceRepresentationName()
    refuse(volume, "stored as closed surface.*Binary labelmap", segmentation=segmentation)
    assert segmentation.GetSegmentation().GetSourceRepresentationName() == before == "Closed surface"


def test_unknown_segments_and_modes_are_refused(mrml, refuse):
    volume = mrml.volume()
    refuse(volume, "no segment with ID 'liver'", segmentID="liver")
    refuse(volume, "segment to subtract from", mode="subtract")
    refuse(volume, "mode is one of add, subtract, new, set", ValueError, mode="paint")


@pytest.mark.parametrize("point", [(1, 2), "abc", (5, 5, float("nan")), None])
def test_a_point_that_is_none_is_refused(mrml, refuse, point):
    refuse(mrml.volume(), "point|position", point=point)


def test_a_segmentation_of_another_scene_is_refused(mrml, refuse):
    volume, stray = mrml.volume(), slicer.vtkMRMLSegmentationNode()
    with pytest.raises(SamuError, match="not in the scene"):
        refuse.logic.segmentFromPoint(volume, (5, 5, 5), stray)


def test_a_failing_prediction_changes_nothing_and_leaves_the_logic_usable(mrml, predictor):
    """Complaint about the peers: an error that leaves the application unusable."""
    volume, segmentation = mrml.volume(), mrml.segmentation()
    logic, before = SAMUSegmentLogic(predictor), mrml.snapshot(segmentation)

    def fail():
        raise RuntimeError("out of memory")

    predictor.whilePredicting = fail
    with pytest.raises(RuntimeError, match="out of memory"):
        logic.segmentFromPoint(volume, (20, 22, 18), segmentation)
    assert mrml.snapshot(segmentation) == before
    predictor.whilePredicting = None
    assert logic.segmentFromPoint(volume, (20, 22, 18), segmentation).applied


def test_cancelling_changes_nothing(mrml, predictor):
    volume, segmentation = mrml.volume(), mrml.segmentation()
    before, stages = mrml.snapshot(segmentation), []
    with pytest.raises(Cancelled):
        SAMUSegmentLogic(predictor).segmentFromPoint(
            volume, (20, 22, 18), segmentation, cancelled=lambda: True, progress=stages.append
        )
    assert mrml.snapshot(segmentation) == before and stages == ["encode"]


def test_the_volume_is_read_without_a_copy(mrml):
    volume = mrml.volume(np.arange(24, dtype=np.int16).reshape(2, 3, 4), matrixFrom((0, 0, 30), (2, 3, 4)))
    view = volumeFromNode(volume)
    assert view.array.shape == (2, 3, 4) and view.array[1, 2, 3] == 23 and view.name == "CT"
    volume.GetImageData().SetScalarComponentFromDouble(3, 2, 1, 0, -7)
    assert view.array[1, 2, 3] == -7
    assert np.allclose(view.geometry.ijk_to_ras, matrixFrom((0, 0, 30), (2, 3, 4)))


def test_the_version_of_a_volume_follows_its_voxels(mrml):
    volume = mrml.volume()
    version = volumeFromNode(volume).version
    assert volumeFromNode(volume).version == version
    volume.GetImageData().GetPointData().GetScalars().Modified()
    assert volumeFromNode(volume).version != version


@pytest.mark.parametrize(
    "units, quantity, modality",
    [
        (("[hnsf'U]", "UCUM"), None, "CT"),
        (None, ("110852", "DCM"), "MR"),
        (None, ("112031", "DCM"), "CT"),
        (None, None, None),
    ],
)
def test_the_modality_that_dicom_left_on_the_node_is_used(mrml, units, quantity, modality):
    volume = mrml.volume()
    for code, setter in ((units, volume.SetVoxelValueUnits), (quantity, volume.SetVoxelValueQuantity)):
        if code is not None:
            entry = slicer.vtkCodedEntry()
            entry.SetValueSchemeMeaning(code[0], code[1], "meaning")
            setter(entry)
    assert volumeFromNode(volume).modality == modality
