"""What a SAMU network is made of: one small, serialisable description."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

ATTENTION_PLACES = ("all", "bottom", "none", "skips")
PROMPT_CONTENTS = ("content", "position")
NORMALISATIONS = ("batch", "group")
CLICK_MAPS = ("full", "none")


@dataclass(frozen=True)
class SAMUConfig:
    """Architecture switches of `SAMU`.

    Attributes:
        channels: feature channels from the full resolution (128^3) to the bottleneck (4^3).
        encoder_convs: 3x3x3 convolutions per encoder level, same order.
        decoder_convs: 3x3x3 convolutions per decoder level, same order, without the bottleneck.
        concatenated_levels: decoder levels whose skip is concatenated; the others add it (design.md,
            decision 1).
        auxiliary_level: decoder level that carries the auxiliary head (2 = 32^3 of a 128^3 patch).
        embedding: length of a prompt token before the per-level 1D convolutions.
        attention: "all" is SAMU; "bottom", "none" and "skips" are the paper's Baselines 2, 1 and 3 (Table 2).
        prompt: "content" adds the image feature at the click to the point token; "position" is the
            paper-literal prompt.
        maps: "full" shows every decoder level how alike in intensity, how near to and how well connected with
            the click each voxel is (`ClickMaps`), only with content; "none" does not.
        limits: keep what attention adds to the size of features, and its scores where sigmoids have a slope
            (`prompt_attention.limited`). Weights from before there were limits are without.
        normalisation: "batch" (folds into the convolution at inference) or "group".
    """

    channels: tuple[int, ...] = (16, 32, 64, 128, 256, 256)
    encoder_convs: tuple[int, ...] = (1, 2, 2, 2, 2, 2)
    decoder_convs: tuple[int, ...] = (1, 1, 1, 2, 1)
    concatenated_levels: tuple[int, ...] = (2, 3)
    auxiliary_level: int = 2
    embedding: int = 256
    attention: str = "all"
    prompt: str = "content"
    normalisation: str = "batch"
    maps: str = "full"
    limits: bool = True

    def __post_init__(self) -> None:
        for name in ("channels", "encoder_convs", "decoder_convs", "concatenated_levels"):
            object.__setattr__(self, name, tuple(int(value) for value in getattr(self, name)))
        for value, allowed, name in (
            (self.attention, ATTENTION_PLACES, "attention"),
            (self.prompt, PROMPT_CONTENTS, "prompt"),
            (self.normalisation, NORMALISATIONS, "normalisation"),
            (self.maps, CLICK_MAPS, "maps"),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}.")
        levels = len(self.channels)
        if len(self.encoder_convs) != levels or len(self.decoder_convs) != levels - 1:
            raise ValueError(
                f"{levels} channel counts need {levels} encoder_convs and {levels - 1} decoder_convs, "
                f"not {len(self.encoder_convs)} and {len(self.decoder_convs)}."
            )

    @property
    def uses_maps(self) -> bool:
        """Whether the decoder is given maps of the click: content, which the paper's prompt lacks."""
        return self.maps != "none" and self.prompt == "content" and self.attention != "none"

    @property
    def folds(self) -> bool:
        """Whether normalisation and prompt fold into the convolutions, as fast inference needs."""
        return self.normalisation == "batch" and self.attention == "all" and self.uses_maps

    @property
    def stride(self) -> int:
        """Voxels of the patch per voxel of the bottleneck; patch sizes must be multiples of it."""
        return 2 ** (len(self.channels) - 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, as JSON holds them."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SAMUConfig:
        """The inverse of `to_dict`. Raises ValueError for a key this version does not know."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(
                f"unknown network settings: {', '.join(unknown)}; a newer samu_core may read them."
            )
        return cls(**values)
