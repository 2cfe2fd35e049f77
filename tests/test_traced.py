"""A store is of one request: another function is another request; the same one, written anew, is not."""

import collections
import dataclasses
import functools
import operator
import types
from fractions import Fraction
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import delete_jax as dj
from delete_jax.identity import IdentityError
from delete_jax.methods import FORGET, Method, Term
from delete_jax.traced import code, computation
from tests import tiny

SCALE = 1.0


def own(weight):
    def loss(outputs, context):
        return {FORGET: Term(weight * jnp.mean(outputs[FORGET].logits, -1))}

    return Method("own", loss)


def half(x):
    return 0.5 * x


def mirrored(images, keys):
    return images[:, :, ::-1]


def networks():
    model, variables = tiny.network()
    other = model._replace(apply=lambda variables, x: 2 * model.apply(variables, x))
    trained = model._replace(apply_train=lambda variables, x, key: (model.apply(variables, x), variables))
    return {"model": model, "other apply": other, "other apply_train": trained}, variables


CHANGED = {
    "preprocess": ({"preprocess": lambda x: x}, {"preprocess": half}),
    "a preprocess for none": ({}, {"preprocess": half}),
    "a constant of preprocess": ({"preprocess": lambda x: x - 0.1}, {"preprocess": lambda x: x - np.float32(0.10000002)}),
    "an array of preprocess": ({"preprocess": lambda x: x - np.full(6, 1e-3, np.float32)[:, None]}, {"preprocess": lambda x: x - np.full(6, 2e-3, np.float32)[:, None]}),
    "tx": ({"tx": optax.sgd(1.0, momentum=0.9)}, {"tx": optax.sgd(1.0, momentum=0.1)}),
    "tx for the default": ({}, {"tx": optax.adam(1.0)}),
    "augment": ({"augment": lambda x, keys: x}, {"augment": mirrored}),
    "an own method's loss": ({"method": own(1.0)}, {"method": own(2.0)}),
    "apply": ({"model": "model"}, {"model": "other apply"}),
    "apply_train": ({"model": "model"}, {"model": "other apply_train"}),
}  # fmt: skip


def unlearned(options, store):
    models, variables = networks()
    given = {"forget": [1], "epochs": 1, "lr": 0.05, "batch_size": 8, "parallel": "jit", **options}
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):  # in others' code
        return dj.unlearn(
            models[given.pop("model", "model")],
            variables,
            *tiny.samples(32),
            **{"method": "delete", "batch_norm": "train"} | given,
            store=store,
        )


@pytest.mark.parametrize("name", CHANGED)
def test_another_function_is_another_request(name, tmp_path):
    one, other = CHANGED[name]
    first = unlearned(one, dj.Checkpoints(tmp_path))
    assert unlearned(one, dj.Checkpoints(tmp_path)).history == first.history
    with pytest.raises(IdentityError, match=r"was made from something else \(functions\.\w+ was \w+, now \w+"):
        unlearned(other, dj.Checkpoints(tmp_path))


def test_the_same_function_written_anew(tmp_path):
    """What counts is what is computed, or, of an own method, the code and the values around it."""
    first = unlearned({"preprocess": half, "tx": optax.sgd(1.0, 0.9), "method": own(2.0)}, dj.Checkpoints(tmp_path))
    again = {
        "preprocess": lambda images: 0.5 * images,
        "tx": optax.chain(optax.sgd(1.0, momentum=0.9)),
        "method": own(2.0),
    }
    with pytest.raises(IdentityError, match=r"functions\.tx"):  # its state has another form
        unlearned(again, dj.Checkpoints(tmp_path))
    again["tx"] = optax.sgd(1.0, momentum=0.9)
    assert unlearned(again, dj.Checkpoints(tmp_path)).history == first.history
    with pytest.raises(IdentityError):
        unlearned({**again, "method": "delete"}, dj.Checkpoints(tmp_path))


def test_what_cannot_be_compared_is_not(tmp_path, monkeypatch):
    """Another version of JAX traces otherwise, and earlier states say nothing of functions."""
    unlearned({"preprocess": half}, dj.Checkpoints(tmp_path / "a"))
    monkeypatch.setattr("delete_jax.traced.jax.__version__", "0.0")
    unlearned({}, dj.Checkpoints(tmp_path / "a"))
    monkeypatch.setattr("delete_jax.job.functions", lambda *_: {"versions": ""})
    unlearned({}, dj.Checkpoints(tmp_path / "b"))
    monkeypatch.undo()
    unlearned({"preprocess": half}, dj.Checkpoints(tmp_path / "b"))


