"""Networks that somebody brings: whatever they are made with, they are right, or refused before anything is computed."""

import dataclasses
import functools

import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.core import FrozenDict, freeze
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding

import delete_jax as dj
from delete_jax import testing
from delete_jax.checkpoint import Checkpoints
from delete_jax.identity import digest
from delete_jax.methods import METHODS
from delete_jax.methods.base import COUNTERPARTS, MAPS
from delete_jax.methods.contract import check_edited
from delete_jax.model import Model, as_given, as_saved, from_saved
from delete_jax.models import from_linen, from_nnx
from delete_jax.network_check import as_is, check_answers, check_network, check_training
from delete_jax.parallel import make_trainer
from delete_jax.result import as_result
from delete_jax.step import init_state, sgd
from tests import tiny

K = tiny.NUM_CLASSES
pytestmark = pytest.mark.filterwarnings("ignore:Using 'Module.sow:DeprecationWarning")
IMAGES, LABELS = tiny.samples(32)
FEW = {"forget": [3], "epochs": 2, "lr": 0.05, "batch_size": 4, "parallel": "jit"}


def unlearn(model, variables, images=IMAGES, labels=LABELS, **settings):
    return dj.unlearn(model, variables, images, labels, **{"method": "delete", "batch_norm": "train"} | FEW | settings)


def copied(tree):
    return jax.tree.map(np.array, tree)


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def initial(module):
    return module.init(jax.random.key(0), IMAGES[:1], train=False)


class Nnx(nnx.Module):
    """Two layers in a list, statistics, random streams of other names, and something sown."""

    def __init__(self, rngs: nnx.Rngs, streams=("dropout", "drop_path")):
        self.norm = nnx.BatchNorm(36, rngs=rngs)
        self.drops = nnx.List([nnx.Dropout(0.5, rng_collection=name, rngs=rngs) for name in streams])
        self.layers = nnx.List([nnx.Linear(36, 8, rngs=rngs), nnx.Linear(8, K, rngs=rngs)])

    def __call__(self, x):
        x = self.norm(x.reshape(len(x), -1))
        for drop in self.drops:
            x = drop(x)
        x = nnx.relu(self.layers[0](x))
        self.sow(nnx.Intermediate, "hidden", x)
        return self.layers[1](x)


def nnx_network(**settings):
    return from_nnx(Nnx(nnx.Rngs(params=0, dropout=1, drop_path=2), **settings))


class Free(nn.Module):
    """Whatever a test needs: a stream's name, the mapped axis of its statistics, a list among its fields, what it sows."""

    stream: str = "dropout"
    axis_name: str | None = None
    widths: tuple | list = (8,)
    sows: str = ""
    bias: bool = True

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.BatchNorm(use_running_average=not train, axis_name=self.axis_name)(x).reshape(len(x), -1)
        for width in self.widths:
            x = nn.relu(nn.Dense(width)(x))
        if self.sows == "tuple":
            self.sow("losses", "size", jnp.mean(x**2))
        if self.sows == "sum":
            self.sow("losses", "size", jnp.mean(x**2), reduce_fn=jnp.add, init_fn=lambda: jnp.zeros(()))
        x = nn.Dropout(0.2, deterministic=not train, rng_collection=self.stream)(x)
        return nn.Dense(K, use_bias=self.bias, name="head")(x)


# ---------------------------------------------------------------------------------------------------------------- NNX


def test_an_nnx_network_and_its_module_share_nothing():
    module = Nnx(nnx.Rngs(params=0, dropout=1, drop_path=2))
    model, teacher = from_nnx(module)
    before = copied(teacher)
    result = unlearn(model, teacher).variables
    nnx.update(module, result["params"], result["state"])
    assert_equal(teacher, before)
    assert_equal(unlearn(model, teacher).variables, result)
    module.eval()
    np.testing.assert_allclose(module(jnp.asarray(IMAGES)), model.apply(result, IMAGES), rtol=1e-5, atol=1e-6)
    assert {type(node) for node in (teacher, teacher["params"], teacher["state"]["norm"])} == {dict}


