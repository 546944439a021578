"""The training loop: phases by time, resumable on CPU or GPU, EMA, checkpoints, a throughput log."""

from __future__ import annotations

import copy
import csv
import itertools
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import distributed, nn

from samu_core.errors import SamuError
from samu_core.network import SAMU, SAMUConfig
from samu_core.prompt import PointPrompt
from samu_core.training.again import TypicalOfClicks
from samu_core.training.losses import coarse_loss, samu_loss
from samu_core.training.normalisation import (
    fold_fixed_statistics,
    inference_crop,
    remeasure_statistics,
)
from samu_core.training.optimizer import Optimizer
from samu_core.training.precision import keep_small_convolutions_exact, trains_in_bfloat16
from samu_core.training.settings import PhaseSettings, TrainingSettings
from samu_core.training.shared_skips import share_skips
from samu_core.training.stream import Batch, BatchStream, Sources
from samu_core.training.windows import Window, repeated
from samu_core.weights import load_network

LOGGER = logging.getLogger(__name__)
LOG_COLUMNS = ("seconds", "phase", "step", "samples", "size", "loss", "dice", "rate", "samples_per_second")
KEPT_BATCHES = 12  # for echoes
STATISTICS_BATCHES = 24  # that a phase with fixed statistics measures them on
WHOLE_PATCHES = 32  # of them, if they are of `statistics_size`


