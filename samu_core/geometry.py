"""Where voxels are: volumes, the patch the network sees, and the way between the two.

Arrays are KJI (z, y, x), points are RAS millimetres, IJK is (i, j, k) in the volume's own grid.
A grid is any invertible affine: oblique, flipped, anisotropic and sheared ones are all alike here.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from samu_core.errors import PointOutsideVolumeError, SamuError, VolumeError
from samu_core.resampling import resample_index_space

PATCH_SIZE = 128
PATCH_SPACING_MM = 1.5
OUTSIDE_LOGIT = float("-inf")
SAMPLED_VOXELS = 2_000_000  # of a volume at a time
# |det| / product of the column lengths: 1 for orthogonal axes, 0 for axes in one plane.
MIN_AXES_INDEPENDENCE = 1e-6
# Round-off allowed when a point lies on the outermost face of the outermost voxels (in voxels).
FACE_TOLERANCE = 1e-6

Extent = tuple[int, int, int, int, int, int]
EMPTY_EXTENT: Extent = (0, -1, 0, -1, 0, -1)


def as_point(point_ras: Any) -> np.ndarray:
    """A RAS point as (3,) float64; SamuError unless it is three numbers (NaN and inf pass)."""
    try:
        point = np.asarray(point_ras, dtype=np.float64)
    except (TypeError, ValueError):
        point = np.empty(0)
    if point.shape != (3,):
        raise SamuError(f"A point needs three numbers, R A S in mm; got {point_ras!r}.")
    return point


def _apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The (4, 4) affine applied to (..., 3) points."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def _box_corners(low: Sequence[float], high: Sequence[float]) -> np.ndarray:
    """(8, 3) corners of the box between two (3,) points."""
    pairs = np.stack([low, high])
    return np.array([[pairs[a, 0], pairs[b, 1], pairs[c, 2]] for a in (0, 1) for b in (0, 1) for c in (0, 1)])


@dataclass(frozen=True, eq=False)
class GridGeometry:
    """A voxel grid in space.

    Attributes:
        shape_kji: number of voxels along K, J, I; each at least 1.
        ijk_to_ras: (4, 4) float64, continuous voxel index (i, j, k) -> RAS mm, the centre of
            voxel 0 at index 0 (as vtkMRMLVolumeNode::GetIJKToRASMatrix). Read-only copy.

    Raises:
        VolumeError: the matrix is not finite, not affine or not invertible.
    """

    shape_kji: tuple[int, int, int]
    ijk_to_ras: np.ndarray

    def __post_init__(self):
        shape = tuple(int(n) for n in self.shape_kji)
        matrix = np.array(self.ijk_to_ras, dtype=np.float64)
        if len(shape) != 3 or min(shape) < 1:
            raise VolumeError(f"A grid needs at least one voxel along each of three axes; got {shape}.")
        _check_affine(matrix)
        matrix.setflags(write=False)
        object.__setattr__(self, "shape_kji", shape)
        object.__setattr__(self, "ijk_to_ras", matrix)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GridGeometry):
            return NotImplemented
        return self.shape_kji == other.shape_kji and np.array_equal(self.ijk_to_ras, other.ijk_to_ras)

    def __hash__(self) -> int:
        # + 0.0 turns -0.0 into 0.0: the two compare equal and must hash alike.
        return hash((self.shape_kji, (self.ijk_to_ras + 0.0).tobytes()))

    @cached_property
    def ras_to_ijk(self) -> np.ndarray:
        """(4, 4) float64, RAS mm -> continuous voxel index (i, j, k)."""
        matrix = np.linalg.inv(self.ijk_to_ras)
        matrix.setflags(write=False)
        return matrix

    @property
    def shape_ijk(self) -> tuple[int, int, int]:
        """Number of voxels along I, J, K."""
        return self.shape_kji[::-1]

    @property
    def spacing(self) -> np.ndarray:
        """(3,) voxel size along I, J, K in mm: the lengths of the matrix's columns."""
        return np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0)

    def point_to_ijk(self, point_ras: Any) -> np.ndarray:
        """Continuous index (i, j, k) of a RAS point; whole numbers are voxel centres."""
        return _apply(self.ras_to_ijk, as_point(point_ras))

    def ijk_to_point(self, ijk: Any) -> np.ndarray:
        """RAS point (3,) of a continuous index (i, j, k)."""
        return _apply(self.ijk_to_ras, as_point(ijk))

    def contains(self, point_ras: Any) -> bool:
        """True within the voxels' own extent: half a voxel beyond the outer voxel centres."""
        ijk = self.point_to_ijk(point_ras)
        upper = np.array(self.shape_ijk) - 0.5
        return bool(np.all(ijk >= -0.5 - FACE_TOLERANCE) and np.all(ijk <= upper + FACE_TOLERANCE))

    def bounds_ras(self) -> tuple[np.ndarray, np.ndarray]:
        """(min (3,), max (3,)) RAS mm of the box around all voxels, outer faces included."""
        corners = _box_corners([-0.5] * 3, np.array(self.shape_ijk) - 0.5)
        points = _apply(self.ijk_to_ras, corners)
        return points.min(axis=0), points.max(axis=0)

    @property
    def is_axis_aligned(self) -> bool:
        """True when every grid axis runs along one RAS axis (flips and permutations included)."""
        directions = np.abs(self.ijk_to_ras[:3, :3]) / self.spacing
        return bool(np.allclose(directions.max(axis=0), 1.0, atol=1e-6))


