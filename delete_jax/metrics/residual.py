"""What is left of an erased class: figures that see it where the answers no longer show it.

A network that was never taught the class is no blank either: each figure counts beside that of such a network. A lower
one is not better, it is another trace.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from delete_jax.given import integer
from delete_jax.metrics import arguments
from delete_jax.metrics.arguments import Classes
from delete_jax.metrics.distances import total_variation


def residual_auc(probabilities: np.ndarray, labels: np.ndarray, forget: Classes) -> float:
    """Tests whether the *order* of the probabilities gives the class away, even if all of them are small.

    Args:
      probabilities: float `[n, k]`, on test samples of all classes.
      labels: int `[n]`, true classes.
      forget: the erased classes.

    Raises:
      ValueError: another shape, rows that are no probabilities, such as logits, a label or an erased class that is no class.

    Returns:
      The area under the ROC curve of the probability on the erased classes, their samples against all others: the share of pairs of an
      erased and another sample in which the erased one has more; ties count half. At 1, anyone who can query probabilities finds all of
      them; at 0.5, the order says nothing. Probabilities that agree to five digits are equal. NaN without samples of both kinds.

    Examples:
      The erased class 0 is never predicted, and its small probability still ranks the images:

      >>> import numpy as np
      >>> from delete_jax import metrics
      >>> probabilities = np.array([[0.10, 0.90], [0.09, 0.91], [0.01, 0.99], [0.02, 0.98]])
      >>> metrics.residual_auc(probabilities, np.array([0, 0, 1, 1]), forget=[0])
      1.0
    """
    probabilities = arguments.probabilities(probabilities)
    labels = arguments.labels(labels, "labels", probabilities.shape[1])
    arguments.aligned(probabilities=probabilities, labels=labels)
    erased = arguments.classes(forget, probabilities.shape[1])
    left = probabilities[:, erased].astype(np.float64).sum(-1)
    # Those that a network computes as a constant differ by the rounding of float32.
    order = np.round(np.log(np.maximum(left, np.finfo(np.float64).tiny)), 5)
    return auc(np.isin(labels, erased), order)


def auc(hit: np.ndarray, score: np.ndarray) -> float:
    """The area under the ROC curve of a score `[n]` by which samples are taken for those of `hit`, bool `[n]`; NaN unless there are both
    kinds."""
    from sklearn.metrics import roc_auc_score

    return float("nan") if hit.all() or not hit.any() else float(roc_auc_score(hit, score))


def draw_few(labels: np.ndarray, per_class: int | None, *, draws: int = 5, seed: int = 0) -> list[np.ndarray]:
    """Draws a few samples of each class, several times.

    Args:
      labels: int `[n]`.
      per_class: samples of each class, or all if it has fewer. If None, all samples in one draw.
      draws: number of draws.
      seed: of the draws.

    Raises:
      ValueError: there are no labels, or one of the numbers is out of its range.

    Returns:
      The indices of the samples, int `[samples]`, for each draw.
    """
    labels, found = arguments.labels(labels), []
    if not len(labels):
        raise ValueError("labels is empty: give those of the training samples")
    draws, seed = integer("draws", draws, 1), integer("seed", seed, 0)
    per_class = None if per_class is None else integer("per_class", per_class, 1)
    for draw in range(1 if per_class is None else draws):
        order = np.random.default_rng([seed, draw]).permutation(len(labels))
        found.append(np.concatenate([order[labels[order] == class_][:per_class] for class_ in np.unique(labels)]))
    return found


def few_label_probe(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    forget: Classes,
    draws: Sequence[np.ndarray],
) -> tuple[float, float]:
    """Computes the accuracy that someone reaches who has the weights and a few labelled images of each class.

    The attack is a multinomial logistic regression (L2, C = 1) on standardised features; the values are means over draws of the images.

    Args:
      train_features, train_labels: `[n, d]` and int `[n]`, of all classes, including the erased ones.
      test_features, test_labels: `[m, d]` and int `[m]`.
      forget: the erased classes.
      draws: the training samples of each probe (`draw_few`).

    Returns:
      Accuracy on test samples of the erased classes and of the remaining classes. Worse features lower both. Samples of a class of which
      a draw has none do not count in it; NaN without samples.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known = arguments.training_and_test(train_features, train_labels, test_features, test_labels)
    train_features, train_labels, test_features, test_labels = known
    hit, found = np.isin(test_labels, arguments.classes(forget)), []
    for draw in arguments.several(draws, "draws"):
        some = arguments.labels(draw, "draws: a draw", len(train_labels))
        if len(np.unique(train_labels[some])) < 2:
            raise ValueError("draws: a draw has samples of fewer than two classes: draw some of each, as draw_few does")
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        probe.fit(train_features[some].astype(np.float64), train_labels[some])
        answers = arguments.predicted(probe.predict, test_features)
        found.append(
            [arguments.accuracy_of_taught(answers, test_labels, part, train_labels[some]) for part in (hit, ~hit)]
        )
    erased, others = np.mean(found, axis=0)
    return float(erased), float(others)


