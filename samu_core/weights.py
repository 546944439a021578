"""The weights file: int8 per output channel in a numpy archive, small enough to ship inside the extension.

An archive holds, per tensor NAME of the network's state, either `int8:NAME` with `scale:NAME` (float16, one
per output channel) or `float32:NAME` for the small ones (normalisation, biases, embeddings), and `meta`,
JSON with the format, the network's settings and what is known of the training. It is read with
`allow_pickle=False`: opening a weights file runs no code.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from samu_core.errors import WeightsError

if TYPE_CHECKING:
    from samu_core.network import SAMU

FORMAT, VERSION = "samu-weights", 1
BUNDLED_NAME = "samu.npz"
BUNDLED_SHA256 = "e7cc5ffb55a5a30b6e0a521bdbea1e8d5073371d1a31da8c608c50ebfb7e2ac6"
ENVIRONMENT_VARIABLE = "SAMU_WEIGHTS"
BEFORE = {"limits": False}  # settings of networks whose files do not name them
LEAST_QUANTISED = 1024  # elements; below that int8 saves nothing
LARGE = 100_000  # elements; 13 tensors of the coarse levels, which make up 87 % of the bundled file

_GET_ANOTHER = "Reinstall SAMUSegment, or name a weights file."


def find_bundled() -> Path:
    """The weights that come with the package.

    Looked for where SAMU_WEIGHTS points, then in `SAMUSegment/Resources/Models` of a checkout, in the module
    folder of an installed extension, and in an installed wheel.

    Raises:
        WeightsError: there are none.
    """
    chosen = os.environ.get(ENVIRONMENT_VARIABLE)
    if chosen:
        path = Path(chosen).expanduser()
        if not path.is_file():
            raise WeightsError(f"{ENVIRONMENT_VARIABLE} names {path}, which is no file. Correct or unset it.")
        return path
    package = Path(__file__).resolve().parent
    folders = (
        package.parent / "SAMUSegment" / "Resources" / "Models",
        package.parent / "Resources" / "Models",
        package / "models",
    )
    for folder in folders:
        if (folder / BUNDLED_NAME).is_file():
            return folder / BUNDLED_NAME
    raise WeightsError(
        f"the model's weights ({BUNDLED_NAME}) are missing from this installation. {_GET_ANOTHER}"
    )


def load_network(path: str | os.PathLike | None = None, map_location="cpu") -> SAMU:
    """The trained network, in eval mode.

    Args:
        path: a weights file (.npz) or a training checkpoint (.pt, of which the averaged weights are taken);
            None for the bundled weights, whose SHA-256 is checked.
        map_location: torch device for the parameters.

    Raises:
        WeightsError: missing, truncated, altered, foreign or too new.
    """
    from samu_core.network import SAMU, SAMUConfig

    path, expected = _resolve(path)
    if path.suffix == ".pt":
        config, state = _read_checkpoint(path)
    else:
        config, state = _read_archive(path, expected)
    try:
        network = SAMU(SAMUConfig.from_dict(config))
        network.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(
            f"{path} does not fit this version of the network ({reason}). {_GET_ANOTHER}"
        ) from error
    return network.to(map_location).eval()


def read_info(path: str | os.PathLike | None = None) -> dict[str, Any]:
    """What a weights file says of itself: at least `path`, `sha256`, `parameters` and, for .npz, its
    metadata.

    Raises:
        WeightsError: as `load_network`.
    """
    path, expected = _resolve(path)
    if path.suffix == ".pt":
        config, state = _read_checkpoint(path)
        info: dict[str, Any] = {"name": path.stem}
    else:
        meta = _read_arrays(path, expected)[1]
        config, state = _read_archive(path, expected)
        info = dict(meta.get("info", {}))
    parameters = sum(value.numel() for name, value in state.items() if not _is_statistic(name))
    return {**info, "path": str(path), "sha256": sha256(path), "parameters": parameters, "config": config}


def save_weights(path: str | os.PathLike, network: SAMU, info: dict[str, Any], step: float = 0.0) -> str:
    """Write a network as an int8 archive, whole or not at all.

    Args:
        info: what to keep with it, JSON-able: name, training hours, measured Dice...
        step: least step of the large tensors (LARGE elements), in root mean squares of an output channel's
            weights; 0 has the finest steps that int8 allows. Coarser ones take fewer different values, which
            compress better (docs/model.md has sizes and Dice).

    Returns:
        the file's SHA-256, to be kept as `BUNDLED_SHA256` when it is the one to ship.
    """
    path = Path(path)
    meta = {"format": FORMAT, "version": VERSION, "config": network.config.to_dict(), "info": info}
    arrays = {"meta": np.frombuffer(json.dumps(meta).encode(), np.uint8)}
    for name, tensor in network.state_dict().items():
        values = tensor.detach().cpu().float().numpy()
        if values.ndim >= 2 and values.size >= LEAST_QUANTISED:
            least = step if values.size >= LARGE else 0.0
            steps, scale = _quantise(values, _output_axis(name, values), least)
            arrays[f"int8:{name}"], arrays[f"scale:{name}"] = steps, scale
        else:
            arrays[f"float32:{name}"] = values
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return sha256(path)


def sha256(path: str | os.PathLike) -> str:
    """Hexadecimal SHA-256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _resolve(path: str | os.PathLike | None) -> tuple[Path, str]:
    """The file, and the SHA-256 it must have ("" for any)."""
    if path is not None:
        return Path(path), ""
    return find_bundled(), "" if os.environ.get(ENVIRONMENT_VARIABLE) else BUNDLED_SHA256


