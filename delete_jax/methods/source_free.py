"""Source-free: random features, labelled by the classifier itself, stand in for all data (TMLR 2026)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.compiling import same_bits
from delete_jax.methods.base import CLASSES, FORGET, REMAIN, Context, Method, Output, Setup
from delete_jax.methods.classifier import find_bias, replace_leaf
from delete_jax.methods.delete import delete
from delete_jax.methods.features import Head, find_head, unseen
from delete_jax.methods.hyperparameters import factory
from delete_jax.model import Variables

if TYPE_CHECKING:
    import chex

POOL = 2**14
"""How many features are drawn."""


@factory()
def source_free() -> Method:
    """Trains the classifier alone, on random features that it labels itself: no sample is read.

    Features are drawn once, `h ~ N(0, I)`. Those that the original's classifier assigns to an erased class serve as forget samples, and
    the rest as remaining samples. The kernel and the bias descend the loss of `delete(remain=True)` on a batch of each.

    The values of the forget samples are never read, only their shape and their number, which gives the number of steps together with
    the epochs and the batch size. The layers before the classifier do not change, so only the predictions forget.
    Example: `dj.unlearn(…, forget=[3], method=dj.methods.source_free(), lr=1e-1)`.
    """
    return Method(
        "source_free",
        edit=_edit,
        needs=(CLASSES,),
        settings=("epochs", "lr", "batch_size", "seed"),
        paper="A Universal Source-Free Class Unlearning Framework via Synthetic Embeddings, TMLR 2026",
    )


def _edit(setup: Setup) -> Variables:
    setup = unseen(setup)
    head = find_head(setup)
    params = setup.teacher["params"]
    place = find_bias(setup, head.classifier)
    kernel, shift = train(setup, head, has_bias=place is not None)
    params = head.classifier.with_rows(params, kernel)
    if place is not None:
        params = replace_leaf(params, place, lambda leaf: leaf + shift.reshape(leaf.shape).astype(leaf.dtype))
    return {**setup.teacher, "params": params}


def train(setup: Setup, head: Head, has_bias: bool) -> tuple[chex.Array, chex.Array]:
    """Trains the kernel `[d, k]` by `setup.num_steps` steps of gradient descent; returns it and what is to be added to the bias `[k]`.

    Raises:
      ValueError: the classifier assigns no random feature, or each of them, to an erased class.
    """
    dtype = head.classifier.rows(setup.teacher["params"]).dtype
    rows, bias = jnp.asarray(head.rows, dtype), jnp.asarray(head.bias, dtype)
    rate, rule = jnp.asarray(setup.strength, dtype), delete(remain=True)
    erase = np.isin(np.arange(setup.num_classes), setup.gone)
    pool_key, batch_key = jax.random.split(setup.key)
    pool = jax.random.normal(pool_key, (POOL, len(rows)), dtype)
    is_forgotten = np.asarray(erase[jnp.argmax(pool @ rows + bias[None], -1)])
    kinds = {FORGET: pool[is_forgotten], REMAIN: pool[~is_forgotten]}
    if not all(len(features) for features in kinds.values()):
        raise ValueError(
            f"source_free: the classifier assigns {is_forgotten.sum()} of {POOL} random features to the classes to erase, and it "
            "takes some of both kinds: choose another method, such as bias_shift"
        )

    def loss(trained: tuple[chex.Array, chex.Array], features: dict[str, chex.Array]) -> chex.Array:
        kernel, shift = trained
        outputs = {
            name: Output({"erase": erase[None]}, h @ kernel + (bias + shift)[None], h @ rows + bias[None])
            for name, h in features.items()
        }
        return sum(jnp.mean(term.loss) for term in rule.loss(outputs, Context()).values())

    @functools.partial(jax.jit, compiler_options=same_bits())
    def run(kinds: dict[str, chex.Array]) -> tuple[chex.Array, chex.Array]:
        def step(i: chex.Array, trained: tuple[chex.Array, chex.Array]) -> tuple[chex.Array, chex.Array]:
            keys = jax.random.split(jax.random.fold_in(batch_key, i))
            batch = {
                name: features[jax.random.randint(key, (setup.batch_size,), 0, len(features))]
                for key, (name, features) in zip(keys, kinds.items(), strict=True)
            }
            kernel, shift = jax.grad(loss)(trained, batch)
            return trained[0] - rate * kernel, trained[1] - rate * shift if has_bias else trained[1]

        return jax.lax.fori_loop(0, setup.num_steps, step, (rows, jnp.zeros_like(bias)))

    return run(kinds)
