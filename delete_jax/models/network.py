"""What the command must know of a network beside its factory: one row of the table of networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from delete_jax.given import integer, shown
from delete_jax.model import Variables, first_line

ANSWERS = ("image", "pixel")
"""What a network predicts a class for: `Network.answers`."""


class Network(NamedTuple):
    """A row of `delete_jax.models.NETWORKS`. A config file adds one for a network of your own:

        NETWORKS["mine"] = Network(Mine, classifier="head", layers=("encoder/block3",))

    Attributes:
      factory: `(num_classes, dtype=...) -> a Linen module` whose `__call__(x, train)` returns logits.
      classifier: the path of the submodule that computes the logits from features; its kernel is `[..., d, k]`. "/" separates names.
      answers: "image" if logits are `[b, k]`, or "pixel" if they are `[b, h, w, k]`.
      layers: submodules whose outputs the report shows, from first to last. Grad-CAM uses the last.
    """

    factory: Callable[..., nn.Module]
    classifier: str
    answers: str = "image"
    layers: tuple[str, ...] = ()

    @property
    def path(self) -> tuple[str, ...]:
        """The keys that lead to the classifier in `params`."""
        return tuple(self.classifier.split("/"))


def with_classifier(variables: Variables, other: Variables, path: tuple[str, ...]) -> Variables:
    """Replaces a network's classifier, at `path` in `params`, with that of another network, for other classes.

    Raises:
      ValueError: one of the networks has no layer at `path`.
    """

    def put(tree: Any, source: Any, keys: tuple[str, ...]) -> Any:
        if not keys:
            return source
        if not all(isinstance(part, dict) and keys[0] in part for part in (tree, source)):
            raise ValueError(
                f"the network has no classifier {'/'.join(path)!r}: its row of the table names another layer"
            )
        return {**tree, keys[0]: put(tree[keys[0]], source[keys[0]], keys[1:])}

    return {**variables, "params": put(variables["params"], other["params"], path)}


def checked_shape(image_shape: Any) -> tuple[int, ...]:
    """The shape of one image, as Python's integers; ValueError for anything else."""
    try:
        if shape := tuple(integer("a side", side, 1) for side in image_shape):
            return shape
    except (TypeError, ValueError):
        pass
    raise ValueError(f"image_shape={shown(image_shape)}: give positive integers, such as (32, 32, 3)")


def shapes(module: nn.Module, image_shape: Sequence[int]) -> Variables:
    """Returns the shapes and dtypes of a network's variables for images `[h, w, c]`, without computing the variables.

    Raises:
      ValueError: the shape is none, or the network cannot take images of this shape.
    """
    shape = checked_shape(image_shape)
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    try:
        return jax.eval_shape(lambda key, x: module.init(key, x, train=False), jax.random.key(0), x)
    except Exception as error:  # flax and jax raise their own kinds
        raise ValueError(f"the network cannot take images of shape {shape}: {first_line(error)}") from error
