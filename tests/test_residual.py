"""What is left of a class, on networks whose answers are known."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from delete_jax import Model, metrics
from delete_jax.data import Dataset, Split
from delete_jax.result import Result
from delete_jax.tasks import Data
from delete_jax.tasks.evidence import Evidence, side_by_side
from delete_jax.tasks.figures import nearest_class


def test_the_order_of_probabilities_gives_a_class_away():
    """Class 2 is never answered, and its samples have the largest probability of it among all."""
    labels = np.array([0, 0, 1, 1, 2, 2])
    mass = np.array([1e-9, 1e-8, 1e-7, 1e-9, 1e-5, 1e-6])
    p = np.stack([0.9 * np.ones(6), 0.1 - mass, mass], -1)
    assert (p.argmax(-1) != 2).all()
    assert metrics.residual_auc(p, labels, [2]) == 1
    assert metrics.residual_auc(np.full((6, 3), 1 / 3), labels, [2]) == 0.5
    constant = np.float32(1e-6) * (
        1 + np.array([3, -2, 1, 0, 5, 4], np.float32) * np.finfo(np.float32).eps
    )  # up to rounding
    assert metrics.residual_auc(np.stack([np.ones(6) - constant, np.zeros(6), constant], -1), labels, [2]) == 0.5
    swapped = p[[4, 5, 2, 3, 0, 1]]
    assert metrics.residual_auc(swapped, labels, [2]) == pytest.approx(np.mean([0, 0, 0, 0.5, 0, 0, 0, 1]))
    assert np.isnan(metrics.residual_auc(p[:4], labels[:4], [2]))


def clusters(rng, n, apart):
    labels = np.tile([0, 1, 2], n)
    return apart * np.eye(3, 5)[labels] + rng.normal(size=(3 * n, 5)) + 50, labels


def probe(train, test, per_class, seed=0):
    return metrics.few_label_probe(*train, *test, [2], metrics.draw_few(train[1], per_class, seed=seed))


def test_few_labels():
    rng = np.random.default_rng(0)
    train, test = clusters(rng, 60, 20), clusters(rng, 60, 20)
    for per_class in (10, None):
        assert probe(train, test, per_class) == (1, 1)
    assert min(probe(train, test, 1)) > 0.7  # the noise, too, is standardised by three images
    erased, others = probe(clusters(rng, 600, 0), clusters(rng, 600, 0), 10)
    assert erased == pytest.approx(1 / 3, abs=0.08)
    assert others == pytest.approx(1 / 3, abs=0.08)
    # nothing but the labels that are drawn is used, the draws are those of the seed
    train, test = clusters(rng, 60, 1.5), clusters(rng, 60, 1.5)
    few = probe(train, test, 1, seed=1)
    assert few == probe(train, test, 1, seed=1)
    assert few != probe(train, test, 1, seed=2)
    assert sum(few) < sum(probe(train, test, None))


def test_a_few_are_drawn_of_each_class():
    labels = np.array([0, 0, 0, 5, 5, 7])
    draws = metrics.draw_few(labels, 2)
    assert [sorted(labels[draw]) for draw in draws] == [[0, 0, 5, 5, 7]] * 5  # of class 7 there is one
    assert len({tuple(sorted(draw)) for draw in draws}) > 1
    assert [sorted(draw) for draw in metrics.draw_few(labels, None)] == [[0, 1, 2, 3, 4, 5]]


def test_the_probe_of_a_network_is_that_of_all_its_features():
    """It computes the features of the drawn images only."""

    class Pixels(Evidence):
        def features(self, images):
            return images.reshape(len(images), -1).astype(np.float64)

    rng = np.random.default_rng(0)
    train, test = (
        Split((features * 2).clip(0, 255).astype(np.uint8).reshape(-1, 5, 1, 1), labels)
        for features, labels in (clusters(rng, 60, 1.5), clusters(rng, 60, 1.5))
    )
    dataset = Dataset("corners", train, test, test, ("a", "b", "c"), np.zeros(1), np.ones(1))
    found = Pixels(SimpleNamespace(data=Data(dataset, (2,))), Result({}, [], []))
    flat = [(split.images.reshape(-1, 5).astype(np.float64), split.labels) for split in (train, test)]
    assert found.few_labels(10) == probe(*flat, 10)
    assert 0.4 < found.few_labels(10)[0] < 0.99


def test_over_unlearning():
    """Class 0 is erased; the original gives it 0.5, and 0.4 and 0.1 to the others: 0.8 and 0.2 without it."""
    original = np.log(np.array([[0.5, 0.4, 0.1]] * 2))
    masked = np.array([[-1e4, np.log(0.8), np.log(0.2)]] * 2)
    assert metrics.over_unlearning(original, original, [0]) == pytest.approx(0.5)  # the erased class's probability
    assert metrics.over_unlearning(original, masked, [0]) == pytest.approx(0)
    assert metrics.over_unlearning(original, np.array([[0, 1e4, 0]] * 2), [0]) == pytest.approx(0.2)
    half = np.concatenate([masked[:1], np.array([[0, 0, 1e4]])])
    assert metrics.over_unlearning(original, half, [0]) == pytest.approx(0.4)  # 0 and 0.8
    sure = np.array([[1e4, 1.0, 1.0]])  # all probability is on the erased class: the logits of the others still count
    assert metrics.over_unlearning(sure, np.array([[-1e4, 0, 0.0]]), [0]) == pytest.approx(0)


def threshold(value: int | None, images: np.ndarray, labels: np.ndarray) -> tuple[SimpleNamespace, Result]:
    """A run and a network on images of one pixel: class 1 from `value` on, else class 0; with None class 2 always."""

    def apply(variables, x):
        x = x.reshape(-1)
        above = jnp.zeros_like(x) if value is None else jnp.where(x > value - 0.5, 1.0, 0.0)
        return 9 * jnp.stack([0.5 + 0 * x, above, 0 * x + float(value is None)], -1)

    split = Split(images, labels)
    dataset = Dataset("pixels", split, split, split, ("dark", "bright", "none"), np.zeros(1), np.ones(1))
    model = Model(apply=apply, apply_train=lambda variables, x, key: (apply(variables, x), variables))
    run = SimpleNamespace(model=model, preprocess=lambda stored: stored.astype(jnp.float32), data=Data(dataset, (1,)))
    return run, Result({}, [], [])


def pixels(values: dict[str, int | None]) -> dict[str, Evidence]:
    """400 images of class 1 and value 100, which noise moves by up to 0.03 of 255, and one of class 0."""
    images = np.full((401, 1, 1, 1), 100, np.uint8)
    labels = np.ones(401, np.int32)
    images[-1], labels[-1] = 0, 0
    runs = {name: threshold(value, images, labels) for name, value in values.items()}
    found = side_by_side(runs["original"][0], {name: result for name, (_, result) in runs.items()}, Evidence)
    for name, evidence in found.items():
        evidence.run = runs[name][0]
    return found


def share(value: int) -> float:
    """Of a pixel of 100 that lie at `value` or above after uniform noise of up to 7.65 and rounding."""
    return (7.65 - (value - 0.5 - 100)) / (2 * 7.65)


def test_perturbed_images_that_are_still_recognised():
    found = pixels({"original": 50, "retrained": 104, "unlearned": 102})
    names = metrics.with_gaps(["acc_ft_perturbed", "residual_knowledge", "over_unlearning"])
    figures = {name: metrics.measure(evidence, names) for name, evidence in found.items()}
    assert figures["original"]["acc_ft_perturbed"] == 1
    near, far = figures["unlearned"]["acc_ft_perturbed"], figures["retrained"]["acc_ft_perturbed"]
    assert near == pytest.approx(share(102), abs=0.05)
    assert far == pytest.approx(share(104), abs=0.05)
    assert figures["unlearned"]["acc_ft_perturbed_gap"] == near - far
    assert figures["unlearned"]["residual_knowledge"] == near / far
    assert "residual_knowledge" not in figures["retrained"]  # it is its own yardstick
    # The original without class 1 says 0 with odds e^4.5 : 1 to class 2; q has e^4.5, e^9 or 1, and 1.
    p, above, below = (np.exp(x) / np.exp(x).sum() for x in ([4.5, -np.inf, 0], [4.5, 9, 0], [4.5, 0, 0]))
    far_above, far_below = (np.abs(p - q).sum() / 2 for q in (above, below))
    assert figures["unlearned"]["over_unlearning"] == pytest.approx(near * far_above + (1 - near) * far_below, abs=1e-6)
    # the same images for every network, and every time
    again = pixels({"original": 50, "retrained": 102, "unlearned": 102})
    assert again["retrained"].perturbed_accuracy == again["unlearned"].perturbed_accuracy == near


def test_where_the_retrained_network_recognises_none_there_is_a_difference_and_no_ratio():
    found = pixels({"original": 50, "retrained": None, "unlearned": 102})
    names = metrics.with_gaps(["acc_ft_perturbed", "residual_knowledge"])
    figures = metrics.measure(found["unlearned"], names)
    assert "residual_knowledge" not in figures
    assert figures["acc_ft_perturbed_gap"] == figures["acc_ft_perturbed"] > 0.3


def test_the_nearest_class():
    confusion = np.array([[8, 1, 1], [5, 0, 2], [0, 0, 9]])
    assert metrics.nearest_class(confusion, [1]) == 0
    assert metrics.nearest_class(confusion, [0, 1]) == 2
    assert metrics.nearest_class(np.diag([1, 1, 1]), [1]) is None  # it is still recognised, and nothing else is said
    # The retrained network says "none" to class 1, and no network recognises a "none", for there is none.
    found = pixels({"original": 50, "retrained": None, "unlearned": 102})
    assert [evidence.nearest_class for evidence in found.values()] == [2, 2, 2]
    assert nearest_class(found["unlearned"]) == {"nearest_class": {"class": 2, "name": "none", "share": 1.0}}
    found = pixels({"original": 50, "retrained": 104, "unlearned": 102})
    assert metrics.measure(found["original"], ["nearest_class"]) == {"nearest_class": 1.0}
    without = pixels({"original": 50, "unlearned": 102})
    assert metrics.measure(without["unlearned"], ["nearest_class"]) == {}
    assert nearest_class(without["unlearned"]) == {}


def test_every_attack_has_its_gap():
    """It is the value minus the retrained network's, and the retrained network has none to itself."""
    names = [name.removesuffix("_gap") for name in metrics.MEASURES if name.endswith("_gap")]
    assert {"residual_auc", "probe", "probe_10", "probe_10_others", "shots_5", "acc_ft_perturbed"} <= set(names)
    assert metrics.with_gaps(["acc_ft", "probe_10", "probe_10_gap"]) == ("acc_ft", "probe_10", "probe_10_gap")
    for there, gap in ((0.6, -0.2), (0.3, 0.1), (None, None)):
        retrained = SimpleNamespace(probe=there, retrained=None)
        found = metrics.measure(SimpleNamespace(probe=0.4, retrained=retrained), ["probe_gap"])
        assert found == ({} if gap is None else {"probe_gap": pytest.approx(gap)})
        assert metrics.measure(retrained, ["probe_gap"]) == {}
    shown = [metrics.show(value, "points") for value in (-0.123, 0.123, 1e-16, -1e-16)]
    assert shown == ["−12.3 points", "+12.3 points", "0.0 points", "0.0 points"]