def over_unlearning(original: np.ndarray, network: np.ndarray, forget: Classes) -> float:
    """Computes the distance to the original without the erased classes, near the erased samples (OU@ε, arXiv 2506.01318).

    Args:
      original, network: logits float `[n, k]` on slightly perturbed samples of the erased classes.
      forget: the erased classes.

    Returns:
      The mean total variation between the original's softmax, with the erased classes' logits at -inf, and the network's; 0 to 1.
    """
    from scipy.special import softmax

    original, network = arguments.logits(original, "original"), arguments.logits(network, "network")
    arguments.aligned(original=original, network=network)
    arguments.same_columns(original=original, network=network)
    erased = np.isin(np.arange(original.shape[-1]), arguments.classes(forget, original.shape[-1]))
    if erased.all():
        raise ValueError(f"forget has all {len(erased)} classes: at least one must remain")
    masked = np.where(erased, -np.inf, original.astype(np.float64))
    return total_variation(softmax(masked, axis=-1), softmax(network.astype(np.float64), axis=-1))


def centred_prototypes(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    forget: Classes,
    *,
    shots: int | None,
) -> float:
    """Computes the accuracy on the erased classes of predicting the nearest prototype by cosine, given a few images of these classes.

    Features are centred by the mean of the remaining classes' training features. Otherwise one prototype would win for every
    sample if all features are positive, as after a ReLU. The remaining classes' prototypes are the means of all their images.

    Args:
      train_features, train_labels: `[n, d]` and int `[n]`, of all classes.
      test_features, test_labels: `[m, d]` and int `[m]`.
      forget: the erased classes.
      shots: number of images of each erased class, the first ones in the data; all if None.

    Returns:
      The accuracy on test samples of those of the erased classes that have training samples; NaN if there are none.
    """
    known_to = arguments.training_and_test(train_features, train_labels, test_features, test_labels)
    train_features, train_labels, test_features, test_labels = known_to
    forgotten = arguments.classes(forget)
    shots = None if shots is None else integer("shots", shots, 1)
    erased = np.isin(train_labels, forgotten)
    if erased.all():
        raise ValueError("train_labels has erased classes alone: give training samples of the remaining classes, too")
    centre = train_features[~erased].mean(0, dtype=np.float64)
    known = np.unique(train_labels)

    def prototype(class_: int) -> np.ndarray:
        rows = np.flatnonzero(train_labels == class_)
        return train_features[rows[:shots] if class_ in forgotten else rows].mean(0, dtype=np.float64) - centre

    prototypes = np.stack([_unit(prototype(class_)) for class_ in known])
    answers = known[(_unit(test_features.astype(np.float64) - centre) @ prototypes.T).argmax(-1)]
    return arguments.accuracy_of_taught(answers, test_labels, np.isin(test_labels, forgotten), known)


def head_trace(kernel: np.ndarray, bias: np.ndarray, forget: Classes) -> tuple[float, float]:
    """Tests whether the last layer itself gives away which class was erased.

    Args:
      kernel, bias: `[d, k]` and `[k]`.
      forget: the erased classes.

    Returns:
      The mean rank of the erased classes' row norms, and of their biases, among all classes, from 0 (smallest) to 1 (largest). If
      nothing shows, the mean over classes is near 0.5. NaN without erased classes.
    """
    kernel, bias = arguments.layer(kernel, bias)
    erased = arguments.classes(forget, len(bias))
    norms = np.linalg.norm(kernel.astype(np.float64), axis=0)

    def rank(values: np.ndarray) -> float:
        below = (values[None, :] < values[:, None]).sum(-1) + ((values[None, :] == values[:, None]).sum(-1) - 1) / 2
        return arguments.mean((below / max(len(values) - 1, 1))[erased])

    return rank(norms), rank(bias.astype(np.float64))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-30)
