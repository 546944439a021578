"""What is clicked: volumes of a manifest, structures in their label maps, and reproducible clicks.

A data directory holds manifest.csv and vol/NAME_img.nii.gz, vol/NAME_lab.nii.gz (a label map on the
image's grid). Columns read: name, has_image, split, modality, boundary, label_names ("1=spleen;5=liver"),
source_repo.

Rules (the evaluation protocol of this project):
- A structure is a label. Its connected parts (26-neighbourhood, on the volume's own grid) of at least
  60 patch voxels (3.4 mm^3 each at 1.5 mm) are what can be clicked; a label without such a part is left out.
  So both parotids written as one label make one structure, but a click asks for one of them.
- Five clicks per structure, uniform over those parts: a voxel, then a place in it, as nobody clicks on voxel
  centres (and a patch centred on them would lie half a voxel beside every volume of 1.5 mm spacing). A sixth
  click in the deepest voxel of the largest part.
- The random numbers depend on seed, volume name and label alone, so any subset gives the same clicks.
- boundary="visible" is the main set. Volumes whose boundary is anything else are parcellations whose
  borders are partly convention; under boundary="all" they take part with cortical parcels merged into cortex
  and white matter and, as atlases have a hundred labels, at most six structures drawn at random from each.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from samu_core.errors import SamuError
from samu_core.evaluation.results import TRAINED_SUBJECT, UNSEEN_SOURCE, UNSEEN_SUBJECT

MIN_VOXELS = 60
ATLAS_STRUCTURES = 6
MICRO_SPACING_MM = 0.3
COLUMNS = ("name", "has_image", "split", "modality", "boundary", "label_names", "source_repo")

# FreeSurfer-type parcellations: (first id, last id, merged id) of README.md beside the data.
PARCELS = [
    (1000, 1999, 3),
    (11100, 11199, 3),
    (2000, 2999, 42),
    (12100, 12199, 42),
    (3000, 3999, 2),
    (5001, 5001, 2),
    (4000, 4999, 41),
    (5002, 5002, 41),
]


@dataclass(frozen=True)
class Case:
    """One labelled volume of the manifest.

    group: how far it is from what was trained on; one of samu_core.evaluation.results.GROUPS.
    """

    name: str
    modality: str
    boundary: str
    label_names: dict[int, str]
    source: str
    group: str
    image_path: Path
    label_path: Path

    @property
    def visible(self) -> bool:
        return self.boundary == "visible"

    @property
    def core_modality(self) -> str | None:
        """ "CT", "MR" or None, as samu_core.Volume knows them; a micro-CT in grey levels is neither."""
        return "CT" if self.modality == "CT" else "MR" if self.modality.startswith("MR") else None


@dataclass(frozen=True)
class Structure:
    """A label in a volume.

    box: KJI slices of the volume around the label's voxels. parts: int32 (K, J, I) inside that box, 0 outside
    the label, n > 0 in the n-th clickable part, -1 in fragments of the label too small to be clicked.
    """

    label: int
    name: str
    box: tuple[slice, slice, slice]
    parts: np.ndarray

    def part_at(self, voxel_kji: Sequence[int]) -> int:
        """What parts holds at a voxel (k, j, i) of the volume, which must lie in the box."""
        return int(self.parts[tuple(int(v) - s.start for v, s in zip(voxel_kji, self.box))])


@dataclass(frozen=True)
class Click:
    """A place in a structure's part.

    index: "0", "1", ... (uniform) or "deepest". voxel_kji: the volume's voxel; position_kji: the place in it,
    a continuous index less than half a voxel from its centre. part: the part's number in Structure.parts.
    """

    index: str
    voxel_kji: tuple[int, int, int]
    position_kji: tuple[float, float, float]
    part: int


def read_cases(data_dir: str | Path, split: str, boundary: str = "visible") -> list[Case]:
    """The manifest's volumes of a split, in manifest order. SamuError says what is missing."""
    data_dir = Path(data_dir)
    path = data_dir / "manifest.csv"
    if boundary not in ("visible", "all"):
        raise SamuError(f"boundary must be 'visible' or 'all', not '{boundary}'.")
    if not path.is_file():
        raise SamuError(f"{data_dir} holds no manifest.csv: give the folder that has manifest.csv and vol/.")
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    missing = [c for c in COLUMNS if not rows or rows[0].get(c) is None]
    if missing:
        raise SamuError(f"{path} is empty or lacks the column(s) {', '.join(missing)}.")
    trained = {row["source_repo"] for row in rows if row["split"] == "train"}
    wanted = [row for row in rows if row["split"] == split and row["has_image"].strip() == "1"]
    cases = [_case(row, data_dir / "vol", trained) for row in wanted]
    cases = [case for case in cases if boundary == "all" or case.visible]
    if not cases:
        splits = ", ".join(sorted({row["split"] for row in rows}))
        raise SamuError(
            f"{path} has no volumes of split '{split}' with boundary '{boundary}' (splits: {splits})."
        )
    for case in cases:
        for file in (case.image_path, case.label_path):
            if not file.is_file():
                raise SamuError(f"{file} is in the manifest but not on disk: restore it or remove its row.")
    return cases


