"""A whole click through the MRML logic on 512 x 512 x 400 int16: what is not the network?

    python benchmarks/whole_click.py [--clicks 7] [--shape 512 512 400] [--precision auto] [--radius 30]

Needs slicer-core (as the MRML tests do). The network has random weights and does all its work; its logits are
replaced by a ball around the click, for random weights segment nothing that is like a segment.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import measuring  # puts the repository on the path
import numpy as np
from click import make_points, make_volume

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "SAMUSegment"), str(REPOSITORY / "SAMUSegment/Testing/Python/mrml")]

STAGES = ("sample", "normalize", "encode", "decode", "mask", "write", "rest", "click", "besides the network")


class BallEngine:
    """Runs the real engine and returns a ball of radius_mm around the click."""

    def __init__(self, engine, size: int, radius_mm: float) -> None:
        self.engine, self.size, self.radius = engine, size, radius_mm / 1.5

    def encode(self, patch):
        """As the engine."""
        return self.engine.encode(patch)

    def decode(self, features, fraction_kji):
        """The engine's time; a ball's logits, prepared once because every click is the patch's centre."""
        return self._ball_in(self.engine.decode(features, fraction_kji))

    def decode_again(self, features, fraction_kji, mask):
        """As `decode`, with what is typical of the mask."""
        return self._ball_in(self.engine.decode_again(features, fraction_kji, mask))

    def _ball_in(self, logits):
        if not hasattr(self, "ball"):
            axis = np.arange(self.size) - (self.size - 1) / 2
            square = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2
            self.ball = (self.radius - np.sqrt(square)).astype(np.float32)
        np.copyto(logits, self.ball)
        return logits


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clicks", type=int, default=7)
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 400))
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--radius", type=float, default=30.0, help="of the segment, mm")
    args = parser.parse_args()

    from mrml_scene import MrmlScene
    from SAMUSegmentLib.logic import SAMUSegmentLogic

    from samu_core.commands.common import table
    from samu_core.predictor import Predictor

    volume = make_volume(tuple(args.shape))
    scene = MrmlScene()
    node = scene.volume(volume.array, volume.geometry.ijk_to_ras)

    predictor = Predictor(network=measuring.random_network(), device="cpu", precision=args.precision)
    predictor.warm_up()
    predictor._engine = BallEngine(predictor._engine, 128, args.radius)
    logic = SAMUSegmentLogic(predictor)
    segmentation, times = None, {stage: [] for stage in STAGES}
    for point in make_points(volume, args.clicks + 1):
        start = time.perf_counter()
        result = logic.segmentFromPoint(node, point, segmentation, mode="new")
        click = time.perf_counter() - start
        segmentation = result.segmentationNode
        seconds = dict(result.seconds)
        network = seconds.get("encode", 0) + seconds.get("decode", 0)
        seconds.update(click=click, rest=click - sum(seconds.values()))
        seconds["besides the network"] = click - network
        for stage in STAGES:
            times[stage].append(seconds.get(stage, 0.0))
    rows = [[stage, f"{1000 * statistics.median(values[1:]):.1f}"] for stage, values in times.items()]
    print(f"- {measuring.machine()}, {measuring.load_average()}, {predictor.description}")
    print(f"- {result.voxelCount} voxels per segment, {args.clicks} clicks\n\n{table(rows, ['stage', 'ms'])}")


if __name__ == "__main__":
    main()
