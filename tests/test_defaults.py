"""The call that says nothing but what to forget: which method, statistics and step it stands for, and what it costs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

import delete_jax as dj
from delete_jax import auto, methods
from delete_jax.config import Config, UnlearnConfig, counted, shorten, validate
from delete_jax.methods import FORGET, Context, Method, Output
from delete_jax.methods.base import ANCHOR
from delete_jax.optimisers import polyak
from delete_jax.options import Options, default_rate
from delete_jax.run.arguments import load_config
from delete_jax.run.finished import Finished
from delete_jax.step import sgd
from delete_jax.tasks import Instances
from tests import tiny
from tests.test_unlearn import trained

WITHOUT_A_RATE = ("delete", "anchored", "trew")


@pytest.fixture(scope="module")
def known():
    model, variables = tiny.network()
    images, labels = tiny.samples(160)
    return model, trained(model, variables, images, labels), images, labels


def assert_equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), jax.device_get(expected))


def test_the_default_call(known, monkeypatch):
    """Anchored, with frozen statistics and Polyak's step, 120 times: bit by bit the call that says so."""
    monkeypatch.setattr(auto, "is_alarming", lambda row: False)  # one training is enough
    model, variables, images, labels = known
    found = dj.unlearn(model, variables, images, labels, forget=[1], parallel="jit")  # on one device
    told = {"method": dj.methods.anchored(), "batch_norm": "frozen", "lr": "auto", "epochs": None, "steps": None}
    explicit = dj.unlearn(model, variables, images, labels, forget=[1], parallel="jit", **told)
    assert_equal(found.variables, explicit.variables)
    assert found.requests == ({"forget": [1], "method": "anchored", "batch_norm": "frozen"},)
    assert_equal(found.variables["batch_stats"], variables["batch_stats"])
    assert (found.lr, len(found.history), len(found.search)) == (1.0, 120, 1)
    (swept,) = dj.sweep(model, variables, images, labels, [[1]])
    assert_equal(swept.variables, found.variables)
    assert swept.requests == found.requests


@pytest.mark.parametrize("digits", [(3,), pytest.param((0, 1, 2, 4, 5, 6, 7, 8, 9), marks=pytest.mark.slow)], ids=str)
def test_digits_one_default_call_each(digits):
    """Each digit is erased from a small network, and none of the calls costs the others a point."""
    images, labels = load_digits(return_X_y=True)
    images = np.float32(images / 16).reshape(-1, 8, 8, 1)
    images, test_images, labels, test_labels = train_test_split(images, labels, random_state=0)
    fitted = MLPClassifier(64, max_iter=500, random_state=0).fit(images.reshape(-1, 64), labels)
    (w0, w1), (b0, b1) = fitted.coefs_, fitted.intercepts_
    weights = {"w0": w0, "b0": b0[None], "w1": w1, "b1": b1[None]}
    variables = {"params": {name: np.float32(value) for name, value in weights.items()}}

    def apply(variables, x):
        p = variables["params"]
        return jnp.maximum(x.reshape(-1, 64) @ p["w0"] + p["b0"], 0) @ p["w1"] + p["b1"]

    model = dj.Model(apply, lambda variables, x, key: (apply(variables, x), variables))
    right = apply(variables, test_images).argmax(-1) == test_labels
    for digit in digits:
        result = dj.unlearn(model, variables, images, labels, forget=digit, parallel="jit")
        answers, own = apply(result.variables, test_images).argmax(-1), test_labels == digit
        assert np.mean(answers[own] == digit) == 0, digit
        assert np.mean((answers == test_labels)[~own]) >= np.mean(right[~own]) - 0.01, digit


@pytest.mark.parametrize("name", methods.METHODS)
def test_what_no_rate_means(name):
    """Polyak's step for the methods whose loss is known to fall to 0; a rate of 1e-3 for all others."""
    method = methods.create(name)
    expected = "auto" if name in WITHOUT_A_RATE else 1e-3
    assert default_rate(method, (1,)) == expected
    assert default_rate(method, ()) == 1e-3  # single samples
    decided = Options().decided(method, (1,))
    assert (decided.lr, decided.tx) == (expected, polyak() if expected == "auto" else sgd())
    own = optax.adam(1.0)
    assert (Options(tx=own).decided(method, (1,)).lr, Options(tx=own).decided(method, (1,)).tx) == (1e-3, own)
    assert Options(lr=0.5).decided(method, (1,)).lr == 0.5
    assert counted(Config(unlearn=UnlearnConfig(method=name))).get("lr", expected) == expected


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (methods.delete(temperature=2.0, neighbours=0.3), "auto"),
        (methods.delete(remain=True), 1e-3),
        (methods.delete(dispersion=0.1), 1e-3),
        (methods.anchored(method=methods.trew()), "auto"),
        (methods.anchored(method=methods.random_label()), 1e-3),
        (Method("mine"), 1e-3),
    ],
    ids=["neighbours", "remain", "dispersion", "anchored trew", "anchored random_label", "somebody's own"],
)
def test_what_no_rate_means_for_variants(method, expected):
    assert default_rate(method, (1,)) == expected


