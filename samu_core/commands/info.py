"""`samu info`: which weights, device, precision and versions a click would use."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform

import samu_core
from samu_core.commands import common
from samu_core.errors import WeightsError

PACKAGES = ("torch", "numpy", "SimpleITK")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `samu info`."""
    common.add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print two columns; exit code 1 when the weights cannot be used."""
    rows = versions()
    weights, usable = describe_weights(args)
    rows += weights
    if usable:
        predictor = common.make_predictor(args)
        rows += [("device", predictor.device), ("precision", predictor.precision)]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
    return 0 if usable else 1


def versions() -> list[tuple[str, str]]:
    """Of this package, Python and what the network runs on."""
    rows = [("samu_core", samu_core.__version__), ("Python", platform.python_version())]
    for package in PACKAGES:
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            version = "not installed"
        rows.append((package, version))
    return [*rows, ("system", platform.platform())]


def describe_weights(args: argparse.Namespace) -> tuple[list[tuple[str, str]], bool]:
    """What the weights' own metadata says, or why there is none; and whether they can be used."""
    from samu_core.weights import read_info

    try:
        # Without a name: the bundled ones, whose checksum is compared too.
        info = read_info(args.model)
    except WeightsError as error:
        return [("weights", f"unusable: {error}")], False
    rows = [("weights", str(info.pop("path")))]
    rows += [(str(name).replace("_", " "), plain(value)) for name, value in info.items() if simple(value)]
    return rows, True


def simple(value: object) -> bool:
    """Whether a metadata entry fits on a line."""
    return isinstance(value, (str, int, float, bool))


def plain(value: object) -> str:
    """A metadata value for reading."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
