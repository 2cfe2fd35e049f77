"""What a method's functions return for a batch that is seen several times: its loss, above all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.columns import arrays
from delete_jax.methods import Setup, Stream
from delete_jax.methods.base import ORIGINAL
from delete_jax.methods.contract import check_edited, check_prepared
from delete_jax.model import Model, Variables
from delete_jax.network_check import as_is
from delete_jax.step import init_state, make_part_steps, make_train_step, sgd
from delete_jax.testing.case import BATCH, Case
from delete_jax.testing.demands import copied, difference, form
from delete_jax.testing.samples import NUM_CLASSES

ROUNDING = 1e-3
"""What may differ where sums are taken in another order, of what is computed."""


def check_functions(case: Case) -> None:
    """What its functions return for a batch that is seen several times."""
    subject, method = case.subject, case.method
    streams = {name: {key: np.array(column[:BATCH]) for key, column in stream.items()}
               for name, stream in arrays(case.streams()).items()}  # fmt: skip
    setup = Setup(
        case.model, copied(case.variables), as_is, streams, NUM_CLASSES, case.forget, jax.random.key(0), 0.01, BATCH, 30,
        networks=case.networks(),
    )  # fmt: skip
    before = copied((setup.teacher, streams))

    def demand_unchanged(what: str) -> None:
        now = (setup.teacher, streams)
        subject.demand(
            form(now) == form(before) and difference(now, before) == 0,
            f"its {what} changes the arrays of its setup: let it return new ones",
        )

    if method.edit is not None:
        with subject.during("edit"):
            check_edited(method, method.edit(setup), setup.teacher)
        demand_unchanged("edit")
        return
    with subject.during("prepare"):
        prepared = method.prepare(setup)
        check_prepared(method, prepared, streams)
    demand_unchanged("prepare")
    model, variables = case.model, case.variables
    if method.wrap is not None:
        with subject.during("wrap"):
            model, variables = method.wrap(setup)
        demand_unchanged("wrap")
    given = {**streams, **prepared.streams}
    batch = {name: dict(stream) | dict(prepared.columns.get(name, {})) for name, stream in given.items()}
    with subject.during("its loss"):
        _check_loss(case, model, variables, jax.tree.map(jnp.asarray, batch), prepared.constants)


def _check_loss(
    case: Case, model: Model, variables: Variables, batch: Mapping[str, Stream], constants: Mapping[str, Any]
) -> None:
    subject, method, key = case.subject, case.method, jax.random.key(0)
    # Another original than the network itself, at which some losses are least.
    frozen = {ORIGINAL: jax.tree.map(lambda leaf: 1.1 * leaf, case.variables), **case.networks()}
    settings: Any = {"preprocess": as_is, "batch_norm": "frozen"}
    step = jax.jit(make_train_step(model, method, sgd(), **settings))
    state, metrics, losses = init_state(variables, sgd()), {}, []
    start = copied(state.params)
    for _ in range(3):
        state, metrics = step(state, frozen, batch, jnp.float32(0.01), key, constants)
        losses.append(float(metrics["loss"]))
    subject.demand(
        losses[2] < losses[0],
        f"its loss on a batch seen three times goes from {losses[0]:.6g} to {losses[2]:.6g}: it must fall",
    )
    if "retention" in metrics:
        parts = float(metrics["forgetting"] + metrics["within"] + metrics["retention"])
        off = abs(parts - float(metrics["loss"])) > ROUNDING * max(1, abs(float(metrics["loss"])))
        subject.demand(not off, f"the parts of its loss add up to {parts:.6g}, and the loss is {metrics['loss']:.6g}")
    check_edited(method, method.unwrap(state.variables), case.variables, "unwrap")

    def params_after(batch: Mapping[str, Stream]) -> Any:
        return step(init_state(variables, sgd()), frozen, batch, jnp.float32(1), key, constants)[0].params

    def last_off(name: str, column: jax.Array) -> jax.Array:  # the last: a sample's augmentation follows its place
        return column.at[-1].set(0 if name == "weight" else column[-1] * 7) if name in ("weight", "image") else column

    whole = params_after(batch)
    off = params_after(
        {name: {k: last_off(k, column) for k, column in stream.items()} for name, stream in batch.items()}
    )
    without = params_after(jax.tree.map(lambda column: column[:-1], dict(batch)))
    counts = max(difference(whole, without), ROUNDING * difference(whole, start))
    subject.demand(
        difference(off, without) <= ROUNDING * counts,
        f"a sample of weight 0 moves parameters by {difference(off, without):.2g}, a step by {difference(whole, start):.2g}: the loss at a "
        "position must not depend on samples of weight 0; divide by context.weights where it needs a mean",
    )
    if all(len(stream["label"]) % 2 == 0 for stream in batch.values()):
        begin, add, finish = make_part_steps(model, method, sgd(), 2, **settings)

        @jax.jit
        def in_parts(state):
            streams, weights, sums = begin(state, frozen, batch, key, constants)
            for number in range(2):
                sums = add(sums, jnp.uint32(number), state, frozen, streams, weights, key, constants)
            return finish(state, sums, jnp.float32(1), constants)[0].params

        moved, apart = difference(whole, start), difference(in_parts(init_state(variables, sgd())), whole)
        subject.demand(
            apart <= ROUNDING * moved,
            f"a batch in two parts gives a step that differs by {apart:.2g}, a step moves parameters by {moved:.2g}: the loss at a position must "
            "not depend on the other samples; use context.weights and context.total for sums over the batch",
        )
