"""From a click in a volume to a Prediction: the one entry for Slicer, the command line and Python."""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from samu_core.calls import Call, Counter, Encoded
from samu_core.engine import (
    TorchEngine,
    choose_device,
    choose_precision,
    device_title,
    fused_engine,
    import_torch,
    is_out_of_memory,
    return_freed_memory,
)
from samu_core.errors import SamuError
from samu_core.geometry import PATCH_SIZE, PATCH_SPACING_MM, PatchGrid, Volume
from samu_core.intensity import normalize_patch
from samu_core.looks import look_again
from samu_core.prediction import Prediction
from samu_core.sharpness import sample_evenly


class Predictor:
    """Segments what is clicked. Thread-safe: one prediction at a time, others wait for it.

    The network is loaded at the first prediction or by `warm_up`. The features of the last patch are
    kept, so a second click in the same patch costs the decoder only; those of a second look are not.

    Args:
        weights: file of the network's weights; None is the bundled one.
        device: "auto" (CUDA if there is any), "cpu", "cuda" or "cuda:N".
        precision: "auto", "float32", "bfloat16" or "float16".
        network: an nn.Module like samu_core.network.SAMU to be used instead of the weights.
        patch_size: voxels along each axis of the patch, a multiple of 32.
        reuse_radius_mm: a click this close to the centre of the last patch is predicted in that patch
            instead of one of its own. 0: every click has its own patch.
        region: leave the finest levels out where the coarse ones find nothing (probability under .02, the
            least threshold of the GUI); the logits there are -20. For the CPU; False decodes everywhere.
        second_look: ask again by what the mask holds, look again, in a patch of finer voxels, at what is
            small, and in a wider one at what is doubtful, and take more of what remains in doubt
            (`samu_core.looks`).
        fused: on a CPU, run the network in fused operations if they can be had here.
        on_notice: called with one line for the user, e.g. when the GPU's memory was too small.

    Attributes:
        notice: the last such line; empty when nothing unusual happened.
    """

    def __init__(
        self,
        weights: Any = None,
        device: str = "auto",
        precision: str = "auto",
        network: Any = None,
        *,
        patch_size: int = PATCH_SIZE,
        reuse_radius_mm: float = 0.0,
        region: bool = True,
        second_look: bool = True,
        fused: bool = True,
        on_notice: Callable[[str], None] | None = None,
    ):
        self.notice = ""
        self._weights = weights
        self._wanted = (device, precision)
        self._network = network
        self._patch_size = patch_size
        self._reuse_radius_mm = reuse_radius_mm
        self._fused, self._region, self._second_look = fused, region, second_look
        self._on_notice = on_notice
        self._lock = threading.Lock()
        self._waiting = Counter()
        self._chosen: tuple[str, str] | None = None
        self._engine: Any = None
        self._encoded: Encoded | None = None
        self._sparing = False  # what a stage took is given back before the next one

    @property
    def device(self) -> str:
        """torch device, "cpu" or "cuda"; imports torch at first use. SamuError if it is not there."""
        return self._choice()[0]

    @property
    def precision(self) -> str:
        """Precision of the convolutions, a name of samu_core.engine.PRECISIONS."""
        return self._choice()[1]

    @property
    def description(self) -> str:
        """Device and precision for people, e.g. "CPU, float32". Does not load the network."""
        device, precision = self._choice()
        return f"{device_title(device)}, {precision}"

    @property
    def loaded(self) -> bool:
        """True once the network is in memory."""
        return self._engine is not None

    def predict(
        self,
        volume: Volume,
        point_ras: Any,
        *,
        spacing: float | str = PATCH_SPACING_MM,
        cancelled: Callable[[], bool] | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> Prediction:
        """The logits of the structure at a point. The network is asked twice, the second time about what is
        typical of its first mask; what is small or doubtful is looked at again, and the result may be on a
        second patch, which is finer or wider (`samu_core.looks`).

        Args:
            volume: CT or MR.
            point_ras: (3,) RAS mm, inside the volume.
            spacing: voxel size of the patch in mm, or "native"; the field of view grows with it.
            cancelled: asked between stages; True raises Cancelled.
            progress: called with the name of each stage as it begins: "sample", "normalize", "load",
                "encode", "decode". Stages whose result is at hand are left out; a second look repeats them.
                The first click of a process begins with another "load", of torch.

        Raises:
            PointOutsideVolumeError, VolumeError: there is nothing to segment at the point.
            WeightsError: the network cannot be loaded.
            Cancelled: `cancelled` said so.
        """
        point = volume.require_inside(point_ras)
        call = Call(cancelled, progress)
        with self._click_turn():
            call.check()
            first = self._look(volume, point, spacing, call)
            if not self._second_look:
                return first
            second, again = partial(self._second, volume, call), partial(self._again, point, call)
            return look_again(volume, first, second, again)

    def _again(self, point: np.ndarray, call: Call, mask: np.ndarray) -> np.ndarray | None:
        """Logits of the same click in the same patch, with what is typical of a mask; None where the engine
        knows nothing of that, or its numbers fail it."""
        # Not held by the caller: a second look frees it.
        encoded, decode_again = self._encoded, getattr(self._engine, "decode_again", None)
        if decode_again is None or encoded is None or encoded.features is None:
            return None
        return_freed_memory()  # what judging the mask took
        try:
            with call.stage("decode"):
                logits = decode_again(encoded.features, encoded.grid.fraction_kji(point), mask)
        except Exception as error:
            if self._choice()[0] == "cpu" or not is_out_of_memory(error):
                raise
            return None  # the first answer is there
        if hasattr(self._engine, "release"):
            self._engine.release()  # judging both answers takes memory, too
        return_freed_memory()
        call.check()
        return logits if logits is not None and np.isfinite(logits).all() else None

    def _second(self, volume: Volume, call: Call, point: np.ndarray, spacing: float) -> Prediction:
        """Another look, of which nothing is kept: with the first one's result it must fit in the memory that
        one look takes."""
        self._encoded = None
        self._sparing = True
        try:
            return_freed_memory()
            second = self._look(volume, point, spacing, call)
        finally:
            self._encoded, self._sparing = None, False
        if hasattr(self._engine, "release"):
            self._engine.release()  # judging takes memory, too
        return_freed_memory()
        return second

    def _look(self, volume: Volume, point: np.ndarray, spacing: float | str, call: Call) -> Prediction:
        """The prediction in one patch."""
        encoded = self._patch(volume, point, spacing, call)
        logits = self._logits(encoded, point, call)
        device, precision = self._chosen
        return Prediction(
            logits=logits,
            grid=encoded.grid,
            point_ras=point,
            seconds=call.seconds,
            device=device,
            precision=precision,
            inside=encoded.inside,
            notice=call.notice,
        )

    def prefetch(
        self,
        volume: Volume,
        point_ras: Any,
        *,
        spacing: float | str = PATCH_SPACING_MM,
        cancelled: Callable[[], bool] | None = None,
    ) -> bool:
        """Encode the patch of a click that may come (the cursor rests); then it costs the decoder only.

        A click elsewhere drops it, and a click that waits goes first. Takes the place of the last patch.

        Args:
            volume, point_ras, spacing: as `predict`.
            cancelled: asked between stages; True gives up.

        Returns:
            True when the features are at hand. What `predict` would raise for this click counts as False.
        """
        call = Call(lambda: self._waiting.value > 0 or (cancelled is not None and cancelled()), None)
        try:
            point = volume.require_inside(point_ras)
            with self._lock:
                self._encode(self._patch(volume, point, spacing, call), call)
        except SamuError:
            return False
        except Exception as error:
            if self._choice()[0] == "cpu" or not is_out_of_memory(error):
                raise
            return False  # the click itself will move to the CPU and say so
        return True

    def warm_up(self) -> float:
        """Load the network and run it once, so that the first click is as fast as the others.

        Returns the seconds that took. Forgets the last patch.

        Call it in the thread that will predict: cuDNN's plans belong to a thread.
        """
        start = time.perf_counter()
        grid = PatchGrid((0.0, 0.0, 0.0), self._patch_size)
        patch = np.zeros((self._patch_size,) * 3, np.float32)
        nowhere = Encoded(grid, lambda: None, None, None, None, patch, np.ones(patch.shape, bool))
        with self._lock:
            self._logits(nowhere, np.zeros(3), Call(None, None))
            self._encoded = None
        return time.perf_counter() - start

    def clear_cache(self) -> None:
        """Forget the last patch and free its features."""
        with self._lock:
            self._encoded = None

    def _choice(self) -> tuple[str, str]:
        # No lock: a GUI thread may ask while another one predicts, and both would choose the same.
        if self._chosen is None:
            device = choose_device(self._wanted[0])
            self._chosen = (device, choose_precision(self._wanted[1], device))
        return self._chosen

    def _patch(self, volume: Volume, point: np.ndarray, spacing: float | str, call: Call) -> Encoded:
        """The patch for a click; with features if it is the last one."""
        grid = PatchGrid.for_click(volume, point, spacing, self._patch_size)
        last = self._encoded
        if last is not None and self._may_reuse(last, volume, grid):
            grid = last.grid
        if last is not None and last.grid == grid and last.promised(volume):
            return last
        if "torch" not in sys.modules:  # takes seconds, which are not the sampling's
            with call.stage("load"):
                import_torch()
        with call.stage("sample"):
            patch = sample_evenly(grid, volume)
        if last is not None and last.holds(grid, volume.modality, patch):
            last.volume, last.geometry, last.version = weakref.ref(volume), volume.geometry, volume.version
            return last
        return Encoded(
            grid,
            weakref.ref(volume),
            volume.geometry,
            volume.modality,
            volume.version,
            patch,
            np.isfinite(patch),
        )

    def _may_reuse(self, last: Encoded, volume: Volume, grid: PatchGrid) -> bool:
        """True when the click lies close enough to the centre of the last patch of this volume."""
        if self._reuse_radius_mm <= 0 or (last.grid.size, last.grid.spacing) != (grid.size, grid.spacing):
            return False
        distance = float(np.linalg.norm(np.subtract(last.grid.center_ras, grid.center_ras)))
        within = min(self._reuse_radius_mm, grid.size * grid.spacing / 2)
        return distance <= within and last.geometry == volume.geometry and last.same_volume(volume)

    def _logits(self, encoded: Encoded, point: np.ndarray, call: Call) -> np.ndarray:
        """Encode if need be, decode; on the CPU if the GPU's memory is too small."""
        try:
            return self._run(encoded, point, call)
        except Exception as error:
            if self._choice()[0] == "cpu" or not is_out_of_memory(error):
                raise
        # Outside the handler: the error's traceback keeps the tensors that filled the memory.
        self._move_to_cpu(encoded, call)
        return self._run(encoded, point, call)

    @contextmanager
    def _click_turn(self) -> Iterator[None]:
        """The lock, with prefetches giving way."""
        with self._waiting.counted():
            self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()

    def _run(self, encoded: Encoded, point: np.ndarray, call: Call) -> np.ndarray:
        self._encode(encoded, call)
        with call.stage("decode"):
            logits = self._engine.decode(encoded.features, encoded.grid.fraction_kji(point))
        call.check()
        if np.isfinite(logits).all():
            return logits
        return self._repeat_exactly(encoded, point, call)

    def _encode(self, encoded: Encoded, call: Call) -> None:
        """The features of a patch, if it has none yet."""
        normalized = None
        if encoded.features is None and not hasattr(self._engine, "encode_raw"):
            with call.stage("normalize"):
                normalized = normalize_patch(encoded.patch, encoded.modality)
        self._load(call)
        if encoded.features is None:
            # The old features go first, and what the last mask took: all together may not fit.
            self._encoded = None
            return_freed_memory()
            with call.stage("encode"):
                if normalized is None:  # the engine normalises on its device
                    encoded.features = self._engine.encode_raw(encoded.patch, encoded.modality)
                else:
                    encoded.features = self._engine.encode(normalized)
                    del normalized
                    self._spare()
            self._encoded = encoded

    def _spare(self) -> None:
        if self._sparing:
            return_freed_memory()

    def _load(self, call: Call) -> None:
        if self._engine is not None:
            return
        device, precision = self._choice()
        with call.stage("load"):
            network = self._network
            if network is None:
                import_torch()
                from samu_core.weights import load_network

                network = load_network(self._weights, map_location="cpu")
            if self._fused:
                self._engine = fused_engine(network, device, precision, self._patch_size, self._region)
            if self._engine is None:
                self._engine = TorchEngine(network, device, precision)
                self._network = network
            else:
                # The weights are in the engine in another form; the file can be read again.
                del network
                return_freed_memory()

    def _repeat_exactly(self, encoded: Encoded, point: np.ndarray, call: Call) -> np.ndarray:
        """Half precision may overflow on unusual images; float32 does not, with sound weights."""
        device, precision = self._choice()
        self._encoded, encoded.features = None, None
        if precision == "float32":
            raise SamuError("The network's result is not a number; its weights seem to be damaged.")
        self._chosen, self._engine = (device, "float32"), None
        self._say(f"The result in {precision} was not a number; this and later clicks use float32.", call)
        return self._run(encoded, point, call)

    def _move_to_cpu(self, encoded: Encoded, call: Call) -> None:
        torch = import_torch()
        self._encoded, encoded.features, self._engine = None, None, None
        self._chosen = ("cpu", choose_precision("auto", "cpu"))
        if self._network is not None:
            self._network.to("cpu")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._say(
            "The GPU has too little free memory; this and later clicks run on the CPU, which is slower. "
            "Close other programs that use the GPU to have it back after a restart.",
            call,
        )

    def _say(self, text: str, call: Call) -> None:
        self.notice = call.notice = text
        if self._on_notice is not None:
            self._on_notice(text)
