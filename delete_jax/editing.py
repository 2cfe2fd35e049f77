"""A job whose method is computed at once, in place of a training; and what becomes of any job's network at its end."""

from __future__ import annotations

import time
from typing import Any

import jax

from delete_jax.job import Job
from delete_jax.memory import devices_have_memory, peak_bytes
from delete_jax.methods.contract import called, check_edited
from delete_jax.methods.finish import overwrite
from delete_jax.model import as_given, as_saved, from_saved
from delete_jax.network_check import not_finite
from delete_jax.non_finite import NonFiniteError
from delete_jax.result import Result, Watch, evaluated, kept, kept_rows
from delete_jax.step import init_state
from delete_jax.trainable import whole


def edit(job: Job, watch: Watch) -> Result:
    """The network that a method computes at once, followed and kept as a training is.

    Raises:
      ValueError: the method cannot be computed for this network, or returns something else than it should.
      NonFiniteError: a weight became NaN or infinite.
    """
    method, setup, epochs = job.method, job.setup, job.length().epochs
    state = init_state(setup.teacher, job.options.tx)
    history, evaluations = watch.log.resume(epochs) if watch.log is not None else ([], [])
    source = str(getattr(watch.store, "directory", ""))
    if watch.store is not None and (saved := watch.store.restore()) is not None:
        tree, meta = saved
        state = from_saved(tree, state)
        if watch.log is None:
            history, evaluations = kept_rows(meta)
        seconds, peak = meta["seconds"], meta.get("peak_bytes")
        return finished(Result(state.variables, history, evaluations, seconds, 0.0, source, peak_bytes=peak), job)
    started = time.perf_counter()
    wide = setup._replace(teacher=state.variables)  # parameters in float32 or wider
    edited = jax.block_until_ready(called(method, "edit", wide))
    check_edited(method, edited, wide.teacher)
    state = init_state(edited, job.options.tx)
    # Of several programs, which the method compiles for itself: nobody knows what they need on a device.
    seconds, peak = time.perf_counter() - started, None if devices_have_memory() else peak_bytes()
    if (leaf := not_finite(state.variables)) is not None:
        raise NonFiniteError(
            f"{method.name} made {leaf} NaN or infinite at strength {setup.strength:g}: try a smaller one"
        )
    if watch.evaluate is not None:
        evaluations = [
            {"epoch": epoch, "step": epoch, **evaluated(watch.evaluate, variables)}
            for epoch, variables in ((0, setup.teacher), (epochs, state.variables))
        ]
    if watch.log is not None:
        watch.log.append([], evaluations)
    if watch.store is not None:
        about: dict[str, Any] = {
            "epoch": epochs,
            "ended": True,
            "seconds": seconds,
            "compile_seconds": 0.0,
            "evaluations": len(evaluations),
        }
        about |= {"peak_bytes": peak, **(kept(history, evaluations) if watch.log is None else {})}
        watch.store.save(epochs, as_saved(jax.device_get(state)), about)
    return finished(Result(state.variables, history, evaluations, seconds, source=source, peak_bytes=peak), job)


def finished(result: Result, job: Job) -> Result:
    """The result with the containers and dtypes of the job's variables, and with its finish.

    Raises:
      ValueError: the method's `unwrap` returned something else than it should.
    """
    unwrapped = called(job.method, "unwrap", whole(result.variables, job.options.trainable))
    check_edited(job.method, unwrapped, job.variables, "unwrap")
    return with_finish(result._replace(variables=as_given(unwrapped, job.variables)), job)


def with_finish(result: Result, job: Job) -> Result:
    """The result with the finish that the job's options ask for; as it is where they ask for none."""
    if job.options.finish is None:
        return result
    started = time.perf_counter()
    done = overwrite(job.setup._replace(teacher=result.variables), job.options.finish)
    seconds = result.seconds + time.perf_counter() - started
    return result._replace(variables=as_given(done, job.variables), seconds=seconds)
