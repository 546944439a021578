"""A run's curves as a picture: loss, Dice and speed over training time, with the phases."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import numpy as np

LOGGER = logging.getLogger(__name__)
ROWS = (
    ("loss", "loss", False),
    ("dice", "Dice in training", False),
    ("samples_per_second", "samples/s", True),
)


def read_log(path: Path) -> dict[str, np.ndarray]:
    """Columns of a log.csv as floats, by name; broken lines (of a run that was killed) are left out."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if None not in row.values() and None not in row]
    columns: dict[str, list[float]] = {}
    for row in rows:
        try:
            values = {name: float(text) for name, text in row.items()}
        except ValueError:
            continue
        for name, value in values.items():
            columns.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in columns.items()}


def running_mean(values: np.ndarray, span: int) -> np.ndarray:
    """Mean of the last `span` values at every place, of fewer at the beginning."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - span, 0)
    return (sums[end] - sums[start]) / (end - start)


def draw_curves(folder: Path) -> Path | None:
    """FOLDER/curves.png of FOLDER/log.csv.

    Returns:
        the picture's path; None, with a line in the log, when there is nothing to draw or no matplotlib: a
        picture must not fail a run.
    """
    folder = Path(folder)
    try:
        log = read_log(folder / "log.csv")
        if not len(log.get("seconds", ())):
            LOGGER.info("no curves: %s holds no line yet", folder / "log.csv")
            return None
        return _draw(log, folder)
    except ImportError:
        LOGGER.info("no curves: matplotlib is not installed (pip install matplotlib)")
    except (OSError, ValueError, KeyError) as error:
        LOGGER.warning("no curves: %s", error)
    return None


def _draw(log: dict[str, np.ndarray], folder: Path) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    minutes = log["seconds"] / 60
    figure = Figure(figsize=(9, 8), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(ROWS), 1, sharex=True)
    sizes = log.get("size", np.zeros(len(minutes)))
    span = max(1, min(50, len(minutes) // 20))
    for axis, (name, title, logarithmic) in zip(axes, ROWS):
        values = log[name]
        for size in np.unique(sizes):
            own = sizes == size
            axis.plot(minutes[own], values[own], "o", markersize=3, label=f"{size:.0f}³")
        axis.plot(minutes, running_mean(values, span), color="#555555", linewidth=1, zorder=0)
        axis.set_ylabel(title)
        axis.grid(alpha=0.3)
        if logarithmic and (values > 0).any():
            axis.set_yscale("log")
        for phase, start in phase_starts(log):
            axis.axvline(start, color="#999999", linewidth=0.8, linestyle="dashed")
            if axis is axes[0]:
                axis.text(start, 1.01, f" phase {phase}", transform=axis.get_xaxis_transform(), fontsize=8)
    axes[0].legend(fontsize=8, loc="upper right")
    axes[-1].set_xlabel("minutes of training")
    samples = f", {log['samples'][-1]:,.0f} samples" if "samples" in log else ""
    figure.suptitle(f"{folder.resolve().name}: {minutes[-1]:.1f} minutes{samples}", fontsize=11)
    path = folder / "curves.png"
    temporary = folder / "curves.png.part"
    try:
        figure.savefig(temporary, format="png")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def phase_starts(log: dict[str, np.ndarray]) -> list[tuple[int, float]]:
    """[(phase, minute of its first line)] in order."""
    phases = log.get("phase", np.ones(len(log["seconds"])))
    first = [n for n in range(len(phases)) if n == 0 or phases[n] != phases[n - 1]]
    return [(int(phases[n]), float(log["seconds"][n]) / 60) for n in first]
