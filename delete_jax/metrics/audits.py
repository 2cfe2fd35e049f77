"""Audits of a network that no longer predicts a class: do its weights or its answers name the class, and does it come back?

A network that was never taught the class gives something away, too: each value counts beside that of such a network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.given import integer, shown
from delete_jax.metrics import arguments
from delete_jax.metrics.arguments import Classes
from delete_jax.metrics.residual import auc

LEAST_RETRAINED = 4
"""How many retrained networks an attack that tells them from an unlearned one wants."""
NOISE = 1e-4
"""Differences between classes of the last layer below this fraction of its rows' norm are rounding, and say nothing."""

# ------------------------------------------------------------------------------------------- other weights


def quantised(params: Any, bits: int, axis: int = -1) -> Any:
    """Rounds weights to integers of so many bits, one scale for each output channel, and back.

    A weight w of channel c becomes `s round(w / s)` with `s = max |w| of the channel / (2^(bits - 1) - 1)`: symmetric, without a zero
    point. Only floating-point arrays with more than one axis are rounded, so that biases and the weights of norms stay.

    Args:
      params: a pytree of arrays.
      bits: of the integers, 2 to 16.
      axis: of the output channels: -1 for the layouts of Flax and Keras, 0 for PyTorch's.

    Raises:
      ValueError: `bits` is out of its range, or there are no such arrays.

    Returns:
      The same tree with float arrays of the same dtypes, on the host.

    Examples:
      >>> import numpy as np
      >>> from delete_jax import metrics
      >>> metrics.quantised({"w": np.array([[7.0, 1.75], [1.2, -0.6]])}, bits=4)["w"].tolist()
      [[7.0, 1.75], [1.0, -0.5]]
    """
    most = 2 ** (integer("bits", bits, 2, 16) - 1) - 1

    def rounded(leaf: Any) -> Any:
        found = np.asarray(leaf)
        wide = found.astype(np.float64)
        others = tuple(np.delete(np.arange(wide.ndim), axis))
        scale = np.abs(wide).max(axis=others, keepdims=True, initial=0) / most
        return (np.round(wide / np.where(scale, scale, 1)) * scale).astype(found.dtype)

    return _changed_weights(params, rounded)


def pruned(params: Any, share: float) -> Any:
    """Sets the weights of the smallest magnitude to 0: a share of all weights of all layers together.

    Only floating-point arrays with more than one axis have weights to prune. Weights as large as the first one that stays, stay.

    Args:
      params: a pytree of arrays.
      share: how many of the weights, 0 to 1.

    Raises:
      ValueError: `share` is out of its range, or there are no such arrays.

    Returns:
      The same tree with arrays of the same dtypes, on the host.

    Examples:
      >>> import numpy as np
      >>> from delete_jax import metrics
      >>> metrics.pruned({"w": np.array([[4.0, -1.0], [0.5, 3.0]]), "b": np.array([0.1, 0.2])}, 0.5)["w"].tolist()
      [[4.0, 0.0], [0.0, 3.0]]
    """
    share = arguments.fraction(share, "share")
    sizes = np.concatenate([np.abs(np.asarray(leaf)).ravel() for leaf in _weights(params)]).astype(np.float32)
    count = round(share * len(sizes))
    least = np.partition(sizes, count)[count] if count < len(sizes) else np.inf

    def cut(leaf: Any) -> Any:
        weight = np.asarray(leaf)
        return np.where(np.abs(weight).astype(np.float32) < least, np.zeros((), weight.dtype), weight)

    return _changed_weights(params, cut)


def _is_weight(leaf: Any) -> bool:
    return np.ndim(leaf) > 1 and bool(jnp.issubdtype(jnp.result_type(leaf), jnp.floating))


def _weights(params: Any) -> list[Any]:
    """The arrays that are changed.

    Raises:
      ValueError: there are none.
    """
    if not (found := [leaf for leaf in jax.tree.leaves(params) if _is_weight(leaf)]):
        raise ValueError(
            f"params must be a pytree with floating-point arrays of more than one axis, got {shown(params)}"
        )
    return found


def _changed_weights(params: Any, change: Callable[[Any], Any]) -> Any:
    _weights(params)
    return jax.tree.map(lambda leaf: change(leaf) if _is_weight(leaf) else leaf, params)


# ------------------------------------------------------------------------------------------- the last layer


