"""Three slices through a click as one picture, masks outlined, and small PNG files of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

TRUTH, MASK, CLICK = (53, 208, 255), (255, 157, 46), (255, 43, 214)
GREYS = 56  # levels of grey in a file: noise is what makes a PNG large
GAP = 4  # black pixels between two slices


def three_slices(array: np.ndarray, click_kji: Sequence[float]) -> list[np.ndarray]:
    """The slices K, J and I of a (K, J, I) array through the voxel nearest to the click.

    Rows and columns run against the array's axes, so that on RAS axes the head, the front and the patient's
    right are where radiologists look for them: axial, coronal, sagittal.
    """
    k, j, i = _voxel(array.shape, click_kji)
    return [array[k, ::-1, ::-1], array[::-1, j, ::-1], array[::-1, ::-1, i]]


def grey_window(image: np.ndarray) -> tuple[float, float]:
    """Black and white: the 1st and the 99.5th percentile of the finite voxels (every second, for speed).

    Voxels at the very minimum do not count: they are air, or what lies outside the volume.
    """
    values = image[::2, ::2, ::2]
    values = values[np.isfinite(values)]
    values = values[values > values.min()] if values.size and values.min() < values.max() else values
    low, high = np.percentile(values, (1, 99.5)) if values.size else (0.0, 1.0)
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)


def picture(
    image: np.ndarray,
    click_kji: Sequence[float],
    outlines: Sequence[tuple[np.ndarray, tuple[int, int, int]]],
    zoom: int = 2,
    window: tuple[float, float] | None = None,
) -> np.ndarray:
    """Three slices side by side.

    Args:
        image: float (K, J, I); NaN is drawn black.
        click_kji: continuous index of the click.
        outlines: (bool (K, J, I), RGB) each; later ones over earlier ones.
        zoom: pixels per voxel; outlines are one pixel wide, just inside the mask.

    Returns:
        uint8 (height, width, 3).
    """
    low, high = grey_window(image) if window is None else window
    grey = np.nan_to_num((image - low) / (high - low), nan=0.0)
    grey = np.rint(np.clip(grey, 0, 1) * (GREYS - 1)) * (255 / (GREYS - 1))
    panels = []
    masks = [(three_slices(mask, click_kji), color) for mask, color in outlines]
    voxel = _voxel(image.shape, click_kji)
    for plane, view in enumerate(three_slices(grey, click_kji)):
        panel = np.repeat(_enlarged(view.astype(np.uint8), zoom)[..., None], 3, axis=2)
        for slices, color in masks:
            panel[_edge(_enlarged(slices[plane], zoom))] = color
        across = [axis for axis in range(3) if axis != plane]
        row, column = (((image.shape[axis] - 1 - voxel[axis]) * zoom + zoom // 2) for axis in across)
        _cross(panel, row, column, 2 * zoom + 1)
        panels.append(panel)
    height = max(panel.shape[0] for panel in panels)
    padded = [np.pad(panel, ((0, height - panel.shape[0]), (0, GAP), (0, 0))) for panel in panels]
    return np.concatenate(padded, axis=1)[:, :-GAP]


def write_png(path: Path, rgb: np.ndarray) -> None:
    """A uint8 (height, width, 3) picture as a PNG with a palette; written whole or not at all.

    Raises:
        ModuleNotFoundError: Pillow, which comes with matplotlib, is missing.
    """
    from PIL import Image

    path = Path(path)
    colors, index = np.unique(rgb.reshape(-1, 3), axis=0, return_inverse=True)
    if len(colors) > 256:
        image = Image.fromarray(rgb)
    else:
        image = Image.fromarray(index.reshape(rgb.shape[:2]).astype(np.uint8), mode="P")
        image.putpalette(colors.astype(np.uint8).tobytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    try:
        image.save(temporary, format="PNG", optimize=True)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _voxel(shape, click_kji):
    return tuple(int(np.clip(np.floor(c + 0.5), 0, n - 1)) for c, n in zip(click_kji, shape))


def _enlarged(view, zoom):
    return view.repeat(zoom, axis=0).repeat(zoom, axis=1)


def _edge(mask):
    """Pixels of a 2D mask that have a pixel outside it above, below, left or right; the border is no edge."""
    padded = np.pad(mask.astype(bool), 1, mode="edge")
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask.astype(bool) & ~inner


def _cross(panel, row, column, reach):
    """The click, in place: a cross with a free middle, so that the clicked voxel can be seen."""
    for step in range(-reach, reach + 1):
        if abs(step) < 2:
            continue
        for r, c in ((row + step, column), (row, column + step)):
            if 0 <= r < panel.shape[0] and 0 <= c < panel.shape[1]:
                panel[r, c] = CLICK
