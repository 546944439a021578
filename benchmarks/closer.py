"""What the second, closer look at small structures gives, and which are small enough for it.

    python benchmarks/closer.py --data DIR [--split dev] [--clicks 2] [--limit N] [--model FILE]

Clicks as `samu evaluate` draws them. Every first mask that stays within the reach of a closer look is looked
at again, whatever its size and however fine the image: Dice of the first mask and of the second one in the
first patch, by size of the first mask and by the image's voxels, and by data set where the closer look is
taken. What decides the limits in `samu_core/closer.py`.
"""

from __future__ import annotations

import argparse

import measuring  # puts the repository on the path
import numpy as np

from samu_core import closer
from samu_core.commands.common import table
from samu_core.evaluation import protocol
from samu_core.evaluation.metrics import dice
from samu_core.weights import load_network

HEADER = ["clicks", "first look", "second look at the click", "second look in the depth"]
SIZES = (0, 300, 1000, 2000, 5000, (2 * closer.REACH_VOXELS + 1) ** 3)


def looks_at(method, patch, target) -> dict | None:
    """The looks at one click: voxels of the first mask, whether the image is fine and the second look taken,
    dices of the first, of a second at the same point, and of the second in the depth of the first mask. None
    when the first finds nothing, or what goes on beyond the reach."""
    first = method.prediction(patch)
    voxels = first.clicked_voxels(closer.REACH_VOXELS)
    if not voxels:
        return None
    geometry = patch.grid.geometry
    points = (patch.point_ras, closer.inner_point(patch.volume, first))
    same, second = (method.look_again(patch, point, patch.grid.spacing * closer.FINER) for point in points)
    second.point_ras = first.point_ras
    result = closer.look_closer(patch.volume, first, lambda _point, _spacing: second)
    dices = [dice(each.mask(geometry).full(geometry) > 0, target.part) for each in (first, same, second)]
    fine = closer.shows_more(patch.volume, patch.grid.spacing)
    return {"voxels": voxels, "fine": fine, "taken": result is second, "dices": dices}


def measure(method, args) -> dict[str, list[dict]]:
    """Rows of `looks_at` by data set."""
    found: dict[str, list[dict]] = {}
    for source, patch, target in measuring.clicks_of(args):
        row = looks_at(method, patch, target)
        if row is not None:
            found.setdefault(source, []).append(row)
    return found


def row_of(name: str, rows: list[dict]) -> list[str]:
    """Cells: name, clicks, mean Dice of each look."""
    return [
        name,
        str(len(rows)),
        *(f"{mean:.3f}" for mean in np.mean([row["dices"] for row in rows], axis=0)),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    measuring.add_click_arguments(parser, clicks=2)
    args = parser.parse_args()
    method = protocol.NetworkMethod(load_network(args.model), second_look=False)
    found = measure(method, args)
    everything = [row for rows in found.values() for row in rows]
    print(f"- {measuring.machine()}, float32; {len(everything)} clicks\n")
    cells = []
    for fine, title in ((True, "smaller voxels"), (False, "others")):
        for low, high in zip(SIZES, SIZES[1:]):
            rows = [row for row in everything if row["fine"] is fine and low < row["voxels"] <= high]
            if rows:
                cells.append(row_of(f"{title}, {low + 1} to {high} voxels", rows))
    print(table(cells, ["image and first mask", *HEADER]), "\n")
    taken = {name: [row for row in rows if row["taken"]] for name, rows in sorted(found.items())}
    cells = [row_of(name, rows) for name, rows in taken.items() if rows]
    print(table(cells, ["data set, closer look taken", *HEADER]))


if __name__ == "__main__":
    main()
