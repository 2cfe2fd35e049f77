"""Small trained networks that come with the package, and those that were trained without a class."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn

from delete_jax import given
from delete_jax.model import Model, Variables
from delete_jax.models.adapters import from_linen
from delete_jax.models.torch_info import TorchInfo
from delete_jax.models.weights import load_torch
from delete_jax.nearest import nearest

if TYPE_CHECKING:
    import chex

SHIPPED = Path(__file__).parent / "shipped"


class Pretrained(NamedTuple):
    """A trained network of the package, with what `delete_jax.unlearn` needs to use it.

    Attributes:
      model, variables: as `delete_jax.unlearn` takes them.
      preprocess: stored images, uint8 `[b, h, w, c]`, -> the network's input; `normalize` with the mean and standard deviation of
        the training pixels.
      info: what the file says beside the weights: `class_names`, `mean`, `std`, `image_size`, and more.
      module: the same network as a Flax module, which `save_torch` takes.
      name: the dataset and the network, such as "digits/resnet_tiny".
      without: the class that it never saw; None for the original.
      test_accuracy: on the dataset's test images of all classes that it was trained on, in [0, 1].
      digest: SHA-256 (hex) of the variables, as reports have it (`identity.digest`).
    """

    model: Model
    variables: Variables
    preprocess: Callable[[chex.Array], chex.Array]
    info: TorchInfo
    module: nn.Module
    name: str
    without: int | None
    test_accuracy: float
    digest: str


def pretrained(name: str, without: int | None = None) -> Pretrained:
    """Loads a small trained network that comes with the package. Nothing is downloaded.

    Args:
      name: "digits/resnet_tiny" or "fashion_mnist/resnet_small": the name of a dataset, which `data.load` takes, and of a network.
      without: a class; the network that was trained from scratch without its samples is loaded in place of the original. The page
        "Networks to start from" of the documentation lists the classes.

    Returns:
      a `Pretrained`: `model`, `variables`, `preprocess` and `info`, with where they come from.

    Raises:
      ValueError: there is no such network, or none that was trained without that class.

    Examples:
      >>> from delete_jax import models
      >>> network = models.pretrained("digits/resnet_tiny")
      >>> network.info.class_names[:3], network.variables["params"]["fc"]["kernel"].shape
      (('0', '1', '2'), (64, 10))
      >>> models.pretrained("digits/resnet_tiny", without=3).without
      3
    """
    from delete_jax.data import normalize  # few need it
    from delete_jax.models import NETWORKS, create  # which imports this file

    table: list[dict[str, Any]] = json.loads((SHIPPED / "table.json").read_text())
    names = list(dict.fromkeys(row["name"] for row in table))
    if name not in names:
        hint = nearest(name, names) if isinstance(name, str) else ""
        raise ValueError(f"unknown pretrained network {given.shown(name)}{hint}: choose {' or '.join(names)}")
    without = None if without is None else given.integer("without", without, 0)
    rows = {row["without"]: row for row in table if row["name"] == name}
    if without not in rows:
        known = ", ".join(str(class_) for class_ in sorted(rows.keys() - {None}))
        raise ValueError(
            f"without={without}: {name} comes without one of the classes {known}; None is the original. Train others by the command"
        )
    row, network = rows[without], name.split("/")[1]
    variables, info = load_torch(network, SHIPPED / row["file"])
    assert info.mean is not None  # benchmarks/studies/pretrained.py writes both
    assert info.std is not None
    module = create(network, info.num_classes)
    return Pretrained(
        model=from_linen(module, NETWORKS[network].classifier),
        variables=variables,
        preprocess=normalize(info.mean, info.std),
        info=info,
        module=module,
        name=name,
        without=without,
        test_accuracy=row["test_accuracy"],
        digest=row["digest"],
    )
