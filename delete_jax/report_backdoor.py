"""The report of a run that removed a backdoor: the same three files, with attack success for the erased class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from delete_jax import report
from delete_jax.report import Card, Examples, Measures, Parts, Verdict, percent, seconds

GONE, PARTLY, COST = 0.03, 0.2, 0.06  # attack success; clean accuracy of the target that may go
NAMES = {"original": "poisoned", "retrained": "never poisoned", "unlearned": "unlearned"}
MEASURES: Measures = {
    "The backdoor": [
        ("Attack success", "Test images of other classes, with the trigger, that are answered with the target. A network that "
         "was never poisoned does so now and then: that is the floor.", "down", percent, ("asr",)),
        ("Right under the trigger", "The same images answered with their true class.", "up", percent, ("acc_stamped",)),
    ],
    "Without the trigger": [
        ("All classes", "Clean test images answered rightly.", "up", percent, ("acc",)),
        ("The target class", "Clean images of the target: what a careless defence erases.", "up", percent, ("acc_target",)),
        ("The other classes", "Clean images of all others.", "up", percent, ("acc_others",)),
    ],
}  # fmt: skip


def write_report(record: dict[str, Any], examples: Examples, directory: Path) -> None:
    """Writes `report.html`, `report.png` and `report.json`, as `report.write_report` does.

    Args:
      record: as there, with metrics from `tasks.backdoor.measure`, `backdoor` (the trigger, `target`, `clean`) and `notes`.
      examples: stamped images of other classes, then clean ones of the target.
      directory: made if it is missing.
    """
    report.write_files(record, directory, lambda record: _parts(record, examples))


def verdict(record: dict[str, Any]) -> Verdict:
    """In plain words, from the numbers alone: "good" for at most 3 % attack success and 6 points lost on the target."""
    networks = record["networks"]
    before, after = networks["original"]["metrics"], networks["unlearned"]["metrics"]
    lost = before["acc_target"] - after["acc_target"]
    target = record["dataset"]["class_names"][record["backdoor"]["target"]]
    label, level = "Removed", "good"
    if after["asr"] > PARTLY:
        label, level = "Not removed", "bad"
    elif after["asr"] > GONE:
        label, level = "Partly removed", "warning"
    elif lost > COST:
        label, level = "Removed at a cost", "bad" if lost > PARTLY else "warning"
    said = f"The trigger leads to “{target}” in {percent(after['asr'])} of the test images of other classes "
    said += f"({percent(before['asr'])} before); without it “{target}” is recognised in {percent(after['acc_target'])} "
    said += f"({percent(before['acc_target'])} before), the other classes in {percent(after['acc_others'])} "
    said += f"({percent(before['acc_others'])} before)."
    return Verdict(level, label, said, [f"{note[0].upper()}{note[1:]}." for note in record["notes"]])


def _parts(record: dict[str, Any], examples: Examples) -> Parts:
    networks, cost = record["networks"], record["cost"]
    present = [name for name in NAMES if name in networks]

    def card(title: str, key: str, direction: str) -> Card:
        beside = [f"{percent(networks[name]['metrics'][key])} {NAMES[name]}" for name in present if name != "unlearned"]
        return Card(title, percent(networks["unlearned"]["metrics"][key]), direction, beside)

    trigger = record["backdoor"]
    assumed = f"It is {record['forget']['what']}, and was on {100 * trigger['rate']:g} % of the training images."
    return Parts(
        verdict(record),
        [
            card("Attack success", "asr", "down"),
            card("Target class, clean", "acc_target", "up"),
            card("Other classes, clean", "acc_others", "up"),
            card("Right under the trigger", "acc_stamped", "up"),
            Card("Time to unlearn", seconds(cost["unlearn_seconds"]), "down", [report.faster(cost)]),
        ],
        report.process_panels(record, "Clean validation images while unlearning", ("target", "others")),
        report.measures_table(record, MEASURES, {name: NAMES[name] for name in present}),
        "",
        report.samples(record, examples, ("Clean images of the target", "With the trigger")),
        [
            ("The trigger was known.", f"{assumed} Removed was exactly that; another trigger, or a wrong estimate of this "
             "one, may stay."),
            ("Clean samples were used.", f"{trigger['clean']} of them. This departs from unlearning with forget data alone: "
             "without them the target class is erased as well."),
            ("The answers forget, the inside may not.", "This report is about what the network answers."),
            ("One run.", "Small differences may be chance; a claim about the method needs several seeds."),
        ],
    )  # fmt: skip
