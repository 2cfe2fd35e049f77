"""The one interface of every unlearning method: a NamedTuple of pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from delete_jax import losses
from delete_jax.compiling import same_bits
from delete_jax.model import Model, Variables

if TYPE_CHECKING:
    import chex

FORGET = "forget"
"""The stream of the forget samples."""
REMAIN = "remain"
"""The stream of the remaining samples."""
ANCHOR = "anchor"
"""The stream of the images that `Method.reorient` makes of the forget samples."""

ORIGINAL = "original"
"""In `Method.networks`: the frozen original, whose answers are `Output.teacher_logits`."""

CLASSES = "classes"
"""In `Method.needs`: the method erases whole classes, and refuses single samples whose class stays."""
MAPS = "maps"
"""In `Method.needs`: the method reads labels `[n, h, w]`, a class per pixel."""
COUNTERPARTS = "counterparts"
"""In `Method.needs`: the method reads `teacher_logits` `[n, *, k]`, the original's logits on *other* images, one for each sample."""

EXPERIMENT = "this project"
"""`Method.paper` of this project's own methods, which no paper has proposed."""

NEEDS = {
    CLASSES: ("whole classes to erase", "there are none"),
    MAPS: ("a class per pixel (label maps)", "there is one per image"),
    COUNTERPARTS: ("the original's logits on other images (the column teacher_logits)", "there are none"),
}
"""Each of these in words, and what is said of samples without it."""

TRAINED = ("epochs", "lr", "batch_size", "momentum", "batch_norm", "augment", "seed")
"""The settings of a training. All of them affect a method that is trained."""
MASKED = (*TRAINED, "mask")
"""`TRAINED` and "mask": the settings of a method whose target depends on which classes are erased at each sample."""

Stream: TypeAlias = "dict[str, chex.Array]"
"""Samples as columns with one leading axis `n`:

`image` uint8 or float `[n, h, w, c]`; `label` int32 `[n]` or `[n, h, w]`; `weight` float32 like `label` (0 = does not count);
`erase` bool `[n, k]` or `[n, 1, 1, k]`, the classes to erase at that sample; optional `teacher_logits` `[n, *, k]` if they
could be computed once; the same of further frozen networks (`answers_column`); and any columns that a method's `prepare` added. If there is a column `anchor`, images like `image`,
`Method.reorient` changes these images instead of the batch's own.
"""


class Setup(NamedTuple):
    """What a method may read once, before training.

    Attributes:
      streams: the method's own streams, with all samples.
      forget: the classes to erase; empty if single samples are forgotten.
      key: a PRNG key for the method.
      strength: the learning rate, or the size of the step for a method without training.
      batch_size, num_steps: of the coming training.
      epochs: how many passes that is, also over streams that `prepare` puts in place of these; None where the number of steps was told.
      classifier: the path of the last layer in the parameters (`Model.classifier`); None if unknown.
      networks: the variables of the further frozen networks that the method declares (`Method.networks`), by name.
      erased: the classes that earlier requests erased, and that this one does not erase again.
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
    epochs: int | None = None
    classifier: tuple[str, ...] | None = None
    networks: Mapping[str, Variables] = {}
    erased: tuple[int, ...] = ()

    @property
    def gone(self) -> tuple[int, ...]:
        """The classes with which nothing should be predicted: those of `forget` and `erased`."""
        return (*self.forget, *self.erased)


class Prepared(NamedTuple):
    """What `Method.prepare` returns.

    Attributes:
      columns: `{stream: {column: [n, ...]}}` to add to the streams, such as labels drawn once per sample.
      constants: arrays that every step may read. `update_mask`, zeros and ones like the parameters, says which of them
        are trained: it multiplies their gradients and updates.
      streams: samples that replace the method's own.
    """

    columns: Mapping[str, Stream] = {}
    constants: Mapping[str, Any] = {}
    streams: Mapping[str, Stream] = {}


class Output(NamedTuple):
    """What a method's loss may read of one stream.

    Attributes:
      batch: the columns.
      logits: the student's, `[*b, k]`.
      teacher_logits: the original's; None for a method that does not declare `ORIGINAL`.
      answers: the logits `[*b, k]` of every frozen network that the method declares, by name; those of `ORIGINAL` too.
    """

    batch: Stream
    logits: chex.Array
    teacher_logits: Any
    answers: Mapping[str, Any] = {}


class Context(NamedTuple):
    """What a method's loss may read in addition to the streams.

    Attributes:
      constants: from `Prepared`.
      step: int32 scalar, steps taken.
      student: the student's variables, with the statistics after the step's forward pass. Gradients flow to its parameters.
      run: `(variables, stored images [b, h, w, c]) -> logits [*b, k]`, in evaluation mode.
      weights: the sum of each stream's weights in the batch, over all devices.
      total: `array -> array`, the sum over all devices.
      model, preprocess: the trained network, and the function from stored images to its input.
    """

    constants: Mapping[str, Any] = {}
    step: Any = 0
    student: Any = None
    run: Any = None
    weights: Mapping[str, Any] = {}
    total: Any = lambda array: array
    model: Any = None
    preprocess: Any = None


class Term(NamedTuple):
    """One stream's part of the loss: values per position `[*b]`, and their decomposition for methods with a target."""

    loss: chex.Array
    parts: losses.Decomposition | None = None


