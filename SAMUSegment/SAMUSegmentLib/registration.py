"""Makes the effect known to the Segment Editor."""

from __future__ import annotations

from pathlib import Path

REGISTERED_PROPERTY = "SAMUSegmentRegistered"


def exposeEffectClass() -> type:
    """Let `SAMUSegmentLib.SegmentEditorEffect` be the class.

    qSlicerSegmentEditorScriptedEffect::setPythonSource looks for the class in the module that is named
    like the file's folder. Where it does not find it there, it loads the file under that name, which
    would put the file in the place of this package.
    """
    import SAMUSegmentLib
    from SAMUSegmentLib import SegmentEditorEffect as found

    effectClass = found if isinstance(found, type) else found.SegmentEditorEffect
    SAMUSegmentLib.SegmentEditorEffect = effectClass
    return effectClass


def registerEffect() -> None:
    """Register the effect with the Segment Editor; once is enough."""
    import qSlicerSegmentationsEditorEffectsPythonQt as effects
    import slicer

    exposeEffectClass()
    factory = slicer.qSlicerSegmentEditorEffectFactory.instance()
    # The factory outlives a reload of this package, and so does its property.
    if factory.property(REGISTERED_PROPERTY):
        return
    instance = effects.qSlicerSegmentEditorScriptedEffect(None)
    instance.setPythonSource((Path(__file__).parent / "SegmentEditorEffect.py").as_posix())
    instance.self().register()
    factory.setProperty(REGISTERED_PROPERTY, True)
