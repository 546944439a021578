"""`samu export`: a training checkpoint, or the average of several, as a weights file to ship."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from samu_core import weights
from samu_core.errors import SamuError
from samu_core.network import SAMU


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
        "--bundle", action="store_true", help="write the checksum into samu_core/weights.py: the file to ship"
    )


def run(args: argparse.Namespace) -> int:
    """Export. Returns the exit code."""
    try:
        info = json.loads(args.info.read_text()) if args.info else {}
    except (OSError, ValueError) as error:
        raise SamuError(f"cannot read {args.info}: {error}") from error
    checksum = export_weights([parse_share(text) for text in args.checkpoint], args.out, info)
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


def export_weights(parts: list[tuple[Path, float]], out: Path, info: dict[str, Any]) -> str:
    """Write the (averaged) checkpoints as an int8 weights file. Returns its SHA-256."""
    out.parent.mkdir(parents=True, exist_ok=True)
    return weights.save_weights(out, average_networks(parts), info)
