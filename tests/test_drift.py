"""How far a network has moved, on images made of held-out forget samples: known networks, known numbers."""

import numpy as np
import pytest

from delete_jax import drift
from delete_jax.columns import Erased, Rows
from delete_jax.drift import IMAGES, MAPS, SETS, Drift, made_images, relative_change

K = 5


def held_out(n=6, dtype=np.float32, classes=(1,), num_classes=K):
    rng = np.random.default_rng(0)
    images = (
        rng.integers(0, 256, (n, 8, 8, 2)).astype(np.uint8)
        if dtype == np.uint8
        else rng.normal(2, 3, (n, 8, 8, 2)).astype(dtype)
    )
    return {"image": images, "erase": np.tile(np.isin(np.arange(num_classes), classes), (n, 1))}


def linear(images, num_classes=K):
    """Logits of a fixed linear network, small for bytes too."""
    weights = np.random.default_rng(1).normal(size=(128, num_classes)).astype(np.float32)
    return np.asarray(images, np.float32).reshape(len(images), -1) / (100 if images.dtype == np.uint8 else 1) @ weights


def adding(change):
    """A network whose variables are a number: so many times `change` is added to its logits."""
    return lambda times, images: linear(images) + np.float32(times) * change(images)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_the_same_network_has_not_moved(dtype):
    """Where it predicts the erased class, it does not predict what the masked original does."""
    sample = held_out(dtype=dtype)
    found = Drift(adding(linear), 0.0, sample, seed=0)(0.0)
    others = (linear(made_images(sample["image"], 0, IMAGES)["transfer"]).argmax(-1) != 1).mean()
    assert found == {**{f"dz_{name}": 0.0 for name in SETS}, "dz": 0.0, "agreement": others}


def test_what_remaining_classes_have_in_common_does_not_count():
    """Nor what becomes of the erased classes."""
    common = np.array([3, -99, 3, 3, 3], np.float32)
    found = Drift(adding(lambda images: common), 0.0, held_out(), seed=0)(1.0)
    assert all(found[name] < 1e-6 for name in found if name.startswith("dz"))
    assert found["agreement"] == 1.0


def test_a_class_that_is_masked_is_no_scale(monkeypatch):
    """Classes that somebody has masked, as in a network for more classes than it is used for: without them it is the same."""
    monkeypatch.setattr(drift, "made_images", lambda images, seed, count: dict.fromkeys(SETS, images))
    change = np.array([4, 7, 0, 0, 0], np.float32)

    def masked(times, images):
        logits = linear(images) + np.float32(times) * change
        return np.concatenate([logits, np.full((len(images), 2), -1e9, np.float32) - logits[:, :2]], axis=1)

    alone = Drift(adding(lambda images: change), 0.0, held_out(), seed=0)
    beside = Drift(masked, 0.0, held_out(num_classes=K + 2), seed=0)
    assert beside(1.0) == pytest.approx(alone(1.0))
    assert alone(1.0)["dz"] > 0.02
    only = Drift(
        masked, 0.0, held_out(classes=range(K), num_classes=K + 2), seed=0
    )  # no other class is ever answered with
    assert np.isfinite(only(1.0)["dz"])


def test_a_known_change():
    """One of four remaining classes gains 4: less the mean, the changes are 3, -1, -1, -1, whose mean square is 3."""
    change = np.array([4, 7, 0, 0, 0], np.float32)
    measure = Drift(adding(lambda images: change), 0.0, held_out(), seed=0)
    found = measure(1.0)
    for name in SETS:
        spread = linear(made_images(held_out()["image"], 0, IMAGES)[name])[:, [0, 2, 3, 4]].std()
        assert found[f"dz_{name}"] == pytest.approx(np.sqrt(3) / spread, rel=1e-4)
    assert found["dz"] == pytest.approx(np.mean([found[f"dz_{name}"] for name in SETS]))
    assert measure(-2.0)["dz"] == pytest.approx(2 * found["dz"], rel=1e-4)


