"""The contract of every method; one that is added to the table is tested here without another line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import delete_jax as dj
from delete_jax.methods import FORGET, METHODS, REMAIN, Context, Setup
from delete_jax.step import init_state, make_train_step, sgd
from delete_jax.unlearning import split_streams
from tests import tiny

FORGOTTEN = [1]
pytestmark = pytest.mark.usefixtures("fast_compile")


def identity(images):
    return images


ALL = {name: {} for name in METHODS} | {"ssd": {"alpha": 0.5}}  # at its default nothing in a tiny network is chosen
TRAINED = [name for name in METHODS if dj.methods.create(name).edit is None]


@pytest.fixture(params=ALL)
def method(request):
    return dj.methods.create(request.param, **ALL[request.param])


@pytest.fixture(params=TRAINED)
def trained(request):
    return dj.methods.create(request.param)


@pytest.fixture(scope="module")
def net():
    return tiny.network()


def prepared(method, model, variables):
    """What a step takes: the model and variables to train, a batch, constants."""
    images, labels = tiny.samples(32)
    streams = split_streams(images, labels, FORGOTTEN, tiny.NUM_CLASSES, method.streams)
    dtype = jax.tree.leaves(variables)[0].dtype
    streams = jax.tree.map(lambda c: jnp.asarray(c[:8], dtype if c.dtype.kind == "f" else c.dtype), streams)
    key = jax.random.key(0)
    setup = Setup(
        model, variables, identity, streams, tiny.NUM_CLASSES, tuple(FORGOTTEN), key, batch_size=8, num_steps=30
    )
    columns, constants = method.prepare(setup)
    streams = {name: stream | columns.get(name, {}) for name, stream in streams.items()}
    if method.wrap is not None:
        model, variables = method.wrap(model, variables, tiny.NUM_CLASSES, key)
    return model, variables, streams, constants


def largest_difference(a, b) -> float:
    return max(float(jnp.abs(x - y).max()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_three_steps(trained, net):
    teacher = net[1]
    before = jax.tree.map(np.array, teacher)
    model, variables, batch, constants = prepared(trained, *net)
    compiled = jax.jit(make_train_step(model, trained, sgd(), preprocess=identity), donate_argnums=0)
    state, losses = init_state(variables, sgd()), []
    for _ in range(3):
        state, metrics = compiled(state, teacher, batch, jnp.float32(0.01), jax.random.key(0), constants)
        losses.append(float(metrics["loss"]))
    assert int(state.step) == 3
    assert losses[2] < losses[0], "the loss falls on a batch seen three times"
    assert largest_difference(state.params, variables["params"]) > 0
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state.variables) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), variables
    )
    jax.tree.map(np.testing.assert_array_equal, teacher, before)  # the teacher is alive and as it was
    if "retention" in metrics:
        parts = metrics["forgetting"] + metrics["within"] + metrics["retention"]
        np.testing.assert_allclose(parts, metrics["loss"], rtol=1e-5)
    if trained.name in ("delete", "anchored", "tilted"):
        assert float(metrics["within"]) == 0
    assert jax.tree.structure(trained.unwrap(state.variables)) == jax.tree.structure(teacher)


def test_weight_zero_counts_for_nothing(trained, net, x64):
    """With frozen statistics a sample of weight 0 may be anything; leaving it out gives the same parameters."""
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), net[1])
    model, variables, batch, constants = prepared(trained, net[0], wide)
    teacher = jax.tree.map(lambda leaf: 1.1 * leaf, wide)  # another one: SCRUB's gradient is 0 at the teacher itself
    step = jax.jit(make_train_step(model, trained, sgd(), preprocess=identity, batch_norm="frozen"))

    def params_after(batch):
        state = init_state(variables, sgd())
        return step(state, teacher, batch, 0.1, jax.random.key(0), constants)[0].params

    def last_off(column_name, column):  # the last: a sample's augmentation follows its place
        return column.at[-1].set(0 if column_name == "weight" else column[-1] * 7)

    off = {
        name: {key: last_off(key, column) if key in ("weight", "image") else column for key, column in stream.items()}
        for name, stream in batch.items()
    }
    without = jax.tree.map(lambda column: column[:-1], batch)
    assert largest_difference(params_after(off), params_after(without)) < 1e-13
    assert largest_difference(params_after(off), params_after(batch)) > 1e-7


def test_what_a_run_depends_on(method, net):
    """On remaining data only where that is declared, and on the seed; the same again gives the same."""
    model, variables = net
    images, labels = tiny.samples(48)
    settings = {"forget": FORGOTTEN, "method": method, "epochs": 1, "lr": 0.05, "batch_size": 4, "parallel": "jit"}

    def run(images, labels, seed=1):
        return dj.unlearn(model, variables, images, labels, seed=seed, **settings).variables

    first = run(images, labels)
    changed = run(np.where(np.isin(labels, FORGOTTEN)[:, None, None, None], images, images + 1), labels)
    if REMAIN in method.streams:
        assert largest_difference(first, changed) > 0
        assert largest_difference(first, run(images, labels)) == 0
    else:
        assert largest_difference(first, changed) == 0
        only = np.isin(labels, FORGOTTEN)
        assert largest_difference(first, run(images[only], labels[only])) == 0
    if method.name not in ("pour", "ssd", "wood_fisher"):  # these draw nothing
        assert largest_difference(first, run(images, labels, seed=2)) > 0


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
    assert len(result.history) == (0 if method.edit else 2)
    assert largest_difference(result.variables, variables) > 0
    assert np.isfinite([row["loss"] for row in result.history]).all()


@pytest.mark.parametrize(
    ("name", "hyperparameters", "words"),
    [
        ("deletee", {}, "choose one of delete, "),
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
        setup = Setup(None, None, None, streams, 4, (0,), jax.random.key(0))
        return np.bincount(method.prepare(setup).columns[FORGET]["random_label"], minlength=4) / 4000

    np.testing.assert_allclose(drawn(False), [0.25] * 4, atol=0.03)
    np.testing.assert_allclose(drawn(True), [0, 1 / 3, 1 / 3, 1 / 3], atol=0.03)


def test_temperature_keeps_the_gradients_scale(x64):
    """T^2 KL(softmax(z/T) || softmax(s/T)) tends to half the squared difference of the centred logits over k."""
    rng = np.random.default_rng(0)
    teacher, student = jnp.asarray(rng.normal(size=(2, 1, 5)))
    nothing = {"erase": jnp.zeros((1, 5), bool)}
    output = dj.methods.Output(nothing, student, teacher)
    term = dj.methods.delete(temperature=1e3).loss({FORGET: output}, Context())[FORGET]
    centred = (teacher - teacher.mean()) - (student - student.mean())
    np.testing.assert_allclose(term.loss, jnp.sum(centred**2, -1) / 2 / 5, rtol=1e-2)
    np.testing.assert_allclose(sum(term.parts), term.loss, rtol=1e-8)
