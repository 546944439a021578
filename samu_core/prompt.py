"""The point prompt as the network takes it: where the click is inside the patch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from samu_core.network.typical import Typical

FIELD_OF_VIEW = 192.0  # mm: 128 voxels of 1.5 mm, what a patch covers at inference
TYPICAL_VOXELS = 8  # of the patch, from which a mask is typical of something


@dataclass(frozen=True)
class PointPrompt:
    """One positive point per patch of a batch (paper, Sec. 2.2: SAM's point prompt only).

    Attributes:
        position: float32 tensor (B, 3), the click in KJI order as fractions of the patch, (index + 0.5) /
            size, so that 0 and 1 are the outer faces of the patch and 0.5 its centre.
        span: edge length of the patch in units of the field of view that the encoding is scaled to. A patch
            that covers the whole field of view, as in inference, has span 1; a training crop of half the
            edge length at the same voxel spacing has span 0.5, which keeps the encoding of a millimetre the
            same.
        views: so many of the samples, one after the other, show the same click in different parts of its
            patch, the first of them the part that holds it (`samu_core.training.windows`).
        typical: what the decoder compares with in place of the clicked voxel; for a batch of one, or, in
            training, `samu_core.training.again.TypicalOfClicks`.
    """

    position: torch.Tensor
    span: float = 1.0
    views: int = 1
    typical: Typical | None = None

    def __post_init__(self) -> None:
        if self.position.ndim != 2 or self.position.shape[1] != 3:
            shape = tuple(self.position.shape)
            raise ValueError(f"PointPrompt.position must have shape (batch, 3) in KJI order, not {shape}.")
        if not self.span > 0:
            raise ValueError(f"PointPrompt.span must be positive, not {self.span}.")

    @classmethod
    def from_fraction(
        cls,
        fraction_kji: Sequence[float],
        span: float = 1.0,
        device=None,
        typical: Typical | None = None,
    ) -> PointPrompt:
        """A batch of one from a click in KJI fractions of the patch (`PatchGrid.fraction_kji`)."""
        import torch

        values = [float(value) for value in fraction_kji]
        return cls(torch.tensor([values], dtype=torch.float32, device=device), span, typical=typical)

    def to(self, device) -> PointPrompt:
        """The same prompt on another torch device; what is typical stays where it is."""
        return PointPrompt(self.position.to(device), self.span, self.views, self.typical)

    @property
    def position_in_field_of_view(self) -> torch.Tensor:
        """float32 tensor (B, 3): KJI fractions of the field of view; a crop counts as lying in its middle."""
        return 0.5 + (self.position.float() - 0.5) * self.span
