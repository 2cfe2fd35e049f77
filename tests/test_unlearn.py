"""The library call: it forgets, through every adapter; it compiles once; masks; continuing a run."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import delete_jax as dj
from delete_jax.data import normalize
from delete_jax.job import Job
from delete_jax.loop import one
from delete_jax.model import Model
from delete_jax.models import BatchNorm
from delete_jax.options import Options
from delete_jax.parallel import make_trainer
from delete_jax.predict import make_predictor
from delete_jax.step import sgd
from delete_jax.streams import split_streams
from tests import tiny


def as_is(images):
    return images


def trained(model, variables, images, labels, epochs=25):
    """A network that knows its samples."""
    streams = split_streams(images, labels, [], tiny.NUM_CLASSES, ["remain"])
    options = Options(lr=0.1, epochs=epochs, batch_size=32, preprocess=as_is, parallel="jit", batch_norm="train")
    return one(Job(model, variables, streams, tiny.NUM_CLASSES, (), dj.methods.finetune(), options)).variables


def accuracies(model, variables, images, labels, forget):
    right = make_predictor(model, as_is)(variables, images).argmax(-1) == labels
    hit = np.isin(labels, forget)
    return right[hit].mean(), right[~hit].mean()


class NnxNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.conv = nnx.Conv(1, 8, (3, 3), padding=1, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.head = nnx.Linear(8, tiny.NUM_CLASSES, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv(x)))
        return self.head(self.dropout(jnp.mean(x, (1, 2))))


def plain_network():
    """No framework: a two-layer network as two functions."""
    key = jax.random.split(jax.random.key(0))
    params = {"w1": jax.random.normal(key[0], (36, 32)) / 6, "w2": jax.random.normal(key[1], (32, 4)) / 6}

    def apply(variables, x):
        hidden = jax.nn.relu(x.reshape(len(x), -1) @ variables["params"]["w1"])
        return hidden @ variables["params"]["w2"]

    return Model(apply, lambda variables, x, key: (apply(variables, x), variables)), {"params": params}


NETWORKS = {"linen": tiny.network, "nnx": lambda: dj.models.from_nnx(NnxNet(nnx.Rngs(0))), "plain": plain_network}


@pytest.mark.parametrize("kind", NETWORKS)
def test_forgets_one_class_and_keeps_the_others(kind):
    model, variables = NETWORKS[kind]()
    images, labels = tiny.samples(256)
    variables = trained(model, variables, images, labels)
    before = accuracies(model, variables, images, labels, [2])
    assert min(before) > 0.9
    result = dj.unlearn(
        model,
        variables,
        images,
        labels,
        forget=[2],
        epochs=10,
        lr=0.03,
        batch_size=16,
        parallel="jit",
        method="delete",
        batch_norm="train",
    )
    forgotten, kept = accuracies(model, result.variables, images, labels, [2])
    assert forgotten <= 0.05
    assert kept >= before[1] - 0.1
    assert accuracies(model, variables, images, labels, [2]) == before, "the original is untouched"
    first, last = result.history[0], result.history[-1]
    assert last["forgetting"] < first["forgetting"] / 2
    assert jax.tree.structure(result.variables) == jax.tree.structure(variables)


def test_dropout_rngs_and_linen_modules_without_statistics():
    class Dropout(nn.Module):
        @nn.compact
        def __call__(self, x, train: bool):
            x = nn.Dropout(0.5, deterministic=not train)(x.reshape(len(x), -1))
            return nn.Dense(tiny.NUM_CLASSES)(x)

    model, variables = tiny.network(Dropout())
    images, labels = tiny.samples(32)
    x = jnp.asarray(images)
    a, same = model.apply_train(variables, x, jax.random.key(0))
    b, _ = model.apply_train(variables, x, jax.random.key(1))
    assert float(jnp.abs(a - b).max()) > 0
    assert jax.tree.structure(same) == jax.tree.structure(variables)
    dj.unlearn(model, variables, images, labels, forget=[1], epochs=1, batch_size=8, parallel="jit", **tiny.PAPER)
    assert dj.models.from_linen(Dropout()) is dj.models.from_linen(Dropout())


def test_sweep_compiles_once():
    """10 classes x 2 seeds x 2 rates, with class sizes that all differ: one trace, one compilation of the step."""
    traces = []

    class Counted(tiny.Net):
        def __call__(self, x, train: bool):
            traces.append(train)
            return super().__call__(x, train)

    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), np.arange(9, 19)).astype(np.int32)
    images = rng.integers(0, 256, (len(labels), 6, 6, 1), dtype=np.uint8)
    model, variables = tiny.network(Counted(num_classes=10))
    preprocess = normalize(np.array([0.5]), np.array([0.25]))
    traces.clear()
    outcomes = set()
    for forgotten in range(10):
        for seed in (0, 1):
            for lr in (1e-3, 1e-2):
                result = dj.unlearn(
                    model, variables, images, labels, forget=[forgotten], seed=seed, lr=lr, epochs=2, batch_size=8,
                    preprocess=preprocess, method=dj.methods.delete(), parallel="jit", batch_norm="train",
                )  # fmt: skip
                outcomes.add(result.history[-1]["loss"])
    assert len(outcomes) == 40, "every combination is another run"
    assert traces.count(True) == 1
    trainer = make_trainer(model, dj.methods.delete(), sgd(), preprocess, None, "train", "jit")
    assert trainer.compiled._cache_size() == 1


def test_union_and_own_masks():
    """Two forgotten classes that look alike: masked alone, each becomes the other's answer."""
    model, variables = tiny.network()
    images, labels = tiny.samples(256)
    images[labels == 2] = images[labels == 1][:, ::-1, ::-1] * 0.2 + images[labels == 1] * 0.8
    variables = trained(model, variables, images, labels, epochs=60)
    landed = {}
    for mask in ("union", "own"):
        result = dj.unlearn(
            model,
            variables,
            images,
            labels,
            forget=[1, 2],
            mask=mask,
            epochs=10,
            lr=0.03,
            batch_size=16,
            parallel="jit",
            method="delete",
            batch_norm="train",
        )
        answers = make_predictor(model, as_is)(result.variables, images[np.isin(labels, [1, 2])]).argmax(-1)
        landed[mask] = np.isin(answers, [1, 2]).mean()
    assert landed["union"] <= 0.05
    assert landed["own"] > 0.3
    streams = {
        mask: np.asarray(split_streams(images, labels, [1, 2], tiny.NUM_CLASSES, ["forget"], mask)["forget"]["erase"])
        for mask in ("union", "own")
    }
    assert (streams["union"] == [False, True, True, False]).all()
    assert (streams["own"].sum(1) == 1).all()


