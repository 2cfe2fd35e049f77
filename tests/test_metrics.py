"""Measures on cases with known answers."""

from types import SimpleNamespace

import numpy as np
import pytest

from delete_jax import metrics
from delete_jax.data import Dataset, Split
from delete_jax.result import Result
from delete_jax.tasks import Data
from delete_jax.tasks.evidence import Evidence, probabilities
from delete_jax.tasks.figures import measure


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
    assert metrics.hmean_residual(acc_rt=0.8, acc_ft=0.0) == pytest.approx(2 * 0.8 / 1.8)
    assert metrics.hmean_residual(acc_rt=0.8, acc_ft=1.0) == 0
    assert metrics.hmean_drop(acc_rt=0.8, acc_ft=0.1, original_acc_ft=0.9) == pytest.approx(0.8)
    assert metrics.hmean_drop(acc_rt=0.8, acc_ft=0.9, original_acc_ft=0.9) == 0
    nothing = float("nan")  # what no sample says is not the worst value
    for acc_rt, acc_ft in ((nothing, 0.0), (0.8, nothing), (0.0, nothing)):
        assert np.isnan(metrics.hmean_residual(acc_rt=acc_rt, acc_ft=acc_ft))
        assert np.isnan(metrics.hmean_drop(acc_rt=acc_rt, acc_ft=acc_ft, original_acc_ft=0.9))
    assert metrics.aus(acc_rt=0.9, acc_ft=0.0, original_acc_rt=0.9) == 1
    assert metrics.aus(acc_rt=0.8, acc_ft=1.0, original_acc_rt=0.9) == pytest.approx(0.45)


def test_distances():
    p, q = np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[0.0, 1.0], [0.5, 0.5]])
    assert metrics.total_variation(p, q) == pytest.approx(0.5)
    assert metrics.jensen_shannon(p, q) == pytest.approx(np.log(2) / 2)
    assert metrics.agreement(p, q) == 0.5
    labels, one, other = np.array([0, 0, 0, 2]), np.array([0, 1, 2, 2]), np.array([0, 1, 1, 0])
    assert metrics.agreement_by_class(labels, one, other, 4) == [pytest.approx(2 / 3), None, 0, None]
    for distance in (metrics.total_variation, metrics.jensen_shannon):
        assert distance(p, p) == 0
        assert distance(p, q) == distance(q, p)


def evidence(answer, labels, forget, original=None, retrained=None) -> Evidence:
    """The evidence on a network of which nothing but its answers is known, the same to training and test samples."""
    split = Split(np.zeros((len(labels), 1, 1, 1), np.uint8), labels)
    names = tuple(map(str, range(answer.shape[-1])))
    dataset = Dataset("answers", split, split, split, names, np.zeros(1), np.ones(1))
    run = SimpleNamespace(data=Data(dataset, tuple(forget)))
    found = Evidence(run, Result({}, [], []), original, retrained)
    found.train = found.test = answer
    with np.errstate(divide="ignore"):
        found.test_logits = np.log(answer)
    return found


def test_a_network_that_always_says_two():
    """Three classes, 0 forgotten; the network answers class 2 with 0.8, class 0 with 0.2."""
    answer = np.tile(np.array([[0.2, 0.0, 0.8]], np.float32), (6, 1))
    labels = np.array([0, 0, 1, 1, 2, 2])
    figures = measure(evidence(answer, labels, [0]))
    assert (figures["acc_f"], figures["acc_ft"]) == (0, 0)
    assert (figures["acc_r"], figures["acc_rt"]) == (0.5, 0.5)
    assert figures["any_forgotten"] == 0
    assert figures["forget_mass"] == pytest.approx(0.2)
    assert figures["absorbed_by"] == [0, 0, 1]
    assert figures["per_class"] == [0, 0, 1]
    assert "distance_to_retrained" not in figures  # there is none
    # both 0 and 2 forgotten: own-label accuracy of class 0 is 0, yet all of it lands in a forgotten class
    original = evidence(answer, labels, [0, 2])
    figures = measure(original)
    assert figures["any_forgotten"] == 1
    assert figures["forget_mass"] == pytest.approx(1.0)
    against = measure(evidence(answer, labels, [0, 2], original, retrained=evidence(answer[::-1], labels, [0, 2])))
    assert against["distance_to_retrained"]["forget"]["total_variation"] == 0
    assert against["aus"] == pytest.approx(1 / (1 + figures["acc_ft"]))


def test_probabilities_of_extreme_logits():
    np.testing.assert_allclose(probabilities(np.array([[1e4, -1e4, 0.0]], np.float32)), [[1, 0, 0]])


def test_forget_remain_accuracy():
    answers, labels = np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2])
    assert metrics.forget_remain_accuracy(answers, labels, [2]) == {"acc_f": 0.5, "acc_r": 1.0}
    maps = np.array([[[0, 255], [1, 1]]])  # the pixel of the label 255 counts nowhere
    assert metrics.forget_remain_accuracy(np.array([[[0, 0], [1, 0]]]), maps, [1]) == {"acc_f": 0.5, "acc_r": 1.0}
    assert np.isnan(metrics.forget_remain_accuracy(answers, labels, [7])["acc_f"])


def test_every_measure_says_what_it_is():
    for name, row in metrics.MEASURES.items():
        assert row.name == name
        assert row.direction in ("down", "up", "retrained", "")
        assert row.show in metrics.SHOWN
        assert row.title
        assert row.short
        assert row.text.endswith((".", "others", "1."))
    assert len({row.heading for row in metrics.MEASURES.values()}) == len(metrics.MEASURES)


@pytest.mark.parametrize(
    ("value", "how", "shown"),
    [
        (0.0001, "percent", "<0.1 %"),
        (0.9999, "percent", ">99.9 %"),
        (1.0, "percent", "100.0 %"),
        (-0.1, "percent", "−10.0 %"),
        (-0.0002, "percent", "−<0.1 %"),
        (None, "percent", "–"),
        (float("nan"), "number", "–"),
        (0.12345, "number", "0.123"),
        (75.0, "seconds", "75.0 s"),
        (3700.0, "seconds", "1 h 01 min"),
        (12.0, "count", "12"),
        (5.25, "times", "5.2×"),
    ],
)
def test_values_in_words(value, how, shown):
    assert metrics.show(value, how) == shown


def test_names_with_dots_are_nested():
    figures = {"verification": {"unseen": {"eer": 0.25}}, "acc_ft": 0.5}
    assert metrics.look_up(figures, "verification.unseen.eer") == 0.25
    assert metrics.look_up(figures, "acc_ft") == 0.5
    assert metrics.look_up(figures, "acc_ft.eer") is None
    found = SimpleNamespace(verification=figures["verification"], seconds=None)
    assert metrics.measure(found, ["verification.unseen.eer", "seconds"]) == {"verification": {"unseen": {"eer": 0.25}}}
