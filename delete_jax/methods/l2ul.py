"""Learning to unlearn, with adversarial examples or weight importance as the brake (Cha et al., AAAI 2024, arXiv
2301.11578)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from delete_jax.compiling import in_one_program
from delete_jax.methods.attacks import targeted_l2_pgd
from delete_jax.methods.base import (
    FORGET,
    Context,
    Method,
    Output,
    Prepared,
    Setup,
    Stream,
    Term,
    towards_labels,
)
from delete_jax.methods.gradients import gradient_batches, mean_over_samples
from delete_jax.methods.hyperparameters import POSITIVE, factory

if TYPE_CHECKING:
    import chex

RADIUS, STEP, STEPS = 0.4, 0.1, 10
PAPER = "Cha et al., AAAI 2024, arXiv 2301.11578"


@factory(strength=POSITIVE)
def l2ul_adv(strength: float = 0.1) -> Method:
    """Ascent on the forget samples, and descent on adversarial examples of the original towards random labels.

    The examples are made once (targeted L2-PGD, 10 steps of 0.1 within 0.4). The student sees them in evaluation mode, with the
    running statistics that the step has just updated.

    Args:
      strength: lambda, the weight of the adversarial examples.

    Raises:
      ValueError: strength is not above 0.
    """
    loss = functools.partial(_loss, strength=strength, pull=0.0)
    return Method("l2ul_adv", loss, prepare=_adversarial, unbounded=True, paper=PAPER)


@factory(strength=POSITIVE, pull=POSITIVE)
def l2ul_imp(strength: float = 0.1, pull: float = 1.0) -> Method:
    """`l2ul_adv` with a penalty on moving the weights that matter little for the forget samples.

    The penalty is `pull/2 sum (1 - importance) (theta - theta_0)^2`, with theta_0 the original's weights.
    The importance of a weight is the mean absolute gradient of the logits' norm over the forget batches, scaled to
    [0, 1] within each tensor.

    Args:
      strength: lambda, the weight of the adversarial examples.
      pull: rho.

    Raises:
      ValueError: a value is not above 0.
    """

    def prepare(setup: Setup) -> Prepared:
        constants = {"importance": importance(setup), "original": setup.teacher["params"]}
        return _adversarial(setup)._replace(constants=constants)

    loss = functools.partial(_loss, strength=strength, pull=pull)
    return Method("l2ul_imp", loss, prepare=prepare, unbounded=True, paper=PAPER)


def _adversarial(setup: Setup) -> Prepared:
    stream = setup.streams[FORGET]
    label_key, attack_key = jax.random.split(setup.key)
    shape = stream["label"].shape
    # any class but the sample's own, all alike
    labels = (
        stream["label"] + jax.random.randint(label_key, shape, 1, setup.num_classes, stream["label"].dtype)
    ) % setup.num_classes
    images = targeted_l2_pgd(setup, stream["image"], labels, attack_key, radius=RADIUS, step=STEP, steps=STEPS)
    return Prepared({FORGET: {"adversarial": images, "adversarial_label": labels}})


def _loss(outputs: Mapping[str, Output], context: Context, *, strength: float, pull: float) -> dict[str, Term]:
    forget = outputs[FORGET]
    answers = context.run(context.student, forget.batch["adversarial"])
    towards = towards_labels(forget.batch["adversarial_label"], forget._replace(logits=answers)).loss
    value = strength * towards - towards_labels(forget.batch["label"], forget).loss
    if pull:  # the same at each position: the step's mean leaves it as it is
        value += pull / 2 * _distance(context.student["params"], context.constants)
    return {FORGET: Term(value)}


def _distance(params, constants) -> chex.Array:
    squares = jax.tree.map(
        lambda weight, original, importance: jnp.sum((1 - importance) * jnp.square(weight - original)),
        params, constants["original"], constants["importance"],
    )  # fmt: skip
    return sum(jax.tree.leaves(squares))


def importance(setup: Setup) -> chex.ArrayTree:
    """Computes the mean over forget batches of the absolute gradient of the mean norm of the logits, each tensor scaled to [0, 1]."""
    gradients = gradient_batches(setup, FORGET, value=_norm)
    return _scaled(mean_over_samples(gradients, _size))


def _size(leaf: chex.Array, samples: chex.Array) -> chex.Array:
    return jnp.abs(leaf)


@in_one_program()
def _scaled(tree: chex.ArrayTree) -> chex.ArrayTree:
    """Each tensor of a tree scaled to [0, 1]."""

    def scale(leaf: chex.Array) -> chex.Array:
        low, high = jnp.min(leaf), jnp.max(leaf)
        return jnp.where(high > low, (leaf - low) / jnp.where(high > low, high - low, 1), 0)

    return jax.tree.map(scale, tree)


def _norm(logits: chex.Array, _: Stream) -> chex.Array:
    return jnp.sqrt(jnp.sum(jnp.square(logits), -1) + 1e-24)
