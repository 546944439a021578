"""Label maps of anatomy painted as scanners show it: what a structure is made of follows from its name.

`samu_core.training.contrast` gives every label an intensity of its own. Here all bones of a patch have one
cortex and one marrow, all muscles look alike with fat between them, bowel holds gas: a vertebra is then told
from the next one by its shape and by the disc between them, as in real images.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from samu_core.training.shapes import smooth_noise, strongest
from samu_core.training.structure import maximum_filter

BONE, DISC, CARTILAGE, MUSCLE, ARTERY, VEIN, NERVE, LUNG, HOLLOW, KIDNEY, FLUID, TOOTH, ORGAN = range(13)
CORTEX, FAT, AIR, GAS, LOOSE = range(13, 18)  # what hardly a label names: rims of bones, surroundings
COUNT = 18  # all but organs look alike wherever they are; every organ has a mean of its own
CORTEX_MM = (0.8, 2.2)
BODY_MM = (12.0, 45.0)  # from the labels to the skin
# Hounsfield units: bounds of a tissue's mean and of its texture's SD.
CT = {
    BONE: (80, 420, 20, 90), DISC: (50, 120, 5, 18), CARTILAGE: (40, 160, 5, 25), MUSCLE: (30, 75, 5, 14),
    ARTERY: (30, 320, 3, 14), VEIN: (25, 200, 3, 14), NERVE: (10, 50, 4, 12), LUNG: (-900, -700, 15, 60),
    HOLLOW: (5, 80, 4, 25), KIDNEY: (25, 210, 5, 25), FLUID: (-5, 30, 3, 10), TOOTH: (900, 1000, 30, 80),
    ORGAN: (25, 130, 4, 14), CORTEX: (450, 1000, 30, 120), FAT: (-125, -80, 4, 14), AIR: (-1000, -980, 1, 4),
    GAS: (-1000, -800, 3, 20), LOOSE: (-60, 60, 5, 20),
}  # fmt: skip
# Signal, 0...1, of T1- and T2-weighted images: bounds of a tissue's mean.
MR = (
    {
        BONE: (0.3, 0.85), DISC: (0.2, 0.45), CARTILAGE: (0.2, 0.5), MUSCLE: (0.25, 0.45), ARTERY: (0.0, 0.9),
        VEIN: (0.0, 0.9), NERVE: (0.3, 0.55), LUNG: (0.0, 0.05), HOLLOW: (0.15, 0.6), KIDNEY: (0.25, 0.6),
        FLUID: (0.05, 0.25), TOOTH: (0.0, 0.05), ORGAN: (0.25, 0.65), CORTEX: (0.0, 0.15), FAT: (0.75, 1.0),
        AIR: (0.0, 0.02), GAS: (0.0, 0.03), LOOSE: (0.3, 0.8),
    },
    {
        BONE: (0.15, 0.6), DISC: (0.05, 0.95), CARTILAGE: (0.1, 0.6), MUSCLE: (0.08, 0.25),
        ARTERY: (0.0, 0.15), VEIN: (0.0, 0.5), NERVE: (0.2, 0.5), LUNG: (0.0, 0.05), HOLLOW: (0.1, 0.9),
        KIDNEY: (0.4, 0.8), FLUID: (0.8, 1.0), TOOTH: (0.0, 0.05), ORGAN: (0.25, 0.65), CORTEX: (0.0, 0.15),
        FAT: (0.1, 0.85), AIR: (0.0, 0.02), GAS: (0.0, 0.03), LOOSE: (0.2, 0.8),
    },
)  # fmt: skip


def _table(tissues: dict[int, list]) -> dict[int, int]:
    """Label value -> tissue, from lists of values and inclusive (first, last) pairs by tissue."""
    table = {}
    for tissue, values in tissues.items():
        for value in values:
            first, last = value if isinstance(value, tuple) else (value, value)
            table.update(dict.fromkeys(range(first, last + 1), tissue))
    return table


SKELETONS = "skeletons"  # the source of samu_core/training/skeletons.py
# Of the manifest's label_names, by source_repo; what is not listed is an organ.
SOURCES = {
    "mhalle/spl-abdominal-atlas": _table({
        BONE: [299, (409, 412), (501, 505), 600, (686, 692), 699],
        DISC: [(551, 559)],
        MUSCLE: [32, (131, 140), 143, (231, 241)],
        ARTERY: [7, (16, 29), (71, 76), 126, 127, 227],
        VEIN: [8, 12, (81, 86), 117, 128, 129, 151, 153],
        KIDNEY: [51, 52],
        HOLLOW: [9, 13],
        FLUID: [10, 141, 142, 145, 146],
    }),
    "mhalle/spl-head-neck-atlas": _table({
        BONE: [1, (9, 17), (21, 36)],
        MUSCLE: [(51, 64)],
        ARTERY: [(101, 108), 111, 112, (113, 116)],
        VEIN: [109, 110, 117],
        CARTILAGE: [119, 120],
    }),
    "mhalle/spl-knee-atlas": _table({
        BONE: [(95, 98)],
        MUSCLE: [(12, 26)],
        CARTILAGE: [(31, 48), (81, 86)],
        NERVE: [(61, 64)],
        ARTERY: [71, 73, 74, 75],
        VEIN: [72, 77, 78],
        FAT: [9],
    }),
    "BrainLesion/panoptica": _table({
        BONE: [(2, 8), 26, (41, 50)], DISC: [(100, 108)], CORTEX: [(202, 208)], NERVE: [60], FLUID: [61]
    }),
    "uni-medical/SAM-Med3D": _table({
        KIDNEY: [2, 3], FLUID: [4, 14], HOLLOW: [5, 7, 13], ARTERY: [8], VEIN: [9]
    }),
    "niivue/niivue": _table({KIDNEY: [2, 3], FLUID: [4, 11], HOLLOW: [5, 7], ARTERY: [8], VEIN: [9]}),
    "gaudot/SlicerDentalSegmentator": _table({BONE: [1, 2], TOOTH: [3, 4], NERVE: [5]}),
    "Sanam-t/3DModel-DICOM": _table({BONE: [1, 2, 3]}),
    "muschellij2/lungct": _table({LUNG: [(1, 5)]}),
    SKELETONS: _table({
        BONE: [(1, 99)], DISC: [(100, 129)], NERVE: [130], FLUID: [131], MUSCLE: [(170, 189)],
        ARTERY: [190, 192, 194], VEIN: [191, 193, 195], LUNG: [200, 201],
    }),
}  # fmt: skip

# Label values that are one structure to whoever clicks: the lobes of a lung, whose fissures hardly show.
WHOLES = {"muschellij2/lungct": ((1, 2), (3, 4, 5))}
# Volumes of parts of vertebrae, whose borders are arbitrary: a click in an arch is to mean the vertebra.
LEFT_OUT = {"panoptica_spine_sem"}
HARDER = {BONE: 2.5, DISC: 2.5}  # times as often clicked: only its shape tells a vertebra from the next one
BESIDE_SKELETONS = 0.3  # as often, what lies around random skeletons: random shapes have such targets, too


def tissues_of(source: str, labels: np.ndarray) -> np.ndarray | None:
    """The tissue of every component of a packed volume, uint8 by index; None where the source's labels have
    no tissues.

    Args:
        source: the manifest's source_repo. labels: label value of each component.
    """
    table = SOURCES.get(source)
    if table is None:
        return None
    return np.array([table.get(int(label), ORGAN) for label in labels], np.uint8)


def click_factors(source: str, labels: np.ndarray) -> np.ndarray:
    """How many times as often every component of a volume is clicked, (n,); arguments of `tissues_of`."""
    tissues = tissues_of(source, labels)
    if tissues is None:
        return np.ones(len(labels))
    others = BESIDE_SKELETONS if source == SKELETONS else 1.0
    return np.array([HARDER.get(int(tissue), others) for tissue in tissues])


def paint_anatomy(
    ids: torch.Tensor,
    tissues: np.ndarray,
    labels: np.ndarray,
    spacing: float,
    is_ct: bool,
    rng: np.random.Generator,
) -> torch.Tensor:
    """A clean image of a patch: HU, or the signal of an MR image in about 0...1; float32 (n, n, n).

    Args:
        ids: int64 (n, n, n) component ids (KJI), 0 for what has no label.
        tissues, labels: tissue and label value of each component (index id - 1).
        spacing: mm of a voxel, for the thickness of a cortex and of what lies around the labels.
    """
    table = torch.from_numpy(np.concatenate([[LOOSE], tissues]).astype(np.int64))
    tissue = _surroundings(table[ids], ids, spacing, rng)
    means, deviations = _appearance(is_ct, rng)
    image = means[tissue]
    offsets = _organ_means(labels, tissues, is_ct, rng)[ids]
    organ = tissue == ORGAN
    image = torch.where(organ, offsets, image)
    if rng.random() < 0.5:
        image = _gas(image, tissue == HOLLOW, float(means[GAS]), rng)
    image = _fill_between(image, ids, tissue, float(means[FAT]), rng)
    image = _cortex(image, ids, tissue, float(means[CORTEX]), spacing, rng)
    cells = max(2, int(max(ids.shape) / np.exp(rng.uniform(np.log(1.5), np.log(6)))))
    return image + deviations[tissue] * 1.5 * smooth_noise(ids.shape, cells, rng)[0]


def _appearance(is_ct: bool, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and SD of the texture of every tissue, float32 (COUNT,)."""
    if is_ct:
        rows = np.array([CT[tissue] for tissue in range(COUNT)], float)
        means, deviations = (rng.uniform(rows[:, n], rows[:, n + 1]) for n in (0, 2))
        if rng.random() < 0.4:  # without contrast medium
            means[[ARTERY, VEIN, KIDNEY]] = rng.uniform(25, 55, 3)
    else:
        table = MR[int(rng.integers(len(MR)))]
        rows = np.array([table[tissue] for tissue in range(COUNT)], float)
        means, deviations = rng.uniform(rows[:, 0], rows[:, 1]), rng.uniform(0.005, 0.06, COUNT)
        deviations[[AIR, GAS]] = 0
    return torch.from_numpy(means.astype(np.float32)), torch.from_numpy(deviations.astype(np.float32))