def test_an_nnx_network_resumes(tmp_path):
    model, teacher = nnx_network()
    unlearn(model, teacher, epochs=1, store=Checkpoints(tmp_path))
    resumed = unlearn(model, teacher, store=Checkpoints(tmp_path)).variables
    assert_equal(resumed, unlearn(model, teacher).variables)


@pytest.mark.parametrize("name", ["dropout", "drop_path", "default", "anything"])
def test_every_stream_is_seeded(name):
    rngs = nnx.Rngs(0) if name == "default" else nnx.Rngs(**{"params": 0, name: 1})
    model, variables = from_nnx(Nnx(rngs, streams=(name,)))
    first, again, other = (model.apply_train(variables, IMAGES, jax.random.key(seed))[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert float(jnp.abs(first - other).max()) > 0


def test_different_streams_drop_different_units():
    class Mask(nnx.Module):
        def __init__(self, rngs):
            self.drops = nnx.List([nnx.Dropout(0.5, rng_collection=name, rngs=rngs) for name in ("a", "b", "a")])
            self.scale = nnx.Param(jnp.ones((1, 1)))

        def __call__(self, x):
            return jnp.stack([drop(jnp.ones(200)) for drop in self.drops]) * self.scale[...]

    model, variables = from_nnx(Mask(nnx.Rngs(a=0, b=0)))
    masks = np.asarray(model.apply_train(variables, None, jax.random.key(0))[0]) > 0
    assert all((masks[i] != masks[j]).sum() > 50 for i, j in ((0, 1), (0, 2), (1, 2)))


# -------------------------------------------------------------------------------------------------------------- Linen


@pytest.mark.parametrize("sow", ["", "tuple", "sum"])
def test_what_is_sown_is_not_carried(sow):
    traces = []

    class Counted(Free):
        def __call__(self, x, train: bool):
            traces.append(train)
            return super().__call__(x, train)

    module = Counted(sows=sow)
    variables = initial(module)
    assert ("losses" in variables) == bool(sow)
    traces.clear()
    model = from_linen(module)
    result = unlearn(model, variables, epochs=3).variables
    assert traces.count(True) == 1, "the check's trace is the step's"
    assert make_trainer(model, dj.methods.delete(), sgd(), as_is, None, "train", "jit").compiled._cache_size() == 1
    assert jax.tree.structure(result) == jax.tree.structure(variables)
    if sow:
        assert_equal(result["losses"], variables["losses"])
    assert bool((result["batch_stats"]["BatchNorm_0"]["mean"] != 0).any())


def test_a_collection_of_training_alone_is_carried():
    class Counting(nn.Module):
        @nn.compact
        def __call__(self, x, train: bool):
            if train or self.is_initializing():
                count = self.variable("counts", "steps", lambda: jnp.zeros((), jnp.int32))
                if not self.is_initializing():
                    count.value += 1
            return nn.Dense(K)(x.reshape(len(x), -1))

    result = unlearn(from_linen(Counting()), initial(Counting()), epochs=3)
    assert int(result.variables["counts"]["steps"]) == len(result.history)


def test_a_module_that_cannot_be_hashed():
    module = Free(widths=[8, 8])
    with pytest.raises(TypeError):
        hash(module)
    assert from_linen(module) is from_linen(module)
    assert from_linen(module) is not from_linen(Free(widths=[8, 8]))
    assert_equal(
        unlearn(from_linen(module), initial(module)).variables,
        unlearn(from_linen(Free(widths=(8, 8))), initial(module)).variables,
    )


def test_linen_streams_are_named():
    module = Free(stream="drop_path")
    variables = initial(module)
    with pytest.raises(ValueError, match=r'needs PRNG for "drop_path", and from_linen was told of dropout: name each'):
        unlearn(from_linen(module), variables)
    model = from_linen(module, streams=("dropout", "drop_path"))
    a, b = (model.apply_train(variables, IMAGES, jax.random.key(seed))[0] for seed in (0, 1))
    assert float(jnp.abs(a - b).max()) > 0
    unlearn(model, variables)


@pytest.mark.pmap
def test_statistics_over_an_axis():
    """Flax' own batch norm over our axis: refused where there is none, fine where there is."""
    for name, mode in (("devices", "jit"), ("devices", "pmap"), ("batch", "jit"), ("batch", "sharding")):
        module = Free(axis_name=name)
        with pytest.raises(ValueError, match=f"a mapped axis that this run does not have: .*{name}.*without axis_name"):
            unlearn(from_linen(module), initial(module), parallel=mode, batch_size=8)
    module = Free(axis_name="batch")
    unlearn(from_linen(module), initial(module), parallel="pmap", batch_size=8)


@pytest.mark.parametrize("adapter", [from_linen, from_nnx])
@pytest.mark.parametrize("wrong", [None, 5, "net", Free, Nnx, "other"], ids=lambda w: getattr(w, "__name__", str(w)))
def test_no_module(adapter, wrong):
    wrong = (Nnx(nnx.Rngs(0)) if adapter is from_linen else Free()) if wrong == "other" else wrong
    with pytest.raises(
        ValueError, match=f"{adapter.__name__} needs an? (Linen|NNX) module, got .*: (call|give|use)"
    ) as error:
        adapter(wrong)
    assert "\n" not in str(error.value)


# --------------------------------------------------------------------------------------------------------- containers


def listed():
    """Keras keeps its weights in a list: two layers, here as `[d, k]` and biases."""
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape).astype(np.float32) / 6 for shape in ((36, K), (K,), (K, K), (K,))]

    def apply(variables, x):
        w1, b1, w2, b2 = variables["params"]
        return jnp.tanh(x.reshape(len(x), -1) @ w1 + b1[None]) @ w2 + b2[None]

    return Model(apply, lambda variables, x, key: (apply(variables, x), variables)), {"params": weights}


