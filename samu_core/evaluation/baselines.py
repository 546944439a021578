"""Classical one-click segmentations: what a click is worth without any training.

Four textbook methods as SimpleITK has them, run on the same patch and the same click as the network:
a fixed ball, region growing within a tolerance (ConnectedThreshold), region growing by running statistics
(ConfidenceConnected), and a front that slows down at edges (FastMarching). Each has ONE set of parameters for
all structures and modalities, chosen on the dev split by mean Dice over data sets. To be a fair rival they
work on a smoothed image, count in voxels of the patch, measure tolerances in units of the patch's own
contrast, hold back when a region leaks (the tolerance shrinks until it fits), and close small holes.

Regenerate TUNED with the command

    samu evaluate --data DIR --split dev --boundary visible --tune --seed 0

which prints the lines to paste here. Numbers: docs/evaluation.md.
"""

from __future__ import annotations

import itertools

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from samu_core.evaluation.metrics import round_half_up

# The one place where tuned values live.
TUNED = {
    "ball": {"radius": 12.0},
    "connected_threshold": {
        "sigma": 0.7,
        "scale": "patch",
        "tolerance": 0.35,
        "max_voxels": 3000,
        "closing": 1,
    },
    "confidence_connected": {
        "sigma": 0.7,
        "multiplier": 2.5,
        "iterations": 0,
        "radius": 2,
        "max_voxels": 6000,
        "closing": 1,
    },
    "fast_marching": {"sigma": 1.2, "contrast": 0.5, "steepness": 1.0, "time": 28.0, "dilation": 2},
}

# What --tune tries: every combination, on a few clicks of every data set. The ranges lie around, and beyond,
# the best of a first, coarser grid (sigma to 1.2, tolerance 0.1 to 1.1, limits to 160000, times from 4).
GRID = {
    "ball": {"radius": [6.0, 8.0, 10.0, 11.0, 12.0, 13.0, 14.0, 16.0]},
    "connected_threshold": {
        "sigma": [0.4, 0.7],
        "scale": ["patch", "local"],
        "tolerance": [0.2, 0.28, 0.35, 0.42, 0.5],
        "max_voxels": [3000, 6000, 10000, 20000],
        "closing": [1],
    },
    "confidence_connected": {
        "sigma": [0.4, 0.7],
        "multiplier": [1.5, 2.0, 2.5],
        "iterations": [0, 1],
        "radius": [2],
        "max_voxels": [3000, 6000, 10000, 20000],
        "closing": [1],
    },
    "fast_marching": {
        "sigma": [1.2, 1.8],
        "contrast": [0.25, 0.5],
        "steepness": [0.5, 1.0],
        "time": [90.0, 60.0, 40.0, 28.0, 20.0, 15.0],  # longest first: one front serves all of them
        "dilation": [1, 2],
    },
}

SHRINK, ATTEMPTS = 0.6, 4  # leak control: 1, 0.6, 0.36, 0.22 x the tolerance, until the region fits


def ball(patch, radius):
    """A ball around the click, radius in voxels, cut to the volume: the answer that has not looked."""
    inside = np.zeros(patch.raw.shape, bool)
    axes = [np.arange(s.start, s.stop) - c for s, c in zip(patch.box, patch.click_kji)]
    distance2 = sum(a.reshape([-1 if axis == n else 1 for n in range(3)]) ** 2 for axis, a in enumerate(axes))
    inside[patch.box] = distance2 <= radius**2
    return inside & patch.inside


def connected_threshold(patch, sigma, scale, tolerance, max_voxels, closing):
    """Voxels joined to the click whose smoothed intensity is within tolerance x SD of the click's.

    scale says whose SD: the whole patch's, or that of the 21 voxels cubed around the click.
    """
    image, seed = _smoothed(patch, sigma), _seed(patch)
    centre = float(image[seed])
    width = tolerance * _spread(patch, sigma, scale)
    for _ in range(ATTEMPTS):
        region = _cached(patch, ("ct", sigma, width), grow, image, seed, centre - width, centre + width)
        if np.count_nonzero(region) <= max_voxels:
            break
        width *= SHRINK
    return _placed(patch, _close(region, closing))


def confidence_connected(patch, sigma, multiplier, iterations, radius, max_voxels, closing):
    """Region growing within mean +- multiplier x SD of the region itself, re-estimated a few times."""
    image, seed = _smoothed(patch, sigma), _seed(patch)
    for _ in range(ATTEMPTS):
        key = ("cc", sigma, multiplier, iterations, radius)
        region = _cached(patch, key, grow_by_confidence, image, seed, multiplier, iterations, radius)
        if np.count_nonzero(region) <= max_voxels:
            break
        multiplier *= SHRINK
    return _placed(patch, _close(region, closing))


def fast_marching(patch, sigma, contrast, steepness, time, dilation):
    """What a front from the click reaches by a given time; it runs at one voxel per unit of time, and slower
    at edges: speed = 1 / (1 + (gradient magnitude / (contrast x its mean))^(2 x steepness)). As smoothing
    spreads an edge over the voxels before it, the front stops short: dilation adds that many voxels."""
    key = ("fm", sigma, contrast, steepness)
    if patch.cache.get((key, "until"), 0.0) < time:
        patch.cache[key] = _march(patch, sigma, contrast, steepness, time)
        patch.cache[key, "until"] = time
    arrival, until = patch.cache[key], patch.cache[key, "until"]
    for step in range(dilation):  # the earliest arrival of six neighbours: a dilation at every time at once
        arrival = _cached(patch, (key, until, step), _earliest_neighbour, arrival)
    return _placed(patch, arrival <= time)


