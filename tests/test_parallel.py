"""One device, eight devices by pmap and by sharding, and two processes: the same parameters after five steps."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

import delete_jax as dj
from delete_jax.data import augmentation
from delete_jax.loop import fit
from delete_jax.parallel import make_trainer, meant
from delete_jax.step import init_state, sgd
from delete_jax.streams import split_streams
from tests import tiny

pytestmark = pytest.mark.usefixtures("fast_compile")


def as_float(images):
    return images.astype(np.float32) / 64


def five_steps(mode: str, batch_size: int = 16):
    """Five steps on unevenly weighted samples, with augmentation and batch norm in train mode -> parameters, statistics."""
    model, variables = tiny.network()
    images, labels = tiny.samples(4 * 5 * batch_size)
    images = np.clip(images * 64 + 64, 0, 255).astype(np.uint8)
    streams = split_streams(images, labels, [1], tiny.NUM_CLASSES, ["forget"])
    streams["forget"]["weight"] = np.linspace(0, 3, len(streams["forget"]["label"])).astype(np.float32) ** 2
    tx, augment = sgd(), augmentation(("flip", "crop"), padding=1)
    trainer = make_trainer(model, dj.methods.delete(), tx, as_float, augment, "train", mode)
    fitted = fit(
        trainer, init_state(variables, tx), variables, streams, lr=0.05, seed=3, epochs=1, batch_size=batch_size
    )
    assert len(fitted.history) == 5
    return jax.device_get(fitted.variables)


def assert_same(leaves, reference):
    for leaf, expected in zip(leaves, jax.tree.leaves(reference), strict=True):
        error = np.linalg.norm(leaf - expected) / np.linalg.norm(expected)
        assert error < 1e-5


@pytest.fixture(scope="module")
def one_device():
    return five_steps("jit")


@pytest.mark.parametrize("mode", ["pmap", "sharding", "auto"])
def test_eight_devices(mode, one_device):
    assert jax.device_count() == 8
    assert_same(jax.tree.leaves(five_steps(mode)), one_device)


@pytest.mark.parametrize("mode", ["jit", "pmap", "sharding"])
@pytest.mark.parametrize("kind", ["explicit", "auto"])
def test_a_mesh_that_the_caller_has_set(mode, kind, one_device):
    axis_type = {"explicit": jax.sharding.AxisType.Explicit, "auto": jax.sharding.AxisType.Auto}[kind]
    model, variables = tiny.network()
    images, labels = tiny.samples(32)
    settings = {"forget": [1], "epochs": 1, "lr": 0.05, "batch_size": 8, "parallel": mode}
    expected = dj.unlearn(model, variables, images, labels, **settings).variables
    with jax.set_mesh(jax.make_mesh((8,), ("data",), axis_types=(axis_type,))) as _:
        before = jax.sharding.get_mesh()
        there = jax.tree.map(jax.numpy.array, variables)  # as the caller's arrays are then: on all devices
        for given in (variables, there):
            found = dj.unlearn(model, given, images, labels, **settings).variables
            assert_same(jax.tree.leaves(jax.device_get(found)), jax.device_get(expected))
        assert jax.sharding.get_mesh() == before


@pytest.mark.parametrize("implementation", ["rbg", "unsafe_rbg"])
@pytest.mark.parametrize("mode", ["jit", "pmap", "sharding"])
def test_another_kind_of_random_keys(mode, implementation, one_device):
    """JAX's default kind is not the same on one and on several devices, so a run does not depend on it."""
    with jax.default_prng_impl(implementation):
        assert_same(jax.tree.leaves(five_steps(mode)), one_device)


def test_the_mode_that_is_meant():
    assert [meant(mode) for mode in ("auto", "jit", "sharding")] == ["pmap", "jit", "sharding"]
    with pytest.raises(ValueError, match="unknown parallel mode 'x': choose one of auto"):
        meant("x")


def test_two_processes(one_device, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    root = pathlib.Path(__file__).parent.parent
    flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1")
    environment = os.environ | {"PYTHONPATH": str(root), "XLA_FLAGS": flags}
    command = [sys.executable, "-m", "tests.two_processes"]
    processes = [
        subprocess.Popen(
            [*command, str(i), str(port), str(tmp_path)],
            env=environment,
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    for mode in ("pmap", "sharding"):
        saved = np.load(tmp_path / f"{mode}.npz")
        assert_same([saved[f"arr_{i}"] for i in range(len(saved.files))], one_device)


def test_the_last_epoch_of_uneven_batches_is_the_weighted_mean(one_device):
    """Weights matter: with equal ones the parameters would be others."""
    model, variables = tiny.network()
    images, labels = tiny.samples(4 * 5 * 16)
    images = np.clip(images * 64 + 64, 0, 255).astype(np.uint8)
    augment = augmentation(("flip", "crop"), padding=1)
    result = dj.unlearn(
        model, variables, images, labels, forget=[1], epochs=1, lr=0.05, batch_size=16, seed=3,
        preprocess=as_float, augment=augment, parallel="jit",
    )  # fmt: skip
    with pytest.raises(AssertionError):
        assert_same(jax.tree.leaves(jax.device_get(result.variables)), one_device)


def test_wrong_settings():
    model, variables = tiny.network()
    images, labels = tiny.samples(32)
    with pytest.raises(ValueError, match="auto, jit, pmap, sharding"):
        dj.unlearn(model, variables, images, labels, forget=[1], parallel="horovod")
    with pytest.raises(ValueError, match=r"12 cannot be split over 8 device\(s\): use 8 or 16"):
        dj.unlearn(model, variables, images, labels, forget=[1], batch_size=12, parallel="pmap")
