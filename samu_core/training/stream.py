"""An endless stream of training batches from the three sources, balanced over data sets."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from samu_core.errors import SamuError
from samu_core.training.banks import bank
from samu_core.training.pack import LEVELS, PackedVolume
from samu_core.training.regions import region_volumes
from samu_core.training.samples import CropSpec, Sample, make_sample
from samu_core.training.settings import CropSettings, PhaseSettings, TrainingSettings
from samu_core.training.tissues import LEFT_OUT, WHOLES

LOGGER = logging.getLogger(__name__)
SOURCE_POWER, SOURCE_CAP = 0.3, 0.25  # p ~ n^.3 per data set, none above a quarter
IMAGED_SHARE = 0.4  # of a data set's weight among the label maps when its images are drawn elsewhere
FULL_VOLUME = 500_000  # voxels; smaller crops leave most of a patch empty and are drawn less often


@dataclass
class Batch:
    """patch (B, 1, n, n, n) float32; target (B * clicks, 1, n, n, n) bool and position (B * clicks, 3),
    KJI fractions, the clicks of a patch one after the other; span of the patches; window and far
    of `CropSettings`."""

    patch: torch.Tensor
    target: torch.Tensor
    position: torch.Tensor
    span: float
    window: int = 0
    far: bool = False

    @property
    def clicks(self) -> int:
        """Of each patch."""
        return len(self.position) // len(self.patch)

    def mirrored(self) -> Batch:
        """Left and right exchanged, which are alike (`samples.PATCH_AXES`)."""
        position = self.position.clone()
        position[:, 2] = 1 - position[:, 2]
        return replace(self, patch=self.patch.flip(4), target=self.target.flip(4), position=position)

    def pin_memory(self) -> Batch:
        """In memory that a GPU copies from without waiting (what torch's DataLoader calls)."""
        return replace(
            self,
            patch=self.patch.pin_memory(),
            target=self.target.pin_memory(),
            position=self.position.pin_memory(),
        )


@dataclass
class Sources:
    """The volumes a run draws from: real images, label maps for synthetic contrast, random shapes, real
    images with unlabelled regions as targets, and random skeletons."""

    real: list[PackedVolume]
    labelmaps: list[PackedVolume]
    shapes: list[PackedVolume]
    regions: list[PackedVolume] = field(default_factory=list)
    labelmap_factors: dict[str, float] = field(default_factory=dict)  # of `TrainingSettings`, as the next
    real_factors: dict[str, float] = field(default_factory=dict)
    skeletons: list[PackedVolume] = field(default_factory=list)


def load_sources(pack: Path | None, settings: TrainingSettings, cache: Path | None = None) -> Sources:
    """Read a pack and make the banks of random shapes and skeletons (kept in `cache` for the next start).

    Raises:
        SamuError: the settings ask for real data and the pack has none.
    """
    paths = sorted(pack.glob("*.npz")) if pack else []
    with ThreadPoolExecutor() as pool:
        volumes = list(pool.map(_read, paths))
    wants_real = any(phase.real + phase.labelmaps > 0 for phase in settings.phases)
    if wants_real and not volumes:
        raise SamuError(
            f"the settings ask for real data and {pack} holds none: make it with "
            "'samu train --data DIR ...', or set real and labelmaps to 0."
        )
    volumes = [volume for volume in volumes if volume.name not in LEFT_OUT]
    # Label maps come without an image; the labels of the real images serve with synthetic contrast too.
    volumes = [_with_float_image(volume.merged(WHOLES.get(volume.source, ()))) for volume in volumes]
    real = [volume for volume in volumes if volume.image is not None]
    wants_regions = any(phase.regions > 0 for phase in settings.phases)
    regions = region_volumes(real, cache, settings.region_volumes) if wants_regions else []
    _check_names("labelmap_factors", settings.labelmap_factors, volumes)
    _check_names("real_factors", settings.real_factors, real)
    wants_skeletons = any(phase.skeletons > 0 for phase in settings.phases)
    shapes = bank("shapes", settings, cache)
    skeletons = bank("skeletons", settings, cache) if wants_skeletons else []
    return Sources(
        real, volumes, shapes, regions, settings.labelmap_factors, settings.real_factors, skeletons
    )


def _read(path: Path) -> PackedVolume:
    return PackedVolume.load(path).cropped()


def _check_names(setting: str, factors: dict[str, float], volumes: list[PackedVolume]) -> None:
    unknown = set(factors) - {volume.source for volume in volumes}
    if unknown:
        kind = " with an image" if setting == "real_factors" else ""
        raise SamuError(
            f"{setting} names {', '.join(sorted(unknown))}, of which the pack holds no volume{kind}; "
            "names are those of the manifest's column source_repo."
        )


def _with_float_image(volume: PackedVolume) -> PackedVolume:
    """Ready to be interpolated: twice the memory, and no conversion for every sample."""
    if volume.image is None:
        return volume
    return replace(volume, image=volume.image.astype(np.float32) / LEVELS)


def source_weights(
    volumes: list[PackedVolume], with_image: float = 1.0, factors: dict[str, float] | None = None
) -> np.ndarray:
    """Probability of every volume: p ~ n^SOURCE_POWER per data set of n volumes, at most SOURCE_CAP each; a
    data set of images counts `with_image` times (as a label map it is one of two chances that it has), one
    in `factors` (by its name in the manifest) that many times."""
    names, counts = np.unique([volume.source for volume in volumes], return_counts=True)
    imaged = {volume.source for volume in volumes if volume.image is not None}
    share = counts**SOURCE_POWER * np.array([with_image if name in imaged else 1.0 for name in names])
    share = share * np.array([float((factors or {}).get(name, 1.0)) for name in names])
    share = share / share.sum()
    cap = max(SOURCE_CAP, 1 / len(names))
    for _ in range(len(names)):
        over = share > cap
        if not over.any():
            break
        rest = 1 - cap * over.sum()
        share = np.where(over, cap, share / max(share[~over].sum(), 1e-12) * rest)
    each = dict(zip(names, share / counts))
    weights = np.array(
        [each[volume.source] * min(1.0, volume.ids.size / FULL_VOLUME) ** 0.5 for volume in volumes]
    )
    return weights / weights.sum()


class BatchStream(torch.utils.data.IterableDataset):
    """Batches for one phase, for ever. `difficulty` is a shared one-element tensor that the trainer moves.

    Of several ranks each makes its part of a batch: all draw the same crop sizes, but samples of their own.
    `plain` batches are z-scored as at inference.
    """

    def __init__(
        self,
        sources: Sources,
        phase: PhaseSettings,
        difficulty: torch.Tensor,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        plain: bool = False,
    ) -> None:
        self.sources, self.phase, self.difficulty, self.seed = sources, phase, difficulty, seed
        self.rank, self.ranks, self.plain = rank, ranks, plain
        self.real_weights = (
            source_weights(sources.real, factors=sources.real_factors) if sources.real else None
        )
        self.labelmap_weights = (
            source_weights(sources.labelmaps, IMAGED_SHARE, sources.labelmap_factors)
            if sources.labelmaps
            else None
        )
        self.region_weights = source_weights(sources.regions) if sources.regions else None

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        worker = info.id if info else 0
        plan = np.random.default_rng((self.seed, worker))
        rng = np.random.default_rng((self.seed, worker, self.rank))
        shares = np.array([crop.share for crop in self.phase.crops], float)
        while True:
            crop = self.phase.crops[int(plan.choice(len(shares), p=shares / shares.sum()))]
            spacing = float(np.exp(plan.uniform(*np.log(crop.spacing))))
            yield self.batch(crop, spacing, rng)

    def batch(self, crop: CropSettings, spacing: float, rng: np.random.Generator) -> Batch:
        """One batch, or this rank's part; all its patches share a spacing, so that they share the span."""
        spec = CropSpec(
            crop.size,
            spacing,
            difficulty=float(self.difficulty[0]),
            plain=self.plain or self.phase.plain,
            clicks=crop.clicks,
            centred=self.phase.centred,
            anatomy=self.phase.anatomy,
        )
        samples: list[Sample] = []
        while len(samples) < max(1, crop.batch // self.ranks):
            sample = self._sample(spec, rng)
            if sample is not None:
                samples.append(sample)
        return Batch(
            torch.stack([sample.patch for sample in samples])[:, None],
            torch.cat([sample.targets for sample in samples])[:, None],
            torch.cat([sample.positions for sample in samples]),
            samples[0].span,
            crop.window,
            crop.far,
        )

    def _sample(self, spec: CropSpec, rng: np.random.Generator) -> Sample | None:
        draw = rng.random()
        if draw < self.phase.real:
            if self.region_weights is not None and rng.random() < self.phase.regions:
                return make_sample(_choose(self.sources.regions, self.region_weights, rng), spec, rng, False)
            return make_sample(_choose(self.sources.real, self.real_weights, rng), spec, rng, False)
        if draw < self.phase.real + self.phase.labelmaps:
            volume = _choose(self.sources.labelmaps, self.labelmap_weights, rng)
        else:
            skeleton = draw < self.phase.real + self.phase.labelmaps + self.phase.skeletons
            maps = self.sources.skeletons if skeleton else self.sources.shapes
            volume = maps[int(rng.integers(len(maps)))]
        return make_sample(volume, spec, rng, synthetic=True)


def _choose(volumes: list[PackedVolume], weights: np.ndarray, rng: np.random.Generator) -> PackedVolume:
    return volumes[int(rng.choice(len(weights), p=weights))]
