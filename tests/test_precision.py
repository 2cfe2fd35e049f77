"""Where a device would round the factors of products, what is found, checked and solved in closed form is computed in full float32."""

import jax
import numpy as np
import pytest

import delete_jax as dj
from delete_jax.methods import METHODS
from delete_jax.methods.features import find_head
from delete_jax.options import as_is
from tests import tiny

HIGHEST = "highest"


@pytest.fixture
def traced():
    """A network that notes in what precision it was traced."""
    seen = []
    model, variables = tiny.network()

    def apply(variables, x):
        seen.append(str(jax.config.jax_default_matmul_precision))
        return model.apply(variables, x)

    return model._replace(apply=apply, apply_train=lambda v, x, key: (apply(v, x), v)), variables, seen


def setup_of(model, variables):
    images, _ = tiny.samples(16)
    streams = {"forget": {"image": images}}
    return dj.methods.Setup(model, variables, as_is, streams, tiny.NUM_CLASSES, (1,), jax.random.key(0))


def test_the_classifier_is_found_in_full_precision(traced):
    model, variables, seen = traced
    find_head(setup_of(model, variables))
    assert seen
    assert set(seen) == {HIGHEST}


@pytest.mark.parametrize("name", ["pour", "bias_shift", "boundary_expand", "esc", "ssd", "salun", "trew"])
def test_what_a_method_computes_once(name, traced):
    """The step itself is traced in the device's own way."""
    model, variables, seen = traced
    images, labels = tiny.samples(32)
    method = METHODS[name]()
    dj.unlearn(
        model,
        variables,
        images,
        labels,
        forget=[1],
        method=method,
        epochs=1,
        batch_size=8,
        parallel="jit",
        batch_norm="train",
        lr=1e-3,
    )
    assert HIGHEST in seen
    assert set(seen) - {HIGHEST} == {"None"}


def test_a_product_is_asked_for_in_full_precision():
    """As it is lowered for a GPU."""
    from delete_jax.precision import in_full_precision

    def lowered(function):
        exported = jax.export.export(jax.jit(function), platforms=["cuda"])
        return exported(np.zeros((4, 4), np.float32)).mlir_module()

    plain = lambda x: x @ x  # noqa: E731
    assert "HIGHEST" not in lowered(plain)
    assert "HIGHEST" in in_full_precision(lambda: lowered(lambda x: x @ x))()
