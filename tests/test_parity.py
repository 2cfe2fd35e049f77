"""The original PyTorch code's runs, step by step: `goldens/trajectory.npz`, 8 steps on 256 real Fashion-MNIST images."""

import json
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import delete_jax as dj
from delete_jax.data import normalize
from delete_jax.methods import Setup
from delete_jax.methods.salun import saliency_mask
from delete_jax.models import BatchNorm
from delete_jax.step import init_state, make_train_step, sgd
from delete_jax.unlearning import split_streams

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


@pytest.mark.parametrize("run", RUNS_HERE)
@pytest.mark.parametrize("precision", ["f32", "f64"])
def test_run_agrees_with_the_original_code(run, precision, x64):
    dtype = {"f32": jnp.float32, "f64": jnp.float64}[precision]
    settings, method = SETTINGS[run], dj.methods.create(run.removesuffix("_dbn"))
    kind = settings["data"]
    images = np.repeat(COMMON[f"{kind}_u8"][..., None], 3, axis=-1)
    (stream,) = split_streams(images, COMMON[f"{kind}_y"], [1], 10, method.streams).values()
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
    teacher, tx = to_jax(COMMON, "w0", dtype), sgd()
    step = jax.jit(
        make_train_step(
            dj.models.from_linen(GoldenNet()),
            method,
            tx,
            preprocess=normalize(COMMON["mean"], COMMON["std"], dtype=dtype),
            batch_norm="frozen" if settings["disable_bn"] else "train",
        )
    )
    state, losses, size = init_state(teacher, tx), [], settings["bs"]
    for _ in range(settings["epochs"]):
        for begin in range(0, len(images), size):
            batch = jax.tree.map(lambda column: column[begin : begin + size], stream)
            batch["weight"] = batch["weight"].astype(dtype)
            state, metrics = step(
                state, teacher, {method.streams[0]: batch}, settings["lr"], jax.random.key(0), constants
            )
            losses.append(float(metrics["loss"]))
            if len(losses) == 1:
                first_norm = float(metrics["grad_norm"])
    exact = precision == "f64"
    np.testing.assert_allclose(losses, RUNS[f"{run}.{precision}.losses"], rtol=0, atol=1e-9 if exact else 2e-5)
    golden = to_jax(RUNS, f"{run}.{precision}.final", dtype)
    difference = jax.tree.map(jnp.subtract, state.variables, golden)
    moved = norm(jax.tree.map(jnp.subtract, golden["params"], teacher["params"]))
    assert moved > 0
    assert norm(difference["params"]) / moved < (1e-7 if exact else 2e-3)
    statistics = [float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(difference["batch_stats"])]
    assert max(statistics) < (1e-7 if exact else 2e-5)
    if run in ("delete", "delete_dbn"):
        grads = [leaf for key, leaf in RUNS.items() if key.startswith(f"{run}.{precision}.grad1.")]
        assert grads
        np.testing.assert_allclose(first_norm, norm(grads), rtol=1e-7 if exact else 1e-4)


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
