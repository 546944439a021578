"""The one-click protocol: every structure of a labelled volume, clicked, answered by a method, and measured.

Each method sees what a user's click gives: the 128^3 patch at 1.5 mm centred on the click, and where the
click is in it; the network may look at the volume again in a finer patch, as the Predictor does. Nothing
about the structure, and never a crop centred on the ground truth. The target is the connected part of the
label that holds the click, as far as it lies in the patch (patch Dice, the paper's measure); dice_label takes
all voxels of the label in the patch instead (the paper's "whole 3D target", which differs where one label
names several objects); dice_native the whole part on the volume's own grid.

A method is a callable: method(ClickPatch) -> bool mask of the patch (KJI). If it has a prediction(ClickPatch)
method, as the network has, that Prediction is what goes to the native grid.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Callable

import numpy as np

from samu_core.asking import DecodeAgain
from samu_core.engine import TorchEngine, fused_engine
from samu_core.errors import SamuError
from samu_core.evaluation import cases as protocol_cases
from samu_core.evaluation.metrics import dice, surface_dice
from samu_core.evaluation.results import ClickRow, EvaluationResult, by_method
from samu_core.geometry import GridGeometry, PatchGrid, Volume
from samu_core.intensity import normalize_patch
from samu_core.io import read_volume
from samu_core.looks import look_again
from samu_core.prediction import Prediction
from samu_core.sharpness import sample_evenly

TOLERANCE_MM = 2.0


@dataclass(frozen=True)
class Options:
    """How to click and what to measure. limit: at most so many structures of each data set, drawn by seed."""

    clicks: int = 5
    seed: int = 0
    size: int = 128
    spacing: float = 1.5
    deepest: bool = True
    native: bool = False
    nsd: bool = False
    limit: int | None = None

    def __post_init__(self):
        if self.clicks < 1:
            raise SamuError("At least one click per structure is needed (--clicks 1).")
        if self.limit is not None and self.limit < 1:
            raise SamuError("The limit is a number of structures per data set, at least 1.")


DEFAULTS = Options()


@dataclass(eq=False)
class ClickPatch:
    """What a method sees of one click.

    raw: float32 KJI patch in the image's own intensities, NaN outside the volume. click_kji: continuous patch
    index. volume: the image, for methods that look at it again in a finer patch. cache: for a method's
    intermediate results, shared by the methods that get this patch.
    """

    raw: np.ndarray
    click_kji: np.ndarray
    grid: PatchGrid
    point_ras: np.ndarray
    modality: str | None = None
    volume: Volume | None = None
    cache: dict[Any, Any] = field(default_factory=dict)

    @property
    def spacing(self) -> float:
        """mm per voxel, isotropic."""
        return self.grid.spacing

    @property
    def fraction_kji(self) -> np.ndarray:
        """The click as fractions of the field of view, as PointPrompt takes it."""
        return self.grid.fraction_kji(self.point_ras)

    @cached_property
    def normalized(self) -> np.ndarray:
        """float32, as the network takes it."""
        return normalize_patch(self.raw, self.modality)

    @cached_property
    def inside(self) -> np.ndarray:
        """Voxels that lie in the volume."""
        return np.isfinite(self.raw)

    @cached_property
    def box(self) -> tuple[slice, slice, slice]:
        """Slices around the voxels inside; the click is always among them."""
        spans = [np.flatnonzero(self.inside.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
        return tuple(slice(int(span[0]), int(span[-1]) + 1) for span in spans)


Method = Callable[[ClickPatch], np.ndarray]
Progress = Callable[[protocol_cases.Case, int, int], None]


class NetworkMethod:
    """A SAMU network as a method: threshold 0.5, then the clicked component, as the Predictor does, with its
    second question, its second look at what is small or doubtful and its bolder masks unless `second_look` is
    False.

    It runs in the engine that the Predictor uses, in float32, so that figures do not depend on the machine,
    and decodes the whole patch.
    """

    def __init__(self, network: Any, device: str = "cpu", second_look: bool = True):
        self.network, self.device, self.second_look = network, device, second_look
        self._engines: dict[int, Any] = {}

    def logits(self, patch: ClickPatch) -> np.ndarray:
        """float32 KJI logits of the patch."""
        return self.first(patch)[0].logits

    def first(self, patch: ClickPatch) -> tuple[Prediction, DecodeAgain | None]:
        """The network's first answer, and how to ask again by a mask (`samu_core.asking`)."""
        engine = self._engine(len(patch.raw))
        features = engine.encode(patch.normalized)
        logits = engine.decode(features, patch.fraction_kji)
        again = getattr(engine, "decode_again", None)
        first = Prediction(logits, patch.grid, patch.point_ras, inside=patch.inside)
        return first, again and partial(again, features, patch.fraction_kji)

    def _engine(self, size: int) -> Any:
        if size not in self._engines:
            fused = fused_engine(self.network, self.device, "float32", size)
            self._engines[size] = fused or TorchEngine(self.network, self.device, "float32")
        return self._engines[size]

    def __call__(self, patch: ClickPatch) -> np.ndarray:
        geometry = patch.grid.geometry
        return self.prediction(patch).mask(geometry).full(geometry).astype(bool)

    def prediction(self, patch: ClickPatch) -> Prediction:
        """The Prediction a user would get, kept with the patch."""
        key = ("prediction", id(self))
        if key not in patch.cache:
            first, decode_again = self.first(patch)
            if self.second_look and patch.volume is not None:
                first = look_again(patch.volume, first, partial(self.look_again, patch), decode_again)
            patch.cache[key] = first
        return patch.cache[key]

    def look_again(self, patch: ClickPatch, point_ras: np.ndarray, spacing: float) -> Prediction:
        """A click at a point (RAS mm) of the same volume, in a patch of another spacing (mm)."""
        grid = PatchGrid.for_click(patch.volume, point_ras, spacing, patch.grid.size)
        raw = sample_evenly(grid, patch.volume)
        again = ClickPatch(raw, grid.point_to_kji(point_ras), grid, point_ras, patch.modality)
        return Prediction(self.logits(again), grid, point_ras, inside=again.inside)