@pytest.mark.parametrize("name", WITHOUT_A_RATE)
def test_the_loss_falls_to_zero(name):
    """That of a method that says so is 0 where the network predicts its target, and above elsewhere."""
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(8, 4)), jnp.float32)
    erase = jnp.asarray(np.tile(np.arange(4) == 1, (8, 1)))
    batch = {"label": jnp.ones(8, jnp.int32), "erase": erase, "weight": jnp.ones(8)}
    similarity = jnp.asarray(rng.normal(size=(4, 4)), jnp.float32)
    tilt = 10.0 * similarity[1:2] if name == "trew" else 0.0
    method, context = methods.create(name), Context(constants={"similarity": similarity})

    def loss(student):
        outputs = {stream: Output(batch, student, logits) for stream in (FORGET, ANCHOR)}
        return sum(jnp.sum(term.loss) for term in method.loss(outputs, context).values())

    assert method.reaches_zero
    assert loss(jnp.where(erase, -1e4, logits + tilt)) == pytest.approx(0, abs=1e-4)
    assert loss(logits) > 0.1


def test_methods_of_all_kinds_work_by_default(known, monkeypatch):
    """In one study, where nothing is said of the rates: none ends in an error."""
    monkeypatch.setattr(auto, "is_alarming", lambda row: False)
    model, variables, images, labels = known
    samples = {"train": (images, labels), "test": tiny.samples(64, 1)}
    names = ["anchored", "random_label", "gradient_ascent", "mu_mis", "finetune", "bias_shift"]
    model = dj.models.from_linen(tiny.Net(), classifier="Dense_0")
    table = dj.study(model, variables, **samples, forget=[1], methods=names, seeds=1, parallel="jit")
    assert [cell["method"] for cell in table.cells if "failed" in cell] == []
    rates = {cell["method"]: cell["lr"] for cell in table.cells}
    assert rates == dict.fromkeys(names, 1e-3) | {"anchored": 1.0}  # the constant of Polyak's step
    assert table.values("anchored", "acc_ft") == [0.0]
    assert dj.unlearn(model, variables, images, labels, forget=[1], method="random_label", parallel="jit").lr == 1e-3


def test_runs_without_a_rate_are_alike():
    """Two seeds whose trainings took another constant, beside one by a method whose default is a rate."""
    settings = [
        Finished("run", {"method": {"name": "anchored", "lr": lr}, "search": [{"lr": lr}]}, Config()).settings
        for lr in (1.0, 0.3)
    ]
    assert settings == [{"name": "anchored", "lr": "auto"}] * 2
    fixed = Finished("run", {"method": {"name": "random_label", "lr": 1e-3}}, Config())
    assert fixed.settings == {"name": "random_label", "lr": 1e-3}


def test_single_samples_need_a_method(known):
    """The default holds all remaining classes in place, also that of the samples."""
    with pytest.raises(ValueError, match=r"method anchored needs whole classes to erase, .*: choose another method"):
        dj.unlearn(*known, forget_indices=[0])
    with pytest.raises(ValueError, match=r"method anchored needs whole classes to erase, .*: choose another method"):
        validate(Config(task=Instances(indices=(0,))))


def test_the_default_config():
    given = UnlearnConfig()
    assert (given.method, given.batch_norm, given.lr, given.epochs, given.steps) == (
        "anchored", "frozen", None, None, None,
    )  # fmt: skip
    validate(Config())
    assert {"name": "anchored", "lr": "auto", "batch_norm": "frozen"}.items() <= counted(Config()).items()
    assert "momentum" not in counted(Config())
    digits, paper = load_config("digits").unlearn, load_config("digits:delete").unlearn
    assert digits == dataclasses.replace(given, forget=(3,), batch_size=32)
    assert (paper.method, paper.batch_norm, paper.lr, paper.epochs) == ("delete", "train", 3e-3, 10)
    assert (shorten(Config()).unlearn.lr, shorten(Config()).unlearn.epochs) == (1e-3, 1)
