"""Training on a lent GPU: prepare a small folder here, train there, merge the shards here.

    python tools/gpu_run.py prepare --pack runs/pack --out .gpu         (here; .gpu is what travels)
    python3 tools/gpu_run.py measure --carry .gpu                       (there: what does the machine manage?)
    python3 tools/gpu_run.py train --carry .gpu --out $OUT              (there)
    python tools/gpu_run.py merge FILES --out runs/gpu/checkpoint.pt    (here)
    python tools/gpu_run.py rehearse --out runs/rehearsal               (here: all of it, on the CPU)

There, numpy, torch, yaml and Pillow are enough. Phases are stretched to the time that the command has, or
--commands N of them. A lost machine costs what its last command did: put the files of the one before it,
weights.npz and progress.json, into CARRY/resume and give the next command.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))
START = time.monotonic()

BUDGET_MIB = 40  # with the repository (weights included) and the first weights below the 64 MiB that travel
BANKS_MIB = 12  # of the budget; the rest is for the volumes and their regions
LIMIT_S = 585  # of a command's wall time; the machine kills it at 600
RESERVE_S = 20  # for writing what comes back
INITIAL = "initial/weights.npz"  # in the carried folder (its .npz files are volumes): weights to begin with
ABSENT = ("SimpleITK", "monai", "scipy", "skimage")  # what a rehearsal does without
FORBID = "SAMU_REHEARSAL"
LOGGER = logging.getLogger("gpu_run")


def main(argv=None) -> int:
    """Parse and run a sub-command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare", help="make the folder that travels")
    prepare.add_argument("--pack", type=Path, required=True, help="packed training data")
    prepare.add_argument("--config", type=Path, default=REPOSITORY / "configs" / "gpu.yaml")
    prepare.add_argument("--initial", type=Path, help="weights that the training is to begin with")
    prepare.add_argument("--out", type=Path, required=True)
    prepare.add_argument("--budget-mib", type=float, default=BUDGET_MIB, help="without the first weights")
    measure = commands.add_parser("measure", help="steps and samples a second, on the machine with the GPU")
    measure.add_argument("--carry", type=Path, required=True, help="folder of 'prepare'")
    measure.add_argument("--seconds", type=float, default=6.0, help="per figure")
    train = commands.add_parser("train", help="on the machine with the GPU")
    train.add_argument("--carry", type=Path, required=True, help="folder of 'prepare'")
    train.add_argument("--out", type=Path, required=True, help="folder that comes back ($OUT)")
    train.add_argument("--run", type=Path, default=Path("/tmp/samu-gpu-run"), help="stays on a warm machine")
    train.add_argument("--commands", type=int, default=1, help="that share the phases (default: 1)")
    train.add_argument("--limit-s", type=float, default=LIMIT_S, help="wall time of this command")
    merge = commands.add_parser("merge", help="a checkpoint of a command's shards")
    merge.add_argument("shards", type=Path)
    merge.add_argument("--out", type=Path, required=True, help="checkpoint.pt to write")
    rehearse = commands.add_parser("rehearse", help="all of it with tiny times, on the CPU")
    rehearse.add_argument("--out", type=Path, required=True, help="empty or new folder")
    rehearse.add_argument("--pack", type=Path, help="packed data (default: phantoms)")
    rehearse.add_argument("--seconds", type=float, default=20.0, help="of a command (default: 20)")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    from samu_core.errors import SamuError

    actions = {
        "prepare": run_prepare, "measure": run_measure, "train": run_train, "merge": run_merge,
        "rehearse": run_rehearse,
    }  # fmt: skip
    try:
        return actions[args.command](args)
    except SamuError as error:
        print(f"gpu_run: error: {error}", file=sys.stderr)
        return 1


