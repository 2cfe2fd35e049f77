"""A network as one file that runs without this package: weights, preprocessing and computation, by `jax.export`."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import export

from delete_jax.model import Model, Variables, first_line
from delete_jax.writing import writing

if TYPE_CHECKING:
    import chex

SUFFIX = ".jax"
PLATFORMS = ("cpu", "cuda", "tpu")


def save_exported(
    model: Model,
    variables: Variables,
    path: str | os.PathLike,
    image_shape: Sequence[int],
    preprocess: Callable[[chex.Array], chex.Array] | None = None,
    replace: bool = True,
) -> None:
    """Writes a network in evaluation mode to a file, as a StableHLO function of images for CPU, CUDA and TPU.

    Using the file requires only JAX. It computes what the network computes under `jax.jit` on the same platform:

        exported = jax.export.deserialize(bytearray(open("network.jax", "rb").read()))
        logits = exported.call(images)

    Args:
      model, variables: the network.
      path: of the file, ending in ".jax".
      image_shape: `(h, w, c)` of the images.
      preprocess: maps stored images to the network's input, such as `data.normalize(mean, std)`. It becomes part of the function.
      replace: an existing file is replaced; otherwise it is kept.

    The function takes any number of images `[b, h, w, c]`: uint8 if there is a `preprocess`, otherwise float32 and ready for the
    network. It returns logits, `[b, k]` or `[b, h, w, k]`.

    Raises:
      ValueError: the path has another suffix, the image shape is invalid, or the network cannot be traced for a variable batch size.
      FileExistsError: there is a file, and `replace` is False.
      OSError: the file cannot be written.
    """
    path = pathlib.Path(path)
    if path.suffix != SUFFIX:
        raise ValueError(f"{path}: a function that was exported by JAX is written as {SUFFIX}")
    shape = tuple(image_shape)
    if len(shape) != 3 or not all(isinstance(side, int) and side > 0 for side in shape):
        raise ValueError(f"image_shape={image_shape!r}: give (height, width, channels) of the images")

    def network(images: chex.Array) -> chex.Array:
        # XLA would compute with constants while it compiles, and round otherwise than when it runs.
        own = jax.lax.optimization_barrier(jax.tree.map(jnp.asarray, variables))
        return model.apply(own, images if preprocess is None else preprocess(images))

    (batch,) = export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, *shape), jnp.float32 if preprocess is None else jnp.uint8)
    try:
        exported = export.export(jax.jit(network), platforms=PLATFORMS)(images)
    except Exception as error:  # whatever the network's framework raises
        raise ValueError(
            f"the network cannot be exported for any number of images {list(shape)}: {first_line(error)}"
        ) from error
    with writing(path, replace) as file:
        file.write(exported.serialize())
