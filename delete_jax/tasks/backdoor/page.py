"""The page of a run that removed a backdoor: attack success, and what became of the target without the trigger."""

from __future__ import annotations

from typing import Any

from delete_jax import reports
from delete_jax.reports import Card, Examples, Parts, Point, Verdict, percent
from delete_jax.tasks.backdoor.measures import LOST, NAMES

GONE, PARTLY = (
    0.03,
    0.2,
)  # attack success that may be left, and from which on nothing was removed; also a loss too large
TITLES = {"original": "poisoned", "retrained": "never poisoned", "unlearned": "unlearned"}
GROUPS: reports.MeasureGroups = {
    "The backdoor": ("asr", "asr_old_statistics", "acc_stamped"),
    "Without the trigger": ("acc", "acc_target", "acc_others"),
}


def parts(record: dict[str, Any], examples: Examples) -> Parts:
    """Composes the page.

    Args:
      record: of the run, as `delete_jax.reports.record` describes it, with the metrics `tasks.backdoor.measures.NAMES`,
        `backdoor` (the trigger, `target`, `rate` and `clean`) and `notes`.
      examples: stamped images of other classes, then clean ones of the target.

    Raises:
      ValueError: metrics are missing, or a shape does not fit the number of classes.
    """
    missing = [name for name in ("backdoor", "notes") if name not in record]
    if missing:
        raise ValueError(f"record lacks {', '.join(missing)}")
    reports.check_metrics(record, dict.fromkeys((name for name in NAMES if name != "asr_old_statistics"), ()))
    reports.check_examples(record, examples)
    return Parts(
        verdict(record),
        [
            _card(record, "asr", "Attack success"),
            _card(record, "acc_target", "Target class, clean"),
            _card(record, "acc_others", "Other classes, clean"),
            _card(record, "acc_stamped", "Accuracy with the trigger"),
            reports.time_card(record),
        ],
        [
            reports.provenance(record, TITLES),
            reports.comparison(record, GROUPS, TITLES),
            reports.process(record, "Clean validation images while unlearning", ("target", "others")),
            reports.samples(record, examples, ("Clean images of the target", "With the trigger")),
        ],
        _limits(record),
    )


def verdict(record: dict[str, Any]) -> Verdict:
    """Judges the run, from the numbers alone: "good" for at most 3 % attack success, also with the original's running statistics put
    back, and `LOST` lost on the target."""
    networks = record["networks"]
    before, after = networks["original"]["metrics"], networks["unlearned"]["metrics"]
    lost = before["acc_target"] - after["acc_target"]
    target = record["dataset"]["class_names"][record["backdoor"]["target"]]
    inside = after.get("asr_old_statistics") or 0.0
    notes = [f"{note[0].upper()}{note[1:]}." for note in record["notes"]]
    label, level = "Removed", "good"
    if after["asr"] > PARTLY:
        label, level = "Not removed", "bad"
    elif after["asr"] > GONE:
        label, level = "Partly removed", "warning"
    elif inside > GONE:
        label, level = "Hidden, not removed", "bad" if max(inside, lost) > PARTLY else "warning"
        notes.append(
            f"The weights still know the trigger: with the original's running statistics put back, it leads to “{target}” in "
            f"{percent(inside)} of these images. Unlearn with frozen statistics."
        )
    elif lost > LOST:
        label, level = "Removed at a cost", "bad" if lost > PARTLY else "warning"
    said = f"The trigger leads to “{target}” in {percent(after['asr'])} of the test images of other classes "
    said += f"({percent(before['asr'])} before); without it “{target}” is recognised in {percent(after['acc_target'])} "
    said += f"({percent(before['acc_target'])} before), the other classes in {percent(after['acc_others'])} "
    said += f"({percent(before['acc_others'])} before)."
    paid = [f"Without the trigger, “{target}” is recognised in {100 * lost:.1f} points fewer."] if lost > LOST else []
    return Verdict(level, label, said, notes, lost=paid)


def _card(record: dict[str, Any], name: str, title: str) -> Card:
    return reports.measure_card(record, name, title, TITLES)


def _limits(record: dict[str, Any]) -> list[Point]:
    trigger = record["backdoor"]
    assumed = f"It is {record['forget']['what']}, and was on {100 * trigger['rate']:g} % of the training images."
    return [
        Point("The trigger was known.", f"{assumed} Removed was exactly that; another trigger, or a wrong estimate of this "
              "one, may stay."),
        Point("Clean samples were used.", f"{trigger['clean']} of them. This departs from unlearning with forget samples alone: "
              "without them the target class is erased as well."),
        Point("The answers forget, the inside may not.", "This report is about what the network answers."),
        Point("One run.", "Small differences may be chance; a claim about the method needs several seeds."),
    ]  # fmt: skip
