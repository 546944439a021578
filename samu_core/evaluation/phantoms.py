"""`samu make-phantoms`: a small labelled data set of formulas, laid out as training and evaluation read it.

For trying the whole chain where there is no data. The phantoms are one anatomy with other waves and noise:
what a model reaches on them says nothing about patients.
"""

from __future__ import annotations

import argparse
import csv
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from samu_core.demo.phantom import LABELS, make_phantom
from samu_core.errors import SamuError
from samu_core.geometry import GridGeometry
from samu_core.io import image_from_labels, quiet_itk

COLUMNS = (
    "name", "has_image", "split", "modality", "region", "label_kind", "boundary", "shape", "spacing",
    "n_labels", "label_names", "source_repo", "path", "note",
)  # fmt: skip
SOURCE = "phantom"
# Grey of an MR-like image over HU: air and bone dark, fat bright, contrast medium in between.
MR_FROM_HU = ((-1000, -300, -100, 0, 60, 130, 200, 400, 700), (0, 20, 900, 250, 420, 520, 640, 160, 60))
FINEST_MM, COARSEST_MM = 1.0, 6.0


@dataclass(frozen=True)
class PhantomSet:
    """How many subjects of each kind: images for training (CT and MR by turns), label maps for training, and
    images for `dev`. spacing: mm between voxels within a slice; slices are a third thicker."""

    train: int = 2
    labelmaps: int = 1
    dev: int = 2
    spacing: float = 3.0

    def __post_init__(self) -> None:
        if min(self.train, self.labelmaps, self.dev) < 0 or self.train + self.labelmaps + self.dev < 1:
            raise SamuError("the numbers of phantoms must be 0 or more, and one of them above 0.")
        if not FINEST_MM <= self.spacing <= COARSEST_MM:
            raise SamuError(f"the phantoms' spacing must be {FINEST_MM:g} to {COARSEST_MM:g} mm.")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `samu make-phantoms`."""
    usual = PhantomSet()
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="folder to fill; its manifest.csv is replaced"
    )
    parser.add_argument("--train", type=int, default=usual.train, help="training images (default: 2)")
    parser.add_argument("--labelmaps", type=int, default=usual.labelmaps, help="label maps (default: 1)")
    parser.add_argument("--dev", type=int, default=usual.dev, help="images of the split dev (default: 2)")
    parser.add_argument("--spacing", type=float, default=usual.spacing, help="mm per voxel (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="seed of waves and noise (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Write the data set. Returns the exit code."""
    wanted = PhantomSet(args.train, args.labelmaps, args.dev, args.spacing)
    rows = make_phantoms(args.folder, wanted, args.seed)
    print(f"{args.folder}: {len(rows)} phantoms, manifest.csv")
    return 0


def make_phantoms(folder: Path, wanted: PhantomSet, seed: int = 0) -> list[dict[str, str]]:
    """Write vol/, labelmaps/ and manifest.csv of a data set; the same seed gives the same voxels.

    Returns:
        the manifest's rows.
    """
    folder = Path(folder)
    if folder.is_file():
        raise SamuError(f"{folder} is a file; name a folder.")
    plan = (
        [("train", True)] * wanted.train
        + [("train", False)] * wanted.labelmaps
        + [("dev", True)] * wanted.dev
    )
    rows = []
    for number, (split, has_image) in enumerate(plan):
        modality = "CT" if number % 2 == 0 else "MR-T1"
        rows.append(_write_subject(folder, number, split, modality, has_image, wanted.spacing, seed))
    temporary = folder / "manifest.csv.part"
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, folder / "manifest.csv")
    return rows


def mr_like(hu: np.ndarray) -> np.ndarray:
    """Non-negative grey levels (int16) for Hounsfield units: another modality of the same anatomy."""
    return np.interp(hu, *MR_FROM_HU).astype(np.int16)


def _write_subject(folder, number, split, modality, has_image, spacing, seed) -> dict[str, str]:
    import SimpleITK as sitk

    phantom = make_phantom((spacing, spacing, spacing * 4 / 3), seed=1000 * seed + number)
    geometry = phantom.volume.geometry
    name = f"phantom_{number:03d}"
    target = folder / ("vol" if has_image else "labelmaps")
    target.mkdir(parents=True, exist_ok=True)
    with quiet_itk():
        labels = image_from_labels(phantom.labels, geometry)
        sitk.WriteImage(labels, str(target / f"{name}_lab.nii.gz"), useCompression=True)
        if has_image:
            array = phantom.volume.array if modality == "CT" else mr_like(phantom.volume.array)
            image = sitk.GetImageFromArray(array.astype(np.int16))
            image.CopyInformation(labels)
            sitk.WriteImage(image, str(target / f"{name}_img.nii.gz"), useCompression=True)
    return {
        "name": name,
        "has_image": str(int(has_image)),
        "split": split,
        "modality": modality,
        "region": "abdomen",
        "label_kind": "organ",
        "boundary": "visible",
        "label_names": ";".join(f"{value}={word.replace(' ', '_')}" for word, value in LABELS.items()),
        "source_repo": f"{SOURCE}/{modality.split('-')[0].lower()}",
        "path": f"samu_core.demo.phantom, seed {1000 * seed + number}",
        **_size_of(geometry),
    }


def _size_of(geometry: GridGeometry) -> dict[str, str]:
    return {
        "shape": "x".join(str(n) for n in geometry.shape_kji[::-1]),
        "spacing": "x".join(f"{value:g}" for value in geometry.spacing),
        "n_labels": str(len(LABELS)),
    }
