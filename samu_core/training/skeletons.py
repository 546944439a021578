"""Label maps of skeletons that nobody has: spines with discs, cord and ribs, skulls of plates, clusters of
small bones, limbs.

Bones are what one click loses most often: a vertebra is a body, an arch and seven processes in one, of a
bright rim and a darker core, between others that look the same. Atlases have a few dozen of them; these maps
have as many as are drawn. `samu_core.training.tissues` paints them by their labels' tissues, as it does other
anatomy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from samu_core.training.shapes import random_rotation, smooth_noise

SPACING_MM = 1.5
KINDS = ("spine", "skull", "cluster", "limbs")
KIND_SHARES = (0.55, 0.15, 0.15, 0.15)
# Label values, by what they are made of (`tissues.SOURCES`): the first of each.
BONES, DISCS, CORD, CANAL, SOFT, MUSCLES, VESSELS, LUNGS = 1, 100, 130, 131, 140, 170, 190, 200


class Canvas:
    """A label map being drawn.

    Attributes:
        labels: uint8 (size, size, size), KJI towards superior, posterior, left.
        grid: float32 (3, size, size, size) mm from the middle in the same order, a little warped, so that
            nothing drawn is quite regular.
        bones: how many bones there are.
    """

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.labels = np.zeros((size,) * 3, np.uint8)
        axis = (torch.arange(size, dtype=torch.float32) - (size - 1) / 2) * SPACING_MM
        grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
        warp = smooth_noise((size,) * 3, 6, rng, 3) * rng.uniform(0, 4)
        warp += smooth_noise((size,) * 3, 20, rng, 3) * rng.uniform(0, 0.8)
        self.grid = (grid + warp).numpy()
        self.half = size * SPACING_MM / 2
        self.bones = 0

    def box(self, centre, reach: float) -> tuple[slice, slice, slice]:
        """What lies within `reach` mm of a place (3,) along every axis."""
        size = len(self.labels)
        low = np.clip((np.asarray(centre) - reach + self.half) / SPACING_MM, 0, size).astype(int)
        high = np.clip((np.asarray(centre) + reach + self.half) / SPACING_MM + 1, 0, size).astype(int)
        return tuple(slice(a, b) for a, b in zip(low, high))

    def bone(self) -> int:
        """The label of another bone; the last one again when they run out."""
        self.bones = min(self.bones + 1, DISCS - BONES)
        return self.bones

    def balls(self, path: np.ndarray, radii: np.ndarray, label: int, over: bool = True) -> None:
        """A tube: balls along a path (n, 3) mm, each of its radius; not `over` what is there if so wanted."""
        for centre, radius in zip(path, radii):
            box = self.box(centre, radius + 6)
            place = self.grid[(slice(None), *box)]
            inside = sum((axis - value) ** 2 for axis, value in zip(place, centre)) < radius**2
            if not over:
                inside &= self.labels[box] == 0
            self.labels[box][inside] = label


def skeleton_map(size: int, rng: np.random.Generator) -> np.ndarray:
    """One label map, uint8 (size, size, size), LPS axes as packed volumes have (KJI towards superior,
    posterior, left), voxels of SPACING_MM; label values as above, 0 elsewhere."""
    canvas = Canvas(size, rng)
    kind = rng.choice(KINDS, p=KIND_SHARES)
    if kind == "spine":
        _spine(canvas, rng)
    elif kind == "limbs":
        _soft_tissue(canvas, rng)
        _limbs(canvas, rng)
    else:
        _soft_tissue(canvas, rng)
        _voronoi(canvas, rng, plates=kind == "skull")
    _drop_fragments(canvas.labels)
    return canvas.labels


def _drop_fragments(labels: np.ndarray) -> None:
    """Of every bone the largest connected part stays: a click in a bone is to mean the whole of it."""
    from scipy import ndimage

    for label, box in enumerate(ndimage.find_objects(labels, DISCS - 1), start=1):
        if box is not None:
            parts, count = ndimage.label(labels[box] == label, structure=np.ones((3, 3, 3)))
            if count > 1:
                labels[box][(parts > 0) & (parts != np.bincount(parts.ravel())[1:].argmax() + 1)] = 0


def _soft_tissue(canvas: Canvas, rng: np.random.Generator) -> None:
    """Organs, muscles and vessels to be drawn over."""
    for count, first, radii in ((6, SOFT, (8, 35)), (8, MUSCLES, (6, 18)), (4, VESSELS, (2, 7))):
        for index in range(int(rng.integers(0, count + 1))):
            start = rng.uniform(-0.9, 0.9, 3) * canvas.half
            length = 0 if first == SOFT else rng.uniform(40, 160)
            path = start + np.linspace(0, length, max(2, int(length / 4)))[:, None] * _direction(rng)
            radius = np.exp(rng.uniform(*np.log(radii)))
            canvas.balls(path, np.full(len(path), radius), first + index)


def _direction(rng: np.random.Generator) -> np.ndarray:
    value = rng.standard_normal(3)
    return value / np.linalg.norm(value)


# -- spines --


@dataclass(frozen=True)
class Vertebra:
    """The shape that all vertebrae of a spine have, in mm.

    Attributes:
        width, depth: half of the body's. height, disc: whole ones, of the body and of a disc.
        canal: half width and half depth. arch, band: thickness and height of the arch.
        spinous, transverse: lengths of the processes; thin: half the spinous one's thickness, tilt: radians
            that it falls below the horizontal.
        waist: share by which the body is narrower at half its height. power: exponent of its outline as a
            superellipse.
    """

    width: float
    depth: float
    height: float
    disc: float
    canal: tuple[float, float]
    arch: float
    band: float
    spinous: float
    transverse: float
    waist: float
    power: float
    tilt: float
    thin: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Vertebra:
        scale = np.exp(rng.uniform(np.log(0.5), np.log(1.25)))
        vary = np.exp(rng.uniform(-0.2, 0.2, 12))
        return cls(
            width=24 * scale * vary[0],
            depth=17 * scale * vary[1],
            height=26 * scale * vary[2],
            disc=max(2.0, rng.uniform(3, 11) * scale),
            canal=(9 * scale**0.4 * vary[3], 7 * scale**0.4 * vary[4]),
            arch=max(2.5, 6 * scale * vary[5]),
            band=15 * scale * vary[6],
            spinous=rng.uniform(10, 36) * scale,
            transverse=rng.uniform(6, 34) * scale,
            waist=rng.uniform(0, 0.2),
            power=rng.uniform(2, 3.2),
            tilt=rng.uniform(0, 1.1),
            thin=max(1.8, rng.uniform(2, 4.5) * scale),
        )

    @property
    def pitch(self) -> float:
        """From one vertebra to the next, mm."""
        return self.height + self.disc

    @property
    def behind(self) -> float:
        """The canal's middle, mm in front of the body's: negative."""
        return -self.depth - 0.8 * self.canal[1]


def _spine(canvas: Canvas, rng: np.random.Generator) -> None:
    """A spine from one end of the map to the other, with what lies around it."""
    shape, chest = Vertebra.draw(rng), rng.random() < 0.5
    middle = rng.uniform((-35, -25), (35, 25))  # posterior, left
    waves = rng.uniform((0, 0), (0.22, 0.06)), rng.uniform(0, 2 * np.pi, 2), rng.uniform(200, 420, 2)
    heights = np.arange(-canvas.half - shape.pitch, canvas.half + shape.pitch, shape.pitch)
    heights = heights + rng.uniform(0, shape.pitch)
    centres, frames = [], []
    for height in heights:
        phase = height * 2 * np.pi / waves[2] + waves[1]
        centres.append(np.array([height, *(middle + waves[0] * waves[2] / 2 / np.pi * np.sin(phase))]))
        frames.append(_frame(np.array([1.0, *(waves[0] * np.cos(phase))])))
    _soft_tissue(canvas, rng)
    if chest:
        _lungs(canvas, middle, rng)
    _along_the_spine(canvas, centres, frames, shape, rng)
    for centre, frame in zip(centres, frames):
        _vertebra(canvas, centre, frame, shape, rng)
    if chest:
        _ribs(canvas, centres, frames, shape, rng)


def _frame(up: np.ndarray) -> np.ndarray:
    """Rows: up, anterior, left, orthonormal, in the map's (superior, posterior, left)."""
    up = up / np.linalg.norm(up)
    anterior = np.array([0.0, -1.0, 0.0]) + up * up[1]
    anterior /= np.linalg.norm(anterior)
    left = np.array([0.0, 0.0, 1.0])
    left = left - up * (left @ up) - anterior * (left @ anterior)
    return np.stack([up, anterior, left / np.linalg.norm(left)])


