"""What the user is told about a click that raised no error: always one line."""

from __future__ import annotations

from typing import Any

from SAMUSegmentLib.targets import TargetMask


def nothingFound(threshold: float) -> str:
    """The predicted mask is empty."""
    return (
        f"Nothing was found at the click with threshold {threshold:.2f}: lower the threshold or click nearer "
        "to the middle of the structure. Nothing was changed."
    )


def nothingChanged(name: str, mode: str, target: TargetMask, held: int) -> str:
    """A mask was found but no voxel of the segment differs.

    Args:
        name: the segment's name.
        mode: "add", "subtract" or "set".
        target: the mask.
        held: how many voxels of the mask the segment held before.
    """
    count = f"{target.voxelCount:,}"
    if mode == "subtract" and held == 0:
        return f"'{name}' holds none of the {count} voxels found. Nothing was changed."
    if mode != "subtract" and held == target.voxelCount:
        return f"'{name}' already holds all {count} voxels found. Nothing was changed."
    return (
        f"The masking settings (editable area or intensity range) leave none of the {count} voxels found: "
        "change them in the Segment Editor or click elsewhere. Nothing was changed."
    )


def changed(name: str, mode: str, target: TargetMask, changedVoxelCount: int) -> str:
    """The segment was changed."""
    amount = f"{target.voxelCount:,} voxels ({target.volumeCm3:.1f} cm3)"
    if mode == "subtract":
        return f"{changedVoxelCount:,} voxels were taken from '{name}'."
    if mode == "set":
        return f"'{name}' is now the {amount} found."
    held = "" if changedVoxelCount == target.voxelCount else f", {changedVoxelCount:,} of them new"
    return f"{amount} found{held} for '{name}'."


def withRemarks(message: str, prediction: Any, touchesBorder: bool) -> str:
    """The message with what the user should know about how the result came about."""
    remarks = [message]
    if touchesBorder:
        extent = prediction.grid.size * prediction.grid.spacing
        remarks.append(
            f"It reaches the border of the {extent:.0f} mm field of view and may be cut: "
            "click again with a wider field of view."
        )
    notice = getattr(prediction, "notice", "")
    if notice:
        remarks.append(notice)
    return " ".join(remarks)
