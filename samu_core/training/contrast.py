"""Synthetic CT-like and MR-like intensities for a patch of label ids."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from samu_core.training.shapes import smooth_noise, strongest
from samu_core.training.structure import draw_structure, maximum_filter
from samu_core.training.tissues import paint_anatomy


def synthetic_image(
    ids: torch.Tensor, targets: list[torch.Tensor], rng: np.random.Generator, difficulty: float
) -> torch.Tensor:
    """Paint a label map.

    Args:
        ids: integer (n, n, n) label ids of the patch.
        targets: bool (n, n, n) each, the structures to be segmented: they keep a contrast to their
            surroundings that shrinks with `difficulty`, the first one for certain.
        difficulty: 0...1, scales noise, texture and how alike neighbours may be.

    Returns:
        float32 (n, n, n); HU-like for the CT branch, arbitrary units for the MR branch.
    """
    classes, count = _compact(ids)
    own = [int(classes[target][0]) for target in targets]
    structure = draw_structure(classes, count, targets[0], own[0], rng)
    classes, count = structure.classes, structure.count
    if rng.random() < 0.5:  # what lies around labelled structures is rarely one tissue
        classes, count = _split_background(classes, count, rng)
    is_ct = rng.random() < 0.45
    means, deviations = (_ct_classes if is_ct else _mr_classes)(count, rng, difficulty)
    _merge_appearances(means, own if structure.rim is None else [*own, structure.rim], rng)
    least = (60.0 if is_ct else 0.25) * (1.3 - difficulty)
    alike = list(structure.alike)
    means[alike], deviations[alike] = means[own[0]].clone(), deviations[own[0]].clone()
    outer = [structure.outer(value) for value in own]
    around = [structure.apart(value, _neighbours(classes, each)) for value, each in zip(outer, targets)]
    for value, neighbours in reversed(list(zip(outer, around))):  # the first last: what it gains is not lost
        _keep_contrast(means, value, neighbours, rng, least)
    if structure.line is not None:
        means[structure.line] = means[own[0]] + float(rng.choice((-1, 1)) * least * rng.uniform(1.5, 4))
    image = means[classes] + deviations[classes] * _texture(ids.shape, rng)
    return _scanned(image, is_ct, rng, difficulty, 0.3)


def anatomy_image(
    ids: torch.Tensor,
    tissues: np.ndarray,
    labels: np.ndarray,
    spacing: float,
    rng: np.random.Generator,
    difficulty: float,
) -> torch.Tensor:
    """Paint a label map of anatomy as scanners show it; arguments of `tissues.paint_anatomy`, and
    `difficulty` as in `synthetic_image`. Returns float32 (n, n, n)."""
    is_ct = rng.random() < 0.55
    return _scanned(paint_anatomy(ids, tissues, labels, spacing, is_ct, rng), is_ct, rng, difficulty, 0.0)


def _scanned(
    image: torch.Tensor, is_ct: bool, rng: np.random.Generator, difficulty: float, inverted: float
) -> torch.Tensor:
    """What a scanner makes of a clean image; a share of the MR images is `inverted`."""
    image = blur(image, rng.uniform(0.3, 1.1, 3))
    if not is_ct:
        image = _mr_effects(image, rng, difficulty, inverted)
    if rng.random() < 0.3:
        image = _thick_slices(image, rng)
    noise = (rng.uniform(4, 30) if is_ct else rng.uniform(0.005, 0.07)) * (0.2 + 0.8 * difficulty)
    return _add_noise(image, noise, rician=not is_ct and rng.random() < 0.2, rng=rng)


def _compact(ids: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Ids renumbered without gaps, and how many there are."""
    present = torch.bincount(ids.flatten()) > 0
    table = present.long().cumsum(0) - 1
    return table[ids], int(present.sum())


def _split_background(
    classes: torch.Tensor, count: int, rng: np.random.Generator
) -> tuple[torch.Tensor, int]:
    parts = int(rng.integers(2, 5))
    partition = strongest(smooth_noise(classes.shape, int(rng.integers(2, 8)), rng, parts))
    split = torch.where((classes == 0) & (partition > 0), count - 1 + partition, classes)
    return split, count + parts - 1


def _mr_classes(count: int, rng: np.random.Generator, difficulty: float) -> tuple[torch.Tensor, torch.Tensor]:
    means = rng.uniform(0, 1, count)
    return _tensor(means), _tensor(rng.uniform(0, 0.08, count) * (0.3 + 0.7 * difficulty))


