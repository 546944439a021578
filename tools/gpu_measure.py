"""What a machine manages in training: samples and steps a second, apart and together, and where a step's time
goes. Part of tools/gpu_run.py ("measure")."""

from __future__ import annotations

import time

import torch
from torch.profiler import ProfilerActivity, profile

from samu_core.training.settings import CropSettings, PhaseSettings
from samu_core.training.stream import Batch
from samu_core.training.trainer import Trainer

START = time.monotonic()
ROWS = 16  # of a profile
WARM_UP_STEPS = 2


def measure(trainer: Trainer, seconds: float) -> int:
    """Print all figures of the first phase. One crop's failure, say for lack of memory, leaves the others.

    Args:
        seconds: that the generator is measured for; a crop's steps a third of that, both together twice that.

    Returns:
        exit code, 0.
    """
    device, phase = trainer.device, trainer.settings.phases[0]
    say(f"{device}, torch {torch.__version__}")
    batches = start_generator(trainer, phase, seconds)
    for crop in phase.crops:
        for variant in variants(crop):
            try:
                time_steps(trainer, phase, variant, seconds)
            except RuntimeError as error:
                say(f"{name_of(variant)}: failed, {str(error).splitlines()[0][:200]}")
                if device.type == "cuda":
                    torch.cuda.empty_cache()
    clicks, begun = 0, time.monotonic()
    while time.monotonic() - begun < 2 * seconds:
        batch = next(batches)
        trainer.train_step(batch, phase)
        clicks += len(batch.position)
    say(f"generator and steps together: {clicks / (time.monotonic() - begun):.0f} clicks/s")
    for crop in (phase.crops[0], phase.crops[-1]):
        print_profile(trainer, phase, crop)
    return 0


def say(text: str) -> None:
    """Print with the time since the start, at once: the command may be cut off."""
    print(f"[{time.monotonic() - START:6.1f} s] {text}", flush=True)


def variants(crop: CropSettings) -> list[CropSettings]:
    """The crop, and without windows, with fewer clicks for the memory that takes."""
    if not crop.window:
        return [crop]
    whole = CropSettings(crop.size, crop.spacing, crop.batch, clicks=min(crop.clicks, 2))
    return [crop, whole]


def name_of(crop: CropSettings) -> str:
    """One line for a crop."""
    return f"{crop.batch} x {crop.size}^3, {crop.clicks} clicks, window {crop.window}" + " far" * crop.far


def start_generator(trainer: Trainer, phase: PhaseSettings, seconds: float):
    """Say what the workers manage alone; returns their batches."""
    workers = trainer.settings.workers
    trainer.difficulty[0] = trainer.settings.hardest
    batches = iter(trainer.batches(phase, trainer.settings.seed))
    for _ in range(2 * workers + 1):  # what they have ready
        next(batches)
    say(f"{workers} workers are at work")
    clicks, patches, begun = 0, 0, time.monotonic()
    while time.monotonic() - begun < seconds:
        batch = next(batches)
        clicks, patches = clicks + len(batch.position), patches + len(batch.patch)
    passed = time.monotonic() - begun
    say(f"generator: {clicks / passed:.0f} clicks/s, {patches / passed:.0f} patches/s")
    return batches


def time_steps(trainer: Trainer, phase: PhaseSettings, crop: CropSettings, seconds: float) -> None:
    """Training steps on one batch of noise with balls as targets."""
    batch = noise_batch(crop)
    on_gpu = trainer.device.type == "cuda"
    begun = time.monotonic()
    for _ in range(WARM_UP_STEPS):
        trainer.train_step(batch, phase)
    warm_up = time.monotonic() - begun
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    steps, begun = 0, time.monotonic()
    while time.monotonic() - begun < seconds / 3:
        trainer.train_step(batch, phase)  # waits for the device: it returns the loss
        steps += 1
    each = (time.monotonic() - begun) / steps
    memory = f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if on_gpu else ""
    say(
        f"{name_of(crop)}: {1000 * each:.0f} ms a step, {crop.batch * crop.clicks / each:.0f} clicks/s, "
        f"{crop.batch / each:.0f} patches/s, first {WARM_UP_STEPS} steps {warm_up:.1f} s{memory}"
    )


def noise_batch(crop: CropSettings) -> Batch:
    """A batch as a crop wants it, shapes as of `Batch`, of noise; targets are balls around the clicks."""
    generator = torch.Generator().manual_seed(0)
    size, clicks = crop.size, crop.batch * crop.clicks
    patch = torch.randn(crop.batch, 1, size, size, size, generator=generator)
    position = 0.3 + 0.4 * torch.rand(clicks, 3, generator=generator)
    axis = (torch.arange(size) + 0.5) / size
    k, j, i = ((axis[None] - position[:, n, None]).square() for n in range(3))
    target = k[:, :, None, None] + j[:, None, :, None] + i[:, None, None, :] < 0.02
    return Batch(patch, target[:, None], position, 1.0, crop.window, crop.far)


def print_profile(trainer: Trainer, phase: PhaseSettings, crop: CropSettings) -> None:
    """What takes the time of one step, by the device's time if there is one."""
    batch, on_gpu = noise_batch(crop), trainer.device.type == "cuda"
    trainer.train_step(batch, phase)
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    with profile(activities=kinds) as found:
        trainer.train_step(batch, phase)
    rows = found.key_averages()
    own = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    launches = sum(row.count for row in rows if "LaunchKernel" in row.key)
    total = sum(getattr(row, own) for row in rows) / 1000
    say(f"profile of {name_of(crop)}: {total:.0f} ms, {launches} launches")
    for row in sorted(rows, key=lambda each: -getattr(each, own))[:ROWS]:
        print(f"  {getattr(row, own) / 1000:9.2f} ms  {row.count:6d} x  {row.key[:90]}", flush=True)
