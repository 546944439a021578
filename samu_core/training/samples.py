"""One training sample: a volume, a target in it, a click in the target, the warped patch around it, and more
clicks in what else the patch holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from samu_core.intensity import outside_value
from samu_core.prompt import FIELD_OF_VIEW
from samu_core.training.clicks import draw_click, draw_component, further_clicks
from samu_core.training.contrast import anatomy_image, blur, synthetic_image, white_noise
from samu_core.training.pack import LEVELS, PackedVolume
from samu_core.training.settings import PhaseSettings
from samu_core.training.shapes import random_rotation, smooth_noise
from samu_core.training.tissues import tissues_of

# Patches lie as at inference, K to S, J to A, I to R; packed volumes are LPS. A few lie otherwise, for files
# that are wrong about it.
ORIENTED_SHARE = 0.85
PATCH_AXES = np.array([1.0, -1.0, -1.0])  # KJI
LIMITED_SHARE = 0.35  # of the volumes are cut within the patch, besides where they happen to end
SCALE = 0.25  # of anatomy, logarithmic: the patch's true spacing against the one it claims
LARGEST_STRETCH = 4.0  # of a patch, against its z-score
DARKEST_OUTSIDE = -5.0  # z-scores; no real image is darker, but a synthetic one may have a voxel at -40
FOR_OUTSIDE = 20_000  # voxels are enough to see how dark it is outside
LEAST_VOXELS, LEAST_MM3 = 8, 200  # a smaller target teaches nothing, and the evaluation has none


@dataclass
class Sample:
    """What the network trains on: patch float32 (n, n, n) normalised, and for each of its clicks a target,
    targets bool (clicks, n, n, n), all KJI, and positions (clicks, 3), KJI fractions of the patch; span of
    the patch (`PointPrompt.span`)."""

    patch: torch.Tensor
    targets: torch.Tensor
    positions: torch.Tensor
    span: float


@dataclass(frozen=True)
class CropSpec:
    """Edge length of the patch in voxels, its spacing in mm, the contrast curriculum's difficulty, 0...1,
    whether it is z-scored as at inference rather than at random, and how many clicks it gets; `centred` and
    `anatomy` of `PhaseSettings`."""

    size: int
    spacing: float
    difficulty: float = 1.0
    plain: bool = False
    clicks: int = 1
    centred: float = PhaseSettings.centred
    anatomy: float = PhaseSettings.anatomy


def make_sample(
    volume: PackedVolume, spec: CropSpec, rng: np.random.Generator, synthetic: bool
) -> Sample | None:
    """Draw a target, a click and a patch from a volume, and `spec.clicks` - 1 further clicks in the patch.

    Args:
        synthetic: paint the labels with synthetic contrast instead of taking the volume's image.

    Returns:
        None when the draw gave no usable target; draw again.
    """
    component = draw_component(volume, rng)
    click = draw_click(volume, component, rng)
    shapes = volume.source == "shapes"
    size = spec.size
    position = _place_of_click(size, rng, spec.centred)
    spacing = spec.spacing * np.exp(rng.uniform(-SCALE, SCALE))
    matrix = _linear_map(rng, shapes) * (spacing / volume.spacing)
    coordinates = _coordinates(size, position, click, matrix, rng)
    index, ids, inside = _gather_ids(volume.ids, coordinates, mirrored=shapes)
    k, j, i = np.clip(np.rint(position), 0, size - 1).astype(int)
    inside &= _limited_field_of_view(size, (k, j, i), rng)
    target = (ids == component + 1) & inside
    least = max(LEAST_VOXELS, LEAST_MM3 / spec.spacing**3)
    if int(target.sum()) < least or not bool(target[k, j, i]):
        return None
    positions, targets = [position], [target]
    for other, voxel in further_clicks(ids, inside, component + 1, spec.clicks - 1, least, volume, rng):
        positions.append(voxel + rng.uniform(-0.5, 0.5, 3))
        targets.append((ids == other) & inside)
    if volume.image is not None and not synthetic:
        image = _augment(_gather_image(volume.image, coordinates, index), rng, volume.modality == "CT")
    else:
        image = _painted(volume, coordinates, index, ids, targets, spacing, rng, spec)
    patch = random_normalisation(image, inside, 1.0 if spec.plain else rng.random())
    fractions = torch.from_numpy(((np.stack(positions) + 0.5) / size).astype(np.float32))
    return Sample(patch, torch.stack(targets), fractions, size * spec.spacing / FIELD_OF_VIEW)


def _place_of_click(size: int, rng: np.random.Generator, centred: float) -> np.ndarray:
    """Continuous index of the patch, KJI: its middle within half a voxel, or anywhere about it."""
    reach = 0.5 if rng.random() < centred else 0.2 * size
    return (size - 1) / 2 + rng.uniform(-reach, reach, 3)


def _painted(
    volume: PackedVolume, coordinates, index, ids, targets, spacing: float, rng: np.random.Generator,
    spec: CropSpec,
) -> torch.Tensor:  # fmt: skip
    """The patch's labels with synthetic contrast, float32 (n, n, n): by their tissues in `spec.anatomy` of
    those where they are known, else at random. `spacing`: mm of a voxel."""
    tissues = tissues_of(volume.source, volume.labels)
    if tissues is not None and rng.random() < spec.anatomy:
        return anatomy_image(ids, tissues, volume.labels, spacing, rng, spec.difficulty)
    if volume.image is not None:
        image = _gather_image(volume.image, coordinates, index)
        ids = torch.where(ids == 0, -1 - _levels(image, rng), ids)
    return synthetic_image(ids - ids.min(), targets, rng, spec.difficulty)


def _linear_map(rng: np.random.Generator, shapes: bool) -> np.ndarray:
    """3x3: rotation, scale, anisotropy and flips, patch offset -> volume offset at equal spacing."""
    rotation = random_rotation(rng, np.pi if shapes else np.radians(20))
    scale = np.exp(-rng.uniform(-0.4, 0.45)) if shapes else 1.0
    stretch = np.exp(rng.uniform(-0.35, 0.35, 3)) if shapes else np.exp(rng.uniform(-0.12, 0.12, 3))
    axes, flips = np.eye(3), PATCH_AXES * (1.0, 1.0, rng.choice((-1.0, 1.0)))  # left and right are alike
    if shapes or rng.random() >= ORIENTED_SHARE:
        flips = rng.choice((-1.0, 1.0), 3)
        axes = np.eye(3)[rng.permutation(3)] if rng.random() < 0.3 else np.eye(3)
    return rotation @ axes @ np.diag(scale * stretch * flips)


def _coordinates(size: int, position, click, matrix: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """Volume indices (3, n, n, n) of the patch's voxels; `position` lands on `click` exactly."""
    axes = [torch.arange(size, dtype=torch.float32) - float(value) for value in position]
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    source = torch.einsum("ab,b...->a...", torch.from_numpy(matrix.astype(np.float32)), offsets)
    if rng.random() < 0.7:
        unit = float(np.cbrt(abs(np.linalg.det(matrix)))) * size / 128
        for cells, amplitude in ((3, 6.0), (6, 3.0)):
            warp = smooth_noise((size,) * 3, cells, rng, 3) * (amplitude * unit * rng.uniform(0, 1))
            k, j, i = np.clip(np.rint(position), 0, size - 1).astype(int)
            source = source + warp - warp[:, k, j, i].view(3, 1, 1, 1)
    return source + torch.from_numpy(click.astype(np.float32)).view(3, 1, 1, 1)