class LossFn(Protocol):
    """The loss of a trained method: pure, called inside the compiled step."""

    def __call__(self, outputs: Mapping[str, Output], context: Context, /) -> dict[str, Term]:
        """The method's loss on one batch.

        Args:
          outputs: one for each of the method's streams and, for a method that reorients, one for `ANCHOR`.
          context: what else the loss may read.

        Returns:
          A term for some or all of these streams, with values per position `[*b]`. The step averages each term over its
          stream's weights and adds up the means.
        """
        ...


class CheckFn(Protocol):
    """Whether a method suits a request, found before anything is spent."""

    def __call__(self, num_classes: int, forget: tuple[int, ...], /) -> None:
        """Raises ValueError unless the hyper-parameters fit a network of so many classes and the classes to erase."""
        ...


class PrepareFn(Protocol):
    """What a trained method computes once, before training."""

    def __call__(self, setup: Setup, /) -> Prepared:
        """Columns `[n, ...]` to join to the streams, and constants for all steps.

        Raises:
          ValueError: the hyper-parameters do not fit this network or request.
        """
        ...


class ReorientFn(Protocol):
    """Makes a second batch of the forget batch: pure, called inside the compiled step."""

    def __call__(self, images: chex.Array, keys: chex.PRNGKey, /) -> chex.Array:
        """Changes each image by its own key.

        Args:
          images: stored images `[b, h, w, c]`, uint8 or float.
          keys: PRNG keys `[b]`.

        Returns:
          Images of the same shape and dtype.
        """
        ...


class WrapFn(Protocol):
    """Puts another network in place of the given one for the training."""

    def __call__(self, setup: Setup, /) -> tuple[Model, Variables]:
        """The network to train, and the variables it starts from.

        The variables may have more parameters than the original's, which `Method.unwrap` takes off again, and the
        network may answer with more than `setup.num_classes` numbers. For a method with `networks` the network must
        take their variables too: `Output.answers` are then its answers.

        Raises:
          ValueError: the network cannot be wrapped.
        """
        ...


class UnwrapFn(Protocol):
    """Undoes `WrapFn` on the variables."""

    def __call__(self, variables: Variables, /) -> Variables:
        """The wrapped network's variables without what wrapping added: a tree like the original's."""
        ...


class EditFn(Protocol):
    """Computes the unlearned network at once, in place of a training."""

    def __call__(self, setup: Setup, /) -> Variables:
        """New variables: a tree with the shapes and dtypes of `setup.teacher`, which stays as it is.

        Raises:
          ValueError: the method cannot be computed for this network.
        """
        ...


class Frozen(Mapping[str, Any]):
    """A mapping that stays as it is and can be hashed: steps are compiled once per `Method`, which is a key there."""

    def __init__(self, items: Mapping[str, Any]):
        self._items = dict(items)

    def __getitem__(self, name: str) -> Any:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return f"Frozen({self._items!r})"


