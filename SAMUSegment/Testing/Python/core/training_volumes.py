"""Packed volumes made of label arrays, for the tests of training."""

from __future__ import annotations

import numpy as np

from samu_core.training.pack import PackedVolume, components


def packed(labels: np.ndarray, image=None, source="test", name="volume", modality="MR") -> PackedVolume:
    """A volume of (K, J, I) labels at 1.5 mm, with the image given or none."""
    ids, values, counts, boxes = components(labels.astype(np.int32))
    return PackedVolume(name, source, modality, 1.5, ids, image, values, counts, boxes)
