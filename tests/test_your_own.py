"""What docs/guides/your-own.md shows for networks of Flax and Equinox runs, and leaves a network that has forgotten."""

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import orbax.checkpoint.experimental.v1 as v1
import pytest
from flax import linen as nn
from flax import nnx

from tests import tiny
from tests.pages import at_a_rate, snippets


@pytest.fixture(autouse=True)
def _strict_types_are_ours():
    """The frameworks' own calls need JAX's ordinary promotion."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def ran(snippet: str, **names) -> dict:
    """What the page's lines leave, beside the names that they were given and the samples."""
    names["images"], names["labels"] = tiny.samples(64)
    exec(at_a_rate(snippet), names)
    return names


def test_linen_from_an_orbax_checkpoint(tmp_path):
    net = tiny.Net()
    model, variables = tiny.network(net)
    state = {"step": np.int32(7), **jax.device_get(variables), "opt_state": {"count": np.int32(7)}}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "original", state)
    (snippet,) = snippets("your-own", "import orbax.checkpoint as ocp")
    names = ran(snippet.replace("/checkpoints", str(tmp_path)), net=net)
    with ocp.StandardCheckpointer() as checkpointer:
        saved = checkpointer.restore(tmp_path / "unlearned")
    jax.tree.map(np.testing.assert_array_equal, saved, jax.device_get(names["result"].variables))
    x = jnp.asarray(names["images"])
    assert not np.array_equal(model.apply(saved, x), model.apply(variables, x))


class Otherwise(nn.Module):
    """A network whose argument for training has another name and meaning."""

    @nn.compact
    def __call__(self, x, deterministic):
        x = nn.BatchNorm(deterministic)(nn.Conv(4, (3, 3))(x))
        return nn.Dense(tiny.NUM_CLASSES)(nn.Dropout(0.2)(x.mean((1, 2)), deterministic))


def test_linen_whose_argument_has_another_name():
    net = Otherwise()
    variables = net.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), deterministic=True)
    (snippet,) = snippets("your-own", "    return net.apply(variables, x, deterministic=True)")
    found = ran(snippet, net=net, variables=variables)["result"].variables
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), found, dict(variables))
    assert all(jax.tree.leaves(moved))  # running statistics, too


@pytest.mark.filterwarnings("ignore:Sharding info not provided")
@pytest.mark.parametrize("written_by", ["v1", "StandardCheckpointer"])
def test_linen_from_a_checkpoint_of_the_newer_interface(written_by, tmp_path):
    """It reads what both write; the older one does not read its files, which is why the page shows both."""
    net = tiny.Net()
    model, variables = tiny.network(net)
    state = {"step": 7, **variables}
    if written_by == "v1":
        v1.save(tmp_path / "original", state)
        with ocp.StandardCheckpointer() as checkpointer, pytest.raises(FileNotFoundError):
            checkpointer.restore(tmp_path / "original")
    else:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / "original", state)
    (snippet,) = snippets("your-own", "import orbax.checkpoint.experimental.v1 as ocp")
    names = ran(snippet.replace("/checkpoints", str(tmp_path)), net=net)
    saved = v1.load(tmp_path / "unlearned")
    jax.tree.map(np.testing.assert_array_equal, saved, jax.device_get(names["result"].variables))
    x = jnp.asarray(names["images"])
    assert not np.array_equal(model.apply(saved, x), model.apply(variables, x))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 8, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.head = nnx.Linear(8, tiny.NUM_CLASSES, rngs=rngs)

    def __call__(self, x):
        return self.head(self.dropout(jnp.mean(nnx.relu(self.norm(self.conv(x))), (1, 2))))


def test_nnx():
    net = Nnx(nnx.Rngs(0))
    (snippet,) = snippets("your-own", "from flax import nnx")
    names = ran(snippet, net=net)
    net.eval()
    x = jnp.asarray(names["images"])
    model, variables = names["model"], names["variables"]
    np.testing.assert_allclose(net(x), model.apply(names["result"].variables, x), atol=1e-6)
    assert not np.allclose(net(x), model.apply(variables, x), atol=1e-6)
    assert not np.array_equal(net.norm.mean.get_value(), variables["state"]["norm"]["mean"])


def test_equinox():
    eqx = pytest.importorskip("equinox", reason="Equinox is not installed: make torch")

    class Net(eqx.Module):
        conv: eqx.nn.Conv2d
        norm: eqx.nn.BatchNorm
        dropout: eqx.nn.Dropout
        head: eqx.nn.Linear

        def __init__(self, key):
            first, last = jax.random.split(key)
            self.conv = eqx.nn.Conv2d(1, 8, 3, padding=1, use_bias=False, key=first)
            self.norm = eqx.nn.BatchNorm(8, "batch", mode="batch")
            self.dropout = eqx.nn.Dropout(0.2)
            self.head = eqx.nn.Linear(8, tiny.NUM_CLASSES, key=last)

        def __call__(self, x, state, key=None):
            x, state = self.norm(self.conv(x), state)
            x = jnp.mean(jax.nn.relu(x), (1, 2))
            return self.head(self.dropout(x, key=key)), state

    net, state = eqx.nn.make_with_state(Net)(jax.random.key(0))
    (snippet,) = snippets("your-own", "import equinox as eqx")
    names = ran(snippet, net=net, state=state)
    for given, kept in ((net, names["net"]), (state, names["state"])):
        before, after = (jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array)) for tree in (given, kept))
        assert all(not np.array_equal(*pair) for pair in zip(before, after, strict=True))
    x = jnp.asarray(names["images"]).transpose(0, 3, 1, 2)
    network = eqx.nn.inference_mode(names["net"])
    logits = np.stack([network(image, names["state"])[0] for image in x])
    np.testing.assert_allclose(logits, names["apply"](names["result"].variables, names["images"]), atol=1e-6)