def native_dice(method: Method, patch: ClickPatch, mask: np.ndarray, target: Target) -> float:
    """Dice with the whole clicked part on the volume's own grid, beyond the patch included.

    Methods that give masks only are taken to the volume's grid as the network's logits are, by linear
    interpolation and a threshold at one half, without another choice of component.
    """
    geometry = target.geometry
    if hasattr(method, "prediction"):
        region = method.prediction(patch).mask(geometry)
    else:
        logits = np.where(mask, 1.0, -1.0).astype(np.float32)
        region = Prediction(logits, patch.grid, patch.point_ras).mask(geometry, clicked_component=False)
    return dice(region.full(geometry), target.native_part())


def evaluate_network(
    network: Any,
    data_dir: str | Path,
    split: str = "dev",
    boundary: str = "visible",
    clicks: int = 2,
    seed: int = 0,
    size: int = 128,
    spacing: float = 1.5,
    limit: int | None = None,
    device: str = "cpu",
    deepest: bool = False,
    second_look: bool = True,
) -> EvaluationResult:
    """One network in process, for comparing checkpoints in training: returns its EvaluationResult.

    The network is put into eval mode for the time of the evaluation. `limit` (structures per data set) makes
    it quick and keeps all data sets; with the same seed the clicks are the same at every call. `second_look`:
    with the second look at what is small or doubtful, and bolder masks.
    """
    options = Options(clicks=clicks, seed=seed, size=size, spacing=spacing, deepest=deepest, limit=limit)
    training = network.training
    network.eval()
    try:
        rows = evaluate(
            data_dir, split, {"model": NetworkMethod(network, device, second_look)}, boundary, options
        )
    finally:
        network.train(training)
    return by_method(rows).get("model", EvaluationResult([]))


def evaluate(
    data_dir: str | Path,
    split: str,
    methods: dict[str, Method],
    boundary: str = "visible",
    options: Options = DEFAULTS,
    progress: Progress | None = None,
) -> list[ClickRow]:
    """ClickRows of {name: method} over a split, by volume. progress(case, number, total) is called."""
    chosen = select(protocol_cases.read_cases(data_dir, split, boundary), options)
    rows = []
    for number, (case, only) in enumerate(chosen):
        if progress is not None:
            progress(case, number, len(chosen))
        rows.extend(evaluate_case(case, methods, options, only))
    return rows


def select(
    cases: list[protocol_cases.Case], options: Options
) -> list[tuple[protocol_cases.Case, set[int] | None]]:
    """[(case, labels or None)]: all structures, or at most `limit` of each data set, drawn by the seed."""
    if options.limit is None:
        return [(case, None) for case in cases]
    available = {}
    for number, case in enumerate(cases):
        volume = read_volume(case.label_path)
        found = protocol_cases.find_structures(case, volume.array, volume.geometry.spacing, options.seed)
        available.setdefault(case.source, []).extend((number, structure.label) for structure in found)
    wanted = {}
    for source, pairs in available.items():
        order = protocol_cases.generator(options.seed, source, "limit").permutation(len(pairs))
        for place in order[: options.limit]:
            number, label = pairs[place]
            wanted.setdefault(number, set()).add(label)
    return [(case, wanted[number]) for number, case in enumerate(cases) if number in wanted]