def run_prepare(args) -> int:
    """Shrink the pack, add banks and regions, and say how large it is."""
    from samu_core.errors import SamuError
    from samu_core.training.settings import TrainingSettings
    from samu_core.training.stream import load_sources
    from samu_core.training.travel import MIB, folder_bytes, pack_small, save_banks

    settings = TrainingSettings.read(args.config)
    if args.out.exists() and any(args.out.iterdir()):
        raise SamuError(f"{args.out} is not empty; name a new folder.")
    pack_small(args.pack, args.out, int((args.budget_mib - BANKS_MIB) * MIB))
    shutil.copyfile(args.config, args.out / "config.yaml")
    save_banks(load_sources(args.out, settings, cache=args.out), args.out)  # makes the regions too
    size = folder_bytes(args.out)
    print(f"{args.out}: {size / MIB:.1f} MiB")
    if size > args.budget_mib * MIB:
        raise SamuError(f"{args.out} is larger than {args.budget_mib:g} MiB: fewer shapes or region_volumes.")
    if args.initial is not None:
        (args.out / INITIAL).parent.mkdir()
        shutil.copyfile(args.initial, args.out / INITIAL)
    return 0


def run_measure(args) -> int:
    """What generator, training steps and both together manage; the profile of a step of each crop."""
    block_absent()
    import gpu_measure

    return gpu_measure.measure(make_trainer(args.carry, Path("/tmp/samu-gpu-measure")), args.seconds)


def make_trainer(carry: Path, run: Path, settings=None):
    """A trainer on this machine's GPU, or CPU, from the carried folder; with its settings, or those given."""
    import torch

    from samu_core.training.settings import TrainingSettings
    from samu_core.training.trainer import Trainer
    from samu_core.training.travel import load_carried

    settings = settings or TrainingSettings.read(carry / "config.yaml")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    return Trainer(settings, load_carried(carry, settings), run, device)


def run_train(args) -> int:
    """Train as long as the command may take, to the end of the phases if it is the last one; write what comes
    back."""
    block_absent()
    from samu_core.training.curves import draw_curves
    from samu_core.training.rundir import write_run_info
    from samu_core.training.travel import copy_back, write_shards
    from samu_core.weights import save_weights

    trainer = make_trainer(args.carry, args.run, kept_settings(args.run, args.carry / "resume"))
    left = args.limit_s - (time.monotonic() - START) - RESERVE_S
    if not begin(trainer, args.carry, args.run):
        trainer.settings = trainer.settings.fitted(args.commands * left)
    write_run_info(args.run, trainer.settings, trainer.device.type, args.carry / "config.yaml")
    if left > 0:
        LOGGER.info("on %s, %.0f of %.0f min; %.0f s left", trainer.device, trainer.seconds / 60,
                    trainer.settings.minutes, left)  # fmt: skip
        trainer.run(left)
    else:
        LOGGER.warning("no training: no time left")
    write_shards(trainer, args.out)
    save_weights(args.out / "weights.npz", trainer.ema, {"seconds": trainer.seconds})
    draw_curves(args.run)
    copy_back(args.run, args.out)
    LOGGER.info("step %d, %d samples, %.0f s of training", trainer.step, trainer.samples, trainer.seconds)
    return 0


def kept_settings(run: Path, resume: Path):
    """The settings of the run that goes on here, with its times, or None."""
    from samu_core.training.settings import TrainingSettings

    if (run / "settings.json").is_file():
        return TrainingSettings.from_dict(json.loads((run / "settings.json").read_text()))
    if (resume / "progress.json").is_file():
        return TrainingSettings.from_dict(json.loads((resume / "progress.json").read_text())["settings"])
    return None


