"""Membership inference with many networks: U-LiRA, a likelihood ratio for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from delete_jax.metrics import arguments

LEAST_DEVIATION = 1e-6


class Separation(NamedTuple):
    """How well an attack separates networks that unlearned a sample from networks that were never trained on it.

    Attributes:
      auc: area under the ROC curve over all samples and networks; 0.5 is chance.
      accuracy: mean of the accuracies in both groups, with the threshold at equal likelihoods; 0.5 is chance.
      found: fraction of unlearned cases found at the threshold that at most 1 % of the others pass; 0.01 is chance.
    """

    auc: float
    accuracy: float
    found: float


def logit_confidence(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Computes `log(p_y / (1 - p_y))` of the true class y, in nats (LiRA, arXiv 2112.03570, section IV).

    Args:
      logits: `[n, k]`.
      labels: int `[n]`, in [0, k).

    Raises:
      ValueError: another shape, or a label that is no class.

    Returns:
      float64 `[n]`; finite even if p_y rounds to 1.

    Examples:
      >>> import numpy as np
      >>> from delete_jax import metrics
      >>> metrics.logit_confidence(np.log([[0.75, 0.25]]), np.array([0])).round(4)  # log 3
      array([1.0986])
    """
    from scipy.special import logsumexp

    logits = arguments.logits(logits).astype(np.float64)
    labels = arguments.labels(labels, "labels", logits.shape[1])
    arguments.aligned(logits=logits, labels=labels)
    rows = np.arange(len(labels))
    others = logits.copy()
    others[rows, labels] = -np.inf
    return logits[rows, labels] - logsumexp(others, axis=-1)


def unlearned_likelihood_ratio(unlearned: Sequence[np.ndarray], never: Sequence[np.ndarray]) -> Separation:
    """Tests whether a sample's confidence is more likely in networks that unlearned it than in networks that
    never saw it (U-LiRA, arXiv 2403.01218).

    Both are modelled as normal distributions, with a mean for each sample and one variance for all samples, as LiRA recommends for few
    networks per sample. Two networks, one of each kind, are judged by the means of the others, so that chance is exact when there is
    nothing to find.

    Args:
      unlearned: for each sample, the confidences (`logit_confidence`) of networks that were trained on it and then unlearned it.
      never: for each sample, the confidences of networks that were never trained on it. Each sample needs at least two of each kind.

    Raises:
      ValueError: the lists differ in length, or a sample has fewer than two confidences of one kind, or one that is not finite.

    Examples:
      >>> import numpy as np
      >>> from delete_jax import metrics
      >>> rng = np.random.default_rng(0)
      >>> metrics.unlearned_likelihood_ratio([rng.normal(0, 1, 9)], [rng.normal(9, 1, 9)]).auc
      1.0
    """
    from sklearn.metrics import roc_auc_score

    unlearned = arguments.several(unlearned, "unlearned")
    never = arguments.several(never, "never")
    if len(unlearned) != len(never) or min(map(np.size, (*unlearned, *never)), default=0) < 2:
        raise ValueError("give for each sample at least two confidences of each kind: train more networks")
    groups = [
        [arguments.features(scores, name, "[networks]").astype(np.float64) for scores in kind]
        for name, kind in (("unlearned", unlearned), ("never", never))
    ]
    deviations = [_deviation(group) for group in groups]
    ratios: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for pair in zip(*groups, strict=True):
        count = max(map(len, pair))
        cases = [np.resize(scores, count) for scores in pair]
        means = [(scores.sum() - case) / (len(scores) - 1) for scores, case in zip(pair, cases, strict=True)]
        for found, case in zip(ratios, cases, strict=True):
            likelihoods = [_log_normal(case, *known) for known in zip(means, deviations, strict=True)]
            found.append(likelihoods[0] - likelihoods[1])
    positive, negative = map(np.concatenate, ratios)
    truth = np.arange(len(positive) + len(negative)) < len(positive)
    threshold = np.quantile(negative, 0.99, method="higher")
    return Separation(
        auc=float(roc_auc_score(truth, np.concatenate([positive, negative]))),
        accuracy=float(((positive > 0).mean() + (negative <= 0).mean()) / 2),
        found=float((positive > threshold).mean()),
    )


def _deviation(group: Sequence[np.ndarray]) -> float:
    """The standard deviation around each sample's own mean, over all samples."""
    squares = sum(np.square(scores - scores.mean()).sum() for scores in group)
    return max(float(np.sqrt(squares / sum(len(scores) - 1 for scores in group))), LEAST_DEVIATION)


def _log_normal(x: np.ndarray, mean: np.ndarray | float, deviation: float) -> np.ndarray:
    return -np.square((x - mean) / deviation) / 2 - np.log(deviation)
