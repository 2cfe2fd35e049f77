"""Whether a class was erased from the weights, or only in the running statistics."""

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

import delete_jax as dj
from delete_jax.metrics import look_up
from delete_jax.model import with_statistics
from delete_jax.models import ResNet, from_linen, init
from delete_jax.pretraining import pretrain
from delete_jax.tasks.classification.page import verdict
from delete_jax.tasks.segmentation.page import verdict as verdict_on_pixels
from tests.test_report import sample_record
from tests.test_report_segmentation import make


def normalised():
    """A linear network whose logits are centred by a running mean, and four images, one of each class."""

    def apply(variables, x):
        return x.reshape(len(x), -1) @ variables["params"]["w"] - variables["batch_stats"]["mean"][None]

    model = dj.Model(apply, lambda variables, x, key: (apply(variables, x), variables))
    images = np.eye(4, dtype=np.float32).reshape(4, 2, 2, 1)
    return (
        model,
        {"params": {"w": 4 * np.eye(4, dtype=np.float32)}, "batch_stats": {"mean": np.zeros(4, np.float32)}},
        images,
    )


def measured(model, networks, images, labels, forget):
    return dj.evaluate(model, networks, train=(images, labels), test=(images, labels), forget=forget)


def test_a_network_of_which_only_the_statistic_was_changed():
    """A mean of 9 hides class 3 at every image; the weights are the original's."""
    model, original, images = normalised()
    hidden = {**original, "batch_stats": {"mean": np.array([0, 0, 0, 9], np.float32)}}
    # One of the two classes is erased from the weights, too.
    half = {**hidden, "params": {"w": np.diag([4, 4, -9, 4]).astype(np.float32)}}
    frozen = {**original, "params": {"w": np.diag([4, 4, 4, -9]).astype(np.float32)}}
    labels = np.arange(4)
    found = measured(model, {"original": original, "unlearned": hidden, "frozen": frozen}, images, labels, [3])
    assert (found["original"]["acc_ft"], found["unlearned"]["acc_ft"], found["frozen"]["acc_ft"]) == (1.0, 0.0, 0.0)
    assert found["unlearned"]["acc_old_statistics"] == 1.0
    for same in ("original", "frozen"):  # nothing to put back
        assert look_up(found[same], "acc_old_statistics") is None
    assert "original's statistics" in str(found)
    judged = verdict(found.record)
    assert (judged.level, judged.label) == ("bad", "Hidden, not erased")
    assert (
        "was hidden by the running statistics, not erased: it is recognised in 0.0 % of its test images"
        in judged.headline
    )
    assert "and in 100.0 % with the original's running statistics put back" in judged.headline
    found = measured(model, {"original": original, "unlearned": half}, images, labels, [2, 3])
    assert found["unlearned"]["acc_old_statistics"] == 0.5


def test_statistics_of_another_network():
    _, original, _ = normalised()
    assert with_statistics(original, original) is None
    assert with_statistics({"params": original["params"]}, original) is None  # has none
    other = {"params": {"w": np.zeros((4, 4))}, "batch_stats": {"mean": np.ones(4)}}
    mixed = with_statistics(other, original)
    assert mixed["params"] is other["params"]
    np.testing.assert_array_equal(mixed["batch_stats"]["mean"], np.zeros(4))


@pytest.mark.parametrize(
    ("left", "inside", "drop", "level", "label"),
    [
        (0.0, 0.0, 0.006, "good", "Erased"),
        (0.0, 0.01, 0.006, "good", "Erased"),  # a stray sample
        (0.0, 0.05, 0.006, "warning", "Hidden, not erased"),
        (0.0, 0.96, 0.006, "bad", "Hidden, not erased"),
        (0.0, 0.05, 0.3, "bad", "Hidden, not erased"),
        (0.05, 0.96, 0.006, "warning", "Partly erased"),
        (0.6, 0.96, 0.006, "bad", "Not erased"),
    ],
)
def test_verdict(left, inside, drop, level, label):
    record = sample_record(left=left, drop=drop)
    record["networks"]["unlearned"]["metrics"]["acc_old_statistics"] = inside
    judged = verdict(record)
    assert (judged.level, judged.label) == (level, label)
    assert any("weights still recognise" in note for note in judged.notes) == (label == "Hidden, not erased")


@pytest.mark.parametrize(
    ("inside", "level", "label"),
    [(0.0, "good", "Erased"), (0.05, "warning", "Hidden, not erased"), (0.6, "bad", "Hidden, not erased")],
)
def test_verdict_on_pixels(inside, level, label):
    record = make(0.0, 0.9)[0]
    record["networks"]["unlearned"]["metrics"]["iou_old_statistics"] = inside
    judged = verdict_on_pixels(record)
    assert (judged.level, judged.label) == (level, label)
    assert any("still know it" in note for note in judged.notes) == (label != "Erased")


@pytest.fixture(scope="module")
def digits():
    """A small residual network that was trained on scikit-learn's digits, and the samples."""
    images, labels = load_digits(return_X_y=True)
    images, labels = (images / 16).astype(np.float32).reshape(-1, 8, 8, 1), labels.astype(np.int32)
    train, test = (images[:1200], labels[:1200]), (images[1200:], labels[1200:])
    module = ResNet(10, stages=(1, 1), features=(8, 16))
    model = from_linen(module, "fc")
    start = init(module, (8, 8, 1), 0)
    with jax.numpy_dtype_promotion("standard"):  # optax' cosine multiplies int32 by float
        trained = pretrain(model, start, *train, 10, epochs=8, lr=0.1, batch_size=64)
    return model, jax.device_get(trained.variables), train, test


@pytest.mark.slow
def test_delete_in_train_mode_erases_in_the_running_statistics(digits):
    """Its weights with the original's statistics recognise the class again; with frozen statistics there is nothing to put back."""
    model, variables, train, test = digits
    given = {"forget": [3], "epochs": 10, "batch_size": 32}
    networks = {
        "original": variables,
        "unlearned": dj.unlearn(model, variables, *train, **given, lr=3e-3, method="delete", batch_norm="train"),
        "frozen": dj.unlearn(model, variables, *train, **given, lr=1e-3, batch_norm="frozen", method="delete"),
    }
    found = dj.evaluate(model, networks, train=train, test=test, forget=[3])
    assert found["original"]["acc_ft"] > 0.8
    assert max(found[name]["acc_ft"] for name in ("unlearned", "frozen")) == 0.0
    assert found["unlearned"]["acc_old_statistics"] > 0.5
    assert look_up(found["frozen"], "acc_old_statistics") is None
    assert verdict(found.record).label == "Hidden, not erased"
    frozen = dj.evaluate(
        model, {"original": variables, "unlearned": networks["frozen"]}, train=train, test=test, forget=[3]
    )
    assert "with the original's running statistics" not in verdict(frozen.record).headline
    assert verdict(frozen.record).label.startswith("Erased")
