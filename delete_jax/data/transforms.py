"""What happens to a batch inside the compiled step: augmentation of the bytes, then normalisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike


def normalize(mean: np.ndarray, std: np.ndarray, dtype: DTypeLike = jnp.float32) -> Callable[[jax.Array], jax.Array]:
    """Returns the function from bytes to network inputs, `(x / 255 - mean) / std`.

    Args:
        mean: `[c]`, of pixels in [0, 1].
        std: `[c]`, positive.
        dtype: of the result and of the arithmetic.

    Returns:
        A function of images, uint8 `[b, h, w, c]`, that returns `dtype` `[b, h, w, c]`.
    """
    # Four axes, so that it also works where implicit rank promotion is an error.
    mean = np.asarray(mean, dtype).reshape(1, 1, 1, -1)
    std = np.asarray(std, dtype).reshape(1, 1, 1, -1)

    def apply(images: jax.Array) -> jax.Array:
        return (images.astype(dtype) / 255 - mean) / std

    return apply


def augmentation(names: Sequence[str], padding: int = 4) -> Callable[[jax.Array, jax.Array], jax.Array] | None:
    """Returns the function that augments a batch, or None when `names` is empty.

    Every sample has its own key: what becomes of it depends on nothing else in the batch, nor on how the batch is
    spread over devices.

    Args:
        names: in the order in which they are applied; "flip" mirrors left and right with probability 1/2, "crop" moves
            the image by up to `padding` pixels in each direction and fills with black.
        padding: in pixels, for "crop".

    Returns:
        A function of images, uint8 `[b, h, w, c]`, and typed PRNG keys `[b]` that returns uint8 `[b, h, w, c]`;
        it can be jitted.

    Raises:
        ValueError: an unknown or repeated name, or a negative padding.
    """
    numbers = {"flip": 0, "crop": 1}
    if isinstance(names, str) or len(set(names)) != len(names) or not numbers.keys() >= set(names):
        raise ValueError(
            f"augmentation {names!r}: give a list of 'flip' and 'crop', each at most once, or an empty one"
        )
    if padding < 0:
        raise ValueError(f"padding={padding}: give a number of pixels, at least 0")
    if not names:
        return None

    def one(image: jax.Array, key: jax.Array) -> jax.Array:
        for name in names:
            # A fixed number per operation: adding a crop changes no flip.
            operation_key = jax.random.fold_in(key, numbers[name])
            image = _flip(image, operation_key) if name == "flip" else _crop(image, operation_key, padding)
        return image

    return jax.vmap(one)


def _flip(image: jax.Array, key: jax.Array) -> jax.Array:
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def _crop(image: jax.Array, key: jax.Array, padding: int) -> jax.Array:
    top, left = jax.random.randint(key, (2,), 0, 2 * padding + 1)
    padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    return jax.lax.dynamic_slice(padded, (top, left, jnp.zeros_like(top)), image.shape)
