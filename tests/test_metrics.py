"""Measures on cases with known answers."""

import numpy as np
import pytest

from delete_jax import metrics
from delete_jax.tasks import classification


def test_confusion_adds_up_over_batches():
    labels, predictions = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 0, 2])
    whole = metrics.confusion_matrix(labels, predictions, 4)
    parts = metrics.confusion_matrix(labels[:2], predictions[:2], 4) + metrics.confusion_matrix(
        labels[2:], predictions[2:], 4
    )
    np.testing.assert_array_equal(whole, [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 2, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(whole, parts)
    assert metrics.per_class(whole) == [0.5, 1.0, pytest.approx(2 / 3), None]
    assert metrics.accuracy(whole, [0, 2]) == pytest.approx(3 / 5)
    assert np.isnan(metrics.accuracy(whole, [3]))
    np.testing.assert_allclose(metrics.absorbed_by(whole, [0, 2]), [2 / 5, 1 / 5, 2 / 5, 0])


def test_scores():
    assert metrics.hmean_residual(0.8, 0.0) == pytest.approx(2 * 0.8 / 1.8)
    assert metrics.hmean_residual(0.8, 1.0) == 0
    assert metrics.hmean_drop(0.8, 0.1, 0.9) == pytest.approx(0.8)
    assert metrics.hmean_drop(0.8, 0.9, 0.9) == 0
    assert metrics.aus(0.9, 0.0, 0.9) == 1
    assert metrics.aus(0.8, 1.0, 0.9) == pytest.approx(0.45)


def test_distances():
    p, q = np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[0.0, 1.0], [0.5, 0.5]])
    assert metrics.total_variation(p, q) == pytest.approx(0.5)
    assert metrics.jensen_shannon(p, q) == pytest.approx(np.log(2) / 2)
    assert metrics.agreement(p, q) == 0.5
    for distance in (metrics.total_variation, metrics.jensen_shannon):
        assert distance(p, p) == 0
        assert distance(p, q) == distance(q, p)


def test_a_network_that_always_says_two():
    """Three classes, 0 forgotten; the network answers class 2 with 0.8, class 0 with 0.2."""
    answer = np.tile(np.array([[0.2, 0.0, 0.8]], np.float32), (6, 1))
    labels = np.array([0, 0, 1, 1, 2, 2])
    figures = classification.measure(answer, answer, labels, labels, [0])
    assert (figures["acc_f"], figures["acc_ft"]) == (0, 0)
    assert (figures["acc_r"], figures["acc_rt"]) == (0.5, 0.5)
    assert figures["any_forgotten"] == 0
    assert figures["forget_mass"] == pytest.approx(0.2)
    assert figures["absorbed_by"] == [0, 0, 1]
    assert figures["per_class"] == [0, 0, 1]
    # both 0 and 2 forgotten: own-label accuracy of class 0 is 0, yet all of it lands in a forgotten class
    figures = classification.measure(answer, answer, labels, labels, [0, 2])
    assert figures["any_forgotten"] == 1
    assert figures["forget_mass"] == pytest.approx(1.0)
    against = classification.measure_against(figures, figures, answer, answer[::-1], labels, [0, 2])
    assert against["distance_to_retrained"]["forget"]["total_variation"] == 0
    assert against["aus"] == pytest.approx(1 / (1 + figures["acc_ft"]))


def test_probabilities_of_extreme_logits():
    answer = classification.probabilities(np.array([[1e4, -1e4, 0.0]], np.float32))
    np.testing.assert_allclose(answer, [[1, 0, 0]])
