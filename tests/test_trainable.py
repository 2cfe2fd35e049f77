"""What of a network is trained: the rest stays bit by bit, in every way of training."""

import jax
import numpy as np
import optax
import pytest
from etils import epath
from rich.console import Console

import delete_jax as dj
from delete_jax.checkpoint import Checkpoints
from delete_jax.config import Config, UnlearnConfig
from delete_jax.identity import IdentityError, digest
from delete_jax.layout import in_lanes
from delete_jax.loop import fit
from delete_jax.methods import FORGET, Method, Setup, Term
from delete_jax.methods.salun import salun
from delete_jax.optimisers import sgd
from delete_jax.request import Selection, as_samples, split
from delete_jax.result import Result
from delete_jax.run import stages
from delete_jax.run.folder import Folder
from delete_jax.run.networks import load_stage
from delete_jax.run.training import unlearn
from delete_jax.step import init_state
from delete_jax.trainable import Part, merged, part_of
from tests import tiny
from tests.pages import snippets

SQUARE = Method("square", lambda outputs, context: {FORGET: Term((outputs[FORGET].logits ** 2).sum(-1) / 2)})
"""Its gradient is known: of x W it is the mean of x (x W)."""


def apply(variables, x):
    params = variables["params"]
    return x.reshape(len(x), -1) @ params["body"]["kernel"] @ params["head"]["kernel"] + params["head"]["bias"][None]


MODEL = dj.Model(apply, lambda variables, x, key: (apply(variables, x), variables), classifier=("head",))


def given():
    """A linear network [4 -> 3 -> 3] in two layers, six samples of which three are of class 1."""
    rng = np.random.default_rng(0)
    body, head, images = (rng.normal(size=shape).astype(np.float32) for shape in ((4, 3), (3, 3), (6, 2, 2, 1)))
    params = {"body": {"kernel": body}, "head": {"kernel": head, "bias": np.float32([0.1, -0.2, 0.3])}}
    return {"params": params}, images, np.array([1, 0, 1, 2, 1, 0])


def made(**settings) -> dict:
    variables, images, labels = given()
    usual = {"method": SQUARE, "epochs": 1, "batch_size": 3, "lr": 0.1, "parallel": "jit"}
    return dj.unlearn(MODEL, variables, images, labels, forget=1, **usual | settings).variables["params"]


def flat(params) -> dict[str, np.ndarray]:
    return {f"{layer}/{name}": np.asarray(leaf) for layer, leaves in params.items() for name, leaf in leaves.items()}


PARTS = {
    "classifier": {"head/kernel", "head/bias"},
    "head": {"head/kernel", "head/bias"},
    "head.kernel": {"head/kernel"},
    "*/kernel": {"body/kernel", "head/kernel"},
    "bo?y, head/bias": {"body/kernel", "head/bias"},
}


@pytest.mark.parametrize("trainable", PARTS)
def test_what_is_not_trained_stays_bit_by_bit(trainable):
    """And what is trained takes the step that is known, as if the rest were constants."""
    variables, images, labels = given()
    before, after, whole = flat(variables["params"]), flat(made(trainable=trainable)), flat(made())
    for name in before:
        if name in PARTS[trainable]:
            np.testing.assert_allclose(after[name], whole[name], rtol=1e-6)
            assert (after[name] != before[name]).all()
        else:
            assert after[name].tobytes() == before[name].tobytes(), name
    x = images[labels == 1].reshape(3, 4)
    body, head = before["body/kernel"], before["head/kernel"]
    out = x @ body @ head + before["head/bias"]
    if "head/kernel" in PARTS[trainable]:
        np.testing.assert_allclose(after["head/kernel"], head - 0.1 * (x @ body).T @ out / 3, rtol=1e-5, atol=1e-6)


