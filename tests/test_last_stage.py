"""The last stage of a network: what is found, from the computation, whatever the parameters are called."""

import flax.linen as nn
import jax
import numpy as np
import pytest

import delete_jax as dj
from delete_jax import models
from delete_jax.last_stage import last_stage
from tests import tiny

SHAPES = {"resnet_tiny": (8, 8, 1), "vit_s4": (32, 32, 3), "vgg16_bn_small": (32, 32, 3), "deeplab_small": (32, 32, 3)}
STAGES = {
    "resnet_tiny": {"layer3_0", "fc"},
    "vit_s4": {"block11", "norm", "head"},
    "vgg16_bn_small": {"fc2", "classifier"},
    "deeplab_small": {"bn_decoder2", "conv_decoder2", "classifier"},
}


def of(model, variables, shape):
    """The names at the top of the parameters of which all, or some, are in the last stage."""
    mask = last_stage(model, variables, jax.ShapeDtypeStruct((1, *shape), np.float32))
    if mask is None:
        return None
    whole = {name for name, tree in mask.items() if all(bool(leaf.all()) for leaf in jax.tree.leaves(tree))}
    assert whole == {name for name, tree in mask.items() if any(bool(leaf.any()) for leaf in jax.tree.leaves(tree))}
    return whole


@pytest.mark.parametrize("name", STAGES)
def test_of_networks_of_the_package(name):
    module = models.create(name, 10)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), np.zeros((1, *SHAPES[name]), np.float32), False))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), dict(shapes))
    assert of(models.from_linen(module), variables, SHAPES[name]) == STAGES[name]


def test_the_order_is_that_of_the_computation():
    """Names, and the order in which weights are cast, say nothing."""

    def apply(variables, x):
        weights = {name: leaf.astype("float32") * 2 for name, leaf in variables["params"].items()}
        x = x.reshape(len(x), -1)
        for name in ("z", "a", "m"):
            x = jax.jit(lambda x, w: jax.nn.relu(x @ w))(x, weights[name])
        return x

    variables = {"params": {name: np.eye(4, dtype=np.float16) for name in "amz"}}
    assert of(dj.Model(apply, None), variables, (2, 2, 1)) == {"a", "m"}


def test_inside_a_backbone():
    """Where the top of the tree has two parts only, their parts count."""

    class Body(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            for width in (5, 6, 7):
                x = nn.relu(nn.Dense(width)(x))
            return x

    class Whole(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return nn.Dense(3, name="head")(Body(name="body")(x.reshape(len(x), -1), train))

    module = Whole()
    variables = dict(module.init(jax.random.key(0), np.zeros((1, 2, 2, 1), np.float32), False))
    mask = last_stage(models.from_linen(module), variables, jax.ShapeDtypeStruct((1, 2, 2, 1), np.float32))
    kept = {
        jax.tree_util.keystr(place, simple=True, separator="/")
        for place, leaf in jax.tree_util.tree_leaves_with_path(mask)
        if leaf.all()
    }
    assert kept >= {"head/kernel", "body/Dense_2/kernel"}
    assert not kept & {"body/Dense_0/kernel", "body/Dense_1/kernel"}


def test_none_where_it_is_the_whole_network():
    model, variables = tiny.network()
    assert of(model, variables, (6, 6, 1)) is None
    apply = lambda variables, x: x.reshape(len(x), -1) @ variables["params"]["w"]  # noqa: E731
    assert of(dj.Model(apply, None), {"params": {"w": np.eye(4, dtype=np.float32)}}, (2, 2, 1)) is None
