"""The network alone: plain PyTorch against the fused engines, interleaved in one run.

    python benchmarks/engines.py [--rounds 9] [--threads N] [--size 128] [--model FILE | random by default]
                                 [--engines plain,float32,bfloat16] [--peer NAME=FOLDER|FILE.py ...]
                                 [--csv FILE] [--plot FILE]
    python benchmarks/engines.py --device cuda

Click 1 is encoder and decoder on a normalised patch, click 2 the decoder alone, region the decoder with a box
of 12 of 32 coarse voxels along each axis. On an older machine as on this one:

    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 python benchmarks/engines.py --engines plain,float32

A peer is one of peers.py (sam-med3d, fastsam3d) with the folder of its checkout, or a Python file with
`load()`, which returns a function of (patch (128, 128, 128) float32 z-scored, click (3,) KJI index) that
segments; nothing of it needs to be in this repository.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import measuring  # puts the repository on the path
import numpy as np
from peers import PEERS, load_peer

from samu_core.commands.common import table
from samu_core.engine import TorchEngine, choose_precision, cpu_has_bfloat16, fused_engine, import_torch

CLICK = np.array([0.5, 0.5, 0.5])
STEPS = ("encode", "decode", "region")


class FixedRegion:
    """A box in the middle, whatever the network says: the time depends on its size alone."""

    def box(self, auxiliary, prompt):
        """10 of 32 coarse voxels to either side stay out."""
        return tuple(slice(n * 10 // 32, n * 22 // 32) for n in auxiliary.shape)


def make_engines(args: argparse.Namespace) -> dict[str, object]:
    """By name, those that this machine has."""
    engines: dict[str, object] = {}
    for name in args.engines.split(","):
        network = measuring.random_network() if args.model is None else _load(args.model)
        if args.device != "cpu":
            engines.update(_cuda_engines(network, args))
            break
        if name == "plain":
            engines["plain"] = TorchEngine(network, "cpu", "float32")
        elif name == "plain bfloat16":
            engines[name] = TorchEngine(network, "cpu", choose_precision("bfloat16", "cpu"))
        else:
            engine = fused_engine(network, "cpu", name, args.size)
            if engine is None or (name == "bfloat16" and not cpu_has_bfloat16(import_torch())):
                print(f"- no fused {name} engine here; eager takes its place")
                continue
            engines[f"fused {name}"] = engine
    return engines


def _load(path: Path):
    from samu_core.weights import load_network

    return load_network(path, map_location="cpu").eval()


def _cuda_engines(network, args: argparse.Namespace) -> dict[str, object]:
    import copy

    precision = choose_precision("auto", args.device)
    engines = {
        "plain float32": TorchEngine(copy.deepcopy(network), args.device, "float32"),
        f"plain {precision}": TorchEngine(copy.deepcopy(network), args.device, precision),
    }
    try:
        from samu_core.cuda_engine import cuda_engine
    except ImportError:
        return engines
    graphs = cuda_engine(network, args.device, precision, args.size)
    if graphs is not None:
        engines[f"graphs {precision}"] = graphs
    return engines


def load_peers(arguments: list[str]) -> dict[str, object]:
    """name -> function(patch, click)."""
    peers = {}
    for argument in arguments:
        name, _, file = argument.partition("=")
        if name in PEERS:
            peers[name] = load_peer(name, Path(file))
            continue
        spec = importlib.util.spec_from_file_location(f"peer_{len(peers)}", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        peers[name] = module.load()
    return peers


def run(args: argparse.Namespace, engines: dict, peers: dict) -> dict[str, list[float]]:
    """Seconds of every step of every engine in every round; the engines take turns within a round."""
    rng = np.random.default_rng(0)
    patch = rng.normal(size=(args.size,) * 3).astype(np.float32)
    times: dict[str, list[float]] = {}
    for _ in range(args.rounds + 1):
        for name, engine in engines.items():
            features = measuring.timed(times, f"{name}: encode", lambda e=engine: e.encode(patch))
            measuring.timed(times, f"{name}: decode", lambda e=engine, f=features: e.decode(f, CLICK))
            if hasattr(engine, "region"):
                engine.region = FixedRegion()
                measuring.timed(times, f"{name}: region", lambda e=engine, f=features: e.decode(f, CLICK))
                engine.region = None
            del features
        for name, predict in peers.items():
            measuring.timed(times, f"{name}: click", lambda p=predict: p(patch, CLICK * args.size - 0.5))
    return times


def report(engines: dict, peers: dict, found: dict[str, float]) -> tuple[str, dict[str, float]]:
    """Markdown table, and milliseconds of click 1 by name. Shares are of the first engine's click 1."""
    first = next(iter(engines))
    reference = found[f"{first}: encode"] + found[f"{first}: decode"]
    rows, clicks = [], {}
    for name in engines:
        encode, decode = found[f"{name}: encode"], found[f"{name}: decode"]
        region = found.get(f"{name}: region")
        click = encode + decode
        clicks[name] = click * 1000
        cells = [encode, decode, click]
        rows.append(
            [name]
            + [f"{1000 * value:.1f}" for value in cells]
            + ["-" if region is None else f"{1000 * region:.1f}"]
            + [f"{click / reference:.2f}", f"{decode / click:.2f}"]
            + ["-" if region is None else f"{region / decode:.2f}"]
        )
    for name in peers:
        click = found[f"{name}: click"]
        clicks[name] = click * 1000
        rows.append([name, "-", "-", f"{1000 * click:.1f}", "-", f"{click / reference:.2f}", "-", "-"])
    header = ["engine", "encode ms", "decode ms", "click 1 ms", "region ms"]
    header += [f"click 1 / {first}", "click 2 / click 1", "region / click 2"]
    return table(rows, header), clicks


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--engines", default="plain,float32,bfloat16")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=FOLDER|FILE.py")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    print(f"- {measuring.machine(args.threads)}, {measuring.load_average()}")
    engines, peers = make_engines(args), load_peers(args.peer)
    times = run(args, engines, peers)
    if args.device != "cpu":
        import torch

        peak = torch.cuda.max_memory_allocated() / 2**20
        print(f"- at most {peak:.0f} MiB of the device's memory, all engines together")
    text, clicks = report(engines, peers, measuring.medians(times))
    print(f"- medians of {args.rounds} interleaved rounds, patch {args.size}^3\n\n{text}")
    if args.csv:
        measuring.write_csv(args.csv, times)
    if args.plot:
        measuring.plot_bars(args.plot, clicks, "ms per first click in a patch")


if __name__ == "__main__":
    main()