def test_low_rank_is_the_step_that_is_known():
    """From B = 0, only B moves: by -lr AᵀG, so that W moves by -lr A AᵀG. What the method sees is the network itself."""
    variables, images, labels = given()
    before = flat(variables["params"])
    part = Part((True, False, True), 2)  # body/kernel, head/bias, head/kernel
    start = part.start(variables["params"], 7)
    assert all((flat(merged(start))[name] == before[name]).all() for name in before)
    assert [factors["a"].shape for factors in start["lora"].values()] == [(4, 2), (3, 2)]
    x = images[labels == 1].reshape(3, 4)
    body, head = before["body/kernel"], before["head/kernel"]
    out = x @ body @ head + before["head/bias"]
    gradients = {"0": x.T @ (out @ head.T) / 3, "2": (x @ body).T @ out / 3}
    after = flat(made(trainable="lora:2", seed=7))
    for number, name in (("0", "body/kernel"), ("2", "head/kernel")):
        a = np.asarray(start["lora"][number]["a"])
        np.testing.assert_allclose(after[name], before[name] - 0.1 * a @ a.T @ gradients[number], rtol=1e-5, atol=1e-6)
    assert after["head/bias"].tobytes() == before["head/bias"].tobytes()
    more = {name: leaf - before[name] for name, leaf in flat(made(trainable="lora:1", epochs=5, lr=0.01)).items()}
    assert [np.linalg.matrix_rank(more[name], 1e-4) for name in ("body/kernel", "head/kernel")] == [1, 1]
    seen = Method(
        "seen",
        lambda outputs, context: {
            FORGET: Term(outputs[FORGET].logits[:, 0] + 0 * context.student["params"]["head"]["bias"][0])
        },
    )
    made(trainable="lora:1", method=seen)


def test_no_optimiser_knows_what_is_not_trained():
    variables, *_ = given()
    for part, shapes in ((Part((False, True, False)), [(3,)]), (Part((True, False, False), 2), [(4, 2), (2, 3)])):
        state = init_state(variables, sgd(), part)
        assert [leaf.shape for leaf in jax.tree.leaves(state.opt_state)] == shapes
    convolutions = {"flax": np.zeros((3, 3, 8, 16), np.float32), "torch": np.zeros((16, 8, 3, 3), np.float32)}
    factors = Part((True, True), 2).start(convolutions, 0)["lora"]
    assert [(one["a"].shape, one["b"].shape) for one in factors.values()] == [((72, 2), (2, 16)), ((16, 2), (2, 72))]


@pytest.mark.parametrize("trainable", ["classifier", "lora:1"])
def test_resumed_is_uninterrupted(trainable, tmp_path):
    expected = flat(made(trainable=trainable, epochs=4))
    made(trainable=trainable, epochs=2, store=Checkpoints(tmp_path / "a"))
    found = flat(made(trainable=trainable, epochs=4, store=Checkpoints(tmp_path / "a")))
    assert all(found[name].tobytes() == expected[name].tobytes() for name in expected)
    again = flat(made(trainable=trainable, epochs=4, store=Checkpoints(tmp_path / "a")))  # it has nothing left to do
    assert all(again[name].tobytes() == expected[name].tobytes() for name in expected)
    for other in (None, "head/kernel"):
        with pytest.raises(IdentityError, match=f"settings.trainable was {trainable}, now {other}"):
            made(trainable=other, epochs=4, store=Checkpoints(tmp_path / "a"))


@pytest.mark.slow
def test_in_every_way_of_training():
    """In parts of a batch, many requests at once on devices and in lanes, and without a rate."""
    variables, images, labels = given()
    images, labels = np.tile(images, (4, 1, 1, 1)), np.tile(labels, 4)
    settings = {"trainable": "lora:2", "epochs": 2, "batch_size": 4}
    one = {"forget": 1, "method": SQUARE, "lr": 0.01, "parallel": "jit", **settings}
    alone = [dj.unlearn(MODEL, variables, images, labels, seed=seed, **one) for seed in (0, 1)]
    parts = dj.unlearn(MODEL, variables, images, labels, micro_batch=2, **one)
    swept = dj.sweep(
        MODEL, variables, images, labels, [dj.Request(1, SQUARE, 0.01, seed) for seed in (0, 1)], **settings
    )
    jobs = [_job(variables, images, labels, seed, **settings) for seed in (0, 1)]
    lanes = list(fit(jobs, in_lanes(2)))
    for found, expected in zip([*swept, *lanes, parts], [*alone, *alone, alone[0]], strict=True):
        for name, leaf in flat(expected.variables["params"]).items():
            np.testing.assert_allclose(flat(found.variables["params"])[name], leaf, rtol=2e-5, atol=1e-6)
    result = dj.unlearn(
        MODEL, variables, images, labels, forget=1, method="delete", lr="auto", steps=5, trainable="head/kernel"
    )
    assert {row["part"] for row in result.search} == {"all"}
    assert flat(result.variables["params"])["head/bias"].tobytes() == variables["params"]["head"]["bias"].tobytes()


