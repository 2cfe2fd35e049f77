"""What a job needs before its first step: what its method computes once, the frozen networks' answers, the network to train."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from delete_jax.columns import Rows
from delete_jax.given import shown
from delete_jax.job import Job
from delete_jax.methods import Stream
from delete_jax.methods.base import ORIGINAL, answers_column
from delete_jax.methods.contract import called, check_prepared
from delete_jax.model import Model, Variables
from delete_jax.predict import make_predictor
from delete_jax.trainable import WHOLE, Part, distinct, for_wrapped

MOST_ANSWER_BYTES = 2**31
"""Of a frozen network's answers that are computed once: larger ones are computed in the step, batch by batch."""


class Ready(NamedTuple):
    """A job that is prepared.

    model, start: the network to train, and its first variables.
    networks: the frozen networks whose answers the step still has to compute.
    streams, constants: the samples with the columns that the method added, and what all its steps may read.
    augment, batch_norm: how the step sees the images. seconds: how long the preparation took. part: what is trained.
    """

    model: Model
    start: Variables
    networks: dict[str, Variables]
    streams: dict[str, Stream]
    constants: Mapping[str, Any]
    augment: Callable[..., Any] | None
    batch_norm: str
    seconds: float
    part: Part = WHOLE


def make_ready(job: Job) -> Ready:
    """Lets the method prepare, and computes the frozen networks' answers where that can be done once.

    Raises:
      ValueError: the method's own functions fail, or return something else than they should.
    """
    method, options, setup = job.method, job.options, job.setup
    if method.wrap is not None and options.trainable is not None:
        setup = setup._replace(teacher={**setup.teacher, "params": distinct(setup.teacher["params"])})
    started = time.perf_counter()
    prepared = called(method, "prepare", setup)
    check_prepared(method, prepared, job.streams)
    given = {**job.streams, **prepared.streams}
    streams = {name: stream | prepared.columns.get(name, {}) for name, stream in given.items()}
    augment = options.augment if "augment" in method.settings else None
    batch_norm = options.batch_norm if "batch_norm" in method.settings else "train"  # a method with a mode of its own
    frozen = {name: job.networks[name] if name != ORIGINAL else setup.teacher for name in method.networks}
    if (
        augment is None and method.wrap is None
    ):  # else it answers with more than logits, which would not fit into memory
        predict = make_predictor(job.model, options.preprocess)
        for name, variables in frozen.items():
            _answer(streams, answers_column(name), functools.partial(predict, variables), job.num_classes)

    def is_known(name: str) -> bool:
        return all(answers_column(name) in stream for stream in streams.values()) and method.reorient is None

    in_step = {name: variables for name, variables in frozen.items() if not is_known(name)}
    seconds = time.perf_counter() - started
    wrapped: Any = (job.model, setup.teacher) if method.wrap is None else called(method, "wrap", setup)
    if not (isinstance(wrapped, tuple) and len(wrapped) == 2 and isinstance(wrapped[0], Model)):
        raise ValueError(f"method {method.name}: wrap must return (model, variables), got {shown(wrapped)}")
    part = for_wrapped(job.part, setup.teacher["params"], wrapped[1]["params"])
    _check_part(job, part, prepared.constants.get("update_mask"))
    return Ready(*wrapped, in_step, streams, prepared.constants, augment, batch_norm, seconds, part)


def _check_part(job: Job, part: Part, mask: Any) -> None:
    """Raises ValueError where a method that trains only some weights cannot train those of the job's part."""
    if mask is None or part.chosen is None:
        return
    said = f"trainable={job.options.trainable!r}: {job.method.name} trains"
    if part.rank is not None:
        raise ValueError(f"{said} single weights, and updates of low rank have none: give names instead")
    if not any(np.any(leaf) for leaf in jax.tree.leaves(part.of(mask))):
        raise ValueError(f"{said} nothing of that: leave it out, or give other names")


def _answer(streams: Mapping[str, Stream], column: str, predict: Callable[[Any], Any], num_classes: int) -> None:
    """Adds a frozen network's answers to the streams that lack them, where they are not too large."""
    for stream in streams.values():
        if isinstance(stream["image"], Rows) and jax.process_count() > 1:
            continue  # every process would read all images
        if column not in stream and 4 * num_classes * stream["label"].size <= MOST_ANSWER_BYTES:
            stream[column] = predict(stream["image"])
