"""Membership inference: can an attacker tell from the answers that a sample was trained on?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Attack(NamedTuple):
    """What one attack says.

    Attributes:
      called_members: fraction of the targets called members; lower is better for forgotten samples.
      accuracy: how often an attack fitted on half of the shadow samples is right on the other half. Chance is 0.5, and near
        it `called_members` says nothing.
    """

    called_members: float
    accuracy: float


def entropy(p: np.ndarray) -> np.ndarray:
    """`-Σ p_i log p_i` in nats. `p`: probabilities `[n, k]` -> float64 `[n]`."""
    p = p.astype(np.float64)
    return -np.sum(p * _log(p), axis=-1)


def modified_entropy(p: np.ndarray, labels: np.ndarray, *, legacy: bool = False) -> np.ndarray:
    """`-(1 - p_y) log p_y - Σ_{i≠y} p_i log(1 - p_i)` in nats (arXiv 2003.10595): 0 for a sure and right answer.

    Args:
      p: probabilities `[n, k]`.
      labels: int `[n]`, the true classes y.
      legacy: what published unlearning code computes instead: log p for log(1 - p), and the label's term taken, in every
        sample, at the class of any sample. A sample's figure then depends on which others it is measured with.

    Returns:
      float64 `[n]`.
    """
    p = p.astype(np.float64)
    own = np.isin(np.arange(p.shape[1]), labels) if legacy else np.arange(p.shape[1]) == labels[:, None]
    log_other = _log(p) if legacy else _log(1 - p)
    return -np.sum(np.where(own, (1 - p) * _log(p), p * log_other), axis=-1)


def membership(
    members_p: np.ndarray,
    members_y: np.ndarray,
    nonmembers_p: np.ndarray,
    nonmembers_y: np.ndarray,
    targets_p: np.ndarray,
    targets_y: np.ndarray,
    *,
    most: int = 2000,
    legacy: bool = False,
    seed: int = 0,
) -> dict[str, Attack]:
    """Support vector attacks (RBF, C = 3, gamma = 1 / dimensions), one for each feature of the answers.

    Members and non-members (the shadow samples) are cut at random to the same number. An attack on all of them judges the
    targets; the accuracy is that of the same attack fitted on half of them, on the other half.

    Args:
      members_p: probabilities `[n, k]` on samples that were trained on and stay, not augmented; `members_y` int `[n]`.
      nonmembers_p: the same on samples never trained on, `[m, k]`; `nonmembers_y` int `[m]`.
      targets_p: the same on the samples to judge, the forgotten ones, `[t, k]`; `targets_y` int `[t]`.
      most: at most this many members and as many non-members; the time grows with its square (seconds at 2000).
      legacy: the modified entropy as published code computes it; see `modified_entropy`.
      seed: which of the shadow samples are taken, and in which half.

    Returns:
      By feature: correctness, confidence (`p_y`), entropy, modified_entropy, probabilities (the whole answer).
    """
    size = min(len(members_y), len(nonmembers_y), most)
    if size < 2 or len(targets_y) == 0:
        raise ValueError(
            f"{len(members_y)} members, {len(nonmembers_y)} non-members (at most {most} used) and {len(targets_y)} targets:"
            " at least 2, 2 and 1 are needed"
        )
    rng = np.random.default_rng(seed)
    members_at, nonmembers_at = (rng.permutation(len(y))[:size] for y in (members_y, nonmembers_y))
    # Features first: the legacy one depends on the whole set of labels.
    members, nonmembers = _features(members_p, members_y, legacy), _features(nonmembers_p, nonmembers_y, legacy)
    return {
        name: _attack(members[name][members_at], nonmembers[name][nonmembers_at], targets)
        for name, targets in _features(targets_p, targets_y, legacy).items()
    }


def _features(p: np.ndarray, labels: np.ndarray, legacy: bool) -> dict[str, np.ndarray]:
    """What each attack sees of the answers, float64 `[n, dimensions]`."""
    features = {
        "correctness": p.argmax(-1) == labels,
        "confidence": p[np.arange(len(labels)), labels],
        "entropy": entropy(p),
        "modified_entropy": modified_entropy(p, labels, legacy=legacy),
        "probabilities": p,
    }
    return {name: feature.astype(np.float64).reshape(len(labels), -1) for name, feature in features.items()}


def _attack(members: np.ndarray, nonmembers: np.ndarray, targets: np.ndarray) -> Attack:
    """`members`, `nonmembers`: `[n, dimensions]` each, in random order; `targets`: `[t, dimensions]`."""
    from sklearn.svm import SVC

    def fit(members, nonmembers):
        is_member = np.arange(2 * len(members)) < len(members)
        return SVC(kernel="rbf", C=3, gamma="auto").fit(np.concatenate([members, nonmembers]), is_member)

    half = len(members) // 2
    on_half = fit(members[:half], nonmembers[:half])
    right = np.concatenate([on_half.predict(members[half:]), ~on_half.predict(nonmembers[half:])])
    return Attack(float(fit(members, nonmembers).predict(targets).mean()), float(right.mean()))


def _log(x: np.ndarray) -> np.ndarray:
    """The logarithm, with that of 1e-30 for that of 0: as published, so that a sure and wrong answer stays finite."""
    return np.log(np.where(x > 0, x, 1e-30))
