"""The device that a user chose by `jax.default_device` is the one that computes."""

import jax
import numpy as np
import pytest

import delete_jax as dj
from delete_jax import devices
from delete_jax.layout import ALONE, a_job_a_device
from delete_jax.parallel import meant
from tests import tiny


def test_without_a_choice():
    assert devices.chosen() is None
    assert devices.own_devices() == jax.local_devices()
    assert devices.platform() == jax.default_backend()


def test_a_platform_may_be_chosen():
    with jax.default_device("cpu"):
        assert devices.own_devices() == jax.local_devices(backend="cpu")[:1]
        assert devices.platform() == "cpu"


def linear(variables, x):
    return x.reshape(len(x), -1) @ variables["params"]["w"]


@pytest.mark.devices(4)
def test_it_computes():
    """Also where the same program has run on another one."""
    device = jax.devices()[3]
    model = dj.Model(linear, lambda variables, x, key: (linear(variables, x), variables))
    rng = np.random.default_rng(0)
    network = model, {"params": {"w": rng.normal(size=(4, 3)).astype(np.float32)}}
    samples = rng.normal(size=(6, 2, 2, 1)).astype(np.float32), np.arange(6) % 3

    def unlearned(parallel):
        result = dj.unlearn(*network, *samples, forget=[1], epochs=1, batch_size=2, parallel=parallel, **tiny.PAPER)
        return result.variables["params"]["w"].devices()

    assert unlearned("jit") == {jax.devices()[0]}
    with jax.default_device(device):
        assert (meant("auto"), a_job_a_device()) == ("jit", ALONE)
        assert unlearned("auto") == {device}
    assert meant("auto") == "sharding"
