"""Where `samu segment` writes: checked before any work, so that no result is lost to a typing error."""

from __future__ import annotations

import os
from pathlib import Path

from samu_core.errors import SamuError

SEGMENTATION = ".seg.nrrd"
# Removed from the image's name to make the output's; longest first.
IMAGE_ENDINGS = (".nii.gz", ".seg.nrrd", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm", ".hdr", ".img")


def absolute(path: Path) -> Path:
    """An absolute path without "..", links not followed."""
    return Path(os.path.abspath(path))


def stem(image: Path) -> str:
    """The image's name without its format: ct.nii.gz -> ct; a DICOM folder's name stays whole."""
    # Absolute, for the folder "."; links keep their own name.
    name = absolute(image).name
    for ending in IMAGE_ENDINGS:
        if name.lower().endswith(ending) and len(name) > len(ending) and not image.is_dir():
            return name[: -len(ending)]
    return name


def default_output(image: Path) -> Path:
    """IMAGE's name with .seg.nrrd, beside the image; beside the folder, not in it, for DICOM."""
    return absolute(image).parent / (stem(image) + SEGMENTATION)


def is_segmentation(path: Path) -> bool:
    """Whether a path asks for Slicer's segmentation rather than for a plain label map."""
    return path.name.lower().endswith(SEGMENTATION)


def refuse_input(output: Path, image: Path) -> None:
    """SamuError if the two are one file, whatever the paths look like."""
    if output.exists() and image.exists() and os.path.samefile(output, image):
        raise SamuError(f"the output {output} is the input; give another name with -o")


def check_output(output: Path, image: Path, force: bool) -> None:
    """Refuse an output that could not be written or that would destroy something.

    Raises:
        SamuError: unknown format, the input itself, an existing file without `force`, no such folder.
    """
    from samu_core.io import LABELMAP_SUFFIXES

    known = (SEGMENTATION, *LABELMAP_SUFFIXES)
    if not output.name.lower().endswith(known):
        raise SamuError(f"cannot write {output.name!r}: the name must end in one of {', '.join(known)}")
    refuse_input(output, image)
    if output.is_dir():
        raise SamuError(f"the output {output} is a folder; give a file name with -o")
    folder = output.resolve().parent
    if not folder.is_dir():
        raise SamuError(f"the output's folder {folder} does not exist; make it first")
    if not os.access(folder, os.W_OK):
        raise SamuError(f"the output's folder {folder} is not writable; give another one with -o")
    if output.exists() and not force:
        raise SamuError(f"{output} exists already; give --force to replace it, or another name with -o")
