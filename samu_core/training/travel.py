"""Training on a machine that little can be brought to and taken from: small packs there, shards back.

The data go in a folder of a given size: images of 8 instead of 10 bits, the largest files at half the
resolution. What comes back is the averaged weights, in half precision and in pieces, not the optimiser's
state, which is six times as large: a run that goes on from it begins with fresh moments.
Reading needs numpy and torch alone.
"""

from __future__ import annotations

import io
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from samu_core.errors import SamuError
from samu_core.training.banks import DRAW, read_bank, write_bank
from samu_core.training.optimizer import Optimizer
from samu_core.training.pack import MIN_COMPONENT, PackedVolume
from samu_core.training.settings import TrainingSettings

if TYPE_CHECKING:
    from samu_core.training.stream import Sources
    from samu_core.training.trainer import Trainer

LOGGER = logging.getLogger(__name__)
MIB = 2**20
SHARD_BYTES = 15 * MIB
SHARD_NAME = "ema-{:02d}.shard"
EIGHT_BITS = 0xFFFC  # of the 10 kept in a pack
STATE, BANK = "progress.json", "{}.bank"  # not .npz: that would be one more volume of the pack


def shrink(volume: PackedVolume, halve: bool) -> PackedVolume:
    """A volume with fewer grey levels and, on demand, every second voxel (its image smoothed before).

    Components that become too small for a target are dropped, the others renumbered.
    """
    ids, image, spacing = volume.ids, volume.image, volume.spacing
    if halve:
        ids = np.ascontiguousarray(ids[::2, ::2, ::2])
        image = None if image is None else _every_second(image)
        spacing *= 2
    if image is not None:
        image = (np.minimum(image.astype(np.uint16) + 2, 1023)) & EIGHT_BITS
    counts = np.bincount(ids.ravel(), minlength=len(volume.labels) + 1)[1:]
    kept = np.flatnonzero(counts >= (MIN_COMPONENT if not halve else MIN_COMPONENT // 2))
    table = np.zeros(len(volume.labels) + 1, np.uint16)
    table[kept + 1] = np.arange(1, len(kept) + 1)
    ids = table[ids]
    boxes = [_box(ids, number + 1, volume.boxes[index], halve) for number, index in enumerate(kept)]
    return PackedVolume(
        volume.name, volume.source, volume.modality, spacing, ids, image, volume.labels[kept], counts[kept],
        np.array(boxes, np.int32).reshape(-1, 6),
    )  # fmt: skip


def _every_second(image: np.ndarray) -> np.ndarray:
    """[1 2 1] / 4 along each axis, then every second voxel: the same places as of ids[::2]."""
    value = image.astype(np.float32)
    for axis in range(3):
        padded = np.pad(value, [(1, 1) if axis == n else (0, 0) for n in range(3)], mode="edge")
        first, middle, last = (padded.take(np.arange(0, value.shape[axis], 2) + n, axis) for n in range(3))
        value = (first + 2 * middle + last) / 4
    return np.rint(value).astype(np.uint16)


def _box(ids: np.ndarray, number: int, old: np.ndarray, halve: bool) -> list[int]:
    """Bounding box of an id, looked for within its old one."""
    low, high = old[0::2] // (2 if halve else 1), -(-old[1::2] // (2 if halve else 1))
    found = np.argwhere(ids[tuple(slice(a, b) for a, b in zip(low, high))] == number)
    start, stop = found.min(0) + low, found.max(0) + low + 1
    return [int(bound) for pair in zip(start, stop) for bound in pair]


def pack_small(pack: Path, out: Path, budget: int, most: int = 40) -> int:
    """Copy a pack, at most `most` volumes of a data set, and halve the largest files until it fits.

    Returns:
        its bytes.

    Raises:
        SamuError: an empty pack, or one that does not fit even at half resolution.
    """
    names = choose_volumes(pack, most)
    if not names:
        raise SamuError(f"{pack} holds no packed volumes: make them with 'samu train --data DIR'.")
    out.mkdir(parents=True, exist_ok=True)
    sizes = {}
    for name in names:
        shrink(PackedVolume.load(name).cropped(), halve=False).save(out / name.name)
        sizes[name] = (out / name.name).stat().st_size
    for name in sorted(sizes, key=sizes.__getitem__, reverse=True):
        if sum(sizes.values()) <= budget:
            break
        shrink(PackedVolume.load(name).cropped(), halve=True).save(out / name.name)
        sizes[name] = (out / name.name).stat().st_size
    total = sum(sizes.values())
    if total > budget:
        raise SamuError(
            f"{pack} takes {total / MIB:.0f} MiB even halved, not {budget / MIB:.0f}: take fewer per source."
        )
    return total


def choose_volumes(pack: Path, most: int) -> list[Path]:
    """The files of a pack, at most `most` of each data set, spread over its names."""
    sources: dict[str, list[Path]] = {}
    for path in sorted(Path(pack).glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            meta = json.loads(file["meta"].tobytes().decode())
        sources.setdefault(meta["source"], []).append(path)
    chosen = []
    for paths in sources.values():
        places = np.linspace(0, len(paths) - 1, min(most, len(paths))).round().astype(int)
        chosen += [paths[place] for place in places]
    return sorted(chosen)


def save_banks(sources: Sources, folder: Path) -> None:
    """Keep the random shapes and skeletons with their components, instead of the maps that
    `samu_core.training.banks` may have kept there."""
    for source in DRAW:
        if getattr(sources, source):
            write_bank(getattr(sources, source), folder / BANK.format(source))
        shutil.rmtree(folder / source, ignore_errors=True)


def load_carried(folder: Path, settings: TrainingSettings) -> Sources:
    """The sources of a folder with `save_banks`' files, with numpy and torch alone."""
    from samu_core.training.stream import load_sources

    sources = load_sources(folder, replace(settings, **dict.fromkeys(DRAW, 0)), cache=folder)
    for source in DRAW:
        if (folder / BANK.format(source)).is_file():
            getattr(sources, source).extend(read_bank(source, folder / BANK.format(source)))
    return sources


def folder_bytes(folder: Path) -> int:
    """Size of all files below a folder."""
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


# -- back --


def write_shards(trainer: Trainer, folder: Path) -> list[Path]:
    """The averaged weights as half precision (small tensors as they are), in files of SHARD_BYTES, and
    progress.json."""
    folder.mkdir(parents=True, exist_ok=True)
    small = {
        name: value.detach().cpu().half() if value.ndim >= 2 and value.is_floating_point() else value.cpu()
        for name, value in trainer.ema.state_dict().items()
    }
    buffer = io.BytesIO()
    torch.save(small, buffer)
    data = buffer.getvalue()
    pieces = [data[n : n + SHARD_BYTES] for n in range(0, len(data), SHARD_BYTES)]
    paths = []
    for number, piece in enumerate(pieces):
        paths.append(folder / SHARD_NAME.format(number))
        paths[-1].write_bytes(piece)
    progress = {
        "shards": len(pieces),
        "bytes": len(data),
        "config": trainer.network.config.to_dict(),
        "settings": trainer.settings.to_dict(),
        "seconds": trainer.seconds,
        "step": trainer.step,
        "samples": trainer.samples,
    }
    (folder / STATE).write_text(json.dumps(progress, indent=1))
    return [*paths, folder / STATE]


def merge_shards(folder: Path, checkpoint: Path) -> dict[str, Any]:
    """Make a training checkpoint of `write_shards`' files: to evaluate, to export, or to go on training.

    Returns:
        the progress: seconds, step, samples...

    Raises:
        SamuError: a shard is missing or truncated.
    """
    try:
        progress = json.loads((folder / STATE).read_text())
        data = b"".join((folder / SHARD_NAME.format(n)).read_bytes() for n in range(progress["shards"]))
    except (OSError, ValueError, KeyError) as error:
        raise SamuError(
            f"{folder} lacks a shard or {STATE}: copy all files of one command ({error})."
        ) from error
    if len(data) != progress["bytes"]:
        raise SamuError(f"a shard in {folder} is truncated: copy the files again.")
    state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    torch.save(
        {
            "format": "samu-training-checkpoint",
            "config": progress["config"],
            "settings": progress["settings"],
            "network": state,
            "ema": state,
            "optimizer": _fresh_optimizer(progress),
            **{name: progress[name] for name in ("seconds", "step", "samples")},
        },
        checkpoint,
    )
    return progress


def _fresh_optimizer(progress: dict[str, Any]) -> dict[str, Any]:
    from samu_core.network import SAMU, SAMUConfig

    settings = TrainingSettings.from_dict(progress["settings"])
    network = SAMU(SAMUConfig.from_dict(progress["config"]))
    network.to(memory_format=torch.channels_last_3d)
    return Optimizer.of_run(network, settings).state_dict()


def copy_back(run: Path, out: Path) -> None:
    """The small files of a run's folder that are worth keeping."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("log.csv", "run.json", "curves.png"):
        if (run / name).is_file():
            shutil.copyfile(run / name, out / name)
