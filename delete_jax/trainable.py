"""What of a network is trained: all of it, its last stage, its classifier, parameters by their names, or updates of low rank."""

from __future__ import annotations

import fnmatch
import itertools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from delete_jax.given import shown
from delete_jax.last_stage import last_stage
from delete_jax.methods import Method, Setup
from delete_jax.methods.classifier import find_bias, find_classifier, named, names_of
from delete_jax.model import Variables

LAST_STAGE, CLASSIFIER = "last_stage", "classifier"
NETWORK, FACTORS = "network", "lora"
"""In the parameters of a training of low rank: those of the network, which stay, and the factors of what is added to them."""
MOST_RANK = 4096
GIVE = f"{LAST_STAGE!r}, {CLASSIFIER!r}, 'lora:RANK', or names of parameters such as 'layer4' or 'layer4/*/kernel,fc'"


class Part(NamedTuple):
    """What is trained of parameters. What is not stays as it is, bit by bit: no gradient of it is computed, and no optimiser knows it.

    chosen: a truth value for each leaf, in the order of `jax.tree.leaves`; None: all are trained.
    rank: of matrices that are added to the chosen leaves, which stay as they are themselves; None: the leaves are trained.

    Examples:
      >>> from delete_jax.trainable import Part
      >>> part = Part((False, True))  # of a and b
      >>> part.put(jax.tree.map(lambda leaf: leaf + 1, part.of({"a": 1, "b": 2})), {"a": 1, "b": 2})
      {'a': 1, 'b': 3}
    """

    chosen: tuple[bool, ...] | None = None
    rank: int | None = None

    def start(self, params: Any, seed: int) -> Any:
        """Returns the parameters that a training begins with, and that its states have. Factors are drawn with the seed; their product is 0."""
        if self.rank is None or self.chosen is None:
            return params
        factors = {}
        for number, (leaf, chosen) in enumerate(zip(jax.tree.leaves(params), self.chosen, strict=True)):
            if chosen:
                rows, columns = _matrix(leaf.shape)
                key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), number)
                left = jax.random.normal(key, (rows, self.rank), leaf.dtype) / np.sqrt(rows).astype(leaf.dtype)
                factors[str(number)] = {"a": left, "b": jnp.zeros((self.rank, columns), leaf.dtype)}
        return {NETWORK: params, FACTORS: factors}

    def of(self, params: Any) -> Any:
        """Returns what is trained of a training's parameters, or of a tree like them; where leaves are missing, containers stay."""
        if self.chosen is None:
            return params
        if self.rank is not None:
            return params[FACTORS]
        leaves, structure = jax.tree.flatten(params)
        kept = [leaf if chosen else optax.MaskedNode() for leaf, chosen in zip(leaves, self.chosen, strict=True)]
        return jax.tree.unflatten(structure, kept)

    def put(self, trained: Any, params: Any) -> Any:
        """Returns a training's parameters with what is trained (`of`) in place of their own."""
        if self.chosen is None:
            return trained
        if self.rank is not None:
            return {**params, FACTORS: trained}
        leaves, structure = jax.tree.flatten(params)
        new = iter(jax.tree.leaves(trained))
        kept = [next(new) if chosen else leaf for leaf, chosen in zip(leaves, self.chosen, strict=True)]
        return jax.tree.unflatten(structure, kept)

    def network(self, trained: Any, params: Any) -> Any:
        """Returns the network's parameters: those that `put` returns, or of low rank the sums."""
        put = self.put(trained, params)
        return put if self.rank is None else merged(put)


WHOLE = Part()


def rank_of(trainable: str | None) -> int | None:
    """The rank that "lora:RANK" names; None for everything else."""
    found = re.fullmatch(r"lora:([0-9]{1,6})", trainable or "")
    return None if found is None else int(found[1])


def merged(params: Any) -> Any:
    """The network's parameters of a training of low rank: W + A B, each as a matrix of the shape `_matrix`."""
    leaves, structure = jax.tree.flatten(params[NETWORK])
    for number, factors in params[FACTORS].items():
        leaf = leaves[int(number)]
        product = jnp.matmul(factors["a"], factors["b"], precision=jax.lax.Precision.HIGHEST)
        leaves[int(number)] = leaf + product.reshape(leaf.shape).astype(leaf.dtype)
    return jax.tree.unflatten(structure, leaves)


def whole(variables: Variables, trainable: str | None) -> Variables:
    """The network's variables, of those that a training with this setting ends with."""
    if rank_of(trainable) is None:
        return variables
    return {**variables, "params": merged(variables["params"])}


def checked(value: Any) -> str | None:
    """Returns what `trainable` says, None for everything.

    Raises:
      ValueError: it is no text, or of a form that there is not.
    """
    if value is None:
        return None
    rank = rank_of(value) if isinstance(value, str) else None
    if not isinstance(value, str) or not all(name.strip() for name in value.split(",")):
        raise ValueError(f"trainable must be None, {GIVE}, got {shown(value)}")
    if value.startswith("lora") and (rank is None or not 1 <= rank <= MOST_RANK):
        raise ValueError(
            f"trainable must be 'lora:RANK' with a rank from 1 to {MOST_RANK}, such as 'lora:4', got {shown(value)}"
        )
    return ",".join(name.strip() for name in value.split(","))


