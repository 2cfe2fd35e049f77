"""The figures of networks that lose classes of images, and the samples that a report shows of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from delete_jax import metrics
from delete_jax.data import Dataset
from delete_jax.reports import Examples, unmeasured
from delete_jax.tasks.base import RETRAINED
from delete_jax.tasks.evidence import Evidence

ANSWERS = (
    "acc_f", "acc_r", "acc_ft", "acc_erased_before", "acc_rt", "any_forgotten", "forget_mass", "hmean_residual", "hmean_drop", "aus",
    "residual_auc", "nearest_class", "nearest_loss", "acc_old_statistics", "energy_auroc", "max_logit_auroc", "cmia",
    *(name for name in metrics.MEASURES.own if name.startswith("distance_to_retrained.")),
)  # fmt: skip
ALWAYS = (
    *ANSWERS, "probe_10", "probe_10_others", "class_rank", "class_rank_chance", "quantised_acc_int8", "quantised_acc_int4", "pruned_acc_10",
    "pruned_acc_30", "pruned_acc_50", "steered_acc",
)  # fmt: skip
"""What every report has: what the network answers, and what its verdict says of those who have the weights."""

TAUGHT = 0.5
"""Above which share of the erased test images nobody believes that a network was never taught them."""


def measure(evidence: Evidence, names: tuple[str, ...] = ANSWERS) -> dict[str, Any]:
    """Measures one network: fractions, by the names of `metrics.MEASURES`, attacks with their gaps; and, for the
    pictures, on test samples of all classes, those that earlier requests erased included: `per_class` (accuracies), `confusion`
    (counts) and `absorbed_by` (where erased samples go)."""
    confusion = evidence.confusion + evidence.confusion_before
    return metrics.measure(evidence, metrics.with_gaps(names)) | {
        "per_class": metrics.per_class(confusion),
        "confusion": confusion.tolist(),
        "absorbed_by": evidence.absorbed_by.tolist(),
    }


def choose_examples(dataset: Dataset, forget: tuple[int, ...], before: np.ndarray, after: np.ndarray) -> Examples:
    """Chooses four test samples of erased classes and one of each of up to eight others, the first in the test set.

    Args:
      before, after: probabilities float `[n, k]` of the original and of the unlearned network on the test samples.
    """
    labels = dataset.test.labels
    erased = np.flatnonzero(np.isin(labels, forget))[:4]
    others = [class_ for class_ in range(dataset.num_classes) if class_ not in forget and np.any(labels == class_)][:8]
    rows = np.concatenate([erased, [np.flatnonzero(labels == class_)[0] for class_ in others]]).astype(int)
    return Examples(dataset.test.images[rows], labels[rows], before[rows], after[rows])


def notes_of(evidence: Evidence) -> list[str]:
    """What could not be measured of classes that earlier requests erased, one line: those without test samples."""
    dataset = evidence.run.data.dataset
    absent = [dataset.class_names[class_] for class_ in evidence.before if not np.any(dataset.test.labels == class_)]
    return [unmeasured(absent)] if absent else []


def taught(evidence: Evidence) -> list[str]:
    """What is wrong with the references beside a network, one line each: a retrained network that recognises most of the erased test
    images was taught these classes, and what is measured beside it says nothing."""
    labels = evidence.test_labels[evidence.erased_test]
    if not len(labels):
        return []
    answers = (
        {} if evidence.reference is None else {f"network {RETRAINED!r}": evidence.reference.probabilities("forget")}
    )
    answers |= {f"retrained[{number}]": probabilities for number, probabilities in enumerate(evidence.seed_answers)}
    shares = {name: float(np.mean(found.argmax(-1) == labels)) for name, found in answers.items()}
    return [
        f"{name} recognises {share:.0%} of the erased test images, so it was taught these classes, and what is measured beside it says nothing: "
        "give one that was trained without them"
        for name, share in shares.items()
        if share > TAUGHT
    ]


def most_lost(evidence: Evidence) -> dict[str, Any]:
    """Says which remaining class lost most since the original; nothing where none has test samples.

    Returns:
      `most_lost`: its `class` and its `name`.
    """
    before = (evidence.original or evidence).confusion
    if (found := metrics.largest_loss(evidence.confusion, before, evidence.remain)) is None:
        return {}
    return {"most_lost": {"class": found[0], "name": evidence.dataset.class_names[found[0]]}}


def nearest_class(evidence: Evidence) -> dict[str, Any]:
    """Says which class the retrained network takes most erased test samples for; nothing without one.

    Returns:
      `nearest_class`: its `class`, its `name`, and the `share` of the erased test samples.
    """
    if (class_ := evidence.nearest_class) is None or evidence.reference is None:
        return {}
    share = float(evidence.reference.absorbed_by[class_])
    return {"nearest_class": {"class": class_, "name": evidence.dataset.class_names[class_], "share": share}}