def frozen():
    model, variables = tiny.network()
    return model, freeze(variables)


ANY = [  # test_redistil.py has the one that starts layers afresh
    name for name, make in METHODS.items() if not {MAPS, COUNTERPARTS} & {*make().needs} and not make().starts_over
]
OFTEN = ("delete", "anchored", "salun", "pour", "scrub")
OFTEN_AND_SELDOM = [pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in ANY]
CONTAINERS = {"list": listed, "FrozenDict": frozen, "NNX": nnx_network}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_the_contract(kind):
    testing.check_network(*CONTAINERS[kind](), IMAGES.shape[1:])


OF_EACH_KIND = {
    **{name: dj.models.create(name, K) for name in ("resnet_tiny", "all_cnn_half", "deeplab_small")},
    "vit": dj.models.ViT(K, patch=8, width=16, depth=2, heads=2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_EACH_KIND)
def test_the_contract_of_the_packages_own(name):
    """Small ones: the others are made of the same modules."""
    module, shape = OF_EACH_KIND[name], (32, 32, 3)
    testing.check_network(from_linen(module), dj.models.init(module, shape, 0), shape)


@pytest.mark.parametrize("kind", CONTAINERS)
def test_any_container_resumes(kind, tmp_path):
    model, variables = CONTAINERS[kind]()
    unlearn(model, variables, epochs=1, store=Checkpoints(tmp_path))
    resumed = unlearn(model, variables, store=Checkpoints(tmp_path)).variables
    assert_equal(resumed, unlearn(model, variables).variables)
    assert jax.tree.structure(resumed) == jax.tree.structure(variables)


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("name", OFTEN_AND_SELDOM)
def test_every_method_takes_any_container(kind, name):
    model, variables = CONTAINERS[kind]()
    before = copied(variables)
    settings = {"ssd": {"alpha": 0.5}, "esc_t": {"threshold": 0.99999}}.get(
        name, {}
    )  # where the default changes nothing
    result = unlearn(model, variables, method=dj.methods.create(name, **settings), epochs=1, lr=1e-3).variables
    assert jax.tree.structure(result) == jax.tree.structure(variables)
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(before), strict=True))
    assert_equal(copied(variables), before)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["weight", "bias"], meta_fields=[])
@dataclasses.dataclass
class Layer:
    """As Equinox and others keep weights: in a class of their own."""

    weight: jax.Array
    bias: jax.Array


