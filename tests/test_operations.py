"""Operations counted from a jaxpr, against closed forms."""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

FILE = pathlib.Path(__file__).parent.parent / "benchmarks" / "speed" / "operations.py"


@pytest.fixture(scope="module")
def operations():
    spec = importlib.util.spec_from_file_location("operations", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.operations


def conv(x, w, stride=1, padding="VALID", groups=1):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, w, (stride, stride), padding, dimension_numbers=numbers, feature_group_count=groups
    )


def test_a_dense_layer(operations):
    x, w = np.zeros((8, 32), np.float32), np.zeros((32, 10), np.float32)
    forward = 2 * 8 * 32 * 10
    assert operations(jnp.matmul, x, w) == forward
    assert operations(jax.grad(lambda w, x: (x @ w).sum()), w, x) == 2 * forward  # the sum's own value is traced, too
    assert operations(jax.grad(lambda w, x: ((x @ w) ** 2).sum(), (0, 1)), w, x) == 3 * forward
    assert operations(jax.vmap(jnp.matmul), np.zeros((3, 8, 32)), np.zeros((3, 32, 10))) == 3 * forward
    assert operations(lambda x: jax.lax.scan(lambda c, _: (c @ jnp.ones((32, 32)), None), x, None, 5)[0], x) == (
        5 * 2 * 8 * 32 * 32
    )
    assert operations(jax.jit(lambda x: jnp.exp(x) + 1), x) == 0


@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (1, 4), (2, 8)])
def test_a_convolution_without_padding(operations, stride, groups):
    """The gradients by weights and by images take as many operations as the layer."""
    x, w = np.zeros((2, 9, 9, 8), np.float32), np.zeros((3, 3, 8 // groups, 16), np.float32)
    side = (9 - 3) // stride + 1
    forward = 2 * 2 * side * side * 16 * 3 * 3 * (8 // groups)

    def loss(w, x):
        return (conv(x, w, stride, groups=groups) ** 2).sum()

    assert operations(loss, w, x) == forward
    assert operations(jax.grad(loss), w, x) == 2 * forward
    assert operations(jax.grad(loss, (0, 1)), w, x) == 3 * forward


def test_padding_is_no_work(operations):
    """Of a 3 x 3 kernel, the corner's outputs take four products, those at an edge six."""
    x, w = np.zeros((1, 4, 4, 1), np.float32), np.zeros((3, 3, 1, 1), np.float32)
    assert operations(lambda x, w: conv(x, w, padding="SAME"), x, w) == 2 * (4 * 4 + 8 * 6 + 4 * 9)


def test_as_xla_counts_on_a_cpu(operations):
    """Where XLA computes convolutions itself, its count of a network's forward pass is little larger."""
    import delete_jax as dj

    module = dj.models.create("resnet_tiny", 10)
    variables = dj.models.init(module, (8, 8, 1), 0)
    x = np.zeros((4, 8, 8, 1), np.float32)
    counted = operations(lambda x: module.apply(variables, x, train=False), x)
    by_xla = jax.jit(lambda x: module.apply(variables, x, train=False)).lower(x).cost_analysis()["flops"]
    assert 0.8 * by_xla < counted <= by_xla
