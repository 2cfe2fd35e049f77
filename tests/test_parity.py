"""The original PyTorch code's runs, step by step: `goldens/trajectory.npz`, 8 steps on 256 real Fashion-MNIST images.

They are replayed by the compiled trainer, as users run it: what the compiler is told to do is part of the result.
"""

import json
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import delete_jax as dj
from delete_jax.columns import arrays
from delete_jax.data import normalize
from delete_jax.methods import Setup
from delete_jax.methods.salun import saliency_mask
from delete_jax.model import Model
from delete_jax.models import BatchNorm
from delete_jax.parallel import make_trainer, scalars
from delete_jax.step import init_state, sgd
from delete_jax.streams import split_streams

pytestmark = [pytest.mark.golden, pytest.mark.usefixtures("optimised", "full_precision")]
GOLDENS = pathlib.Path(__file__).parent / "goldens"
COMMON, RUNS = np.load(GOLDENS / "common.npz"), np.load(GOLDENS / "trajectory.npz")
SETTINGS = json.loads(str(RUNS["meta"]))


class GoldenNet(nn.Module):
    """The small network of the golden runs."""

    @nn.compact
    def __call__(self, x, train: bool):
        conv = {"padding": 1, "use_bias": False, "param_dtype": x.dtype}
        x = nn.relu(BatchNorm(name="bn1")(nn.Conv(16, (3, 3), name="conv1", **conv)(x), train))
        x = nn.relu(BatchNorm(name="bn2")(nn.Conv(32, (3, 3), 2, name="conv2", **conv)(x), train))
        return nn.Dense(10, name="fc", param_dtype=x.dtype)(jnp.mean(x, (1, 2)))


def to_jax(arrays, prefix: str, dtype, statistics: bool = True):
    """PyTorch's names and layouts -> flax variables."""
    get = lambda name: jnp.asarray(arrays[f"{prefix}.{name}"], dtype)  # noqa: E731
    norms = ("bn1", "bn2")
    params = {name: {"scale": get(f"{name}.weight"), "bias": get(f"{name}.bias")} for name in norms}
    params |= {name: {"kernel": get(f"{name}.weight").transpose(2, 3, 1, 0)} for name in ("conv1", "conv2")}
    params["fc"] = {"kernel": get("fc.weight").T, "bias": get("fc.bias")}
    if not statistics:
        return {"params": params}
    stats = {name: {"mean": get(f"{name}.running_mean"), "var": get(f"{name}.running_var")} for name in norms}
    return {"params": params, "batch_stats": stats}


OFTEN = ("delete", "delete_dbn", "random_label")
RUNS_HERE = [
    "delete",
    "delete_dbn",
    "random_label",
    "gradient_ascent",
    "finetune",
    "boundary_shrink",
    "salun",
    "bad_teacher",
]


def norm(tree) -> float:
    return float(jnp.sqrt(sum(jnp.sum(jnp.square(leaf.astype(jnp.float64))) for leaf in jax.tree.leaves(tree))))


def compare_with_the_original_code(run, precision, images, stream, constants, preprocess, columns=lambda step: {}):
    """Replays the run by the trainer; returns the errors of its losses, of the final parameters (relative to how far they moved) and of
    the running statistics, and the first gradient's norm. `columns`: of the stream, those that change with every step."""
    dtype = {"f32": jnp.float32, "f64": jnp.float64}[precision]
    settings, method = SETTINGS[run], dj.methods.create(run.removesuffix("_dbn"))
    teacher, tx = to_jax(COMMON, "w0", dtype), sgd()
    batch_norm = "frozen" if settings["disable_bn"] else "train"
    model = dj.models.from_linen(GoldenNet())
    trainer = make_trainer(model, method, tx, preprocess, None, batch_norm, "jit")
    state, losses, norms, size = init_state(teacher, tx), [], [], settings["bs"]
    state, constants, (lr, seed) = trainer.placement.each([(state, constants, scalars(settings["lr"], 0))])
    networks = trainer.placement.shared({"original": teacher} if method.networks else {})
    for _ in range(settings["epochs"]):
        for begin in range(0, len(images), size):
            batch = jax.tree.map(lambda column: column[begin : begin + size], stream) | columns(len(losses))
            batch["weight"] = batch["weight"].astype(dtype)
            streams = {method.streams[0]: jax.tree.map(jnp.asarray, batch)}
            picks = {method.streams[0]: (np.arange(size, dtype=np.int32)[None], np.ones((1, size), dtype))}
            state, metrics = trainer.steps(state, networks, [streams], [picks], lr, seed, constants)
            losses.append(float(metrics["loss"][0]))
            norms.append(float(metrics["grad_norm"][0]))
    golden = to_jax(RUNS, f"{run}.{precision}.final", dtype)
    difference = jax.tree.map(jnp.subtract, state.variables, golden)
    moved = norm(jax.tree.map(jnp.subtract, golden["params"], teacher["params"]))
    assert moved > 0
    statistics = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(difference["batch_stats"]))
    wrong = float(np.abs(losses - RUNS[f"{run}.{precision}.losses"]).max())
    return wrong, norm(difference["params"]) / moved, statistics, norms[0]