def _levels(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """The image cut into a few levels of intensity, int64: an unlabelled background that is anatomy, too."""
    values = image.flatten()[:: max(1, image.numel() // 4000)].numpy()
    cuts = np.unique(rng.choice(values, int(rng.integers(4, 12))))
    return torch.bucketize(image.contiguous(), torch.from_numpy(cuts))


def _gather_ids(
    ids: np.ndarray, coordinates: torch.Tensor, mirrored: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Nearest voxel int32 (3, n, n, n) at the coordinates, label ids there, int64 (n, n, n), and what lies in
    the volume, bool (n, n, n).

    Outside the volume ids are 0, or, `mirrored`, those of the map's mirror images, as labels of their own and
    taken for the volume: a map of random shapes should not end before the patch does.
    """
    index = coordinates.round().int()
    inside = torch.ones(index.shape[1:], dtype=torch.bool)
    for place, size in zip(index, ids.shape):
        inside &= (place >= 0) & (place < size)
        if mirrored:
            place.remainder_(2 * size)
            torch.minimum(place, 2 * size - 1 - place, out=place)
        else:
            place.clamp_(0, size - 1)
    flat = (index[0] * ids.shape[1] + index[1]) * ids.shape[2] + index[2]
    numbers = torch.from_numpy(ids.reshape(-1).view(np.int16))  # torch cannot index uint16
    found = numbers.index_select(0, flat.flatten()).view(flat.shape).long() & 0xFFFF
    if mirrored:
        other = torch.where(found > 0, found + int(ids.max()), found)
        return index, torch.where(inside, found, other), torch.ones_like(inside)
    return index, found.mul_(inside), inside


def _gather_image(image: np.ndarray, coordinates: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Linear interpolation of the image, float32 (n, n, n) in 0...1; only the region needed is converted."""
    if image.dtype == np.float32:  # the whole volume as it is: nothing to convert
        low, region = torch.zeros(3), image
    else:
        low = index.flatten(1).amin(1)
        high = index.flatten(1).amax(1) + 1
        region = image[tuple(slice(int(a), int(b)) for a, b in zip(low, high))].astype(np.float32) / LEVELS
    extent = torch.tensor(region.shape, dtype=torch.float32).view(3, 1, 1, 1)
    local = (coordinates - low.view(3, 1, 1, 1) + 0.5) / extent * 2 - 1
    grid = torch.stack([local[2], local[1], local[0]], dim=-1)[None]
    return functional.grid_sample(
        torch.from_numpy(region)[None, None], grid, padding_mode="border", align_corners=False
    )[0, 0]


def _augment(image: torch.Tensor, rng: np.random.Generator, is_ct: bool) -> torch.Tensor:
    """Contrast, sharpness and noise of a real image, values 0...1."""
    if rng.random() < 0.4:
        image = image.clamp(min=0).pow(float(np.exp(rng.uniform(-0.35, 0.35))))
    if rng.random() < 0.3:
        field = smooth_noise(image.shape, 3, rng)[0]
        image = image * torch.exp(float(rng.uniform(0, 0.25)) * field)
    if rng.random() < 0.1 and not is_ct:
        image = 1 - image
    if rng.random() < 0.3:  # as sharp as the scanner and earlier resampling left it
        image = blur(image, rng.uniform(0.2, 0.9, 3))
    if rng.random() < 0.3:
        noise = white_noise(image.shape, rng)
        image = image + noise * float(rng.uniform(0, 0.5)) * float(image.std()) * 0.2
    return image


def _limited_field_of_view(size: int, click, rng: np.random.Generator) -> torch.Tensor:
    """True where the volume reaches, bool (n, n, n) KJI with n = `size`: in LIMITED_SHARE of the samples one
    face or both of one or two axes come closer to the `click` (KJI voxel of the patch, always inside), as at
    the end of a volume and in a slab of a few slices."""
    inside = torch.ones((size,) * 3, dtype=torch.bool)
    if rng.random() < LIMITED_SHARE:
        for axis in rng.choice(3, int(rng.integers(1, 3)), replace=False):
            low, high = 0, size
            face = rng.choice(("low", "high", "both"))
            if face != "high":
                low = click[axis] - int(click[axis] * rng.uniform(0.02, 1.0))
            if face != "low":
                high = click[axis] + 1 + int((size - 1 - click[axis]) * rng.uniform(0.02, 1.0))
            outside = torch.ones(size, dtype=torch.bool)
            outside[low:high] = False
            inside.movedim(int(axis), 0)[outside] = False
    return inside


def random_normalisation(image: torch.Tensor, inside: torch.Tensor, draw: float) -> torch.Tensor:
    """z-score over the volume's voxels, over its brighter ones (draw below .2), or a robust one (below .3),
    so that the patch z-score of `samu_core.intensity.normalize_patch` is one of what the network knows.

    Args:
        image: (n, n, n) in any unit. inside: bool (n, n, n), the volume's voxels.
        draw: 0...1, which of the three.

    Returns:
        float32 (n, n, n). Outside is the inside's `outside_value`, at least DARKEST_OUTSIDE. No scale is more
        than LARGEST_STRETCH times the plain one's: a batch has its normalisation in common, and one patch
        with values far from the others' would flatten those.
    """
    values = image[inside]
    centre, spread = values.mean(), values.std()
    plain = spread
    if draw < 0.2:
        bright = values[values > values.min() + 0.05 * (values.max() - values.min())]
        if len(bright) > 100:
            centre, spread = bright.mean(), bright.std()
    elif draw < 0.3:
        low, centre, high = torch.quantile(
            values[:: max(1, len(values) // 20000)], torch.tensor([0.16, 0.5, 0.84])
        )
        spread = (high - low) / 2
    patch = (image - centre) / torch.maximum(spread, plain / LARGEST_STRETCH).clamp(min=1e-6)
    if len(values) == patch.numel():
        return patch
    some = patch[inside][:: max(1, len(values) // FOR_OUTSIDE)]
    return torch.where(inside, patch, max(outside_value(some.numpy()), DARKEST_OUTSIDE))