def _output_axis(name: str, values: np.ndarray) -> int:
    """Transposed convolutions keep their output channels on axis 1; everything else on axis 0."""
    return 1 if values.ndim == 5 and ".up." in name else 0


def _quantise(values: np.ndarray, axis: int, step: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric int8 with one float16 scale along `axis`, the scale rounded before the values are; at least
    `step` root mean squares of the values there."""
    others = tuple(place for place in range(values.ndim) if place != axis)
    largest = np.abs(values).max(axis=others, keepdims=True)
    coarse = step * np.sqrt(np.square(values).mean(axis=others, keepdims=True))
    scale = np.maximum(np.maximum(largest / 127, coarse), 1e-7).astype(np.float16)
    scale = np.where(
        scale.astype(np.float32) * 127.5 < largest, np.nextafter(scale, np.float16(np.inf)), scale
    )
    steps = np.clip(np.rint(values / scale.astype(np.float32)), -127, 127)
    return steps.astype(np.int8), scale


def _is_statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked", "frequencies"))


def _read_arrays(path: Path, expected: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}. {_GET_ANOTHER}")
    if expected and sha256(path) != expected:
        raise WeightsError(f"{path} is not the file that was shipped (its checksum differs). {_GET_ANOTHER}")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, AttributeError) as error:
        raise WeightsError(f"{path} is truncated or no weights file. {_GET_ANOTHER}") from error
    try:
        meta = json.loads(arrays.pop("meta").tobytes().decode())
        known = meta["format"] == FORMAT
    except (KeyError, ValueError, TypeError) as error:
        raise WeightsError(f"{path} holds no SAMU weights. {_GET_ANOTHER}") from error
    if not known:
        raise WeightsError(f"{path} holds no SAMU weights. {_GET_ANOTHER}")
    if meta.get("version", 0) > VERSION:
        raise WeightsError(
            f"{path} was made for a newer SAMUSegment. Update the extension, or name another file."
        )
    return arrays, meta


def _read_archive(path: Path, expected: str):
    import torch

    arrays, meta = _read_arrays(path, expected)
    state = {}
    for key, values in arrays.items():
        kind, _, name = key.partition(":")
        if kind == "int8":
            values = values.astype(np.float32) * arrays[f"scale:{name}"].astype(np.float32)
        if kind in ("int8", "float32"):
            state[name] = torch.from_numpy(np.ascontiguousarray(values)).reshape(values.shape)
    return {**BEFORE, **meta["config"]}, state


def _read_checkpoint(path: Path):
    import torch

    if not path.is_file():
        raise WeightsError(f"there is no checkpoint {path}. {_GET_ANOTHER}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {**BEFORE, **state["config"]}, state["ema"]
    except Exception as error:  # torch raises whatever its unpickler meets
        raise WeightsError(f"{path} is truncated or no SAMU training checkpoint. {_GET_ANOTHER}") from error
