"""An abdominal CT made of formulas: organs, vessels, bone, fat, air and a lesion, with known outlines.

Nothing is downloaded and no patient is shown. The anatomy is a sketch in the patient's RAS millimetres,
bent by smooth waves; the image is an oblique, anisotropic grid laid over it, with partial volume, tissue
texture and noise in Hounsfield units.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import SimpleITK as sitk

from samu_core.geometry import Volume

# Where the body's centre lies in RAS mm: anywhere but at the origin, as in a real scanner.
CENTER_RAS = np.array([14.0, -22.0, 236.0])
EXTENT_MM = (340.0, 262.0, 170.0)
# The grid against the patient, degrees about R, A, S: a tilted gantry and a patient lying askew.
OBLIQUE_DEG = (9.0, 0.0, 6.0)

# Tissue: mean HU, standard deviation of its texture in HU.
TISSUES = {
    "air": (-1000, 2),
    "fat": (-100, 9),
    "muscle": (56, 9),
    "soft": (42, 10),
    "liver": (112, 7),
    "vessel": (168, 6),
    "spleen": (128, 6),
    "kidney": (188, 10),
    "contrast": (285, 7),
    "vein": (150, 7),
    "fluid": (12, 5),
    "lesion": (52, 8),
    "lung": (-845, 30),
    "spongy": (190, 35),
    "cortical": (640, 60),
    "gas": (-940, 8),
}
NOISE_HU = 13.0
INF = float("inf")


@dataclass(frozen=True)
class Structure:
    """One labelled object.

    Attributes:
        name: for people.
        label: its value in the label map.
        click_ras: where the demo clicks, RAS mm: inside, but off its centre, as a hand would.
        color: RGB, 0 to 1.
    """

    name: str
    label: int
    click_ras: tuple[float, float, float]
    color: tuple[float, float, float]


@dataclass(frozen=True)
class Phantom:
    """The image, the true label map (K, J, I) uint8 on the same grid, and what is in it."""

    volume: Volume
    labels: np.ndarray
    structures: tuple[Structure, ...]


def _structure(name: str, label: int, click: tuple[float, float, float], color: str) -> Structure:
    rgb = tuple(int(color[n : n + 2], 16) / 255 for n in (0, 2, 4))
    return Structure(name, label, tuple(float(value) for value in CENTER_RAS + click), rgb)


STRUCTURES = (
    _structure("liver", 1, (92, 30, 14), "d55e00"),
    _structure("spleen", 2, (-98, -30, 16), "cc79a7"),
    _structure("right kidney", 3, (72, -46, -62), "e69f00"),
    _structure("left kidney", 4, (-64, -42, -18), "f0e442"),
    _structure("aorta", 5, (-15, -27, -22), "56b4e9"),
    _structure("liver lesion", 6, (76, 4, -2), "009e73"),
    _structure("right lung", 7, (78, -22, 72), "0072b2"),
)
LABELS = {structure.name: structure.label for structure in STRUCTURES}


def make_phantom(spacing: tuple[float, float, float] = (0.9, 0.9, 2.5), seed: int = 20) -> Phantom:
    """The phantom on a grid of the given voxel size (I, J, K in mm); `seed` moves noise and waves only."""
    rng = np.random.default_rng(seed)
    ijk_to_ras, shape_kji = oblique_grid(spacing)
    canvas = Canvas(*body_coordinates(ijk_to_ras, shape_kji, rng))
    for draw in (_wall, _chest, _bones, _digestive, _liver, _spleen_and_kidneys, _vessels):
        draw(canvas)
    hu = scan(canvas, spacing, rng)
    return Phantom(Volume(hu, ijk_to_ras, name="phantom", modality="CT"), canvas.labels, STRUCTURES)


def oblique_grid(spacing: tuple[float, float, float]) -> tuple[np.ndarray, tuple[int, int, int]]:
    """IJK-to-RAS matrix (4, 4) and shape (K, J, I): I to the left, J to the back, K up, then tilted."""
    a, _, c = np.radians(OBLIQUE_DEG)
    about_r = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_s = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    shape_ijk = np.ceil(np.array(EXTENT_MM) / spacing).astype(int)
    matrix = np.eye(4)
    matrix[:3, :3] = about_s @ about_r @ np.diag([-1.0, -1.0, 1.0]) @ np.diag(spacing)
    matrix[:3, 3] = CENTER_RAS - matrix[:3, :3] @ ((shape_ijk - 1) / 2)
    return matrix, tuple(int(n) for n in shape_ijk[::-1])


def body_coordinates(
    ijk_to_ras: np.ndarray, shape_kji: tuple[int, int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """R, A, S mm from the body's centre at every voxel, bent by waves: no organ is an exact ellipsoid."""
    k, j, i = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape_kji), indexing="ij", sparse=True)
    matrix = ijk_to_ras.astype(np.float32)
    offset = (ijk_to_ras[:3, 3] - CENTER_RAS).astype(np.float32)
    x, y, z = (matrix[n, 0] * i + matrix[n, 1] * j + matrix[n, 2] * k + offset[n] for n in range(3))
    waves = [x, y, z]
    for wavelength, amplitude in ((120.0, 3.0), (47.0, 1.0)):
        phase = rng.uniform(0, 2 * np.pi, 3).astype(np.float32)
        turn = np.float32(2 * np.pi / wavelength)
        waves[0] = waves[0] + np.float32(amplitude) * np.sin(turn * (y + 0.6 * z) + phase[0])
        waves[1] = waves[1] + np.float32(amplitude) * np.sin(turn * (z + 0.6 * x) + phase[1])
        waves[2] = waves[2] + np.float32(amplitude) * np.sin(turn * (x + 0.6 * y) + phase[2])
    return tuple(waves)


