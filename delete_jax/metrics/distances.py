"""How far two networks' answers are apart. `p`, `q`: probabilities `[n, k]` on the same samples; symmetric in both."""

from __future__ import annotations

import numpy as np
from scipy.special import rel_entr


def total_variation(p: np.ndarray, q: np.ndarray) -> float:
    """Mean over samples of `½ Σ |p - q|`, in [0, 1]; lower is nearer."""
    return float(np.mean(np.abs(p - q).sum(-1)) / 2)


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> float:
    """Mean over samples of the Jensen-Shannon divergence in nats, in [0, ln 2]; lower is nearer."""
    p, q = p.astype(np.float64), q.astype(np.float64)
    middle = (p + q) / 2
    return float(np.mean((rel_entr(p, middle) + rel_entr(q, middle)).sum(-1)) / 2)


def agreement(p: np.ndarray, q: np.ndarray) -> float:
    """Fraction of samples with the same most probable class; higher is nearer."""
    return float(np.mean(p.argmax(-1) == q.argmax(-1)))