def _organ_means(
    labels: np.ndarray, tissues: np.ndarray, is_ct: bool, rng: np.random.Generator
) -> torch.Tensor:
    """The mean of every component as an organ, one for all parts of a label; float32 (components + 1,), where
    index 0 is of no organ."""
    low, high = CT[ORGAN][:2] if is_ct else MR[0][ORGAN]  # the same in both kinds of MR
    values, place = np.unique(labels, return_inverse=True)
    means = rng.uniform(low, high, len(values))[place]
    return torch.from_numpy(np.concatenate([[0.0], means]).astype(np.float32))


def _surroundings(
    tissue: torch.Tensor, ids: torch.Tensor, spacing: float, rng: np.random.Generator
) -> torch.Tensor:
    """Tissues with fat, muscle and loose tissue around the labels, and air beyond the skin."""
    cells = int(rng.integers(3, 10))
    around = smooth_noise(ids.shape, cells, rng, 3) + torch.tensor(
        [rng.uniform(-0.5, 1), rng.uniform(-1, 0.6), rng.uniform(-1.5, 0.5)], dtype=torch.float32
    ).view(3, 1, 1, 1)
    filling = torch.tensor([FAT, MUSCLE, LOOSE])[strongest(around)]
    unlabelled = ids == 0
    tissue = torch.where(unlabelled, filling, tissue)
    if rng.random() < 0.75:
        near = functional.max_pool3d((~unlabelled).float()[None, None], 4, 4)
        reach = max(1, round(rng.uniform(*BODY_MM) / spacing / 4))
        near = functional.max_pool3d(near, 2 * reach + 1, 1, reach)
        near = functional.avg_pool3d(near, 3, 1, 1)
        body = functional.interpolate(near, size=ids.shape, mode="trilinear", align_corners=False)[0, 0] > 0.5
        tissue = torch.where(unlabelled & ~body, torch.full_like(tissue, AIR), tissue)
    return tissue


