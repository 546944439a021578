"""Other promptable 3D networks, built from checkouts of their public code, for engines.py --peer.

    git clone https://github.com/uni-medical/SAM-Med3D && git clone https://github.com/arcadelab/FastSAM3D
    python benchmarks/engines.py --peer sam-med3d=SAM-Med3D --peer fastsam3d=FastSAM3D

Weights are random: the time does not depend on them. A click is what a peer does with one: encode the patch,
prompt, decode, interpolate the mask to the patch; torch alone is needed. Of FastSAM3D it is the distilled
encoder of six layers (its validation_student.py) with the decoder of its teacher.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

Click = Callable[[np.ndarray, np.ndarray], np.ndarray]
SIZE = 128


def load_peer(name: str, folder: Path) -> Click:
    """The click of a peer of PEERS whose repository is in `folder`: a function of (patch (128, 128, 128)
    float32 z-scored, click (3,) KJI index), giving bool (128, 128, 128).

    Raises:
        SystemExit: the folder holds no such code.
    """
    package = f"peer_{name.replace('-', '_')}"
    module = types.ModuleType(package)
    module.__path__ = [str(Path(folder) / "segment_anything")]  # without its __init__, which wants much more
    sys.modules[package] = module
    try:
        return PEERS[name](package)
    except ImportError as error:
        raise SystemExit(f"{folder} is no checkout of {name}: {error}") from error


def _sam_med3d(package: str) -> Click:
    model = importlib.import_module(f"{package}.build_sam3D").build_sam3D_vit_b_ori().eval()
    return partial(_click, model.image_encoder, model)


def _fastsam3d(package: str) -> Click:
    import torch

    model = importlib.import_module(f"{package}.build_sam3D").build_sam3D_vit_b_ori().eval()
    encoder = importlib.import_module(f"{package}.modeling.image_encoder3D").ImageEncoderViT3D(
        depth=6, embed_dim=768, num_heads=6, mlp_ratio=4, patch_size=16, img_size=SIZE, out_chans=384,
        qkv_bias=True, use_rel_pos=True, window_size=0, global_attn_indexes=[2, 5, 8, 11], skip_layer=2,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
    )  # fmt: skip
    return partial(_click, encoder.eval(), model)


PEERS = {"sam-med3d": _sam_med3d, "fastsam3d": _fastsam3d}


def _click(encoder, model, patch: np.ndarray, click: np.ndarray) -> np.ndarray:
    import torch

    with torch.inference_mode():
        image = encoder(torch.from_numpy(patch)[None, None])
        image = image[-1] if isinstance(image, (list, tuple)) else image
        image = image[None] if image.ndim == 4 else image
        points = torch.tensor(np.asarray(click), dtype=torch.float32).view(1, 1, 3), torch.ones(1, 1)
        before = torch.zeros(1, 1, *[SIZE // 4] * 3)
        sparse, dense = model.prompt_encoder(points=points, boxes=None, masks=before)
        coarse, _ = model.mask_decoder(
            image_embeddings=image,
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        fine = torch.nn.functional.interpolate(coarse, size=(SIZE,) * 3, mode="trilinear")
        return (fine[0, 0] > 0).numpy()
