"""What a training run is made of, read from a YAML file; a run is defined by its file, not by flags."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from samu_core.errors import SamuError


@dataclass(frozen=True)
class CropSettings:
    """One kind of batch: `size`^3 patches at a spacing (mm) log-uniform between two bounds, drawn with
    `share`.

    clicks: per patch; the encoder works once for all of them. window: edge length, in voxels, of the cube
    around a click that the finest decoder levels are trained on (windows.py); 0 is the whole patch. far: a
    second such cube for every click, somewhere else in the patch.
    """

    size: int
    spacing: tuple[float, float]
    batch: int
    share: float = 1.0
    clicks: int = 1
    window: int = 0
    far: bool = False

    def __post_init__(self) -> None:
        windows = (0, *range(16, self.size + 1, 8))  # of a smaller one hardly a voxel is judged
        if self.clicks < 1 or self.window not in windows:
            raise ValueError(
                f"{self.clicks} clicks, window {self.window}: at least one click, and no window (0) or a "
                f"multiple of 8 from 16 up to the patch's {self.size} voxels"
            )


@dataclass(frozen=True)
class PhaseSettings:
    """A stretch of training.

    Attributes:
        minutes: of training time on this machine; phases are by time, not steps.
        regions: share of the real samples whose target is an unlabelled region of the image (regions.py).
        real, labelmaps, skeletons: share of the batches' samples from real images, and from real label maps
            and from random skeletons (skeletons.py) with synthetic contrast; the rest are random shapes.
        anatomy: share of the label maps' samples painted by tissue where the tissues are known (tissues.py).
        centred: share of the patches with the click in the middle, as at inference.
        plain: z-score all patches as at inference, not some of them otherwise.
        coarse: train the levels from the auxiliary head's down, judged by that head; the finer ones of the
            encoder stay as they are, and the decoder's are left out. Twice as many samples a minute.
        fixed_statistics: measure the normalisation's statistics on a few of the phase's batches first, and
            keep them: for batches of one or two whole patches, whose own would be poor.
        kept_statistics: keep those that the phase begins with unmeasured, whatever `fixed_statistics` says.
        echoes: steps on an earlier batch, mirrored and with other windows, after each new one: for a GPU that
            is faster than the processors that draw its samples.
        asked_again: decode every click a second time, by what its first mask holds (again.py), and judge both
            answers; nothing with `coarse`, which has no mask to ask by.
        kept_encoder: the encoder stays as it is, which spares its gradients.
        statistics_size: edge length of the patches that `fixed_statistics` are measured on, with the
            spacing that makes them as wide as inference's; 0 is the phase's own batches.
    """

    minutes: float
    crops: tuple[CropSettings, ...]
    real: float = 0.3
    labelmaps: float = 0.2
    skeletons: float = 0.0
    regions: float = 0.0
    anatomy: float = 0.8
    centred: float = 0.65
    plain: bool = False
    coarse: bool = False
    fixed_statistics: bool = False
    kept_statistics: bool = False
    statistics_size: int = 0
    echoes: int = 0
    asked_again: bool = False
    kept_encoder: bool = False


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that defines a run (training.md, Recipe).

    accumulate: batches whose gradients make one step of the optimiser: on a CPU, whose batches are small.
    warm_up_steps counts batches.
    """

    phases: tuple[PhaseSettings, ...]
    network: dict[str, Any] = field(default_factory=dict)
    shapes: int = 200
    shape_size: int = 96
    skeletons: int = 200
    region_volumes: int = 40
    labelmap_factors: dict[str, float] = field(default_factory=dict)  # source_repo -> times as often
    real_factors: dict[str, float] = field(default_factory=dict)  # likewise, among the real images
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    matrix_decay: float = 1e-2
    warm_up_steps: int = 50
    decay_share: float = 0.25
    freeze_norm_share: float = 0.12
    hard_from_share: float = 0.4
    hardest: float = 1.0
    clip: float = 2.0
    accumulate: int = 1
    ema: float = 0.998
    output_bias: float = -2.0
    workers: int = 1
    seed: int = 0
    checkpoint_minutes: float = 3.0

    def __post_init__(self) -> None:
        if self.accumulate < 1:
            raise ValueError(f"accumulate {self.accumulate}: at least one batch makes a step")

    @property
    def minutes(self) -> float:
        """Training time of all phases together."""
        return sum(phase.minutes for phase in self.phases)

    def fitted(self, seconds: float) -> TrainingSettings:
        """With phases that take so many seconds together, more than 0, each the share that it has now."""
        factor = seconds / 60 / self.minutes
        return replace(
            self, phases=tuple(replace(phase, minutes=factor * phase.minutes) for phase in self.phases)
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as YAML and JSON hold them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainingSettings:
        """Build from plain values. Raises SamuError for an unknown or missing setting."""
        try:
            values = dict(values)
            phases = []
            for phase in values.pop("phases"):
                phase = dict(phase)
                crops = tuple(
                    CropSettings(**{**crop, "spacing": tuple(float(bound) for bound in crop["spacing"])})
                    for crop in phase.pop("crops")
                )
                phases.append(PhaseSettings(crops=crops, **phase))
            settings = cls(phases=tuple(phases), **values)
            if not settings.skeletons and any(phase.skeletons > 0 for phase in phases):
                raise ValueError("a phase wants skeletons, and there are to be none: set skeletons to 200")
            return settings
        except (KeyError, TypeError, ValueError) as error:
            known = ", ".join(item.name for item in fields(cls))
            raise SamuError(
                f"the training settings are not usable ({error}); known settings: {known}."
            ) from error

    @classmethod
    def read(cls, path: Path) -> TrainingSettings:
        """Read a YAML file. Raises SamuError when it is missing or not usable."""
        import yaml

        try:
            values = yaml.safe_load(Path(path).read_text())
        except (OSError, yaml.YAMLError) as error:
            raise SamuError(f"cannot read the training settings {path}: {error}") from error
        if not isinstance(values, dict):
            raise SamuError(f"{path} holds no training settings; see configs/ for examples.")
        return cls.from_dict(values)
