"""Membership with many networks: cases whose answer is known in closed form."""

import numpy as np
import pytest
from scipy.stats import norm

from delete_jax import metrics


def populations(difference, samples=200, networks=16, seed=0):
    """Confidences with deviation 1 around a mean for each sample, which is higher by `difference` where it was unlearned."""
    rng = np.random.default_rng(seed)
    means = rng.normal(0, 5, samples)
    return (
        [rng.normal(mean + difference, 1, networks) for mean in means],
        [rng.normal(mean, 1, networks) for mean in means],
    )


@pytest.mark.parametrize("difference", [1.0, -2.0, 6.0])
def test_two_normal_distributions(difference):
    """The best test of two normal distributions has a known ROC curve; with 16 networks the means are nearly known."""
    found = metrics.unlearned_likelihood_ratio(*populations(difference))
    distance = abs(difference)
    assert found.auc == pytest.approx(norm.cdf(distance / np.sqrt(2)), abs=0.03)
    assert found.accuracy == pytest.approx(norm.cdf(distance / 2), abs=0.03)
    assert found.found == pytest.approx(norm.cdf(distance + norm.ppf(0.01)), abs=0.05)


def test_nothing_to_find():
    found = metrics.unlearned_likelihood_ratio(*populations(0.0))
    assert found.auc == pytest.approx(0.5, abs=0.03)
    assert found.accuracy == pytest.approx(0.5, abs=0.03)
    assert found.found == pytest.approx(0.01, abs=0.01)


@pytest.mark.parametrize(("few", "many"), [(2, 2), (2, 9), (9, 3)])
def test_few_networks_are_no_advantage(few, many):
    """With its own confidence in the mean a case would look like its own group; left out of that one alone, like the other."""
    rng = np.random.default_rng(0)
    groups = [[rng.normal(0, 1, count) for _ in range(2000)] for count in (few, many)]
    found = metrics.unlearned_likelihood_ratio(*groups)
    assert found.auc == pytest.approx(0.5, abs=0.02)
    assert found.accuracy == pytest.approx(0.5, abs=0.02)


def test_one_mean_for_all_would_not_do():
    """What tells the groups apart is a difference within each sample, far smaller than those between samples."""
    unlearned, never = populations(3.0)
    found = metrics.unlearned_likelihood_ratio(unlearned, never)
    assert found.auc > 0.95
    assert abs(np.mean(unlearned) - np.mean(never)) < np.std(never)


def test_too_few_networks():
    for groups in [([], []), ([np.zeros(2)], [np.zeros(1)]), ([np.zeros(2)], [np.zeros(2), np.zeros(2)])]:
        with pytest.raises(
            ValueError,
            match=r"at least two confidences of each kind: train more networks|is empty: give at least one array",
        ):
            metrics.unlearned_likelihood_ratio(*groups)


def test_logit_confidence():
    p = np.array([[0.75, 0.2, 0.05], [0.1, 0.6, 0.3]])
    found = metrics.logit_confidence(np.log(p) + 3, np.array([0, 2]))
    np.testing.assert_allclose(found, np.log([0.75 / 0.25, 0.3 / 0.7]), rtol=1e-12)
    sure = metrics.logit_confidence(np.float32([[100, 0], [0, 100]]), np.array([0, 0]))
    np.testing.assert_allclose(sure, [100, -100])
