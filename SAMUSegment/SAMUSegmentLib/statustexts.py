"""What the panel and the effect say while they work; the outcome of a click is in `messages`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

READY = "Click in a slice view on the structure to segment."
STARTED = "The click is being worked on..."
CANCELLED = "Cancelled. Nothing was changed."
SCENE_CLOSED = "The scene was closed."
WARMING_UP = "Loading the network..."
UNDONE = "Undone."
REDONE = "Redone."
NO_STEP = "There is nothing to undo or redo."
NEXT_CLICK_ONLY = "The new setting is used from the next click on."
NO_CLICK_TO_CHANGE = "There is no click whose mask could be changed: click on a structure first."
NO_OTHER_MASK = "The network sees no larger and no smaller structure at this click."
NOTHING_TO_GIVE_BACK = "The click had left nothing in the segment; nothing was changed."
FROM_SAVED_SCENE = (
    "What this click did before the scene was saved stays; erase it in the Segment Editor if need be."
)


def gaveBack(count: int) -> str:
    """A click was taken out of its segment."""
    return f"The click was taken back; {count:,} voxels changed."


def otherMask(name: str, place: str, expectedIoU: float) -> str:
    """One of the nested masks of a click is shown."""
    return f"Mask {place}, {name}; expected overlap {expectedIoU:.2f}."


STAGES = {
    "sample": "Reading the image around the click...",
    "normalize": "Preparing the image...",
    "load": "Loading the network (only once)...",
    "encode": "Looking at the image...",
    "decode": "Finding the structure...",
}


@dataclass(frozen=True)
class Status:
    """One line for the user.

    Attributes:
        text: the line.
        kind: "info", "busy", "warning" (it worked, but look) or "error" (it did not).
    """

    text: str = READY
    kind: str = "info"


def stage(name: str) -> str:
    """A stage of samu_core's predictor in words."""
    return STAGES.get(name, f"{name.capitalize()}...")


def unexpected(error: BaseException) -> str:
    """An error that is no SamuError: a fault of ours or of the installation."""
    text = " ".join(str(error).split())
    return f"Unexpected error ({type(error).__name__}: {text}); nothing was changed. Details are in the log."


def border(fieldOfViewMm: float, wider: Any | None) -> str:
    """The structure reaches the border of the field of view."""
    advice = (
        f"Use the button for a view of {wider.label()}."
        if wider is not None
        else "This is the widest view: click again further along and add."
    )
    return f"The structure reaches the border of the {fieldOfViewMm:.0f} mm view and may be cut. {advice}"


def latency(seconds: dict[str, float]) -> str:
    """How long the last click took; loading the network is told apart because it comes only once."""
    load = seconds.get("load", 0.0)
    total = sum(seconds.values()) - load
    text = f"{total:.2f} s" if total < 10 else f"{total:.0f} s"
    return f"{text} (and {load:.1f} s to load the network)" if load > 0.05 else text


def device(prediction: Any) -> str:
    """Device and precision of a prediction."""
    return f"{str(prediction.device).upper()}, {prediction.precision}"
