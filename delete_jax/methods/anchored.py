"""Anchors: hold the other classes in place by forget images that no longer look like their class. A step of this
project beyond DELETE's paper; `anchored` names the related methods."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from delete_jax.methods.attacks import answers, towards
from delete_jax.methods.base import (
    ANCHOR,
    CLASSES,
    FORGET,
    MASKED,
    REMAIN,
    Context,
    Method,
    Output,
    Prepared,
    ReorientFn,
    Setup,
    Term,
    in_batches,
    scaled,
)
from delete_jax.methods.delete import delete
from delete_jax.methods.hyperparameters import POSITIVE, Kind, factory, one_of, some_of

if TYPE_CHECKING:
    import chex

TRANSFORMATIONS = ("turn", "flip", "shift")
RADIUS, STEPS = 0.05, 50
"""Of the attack: how far a pixel may move, as a fraction of the pixels' span, in how many steps."""


def _base(value: Any) -> Method:
    method = delete() if value is None else value
    if not isinstance(method, Method):
        raise TypeError
    if method.edit or REMAIN in method.streams or method.reorient or method.wrap:
        raise ValueError
    return method


BASE = Kind("a trained method that reads forget data alone, or None", _base)


@factory(
    method=BASE,
    transformations=some_of(*TRANSFORMATIONS),
    weight=POSITIVE,
    anchors=one_of("reoriented", "adversarial"),
)
def anchored(
    method: Method | None = None,
    transformations: tuple[str, ...] = TRANSFORMATIONS,
    weight: float = 1.0,
    anchors: str = "reoriented",
) -> Method:
    """DELETE, or another method, joined by anchors: reoriented forget images that hold the other classes in place.

    Each forget batch is joined by an equal batch of the same images, reoriented at random: turned, mirrored, shifted, they
    no longer look like their class, the original answers with many others, and DELETE's loss towards those answers
    (erased classes masked as well) holds these classes where no remaining sample is at hand.

    Other methods also make a stand-in for the remaining data: ARU and Structguard (arXiv 2603.12915) attack the forget
    images, and so does L2UL (`l2ul_adv`); Spotter's L_o (`delete(neighbours=…)`, arXiv 2506.01318) perturbs them slightly;
    RUAGO trains a generator. What is specific to this project is the combination: plain geometric reorientation, no attack,
    no generator, DELETE's loss, and nothing to tune.

    The anchors hold all classes but the erased ones. So it is for erasing whole classes: where single samples are to be
    forgotten, their own class would not be held.

    Args:
      method: of `delete_jax.methods`; trained, and without remaining data. DELETE when None.
      transformations: some of "turn" (by a random number of quarters; half turns where images are not square), "flip"
        (mirrors left and right, or not) and "shift" (cyclic, by up to a quarter of each side).
      weight: of the anchors' loss.
      anchors: "adversarial", for comparison, replaces the reoriented images by forget images that are attacked towards the
        original's most probable remaining class, as the related methods do: 50 signed gradient steps that move no pixel by
        more than 0.05 of the pixels' span. They are made once, without augmentation, and `transformations` has no effect.

    Raises:
      ValueError: an unsuitable method, an unknown transformation or kind of anchors, or a weight that is not above 0.

    Examples:
      >>> import delete_jax as dj
      >>> dj.methods.anchored(transformations=("turn", "flip")).streams
      ('forget',)
    """
    base, hold = method or delete(), delete()  # BASE puts DELETE in the place of None; this is for type checkers

    def loss(outputs: Mapping[str, Output], context: Context) -> dict[str, Term]:
        held: Term = hold.loss({FORGET: outputs[ANCHOR]}, context)[FORGET]
        return base.loss(outputs, context) | {ANCHOR: scaled(held, weight)}

    def prepare(setup: Setup) -> Prepared:
        prepared = base.prepare(setup)
        own = prepared.columns.get(FORGET, {})
        return prepared._replace(columns={**prepared.columns, FORGET: {**own, "anchor": adversarial(setup)}})

    attacked = anchors == "adversarial"
    return base._replace(
        name="anchored",
        loss=loss,
        uses_teacher=True,
        prepare=prepare if attacked else base.prepare,
        reorient=_as_they_are if attacked else reorientation(transformations),
        needs=(*base.needs, CLASSES),
        settings=MASKED,
        paper="this project",
    )


@functools.cache
def reorientation(transformations: tuple[str, ...]) -> ReorientFn:
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


def adversarial(setup: Setup) -> chex.Array:
    """The forget images `[n, h, w, c]`, each attacked towards its most probable remaining class, in their own dtype."""
    stream = setup.streams[FORGET]
    logits = in_batches(answers(setup.model, setup.preprocess), setup.teacher, stream["image"])
    best = jnp.argmax(jnp.where(stream["erase"], -jnp.inf, logits), -1).astype(jnp.int32)
    return towards(setup, stream["image"], best, radius=RADIUS, steps=STEPS, step=2.5 * RADIUS / STEPS)


def _as_they_are(images: chex.Array, keys: chex.PRNGKey) -> chex.Array:
    return images
