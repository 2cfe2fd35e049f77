"""How far two networks' answers are apart. `p`, `q`: probabilities `[n, k]` on the same samples; symmetric in both."""

from __future__ import annotations

import numpy as np


def total_variation(p: np.ndarray, q: np.ndarray) -> float:
    """Mean over samples of `½ Σ |p - q|`, in [0, 1]; lower is nearer.

    Examples:
      >>> import numpy as np
      >>> from delete_jax import metrics
      >>> metrics.total_variation(np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]]))
      0.5
    """
    return float(np.mean(np.abs(p - q).sum(-1)) / 2)


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> float:
    """Mean over samples of the Jensen-Shannon divergence in nats, in [0, ln 2]; lower is nearer."""
    from scipy.special import rel_entr

    p, q = p.astype(np.float64), q.astype(np.float64)
    middle = (p + q) / 2
    return float(np.mean((rel_entr(p, middle) + rel_entr(q, middle)).sum(-1)) / 2)


def agreement(p: np.ndarray, q: np.ndarray) -> float:
    """Fraction of samples with the same most probable class; higher is nearer.

    Examples:
      >>> import numpy as np
      >>> from delete_jax import metrics
      >>> metrics.agreement(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[0.6, 0.4], [0.7, 0.3]]))
      0.5
    """
    return float(np.mean(p.argmax(-1) == q.argmax(-1)))
