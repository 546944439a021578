"""Linear and nearest-neighbour resampling between two voxel grids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk


def resample_index_space(
    crop: np.ndarray,
    index_to_index: np.ndarray,
    crop_start_ijk: Sequence[int],
    shape_kji: tuple[int, ...],
    interpolation: str,
    default: float,
) -> np.ndarray:
    """A crop of one grid on another grid, by one SimpleITK resample.

    SimpleITK images demand orthogonal directions; images of identity geometry and an affine
    transform between the two index spaces serve sheared grids as well.

    Args:
        crop: (dk, dj, di) real numbers, KJI; read, never changed. float32 or wider is computed as
            float32.
        index_to_index: (4, 4) affine, output index (i, j, k) -> source index (i, j, k).
        crop_start_ijk: (3,) source index of the crop's first voxel.
        shape_kji: output shape.
        interpolation: "linear" or "nearest".
        default: value more than half a voxel beyond the crop's outer voxel centres. Nearer than
            that, ITK repeats the outer voxel.

    Returns:
        float32 of shape_kji.
    """
    interpolators = {"linear": sitk.sitkLinear, "nearest": sitk.sitkNearestNeighbor}
    if interpolation not in interpolators:
        raise ValueError(f'The interpolation is "linear" or "nearest"; got {interpolation!r}.')
    image = sitk.GetImageFromArray(_as_sitk_pixels(crop))
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(index_to_index[:3, :3].ravel().tolist())
    transform.SetTranslation((index_to_index[:3, 3] - np.asarray(crop_start_ijk)).tolist())
    resampled = sitk.Resample(
        image,
        [int(n) for n in shape_kji[::-1]],
        transform,
        interpolators[interpolation],
        [0.0] * 3,
        [1.0] * 3,
        np.eye(3).ravel().tolist(),
        default,
        sitk.sitkFloat32,
    )
    return sitk.GetArrayFromImage(resampled)


def _as_sitk_pixels(crop: np.ndarray) -> np.ndarray:
    """A contiguous copy in a pixel type ITK can interpolate; short integers stay as small as they are."""
    kind, size = crop.dtype.kind, crop.dtype.itemsize
    if kind == "b":
        return np.ascontiguousarray(crop, dtype=np.uint8)
    if kind in "iu" and size <= 2:
        return np.ascontiguousarray(crop, dtype=crop.dtype.newbyteorder("="))
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinity, which the caller handles
        return np.ascontiguousarray(crop, dtype=np.float32)
