"""Small labelled volumes on disk, in the layout that `samu evaluate` reads."""

import csv

import numpy as np
import SimpleITK as sitk

COLUMNS = ["name", "has_image", "split", "modality", "boundary", "label_names", "source_repo"]


def ball(shape, centre, radius, spacing=(1.0, 1.0, 1.0)):
    """Bool KJI ball; centre in voxels, radius in the unit of spacing."""
    grid = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    return sum(((g - c) * s) ** 2 for g, c, s in zip(grid, centre, spacing)) <= radius**2


def write_volume(folder, name, image, labels, spacing_ijk=(1.5, 1.5, 1.5)):
    """vol/NAME_img.nii.gz and vol/NAME_lab.nii.gz of KJI arrays."""
    (folder / "vol").mkdir(parents=True, exist_ok=True)
    for suffix, array in (("img", image.astype(np.int16)), ("lab", labels.astype(np.uint16))):
        picture = sitk.GetImageFromArray(array)
        picture.SetSpacing(spacing_ijk)
        picture.SetOrigin((-20.0, 30.0, 10.0))
        sitk.WriteImage(picture, str(folder / "vol" / f"{name}_{suffix}.nii.gz"))


def write_manifest(folder, rows):
    """manifest.csv; rows: dicts, absent columns as a plain visible MR of split dev."""
    usual = {"has_image": "1", "split": "dev", "modality": "MR-T1", "boundary": "visible", "label_names": ""}
    with open(folder / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*COLUMNS, "note"])
        writer.writeheader()
        writer.writerows({**usual, **row} for row in rows)


def two_balls(folder):
    """Two volumes of two sources: MR "a/known" (a training row exists) with one label in two places and a
    label of nine voxels; CT "b/new" with one ball. Bright on dark noise. Returns the folder."""
    rng = np.random.default_rng(1)
    shape = (30, 36, 40)
    first, second = ball(shape, (14, 12, 12), 6), ball(shape, (14, 24, 28), 4)
    labels = 1 * (first | second)
    labels[2, 2:5, 2:5] = 7
    write_volume(folder, "pair", 100 + 300 * (labels > 0) + rng.normal(0, 20, shape), labels)
    single = ball(shape, (15, 18, 20), 7)
    write_volume(folder, "single", -900 + 950 * single + rng.normal(0, 20, shape), 5 * single)
    write_manifest(
        folder,
        [
            {"name": "pair", "source_repo": "a/known", "label_names": "1=both_balls;7=speck"},
            {"name": "single", "source_repo": "b/new", "modality": "CT", "label_names": "5=ball"},
            {"name": "elsewhere", "source_repo": "a/known", "split": "train"},
            {"name": "shapes", "source_repo": "c/shapes", "has_image": "0"},
        ],
    )
    return folder
