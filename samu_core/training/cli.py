"""`samu train`: pack the data, train, go on where a run stopped.

On several devices, or with one process per CPU core:
`torchrun --nproc-per-node N -m samu_core.cli train ...`.
"""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import platform
from pathlib import Path

from samu_core.errors import SamuError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `samu train`."""
    parser.add_argument(
        "--config", type=Path, required=True, help="YAML file with the run's settings (configs/)"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="run folder: log, checkpoints; an old run goes on"
    )
    parser.add_argument(
        "--data", type=Path, help="folder with manifest.csv, vol/ and labelmaps/; packed on first use"
    )
    parser.add_argument("--pack", type=Path, help="folder of the packed data (default: OUT/../pack)")
    parser.add_argument(
        "--initial", type=Path, help="checkpoint or weights file whose weights a new run begins with"
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument(
        "--minutes", type=float, help="stop after so many minutes of this call, to go on later"
    )


def run(args: argparse.Namespace) -> int:
    """Train. Returns the exit code: 0 when the run is complete, 3 when it stopped early and can go on."""
    import torch

    from samu_core.training.pack import pack_data
    from samu_core.training.settings import TrainingSettings
    from samu_core.training.stream import load_sources
    from samu_core.training.trainer import Trainer

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    settings = TrainingSettings.read(args.config)
    pack = args.pack or args.out.parent / "pack"
    if args.data is not None:
        try:
            pack_data(args.data, pack)
        except FileNotFoundError as error:
            raise SamuError(str(error)) from error
    device = args.device if args.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    if "LOCAL_RANK" in os.environ:  # under torchrun
        torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo")
        device = f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" else device
    if device == "cpu":
        keep_freed_memory()
        torch.set_flush_denormal(True)
    else:
        torch.backends.cudnn.benchmark = True
    trainer = Trainer(settings, load_sources(pack, settings, cache=pack), args.out, device)
    checkpoint = args.out / "checkpoint.pt"
    if checkpoint.is_file():
        trainer.load(checkpoint)
        logging.info("going on at step %d, %.1f minutes", trainer.step, trainer.seconds / 60)
    elif args.initial is not None:
        fresh = trainer.start_from(args.initial)
        logging.info("begun with the weights of %s; new: %s", args.initial, ", ".join(fresh) or "nothing")
    done = trainer.run(None if args.minutes is None else 60 * args.minutes)
    return 0 if done else 3


def keep_freed_memory() -> None:
    """Tell glibc to keep large freed blocks: fresh pages for every activation cost a third of a CPU step."""
    if platform.system() == "Linux":
        try:
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
            libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
        except (OSError, AttributeError):
            pass