def _vertebra(canvas: Canvas, centre, frame: np.ndarray, shape: Vertebra, rng: np.random.Generator) -> None:
    """Disc below it, body, arch and processes."""
    reach = shape.depth + 2 * shape.canal[1] + shape.arch + max(shape.spinous, shape.transverse) + 8
    box = canvas.box(centre, reach)
    grid = canvas.grid[(slice(None), *box)]
    if not grid.size:
        return
    w, v, u = np.einsum("ab,b...->a...", frame, grid - np.asarray(centre).reshape(3, 1, 1, 1))
    labels = canvas.labels[box]
    round_ = (np.abs(u) / shape.width) ** shape.power + (np.abs(v) / shape.depth) ** shape.power
    half = shape.height / 2
    disc = (round_ < 0.95) & (np.abs(w + shape.pitch / 2) < shape.disc / 2 + 1)
    labels[disc & (labels < DISCS)] = DISCS + canvas.bones % (CORD - DISCS)
    radius = 1 - shape.waist * (1 - np.minimum(np.abs(w) / half, 1) ** 2)
    bone = (round_ < radius**shape.power) & (np.abs(w) < half * (1 - 0.12 * (1 - np.minimum(round_, 1))))
    bone |= _arch(u, v, w, shape, rng)
    canal = _canal(u, v, shape) < 1
    labels[bone & ~canal] = canvas.bone()