class Trainer:
    """One run in a folder: `settings.json`, `log.csv`, `checkpoint.pt` (newest), `phase-N.pt` (end of
    phases).

    A run that was stopped goes on from `checkpoint.pt`, on whatever device is there now.
    """

    def __init__(
        self, settings: TrainingSettings, sources: Sources, folder: Path, device: str = "cpu"
    ) -> None:
        self.settings, self.sources, self.folder = settings, sources, Path(folder)
        self.device = torch.device(device)
        torch.manual_seed(settings.seed)
        self.network = SAMU(SAMUConfig.from_dict(settings.network))
        nn.init.constant_(self.network.decoder.head.bias, settings.output_bias)
        nn.init.constant_(self.network.decoder.auxiliary_head.bias, settings.output_bias)
        self.network.to(self.device, memory_format=torch.channels_last_3d)
        self.ema = copy.deepcopy(self.network).eval().requires_grad_(False)
        keep_small_convolutions_exact(self.network)
        fold_fixed_statistics(self.network)
        self.shared = share_skips(self.network)
        self.optimizer = Optimizer.of_run(self.network, settings)
        self.seconds = 0.0  # training time so far, over all resumes
        self.step = 0
        self.samples = 0
        self.skipped = 0  # steps of this call without a finite gradient
        self.difficulty = torch.full((1,), 0.1).share_memory_()
        self._recent: list[tuple[float, float, int]] = []
        self.rank, self.ranks = 0, 1
        if distributed.is_available() and distributed.is_initialized():
            self.rank, self.ranks = distributed.get_rank(), distributed.get_world_size()

    # -- schedule, by the share of the run's time that has passed --

    @property
    def share(self) -> float:
        return self.seconds / (60 * self.settings.minutes)

    def learning_rate(self) -> float:
        """Warm-up by steps, constant, linear decay over the last `decay_share` of the time."""
        settings = self.settings
        rate = settings.learning_rate * min(1.0, (self.step + 1) / max(settings.warm_up_steps, 1))
        left = max(0.0, 1 - self.share) / max(settings.decay_share, 1e-9)
        return rate * max(min(1.0, left), 0.01)

    def phase_at(self, seconds: float) -> int:
        """Index of the phase that `seconds` of training time lie in; the number of phases when over."""
        end = 0.0
        for index, phase in enumerate(self.settings.phases):
            end += 60 * phase.minutes
            if seconds < end:
                return index
        return len(self.settings.phases)

    # -- the loop --

    def run(self, stop_after: float | None = None) -> bool:
        """Train until the phases are over, or for `stop_after` seconds of this call.

        Returns:
            True when the run is complete.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "settings.json").write_text(json.dumps(self.settings.to_dict(), indent=1))
        end = float("inf") if stop_after is None else self.seconds + stop_after
        while self.phase_at(self.seconds) < len(self.settings.phases) and self.seconds < end:
            index = self.phase_at(self.seconds)
            self._run_phase(index, end)
            for passed in range(index, self.phase_at(self.seconds)):  # a slow step may pass a short phase
                self.save(self.folder / f"phase-{passed + 1}.pt")
        self.save(self.folder / "checkpoint.pt")
        return self.phase_at(self.seconds) >= len(self.settings.phases)

    def batches(self, phase: PhaseSettings, seed: int, plain: bool = False) -> torch.utils.data.DataLoader:
        """Batches for a phase (`BatchStream`), for ever, drawn by the settings' workers."""
        workers = self.settings.workers
        return torch.utils.data.DataLoader(
            BatchStream(self.sources, phase, self.difficulty, seed, self.rank, self.ranks, plain),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=2 if workers else None,
            pin_memory=self.device.type == "cuda",
        )

    def _run_phase(self, index: int, end: float) -> None:
        seed = self.settings.seed + 7919 * (self.step + 1)
        phase = self.settings.phases[index]
        if phase.fixed_statistics and not phase.kept_statistics:
            measured, count = phase, STATISTICS_BATCHES
            if phase.statistics_size:
                whole = inference_crop(phase.statistics_size)
                measured, count = replace(phase, crops=(whole,)), WHOLE_PATCHES
            first = itertools.islice(self.batches(measured, seed, plain=True), count)
            count = remeasure_statistics(self.network, first)
            LOGGER.info("statistics of the normalisation measured on %d batches", count)
        saved, mark = self.seconds, time.monotonic()
        for batch in echoed(self.batches(phase, seed), phase.echoes, np.random.default_rng(seed)):
            loss, dice = self.train_step(batch, phase)
            now = time.monotonic()
            self.seconds = self._agree(self.seconds + now - mark)
            self._log(index, batch.patch.shape[-1], loss, dice, len(batch.position) * self.ranks, now - mark)
            mark = now
            if self.seconds - saved > 60 * self.settings.checkpoint_minutes:
                self.save(self.folder / "checkpoint.pt")
                saved, mark = self.seconds, time.monotonic()
            if self.phase_at(self.seconds) != index or self.seconds >= end:
                return

    def train_step(self, batch: Batch, phase: PhaseSettings | None = None) -> tuple[float, float]:
        """One batch, as the phase wants it, and after every `accumulate` of them a step of the optimiser.

        Returns the loss and the mean Dice of the batch.
        """
        settings = self.settings
        difficulty = min(1.0, 0.1 + 0.9 * self.share / max(settings.hard_from_share, 1e-9))
        self.difficulty[0] = min(difficulty, settings.hardest)
        self.optimizer.set_rate(self.learning_rate())
        self.network.train()
        fixed = phase is not None and (phase.fixed_statistics or phase.kept_statistics)
        if fixed or self.share > 1 - settings.freeze_norm_share:
            for module in self.network.modules():
                if isinstance(module, nn.BatchNorm3d):
                    module.eval()
        loss, dice = self._loss(batch, phase)
        if self.step % settings.accumulate == 0:
            self.optimizer.zero_grad()
        (loss / settings.accumulate).backward()
        self.step += 1
        self.samples += len(batch.position) * self.ranks
        if self.step % settings.accumulate == 0:
            self._optimise()
        return float(loss.detach()), float(dice.mean())

    def _optimise(self) -> None:
        """A step with the gradients gathered so far."""
        self._average_over_ranks()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        if torch.isfinite(norm):  # a broken batch must not break the run, but many must not go unseen
            self.optimizer.step()
        else:
            self.skipped += 1
            if self.skipped in (1, 10, 100, 1000):
                LOGGER.warning("%d steps without a finite gradient in %d batches", self.skipped, self.step)
        self._update_ema()

    def _loss(self, batch: Batch, phase: PhaseSettings | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss, and the Dice of every sample; of the auxiliary head's mask in coarse training, of both
        answers where clicks are asked again."""
        network = self.network
        patch = batch.patch.to(self.device, memory_format=torch.channels_last_3d, non_blocking=True)
        target = batch.target.to(self.device, non_blocking=True)
        prompt = PointPrompt(batch.position.to(self.device), batch.span)
        level = network.config.auxiliary_level
        window = None
        if batch.window:
            far = target if batch.far else None
            window = Window.around(prompt, patch.shape[2], batch.window, level, far)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=trains_in_bfloat16(self.device)):
            if phase is not None and phase.coarse:
                network.encoder.levels[:level].eval()
                features = repeated(network.encode(patch, level), batch.clicks, level, self.shared)
                return coarse_loss(network.decode_auxiliary(features, prompt), target)
            kept = len(network.encoder.levels) if phase is not None and phase.kept_encoder else 0
            network.encoder.levels[:kept].eval()
            first = level if window else 0
            features = repeated(network.encode(patch, kept), batch.clicks, first, self.shared)
            answers = [network.decode_with_auxiliary(features, prompt, window)]
            if phase is not None and phase.asked_again:
                coarsest = len(network.config.channels) - 1
                typical = TypicalOfClicks.of(*answers[0], features[-1], coarsest, window)
                again = replace(prompt, typical=typical)
                answers.append(network.decode_with_auxiliary(features, again, window))
        losses, dice = zip(*[samu_loss(*answer, target, window) for answer in answers])
        return sum(losses) / len(losses), torch.cat(dice)

    def _average_over_ranks(self) -> None:
        """Gradients, and the statistics of the normalisation, become the mean over the ranks."""
        if self.ranks == 1:
            return
        tensors = [value.grad for value in self.network.parameters() if value.grad is not None]
        tensors += [value for value in self.network.buffers() if value.is_floating_point()]
        flat = torch.cat([value.flatten() for value in tensors])
        distributed.all_reduce(flat)
        for value, mean in zip(tensors, (flat / self.ranks).split([value.numel() for value in tensors])):
            value.copy_(mean.view_as(value))

    def _agree(self, seconds: float) -> float:
        """The ranks' mean, so that all end a phase after the same step."""
        if self.ranks == 1:
            return seconds
        shared = torch.tensor([seconds], device=self.device, dtype=torch.float64)
        distributed.all_reduce(shared)
        return float(shared[0]) / self.ranks

    def _update_ema(self) -> None:
        steps = self.step // self.settings.accumulate
        decay = min(self.settings.ema, (1 + steps) / (10 + steps))
        with torch.no_grad():
            # All at once: one by one they are some two hundred launches on a GPU.
            means = list(self.ema.parameters())
            torch._foreach_lerp_(means, [value.detach() for value in self.network.parameters()], 1 - decay)
            for mean, value in zip(self.ema.buffers(), self.network.buffers()):
                mean.copy_(value)

    def _log(self, phase: int, size: int, loss: float, dice: float, count: int, seconds: float) -> None:
        self._recent.append((loss, dice, count))
        if self.step % 20 or self.rank:
            return
        path = self.folder / "log.csv"
        fresh = not path.is_file()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(LOG_COLUMNS)
            mean_loss = sum(row[0] for row in self._recent) / len(self._recent)
            mean_dice = sum(row[1] for row in self._recent) / len(self._recent)
            row = [
                f"{self.seconds:.1f}", phase + 1, self.step, self.samples, size, f"{mean_loss:.4f}",
                f"{mean_dice:.4f}", f"{self.learning_rate():.2e}", f"{count / max(seconds, 1e-9):.2f}",
            ]  # fmt: skip
            writer.writerow(row)
        LOGGER.info(" ".join(f"{name} {value}" for name, value in zip(LOG_COLUMNS, row)))
        self._recent.clear()

    # -- checkpoints --

    def save(self, path: Path) -> None:
        """Write everything needed to go on (the first rank does); whole or not at all."""
        if self.rank:
            return
        state = {
            "format": "samu-training-checkpoint",
            "config": self.network.config.to_dict(),
            "settings": self.settings.to_dict(),
            "network": self.network.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "seconds": self.seconds,
            "step": self.step,
            "samples": self.samples,
        }
        temporary = path.with_suffix(".tmp")
        torch.save(state, temporary)
        os.replace(temporary, path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint, on this trainer's device."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.seconds, self.step, self.samples = state["seconds"], state["step"], state["samples"]

    def start_from(self, path: Path, fresh: Sequence[str] = ()) -> list[str]:
        """Take the (averaged) weights of another run, or of a weights file, to begin with.

        Args:
            fresh: names of parts, e.g. "decoder.attention.3", that are not taken from the file.

        Returns:
            Names of this network's parameters that the file lacks, or that are in `fresh`: they keep their
            initial values.

        Raises:
            WeightsError: no file of weights.
            SamuError: the network has no such part.
            RuntimeError: parameters of other shapes, or ones that this network has no place for.
        """
        own = self.network.state_dict()
        for part in fresh:
            if not any(_is_part(name, part) for name in own):
                raise SamuError(f"the network has no part {part!r}; parts look like {next(iter(own))}.")
        state = {
            name: value
            for name, value in load_network(path).state_dict().items()
            if not any(_is_part(name, part) for part in fresh)
        }
        missing = [name for name in own if name not in state]
        complete = {**own, **state}
        self.network.load_state_dict(complete)
        self.ema.load_state_dict(complete)
        return missing


def echoed(batches: Iterable[Batch], echoes: int, rng: np.random.Generator) -> Iterator[Batch]:
    """Each batch and after it so many of the last KEPT_BATCHES, mirrored (data echoing, Choi et al. 2019)."""
    kept: list[Batch] = []
    for batch in batches:
        yield batch
        if echoes:
            kept = [*kept, batch][-KEPT_BATCHES:]
        for _ in range(echoes):
            yield kept[int(rng.integers(len(kept)))].mirrored()


def _is_part(name: str, part: str) -> bool:
    """Whether a parameter is the part of a network, or in it."""
    return name == part or name.startswith(f"{part}.")
