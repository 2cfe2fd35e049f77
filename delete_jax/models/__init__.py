"""Networks by name, and adapters for anybody else's."""

from __future__ import annotations

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from delete_jax.model import Model, Variables
from delete_jax.models.adapters import features, from_linen, from_nnx
from delete_jax.models.deeplab import ATROUS_RATES, Bottleneck, DeepLabV3Plus
from delete_jax.models.gradcam import grad_cam
from delete_jax.models.layers import BatchNorm
from delete_jax.models.resnet import Block, ResNet


def resnet_tiny(num_classes: int, dtype: jnp.dtype = jnp.float32) -> ResNet:
    """Three stages of one block, 16 to 64 channels: 78 k parameters; for images of 8 to 16 pixels, trains on a CPU."""
    return ResNet(num_classes, stages=(1, 1, 1), features=(16, 32, 64), dtype=dtype)


def resnet_small(num_classes: int, dtype: jnp.dtype = jnp.float32) -> ResNet:
    """The same with a stem of stride 2, for images of 28 to 64 pixels: a quarter of the operations."""
    return ResNet(num_classes, stages=(1, 1, 1), features=(16, 32, 64), stem_stride=2, dtype=dtype)


def resnet18(num_classes: int, dtype: jnp.dtype = jnp.float32) -> ResNet:
    """ResNet-18 with the CIFAR stem (3x3, stride 1, no pooling): 11 M parameters."""
    return ResNet(num_classes, stages=(2, 2, 2, 2), features=(64, 128, 256, 512), dtype=dtype)


def deeplab(num_classes: int, depth: int, output_stride: int, dtype: jnp.dtype = jnp.float32) -> DeepLabV3Plus:
    """DeepLabV3+ on a ResNet of 18, 50 or 101 layers, for photographs of 200 pixels and more."""
    stages = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth]
    return DeepLabV3Plus(
        num_classes,
        block=Block if depth == 18 else Bottleneck,
        stages=stages,
        features=(64, 128, 256, 512),
        output_stride=output_stride,
        atrous_rates=ATROUS_RATES[output_stride],
        dtype=dtype,
    )


def deeplab_small(num_classes: int, dtype: jnp.dtype = jnp.float32) -> DeepLabV3Plus:
    """The same design with three narrow stages, for images of 48 to 96 pixels: 0.1 M parameters; trains on a CPU."""
    return DeepLabV3Plus(
        num_classes,
        block=Block,
        stages=(1, 1, 1),
        features=(16, 32, 48),
        stem=(3, 2, False),
        output_stride=8,
        atrous_rates=(2, 4),
        pyramid_features=32,
        low_features=16,
        dtype=dtype,
    )


MODELS: dict[str, Callable[..., nn.Module]] = {
    "resnet_tiny": resnet_tiny,
    "resnet_small": resnet_small,
    "resnet18": resnet18,
    "deeplab_small": deeplab_small,
}
for _depth in (18, 50, 101):
    for _stride in (16, 8):
        _name = f"deeplab_resnet{_depth}" + ("_os8" if _stride == 8 else "")
        MODELS[_name] = functools.partial(deeplab, depth=_depth, output_stride=_stride)
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def create(name: str, num_classes: int, dtype: str = "float32") -> nn.Module:
    """The network of that name.

    Raises:
      ValueError: unknown name or dtype.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}: choose one of {', '.join(MODELS)}")
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}: choose one of {', '.join(DTYPES)}")
    return MODELS[name](num_classes, dtype=DTYPES[dtype])


def init(module: nn.Module, image_shape: tuple[int, int, int], seed: int) -> Variables:
    """Fresh variables for images `[h, w, c]`. It compiles by itself: inside `jax.jit` or `jax.eval_shape`, `module.init`."""
    x = jnp.zeros((1, *image_shape), jnp.float32)
    # It runs once: XLA on CPU would optimise it for seconds.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(lambda key: module.init(key, x, train=False), compiler_options=options)(jax.random.key(seed))


__all__ = [
    "DTYPES",
    "MODELS",
    "BatchNorm",
    "Block",
    "Bottleneck",
    "DeepLabV3Plus",
    "Model",
    "ResNet",
    "create",
    "features",
    "from_linen",
    "from_nnx",
    "grad_cam",
    "init",
]
