"""Verification by groups of people, on features whose answers are known."""

import numpy as np
import pytest

from delete_jax.tasks.faces.measures import verification_groups, verify


def people(centres, per_person: int, noise: float, seed: int):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(centres)), per_person)
    return np.asarray(centres, float)[labels] + rng.normal(0, noise, (len(labels), len(centres[0]))), labels


def test_groups():
    """Persons 0 and 1 stand apart, 2 and 3 look the same; 1 is forgotten."""
    known, labels = people([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]], 6, 0.01, 0)
    unseen, unseen_labels = people([[1, 1, 0], [0, 1, 1]], 5, 0.01, 1)
    groups = verification_groups(known, labels, unseen, unseen_labels, [1])
    sizes = {name: tuple(map(len, scores)) for name, (scores, _, _) in groups.items()}
    assert sizes == {"forgotten": (15, 6 * 18), "remaining": (45, 3 * 36), "unseen": (20, 25)}
    figures = {name: verify(group) for name, group in groups.items()}
    assert figures["forgotten"]["eer"] == 0
    assert figures["forgotten"]["tar"] == 1
    assert figures["forgotten"]["rank_one"] == 1
    assert figures["forgotten"]["impostor"] == pytest.approx(0, abs=0.02)
    assert figures["unseen"]["eer"] == 0
    assert figures["unseen"]["impostor"] == pytest.approx(0.5, abs=0.03)
    # 36 of 108 pairs of different people look like the same one
    assert figures["remaining"]["eer"] > 0.1
    assert figures["remaining"]["rank_one"] < 1


def test_without_pairs_nothing_is_known():
    """One image a person: no two of the same."""
    features, labels = people([[1, 0], [0, 1]], 1, 0.01, 0)
    figures = verify(verification_groups(features, labels, features, labels, [1])["unseen"])
    assert np.isnan([figures[name] for name in ("genuine", "eer", "tar", "rank_one")]).all()
    assert figures["impostor"] == pytest.approx(0, abs=0.1)
