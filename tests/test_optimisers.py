"""Optimisers of users: they run, whatever their state shares with the weights, or are refused by name before anything is prepared."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import delete_jax as dj
from delete_jax import unlearning
from delete_jax.optimisers import polyak, take_update
from tests import tiny

C = optax.contrib
SETTINGS = {"forget": [1], "epochs": 2, "lr": 0.01, "batch_size": 8, "parallel": "jit"}
RIGHT = {
    # whose first state is the parameters themselves
    "prodigy": lambda: C.prodigy(1.0),
    "mechanize": lambda: C.mechanize(optax.sgd(1.0)),
    "dowg": lambda: C.dowg(1.0),
    "cocob": lambda: C.cocob(1.0),
    "schedule_free": lambda: C.schedule_free_sgd(1.0),
    "sam": lambda: C.sam(optax.sgd(1.0), optax.chain(C.normalize(), optax.sgd(0.05))),
    # that ask for the loss
    "reduce_on_plateau": lambda: optax.chain(optax.sgd(1.0), C.reduce_on_plateau()),
    "polyak_sgd": lambda: optax.polyak_sgd(),
    "momo": lambda: C.momo(1.0),
    # of other kinds
    "adam": lambda: optax.adam(1.0),
    "noisy_sgd": lambda: optax.noisy_sgd(1.0, key=jax.random.key(0)),
    "MultiSteps": lambda: optax.MultiSteps(optax.sgd(1.0), 2),
    "a schedule": lambda: optax.sgd(optax.cosine_decay_schedule(1.0, 8)),
}


def with_strict_types_off(call):
    """The optimisers of others need not fit this package's strict tests."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return call()


OFTEN = ("prodigy", "sam", "reduce_on_plateau", "momo", "noisy_sgd")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in RIGHT]
)
def test_it_runs(name, tmp_path):
    network, samples = tiny.network(), tiny.samples(48)

    def run(**options):
        return with_strict_types_off(
            lambda: dj.unlearn(
                *network, *samples, **{"method": "delete", "batch_norm": "train"} | SETTINGS | options, tx=RIGHT[name]()
            )
        )

    whole = run()
    assert all(np.isfinite(row["loss"]) for row in whole.history)
    assert any(
        np.any(a != b)
        for a, b in zip(*map(jax.tree.leaves, (whole.variables["params"], network[1]["params"])), strict=True)
    )
    if name in ("prodigy", "noisy_sgd", "momo"):  # their states come back from a disk
        run(store=dj.Checkpoints(tmp_path), epochs=1)
        resumed = run(store=dj.Checkpoints(tmp_path))
        assert resumed.history == whole.history


def test_the_loss_that_it_is_given():
    """Polyak's step is the loss over the squared norm of the gradient, at most 1."""
    network, samples = tiny.network(), tiny.samples(32)
    settings = SETTINGS | {"epochs": 1, "lr": 1.0}
    given = with_strict_types_off(
        lambda: dj.unlearn(
            *network,
            *samples,
            **settings,
            tx=optax.polyak_sgd(max_learning_rate=1.0),
            method="delete",
            batch_norm="train",
        )
    )
    plain = with_strict_types_off(
        lambda: dj.unlearn(*network, *samples, **settings, tx=optax.sgd(1.0), method="delete", batch_norm="train")
    )
    row = plain.history[0]
    rate = min(row["loss"] / row["grad_norm"] ** 2, 1.0)

    def change(result):
        return jax.tree.map(lambda a, b: a - b, result.variables["params"], network[1]["params"])

    for a, b in zip(jax.tree.leaves(change(given)), jax.tree.leaves(change(plain)), strict=True):
        np.testing.assert_allclose(a, rate * b, rtol=1e-4, atol=1e-6)


def by_hand(params, grads, losses, largest):
    """Polyak's step in NumPy: the parameters after each of the losses, whose gradients are always the same."""
    norm = np.sqrt(sum((grad.astype(np.float64) ** 2).sum() for grad in grads.values()))
    found = []
    for loss in losses:
        size = np.sqrt(sum((leaf.astype(np.float64) ** 2).sum() for leaf in params.values()))
        gamma = min(loss / norm**2, largest * size / norm)
        params = {name: leaf - gamma * grads[name] for name, leaf in params.items()}
        found.append((params, gamma * norm == largest * size))
    return found


