"""DELETE: masked distillation from the frozen original (Zhou et al., CVPR 2025, arXiv 2503.23751)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from delete_jax import losses
from delete_jax.methods.attacks import jitter
from delete_jax.methods.base import (
    ANCHOR,
    FORGET,
    MASKED,
    ORIGINAL,
    REMAIN,
    Context,
    Method,
    Output,
    Stream,
    Term,
    distill,
    scaled,
    towards_labels,
)
from delete_jax.methods.features import with_features
from delete_jax.methods.hyperparameters import NOT_NEGATIVE, POSITIVE, PROPER_SHARE, Allowed, factory

if TYPE_CHECKING:
    import chex

NEAR = 0.03
"""How far the neighbours' pixels move, as a fraction of their span."""
LABELS = "labels"
"""Of the argument `remain`: what remaining samples are trained towards, in place of the original's predictions."""


def _remain(value: Any) -> bool | str:
    if not isinstance(value, (bool, str)):
        raise TypeError
    if isinstance(value, str) and value != LABELS:
        raise ValueError
    return value


@factory(
    temperature=POSITIVE,
    remain=Allowed(f"False, True or {LABELS}", _remain),
    dispersion=NOT_NEGATIVE,
    neighbours=PROPER_SHARE,
)
def delete(
    temperature: float = 1.0, remain: bool | str = False, dispersion: float = 0.0, neighbours: float = 0.0
) -> Method:
    """Minimise `KL(softmax(teacher with erased classes at -inf) || softmax(student))` on the forget samples.

    With `dispersion` or `neighbours` this becomes Spotter's loss (Ha et al., ICML 2026, arXiv 2506.01318),
    `(1 - neighbours) L_u + neighbours L_o + dispersion L_sim`. L_u is DELETE's loss. L_o is the same loss on perturbed
    forget images: uniform noise of up to 0.03 of the pixels' span, drawn anew at every step. L_sim is the mean cosine over
    all pairs of forget features in a batch. Example: `dj.methods.delete(dispersion=0.1, neighbours=0.3)`.

    Args:
      temperature: softens both distributions; 1 in the paper.
      remain: True also distils the original's predictions on remaining data, with nothing masked. This is not in the paper. It is
        needed if the class must stay and only some samples should no longer lead to it. "labels" minimises the cross entropy to the
        label on remaining data instead: together with DELETE's loss on forget samples this is the core of MIST (MMSP 2026).
      dispersion: lambda_2, the weight of L_sim. With 0.1, a prototype attack finds about as much as in a retrained network; with
        the paper's 1, it finds less.
      neighbours: 1 - lambda_1, the share of L_o; 0.3 in the paper's code, which attacks the images instead.

    Raises:
      ValueError: temperature is not above 0, remain is none of these, dispersion is below 0, or neighbours is outside [0, 1).

    Examples:
      >>> import delete_jax as dj
      >>> dj.methods.delete().streams, dj.methods.delete(remain=True).streams
      (('forget',), ('forget', 'remain'))
    """

    def towards_masked(output: Output) -> Term:
        target = losses.masked_log_softmax(output.teacher_logits / temperature, output.batch["erase"])
        return distill(target, output, temperature)

    def loss(outputs: Mapping[str, Output], context: Context) -> dict[str, Term]:
        features = None
        if dispersion:
            k = outputs[FORGET].batch["erase"].shape[-1]
            features = outputs[FORGET].logits[..., k:]
            outputs = {
                name: output._replace(logits=output.logits[..., :k], teacher_logits=output.teacher_logits[..., :k])
                for name, output in outputs.items()
            }
        terms = {FORGET: towards_masked(outputs[FORGET])}
        if neighbours:
            terms[FORGET] = scaled(terms[FORGET], 1 - neighbours)
            terms[ANCHOR] = scaled(towards_masked(outputs[ANCHOR]), neighbours)
        if dispersion:
            similar = similarity(features, outputs[FORGET].batch, context)
            terms[FORGET] = Term(
                terms[FORGET].loss + dispersion * similar
            )  # no longer a distance to a target: no parts
        if remain:
            kept = outputs[REMAIN]
            terms[REMAIN] = (
                towards_labels(kept.batch["label"], kept)
                if remain == LABELS
                else distill(jax.nn.log_softmax(kept.teacher_logits / temperature), kept, temperature)
            )
        return terms

    return Method(
        "delete",
        loss,
        (FORGET, REMAIN) if remain else (FORGET,),
        networks=(ORIGINAL,),
        reorient=jitter(NEAR) if neighbours else None,
        wrap=with_features if dispersion else None,
        settings=MASKED,
        reaches_zero=not dispersion,  # a cosine may be negative
        paper="Zhou et al., CVPR 2025, arXiv 2503.23751",
    )


def similarity(features: chex.Array, batch: Stream, context: Context) -> chex.Array:
    """Computes `[*b]`, whose weighted mean over the batch is the mean cosine over all pairs of its features `[*b, d]`.

    The mean is `(|sum_i w_i u_i|^2 - sum_i w_i^2) / ((sum_i w_i)^2 - sum_i w_i^2)`, u the features scaled to length 1; sums
    are over all devices. In label maps only the pixels of a class to erase take part.
    """
    unit = features * jax.lax.rsqrt(jnp.sum(jnp.square(features), -1, keepdims=True) + 1e-24)
    weight = batch["weight"]
    if weight.ndim > 1:
        own = jax.nn.one_hot(batch["label"], batch["erase"].shape[-1], dtype=bool)
        weight = weight * jnp.any(own & batch["erase"], -1).astype(weight.dtype)
    summed = context.total(jnp.sum((weight[..., None] * unit).reshape(-1, unit.shape[-1]), 0))
    pairs = jnp.square(context.total(jnp.sum(weight))) - context.total(jnp.sum(jnp.square(weight)))
    with_others = unit @ summed - weight * jnp.sum(jnp.square(unit), -1)
    value = with_others * context.weights[FORGET] / jnp.where(pairs > 0, pairs, 1)  # a single sample has no pair
    return jnp.where(weight > 0, value, 0)
