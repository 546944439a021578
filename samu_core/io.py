"""Files to volumes and masks to files, through SimpleITK.

This is the only module in which LPS, the coordinate system of DICOM, ITK and the file formats,
appears: what comes in becomes RAS here, what goes out becomes LPS here.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from samu_core.errors import SamuError, VolumeError
from samu_core.geometry import GridGeometry, Volume

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
LABELMAP_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
SEGMENTATION_SUFFIXES = (".seg.nrrd", ".nrrd")
READABLE = "NIfTI, NRRD, MHA or a DICOM folder"
MODALITY_TAG = "0008|0060"


@dataclass(frozen=True)
class Segment:
    """A segment of a .seg.nrrd: name, colour (r, g, b from 0 to 1) and its value in the label map."""

    name: str
    color: tuple[float, float, float]
    label_value: int


def read_volume(path: str | os.PathLike) -> Volume:
    """A scalar volume from a file or DICOM folder.

    Args:
        path: anything SimpleITK reads in 3D, or a folder with a DICOM series. Of several series in
            the folder the one with most slices is taken, and `Volume.notes` says so.

    Returns:
        Volume in RAS; name from the file or series; modality "CT" or "MR" if DICOM says so.

    Raises:
        VolumeError: no such file, not an image, RGB, several time points, 2D.
    """
    path = Path(path)
    if path.is_dir():
        from samu_core.dicom import read_dicom_folder

        return read_dicom_folder(path)
    if not path.exists():
        raise VolumeError(f"There is no file {path}; check the path.")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    with quiet_itk():
        try:
            image = reader.Execute()
        except RuntimeError as error:
            raise VolumeError(f"Cannot read {path} ({itk_reason(error)}); {READABLE} is needed.") from error
    if image.HasMetaDataKey(MODALITY_TAG) and image.GetSize()[-1] == 1:
        raise VolumeError(f"{path.name} is a single DICOM slice; give the folder of its series instead.")
    return volume_from_sitk(image, name=without_suffix(path.name))


def volume_from_sitk(image: sitk.Image, name: str = "", modality: str | None = None) -> Volume:
    """A SimpleITK image (LPS) as a Volume (RAS).

    Trailing dimensions of size 1 and vectors of one component are dropped. `modality` None is taken
    from the image's DICOM tag, if it has one.

    Raises:
        VolumeError: RGB or vector, several time points, 2D.
    """
    label = f"'{name}'" if name else "The image"
    while image.GetDimension() > 3 and image.GetSize()[-1] == 1:
        image = image[(slice(None),) * (image.GetDimension() - 1) + (0,)]
    if image.GetDimension() > 3:
        raise VolumeError(
            f"{label} has {image.GetSize()[-1]} time points or channels; extract one 3D volume first."
        )
    if image.GetDimension() < 3:
        size = " x ".join(str(n) for n in image.GetSize())
        raise VolumeError(f"{label} is a 2D image ({size}); a 3D volume is needed.")
    components = image.GetNumberOfComponentsPerPixel()
    is_complex = image.GetPixelID() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64)
    if components == 1 and "vector" in image.GetPixelIDTypeAsString():
        image = sitk.VectorIndexSelectionCast(image, 0)
    elif components > 1 and not is_complex:
        raise VolumeError(
            f"{label} is an RGB or vector image ({components} values per voxel); "
            "convert it to a scalar volume first."
        )
    if modality is None and image.HasMetaDataKey(MODALITY_TAG):
        modality = known_modality(image.GetMetaData(MODALITY_TAG))
    return Volume(sitk.GetArrayFromImage(image), geometry_from_sitk(image).ijk_to_ras, name, modality)


def geometry_from_sitk(image: sitk.Image) -> GridGeometry:
    """Grid of a 3D SimpleITK image, LPS turned into RAS."""
    ijk_to_lps = np.eye(4)
    ijk_to_lps[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    ijk_to_lps[:3, 3] = image.GetOrigin()
    return GridGeometry(image.GetSize()[::-1], LPS_TO_RAS @ ijk_to_lps)


def image_from_labels(array: np.ndarray, geometry: GridGeometry) -> sitk.Image:
    """A label map (K, J, I) on its grid as a SimpleITK image, RAS turned into LPS."""
    array = np.asarray(array)
    if array.shape != geometry.shape_kji:
        raise ValueError(f"A label map of shape {array.shape} does not fit the grid {geometry.shape_kji}.")
    if array.dtype.kind not in "biu":
        raise ValueError(f"A label map holds integers; got {array.dtype}.")
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    image = sitk.GetImageFromArray(array)
    ijk_to_lps = LPS_TO_RAS @ geometry.ijk_to_ras
    image.SetOrigin(ijk_to_lps[:3, 3].tolist())
    image.SetSpacing(geometry.spacing.tolist())
    image.SetDirection((ijk_to_lps[:3, :3] / geometry.spacing).ravel().tolist())
    return image


def write_labelmap(path: str | os.PathLike, array: np.ndarray, geometry: GridGeometry) -> None:
    """Write a label map as .nii.gz, .nii, .nrrd or .mha, compressed; whole or not at all.

    Args:
        path: an existing file is replaced, and only once the new one is complete.
        array: (K, J, I) integers, uint8 or uint16 as a rule.
        geometry: its grid.

    Raises:
        SamuError: the format cannot hold the grid, or the file cannot be written.
    """
    path = Path(path)
    suffix = _suffix(path, LABELMAP_SUFFIXES)
    if suffix.startswith(".nii") and not _is_orthogonal(geometry):
        raise SamuError(
            f"NIfTI cannot hold the sheared grid of this volume; write {path.name} as .nrrd instead."
        )
    image = image_from_labels(array, geometry)
    _write_whole(path, suffix, lambda temporary: sitk.WriteImage(image, temporary, useCompression=True))


def write_seg_nrrd(
    path: str | os.PathLike, array: np.ndarray, geometry: GridGeometry, segments: Sequence[Segment]
) -> None:
    """Write a label map as a Slicer segmentation (.seg.nrrd), compressed; whole or not at all.

    The header fields are those of Slicer's vtkMRMLSegmentationStorageNode: one layer, the volume's
    grid as reference geometry, one entry per segment. Any NRRD reader reads it as a label map.

    Args:
        path: ends in .seg.nrrd; an existing file is replaced once the new one is complete.
        array: (K, J, I) uint8 or uint16, 0 for background.
        geometry: its grid.
        segments: every value of the array except 0 needs one; a segment may have no voxels.

    Raises:
        SamuError: the file cannot be written.
        ValueError: segments and array do not belong together.
    """
    path = Path(path)
    suffix = _suffix(path, SEGMENTATION_SUFFIXES)
    image = image_from_labels(array, geometry)
    for key, value in _segmentation_header(np.asarray(array), geometry, segments).items():
        image.SetMetaData(key, value)
    _write_whole(path, suffix, lambda temporary: sitk.WriteImage(image, temporary, useCompression=True))


def _segmentation_header(
    array: np.ndarray, geometry: GridGeometry, segments: Sequence[Segment]
) -> dict[str, str]:
    values = [int(segment.label_value) for segment in segments]
    if min(values, default=1) < 1 or len(set(values)) < len(values):
        raise ValueError(f"Segments need distinct label values above 0; got {values}.")
    stray = set(np.unique(array).tolist()) - {0, *values}
    if stray:
        raise ValueError(f"The label map holds values without a segment: {sorted(stray)}.")
    matrix = ";".join(f"{value:.17g}" for value in geometry.ijk_to_ras.ravel())
    extent = ";".join(f"0;{n - 1}" for n in geometry.shape_ijk)
    header = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_ConversionParameters": f"Reference image geometry|{matrix};{extent};|&",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for index, segment in enumerate(segments):
        fields = {
            "ID": f"Segment_{segment.label_value}",
            "Name": " ".join(segment.name.split()),
            "NameAutoGenerated": "0",
            "Color": " ".join(f"{min(max(float(part), 0.0), 1.0):.6g}" for part in segment.color),
            "ColorAutoGenerated": "0",
            "Extent": _extent_of(array == segment.label_value),
            "LabelValue": str(int(segment.label_value)),
            "Layer": "0",
            "Tags": "Segmentation.Status:inprogress|",
        }
        header.update({f"Segment{index}_{key}": value for key, value in fields.items()})
    return header


def _extent_of(mask: np.ndarray) -> str:
    """'i0 i1 j0 j1 k0 k1' around a KJI mask, '0 -1 0 -1 0 -1' if it is empty."""
    bounds = []
    for axis in (2, 1, 0):
        filled = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        bounds += [filled[0], filled[-1]] if filled.size else [0, -1]
    return " ".join(str(int(value)) for value in bounds)


def _is_orthogonal(geometry: GridGeometry) -> bool:
    directions = geometry.ijk_to_ras[:3, :3] / geometry.spacing
    return bool(np.allclose(directions.T @ directions, np.eye(3), atol=1e-4))


def _suffix(path: Path, known: Sequence[str]) -> str:
    for suffix in known:
        if path.name.lower().endswith(suffix):
            return suffix
    raise SamuError(f"Cannot write {path.name}: the name must end in {' or '.join(known)}.")


def _write_whole(path: Path, suffix: str, write: Callable[[str], Any]) -> None:
    """Write to a temporary file beside `path`, then put it in its place in one step."""
    temporary = path.with_name(f".{path.name[: -len(suffix)]}-{uuid.uuid4().hex[:8]}{suffix}")
    try:
        with quiet_itk():
            write(str(temporary))
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else itk_reason(error)
        raise SamuError(f"Cannot write {path}: {_write_obstacle(path) or reason}") from error
    finally:
        # Also after a KeyboardInterrupt: nothing half-written stays behind.
        temporary.unlink(missing_ok=True)


def _write_obstacle(path: Path) -> str:
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist; create it first."
    if path.is_dir():
        return "it is a folder; give a file name."
    if not os.access(path.parent, os.W_OK):
        return f"the folder {path.parent} is not writable; choose another one."
    return ""


def without_suffix(name: str) -> str:
    """File name without its image suffix, double ones like .nii.gz included."""
    for suffix in (".seg.nrrd", ".nii.gz"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return Path(name).stem


def known_modality(text: str) -> str | None:
    """DICOM's modality if it is one that matters here: "CT", "MR" or None."""
    text = text.strip().upper()
    return text if text in ("CT", "MR") else None


def itk_reason(error: Exception) -> str:
    """The part of an ITK error that says what is wrong, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    last = lines[-1]
    for marker in ("ERROR:", "[nrrd]"):
        last = last.split(marker)[-1].strip()
    return last.rstrip(".")


@contextmanager
def quiet_itk() -> Iterator[None]:
    """ITK prints warnings to stderr, several lines each; what matters is said in notes and errors."""
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
