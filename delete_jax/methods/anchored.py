"""Anchors: hold the other classes in place by forget images that no longer look like their class. A step of this
project beyond DELETE's paper; `anchored` names the related methods."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.compiling import in_one_program, quick
from delete_jax.methods.attacks import answers, towards
from delete_jax.methods.base import (
    ANCHOR,
    CLASSES,
    EXPERIMENT,
    FORGET,
    MASKED,
    ORIGINAL,
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
from delete_jax.methods.hyperparameters import POSITIVE, Allowed, factory, one_of, some_of

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


BASE = Allowed("a trained method that reads forget samples alone, or None", _base)


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
    """DELETE, or another method, with anchors: reoriented forget images that hold the remaining classes in place.

    Each forget batch is joined by an equal batch of the same images, reoriented at random: turned, mirrored, shifted. These no
    longer look like their class, and the original predicts many other classes for them. DELETE's loss towards these predictions,
    with the erased classes masked too, holds the remaining classes in place without remaining samples.

    Other methods also use a stand-in for the remaining data. ARU and Structguard (arXiv 2603.12915) attack the forget images, and
    so does L2UL (`l2ul_adv`). Spotter's L_o (`delete(neighbours=…)`, arXiv 2506.01318) perturbs them slightly. RUAGO trains a
    generator. New in this project is the combination: plain geometric reorientation and DELETE's loss, with no attack, no generator
    and nothing to tune.

    Anchors hold all classes but the erased ones, so the method is for erasing whole classes. With single samples to forget, it
    would not hold their own class.

    Args:
      method: from `delete_jax.methods`; it must be trained and must not read remaining data. DELETE if None.
      transformations: some of "turn" (by a random number of quarters; half turns if images are not square), "flip" (mirrors left
        and right, or not) and "shift" (cyclic, by up to a quarter of each side).
      weight: of the anchors' loss.
      anchors: "adversarial", for comparison, replaces the reoriented images with forget images attacked towards the original's most
        probable remaining class, as in the related methods: 50 signed gradient steps that move no pixel by more than 0.05 of the
        pixels' span. They are made once, without augmentation, and `transformations` has no effect.

    Raises:
      ValueError: the method is unsuitable, a transformation or the kind of anchors is unknown, or the weight is not above 0.

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
        networks=(ORIGINAL,),
        prepare=prepare if attacked else base.prepare,
        reorient=_as_they_are if attacked else reorientation(transformations),
        needs=(*base.needs, CLASSES),
        settings=MASKED,
        paper=EXPERIMENT,
    )


@functools.cache
def reorientation(transformations: tuple[str, ...]) -> ReorientFn:
    """Returns the function of images `[b, h, w, c]` and keys `[b]` that reorients each image by its own key."""

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


@in_one_program(quick)
def reorient(images: chex.Array, keys: chex.PRNGKey) -> chex.Array:
    """`reorientation` by all transformations, compiled: for images that are made a few times, not in each step."""
    return reorientation(TRANSFORMATIONS)(images, keys)


def adversarial(setup: Setup) -> chex.Array:
    """Attacks each of the forget images `[n, h, w, c]` towards its most probable remaining class; keeps their dtype."""
    stream = setup.streams[FORGET]
    logits = in_batches(answers(setup.model, setup.preprocess), setup.teacher, stream["image"])
    best = jnp.argmax(jnp.where(np.asarray(stream["erase"]), -jnp.inf, logits), -1).astype(jnp.int32)
    return towards(setup, stream["image"], best, radius=RADIUS, steps=STEPS, step=2.5 * RADIUS / STEPS)


def _as_they_are(images: chex.Array, keys: chex.PRNGKey) -> chex.Array:
    return images