def begin(trainer, carry: Path, run: Path) -> bool:
    """Take up the run from this machine's checkpoint or the files of another machine, and return True; or
    begin anew, with the carried weights if there are any, and return False."""
    resume = carry / "resume"
    if (run / "checkpoint.pt").is_file():
        trainer.load(run / "checkpoint.pt")
        return True
    if (resume / "weights.npz").is_file():
        progress = json.loads((resume / "progress.json").read_text())
        trainer.start_from(resume / "weights.npz")
        trainer.seconds, trainer.step = progress["seconds"], progress["step"]
        trainer.samples = progress["samples"]
        LOGGER.info("another machine: weights of step %d, fresh moments of the optimiser", trainer.step)
        return True
    if (carry / INITIAL).is_file():
        new = trainer.start_from(carry / INITIAL)
        LOGGER.info("begun with the carried weights; new: %s", ", ".join(new) or "nothing")
    return False


def run_merge(args) -> int:
    """A checkpoint of a command's shards."""
    from samu_core.training.travel import merge_shards

    progress = merge_shards(args.shards, args.out)
    print(f"{args.out}: step {progress['step']}, {progress['seconds']:.0f} s of training")
    return 0


def block_absent() -> None:
    """In a rehearsal: behave as a machine that lacks ABSENT."""
    if os.environ.get(FORBID):
        sys.modules.update(dict.fromkeys(ABSENT))


def run_rehearse(args) -> int:
    """The whole sequence with tiny patches, network and times, each command a process of its own."""
    import yaml

    from samu_core.errors import SamuError
    from samu_core.evaluation.phantoms import PhantomSet, make_phantoms
    from samu_core.training.pack import pack_data

    args.out.mkdir(parents=True, exist_ok=True)
    pack, carry = args.pack, args.out / "carry"
    if pack is None:
        pack = args.out / "pack"
        make_phantoms(args.out / "data", PhantomSet(2, 1, 1, 5.0))
        pack_data(args.out / "data", pack)
    config = yaml.safe_load((REPOSITORY / "configs" / "gpu.yaml").read_text())
    config.update(shapes=2, skeletons=2, shape_size=40, region_volumes=1, workers=0, warm_up_steps=2)
    config.update(labelmap_factors={}, real_factors={})
    config["network"] = {"channels": [16] * 6, "embedding": 16}
    for phase in config["phases"]:
        for crop in phase["crops"]:
            crop.update(size=32, batch=2, window=min(crop.get("window", 0), 24))
    (args.out / "tiny.yaml").write_text(yaml.safe_dump(config))
    own_process("prepare", "--pack", pack, "--config", args.out / "tiny.yaml", "--out", carry)
    there = {FORBID: "1", "CUDA_VISIBLE_DEVICES": ""}
    own_process("measure", "--carry", carry, "--seconds", 0.5, environment=there)
    for number in (1, 2, 3):
        out, machine = args.out / f"out-{number}", args.out / f"machine-{1 if number < 3 else 2}"
        if number == 3:  # the first machine is lost
            (carry / "resume").mkdir()
            for name in ("weights.npz", "progress.json"):
                shutil.copyfile(args.out / "out-2" / name, carry / "resume" / name)
        options = ["--carry", carry, "--out", out, "--run", machine, "--commands", 3]
        own_process("train", *options, "--limit-s", RESERVE_S + args.seconds, environment=there)
    own_process("merge", args.out / "out-3", "--out", args.out / "checkpoint.pt")
    steps = [json.loads((args.out / f"out-{n}" / "progress.json").read_text())["step"] for n in (1, 2, 3)]
    if not 0 < steps[0] < steps[1] < steps[2]:
        raise SamuError(f"a command of the rehearsal did not go on: steps {steps}.")
    print(f"rehearsed: steps {steps}, {args.out / 'checkpoint.pt'}")
    return 0


def own_process(*words, environment=None) -> None:
    """Run this script's sub-command as a process. SamuError when it fails."""
    from samu_core.errors import SamuError

    command = [sys.executable, str(Path(__file__).resolve()), *[str(word) for word in words]]
    code = subprocess.run(command, env={**os.environ, **(environment or {})}, check=False).returncode
    if code:
        raise SamuError(f"'{words[0]}' failed in the rehearsal (exit code {code}); its error stands above.")


if __name__ == "__main__":
    sys.exit(main())
