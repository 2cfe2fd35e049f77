"""How far two networks' answers are apart. `p`, `q`: probabilities `[n, k]` on the same samples; symmetric in both."""

from __future__ import annotations

import numpy as np


def total_variation(p: np.ndarray, q: np.ndarray) -> float:
    """Mean over samples of `½ Σ |p - q|`, in [0, 1]; lower is nearer."""
    return float(np.mean(np.abs(p - q).sum(-1)) / 2)


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> float:
    """Mean over samples of the Jensen-Shannon divergence in nats, in [0, ln 2]; lower is nearer."""
    p, q = p.astype(np.float64), q.astype(np.float64)
    middle = (p + q) / 2
    return float(np.mean(_kl(p, middle) + _kl(q, middle)) / 2)


def agreement(p: np.ndarray, q: np.ndarray) -> float:
    """Fraction of samples with the same most probable class; higher is nearer."""
    return float(np.mean(p.argmax(-1) == q.argmax(-1)))


def _kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """`KL(p || q)` per sample, with `0 log 0 = 0`; wherever p is above 0, q (a mean with it) is too."""
    ratio = np.divide(p, q, out=np.ones_like(p), where=p > 0)
    return np.sum(p * np.log(ratio), axis=-1)
