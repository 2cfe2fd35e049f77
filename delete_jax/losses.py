"""Losses on logits `[*b, k]` that return one value per position `[*b]`: no reduction, no state.

Notation: `p` the target distribution, `q = softmax(student)`, `U` the classes to erase at a position (the boolean mask
`erase`, `[*b, k]` or broadcastable to it), `R` the other classes. All logarithms are natural; `0 log 0 = 0`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    import chex


class Decomposition(NamedTuple):
    """The three parts of `KL(p || q)`, each `[*b]`, in nats; they add up to it.

    Attributes:
      forgetting: `KL(b_p || b_q)`, where `b` is the pair (probability on U, probability on R).
      within: `p_U * KL(p^U || q^U)`, the distribution among the erased classes; zero for DELETE, whose target gives them no probability.
      retention: `p_R * KL(p^R || q^R)`, the distribution among the remaining classes.
    """

    forgetting: chex.Array
    within: chex.Array
    retention: chex.Array


def masked_log_softmax(logits: chex.Array, erase: chex.Array) -> chex.Array:
    """Computes DELETE's target: `log softmax` of the logits with the erased classes at -inf (arXiv 2503.23751).

    Args:
      logits: `[*b, k]`, float.
      erase: bool, broadcastable to `[*b, k]`; at least one class per position must remain, or the result is NaN.

    Returns:
      `[*b, k]`: -inf at the erased classes, and the log of the renormalised probability elsewhere.

    Examples:
      >>> import jax.numpy as jnp
      >>> from delete_jax import losses
      >>> logits, erase = jnp.array([2.0, 1.0, 0.0]), jnp.array([True, False, False])
      >>> [f"{p:.3f}" for p in jnp.exp(losses.masked_log_softmax(logits, erase))]
      ['0.000', '0.731', '0.269']
    """
    # log_softmax subtracts the kept maximum first: with all kept logits at -1e4 a logsumexp would cost float32 four digits
    return jax.nn.log_softmax(jnp.where(erase, -jnp.inf, logits))


def one_hot_log(labels: chex.Array, num_classes: int, dtype: jnp.dtype = jnp.float32) -> chex.Array:
    """Computes the log of a one-hot target: 0 at the label, -inf elsewhere. `labels` int `[*b]` -> `[*b, k]`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from delete_jax import losses
      >>> losses.one_hot_log(jnp.array([1]), 3).tolist()
      [[-inf, 0.0, -inf]]
    """
    hit = jax.nn.one_hot(labels, num_classes, dtype=bool)
    return jnp.where(hit, jnp.zeros((), dtype), -jnp.inf)


def kl_divergence(log_p: chex.Array, log_q: chex.Array) -> chex.Array:
    """Computes `KL(p || q) = sum_i p_i (log p_i - log q_i)` over the last axis.

    Args:
      log_p: `[*b, k]`, log of the target; entries may be -inf.
      log_q: `[*b, k]`, log of the student's prediction; finite (a `log_softmax`).

    Returns:
      `[*b]`. The gradient with respect to the student's logits is `q - p`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from delete_jax import losses
      >>> p, q = jnp.array([0.5, 0.5]), jnp.array([0.25, 0.75])
      >>> f"{losses.kl_divergence(jnp.log(p), jnp.log(q)):.3f} nats"
      '0.144 nats'
    """
    return _expected_difference(log_p, log_p, log_q)


def decompose(log_p: chex.Array, log_q: chex.Array, erase: chex.Array) -> Decomposition:
    """Splits `KL(p || q)` into forgetting, within and retention terms, as in the DELETE paper, for any target.

    For DELETE's target the forgetting term is `-log(1 - q_U)` and the retention term `KL(p^R || q^R)`.

    Args:
      log_p, log_q: `[*b, k]` as in `kl_divergence`.
      erase: bool, broadcastable to `[*b, k]`: the classes U.

    Examples:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from delete_jax import losses
      >>> original, student = jnp.array([2.0, 1.0, 0.0]), jnp.array([0.0, 1.0, 1.0])
      >>> erase = jnp.array([True, False, False])
      >>> target = losses.masked_log_softmax(original, erase)
      >>> parts = losses.decompose(target, jax.nn.log_softmax(student), erase)
      >>> {name: f"{value:.3f}" for name, value in parts._asdict().items()}
      {'forgetting': '0.169', 'within': '0.000', 'retention': '0.111'}
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


__all__ = ["Decomposition", "decompose", "kl_divergence", "masked_log_softmax", "one_hot_log"]