def test_methods_with_a_network_or_a_mask_of_their_own():
    """A layer that a method adds is trained, too; what a method leaves alone stays, also where it is in the part."""
    variables, *_ = given()
    before = flat(variables["params"])
    expanded = flat(made(trainable="head/kernel", method="boundary_expand"))
    distilled = flat(made(trainable="bod*", method="pour_distill"))
    for found, moved in ((expanded, {"head/kernel"}), (distilled, {"body/kernel"})):
        assert {name for name in before if found[name].tobytes() != before[name].tobytes()} == moved


@pytest.mark.parametrize("classifier", [None, ("w2",)])
def test_the_classifier_of_a_flat_dict_has_its_bias(classifier):
    """No name says which bias is the last layer's; what it does to the logits says it."""
    variables, images, labels = given()
    layers = variables["params"]
    params = {
        "w1": layers["body"]["kernel"],
        "b1": np.ones(3, np.float32),
        "w2": layers["head"]["kernel"],
        "b2": layers["head"]["bias"],
    }

    def answer(variables, x):
        p = variables["params"]
        return (x.reshape(len(x), -1) @ p["w1"] + p["b1"][None]) @ p["w2"] + p["b2"][None]

    model = dj.Model(answer, lambda variables, x, key: (answer(variables, x), variables), classifier)
    settings = {"method": SQUARE, "trainable": "classifier", "epochs": 1, "batch_size": 3, "lr": 0.1, "parallel": "jit"}
    found = dj.unlearn(model, {"params": params}, images, labels, forget=1, **settings).variables["params"]
    assert {name for name in params if not np.array_equal(found[name], params[name])} == {"w2", "b2"}


def test_one_array_at_two_places_is_two_parameters():
    """Such as the zeros of all biases: also in a network that a method trains in place of the given one."""
    rng = np.random.default_rng(0)
    zeros, kernel = np.zeros(3, np.float32), rng.normal(size=(4, 3)).astype(np.float32)
    variables, images, labels = given()

    def answer(variables, x):
        first, second = (variables["params"][name] for name in ("first", "second"))
        out = x.reshape(len(x), -1) @ kernel + first["bias"][None]
        return out @ second["kernel"] + second["bias"][None]

    model = dj.Model(answer, lambda variables, x, key: (answer(variables, x), variables))
    params = {"first": {"bias": zeros}, "second": {"kernel": variables["params"]["head"]["kernel"], "bias": zeros}}
    wrapped = SQUARE._replace(name="wrapped", wrap=lambda setup: (setup.model, setup.teacher))
    for trainable in ("first", "second"):
        settings = {
            "method": wrapped,
            "trainable": trainable,
            "epochs": 1,
            "batch_size": 3,
            "lr": 0.1,
            "parallel": "jit",
        }
        found = dj.unlearn(model, {"params": params}, images, labels, forget=1, **settings).variables["params"]
        assert {name for name in params if not np.array_equal(found[name]["bias"], zeros)} == {trainable}


def _job(variables, images, labels, seed, **settings):
    options = dj.options.Options(lr=0.01, seed=seed, parallel="jit", **settings)
    samples = as_samples(MODEL, variables, images, labels, options.preprocess)
    streams, classes = split(samples, Selection([1]), SQUARE, None)
    return dj.job.checked_job(MODEL, variables, streams, samples.num_classes, classes, SQUARE, options)


def test_the_call_of_the_guide():
    (snippet,) = snippets("choosing", "result = dj.unlearn(")

    def answer(variables, x):
        x = x.reshape(len(x), -1)
        for name in ("conv1", "layer4_1", "fc"):
            x = x @ variables["params"][name]
        return x

    model = dj.Model(answer, lambda variables, x, key: (answer(variables, x), variables))
    variables = {"params": {name: (2 * np.eye(4)).astype(np.float32) for name in ("conv1", "layer4_1", "fc")}}
    labels = np.arange(64) % 4
    images = np.eye(4, dtype=np.float32)[labels].reshape(64, 2, 2, 1)
    names = {"dj": dj, "model": model, "variables": variables, "images": images, "labels": labels}
    assert "forget=[3]" in snippet
    exec(snippet.replace("forget=[3]", "forget=[3], lr=0.3, epochs=20"), names)  # without a rate: tests/test_auto.py
    result = names["result"].variables["params"]
    assert {name for name in result if not np.array_equal(result[name], variables["params"][name])} == {
        "layer4_1",
        "fc",
    }
    assert 3 not in answer({"params": result}, images).argmax(-1)


