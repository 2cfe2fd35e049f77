"""Anchors: hold the other classes in place by forget images that no longer look like their class. A step of this
project beyond the paper."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import chex
import jax
import jax.numpy as jnp

from delete_jax.methods.base import ANCHOR, FORGET, REMAIN, Context, Method, Output, Term, check_positive, scaled
from delete_jax.methods.delete import delete

TRANSFORMATIONS = ("turn", "flip", "shift")


@functools.cache
def anchored(
    method: Method | None = None, transformations: tuple[str, ...] = TRANSFORMATIONS, weight: float = 1.0
) -> Method:
    """A method that reads forget data alone, joined by anchors; DELETE when None.

    Each forget batch is joined by an equal batch of the same images, reoriented at random: turned, mirrored, shifted, they
    no longer look like their class, the original answers with many others, and DELETE's loss towards those answers
    (erased classes masked as well) holds these classes where no remaining sample is at hand.

    Args:
      method: of `delete_jax.methods`; without remaining data and trained.
      transformations: some of "turn" (by a random number of quarters; half turns where images are not square), "flip"
        (mirrors left and right, or not) and "shift" (cyclic, by up to a quarter of each side).
      weight: of the anchors' loss.

    Raises:
      ValueError: an unsuitable method, an unknown transformation, or a weight that is not above 0.
    """
    base = method or delete()
    if not isinstance(base, Method) or base.edit or REMAIN in base.streams or base.reorient or base.wrap:
        raise ValueError(f"anchored: method must be a trained one that reads forget data alone, got {base!r:.60}")
    unknown = set(transformations) - set(TRANSFORMATIONS)
    if isinstance(transformations, str) or unknown or not transformations:
        raise ValueError(f"anchored: transformations are {', '.join(TRANSFORMATIONS)}, got {transformations!r}")
    check_positive("anchored", weight=weight)
    hold = delete()

    def loss(outputs: Mapping[str, Output], context: Context) -> dict[str, Term]:
        held: Term = hold.loss({FORGET: outputs[ANCHOR]}, context)[FORGET]
        return base.loss(outputs, context) | {ANCHOR: scaled(held, weight)}

    return base._replace(name="anchored", loss=loss, uses_teacher=True, reorient=reorientation(tuple(transformations)))


@functools.cache
def reorientation(transformations: Sequence[str]) -> Callable[[chex.Array, chex.PRNGKey], chex.Array]:
    """The function of images `[b, h, w, c]` and keys `[b]` that reorients each image by its own key."""

    def one(image: chex.Array, key: chex.PRNGKey) -> chex.Array:
        turn_key, flip_key, shift_key = jax.random.split(key, 3)
        height, width, _ = image.shape
        if "turn" in transformations:
            square = height == width
            turns = [functools.partial(jnp.rot90, k=k) for k in (range(4) if square else (0, 2))]
            image = jax.lax.switch(jax.random.randint(turn_key, (), 0, len(turns)), turns, image)
        if "flip" in transformations:
            image = jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image)
        if "shift" in transformations:
            most = jnp.array([height // 4, width // 4])
            shift = jax.random.randint(shift_key, (2,), -most, most + 1)
            image = jnp.roll(image, shift, axis=(0, 1))
        return image

    return jax.vmap(one)
