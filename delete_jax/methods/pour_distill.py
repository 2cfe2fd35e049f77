"""POUR-D: move the encoder, so that its features no longer have the class's direction."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.methods.base import CLASSES, FORGET, ORIGINAL, Context, Method, Output, Prepared, Setup, Term
from delete_jax.methods.classifier import find_bias
from delete_jax.methods.features import find_head, with_features
from delete_jax.methods.hyperparameters import factory
from delete_jax.methods.pour import span


@factory()
def pour_distill() -> Method:
    """Distils the original's features, without the erased classes' directions, into the layers before the classifier.

    The loss is `|h_s(x) - P h_o(x)|^2` on forget samples. h_s and h_o are the features that enter the classifier, of the student and of
    the original. `P = I - w_u w_u^T / |w_u|^2`, with w_u the erased class's row of the classifier. For several classes, P is the
    projection onto the complement of the span of their rows, as in `pour`. The classifier does not change.

    It reads forget samples. Example: `dj.unlearn(…, forget=[3], method=dj.methods.pour_distill(), lr=1e-3)`.
    """

    def prepare(setup: Setup) -> Prepared:
        classifier = find_head(setup).classifier
        params = setup.teacher["params"]
        rows, frozen = classifier.rows(params), (classifier.place, find_bias(setup, classifier))
        mask = jax.tree_util.tree_map_with_path(
            lambda place, leaf: jnp.asarray(place not in frozen, leaf.dtype), params
        )
        wide = rows.astype(np.promote_types(rows.dtype, jnp.float32))  # as the step's answers
        return Prepared(constants={"span": span(wide, setup.forget), "update_mask": mask})

    def loss(outputs: Mapping[str, Output], context: Context) -> dict[str, Term]:
        forget = outputs[FORGET]
        k, basis = forget.batch["erase"].shape[-1], context.constants["span"]
        student, original = forget.logits[..., k:], jax.lax.stop_gradient(forget.teacher_logits[..., k:])
        target = original - (original @ basis) @ basis.T
        return {FORGET: Term(jnp.sum(jnp.square(student - target), -1))}

    return Method(
        "pour_distill",
        loss,
        networks=(ORIGINAL,),
        prepare=prepare,
        wrap=with_features,
        needs=(CLASSES,),
        paper="POUR, CVPR 2026",
    )
