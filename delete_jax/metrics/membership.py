"""Membership inference: can an attacker tell from the answers that a sample was trained on?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from delete_jax.given import integer
from delete_jax.metrics import arguments


class Attack(NamedTuple):
    """The result of one membership attack.

    Attributes:
      called_members: fraction of the targets predicted as members; lower is better for forgotten samples.
      accuracy: accuracy of an attack fitted on half of the shadow samples, on the other half. Chance is 0.5; near it,
        `called_members` means nothing.
    """

    called_members: float
    accuracy: float


def entropy(p: np.ndarray) -> np.ndarray:
    """Computes `-Σ p_i log p_i` in nats. `p`: probabilities `[n, k]`, not logits -> float64 `[n]`."""
    return _entropy(arguments.probabilities(p, "p"))


def modified_entropy(p: np.ndarray, labels: np.ndarray, *, legacy: bool = False) -> np.ndarray:
    """Computes `-(1 - p_y) log p_y - Σ_{i≠y} p_i log(1 - p_i)` in nats (arXiv 2003.10595): 0 for a confident, correct prediction.

    Args:
      p: probabilities `[n, k]`.
      labels: int `[n]`, the true classes y.
      legacy: compute what published unlearning code does: log p for log(1 - p), and in every sample the label's term at the
        class of any sample. The value of a sample then depends on the other samples in the call.

    Returns:
      float64 `[n]`.
    """
    return _modified_entropy(*_answers(p, labels, "p", "labels"), legacy)


def _entropy(p: np.ndarray) -> np.ndarray:
    p = p.astype(np.float64)
    return -np.sum(p * _log(p), axis=-1)


def _modified_entropy(p: np.ndarray, labels: np.ndarray, legacy: bool) -> np.ndarray:
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
    """Runs membership attacks by support vector machines (RBF, C = 3, gamma = 1 / dimensions), one for each feature of the predictions.

    Members and non-members (the shadow samples) are subsampled to the same number. An attack fitted on all of them judges the
    targets. Its accuracy comes from the same attack fitted on half of them and tested on the other half.

    Args:
      members_p: probabilities `[n, k]` on training samples that remain, not augmented; `members_y` int `[n]`.
      nonmembers_p: probabilities `[m, k]` on samples that were never trained on; `nonmembers_y` int `[m]`.
      targets_p: probabilities `[t, k]` on the samples to judge, the forgotten ones; `targets_y` int `[t]`.
      most: use at most this many members and as many non-members. The time grows with its square (seconds at 2000).
      legacy: compute the modified entropy as published code does; see `modified_entropy`.
      seed: decides which shadow samples are taken, and in which half.

    Returns:
      An `Attack` for each feature: correctness, confidence (`p_y`), entropy, modified_entropy, probabilities (all of them).

    Raises:
      ValueError: other shapes, rows that are no probabilities, such as logits, a label that is no class, or too few samples.
    """
    most, seed = integer("most", most, 2), integer("seed", seed, 0)
    members_p, members_y = _answers(members_p, members_y, "members_p", "members_y")
    nonmembers_p, nonmembers_y = _answers(nonmembers_p, nonmembers_y, "nonmembers_p", "nonmembers_y")
    targets_p, targets_y = _answers(targets_p, targets_y, "targets_p", "targets_y")
    arguments.same_columns(members_p=members_p, nonmembers_p=nonmembers_p, targets_p=targets_p)
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


def _answers(p: np.ndarray, labels: np.ndarray, p_name: str, labels_name: str) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities `[n, k]` and the labels of the same samples."""
    p = arguments.probabilities(p, p_name)
    labels = arguments.labels(labels, labels_name, p.shape[1])
    arguments.aligned(**{p_name: p, labels_name: labels})
    return p, labels


def _features(p: np.ndarray, labels: np.ndarray, legacy: bool) -> dict[str, np.ndarray]:
    """What each attack sees of the answers, float64 `[n, dimensions]`."""
    features = {
        "correctness": p.argmax(-1) == labels,
        "confidence": p[np.arange(len(labels)), labels],
        "entropy": _entropy(p),
        "modified_entropy": _modified_entropy(p, labels, legacy),
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
