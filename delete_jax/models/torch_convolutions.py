"""PyTorch's depthwise convolution on a CPU, for a module that torchax runs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    import chex


def depthwise(x: chex.Array, kernel: chex.Array, stride: Sequence[int], dilation: Sequence[int]) -> chex.Array:
    """Computes a depthwise convolution without padding, as a sum of shifted products.

    On a CPU, XLA's own convolution with one group per channel is several times slower, and so are its gradients.

    Args:
      x: `[b, c, h, w]`.
      kernel: `[c, 1, i, j]`.
      stride, dilation: of both sides.

    Returns:
      `[b, c, h', w']`.
    """
    spans = [step * (size - 1) for size, step in zip(kernel.shape[2:], dilation, strict=True)]  # last tap minus first
    ends = [side - span for side, span in zip(x.shape[2:], spans, strict=True)]
    total = jnp.zeros((), x.dtype)
    for i, j in itertools.product(*map(range, kernel.shape[2:])):
        top, left = i * dilation[0], j * dilation[1]
        seen = x[:, :, top : top + ends[0] : stride[0], left : left + ends[1] : stride[1]]
        total = total + seen * kernel[:, 0, i, j][:, None, None]
    return total


def overrides() -> dict[Any, Any]:
    """Maps what PyTorch calls to what runs in its place. Other convolutions, and all on a GPU or TPU, stay torchax's."""
    import torch
    from torchax.ops import jaten

    def convolution(input, weight, bias, stride, padding, dilation, transposed, output_padding, groups):
        settings = stride, padding, dilation, transposed, output_padding, groups
        by_channel = groups > 1 and weight.ndim == 4 and input.ndim == 4 and groups == input.shape[1] == weight.shape[0]

        def compute(x: chex.Array, kernel: chex.Array, *bias: chex.Array) -> chex.Array:
            if transposed or not by_channel or jax.default_backend() != "cpu":
                return jaten._aten_convolution(x, kernel, *(bias or (None,)), *settings)
            padded = jnp.pad(x, ((0, 0), (0, 0), *((side, side) for side in padding)))
            result = depthwise(padded, kernel, stride, dilation)
            return result + bias[0][:, None, None] if bias else result

        return input.apply_jax(compute, weight.jax(), *([] if bias is None else [bias.jax()]))

    return {torch.ops.aten.convolution: convolution}
