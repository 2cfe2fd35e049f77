"""The page of a run that erased classes of images."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from delete_jax import reports
from delete_jax.reports import Examples, Parts, Verdict, floats, metric, number, percent
from delete_jax.reports.record import erased_before
from delete_jax.tasks.classification import left

TOLERATED = 0.01  # an erased class may be answered for this fraction of its test samples: a stray sample is no memory
PARTLY = 0.10  # ... and above this one cannot speak of erasing at all
COST = 0.02  # loss of accuracy on the other classes that the headline must mention
DAMAGE = 0.10  # ... and the loss that is a failure
CLASS_COST = 0.05  # loss of one remaining class that the average must not hide

GROUPS: reports.MeasureGroups = {
    "The erased class": ("acc_ft", "acc_f", "any_forgotten", "forget_mass"),
    "Classes erased by earlier requests": ("acc_erased_before",),
    "Everything else": ("acc_rt", "acc_r"),
    "Both in one figure": ("hmean_residual", "hmean_drop", "aus"),
    "Distance to the retrained network": tuple(
        f"distance_to_retrained.{part}.{name}"
        for part in ("forget", "remain")
        for name in ("total_variation", "jensen_shannon", "agreement")
    ),
}


def parts(record: dict[str, Any], examples: Examples, elsewhere: reports.MeasureGroups = MappingProxyType({})) -> Parts:
    """Composes the page.

    Args:
      record: of the run, as `delete_jax.reports.record` describes it; every network's metrics have the accuracies `acc_ft` and
        `acc_rt`, `per_class` and `absorbed_by` `[k]`, and `confusion` `[k, k]`.
      examples: test images to show.
      elsewhere: measures that sections show which are added to these.

    Raises:
      ValueError: metrics are missing, or a shape does not fit the number of classes.
    """
    k = len(record["dataset"]["class_names"])
    reports.check_metrics(
        record, {"acc_ft": (), "acc_rt": (), "per_class": (k,), "confusion": (k, k), "absorbed_by": (k,)}
    )
    reports.check_examples(record, examples)
    return Parts(
        verdict(record),
        _cards(record),
        [
            reports.provenance(record),
            reports.comparison(
                record, {**GROUPS, **left.damage_groups(record)}, elsewhere={**left.GROUPS, **elsewhere}
            ),
            left.section(record),
            reports.process(record, "Accuracy while unlearning"),
            _class_by_class(record),
            _confusion(record),
            reports.samples(record, examples),
        ],
        _limits(record, examples),
    )


def verdict(record: dict[str, Any]) -> Verdict:
    """Says in plain words, from the numbers alone, whether the run did what it should.

    Args:
      record: of the run; only `dataset`, `forget`, `networks` and `history` are read.

    Returns:
      level "good" if at most 1 % of the forgotten test samples are answered with an erased class, also with the original's running
      statistics put back, and the accuracy on the other classes fell by at most 2 points; "bad" from 10 % or 10 points; else
      "warning".
    """
    record = reports.plain(record)
    networks = record["networks"]
    before, after = networks["original"]["metrics"], networks["unlearned"]["metrics"]
    one = len(record["forget"]["classes"]) == 1
    was = "was" if one else "were"

    gone, still = after["acc_ft"], after.get("any_forgotten")
    drop = 0.0 if None in (before["acc_rt"], after["acc_rt"]) else before["acc_rt"] - after["acc_rt"]
    costly, damaged = drop > COST, drop > DAMAGE
    residual = 0.0 if gone is None else max(gone, still or 0)
    inside = after.get("acc_old_statistics") or 0.0
    if residual <= TOLERATED < inside:
        level, label = "bad" if inside > PARTLY or damaged else "warning", "Hidden, not erased"
        what = f"{was} hidden by the running statistics, not erased"
    elif residual > PARTLY:
        level, label, what = "bad", "Not erased", f"{was} not erased"
    elif residual > TOLERATED:
        level, label, what = "bad" if damaged else "warning", "Partly erased", f"{was} only partly erased"
    elif costly:
        level, label, what = "bad" if damaged else "warning", "Erased at a cost", f"{was} erased, but at a cost"
    else:
        level, label, what = "good", "Erased", f"{was} erased"
    if gone is None:
        level, label = "bad", "Not checked"
    back = _returned(record)
    if back and (level != "bad" or residual <= TOLERATED):
        level = "bad" if level == "bad" or back[0].after > PARTLY else "warning"
        label = "An erased class came back"

    paid = _classes_that_paid(record)
    broken = int(np.sum(~np.isfinite(floats(record.get("history", {}).get("loss", [])))))
    lost = _cost_notes(record, drop, paid)
    notes = [*_returning_notes(back), *_unmeasured_notes(record), *_erasing_notes(before, after, residual), *lost]
    if broken:
        notes.append(f"Training diverged: the loss was not finite at {broken} of the recorded steps.")
    if "retrained" not in networks:
        notes.append(
            "No retrained reference was made: how a network that never saw the class would answer is not known."
        )
    if level == "good" and (broken or paid):
        level, label = "warning", "Erased, see the notes"
    return Verdict(level, label, _headline(record, what), notes, left.still_found(record), lost)


def _headline(record: dict[str, Any], what: str) -> str:
    """One sentence: what was erased, how far, and what became of the others."""
    networks, forgotten = record["networks"], record["forget"]["classes"]
    before, after = networks["original"]["metrics"], networks["unlearned"]["metrics"]
    one = len(forgotten) == 1
    subject = f"{'Class' if one else 'Classes'} {reports.quoted(record)}"
    was, are, its = ("was", "it is", "its") if one else ("were", "they are", "their")
    gone, still = after["acc_ft"], after.get("any_forgotten")
    if gone is None:
        said = f"Whether {subject[0].lower()}{subject[1:]} {was} erased could not be checked: there are no test images"
    else:
        again = "still " if gone > TOLERATED else ""
        said = f"{subject} {what}: {are} {again}recognised in {percent(gone)} of {its} test images "
        said += f"({percent(before['acc_ft'])} before)"
        if (inside := after.get("acc_old_statistics") or 0.0) > TOLERATED:
            said += f", and in {percent(inside)} with the original's running statistics put back"
        if _swapped(gone, still):
            said += f", and {percent(still)} are answered with one of the erased classes"
    others = len(record["dataset"]["class_names"]) - len(forgotten) - len(erased_before(record))
    many = f"the other {reports.word(others)} classes are" if others > 1 else "the other class is"
    retrained = metric(record, "retrained", "acc_rt")
    reference = "" if "retrained" not in networks else f"; {percent(retrained)} retrained from scratch"
    return f"{said}; {many} recognised in {percent(after['acc_rt'])} ({percent(before['acc_rt'])} before{reference}){_still_erased(record)}."


class _Change(NamedTuple):
    """A class that an earlier request erased: its name, and its accuracy before and after this request."""

    name: str
    before: float
    after: float

    def __str__(self) -> str:
        return f"“{self.name}”, erased before: {percent(self.before)} → {percent(self.after)}"


def _changes(record: dict[str, Any]) -> list[_Change]:
    """What became of classes that earlier requests erased, and that have test images; the highest accuracy first."""
    p, q = (metric(record, name, "per_class") for name in ("original", "unlearned"))
    found = [_Change(name, p[c], q[c]) for c, name in erased_before(record).items() if q[c] is not None]
    return sorted(found, key=lambda change: -change.after)


def _returned(record: dict[str, Any]) -> list[_Change]:
    """Those that this request brought back."""
    return [change for change in _changes(record) if change.after - change.before > TOLERATED]


def _still_erased(record: dict[str, Any]) -> str:
    """What became of them, the first three; and that those without test images are not measured."""
    changes, absent = _changes(record), _unmeasured(record)
    more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
    more += f"; {reports.unmeasured(absent)}" if absent else ""
    return "".join(f"; {change}" for change in changes[:3]) + more


def _unmeasured(record: dict[str, Any]) -> list[str]:
    """The names of those that have no test images."""
    accuracies = metric(record, "unlearned", "per_class")
    return [name for c, name in erased_before(record).items() if accuracies[c] is None]


def _unmeasured_notes(record: dict[str, Any]) -> list[str]:
    if not (absent := _unmeasured(record)):
        return []
    return [
        f"{reports.unmeasured(absent)}. This report does not show whether this request brought back what an earlier one erased."
    ]


def _returning_notes(back: list[_Change]) -> list[str]:
    if not back:
        return []
    return [f"This request brought back what an earlier one erased ({'; '.join(map(str, back))}). Do not present this network as one that "
            "forgot both. Start again from the network before, with frozen statistics, or with anchors."]  # fmt: skip


def _swapped(gone: float | None, still: float | None) -> bool:
    """Whether one erased class is answered for another."""
    return gone is not None and (still or 0) - gone > TOLERATED


def _erasing_notes(before: dict[str, Any], after: dict[str, Any], residual: float) -> list[str]:
    notes, gone, still = [], after["acc_ft"], after.get("any_forgotten")
    if (inside := after.get("acc_old_statistics") or 0.0) > TOLERATED >= residual:
        notes.append(f"The weights still recognise {percent(inside)} of the test images of what was erased: it is enough to put the "
                     "original's running statistics back, or to estimate them again on other images, as any training in train mode "
                     "does. Do not present this network as one that forgot. Unlearn with frozen statistics, or with anchors.")  # fmt: skip
    if residual > TOLERATED:
        notes.append(f"Erasing is not complete: {percent(residual)} of the test images of what was erased are still "
                     "answered with it. Do not present this network as one that forgot.")  # fmt: skip
    if _swapped(gone, still):
        notes.append(f"The erased classes stand in for each other: {percent(gone)} are answered with their own class, "
                     f"{percent(still)} with any erased one. Masking all of them together avoids that.")  # fmt: skip
    if before["acc_ft"] is not None and before["acc_ft"] <= PARTLY:
        notes.append(f"The original recognised only {percent(before['acc_ft'])} of these: there was little to erase.")
    return notes


def _cost_notes(record: dict[str, Any], drop: float, paid: list[int]) -> list[str]:
    notes, names, counts = [], record["dataset"]["class_names"], _test_images(record)
    if drop > COST:
        notes.append(f"The accuracy on the other classes fell by {100 * drop:.1f} points. A smaller learning rate, "
                     "fewer steps or the other batch norm setting may keep it.")  # fmt: skip
    p, q, retrained = (metric(record, name, "per_class") for name in ("original", "unlearned", "retrained"))
    for c in paid[:3]:
        also = f"; retrained {percent(retrained[c])}" if retrained else ""
        notes.append(f"“{names[c]}” lost {100 * (p[c] - q[c]):.1f} points, from {percent(p[c])} to {percent(q[c])}{also} "
                     f"({counts[c]:.0f} test images).")  # fmt: skip
    return notes


def _classes_that_paid(record: dict[str, Any]) -> list[int]:
    """The remaining classes that lost more than chance explains, the one that lost most first."""
    p, q = (floats(metric(record, name, "per_class")) for name in ("original", "unlearned"))
    noise = 3 * np.sqrt(
        (p * (1 - p) + q * (1 - q)) / np.maximum(_test_images(record), 1)
    )  # a few images are no loss yet
    losses = np.where((p - q > CLASS_COST) & (p - q > noise), p - q, 0)
    losses[[*record["forget"]["classes"], *erased_before(record)]] = 0
    return [int(c) for c in np.argsort(-losses, kind="stable") if losses[c]]


def _test_images(record: dict[str, Any]) -> np.ndarray:
    """The number of test images of each class."""
    return floats(metric(record, "original", "confusion")).sum(axis=1)


def _cards(record: dict[str, Any]) -> list[reports.Card]:
    one = len(record["forget"]["classes"]) == 1
    second = ("any_forgotten", "Predicted as any erased class")
    second = ("forget_mass", "Probability given to the erased class") if one else second
    distance = reports.measure_card(
        record, "distance_to_retrained.forget.total_variation", "Distance to the retrained network"
    )
    beside = ["no retrained reference was made"]
    if "retrained" in record["networks"]:
        before = metric(record, "original", "distance_to_retrained.forget.total_variation")
        beside = [*([] if before is None else [f"{number(before)} original"]), "0 = same answers"]
    return [
        reports.measure_card(record, "acc_ft", f"Erased class{'' if one else 'es'} still recognised"),
        reports.measure_card(record, *second),
        reports.measure_card(record, "acc_rt", "Other classes recognised"),
        distance._replace(details=beside),
        reports.time_card(record),
    ]


def _class_by_class(record: dict[str, Any]) -> reports.Section:
    names, forgotten = (
        [reports.short(name) for name in record["dataset"]["class_names"]],
        [*record["forget"]["classes"], *erased_before(record)],
    )
    k = len(names)
    absorbed = reports.network_series(record, "absorbed_by")
    del absorbed["original"]
    top = reports.most_frequent({name: series.values for name, series in absorbed.items()})
    text = "The answers to the test images of what was erased" + (
        ", beside those of the network that never saw it: the closer, the better." if len(absorbed) > 1 else "."
    )
    text += f" The {len(top)} most frequent of {k} classes." if k > len(top) else ""
    goes = reports.bars("Where the erased images go", text, list(absorbed.values()), top, names, forgotten)

    accuracy = reports.network_series(record, "per_class")
    counts = _test_images(record)
    shown = reports.most_changed(accuracy["original"].values, accuracy["unlearned"].values, forgotten)
    shown = [c for c in shown if counts[c]]  # a bar of no length would say 0 %
    text = "Test images answered rightly, class by class; ✕ marks what was erased."
    if np.count_nonzero(counts) > len(shown):
        text += f" Shown are what was erased and the classes that changed most, {len(shown)} of {k}."
    if absent := _unmeasured(record):
        text += f" {reports.unmeasured(absent)}."
    each = reports.bars("Accuracy of each class", text, list(accuracy.values()), shown, names, forgotten)
    numbers = reports.class_table(record, "Accuracy of each class", counts)
    return reports.Section("Class by class", [reports.Figures([goes, each]), numbers])


def _confusion(record: dict[str, Any]) -> reports.Section:
    names, forgotten = (
        [reports.short(name) for name in record["dataset"]["class_names"]],
        [*record["forget"]["classes"], *erased_before(record)],
    )
    panels = [
        reports.confusion(
            title,
            f"Answers of the {name} network to the test images; each row sums to 100 %.",
            floats(metric(record, name, "confusion")),
            names,
            forgotten,
        )
        for name, title in (("original", "Confusion before"), ("unlearned", "Confusion after"))
    ]
    return reports.Section("Which class is taken for which", [reports.Figures(panels)])


def _limits(record: dict[str, Any], examples: Examples) -> list[reports.Point]:
    rows = floats(metric(record, "unlearned", "confusion"))[record["forget"]["classes"]]
    n, rate = rows.sum(), metric(record, "unlearned", "acc_ft")
    text = "Other images, altered images or attacks may be answered differently."
    points = [reports.inside_limit(record), reports.Point("Measured on this test set.", text)]
    if n > 0 and rate is not None:
        text = f"There are {n:.0f} test images of what was erased. With {percent(rate)} of them recognised, the rate "
        text += f"on further images of the same kind may be up to {percent(upper_bound(rate, n))} (95 % confidence)."
        points.append(reports.Point("A finite sample.", text))
    seed = "" if record["method"].get("seed") is None else f" with seed {record['method']['seed']}"
    text = f"These are figures of one run{seed}: small differences may be chance; a claim about the method needs more."
    points.append(reports.Point("One run.", text))
    if "retrained" not in record["networks"]:
        text = "Nothing here says how close the result is to never having seen the class."
        points.append(reports.Point("No retrained reference was made.", text))
    text = (
        "The original checkpoint, the forget samples, their copies and backups still exist unless deleted separately. "
        "The method is approximate; this page is evidence, not a proof."
    )
    points.append(reports.Point("Nothing else is deleted.", text))
    if len(examples.labels):
        text = "Samples of the erased class may be among them: hand it on accordingly."
        points.append(reports.Point("This page shows images.", text))
    return points


def upper_bound(rate: float, n: float) -> float:
    """Computes the upper end of Wilson's 95 % interval of a rate that was found in n samples."""
    z2 = 1.96**2
    return (rate + z2 / (2 * n) + math.sqrt(z2 * (rate * (1 - rate) + z2 / (4 * n)) / n)) / (1 + z2 / n)
