"""Measures on features, on cases with known answers."""

import numpy as np
import pytest

from delete_jax import metrics

PROBES = [metrics.linear_probe, metrics.nearest_class_mean]


def clusters(rng, n, apart):
    """`[3 n, 6]` around three corners `apart` from the middle, labels 2, 5, 7, interleaved; the features far from 0."""
    labels = np.tile([2, 5, 7], n)
    corners = apart * np.eye(3, 6)
    return (100 + corners[np.arange(3 * n) % 3] + rng.normal(size=(3 * n, 6))).astype(np.float32), labels


@pytest.mark.parametrize("probe", PROBES)
def test_probes_find_what_is_there(probe):
    rng = np.random.default_rng(0)
    train, test = clusters(rng, 100, 20), clusters(rng, 100, 20)
    assert probe(*train, *test, [2, 5, 7]) == 1
    # Two classes' test labels swapped: only the third's are right, and only the classes asked for count.
    swapped = np.where(test[1] == 7, 7, 7 - test[1])
    assert probe(*train, test[0], swapped, [7]) == 1
    assert probe(*train, test[0], swapped, [2]) == 0
    assert probe(*train, test[0], swapped, [2, 5, 7]) == pytest.approx(1 / 3)
    assert np.isnan(probe(*train, *test, [3]))


@pytest.mark.parametrize("probe", PROBES)
def test_probes_find_nothing_in_noise(probe):
    rng = np.random.default_rng(0)
    train, test = clusters(rng, 700, 0), clusters(rng, 700, 0)
    assert probe(*train, *test, [2, 5, 7]) == pytest.approx(1 / 3, abs=0.05)
    train, test = clusters(rng, 700, 20), clusters(rng, 700, 20)
    assert probe(*train, test[0], rng.permutation(test[1]), [2, 5, 7]) == pytest.approx(1 / 3, abs=0.05)


def test_the_probe_standardises():
    """The class is in a feature of 1e-4, beside one of 1e4 that says nothing: at that scale C = 1 would forbid its use."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    features = np.stack([1e-4 * (labels + 0.1 * rng.normal(size=400)), 1e4 * rng.normal(size=400)], -1)
    features = np.concatenate([features, np.full((400, 1), 3.0)], -1)  # and one that never varies
    assert metrics.linear_probe(features[:200], labels[:200], features[200:], labels[200:], [0, 1]) == 1
    assert metrics.nearest_class_mean(features[:200], labels[:200], features[200:], labels[200:], [0, 1]) < 0.7


def test_a_linear_probe_sees_more_than_means():
    """Two thin, long, tilted clusters: a line between them separates, the nearest mean (bound -0.25 + x = 0) does not."""
    along = np.repeat(np.linspace(-10, 10, 101), 2)
    labels = np.tile([0, 1], 101)
    features = np.stack([along + labels / 2, along], -1)
    assert metrics.linear_probe(features, labels, features, labels, [0, 1]) == 1
    # class 0 is taken for 0 where x < 0.25: 51 of its 101 samples, those at -10 ... 0.2
    assert metrics.nearest_class_mean(features, labels, features, labels, [0]) == pytest.approx(
        np.mean(along[labels == 0] < 0.25)
    )


def test_prototype_attack():
    """Class 1's column and bias are erased, its features are e_1; the other classes' samples are labelled wrong."""
    kernel, bias = 3 * np.eye(4, 3, dtype=np.float32), np.zeros(3, np.float32)
    kernel[:, 1], bias[1] = [0, -5, 0, 0], -1000
    features, labels = np.eye(4, dtype=np.float32)[[0, 1, 1, 2]], np.array([2, 1, 1, 0])
    assert metrics.prototype_attack(kernel, bias, 7 * features[1:3], 1, features, labels) == 1
    # A prototype that has nothing of e_1 leaves the class with logit 0, below class 0's 1.5.
    assert metrics.prototype_attack(kernel, bias, np.eye(4)[3:], 1, features[1:3] + 0.5 * features[0], labels[1:3]) == 0
    # nothing is written into the caller's arrays
    assert (kernel[1, 1], bias[1]) == (-5, -1000)


@pytest.mark.parametrize(("weight", "hit"), [(1.9, 1), (2.1, 0)])
def test_prototype_has_the_mean_norm_of_the_others(weight, hit):
    """Columns of norm 1 and 3, so the prototype gets 2 (and bias (0.2 + 0.4) / 2): 2 + 0.3 against 1 * weight + 0.2."""
    kernel, bias = np.array([[1.0, 0, 50], [0, 3, 50], [0, 0, 50]]), np.array([0.2, 0.4, 9])
    feature = np.array([[weight, 0, 1]])
    prototype = np.array([[0, 0, 0.01], [0, 0, 0.03]])
    assert metrics.prototype_attack(kernel, bias, prototype, 2, feature, np.array([2])) == hit


def hsic_cka(a, b):
    """By the definition, with sample-space matrices: HSIC(K, L) = tr(K H L H)."""
    n = len(a)
    centre = np.eye(n) - np.full((n, n), 1 / n)
    k, m = a @ a.T, b @ b.T

    def hsic(k, m):
        return np.trace(k @ centre @ m @ centre)

    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def test_cka():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 8)) + 5, rng.normal(size=(50, 12)) - 3
    b[:, :4] += 2 * a[:, :4]
    rotation = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    assert metrics.linear_cka(a, a) == pytest.approx(1)
    assert metrics.linear_cka(a, -0.3 * a @ rotation + 10) == pytest.approx(1)
    assert metrics.linear_cka(a @ rotation, b) == pytest.approx(metrics.linear_cka(a, b))
    assert metrics.linear_cka(a, b) == pytest.approx(hsic_cka(a, b), rel=1e-9)
    assert metrics.linear_cka(a, b) == pytest.approx(metrics.linear_cka(b, a))
    assert 0.1 < metrics.linear_cka(a, b) < 0.9
    # any other linear map does change it
    assert metrics.linear_cka(a, a * np.arange(8)) < 0.95


def test_cka_by_hand():
    a = np.array([[1.0], [-1], [1], [-1]])
    b = np.array([[1.0], [1], [-1], [-1]])
    assert metrics.linear_cka(a, b + 7) == 0
    # ‖[1, 1]·4‖² / (4 · ‖4 I‖) = 16 / (4 · 4 √2)
    assert metrics.linear_cka(a, np.concatenate([a, b], -1)) == pytest.approx(1 / np.sqrt(2))
    assert np.isnan(metrics.linear_cka(a, np.ones((4, 2))))


def test_relearn_steps():
    steps = np.array([0, 5, 10, 20])
    assert metrics.relearn_steps(np.array([0.0, 0.2, 0.45, 0.3]), steps, 0.9) == 10
    assert metrics.relearn_steps(np.array([0.0, 0.2, 0.44, 0.3]), steps, 0.9) is None
    assert metrics.relearn_steps(np.array([0.5, 0.2, 0.9, 0.9]), steps, 0.9) == 0
