"""The loop: the order of the samples, what it stops on, what it returns."""

import textwrap

import jax
import numpy as np
import pytest

import delete_jax as dj
from delete_jax.epochs import epoch_indices
from tests import tiny


@pytest.mark.parametrize(("n", "batch_size"), [(10, 4), (12, 4), (3, 8), (1, 1), (1, 5), (100, 7), (4, 4)])
def test_every_sample_counts_once(n, batch_size):
    index, weight = epoch_indices(0, 3, n, batch_size)
    assert index.shape == weight.shape == (-(-n // batch_size), batch_size)
    assert index.dtype == np.int32
    assert weight.dtype == np.float32
    assert np.bincount(index.ravel(), weights=weight.ravel(), minlength=n).tolist() == [1.0] * n
    assert set(weight.ravel()) <= {0.0, 1.0}
    # Filled up from the beginning of the same permutation, which starts over when it is shorter than the batch.
    flat = index.ravel()
    assert (flat[n:] == flat[np.arange(flat.size - n) % n]).all()


def test_pure_function_of_seed_and_epoch():
    def order(seed, epoch, batch_size=7):
        return epoch_indices(seed, epoch, 50, batch_size)[0].ravel()[:50].tolist()

    first = order(1, 2)
    np.random.default_rng(0).random(10)
    np.random.seed(5)  # noqa: NPY002 - the global generator must not matter
    assert order(1, 2) == first
    assert order(1, 2, batch_size=50) == first
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


@pytest.mark.parametrize("arguments", [(0, 0, 0, 2), (0, 0, 5, 0)])
def test_an_epoch_needs_samples(arguments):
    with pytest.raises(ValueError, match="at least 1"):
        epoch_indices(*arguments)


class Writer:
    """What TensorBoard's writers are called with."""

    def __init__(self):
        self.written = {}

    def add_scalar(self, name, value, step):
        self.written[name, step] = value


def test_the_example_of_a_log(tmp_path):
    """The six lines in the docstring of `Log` are a log."""
    example = textwrap.dedent(dj.Log.__doc__.partition("\n\n")[2])
    names = {}
    exec(example, names)
    writer = Writer()
    model, variables = tiny.network()
    images, labels = tiny.samples(32)
    result = dj.unlearn(
        model, variables, images, labels, forget=[1], epochs=2, batch_size=8, parallel="jit",
        evaluate=lambda variables: {"five": 5.0}, log=names["TensorBoard"](writer), **tiny.PAPER,
    )  # fmt: skip
    assert [writer.written["loss", row["step"]] for row in result.history] == [row["loss"] for row in result.history]
    assert [writer.written["five", row["step"]] for row in result.evaluations] == [5.0] * 3


@pytest.mark.parametrize("settings", [{"parallel": "jit"}, {"parallel": "sharding"}, {"method": "ssd"}], ids=str)
def test_evaluate_may_keep_and_change_what_it_is_given(settings):
    """The next step reuses the memory of the network's arrays, and a method that is computed at once has the original's dicts."""
    model, variables = tiny.network()
    kept = []

    def evaluate(variables):
        kept.append(dict(variables["params"]))
        variables["params"].clear()
        return {}

    given = {"forget": [1], "epochs": 2, "batch_size": 8, **tiny.PAPER, **settings}
    found, expected = (
        dj.unlearn(model, variables, *tiny.samples(32), **given, evaluate=function).variables
        for function in (evaluate, None)
    )
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    jax.tree.map(np.testing.assert_array_equal, [kept[0], kept[-1]], [variables["params"], found["params"]])
