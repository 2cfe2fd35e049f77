"""Transfer images: many different ones, made of the forget images alone, for a network that is taught by another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from delete_jax.compiling import in_one_program, quick
from delete_jax.methods.anchored import TRANSFORMATIONS, reorientation
from delete_jax.methods.attacks import span

if TYPE_CHECKING:
    import chex

KINDS = (
    "same", "turned", "enlarged", "shrunk", "pieces", "patched", "blended", "covered", "inverted", "noise",
)  # fmt: skip
CHUNK = 256


def transfer_images(images: chex.Array, key: chex.PRNGKey, count: int, kinds: tuple[str, ...] = KINDS) -> chex.Array:
    """Draws transfer images, each of one forget image or two and of a kind, all with equal probability.

    Kinds: "same", as it is; "turned": by quarters, mirrored, shifted; "enlarged": a random part, scaled up; "shrunk":
    height and width scaled down apart, on black; "pieces": the brighter of two shrunk ones at each pixel; "patched": a
    turned one with a rectangle of another (CutMix); "blended": two turned ones mixed; "covered": turned, a rectangle black;
    "inverted": turned, bright for dark; "noise": random blocks.

    Args:
      images: stored images `[n, h, w, c]`, uint8 or float.
      key: decides everything.
      count: how many are drawn.
      kinds: which ones.

    Returns:
      `[count, h, w, c]` in the images' dtype.
    """
    low, high = span(images)
    padded = -(-count // CHUNK) * CHUNK
    keys = jax.random.split(key, padded).reshape(-1, CHUNK)
    numbers = jnp.resize(jnp.array([KINDS.index(kind) for kind in kinds]), (len(KINDS),))
    parts = [_draw(images, part, jnp.float32(low), jnp.float32(high), numbers, len(kinds)) for part in keys]
    return jnp.concatenate(parts)[:count]


@in_one_program(quick)
def _draw(
    images: chex.Array, keys: chex.Array, low: chex.Array, high: chex.Array, numbers: chex.Array, num_kinds: int
) -> chex.Array:
    """A transfer image for each key, of the first `num_kinds` of the kinds `numbers`."""

    def one(key: chex.PRNGKey) -> chex.Array:
        kind_key, *keys = jax.random.split(key, 9)
        first, second = (images[jax.random.randint(k, (), 0, len(images))].astype(jnp.float32) for k in keys[:2])
        turn = reorientation(TRANSFORMATIONS)

        def turned(image: chex.Array, key: chex.PRNGKey) -> chex.Array:
            return turn(image[None], key[None])[0]

        def shrunk(image: chex.Array, key: chex.PRNGKey) -> chex.Array:
            return _scaled(image - low, key, 0.35, 0.9, alike=False) + low

        box = _rectangle(images.shape[1:3], keys[2])
        makers = {
            "same": lambda: first,
            "turned": lambda: turned(first, keys[3]),
            "enlarged": lambda: _scaled(first, keys[3], 1.2, 2.2, alike=True),
            "shrunk": lambda: shrunk(first, keys[3]),
            "pieces": lambda: jnp.maximum(shrunk(first, keys[3]), shrunk(second, keys[4])),
            "patched": lambda: jnp.where(box, turned(second, keys[4]), turned(first, keys[3])),
            "blended": lambda: _blend(turned(first, keys[3]), turned(second, keys[4]), keys[5]),
            "covered": lambda: jnp.where(box, low, turned(first, keys[3])),
            "inverted": lambda: low + high - turned(first, keys[3]),
            "noise": lambda: low + (high - low) * _blocks(first.shape, keys[6]),
        }
        number = numbers[jax.random.randint(kind_key, (), 0, num_kinds)]
        made = jax.lax.switch(number, [makers[kind] for kind in KINDS])
        made = jnp.clip(made, low, high)
        return (jnp.round(made) if images.dtype == jnp.uint8 else made).astype(images.dtype)

    return jax.vmap(one)(keys)


def _scaled(image: chex.Array, key: chex.PRNGKey, least: float, most: float, alike: bool) -> chex.Array:
    """The image scaled by a random factor, at a random place; height and width by the same one, or each by its own."""
    scale_key, place_key = jax.random.split(key)
    scale = jnp.broadcast_to(_uniform(scale_key, (1 if alike else 2,), least, most), (2,))
    size = jnp.array(image.shape[:2], jnp.float32)
    shift = _uniform(place_key, (2,)) * (1 - scale) * size
    return jax.image.scale_and_translate(image, image.shape, (0, 1), scale, shift, "linear", antialias=False)


def _rectangle(size: tuple[int, ...], key: chex.PRNGKey) -> chex.Array:
    """bool `[h, w, 1]`: a rectangle whose sides are 0.3 to 0.7 of the image's."""
    side_key, place_key = jax.random.split(key)
    whole = jnp.array(size, jnp.float32)
    sides = _uniform(side_key, (2,), 0.3, 0.7) * whole
    begin = _uniform(place_key, (2,)) * (whole - sides)
    rows, columns = (jnp.arange(n, dtype=jnp.float32) for n in size)
    inside = [(place >= begin[i]) & (place < begin[i] + sides[i]) for i, place in enumerate((rows, columns))]
    return (inside[0][:, None] & inside[1][None])[..., None]


def _blend(first: chex.Array, second: chex.Array, key: chex.PRNGKey) -> chex.Array:
    share = _uniform(key, (), 0.3, 0.7)
    return share * first + (1 - share) * second


def _blocks(shape: tuple[int, ...], key: chex.PRNGKey) -> chex.Array:
    """Numbers in [0, 1) that are the same over a quarter of each side."""
    height, width, channels = shape
    return jax.image.resize(_uniform(key, (4, 4, channels)), (height, width, channels), "nearest")


def _uniform(key: chex.PRNGKey, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> chex.Array:
    return jax.random.uniform(key, shape, jnp.float32, low, high)
