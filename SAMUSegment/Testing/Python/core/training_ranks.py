"""A tiny training run, and one of its ranks: in a module of its own, which spawned processes can import."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from samu_core.training.settings import TrainingSettings
from samu_core.training.stream import load_sources
from samu_core.training.trainer import Trainer

TINY = {
    "shapes": 2,
    "shape_size": 40,
    "workers": 0,
    "warm_up_steps": 5,
    "network": {"channels": [8, 8, 8, 8, 8, 8], "embedding": 16},
    "phases": [
        {
            "minutes": 60,
            "real": 0,
            "labelmaps": 0,
            "crops": [{"size": 32, "spacing": [1.5, 3.0], "batch": 4}],
        },
        {
            "minutes": 20,
            "real": 0,
            "labelmaps": 0,
            "crops": [{"size": 32, "spacing": [1.5, 1.5], "batch": 4}],
        },
    ],
}


def rank_main(rank: int, folder: str) -> None:
    """One of two ranks: a few steps on its own samples, then its weights and clock to a file."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29517", GLOO_SOCKET_IFNAME="lo")
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.set_num_threads(1)
    settings = TrainingSettings.from_dict(TINY)
    trainer = Trainer(settings, load_sources(None, settings), Path(folder) / "run")
    trainer.run(stop_after=3.0)
    torch.save([trainer.network.state_dict(), trainer.seconds, trainer.step], Path(folder) / f"rank{rank}.pt")