def test_code():
    """Closures, defaults, constants, names of the module and arrays count; where a function stands does not."""

    def make(a, array, b=1):
        def function(x, c=b):
            return a * x + c * SCALE + array.sum()

        return function

    one = code(make(1, np.zeros(3)))
    assert one == code(make(1, np.zeros(3)))
    for other in (
        make(2, np.zeros(3)),
        make(1, np.ones(3)),
        make(1, np.zeros(3), 2),
        functools.partial(make(1, np.zeros(3)), c=3),
    ):
        assert code(other) != one
    assert code(lambda x: jnp.sin(x)) == code(lambda x: jnp.sin(x))
    assert code(lambda x: jnp.sin(x)) != code(lambda x: jnp.cos(x))
    loop: list = []
    loop.append(loop)
    assert code(loop) == "list(<0>)"
    global SCALE
    SCALE = 2.0
    try:
        assert code(make(1, np.zeros(3))) != one
    finally:
        SCALE = 1.0


def test_what_jax_does_not_show():
    """Arrays inside of jitted functions, callbacks, own derivatives: JAX's text has none of them."""
    x = jnp.ones(3)

    def jitted(value):
        array = np.full(3, value, np.float32)
        return jax.jit(lambda x: jax.jit(lambda y: y + array)(x))

    def called_back(value):
        return lambda x: jax.pure_callback(lambda y: np.asarray(y) * np.float32(value), x, x)

    def differentiated(value):
        @jax.custom_vjp
        def function(x):
            return x

        function.defvjp(lambda x: (x, None), lambda _, g: (value * g,))
        return jax.grad(lambda x: function(x).sum())

    def forward(value):
        @jax.custom_jvp
        def function(x):
            return x

        function.defjvp(lambda primals, tangents: (primals[0], value * tangents[0]))
        return function

    for make in (jitted, called_back, differentiated, forward):
        assert computation(make(1.0), x) == computation(make(1.0), x), make.__name__
        assert computation(make(1.0), x) != computation(make(2.0), x), make.__name__


class Constants:
    weight = 1.0

    @property
    def doubled(self):
        return 2 * self.weight


@dataclasses.dataclass(slots=True)
class Slotted:
    weight: float


class Called:
    def __call__(self, x):
        return x


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Slotted(1.0), Slotted(2.0)), (range(3), range(4)), (slice(1), slice(2)), (Fraction(1, 2), Fraction(1, 3)),
        (Path("a"), Path("b")), (bytearray(b"a"), bytearray(b"b")), (collections.deque([1]), collections.deque([2])),
        (np.ma.masked_array([1, 2], [True, False]), np.ma.masked_array([1, 2], [False, False])), (operator.itemgetter(1), operator.itemgetter(2)),
        (np.random.default_rng(0), np.random.default_rng(1)), ([1].append, [2].append), ({jnp.sin: 1}, {jnp.cos: 1}),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_values_around_a_function(one, other):
    def around(value):
        return lambda x: (value, x)

    assert code(around(one)) == code(around(one))
    assert code(around(one)) != code(around(other))


def test_classes_and_modules(monkeypatch):
    """What a function reads of somebody's own classes and modules counts, too."""
    own = types.ModuleType("somebodys_settings")
    own.weight = 1.0

    def reads(x):
        return Constants().doubled * own.weight * Called()(x)

    first = code(reads)
    monkeypatch.setattr(Constants, "weight", 2.0)
    second = code(reads)
    own.weight = 2.0
    third = code(reads)
    monkeypatch.setattr(Called, "__call__", lambda self, x: -x)
    assert len({first, second, third, code(reads)}) >= 3
    deep = lambda x: x  # noqa: E731
    for _ in range(3000):
        deep = functools.partial(deep)
    assert code(deep)


def test_computation():
    x = jnp.zeros((2, 3))
    one = computation(lambda x: jnp.where(x > 0, x, 0.1), x)
    assert one == computation(lambda y: jnp.where(y > 0, y, 0.1), x)  # names do not count
    assert one != computation(lambda x: jnp.where(x > 0, x, 0.10000001), x)
    assert computation(lambda x: int(x.sum()), x) == computation(lambda x: int(x.sum()), x)  # it cannot be traced