class Method(NamedTuple):
    """An unlearning method: trained (`loss`) or computed without training (`edit`). Methods are hashable, so that networks are
    compiled once per method.

    Attributes:
      name: as in `delete_jax.methods.METHODS`.
      loss: see `LossFn`.
      streams: the data that it reads. The step passes on nothing else, so a method without `REMAIN` cannot see remaining data.
      networks: the frozen networks whose answers it reads, by name (`Output.answers`). `ORIGINAL` is the network before; the caller
        gives the others (`unlearn(networks=…)`). The step computes no other network's answers.
      prepare: runs once before training; see `PrepareFn`.
      check: checks a request; see `CheckFn`.
      reorient: makes a second batch, the stream `ANCHOR`, from each forget batch; the student sees both together. See
          `ReorientFn`. None for no anchors.
      wrap: returns the network to train instead of the given one; see `WrapFn`. None to train the given one.
      unwrap: removes what `wrap` added to the variables; see `UnwrapFn`.
      edit: replaces training; see `EditFn`. None for a method that is trained.
      needs: what the forget samples must come with: some of `CLASSES`, `MAPS`, `COUNTERPARTS`.
      settings: which of `TRAINED` and "mask" change the result; the others may have any value. A method draws random numbers if
          "seed" is among them.
      unbounded: whether its loss has no lower bound: then each further step does more harm, and nothing recovers.
      reaches_zero: whether its loss has been shown to fall to 0, and no lower: the divergence from one distribution at each sample,
        which networks can learn. Polyak's step rests on that; `lr="auto"` is such a method's default, if it trains on forget samples
        alone (`options.default_rate`).
      starts_over: whether it resets layers. With a small rate, such a network recognises neither the class nor the others.
      paper: who proposed it and where; `EXPERIMENT` for the project's own methods.
      ranges: the allowed values of each hyper-parameter, in words; filled in by `hyperparameters.factory`.
      hyperparameters: their values; filled in by `hyperparameters.factory`.
    """

    name: str
    loss: LossFn = lambda outputs, context: {}
    streams: tuple[str, ...] = (FORGET,)
    networks: tuple[str, ...] = ()
    prepare: PrepareFn = lambda setup: Prepared()
    reorient: ReorientFn | None = None
    wrap: WrapFn | None = None
    unwrap: UnwrapFn = lambda variables: variables
    edit: EditFn | None = None
    needs: tuple[str, ...] = ()
    settings: tuple[str, ...] = TRAINED
    unbounded: bool = False
    reaches_zero: bool = False
    starts_over: bool = False
    paper: str = ""
    ranges: Mapping[str, str] = Frozen({})
    hyperparameters: Mapping[str, Any] = Frozen({})
    check: CheckFn = lambda num_classes, forget: None

    @property
    def is_experimental(self) -> bool:
        """Whether this project proposed the method itself, and no paper has."""
        return self.paper == EXPERIMENT

    @property
    def trains_on_forget_alone(self) -> bool:
        """Whether it trains the given network, and reads forget samples alone."""
        return self.edit is None and self.streams == (FORGET,) and not self.starts_over

    @property
    def settles(self) -> bool:
        """Whether it needs a number of steps, however few the samples are: it trains on forget samples alone, towards a target. While the
        class goes, the remaining classes lose accuracy; they recover afterwards."""
        return self.trains_on_forget_alone and not self.unbounded


def answers_column(network: str) -> str:
    """The name of the column with a frozen network's answers: "teacher_logits" of the original, else "logits of NAME", which no
    column of a method's own is called by accident."""
    return "teacher_logits" if network == ORIGINAL else f"logits of {network}"


def check_needs(method: Method, provides: Iterable[str], where: str) -> None:
    """Raises ValueError if the forget samples lack something that a method needs.

    Args:
      method: whose `needs` are checked.
      provides: what the forget samples come with: some of `CLASSES`, `MAPS`, `COUNTERPARTS`.
      where: what the message calls the samples, such as "these samples".
    """
    for need in sorted(set(method.needs) - set(provides)):
        what, instead = NEEDS[need]
        raise ValueError(
            f"method {method.name} needs {what}, and {instead} in {where}: choose another method, such as delete"
        )


def distill(log_target: chex.Array, output: Output, temperature: float = 1.0) -> Term:
    """Computes `T^2 KL(target || softmax(student / T))` and its decomposition over the erased and the remaining classes.

    Args:
      log_target: `[*b, k]`, log of the target distribution, already at temperature T. No gradient flows into it.
      output: the stream's student logits and `erase` mask.
      temperature: T; the factor T^2 keeps the gradient's scale (Hinton et al., arXiv 1503.02531).
    """
    log_target = jax.lax.stop_gradient(log_target)
    log_student = jax.nn.log_softmax(output.logits / temperature)
    parts = losses.decompose(log_target, jax.lax.stop_gradient(log_student), output.batch["erase"])
    return scaled(Term(losses.kl_divergence(log_target, log_student), parts), temperature**2)


def towards_labels(labels: chex.Array, output: Output) -> Term:
    """Cross entropy to `labels` `[*b]`, computed as distillation towards one-hot targets: the same value, with its decomposition."""
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
    compiled, n, parts = jax.jit(function, compiler_options=same_bits()), len(columns[0]), []
    size = min(size, n)
    for begin in range(0, n, size):
        index = np.minimum(np.arange(begin, begin + size), n - 1)
        parts.append(compiled(shared, *(column[index] for column in columns)))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[:n], *parts)