def test_centred_prototypes():
    """Features far from zero: without centring every cosine is nearly one."""
    rng = np.random.default_rng(0)
    train, test = clusters(rng, 40, 8), clusters(rng, 40, 8)
    for shots in (1, 5, None):
        assert metrics.centred_prototypes(*train, *test, [2], shots=shots) > 0.9
    same = np.where(train[1] == 2, 1, train[1]), np.where(test[1] == 2, 1, test[1])
    assert np.isnan(metrics.centred_prototypes(train[0], same[0], test[0], same[1], [2], shots=1))
    # The attacker's images of class 2 show class 1 instead: its own samples then go to either.
    wrong = np.where((train[1] == 2)[:, None], train[0][1], train[0])
    assert metrics.centred_prototypes(wrong, train[1], *test, [2], shots=None) < 0.7


def test_head_trace():
    kernel = np.array([[3.0, 0, 1, 2], [0, 0, 0, 0]])
    bias = np.array([0.0, 5, 5, -1])
    assert metrics.head_trace(kernel, bias, [1]) == (0, pytest.approx(2.5 / 3))
    assert metrics.head_trace(kernel, bias, [0]) == (1, pytest.approx(1 / 3))
    assert metrics.head_trace(kernel, bias, [0, 1, 2, 3]) == (0.5, 0.5)
