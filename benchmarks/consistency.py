"""The same click in a flipped, a resampled and a rotated copy of real volumes: is it the same world mask?

    python benchmarks/consistency.py --data DIR [--split dev] [--volumes 8] [--model FILE]

Prints, per volume, the Dice between the mask found in the volume and the masks found in its copies. Flipping
moves no value; the other copies are made by linear interpolation. All masks are taken on the volume's own
grid, as Slicer takes them on the segmentation's: a mask taken on the copy's grid and moved back has been
rounded to voxels twice (for a cord of 0.7 mm voxels that alone, without any network, is a Dice of .93).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from samu_core.evaluation import cases, copies
from samu_core.evaluation.metrics import dice
from samu_core.geometry import GridGeometry, Volume
from samu_core.io import read_volume
from samu_core.predictor import Predictor

COPIES = {
    "1 mm, RAS axes": ((1.0, 1.0, 1.0), 0.0),
    "1 mm, 25 degrees": ((1.0, 1.0, 1.0), 25.0),
    "1.2 x 1 x 1.5 mm, 25 degrees": ((1.2, 1.0, 1.5), 25.0),
}


def first_click(case: cases.Case):
    """The volume and the deepest point of its largest structure, RAS mm."""
    volume, labels = read_volume(case.image_path), read_volume(case.label_path)
    spacing = volume.geometry.spacing
    found = cases.find_structures(case, labels.array, spacing, 0)
    structure = max(found, key=lambda item: np.count_nonzero(item.parts))
    clicks = cases.draw_clicks(case, structure, spacing[::-1], 1, 0, True)
    return volume, volume.geometry.ijk_to_point(clicks[-1].position_kji[::-1]), structure.name


def mask_of(predictor: Predictor, volume: Volume, point: np.ndarray, grid: GridGeometry) -> np.ndarray:
    """bool (K, J, I) on the grid."""
    return predictor.predict(volume, point).mask(grid).full(grid) > 0


def agreement(predictor: Predictor, volume: Volume, point: np.ndarray) -> tuple[int, dict[str, float]]:
    """Voxels of the volume's own mask, and the Dice of every copy's mask with it."""
    own = mask_of(predictor, volume, point, volume.geometry)
    copy = copies.reordered(volume)
    flipped = mask_of(predictor, copy, point, copy.geometry)
    result = {"flipped, other axes": dice(flipped, copies.reordered_array(own))}
    for name, (spacing, degrees) in COPIES.items():
        copy = copies.resampled(volume, copies.rotated_grid(volume.geometry, spacing, degrees))
        result[name] = dice(mask_of(predictor, copy, point, volume.geometry), own)
    return int(own.sum()), result


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="dev")
    parser.add_argument(
        "--volumes", type=int, default=8, help="at most one of each data set and modality first"
    )
    parser.add_argument("--model", type=Path)
    args = parser.parse_args()
    predictor = Predictor(args.model, device="cpu")
    chosen: dict[tuple[str, str], cases.Case] = {}
    for case in cases.read_cases(args.data, args.split):
        if cases.working_spacing(read_volume(case.label_path).geometry.spacing) == 1.5:  # no micro-CT
            chosen.setdefault((case.source, case.modality), case)
    names = ["flipped, other axes", *COPIES]
    print("| volume | structure | voxels | " + " | ".join(names) + " |")
    print("|---|---|---:|" + "---:|" * len(names))
    for case in list(chosen.values())[: args.volumes]:
        volume, point, structure = first_click(case)
        voxels, result = agreement(predictor, volume, point)
        cells = " | ".join(f"{result[name]:.3f}" for name in names)
        print(f"| {case.name} | {structure} | {voxels} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
