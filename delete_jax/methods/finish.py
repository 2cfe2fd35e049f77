"""A finish for the classifier: the erased classes' part of the last layer is overwritten. It hides, and forgets nothing."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from delete_jax.methods.base import CLASSES, EXPERIMENT, Method, Setup
from delete_jax.methods.classifier import find_bias, leaf_at, with_entries
from delete_jax.methods.features import find_head, unseen
from delete_jax.methods.hyperparameters import factory, one_of
from delete_jax.model import Variables
from delete_jax.precision import in_full_precision

FINISHES = ("zero", "mean")
LOW = 10.0
"""How far below the mean bias of the other classes an erased class's bias is put. Far lower, probabilities would be rounded to
0, and what is still in the logits would no longer be seen in them."""


@factory(row=one_of(*FINISHES))
def finish(row: str = "mean") -> Method:
    """Overwrites the erased classes' part of the classifier after any other method, in closed form and without data.

    Let `logits = h W + b` (features `h`, kernel `W` `[d, k]`), U the classes to erase and those that earlier requests erased, and R the
    remaining classes:

        row="zero":  W[:, u] = 0                    row="mean":  W[:, u] = mean over R of W[:, r]
        both:        b[u] = mean over R of b[r] - 10

    With "mean", the logit `z_u = mean over R of z_r - 10` is below the largest remaining logit for every image, so the network never
    predicts an erased class. With "zero", this holds if the largest remaining logit is above the constant. The probability `q_u`
    still depends on the image through the other logits, and ranking images by it still finds the class, less well than before. No
    row can make it constant, because this takes `z_u = logsumexp(z_R) + constant` (`models.without_classes`). The features do not
    change, and the row can be learnt again from a few labelled images.

    Example: `dj.unlearn(…, forget=[3], method="delete", finish="mean")`.

    Args:
      row: "zero" or "mean".

    Raises:
      ValueError: the row is unknown. Raised by `overwrite` if the logits are not features times a kernel plus a bias.
    """

    return Method("finish", edit=lambda setup: overwrite(setup, row), needs=(CLASSES,), settings=(), paper=EXPERIMENT)


@in_full_precision
def overwrite(setup: Setup, row: str) -> Variables:
    """Overwrites the classes of `setup.gone` in the variables of `setup.teacher`; see `finish`."""
    if not setup.forget:
        raise ValueError("a finish overwrites erased classes, and there are none: leave it out")
    setup = unseen(setup)
    head = find_head(setup)
    place = find_bias(setup, head.classifier)
    if place is None:
        raise ValueError("the network's classifier has no bias to lower: leave the finish out")
    params, gone = setup.teacher["params"], list(setup.gone)
    others = [class_ for class_ in range(setup.num_classes) if class_ not in gone]
    rows, bias = head.rows.copy(), np.asarray(leaf_at(params, place), np.float64)
    rows[:, gone] = 0 if row == "zero" else rows[:, others].mean(1, keepdims=True)
    low = bias.ravel()[others].mean() - LOW
    changed = head.with_rows(setup, rows)
    return {**changed, "params": with_entries(changed["params"], place, jnp.asarray(gone), low)}
