"""The Slicer side of SAMUSegment that needs no GUI; import the modules by name.

This file stays free of slicer, vtk and qt so that the package can be imported anywhere.

    volumes        vtkMRMLScalarVolumeNode -> samu_core.geometry.Volume
    segmentations  the voxel grid of a vtkMRMLSegmentationNode
    clicks         SegmentRequest: a click, checked
    targets        a prediction's mask on the segmentation's grid
    editing        masks into segments, through the Segment Editor's own logic, with undo
    transaction    an edit that happens whole or leaves no trace
    results        SegmentResult, with `messages` for the user
    logic          SAMUSegmentLogic: one click -> one segment
"""
