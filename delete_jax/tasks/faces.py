"""Forgetting a person: beside the answers, whether two images are still told to show the same one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from delete_jax import metrics
from delete_jax.metrics import Scores

GROUPS = ("forgotten", "remaining", "unseen")


def verification_scores(
    features: np.ndarray, labels: np.ndarray, unseen: np.ndarray, unseen_labels: np.ndarray, forget: Sequence[int]
) -> dict[str, tuple[Scores, np.ndarray, np.ndarray]]:
    """The pairs of images of each group of people: forgotten, remaining, never seen.

    Impostors of the forgotten are among the remaining, too, for there may be one forgotten person only.

    Args:
      features: float `[n, d]`, of test images of the people that the network was taught; labels int `[n]`.
      unseen: float `[m, d]`, of people that it was not; unseen_labels int `[m]`.
      forget: the forgotten people.

    Returns:
      By group: scores, features and labels.
    """
    hit = np.isin(labels, list(forget))
    return {
        "forgotten": (metrics.pair_scores(features[hit], labels[hit], features[~hit]), features[hit], labels[hit]),
        "remaining": (metrics.pair_scores(features[~hit], labels[~hit]), features[~hit], labels[~hit]),
        "unseen": (metrics.pair_scores(unseen, unseen_labels), unseen, unseen_labels),
    }


def measure(scores: Scores, features: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The figures of one group.

    Returns:
      `genuine` and `impostor` (mean cosines), `eer` (equal error rate; lower separates better), `tar` (true acceptance rate
      at 1 % false acceptance; higher separates better), `rank_one` (nearest other image of the group shows the same person).
    """
    return {
        "genuine": float(scores.genuine.mean()),
        "impostor": float(scores.impostor.mean()),
        "eer": metrics.equal_error_rate(scores),
        "tar": metrics.true_acceptance(scores),
        "rank_one": metrics.rank_one(features, labels),
    }
