"""One device, and eight devices by pmap and by sharding: the same parameters after five steps. `test_several_processes` has two
processes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import delete_jax as dj
from delete_jax.collectives import check_synchronised
from delete_jax.data import augmentation
from delete_jax.job import checked_job
from delete_jax.loop import one
from delete_jax.options import Options
from delete_jax.parallel import meant
from delete_jax.streams import split_streams
from tests import tiny


def as_float(images):
    return images.astype(np.float32) / 64


def five_steps(mode: str, batch_size: int = 16):
    """Five steps on unevenly weighted samples, with augmentation and batch norm in train mode -> parameters, statistics."""
    model, variables = tiny.network()
    images, labels = tiny.samples(4 * 5 * batch_size)
    images = np.clip(images * 64 + 64, 0, 255).astype(np.uint8)
    streams = split_streams(images, labels, [1], tiny.NUM_CLASSES, ["forget"])
    streams["forget"]["weight"] = np.linspace(0, 3, len(streams["forget"]["label"])).astype(np.float32) ** 2
    augment = augmentation(("flip", "crop"), padding=1)
    options = Options(
        lr=0.05,
        seed=3,
        epochs=1,
        batch_size=batch_size,
        preprocess=as_float,
        augment=augment,
        parallel=mode,
        batch_norm="train",
    )
    fitted = one(checked_job(model, variables, streams, tiny.NUM_CLASSES, (1,), dj.methods.delete(), options))
    assert len(fitted.history) == 5
    return jax.device_get(fitted.variables)


def assert_same(leaves, reference):
    for leaf, expected in zip(leaves, jax.tree.leaves(reference), strict=True):
        error = np.linalg.norm(leaf - expected) / np.linalg.norm(expected)
        assert error < 1e-5


@pytest.fixture(scope="module")
def one_device():
    return five_steps("jit")


@pytest.mark.devices(8)
@pytest.mark.parametrize("mode", [pytest.param("pmap", marks=pytest.mark.pmap), "sharding", "auto"])
def test_eight_devices(mode, one_device):
    assert jax.device_count() == 8
    assert_same(jax.tree.leaves(five_steps(mode)), one_device)


@pytest.mark.devices(8)
@pytest.mark.parametrize("mode", ["jit", pytest.param("pmap", marks=pytest.mark.pmap), "sharding"])
@pytest.mark.parametrize("kind", ["explicit", "auto"])
def test_a_mesh_that_the_caller_has_set(mode, kind, one_device):
    axis_type = {"explicit": jax.sharding.AxisType.Explicit, "auto": jax.sharding.AxisType.Auto}[kind]
    model, variables = tiny.network()
    images, labels = tiny.samples(32)
    settings = {"forget": [1], "epochs": 1, "lr": 0.05, "batch_size": 8, "parallel": mode}
    expected = dj.unlearn(model, variables, images, labels, **settings, method="delete", batch_norm="train").variables
    with jax.set_mesh(jax.make_mesh((8,), ("data",), axis_types=(axis_type,))) as _:
        before = jax.sharding.get_mesh()
        there = jax.tree.map(jax.numpy.array, variables)  # as the caller's arrays are then: on all devices
        for given in (variables, there):
            found = dj.unlearn(model, given, images, labels, **settings, method="delete", batch_norm="train").variables
            assert_same(jax.tree.leaves(jax.device_get(found)), jax.device_get(expected))
        assert jax.sharding.get_mesh() == before


@pytest.mark.parametrize("implementation", ["rbg", pytest.param("unsafe_rbg", marks=pytest.mark.slow)])
@pytest.mark.parametrize("mode", ["jit", pytest.param("pmap", marks=pytest.mark.pmap), "sharding"])
def test_another_kind_of_random_keys(mode, implementation, one_device):
    """JAX's default kind is not the same on one and on several devices, so a run does not depend on it."""
    jax.clear_caches()  # nothing traced with JAX's own default serves
    with jax.default_prng_impl(implementation):
        assert_same(jax.tree.leaves(five_steps(mode)), one_device)


@pytest.mark.devices(2)
def test_the_mode_that_is_meant():
    assert [meant(mode) for mode in ("auto", "jit", "pmap")] == ["sharding", "jit", "pmap"]
    with pytest.raises(ValueError, match="unknown parallel mode 'x': choose one of auto"):
        meant("x")


def assert_near(found, expected):
    """Where some values are 0 but for rounding, such as biases before a normalisation."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *jax.device_get((found, expected)))


class Flax(nn.Module):
    """With flax's batch norm, whose statistics are of one device unless it is told the axis; of two, only the first is told."""

    axes: tuple[str | None, ...] = (None,)

    @nn.compact
    def __call__(self, x, train: bool):
        x = x.reshape(x.shape[0], -1)
        for axis in self.axes:
            x = nn.relu(nn.BatchNorm(use_running_average=not train, axis_name=axis)(nn.Dense(8)(x)))
        return nn.Dense(4)(x)


@pytest.mark.devices(2)
@pytest.mark.pmap
@pytest.mark.parametrize("net", [Flax(), Flax(("batch", None))], ids=["none", "one of two"])
def test_statistics_of_one_device_are_refused_under_pmap(net):
    model, variables = tiny.network(net)
    settings = {"forget": [1], "epochs": 1, "lr": 0.05, "batch_size": 16}
    norm = "BatchNorm_0" if net.axes[0] is None else "BatchNorm_1"
    with pytest.raises(ValueError, match=f"statistics batch_stats/{norm}/mean would be those of one device's part"):
        dj.unlearn(model, variables, *tiny.samples(64), **settings, parallel="pmap", batch_norm="train")
    if net.axes == (None,):
        assert dj.unlearn(
            model, variables, *tiny.samples(64), **settings, parallel="pmap", batch_norm="frozen", method="delete"
        ).history


