"""Does the network still know the class inside? Figures on its features, float `[n, d]`: the inputs of its last layer.

A network trained without the class scores high on these too: what counts is the gap to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from delete_jax.given import integer
from delete_jax.metrics import arguments
from delete_jax.metrics.arguments import Classes


def linear_probe(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    classes: Classes,
) -> float:
    """Computes the accuracy of a logistic regression (L2, C = 1) on standardised features. Nearer to the retrained network's is better.

    Args:
      train_features, train_labels: `[n, d]` and int `[n]`: training samples of all classes, including the forgotten ones.
      test_features, test_labels: `[m, d]` and int `[m]`.
      classes: those whose test samples count, where there are training samples of their class. NaN if there are none.

    Raises:
      ValueError: another shape, a feature that is not finite, labels that are no integers, or a mask over classes.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known = arguments.training_and_test(train_features, train_labels, test_features, test_labels)
    train_features, train_labels, test_features, test_labels = known
    counted = arguments.classes(classes, name="classes")
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    probe.fit(train_features.astype(np.float64), train_labels)
    answers = arguments.predicted(probe.predict, test_features)
    return arguments.accuracy_of_taught(answers, test_labels, np.isin(test_labels, counted), train_labels)


def nearest_class_mean(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    classes: Classes,
) -> float:
    """Computes the accuracy of predicting the class with the nearest (Euclidean) mean of training features.

    Arguments and direction are those of `linear_probe`."""
    from sklearn.metrics import pairwise_distances_argmin

    given = arguments.training_and_test(train_features, train_labels, test_features, test_labels)
    train_features, train_labels, test_features, test_labels = given
    counted = arguments.classes(classes, name="classes")
    known = np.unique(train_labels)
    means = np.stack([train_features[train_labels == class_].mean(0, dtype=np.float64) for class_ in known])
    nearest = arguments.predicted(lambda rows: pairwise_distances_argmin(rows, means), test_features)
    return arguments.accuracy_of_taught(known[nearest], test_labels, np.isin(test_labels, counted), train_labels)


def prototype_attack(
    kernel: np.ndarray,
    bias: np.ndarray,
    prototype_features: np.ndarray,
    class_: int,
    test_features: np.ndarray,
    test_labels: np.ndarray,
) -> float:
    """Computes the accuracy on a class after a few of its samples have rewritten its part of the last layer; lower is better.

    The class's column becomes the mean feature of the samples, scaled to the mean norm of the other classes' columns. Its bias
    becomes the mean of theirs. Nothing remains of what unlearning did to the class in the last layer. If all features are
    positive (after a ReLU), such a column may win for every class, and the value is 1 for any network. Compare it with the
    retrained network's.

    Args:
      kernel, bias: `[d, k]` and `[k]`: the last layer, logits = features @ kernel + bias.
      prototype_features: `[n, d]`, of n samples of the class.
      class_: the forgotten class.
      test_features, test_labels: `[m, d]` and int `[m]`; only samples of the class count. NaN if there are none.

    Raises:
      ValueError: another shape, a number that is not finite, or a class that the layer does not have.
    """
    kernel, bias = arguments.layer(kernel, bias)
    prototype_features = arguments.features(prototype_features, "prototype_features")
    if not len(prototype_features):
        raise ValueError("prototype_features is empty: give features of at least one sample of the class")
    test_features, test_labels = arguments.samples(test_features, test_labels, "test_features", "test_labels")
    arguments.same_columns(kernel=kernel.T, prototype_features=prototype_features, test_features=test_features)
    class_ = integer("class_", class_, 0, len(bias) - 1)
    others = np.arange(len(bias)) != class_
    prototype = prototype_features.mean(0, dtype=np.float64)
    kernel, bias = kernel.astype(np.float64), bias.astype(np.float64)
    norm = np.linalg.norm(kernel[:, others], axis=0).mean()
    kernel[:, class_] = prototype * norm / max(np.linalg.norm(prototype), 1e-30)
    bias[class_] = bias[others].mean()
    own = test_labels == class_
    return arguments.mean((test_features[own] @ kernel + bias).argmax(-1) == class_)


def linear_cka(a: np.ndarray, b: np.ndarray) -> float:
    """Computes `‖bᵀa‖² / (‖aᵀa‖ ‖bᵀb‖)` with Frobenius norms, on centred features (arXiv 1905.00414).

    The value is in [0, 1]; it is 1 if the features are the same up to rotation and one scale. `a` and `b` are `[n, d1]` and
    `[n, d2]`, of the same samples. NaN if either does not vary.
    """
    a, b = (arguments.features(value, name).astype(np.float64) for value, name in ((a, "a"), (b, "b")))
    arguments.aligned(a=a, b=b)
    if not len(a):
        return float("nan")
    a, b = a - a.mean(0), b - b.mean(0)
    norms = np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)
    return float(np.linalg.norm(b.T @ a) ** 2 / norms) if norms else float("nan")


def relearn_steps(accuracies: Sequence[float], steps: Sequence[int], original: float) -> int | None:
    """Steps of fine-tuning on a few forgotten samples until half of the accuracy is back. Nearer to the retrained network's is better.

    Args:
      accuracies: float `[t + 1]`, `acc_ft` before and during the fine-tuning.
      steps: int `[t + 1]`, rising: the steps at which they were measured.
      original: `acc_ft` of the network before unlearning.

    Returns:
      The first of `steps` with at least half of the original's accuracy; None if no step has.
    """
    values, at = arguments.features(accuracies, "accuracies", "[t + 1]"), arguments.labels(steps, "steps")
    arguments.aligned(accuracies=values, steps=at)
    enough = at[values >= arguments.fraction(original, "original") / 2]
    return int(enough[0]) if len(enough) else None
