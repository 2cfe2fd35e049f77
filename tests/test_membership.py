"""Membership attacks: cases with known answers, and the published code's figures (`goldens/mia.npz`)."""

import pathlib
import re

import numpy as np
import pytest

from delete_jax import metrics

GOLDEN = np.load(pathlib.Path(__file__).parent / "goldens" / "mia.npz")
# our name -> the published code's
FEATURES = {
    "correctness": "correctness",
    "confidence": "confidence",
    "entropy": "entropy",
    "modified_entropy": "m_entropy",
    "probabilities": "prob",
}


def golden_answers(protocol, part):
    """Probabilities in float32, as the published code has them, and labels."""
    logits = GOLDEN[f"{protocol}.{part}.logits"].astype(np.float32)
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True), GOLDEN[f"{protocol}.{part}.labels"]


def answers(*confidences):
    """Two classes, the true one always 0: `p_y` as given."""
    p = np.array(confidences)
    return np.stack([p, 1 - p], -1), np.zeros(len(p), np.int32)


@pytest.mark.parametrize("protocol", GOLDEN["names"])
@pytest.mark.parametrize("part", ["shadow_train", "shadow_test", "target_train"])
def test_entropies_of_the_published_code(protocol, part):
    p, labels = golden_answers(protocol, part)
    for ours, name in [
        (metrics.entropy(p), "entropy"),
        (metrics.modified_entropy(p, labels), "m_entropy_correct"),
        (metrics.modified_entropy(p, labels, legacy=True), "m_entropy_official"),
    ]:
        np.testing.assert_allclose(ours, GOLDEN[f"{protocol}.{part}.{name}"], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("protocol", GOLDEN["names"])
def test_attacks_of_the_published_code(protocol):
    data = [
        array for part in ("shadow_train", "shadow_test", "target_train") for array in golden_answers(protocol, part)
    ]
    right, legacy = metrics.membership(*data), metrics.membership(*data, legacy=True)
    # The published code takes unequal numbers as they are, here 150 and 170: only near without 20 of them.
    near = {"abs": 0.1} if protocol == "mixed10" else {"abs": 1e-12}
    for name, theirs in FEATURES.items():
        assert legacy[name].called_members == pytest.approx(float(GOLDEN[f"{protocol}.acc.{theirs}"]), **near), name
        if name != "modified_entropy":
            assert right[name] == legacy[name]
    golden = float(GOLDEN[f"{protocol}.acc.m_entropy_correct"])
    assert right["modified_entropy"].called_members == pytest.approx(golden, **near)


def test_entropy():
    np.testing.assert_allclose(metrics.entropy(np.array([[0.25] * 4, [0, 1, 0, 0]])), [np.log(4), 0])


def test_modified_entropy():
    p = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [1, 0, 0], [1, 0, 0]])
    expected = [
        -0.3 * np.log(0.7) - 0.2 * np.log(0.8) - 0.1 * np.log(0.9),
        -0.7 * np.log(0.3) - 0.8 * np.log(0.2) - 0.1 * np.log(0.9),
        0,
        2 * np.log(1e30),  # sure and wrong: infinite, but for the floor under the logarithms
    ]
    np.testing.assert_allclose(metrics.modified_entropy(p, np.array([0, 1, 0, 1])), expected)


def test_the_legacy_one_depends_on_the_other_samples():
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]])
    alone = metrics.modified_entropy(p[:1], np.array([0]), legacy=True)
    together = metrics.modified_entropy(p, np.array([0, 1]), legacy=True)
    np.testing.assert_allclose(alone, -0.3 * np.log(0.7) - 0.2 * np.log(0.2) - 0.1 * np.log(0.1))
    np.testing.assert_allclose(together[0], -0.3 * np.log(0.7) - 0.8 * np.log(0.2) - 0.1 * np.log(0.1))


def test_members_are_surer():
    """Members 0.99 sure, others 0.6, both right; 3 of 4 targets are like members."""
    attacks = metrics.membership(*answers(*[0.99] * 20), *answers(*[0.6] * 20), *answers(0.99, 0.99, 0.6, 0.99))
    assert set(attacks) == set(FEATURES)
    for name in ("confidence", "entropy", "modified_entropy", "probabilities"):
        assert attacks[name] == metrics.Attack(called_members=0.75, accuracy=1.0), name
    assert attacks["correctness"].accuracy == 0.5


def test_members_are_right():
    """Everybody is 7/8 sure, members of the true class, others of the wrong one: their entropy is the same."""
    sure, wrong = 7 / 8, 1 / 8
    attacks = metrics.membership(*answers(*[sure] * 20), *answers(*[wrong] * 20), *answers(*[wrong] * 4, sure))
    for name in ("correctness", "confidence", "modified_entropy"):
        assert attacks[name] == metrics.Attack(called_members=0.2, accuracy=1.0), name
    assert attacks["entropy"].accuracy == 0.5


def test_members_and_nonmembers_weigh_the_same():
    """At 0.9 there are 320 of 400 members but 2000 of 10000 others: taken as they are, no target would be a member."""
    members, nonmembers = answers(*[0.9] * 320, *[0.4] * 80), answers(*[0.9] * 2000, *[0.4] * 8000)
    for shadow, other in ((members, nonmembers), (nonmembers, members)):
        attack = metrics.membership(*shadow, *other, *answers(0.9, 0.9, 0.4))["confidence"]
        assert attack.called_members == pytest.approx(2 / 3 if shadow is members else 1 / 3)
        assert attack.accuracy == pytest.approx(0.8, abs=0.1)
    # Of 2 and 2 one each is held out: 0, 1 or 2 right.
    assert metrics.membership(*members, *nonmembers, *members, most=2)["confidence"].accuracy in (0, 0.5, 1)


def test_an_attack_that_learns_nothing_says_so():
    """Members and others alike: by heart the attack knows 60 samples in ten dimensions, on the held-out half it is at chance."""
    rng = np.random.default_rng(0)
    right = []
    for seed in range(10):
        data = [array for n in (60, 60, 5) for array in (rng.dirichlet([0.1] * 10, n), rng.integers(0, 10, n))]
        attacks = metrics.membership(*data, seed=seed)
        assert attacks == metrics.membership(*data, seed=seed)
        right.append([attack.accuracy for attack in attacks.values()])
    np.testing.assert_allclose(np.mean(right, 0), 0.5, atol=0.05)


def test_too_few_samples():
    two, one = answers(0.9, 0.8), answers(0.9)
    metrics.membership(*two, *two, *one)
    for data in ((one, two, one), (two, one, one), (two, two, answers())):
        with pytest.raises(ValueError, match="at least 2, 2 and 1"):
            metrics.membership(*data[0], *data[1], *data[2])


def test_scikit_learn_is_imported_where_it_is_used():
    for path in pathlib.Path(metrics.__file__).parent.glob("*.py"):
        assert re.findall(r"^(?:import|from) sklearn", path.read_text(), re.MULTILINE) == [], path