def layered():
    rng = np.random.default_rng(0)
    layers = [Layer(jnp.asarray(rng.normal(size=(k, d)) / 6, jnp.float32), jnp.zeros(k)) for d, k in ((36, 8), (8, K))]

    def apply(variables, x):
        first, last = variables["params"]
        return jnp.tanh(x.reshape(len(x), -1) @ first.weight.T + first.bias[None]) @ last.weight.T + last.bias[None]

    return Model(apply, lambda variables, x, key: (apply(variables, x), variables)), {"params": layers}


@pytest.mark.parametrize(
    "name",
    [
        "delete",
        "pour",
        "fisher",
        pytest.param("salun", marks=pytest.mark.slow),
        pytest.param("boundary_expand", marks=pytest.mark.slow),
        pytest.param("bad_teacher", marks=pytest.mark.slow),
    ],
)
def test_classes_of_their_own(name):
    model, variables = layered()
    result = unlearn(model, variables, method=name, lr=1e-3).variables
    assert jax.tree.structure(result) == jax.tree.structure(variables)


@pytest.mark.parametrize("network", [layered, listed, frozen, nnx_network])
def test_a_state_is_saved_by_name(network):
    """As Flax saves those that it knows, so that earlier checkpoints are read; the others as well."""
    _, variables = network()
    state = init_state(variables, sgd())
    saved = as_saved(state)
    assert_equal(from_saved(saved, jax.tree.map(jnp.zeros_like, state)), state)
    assert {type(node) for node in (saved, saved["params"])} == {dict}
    if network is not layered:
        by_flax = flax.serialization.to_state_dict(vars(state))
        assert digest(by_flax) == digest(saved)
        assert_equal(from_saved(by_flax, state), state)
    for wrong, words in (({}, "nothing for step"), ({**saved, "step": np.zeros(2)}, r"an array \[2\] for step \[\]")):
        with pytest.raises(ValueError, match=f"of another network: {words}"):
            from_saved(wrong, state)


def test_as_given_goes_by_names():
    like = FrozenDict({"a": jnp.zeros(2, jnp.bfloat16), "b": jnp.zeros(2)})
    found = as_given({"b": jnp.ones(2), "a": jnp.full(2, 2.0)}, like)
    assert jax.tree.structure(found) == jax.tree.structure(like)
    assert (float(found["a"][0]), found["a"].dtype, float(found["b"][0])) == (2, jnp.bfloat16, 1)


def test_names_with_a_slash_are_no_paths():
    """`a/b` and `b` in `a` are two arrays, whose names in a message are the same."""
    tree = {"params": {"a/b": np.float32([1, 2]), "a": {"b": np.float32([3, 4])}}}
    for found in (as_given(tree, FrozenDict(tree)), from_saved(as_saved(tree), tree)):
        assert found["params"]["a/b"].tolist() == [1, 2]
        assert found["params"]["a"]["b"].tolist() == [3, 4]
    shorter = {"params": {**tree["params"], "a/b": np.zeros(1, np.float32)}}
    with pytest.raises(ValueError, match=r"a/b has the shape \[1\]"):
        check_edited(METHODS["pour"](), shorter, tree)


# --------------------------------------------------------------------------------------------------- narrow parameters


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_parameters_learn_at_small_rates(dtype, tmp_path):
    weights = np.random.default_rng(0).normal(size=(36, K)) * 2
    model, variables = (
        kept(lambda v, x: x.reshape(len(x), -1) @ v["params"]["w"].astype(x.dtype)),
        {"params": {"w": weights}},
    )
    narrow = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), variables)
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), narrow)
    settings = {"epochs": 20, "lr": 1e-5, "batch_size": 8}  # each step sees all
    losses = {
        name: [row["loss"] for row in unlearn(model, start, **settings).history]
        for name, start in (("narrow", narrow), ("wide", wide))
    }
    learnt = {name: values[0] - values[-1] for name, values in losses.items()}
    assert learnt["narrow"] > learnt["wide"] / 2 > 0
    seen = []
    result = unlearn(model, narrow, lr=0.1, evaluate=lambda v: seen.append(jax.tree.leaves(v)[0].dtype) or {})
    assert {leaf.dtype for leaf in jax.tree.leaves(result.variables)} == {np.dtype(dtype)} == set(seen)
    unlearn(model, narrow, lr=0.1, epochs=1, store=Checkpoints(tmp_path))
    assert_equal(unlearn(model, narrow, lr=0.1, store=Checkpoints(tmp_path)).variables, result.variables)