def test_sequential_requests_start_at_the_last_student():
    model, variables = tiny.network()
    images, labels = tiny.samples(64)
    settings = {"epochs": 1, "batch_size": 8, "lr": 0.05, "parallel": "jit"}
    first = dj.unlearn(model, variables, images, labels, forget=[1], **settings, method="delete", batch_norm="train")
    second = dj.unlearn(
        model, first.variables, images, labels, forget=[1, 2], **settings, method="delete", batch_norm="train"
    )
    assert second.history[0]["loss"] != first.history[0]["loss"]


def test_divergence_is_named():
    model, variables = tiny.network()
    images, labels = tiny.samples(64)
    with pytest.raises(dj.NonFiniteError, match=r"diverged at step \d+ .* learning rate 1e\+30: try a rate of 1e\+29"):
        dj.unlearn(
            model, variables, images, labels, forget=[1], lr=1e30, epochs=3, batch_size=8, parallel="jit",
            batch_norm="frozen",
        )  # fmt: skip


def test_batch_norm_is_pytorchs():
    """Biased variance to normalise, unbiased in the running average, momentum 0.9."""
    x = jnp.asarray(np.random.default_rng(0).normal(3, 2, (4, 3, 3, 2)).astype(np.float32))
    module = BatchNorm()
    variables = module.init(jax.random.key(0), x, train=False)
    y, updated = module.apply(variables, x, train=True, mutable=["batch_stats"])
    flat = np.asarray(x).reshape(-1, 2)
    np.testing.assert_allclose(
        y.reshape(-1, 2), (flat - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.1 * flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["var"], 0.9 + 0.1 * flat.var(0, ddof=1), rtol=1e-5)