def state_of(step):
    """A model whose state `m` is what `step(x, m)` makes of a batch."""

    def apply(variables, x):
        return x.reshape(x.shape[0], -1) @ variables["params"]["w"]

    def apply_train(variables, x, key):
        return apply(variables, x), {**variables, "state": {"m": step(x, variables["state"]["m"])}}

    rng = np.random.default_rng(0)
    return dj.Model(apply, apply_train), {
        "params": {"w": rng.normal(size=(36, 4)).astype(np.float32)}, "state": {"m": np.float32(0)},
    }  # fmt: skip


def everywhere(x):
    return jax.lax.pmean(x.mean(), "batch")


def carried(x, m, read):
    """The first turn's value is in the second place after the second turn."""
    return jax.lax.scan(lambda c, _: ((read(x), c[0]), None), (0 * m, 0 * m), None, length=2)[0][1]


STATES = {
    "the mean of all": (lambda x, m: 0.9 * m + 0.1 * everywhere(x), True),
    "its own mean": (lambda x, m: 0.9 * m + 0.1 * x.mean(), False),
    "carried, of all": (lambda x, m: carried(x, m, everywhere), True),
    "carried, its own": (lambda x, m: carried(x, m, lambda x: x.mean()), False),
    "a loop, of all": (lambda x, m: jax.lax.fori_loop(0, 3, lambda i, c: c + everywhere(x), m), True),
    "a loop of both": (lambda x, m: jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + everywhere(x) ** 2 + 1, c[1] + x.mean()), (m, m))[1], False),
    "a branch": (lambda x, m: jax.lax.cond(m < 3, lambda q: q + 1, lambda q: q, m), True),
    "a branch, of all": (lambda x, m: jax.lax.cond(m < 3, lambda q: q + everywhere(x), lambda q: q, m), True),
    "a branch, its own": (lambda x, m: jax.lax.cond(m < 3, lambda q: q + x.mean(), lambda q: q, m), False),
    "the device's number": (lambda x, m: m + jax.lax.axis_index("batch").astype(jnp.float32), False),
    "a jitted function": (lambda x, m: jax.jit(lambda q: m + everywhere(q))(x), True),
    "a recomputed one, its own": (lambda x, m: jax.checkpoint(lambda q: m + q.mean())(x), False),
}  # fmt: skip


@pytest.mark.parametrize("name", STATES)
def test_what_is_of_all_devices(name):
    step, is_of_all = STATES[name]
    model, variables = state_of(step)
    arguments = model, variables, jnp.zeros((2, 6, 6, 1)), jax.random.key(0), "batch"
    if is_of_all:
        check_synchronised(*arguments)
        return
    with pytest.raises(ValueError, match="the running statistics state/m would be those of one device's part"):
        check_synchronised(*arguments)


@pytest.mark.pmap
def test_statistics_of_all_devices():
    """In "auto" those of the whole batch, whatever the network's batch norm; under pmap where it knows the axis."""
    settings = {"forget": [1], "epochs": 1, "lr": 0.05, "batch_size": 16}
    model, variables = tiny.network(Flax())
    one, all_ = (
        jax.device_get(
            dj.unlearn(
                model, variables, *tiny.samples(64), **settings, parallel=mode, method="delete", batch_norm="train"
            ).variables
        )
        for mode in ("jit", "auto")
    )
    assert_near(all_, one)
    told = dj.models.from_linen(Flax(("batch",)))
    mapped = jax.device_get(
        dj.unlearn(
            told, variables, *tiny.samples(64), **settings, parallel="pmap", method="delete", batch_norm="train"
        ).variables
    )
    assert_near(mapped, one)
    with pytest.raises(ValueError, match="build it without axis_name, or pass parallel='pmap'"):
        dj.unlearn(told, variables, *tiny.samples(64), **settings, parallel="auto", batch_norm="train")


def test_the_last_epoch_of_uneven_batches_is_the_weighted_mean(one_device):
    """Weights matter: with equal ones the parameters would be others."""
    model, variables = tiny.network()
    images, labels = tiny.samples(4 * 5 * 16)
    images = np.clip(images * 64 + 64, 0, 255).astype(np.uint8)
    augment = augmentation(("flip", "crop"), padding=1)
    result = dj.unlearn(
        model, variables, images, labels, forget=[1], epochs=1, lr=0.05, batch_size=16, seed=3,
        preprocess=as_float, augment=augment, parallel="jit", method="delete", batch_norm="train",
    )  # fmt: skip
    with pytest.raises(AssertionError):
        assert_same(jax.tree.leaves(jax.device_get(result.variables)), one_device)


@pytest.mark.devices(8)
@pytest.mark.pmap
def test_wrong_settings():
    model, variables = tiny.network()
    images, labels = tiny.samples(32)
    with pytest.raises(ValueError, match="auto, jit, pmap, sharding"):
        dj.unlearn(model, variables, images, labels, forget=[1], parallel="horovod")
    with pytest.raises(ValueError, match=r"12 cannot be split over 8 device\(s\): use 8 or 16"):
        dj.unlearn(model, variables, images, labels, forget=[1], batch_size=12, parallel="pmap")