@pytest.mark.parametrize("name", OFTEN_AND_SELDOM)
def test_every_method_takes_narrow_parameters(name):
    model, variables = tiny.network()
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables["params"])
    variables = {**variables, "params": params}
    with jax.numpy_dtype_promotion("standard"):  # as users have it
        result = unlearn(model, variables, method=name, epochs=1).variables
    assert jax.tree.map(lambda leaf: leaf.dtype, result) == jax.tree.map(lambda leaf: leaf.dtype, variables)


def test_a_state_that_changes_its_dtype_is_compiled_once():
    def apply(variables, x):
        return x.reshape(len(x), -1) @ variables["params"]["w"] + variables["state"]["shift"].astype(jnp.float32)

    def apply_train(variables, x, key):
        shift = 0.9 * variables["state"]["shift"].astype(jnp.float32) + 0.1 * jnp.mean(x)
        return apply(variables, x), {**variables, "state": {"shift": shift}}

    start = {"params": {"w": np.ones((36, K), np.float32)}, "state": {"shift": jnp.zeros((), jnp.bfloat16)}}
    model = Model(apply, apply_train)
    result = unlearn(model, start).variables
    assert result["state"]["shift"].dtype == jnp.bfloat16
    assert float(result["state"]["shift"]) != 0
    assert make_trainer(model, dj.methods.delete(), sgd(), as_is, None, "train", "jit").compiled._cache_size() == 1


# ------------------------------------------------------------------------------------------------- calling conventions


def logits(variables, x):
    return x.reshape(len(x), -1) @ variables["params"]["w"]


def kept(apply):
    """A model that answers alike in training."""
    return Model(apply, lambda variables, x, key: (apply(variables, x), variables))


def training(apply_train):
    return Model(logits, apply_train)


def pixels(variables, x):
    return x * variables["params"]["w"][None, None, :1]


def standardised(variables, x):
    z = logits(variables, x)
    return (z - z.mean(0, keepdims=True)) / z.std(0, keepdims=True)


@dataclasses.dataclass
class Called:
    """A function that cannot be hashed: it is equal to those with the same fields, and these may change."""

    scale: float

    def __call__(self, *given):
        return self.scale * given[-1] if len(given) == 1 else logits(*given)

    init = update = __call__


def half(variables, x):
    return pixels(variables, x)[:, ::2, ::2]


VARIABLES = {"params": {"w": np.random.default_rng(0).normal(size=(36, K)).astype(np.float32)}, "s": {"m": np.zeros(3)}}
MAPS_OF = np.zeros((32, 6, 6), np.int64) + LABELS[:, None, None]

