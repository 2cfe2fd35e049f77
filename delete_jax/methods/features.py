"""The features that enter a network's classifier, read through its kernel: this works for any network, without its modules."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.compiling import in_one_program
from delete_jax.methods.attacks import answers
from delete_jax.methods.base import FORGET, Setup
from delete_jax.methods.classifier import IMAGES, TOLERANCE, Classifier, find_classifier
from delete_jax.model import Model, Variables, may_answer
from delete_jax.precision import in_full_precision

if TYPE_CHECKING:
    import chex

BATCH = 64


class Head(NamedTuple):
    """A classifier whose logits are `features @ rows + bias`.

    classifier: where its kernel is.
    rows, bias: float64 `[d, k]` and `[k]`.
    """

    classifier: Classifier
    rows: np.ndarray
    bias: np.ndarray

    def with_rows(self, setup: Setup, rows: np.ndarray) -> Variables:
        """Returns the original's variables with another kernel, `[d, k]`."""
        params = setup.teacher["params"]
        kernel = jnp.asarray(rows, self.classifier.rows(params).dtype)
        return {**setup.teacher, "params": self.classifier.with_rows(params, kernel)}


@in_full_precision
def find_head(setup: Setup) -> Head:
    """Finds the classifier (`find_classifier`) of a network whose features can be read.

    Raises:
      ValueError: there is none, or the logits are something else than features times a kernel plus a bias.
    """
    classifier = find_classifier(setup)
    images = jnp.asarray(next(iter(setup.streams.values()))["image"][:IMAGES])
    both = _runner(beside_logits(setup.model, classifier), setup.preprocess)(setup.teacher, images)
    both = np.asarray(both, np.float64).reshape(-1, both.shape[-1])
    logits, features = np.split(both, [setup.num_classes], axis=-1)
    rows = np.asarray(classifier.rows(setup.teacher["params"]), np.float64)
    rest, seen = logits - features @ rows, may_answer(logits)
    if np.ptp(rest[:, seen], axis=0).max() > TOLERANCE * np.abs(logits[:, seen]).max():
        raise ValueError(
            "the method needs the features that enter the network's classifier, and this network's logits are not features "
            "times a kernel plus a bias (they are scaled or normalised): choose another method, such as delete"
        )
    return Head(classifier, rows, rest.mean(axis=0))


def unseen(setup: Setup) -> Setup:
    """Replaces the images of a request by noise, so that nothing computed from it depends on a sample."""

    def noise(image: chex.Array) -> np.ndarray:
        rng, shape = np.random.default_rng(0), (IMAGES, *image.shape[1:])
        if image.dtype == np.uint8:
            return rng.integers(0, 256, shape, np.uint8)
        return rng.normal(size=shape).astype(image.dtype)

    return setup._replace(streams={name: {"image": noise(stream["image"])} for name, stream in setup.streams.items()})


def with_features(setup: Setup) -> tuple[Model, Variables]:
    """Implements `Method.wrap` for a method that reads features: returns the network of `beside_logits` and the original's variables."""
    return beside_logits(setup.model, find_head(setup).classifier), setup.teacher


@functools.lru_cache(maxsize=16)
def beside_logits(model: Model, classifier: Classifier) -> Model:
    """Returns the network that answers `[*b, k + d]`: its logits, then the features that enter its classifier.

    The logits are linear in the kernel `[d, k]`. Their derivative in the direction of a kernel that is 1 at k entries, one
    in each column and in different rows, is therefore k of the features. The layers before the classifier run once.
    """

    def widened(run, variables: Variables):
        params = variables["params"]
        rows = classifier.rows(params)

        def of_rows(rows: chex.Array):
            return run({**variables, "params": classifier.with_rows(params, rows)})

        logits, push, updated = jax.linearize(of_rows, rows, has_aux=True)
        d, k = rows.shape
        parts = -(-d // k)
        units = jnp.moveaxis(jnp.eye(d, parts * k, dtype=rows.dtype).reshape(d, parts, k), 1, 0)
        features = jnp.moveaxis(jax.vmap(push)(units), 0, -2)
        features = features.reshape(*logits.shape[:-1], parts * k)[..., :d]
        return jnp.concatenate([logits, features], -1), updated

    def apply(variables: Variables, x: chex.Array) -> chex.Array:
        return widened(lambda given: (model.apply(given, x), None), variables)[0]

    def apply_train(variables: Variables, x: chex.Array, key: chex.PRNGKey) -> tuple[chex.Array, Variables]:
        answer, updated = widened(lambda given: model.apply_train(given, x, key), variables)
        return answer, {**updated, "params": variables["params"]}

    return model._replace(apply=apply, apply_train=apply_train)


def feature_batches(setup: Setup, classifier: Classifier, stream: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the original's features, float64 `[m, d]`, and labels `[m]`, a few images at a time, in evaluation mode.

    Positions of weight 0 are left out. In label maps of forget samples only the pixels of a class to erase are kept.
    """
    images = setup.streams[stream]["image"]  # which may be too many to be read at once
    columns = {name: np.asarray(setup.streams[stream][name]) for name in ("label", "weight")}
    counts = columns["weight"] > 0
    if stream == FORGET and columns["label"].ndim > 1:
        counts &= np.isin(columns["label"], setup.forget)
    run = _runner(beside_logits(setup.model, classifier), setup.preprocess)
    n = len(counts)
    for begin in range(0, n, BATCH):
        part = slice(begin, begin + BATCH)
        index = np.minimum(np.arange(begin, begin + BATCH), n - 1)  # one shape: what is filled up is cut off
        both = np.asarray(run(setup.teacher, images[index]), np.float64)[: n - begin]
        yield both[counts[part]][:, setup.num_classes :], columns["label"][part][counts[part]]


@functools.lru_cache(maxsize=16)
def _runner(model: Model, preprocess: Callable[[chex.Array], chex.Array]) -> Callable[..., chex.Array]:
    return in_one_program()(answers(model, preprocess))
