"""What an evaluation left in its folder, read again: the click rows, and how they were made."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import platform
import re
import shlex
import time
from pathlib import Path
from typing import Any

from samu_core.errors import SamuError
from samu_core.evaluation.results import ClickRow

RECORD = "evaluation.json"
_READ_AS = {"str": str, "int": int, "float": float}


def read_clicks(path: str | Path) -> list[ClickRow]:
    """The rows of a clicks.csv; empty cells are NaN. SamuError when it is none."""
    path = Path(path)
    types = {field.name: _READ_AS[str(field.type)] for field in dataclasses.fields(ClickRow)}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        found = [ClickRow(**{name: _value(row[name], kind) for name, kind in types.items()}) for row in rows]
    except OSError as error:
        raise SamuError(
            f"cannot read {path}: {error.strerror}; 'samu evaluate ... --out DIR' writes it."
        ) from error
    except (KeyError, ValueError, TypeError) as error:
        raise SamuError(f"{path} is no clicks.csv of 'samu evaluate' ({error}).") from error
    if not found:
        raise SamuError(f"{path} holds no clicks: evaluate again with 'samu evaluate ... --out DIR'.")
    return found


def _value(cell: str, kind: type) -> Any:
    return float("nan") if kind is float and not cell else kind(cell)


def write_record(folder: str | Path, words: list[str], weights_sha256: str | None) -> Path:
    """Keep beside the results how they were made: command (as typed after `samu`), day, weights, versions."""
    import torch

    import samu_core

    record = {
        "command": command_line(words),
        "date": time.strftime("%Y-%m-%d"),
        "weights_sha256": weights_sha256,
        "samu_core": samu_core.__version__,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    path = Path(folder) / RECORD
    temporary = path.with_name(f"{RECORD}.part")
    temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")
    os.replace(temporary, path)
    return path


def read_record(folder: str | Path) -> dict[str, Any]:
    """What `write_record` wrote. SamuError when the folder has none."""
    path = Path(folder) / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["command"] and record["date"]:
            return record
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise SamuError(f"{folder} holds no usable {RECORD}: run 'samu evaluate' with --out {folder} once more.")


def command_line(words: list[str]) -> str:
    """The command as a document gives it: with DIR for the data folder, without what changes no figure."""
    text = " ".join(shlex.quote(str(word)) for word in words)
    text = re.sub(r"(--data[ =])(?:'[^']*'|\S+)", r"\1DIR", text)
    return "samu " + re.sub(r" --workers[ =]\S+| --debug", "", text)
