"""What the mouse in a view means to the effect."""

from __future__ import annotations

from dataclasses import dataclass

import vtk

LEFT_PRESS = vtk.vtkCommand.LeftButtonPressEvent
LEFT_RELEASE = vtk.vtkCommand.LeftButtonReleaseEvent
LEFT_DOUBLE = vtk.vtkCommand.LeftButtonDoubleClickEvent
RIGHT_EVENTS = (
    vtk.vtkCommand.RightButtonPressEvent,
    vtk.vtkCommand.RightButtonReleaseEvent,
    vtk.vtkCommand.RightButtonDoubleClickEvent,
)


@dataclass(frozen=True)
class Decision:
    """What to do about an event.

    Attributes:
        abort: True keeps everybody else from seeing it.
        mode: "add" or "subtract" when it is a click of ours, else "".
    """

    abort: bool
    mode: str = ""


PASS = Decision(False)
SWALLOW = Decision(True)


class ClickInterpreter:
    """Turns the events of the slice views into clicks.

    A double click is one click: its second press is swallowed, or Slicer would maximise the view. A
    right click is swallowed, or a menu would open in the middle of the work. Shift and Alt belong to
    Slicer (crosshair, panning), and so does a drag that began elsewhere.
    """

    def __init__(self) -> None:
        self._pressed = False

    def decide(self, eventId: int, control: bool, shift: bool, alt: bool) -> Decision:
        """The decision about one event.

        Args:
            eventId: of vtkCommand.
            control, shift, alt: whether these keys are down.
        """
        if eventId == LEFT_RELEASE:
            pressed, self._pressed = self._pressed, False
            return SWALLOW if pressed else PASS
        if shift or alt:
            return PASS
        if eventId == LEFT_PRESS:
            self._pressed = True
            return Decision(True, "subtract" if control else "add")
        if eventId == LEFT_DOUBLE:
            self._pressed = True
            return SWALLOW
        return SWALLOW if eventId in RIGHT_EVENTS else PASS

    def reset(self) -> None:
        """The effect was left: what was pressed is released elsewhere."""
        self._pressed = False