class Canvas:
    """Tissue and label at every voxel, painted over one another in the order of the calls."""

    def __init__(self, x: np.ndarray, y: np.ndarray, z: np.ndarray):
        self.x, self.y, self.z = x, y, z
        self.names = list(TISSUES)
        self.tissue = np.zeros(x.shape, np.uint8)
        self.labels = np.zeros(x.shape, np.uint8)

    @cached_property
    def cavity(self) -> np.ndarray:
        """Voxels within the ribs and the belly's muscles."""
        return self.ellipsoid((0, 10, 0), (134, 88, INF), boxy=True)

    @cached_property
    def dome(self) -> np.ndarray:
        """Height of the diaphragm, mm: high over the liver, low at the ribs, a little lower on the left."""
        x = np.abs(self.x) - 62
        return 62 - 6 * (self.x < 0) - (x * x + (self.y - 5) ** 2) / np.float32(95)

    def paint(self, mask: np.ndarray, tissue: str, structure: str | None = None) -> None:
        """Set the tissue; the label becomes the structure's, or background."""
        self.tissue[mask] = self.names.index(tissue)
        self.labels[mask] = LABELS[structure] if structure else 0

    def texture(self, mask: np.ndarray, tissue: str) -> None:
        """Set the tissue alone: a part of a structure that looks different."""
        self.tissue[mask] = self.names.index(tissue)

    def ellipsoid(self, center, radii, boxy: bool = False) -> np.ndarray:
        """Voxels within an ellipsoid; a radius of inf makes it a cylinder, `boxy` takes the power 2.5."""
        total = np.zeros(self.x.shape, np.float32)
        for axis, middle, radius in zip((self.x, self.y, self.z), center, radii):
            if np.isfinite(radius):
                distance = np.abs(axis - np.float32(middle)) / np.float32(radius)
                # Not **: a general power is ten times slower, and there are many ellipsoids.
                total += distance * distance * np.sqrt(distance) if boxy else distance * distance
        return total <= 1

    def capsules(self, within: np.ndarray, segments, radius: float) -> np.ndarray:
        """Voxels of `within` nearer than `radius` to any of the line segments ((3,), (3,))."""
        points = np.stack([self.x[within], self.y[within], self.z[within]], axis=1)
        near = np.zeros(len(points), bool)
        for start, end in segments:
            start, way = np.float32(start), np.float32(end) - np.float32(start)
            along = np.clip((points - start) @ way / (way @ way), 0, 1)
            near |= np.sum((points - start - along[:, None] * way) ** 2, axis=1) < radius**2
        result = np.zeros(within.shape, bool)
        result[within] = near
        return result


def _wall(c: Canvas) -> None:
    c.paint(c.ellipsoid((0, 0, 0), (162, 116, INF), boxy=True), "fat")
    c.paint(c.ellipsoid((0, 4, 0), (148, 102, INF), boxy=True), "muscle")
    c.paint(c.cavity, "fat")
    for side in (-1, 1):
        c.paint(c.ellipsoid((40 * side, -82, 0), (27, 20, INF)), "muscle")
        c.paint(c.ellipsoid((36 * side, -46, -60), (15, 16, 60)), "muscle")


def _chest(c: Canvas) -> None:
    above = c.cavity & (c.z > c.dome)
    c.paint(above, "soft")
    lungs = above & (np.abs(c.x - 4) > 30 - 0.15 * (c.y + 60)) & (c.z > c.dome + 3)
    for side, structure in ((1, "right lung"), (-1, None)):
        lung = lungs & (c.x * side > 0)
        c.paint(lung, "lung", structure)
        root = (30 * side, -10, 95)
        tips = [(60, 35, 66), (95, 25, 70), (110, -20, 66), (80, -50, 60), (60, -10, 76), (85, 5, 78)]
        vessels = [(root, (x * side, y, z)) for x, y, z in tips]
        c.texture(c.capsules(lung, vessels, 1.8), "soft")


