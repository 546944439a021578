"""The whole chain in one command: generated data, training, a stop, going on, export, evaluation.

A config may hold a block `chain` beside the training's settings (configs/smoke.yaml):

    chain:
      phantoms: {train: 2, labelmaps: 1, dev: 2, spacing: 3.0}
      stop_after_minutes: 0.5
      evaluate: {split: dev, clicks: 1, limit: 4}

`samu train` then makes that data set in OUT/data when no --data is given, trains until the first stop, begins
anew from the checkpoint as a second call would, exports the weights, and evaluates the exported file.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from samu_core.errors import SamuError
from samu_core.training.settings import TrainingSettings

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChainSettings:
    """What is done around the training.

    Attributes:
        phantoms: numbers of `PhantomSet`; empty for none, the data being given.
        stop_after_minutes: of training, before the run is begun anew from its checkpoint.
        evaluate: options of `samu evaluate` by name: split, clicks, limit, boundary.
    """

    phantoms: dict[str, Any] = field(default_factory=dict)
    stop_after_minutes: float = 0.5
    evaluate: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ChainSettings:
        """Build from plain values. Raises SamuError for what is unknown."""
        known = [item.name for item in fields(cls)]
        try:
            return cls(**values)
        except TypeError as error:
            raise SamuError(f"the block 'chain' knows {', '.join(known)} ({error}).") from error


def read_config(path: Path) -> tuple[TrainingSettings, ChainSettings | None]:
    """A config file's training settings, and its chain if it has one. Raises SamuError when not usable."""
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        values = None
    if not isinstance(values, dict) or "chain" not in values:
        return TrainingSettings.read(path), None
    chain = values.pop("chain")
    if not isinstance(chain, dict):
        raise SamuError(f"the block 'chain' of {path} holds no settings; see configs/smoke.yaml.")
    return TrainingSettings.from_dict(values), ChainSettings.from_dict(chain)


def prepare_data(chain: ChainSettings, folder: Path) -> Path | None:
    """Make the chain's phantoms in a folder, unless they are there; None when it has none."""
    from samu_core.evaluation.phantoms import PhantomSet, make_phantoms

    if not chain.phantoms:
        return None
    try:
        wanted = PhantomSet(**chain.phantoms)
    except TypeError as error:
        names = ", ".join(item.name for item in fields(PhantomSet))
        raise SamuError(f"'phantoms' of the chain knows {names} ({error}).") from error
    if not (folder / "manifest.csv").is_file():
        make_phantoms(folder, wanted)
    return folder


def run_chain(chain: ChainSettings, train: Callable[[float | None], bool], out: Path, data: Path) -> bool:
    """Train in two goes, export, evaluate; says what each step did.

    Args:
        train: trains for so many seconds of this call (None: to the end), from the checkpoint in `out` if
            there is one; True when the run is complete.
        out: the run's folder.
        data: folder with manifest.csv, to be evaluated.

    Returns:
        whether the run was completed.

    Raises:
        SamuError: a step failed, or the second go did not take up where the first one stopped.
    """
    start = time.monotonic()
    complete = train(60 * chain.stop_after_minutes)
    if not complete:
        before = _progress(out)
        LOGGER.info("stopped at step %d; going on from the checkpoint", before)
        complete = train(None)
        if _progress(out) <= before:
            raise SamuError(f"{out} did not go on from its checkpoint at step {before}.")
    weights = out / "weights.npz"
    _samu("export", out / "checkpoint.pt", "--out", weights)
    options = {"split": "dev", **chain.evaluate}
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    _samu("evaluate", "--data", data, "--model", weights, "--out", out / "evaluation", *words)
    LOGGER.info("the chain took %.1f minutes: %s", (time.monotonic() - start) / 60, out)
    return complete


def _progress(out: Path) -> int:
    """Steps in the run's checkpoint."""
    import torch

    return int(torch.load(out / "checkpoint.pt", map_location="cpu", weights_only=True)["step"])


def _samu(*words: Any) -> None:
    from samu_core import cli

    code = cli.main([str(word) for word in words])
    if code:
        raise SamuError(f"'samu {words[0]}' failed in the chain (exit code {code}); its error stands above.")
