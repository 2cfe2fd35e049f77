"""What is left of a class, on networks whose answers are known."""

import numpy as np
import pytest

from delete_jax import metrics


def test_the_order_of_probabilities_gives_a_class_away():
    """Class 2 is never answered, and its samples have the largest probability of it among all."""
    labels = np.array([0, 0, 1, 1, 2, 2])
    mass = np.array([1e-9, 1e-8, 1e-7, 1e-9, 1e-5, 1e-6])
    p = np.stack([0.9 * np.ones(6), 0.1 - mass, mass], -1)
    assert (p.argmax(-1) != 2).all()
    assert metrics.residual_auc(p, labels, [2]) == 1
    assert metrics.residual_auc(np.full((6, 3), 1 / 3), labels, [2]) == 0.5
    swapped = p[[4, 5, 2, 3, 0, 1]]
    assert metrics.residual_auc(swapped, labels, [2]) == pytest.approx(np.mean([0, 0, 0, 0.5, 0, 0, 0, 1]))
    assert np.isnan(metrics.residual_auc(p[:4], labels[:4], [2]))


def clusters(rng, n, apart):
    labels = np.tile([0, 1, 2], n)
    return apart * np.eye(3, 5)[labels] + rng.normal(size=(3 * n, 5)) + 50, labels


def test_few_labels():
    rng = np.random.default_rng(0)
    train, test = clusters(rng, 60, 20), clusters(rng, 60, 20)
    for per_class in (10, None):
        assert metrics.few_label_probe(*train, *test, [2], per_class) == (1, 1)
    assert min(metrics.few_label_probe(*train, *test, [2], 1)) > 0.7  # the noise, too, is standardised by three images
    noise = clusters(rng, 600, 0), clusters(rng, 600, 0)
    erased, others = metrics.few_label_probe(*noise[0], *noise[1], [2], 10)
    assert erased == pytest.approx(1 / 3, abs=0.08)
    assert others == pytest.approx(1 / 3, abs=0.08)
    # nothing but the labels that are drawn is used, the draws are those of the seed
    near = clusters(rng, 60, 1.5), clusters(rng, 60, 1.5)
    few = metrics.few_label_probe(*near[0], *near[1], [2], 1, seed=1)
    assert few == metrics.few_label_probe(*near[0], *near[1], [2], 1, seed=1)
    assert few != metrics.few_label_probe(*near[0], *near[1], [2], 1, seed=2)
    assert sum(few) < sum(metrics.few_label_probe(*near[0], *near[1], [2], None))


def test_centred_prototypes():
    """Features far from zero: without centring every cosine is nearly one."""
    rng = np.random.default_rng(0)
    train, test = clusters(rng, 40, 8), clusters(rng, 40, 8)
    for shots in (1, 5, None):
        assert metrics.centred_prototypes(*train, *test, [2], shots) > 0.9
    same = np.where(train[1] == 2, 1, train[1]), np.where(test[1] == 2, 1, test[1])
    assert np.isnan(metrics.centred_prototypes(train[0], same[0], test[0], same[1], [2], 1))
    # The attacker's images of class 2 show class 1 instead: its own samples then go to either.
    wrong = np.where((train[1] == 2)[:, None], train[0][1], train[0])
    assert metrics.centred_prototypes(wrong, train[1], *test, [2], None) < 0.7


def test_head_trace():
    kernel = np.array([[3.0, 0, 1, 2], [0, 0, 0, 0]])
    bias = np.array([0.0, 5, 5, -1])
    assert metrics.head_trace(kernel, bias, [1]) == (0, pytest.approx(2.5 / 3))
    assert metrics.head_trace(kernel, bias, [0]) == (1, pytest.approx(1 / 3))
    assert metrics.head_trace(kernel, bias, [0, 1, 2, 3]) == (0.5, 0.5)