WRONG = {
    "a tuple": (kept(lambda v, x: (logits(v, x), x)), r"must answer with logits, .*, got a tuple of 2: return its part"),
    "a dict": (kept(lambda v, x: {"out": logits(v, x)}), "must answer with logits, .*, got a dict of out"),
    "nothing": (kept(lambda v, x: None), "must answer with logits, .* got a NoneType: return that"),
    "no batch": (kept(lambda v, x: logits(v, x)[0]), r"got an array \[4\] for 2 images"),
    "another batch": (kept(lambda v, x: logits(v, x)[:1]), r"got an array \[1, 4\] for 2 images"),
    "one output": (kept(lambda v, x: logits(v, x)[:, :1]), r"got an array \[2, 1\]"),
    "integers": (kept(lambda v, x: logits(v, x).astype(jnp.int32)), "of floats: got int32"),
    "per pixel": (kept(pixels), r"answers per pixel, \(2, 6, 6, 4\) for 2 images, and the labels are one per image"),
    "a module": (Free(), "model must be models.from_linen"),
    "no apply_train": (Model(logits, None), "apply_train must be a function, got None"),
    "two arguments": (training(lambda v, x: (logits(v, x), v)), r"cannot be traced: .*takes 2 positional .*\(variables, x, key\)"),
    "logits only": (training(lambda v, x, key: logits(v, x)), r"must return \(logits, variables\), got an array \[4, 4\]"),
    "swapped": (training(lambda v, x, key: (v, logits(v, x))), "the other way round"),
    "three": (training(lambda v, x, key: (logits(v, x), v, 0)), "got a tuple of 3"),
    "no variables": (training(lambda v, x, key: (logits(v, x), None)), "got a NoneType for the variables"),
    "a tuple in training": (training(lambda v, x, key: ((logits(v, x), x), v)), "apply_train must answer with logits"),
    "something new": (training(lambda v, x, key: (logits(v, x), {**v, "t": {"u": x}})), "with new values: t/u is new"),
    "something missing": (training(lambda v, x, key: (logits(v, x), {"params": v["params"]})), "s/m is missing"),
    "another shape": (training(lambda v, x, key: (logits(v, x), {**v, "s": {"m": x}})), r"s/m has shape \(4, 6, 6, 1\), not \(3,"),
    "another kind": (training(lambda v, x, key: (logits(v, x), {**v, "s": {"m": jnp.zeros(3, complex)}})), "s/m is complex64"),
    "probabilities": (kept(lambda v, x: jax.nn.softmax(9 * logits(v, x))), "probabilities .*logarithm of what it answers"),
    "NaN": (kept(lambda v, x: logits(v, x) / 0 * 0), "NaN or infinity"),
    "batch statistics": (kept(standardised), "depends on the other images in the batch, or on chance .*: use running statistics in evaluation"),
    "batch statistics, and a masked class": (kept(lambda v, x: standardised(v, x).at[:, 0].set(-1e9)), "depends on the other images in"),
    "unhashable": (Model(Called(1.0), None), r"apply must be a function, or an object that can be hashed, got Called\(scale=1.0\)"),
    "a framework's error": (kept(lambda v, x: x @ v["params"]["w"]), r"cannot take images of shape \(6, 6, 1\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_networks(case):
    model, words = WRONG[case]
    with pytest.raises(ValueError, match=words) as error:
        unlearn(model, VARIABLES, evaluate=lambda variables: pytest.fail("something was computed"))
    assert "\n" not in str(error.value)


@pytest.mark.devices(2)
def test_weights_that_lie_on_several_devices():
    """A method that is computed at once takes them as it takes those on one device; so does whoever else is given a network."""
    one, other = jax.devices()[:2]
    parts = NamedSharding(jax.make_mesh((2,), ("x",), (AxisType.Explicit,), devices=(one, other)), PartitionSpec("x"))
    params = {"a": np.eye(36, dtype=np.float32), **VARIABLES["params"]}
    model = kept(lambda v, x: x.reshape(len(x), -1) @ v["params"]["a"] @ v["params"]["w"])
    expected = unlearn(model, {"params": params}, method="ssd").variables
    for place in (one, parts):
        given = {"params": {"a": jax.device_put(params["a"], place), "w": jax.device_put(params["w"], other)}}
        jax.tree.map(np.testing.assert_array_equal, unlearn(model, given, method="ssd").variables, expected)
        assert {leaf.sharding for leaf in jax.tree.leaves(as_result(given).variables)} == {SingleDeviceSharding(one)}


def test_maps_and_answers_must_fit():
    for model, words in (
        (kept(logits), "answers once per image, .* the labels are maps"),
        (kept(half), "answers at 3 x 3 pixels, and the label maps have 6 x 6"),
    ):
        with pytest.raises(ValueError, match=words):
            unlearn(model, VARIABLES, labels=MAPS_OF)
    assert check_network(kept(pixels), VARIABLES, IMAGES, as_is, MAPS_OF) == K


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"w": np.zeros(3)}, "under 'params'"),
        ({"params": {}}, "'params' is empty"),
        (
            {"params": {"w": np.zeros((36, K), int)}},
            "real floating-point numbers of 16 bits or more: params/w is int64",
        ),
        ({"params": {"w": np.zeros((36, K), complex)}}, "params/w is complex128"),
        ({"params": {"w": np.array("weights")}}, "params/w is <U7"),
        ({"params": {"w": "weights"}}, "params/w is a str"),
        ({"params": {"w": 1.0}}, "params/w is a float"),
        ({"params": VARIABLES["params"], "s": {"k": np.array("x")}}, "s/k is <U1"),
        ({"params": VARIABLES["params"], "s": {"k": jax.random.key(0)}}, "s/k is a random key"),
        ({"params": {"w": np.full((36, K), np.inf, np.float32)}}, "params/w holds NaN or infinity"),
    ],
)
def test_wrong_variables(variables, words):
    with pytest.raises(ValueError, match=words):
        unlearn(kept(logits), variables)


