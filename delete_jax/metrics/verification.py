"""Face verification: do two images show the same person? By the cosine of their features, float `[n, d]`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Scores(NamedTuple):
    """Cosines of pairs of different images: `genuine` of one person, `impostor` of two; float64 `[pairs]`."""

    genuine: np.ndarray
    impostor: np.ndarray


def pair_scores(features: np.ndarray, identities: np.ndarray, others: np.ndarray | None = None) -> Scores:
    """The cosine of every pair of images.

    Args:
      features: `[n, d]`, of the people asked about.
      identities: int `[n]`.
      others: `[m, d]`, images of other people, whose pairs with the first are impostors too.
    """
    unit = _unit(features)
    cosine = unit @ unit.T
    same = identities[:, None] == identities[None]
    once = np.triu(np.ones_like(same), 1)  # each pair once, and no image with itself
    impostor = cosine[once & ~same]
    if others is not None:
        impostor = np.concatenate([impostor, (unit @ _unit(others).T).ravel()])
    return Scores(cosine[once & same], impostor)


def roc(scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    """False and true acceptance rates `[t]`, rising, at every threshold; from (0, 0) to (1, 1)."""
    values = np.concatenate([scores.genuine, scores.impostor])
    genuine = np.arange(len(values)) < len(scores.genuine)
    order = np.argsort(-values, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(values[order])), len(values) - 1)  # equal scores are accepted together
    accepted = np.cumsum(genuine[order])[ends], np.cumsum(~genuine[order])[ends]
    true, false = (np.concatenate([[0.0], part / max(part[-1], 1)]) for part in accepted)
    return false, true


def equal_error_rate(scores: Scores) -> float:
    """Where false acceptance equals false rejection (linear between thresholds); 0 separates perfectly, 0.5 is chance."""
    false, true = roc(scores)
    excess = false - (1 - true)  # rises from -1 to 1
    after = int(np.argmax(excess >= 0))
    before = max(after - 1, 0)
    step = excess[after] - excess[before]
    part = -excess[before] / step if step > 0 else 0.0
    return float(false[before] + part * (false[after] - false[before]))


def true_acceptance(scores: Scores, false_acceptance: float = 0.01) -> float:
    """True acceptance rate at the largest threshold set that accepts at most this fraction of impostors (TAR@FAR)."""
    false, true = roc(scores)
    return float(true[false <= false_acceptance].max())


def rank_one(features: np.ndarray, identities: np.ndarray) -> float:
    """Fraction of images whose nearest other image (by cosine) shows the same person; NaN for fewer than two images."""
    if len(identities) < 2:
        return float("nan")
    unit = _unit(features)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    return float(np.mean(identities[cosine.argmax(-1)] == identities))


def _unit(features: np.ndarray) -> np.ndarray:
    wide = features.astype(np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=-1, keepdims=True), 1e-30)