def _check_affine(matrix: np.ndarray) -> None:
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or not np.allclose(matrix[3], (0, 0, 0, 1)):
        raise VolumeError("The volume's IJK-to-RAS matrix must be a finite 4x4 affine; check its geometry.")
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if lengths.min() <= 0 or abs(np.linalg.det(matrix[:3, :3] / lengths)) < MIN_AXES_INDEPENDENCE:
        raise VolumeError(
            "The volume's geometry is singular (a voxel axis has no length or two axes coincide); "
            "correct its spacing and directions."
        )


class Volume:
    """A scalar image with its place in space. The array is kept as given: a view is never copied.

    Attributes:
        array: (K, J, I) real numbers of any numeric dtype; NaN voxels count as outside.
        geometry: GridGeometry of that array.
        name: for messages.
        modality: "CT", "MR" or None when unknown.
        version: a hashable that names this content, e.g. (node ID, MTime). Two volumes of equal
            version and geometry are taken to hold the same voxels, which lets the Predictor skip
            reading them again. None: no such promise.
        notes: remarks of the reader for the user, one line each.

    Raises:
        VolumeError: not three-dimensional, RGB or vector, fewer than two slices along an axis,
            not real numbers, or a singular geometry. Voxel values are not looked at here: that
            would cost a pass over the whole volume at every click.
    """

    def __init__(
        self,
        array: np.ndarray,
        ijk_to_ras: np.ndarray,
        name: str = "",
        modality: str | None = None,
        version: Hashable = None,
        notes: Sequence[str] = (),
    ):
        array = np.asanyarray(array)
        self.name = name
        self._check_array(array)
        if modality not in (None, "CT", "MR"):
            raise VolumeError(f"The modality must be CT, MR or left out; got {modality!r}.")
        self.array = array
        self.geometry = GridGeometry(array.shape, ijk_to_ras)
        self.modality = modality
        self.version = version
        self.notes = list(notes)

    def _check_array(self, array: np.ndarray) -> None:
        label = f"Volume '{self.name}'" if self.name else "The volume"
        if array.ndim == 4:
            raise VolumeError(
                f"{label} is an RGB or vector image ({array.shape[-1]} values per voxel); convert it to a "
                "scalar volume first (in Slicer: module Vector to Scalar Volume)."
            )
        if array.ndim != 3:
            raise VolumeError(f"{label} has {array.ndim} dimensions; a 3D image is needed.")
        if array.size == 0:
            raise VolumeError(f"{label} is empty; load an image with voxels.")
        if min(array.shape) < 2:
            size = " x ".join(str(n) for n in array.shape[::-1])
            raise VolumeError(f"{label} has {size} voxels; at least 2 slices along every axis are needed.")
        if array.dtype.kind not in "biuf":
            raise VolumeError(
                f"{label} holds {array.dtype} values; a scalar image of real numbers is needed."
            )

    def require_inside(self, point_ras: Any) -> np.ndarray:
        """The point as (3,) float64, or PointOutsideVolumeError that says where the volume is."""
        point = as_point(point_ras)
        low, high = self.geometry.bounds_ras()
        where = ", ".join(f"{axis} {a:.1f} to {b:.1f}" for axis, a, b in zip("RAS", low, high))
        label = f"volume '{self.name}'" if self.name else "the volume"
        click = ", ".join(f"{axis} {value:.1f}" for axis, value in zip("RAS", point))
        if not np.isfinite(point).all():
            raise PointOutsideVolumeError(
                f"The click ({click}) is not a position; click inside {label}: {where} mm."
            )
        if not self.geometry.contains(point):
            box = "" if self.geometry.is_axis_aligned else ", the box around its oblique grid"
            raise PointOutsideVolumeError(
                f"The click ({click} mm) is outside {label}; click within {where} mm{box}."
            )
        return point


