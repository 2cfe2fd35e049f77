"""The page of a run that forgot single samples: how near the network is to one that never saw them."""

from __future__ import annotations

import math
from typing import Any

from delete_jax import reports
from delete_jax.reports import Card, Examples, Parts, Point, Verdict, metric, number, percent
from delete_jax.tasks.instances.task import NAMES

NEAR = 0.02  # difference from the retrained network's accuracy on the forgotten samples that is none, beside chance
COST, DAMAGE = 0.02, 0.10  # loss of test accuracy that the headline mentions, and that is a failure
DISTANCE = "distance_to_retrained.forget.total_variation"
GROUPS: reports.MeasureGroups = {
    "The forgotten samples": ("acc_listed", "acc_listed_old_statistics", DISTANCE),
    "Everything else": ("acc_unlisted", "acc_test", "distance_to_retrained.remain.total_variation"),
    "Membership attack": ("mia", "mia_accuracy"),
}


def parts(record: dict[str, Any], examples: Examples) -> Parts:
    """Composes the page.

    Args:
      record: of the run, as `delete_jax.reports.record` describes it, with `tasks.instances.task.NAMES` and `samples`.
      examples: training images, first forgotten ones.

    Raises:
      ValueError: metrics are missing.
    """
    needed = [
        name for name in NAMES if not name.startswith("distance") and not name.endswith("statistics")
    ]  # not all networks have them
    reports.check_metrics(record, dict.fromkeys(needed, ()))
    reports.check_examples(record, examples)
    cards = [
        _card(record, "acc_listed", "Forgotten samples recognised"),
        _card(record, "mia", "Forgotten samples predicted as members")._replace(
            direction=""
        ),  # best as the retrained network
        _card(record, "acc_unlisted", "Remaining samples recognised"),
        _card(record, "acc_test", "Test images recognised"),
        reports.time_card(record),
    ]
    sections = [
        reports.provenance(record),
        reports.comparison(record, GROUPS),
        reports.process(record, "Accuracy while unlearning", ("forgotten samples", "validation")),
        _samples(record, examples),
    ]
    return Parts(verdict(record), cards, sections, _limits(record))


def verdict(record: dict[str, Any]) -> Verdict:
    """Judges the run, from the numbers alone: "good" where as many forgotten samples are recognised as by the retrained
    network (within 2 points and chance; with the original's running statistics put back, no more than that), the answers to them moved towards its answers, and the test accuracy is at most 2
    points below the original's and the retrained network's."""
    record = reports.plain(record)
    networks = {name: network["metrics"] for name, network in record["networks"].items()}
    before, after, retrained = networks["original"], networks["unlearned"], networks.get("retrained")
    drop = min(one["acc_test"] for one in (before, retrained or before)) - after["acc_test"]  # fewer samples teach less
    level, label, notes = "good", "Accuracy as retrained", []
    if retrained is None:
        level, label = "warning", "Not compared"
        notes.append(
            "No retrained reference was made: what a network that never saw these samples answers is not known."
        )
    else:
        p, n = retrained["acc_listed"], record["forget"]["num_samples"]
        gap, chance = after["acc_listed"] - p, 2 * math.sqrt(2 * p * (1 - p) / n)
        inside = after.get("acc_listed_old_statistics") or 0.0
        if gap <= NEAR + chance < inside - p:
            level, label = "warning", "Hidden, not forgotten"
            notes.append(
                f"The weights still know the samples: with the original's running statistics put back, {percent(inside)} of them are "
                "recognised. Unlearn with frozen statistics."
            )
        elif gap > NEAR + chance:
            level, label = "warning", "Still known"
            notes.append("More of the forgotten samples are recognised than by the retrained network.")
        elif gap < -NEAR - chance:
            level, label = "warning", "Forgotten too far"
            notes.append(
                "Fewer of the forgotten samples are recognised than by a network that never saw them: this shows which samples "
                "were forgotten, and other images like them may be answered wrongly too. A smaller rate or fewer steps go less far."
            )
        apart, apart_before = (metric(record, name, DISTANCE) for name in ("unlearned", "original"))
        if apart is not None and apart_before is not None and apart >= apart_before:
            level = "warning"
            notes.append(
                "The answers to the forgotten samples are no nearer to the retrained network's than the original's were (total "
                f"variation {number(apart)}, {number(apart_before)} before): as many are recognised, but the network is another."
            )
    lost = []
    if drop > COST:
        level, label = "bad" if drop > DAMAGE else "warning", f"{label}, at a cost"
        lost.append(f"The test accuracy is {100 * drop:.1f} points below what the samples that remain can teach.")
    beside = f"; {percent(retrained['acc_listed'])} retrained without them" if retrained else ""
    said = f"Of {record['forget']['what']}, {percent(after['acc_listed'])} are recognised ({percent(before['acc_listed'])} before"
    said += (
        f"{beside}); test images are recognised in {percent(after['acc_test'])} ({percent(before['acc_test'])} before)."
    )
    return Verdict(level, label, said, [*notes, *lost], lost=lost)


def _card(record: dict[str, Any], name: str, title: str) -> Card:
    return reports.measure_card(record, name, title)


def _samples(record: dict[str, Any], examples: Examples) -> reports.Section:
    names, first = record["dataset"]["class_names"], record["samples"]["shown_forgotten"]
    shown = []
    for i, image in enumerate(examples.images):
        answers = [
            f"{when}: {names[int(p[i].argmax())]} {100 * float(p[i].max()):.0f} %"
            for when, p in (("before", examples.before), ("after", examples.after))
        ]
        true = names[int(examples.labels[i])]
        shown.append(reports.Sample(image, f"A training image of class {true}", true, answers))
    text = reports.Text("Training images with the first answer and its probability.")
    blocks = [reports.Samples("Forgotten", shown[:first]), reports.Samples("Not forgotten", shown[first:])]
    return reports.Section("Samples before and after", [text, *blocks])


def _limits(record: dict[str, Any]) -> list[Point]:
    return [
        Point("Recognised is not remembered.", "A network that never saw a sample recognises it where it learnt the class from "
              "others. So the retrained network is the yardstick, not zero."),
        Point("The membership attack is a weak one.", "It knows one network's confidence, and learns from remaining training "
              "images and test images. Where its own accuracy is near 50 %, the network barely remembers single samples, and "
              "the attack can show neither that they were forgotten nor that they were not. Attacks that train many networks "
              "find more."),
        Point("Copies stay.", "Near duplicates of the forgotten samples among the remaining ones teach the same."),
        Point("One run.", "Small differences may be chance; a claim about the method needs several seeds."),
        Point("This page shows images.", "Forgotten samples are among them: hand it on accordingly."),
    ]  # fmt: skip
