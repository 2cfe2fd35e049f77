"""Where a network's classifier is in its parameters: by its name, or by what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.compiling import same_bits
from delete_jax.methods.attacks import answers
from delete_jax.methods.base import Setup
from delete_jax.model import names_on
from delete_jax.precision import in_full_precision

if TYPE_CHECKING:
    import chex

IMAGES, TOLERANCE, ROUNDING = 4, 1e-2, 1e-6
"""How many images the layers are tried on; how much, relative to what should move, may move beside it; and how much of the logits is no
move at all."""

Place = tuple[Any, ...]
"""A leaf's path, as `jax.tree_util` has it."""


class Classifier(NamedTuple):
    """The kernel of the layer that makes the logits from features.

    place: its path in the parameters.
    axis: that of the classes: -1 for `[..., d, k]` (Flax, Keras), 0 for `[k, d, ...]` (PyTorch, Equinox).
    """

    place: Place
    axis: int = -1

    def rows(self, params: Any) -> chex.Array:
        """Returns the kernel as `[d, k]`, whatever its layout."""
        kernel = jnp.moveaxis(jnp.asarray(leaf_at(params, self.place)), self.axis, -1)
        return kernel.reshape(-1, kernel.shape[-1])

    def with_rows(self, params: Any, rows: chex.Array) -> Any:
        """Returns the parameters with the kernel's values replaced by `rows` `[d, k]`."""

        def change(kernel: chex.Array) -> chex.Array:
            moved = jnp.moveaxis(kernel, self.axis, -1)
            return jnp.moveaxis(rows.reshape(moved.shape), -1, self.axis).astype(kernel.dtype)

        return replace_leaf(params, self.place, change)


@in_full_precision
def find_classifier(setup: Setup) -> Classifier:
    """Finds the classifier where `setup.classifier` names it; else the one kernel whose rows are the classes.

    Each kernel with k rows or columns is tried: those of some classes are changed, and the logits of exactly these classes
    must change on the first images of the method's samples (beside a number that all logits of an image share, for networks
    that end in a log-softmax).

    Raises:
      ValueError: there is no such kernel, or there are several.
    """
    params, k = setup.teacher["params"], setup.num_classes
    if setup.classifier is not None:
        found = named(params, k, setup.classifier)
        return found[0] if len(found) == 1 else next((one for one in found if _is_classifier(setup, one)), found[0])
    candidates = list(_kernels(params, k))
    found = [one for one in candidates if _is_classifier(setup, one)]
    if len(found) != 1:
        tried = ", ".join(dict.fromkeys("/".join(names_of(one.place)) for one in found or candidates)) or "none"
        which = "each of these makes logits" if found else "none of those with k rows or columns does"
        raise ValueError(
            f"the method needs the network's classifier, the one kernel that makes {k} logits from features; {which} ({tried}): "
            "name it, such as models.from_linen(net, classifier='head') or Model(…, classifier=('head',))"
        )
    return found[0]


@in_full_precision
def find_bias(setup: Setup, classifier: Classifier) -> Place | None:
    """Finds the path of the classifier's bias: k numbers, each of which is added to the logits of its class; None without one."""
    leaves = jax.tree_util.tree_flatten_with_path(setup.teacher["params"])[0]
    layer = names_of(classifier.place)[:-1]
    places = [place for place, leaf in leaves if leaf.size == setup.num_classes and place != classifier.place]
    places.sort(key=lambda place: names_of(place)[:-1] != layer)  # the layer's own first
    return next((place for place in places if _is_bias(setup, place)), None)


@in_full_precision
def find_scales(setup: Setup, classifier: Classifier) -> list[Place]:
    """Finds the paths of further parameters of k numbers, each of which moves the logits of its class alone and is no bias: such as
    the lengths of the rows where weights are normalised."""
    leaves = jax.tree_util.tree_flatten_with_path(setup.teacher["params"])[0]
    places = [place for place, leaf in leaves if leaf.size == setup.num_classes and place != classifier.place]
    return [place for place in places if _is_per_class(setup, place) and not _is_bias(setup, place)]


def named(params: Any, num_classes: int, path: tuple[str, ...]) -> list[Classifier]:
    """Yields the kernel at or in the layer at `path`, once for each way to read it (`[k, k]` has two, Flax's first).

    Raises:
      ValueError: there is none with `num_classes` rows or columns, or there are several.
    """
    kernels = [one for one in _kernels(params, num_classes) if names_of(one.place)[: len(path)] == path]
    if len({one.place for one in kernels}) == 1:
        return kernels
    shapes = {names_of(place): leaf.shape for place, leaf in jax.tree_util.tree_flatten_with_path(params)[0]}
    there = {"/".join(names): shape for names, shape in shapes.items() if names[: len(path)] == path}
    if kernels:
        what = f"leads to several, {', '.join(dict.fromkeys('/'.join(names_of(one.place)) for one in kernels))}"
    elif there:
        what = f"holds {', '.join(f'{name} of shape {shape}' for name, shape in there.items())}"
    else:
        what = f"is not there; the parameters are {_some(shapes)}"
    raise ValueError(
        f"the classifier must be one kernel [d, {num_classes}] or [{num_classes}, d]: {'/'.join(path)} {what}"
    )


