"""The one interface of every unlearning method: a NamedTuple of pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from delete_jax import losses
from delete_jax.model import Model, Variables

FORGET, REMAIN, ANCHOR = "forget", "remain", "anchor"

Stream = dict[str, chex.Array]
"""Samples as columns with one leading axis `n`:

`image` uint8 or float `[n, h, w, c]`; `label` int32 `[n]` or `[n, h, w]`; `weight` float32 like `label` (0 = does not count);
`erase` bool `[n, k]` or `[n, 1, 1, k]`, the classes to erase at that sample; optional `teacher_logits` `[n, *, k]` when
they could be computed once; and whatever a method's `prepare` added.
"""


class Setup(NamedTuple):
    """What a method may look at once, before training.

    streams: the method's own, all samples.
    forget: the classes to erase.
    key: a PRNG key of its own.
    strength: the learning rate; the size of the step for a method that is computed at once.
    batch_size, num_steps: of the training to come.
    """

    model: Model
    teacher: Variables
    preprocess: Callable[[chex.Array], chex.Array]
    streams: Mapping[str, Stream]
    num_classes: int
    forget: tuple[int, ...]
    key: chex.PRNGKey
    strength: float = 1.0
    batch_size: int = 128
    num_steps: int = 1


class Prepared(NamedTuple):
    """What `Method.prepare` returns.

    columns: `{stream: {column: [n, ...]}}` to join to the streams, such as labels drawn once per sample.
    constants: arrays that every step may read; `update_mask`, a pytree like the parameters, multiplies the updates.
    """

    columns: Mapping[str, Stream] = {}
    constants: Mapping[str, Any] = {}


class Output(NamedTuple):
    """What a method's loss may read of one stream: the batch's columns and both networks' answers `[*b, k]`."""

    batch: Stream
    logits: chex.Array
    teacher_logits: Any  # an array, None for a method that uses no teacher


class Context(NamedTuple):
    """What a method's loss may read beside the streams.

    constants: from `Prepared`.
    step: int32 scalar, steps taken.
    student: the student's variables, statistics as the step's forward pass left them; gradients flow to its parameters.
    run: `(variables, stored images [b, h, w, c]) -> logits [*b, k]`: evaluation mode.
    """

    constants: Mapping[str, Any] = {}
    step: Any = 0
    student: Any = None
    run: Any = None


class Term(NamedTuple):
    """One stream's part of the loss: values per position `[*b]` and, for methods with a target, its decomposition."""

    loss: chex.Array
    parts: losses.Decomposition | None = None


class Method(NamedTuple):
    """An unlearning method: trained (`loss`) or computed at once (`edit`).

    name: as in `delete_jax.methods.METHODS`.
    loss: `({stream: Output}, Context) -> {stream: Term}`; the step averages each stream over its weights and adds them up.
    streams: the data it reads. The step hands over nothing else, so a method without `REMAIN` cannot see remaining data.
    uses_teacher: whether `Output.teacher_logits` is needed.
    prepare: run once before training.
    reorient: `(stored images, a key per sample) -> stored images`: makes of each forget batch a second one, the stream
        `ANCHOR`, that the student sees together with it.
    wrap: `(model, variables, num_classes, key) -> (model, variables)`: the network that is trained in place of the given
        one; `variables` may have more parameters, which `unwrap` takes off again.
    edit: `Setup -> variables`, in place of training.
    """

    name: str
    loss: Callable[[Mapping[str, Output], Context], dict[str, Term]] = lambda outputs, context: {}
    streams: tuple[str, ...] = (FORGET,)
    uses_teacher: bool = False
    prepare: Callable[[Setup], Prepared] = lambda setup: Prepared()
    reorient: Callable[[chex.Array, chex.PRNGKey], chex.Array] | None = None
    wrap: Callable[[Model, Variables, int, chex.PRNGKey], tuple[Model, Variables]] | None = None
    unwrap: Callable[[Variables], Variables] = lambda variables: variables
    edit: Callable[[Setup], Variables] | None = None


def distill(log_target: chex.Array, output: Output, temperature: float = 1.0) -> Term:
    """`T^2 KL(target || softmax(student / T))` and its decomposition over the erased and the other classes.

    Args:
      log_target: `[*b, k]`, log of the target distribution (already at temperature T); no gradient flows into it.
      output: the stream's student logits and `erase` mask.
      temperature: T; the factor T^2 keeps the gradient's scale (Hinton et al., arXiv 1503.02531).
    """
    log_target = jax.lax.stop_gradient(log_target)
    log_student = jax.nn.log_softmax(output.logits / temperature)
    parts = losses.decompose(log_target, jax.lax.stop_gradient(log_student), output.batch["erase"])
    return scaled(Term(losses.kl_divergence(log_target, log_student), parts), temperature**2)


def towards_labels(labels: chex.Array, output: Output) -> Term:
    """Cross entropy to `labels` `[*b]` as a distillation towards one-hot targets: the same number, with its parts."""
    # Ignored positions may carry labels outside the classes (255): their weight is 0, the target must only stay finite.
    num_classes = output.logits.shape[-1]
    return distill(losses.one_hot_log(jnp.clip(labels, 0, num_classes - 1), num_classes, output.logits.dtype), output)


def scaled(term: Term, factor: chex.Numeric) -> Term:
    """The term times a number."""
    return jax.tree.map(lambda values: factor * values, term)


def in_batches(function: Callable[..., Any], shared: Any, *columns: chex.Array, size: int = 256) -> Any:
    """`function(shared, *batch)` of the columns `[n, ...]`, compiled, in batches; results are joined along their first axis.

    The last batch is filled up by repeating its last sample, and what that added is cut off: one compilation, also of
    several calls with the same function.
    """
    compiled, n, parts = jax.jit(function), len(columns[0]), []
    size = min(size, n)
    for begin in range(0, n, size):
        index = jnp.minimum(jnp.arange(begin, begin + size), n - 1)
        parts.append(compiled(shared, *(jnp.asarray(column)[index] for column in columns)))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[:n], *parts)


def find_classifier(params: Any, num_classes: int) -> tuple[tuple[Any, ...], chex.Array]:
    """The classifier's kernel, its path and value `[..., d, k]`: the one of that shape, with a bias `[k]` if several are.

    Raises:
      ValueError: there is none, or there are several.
    """
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    kernels = {path: leaf for path, leaf in leaves if leaf.ndim >= 2 and leaf.shape[-1] == num_classes}
    biased = {path[:-1] for path, leaf in leaves if leaf.shape == (num_classes,)}
    found = list(kernels) if len(kernels) == 1 else [path for path in kernels if path[:-1] in biased]
    if len(found) != 1:
        names = ", ".join(jax.tree_util.keystr(path) for path in kernels) or "none"
        raise ValueError(f"the method needs the network's classifier, one kernel [d, {num_classes}]; found {names}")
    return found[0], kernels[found[0]]


def replace_leaf(tree: Any, path: tuple[Any, ...], change: Callable[[chex.Array], chex.Array]) -> Any:
    """The tree with `change` applied to the leaf at `path`."""
    return jax.tree_util.tree_map_with_path(lambda here, leaf: change(leaf) if here == path else leaf, tree)


def check_positive(method: str, **values: Any) -> None:
    """Raises ValueError, naming method, argument and value, unless every value is a number above 0."""
    for name, value in values.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
            raise ValueError(f"{method}: {name} must be a number above 0, got {value!r}")


def check_flag(method: str, **values: Any) -> None:
    """Raises ValueError, naming method, argument and value, unless every value is True or False."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise ValueError(f"{method}: {name} must be True or False, got {value!r}")
