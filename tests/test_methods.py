"""The contract of every method; one that is added to the table is tested here without another line."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import delete_jax as dj
from delete_jax.columns import arrays
from delete_jax.job import checked_job
from delete_jax.methods import (
    CLASSES,
    COUNTERPARTS,
    FORGET,
    MAPS,
    MASKED,
    METHODS,
    REMAIN,
    TRAINED,
    Context,
    Setup,
    check_needs,
)
from delete_jax.methods.hyperparameters import POSITIVE, factory
from delete_jax.options import Options
from delete_jax.step import init_state, make_train_step, sgd
from delete_jax.streams import split_streams
from delete_jax.unlearning import unlearn_job
from tests import tiny

FORGOTTEN = [1]
pytestmark = pytest.mark.usefixtures("fast_compile")


def identity(images):
    return images


# where the default changes nothing in a network as small as these
HYPERPARAMETERS = {
    "ssd": {"alpha": 0.5}, "esc_t": {"threshold": 0.999}, "redistil": {"fresh": ("Conv", "BatchNorm"), "images": 2.0},
}  # fmt: skip
EDITS = [name for name in METHODS if dj.methods.create(name).edit is not None]


def create(name):
    return dj.methods.create(name, **HYPERPARAMETERS.get(name, {}))


@pytest.fixture(params=METHODS)
def method(request):
    return create(request.param)


OFTEN = ("delete", "anchored", "random_label", "salun", "scrub", "pour")


@pytest.fixture(params=[pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in METHODS])
def often(request):
    """Every method, those that are used less among the slow tests."""
    return create(request.param)


@pytest.fixture(params=[name for name in METHODS if name not in EDITS])
def trained(request):
    return create(request.param)


def network(method):
    """One that answers per pixel for a method that needs that."""
    return tiny.network(tiny.Segmenter() if MAPS in method.needs else None)


def samples(method, n):
    """Images and labels; maps for a method that needs them: the forgotten class in half of the images."""
    return label_maps(n) if MAPS in method.needs else tiny.samples(n)


def label_maps(n):
    images, _ = tiny.samples(n)
    labels = np.random.default_rng(0).integers(0, tiny.NUM_CLASSES, images.shape[:3])
    labels[: n // 2][labels[: n // 2] == FORGOTTEN[0]] = 0
    labels[:, 0, 0] = 255
    return images, labels


def streams_for(method, model, variables, images, labels):
    """The method's streams, with what it needs."""
    streams = arrays(split_streams(images, labels, FORGOTTEN, tiny.NUM_CLASSES, method.streams))
    if COUNTERPARTS in method.needs:  # the answers to the forget images in another order
        streams[FORGET]["teacher_logits"] = np.asarray(model.apply(variables, streams[FORGET]["image"][::-1]))
    return streams


def unlearned(method, model, variables, images, labels, forget=FORGOTTEN, **options):
    """The result of a short run of any method."""
    options = {"epochs": 1, "lr": 0.05, "batch_size": 4, "parallel": "jit", "seed": 1} | options
    if COUNTERPARTS not in method.needs:
        return dj.unlearn(model, variables, images, labels, forget=forget, method=method, **options)
    streams = streams_for(method, model, variables, images, labels)
    classes = tuple(FORGOTTEN)
    job = checked_job(model, variables, streams, tiny.NUM_CLASSES, classes, method, Options(**options))
    return unlearn_job(job)


def prepared(method, model, variables):
    """What a step takes: the model and variables to train, a batch, constants."""
    dtype = jax.tree.leaves(variables)[0].dtype
    images, labels = samples(method, 32)
    streams = streams_for(method, model, variables, images.astype(dtype), labels)
    streams = jax.tree.map(lambda c: jnp.asarray(c[:8], dtype if c.dtype.kind == "f" else c.dtype), streams)
    setup = Setup(
        model,
        variables,
        identity,
        streams,
        tiny.NUM_CLASSES,
        tuple(FORGOTTEN),
        jax.random.key(0),
        batch_size=8,
        num_steps=30,
    )
    made = method.prepare(setup)
    streams = {name: stream | made.columns.get(name, {}) for name, stream in {**streams, **made.streams}.items()}
    constants = made.constants
    if method.wrap is not None:
        model, variables = method.wrap(setup)
    return model, variables, streams, constants