def _case(row, folder, trained):
    return Case(
        name=row["name"],
        modality=row["modality"],
        boundary=row["boundary"],
        label_names=_label_names(row["label_names"]),
        source=row["source_repo"],
        group=_group(row, trained),
        image_path=folder / f"{row['name']}_img.nii.gz",
        label_path=folder / f"{row['name']}_lab.nii.gz",
    )


def _group(row, trained_sources):
    if row["split"] == "train":
        return TRAINED_SUBJECT
    return UNSEEN_SUBJECT if row["source_repo"] in trained_sources else UNSEEN_SOURCE


def _label_names(text):
    names = {}
    for item in text.split(";"):
        number, _, name = item.partition("=")
        if number.strip().isdigit() and name.strip():
            names[int(number)] = name.strip()
    return names


def working_spacing(spacing: Sequence[float]) -> float:
    """Patch spacing in mm of a volume: 1.5, or the voxels' own where they are under 0.3 mm.

    Micro-CT of small animals has a head of twelve voxels at 1.5 mm; there the voxel is the unit, and a user
    would choose the native spacing as well.
    """
    return float(min(spacing)) if max(spacing) < MICRO_SPACING_MM else 1.5


def clean_labels(array: np.ndarray, visible: bool) -> np.ndarray:
    """The label map as used: as written where boundaries are visible, else with brain parcels merged."""
    if visible:
        return array
    merged = np.array(array, dtype=np.int32)
    for first, last, target in PARCELS:
        merged[(array >= first) & (array <= last)] = target
    return merged


def find_structures(
    case: Case, labels: np.ndarray, spacing: Sequence[float], seed: int = 0, only: set[int] | None = None
) -> list[Structure]:
    """Structures of a label map (KJI integer array, spacing in mm), in order of label; see the rules above.

    only: a set of labels to restrict the (costly) search for parts to.
    """
    labels = clean_labels(labels, case.visible)
    unit = working_spacing(spacing) ** 3
    least = MIN_VOXELS * unit / float(np.prod(spacing))
    values, counts = np.unique(labels, return_counts=True)
    values = [int(v) for v, n in zip(values, counts) if v != 0 and n >= least]
    if not case.visible:  # in random order, so that the first six found are a random six
        values = [int(v) for v in generator(seed, case.name, "atlas").permutation(values)]
    elif only is not None:
        values = [v for v in values if v in only]
    found = []
    for value in values:
        structure = _structure(labels, value, case.label_names.get(value, str(value)), least)
        if structure is not None:
            found.append(structure)
        if not case.visible and len(found) == ATLAS_STRUCTURES:
            break
    found = [s for s in found if only is None or s.label in only]
    return sorted(found, key=lambda s: s.label)


def _structure(labels, value, name, least):
    where = labels == value
    box = ndimage.find_objects(where.astype(np.uint8))[0]
    parts, count = ndimage.label(where[box], np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    number = np.where(sizes < least, -1, np.arange(count + 1))
    number[0] = 0
    parts = number[parts].astype(np.int32)
    return Structure(value, name, box, parts) if parts.max() > 0 else None


def draw_clicks(
    case: Case,
    structure: Structure,
    spacing_kji: Sequence[float],
    clicks: int = 5,
    seed: int = 0,
    deepest: bool = True,
) -> list[Click]:
    """`clicks` uniform clicks (with replacement), then the deepest voxel."""
    voxels = np.argwhere(structure.parts > 0)
    start = np.array([s.start for s in structure.box])
    rng = generator(seed, case.name, str(structure.label))
    result = []
    for number in range(clicks):  # one at a time: the first two of five clicks are the two of a run with two
        voxel = voxels[int(rng.integers(len(voxels)))] + start
        result.append(_click(structure, str(number), voxel, rng))
    if deepest:
        voxel = _deepest_voxel(structure, spacing_kji) + start
        rng = generator(seed, case.name, str(structure.label), "deepest")
        result.append(_click(structure, "deepest", voxel, rng))
    return result


def _deepest_voxel(structure, spacing_kji):
    """Index in the structure's box; the volume's border counts as an edge, as nothing is known beyond."""
    sizes = np.bincount(np.maximum(structure.parts, 0).ravel())
    sizes[0] = 0
    largest = np.pad(structure.parts == int(np.argmax(sizes)), 1)
    depth = ndimage.distance_transform_edt(largest, sampling=spacing_kji)[1:-1, 1:-1, 1:-1]
    return np.array(np.unravel_index(int(np.argmax(depth)), depth.shape))


def _click(structure, index, voxel, rng):
    voxel_kji = tuple(int(v) for v in voxel)
    position = tuple(float(v + p) for v, p in zip(voxel_kji, rng.uniform(-0.49, 0.49, 3)))
    return Click(index, voxel_kji, position, structure.part_at(voxel_kji))


def generator(seed: int, *words: str) -> np.random.Generator:
    """A random generator that depends on the seed and some words alone, on every machine and Python."""
    digest = hashlib.sha256("\n".join([str(seed), *words]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))
