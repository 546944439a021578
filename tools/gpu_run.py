"""The GPU run: prepare a small folder here, train one phase a command there, merge the shards here.

    python tools/gpu_run.py prepare --pack runs/pack --data DIR --out .gpu      (here; .gpu is what travels)
    python3 tools/gpu_run.py train --stage 1 --carry .gpu --out $OUT            (there; then --stage 2, 3)
    python tools/gpu_run.py merge SHARDS --out runs/gpu/checkpoint.pt           (here)
    python tools/gpu_run.py rehearse --out runs/rehearsal                       (here: all of it, on the CPU)

There, numpy, torch and yaml are enough. A lost machine costs one stage: put the last stage's weights.npz and
progress.json into CARRY/resume and give the next stage's command.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))
START = time.monotonic()

BUDGET_MIB = 36  # with the repository (weights included) and a resume file below the 64 MiB that travel
VOLUMES_SHARE, DEV_SHARE = 0.62, 0.1  # of the budget; the rest is for the random shapes and the regions
DEV_PER_SOURCE = 4  # a quick look needs no more
LIMIT_S = 560  # of a command's wall time; the machine kills it at 600
RESERVE_S = 45  # for writing what comes back
QUICK_S = 60  # and for the quick evaluation of the last stage
ABSENT = ("SimpleITK", "monai", "scipy", "skimage")  # what a rehearsal does without
FORBID = "SAMU_REHEARSAL"
LOGGER = logging.getLogger("gpu_run")


def main(argv=None) -> int:
    """Parse and run a sub-command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare", help="make the folder that travels")
    prepare.add_argument("--pack", type=Path, required=True, help="packed training data")
    prepare.add_argument("--data", type=Path, help="folder with manifest.csv: its dev split for a quick look")
    prepare.add_argument("--config", type=Path, default=REPOSITORY / "configs" / "gpu.yaml")
    prepare.add_argument("--out", type=Path, required=True)
    prepare.add_argument("--budget-mib", type=float, default=BUDGET_MIB)
    prepare.add_argument("--per-source", type=int, default=22, help="at most so many volumes of a data set")
    train = commands.add_parser("train", help="one stage, on the machine with the GPU")
    train.add_argument("--stage", type=int, required=True, help="1, 2, ...: trains to the end of that phase")
    train.add_argument("--carry", type=Path, required=True, help="folder of 'prepare'")
    train.add_argument("--out", type=Path, required=True, help="folder that comes back ($OUT)")
    train.add_argument("--run", type=Path, default=Path("/tmp/samu-gpu-run"), help="stays on a warm machine")
    train.add_argument("--initial", type=Path, help="weights that the first stage begins with")
    train.add_argument("--limit-s", type=float, default=LIMIT_S, help="wall time of this command")
    train.add_argument("--quick", type=int, default=48, help="dev samples of the last stage's quick look")
    merge = commands.add_parser("merge", help="a checkpoint of a stage's shards")
    merge.add_argument("shards", type=Path)
    merge.add_argument("--out", type=Path, required=True, help="checkpoint.pt to write")
    rehearse = commands.add_parser("rehearse", help="all of it with tiny times, on the CPU")
    rehearse.add_argument("--out", type=Path, required=True, help="empty or new folder")
    rehearse.add_argument("--pack", type=Path, help="packed data (default: phantoms)")
    rehearse.add_argument("--seconds", type=float, default=6.0, help="of training per stage (default: 6)")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    from samu_core.errors import SamuError

    try:
        return {"prepare": run_prepare, "train": run_train, "merge": run_merge, "rehearse": run_rehearse}[
            args.command
        ](args)
    except SamuError as error:
        print(f"gpu_run: error: {error}", file=sys.stderr)
        return 1


