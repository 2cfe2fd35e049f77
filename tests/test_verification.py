"""Verification on scores and features with known answers, and against scikit-learn's ROC."""

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from delete_jax import metrics
from delete_jax.metrics import Scores


def test_pairs():
    features = np.array([[2.0, 0], [3, 0], [0, 5], [0, 1]])
    scores = metrics.pair_scores(features, np.array([0, 0, 1, 1]))
    assert sorted(scores.genuine) == [1, 1]
    assert scores.impostor.tolist() == [0, 0, 0, 0]
    more = metrics.pair_scores(features, np.array([0, 0, 1, 1]), others=np.array([[-1.0, 0]]))
    assert sorted(more.impostor) == [-1, -1, 0, 0, 0, 0, 0, 0]


def test_roc_is_scikit_learns():
    rng = np.random.default_rng(0)
    scores = Scores(rng.normal(1, 1, 200).round(1), rng.normal(0, 1, 300).round(1))  # rounded: with ties
    false, true = metrics.roc(scores)
    expected_false, expected_true, _ = roc_curve(np.arange(500) < 200, np.concatenate(scores), drop_intermediate=False)
    np.testing.assert_allclose(false, expected_false, rtol=1e-12)
    np.testing.assert_allclose(true, expected_true, rtol=1e-12)


@pytest.mark.parametrize(
    ("genuine", "impostor", "eer", "tar"),
    [
        ([0.9, 0.8], [0.1, 0.2, 0.3], 0.0, 1.0),
        ([0.1, 0.2], [0.8, 0.9], 1.0, 0.0),
        ([0.5, 0.5], [0.5, 0.5], 0.5, 0.0),
        ([0.9, 0.8, 0.4, 0.3], [0.7, 0.2, 0.1, 0.0], 0.25, 0.5),
    ],
)
def test_rates_by_hand(genuine, impostor, eer, tar):
    scores = Scores(np.array(genuine), np.array(impostor))
    assert metrics.equal_error_rate(scores) == pytest.approx(eer)
    assert metrics.true_acceptance(scores) == pytest.approx(tar)


def test_equal_error_rate_of_two_gaussians():
    """Means d apart with unit variance: the rates are equal at d/2, where both are Φ(-d/2); 0.3085 for d = 1."""
    rng = np.random.default_rng(0)
    scores = Scores(rng.normal(1, 1, 200_000), rng.normal(0, 1, 200_000))
    assert metrics.equal_error_rate(scores) == pytest.approx(0.3085, abs=0.003)
    assert metrics.true_acceptance(scores, 0.01) == pytest.approx(0.0924, abs=0.004)  # Φ(1 - 2.326)


def test_rank_one():
    features = np.array([[1.0, 0], [1, 0.1], [0, 1], [1, 0.05]])
    assert metrics.rank_one(features, np.array([0, 0, 1, 1])) == pytest.approx(0)
    assert metrics.rank_one(features, np.array([0, 0, 1, 0])) == pytest.approx(0.75)
    assert np.isnan(metrics.rank_one(features[:1], np.array([0])))