@dataclass(frozen=True)
class PatchGrid:
    """The cube of voxels that the network sees, axis-aligned in RAS: I -> R, J -> A, K -> S.

    Attributes:
        center_ras: (3,) RAS mm of the patch's centre, which has index (size - 1) / 2 on each axis.
        size: voxels along each axis.
        spacing: isotropic voxel size in mm. 1.5 mm is SAM-Med3D's convention, which the SAMU
            paper follows (Sec. 3.1).

    Two grids compare equal when they are the same cube, so a grid can be a cache key.
    """

    center_ras: tuple[float, float, float]
    size: int = PATCH_SIZE
    spacing: float = PATCH_SPACING_MM

    def __post_init__(self):
        center = as_point(self.center_ras)
        if not np.isfinite(center).all():
            raise SamuError(f"The centre of a patch must be finite; got {tuple(center)}.")
        if int(self.size) < 1 or not 0 < float(self.spacing) < float("inf"):
            raise SamuError(f"A patch needs a positive size and spacing; got {self.size}, {self.spacing}.")
        object.__setattr__(self, "center_ras", tuple(float(value) for value in center))
        object.__setattr__(self, "size", int(self.size))
        object.__setattr__(self, "spacing", float(self.spacing))

    @classmethod
    def for_click(
        cls,
        volume: Volume,
        point_ras: Any,
        spacing: float | str = PATCH_SPACING_MM,
        size: int = PATCH_SIZE,
    ) -> PatchGrid:
        """The patch centred on a click.

        Args:
            volume: the image; the click must lie in it (PointOutsideVolumeError).
            point_ras: click, RAS mm.
            spacing: mm, or "native" for isotropic voxels of the volume's smallest spacing.
            size: voxels along each axis.
        """
        point = volume.require_inside(point_ras)
        if spacing == "native":
            spacing = float(volume.geometry.spacing.min())
        elif isinstance(spacing, str):
            raise SamuError(f'The patch spacing is a number of mm or "native"; got {spacing!r}.')
        return cls(tuple(point), size, spacing)

    @cached_property
    def geometry(self) -> GridGeometry:
        """GridGeometry of the patch."""
        matrix = np.diag([self.spacing] * 3 + [1.0])
        matrix[:3, 3] = np.array(self.center_ras) - self.spacing * (self.size - 1) / 2
        return GridGeometry((self.size,) * 3, matrix)

    def point_to_kji(self, point_ras: Any) -> np.ndarray:
        """(3,) continuous patch index (k, j, i) of a RAS point."""
        return self.geometry.point_to_ijk(point_ras)[::-1].copy()

    def fraction_kji(self, point_ras: Any) -> np.ndarray:
        """(3,) place of a RAS point as a fraction of the field of view, KJI: 0 and 1 are its outer faces."""
        return (self.point_to_kji(point_ras) + 0.5) / self.size

    def sample(self, volume: Volume, interpolation: str = "linear") -> np.ndarray:
        """The volume seen through this patch.

        Args:
            volume: the image.
            interpolation: "linear", or "nearest" for label maps.

        Returns:
            (size, size, size) float32, KJI. NaN where the volume does not reach (more than half
            a voxel beyond its outer voxel centres) and where it holds no finite value.
        """
        patch_to_volume = volume.geometry.ras_to_ijk @ self.geometry.ijk_to_ras
        patch = np.empty((self.size,) * 3, dtype=np.float32)
        # Slab by slab: what SimpleITK copies of the volume would be the largest thing in memory.
        per_slice = self.size**2 * abs(np.linalg.det(patch_to_volume[:3, :3]))
        count = int(min(max(SAMPLED_VOXELS / per_slice, 1), self.size))
        for start in range(0, self.size, count):
            slab = patch[start : start + count]
            slab_to_volume = patch_to_volume.copy()
            slab_to_volume[:3, 3] = _apply(patch_to_volume, np.array([0.0, 0.0, start]))
            _sample_into(slab, volume, slab_to_volume, interpolation)
        if volume.array.dtype.kind == "f":
            # ITK writes what does not fit float32, infinity included, as the largest float32.
            patch[np.abs(patch) >= np.finfo(np.float32).max] = np.nan
        return patch

    def resample_logits(
        self,
        logits: np.ndarray,
        target: GridGeometry,
        box_kji: tuple[Sequence[int], Sequence[int]] | None = None,
    ) -> tuple[np.ndarray, Extent]:
        """Logits of this patch on another grid, by linear interpolation.

        Args:
            logits: (size, size, size) float32, KJI.
            target: the grid to fill, e.g. the segmentation's.
            box_kji: (first (3,), last (3,)) patch index, both inclusive, to which the work is
                restricted; None is the whole patch.

        Returns:
            (array, extent): array float32 (dk, dj, di), -inf outside the patch or box; extent
            (i0, i1, j0, j1, k0, k1), inclusive and in VTK's order, is where it lies on the target
            grid. Only target voxels around the patch or box are there, clipped to the target; if
            there are none, the array is empty and i1 < i0. On the patch's own grid it is a part of `logits`.
        """
        logits = np.asarray(logits)
        if logits.shape != (self.size,) * 3:
            raise ValueError(f"Logits of shape {(self.size,) * 3} are needed; got {logits.shape}.")
        first = np.zeros(3, int) if box_kji is None else np.maximum(np.asarray(box_kji[0], int), 0)
        last = (
            np.full(3, self.size - 1)
            if box_kji is None
            else np.minimum(np.asarray(box_kji[1], int), self.size - 1)
        )
        patch_to_target = target.ras_to_ijk @ self.geometry.ijk_to_ras
        corners = _apply(patch_to_target, _box_corners(first[::-1] - 0.5, last[::-1] + 0.5))
        low = np.maximum(np.ceil(corners.min(axis=0) - FACE_TOLERANCE), 0).astype(int)
        high = np.minimum(np.floor(corners.max(axis=0) + FACE_TOLERANCE) + 1, target.shape_ijk).astype(int)
        if np.any(last < first) or np.any(high <= low):
            return np.empty((0, 0, 0), dtype=np.float32), EMPTY_EXTENT
        crop = logits[first[0] : last[0] + 1, first[1] : last[1] + 1, first[2] : last[2] + 1]
        extent = tuple(int(value) for pair in zip(low, high - 1) for value in pair)
        if target == self.geometry:
            return crop, extent
        target_to_patch = self.geometry.ras_to_ijk @ target.ijk_to_ras
        target_to_patch[:3, 3] = _apply(target_to_patch, low.astype(float))
        array = resample_index_space(
            crop, target_to_patch, first[::-1], tuple(high - low)[::-1], "linear", OUTSIDE_LOGIT
        )
        return array, extent


def bounding_box(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """(first (3,), last (3,)) index KJI, inclusive, of what is not zero in a (k, j, i) mask; None if all is
    zero."""
    low, high = [], []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(mask.any(axis=others))
        if filled.size == 0:
            return None
        low.append(filled[0])
        high.append(filled[-1])
    return np.array(low), np.array(high)


def _sample_into(slab: np.ndarray, volume: Volume, to_volume: np.ndarray, interpolation: str) -> None:
    """`PatchGrid.sample` of some slices: fills `slab`; `to_volume` (4, 4) takes its indices to the
    volume's."""
    corners = _apply(to_volume, _box_corners([0.0] * 3, [size - 1.0 for size in slab.shape[::-1]]))
    # One voxel more on each side than linear interpolation touches.
    low = np.maximum(np.floor(corners.min(axis=0)) - 1, 0).astype(int)
    high = np.minimum(np.ceil(corners.max(axis=0)) + 2, volume.geometry.shape_ijk).astype(int)
    if np.any(high <= low):
        slab.fill(np.nan)
        return
    crop = volume.array[low[2] : high[2], low[1] : high[1], low[0] : high[0]]
    slab[:] = resample_index_space(crop, to_volume, low, slab.shape, interpolation, float("nan"))
