"""Where PyTorch takes no gradient, for a module that torchax runs: JAX differentiates all that it sees.

It imports torch: only for those who have a PyTorch network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import torch
import torchax.tensor
from torch.overrides import TorchFunctionMode


class Gradients(TorchFunctionMode):
    """While it is entered, what is computed under `torch.no_grad()` has no gradient in JAX either.

    Raises:
      ValueError: gradients are switched off in another way: by `inference_mode`, or by a `torch.autograd.Function`, whose
        `backward` JAX would not call.
    """

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True  # in the module's own code

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.is_grad_enabled() != self.enabled:
            raise ValueError(
                "the network's code has a torch.autograd.Function (activation checkpoints are one), or inference_mode, which "
                "JAX cannot differentiate: switch checkpoints off, use plain operations, or torch.no_grad()"
            )
        if func is torch._C._set_grad_enabled:
            self.enabled = args[0]
            return func(*args)
        if self.enabled:
            return func(*args, **kwargs)
        before = {id(part): part.jax() for part in _tensors((args, kwargs))}
        result = func(*args, **kwargs)
        for part in _tensors(result):
            # One that was handed through, by contiguous() say, keeps its gradient, as in PyTorch.
            if before.get(id(part)) is not part.jax():
                part.apply_jax_(jax.lax.stop_gradient)
        return result


def _tensors(tree: Any) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, torchax.tensor.Tensor)]