@pytest.mark.parametrize(
    "run", [pytest.param(run, marks=() if run in OFTEN else pytest.mark.slow) for run in RUNS_HERE]
)
@pytest.mark.parametrize("precision", [pytest.param("f32", marks=pytest.mark.slow), "f64"])
def test_run_agrees_with_the_original_code(run, precision, x64):
    dtype = {"f32": jnp.float32, "f64": jnp.float64}[precision]
    method, kind = dj.methods.create(run.removesuffix("_dbn")), SETTINGS[run]["data"]
    images = np.repeat(COMMON[f"{kind}_u8"][..., None], 3, axis=-1)
    (stream,) = arrays(split_streams(images, COMMON[f"{kind}_y"], [1], 10, method.streams)).values()
    given = lambda name: RUNS[f"{run}.{precision}.{name}"]  # noqa: E731
    constants: dict = {}
    if run in ("random_label", "salun"):
        stream["random_label"] = given("noise")
    if run == "salun":
        constants["update_mask"] = to_jax(RUNS, f"{run}.{precision}.mask", dtype, statistics=False)["params"]
    if run == "boundary_shrink":
        stream["adversarial_label"] = given("fgsm_pred").astype(np.int32)
    if run == "bad_teacher":
        constants["bad_teacher"] = to_jax(COMMON, "wbad", dtype)
    preprocess = normalize(COMMON["mean"], COMMON["std"], dtype=dtype)
    losses, params, statistics, first_norm = compare_with_the_original_code(
        run, precision, images, stream, constants, preprocess
    )
    exact = precision == "f64"
    assert losses < (1e-9 if exact else 2e-5)
    assert params < (1e-7 if exact else 2e-3)
    assert statistics < (1e-7 if exact else 2e-5)
    if run in ("delete", "delete_dbn"):
        grads = [leaf for key, leaf in RUNS.items() if key.startswith(f"{run}.{precision}.grad1.")]
        assert grads
        np.testing.assert_allclose(first_norm, norm(grads), rtol=1e-7 if exact else 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["f32", "f64"])
