"""Convolution, bias, ReLU and residual as single calls of oneDNN.

These are private operators of torch (its compiler uses them). They may be missing or change their arguments,
so nothing here is used before `build` has compared the result with the plain network's.
All volumes are (1, C, D, H, W) in channels_last_3d memory.
"""

from __future__ import annotations

import torch

CHANNELS_LAST = torch.channels_last_3d


def voxels_of(features: torch.Tensor) -> torch.Tensor:
    """(1, C, D, H, W) channels-last -> (D * H * W, C), the same memory.

    Raises:
        RuntimeError: the memory is not dense, so a copy would be needed.
    """
    return features.permute(0, 2, 3, 4, 1).view(-1, features.shape[1])


def folded(block, output_axis: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of a convolution that does what a ConvBlock or UpBlock does before its ReLU, if its
    BatchNorm evaluates; with gradients to the parameters of both.

    Args:
        block: convolution, BatchNorm3d, ReLU.
        output_axis: axis of the weight that counts output channels.
        dtype: of the arithmetic and the result.
    """
    convolution, norm = block[0], block[1]
    scale = norm.weight.to(dtype) / torch.sqrt(norm.running_var.to(dtype) + norm.eps)
    bias = norm.bias.to(dtype) - norm.running_mean.to(dtype) * scale
    if convolution.bias is not None:
        bias = bias + convolution.bias.to(dtype) * scale
    shape = [1] * convolution.weight.dim()
    shape[output_axis] = -1
    return convolution.weight.to(dtype) * scale.view(shape), bias


@torch.no_grad()
def folded_block(block, output_axis: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """`folded` for inference: computed in double precision, float32, without gradients."""
    weight, bias = folded(block, output_axis, torch.float64)
    return weight.float(), bias.float()


def _packed(reorder, weight: torch.Tensor, *layout) -> torch.Tensor:
    # Older torch packs only some kinds of weights; unpacked ones are reordered at every call instead.
    try:
        return reorder(weight, *layout)
    except (RuntimeError, TypeError):
        return weight


class Convolution:
    """3x3x3 (or, over stacked slices, 3x3) convolution with bias, then ReLU if `relu`.

    Args:
        weight: (O, I, 3, 3, 3) or (O, I, 3, 3) float32.
        bias: (O,) float32 or None.
        dtype: of the computation.
        input_shape: a typical input; the weights are stored as oneDNN likes them for it.
    """

    def __init__(self, weight, bias, dtype, input_shape, relu: bool = True) -> None:
        dimensions = weight.dim() - 2
        self.out_channels = weight.shape[0]
        self.ones = [1] * dimensions
        self.unary = ("relu" if relu else "none", [], "")
        self.bias = None if bias is None else bias.to(dtype)
        memory = CHANNELS_LAST if dimensions == 3 else torch.channels_last
        weight = weight.to(dtype).contiguous(memory_format=memory)
        reorder = torch.ops.mkldnn._reorder_convolution_weight
        self.weight = _packed(reorder, weight, self.ones, self.ones, self.ones, 1, list(input_shape))

    def __call__(self, x: torch.Tensor, padding=None) -> torch.Tensor:
        """(1, I, D, H, W) -> (1, O, D', H', W'); `padding` per axis, 1 everywhere by default."""
        return torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, self.bias, padding or self.ones, self.ones, self.ones, 1, *self.unary
        )

    def plus(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """relu(convolution(x) + other); `other` has the output's shape."""
        return torch.ops.mkldnn._convolution_pointwise.binary(
            x, other, self.weight, self.bias, self.ones, self.ones, self.ones, 1, "add", 1.0, "relu", [], ""
        )

    def into(self, out: torch.Tensor, x: torch.Tensor, padding) -> None:
        """relu(convolution(x)) written to `out`, memory that is already there.

        A fresh tensor of this size costs page faults, which cost more than filling it with zeros: the
        operator adds to what it finds.
        """
        out.zero_()
        torch.ops.mkldnn._convolution_pointwise_.binary(
            out, x, self.weight, self.bias, padding, self.ones, self.ones, 1, "add", 1.0, "relu", [], ""
        )


class UpConvolution:
    """Transposed 2x2x2 convolution of stride 2 with bias and ReLU.

    Args:
        weight: (I, O, 2, 2, 2) float32.
        bias: (O,) float32.
    """

    def __init__(self, weight, bias, dtype, input_shape) -> None:
        self.bias = bias.to(dtype)
        self.layout = ([0, 0, 0], [0, 0, 0], [2, 2, 2], [1, 1, 1], 1)
        weight = weight.to(dtype).contiguous(memory_format=CHANNELS_LAST)
        reorder = torch.ops.mkldnn._reorder_convolution_transpose_weight
        self.weight = _packed(reorder, weight, *self.layout, list(input_shape))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(1, I, D, H, W) -> (1, O, 2D, 2H, 2W)."""
        return torch.ops.mkldnn._convolution_transpose_pointwise(
            x, self.weight, self.bias, *self.layout, "relu", [], ""
        )


def max_pool(features: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """2x2x2 max-pooling of (1, C, D, H, W); several times as fast as torch's on channels-last memory."""
    x = features.permute(0, 2, 3, 4, 1)
    x = torch.maximum(x[:, 0::2], x[:, 1::2])
    x = torch.maximum(x[:, :, 0::2], x[:, :, 1::2])
    target = None if out is None else out.permute(0, 2, 3, 4, 1)
    return torch.maximum(x[:, :, :, 0::2], x[:, :, :, 1::2], out=target).permute(0, 4, 1, 2, 3)