def _canal(u, v, shape: Vertebra):
    """Implicit radius of the canal, 1 on its wall; `u`, `v`: mm to the left and to the front of the body's
    middle."""
    return np.sqrt((u / shape.canal[0]) ** 2 + ((v - shape.behind) / shape.canal[1]) ** 2)


def _arch(u, v, w, shape: Vertebra, rng: np.random.Generator):
    """Arch and processes, bool; the canal is not yet free. `u`, `v`, `w`: mm to the left of, in front of and
    above the body's middle."""
    (wide, deep), middle = shape.canal, shape.behind
    outer = ((np.abs(u) / (wide + shape.arch)) ** 2 + ((v - middle) / (deep + shape.arch)) ** 2) < 1
    sunk = w - 0.1 * shape.height + 0.5 * np.maximum(middle - v, 0)  # laminae slope down to the back
    bone = outer & (np.abs(sunk) < shape.band / 2)
    back = middle - deep - shape.arch / 2
    out, down = np.cos(shape.tilt), np.sin(shape.tilt)
    along = (back - v) * out - w * down
    across = w * out + (back - v) * down + 0.1 * shape.height
    tip = np.clip(along / shape.spinous, 0, 1)
    high = shape.band * (0.45 - 0.1 * tip)
    bone |= (
        (along > -shape.arch)
        & (along < shape.spinous)
        & (np.abs(across) < high)
        & (np.abs(u) < shape.thin * (1 + 0.5 * tip**3))
    )
    side = np.abs(u) - wide - shape.arch / 2
    reach = np.clip(side / shape.transverse, 0, 1)
    sweep = (v - middle + 0.4 * shape.transverse * reach * rng.uniform(0, 1)) ** 2
    sweep = sweep + (w - 0.1 * shape.height - 0.2 * shape.transverse * reach * rng.uniform(-1, 1)) ** 2
    thick = shape.arch * (0.75 - 0.2 * reach)
    bone |= (side > -shape.arch) & (side < shape.transverse) & (sweep < thick**2)
    for back_share, height, size in ((0.2, 0.42, 0.9), (0.9, -0.48, 0.8)):  # upper in front of lower ones
        facet = ((np.abs(u) - wide - 0.5 * shape.arch) / (shape.arch * size)) ** 2
        facet = facet + ((v - middle + back_share * (deep + shape.arch)) / (0.7 * shape.arch)) ** 2
        bone |= facet + ((w - height * shape.pitch) / (0.32 * shape.pitch)) ** 2 < 1
    return bone


def _along_the_spine(canvas: Canvas, centres, frames, shape: Vertebra, rng: np.random.Generator) -> None:
    """Fluid and cord in the canal, muscles behind it and beside it, an artery and a vein in front."""
    (wide, deep), back = shape.canal, shape.behind
    muscle = rng.uniform(8, 20)
    tubes = [
        (MUSCLES + 8, back - muscle, shape.thin + 0.9 * muscle, muscle),
        (MUSCLES + 9, back - muscle, -shape.thin - 0.9 * muscle, muscle),
        (MUSCLES + 10, 0, shape.width + 0.7 * muscle, 0.8 * muscle),
        (MUSCLES + 11, 0, -shape.width - 0.7 * muscle, 0.8 * muscle),
        (VESSELS + 4, shape.depth + 9, rng.uniform(0, 12), rng.uniform(4, 11)),
        (VESSELS + 5, shape.depth + 9, rng.uniform(-18, -8), rng.uniform(4, 11)),
        (CANAL, back, 0, 0.97 * min(deep, wide)),
        (CORD, back, 0, rng.uniform(0.4, 0.7) * deep),
    ]
    fine = np.linspace(0, len(centres) - 1, int((len(centres) - 1) * shape.pitch / 2))
    where = np.stack([np.interp(fine, range(len(centres)), values) for values in np.transpose(centres)], 1)
    turned = np.stack(frames)[np.rint(fine).astype(int)]
    for label, forward, left, radius in tubes:
        if label in (CANAL, CORD) or rng.random() < 0.8:
            path = where + forward * turned[:, 1] + left * turned[:, 2]
            canvas.balls(path, np.full(len(path), radius), label)


