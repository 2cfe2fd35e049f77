"""The one interface of every unlearning method: a NamedTuple of pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from delete_jax import losses
from delete_jax.model import Model, Variables

FORGET, REMAIN = "forget", "remain"

Stream = dict[str, chex.Array]
"""Samples as columns with one leading axis `n`:

`image` uint8 or float `[n, h, w, c]`; `label` int32 `[n]` or `[n, h, w]`; `weight` float32 like `label` (0 = does not count);
`erase` bool `[n, k]` or `[n, 1, 1, k]`, the classes to erase at that sample; optional `teacher_logits` `[n, *, k]` when
they could be computed once; and whatever a method's `prepare` added.
"""


Prepare = Callable[
    [Model, Variables, Callable[[chex.Array], chex.Array], Mapping[str, Stream], int, chex.PRNGKey], dict[str, Stream]
]
"""`(model, teacher, preprocess, streams, num_classes, key) -> {stream: {column: [n, ...]}}`, see `Method.prepare`."""


class Output(NamedTuple):
    """What a method's loss may read of one stream: the batch's columns and both networks' answers `[*b, k]`."""

    batch: Stream
    logits: chex.Array
    teacher_logits: Any  # an array, None for a method that uses no teacher


class Term(NamedTuple):
    """One stream's part of the loss: values per position `[*b]` and, for methods with a target, its decomposition."""

    loss: chex.Array
    parts: losses.Decomposition | None = None


class Method(NamedTuple):
    """An unlearning method.

    name: as in `delete_jax.methods.METHODS`.
    loss: `{stream: Output} -> {stream: Term}`; the step averages each stream over its weights and adds them up.
    streams: the data it reads. The step hands over nothing else, so a method without `REMAIN` cannot see remaining data.
    uses_teacher: whether `Output.teacher_logits` is needed.
    prepare: run once before training; returns columns to join to the streams, such as labels drawn once per sample.
    """

    name: str
    loss: Callable[[Mapping[str, Output]], dict[str, Term]]
    streams: tuple[str, ...] = (FORGET,)
    uses_teacher: bool = False
    prepare: Prepare | None = None


def distill(log_target: chex.Array, output: Output, temperature: float = 1.0) -> Term:
    """`T^2 KL(target || softmax(student / T))` and its decomposition over the erased and the other classes.

    Args:
      log_target: `[*b, k]`, log of the target distribution (already at temperature T); no gradient flows into it.
      output: the stream's student logits and `erase` mask.
      temperature: T; the factor T^2 keeps the gradient's scale (Hinton et al., arXiv 1503.02531).
    """
    log_target = jax.lax.stop_gradient(log_target)
    log_student = jax.nn.log_softmax(output.logits / temperature)
    scale = temperature**2
    parts = losses.decompose(log_target, jax.lax.stop_gradient(log_student), output.batch["erase"])
    return Term(scale * losses.kl_divergence(log_target, log_student), jax.tree.map(lambda part: scale * part, parts))


def towards_labels(labels: chex.Array, output: Output) -> Term:
    """Cross entropy to `labels` `[*b]` as a distillation towards one-hot targets: the same number, with its parts."""
    # Ignored positions may carry labels outside the classes (255): their weight is 0, the target must only stay finite.
    num_classes = output.logits.shape[-1]
    return distill(losses.one_hot_log(jnp.clip(labels, 0, num_classes - 1), num_classes, output.logits.dtype), output)


def check_positive(method: str, **values: Any) -> None:
    """Raises ValueError, naming method, argument and value, unless every value is a number above 0."""
    for name, value in values.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
            raise ValueError(f"{method}: {name} must be a number above 0, got {value!r}")