def test_l2ul_agrees_with_the_original_code(precision, x64):
    """With the original's attack, which clips *normalised* images to [0, 1] and so moves them by 57 to 83 instead of 0.4.

    The golden run keeps its targets and the size of the perturbation, not the adversarial images: they are made here, and
    agree to about 1e-5 a pixel, which is what float64 can be compared to.
    """
    dtype = {"f32": jnp.float32, "f64": jnp.float64}[precision]
    images = normalize(COMMON["mean"], COMMON["std"], dtype=dtype)(
        np.repeat(COMMON["forget_u8"][..., None], 3, axis=-1)
    )
    (stream,) = arrays(split_streams(np.asarray(images), COMMON["forget_y"], [1], 10, ["forget"])).values()
    model, teacher = dj.models.from_linen(GoldenNet()), to_jax(COMMON, "w0", dtype)
    targets, sizes = RUNS[f"l2ul_adv.{precision}.y_adv"].astype(np.int32), RUNS[f"l2ul_adv.{precision}.adv_l2"]

    def length(x):
        return jnp.sqrt(jnp.sum(jnp.square(x), (1, 2, 3), keepdims=True))

    @jax.jit
    def legacy_attack(x, y):
        def log_likelihood(adversarial):
            logits, _ = model.apply_train(teacher, adversarial, jax.random.key(0))
            return jnp.sum(jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1))

        def ascend(_, adversarial):
            gradient = jax.grad(log_likelihood)(adversarial)
            shift = adversarial + 0.1 * gradient / length(gradient) - x
            return jnp.clip(x + shift * jnp.minimum(SETTINGS["l2ul_adv"]["adv_eps"] / length(shift), 1), 0, 1)

        adversarial = jax.lax.fori_loop(0, 10, ascend, jnp.clip(x, 0, 1))
        return adversarial, length(adversarial - x).ravel()

    def columns(step):
        begin = step * 64 % len(images)
        adversarial, size = legacy_attack(images[begin : begin + 64], targets[step])
        np.testing.assert_allclose(size, sizes[step], rtol=1e-5 if precision == "f32" else 1e-9)
        return {"adversarial": np.asarray(adversarial), "adversarial_label": targets[step]}

    losses, params, statistics, _ = compare_with_the_original_code(
        "l2ul_adv", precision, images, stream, {}, lambda x: x, columns
    )
    assert losses < (5e-6 if precision == "f64" else 2e-5)
    assert params < (1e-5 if precision == "f64" else 2e-3)
    assert statistics < (1e-6 if precision == "f64" else 2e-5)


def test_salun_chooses_the_original_codes_weights(x64):
    dtype = jnp.float64
    images = np.repeat(COMMON["forget_u8"][..., None], 3, axis=-1)
    streams = split_streams(images, COMMON["forget_y"], [1], 10, ["forget"])
    streams["forget"]["weight"] = streams["forget"]["weight"].astype(np.float64)
    teacher = to_jax(COMMON, "w0", dtype)
    preprocess = normalize(COMMON["mean"], COMMON["std"], dtype=dtype)
    model = dj.models.from_linen(GoldenNet())
    setup = Setup(model, teacher, preprocess, streams, 10, (1,), jax.random.key(0), batch_size=SETTINGS["salun"]["bs"])
    found = saliency_mask(setup, SETTINGS["salun"]["threshold_ratio"])
    golden = to_jax(RUNS, "salun.f64.mask", dtype, statistics=False)["params"]
    differ = sum(int(jnp.sum(a != b)) for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(golden), strict=True))
    assert differ == 0


def test_the_trainers_reductions_are_as_accurate_as_jit():
    """Batch statistics of numbers far from 0: the variance is a small difference of two large means."""
    features = 16
    x = np.random.default_rng(0).normal(30, 1, (64, 28, 28, features)).astype(np.float32)
    module = BatchNorm(momentum=0.0)
    variables = module.init(jax.random.key(0), x[:1], train=False)
    forward = lambda variables, x: module.apply(variables, x, train=True, mutable=["batch_stats"])  # noqa: E731

    def apply_train(variables, x, key):
        y, updated = forward(variables, x)
        return jnp.mean(y, (1, 2)), {**variables, **updated}

    model = Model(lambda variables, x: jnp.mean(module.apply(variables, x, train=False), (1, 2)), apply_train)
    trainer = make_trainer(model, dj.methods.finetune(), sgd(), same, None, "train", "jit")
    labels = np.zeros(64, np.int64)
    streams = split_streams(x, labels, [], features, ["remain"])
    picks = {"remain": (np.arange(64, dtype=np.int32)[None], np.ones((1, 64), np.float32))}
    on, numbers = trainer.placement, scalars(0.1, 0)
    state = on.each([init_state(variables, sgd())])
    state, _ = trainer.steps(state, {}, on.samples([streams], 10**9), [picks], *numbers, {})
    n = x[..., 0].size
    true = x.astype(np.float64).var((0, 1, 2)) * n / (n - 1)

    def error(updated):
        return float(np.abs(updated["batch_stats"]["var"] / true - 1).max())

    by_jit = error(jax.jit(forward)(variables, x)[1])
    assert error(state.model_state) < max(2 * by_jit, 3e-4)


def same(images):
    return images