def _bones(c: Canvas) -> None:
    # Discs between vertebrae, every 32 mm.
    body = c.ellipsoid((0, -64, 0), (22, 18, INF), boxy=True)
    disc = np.mod(c.z + 5, 32) < 6
    c.paint(body, "soft")
    c.paint(body & ~disc, "cortical")
    c.paint(c.ellipsoid((0, -64, 0), (19.5, 15.5, INF), boxy=True) & ~disc, "spongy")
    arch = c.ellipsoid((0, -90, 0), (17, 14, INF)) & (np.mod(c.z + 5, 32) > 9)
    c.paint(arch | (c.ellipsoid((0, -104, 0), (4, 18, INF)) & (np.mod(c.z, 32) < 15)), "cortical")
    c.paint(c.ellipsoid((0, -89, 0), (10, 8, INF)), "fluid")
    # Ribs: slices of a shell, sinking towards the front.
    shell = c.ellipsoid((0, 8, 0), (145, 98, INF), boxy=True) & ~c.ellipsoid(
        (0, 8, 0), (137, 90, INF), boxy=True
    )
    rib = shell & (np.mod(c.z + 0.35 * c.y, 30) < 11) & (c.z > -55 + 0.5 * c.y) & (c.y < 60)
    c.paint(rib, "cortical")


def _digestive(c: Canvas) -> None:
    below = c.cavity & (c.z < c.dome - 4)
    stomach = below & c.ellipsoid((-52, 42, 14), (42, 34, 46))
    c.paint(stomach, "muscle")
    lumen = below & c.ellipsoid((-52, 42, 14), (38, 30, 42))
    c.paint(lumen, "fluid")
    c.paint(lumen & (c.y > 55), "gas")
    loops = [((-60, 30, -70), (26, 22, 24)), ((-10, 42, -62), (30, 20, 20)), ((48, 38, -74), (24, 24, 22))]
    loops += [((8, 14, -84), (28, 16, 18)), ((-94, 10, -60), (16, 20, 40)), ((98, 8, -76), (18, 22, 36))]
    for n, (center, radii) in enumerate(loops):
        loop = below & c.ellipsoid(center, radii)
        c.paint(loop, "soft")
        if n >= 3:
            c.paint(loop & c.ellipsoid(np.add(center, (0, 6, 0)), np.multiply(radii, 0.6)), "gas")


def _liver(c: Canvas) -> None:
    below = c.cavity & (c.z < c.dome - 3)
    right = c.ellipsoid((68, 14, 2), (66, 70, 66), boxy=True)
    left = c.ellipsoid((8, 52, 22), (58, 30, 30))
    liver = below & (right | left) & ~c.ellipsoid((58, -40, -44), (40, 34, 62))
    c.paint(liver, "liver", "liver")
    root = (34, 12, 4)
    tips = [(100, 40, 20), (110, 5, 15), (90, -25, 18), (80, 40, -25), (-10, 58, 24), (60, 30, 45)]
    c.texture(c.capsules(liver, [(root, tip) for tip in tips], 3.2), "vessel")
    c.paint(c.ellipsoid((52, 52, -38), (15, 18, 24)), "fluid")
    c.paint(liver & c.ellipsoid((80, 8, 2), (15, 13, 14)), "lesion", "liver lesion")


def _spleen_and_kidneys(c: Canvas) -> None:
    below = c.cavity & (c.z < c.dome - 3)
    spleen = c.ellipsoid((-92, -22, 12), (30, 46, 42)) & ~c.ellipsoid((-46, 18, 10), (50, 46, 70))
    c.paint(below & spleen, "spleen", "spleen")
    for side, name, height in ((1, "right kidney", -44), (-1, "left kidney", -34)):
        # The lower pole lies further out.
        lean = -0.18 * side * (c.z - height)
        x, c.x = c.x, c.x - lean
        kidney = c.ellipsoid((62 * side, -38, height), (28, 25, 50))
        c.paint(kidney, "kidney", name)
        c.paint(c.ellipsoid((47 * side, -34, height), (17, 11, 24)), "fat")
        c.x = x


def _vessels(c: Canvas) -> None:
    bend = 4 * np.sin(c.z / np.float32(45))
    x, c.x = c.x, c.x - bend
    c.paint(c.ellipsoid((-14, -33, 0), (11.5, 11.5, INF)), "contrast", "aorta")
    c.paint(c.ellipsoid((20, -30, 0), (13, 11, INF)), "vein")
    c.x = x


def scan(canvas: Canvas, spacing: tuple[float, float, float], rng: np.random.Generator) -> np.ndarray:
    """Hounsfield units (K, J, I) int16 of the canvas: tissue texture, partial volume, noise."""
    means, deviations = (np.array(column, np.float32) for column in zip(*TISSUES.values()))
    hu = means[canvas.tissue] + deviations[canvas.tissue] * _smooth_noise(
        canvas.tissue.shape, spacing, 2.2, rng
    )
    hu = _blur(hu, spacing, 0.8)
    hu += NOISE_HU * _smooth_noise(hu.shape, spacing, 0.7, rng)
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)


def _blur(array: np.ndarray, spacing: tuple[float, float, float], sigma_mm: float) -> np.ndarray:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(value) for value in spacing])
    return sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(image, sigma_mm))


def _smooth_noise(shape, spacing, sigma_mm: float, rng: np.random.Generator) -> np.ndarray:
    """Standard normal at every voxel, correlated over `sigma_mm`."""
    noise = _blur(rng.standard_normal(shape, dtype=np.float32), spacing, sigma_mm)
    return noise / noise.std()