def check_method(method: Method, trainable: str | None) -> None:
    """Raises ValueError for a method that has no part to train: of the given network, as it is."""
    if trainable is None:
        return
    why = ""
    if method.edit is not None:
        why = "is computed at once: leave it out"
    elif method.starts_over:
        why = "resets layers, which must be trained: leave it out"
    elif method.wrap is not None and rank_of(trainable) is not None:
        why = "trains another one in its place: give names, or leave it out"
    if why:
        raise ValueError(
            f"trainable={trainable!r} is for methods that train the given network, and {method.name} {why}"
        )


def distinct(params: Any) -> Any:
    """The parameters with an array of its own at each place, also where somebody has one array, such as zeros, at several: by these
    `for_wrapped` knows them."""
    seen: set[int] = set()

    def own(leaf: Any) -> Any:
        if id(leaf) in seen:
            return np.array(leaf)
        seen.add(id(leaf))
        return leaf

    return jax.tree.map(own, params)


def for_wrapped(part: Part, params: Any, wrapped: Any) -> Part:
    """The part of a network that a method trains in place of the given one (`Method.wrap`): of the arrays that it took over as they
    are, those of the part; what it added is trained, too."""
    if part.chosen is None:
        return part
    known = {id(leaf): chosen for leaf, chosen in zip(jax.tree.leaves(params), part.chosen, strict=True)}
    return part._replace(chosen=tuple(known.get(id(leaf), True) for leaf in jax.tree.leaves(wrapped)))


def part_of(trainable: str, setup: Setup, images: Any) -> Part:
    """Finds the parameters that are trained.

    Args:
      trainable: as `checked` returns it where there is something.
      setup: with the network; its samples are looked at where nobody says which layer is the classifier.
      images: of which shape and dtype count, as they are stored.

    Raises:
      ValueError: there are none, or the network has no such part.
    """
    params = setup.teacher["params"]
    places, leaves = zip(*jax.tree_util.tree_flatten_with_path(params)[0], strict=True)
    names = [tuple(itertools.chain.from_iterable(name.split(".") for name in names_of(place))) for place in places]
    rank = rank_of(trainable)
    if rank is not None:
        chosen = [jnp.ndim(leaf) > 1 for leaf in leaves]
    elif trainable == LAST_STAGE:
        stored = jax.ShapeDtypeStruct((1, *images.shape[1:]), jax.dtypes.canonicalize_dtype(images.dtype))
        mask = last_stage(setup.model, setup.teacher, jax.eval_shape(setup.preprocess, stored))
        if mask is None:
            raise ValueError(
                f"trainable={trainable!r}: the last stage of this network is all of it: give {CLASSIFIER!r} or names"
            )
        chosen = [bool(np.all(leaf)) for leaf in jax.tree.leaves(mask)]
    elif trainable == CLASSIFIER:
        known = setup.classifier
        found = find_classifier(setup) if known is None else named(params, setup.num_classes, known)[0]
        own = names[places.index(found.place)]
        if len(own) > 1:
            chosen = [name[:-1] == own[:-1] for name in names]
        else:  # no name says what else is of this layer
            layer = (found.place, find_bias(setup, found))
            chosen = [place in layer for place in places]
    else:
        patterns = trainable.split(",")
        matching = [[_matches(name, pattern) for name in names] for pattern in patterns]
        for pattern, hits in zip(patterns, matching, strict=True):
            if not any(hits):
                raise ValueError(
                    f"trainable={trainable!r}: no parameter is called {pattern!r}: there are {_some(names)}"
                )
        chosen = [any(hits) for hits in zip(*matching, strict=True)]
    if not any(chosen):
        raise ValueError(
            f"trainable={trainable!r}: this network has no parameter of two or more axes: give names instead"
        )
    return Part(tuple(chosen), rank)


def _matches(name: Sequence[str], pattern: str) -> bool:
    """Whether a pattern is a parameter's name, or that of a layer that it is in."""
    return any(fnmatch.fnmatchcase("/".join(name[:end]), pattern.replace(".", "/")) for end in range(1, len(name) + 1))


def _some(names: Sequence[Sequence[str]]) -> str:
    listed = ["/".join(name) for name in names]
    return ", ".join(listed if len(listed) <= 6 else [*listed[:3], "…", *listed[-3:]])


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """The matrix that a kernel is, cut between two of its axes such that it has the fewest rows and columns: of Flax's convolution
    [3, 3, 64, 128] it is [576, 128], of PyTorch's [128, 64, 3, 3] [128, 576]."""
    cuts = [(int(np.prod(shape[:axis])), int(np.prod(shape[axis:]))) for axis in range(1, len(shape))]
    return min(cuts, key=sum)