def largest_difference(a, b) -> float:
    return max(float(jnp.abs(x - y).max()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_three_steps(trained):
    net = network(trained)
    teacher = net[1]
    before = jax.tree.map(np.array, teacher)
    model, variables, batch, constants = prepared(trained, *net)
    compiled = jax.jit(make_train_step(model, trained, sgd(), preprocess=identity), donate_argnums=0)
    state, losses = init_state(variables, sgd()), []
    for _ in range(3):
        state, metrics = compiled(state, {"original": teacher}, batch, jnp.float32(0.01), jax.random.key(0), constants)
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
    assert jax.tree.structure(trained.unwrap(state.variables)) == jax.tree.structure(teacher)


def test_weight_zero_counts_for_nothing(trained, x64):
    """With frozen statistics a sample of weight 0 may be anything; leaving it out gives the same parameters."""
    net = network(trained)
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), net[1])
    model, variables, batch, constants = prepared(trained, net[0], wide)
    teacher = jax.tree.map(lambda leaf: 1.1 * leaf, wide)  # another one: SCRUB's gradient is 0 at the teacher itself
    step = jax.jit(make_train_step(model, trained, sgd(), preprocess=identity, batch_norm="frozen"))

    def params_after(batch):
        state = init_state(variables, sgd())
        return step(state, {"original": teacher}, batch, 0.1, jax.random.key(0), constants)[0].params

    def last_off(column_name, column):  # the last: a sample's augmentation follows its place
        return column.at[-1].set(0 if column_name == "weight" else column[-1] * 7)

    off = {
        name: {key: last_off(key, column) if key in ("weight", "image") else column for key, column in stream.items()}
        for name, stream in batch.items()
    }
    without = jax.tree.map(lambda column: column[:-1], batch)
    assert largest_difference(params_after(off), params_after(without)) < 1e-13
    assert largest_difference(params_after(off), params_after(batch)) > 1e-7


def test_what_a_run_depends_on(method):
    """On remaining data only where that is declared, and on the seed; the same again gives the same."""
    model, variables = network(method)
    images, labels = samples(method, 48)
    only = np.isin(labels, FORGOTTEN).reshape(len(labels), -1).any(1)

    def run(images, labels, **options):
        return unlearned(method, model, variables, images, labels, **options).variables

    first = run(images, labels)
    changed = run(np.where(only[:, None, None, None], images, images + 1), labels)
    if REMAIN in method.streams:
        assert largest_difference(first, changed) > 0
        assert largest_difference(first, run(images, labels)) == 0
    else:
        assert largest_difference(first, changed) == 0
        assert largest_difference(first, run(images[only], labels[only])) == 0
    assert (largest_difference(first, run(images, labels, seed=2)) > 0) == ("seed" in method.settings)


@pytest.mark.parametrize("name", EDITS)
def test_the_settings_that_count(name):
    """Of a method that is computed at once, those declared change the result, and the others do not change one bit."""

    def shifted(images, keys):
        return images + 1

    others = {
        "epochs": {"epochs": 3},
        "lr": {"lr": 0.01},
        "batch_size": {"batch_size": 6},  # one step fewer
        "momentum": {"tx": sgd(0.5)},
        "batch_norm": {"batch_norm": "frozen"},
        "augment": {"augment": shifted},
        "seed": {"seed": 2},
    }
    assert list(others) == list(TRAINED)
    method = create(name)
    model, variables = network(method)
    images, labels = samples(method, 48)
    first = unlearned(method, model, variables, images, labels).variables
    for setting, options in others.items():
        second = unlearned(method, model, variables, images, labels, **options).variables
        assert (largest_difference(first, second) > 0) == (setting in method.settings), setting


def test_whether_the_mask_counts(often):
    """With two classes to forget, masking each sample's own label alone changes the result of those that declare it."""
    method = often
    if COUNTERPARTS in method.needs:
        pytest.skip("its streams are not made by a mask")
    model, variables = network(method)
    images, labels = samples(method, 48)
    union, own = (
        unlearned(method, model, variables, images, labels, [1, 2], mask=mask).variables for mask in ("union", "own")
    )
    assert (largest_difference(union, own) > 0) == ("mask" in method.settings)


def test_label_maps(often):
    method = often
    model, variables = tiny.network(tiny.Segmenter())
    if method.starts_over:
        with pytest.raises(ValueError, match="answer once per image: choose another method, such as delete"):
            unlearned(method, model, variables, *label_maps(8))
        return
    result = unlearned(method, model, variables, *label_maps(8), epochs=2)
    assert len(result.history) == (0 if method.edit else 2)
    assert largest_difference(result.variables, variables) > 0
    assert np.isfinite([row["loss"] for row in result.history]).all()


@pytest.mark.parametrize("name", [name for name in METHODS if {*dj.methods.create(name).needs} - {CLASSES}])
def test_what_a_method_needs_is_asked_for(name):
    model, variables = tiny.network()
    images, labels = tiny.samples(16)
    with pytest.raises(ValueError, match=f"method {name} needs .* in these samples: choose another method, such as"):
        dj.unlearn(model, variables, images, labels, forget=FORGOTTEN, method=create(name))


def test_needs():
    method = dj.methods.to_background()
    assert method.needs == (MAPS,)
    check_needs(method, (COUNTERPARTS, MAPS), "these samples")
    check_needs(dj.methods.delete(), (), "these samples")
    with pytest.raises(ValueError, match=r"label maps\), and there is one per image in the task x: choose another"):
        check_needs(method, [COUNTERPARTS], "the task x")