def class_rank(
    kernel: np.ndarray,
    bias: np.ndarray,
    forget: Classes,
    *,
    original: tuple[np.ndarray, np.ndarray] | None = None,
    known: Classes = (),
) -> float:
    """Measures how many of the erased classes someone names who sees the last layer alone.

    Classes are ranked by how far they stand out: the largest of |x - median| / m over the norm x of their row, their bias, and, with
    the original's layer, the norm of the change of both, where m is the median of |x - median| over the classes. Differences below 1e-4 of
    the rows' median norm count as none. The attacker names the first ones, as many as were erased; among equal ones, any.

    Args:
      kernel, bias: `[d, k]` and `[k]`.
      forget: the erased classes.
      original: the same two of the network before.
      known: other classes that the attacker does not name, such as those that were erased before.

    Raises:
      ValueError: another shape, or a number that is not finite.

    Returns:
      The share of the erased classes that are named, 0 to 1. Chance is the number of erased classes over that of all classes.

    Examples:
      >>> import numpy as np
      >>> from delete_jax import metrics
      >>> metrics.class_rank(np.diag([1.0, 1.1, 0.9, 5.0]), np.zeros(4), forget=[3])
      1.0
    """
    kernel, bias = (part.astype(np.float64) for part in arguments.layer(kernel, bias))
    erased = arguments.classes(forget, len(bias))
    norms = np.linalg.norm(kernel, axis=0)
    traits = [norms, bias]
    if original is not None:
        before = [part.astype(np.float64) for part in arguments.layer(*original)]
        arguments.same_columns(kernel=kernel, original=before[0])
        traits.append(np.sqrt(((kernel - before[0]) ** 2).sum(0) + (bias - before[1]) ** 2))
    left_out = set(arguments.classes(known, len(bias), "known")) - set(erased)
    ranked = np.array([class_ for class_ in range(len(bias)) if class_ not in left_out])
    noise = max(NOISE * float(np.median(norms)), 1e-30)
    score = np.max([_standing_out(trait[ranked], noise) for trait in traits], axis=0)
    hit = np.isin(ranked, erased)
    if not hit.any():
        return float("nan")
    last = np.sort(score)[-hit.sum()]
    above, level = score > last, score == last
    named = (hit & above).sum() + (hit & level).sum() * (hit.sum() - above.sum()) / level.sum()
    return float(named / hit.sum())


def _standing_out(values: np.ndarray, noise: float) -> np.ndarray:
    """Distances from the median, in units of the median distance; those of rounding are 0."""
    away = np.abs(values - np.median(values))
    return np.where(away > noise, away, 0) / max(float(np.median(away)), noise)


def steering_vector(features: np.ndarray, labels: np.ndarray, class_: int) -> np.ndarray:
    """Computes the mean feature of a class minus the mean feature of all other samples: float64 `[d]`.

    Args:
      features, labels: `[n, d]` and int `[n]`, with samples of the class and of others.
      class_: the class.

    Raises:
      ValueError: another shape, or no samples of one of the two kinds.
    """
    features, labels = arguments.samples(features, labels, "features", "labels")
    own = labels == integer("class_", class_, 0)
    if own.all() or not own.any():
        raise ValueError(
            f"labels has {'only' if own.any() else 'no'} samples of class {class_}: give some of it and some of others"
        )
    return features[own].mean(0, dtype=np.float64) - features[~own].mean(0, dtype=np.float64)


def steered_accuracy(
    kernel: np.ndarray, bias: np.ndarray, features: np.ndarray, labels: np.ndarray, class_: int, vector: np.ndarray
) -> float:
    """Computes the accuracy on a class after a vector was added to the features of its samples.

    Args:
      kernel, bias: `[d, k]` and `[k]`: the last layer, logits = features @ kernel + bias.
      features, labels: `[n, d]` and int `[n]`; only samples of the class count. NaN if there are none.
      class_: the class.
      vector: `[d]` (`steering_vector`).

    Raises:
      ValueError: another shape, a number that is not finite, or a class that the layer does not have.
    """
    kernel, bias = arguments.layer(kernel, bias)
    features, labels = arguments.samples(features, labels, "features", "labels")
    vector = arguments.features(vector, "vector", "[d]")
    arguments.same_columns(kernel=kernel.T, features=features, vector=vector[None])
    own = labels == integer("class_", class_, 0, len(bias) - 1)
    return arguments.mean(((features[own] + vector) @ kernel + bias).argmax(-1) == class_)


# ------------------------------------------------------------------------------------------- answers


def largest_loss(confusion: np.ndarray, original: np.ndarray, classes: Classes) -> tuple[int, float] | None:
    """Finds the class whose accuracy fell most.

    Args:
      confusion, original: counts `[k, k]` of the network and of the one before, on the same samples.
      classes: those that are compared.

    Raises:
      ValueError: another shape, or values that are no counts.

    Returns:
      The class, the first of equal ones, and what it lost, as a fraction of its samples (below 0 if all gained); None if none has samples.
    """
    after, before = arguments.confusion(confusion), arguments.confusion(original, "original")
    arguments.same_columns(confusion=after, original=before)
    chosen = [
        class_
        for class_ in arguments.classes(classes, len(after), "classes")
        if after[class_].sum() and before[class_].sum()
    ]
    losses = {c: float(before[c, c] / before[c].sum() - after[c, c] / after[c].sum()) for c in chosen}
    return max(losses.items(), key=lambda pair: pair[1], default=None)


