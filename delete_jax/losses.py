"""Losses on logits `[*b, k]` that return one value per position `[*b]`: no reduction, no state.

Notation: `p` the target distribution, `q = softmax(student)`, `U` the classes to erase at a position (the boolean mask
`erase`, `[*b, k]` or broadcastable to it), `R` the other classes. All logarithms are natural; `0 log 0 = 0`.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp


class Decomposition(NamedTuple):
    """The three parts of `KL(p || q)`, each `[*b]`, in nats; they add up to it.

    forgetting: `KL(b_p || b_q)`, `b` being the pair (mass on U, mass on R).
    within: `p_U * KL(p^U || q^U)`, the shape inside the erased classes; zero for DELETE, whose target has no mass there.
    retention: `p_R * KL(p^R || q^R)`, the shape of the answer among all the other classes.
    """

    forgetting: chex.Array
    within: chex.Array
    retention: chex.Array


def masked_log_softmax(logits: chex.Array, erase: chex.Array) -> chex.Array:
    """`log softmax` of the logits with the erased classes at -inf: DELETE's target (arXiv 2503.23751, the mask).

    Args:
      logits: `[*b, k]`, float.
      erase: bool, broadcastable to `[*b, k]`; at least one class per position must be kept, else the result is NaN.

    Returns:
      `[*b, k]`: -inf at erased classes, elsewhere the log of the renormalised probability.
    """
    # log_softmax subtracts the kept maximum first: with all kept logits at -1e4 a logsumexp would cost float32 four digits
    return jax.nn.log_softmax(jnp.where(erase, -jnp.inf, logits))


def one_hot_log(labels: chex.Array, num_classes: int, dtype: jnp.dtype = jnp.float32) -> chex.Array:
    """Log of a one-hot target: 0 at the label, -inf elsewhere. `labels` int `[*b]` -> `[*b, k]`."""
    hit = jax.nn.one_hot(labels, num_classes, dtype=bool)
    return jnp.where(hit, jnp.zeros((), dtype), -jnp.inf)


def kl_divergence(log_p: chex.Array, log_q: chex.Array) -> chex.Array:
    """`KL(p || q) = sum_i p_i (log p_i - log q_i)` over the last axis.

    Args:
      log_p: `[*b, k]`, log of the target; may be -inf.
      log_q: `[*b, k]`, log of the student's answer; finite (a `log_softmax`).

    Returns:
      `[*b]`. The gradient with respect to the student's logits is `q - p`.
    """
    return _expected_difference(log_p, log_p, log_q)


def decompose(log_p: chex.Array, log_q: chex.Array, erase: chex.Array) -> Decomposition:
    """Splits `KL(p || q)` into forgetting, within and retention terms (the paper's framework, for any target).

    For DELETE's target the forgetting term is `-log(1 - q_U)` and the retention term `KL(p^R || q^R)`.

    Args:
      log_p, log_q: `[*b, k]` as in `kl_divergence`.
      erase: bool, broadcastable to `[*b, k]`: the classes U.
    """
    erase = jnp.broadcast_to(erase, log_q.shape)
    p_erased, q_erased = _log_mass(log_p, erase), _log_mass(log_q, erase)
    p_kept, q_kept = _log_mass(log_p, ~erase), _log_mass(log_q, ~erase)
    # Inside a group the conditional's log is the difference to the group's log mass.
    p_group = jnp.where(erase, p_erased[..., None], p_kept[..., None])
    q_group = jnp.where(erase, q_erased[..., None], q_kept[..., None])
    pairs_p, pairs_q = jnp.stack([p_erased, p_kept], -1), jnp.stack([q_erased, q_kept], -1)
    return Decomposition(
        forgetting=_expected_difference(pairs_p, pairs_p, pairs_q),
        within=_expected_difference(log_p, log_p - p_group, log_q - q_group, where=erase),
        retention=_expected_difference(log_p, log_p - p_group, log_q - q_group, where=~erase),
    )


def _log_mass(log_p: chex.Array, where: chex.Array) -> chex.Array:
    """Log of the probability on the classes `where`; -inf for none."""
    return jax.nn.logsumexp(jnp.where(where, log_p, -jnp.inf), axis=-1)


def _expected_difference(
    log_p: chex.Array, a: chex.Array, b: chex.Array, where: chex.Array | bool = True
) -> chex.Array:
    """`sum_i p_i (a_i - b_i)` over the last axis, where `p_i = 0` counts as 0 whatever `a_i` and `b_i` are.

    The doubled `where` keeps infinities out of the unused branch, whose gradient would otherwise be NaN.
    """
    counts = where & (log_p > -jnp.inf)
    difference = jnp.where(counts, a, 0) - jnp.where(counts, b, 0)
    return jnp.sum(jnp.where(counts, jnp.exp(log_p), 0) * difference, axis=-1)