def test_wrong_preprocessing():
    for preprocess, words in (
        (lambda x: x[:1], r"must return one input for each image \[b, h, w, c\], got an array \[1, 6, 6, 1\] for 2"),
        (lambda x: (x, x), "got a tuple of 2"),
        (lambda x: x @ x.shape, "preprocess cannot take images"),
    ):
        with pytest.raises(ValueError, match=words):
            unlearn(kept(logits), VARIABLES, preprocess=preprocess)


def test_functions_that_cannot_be_hashed():
    """They are refused by name; a method of theirs is a function like any other."""
    for name, value in (("preprocess", Called(0.5)), ("augment", Called(1.0)), ("tx", Called(1.0))):
        with pytest.raises(ValueError, match=f"{name} must be a function, or an object that can be hashed, got Called"):
            unlearn(kept(logits), VARIABLES, **{name: value})
    unlearn(kept(logits), VARIABLES, preprocess=Called(0.5).__call__, method="ssd")


def test_checks_need_neither_labels_nor_training():
    assert check_network(Model(logits, None), VARIABLES, IMAGES, as_is) == K
    unlearn(Model(logits, None), VARIABLES, batch_norm="frozen")
    unlearn(Model(logits, None), VARIABLES, method="ssd")
    check_training(kept(logits), jax.eval_shape(lambda: VARIABLES), IMAGES, as_is)
    zeros = {"params": {"w": np.zeros((36, K), np.float32)}}
    check_answers(kept(logits), zeros, IMAGES, as_is)
    check_answers(kept(lambda v, x: jax.nn.log_softmax(logits(v, x))), VARIABLES, IMAGES, as_is)


def test_a_teacher_that_fails_on_some_image_ends_the_run():
    """Its answers to augmented images are computed in the step: the first few stored ones were fine."""

    def apply(variables, x):
        return jnp.where(jnp.max(x, (1, 2, 3))[:, None] > 100, jnp.nan, logits(variables, x))

    model = Model(apply, lambda variables, x, key: (logits(variables, x), variables))
    brighter = functools.partial(jnp.multiply, 1000)
    with pytest.raises(dj.NonFiniteError, match="step 1"):
        unlearn(model, VARIABLES, augment=lambda images, keys: brighter(images))


def test_dtypes():
    """A name, a dtype or a scalar type: the same network. Others are refused in one line."""
    for dtypes in (("bfloat16", jnp.bfloat16, np.dtype("bfloat16"), jnp.zeros(1, jnp.bfloat16).dtype),
                   ("float32", jnp.float32, np.float32, np.dtype("float32"), np.dtype(">f4"), "f4")):  # fmt: skip
        first, *others = (dj.models.create("resnet_tiny", K, dtype) for dtype in dtypes)
        assert all(other == first for other in others)
        assert first.dtype == dtypes[1]
    for dtype, words in (
        (jnp.float16, "unknown dtype 'float16': choose one of float32, bfloat16"),
        ("float64", "unknown dtype 'float64'"),
        (float, "unknown dtype 'float64'"),
        (np.int8, "unknown dtype 'int8'"),
        (bool, "unknown dtype 'bool'"),
        ("float8", "dtype must be a dtype or its name, such as 'float32', got 'float8'"),
        (None, "dtype must be a dtype or its name, .* got None"),
        (16, "dtype must be a dtype or its name, .* got 16"),
        (jnp.zeros(3), "dtype must be a dtype or its name"),
    ):
        with pytest.raises(ValueError, match=words) as error:
            dj.models.create("resnet_tiny", K, dtype)
        assert "\n" not in str(error.value)
