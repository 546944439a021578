"""Banks of label maps that the code draws itself: random shapes and random skeletons.

Drawing one takes half a second, so a run draws a few hundred once and keeps them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from samu_core.training.pack import PackedVolume, components
from samu_core.training.settings import TrainingSettings
from samu_core.training.shapes import shape_map
from samu_core.training.skeletons import SPACING_MM, skeleton_map

LOGGER = logging.getLogger(__name__)
# Source (as a manifest's source_repo), and what draws one map of a size: both banks of a run.
DRAW: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "shapes": shape_map,
    "skeletons": skeleton_map,
}


def bank(source: str, settings: TrainingSettings, cache: Path | None) -> list[PackedVolume]:
    """So many maps of a source of DRAW as the settings ask for; the same seed gives the same bank. It is
    kept in `cache`, in a folder of the source's name, for the next start."""
    count = getattr(settings, source)
    if not count:
        return []
    name = f"{source}-{settings.shape_size}-{count}-{settings.seed}.npz"
    path = None if cache is None else cache / source / name
    if path is not None and path.is_file():
        with np.load(path) as file:
            maps = file["maps"]
    else:
        LOGGER.info("drawing %d maps of random %s", count, source)
        generators = (np.random.default_rng((settings.seed, index)) for index in range(count))
        maps = np.stack([DRAW[source](settings.shape_size, rng) for rng in generators]).astype(np.uint8)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(path, maps=maps)
    return [_volume(source, index, *components(labels.astype(np.int32))) for index, labels in enumerate(maps)]


def _volume(source: str, index: int, ids, labels, counts, boxes) -> PackedVolume:
    return PackedVolume(f"{source[:-1]}{index}", source, "", SPACING_MM, ids, None, labels, counts, boxes)


def write_bank(volumes: list[PackedVolume], path: Path) -> None:
    """Keep a bank with its components: numbering them needs SciPy, which a lent machine has not."""
    arrays = {name: [getattr(volume, name) for volume in volumes] for name in ("labels", "counts", "boxes")}
    with path.open("wb") as file:
        np.savez_compressed(
            file,
            ids=np.stack([volume.ids for volume in volumes]),
            ends=np.cumsum([len(volume.labels) for volume in volumes]),
            **{name: np.concatenate(values) for name, values in arrays.items()},
        )


def read_bank(source: str, path: Path) -> list[PackedVolume]:
    """What `write_bank` kept of a source of DRAW, with numpy alone."""
    with np.load(path) as file:
        kept = {name: file[name] for name in file.files}
    starts = [0, *kept["ends"][:-1]]
    volumes = []
    for index, (start, end) in enumerate(zip(starts, kept["ends"])):
        own = [kept[name][start:end] for name in ("labels", "counts", "boxes")]
        volumes.append(_volume(source, index, kept["ids"][index], *own))
    return volumes
