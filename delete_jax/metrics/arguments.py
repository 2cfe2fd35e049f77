"""What metrics are given, read and checked by one rule each: labels, probabilities, logits, features, counts and class numbers.

Arrays and tensors of any library become NumPy's. What could be taken for something else (a mask for class numbers, logits for
probabilities, a column for a vector) is refused in one line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np

from delete_jax.data.dataset import IGNORE
from delete_jax.given import array, class_numbers, is_masked, is_truth, scalar, shown

Classes = int | Iterable[int]
"""One class number or several."""

TOLERANCE = 1e-2
"""By how much a row of probabilities may miss the sum of 1: bfloat16 rounds each by up to 0.4 %, also where float32 holds it later."""


def classes(value: Any, num_classes: int | None = None, name: str = "forget") -> list[int]:
    """Checks class numbers; returns each once, in the order given.

    Args:
      value: one, or a list, tuple, set, range or one-dimensional array of them.
      num_classes: k, where it is known.
      name: what they are, for the message.

    Raises:
      ValueError: a mask, something else that is no integer, or a class outside of 0 to k - 1.

    Examples:
      >>> from delete_jax.metrics import arguments
      >>> arguments.classes([3, 1, 3], 4)
      [3, 1]
    """
    return list(dict.fromkeys(class_numbers(value, num_classes, name)))


def labels(value: Any, name: str = "labels", num_classes: int | None = None, *, maps: bool = False) -> np.ndarray:
    """Checks class numbers of samples, int64 `[n]`; where `maps`, also of pixels, int `[n, h, w]`.

    Args:
      num_classes: k, where it is known. In maps, 255 is allowed beside 0 to k - 1.

    Raises:
      ValueError: another shape, no integers, or a label outside of 0 to k - 1.

    Examples:
      >>> import numpy as np
      >>> from delete_jax.metrics import arguments
      >>> arguments.labels(np.uint8([0, 2]), num_classes=3)
      array([0, 2])
    """
    found = array(value, name)
    if found.ndim == 1 and not found.size:  # of an empty list, NumPy makes floats
        found = found.astype(np.int64)
    shapes = "[n] or maps [n, h, w]" if maps else "[n]"
    if is_truth(found):
        raise ValueError(f"{name} must be class numbers, integers {shapes}, got truth values: give the classes")
    if found.ndim not in ((1, 3) if maps else (1,)) or not np.issubdtype(found.dtype, np.integer):
        column = found.ndim > 1 and found.shape[-1] == 1
        hint = "take [..., 0]" if column else "of scores or one-hot rows, take .argmax(-1)"
        raise ValueError(
            f"{name} must be class numbers, integers {shapes}, got {found.dtype} of shape {found.shape}: {hint}"
        )
    if not found.size:
        return found
    low, high = int(found.min()), int(found.max())
    if num_classes is not None and high >= num_classes and found.ndim > 1:
        high = int(found.max(initial=0, where=found != IGNORE))
    if low < 0 or (num_classes is not None and high >= num_classes):
        ends = "from 0" if num_classes is None else f"0 to {num_classes - 1}"
        ignored = f", and {IGNORE} for pixels to ignore" if found.ndim > 1 else ""
        raise ValueError(f"{name}: there is no class {low if low < 0 else high}: the classes are {ends}{ignored}")
    return found.astype(np.int64, copy=False) if found.ndim == 1 else found


def probabilities(value: Any, name: str = "probabilities") -> np.ndarray:
    """Probabilities of classes, float `[n, k]`.

    Raises:
      ValueError: another shape, a value that is not in [0, 1], or a row whose sum is not 1.
    """
    found = _table(value, name, "[n, k]", " of probabilities, got predicted classes or one column")
    if found.size:
        low, high, sums = found.min(), found.max(), found.sum(-1, dtype=np.float64)
        _check_finite(low, high, name)
        if (
            low < -1e-6 or high > 1 + TOLERANCE
        ):  # a softmax in float32 may round below 0 where it is computed as a difference
            raise ValueError(
                f"{name} must be probabilities in [0, 1], got values from {low:.3g} to {high:.3g}: apply softmax first"
            )
        worst = sums[np.abs(sums - 1).argmax()]
        if abs(worst - 1) > TOLERANCE:
            raise ValueError(
                f"{name} must be probabilities whose rows sum to 1, got a sum of {worst:.3g}: apply softmax first"
            )
    return found


def logits(value: Any, name: str = "logits") -> np.ndarray:
    """Logits, or other scores of classes, float `[n, k]`; -inf is one, of a class that is never predicted.

    Raises:
      ValueError: another shape, a NaN or an infinite value.
    """
    found = _table(value, name, "[n, k]", " of scores, got predicted classes or one column")
    if found.size and not found.max() < np.inf:
        raise ValueError(f"{name} must be numbers, got {found.max()}: the network that gave them has diverged")
    return found


def features(value: Any, name: str = "features", axes: str = "[n, d]") -> np.ndarray:
    """Features, or another table of finite numbers, float `[n, d]`; or a vector, where `axes` says so.

    Raises:
      ValueError: another shape, or a value that is not finite.
    """
    found = _floats(_numbers(value, name, axes))
    if found.size:
        _check_finite(found.min(), found.max(), name)
    return found


def confusion(value: Any, name: str = "confusion") -> np.ndarray:
    """Checks a confusion matrix, counts `[k, k]`.

    Raises:
      ValueError: another shape, or a value that is no count.
    """
    found = _numbers(value, name, "[k, k]")
    if found.shape[0] != found.shape[1] or not found.size:
        raise ValueError(
            f"{name} must be [k, k], rows true classes and columns predicted ones, got shape {found.shape}"
        )
    low, high = found.min(), found.max()
    _check_finite(low, high, name)
    if low < 0:
        raise ValueError(f"{name} must be counts, from 0, got {low}")
    return found.astype(np.float64) if found.dtype.kind not in "iu" else found  # sums of half precision overflow


def fraction(value: Any, name: str) -> float:
    """Checks a number from 0 to 1; or NaN, of nothing that was counted.

    Raises:
      ValueError: it is something else, such as a percentage.
    """
    number = scalar(value)
    if isinstance(number, bool) or not isinstance(number, (int, float)) or number < 0 or number > 1 + 1e-6:
        raise ValueError(f"{name} must be a fraction from 0 to 1, not a percentage, got {shown(value)}")
    return float(number)


def aligned(**columns: np.ndarray) -> None:
    """Checks that labels `[n]`, tables `[n, d]` and maps `[n, h, w]` are of the same samples, and maps of the same pixels.

    Args:
      columns: the arrays by their names.

    Raises:
      ValueError: their numbers of samples, or the sizes of maps, differ.
    """
    if len({found.shape[:1] if found.ndim == 2 else found.shape for found in columns.values()}) > 1:
        given = ", ".join(f"{name} {found.shape}" for name, found in columns.items())
        raise ValueError(
            f"{' and '.join(columns)} must be of the same samples, in the same order, got the shapes {given}"
        )


def same_columns(**tables: np.ndarray) -> None:
    """Checks that tables `[n, d]` have as many columns each.

    Raises:
      ValueError: they differ there.
    """
    if len({found.shape[1] for found in tables.values()}) > 1:
        given = ", ".join(f"{name} {found.shape[1]}" for name, found in tables.items())
        raise ValueError(
            f"{' and '.join(tables)} must be of the same layer and the same classes: got as columns {given}"
        )


def layer(kernel: Any, bias: Any) -> tuple[np.ndarray, np.ndarray]:
    """Checks the last layer's kernel `[d, k]` and bias `[k]`: logits = features @ kernel + bias.

    Raises:
      ValueError: another shape, or a number that is not finite.
    """
    kernel, bias = features(kernel, "kernel", "[d, k]"), features(bias, "bias", "[k]")
    if kernel.shape[1] != len(bias):
        raise ValueError(
            f"kernel must be [d, k] and bias [k], got {kernel.shape} and {bias.shape}: transpose the kernel of PyTorch"
        )
    return kernel, bias


def samples(
    given_features: Any, given_labels: Any, features_name: str, labels_name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Features float `[n, d]` and the labels int `[n]` of the same samples.

    Raises:
      ValueError: one of them is something else, or they are of different samples.
    """
    found = {features_name: features(given_features, features_name), labels_name: labels(given_labels, labels_name)}
    aligned(**found)
    return found[features_name], found[labels_name]


