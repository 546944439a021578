"""What the network said about one click, and the masks that follow from it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import SimpleITK as sitk

from samu_core.errors import SamuError
from samu_core.geometry import EMPTY_EXTENT, Extent, GridGeometry, PatchGrid, as_point, bounding_box
from samu_core.parts import clicked_part, looked_up

# A click just beside a thin structure still means that structure.
NEAREST_COMPONENT_MM = 5.0


@dataclass(frozen=True, eq=False)
class MaskRegion:
    """A mask, cropped to its voxels.

    Attributes:
        array: (dk, dj, di) uint8, KJI, 0 or 1; (0, 0, 0) when nothing was found.
        extent: (i0, i1, j0, j1, k0, k1) of the array on the grid it was asked for, inclusive and in
            VTK's order; i1 < i0 when nothing was found.
    """

    array: np.ndarray
    extent: Extent

    @property
    def empty(self) -> bool:
        """True when there is no voxel."""
        return self.array.size == 0

    @property
    def slices_kji(self) -> tuple[slice, slice, slice]:
        """Where the array lies in a KJI array of the whole grid."""
        i0, i1, j0, j1, k0, k1 = self.extent
        return slice(k0, k1 + 1), slice(j0, j1 + 1), slice(i0, i1 + 1)

    def full(self, geometry: GridGeometry, value: int = 1, dtype: Any = np.uint8) -> np.ndarray:
        """(K, J, I) array of the whole grid with `value` in the mask."""
        array = np.zeros(geometry.shape_kji, dtype=dtype)
        if not self.empty:
            array[self.slices_kji][self.array != 0] = value
        return array


EMPTY_MASK = MaskRegion(np.zeros((0, 0, 0), np.uint8), EMPTY_EXTENT)


@dataclass(eq=False)
class Prediction:
    """The logits of one click. Every mask and every threshold comes from them without inference.

    Attributes:
        logits: (n, n, n) float32, KJI, on the patch; sigmoid gives the probability.
        grid: the patch.
        point_ras: (3,) the click, RAS mm.
        seconds: duration of each stage that was run: load, sample, normalize, encode, decode.
        device: where the network ran, e.g. "cpu" or "cuda".
        precision: "float32", "bfloat16" or "float16".
        inside: (n, n, n) bool, which voxels of the patch hold image; None when not known.
        notice: one line for the user about how the result came about; empty when nothing is unusual.
        asked_spacing: mm per voxel of the patch that was asked for, or of the wider one that was looked at in
            its place; the grid's is finer after a closer look (`samu_core.looks`). A wider view is one wider
            than this.
    """

    logits: np.ndarray
    grid: PatchGrid
    point_ras: np.ndarray
    seconds: dict[str, float] = field(default_factory=dict)
    device: str = "cpu"
    precision: str = "float32"
    inside: np.ndarray | None = None
    notice: str = ""
    asked_spacing: float | None = None

    def __post_init__(self):
        if self.asked_spacing is None:
            self.asked_spacing = self.grid.spacing
        self.logits = np.asarray(self.logits, dtype=np.float32)
        self.point_ras = as_point(self.point_ras)
        if self.logits.shape != (self.grid.size,) * 3:
            raise ValueError(f"A patch of {self.grid.size} voxels does not have logits {self.logits.shape}.")

    def mask(
        self, geometry: GridGeometry, threshold: float = 0.5, clicked_component: bool = True
    ) -> MaskRegion:
        """The segment on any grid: the volume's own or the segmentation's.

        Args:
            geometry: the grid of the mask. Logits, not masks, are interpolated to it.
            threshold: probability from which a voxel belongs to the segment, between 0 and 1.
            clicked_component: keep only the voxels that hang together (through faces) with the
                click; if the click's own voxel is not in the mask, those of the nearest part
                within 5 mm. Parts that are apart in the patch are not joined by a coarser grid.
                False keeps everything.

        Raises:
            SamuError: the threshold is not between 0 and 1.
        """
        level = logit_of(threshold)
        above = self.logits >= level
        box = bounding_box(above)
        if box is None:
            return EMPTY_MASK
        logits = self.logits
        if clicked_component:
            # The click's own voxel may have its centre further away than 5 mm, in thick slices.
            reach_mm = max(NEAREST_COMPONENT_MM, float(geometry.spacing.sum()) / 2)
            logits, box = self._near_click(above, box, level, reach_mm)
            if box is None:
                return EMPTY_MASK
        # One voxel around: interpolation reaches from the last voxel above the level to the next.
        low, high = box
        logits, extent = self.grid.resample_logits(logits, geometry, (low - 1, high + 1))
        mask = (logits >= level).view(np.uint8)
        if clicked_component:
            mask = _component_at(mask, extent, geometry, self.point_ras)
        return _cropped(mask, extent)

    def clicked_voxels(self, reach: int, threshold: float = 0.5) -> int | None:
        """Voxels of the patch in the clicked structure, 0 when there is none; None when it goes on further
        than `reach` voxels from the click along an axis."""
        click = np.floor(self.grid.point_to_kji(self.point_ras) + 0.5).astype(int)
        low = np.clip(click - reach, 0, self.grid.size - 1)
        high = np.clip(click + reach, 0, self.grid.size - 1)
        crop = tuple(slice(a, b + 1) for a, b in zip(low, high))
        level = logit_of(threshold)
        above = (self.logits[crop] >= level).view(np.uint8)
        extent = tuple(int(value) for axis in (2, 1, 0) for value in (low[axis], high[axis]))
        found = _component_at(above, extent, self.grid.geometry, self.point_ras) != 0
        found = clicked_part(self.logits[crop], found, level, self.grid.point_to_kji(self.point_ras) - low)
        for axis, (first, last) in enumerate(zip(low, high)):
            if first > 0 and np.take(found, 0, axis).any():
                return None
            if last < self.grid.size - 1 and np.take(found, -1, axis).any():
                return None
        return int(np.count_nonzero(found))

    def touches_border(self, threshold: float = 0.5) -> bool:
        """True when the clicked structure reaches the patch's outermost voxels: it may be cut off.

        Where the patch ends outside the volume (`inside`) nothing is cut off, so that does not count.
        """
        level = logit_of(threshold)
        above = self.logits >= level
        if not self._reaches_border(above):
            return False
        logits, box = self._near_click(above, bounding_box(above), level, NEAREST_COMPONENT_MM)
        if box is None:
            return False
        above = logits >= level
        extent = (0, self.grid.size - 1) * 3
        return self._reaches_border(
            _component_at(above.view(np.uint8), extent, self.grid.geometry, self.point_ras)
        )

    def _near_click(
        self, above: np.ndarray, box: tuple[np.ndarray, np.ndarray], level: float, reach_mm: float
    ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
        """Logits without the parts that the click cannot mean, and the box of what is left.

        Stray voxels far from the click would make the box, and with it the work on the target grid,
        as large as the patch. Parts that do not even touch at a corner share no interpolation cell,
        so the surface of what stays does not change.
        """
        low, high = box
        crop = tuple(slice(a, b + 1) for a, b in zip(low, high))
        above = above[crop]
        components = sitk.ConnectedComponent(sitk.GetImageFromArray(above.view(np.uint8)), True)
        labels = sitk.GetArrayViewFromImage(components)
        kept = np.zeros(int(labels.max()) + 1, bool)
        kept[self._labels_near(labels, low, reach_mm)] = True
        stays = looked_up(kept, labels)
        del labels, components  # the largest things here
        click = self.grid.point_to_kji(self.point_ras) - low
        stays = clicked_part(self.logits[crop], stays, level, click)
        if np.array_equal(stays, above):
            return self.logits, box
        logits = self.logits.copy()
        logits[crop][above & ~stays] = level - 1
        remaining = bounding_box(stays)
        return logits, None if remaining is None else (remaining[0] + low, remaining[1] + low)

    def _labels_near(self, labels: np.ndarray, start_kji: np.ndarray, reach_mm: float) -> np.ndarray:
        """The label at the click; if there is none, those within reach of it."""
        click = self.grid.point_to_kji(self.point_ras) - start_kji
        voxel = np.floor(click + 0.5).astype(int)
        if np.all(voxel >= 0) and np.all(voxel < labels.shape) and labels[tuple(voxel)]:
            return labels[tuple(voxel)]
        # Interpolation moves the surface by less than one voxel, along a diagonal at most.
        reach = reach_mm / self.grid.spacing + np.sqrt(3)
        first = np.maximum(np.floor(click - reach), 0).astype(int)
        last = np.maximum(np.ceil(click + reach) + 1, 0).astype(int)
        window = labels[tuple(slice(a, b) for a, b in zip(first, last))]
        places = np.argwhere(window)
        near = np.linalg.norm(places + first - click, axis=1) <= reach
        return window[tuple(places[near].T)]

    def _reaches_border(self, mask: np.ndarray) -> bool:
        for axis in range(3):
            for face in (0, -1):
                layer = np.take(mask, face, axis) != 0
                if self.inside is not None:
                    layer &= np.take(self.inside, face, axis)
                if layer.any():
                    return True
        return False


def logit_of(threshold: float) -> float:
    """The logit of a probability. SamuError unless it lies between 0 and 1."""
    if not 0 < threshold < 1:
        raise SamuError(f"The threshold is a probability between 0 and 1; got {threshold}.")
    return math.log(threshold / (1 - threshold))


def _cropped(mask: np.ndarray, extent: Extent) -> MaskRegion:
    box = bounding_box(mask)
    if box is None:
        return EMPTY_MASK
    low, high = box
    array = np.ascontiguousarray(mask[tuple(slice(a, b + 1) for a, b in zip(low, high))])
    bounds = [(extent[2 * axis] + low[2 - axis], extent[2 * axis] + high[2 - axis]) for axis in range(3)]
    return MaskRegion(array, tuple(int(value) for pair in bounds for value in pair))


def _component_at(
    mask: np.ndarray, extent: Extent, geometry: GridGeometry, point_ras: np.ndarray
) -> np.ndarray:
    """uint8 mask of the face-connected component at the point, or of the nearest within 5 mm."""
    voxel = _clicked_voxel(mask, extent, geometry, point_ras)
    if voxel is None:
        return np.zeros_like(mask)
    components = sitk.ConnectedComponent(sitk.GetImageFromArray(mask))
    labels = sitk.GetArrayViewFromImage(components)
    return (labels == labels[voxel]).view(np.uint8)


def _clicked_voxel(
    mask: np.ndarray, extent: Extent, geometry: GridGeometry, point_ras: np.ndarray
) -> tuple[int, int, int] | None:
    """KJI index in `mask` of the mask voxel that the point means; None if there is none within 5 mm."""
    start = np.array(extent[0::2])
    shape = np.array(mask.shape[::-1])
    click = geometry.point_to_ijk(point_ras) - start
    nearest = np.floor(click + 0.5).astype(int)
    # A click on the volume's outer face rounds to an index that is just outside.
    if geometry.contains(point_ras):
        nearest = np.minimum(np.maximum(nearest, -start), np.array(geometry.shape_ijk) - 1 - start)
    if np.all(nearest >= 0) and np.all(nearest < shape) and mask[tuple(nearest[::-1])]:
        return tuple(int(n) for n in nearest[::-1])
    # How far 5 mm in any direction can reach along each index axis.
    reach = NEAREST_COMPONENT_MM * np.linalg.norm(geometry.ras_to_ijk[:3, :3], axis=1)
    low = np.maximum(np.floor(click - reach), 0).astype(int)
    high = np.minimum(np.ceil(click + reach) + 1, shape).astype(int)
    if np.any(high <= low):
        return None
    window = mask[low[2] : high[2], low[1] : high[1], low[0] : high[0]]
    found = np.argwhere(window) + low[::-1]
    distances = np.linalg.norm((found[:, ::-1] - click) @ geometry.ijk_to_ras[:3, :3].T, axis=1)
    if distances.size == 0 or distances.min() > NEAREST_COMPONENT_MM:
        return None
    return tuple(int(n) for n in found[distances.argmin()])
