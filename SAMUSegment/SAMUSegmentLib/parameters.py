"""The module's choices, kept in the scene. Needs the Slicer application (slicer.parameterNodeWrapper)."""

from typing import Annotated

from slicer import vtkMRMLMarkupsFiducialNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

from SAMUSegmentLib.options import (
    THRESHOLD_DEFAULT,
    THRESHOLD_MAXIMUM,
    THRESHOLD_MINIMUM,
    ClickMode,
    FieldOfView,
)


@parameterNodeWrapper
class SAMUSegmentParameterNode:
    """What the user chose.

    inputVolume - the CT or MR to click in.
    segmentation - where results go; made at the first click if there is none.
    segmentID - the segment that clicks add to or subtract from; empty for a new one.
    mode - what a click does.
    threshold - probability from which a voxel belongs to the structure.
    clickedComponent - keep only what hangs together with the click.
    fieldOfView - how much of the volume the network sees.
    showPatch - show that as a box in the views.
    clicks - the points that were clicked.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    segmentation: vtkMRMLSegmentationNode
    segmentID: str = ""
    mode: ClickMode = ClickMode.ADD
    threshold: Annotated[float, WithinRange(THRESHOLD_MINIMUM, THRESHOLD_MAXIMUM)] = THRESHOLD_DEFAULT
    clickedComponent: bool = True
    fieldOfView: FieldOfView = FieldOfView.STANDARD
    showPatch: bool = False
    clicks: vtkMRMLMarkupsFiducialNode