METHODS = {
    "ball": ball,
    "connected_threshold": connected_threshold,
    "confidence_connected": confidence_connected,
    "fast_marching": fast_marching,
}


def tuned_methods(parameters=None):
    """{name: method(patch) -> mask}, each with its one global parameter set (TUNED unless given)."""
    parameters = TUNED if parameters is None else parameters
    return {name: _Bound(name, values) for name, values in parameters.items()}


class _Bound:
    """A baseline with its parameters filled in; a class, not a closure, so that workers can unpickle it."""

    def __init__(self, name, parameters):
        self.name, self.parameters = name, dict(parameters)

    def __call__(self, patch):
        return METHODS[self.name](patch, **self.parameters)


def combinations(name):
    """Every parameter set of the grid of one baseline, as dicts."""
    grid = GRID[name]
    return [dict(zip(grid, values)) for values in itertools.product(*grid.values())]


def _cached(patch, key, function, *arguments):
    """Intermediate results live with the patch: tuning asks for the same smoothing hundreds of times."""
    if key not in patch.cache:
        patch.cache[key] = function(*arguments)
    return patch.cache[key]


def _seed(patch):
    """The click as a (k, j, i) index of the cropped patch, clipped into it."""
    return tuple(
        min(max(round_half_up(c) - s.start, 0), s.stop - s.start - 1)
        for s, c in zip(patch.box, patch.click_kji)
    )


def _image(patch):
    """The imaged part of the patch, CT clamped to +-1000 HU like the network's input; never NaN."""
    raw = patch.raw[patch.box]
    low = float(np.nanmin(raw))
    raw = np.where(np.isnan(raw), low, raw)
    if patch.modality == "CT" or (patch.modality is None and low < -300):
        raw = np.clip(raw, -1000, 1000)
    return raw.astype(np.float32)


def _smoothed(patch, sigma):
    """Float32 KJI image after a Gaussian of sigma voxels. A crop under four voxels thick stays as it is:
    ITK's recursive filter needs four samples a line."""

    def smooth():
        image = _cached(patch, "image", _image, patch)
        if min(image.shape) < 4:
            return image
        return sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(sitk.GetImageFromArray(image), sigma))

    return _cached(patch, ("smooth", sigma), smooth)


def _spread(patch, sigma, scale):
    def measure():
        array = _smoothed(patch, sigma)
        if scale == "local":
            array = array[tuple(slice(max(c - 10, 0), c + 11) for c in _seed(patch))]
        return max(float(array.std()), 1e-6)

    return _cached(patch, ("sd", sigma, scale), measure)


def grow(image, seed, low, high):
    """Bool mask of the voxels joined to the seed (through faces) whose values lie in [low, high].

    What itk::ConnectedThresholdImageFilter gives (a test compares them), several times as fast where the
    region leaks, which is where the time goes.
    """
    labels, _ = ndimage.label((image >= low) & (image <= high))
    return labels == labels[seed] if labels[seed] else np.zeros(image.shape, bool)


def grow_by_confidence(image, seed, multiplier, iterations, radius):
    """What itk::ConfidenceConnectedImageFilter gives: grow within mean +- multiplier x SD, first of the cube
    around the seed, then `iterations` times of the region so far; the seed's own value is always within."""
    cube = tuple(slice(max(c - radius, 0), c + radius + 1) for c in seed)
    values, value = image[cube], float(image[seed])
    for _ in range(iterations + 1):
        mean = float(values.mean(dtype=np.float64))
        width = multiplier * float(values.std(dtype=np.float64, ddof=1))
        region = grow(image, seed, min(mean - width, value), max(mean + width, value))
        values = image[region]
        if values.size < 2:
            break
    return region


def _march(patch, sigma, contrast, steepness, until):
    """Arrival times, float32; far above `until` where the front was not followed."""
    array = _smoothed(patch, sigma)
    gradient = np.sqrt(sum(np.gradient(array, axis=a) ** 2 for a in range(3) if array.shape[a] > 1))
    edge = contrast * max(float(gradient.mean()), 1e-6)
    speed = (1.0 / (1.0 + (gradient / edge) ** (2 * steepness)) + 1e-6).astype(np.float32)
    front = sitk.FastMarching(sitk.GetImageFromArray(speed), [_seed(patch)[::-1]], 1.0, until)
    return sitk.GetArrayFromImage(front)


def _earliest_neighbour(arrival):
    return ndimage.grey_erosion(arrival, footprint=ndimage.generate_binary_structure(3, 1), mode="nearest")


def _close(region, steps):
    """Morphological closing by a six-neighbour cross, on the region's bounding box alone."""
    found = ndimage.find_objects(region.astype(np.uint8))
    if steps < 1 or not found:
        return region
    cropped = np.pad(region[found[0]], steps)
    cropped = ndimage.binary_closing(cropped, ndimage.generate_binary_structure(3, 1), iterations=steps)
    closed = region.copy()
    closed[found[0]] = cropped[(slice(steps, -steps),) * 3]
    return closed


def _placed(patch, region):
    """The crop's region as a mask of the patch, without voxels outside the volume."""
    mask = np.zeros(patch.raw.shape, bool)
    mask[patch.box] = region
    return mask & patch.inside