def run_prepare(args) -> int:
    """Shrink the pack, add bank, regions and dev volumes, and say how large it is."""
    from samu_core.errors import SamuError
    from samu_core.training.pack import pack_data
    from samu_core.training.settings import TrainingSettings
    from samu_core.training.stream import load_sources
    from samu_core.training.travel import MIB, folder_bytes, pack_small, save_banks

    settings = TrainingSettings.read(args.config)
    if args.out.exists() and any(args.out.iterdir()):
        raise SamuError(f"{args.out} is not empty; name a new folder.")
    budget = int(args.budget_mib * MIB)
    pack_small(args.pack, args.out, int(VOLUMES_SHARE * budget), args.per_source)
    shutil.copyfile(args.config, args.out / "config.yaml")
    save_banks(load_sources(args.out, settings, cache=args.out), args.out)  # makes the regions too
    if args.data is not None:
        temporary = args.out.with_name(args.out.name + "-dev")
        pack_data(args.data, temporary, split="dev")
        pack_small(temporary, args.out / "dev", int(DEV_SHARE * budget), DEV_PER_SOURCE)
        small = replace(of_any_source(settings), shapes=1, skeletons=0, shape_size=16)
        dev = load_sources(args.out / "dev", small)
        save_banks(dev, args.out / "dev")
        shutil.rmtree(temporary)
    size = folder_bytes(args.out)
    print(f"{args.out}: {size / MIB:.1f} MiB")
    if size > budget:
        raise SamuError(f"{args.out} is larger than {args.budget_mib:g} MiB: fewer shapes or region_volumes.")
    return 0


def run_train(args) -> int:
    """Go on to the end of a phase, or as long as the command may take; write what comes back."""
    block_absent()
    import torch

    from samu_core.errors import SamuError
    from samu_core.training.curves import draw_curves
    from samu_core.training.rundir import write_run_info
    from samu_core.training.settings import TrainingSettings
    from samu_core.training.trainer import Trainer
    from samu_core.training.travel import copy_back, load_carried, write_shards
    from samu_core.weights import save_weights

    settings = TrainingSettings.read(args.carry / "config.yaml")
    if not 1 <= args.stage <= len(settings.phases):
        raise SamuError(f"--stage must be 1 to {len(settings.phases)}.")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.backends.cudnn.benchmark = True
    trainer = Trainer(settings, load_carried(args.carry, settings), args.run, device)
    begin(trainer, args.run / "checkpoint.pt", args.carry / "resume", args.stage, args.initial)
    write_run_info(args.run, settings, device, args.carry / "config.yaml")
    last = args.stage == len(settings.phases)
    goal = 60 * sum(phase.minutes for phase in settings.phases[: args.stage]) - trainer.seconds
    left = args.limit_s - (time.monotonic() - START) - RESERVE_S - (QUICK_S if last and args.quick else 0)
    if goal > 0 and left > 0:
        LOGGER.info("stage %d on %s: %.0f s of training, %.0f s left", args.stage, device, goal, left)
        trainer.run(min(goal, left))
    else:
        LOGGER.warning("no training: stage over, or no time left (%.0f s, %.0f s)", goal, left)
    write_shards(trainer, args.out)
    save_weights(args.out / "weights.npz", trainer.ema, {"stage": args.stage, "seconds": trainer.seconds})
    draw_curves(args.run)
    copy_back(args.run, args.out)
    if last and args.quick and (args.carry / "dev").is_dir():
        end = START + args.limit_s - RESERVE_S / 2
        (args.out / "quick.json").write_text(
            json.dumps(quick_look(trainer, args.carry / "dev", args.quick, end))
        )
    LOGGER.info("step %d, %d samples, %.0f s of training", trainer.step, trainer.samples, trainer.seconds)
    return 0


def begin(trainer, checkpoint: Path, resume: Path, stage: int, initial: Path | None) -> None:
    """Take up the run: from this machine's checkpoint, or from the files of another machine, or anew, with
    `initial` weights if there are any."""
    from samu_core.errors import SamuError

    if checkpoint.is_file():
        trainer.load(checkpoint)
    elif (resume / "weights.npz").is_file():
        progress = json.loads((resume / "progress.json").read_text())
        trainer.start_from(resume / "weights.npz")
        trainer.seconds, trainer.step = progress["seconds"], progress["step"]
        trainer.samples = progress["samples"]
        LOGGER.info("another machine: weights of step %d, fresh moments of the optimiser", trainer.step)
    elif stage > 1:
        raise SamuError(
            f"stage {stage} finds neither {checkpoint} nor {resume}/weights.npz: is this another machine? "
            "Put the last stage's weights.npz and progress.json into CARRY/resume."
        )
    elif initial is not None:
        new = trainer.start_from(initial)
        LOGGER.info("begun with the weights of %s; new: %s", initial, ", ".join(new) or "nothing")


def of_any_source(settings):
    """The settings for a pack of the dev split: it lacks sources that they draw more often."""
    return replace(settings, labelmap_factors={}, real_factors={})


