"""The contract of a network: what the step, the methods and the measures rely on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from delete_jax import network_check
from delete_jax.given import integer
from delete_jax.methods import FORGET, Setup
from delete_jax.methods.classifier import find_classifier
from delete_jax.model import Model, Variables, leaf_name, without_params
from delete_jax.network_check import apart, as_is
from delete_jax.parallel import run_key
from delete_jax.testing.demands import Subject, copied, difference, form, is_finite
from delete_jax.unlearning import unlearn

BATCH, SHIFT = 4, 1e-2
SAME, ALONE = 1e-4, 1e-2
"""How far an answer may be off by rounding, relative to the largest logit: in a batch of the same size, and alone. bfloat16 has
three digits."""
RATES = (1e-3, 1e-4, 1e-5)


def check_network(model: Model, variables: Variables, shape: Sequence[int]) -> None:
    """Tests the contract of a network on a few random images; it takes as long as compiling the network a few times.

    * `apply` and `apply_train` answer with float logits `[b, k]` or `[b, h, w, k]`, no probabilities, for batches of any size.
    * In evaluation, the same image has the same answer, whatever else is in the batch. `apply` does not change the variables.
    * `apply_train` draws from its key alone, returns the parameters unchanged, and the other variables in the same shapes. If
      an answer in training depends on the other images, running statistics follow.
    * All gradients are finite, and every parameter has one: in training, in evaluation, or in both.
    * The classifier is found where the model says that it is. A model that does not say need not have one.
    * A few steps of `dj.unlearn` at a small rate lower the loss, and return a tree like the variables.

    Args:
      model, variables: as for `dj.unlearn`. A trained network is not needed: `net.init` is enough.
      shape: of one image as the network takes it, `(h, w, c)`.

    Raises:
      AssertionError: the contract is broken; one line says what was found, what is expected, and what to do.

    Examples:
      >>> import numpy as np
      >>> import delete_jax as dj
      >>> apply = lambda variables, x: x.reshape(len(x), -1) @ variables["params"]["w"]
      >>> model = dj.Model(apply, lambda variables, x, key: (apply(variables, x), variables))
      >>> variables = {"params": {"w": np.eye(4, dtype=np.float32)}}
      >>> dj.testing.check_network(model, variables, (2, 2, 1))
      >>> unused = {"params": {**variables["params"], "v": np.zeros(3, np.float32)}}
      >>> dj.testing.check_network(model, unused, (2, 2, 1))
      Traceback (most recent call last):
        ...
      AssertionError: the network: no gradient reaches params/v: use it, or keep it in another collection than params
    """
    subject = Subject("the network")
    with subject.during("shape=(h, w, c)"):
        size = tuple(integer("a side of the image", side, 1) for side in shape)
    subject.demand(len(size) == 3, f"shape is {size}: it must be that of one image, (h, w, c)")
    images = np.random.default_rng(0).normal(size=(BATCH, *size)).astype(np.float32)
    with subject.during("a check of dj.unlearn"):
        num_classes = network_check.check_network(model, variables, images, as_is)
        for batch in (1, BATCH):
            network_check.check_training(model, variables, images, as_is, batch)
        network_check.check_answers(model, variables, images, as_is)
    logits = _check_evaluation(subject, model, variables, images)
    is_map = logits.ndim == 4
    subject.demand(
        not is_map or logits.shape[1:3] == size[:2],
        f"it answers at {logits.shape[1:3]} positions for images of {size[:2]} pixels: resize its logits to the image (jax.image.resize)",
    )
    _check_training(subject, model, variables, images, logits)
    _check_gradients(subject, model, variables, images, logits)
    _check_classifier(subject, model, variables, images, num_classes)
    _check_unlearning(subject, model, variables, images, logits)


def _check_evaluation(subject: Subject, model: Model, variables: Variables, images: np.ndarray) -> np.ndarray:
    """The logits of the images."""
    own = copied(variables)
    with subject.during("apply"):
        model.apply(own, jnp.asarray(images[:1]))  # not compiled: it would have copies of its arguments
    is_same = form(own) == form(variables) and difference(own, copied(variables)) == 0
    subject.demand(is_same, "apply changes the variables that it is given: return the logits alone")
    run = jax.jit(model.apply)
    with subject.during("apply"):
        logits, again = (np.asarray(run(variables, images)) for _ in range(2))
        others = np.asarray(run(variables, np.concatenate([images[:1], 3 * images[1:] + 1])))
        alone = np.asarray(run(variables, images[:1]))
    subject.demand(is_finite(logits), "apply answers with NaN or infinite numbers: check its weights")
    subject.demand(
        difference(logits, again) == 0, "apply gives the same images other answers the second time: draw nothing in it"
    )
    subject.demand(
        apart(others[0], logits[0]) <= SAME,
        f"apply's answer to an image depends on the others in the batch (by {apart(others[0], logits[0]):.1%}): use running statistics in "
        "evaluation",
    )
    subject.demand(
        apart(alone[0], logits[0]) <= ALONE,
        f"apply's answer to an image alone is another than in a batch (by {apart(alone[0], logits[0]):.1%}): it must not depend on the "
        "batch's size",
    )
    return logits


def _check_training(
    subject: Subject, model: Model, variables: Variables, images: np.ndarray, logits: np.ndarray
) -> None:
    run = jax.jit(model.apply_train)
    with subject.during("apply_train"):
        answer, updated = run(variables, images, run_key(0))
        again, _ = run(variables, images, run_key(0))
        others, _ = run(variables, np.concatenate([images[:1], 3 * images[1:] + 1]), run_key(0))
    subject.demand(
        np.shape(answer) == logits.shape,
        f"apply_train answers with {list(np.shape(answer))}, and apply with {list(logits.shape)}: they must have the same shape",
    )
    subject.demand(
        difference(answer, again) == 0, "apply_train with the same key gives another answer: draw from its key alone"
    )
    subject.demand(is_finite((answer, updated)), "apply_train returns NaN or infinite numbers: check its statistics")
    subject.demand(
        difference(updated["params"], jax.tree.map(jnp.asarray, variables["params"])) == 0,
        "apply_train returns other parameters: return those given, which the training updates by their gradient",
    )
    state = [without_params(one) for one in (variables, updated)]
    subject.demand(
        apart(np.asarray(others[0]), np.asarray(answer[0])) <= SAME or _changed(*state),
        "apply_train's answer to an image depends on the others in the batch, and no running statistics follow: return the updated "
        "variables, or use running statistics",
    )


def _changed(before: Any, after: Any) -> bool:
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    return any(not np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)


def _check_gradients(
    subject: Subject, model: Model, variables: Variables, images: np.ndarray, logits: np.ndarray
) -> None:
    labels = jnp.asarray(np.arange(logits[..., 0].size).reshape(logits.shape[:-1]) % logits.shape[-1])
    keys = iter(jax.random.split(run_key(0), len(jax.tree.leaves(variables["params"]))))

    def moved(leaf: Any) -> jax.Array:  # a factor that starts at 0 would hide what lies behind it
        noise = jax.random.normal(next(keys), np.shape(leaf), jnp.float32)
        return jnp.asarray(leaf) + (SHIFT * noise).astype(leaf.dtype)

    def loss(params: Any, trained: bool) -> jax.Array:
        tree = {**variables, "params": params}
        answer = model.apply_train(tree, images, run_key(0))[0] if trained else model.apply(tree, images)
        return optax.softmax_cross_entropy_with_integer_labels(answer.astype(jnp.float32), labels).mean()

    params = jax.tree.map(moved, variables["params"])
    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    with subject.during("its gradient"):
        both = [gradient(params, trained) for trained in (True, False)]
    for path, leaf in jax.tree_util.tree_flatten_with_path(jax.tree.map(lambda *leaves: jnp.stack(leaves), *both))[0]:
        name = leaf_name(path)
        subject.demand(
            is_finite(leaf),
            f"the gradient of params/{name} is NaN or infinite: keep what is computed finite, also where it is not used (jnp.where)",
        )
        subject.demand(
            np.any(np.asarray(leaf) != 0),
            f"no gradient reaches params/{name}: use it, or keep it in another collection than params",
        )


def _check_classifier(
    subject: Subject, model: Model, variables: Variables, images: np.ndarray, num_classes: int
) -> None:
    tree = jax.tree.map(jnp.asarray, dict(variables))
    setup = Setup(
        model, tree, as_is, {FORGET: {"image": images}}, num_classes, (0,), run_key(0), classifier=model.classifier
    )
    try:
        with subject.during("finding its classifier"):
            find_classifier(setup)
    except AssertionError as error:
        if model.classifier is not None or not isinstance(error.__cause__, ValueError):
            raise


def _check_unlearning(
    subject: Subject, model: Model, variables: Variables, images: np.ndarray, logits: np.ndarray
) -> None:
    """DELETE on the class that is answered most, in evaluation mode: there, nothing but the parameters moves the loss."""
    labels = logits.argmax(-1)
    forget = int(np.bincount(labels.ravel()).argmax())
    tried = []
    for rate in RATES:
        with subject.during("dj.unlearn"):
            result = unlearn(
                model, variables, images, labels, forget=forget, method="delete", epochs=4, lr=rate, batch_size=BATCH, batch_norm="frozen",
                parallel="jit",
            )  # fmt: skip
        losses = [row["loss"] for row in result.history]
        tried.append(f"{losses[0]:.6g} to {losses[-1]:.6g} at {rate:g}")
        subject.demand(
            form(result.variables) == form(variables), "dj.unlearn returns other leaves, shapes or dtypes: keep them"
        )
        if losses[-1] < losses[0]:
            return
    subject.demand(
        False, f"four steps do not lower DELETE's loss ({'; '.join(tried)}): is its gradient that of its answers?"
    )
