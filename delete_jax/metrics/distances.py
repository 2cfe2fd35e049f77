"""Distances between the predictions of two networks. `p`, `q`: probabilities `[n, k]` on the same samples. All are symmetric."""

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
    """Fraction of samples for which both networks predict the same class; higher is nearer.

    Examples:
      >>> import numpy as np
      >>> from delete_jax import metrics
      >>> metrics.agreement(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[0.6, 0.4], [0.7, 0.3]]))
      0.5
    """
    return float(np.mean(p.argmax(-1) == q.argmax(-1)))


def agreement_by_class(
    labels: np.ndarray, predictions: np.ndarray, others: np.ndarray, num_classes: int
) -> list[float | None]:
    """Fraction of each class's samples for which two networks predict the same class; None where a class has no samples.

    Args:
      labels: true classes int `[n]`.
      predictions, others: the classes int `[n]` that the two networks predict.
      num_classes: the number `k` of classes, and so of the returned values.

    Examples:
      >>> import numpy as np
      >>> from delete_jax import metrics
      >>> labels, predictions, others = np.array([0, 0, 1]), np.array([0, 1, 1]), np.array([0, 0, 1])
      >>> metrics.agreement_by_class(labels, predictions, others, 3)
      [0.5, 1.0, None]
    """
    total = np.bincount(labels, minlength=num_classes)
    same = np.bincount(labels[predictions == others], minlength=num_classes)
    return [float(part / count) if count else None for part, count in zip(same, total, strict=True)]
