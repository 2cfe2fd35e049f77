"""Random requests, samples, settings, command lines and folders: what NumPy says, or one line; nothing else, and nothing half done.

Each strategy mixes what is right with what people pass by mistake; each test knows by itself which of it is right.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import json
import math
import pathlib
import shutil
import tempfile
import types

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis.configuration import set_hypothesis_home_dir
from PIL import Image
from rich.console import Console

import delete_jax as dj
from delete_jax import main as command
from delete_jax import methods, unlearning
from delete_jax.config import Config, fields, validate
from delete_jax.optimiser_check import check_optimiser
from delete_jax.optimisers import take_update
from delete_jax.options import MOST_BATCH_BYTES, MOST_EPOCHS, Options
from delete_jax.request import check_forget
from delete_jax.result import Watch, checked_watch
from delete_jax.run import arguments, stages
from delete_jax.run.folder import Folder
from delete_jax.run.log import JsonLog
from delete_jax.step import init_state
from tests import tiny

set_hypothesis_home_dir(pathlib.Path(__file__).parent.parent / ".cache" / "hypothesis")
CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much]
REFUSED = object()


def bounded(examples: int):
    return settings(max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=CHECKS)


def outcome(call, *arguments, **keywords):
    """What a call returns, or REFUSED where it raises ValueError with one good line. Anything else fails the test."""
    try:
        return call(*arguments, **keywords)
    except ValueError as error:
        assert_one_line(str(error))
        return REFUSED


def assert_one_line(text: str) -> None:
    assert len(text.splitlines()) == 1, repr(text)
    assert text.strip(), repr(text)
    assert "object at 0x" not in text, text
    assert "Traceback" not in text, text


# ---------------------------------------------------------------------------------------------------------- numbers


def is_integer(value) -> bool:
    """Whether it is an integer of Python, NumPy or JAX; truth values are none."""
    if isinstance(value, (np.ndarray, jax.Array)):
        return value.ndim == 0 and jnp.issubdtype(value.dtype, jnp.integer)
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_number(value) -> bool:
    """Whether it is a real number of Python, NumPy or JAX."""
    if isinstance(value, (np.ndarray, jax.Array)):
        return value.ndim == 0 and (jnp.issubdtype(value.dtype, jnp.floating) or is_integer(value))
    return is_integer(value) or isinstance(value, (float, np.floating))


INTEGER_TYPES = [np.int8, np.int64, np.uint8, np.uint64, lambda n: jnp.asarray(n, jnp.int32), np.asarray]
small = st.integers(-2, 6)
huge = st.sampled_from([2**31, 2**32 - 1, 2**32, 2**63, 2**64, -(2**63), 10**30, 10**400])
integers = st.one_of(
    small,
    st.integers(),
    huge,
    st.builds(lambda kind, n: kind(n), st.sampled_from(INTEGER_TYPES), st.integers(0, 5)),
)
FLOAT_TYPES = [np.float16, np.float32, np.float64, lambda x: jnp.asarray(x, jnp.bfloat16), np.asarray]
odd_floats = st.sampled_from([1.0, 0.5, 0.0, -0.0, 1e39, 1e-50, 1e308, 5e-324, math.nan, math.inf, -math.inf])
floats = st.one_of(
    odd_floats,
    st.floats(),
    st.builds(lambda kind, x: kind(x), st.sampled_from(FLOAT_TYPES), st.sampled_from([0.0, 0.25, 1.0, 2.0, math.nan])),
)
words = st.one_of(
    st.sampled_from(["", "1", "bee", "ant", "BEE", "delete", "train", "a\nb", "x" * 500]), st.text(max_size=5)
)


class Odd:
    """Something with nothing to it; its repr is an address."""


others = st.one_of(
    st.none(), st.booleans(), st.sampled_from([b"bee", 1j, np.True_, Odd, Odd(), ..., print, np.complex64(1)])
)
atoms = st.one_of(integers, floats, words, others)
anything = st.recursive(
    atoms,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=2)),
    max_leaves=5,
)


# --------------------------------------------------------------------------------------------------------- requests

NAMES = ("ant", "bee", "cat", "dog")
NAME_LISTS = [NAMES, list(NAMES), ("3", "1", "0", "2"), ("0", "1", "2", "3"), ("ant", "ant", "b", "1"), np.array(NAMES)]
NO_NAMES = [
    (*NAMES, "elk"), NAMES[:3], set(NAMES), "antb", b"antb", 4, ("ant", "bee", 3, "dog"), ("ant", "bee", "", "dog"),
    ("\ufeffant", "bee", "cat", "dog"), ("0 ant", "1 bee", "2 cat", "3 dog"), {0: "ant", 2: "cat"}, dict.fromkeys(NAMES, 0),
    {"ant": True, "bee": False, "cat": 2, "dog": 3}, np.ma.masked_array(NAMES, [True] * 4),
]  # fmt: skip
NAME_DICTS = [
    dict(enumerate(NAMES)),
    {"dog": 3, "ant": 0, "cat": 2, "bee": np.int8(1)},
    {"1": "bee", "0": "ant", "3": "dog", "2": "cat"},
]
names = st.sampled_from([None, *NAME_LISTS, *NAME_LISTS, *NAME_DICTS, *NO_NAMES])


def names_meant(given):
    """The names of the four classes, or REFUSED where these are none."""
    if any(given is other for other in NO_NAMES):
        return REFUSED
    return NAMES if any(given is other for other in NAME_DICTS) else None if given is None else tuple(given)


class_ = st.one_of(
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from(NAMES),
    st.integers(0, 3).map(np.int64),
    st.integers(0, 3).map(str),
    atoms,
)


def hashable(values: list) -> list:
    return [value for value in values if not isinstance(value, (np.ndarray, jax.Array))]


classes = st.lists(class_, max_size=4)
requests = st.one_of(
    class_,
    classes,
    classes.map(tuple),
    classes.map(hashable).map(set),
    classes.map(hashable).map(frozenset),
    classes.map(iter),
    classes.map(hashable).map(dict.fromkeys),
    st.builds(range, small, small),
    st.lists(small, max_size=4).map(np.array),  # an empty one is of floats
    st.lists(small, max_size=4).map(lambda found: jnp.asarray(found, jnp.int32)),
    st.lists(st.booleans(), min_size=4, max_size=4).map(np.array),
    st.lists(st.booleans(), min_size=4, max_size=4).map(jnp.array),
    st.lists(st.booleans(), min_size=4, max_size=4).map(lambda found: np.array(found, object)),
    st.lists(small, max_size=4).map(np.ma.masked_array),
    st.lists(st.sampled_from(NAMES), max_size=3).map(np.array),
    st.lists(st.floats(0, 3), max_size=3).map(np.array),
    st.lists(st.lists(small, min_size=2, max_size=2), min_size=1, max_size=2).map(np.array),
    st.lists(classes, max_size=2),
    st.lists(class_, max_size=3).map(
        lambda found: np.array(found, object) if all(np.ndim(x) == 0 for x in found) else found
    ),
)


def classes_meant(request: list, class_names, num_classes: int = 4) -> tuple[int, ...] | None:
    """The classes of a list of atoms, or None where something in it has no clear meaning."""
    found = set()
    for value in request:
        if isinstance(value, str):
            if class_names is None or list(class_names).count(value) != 1:
                return None
            found.add(list(class_names).index(value))
        elif is_integer(value) and 0 <= int(value) < num_classes:
            number = int(value)
            if class_names is not None and str(number) in class_names and class_names[number] != str(number):
                return None
            found.add(number)
        else:
            return None
    if len(request) > 2 and found == {0, 1} and not any(isinstance(value, str) for value in request):
        return None  # a mask, written in numbers
    return tuple(sorted(found)) if 0 < len(found) < num_classes else None


def as_list(request) -> list | None:
    if isinstance(request, np.ma.MaskedArray):
        return None
    if isinstance(request, (np.ndarray, jax.Array)):
        return None if request.ndim > 1 else list(np.asarray(request)) if request.ndim else [request]
    if isinstance(request, (list, tuple, set, frozenset, range)):
        return list(request)
    return [request]


@bounded(400)
@given(requests, names)
@example(np.array([True, False, True, False]), None)
@example(np.array([1, 0, 1]), None)
@example({1: 2}, None)
@example(iter([1, 2]), None)
@example([[1]], None)
@example([np.array([1])], None)
@example([jnp.array([1])], None)
@example(np.str_("bee"), NAMES)
@example("10", [str(i) for i in range(4)])
def test_a_request(request, class_names):
    """Classes by number or by name, in whatever holds them; a mask, a float or a nested list is never taken for numbers."""
    if isinstance(request, collections.abc.Iterator):
        kept = list(request)
        request, listed = iter(kept), kept
    else:
        listed = as_list(request)
    known = names_meant(class_names)
    expected = None if listed is None or known is REFUSED else classes_meant(listed, known)
    found = outcome(check_forget, request, 4, class_names)
    assert found == (expected or REFUSED)
    if found is not REFUSED:
        assert [type(class_) for class_ in found] == [int] * len(found)


# ---------------------------------------------------------------------------------------------------------- samples

NET, VARIABLES = tiny.network()
IMAGES, LABELS = tiny.samples(32)
LABEL_TYPES = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "bool", "U1", "O"]
IMAGE_TYPES = ["float32", "float64", "bfloat16", "uint8", "int32", "bool", "complex64", "O", "U3"]


@st.composite
def samples(draw):
    """Images and labels, right half of the time, with at most one thing wrong otherwise; and whether they are right."""
    n = draw(st.integers(1, 12))
    images, labels = IMAGES[:n], np.array(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    labels = labels.astype(dtype := draw(st.sampled_from(LABEL_TYPES)))
    right = np.issubdtype(dtype, np.integer)
    images = images.astype(dtype := jnp.dtype(draw(st.sampled_from(IMAGE_TYPES))))
    right &= jnp.issubdtype(dtype, jnp.floating)
    kinds = [
        "nan",
        "inf",
        "more",
        "fewer",
        "label",
        "flat",
        "wide",
        "channels",
        "none",
        "column",
        "masked",
        "masked labels",
    ]
    wrong = draw(st.sampled_from([""] * 6 + kinds))
    if draw(st.booleans()) and images.dtype.kind in "fiu" and labels.dtype.kind in "iu":  # as FITS and HDF5 have them
        images, labels = (values.astype(values.dtype.newbyteorder(">")) for values in (images, labels))
    if wrong in ("nan", "inf") and right:
        images = images.copy()
        images.flat[draw(st.integers(0, images.size - 1))] = float(wrong)
    elif wrong in ("more", "fewer"):
        labels = np.resize(labels, n + 1 if wrong == "more" else n - 1)
    elif wrong == "label" and right:
        labels = labels.copy()
        labels[draw(st.integers(0, n - 1))] = draw(
            st.sampled_from([4, 127] if labels.dtype.kind == "u" else [-1, 4, -128])
        )
    elif wrong == "flat":
        images = images.reshape(n, -1)
    elif wrong == "channels":
        images = np.concatenate([images, images], -1)
    elif wrong == "none":
        images, labels = images[:0], labels[:0]
    elif wrong == "column":
        labels = labels[:, None]
    elif wrong == "masked":
        images = np.ma.masked_array(images)
    elif wrong == "masked labels":
        labels = np.ma.masked_array(labels)
    elif wrong == "wide":
        images = images[:, :0]
    if draw(st.booleans()) and "masked" not in wrong:
        images, labels = (
            images.tolist() if images.dtype.name == "float64" else images,
            labels.tolist() if labels.dtype == np.int64 else labels,
        )
    return images, labels, bool(right and (not wrong or (wrong in ("nan", "inf", "label") and not right)))


@bounded(150)
@given(samples(), st.sets(st.integers(0, 3), min_size=1, max_size=3), st.sampled_from(["union", "own"]), st.booleans())
def test_samples(monkeypatch, given_samples, forget, mask, remain):
    """The streams that training gets are those that NumPy picks; whatever else is given is refused before."""
    images, labels, right = given_samples
    seen = {}
    monkeypatch.setattr(unlearning, "checked_job", lambda model, v, streams, *_, **__: seen.update(streams))
    monkeypatch.setattr(unlearning, "warn_beforehand", lambda job: None)
    monkeypatch.setattr(unlearning, "unlearn_job", lambda *_: None)
    method = methods.create("negative_gradient_plus") if remain else None
    found = outcome(dj.unlearn, NET, VARIABLES, images, labels, forget=forget, method=method, mask=mask, batch_size=8)
    expected = {}
    if right:
        hit = np.isin(np.asarray(labels), list(forget))
        expected = {"forget": hit} | ({"remain": ~hit} if remain else {})
        right = forget <= set(np.asarray(labels).tolist()) and all(chosen.any() for chosen in expected.values())
    assert (found is not REFUSED) == right
    for name, chosen in expected.items() if right else ():
        stream = seen[name]
        own = np.asarray(labels)[chosen]
        np.testing.assert_array_equal(np.asarray(stream["image"], np.float64), np.asarray(images, np.float64)[chosen])
        assert stream["label"].dtype == np.int32
        np.testing.assert_array_equal(stream["label"], own)
        np.testing.assert_array_equal(stream["weight"], np.ones(len(own)))
        erased = np.isin(np.arange(4), list(forget))
        assert stream["erase"].dtype == bool
        np.testing.assert_array_equal(
            stream["erase"], [erased & (np.arange(4) == label) if mask == "own" else erased for label in own]
        )


WEIGHT_TYPES = [
    "float32",
    "float64",
    "float16",
    "bfloat16",
    "int8",
    "uint8",
    "bool",
    "complex64",
    "float8_e4m3fn",
    "O",
    "U3",
    ">f4",
]


@bounded(60)
@given(
    st.sampled_from(WEIGHT_TYPES), st.sampled_from([np.asarray, jnp.asarray, np.ma.masked_array, list]), st.booleans()
)
def test_weights(kind, container, is_sweep):
    """Floats of 16 bits or more in arrays of NumPy or JAX; whatever else is refused by the name of the leaf."""
    kernel = np.asarray(VARIABLES["params"]["Dense_0"]["kernel"])
    dtype = jnp.dtype(kind)
    if container is jnp.asarray and (dtype.kind in "OU" or not dtype.isnative):
        return  # there are no such arrays
    is_array = container in (np.asarray, jnp.asarray)
    right = is_array and jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize > 1 and dtype.isnative
    given = container(kernel.astype(dtype))
    params = VARIABLES["params"] | {"Dense_0": VARIABLES["params"]["Dense_0"] | {"kernel": given}}
    variables = VARIABLES | {"params": params}
    request = {"requests": [[1]]} if is_sweep else {"forget": [1]}
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):  # the checks alone
        patch.setattr(unlearning, "unlearn_job", lambda *_: "right")
        patch.setattr("delete_jax.sweeping.sweep_jobs", lambda *_: "right")
        found = outcome(dj.sweep if is_sweep else dj.unlearn, NET, variables, IMAGES, LABELS, **request)
    assert (found == "right") == bool(right)


request_forms = st.recursive(
    st.one_of(small, st.sampled_from(NAMES), atoms, small.map(dj.Request)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.lists(inner, max_size=5).map(tuple), st.fixed_dictionaries({"forget": inner}),
        st.dictionaries(st.sampled_from(["forget", "lr", "seed", "rate"]), inner, max_size=2),
    ),
    max_leaves=5,
)  # fmt: skip


@bounded(200)
@given(request_forms)
@example([3, 2])
@example([{"forget": [3]}, (2,)])
@example({"forget": 3})
@example(dj.Request(3, method="delete", lr=1e-3))
def test_requests_of_a_sweep(requests):
    """Classes as somebody else's list has them, or one line; nothing is taken for something else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("delete_jax.sweeping.sweep_jobs", lambda jobs: jobs)
        found = outcome(dj.sweep, NET, VARIABLES, IMAGES, LABELS, requests, class_names=NAMES)
    if found is REFUSED:
        return
    assert isinstance(requests, (list, tuple))
    for job, request in zip(found, requests, strict=True):
        what = request["forget"] if isinstance(request, dict) else request[0] if isinstance(request, tuple) else request
        assert job.forget == check_forget(what, 4, NAMES)


