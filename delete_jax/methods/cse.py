"""CSE: weaken the channels in which the forgotten class varies more than the remaining ones (CVPR 2026)."""

from __future__ import annotations

import numpy as np

from delete_jax.methods.base import CLASSES, FORGET, REMAIN, Method, Setup
from delete_jax.methods.features import Head, feature_batches, find_head
from delete_jax.methods.hyperparameters import factory
from delete_jax.model import Variables

DELTA, COVERED, LOW, HALF = 1e-3, 0.85, 0.1, 0.5
"""The ridge; the share of all scores to cover; the score from which a channel is weakened; what is added to a score in the
denominator."""


@factory()
def cse() -> Method:
    """Weakens the classifier's inputs in which the forgotten class varies more than the remaining classes.

    Channels are the features that enter the classifier. Let S_t and S_b `[d, d]` be their covariances on forget and on remaining
    samples. The generalised eigenvectors `S_t v = rho (S_b + delta I) v`, `v^T (S_b + delta I) v = 1`, give channel c the score
    `s_c = sum_j rho_j v_j[c]^2`. In the smallest set of channels that has 85 % of all scores, each channel is multiplied by
    1 - beta, with `beta = (s - 0.1) / (s + 0.5)` clipped to [0, 1]. The factors go into the classifier's kernel. Both covariances
    are in units of the remaining data's mean variance, so that the features' scale has no effect; delta is 1e-3.

    It reads forget and remaining samples, once; the paper uses a tenth of the remaining ones. There is no training, and the
    learning rate has no effect. Example: `dj.unlearn(…, forget=[3], method=dj.methods.cse())`.
    """

    def edit(setup: Setup) -> Variables:
        head = find_head(setup)
        scores = channel_scores(_covariance(setup, head, FORGET), _covariance(setup, head, REMAIN))
        return head.with_rows(setup, head.rows * factors(scores)[:, None])

    return Method("cse", streams=(FORGET, REMAIN), edit=edit, needs=(CLASSES,), settings=(), paper="CSE, CVPR 2026")


def channel_scores(forgotten: np.ndarray, remaining: np.ndarray) -> np.ndarray:
    """Computes a score for each channel, `[d]`, from two covariances `[d, d]`."""
    unit = np.trace(remaining) / len(remaining) or 1.0  # features that never vary: any will do
    lower = np.linalg.cholesky(remaining / unit + DELTA * np.eye(len(remaining)))
    # L^-1 S_t L^-T has the same eigenvalues rho, and the eigenvectors L^T v
    whitened = np.linalg.solve(lower, np.linalg.solve(lower, forgotten / unit).T)
    rho, vectors = np.linalg.eigh((whitened + whitened.T) / 2)
    return np.square(np.linalg.solve(lower.T, vectors)) @ rho


def factors(scores: np.ndarray) -> np.ndarray:
    """Computes the factor of each channel `[d]`: 1 outside the smallest set that covers enough of the scores."""
    order = np.argsort(-scores, kind="stable")
    covered = np.cumsum(scores[order])
    chosen = order[: np.searchsorted(covered, COVERED * covered[-1]) + 1]
    result = np.ones_like(scores)
    result[chosen] = 1 - np.clip((scores[chosen] - LOW) / (scores[chosen] + HALF), 0, 1)
    return result


def _covariance(setup: Setup, head: Head, stream: str) -> np.ndarray:
    size = len(head.rows)
    count, total, moments = 0, np.zeros(size), np.zeros((size, size))
    for features, _ in feature_batches(setup, head.classifier, stream):
        count, total, moments = count + len(features), total + features.sum(0), moments + features.T @ features
    mean = total / max(count, 1)
    return moments / max(count, 1) - np.outer(mean, mean)