def _kernels(params: Any, num_classes: int) -> Iterator[Classifier]:
    """Each way to read a leaf as a classifier's kernel; `[k, 1, 1]` is a bias."""
    for place, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        for axis in (-1, 0):
            if (leaf.ndim == 2 or (leaf.ndim > 2 and leaf.size > num_classes)) and leaf.shape[axis] == num_classes:
                yield Classifier(place, axis)


def _is_classifier(setup: Setup, candidate: Classifier) -> bool:
    rows = np.asarray(candidate.rows(setup.teacher["params"]).astype(jnp.float32))
    # Of a seed of its own: normalised rows do not move along themselves, and weights may be drawn with seed 0.
    noise = np.random.default_rng([2503, 23751]).normal(size=rows.shape) * (rows.std() or 1.0)

    def changed(classes: np.ndarray) -> Any:
        params = setup.teacher["params"]
        return candidate.with_rows(
            params, candidate.rows(params) + jnp.asarray(noise * classes, _dtype(params, candidate.place))
        )

    return _moves_these_alone(_responses(setup, changed))


def _is_per_class(setup: Setup, place: Place) -> bool:
    return _moves_these_alone(_responses(setup, _stepped(setup, place)))


def _moves_these_alone(responses: Iterable[tuple[np.ndarray, np.ndarray]]) -> bool:
    """Whether the logits of exactly those classes move whose parameters were changed."""
    for classes, moved in responses:
        size = np.abs(moved).max(axis=0)  # of any image and position
        if not (size[classes].min() > 1e-3 * size.max() > 0 and size[~classes].max() < TOLERANCE * size.max()):
            return False
    return True


def _is_bias(setup: Setup, place: Place) -> bool:
    for classes, moved in _responses(setup, _stepped(setup, place)):
        step = moved[:, classes].mean()  # 1, unless the logits are scaled afterwards
        if not np.abs(moved - step * classes).max() < TOLERANCE * abs(step):
            return False
    return True


def _stepped(setup: Setup, place: Place) -> Callable[[np.ndarray], Any]:
    """The function: some classes -> the parameters with 1 added to these classes' entries of the leaf at `place`."""
    params = setup.teacher["params"]

    def changed(classes: np.ndarray) -> Any:
        step = jnp.asarray(classes, _dtype(params, place))
        return replace_leaf(params, place, lambda leaf: leaf + step.reshape(leaf.shape))

    return changed


def _responses(setup: Setup, changed: Callable[[np.ndarray], Any]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For some sets of classes (bool `[k]`): by how much the logits `[n, k]` move when the parameters become `changed(classes)`.

    What all other classes have in common is taken off. Each two classes are once in different sets.
    """
    stream = next(iter(setup.streams.values()))
    images = jnp.asarray(stream["image"][:IMAGES])
    run = jax.jit(answers(setup.model, setup.preprocess), compiler_options=same_bits())

    def logits(variables: Any) -> np.ndarray:
        values = run(variables, images).astype(jnp.float32)
        return np.asarray(values, np.float64).reshape(-1, setup.num_classes)

    before = logits(setup.teacher)
    for classes in _sets(setup.num_classes):
        moved = logits({**setup.teacher, "params": changed(classes)}) - before
        others = moved[:, ~classes]
        moved = moved - (others.mean(1, keepdims=True) if others.shape[1] > 1 else 0)
        yield classes, np.where(np.abs(moved) > ROUNDING * np.abs(before).max(), moved, 0.0)


def _sets(num_classes: int) -> list[np.ndarray]:
    """Sets of classes: each alone where they are few, else those with a certain digit in their binary number."""
    numbers = np.arange(num_classes)
    if num_classes <= 16:
        return list(numbers[:, None] == numbers)
    digits = [(numbers >> i) & 1 == 1 for i in range(num_classes.bit_length())]
    return [classes for digit in digits for classes in (digit, ~digit) if classes.any() and (~classes).sum() > 1]


def _dtype(params: Any, place: Place) -> Any:
    return jnp.asarray(leaf_at(params, place)).dtype


def names_of(place: Place) -> tuple[str, ...]:
    """Returns a path in a tree of parameters as names: all but the last are those of the layer."""
    # nnx keeps each array in a variable, as its attribute `value`
    boxed = bool(place) and isinstance(place[-1], jax.tree_util.GetAttrKey) and place[-1].name == "value"
    return names_on(place[:-1] if boxed else place)


def _some(paths: Iterable[tuple[str, ...]]) -> str:
    """The last few parameters by name: the classifier tends to stand late, and a message is one line."""
    names = ["/".join(path) for path in paths]
    return ", ".join(names if len(names) <= 4 else ["…", *names[-4:]])


def leaf_at(tree: Any, place: Place) -> chex.Array:
    """Returns the leaf at that path."""
    return next(leaf for here, leaf in jax.tree_util.tree_flatten_with_path(tree)[0] if here == place)


def with_entries(params: Any, place: Place, index: Any, value: Any) -> Any:
    """Replaces some numbers of a leaf of the parameters, in the order of its memory."""
    return replace_leaf(params, place, lambda leaf: jnp.asarray(leaf).ravel().at[index].set(value).reshape(leaf.shape))


def replace_leaf(tree: Any, place: Place, change: Callable[[chex.Array], chex.Array]) -> Any:
    """Applies `change` to the leaf at that path of a tree."""
    return jax.tree_util.tree_map_with_path(lambda here, leaf: change(leaf) if here == place else leaf, tree)
