"""What happens to a batch inside the compiled step: augmentation of the bytes, then normalisation."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from numpy.typing import ArrayLike

from delete_jax.given import array
from delete_jax.given import dtype as as_dtype


def normalize(
    mean: ArrayLike, std: ArrayLike, dtype: DTypeLike = jnp.float32, size: int | None = None
) -> Callable[[jax.Array], jax.Array]:
    """Returns the function that maps bytes to network inputs, `(x / 255 - mean) / std`.

    Args:
        mean: `[c]`, of pixels in [0, 1]; or one number for all channels.
        std: `[c]`, positive; as many as `mean`.
        dtype: of the result and of the arithmetic.
        size: in pixels, of the squares to which images are resized (bilinear), for a network that needs larger images than are
            stored. Only the batch ever has this size. If None, images keep their size.

    Returns:
        A function of images, uint8 `[b, h, w, c]`, that returns `dtype` `[b, h, w, c]` (or `[b, size, size, c]`). It raises ValueError for images of
        another dtype, which may be scaled already, or with other channels. Its attribute `between_bytes` is the same function
        for floats in [0, 255], which attacks on stored images produce.

    Raises:
        ValueError: `mean` and `std` differ in length, are not finite, or `std` is not positive in `dtype`.

    Examples:
        >>> import numpy as np
        >>> from delete_jax import data
        >>> preprocess = data.normalize(mean=[0.5], std=[0.25])
        >>> preprocess(np.full((1, 2, 2, 1), 255, np.uint8)).ravel().tolist()
        [2.0, 2.0, 2.0, 2.0]
    """
    dtype = as_dtype("dtype", dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"dtype={dtype}: give a float dtype, such as float32")
    # Four axes, so that it also works where implicit rank promotion is an error.
    mean, std = (
        array(value, name).astype(dtype).reshape(1, 1, 1, -1) for value, name in ((mean, "mean"), (std, "std"))
    )
    if mean.size != std.size:
        raise ValueError(f"mean has {mean.size} numbers and std {std.size}: give one of each per channel")
    for name, values, least in (("mean", mean, -np.inf), ("std", std, 0)):
        if not (np.isfinite(values) & (values > least)).all():
            raise ValueError(f"{name}={values.ravel()}: give finite numbers{', above 0' if name == 'std' else ''}")
    if mean.size and mean.max() > 1:
        raise ValueError(f"mean={mean.ravel()}: pixels are in [0, 1] here; divide mean and std by 255")
    if size is not None and (not isinstance(size, int | np.integer) or isinstance(size, bool) or size < 1):
        raise ValueError(f"size={size!r}: give the side of the network's images in pixels, at least 1, or None")

    def between_bytes(images: jax.Array) -> jax.Array:
        if mean.size not in (1, images.shape[-1]):
            raise ValueError(f"images have {images.shape[-1]} channels, and mean and std {mean.size} numbers")
        values = images.astype(dtype)
        if size is not None and images.shape[1:3] != (size, size):
            values = jax.image.resize(values, (len(images), size, size, images.shape[-1]), "bilinear")
        return (values / 255 - mean) / std

    def apply(images: jax.Array) -> jax.Array:
        if images.dtype != np.uint8:
            raise ValueError(
                f"images are {images.dtype}, and normalize is for bytes (uint8, 0 to 255): give these, or leave out the "
                "preprocessing where they are normalised already"
            )
        return between_bytes(images)

    apply.between_bytes = between_bytes  # type: ignore[attr-defined]
    return apply


def augmentation(names: Sequence[str], padding: int = 4) -> Callable[[jax.Array, jax.Array], jax.Array] | None:
    """Returns the function that augments a batch, or None if `names` is empty.

    Each sample has its own key, so the result does not depend on the rest of the batch or on how the batch is spread over
    devices.

    Args:
        names: the augmentations, in the order in which they are applied. "flip" mirrors left and right with probability 1/2.
            "crop" moves the image by up to `padding` pixels in each direction and fills with black.
        padding: in pixels, for "crop".

    Returns:
        A function of images `[b, h, w, c]`, bytes or floats, and typed PRNG keys `[b]` that returns images of the same shape
        and dtype. It can be jitted. Black is 0, which is the mean in normalised images.

    Raises:
        ValueError: an unknown or repeated name, or a negative padding.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from delete_jax import data
        >>> augment = data.augmentation(["flip", "crop"], padding=2)
        >>> augment(jnp.zeros((4, 8, 8, 1), jnp.uint8), jax.random.split(jax.random.key(0), 4)).shape
        (4, 8, 8, 1)
    """
    numbers = {"flip": 0, "crop": 1}
    if not _are_of(names, numbers):
        raise ValueError(
            f"augmentation {names!r}: give a list of 'flip' and 'crop', each at most once, or an empty one"
        )
    if not isinstance(padding, int | np.integer) or isinstance(padding, bool) or padding < 0:
        raise ValueError(f"padding={padding!r}: give a whole number of pixels, at least 0")
    if not names:
        return None

    def one(image: jax.Array, key: jax.Array) -> jax.Array:
        for name in names:
            # A fixed number per operation: adding a crop changes no flip.
            operation_key = jax.random.fold_in(key, numbers[name])
            image = _flip(image, operation_key) if name == "flip" else _crop(image, operation_key, padding)
        return image

    return jax.vmap(one)


def paired_augmentation(
    names: Sequence[str], low: float = 0.5, high: float = 2.0
) -> Callable[[jax.Array, jax.Array, tuple[jax.Array, ...]], tuple[jax.Array, tuple[jax.Array, ...]]] | None:
    """Returns the function that augments images together with their label maps, or None if `names` is empty.

    Args:
        names: some of "flip", "scale" and "crop". "flip" mirrors left and right with probability 1/2. "scale" resizes by a factor
            between `low` and `high`, uniform in its logarithm. "crop" draws the position of the window in the larger image, or
            of the smaller image in the window; without it, the centres coincide.
        low, high: the smallest and the largest factor of "scale".

    Returns:
        A function of images `[b, h, w, c]`, bytes or floats, typed PRNG keys `[b]` and maps `[b, h, w, ...]` that returns
        images and maps of the same shapes and dtypes. Images are interpolated bilinearly (integers are rounded), maps take the
        nearest pixel, and empty places become 0.

    Raises:
        ValueError: an unknown or repeated name, or factors that are not 0 < low <= high.
    """
    if not _are_of(names, ("flip", "scale", "crop")):
        raise ValueError(
            f"augmentation {names!r}: give a list of 'flip', 'scale' and 'crop', each at most once, or an empty one"
        )
    if not 0 < low <= high < math.inf:
        raise ValueError(f"scale factors {low} and {high}: give 0 < low <= high, finite")
    if not names:
        return None

    def one(image: jax.Array, key: jax.Array, maps: tuple[jax.Array, ...]):
        flip_key, scale_key, crop_key = jax.random.split(key, 3)
        size = jnp.array(image.shape[:2], jnp.float32)
        factor, place = jnp.float32(1), jnp.full(2, 0.5, jnp.float32)
        if "scale" in names:
            factor = jnp.exp(jax.random.uniform(scale_key, (), jnp.float32, math.log(low), math.log(high)))
        if "crop" in names:
            place = jax.random.uniform(crop_key, (2,), jnp.float32)
        offset = place * size * (factor - 1)  # of the window in the scaled image; negative: of the image in the window
        rows, columns = (
            ((jnp.arange(n, dtype=jnp.float32) + 0.5 + offset[axis]) / factor - 0.5)
            for axis, n in enumerate(image.shape[:2])
        )
        if "flip" in names:
            columns = jnp.where(jax.random.bernoulli(flip_key), size[1] - 1 - columns, columns)
        return _bilinear(image, rows, columns), tuple(_nearest(values, rows, columns) for values in maps)

    return jax.vmap(one)


def _are_of(names: Any, allowed: Collection[str]) -> bool:
    """Whether `names` is a list of names, each allowed, none twice."""
    if isinstance(names, str) or not isinstance(names, Collection):
        return False
    return all(isinstance(name, str) and name in allowed for name in names) and len(set(names)) == len(names)


def _bilinear(image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """An image `[h, w, c]` at the grid of fractional positions; 0 outside. Bytes are rounded, floats are not."""
    is_float = jnp.issubdtype(image.dtype, jnp.floating)
    values = image.astype(jnp.float64 if image.dtype == np.float64 else jnp.float32)  # half precision is widened
    for axis, places in enumerate((rows, columns)):
        n = values.shape[axis]
        places = jnp.where((places > -0.5) & (places < n - 0.5), jnp.clip(places, 0, n - 1), -2)  # the rim is the rim's
        floor = jnp.floor(places)
        before, part = floor.astype(jnp.int32), jnp.expand_dims(places - floor, [1 - axis, 2]).astype(values.dtype)
        near, far = (jnp.take(values, before + i, axis, mode="fill", fill_value=0) for i in (0, 1))
        inside = jnp.expand_dims(before >= 0, [1 - axis, 2])  # negative indices count from the end
        last = jnp.expand_dims(before + 1 >= n, [1 - axis, 2])
        values = jnp.where(inside, (1 - part) * near + part * jnp.where(last, near, far), 0)
    return (values if is_float else jnp.round(values)).astype(image.dtype)


def _nearest(values: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """A map `[h, w, ...]` at the nearest pixels; 0 outside."""
    for axis, places in enumerate((rows, columns)):
        inside = (places > -0.5) & (places < values.shape[axis] - 0.5)
        nearest = jnp.where(inside, jnp.round(places), values.shape[axis]).astype(jnp.int32)
        values = jnp.take(values, nearest, axis, mode="fill", fill_value=0)
    return values


def _flip(image: jax.Array, key: jax.Array) -> jax.Array:
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def _crop(image: jax.Array, key: jax.Array, padding: int) -> jax.Array:
    top, left = jax.random.randint(key, (2,), 0, 2 * padding + 1)
    padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    return jax.lax.dynamic_slice(padded, (top, left, jnp.zeros_like(top)), image.shape)
