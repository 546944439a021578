"""Draws the icons: a click inside a structure, the structure filled around it.

    python tools/draw_icons.py          writes the PNG files into the repository
    python tools/draw_icons.py --check  exit code 1 if a file is not what this program draws

Shapes are signed distances in a unit square, so that one drawing serves every size. Only numpy is needed.
"""

from __future__ import annotations

import argparse
import struct
import sys
import zlib
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
MODULE_SIZE, EFFECT_SIZE = 128, 42  # the effect's is shown at 21 points, on fine screens at twice that
SAMPLES = 8  # per pixel and axis
SLICE, EDGE, TISSUE = (0.13, 0.17, 0.22), (0.32, 0.42, 0.50), (0.36, 0.41, 0.46)
SEGMENT, OUTLINE = (0.96, 0.62, 0.18), (1.00, 0.86, 0.52)
CLICK, HALO = (1.00, 1.00, 1.00), (0.10, 0.12, 0.15)


class Canvas:
    """An RGBA picture (size, size, 4), straight alpha, drawn on at SAMPLES times its resolution."""

    def __init__(self, size: int):
        self.size = size
        steps = (np.arange(size * SAMPLES) + 0.5) / (size * SAMPLES)
        self.x, self.y = np.meshgrid(steps, steps)
        self.rgb = np.zeros((*self.x.shape, 3))
        self.alpha = np.zeros(self.x.shape)

    def fill(self, inside: np.ndarray, color: tuple[float, float, float]) -> None:
        """Paint where `inside` is true, opaque."""
        self.rgb[inside] = color
        self.alpha[inside] = 1.0

    def disk(self, x: float, y: float, radius: float) -> np.ndarray:
        """Signed distance to a circle's edge, negative inside."""
        return np.hypot(self.x - x, self.y - y) - radius

    def box(self, margin: float, radius: float) -> np.ndarray:
        """Signed distance to a square with round corners, `margin` from the border."""
        half = 0.5 - margin - radius
        dx, dy = np.abs(self.x - 0.5) - half, np.abs(self.y - 0.5) - half
        outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
        return outside + np.minimum(np.maximum(dx, dy), 0) - radius

    def pixels(self) -> np.ndarray:
        """(size, size, 4) uint8: the samples of each pixel averaged, colours weighted by alpha."""
        blocks = (self.size, SAMPLES, self.size, SAMPLES)
        alpha = self.alpha.reshape(blocks).mean((1, 3))
        weighted = (self.rgb * self.alpha[..., None]).reshape(*blocks, 3).mean((1, 3))
        rgb = weighted / np.maximum(alpha, 1e-9)[..., None]
        return np.rint(np.dstack([rgb, alpha]) * 255).astype(np.uint8)


def blend(first: np.ndarray, second: np.ndarray, softness: float) -> np.ndarray:
    """The union of two shapes with the crease between them filled (polynomial smooth minimum)."""
    overlap = np.maximum(softness - np.abs(first - second), 0) / softness
    return np.minimum(first, second) - overlap**2 * softness / 4


def organ(canvas: Canvas, scale: float) -> np.ndarray:
    """A bean-like shape around the middle, about `scale` wide."""
    parts = [(-0.02, -0.22, 0.20), (-0.07, 0, 0.29), (0, 0.23, 0.19), (0.17, -0.19, 0.16), (0.18, 0.18, 0.17)]
    shape = None
    for x, y, radius in parts:
        disk = canvas.disk(0.5 + x * scale, 0.5 + y * scale, radius * scale)
        shape = disk if shape is None else blend(shape, disk, 0.26 * scale)
    return shape


def click_mark(canvas: Canvas, scale: float) -> None:
    """A cross-hair with a dot, light on a dark halo so that it shows on anything."""
    dx, dy = np.abs(canvas.x - 0.5), np.abs(canvas.y - 0.5)
    for grow, color in ((0.022 * scale, HALO), (0.0, CLICK)):
        thick, inner, outer = 0.020 * scale + grow, 0.095 * scale - grow, 0.20 * scale + grow
        arms = ((dx < thick) & (dy > inner) & (dy < outer)) | ((dy < thick) & (dx > inner) & (dx < outer))
        canvas.fill(arms, color)
        canvas.fill(canvas.disk(0.5, 0.5, 0.055 * scale + grow) < 0, color)


def draw_module(size: int) -> np.ndarray:
    """The extension's and the module's icon: a slice with a clicked structure."""
    canvas = Canvas(size)
    frame = canvas.box(0.03, 0.16)
    canvas.fill(frame < 0, EDGE)
    canvas.fill(frame < -0.025, SLICE)
    body = np.hypot((canvas.x - 0.5) / 1.12, (canvas.y - 0.5) / 0.94) - 0.365
    canvas.fill(body < 0, TISSUE)
    shape = organ(canvas, 0.72)
    canvas.fill(shape < 0, OUTLINE)
    canvas.fill(shape < -0.028, SEGMENT)
    click_mark(canvas, 0.85)
    return canvas.pixels()


def draw_effect(size: int) -> np.ndarray:
    """The effect's icon: the structure alone on nothing, for toolbars of any colour."""
    canvas = Canvas(size)
    shape = organ(canvas, 1.06)
    canvas.fill(shape < 0, HALO)
    canvas.fill(shape < -0.045, SEGMENT)
    click_mark(canvas, 1.3)
    return canvas.pixels()


def png(pixels: np.ndarray) -> bytes:
    """The PNG file of (height, width, 4) uint8."""
    height, width, _ = pixels.shape
    # Filter type 0 (none) before each row.
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def drawings() -> dict[Path, np.ndarray]:
    """File -> pixels of every icon."""
    icons = ROOT / "SAMUSegment" / "Resources" / "Icons"
    module = draw_module(MODULE_SIZE)
    return {
        ROOT / "SAMUSegment.png": module,
        icons / "SAMUSegment.png": module,
        icons / "SegmentEditorEffect.png": draw_effect(EFFECT_SIZE),
    }


def read_pixels(path: Path) -> np.ndarray:
    """(height, width, 4) uint8 of a file that `png` made; its bytes may differ with zlib's version."""
    data = path.read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    (length,) = struct.unpack(">I", data[33:37])
    rows = np.frombuffer(zlib.decompress(data[41 : 41 + length]), np.uint8).reshape(height, width * 4 + 1)
    return rows[:, 1:].reshape(height, width, 4)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    args = parser.parse_args()
    stale = []
    for path, pixels in drawings().items():
        if not args.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(pixels))
        elif not path.exists() or not np.array_equal(read_pixels(path), pixels):
            stale.append(path.relative_to(ROOT).as_posix())
    if stale:
        print(f"not as drawn: {', '.join(stale)}; run python tools/draw_icons.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