def evaluate_case(
    case: protocol_cases.Case,
    methods: dict[str, Method],
    options: Options = DEFAULTS,
    only: set[int] | None = None,
) -> list[ClickRow]:
    """ClickRows of every structure (or those of the labels in `only`) of one volume."""
    rows = []
    for patch, target in click_patches(case, options, only):
        for name, method in methods.items():
            start = time.perf_counter()
            mask = method(patch)
            seconds = time.perf_counter() - start
            rows.append(_row(case, name, method, patch, mask, target, seconds, options))
    return rows


@dataclass(eq=False)
class Target:
    """The right answer to one click: part and whole_label are bool patches (KJI)."""

    structure: protocol_cases.Structure
    click: protocol_cases.Click
    part: np.ndarray
    whole_label: np.ndarray
    geometry: GridGeometry  # of the volume

    def native_part(self) -> np.ndarray:
        """The clicked part on the volume's own grid, whole."""
        mask = np.zeros(self.geometry.shape_kji, bool)
        mask[self.structure.box] = self.structure.parts == self.click.part
        return mask


def click_patches(
    case: protocol_cases.Case, options: Options = DEFAULTS, only: set[int] | None = None
) -> Iterator[tuple[ClickPatch, Target]]:
    """Yield (ClickPatch, Target) of a volume's clicks, structure by structure."""
    image, labels = read_case(case)
    spacing = image.geometry.spacing  # (i, j, k)
    for structure in protocol_cases.find_structures(case, labels.array, spacing, options.seed, only):
        clicks = protocol_cases.draw_clicks(
            case, structure, spacing[::-1], options.clicks, options.seed, options.deepest
        )
        for click in clicks:
            yield one_click(image, structure, click, options)


def read_case(case: protocol_cases.Case) -> tuple[Volume, Volume]:
    """Image and label map of a volume. SamuError when they are not on one grid."""
    image, labels = read_volume(case.image_path), read_volume(case.label_path)
    if image.array.shape != labels.array.shape or not np.allclose(
        image.geometry.ijk_to_ras, labels.geometry.ijk_to_ras, atol=1e-2
    ):
        raise SamuError(
            f"{case.label_path.name} is not on the grid of its image; resample the label map to it."
        )
    return Volume(image.array, image.geometry.ijk_to_ras, case.name, case.core_modality), labels


def one_click(
    image: Volume,
    structure: protocol_cases.Structure,
    click: protocol_cases.Click,
    options: Options = DEFAULTS,
) -> tuple[ClickPatch, Target]:
    """The patch that a click in a structure gives, and the right answer."""
    patch_spacing = options.spacing * protocol_cases.working_spacing(image.geometry.spacing) / 1.5
    point = image.geometry.ijk_to_point(click.position_kji[::-1])
    grid = PatchGrid.for_click(image, point, patch_spacing, options.size)
    patch = ClickPatch(
        sample_evenly(grid, image), grid.point_to_kji(point), grid, point, image.modality, image
    )
    around = grid.sample(_label_crop(structure, click.part, image.geometry), "nearest")
    return patch, Target(structure, click, around == 2, around >= 1, image.geometry)


def _label_crop(structure, part, geometry):
    """A small volume: 2 in the clicked part, 1 elsewhere in the label, 0 around (a rim of one voxel)."""
    array = (structure.parts != 0).astype(np.uint8) + (structure.parts == part)
    shift = np.eye(4)
    shift[:3, 3] = [s.start - 1 for s in structure.box[::-1]]
    return Volume(np.pad(array, 1), geometry.ijk_to_ras @ shift)


def _row(case, name, method, patch, mask, target, seconds, options):
    nan = float("nan")
    unit = (patch.spacing,) * 3
    tolerance = TOLERANCE_MM * patch.spacing / options.spacing  # micro-CT: voxels stand for 1.5 mm
    return ClickRow(
        method=name,
        data_set=case.source,
        group=case.group,
        volume=case.name,
        modality=case.modality,
        label=target.structure.label,
        structure=target.structure.name,
        click=target.click.index,
        r=float(patch.point_ras[0]),
        a=float(patch.point_ras[1]),
        s=float(patch.point_ras[2]),
        target_voxels=int(np.count_nonzero(target.part)),
        mask_voxels=int(np.count_nonzero(mask)),
        dice=dice(mask, target.part),
        dice_label=dice(mask, target.whole_label),
        dice_native=native_dice(method, patch, mask, target) if options.native else nan,
        nsd=surface_dice(mask, target.part, unit, tolerance) if options.nsd else nan,
        seconds=seconds,
    )
