"""Face verification: do two images show the same person? By the cosine of their features, float `[n, d]`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from delete_jax.metrics import arguments


class Scores(NamedTuple):
    """Cosines of pairs of different images, float64 `[pairs]`: `genuine` pairs show one person, `impostor` pairs two."""

    genuine: np.ndarray
    impostor: np.ndarray


def pair_scores(features: np.ndarray, identities: np.ndarray, others: np.ndarray | None = None) -> Scores:
    """Computes the cosine of every pair of images.

    Args:
      features: `[n, d]`, of images of the people in question.
      identities: int `[n]`.
      others: `[m, d]`, of images of other people. Their pairs with the first images are impostors too.

    Raises:
      ValueError: another shape, or a feature that is not finite.
    """
    features, identities = arguments.samples(features, identities, "features", "identities")
    unit = _unit(features)
    cosine = unit @ unit.T
    same = identities[:, None] == identities[None]
    once = np.triu(np.ones_like(same), 1)  # each pair once, and no image with itself
    impostor = cosine[once & ~same]
    if others is not None:
        others = arguments.features(others, "others")
        arguments.same_columns(features=features, others=others)
        impostor = np.concatenate([impostor, (unit @ _unit(others).T).ravel()])
    return Scores(cosine[once & same], impostor)


def roc(scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    """False and true acceptance rates `[t]` at all thresholds, rising from (0, 0) to (1, 1).

    Raises:
      ValueError: there is no genuine pair, or no impostor pair.
    """
    from sklearn.metrics import roc_curve

    scores = _checked(scores)
    if _is_empty(scores):
        raise ValueError(
            f"scores has {len(scores.genuine)} genuine and {len(scores.impostor)} impostor pairs: give some of both kinds"
        )
    values = np.concatenate([scores.genuine, scores.impostor])
    false, true, _ = roc_curve(np.arange(len(values)) < len(scores.genuine), values, drop_intermediate=False)
    return false, true


def _checked(scores: Scores) -> Scores:
    if not isinstance(scores, Scores):
        raise ValueError(f"scores must be metrics.Scores, such as those of pair_scores, got a {type(scores).__name__}")
    return Scores(*(arguments.features(part, f"scores.{name}", "[pairs]") for name, part in scores._asdict().items()))


def _is_empty(scores: Scores) -> bool:
    return not len(scores.genuine) or not len(scores.impostor)


def equal_error_rate(scores: Scores) -> float:
    """Computes the error rate where false acceptance equals false rejection (linear between thresholds).

    0 is perfect separation, 0.5 is chance.
    NaN if there is no genuine pair or no impostor pair."""
    scores = _checked(scores)
    if _is_empty(scores):
        return float("nan")
    false, true = roc(scores)
    excess = false - (1 - true)  # rises from -1 to 1
    after = int(np.argmax(excess >= 0))
    before = max(after - 1, 0)
    step = excess[after] - excess[before]
    part = -excess[before] / step if step > 0 else 0.0
    return float(false[before] + part * (false[after] - false[before]))


def true_acceptance(scores: Scores, false_acceptance: float = 0.01) -> float:
    """Computes the true acceptance rate at the most permissive threshold that accepts at most this fraction of impostors (TAR@FAR).
    NaN if there is no genuine pair or no impostor pair."""
    scores = _checked(scores)
    if _is_empty(scores):
        return float("nan")
    false, true = roc(scores)
    return float(true[false <= arguments.fraction(false_acceptance, "false_acceptance")].max())


def rank_one(features: np.ndarray, identities: np.ndarray) -> float:
    """Computes the fraction of images whose nearest other image (by cosine) shows the same person; NaN if no two images do."""
    features, identities = arguments.samples(features, identities, "features", "identities")
    if len(np.unique(identities)) == len(identities):
        return float("nan")
    unit = _unit(features)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    return float(np.mean(identities[cosine.argmax(-1)] == identities))


def _unit(features: np.ndarray) -> np.ndarray:
    wide = features.astype(np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=-1, keepdims=True), 1e-30)