def test_agreement_is_with_the_masked_original():
    """The original predicts the erased class everywhere; its next choice is wanted."""
    base = np.array([1.0, 9.0, 2.0, 0.0, 0.0], np.float32)
    predict = lambda change, images: np.tile(base + np.asarray(change, np.float32), (len(images), 1))  # noqa: E731
    measure = Drift(predict, 0.0, held_out(), seed=0)
    assert measure([0, -9, 0, 0, 0])["agreement"] == 1.0
    assert measure([0, 0, 0, 0, 0])["agreement"] == measure([2, -9, 0, 0, 0])["agreement"] == 0.0


def test_relative_change_by_hand():
    before = np.array([[0.0, 2.0], [0.0, 2.0]])  # spread 1
    assert relative_change(before + np.array([[1.0, -1.0], [0.0, 0.0]]), before) == pytest.approx(np.sqrt(0.5))
    assert relative_change(before[:, :1] + 3, before[:, :1]) == 0  # one class remains: nothing can move among them


def test_confidence():
    """Softmax of log-probabilities."""
    shares = np.log(np.array([0.6, 0.1, 0.1, 0.1, 0.1], np.float32))
    assert Drift(
        lambda variables, images: np.tile(shares, (len(images), 1)), None, held_out(), 0
    ).confidence == pytest.approx(0.6)


@pytest.mark.parametrize("n", [1, 3, 700])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images(n, dtype):
    """As many as are asked for, of any number of samples; within what the samples span, in their dtype."""
    given = held_out(n, dtype)["image"]
    made = made_images(given, seed=3, count=64)
    low, high = (0, 255) if dtype == np.uint8 else (given.min(), given.max())
    for name in SETS:
        assert (made[name].shape, made[name].dtype) == ((64, 8, 8, 2), dtype)
        assert made[name].min() >= low - 1e-4
        assert made[name].max() <= high + 1e-4
    total = made["reoriented"].astype(np.float64) + made["inverted"]
    np.testing.assert_allclose(total, total.flat[0], rtol=1e-5)  # bright for dark
    if n == 3:  # each is used: its sum of pixels stays when it is turned
        sums = lambda images: set(np.round(images.astype(np.float64).sum((1, 2, 3)), 1))  # noqa: E731
        assert sums(made["reoriented"]) == sums(given)
    again, other = made_images(given, 3, 64), made_images(given, 4, 64)
    np.testing.assert_array_equal(made["transfer"], again["transfer"])
    assert (made["noise"] != other["noise"]).any()


def test_lazy_columns_and_many_classes():
    """Images that are read when they are needed, and masks that are made then, measure the same."""
    k = 1000
    plain = held_out(5, classes=(7, 9), num_classes=k)
    lazy = {"image": Rows(plain["image"]), "erase": Erased(np.isin(np.arange(k), (7, 9)), None, (5, k))}
    predict = lambda times, images: linear(images, k) * np.float32(times)  # noqa: E731
    assert Drift(predict, 1.0, lazy, 0)(1.1) == Drift(predict, 1.0, plain, 0)(1.1)


def test_maps(monkeypatch):
    """Of each map some positions count; here a change of one half of them, by hand."""
    monkeypatch.setattr(drift, "POSITIONS", 64)
    sample = held_out(4)
    sample["erase"] = sample["erase"][:, None, None]

    def predict(times, images):
        logits = linear(images)[:, None, None] * np.ones((1, 8, 8, 1), np.float32)
        logits[:, :4, :, 0] += 4 * np.float32(times)
        return logits

    found = Drift(predict, 0.0, sample, seed=0)(1.0)
    spread = linear(made_images(sample["image"], 0, MAPS)["noise"])[:, [0, 2, 3, 4]].std()
    assert found["dz_noise"] == pytest.approx(np.sqrt(1.5) / spread, rel=1e-4)
