"""What a run was made with, kept in its folder: run.json, one entry per start of the run."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import samu_core
from samu_core.training.settings import TrainingSettings

NAME = "run.json"


def write_run_info(
    folder: Path, settings: TrainingSettings, device: str = "cpu", config: Path | None = None, ranks: int = 1
) -> dict[str, Any]:
    """Add this start to FOLDER/run.json and copy the config file beside it.

    Args:
        folder: of the run, made if missing.
        device: torch device of the training.
        config: file that the settings were read from; copied to config.yaml (a later start with another
            file: config-2.yaml, and so on).
        ranks: processes that train together.

    Returns:
        the entry: settings, command, time, git commit (None outside a checkout), versions, device, host.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    starts = read_run_info(folder)
    entry = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "git": git_state(),
        "versions": versions(),
        "device": {"kind": device, "name": _device_name(device), "ranks": ranks, **_threads()},
        "host": {"name": platform.node(), "system": platform.platform(), "cpus": os.cpu_count()},
        "config": _keep_config(folder, config),
        "settings": settings.to_dict(),
    }
    temporary = folder / f"{NAME}.part"
    temporary.write_text(json.dumps({"starts": [*starts, entry]}, indent=1, default=str), encoding="utf-8")
    os.replace(temporary, folder / NAME)
    return entry


def read_run_info(folder: Path) -> list[dict[str, Any]]:
    """The starts of a run, oldest first; none where there is no readable run.json."""
    try:
        return list(json.loads((Path(folder) / NAME).read_text(encoding="utf-8"))["starts"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def git_state() -> dict[str, Any] | None:
    """{commit, changed}: of the checkout that this package is part of, and how many tracked files differ from
    it; None when it is no checkout, or without git."""
    package = Path(samu_core.__file__).resolve().parent
    # An installed package may lie in a foreign checkout, whose commit would say nothing.
    if _git(package, "ls-files", "--error-unmatch", "--", Path(samu_core.__file__).name) is None:
        return None
    commit = _git(package, "rev-parse", "HEAD")
    changed = _git(package, "status", "--porcelain", "--untracked-files=no")
    if commit is None:
        return None
    return {"commit": commit, "changed": len((changed or "").splitlines())}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def versions() -> dict[str, str | None]:
    """Versions of what computes."""
    import numpy as np
    import torch

    return {
        "samu_core": samu_core.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cuda": torch.version.cuda,
    }


def _device_name(device: str) -> str:
    import torch

    if device.startswith("cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_name(torch.device(device))
    return platform.processor() or platform.machine()


def _threads() -> dict[str, int]:
    import torch

    return {"threads": torch.get_num_threads()}


def _keep_config(folder: Path, config: Path | None) -> str | None:
    """Name of the copy of the config file in the run's folder; the same text is kept once."""
    if config is None:
        return None
    text = Path(config).read_bytes()
    for number in range(1, 1000):
        path = folder / ("config.yaml" if number == 1 else f"config-{number}.yaml")
        if not path.is_file():
            path.write_bytes(text)
        if path.read_bytes() == text:
            return path.name
    return None