# ----------------------------------------------------------------------------------------------------- hyper-parameters

PARAMETERS = [(name, parameter) for name in METHODS for parameter in inspect.signature(METHODS[name]).parameters]


def test_facts(method):
    factory = METHODS[method.name]
    assert factory.__name__ == method.name
    assert factory.__doc__
    assert list(method.ranges) == list(inspect.signature(factory).parameters)
    assert method.paper
    assert set(method.settings) <= set(MASKED)
    modes = {"batch_norm", "augment"} if method.starts_over else {"batch_norm"}
    assert method.edit is not None or set(TRAINED) - modes <= set(method.settings)
    assert set(method.needs) <= {CLASSES, MAPS, COUNTERPARTS}
    assert isinstance(hash(method), int)


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS)
@pytest.mark.parametrize(
    "value",
    ["odd", "", np.nan, -np.inf, np.float32("inf"), -1, np.int64(-2), 10**400, 1j, {}, {"a"}, [], [1], [["turn"]],
     b"x", np.ones(2), jnp.ones((1, 1)), object()],
    ids=lambda value: f"{value!r:.12}",
)  # fmt: skip
def test_values_out_of_range(name, parameter, value):
    """None of these is in any parameter's range but a negative finite number in one without bounds."""
    if METHODS[name]().ranges[parameter] == "a number" and isinstance(value, (int, np.int64)) and abs(value) < 10:
        assert METHODS[name](**{parameter: value})
        return
    with pytest.raises(ValueError, match=f"{name}: {parameter} must be ") as error:
        METHODS[name](**{parameter: value})
    assert METHODS[name]().ranges[parameter] in str(error.value)
    assert repr(value)[:8] in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=parameter):
        dj.methods.create(name, **{parameter: value})


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS)
def test_a_bool_is_no_number_and_a_number_no_bool(name, parameter):
    """Though equal values: the cache must not take one for the other."""
    METHODS[name]()
    default = inspect.signature(METHODS[name]).parameters[parameter].default
    value = int(default) if isinstance(default, bool) else True
    with pytest.raises(ValueError, match=f"{name}: {parameter} must be "):
        METHODS[name](**{parameter: value})


def test_equal_settings_are_the_same_method(method, x64):
    """Compiled steps are kept per method; whatever the settings come as."""
    factory = METHODS[method.name]
    defaults = {name: p.default for name, p in inspect.signature(factory).parameters.items()}
    numbers = {name: value for name, value in defaults.items() if isinstance(value, (int, float, bool))}
    for convert in (np.asarray, jnp.asarray, lambda value: np.asarray(value)[()]):
        assert factory(**{name: convert(value) for name, value in numbers.items()}) is factory()
    assert factory(*defaults.values()) is factory(**defaults) is dj.methods.create(method.name)


def test_the_same_method_in_other_types():
    delete, anchored = dj.methods.delete, dj.methods.anchored
    for value in (1, 1.0, np.float32(1), np.int64(1), jnp.float32(1), jnp.bfloat16(1), jnp.int32(1)):
        assert delete(value) is delete(temperature=value) is delete()
    assert delete(np.float32(2)) is delete(2) is not delete()
    assert delete(remain=np.True_) is delete(remain=jnp.array(True)) is delete(remain=True)
    assert anchored(transformations=["flip", "turn"]) is anchored(transformations=("turn", "flip"))
    assert anchored(delete()) is anchored() is dj.methods.create("anchored", method="delete")
    assert dj.methods.to_background(np.int64(2)) is dj.methods.to_background(2)


def test_a_factory_keeps_its_signature():
    shown = "(temperature: 'float' = 1.0, remain: 'bool' = False, dispersion: 'float' = 0.0, neighbours: 'float' = 0.0)"
    assert str(inspect.signature(dj.methods.delete)) == f"{shown} -> 'Method'"
    assert dj.methods.delete.__doc__.startswith("Minimise")
    with pytest.raises(TypeError, match="temprature"):
        dj.methods.delete(temprature=1)
    with pytest.raises(TypeError, match=r"has parameters \['a'\], and kinds of \['b'\]"):
        factory(b=POSITIVE)(lambda a: None)


@pytest.mark.parametrize(
    ("name", "hyperparameters", "words"),
    [
        ("deletee", {}, "choose one of delete, "),
        (["delete"], {}, "choose one of delete, "),
        ("delete", {"temprature": 2.0}, "delete has no hyper-parameter 'temprature': choose from temperature, remain"),
        ("delete", {"name": "x"}, "delete has no hyper-parameter 'name'"),
        ("pour", {"alpha": [1]}, "pour has no hyper-parameter 'alpha': it has none"),
        ("delete", {"method": "nope"}, "delete has no hyper-parameter 'method'"),
        ("anchored", {"method": {"name": "delete"}}, "anchored: method must be a trained method"),
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