def energy_auroc(logits: np.ndarray, labels: np.ndarray, forget: Classes) -> float:
    """Tests whether samples of the erased classes are taken for out of distribution, by their energy `-log Σ exp(logits)`.

    Args:
      logits: float `[n, k]`, on test samples of all classes.
      labels: int `[n]`, true classes.
      forget: the erased classes.

    Raises:
      ValueError: another shape, a NaN, or a label or an erased class that is no class.

    Returns:
      The area under the ROC curve: the share of pairs of an erased and another sample in which the erased one has the higher energy;
      ties count half. At 0.5, the energy says nothing. NaN without samples of both kinds.

    Examples:
      >>> import numpy as np
      >>> from delete_jax import metrics
      >>> metrics.energy_auroc(np.array([[0.0, 1.0], [0.0, 9.0], [0.0, 8.0]]), np.array([0, 1, 1]), forget=[0])
      1.0
    """
    from scipy.special import logsumexp

    return _auroc_of_unfamiliar(lambda values: -logsumexp(values, axis=-1), logits, labels, forget)


def max_logit_auroc(logits: np.ndarray, labels: np.ndarray, forget: Classes) -> float:
    """Tests whether samples of the erased classes are taken for out of distribution, by how small their largest logit is.

    Arguments and result are those of `energy_auroc`."""
    return _auroc_of_unfamiliar(lambda values: -values.max(-1), logits, labels, forget)


def _auroc_of_unfamiliar(
    score: Callable[[np.ndarray], np.ndarray], logits: np.ndarray, labels: np.ndarray, forget: Classes
) -> float:
    logits = arguments.logits(logits)
    labels = arguments.labels(labels, "labels", logits.shape[1])
    arguments.aligned(logits=logits, labels=labels)
    hit = np.isin(labels, arguments.classes(forget, logits.shape[1]))
    return auc(hit, score(logits.astype(np.float64)))


def class_membership(probabilities: np.ndarray, retrained: Sequence[np.ndarray], forget: Classes) -> float:
    """Attacks a network by how it spreads the samples of an erased class over the other classes: can it be told from retrained ones?

    The attacker has networks that were retrained without the class, with other seeds. A support vector machine (RBF kernel, C = 1,
    balanced classes) learns to tell the network's probabilities of the other classes from theirs, on every other sample and without one
    of the retrained networks. It is judged on the other half of the samples, of the network and of that retrained one.

    Args:
      probabilities: float `[n, k]`, the network's on test samples of an erased class.
      retrained: of each retrained network the same, at least 2.
      forget: the erased classes, whose columns are left out.

    Raises:
      ValueError: another shape, rows that are no probabilities, one retrained network, or no other class.

    Returns:
      The balanced accuracy, averaged over the retrained networks and the halves; 0.5 is chance: the network cannot be told from a
      retrained one. NaN with fewer than two samples.
    """
    from sklearn.svm import SVC

    network = arguments.probabilities(probabilities)
    others = [arguments.probabilities(one, "retrained") for one in arguments.several(retrained, "retrained")]
    for one in others:
        arguments.aligned(probabilities=network, retrained=one)
        arguments.same_columns(probabilities=network, retrained=one)
    if len(others) < 2:
        raise ValueError(
            "retrained has one network: give at least 2, so that one can be judged that was not learned from"
        )
    erased = arguments.classes(forget, network.shape[1])
    if len(erased) == network.shape[1]:
        raise ValueError(f"forget has all {len(erased)} classes: at least one must remain")
    if len(network) < 2:
        return float("nan")
    # What the batches of a prediction change in the last bits must not tell networks apart.
    own, *spread = (np.delete(one.astype(np.float64), erased, axis=1).round(6) for one in (network, *others))
    even, odd = slice(0, None, 2), slice(1, None, 2)
    found = []
    for learned, judged in ((even, odd), (odd, even)):
        for left_out, other in enumerate(spread):
            rest = [one[learned] for i, one in enumerate(spread) if i != left_out]
            taught = np.concatenate([own[learned], *rest])
            attack = SVC(class_weight="balanced").fit(taught, np.arange(len(taught)) < len(own[learned]))
            found.append((attack.predict(own[judged]).mean() + 1 - attack.predict(other[judged]).mean()) / 2)
    return float(np.mean(found))
