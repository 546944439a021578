"""The Slicer side of SAMUSegment that needs no GUI; import the modules by name.

This file stays free of slicer, vtk and qt so that the package can be imported anywhere.

    volumes        vtkMRMLScalarVolumeNode -> samu_core.geometry.Volume
    segmentations  the voxel grid of a vtkMRMLSegmentationNode
    editing        masks into segments, through the Segment Editor's own logic
    logic          SAMUSegmentLogic: one click -> one segment
"""
