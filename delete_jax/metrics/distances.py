"""Distances between the predictions of two networks on the same samples. All are symmetric."""

from __future__ import annotations

import numpy as np

from delete_jax.given import array, integer
from delete_jax.metrics import arguments


def total_variation(p: np.ndarray, q: np.ndarray) -> float:
    """Computes the mean over samples of `½ Σ |p - q|`, in [0, 1]; lower is nearer. NaN without samples.

    Args:
      p, q: the two networks' probabilities `[n, k]`.

    Raises:
      ValueError: other shapes, or rows that are no probabilities, such as logits.

    Examples:
      >>> import numpy as np
      >>> from delete_jax import metrics
      >>> metrics.total_variation(np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]]))
      0.5
    """
    p, q = _pair(p, q)
    return arguments.mean(np.abs(p - q).sum(-1)) / 2


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> float:
    """Computes the mean over samples of the Jensen-Shannon divergence in nats, in [0, ln 2]; lower is nearer. NaN without samples.

    Args:
      p, q: the two networks' probabilities `[n, k]`.

    Raises:
      ValueError: other shapes, or rows that are no probabilities, such as logits.
    """
    from scipy.special import rel_entr

    p, q = (part.astype(np.float64) for part in _pair(p, q))
    middle = (p + q) / 2
    return arguments.mean((rel_entr(p, middle) + rel_entr(q, middle)).sum(-1)) / 2


def _pair(p: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p, q = arguments.probabilities(p, "p"), arguments.probabilities(q, "q")
    arguments.aligned(p=p, q=q)
    arguments.same_columns(p=p, q=q)
    return p, q


def agreement(p: np.ndarray, q: np.ndarray) -> float:
    """Computes the fraction of samples for which both networks predict the same class; higher is nearer. NaN without samples.

    Args:
      p, q: of each network, the predicted classes, int `[n]` or maps `[n, h, w]`; or probabilities or logits, float `[n, k]`.

    Raises:
      ValueError: other shapes.

    Examples:
      >>> import numpy as np
      >>> from delete_jax import metrics
      >>> metrics.agreement(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[0.6, 0.4], [0.7, 0.3]]))
      0.5
    """
    p, q = _classes_or_scores(p, "p"), _classes_or_scores(q, "q")
    arguments.aligned(p=p, q=q)
    if p.ndim == q.ndim == 2:
        arguments.same_columns(p=p, q=q)
    p, q = (found.argmax(-1) if found.ndim == 2 else found for found in (p, q))
    return arguments.mean(p == q)


def _classes_or_scores(value: np.ndarray, name: str) -> np.ndarray:
    """Integers are predicted classes, int `[n]` or maps `[n, h, w]`; floats are scores, float `[n, k]`."""
    found = array(value, name)
    if np.issubdtype(found.dtype, np.integer):
        return arguments.labels(found, name, maps=True)
    return arguments.logits(found, name)


def agreement_by_class(
    labels: np.ndarray, predictions: np.ndarray, others: np.ndarray, num_classes: int
) -> list[float | None]:
    """Computes the fraction of each class's samples for which two networks predict the same class; None where a class has no samples.

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
    num_classes = integer("num_classes", num_classes, 1)
    named = (("labels", labels), ("predictions", predictions), ("others", others))
    found = {name: arguments.labels(value, name, num_classes) for name, value in named}
    arguments.aligned(**found)
    labels, predictions, others = found.values()
    total = np.bincount(labels, minlength=num_classes)
    same = np.bincount(labels[predictions == others], minlength=num_classes)
    return [float(part / count) if count else None for part, count in zip(same, total, strict=True)]
