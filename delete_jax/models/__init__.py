"""Networks by name, and adapters for your own networks."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from delete_jax.compiling import quick
from delete_jax.given import choice
from delete_jax.given import dtype as as_dtype
from delete_jax.given import seed as as_seed
from delete_jax.model import Model, Variables
from delete_jax.models import all_cnn, deeplab, resnet, swin, vgg, vit
from delete_jax.models.adapters import from_linen, from_nnx
from delete_jax.models.all_cnn import AllCNN
from delete_jax.models.deeplab import DeepLabV3, DeepLabV3Plus
from delete_jax.models.exported import load_exported, save_exported
from delete_jax.models.inside import features, grad_cam, layer_output
from delete_jax.models.keras_models import from_keras
from delete_jax.models.layers import BatchNorm, Mark
from delete_jax.models.network import ANSWERS, Network, checked_shape, shapes, with_classifier
from delete_jax.models.pretrained import Pretrained, pretrained
from delete_jax.models.resnet import Block, Bottleneck, ResNet
from delete_jax.models.swin import Swin
from delete_jax.models.torch_modules import from_torch, to_state_dict
from delete_jax.models.vgg import VGG
from delete_jax.models.vit import ViT
from delete_jax.models.weights import TorchInfo, load_torch, save_torch
from delete_jax.models.without import without_classes
from delete_jax.nearest import nearest
from delete_jax.plugins import Table

NETWORKS: Table[Network] = Table(
    "networks",
    {
        **resnet.ROWS,
        **vgg.ROWS,
        **vit.ROWS,
        **swin.ROWS,
        **all_cnn.ROWS,
        **deeplab.ROWS,
    },
    lambda row: isinstance(row, Network),
)
"""All networks of the package, by name."""
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
"""The dtypes in which `create` can compute, by name."""


def create(name: str, num_classes: int, dtype: DTypeLike = "float32", remat: bool = False) -> nn.Module:
    """Creates a network by name.

    Args:
      name: a key of `NETWORKS`.
      num_classes: the number of classes, k.
      dtype: of the computation: "float32", "bfloat16", or the same as a dtype of NumPy or JAX, such as `jnp.bfloat16`.
      remat: recompute activations in the backward pass instead of storing them. This takes less memory and more time, with the
        same variables. The module must have an attribute `remat`.

    Raises:
      ValueError: the name or dtype is unknown, or the network has no `remat`.

    Examples:
      >>> from delete_jax import models
      >>> module = models.create("resnet_tiny", num_classes=10)
      >>> model = models.from_linen(module, classifier=models.NETWORKS["resnet_tiny"].classifier)
    """
    check_name(name)
    module = NETWORKS[name].factory(num_classes, dtype=DTYPES[choice("dtype", as_dtype("dtype", dtype).name, DTYPES)])
    if not remat:
        return module
    if not hasattr(module, "remat"):
        able = [known for known, row in NETWORKS.items() if hasattr(row.factory(num_classes), "remat")]
        raise ValueError(
            f"remat is for networks whose module has that attribute, and {name} has none: {', '.join(able)}"
        )
    return module.clone(remat=True)


def check_name(name: str) -> None:
    """Raises ValueError unless the table has a network of that name."""
    if name not in NETWORKS:
        raise ValueError(f"unknown model {name!r}{nearest(name, NETWORKS)}: choose one of {', '.join(NETWORKS)}")


def init(module: nn.Module, image_shape: Sequence[int], seed: int) -> Variables:
    """Initialises variables for images `[h, w, c]`. It compiles by itself; inside `jax.jit` or `jax.eval_shape`, use `module.init`.

    Raises:
      ValueError: the seed is no integer of 32 bits, or the shape has something else than positive integers.
    """
    x, key = jnp.zeros((1, *checked_shape(image_shape)), jnp.float32), jax.random.key(as_seed(seed))
    return jax.jit(lambda key: module.init(key, x, train=False), compiler_options=quick())(key)


__all__ = [
    "ANSWERS",
    "DTYPES",
    "NETWORKS",
    "VGG",
    "AllCNN",
    "BatchNorm",
    "Block",
    "Bottleneck",
    "DeepLabV3",
    "DeepLabV3Plus",
    "Mark",
    "Model",
    "Network",
    "Pretrained",
    "ResNet",
    "Swin",
    "TorchInfo",
    "ViT",
    "create",
    "features",
    "from_keras",
    "from_linen",
    "from_nnx",
    "from_torch",
    "grad_cam",
    "init",
    "layer_output",
    "load_exported",
    "load_torch",
    "pretrained",
    "save_exported",
    "save_torch",
    "shapes",
    "to_state_dict",
    "with_classifier",
    "without_classes",
]
