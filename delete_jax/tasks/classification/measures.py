"""What is measured where a class is forgotten, beside what is always measured (`tasks.figures`)."""

from __future__ import annotations

from typing import Any

INSIDE = (
    "probe", "probe_gap", "nearest_mean", "prototype", "relearn_steps", "cka_original", "cka_retrained", "mia",
    "mia_accuracy", "probe_1", "probe_1_others", "probe_10", "probe_10_others", "probe_100", "probe_100_others", "shots_1",
    "shots_5", "shots_all", "head_norm", "head_bias", "acc_ft_perturbed", "residual_knowledge", "over_unlearning",
)  # fmt: skip
"""What this package has for this task beside that; `config.task.measures` names them, or others of `metrics.MEASURES`."""


def summary(figures: dict[str, dict[str, Any]]) -> str:
    """Formats the figures of all networks in one line."""
    before, after = figures["original"], figures["unlearned"]
    said = f"forgotten classes: {after['acc_ft']:.1%} on test; the others: {after['acc_rt']:.1%} "
    said = f"{said}(before: {before['acc_rt']:.1%})"
    if (back := after.get("acc_erased_before")) is None:
        return said
    return f"{said}; erased before: {back:.1%} (before: {before['acc_erased_before']:.1%})"
