"""A Keras network as a model, against Keras itself."""

import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import delete_jax as dj
from delete_jax.models import from_keras
from tests import tiny
from tests.pages import at_a_rate, snippets

os.environ["KERAS_BACKEND"] = "jax"
keras = pytest.importorskip("keras", reason="Keras is not installed: make torch")
layers = keras.layers


@pytest.fixture(autouse=True)
def _strict_types_are_ours():
    """Keras' own calls, without ours around them, need JAX's ordinary promotion."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def small(*last, dropout=0.0):
    keras.utils.set_random_seed(0)
    inside = keras.Sequential([layers.Conv2D(4, 3, padding="same"), layers.BatchNormalization(momentum=0.5)])
    return keras.Sequential(
        [
            layers.Input((6, 6, 1)), inside, layers.ReLU(), layers.GlobalAveragePooling2D(), layers.Dropout(dropout),
            layers.Dense(tiny.NUM_CLASSES, name="head"), *last,
        ]
    )  # fmt: skip


def strict(function, *arguments):
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        return function(*arguments)


def test_both_modes():
    """Logits and running statistics, also for a network that was given in another state of its weights."""
    network, (images, _) = small(), tiny.samples(16)
    before = [np.array(weight.value) for weight in network.weights]
    model, variables = from_keras(network)
    x = jnp.asarray(images)
    np.testing.assert_allclose(strict(jax.jit(model.apply), variables, x), network(x), atol=1e-6)
    logits, updated = strict(jax.jit(model.apply_train), variables, x, jax.random.key(0))
    assert all(np.array_equal(old, weight.value) for old, weight in zip(before, network.weights, strict=True))
    np.testing.assert_allclose(logits, network(x, training=True), atol=1e-6)
    for weight in network.non_trainable_weights:
        assert np.abs(variables["state"][weight.path] - weight.value).max() > 0
        np.testing.assert_allclose(updated["state"][weight.path], weight.value, atol=1e-6)


def test_dropout_is_the_keys():
    model, variables = from_keras(small(dropout=0.5))
    run, x = jax.jit(model.apply_train), jnp.asarray(tiny.samples(16)[0])
    first, again, other = (np.asarray(run(variables, x, jax.random.key(i))[0]) for i in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    np.testing.assert_array_equal(model.apply(variables, x), model.apply(variables, x))


@pytest.mark.parametrize("method", ["delete", "pour", "boundary_expand"])
def test_unlearned_and_back(method):
    """And the classifier is found, also by its name."""
    network, (images, labels) = small(dropout=0.2), tiny.samples()
    (model, variables), (named, _) = from_keras(network), from_keras(network, "head")
    settings = {"forget": [1], "method": method, "epochs": 2, "lr": 0.1, "batch_size": 16, "parallel": "jit"}
    result, other = (
        strict(lambda m=m: dj.unlearn(m, variables, images, labels, **settings, batch_norm="train"))
        for m in (model, named)
    )
    jax.tree.map(np.testing.assert_array_equal, result.variables, other.variables)
    for weight in network.weights:
        weight.assign((result.variables["params"] | result.variables["state"])[weight.path])
    np.testing.assert_allclose(network(images), model.apply(result.variables, jnp.asarray(images)), atol=1e-5)


def test_devices():
    """Sharding takes statistics over all devices; pmap would not."""
    model, variables = from_keras(small())
    images, labels = tiny.samples()
    settings = {"forget": [1], "epochs": 2, "lr": 0.1, "batch_size": 16}
    one, all_ = (
        dj.unlearn(
            model, variables, images, labels, parallel=mode, **settings, method="delete", batch_norm="train"
        ).variables
        for mode in ("jit", "sharding")
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, all_)
    with pytest.raises(ValueError, match="each device's images alone under pmap: use parallel='sharding'"):
        dj.unlearn(model, variables, images, labels, parallel="pmap", batch_norm="train", **settings)
    frozen = dj.unlearn(
        model, variables, images, labels, parallel="pmap", batch_norm="frozen", **settings, method="delete"
    ).variables
    jax.tree.map(np.testing.assert_array_equal, frozen["state"], variables["state"])


def test_exported(tmp_path):
    """With a layer that asks for the number of images."""
    keras.utils.set_random_seed(0)
    network = keras.Sequential([*small().layers[:1], layers.Resizing(12, 12), layers.Flatten(), layers.Dense(4)])
    network.build((None, 6, 6, 1))
    dj.models.save_exported(*from_keras(network), tmp_path / "a.jax", (6, 6, 1))
    exported, x = jax.export.deserialize(bytearray((tmp_path / "a.jax").read_bytes())), tiny.samples(5)[0]
    assert all(np.allclose(exported.call(x[:n]), network(x[:n]), atol=1e-5) for n in (5, 1))


def test_what_is_refused(monkeypatch):
    images, labels = tiny.samples()
    with pytest.raises(ValueError, match="answers with probabilities"):
        dj.unlearn(*from_keras(small(layers.Softmax())), images, labels, forget=[1], parallel="jit")
    for given, message in (
        (keras.Model, "needs a keras.Model, got the class Model"),
        (tiny.Net(), "needs a keras.Model, got a Net"),
        (keras.Sequential([layers.Dense(3)]), "call it on an image first"),
    ):
        with pytest.raises(ValueError, match=message):
            from_keras(given)
    with pytest.raises(ValueError, match=r"one trained kernel of a layer 'fc', it has 0: the last are .*head/kernel"):
        from_keras(small(), "fc")
    network = small()
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(ValueError, match="Keras runs on torch, and JAX is needed: set KERAS_BACKEND=jax"):
        from_keras(network)
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(ValueError, match=r"Keras networks need keras: pip install 'delete_jax\[keras\]'"):
        from_keras(network)


def test_the_page():
    (snippet,) = snippets("from-torch", "import keras")
    images = np.random.default_rng(0).normal(size=(8, 32, 32, 3)).astype(np.float32)
    names = {"images": images, "labels": np.full(8, 3)}
    exec(at_a_rate(snippet).replace("lr=1e-3", "lr=1e-3, parallel='jit'").replace("epochs=5", "epochs=1"), names)
    logits = names["model"].apply(names["result"].variables, jnp.asarray(images))
    np.testing.assert_allclose(names["network"](images), logits, atol=1e-5)