@pytest.mark.parametrize("largest", [1e-2, 0.3])
def test_polyak_by_hand(largest):
    """Several steps of two leaves: with the cap, without it, and both in one run."""
    rng = np.random.default_rng(0)
    params, grads = (
        {"a": rng.normal(size=(3, 2)).astype(np.float32), "b": rng.normal(size=4).astype(np.float32)} for _ in range(2)
    )
    losses = (5.0, 0.05, 1.0, 0.0, 0.2)
    expected = by_hand(params, grads, losses, largest)
    assert {is_capped for _, is_capped in expected} == {True, False}
    tx, state = polyak(largest), polyak(largest).init(params)
    for loss, (wanted, _) in zip(losses, expected, strict=True):
        updates, state = take_update(tx, grads, state, params, jnp.float32(loss))
        params = optax.apply_updates(params, updates)
        for name in params:
            np.testing.assert_allclose(params[name], wanted[name], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(("loss", "grad"), [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (-1.0, 1.0), (1.0, 1e-30)])
def test_polyak_where_there_is_no_step(loss, grad):
    """A gradient of 0 (or one whose square is 0), a loss at its minimum, or below: no update, and no NaN."""
    params = {"w": jnp.ones(3)}
    updates, _ = polyak().update({"w": jnp.full(3, grad)}, optax.EmptyState(), params, value=jnp.float32(loss))
    assert updates["w"].tolist() == [0, 0, 0]


def test_polyak_sees_what_is_trained():
    """With a mask, norm and step are of the gradients that it leaves."""
    params, grads = ({name: jnp.full(2, value) for name in "ab"} for value in (10.0, 3.0))
    mask = {"a": jnp.zeros(2, bool), "b": jnp.ones(2, bool)}
    updates, _ = take_update(polyak(1.0), grads, optax.EmptyState(), params, jnp.float32(9.0), mask)
    assert updates["a"].tolist() == [0, 0]
    np.testing.assert_allclose(updates["b"], -9.0 / 18.0 * 3.0, rtol=1e-6)


def test_the_rate_multiplies_polyaks_step_and_its_cap():
    network, samples = tiny.network(), tiny.samples(32)
    found = []
    for lr in (1.0, 0.3):
        result = dj.unlearn(
            *network,
            *samples,
            **SETTINGS | {"epochs": 1, "lr": lr, "tx": polyak(1e-3)},
            method="delete",
            batch_norm="train",
        )
        found.append(jax.tree.map(lambda a, b: a - b, result.variables["params"], network[1]["params"]))
    size = {len(result.history)}
    assert size == {1}
    moved = optax.tree.norm(found[0])
    np.testing.assert_allclose(moved, 1e-3 * optax.tree.norm(network[1]["params"]), rtol=1e-3)
    for whole, part in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(part, 0.3 * whole, rtol=1e-3, atol=1e-7)


def test_polyak_refuses_a_cap_of_nothing():
    with pytest.raises(ValueError, match="largest must be above 0, got 0"):
        polyak(0)


WRONG = {
    "lbfgs": (lambda: optax.lbfgs(), "the optimiser chain(scale_by_lbfgs, .* computes the loss several times in a step"),
    "lookahead": (lambda: optax.lookahead(optax.sgd(1.0), 5, 0.5), "the optimiser lookahead cannot be used: it trains pairs"),
    "sophia": (lambda: C.sophia(1.0), "scale_by_sophia.* differentiates the loss again in a step"),
    "no state": (lambda: optax.GradientTransformation(lambda params: 1 / 0, None), "cannot be used: .*division by zero"),
    "of another form": (
        lambda: optax.GradientTransformation(lambda params: (), lambda grads, state, params: (jnp.zeros(3), state)),
        "returns updates of another form than it was given",
    ),
    "a state that grows": (
        lambda: optax.GradientTransformation(lambda params: (), lambda grads, state, params: (grads, (*state, jnp.zeros(3)))),
        "tx: the optimiser",
    ),
    "not called": (lambda: optax.sgd, "tx must have init and update"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_it_is_refused_before_anything_is_prepared(name, monkeypatch):
    make, words = WRONG[name]
    monkeypatch.setattr(unlearning, "one", None)
    for method in ("delete", "pour"):
        with pytest.raises(ValueError, match=words.replace("(scale", r"\(scale")) as caught:
            with_strict_types_off(
                lambda: dj.unlearn(*tiny.network(), *tiny.samples(32), **SETTINGS, method=method, tx=make())
            )
        assert "\n" not in str(caught.value)
