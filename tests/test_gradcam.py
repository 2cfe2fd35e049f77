"""Grad-CAM against its closed form for global pooling and a linear classifier."""

import jax.numpy as jnp
import numpy as np
import pytest

from delete_jax import models
from delete_jax.models import grad_cam

SHAPE = (12, 12, 1)


def test_global_pooling_in_closed_form():
    """∂ logit_c / ∂ a = kernel[:, c] / positions, so the map is relu(a @ kernel[:, c]) / positions."""
    module = models.create("resnet_tiny", 5)
    variables = models.init(module, SHAPE, 0)
    rng = np.random.default_rng(0)
    x, classes = jnp.asarray(rng.normal(size=(4, *SHAPE)), jnp.float32), jnp.array([0, 3, 3, 4])
    maps = grad_cam(module, "layer2_0")(variables, x, classes)
    assert maps.shape == (4, 6, 6)  # the second stage halves 12
    last = grad_cam(module, "layer3_0")(variables, x, classes)
    _, seen = module.apply(variables, x, train=False, capture_intermediates=lambda m, _: m.name == "layer3_0")
    (activations,) = seen["intermediates"]["layer3_0"]["__call__"]
    columns = variables["params"]["fc"]["kernel"][:, classes].T
    expected = np.maximum(np.einsum("bhwd,bd->bhw", activations, columns) / 9, 0)
    np.testing.assert_allclose(last, expected, rtol=1e-5, atol=1e-6)
    assert float(last.max()) > 0


def test_a_layer_that_is_not_there():
    module = models.create("resnet_tiny", 5)
    variables = models.init(module, SHAPE, 0)
    with pytest.raises(ValueError, match="'layer9' ran 0 times"):
        grad_cam(module, "layer9")(variables, jnp.zeros((1, *SHAPE)), jnp.zeros(1, jnp.int32))