def _gas(image: torch.Tensor, hollow: torch.Tensor, value: float, rng: np.random.Generator) -> torch.Tensor:
    """Gas in some of the bowel and stomach, inside their walls."""
    core = maximum_filter((~hollow).float(), 1) == 0
    part = smooth_noise(image.shape, int(rng.integers(4, 10)), rng)[0] > rng.uniform(-0.2, 0.8)
    return torch.where(core & part, torch.full_like(image, value), image)


def _fill_between(
    image: torch.Tensor, ids: torch.Tensor, tissue: torch.Tensor, fat: float, rng: np.random.Generator
) -> torch.Tensor:
    """A line of fat where soft structures touch, as thin as a voxel shows it, in most patches."""
    if rng.random() < 0.3:
        return image
    soft = ((tissue == MUSCLE) | (tissue == ORGAN) | (tissue == HOLLOW) | (tissue == KIDNEY)) & (ids > 0)
    among = torch.where(soft, ids, torch.full_like(ids, -1))
    line = soft & (maximum_filter(among, 1) != ids)
    return torch.where(line, image + float(rng.uniform(0.2, 0.8)) * (fat - image), image)


def _cortex(
    image: torch.Tensor, ids: torch.Tensor, tissue: torch.Tensor, value: float, spacing: float,
    rng: np.random.Generator,
) -> torch.Tensor:  # fmt: skip
    """The rims of bones in cortex, with the share of a voxel that a cortex fills."""
    bone = tissue == BONE
    if not bool(bone.any()):
        return image
    thickness = rng.uniform(*CORTEX_MM) / spacing
    instances = torch.where(bone, ids, torch.zeros_like(ids))
    done = ~bone
    for layer in range(1, int(np.ceil(thickness)) + 1):
        rim = ~done & (maximum_filter(instances, layer) != -maximum_filter(-instances, layer))
        share = min(1.0, thickness - layer + 1)
        uneven = (share * (1 + 0.5 * smooth_noise(ids.shape, 12, rng)[0])).clamp(0.15, 1)
        image = torch.where(rim, image + uneven * (value - image), image)
        done |= rim
    return image
