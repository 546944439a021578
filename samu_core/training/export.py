"""`samu export`: a training checkpoint, or the average of several, as a weights file to ship."""

from __future__ import annotations

import argparse
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from samu_core import weights
from samu_core.errors import SamuError
from samu_core.geometry import PATCH_SIZE
from samu_core.network import SAMU
from samu_core.training.chain import read_config
from samu_core.training.normalisation import inference_crop, remeasure_statistics
from samu_core.training.stream import Batch, BatchStream, load_sources


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `samu export`."""
    parser.add_argument(
        "checkpoint",
        nargs="+",
        help="checkpoint.pt, or several as FILE:SHARE to average (shares are normalised)",
    )
    parser.add_argument("-o", "--out", type=Path, required=True, help="weights file to write (.npz)")
    parser.add_argument("--info", type=Path, help="JSON file with what to keep in the weights file")
    parser.add_argument(
        "--remeasure",
        type=int,
        default=0,
        metavar="N",
        help="measure the normalisation's statistics anew on N patches of 128^3, drawn as in the last phase",
    )
    parser.add_argument("--config", type=Path, help="with --remeasure: the run's settings")
    parser.add_argument("--pack", type=Path, help="with --remeasure: folder of the packed data")
    parser.add_argument(
        "--step",
        type=float,
        default=0.0,
        metavar="RMS",
        help="round large tensors to steps of so many root mean squares of a channel's weights, for a "
        "smaller file (default: as fine as int8 allows)",
    )
    parser.add_argument(
        "--bundle", action="store_true", help="write the checksum into samu_core/weights.py: the file to ship"
    )


def run(args: argparse.Namespace) -> int:
    """Export. Returns the exit code."""
    if not 0 <= args.step <= 1:
        raise SamuError(
            "--step is a share of the weights' root mean square, from 0 to 1; .3 is already coarse."
        )
    try:
        info = json.loads(args.info.read_text()) if args.info else {}
    except (OSError, ValueError) as error:
        raise SamuError(f"cannot read {args.info}: {error}") from error
    network = average_networks([parse_share(text) for text in args.checkpoint])
    if args.remeasure:
        if args.config is None or args.pack is None:
            raise SamuError("--remeasure needs --config and --pack, to draw patches as the run did.")
        remeasure_statistics(network, inference_batches(args.config, args.pack, args.remeasure))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    checksum = weights.save_weights(args.out, network, info, args.step)
    if args.bundle:
        source = Path(weights.__file__)
        line = re.compile(r'^BUNDLED_SHA256 = ".*"$', re.MULTILINE)
        source.write_text(line.sub(f'BUNDLED_SHA256 = "{checksum}"', source.read_text()))
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB, sha256 {checksum}")
    return 0


def parse_share(text: str) -> tuple[Path, float]:
    """FILE or FILE:SHARE."""
    path, colon, share = text.rpartition(":")
    try:
        return (Path(path), float(share)) if colon else (Path(text), 1.0)
    except ValueError:
        return Path(text), 1.0


def average_networks(parts: list[tuple[Path, float]]) -> SAMU:
    """The networks of several checkpoints of one architecture, averaged weight by weight.

    Averaging a synthetic-heavy and a real-heavy stage of one run keeps what the later one forgets.

    Raises:
        SamuError: shares that do not add up to something, or networks of different architecture.
    """
    total = sum(share for _, share in parts)
    if not total > 0:
        raise SamuError("the shares of the checkpoints must add up to more than 0.")
    average = weights.load_network(parts[0][0])
    state: dict[str, Any] = {}
    for path, share in parts:
        network = weights.load_network(path)
        if network.config != average.config:
            raise SamuError(f"{path} has another architecture than {parts[0][0]}: they cannot be averaged.")
        for name, value in network.state_dict().items():
            state[name] = state.get(name, 0) + value.double() * (share / total)
    for name, value in average.state_dict().items():
        value.copy_(state[name].to(value.dtype))
    return average


def inference_batches(config: Path, pack: Path, count: int) -> Iterator[Batch]:
    """`count` patches as inference sees them, 128^3 at 1.5 mm and z-scored, one to a batch, with the mixture
    of sources of the last phase."""
    settings, _ = read_config(config)
    phase = replace(settings.phases[-1], crops=(inference_crop(PATCH_SIZE),))
    difficulty = torch.full((1,), settings.hardest)
    sources = load_sources(pack, settings, cache=pack)
    stream = BatchStream(sources, phase, difficulty, settings.seed + 1, plain=True)
    return itertools.islice(iter(stream), count)