WRONG = {
    "no such name": ({"trainable": "fc"}, "no parameter is called 'fc': there are body/kernel, head/bias, head/kernel"),
    "one of two": ({"trainable": "head, tail"}, "no parameter is called 'tail'"),
    "no rank": ({"trainable": "lora:0"}, "with a rank from 1 to 4096, such as 'lora:4', got 'lora:0'"),
    "no text": ({"trainable": 3}, "must be None, 'last_stage', 'classifier', 'lora:RANK', or names .*, got 3"),
    "empty": ({"trainable": "head,"}, "got 'head,'"),
    "at once": ({"trainable": "head", "method": "pour"}, "and pour is computed at once: leave it out"),
    "another network": (
        {"trainable": "lora:2", "method": "boundary_expand"},
        "and boundary_expand trains another one in its place: give names, or leave it out",
    ),
    "resets": ({"trainable": "head", "method": "redistil"}, "and redistil resets layers, which must be trained"),
    "all of it": (
        {"trainable": "last_stage"},
        "the last stage of this network is all of it: give 'classifier' or names",
    ),
    "an optimiser of other parameters": (
        {"trainable": "lora:2", "tx": optax.masked(optax.sgd(1.0), {"body": True, "head": True})},
        "tx: the optimiser masked cannot be used: ",
    ),
    "what the method leaves alone": (
        {"trainable": "classifier", "method": "pour_distill"},
        "trainable='classifier': pour_distill trains nothing of that",
    ),
    "single weights": (
        {"trainable": "lora:2", "method": salun()},
        "salun trains single weights, and updates of low rank have none",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_refused(name):
    settings, message = WRONG[name]
    with pytest.raises(ValueError, match=message) as caught:
        made(**settings)
    assert "\n" not in str(caught.value)


def test_the_last_stage_of_a_network_of_the_package():
    model, variables = tiny.network(dj.models.ResNet(4, stages=(1, 1), features=(4, 8)))
    setup = Setup(model, variables, lambda x: x, {}, 4, (1,), jax.random.key(0), classifier=("fc",))
    images = np.zeros((1, 8, 8, 1), np.float32)
    places = jax.tree_util.tree_flatten_with_path(variables["params"])[0]
    for trainable, names in (
        ("last_stage", {"layer2_0", "fc"}),
        ("classifier", {"fc"}),
        ("layer?_0", {"layer1_0", "layer2_0"}),
    ):
        chosen = part_of(trainable, setup, images).chosen
        assert {place[0].key for (place, _), is_trained in zip(places, chosen, strict=True) if is_trained} == names
        assert all(is_trained == (place[0].key in names) for (place, _), is_trained in zip(places, chosen, strict=True))


def test_a_run_whose_network_is_the_sum(tmp_path, monkeypatch):
    """Low rank in the command: the network that is loaded is an ordinary one, and part of what config.json and the report say."""
    tiny.small_runs(monkeypatch)
    settings = UnlearnConfig(forget=(1,), epochs=1, batch_size=32, trainable="lora:2", **tiny.PAPER)
    config = Config(unlearn=settings, retrain=False, parallel="jit")
    run, _ = stages.prepared(config)
    original = dj.models.init(run.module, (8, 8, 1), seed=0)
    with jax.numpy_dtype_promotion("standard"):
        result = unlearn(run, Folder(tmp_path, Console()), Result(original, [], []))
        again = unlearn(run, Folder(tmp_path, Console()), Result(original, [], []))
    loaded = load_stage(epath.Path(tmp_path / "checkpoints/unlearned"), "")
    assert jax.tree.structure(jax.device_get(result.variables)) == jax.tree.structure(jax.device_get(original))
    assert digest(result.variables) == digest(again.variables) == digest(loaded.variables)
    assert digest(result.variables["params"]) != digest(original["params"])
    moved = np.asarray(result.variables["params"]["fc"]["kernel"] - original["params"]["fc"]["kernel"])
    first, *_, last = np.linalg.svd(moved, compute_uv=False)
    assert last < 1e-2 * first  # rounded to the kernel's own precision
    assert loaded.identity["settings"]["trainable"] == "lora:2"
    config.unlearn.trainable = "layer9"
    with pytest.raises(
        ValueError, match=r"^--config\.model\.name=resnet_tiny: trainable='layer9': no parameter is called"
    ):
        stages.prepared(config)
