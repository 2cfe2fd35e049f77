"""Bad teacher: distil a network that knows nothing on the forget samples (Chundawat et al., AAAI 2023, arXiv 2205.08096)."""

from __future__ import annotations

from collections.abc import Mapping

import chex
import jax
import jax.numpy as jnp

from delete_jax.methods.base import FORGET, REMAIN, Context, Method, Output, Prepared, Setup, Term, distill
from delete_jax.methods.hyperparameters import FLAG, factory
from delete_jax.model import Variables


@factory(remain=FLAG)
def bad_teacher(remain: bool = False) -> Method:
    """KL to a randomly initialised network on forget samples and, with `remain`, to the original on remaining ones.

    Raises:
      ValueError: remain is not a bool.
    """

    def prepare(setup: Setup) -> Prepared:
        return Prepared(constants={"bad_teacher": reinitialised(setup.teacher, setup.key)})

    def loss(outputs: Mapping[str, Output], context: Context) -> dict[str, Term]:
        forget = outputs[FORGET]
        bad = context.run(context.constants["bad_teacher"], forget.batch["image"])
        terms = {FORGET: distill(jax.nn.log_softmax(bad), forget)}
        if remain:
            terms[REMAIN] = distill(jax.nn.log_softmax(outputs[REMAIN].teacher_logits), outputs[REMAIN])
        return terms

    return Method(
        "bad_teacher",
        loss,
        (FORGET, REMAIN) if remain else (FORGET,),
        uses_teacher=remain,
        prepare=prepare,
        paper="Chundawat et al., AAAI 2023, arXiv 2205.08096",
    )


def reinitialised(variables: Variables, key: chex.PRNGKey) -> Variables:
    """The same network with random weights: kernels normal with variance 2 / fan-in, biases and means 0, scales and
    variances 1."""
    leaves, tree = jax.tree_util.tree_flatten_with_path(variables)

    def draw(i: int, path, leaf: chex.Array) -> chex.Array:
        if leaf.ndim >= 2:
            deviation = (2 * leaf.shape[-1] / leaf.size) ** 0.5
            return deviation * jax.random.normal(jax.random.fold_in(key, i), leaf.shape, leaf.dtype)
        name = jax.tree_util.keystr(path)
        return jnp.ones_like(leaf) if "scale" in name or "var" in name else jnp.zeros_like(leaf)

    return jax.tree.unflatten(tree, [draw(i, path, jnp.asarray(leaf)) for i, (path, leaf) in enumerate(leaves)])