def quick_look(trainer, folder: Path, count: int, end: float) -> dict:
    """Mean Dice of the averaged weights on dev samples of 128^3: an impression, not the protocol."""
    import torch

    from samu_core.prompt import PointPrompt
    from samu_core.training.settings import CropSettings, PhaseSettings
    from samu_core.training.stream import BatchStream
    from samu_core.training.travel import load_carried

    size = max(crop.size for crop in trainer.settings.phases[-1].crops)
    phase = PhaseSettings(1, (CropSettings(size, (1.5, 1.5), 1),), real=1.0, labelmaps=0.0)
    settings = replace(of_any_source(trainer.settings), phases=(phase,))
    batches = iter(BatchStream(load_carried(folder, settings), phase, torch.ones(1), 7))
    dices = []
    for _ in range(count):
        if time.monotonic() > end:
            break
        batch = next(batches)
        prompt = PointPrompt(batch.position.to(trainer.device), batch.span)
        with torch.inference_mode():
            features = trainer.ema.encode(batch.patch.to(trainer.device))
            mask = trainer.ema.decode(features, prompt).cpu() > 0
        wanted = batch.target > 0.5
        dices.append(float(2 * (mask & wanted).sum() / (mask.sum() + wanted.sum()).clamp(min=1)))
    return {"samples": len(dices), "mean_dice": sum(dices) / max(len(dices), 1), "augmented": True}


def run_merge(args) -> int:
    """A checkpoint of a stage's shards."""
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
    data, pack, carry = None, args.pack, args.out / "carry"
    if pack is None:
        data, pack = args.out / "data", args.out / "pack"
        make_phantoms(data, PhantomSet(2, 1, 1, 5.0))
        pack_data(data, pack)
    config = yaml.safe_load((REPOSITORY / "configs" / "gpu.yaml").read_text())
    config.update(shapes=2, skeletons=2, shape_size=40, region_volumes=1, workers=0, warm_up_steps=2)
    config["labelmap_factors"] = dict.fromkeys(sources_without_dev(data) if data else [], 2.0)
    config["network"] = {"channels": [16] * 6, "embedding": 16}
    for phase in config["phases"]:
        phase["minutes"] = args.seconds / 60
        for crop in phase["crops"]:
            crop.update(size=32, batch=2, window=min(crop.get("window", 0), 24))
    (args.out / "tiny.yaml").write_text(yaml.safe_dump(config))
    options = ["--pack", pack, "--config", args.out / "tiny.yaml", "--out", carry]
    own_process("prepare", *options, *(["--data", data] if data else []))
    for stage in range(1, len(config["phases"]) + 1):
        out, machine = args.out / f"out-{stage}", args.out / f"machine-{1 if stage < 3 else 2}"
        if stage == 3:  # the first machine is lost
            (carry / "resume").mkdir()
            for name in ("weights.npz", "progress.json"):
                shutil.copyfile(args.out / "out-2" / name, carry / "resume" / name)
        options = ["--stage", stage, "--carry", carry, "--out", out, "--run", machine, "--quick", 2]
        own_process("train", *options, environment={FORBID: "1", "CUDA_VISIBLE_DEVICES": ""})
    own_process("merge", args.out / "out-3", "--out", args.out / "checkpoint.pt")
    steps = [json.loads((args.out / f"out-{n}" / "progress.json").read_text())["step"] for n in (1, 2, 3)]
    if not 0 < steps[0] < steps[1] < steps[2]:
        raise SamuError(f"a stage of the rehearsal did not go on: steps {steps}.")
    print(f"rehearsed: steps {steps}, {args.out / 'checkpoint.pt'}")
    return 0


def sources_without_dev(data: Path) -> list[str]:
    """Data sets that the dev split of a data folder lacks, as the real one lacks what gpu.yaml names."""
    with (data / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    seen = {row["source_repo"] for row in rows if row["split"] == "dev"}
    return sorted({row["source_repo"] for row in rows} - seen)


def own_process(*words, environment=None) -> None:
    """Run this script's sub-command as a process. SamuError when it fails."""
    from samu_core.errors import SamuError

    command = [sys.executable, str(Path(__file__).resolve()), *[str(word) for word in words]]
    code = subprocess.run(command, env={**os.environ, **(environment or {})}, check=False).returncode
    if code:
        raise SamuError(f"'{words[0]}' failed in the rehearsal (exit code {code}); its error stands above.")


if __name__ == "__main__":
    sys.exit(main())
