"""Bad teacher: distil a network that knows nothing on the forget samples (Chundawat et al., AAAI 2023, arXiv 2205.08096)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from delete_jax.compiling import same_bits
from delete_jax.methods.attacks import answers
from delete_jax.methods.base import (
    FORGET,
    ORIGINAL,
    REMAIN,
    Context,
    Method,
    Output,
    Prepared,
    Setup,
    Term,
    distill,
    scaled,
)
from delete_jax.methods.hyperparameters import FLAG, factory
from delete_jax.model import Variables

if TYPE_CHECKING:
    import chex

IMAGES, LEAST, MOST = 16, 1e-3, 1e3
"""How many images a random network is tried on, and between which deviations its logits may lie."""
SCALES, SHIFTS = ("scale", "gamma", "var", "weight"), ("bias", "beta", "mean")
"""What vectors are called that begin at 1, and at 0."""


@factory(remain=FLAG)
def bad_teacher(remain: bool = False) -> Method:
    """KL to a randomly initialised network on forget samples and, with `remain`, to the original on remaining ones.

    Raises:
      ValueError: remain is not a bool.
    """

    def prepare(setup: Setup) -> Prepared:
        return Prepared(constants={"bad_teacher": bad_network(setup)})

    def loss(outputs: Mapping[str, Output], context: Context) -> dict[str, Term]:
        forget = outputs[FORGET]
        bad = context.run(context.constants["bad_teacher"], forget.batch["image"])
        terms = {FORGET: distill(jax.nn.log_softmax(bad), forget)}
        if not remain:
            return terms
        terms[REMAIN] = distill(jax.nn.log_softmax(outputs[REMAIN].teacher_logits), outputs[REMAIN])
        # The step adds up the means of the streams; this makes of them the mean over both together.
        whole = jnp.maximum(sum(context.weights[name] for name in terms), 1e-9)
        return {name: scaled(term, context.weights[name] / whole) for name, term in terms.items()}

    return Method(
        "bad_teacher",
        loss,
        (FORGET, REMAIN) if remain else (FORGET,),
        networks=(ORIGINAL,) if remain else (),
        prepare=prepare,
        paper="Chundawat et al., AAAI 2023, arXiv 2205.08096",
    )


def bad_network(setup: Setup) -> Variables:
    """Returns the network with random weights: one that knows nothing and still tells images apart.

    `reinitialised`, or, where that does not make sense for this network (it answers all images alike, or with numbers
    out of all proportion), the given weights with the entries of each array in random order.

    Raises:
      ValueError: neither does.
    """
    run = jax.jit(answers(setup.model, setup.preprocess), compiler_options=same_bits())
    images = jnp.asarray(setup.streams[FORGET]["image"][:IMAGES])
    original = _spread(run(setup.teacher, images))
    for draw in (reinitialised, shuffled):
        variables = draw(setup.teacher, setup.key)
        spread = _spread(run(variables, images))
        if min(LEAST, original / 10) <= spread <= max(MOST, 10 * original) and (spread > 0 or original == 0):
            return variables
    raise ValueError(
        "bad_teacher: with random weights this network answers all images alike, or without proportion: choose another method"
    )


def _spread(logits: chex.Array) -> float:
    """The standard deviation of the logits over images, what all classes have in common apart; 0 if they are not finite."""
    logits = logits.astype(jnp.float32)
    logits = logits - jnp.mean(logits, -1, keepdims=True)
    return float(jnp.nan_to_num(jnp.mean(jnp.std(logits, 0)), nan=0.0, posinf=0.0))


def reinitialised(variables: Variables, key: chex.PRNGKey) -> Variables:
    """Draws the network's weights again: kernels normal with variance 2 / fan-in, biases and means 0, scales and
    variances 1; single numbers, and what is no float, stay.

    A kernel's inputs are all its axes but the last, or all but the first where it is called `weight` (PyTorch,
    Equinox). A vector that is not called by any of these names is a scale if its mean is nearer to 1 than to 0.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(variables)

    def draw(i: int, path: tuple, leaf: chex.Array) -> chex.Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating) or leaf.ndim == 0:
            return leaf
        words = re.findall("[a-z]+", jax.tree_util.keystr(path).lower().removesuffix(".value"))
        last = words[-1] if words else ""
        if leaf.ndim == 2 or (leaf.ndim > 2 and max(leaf.shape) < leaf.size):  # [k, 1, 1] is a vector
            outputs = leaf.shape[0 if last == "weight" else -1]
            deviation = (2 * outputs / leaf.size) ** 0.5
            return deviation * jax.random.normal(jax.random.fold_in(key, i), leaf.shape, leaf.dtype)
        if any(word in last for word in SCALES):
            return jnp.ones_like(leaf)
        if any(word in last for word in SHIFTS):
            return jnp.zeros_like(leaf)
        return jnp.full_like(leaf, 1 if abs(float(jnp.mean(leaf)) - 1) < 0.5 else 0)

    return jax.tree.unflatten(tree, [draw(i, path, jnp.asarray(leaf)) for i, (path, leaf) in enumerate(leaves)])


def shuffled(variables: Variables, key: chex.PRNGKey) -> Variables:
    """Shuffles the entries of each array of a network's parameters; the other collections stay."""
    leaves, tree = jax.tree.flatten(variables["params"])
    keys = jax.random.split(key, max(len(leaves), 1))
    mixed = [jax.random.permutation(k, leaf.ravel()).reshape(leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    return {**variables, "params": jax.tree.unflatten(tree, mixed)}
