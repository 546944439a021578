"""The Slicer side of SAMUSegment; import the modules by name.

This file stays free of slicer, vtk and qt so that the package can be imported anywhere.

    volumes        vtkMRMLScalarVolumeNode -> samu_core.geometry.Volume
    segmentations  the voxel grid of a vtkMRMLSegmentationNode
    clicks         SegmentRequest: a click, checked
    targets        a prediction's mask on the segmentation's grid
    editing        masks into segments, through the Segment Editor's own logic, with undo
    transaction    an edit that happens whole or leaves no trace
    results        SegmentResult, with `messages` for the user
    logic          SAMUSegmentLogic: one click -> one segment

What panel and effect decide, without widgets:

    options        ClickOptions, ClickMode, FieldOfView
    orders         ClickOrder, Place, ClickListener
    worker         one thread for all inference
    recording, contributions, book    what each click changed, and how to take one of several back
    clickeditor    clicks that land, move, change their threshold, are undone
    controller     ClickController: clicks through the worker, and what is said about them
    maskcycle      one key through the nested masks of a click
    clicklist      fiducial points that are clicks
    outline        the field of view as a box in the views
    dependencies   PyTorch through Slicer's extension
    session        PanelSession: the module's panel
    interaction, resting, effectengine, effectsession    the Segment Editor effect
    runtime        the predictor and the worker that both share
    selftest       phantom and stand-in predictor for self-tests

And what needs the running application: parameters, pump, registration, SegmentEditorEffect.
"""
