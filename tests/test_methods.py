"""The contract of every method; one that is added to the table is tested here without another line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import delete_jax as dj
from delete_jax.methods import FORGET, METHODS, REMAIN
from delete_jax.step import init_state, make_train_step, sgd
from delete_jax.unlearning import split_streams
from tests import tiny

FORGOTTEN = [1]


def identity(images):
    return images


@pytest.fixture(params=METHODS)
def method(request):
    return dj.methods.create(request.param)


@pytest.fixture(scope="module")
def net():
    return tiny.network()


def prepared_batch(method, model, variables, seed=0):
    images, labels = tiny.samples(32)
    streams = split_streams(images, labels, FORGOTTEN, tiny.NUM_CLASSES, method.streams)
    streams = {
        name: {key: jnp.asarray(column[:8]) for key, column in stream.items()} for name, stream in streams.items()
    }
    if method.prepare is not None:
        added = method.prepare(model, variables, identity, streams, tiny.NUM_CLASSES, jax.random.key(seed))
        streams = {name: stream | added.get(name, {}) for name, stream in streams.items()}
    return streams


def largest_difference(a, b) -> float:
    return max(float(jnp.abs(x - y).max()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_three_steps(method, net):
    model, variables = net
    before = jax.tree.map(np.array, variables)
    batch = prepared_batch(method, model, variables)
    step = make_train_step(model, method, sgd(), preprocess=identity)
    compiled = jax.jit(step, donate_argnums=0)
    state, losses = init_state(variables, sgd()), []
    for _ in range(3):
        state, metrics = compiled(state, variables, batch, jnp.float32(0.01), jax.random.key(0))
        losses.append(float(metrics["loss"]))
    assert int(state.step) == 3
    assert losses[2] < losses[0], "the loss falls on a batch seen three times"
    assert largest_difference(state.params, variables["params"]) > 0
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state.variables) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), variables
    )
    jax.tree.map(np.testing.assert_array_equal, variables, before)  # the teacher is alive and as it was
    if "retention" in metrics:
        parts = metrics["forgetting"] + metrics["within"] + metrics["retention"]
        np.testing.assert_allclose(parts, metrics["loss"], rtol=1e-5)
    if method.name == "delete":
        assert float(metrics["within"]) == 0


def test_compiled_and_not_compiled_agree(net):
    """Once, for DELETE: running op by op takes long."""
    model, variables = net
    method = dj.methods.delete()
    batch = prepared_batch(method, model, variables)
    step = make_train_step(model, method, sgd(), preprocess=identity)
    arguments = (init_state(variables, sgd()), variables, batch, jnp.float32(0.01), jax.random.key(0))
    assert largest_difference(step(*arguments)[0].params, jax.jit(step)(*arguments)[0].params) < 1e-6


def test_weight_zero_counts_for_nothing(method, net, x64):
    """With frozen statistics a sample of weight 0 may be anything; leaving it out gives the same parameters."""
    model, variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), net[1]), None
    model, variables = net[0], model
    batch = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        prepared_batch(method, model, variables),
    )
    step = jax.jit(make_train_step(model, method, sgd(), preprocess=identity, batch_norm="frozen"))

    def params_after(batch):
        state = init_state(variables, sgd())
        return step(state, variables, batch, 0.1, jax.random.key(0))[0].params

    def first_off(column_name, column):
        return column.at[0].set(0 if column_name == "weight" else column[0] * 7)

    off = {
        name: {key: first_off(key, column) if key in ("weight", "image") else column for key, column in stream.items()}
        for name, stream in batch.items()
    }
    without = jax.tree.map(lambda column: column[1:], batch)
    assert largest_difference(params_after(off), params_after(without)) < 1e-14
    assert largest_difference(params_after(off), params_after(batch)) > 1e-6


def test_remaining_data_is_read_only_when_declared(method, net):
    model, variables = net
    images, labels = tiny.samples(48)
    changed = np.where(np.isin(labels, FORGOTTEN)[:, None, None, None], images, images + 1)
    settings = {"forget": FORGOTTEN, "method": method, "epochs": 1, "lr": 0.05, "batch_size": 4, "parallel": "jit"}
    a = dj.unlearn(model, variables, images, labels, **settings)
    b = dj.unlearn(model, variables, changed, labels, **settings)
    if REMAIN in method.streams:
        assert largest_difference(a.variables, b.variables) > 0
    else:
        assert largest_difference(a.variables, b.variables) == 0
        only = np.isin(labels, FORGOTTEN)
        c = dj.unlearn(model, variables, images[only], labels[only], **settings)
        assert largest_difference(a.variables, c.variables) == 0


def test_same_seed_same_result(method, net):
    model, variables = net
    images, labels = tiny.samples(48)

    def run(seed):
        return dj.unlearn(
            model, variables, images, labels, forget=FORGOTTEN, method=method, epochs=1, lr=0.05, batch_size=4,
            seed=seed, parallel="jit",
        ).variables  # fmt: skip

    assert largest_difference(run(1), run(1)) == 0
    assert largest_difference(run(1), run(2)) > 0


def test_segmentation_shapes(method):
    model, variables = tiny.network(tiny.Segmenter())
    images, _ = tiny.samples(8)
    labels = np.random.default_rng(0).integers(0, tiny.NUM_CLASSES, images.shape[:3])
    labels[:4][labels[:4] == FORGOTTEN[0]] = 0  # four images without the class
    labels[:, 0, 0] = 255
    result = dj.unlearn(
        model,
        variables,
        images,
        labels,
        forget=FORGOTTEN,
        method=method,
        epochs=2,
        lr=0.05,
        batch_size=4,
        parallel="jit",
    )
    assert len(result.history) == 2
    assert np.isfinite([row["loss"] for row in result.history]).all()


@pytest.mark.parametrize(
    ("name", "hyperparameters", "words"),
    [
        ("deletee", {}, "delete, random_label"),
        ("delete", {"temprature": 2.0}, "temprature"),
        ("delete", {"temperature": 0.0}, "above 0"),
        ("delete", {"temperature": "hot"}, "above 0"),
        ("random_label", {"exclude_true": 1}, "True or False"),
    ],
)
def test_wrong_settings_are_named(name, hyperparameters, words):
    with pytest.raises(ValueError, match=words):
        dj.methods.create(name, **hyperparameters)


def test_random_labels():
    labels = jnp.zeros(4000, jnp.int32)
    streams = {FORGET: {"label": labels}}

    def drawn(exclude_true):
        method = dj.methods.random_label(exclude_true)
        columns = method.prepare(None, None, None, streams, 4, jax.random.key(0))
        return np.bincount(columns[FORGET]["random_label"], minlength=4) / 4000

    np.testing.assert_allclose(drawn(False), [0.25] * 4, atol=0.03)
    np.testing.assert_allclose(drawn(True), [0, 1 / 3, 1 / 3, 1 / 3], atol=0.03)


def test_temperature_keeps_the_gradients_scale(x64):
    """T^2 KL(softmax(z/T) || softmax(s/T)) tends to half the squared difference of the centred logits over k."""
    rng = np.random.default_rng(0)
    teacher, student = jnp.asarray(rng.normal(size=(2, 1, 5)))
    nothing = {"erase": jnp.zeros((1, 5), bool)}
    output = dj.methods.Output(nothing, student, teacher)
    term = dj.methods.delete(temperature=1e3).loss({FORGET: output})[FORGET]
    centred = (teacher - teacher.mean()) - (student - student.mean())
    np.testing.assert_allclose(term.loss, jnp.sum(centred**2, -1) / 2 / 5, rtol=1e-2)
    np.testing.assert_allclose(sum(term.parts), term.loss, rtol=1e-8)
