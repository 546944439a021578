"""Training on a machine that little can be brought to and taken from: small packs there, shards back.

The data go in a folder of a given size: large images as JPEGs, of large data sets as many volumes as fit.
What comes back is the averaged weights, in half precision and in pieces, not the optimiser's state, which is
six times as large: a run that goes on from it begins with fresh moments. Reading needs numpy, torch, Pillow.
"""

from __future__ import annotations

import io
import json
import logging
import shutil
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from samu_core.errors import SamuError
from samu_core.training.banks import DRAW, read_bank, write_bank
from samu_core.training.optimizer import Optimizer
from samu_core.training.pack import PackedVolume
from samu_core.training.settings import TrainingSettings

if TYPE_CHECKING:
    from samu_core.training.stream import Sources
    from samu_core.training.trainer import Trainer

LOGGER = logging.getLogger(__name__)
MIB = 2**20
SHARD_BYTES = 15 * MIB
SHARD_NAME = "ema-{:02d}.shard"
QUALITY = 85  # of the JPEGs
SMALL_VOXELS = 250_000  # what small volumes take is not worth their losses
STATE, BANK = "progress.json", "{}.bank"  # not .npz: that would be one more volume of the pack


def pack_small(pack: Path, out: Path, budget: int) -> int:
    """Copy a pack with its larger images as JPEGs, of the largest data sets as many volumes as fit.

    Args:
        budget: bytes that the copy may take.

    Returns:
        its bytes.

    Raises:
        SamuError: an empty pack, or one that does not fit even with one volume of each data set.
    """
    sources = by_source(pack)
    if not sources:
        raise SamuError(f"{pack} holds no packed volumes: make them with 'samu train --data DIR'.")
    out.mkdir(parents=True, exist_ok=True)
    sizes = {}
    for path in chain(*sources.values()):
        volume = PackedVolume.load(path).cropped()
        volume.save(out / path.name, QUALITY if volume.ids.size > SMALL_VOXELS else None)
        sizes[path] = (out / path.name).stat().st_size
    for most in range(max(map(len, sources.values())), 0, -1):
        chosen = [path for paths in sources.values() for path in spread(paths, most)]
        if sum(sizes[path] for path in chosen) <= budget:
            break
    else:
        raise SamuError(f"{pack} takes more than {budget / MIB:.0f} MiB with one volume of each data set.")
    for path in set(sizes) - set(chosen):
        (out / path.name).unlink()
    LOGGER.info("%d of %d volumes, at most %d of a data set", len(chosen), len(sizes), most)
    return sum(sizes[path] for path in chosen)


def by_source(pack: Path) -> dict[str, list[Path]]:
    """The files of a pack by data set, in the order of their names."""
    sources: dict[str, list[Path]] = {}
    for path in sorted(Path(pack).glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            meta = json.loads(file["meta"].tobytes().decode())
        sources.setdefault(meta["source"], []).append(path)
    return sources


def spread(paths: list[Path], most: int) -> list[Path]:
    """At most so many of the paths, evenly."""
    return [paths[n] for n in np.linspace(0, len(paths) - 1, min(most, len(paths))).round().astype(int)]


def save_banks(sources: Sources, folder: Path) -> None:
    """Keep the random shapes and skeletons with their components, instead of the maps that
    `samu_core.training.banks` may have kept there."""
    for source in DRAW:
        if getattr(sources, source):
            write_bank(getattr(sources, source), folder / BANK.format(source))
        shutil.rmtree(folder / source, ignore_errors=True)


def load_carried(folder: Path, settings: TrainingSettings) -> Sources:
    """The sources of a folder with `save_banks`' files, with numpy, torch and Pillow alone."""
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
