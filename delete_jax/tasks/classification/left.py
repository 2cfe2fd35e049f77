"""What the page says of what is left in a network that no longer answers with what was erased."""

from __future__ import annotations

from typing import Any, NamedTuple

from delete_jax import metrics, reports
from delete_jax.reports import metric, percent

QUERIES = ("residual_auc", "energy_auroc", "max_logit_auroc", "cmia", "acc_ft_perturbed", "residual_knowledge")
WEIGHTS = (
    "probe_1", "probe_1_others", "probe_10", "probe_10_others", "probe_100", "probe_100_others", "probe", "nearest_mean",
    "prototype", "shots_1", "shots_5", "shots_all", "relearn_steps", "cka_original", "cka_retrained", "head_norm", "head_bias", "class_rank", "class_rank_chance",
)  # fmt: skip
CHANGED = (
    "acc_old_statistics", "quantised_acc_int8", "quantised_acc_int4", "pruned_acc_10", "pruned_acc_30", "pruned_acc_50", "steered_acc",
)  # fmt: skip
GROUPS: reports.MeasureGroups = {
    "For someone who can query probabilities": metrics.with_gaps(QUERIES),
    "Inside the network, for someone who has the weights": metrics.with_gaps(WEIGHTS),
    "Does the class come back when the network is changed, without any training?": metrics.with_gaps(CHANGED),
    "Membership attack": ("mia", "mia_accuracy"),
}


class Erased(NamedTuple):
    """What the page calls an image of what was erased, all such test images, and what has a label."""

    image: str
    images: str
    label: str


CLASSES = Erased("an erased image", "the erased images", "class")


def still_found(record: dict[str, Any], erased: Erased = CLASSES) -> str:
    """Says in one sentence what two kinds of attackers still find, beside what they find in the retrained network.

    Args:
      record: of the run; only the networks' `residual_auc` and `probe_10` are read.
      erased: the words for what was erased.

    Returns:
      "" where neither was measured.
    """
    found = [part for part in (_by_order(record, erased), _by_few_labels(record, erased)) if part]
    if not found:
        return ""
    said = "; ".join(part for part in (*found, _caveat(record)) if part)
    return f"{said[0].upper()}{said[1:]}."


def _by_order(record: dict[str, Any], erased: Erased) -> str:
    """What the order of the probabilities gives away; "" where it was not measured."""
    if (auc := metric(record, "unlearned", "residual_auc")) is None:
        return ""
    start = f"someone who can query probabilities ranks {erased.image} above one of another {erased.label} "
    return f"{start}in {percent(auc)} of pairs (AUC)" + _beside_retrained(record, "residual_auc")


def _by_few_labels(record: dict[str, Any], erased: Erased) -> str:
    """What a few labelled images and the weights give away; "" where it was not measured."""
    if (found := metric(record, "unlearned", "probe_10")) is None:
        return ""
    start = f"someone with the weights and up to ten labelled images per {erased.label} recognises "
    return f"{start}{percent(found)} of {erased.images}{_beside_retrained(record, 'probe_10')}"


def _beside_retrained(record: dict[str, Any], name: str) -> str:
    """How a figure compares with the retrained network's, as both are shown; "" without one."""
    reference = metric(record, "retrained", name)
    if reference is None:
        return ""
    than = {1: "more than", 0: "the same as", -1: "less than"}[_side(record, name)]
    return f", {than} in the retrained network ({percent(reference)})"


def _side(record: dict[str, Any], name: str) -> int:
    """1, 0 or -1: above, as, or below the retrained network, to the tenth of a percent that is shown; 0 without one."""
    here, there = (metric(record, network, name) for network in ("unlearned", "retrained"))
    if here is None or there is None or percent(here) == percent(there):
        return 0
    return 1 if here > there else -1


def _caveat(record: dict[str, Any]) -> str:
    """That there is nothing to compare with, or what a figure below the retrained network's means; "" otherwise."""
    if "retrained" not in record["networks"]:
        return "there is no retrained network to compare with"
    below = any(_side(record, name) < 0 for name in ("residual_auc", "probe_10"))
    return "less than in the retrained network is another trace, not a better result" if below else ""


def section(record: dict[str, Any]) -> reports.Section:
    """Lists every attack beside the same attack on the retrained network, and the gap to it; empty where none was measured."""
    table = reports.measure_table(record, GROUPS, label="What is left")
    return reports.Section("What is left", [reports.Text(_reading(record)), table] if table.groups else [])


def _reading(record: dict[str, Any]) -> str:
    """How to read the attacks."""
    text = "Attacks on the networks. One that was never taught the class gives something away too, so the gap to it counts. "
    if "retrained" not in record["networks"]:
        return text + "No retrained network was made for this run, so that gap is not known."
    return text + (
        "Below it is another trace, not a better result. This run has one retrained network: how far two of them differ by "
        "their seed alone is not measured here (the benchmarks show it)."
    )


def damage_groups(record: dict[str, Any]) -> reports.MeasureGroups:
    """Measures of the damage close to what was erased; the classes that stand to lose first, and that lost most, are named where known."""
    nearest = record.get("nearest_class") or {"name": "", "share": None}
    lost = (record.get("most_lost") or {"name": ""})["name"]
    share = f"{percent(nearest['share'])} of the retrained network's predictions for what was erased"
    return {
        f"The nearest class, “{nearest['name']}” ({share})": ("nearest_class",),
        f"The remaining class that lost most, “{lost}”": ("nearest_loss",),
        "Around the erased images": ("over_unlearning",),
    }
