"""A finish for the classifier, and a network that says nothing about some classes, against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.metrics import roc_auc_score

import delete_jax as dj
from delete_jax.config import Config, UnlearnConfig, counted
from delete_jax.methods import FORGET
from delete_jax.methods.finish import LOW
from delete_jax.models.without import LEFT
from tests import tiny
from tests.test_each_method import HEADS, K, setup_of, two_layers
from tests.test_feature_methods import wide_setup

NAMES = ("zero", "mean")


@pytest.mark.parametrize(("forget", "erased"), [((1,), ()), ((0, 2), ()), ((2,), (0,))])
@pytest.mark.parametrize("row", NAMES)
def test_the_row_and_the_bias(row, forget, erased, x64):
    """Of the classes of this request and of earlier ones alike: neither counts as a remaining class."""
    setup = wide_setup(forget=forget)._replace(erased=erased)
    before = jax.tree.map(np.asarray, setup.teacher["params"])
    after = dj.methods.finish(row).edit(setup)["params"]
    forget = forget + erased
    others = [c for c in range(K) if c not in forget]
    kernel, bias = before["head"]["kernel"].copy(), before["head"]["bias"].copy()
    kernel[:, forget] = 0 if row == "zero" else kernel[:, others].mean(1, keepdims=True)
    bias[list(forget)] = bias[others].mean() - LOW
    np.testing.assert_allclose(after["head"]["kernel"], kernel, rtol=1e-14)
    np.testing.assert_allclose(after["head"]["bias"], bias, rtol=1e-14)
    np.testing.assert_array_equal(after["stem"], before["stem"])
    logits = np.asarray(setup.model.apply({"params": after}, setup.streams[FORGET]["image"]))
    if row == "mean":  # for every image, so that the class is never the answer
        np.testing.assert_allclose(logits[:, forget[0]], logits[:, others].mean(1) - LOW, rtol=1e-12)


@pytest.mark.parametrize("kind", HEADS)
def test_of_any_layout_with_a_bias(kind):
    last, params, kernel, axis, bias = HEADS[kind]
    setup = setup_of(*two_layers(last, params))
    edit = dj.methods.finish().edit
    if kind in ("cosine", "weight norm", "log-softmax") or bias is None:
        with pytest.raises(ValueError, match=r"features times a kernel|has no bias to lower") as error:
            edit(setup)
        assert "\n" not in str(error.value)
        return
    after = edit(setup)["params"]
    rows = np.moveaxis(np.asarray(after[kernel]), axis, -1).reshape(-1, K)
    np.testing.assert_allclose(rows[:, 1], rows[:, [0, 2, 3]].mean(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.ravel(after[bias]), [1, 1 - LOW, 1, 1])


def call(**given):
    images, labels = tiny.samples(64)
    settings = {"forget": [1], "epochs": 2, "lr": 0.05, "batch_size": 8, "parallel": "jit"} | given
    return dj.unlearn(*tiny.network(), images, labels, **{"method": "delete", "batch_norm": "train"} | settings)


@pytest.mark.parametrize("method", ["delete", "pour", "finetune"])
def test_it_follows_any_method(method):
    plain, finished = call(method=method), call(method=method, finish="mean")
    assert finished.history == plain.history
    images, labels = tiny.samples(8)
    again = dj.unlearn(
        tiny.network()[0],
        plain.variables,
        images,
        labels,
        forget=[1],
        method=dj.methods.finish("mean"),
        parallel="jit",
        batch_norm="train",
        lr=1e-3,
    )
    jax.tree.map(np.testing.assert_array_equal, finished.variables, again.variables)


@pytest.mark.parametrize("parallel", [pytest.param("pmap", marks=pytest.mark.pmap), "sharding"])
def test_it_follows_a_training_on_several_devices(parallel):
    finished, one = call(parallel=parallel, finish="mean"), call(finish="mean")
    for a, b in zip(jax.tree.leaves(finished.variables), jax.tree.leaves(one.variables), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_it_overwrites_the_classes_of_earlier_requests_too():
    """Those that the network knows of, and those that the call names."""
    plain, alone, both = (
        call(batch_norm="frozen", **given) for given in ({}, {"finish": "mean"}, {"finish": "mean", "erased": [3]})
    )
    head = both.variables["params"]["Dense_0"]
    np.testing.assert_array_equal(head["kernel"][:, 3], head["kernel"][:, 1])
    np.testing.assert_allclose(head["bias"][jnp.array([1, 3])], np.mean(head["bias"][::2]) - LOW, rtol=1e-6)
    assert not np.allclose(alone.variables["params"]["Dense_0"]["bias"][3], head["bias"][3], atol=1)
    images, labels = tiny.samples(8)
    network = plain._replace(requests=({"forget": [3], "method": "delete", "batch_norm": "frozen"},))
    finish, found = dj.methods.finish("mean"), []
    for given in (network, plain.variables):
        found.append(dj.unlearn(tiny.network()[0], given, images, labels, forget=[1], method=finish, lr=1e-3))
    np.testing.assert_allclose(
        found[0].variables["params"]["Dense_0"]["bias"][3], found[0].variables["params"]["Dense_0"]["bias"][1]
    )
    assert found[1].variables["params"]["Dense_0"]["bias"][3] > found[0].variables["params"]["Dense_0"]["bias"][3] + 1


def test_a_store_keeps_the_network_before_it(tmp_path):
    plain = call(store=dj.Checkpoints(tmp_path))
    finished = call(store=dj.Checkpoints(tmp_path), finish="zero")  # restored: nothing is trained
    assert (finished.history, finished.compile_seconds) == (plain.history, plain.compile_seconds)
    kernel = finished.variables["params"]["Dense_0"]["kernel"]
    np.testing.assert_array_equal(kernel[:, 1], 0)
    np.testing.assert_array_equal(kernel[:, 0], plain.variables["params"]["Dense_0"]["kernel"][:, 0])


def test_what_cannot_be_finished_is_refused_before_anything_is_trained():
    for finish, words in (("constant", "unknown finish 'constant': choose one of None, zero, mean"), (1, "finish 1")):
        with pytest.raises(ValueError, match=words):
            call(finish=finish)
    with pytest.raises(ValueError, match="finish: row must be one of zero, mean, got 'constant'"):
        dj.methods.finish("constant")
    last, params, *_ = HEADS["without a bias"]
    model, variables = two_layers(last, params)
    asked = []
    with pytest.raises(ValueError, match="no bias to lower: leave the finish out"):
        dj.unlearn(
            model, variables, *tiny.samples(16), forget=[1], batch_size=8, parallel="jit", finish="mean",
            evaluate=lambda variables: asked.append(1) or {},
        )  # fmt: skip
    assert not asked


# --------------------------------------------------------------------------------------------------- without classes


@pytest.mark.parametrize("classes", [(1,), (0, 2)])
@pytest.mark.parametrize("shape", [(50, K), (3, 4, 5, K)], ids=["image", "pixel"])
def test_a_constant_probability(classes, shape, x64):
    logits = jnp.asarray(np.random.default_rng(0).normal(size=shape) * 20)
    model = dj.Model(lambda variables, x: x, lambda variables, x, key: (x, variables))
    silent = dj.models.without_classes(model, classes)
    found = np.asarray(silent.apply({}, logits))
    others = [c for c in range(K) if c not in classes]
    np.testing.assert_array_equal(found[..., classes], np.log(LEFT))  # the same bits for every image: no order
    expected = log_softmax(np.asarray(logits)[..., others], -1) + np.log1p(-LEFT * len(classes))
    np.testing.assert_allclose(found[..., others], expected, rtol=1e-12)
    np.testing.assert_allclose(np.exp(found).sum(-1), 1, rtol=1e-12)
    np.testing.assert_array_equal(silent.apply_train({}, logits, None)[0], found)
    scores = found[..., classes].sum(-1).ravel()
    assert roc_auc_score(np.arange(len(scores)) % 2, scores) == 0.5


def test_it_is_made_once_and_wrong_classes_are_named():
    model, variables = tiny.network()
    assert dj.models.without_classes(model, [1, 2]) is dj.models.without_classes(model, np.array([2, 1]))
    assert dj.models.without_classes(model, 2) is dj.models.without_classes(model, {2: "cat"}.keys())
    for wrong in ([], [1.0], [True], [-1], ["a"], np.arange(4) == 1):
        with pytest.raises(ValueError, match=r"^classes(: a class)? (is empty|must)"):
            dj.models.without_classes(model, wrong)
    images = jnp.asarray(tiny.samples(4)[0])
    for wrong in ([4], range(4)):
        with pytest.raises(ValueError, match=r"of 4 \(0 to 3\): at least one must remain"):
            dj.models.without_classes(model, wrong).apply(variables, images)


def test_it_is_exported(tmp_path):
    model, variables = tiny.network()
    path = tmp_path / "network.jax"
    dj.models.save_exported(dj.models.without_classes(model, [1]), variables, path, (6, 6, 1))
    found = jax.export.deserialize(bytearray(path.read_bytes())).call(jnp.asarray(tiny.samples(16)[0]))
    assert len(set(np.asarray(found)[:, 1].tolist())) == 1


# ------------------------------------------------------------------------------------------------------- the command


def test_the_report_says_so():
    assert "finish" not in counted(Config())
    assert counted(Config(unlearn=UnlearnConfig(method="pour", finish="zero", batch_norm="train"))) == {
        "name": "pour",
        "finish": "zero",
    }