def _ct_classes(count: int, rng: np.random.Generator, difficulty: float) -> tuple[torch.Tensor, torch.Tensor]:
    means = rng.normal(45, rng.uniform(10, 45), count)
    kind = rng.choice(
        5, count, p=(0.54, 0.15, 0.08, 0.13, 0.10)
    )  # soft tissue, fat, gas, bone, contrast medium
    means = np.where(kind == 1, rng.normal(-95, 15, count), means)
    means = np.where(kind == 2, rng.uniform(-1000, -700, count), means)
    means = np.where(kind == 3, rng.uniform(180, 900, count), means)
    means = np.where(kind == 4, rng.uniform(110, 300, count), means)
    if rng.random() < 0.5:
        means[0] = -1000  # air around the body
    deviations = np.where(kind == 3, rng.uniform(20, 150, count), rng.uniform(2, 18, count))
    return _tensor(means), _tensor(deviations * (0.3 + 0.7 * difficulty))


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, np.float32))


def _neighbours(classes: torch.Tensor, target: torch.Tensor) -> list[int]:
    """Classes that touch the target, those with at least 5 % of its rim."""
    grown = maximum_filter(target.float(), 2) > 0
    counts = torch.bincount(classes[grown & ~target])
    return [int(value) for value in (counts > 0.05 * counts.sum()).nonzero().flatten()] if len(counts) else []


def _merge_appearances(means: torch.Tensor, own: list[int], rng: np.random.Generator) -> None:
    """Some labels vanish into the background, and some neighbours look alike; not the targets (`own`)."""
    for index in range(1, len(means)):
        draw = rng.random()
        if index not in own and draw < 0.35:
            means[index] = means[0 if draw < 0.15 else int(rng.integers(len(means)))]


def _keep_contrast(
    means, target_class: int, around: list[int], rng: np.random.Generator, least: float
) -> None:
    """Move neighbours of the target away from its mean by at least `least`, either way."""
    for index in around:
        gap = float(means[index] - means[target_class])
        if index != target_class and abs(gap) < least:
            sign = np.sign(gap) or rng.choice((-1.0, 1.0))
            means[index] = means[target_class] + float(sign * least * rng.uniform(1.0, 1.6))


def _texture(shape, rng: np.random.Generator) -> torch.Tensor:
    scale = float(np.exp(rng.uniform(np.log(1.5), np.log(8))))
    cells = max(2, int(max(shape) / scale))
    return smooth_noise(shape, cells, rng)[0] * 1.5


def blur(image: torch.Tensor, sigmas) -> torch.Tensor:
    """Separable Gaussian of a (n, n, n) image, one sigma (voxels) per axis, edges replicated."""
    value = image[None, None]
    for axis, sigma in enumerate(sigmas):
        reach = max(1, int(np.ceil(2.5 * sigma)))
        taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float32) / float(sigma)) ** 2)
        kernel = (taps / taps.sum()).view([-1 if axis == place else 1 for place in range(3)])
        padding = [reach if place // 2 == 2 - axis else 0 for place in range(6)]
        value = functional.conv3d(functional.pad(value, padding, mode="replicate"), kernel[None, None])
    return value[0, 0]


def _mr_effects(
    image: torch.Tensor, rng: np.random.Generator, difficulty: float, inverted: float
) -> torch.Tensor:
    """Coil bias field, non-linear contrast, inverted contrast."""
    strength = rng.uniform(0, 0.35) * (0.3 + 0.7 * difficulty)
    image = image.clamp(min=0) * torch.exp(
        strength * smooth_noise(image.shape, int(rng.integers(2, 5)), rng)[0]
    )
    image = (image / image.max().clamp(min=1e-3)).pow(float(np.exp(rng.uniform(-0.6, 0.6))))
    return 1 - image if rng.random() < inverted else image


def _thick_slices(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """One axis sampled more coarsely, as clinical scans are."""
    axis = int(rng.integers(3))
    size = list(image.shape)
    size[axis] = max(4, int(size[axis] / rng.uniform(1.5, 6)))
    thick = functional.interpolate(image[None, None], size=size, mode="area")
    return functional.interpolate(thick, size=image.shape, mode="trilinear", align_corners=False)[0, 0]


def _add_noise(image: torch.Tensor, sigma: float, rician: bool, rng: np.random.Generator) -> torch.Tensor:
    noisy = image + sigma * white_noise(image.shape, rng)
    return torch.hypot(noisy, sigma * white_noise(image.shape, rng)) if rician else noisy


def white_noise(shape, rng: np.random.Generator) -> torch.Tensor:
    """Standard normal float32; torch draws it several times faster than numpy."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(int(rng.integers(2**62))))
