"""Statistics of the normalisation for averaged weights.

BatchNorm's running statistics belong to the weights that produced them and to the patch sizes seen last.
Averaged weights (EMA, or of several checkpoints) and the full 128^3 patch of inference have others: they are
measured anew.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from samu_core.network import SAMU
from samu_core.prompt import FIELD_OF_VIEW, PointPrompt
from samu_core.training.settings import CropSettings
from samu_core.training.stream import Batch


def inference_crop(size: int) -> CropSettings:
    """Single patches of size^3 voxels that are as wide as inference's patch (1.5 mm for 128). Statistics of
    batches of four did worse in what shipped (docs/model.md)."""
    spacing = FIELD_OF_VIEW / size
    return CropSettings(size, (spacing, spacing), 1)


def remeasure_statistics(network: SAMU, batches: Iterable[Batch]) -> int:
    """Replace all running means and variances by the plain average over some batches; weights stay.

    Args:
        network: changed in place, left in eval mode. Networks without BatchNorm are left alone.
        batches: of the patch size that inference uses, at least one; of a patch's clicks the first counts.

    Returns:
        Number of batches used.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm3d)]
    momenta = [layer.momentum for layer in layers]
    count = 0
    network.train()
    device = next(network.parameters()).device
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # cumulative average
    with torch.no_grad():
        for batch in batches:
            patch = batch.patch.to(device, memory_format=torch.channels_last_3d)
            first = batch.position[:: batch.clicks].to(device)
            network(patch, PointPrompt(first, batch.span))
            count += 1
    for layer, momentum in zip(layers, momenta):
        layer.momentum = momentum
    network.eval()
    return count
