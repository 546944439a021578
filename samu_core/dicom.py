"""A DICOM folder as a Volume."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from samu_core.errors import VolumeError
from samu_core.geometry import Volume
from samu_core.io import MODALITY_TAG, itk_reason, known_modality, quiet_itk, volume_from_sitk

POSITION_TAG = "0020|0032"
SERIES_DESCRIPTION_TAG = "0008|103e"
# PATIENT/STUDY/SERIES below the folder that was given.
MAX_DEPTH = 3
# Of the usual distance between slices. Scanners round positions to 0.01 mm or so.
UNEVEN = 0.05


@dataclass(frozen=True)
class Series:
    """The files of one DICOM series, in the order of their positions."""

    folder: Path
    files: tuple[str, ...]


def read_dicom_folder(folder: Path) -> Volume:
    """The series with most slices in a folder or, if there is none, in the folders below it.

    Args:
        folder: a DICOM folder.

    Returns:
        Volume named after the series description; notes tell of other series and uneven slices.

    Raises:
        VolumeError: no series, a series of one slice or of several images at one place.
    """
    with quiet_itk():
        found = find_series(folder)
        if not found:
            raise VolumeError(f"There is no DICOM series in {folder}; {_contents(folder)}.")
        series = max(found, key=lambda each: len(each.files))
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(series.files)
        reader.MetaDataDictionaryArrayUpdateOn()
        try:
            image = reader.Execute()
        except RuntimeError as error:
            raise VolumeError(f"Cannot read the DICOM series in {folder}: {itk_reason(error)}.") from error
    name = _tag(reader, 0, SERIES_DESCRIPTION_TAG) or series.folder.name
    if image.GetSize()[-1] < 2:
        raise VolumeError(
            f"The largest DICOM series in {folder} ('{name}') has one slice; a 3D series is needed."
        )
    notes = []
    if len(found) > 1:
        notes.append(
            f"{folder} holds {len(found)} DICOM series; the one with most slices was taken: "
            f"'{name}', {len(series.files)} files."
        )
    if len(series.files) > 1:
        notes += check_positions(
            [_tag(reader, n, POSITION_TAG) for n in range(len(series.files))], image, name
        )
    volume = volume_from_sitk(image, name, known_modality(_tag(reader, 0, MODALITY_TAG)))
    volume.notes.extend(notes)
    return volume


def find_series(folder: Path) -> list[Series]:
    """All DICOM series directly in a folder; failing that, those in the folders below it."""
    found = _series_in(folder)
    if found:
        return found
    for parent, children, _ in os.walk(folder):
        children.sort()
        depth = len(Path(parent).relative_to(folder).parts)
        if depth >= MAX_DEPTH:
            children.clear()
        if depth > 0:
            found += _series_in(Path(parent))
    return found


def _series_in(folder: Path) -> list[Series]:
    # With details, images of another size or thickness under the same series UID (a scout, say)
    # make a series of their own instead of an error.
    try:
        details, names = True, sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder), True)
    except TypeError:  # SimpleITK 2.2 cannot list series by their details
        details, names = False, sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    files = [sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), name, details) for name in names]
    return [Series(folder, tuple(each)) for each in files if each]


def check_positions(positions: list[str], image: sitk.Image, name: str) -> list[str]:
    """Notes on slices that do not lie one regular step apart.

    Args:
        positions: Image Position (Patient) of each slice, "x\\y\\z" in LPS mm.
        image: the volume that was read.
        name: for messages.

    Raises:
        VolumeError: several images at one position, e.g. a series of several time points.
    """
    try:
        points = np.array([[float(part) for part in each.split("\\")] for each in positions])
    except ValueError:
        return [
            f"'{name}' has no slice positions; their distance was assumed to be {image.GetSpacing()[2]:g} mm."
        ]
    if points.ndim != 2 or points.shape[1] != 3:
        return []
    steps = np.diff(points, axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    usual = float(np.median(lengths))
    if lengths.min() < 0.01:
        raise VolumeError(
            f"The DICOM series '{name}' has several images at one position (time points or echoes?); "
            "export one of them as a volume first."
        )
    notes = []
    if np.abs(lengths - usual).max() > UNEVEN * usual:
        notes.append(
            f"The slices of '{name}' are {lengths.min():.2f} to {lengths.max():.2f} mm apart "
            "(missing slices?); places along the stack are approximate."
        )
    normal = np.reshape(image.GetDirection(), (3, 3))[:, 2]
    if np.abs(steps @ normal).sum() < 0.9998 * lengths.sum():  # more than about 1 degree
        notes.append(f"The slices of '{name}' are stacked obliquely (gantry tilt); places are approximate.")
    return notes


def _tag(reader: sitk.ImageSeriesReader, index: int, key: str) -> str:
    return reader.GetMetaData(index, key).strip() if reader.HasMetaDataKey(index, key) else ""


def _contents(folder: Path) -> str:
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in folder.iterdir())
    if not names:
        return "the folder is empty"
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"it holds {shown}; give an image file or another folder"
