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
from typing import TYPE_CHECKING

from samu_core.errors import SamuError

if TYPE_CHECKING:
    from samu_core.training.settings import TrainingSettings
    from samu_core.training.stream import Sources


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `samu train`."""
    parser.add_argument(
        "--config", type=Path, required=True, help="YAML file with the run's settings (configs/)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="run folder: log, checkpoints, curves; an old run goes on (default: runs/NAME of NAME.yaml)",
    )
    parser.add_argument(
        "--data", type=Path, help="folder with manifest.csv, vol/ and labelmaps/; packed on first use"
    )
    parser.add_argument("--pack", type=Path, help="folder of the packed data (default: OUT/../pack)")
    parser.add_argument(
        "--initial", type=Path, help="checkpoint or weights file whose weights a new run begins with"
    )
    parser.add_argument(
        "--fresh",
        nargs="+",
        default=[],
        metavar="NAME",
        help="with --initial: parts of the network to draw anew, e.g. decoder.attention.3",
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument(
        "--minutes", type=float, help="stop after so many minutes of this call, to go on later"
    )


def run(args: argparse.Namespace) -> int:
    """Train. Returns the exit code: 0 when the run is complete, 3 when it stopped early and can go on."""
    from samu_core.training.chain import prepare_data, read_config, run_chain
    from samu_core.training.stream import load_sources

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    settings, chain = read_config(args.config)
    out = args.out or Path("runs") / args.config.stem
    if chain is not None and ("LOCAL_RANK" in os.environ or args.minutes is not None):
        raise SamuError(f"{args.config} has a block 'chain': no torchrun and no --minutes with it.")
    data = args.data
    if data is None and chain is not None:
        data = prepare_data(chain, out / "data")
    own_pack = out / "pack" if chain is not None else out.parent / "pack"
    pack = pack_of(data, args.pack or own_pack)
    device = start_device(args.device)
    sources = load_sources(pack, settings, cache=pack)

    def train(seconds: float | None) -> bool:
        return train_once(args, settings, sources, out, device, seconds)

    if chain is not None:
        if data is None:
            raise SamuError(f"the chain of {args.config} needs --data DIR, or 'phantoms' to make some.")
        return 0 if run_chain(chain, train, out, data) else 3
    return 0 if train(None if args.minutes is None else 60 * args.minutes) else 3


def pack_of(data: Path | None, pack: Path) -> Path:
    """The folder of packed volumes, filled from a data folder if one is given; refuses one whose splits share
    subjects."""
    from samu_core.training.leaks import check_manifest
    from samu_core.training.pack import pack_data

    if data is not None:
        if (data / "manifest.csv").is_file():
            check_manifest(data / "manifest.csv")
        try:
            pack_data(data, pack)
        except FileNotFoundError as error:
            raise SamuError(str(error)) from error
    return pack


def start_device(wanted: str) -> str:
    """Make the device ready, and this process a rank under torchrun; returns torch's name of the device."""
    import torch

    device = wanted if wanted != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise SamuError("torch finds no CUDA device here: use --device cpu, or auto.")
    if "LOCAL_RANK" in os.environ:  # under torchrun
        torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo")
        device = f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" else device
    if device == "cpu":
        keep_freed_memory()
        torch.set_flush_denormal(True)
    else:
        torch.backends.cudnn.benchmark = True
    return device


def train_once(
    args: argparse.Namespace,
    settings: TrainingSettings,
    sources: Sources,
    out: Path,
    device: str,
    seconds: float | None,
) -> bool:
    """Begin the run in `out`, or go on with it, for so many seconds (None: to its end). Returns whether it is
    complete."""
    from samu_core.training.curves import draw_curves
    from samu_core.training.rundir import write_run_info
    from samu_core.training.trainer import Trainer

    trainer = Trainer(settings, sources, out, device)
    checkpoint = out / "checkpoint.pt"
    if checkpoint.is_file():
        trainer.load(checkpoint)
        logging.info("going on at step %d, %.1f minutes", trainer.step, trainer.seconds / 60)
    elif args.initial is not None:
        fresh = trainer.start_from(args.initial, args.fresh)
        logging.info("begun with the weights of %s; new: %s", args.initial, ", ".join(fresh) or "nothing")
    if not trainer.rank:
        write_run_info(out, settings, device, args.config, trainer.ranks)
    try:
        return trainer.run(seconds)
    finally:  # a run that was interrupted wants to be looked at too
        if not trainer.rank:
            draw_curves(out)


def keep_freed_memory() -> None:
    """Tell glibc to keep large freed blocks: fresh pages for every activation cost a third of a CPU step."""
    if platform.system() == "Linux":
        try:
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
            libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
        except (OSError, AttributeError):
            pass
