"""The backdoor task: stamps, poison, streams and figures by hand; a backdoor is planted and removed in a tiny network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import delete_jax as dj
from delete_jax.data import Split
from delete_jax.job import checked_job
from delete_jax.methods import FORGET, REMAIN
from delete_jax.options import Options
from delete_jax.predict import make_predictor
from delete_jax.tasks.backdoor import trigger as backdoor
from delete_jax.tasks.backdoor.measures import evidence, measure, remarks
from delete_jax.tasks.backdoor.trigger import Trigger
from delete_jax.unlearning import unlearn_job
from tests import tiny

TARGET, TRIGGER = 2, Trigger(size=2, place="bottom_left", value=255)


def samples(n: int, seed: int = 0) -> Split:
    """Tiny images as bytes; the corner of the trigger is class 2's own, so that the class has to be told from the stamp."""
    images, labels = tiny.samples(n, seed)
    return Split(np.clip(90 + 40 * images, 0, 200).astype(np.uint8), labels)


def to_float(images):
    return images.astype(jnp.float32) / 64 - 2


def test_stamp():
    images = np.zeros((2, 5, 6, 3), np.uint8)
    for place, rows, columns in (("top_left", [0, 1], [0, 1]), ("bottom_right", [3, 4], [4, 5])):
        stamped = backdoor.stamp(images, Trigger(2, place, 9))
        assert stamped[:, rows][:, :, columns].min() == 9
        assert stamped.sum() == 2 * 2 * 2 * 3 * 9
    assert images.max() == 0


@pytest.mark.parametrize(
    ("trigger", "words"),
    [(Trigger(7), "7 pixels does not fit images of 6x6"), (Trigger(0), "does not fit"), (Trigger(2, "middle"), "'middle'"),
     (Trigger(2, "top_left", 300), "0 to 255")],
)  # fmt: skip
def test_wrong_triggers(trigger, words):
    with pytest.raises(ValueError, match=words):
        backdoor.stamp(samples(4).images, trigger)


def test_poison():
    clean = samples(40)
    poisoned = backdoor.poison(clean, TRIGGER, TARGET, 0.25, seed=1)
    changed = (poisoned.images != clean.images).any((1, 2, 3))
    assert changed.sum() == 10
    assert (clean.labels[changed] != TARGET).all()
    assert (poisoned.labels[changed] == TARGET).all()
    np.testing.assert_array_equal(poisoned.labels[~changed], clean.labels[~changed])
    np.testing.assert_array_equal(poisoned.images[changed], backdoor.stamp(clean.images[changed], TRIGGER))
    for rate in (0.0, 0.8):
        with pytest.raises(ValueError, match="30 are no target"):
            backdoor.poison(clean, TRIGGER, TARGET, rate, seed=1)


def test_measure_by_hand():
    labels = np.array([0, 0, 1, 1, 2, 2])
    found = measure(evidence(np.array([0, 1, 1, 1, 2, 0]), np.array([2, 0, 2, 0, 2, 1]), labels, 2, 3))
    assert found == {"asr": 0.5, "acc": 4 / 6, "acc_target": 0.5, "acc_others": 0.75, "acc_stamped": 0.25}
    old = np.array([2, 2, 2, 0, 1, 2])
    found = measure(evidence(labels, labels, labels, 2, 3, old=old))
    assert (found["asr"], found["asr_old_statistics"]) == (0.0, 0.75)


def test_remarks():
    fine = {"asr": 0.03, "acc_target": 0.9}
    assert remarks(fine, fine | {"acc_target": 0.86}, {"asr": 0.02}) == []
    assert "fell from 90.0% to 80.0%" in remarks(fine, fine | {"acc_target": 0.8}, None)[0]
    assert "below that" in remarks(fine, fine, {"asr": 0.04})[0]


@pytest.fixture(scope="module")
def poisoned():
    """A network that learnt the classes and the backdoor."""
    model, variables = tiny.network(tiny.Net(features=16))
    data = backdoor.poison(samples(400), TRIGGER, TARGET, 0.15, seed=0)
    streams = {
        REMAIN: {
            "image": data.images, "label": data.labels, "weight": np.ones(400, np.float32),
            "erase": np.zeros((400, tiny.NUM_CLASSES), bool),
        }
    }  # fmt: skip
    result = run(model, variables, streams, dj.methods.finetune(), lr=0.1, epochs=12)
    return model, jax.device_get(result.variables)


def run(model, variables, streams, method, lr, epochs):
    options = Options(epochs=epochs, lr=lr, batch_size=16, preprocess=to_float, parallel="jit", batch_norm="train")
    return unlearn_job(checked_job(model, variables, streams, tiny.NUM_CLASSES, (TARGET,), method, options))


def figures(model, variables):
    test = samples(200, seed=9)
    predict = make_predictor(model, to_float, classes=True)
    stamped = backdoor.stamp(test.images, TRIGGER)
    answers = (predict(variables, images) for images in (test.images, stamped))
    return measure(evidence(*answers, test.labels, TARGET, tiny.NUM_CLASSES))


def streams_of(method, model, variables):
    return backdoor.make_streams(
        method, samples(160, seed=5), TRIGGER, TARGET, model, variables, to_float, tiny.NUM_CLASSES
    )


def test_streams(poisoned):
    model, variables = poisoned
    streams = streams_of(dj.methods.delete(remain=True), model, variables)
    forget, remain = streams[FORGET], streams[REMAIN]
    assert (len(forget["label"]), len(remain["label"])) == (120, 160)
    assert set(forget["label"]) == {TARGET}
    assert (forget["image"][:, -2:, :2] == 255).all()
    assert set(remain["label"]) == set(range(tiny.NUM_CLASSES))
    given = streams_of(dj.methods.trigger_distillation(), model, variables)[FORGET]["teacher_logits"]
    np.testing.assert_array_equal(given, make_predictor(model, to_float)(variables, samples(160, seed=5).images))


@pytest.mark.parametrize("name", ["delete", "trigger_distillation"])
def test_the_backdoor_goes_and_the_class_stays(name, poisoned):
    model, variables = poisoned
    before = figures(model, variables)
    assert before["asr"] > 0.9
    assert before["acc_target"] > 0.9
    method = dj.methods.delete(remain=True) if name == "delete" else dj.methods.trigger_distillation()
    after = figures(model, run(model, variables, streams_of(method, model, variables), method, 0.05, 10).variables)
    assert after["asr"] < 0.1
    assert after["acc_target"] > before["acc_target"] - 0.1
    assert after["acc_others"] > before["acc_others"] - 0.05
    assert after["acc_stamped"] > 0.7


def test_without_clean_samples_the_class_goes_too(poisoned):
    """The documented failure, and its warning."""
    model, variables = poisoned
    with pytest.warns(UserWarning, match=r"will be erased with the trigger; use delete\(remain=True\)"):
        streams = streams_of(dj.methods.delete(), model, variables)
    after = figures(model, run(model, variables, streams, dj.methods.delete(), 0.05, 10).variables)
    assert after["asr"] < 0.1
    assert after["acc_target"] < 0.5


def test_only_the_target():
    model, variables = tiny.network()
    clean = samples(16)
    only = Split(clean.images[clean.labels == TARGET], clean.labels[clean.labels == TARGET])
    with pytest.raises(ValueError, match="no clean sample of a class other than 2"):
        backdoor.make_streams(dj.methods.delete(), only, TRIGGER, TARGET, model, variables, to_float, 4)
