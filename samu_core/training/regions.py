"""Objects of a real image that nobody labelled: what has one intensity and hangs together.

Real labels here are of few kinds. A network that sees only those takes everything else of a real image for
background; these targets show it bones, cavities, vessels and fat of the same images (training.md, "Recipe",
asks for supervoxels; connected intensity bands are the objects on which region growing still wins).
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from samu_core.training.pack import PackedVolume, components

LOGGER = logging.getLogger(__name__)
BANDS = 7  # drawn per volume
LEAST, MOST = 100, 60_000  # voxels of an object
LEAST_VOLUME = 50_000  # voxels; crops of one structure have nothing else to show


def region_labels(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Connected pieces of intensity bands.

    Args:
        image: (K, J, I), any scale.

    Returns:
        int32 (K, J, I): a label per piece, 0 elsewhere. Bands lie around the value of a random voxel of
        the body; an opening cuts thin bridges between pieces.
    """
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(image.astype(np.float32), 0.8)
    inside = _inside(smooth)
    body = smooth[inside]
    spread = float(body.std()) if body.size else 0.0
    labels = np.zeros(image.shape, np.int32)
    if spread == 0:
        return labels
    for _ in range(BANDS):
        centre, reach = (
            float(rng.choice(body)),
            spread * float(np.exp(rng.uniform(np.log(0.15), np.log(0.9)))),
        )
        band = ndimage.binary_opening(inside & (np.abs(smooth - centre) < reach), np.ones((3, 3, 3)))
        numbered, count = ndimage.label(band & (labels == 0))
        sizes = np.bincount(numbered.ravel(), minlength=count + 1)
        keep = (sizes >= LEAST) & (sizes <= MOST)
        keep[0] = False
        table = np.where(keep, np.cumsum(keep) + labels.max(), 0).astype(np.int32)
        labels = np.maximum(labels, table[numbered])
    return labels


def _inside(image: np.ndarray) -> np.ndarray:
    """Bool (K, J, I): all but the darkness around the body; airways and other dark cavities in it stay."""
    from scipy import ndimage

    numbered, count = ndimage.label(image <= image.min() + 0.03 * (image.max() - image.min()))
    at_border = np.zeros(count + 1, bool)
    for axis in range(3):
        for face in (0, -1):
            at_border[np.unique(numbered.take(face, axis))] = True
    at_border[0] = False
    return ~at_border[numbered]


def region_volumes(real: list[PackedVolume], cache: Path | None, most_per_source: int) -> list[PackedVolume]:
    """The same images with their regions as targets, some of each data set; kept in `cache`."""
    counts: dict[str, int] = {}
    volumes = []
    for volume in real:
        if volume.ids.size < LEAST_VOLUME or counts.get(volume.source, 0) >= most_per_source:
            continue
        counts[volume.source] = counts.get(volume.source, 0) + 1
        path = None if cache is None else cache / "regions" / f"{volume.name}.npz"
        if path is not None and path.is_file():
            found = PackedVolume.load(path)
            ids, labels, sizes, boxes = found.ids, found.labels, found.counts, found.boxes
        else:
            rng = np.random.default_rng(len(volumes))
            ids, labels, sizes, boxes = components(region_labels(volume.image, rng))
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                bare = (volume.name, volume.source, volume.modality, volume.spacing, ids, None)
                PackedVolume(*bare, labels, sizes, boxes).save(path)
        if len(labels):
            meta = (volume.name, volume.source, volume.modality, volume.spacing)
            volumes.append(PackedVolume(*meta, ids, volume.image, labels, sizes, boxes))
    LOGGER.info("%d volumes with unlabelled regions as targets", len(volumes))
    return volumes