LINKS = [
    lambda: optax.clip_by_global_norm(1.0), lambda: optax.scale_by_adam(), lambda: optax.add_decayed_weights(1e-3),
    lambda: optax.trace(0.9), lambda: optax.ema(0.5), lambda: optax.contrib.reduce_on_plateau(), lambda: optax.contrib.dowg(1.0),
    lambda: optax.contrib.mechanize(optax.sgd(1.0)), lambda: optax.polyak_sgd(1.0), lambda: optax.lookahead(optax.sgd(1.0), 2, 0.5),
    lambda: optax.scale_by_schedule(lambda step: 1 / (1 + step)), lambda: optax.keep_params_nonnegative(), lambda: optax.set_to_zero(),
]  # fmt: skip


@bounded(10)
@given(st.lists(st.sampled_from(LINKS), min_size=1, max_size=3))
def test_optimisers(links):
    """Whatever optimisers keep in their states: a step runs with finite weights, or one line names them."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        tx = optax.chain(*(link() for link in links))
        found = outcome(check_optimiser, tx, VARIABLES)
        if found is REFUSED:
            return
        state = init_state(VARIABLES, tx)
        buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state) if leaf.size]
        assert len(set(buffers)) == len(buffers)  # all of them are donated
        updates, after = jax.jit(functools.partial(take_update, tx))(
            state.params, state.opt_state, state.params, jnp.float32(1)
        )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(updates))
    shapes = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)] for tree in (state.opt_state, after)]
    assert shapes[0] == shapes[1]


@bounded(12)
@given(
    st.sampled_from([1, [1], (1,), {1}, range(1, 2), np.array([1]), np.uint8(1), "bee", ["bee"]]),
    st.sampled_from(["int8", "uint8", "int64", "uint64"]),
    st.sampled_from([1, np.int32(1), np.array(1)]),
    st.sampled_from([0.125, np.float32(0.125), np.array(0.125)]),
)
def test_a_whole_run(forget, dtype, epochs, rate):
    """However a request and its settings are given, the parameters are bit for bit the same."""
    found = dj.unlearn(
        NET, VARIABLES, IMAGES, LABELS.astype(dtype), forget=forget, epochs=epochs, lr=rate, batch_size=8, parallel="jit",
        class_names=NAMES, method="delete", batch_norm="train",
    )  # fmt: skip
    if "result" not in WHOLE:
        WHOLE["result"] = dj.unlearn(
            NET,
            VARIABLES,
            IMAGES,
            LABELS,
            forget=[1],
            epochs=1,
            lr=0.125,
            batch_size=8,
            parallel="jit",
            method="delete",
            batch_norm="train",
        )
    jax.tree.map(np.testing.assert_array_equal, found.variables, WHOLE["result"].variables)


WHOLE: dict = {}


# --------------------------------------------------------------------------------------------------------- settings


@bounded(400)
@given(st.sampled_from(["epochs", "batch_size", "seed", "lr"]), anything, st.sampled_from(["jit", "auto", "pmap"]))
@example("seed", 2**32, "jit")
@example("epochs", 1.5, "jit")
@example("lr", 10**400, "jit")
@example("batch_size", 10**400, "jit")
def test_options(name, value, parallel):
    """Numbers of any kind become Python's; what is out of range, a truth value or no number is refused."""
    found = outcome(lambda: Options(**{"batch_size": 8, "parallel": parallel, name: value}))
    if value is None and name in ("epochs", "lr"):  # what the method decides
        assert getattr(found, name) is None
        return
    if name == "lr":
        with np.errstate(all="ignore"):
            right = is_number(value) and abs(float_of(value)) < 1e300 and 0 < np.float32(float_of(value)) < np.inf
    else:
        low, high = {
            "epochs": (1, MOST_EPOCHS),
            "batch_size": (1, MOST_BATCH_BYTES // 4),
            "seed": (0, 2**32 - 1),
        }[name]
        right = is_integer(value) and low <= int(value) <= high
        if name == "batch_size":
            right = right and int(value) % (1 if parallel == "jit" else jax.device_count()) == 0
    assert (found is not REFUSED) == right
    if right:
        assert type(getattr(found, name)) is (float if name == "lr" else int)
        assert getattr(found, name) == (float_of(value) if name == "lr" else int(value))


def float_of(value) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


@bounded(100)
@given(
    st.sampled_from(["batch_norm", "parallel", "preprocess", "augment", "tx", "evaluate", "log", "store", "progress"]),
    st.one_of(anything, st.just(Odd())),
)
def test_other_options(name, value):
    """What is to be called or chosen and cannot be is refused; None leaves it out."""
    if name in ("evaluate", "log", "store", "progress"):
        found = outcome(checked_watch, *[value if name == part else None for part in Watch._fields[:4]])
    else:
        found = outcome(lambda: Options(**{"batch_size": 8, name: value}))
    if name in ("batch_norm", "parallel"):
        choices = {"batch_norm": ("train", "frozen"), "parallel": ("auto", "jit", "pmap", "sharding")}[name]
        assert (found is not REFUSED) == (isinstance(value, str) and value in choices)
    elif name in ("tx", "log", "store"):
        assert (found is not REFUSED) == (value is None)
    else:
        assert (found is not REFUSED) == (value is None or value is print)


PARAMETERS = [(name, p.name) for name in methods.METHODS for p in methods.describe(name).hyperparameters]


@bounded(500)
@given(st.sampled_from(PARAMETERS), anything)
@example(("anchored", "transformations"), ["turn"])
@example(("redistil", "fresh"), None)
@example(("delete", "temperature"), np.float32(2))
@example(("delete", "temperature"), 10**400)
def test_hyperparameters(parameter, value):
    """A number of any kind is the same setting; equal settings are one method, so that nothing is compiled twice."""
    method, name = parameter
    found = outcome(methods.create, method, **{name: value})
    if found is REFUSED:
        return
    taken = found.hyperparameters[name]
    assert type(taken) in (float, int, bool, str, tuple, methods.Method, types.NoneType)
    assert taken is not None or value is None
    assert methods.create(method, **{name: taken}) is found
    if isinstance(taken, (int, float)):
        assert math.isfinite(taken)
        assert taken == type(taken)(value)


@bounded(60)
@given(anything, anything)
def test_methods(name, value):
    """A method's name, and keywords that it does not have."""
    found = outcome(methods.create, name, **{"temperature": value})
    assert found is REFUSED or name == "delete" or "temperature" in found.hyperparameters
    assert outcome(unlearning.as_method, name) is REFUSED or name is None or name in methods.METHODS


# ----------------------------------------------------------------------------------------------------- command lines

FIELDS = [name for name, _, _ in fields(Config())]
TEXTS = [
    "", "0", "1", "-1", "3,1", "3,4", "(1,", "()", "1,", "[3]", "{1}", "True", "None", "nan", "inf", "-inf", "1e400", "1e39", "1e-50",
    "0x10", "1_0", "٣", "9" * 5000, "'", '"', "\\", "a\nb", "\u2028", "\udcff", "[/b]", "[red]", "~", "~nobody/x", "-", "--", "{}", "{'a': 1}",
    "{'temperature': 2}", "{'temperature': nan}", "{1: 2}", "{'name': 'x'}", "{'a': {}}", "[" * 200, "lambda: 1", "__import__('os')",
    "delete", "flip", "flip,crop", "flip,flip", "bfloat16", "train", "jit", "bee", "'bee'", "ant,bee", "folder:", "folder:/nope", "digits:x",
    "gs://a/b", "ssd", "pour", "/", ".", "resnet18", "deeplab_small", "f(", "1 if", "é",
]  # fmt: skip
texts = st.one_of(st.sampled_from(TEXTS), st.text(max_size=8).filter(lambda text: "\0" not in text))
overrides = st.lists(
    st.tuples(st.sampled_from(FIELDS), texts).map(lambda pair: f"--{pair[0]}={pair[1]}"), min_size=1, max_size=2
)
stray = st.one_of(
    overrides,
    st.lists(
        st.one_of(texts, texts.map("--{}".format), st.sampled_from(FIELDS).map("--{}".format)), min_size=1, max_size=2
    ),
)


@pytest.mark.slow
@bounded(500)
@given(stray)
@example(["--config.unlearn.forget=" + "9" * 5000])
@example(["--config.unlearn.forget=" + "(" * 300])
@example(["--config.unlearn.hyperparameters=" + "{'a':" * 300])
@example(["--config.unlearn.hyperparameters={'temperature': " + "9" * 5000 + "}"])
@example(["--config.train.lr=\udcff"])
def test_a_command_line(given_arguments):
    """A config that passes its checks and is plain, or one line."""

    def run():
        try:
            config, workdir = arguments.parse(["delete-jax", "--config=digits", "--workdir=run", *given_arguments])
            validate(config)
        except ValueError as error:  # the command shows it like this: what was given may hold line ends
            raise ValueError(command._in_one_line(error)) from error
        return config, workdir

    found = outcome(run)
    if found is REFUSED:
        return
    config, workdir = found
    assert isinstance(workdir, pathlib.Path)
    for name, hint, value in fields(config):
        if hint in (int, float, str, bool):
            assert isinstance(value, (int, float) if hint is float else hint), name
    for argument in (
        argument for argument in given_arguments if "=" in argument
    ):  # plain numbers are what Python reads in them
        name, _, text = argument.removeprefix("--").partition("=")
        value = {name: value for name, _, value in fields(config)}.get(name)
        if type(value) is int and [a.partition("=")[0] for a in given_arguments].count(f"--{name}") == 1:
            assert value == int(text, 0 if text.startswith("0x") else 10)


PLAUSIBLE = {
    "unlearn.forget": ["0", "1,2", "bee", "'bee'", "ant,cat", "0,1,2", "3", "-1", "dog", "1,bee", "2,2"],
    "unlearn.method": [*methods.METHODS, "Delete"],
    "unlearn.hyperparameters": ["{}", "{'temperature': 2}", "{'temperature': -1}", "{'remain': True}", "{'alpha': 1}"],
    "unlearn.epochs": ["1", "3", "0"],
    "unlearn.lr": ["0.1", "1e-3", "1e39", "0"],
    "unlearn.batch_size": ["8", "16", "12", "10000000000", "0", "1" + "0" * 310],
    "unlearn.momentum": ["0", "0.5", "1", "-1"],
    "unlearn.mask": ["own", "both"],
    "unlearn.pixels": ["forget", "all"],
    "unlearn.batch_norm": ["frozen", "eval"],
    "unlearn.augment": ["flip", "flip,crop", "turn"],
    "train.epochs": ["2", "-1"],
    "train.batch_size": ["8", "24", "7"],
    "train.weight_decay": ["0", "1e-2", "-1", "inf"],
    "data.validation": ["0.5", "0.9", "1e-9", "0", "1"],
    "data.size": ["", "4", "8", "0", "1000000"],
    "data.source": ["", "x"],
    "data.name": ["folder:", "folder:nope", "folder:~/nope", "voc:nope", "cifar10"],
    "data.data_dir": ["nope", "~nobody/x"],
    "model.name": ["resnet18", "resnet_small", "deeplab_small", "vgg"],
    "model.dtype": ["bfloat16", "float16"],
    "teacher": ["", "nope", ".", "~/nope", "gs://a/b"],
    "retrain": ["false", "true", "0", "maybe"],
    "parallel": ["jit", "pmap", "sharding", "ddp"],
    "seed": ["0", "7", "-1", "4294967296"],
}
plausible = st.lists(
    st.sampled_from([f"--config.{name}={value}" for name, values in PLAUSIBLE.items() for value in values]),
    max_size=3,
    unique_by=lambda argument: argument.partition("=")[0],
)


def snapshot(folder: pathlib.Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


CONFIG = """
from delete_jax.config import *
def get_config(variant=""):
    return Config(data=DataConfig(name="folder:{images}", validation=0.25), train=TrainConfig(epochs=1, batch_size=8),
                  unlearn=UnlearnConfig(forget=(1,), method="delete", batch_norm="train", lr=1e-3, epochs=1, batch_size=8))
"""


@pytest.fixture(scope="module")
def images_folder(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split in ("train", "test"):
        for name in NAMES[:3]:
            (folder / split / name).mkdir(parents=True)
            for i in range(4):
                Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(folder / split / name / f"{i}.png")
    (folder / "tiny.py").write_text(CONFIG.format(images=folder))
    return folder


@pytest.mark.slow
@bounded(250)
@given(st.one_of(plausible, plausible, plausible, stray))
@example(["--config.data.size="])
@example(["--config.data.name=~nobody/x"])
def test_a_whole_command(monkeypatch, tmp_path, capfd, images_folder, given_arguments):
    """Everything up to the first training: exit code 0 and the folder is claimed, or 2, one line, and nothing is written."""
    monkeypatch.setattr(stages, "_run", lambda *_: None)
    monkeypatch.setattr(command, "_keep_programs", lambda: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DELETE_JAX_DATA_DIR", "/dev/null/none")  # where nothing can be prepared
    before, workdir = snapshot(images_folder), tmp_path / "run"
    for left in tmp_path.iterdir():  # by the example before
        shutil.rmtree(left)
    capfd.readouterr()
    help_wanted = {"--help", "-h", "-help", "--list"} & set(given_arguments)
    argv = ["delete-jax", f"--config={images_folder / 'tiny.py'}", f"--workdir={workdir}", *given_arguments]
    code = command.main(argv)
    out, error = capfd.readouterr()
    assert snapshot(images_folder) == before
    if code == 0:
        assert error == ""
        assert help_wanted or [path.name for path in workdir.iterdir()] == ["config.json"]
    else:
        assert code == 2
        assert out == ""
        assert error.startswith("delete-jax: error: ")
        assert_one_line(error)
        assert not list(tmp_path.iterdir())


def test_brackets_in_a_path(monkeypatch, tmp_path, capfd, images_folder):
    """The terminal's formatting reads nothing in the name of a folder."""
    monkeypatch.setattr(stages, "_run", lambda *_: None)
    monkeypatch.setattr(command, "_keep_programs", lambda: None)
    workdir = tmp_path / "a [" / "b] [red]* {c}"
    argv = ["delete-jax", f"--config={images_folder / 'tiny.py'}", f"--workdir={workdir}"]
    assert command.main(argv) == 0
    for name in ("report.json", "report.html"):
        (workdir / name).write_text("{}")
    assert command.main(argv) == 0
    assert capfd.readouterr() == (f"already done: {workdir / 'report.html'}\n", "")


# ------------------------------------------------------------------------------------------- what a run finds again

LINES = [
    "5", "{}", "[]", "null", "", "{", '{"stage": "teacher"}', '{"stage": "teacher", "kind": "step"}',
    '{"stage": "teacher", "kind": "step", "epoch": "1"}', '{"stage": "teacher", "kind": "step", "epoch": null}',
    '{"stage": "teacher", "kind": "step", "epoch": NaN}', '{"stage": "teacher", "kind": "x", "epoch": 1}',
    '{"stage": ["teacher"], "kind": {}, "epoch": 1}', "[" * 5000, "9" * 5000, "\x00", "é", "\u2028", "\x1e", "\udcff",
]  # fmt: skip


def damaged(draw, text: str) -> bytes:
    """The text after one or two accidents."""
    for _ in range(draw(st.integers(1, 2))):
        place, lines = draw(st.integers(0, len(text))), text.splitlines(keepends=True)
        match draw(st.sampled_from(["cut", "insert", "lose a line", "repeat a line", "change"])):
            case "cut":
                text = text[:place]
            case "insert":
                text = text[:place] + draw(st.sampled_from(LINES)) + text[place:]
            case "lose a line" if lines:
                del lines[draw(st.integers(0, len(lines) - 1))]
                text = "".join(lines)
            case "repeat a line" if lines:
                lines.insert(
                    draw(st.integers(0, len(lines))), draw(st.sampled_from([*lines, *(x + "\n" for x in LINES)]))
                )
                text = "".join(lines)
            case "change":
                text = text[:place] + draw(st.characters()) + text[place + 1 :]
    return text.encode(errors="surrogateescape")


@bounded(250)
@given(st.data(), st.integers(0, 3))
def test_a_damaged_log(tmp_path, data, epoch):
    """The rows that were written, whole and in their order, or one line that names the file; never a file half rewritten."""
    path = tmp_path / "metrics.jsonl"
    path.unlink(missing_ok=True)
    rows = [[{"epoch": epoch, "step": epoch * 2 + i, "loss": 0.5 + i} for i in range(2)] for epoch in (1, 2)]
    for stage in ("teacher", "unlearned"):
        for some in rows:
            JsonLog(path, stage).append(some, some[-1:])
    path.write_bytes(damaged(data.draw, path.read_text()))
    before = path.read_bytes()
    found = outcome(JsonLog(path, "teacher").resume, epoch)
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]
    if found is REFUSED:
        assert path.read_bytes() == before
        return
    for kept in found:
        assert all(isinstance(row, dict) and row["epoch"] <= epoch for row in kept)
    assert JsonLog(path, "teacher").resume(epoch) == found


@bounded(100)
@given(st.data())
def test_a_damaged_config(tmp_path, data):
    """The folder is still the run's, or one line says that it is damaged or another's; it is left as it was."""
    config, folder = Config(), Folder(tmp_path / "run", Console(quiet=True))
    shutil.rmtree(folder.path, ignore_errors=True)
    with folder.claimed(config):
        whole = (folder.path / "config.json").read_text()
    (folder.path / "config.json").write_bytes(before := damaged(data.draw, whole))

    def claim():
        with folder.claimed(config):
            return "claimed"

    def on(part):
        """Without the settings that are off, which an earlier version may not have had."""
        if not isinstance(part, dict):
            return part
        return {name: on(value) for name, value in part.items() if value is not None and value is not False}

    if outcome(claim) is not REFUSED:
        assert on(json.loads(before)) == on(json.loads(whole))
    assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == {"config.json": before}


# ---------------------------------------------------------------------------------------------------------- folders


@dataclasses.dataclass
class File:
    """A file of a class folder: how its content is made, and what must become of it: "read", "left" or "refused"."""

    name: str
    kind: str
    fate: str


FILES = st.sampled_from(
    [File(f"{i}.{suffix}", "image", "read") for i in range(6) for suffix in ("png", "jpg", "PNG", "bmp", "webp")]
    + [
        File(name, "text", "left")
        for name in ("notes.txt", "._0.png", ".DS_Store", ".hidden.jpg", "README", "Thumbs.db")
    ]
    + [File("b.png", kind, "refused") for kind in ("text", "empty", "half", "wide", "colour", "deep", "postscript")]
    + [
        File("d.png", "folder", "left"),
        File("c.gif", "text", "refused"),
        File("sub/0.png", "image", "refused"),
        File("no suffix", "image", "refused"),
    ]
)
CLASS_NAMES = st.lists(
    st.sampled_from(["ant", "bee", "10", "2", "1", "é", "a b", "<b>", "x" * 100, "Z", "-1", "[red]"]),
    min_size=1, max_size=4, unique=True,
)  # fmt: skip


def make(path: pathlib.Path, kind: str, number: int) -> np.ndarray | None:
    """Writes a file; returns its pixels as Pillow reads them back, where it is an image to be read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (4, 6), np.uint8)
    if kind == "folder":
        path.mkdir()
    elif kind in ("text", "empty", "postscript"):
        path.write_bytes(
            {"text": b"some words", "empty": b"", "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n"}[
                kind
            ]
        )
    elif kind == "half":
        Image.fromarray(np.resize(pixels, (60, 60))).save(path)
        path.write_bytes(path.read_bytes()[:60])
    else:
        pixels = {
            "wide": np.resize(pixels, (4, 7)),
            "colour": np.stack([pixels] * 3, -1),
            "deep": pixels.astype(np.uint16),
        }.get(kind, pixels)
        kind = {".jpg": "JPEG", ".bmp": "BMP", ".webp": "WEBP"}.get(path.suffix.lower(), "PNG")
        options = {"lossless": True} if kind == "WEBP" else {}
        Image.fromarray(pixels).save(path, format=kind, **options)
        with Image.open(path) as image:
            return np.asarray(image)
    return None


@pytest.mark.slow
@bounded(80)
@given(CLASS_NAMES, st.data(), st.sampled_from([0, 0.1, 0.5, 0.9]), st.sampled_from([0, 7]))
def test_a_folder(class_names, data, fraction, seed):
    """Images, labels, classes and splits as they were written, or one line that names the first file or folder in the way."""
    with tempfile.TemporaryDirectory() as folder:
        root, number, refused = pathlib.Path(folder), 0, False
        written = {}
        for split in ("train", "test"):
            for name in class_names:
                (root / split / name).mkdir(parents=True)
                chosen = data.draw(st.lists(FILES, min_size=1, max_size=4, unique_by=lambda file: file.name.lower()))
                chosen = [File("0.png", "image", "read"), *(file for file in chosen if not file.name.startswith("0."))]
                for file in chosen:
                    number += 1
                    pixels = make(root / split / name / file.name, file.kind, number)
                    refused |= file.fate == "refused"
                    if file.fate == "read":
                        written[split, name, file.name] = pixels
        if extra := data.draw(
            st.sampled_from(["", "", "", "train/extra", "test/extra", "train/.hidden", "train/image.png", "val/x"])
        ):
            make(root / extra / "0.png" if "." not in extra[-4:] else root / extra, "image", 0)
            refused |= extra in ("train/extra", "test/extra", "train/image.png")
        # WebP and colour make RGB of grey: one mode is needed
        refused |= len({pixels.shape for pixels in written.values()}) > 1
        per_class = collections.Counter(name for split, name, _ in written if split == "train")
        refused |= fraction > 0 and max(per_class.values()) < 2  # nothing can be held out
        before = snapshot(root)
        found = outcome(dj.data.load, f"folder:{root}", validation=fraction, seed=seed)
        assert snapshot(root) == before
        assert (found is REFUSED) == refused
        if refused:
            return
        order = sorted(class_names)
        if all(name.lstrip("-").isdigit() and name.isascii() for name in class_names):
            order.sort(key=int)
        assert found.class_names == tuple(order)
        splits = {}
        for split in ("train", "test"):
            keys = sorted((key for key in written if key[0] == split), key=lambda key: (order.index(key[1]), key[2]))
            images = np.stack([written[key] for key in keys])
            splits[split] = images.reshape(*images.shape[:3], -1), np.array([order.index(key[1]) for key in keys])
        images, labels = splits["train"]
        held = np.zeros(len(labels), bool)
        for label in range(len(order)) if fraction else ():
            members = np.flatnonzero(labels == label)
            count = min(max(round(fraction * len(members)), 1), len(members) - 1)
            held[np.random.default_rng([seed, label]).permutation(members)[:count]] = True
        for part, (expected_images, expected_labels) in (
            (found.train, (images[~held], labels[~held])), (found.validation, (images[held], labels[held])), (found.test, splits["test"]),
        ):  # fmt: skip
            np.testing.assert_array_equal(part.images, expected_images)
            np.testing.assert_array_equal(part.labels, expected_labels)
        scaled = images[~held].astype(np.float64) / 255
        np.testing.assert_allclose(found.mean, scaled.mean((0, 1, 2)), rtol=1e-5)
        np.testing.assert_allclose(found.std, scaled.std((0, 1, 2)), rtol=1e-4)
