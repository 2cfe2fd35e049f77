"""The contract of every method; one that is added to the table is tested here without another line."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import delete_jax as dj
from delete_jax.methods import (
    CLASSES,
    COUNTERPARTS,
    FORGET,
    MAPS,
    MASKED,
    METHODS,
    TRAINED,
    Context,
    Setup,
    check_needs,
)
from delete_jax.methods.hyperparameters import POSITIVE, factory
from delete_jax.testing import check_method
from tests import tiny

# where the default changes nothing in a network as small as these
HYPERPARAMETERS = {
    "ssd": {"alpha": 0.5}, "esc_t": {"threshold": 0.999}, "redistil": {"fresh": ("Conv", "BatchNorm"), "images": 2.0},
}  # fmt: skip


def create(name):
    return dj.methods.create(name, **HYPERPARAMETERS.get(name, {}))


@pytest.fixture(params=METHODS)
def method(request):
    return create(request.param)


SELDOM = (
    "l2ul_adv",
    "l2ul_imp",
    "redistil",
    "trew",
    "source_free",
    "wood_fisher",
    "esc_t",
    "negative_gradient_plus",
    "unsir",
    "rfe",
    "salun",
    "bad_teacher",
    "fisher",
    "boundary_expand",
)  # long, or like another one


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SELDOM else ()) for n in METHODS])
def test_the_contract(name):
    check_method(functools.partial(METHODS[name], **HYPERPARAMETERS.get(name, {})))


VARIANTS = (("delete", {"remain": True}), ("delete", {"remain": "labels"}), ("trew", {"remain": True}))
"""Methods that read other samples than by default."""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "hyperparameters"), VARIANTS)
def test_the_contract_of_variants(name, hyperparameters):
    check_method(functools.partial(METHODS[name], **hyperparameters))


@pytest.mark.parametrize("name", ["redistil", "unsir", "rfe"])
def test_label_maps_that_a_method_refuses(name):
    network, samples = tiny.network(tiny.Segmenter()), tiny.label_maps(8, (1,))
    with pytest.raises(ValueError, match="answer once per image: choose another method, such as delete"):
        dj.unlearn(*network, *samples, forget=1, method=create(name), batch_size=8)


@pytest.mark.parametrize("name", [name for name in METHODS if {*dj.methods.create(name).needs} - {CLASSES}])
def test_what_a_method_needs_is_asked_for(name):
    model, variables = tiny.network()
    images, labels = tiny.samples(16)
    with pytest.raises(ValueError, match=f"method {name} needs .* in these samples: choose another method, such as"):
        dj.unlearn(model, variables, images, labels, forget=[1], method=create(name))


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
    shown = "(temperature: 'float' = 1.0, remain: 'bool | str' = False, dispersion: 'float' = 0.0, neighbours: 'float' = 0.0)"
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