def training_and_test(
    train_features: Any, train_labels: Any, test_features: Any, test_labels: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features `[n, d]` and labels `[n]` to learn from, and features `[m, d]` and labels `[m]` to measure on.

    Raises:
      ValueError: one of them is something else, there is nothing to learn from, or the features are of different networks.
    """
    train = samples(train_features, train_labels, "train_features", "train_labels")
    test = samples(test_features, test_labels, "test_features", "test_labels")
    if not len(train[1]):
        raise ValueError("train_features is empty: give training samples of all classes")
    same_columns(train_features=train[0], test_features=test[0])
    return *train, *test


def several(value: Any, name: str) -> list[Any]:
    """Lists the entries of a list of arrays, or of an array with one more axis.

    Raises:
      ValueError: it is no list, or an empty one.
    """
    if is_masked(value) or not isinstance(value, Iterable):
        raise ValueError(f"{name} must be a list of arrays, got {shown(value)}")
    if not (found := list(value)):
        raise ValueError(f"{name} is empty: give at least one array")
    return found


def predicted(predict: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> np.ndarray:
    """What a classifier of scikit-learn predicts for features `[m, d]`: int `[m]`, also where there are none."""
    return predict(rows.astype(np.float64)) if len(rows) else np.zeros(0, np.int64)


def accuracy_of_taught(answers: np.ndarray, labels: np.ndarray, counted: np.ndarray, taught: np.ndarray) -> float:
    """Computes how many of the `counted` samples (bool `[m]`) are right, of classes that are among the labels `taught`; NaN without any:
    that a class is not recognised which nobody was taught says nothing of the features."""
    counted = counted & np.isin(labels, taught)
    return mean(answers[counted] == labels[counted])


def mean(values: np.ndarray) -> float:
    """Computes the mean; NaN of nothing."""
    return float(np.mean(values)) if len(values) else float("nan")


def _numbers(value: Any, name: str, axes: str) -> np.ndarray:
    """Real numbers with as many axes as `axes` names, such as "[n, d]"."""
    found = array(value, name)
    is_real = jnp.issubdtype(found.dtype, jnp.floating) or np.issubdtype(found.dtype, np.integer)
    if not is_real or found.ndim != axes.count(",") + 1:
        raise ValueError(f"{name} must be numbers {axes}, got {found.dtype} of shape {found.shape}")
    return found


def _floats(found: np.ndarray) -> np.ndarray:
    """As float32 or wider: sums and differences in fewer bits, or of unsigned integers, would be wrong."""
    if np.issubdtype(found.dtype, np.integer):
        return found.astype(np.float64)
    return found if found.dtype.itemsize >= 4 else found.astype(np.float32)


def _table(value: Any, name: str, axes: str, instead: str) -> np.ndarray:
    found = array(value, name)
    if found.ndim == 1 or (found.ndim == 2 and found.shape[1] < 2):
        raise ValueError(f"{name} must be a table {axes}{instead}: {found.dtype} of shape {found.shape}")
    return _floats(_numbers(found, name, axes))


def _check_finite(low: Any, high: Any, name: str) -> None:
    if not (np.isfinite(low) and np.isfinite(high)):
        wrong = high if np.isfinite(low) else low
        raise ValueError(f"{name} must be finite numbers, got {wrong}")