def _lungs(canvas: Canvas, middle: np.ndarray, rng: np.random.Generator) -> None:
    """Both lungs, some way in front of the spine and to its sides."""
    up, back, left = canvas.grid
    for index, side in enumerate((-1, 1)):
        centre = middle + (rng.uniform(-70, -30), side * rng.uniform(50, 75))
        deep, wide = rng.uniform((50, 35), (85, 55))
        radius = ((back - centre[0]) / deep) ** 2 + ((left - centre[1]) / wide) ** 2
        canvas.labels[(radius < 1) & (up > rng.uniform(-150, 40))] = LUNGS + index


def _ribs(canvas: Canvas, centres, frames, shape: Vertebra, rng: np.random.Generator) -> None:
    """A rib at each side of every vertebra, around a chest that the map need not hold."""
    wide, deep = rng.uniform(75, 135), rng.uniform(60, 95)
    radius, drop, length = rng.uniform(3, 6), rng.uniform(5, 60), rng.uniform(1.2, 2.6)
    for centre, frame in zip(centres, frames):
        for side in (-1, 1):
            angle = np.arange(shape.width / wide, length, 3 / wide)
            left = side * (wide * np.sin(angle) + 1)
            forward = deep * (1 - np.cos(angle)) - shape.depth * 0.9
            fall = -drop * (angle / length) ** 1.5
            path = centre + np.stack([fall, forward, left], 1) @ frame
            canvas.balls(path, np.full(len(path), radius), canvas.bone())


# -- other skeletons --


def _voronoi(canvas: Canvas, rng: np.random.Generator, plates: bool) -> None:
    """An ellipsoid, or its shell (`plates`), cut by thin gaps into bones: carpals and tarsals, or a skull."""
    size = canvas.labels.shape
    turned = np.einsum("ab,b...->a...", random_rotation(rng), canvas.grid)
    axes = rng.uniform(40, 90, 3) if plates else rng.uniform(18, 60, 3)
    centre = rng.uniform(-0.35, 0.35, 3) * canvas.half
    place = turned - centre.reshape(3, 1, 1, 1)
    radius = np.sqrt(sum((value / axis) ** 2 for value, axis in zip(place, axes)))
    radius = radius + 0.1 * smooth_noise(size, int(rng.integers(4, 9)), rng)[0].numpy()
    count = int(rng.integers(4, 15))
    seeds = np.stack([_direction(rng) * axes * (1 if plates else rng.uniform(0.1, 1)) for _ in range(count)])
    spread = 5 * smooth_noise(size, 10, rng, 1)[0].numpy()
    distances = np.stack([np.sqrt(((place - seed.reshape(3, 1, 1, 1)) ** 2).sum(0)) for seed in seeds])
    distances[::2] += spread
    owner, ordered = distances.argmin(0), np.partition(distances, 1, axis=0)
    gap = rng.uniform(0.5, 2.5) if plates else rng.uniform(1.5, 6)
    inside = (radius < 1) & (ordered[1] - ordered[0] > gap)
    if plates:
        core = 1 - rng.uniform(2.5, 10) / axes.mean()
        canvas.labels[radius < core] = SOFT + 10
        inside &= radius > core
        inside &= smooth_noise(size, 7, rng)[0].numpy() < rng.uniform(0.9, 3)  # holes
    labels = np.array([canvas.bone() for _ in range(count)], np.uint8)
    canvas.labels[inside] = labels[owner[inside]]


def _limbs(canvas: Canvas, rng: np.random.Generator) -> None:
    """Chains of long bones with thicker ends that meet at joints, and muscles along them."""
    main = _direction(rng) * (1, 0.5, 0.5)
    for _ in range(int(rng.integers(1, 5))):
        place, radius = rng.uniform(-0.9, 0.9, 3) * canvas.half, np.exp(rng.uniform(np.log(3), np.log(14)))
        for _ in range(int(rng.integers(1, 4))):
            direction = main / np.linalg.norm(main) + 0.5 * rng.standard_normal(3)
            direction /= np.linalg.norm(direction)
            steps = np.arange(0, radius * rng.uniform(4, 16), 1.5)
            path = place + steps[:, None] * direction
            ends = np.minimum(steps, steps[-1] - steps) / radius
            radii = radius * (1 + rng.uniform(0.2, 0.9) * np.exp(-(ends**2)))
            for side in (1, -1):
                aside = np.cross(direction, _direction(rng)) * radius * 2.2 * side
                canvas.balls(path + aside, np.full(len(path), radius * 1.4), MUSCLES + (side > 0), over=False)
            canvas.balls(path, radii, canvas.bone())
            place = path[-1] + direction * (radii[-1] + radius * rng.uniform(1.2, 1.8) + rng.uniform(1, 4))
