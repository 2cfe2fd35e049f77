"""MU-Mis: make the class's logit as insensitive to the image as another's (Cheng et al., arXiv 2402.15109)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from delete_jax.methods.base import FORGET, TRAINED, Context, Method, Output, Prepared, Setup, Term
from delete_jax.methods.hyperparameters import POSITIVE, factory
from delete_jax.model import Model

if TYPE_CHECKING:
    import chex


@factory(weight=POSITIVE)
def mu_mis(weight: float = 1.0) -> Method:
    """Makes the logit of a sample's class less sensitive to the image, and that of another class more sensitive.

    The loss is `|grad_x z_y(x)|^2 - weight |grad_x z_c(x)|^2`, with y the sample's class, c another class drawn once per sample, and
    x the network's input. The network runs in evaluation mode, because with batch statistics the gradient of one image would
    depend on the others. If labels are maps, z is the mean over the positions of the image that count.

    The loss has no lower bound, and the paper stops as soon as no forget sample is recognised. Choose the rate and the number of
    epochs with that in mind. A step needs the gradient of a gradient, so it costs several times an ordinary one.

    It reads forget samples. Example: `dj.unlearn(…, forget=[3], method=dj.methods.mu_mis(), lr=1e-4)`.

    Args:
      weight: lambda, the weight of the other class's sensitivity.

    Raises:
      ValueError: weight is not above 0.
    """

    def prepare(setup: Setup) -> Prepared:
        label, k = setup.streams[FORGET]["label"], setup.num_classes
        # a shift by 1 … k-1 reaches each other class with the same probability
        return Prepared({FORGET: {"shift": jax.random.randint(setup.key, (len(label),), 1, k, label.dtype)}})

    def loss(outputs: Mapping[str, Output], context: Context) -> dict[str, Term]:
        batch = outputs[FORGET].batch
        label, k = batch["label"], outputs[FORGET].logits.shape[-1]
        per_image = (-1, *[1] * (label.ndim - 1))
        other = (label + batch["shift"].reshape(per_image)) % k
        value = _sensitivity(context, batch, label) - weight * _sensitivity(context, batch, other)
        return {FORGET: Term(jnp.broadcast_to(value.reshape(per_image), label.shape))}

    return Method(
        "mu_mis",
        loss,
        prepare=prepare,
        wrap=lambda setup: (_evaluated(setup.model), setup.teacher),
        settings=tuple(name for name in TRAINED if name != "batch_norm"),
        unbounded=True,
        paper="Cheng et al., arXiv 2402.15109",
    )


@functools.lru_cache(maxsize=16)
def _evaluated(model: Model) -> Model:
    """The network whose training mode is its evaluation mode."""
    return model._replace(apply_train=lambda variables, x, key: (model.apply(variables, x), variables))


def _sensitivity(context: Context, batch: Mapping[str, chex.Array], labels: chex.Array) -> chex.Array:
    """`[b]`: the squared norm of the gradient of a class's logit with respect to the image."""
    positions = tuple(range(1, labels.ndim))

    def score(x: chex.Array) -> chex.Array:
        logits = context.model.apply(context.student, x)
        chosen = jnp.take_along_axis(logits, jnp.clip(labels, 0, logits.shape[-1] - 1)[..., None], -1)[..., 0]
        counts = (batch["weight"] > 0).astype(chosen.dtype) if positions else jnp.ones_like(chosen)
        means = jnp.sum(counts * chosen, positions) / jnp.maximum(jnp.sum(counts, positions), 1)
        return jnp.sum(means)  # each image's gradient is its own

    gradient = jax.grad(score)(context.preprocess(batch["image"]))
    wide = gradient.astype(batch["weight"].dtype)
    return jnp.sum(jnp.square(wide), tuple(range(1, wide.ndim)))
