"""The table of measures: one row a measure. Reports, benchmark tables and docs read what a measure is from its row.

What a row is stands in `measure.py`; the rows on what is left inside a network in `left.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax

from delete_jax.given import choice, is_truth, listed, scalar, shown
from delete_jax.metrics.accuracy import accuracy, aus, hmean_drop, hmean_residual, per_class
from delete_jax.metrics.distances import agreement, jensen_shannon, total_variation
from delete_jax.metrics.left import LEFT
from delete_jax.metrics.measure import ARROWS, SHOWN, Measure, before, beside
from delete_jax.metrics.overlap import iou, mean_iou, predicted_fraction, without_rows
from delete_jax.nearest import nearest
from delete_jax.non_finite import NonFiniteError
from delete_jax.plugins import Table


def measure(evidence: Any, names: Iterable[str]) -> dict[str, Any]:
    """Computes measures by name on the evidence, nested at the dots of the names. Measures without a value are left out.

    Args:
      evidence: on one network, as the rows read it.
      names: of rows of `MEASURES`: one, or several.

    Raises:
      ValueError: an unknown name; a measure whose function fails on this evidence, or that returns no number. Names the measure.
      NonFiniteError: the network answers NaN or infinity.
    """
    found: dict[str, Any] = {}
    for name in listed(names, "names"):
        if (value := _value(find(name), evidence)) is not None:
            *parents, last = name.split(".")
            inner = functools.reduce(lambda part, key: part.setdefault(key, {}), parents, found)
            inner[last] = value
    return found


def find(name: Any) -> Measure:
    """Finds the row of `MEASURES` with that name.

    Raises:
      ValueError: there is none, and says which name is close; or the row, which others may have added, is none.
    """
    if not isinstance(name, str) or name not in MEASURES:
        hint = nearest(name, MEASURES)
        raise ValueError(f"unknown measure {shown(name)}{hint}: give one that `delete-jax --list=measures` shows")
    row = MEASURES[name]
    if not isinstance(row, Measure) or row.name != name:
        raise ValueError(f"MEASURES[{name!r}] must be a Measure of that name, got {shown(row)}")
    choice(f"direction of the measure {name}", row.direction, ARROWS)
    choice(f"show of the measure {name}", row.show, SHOWN)
    return row


def _value(row: Measure, evidence: Any) -> Any:
    """What a row's function returns for the evidence: a number, or None."""
    try:
        value = scalar(row.function(evidence))
    except (OSError, MemoryError, jax.errors.JaxRuntimeError, NonFiniteError):  # not its fault
        raise
    except Exception as error:
        raise ValueError(f"measure {row.name}: {type(error).__name__}: {' '.join(str(error).split())}") from error
    if value is not None and (is_truth(value) or not isinstance(value, (int, float))):
        raise ValueError(f"measure {row.name}: its function must return a number, or None, got {shown(value)}")
    return value


def look_up(figures: Mapping[str, Any], name: str) -> Any:
    """Looks up the value of a measure in a network's metrics; None if it was not measured."""
    value: Any = figures
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


# ------------------------------------------------------------------------------------------------- a class per image

_ANSWERS = (
    Measure("acc_ft", lambda e: accuracy(e.confusion, e.forget), "down", "percent",
            "Accuracy, test images", "forgotten, test",
            "Erased test images still predicted as their own class."),
    Measure("acc_f", lambda e: accuracy(e.train_confusion, e.forget), "down", "percent",
            "Accuracy, training images", "forgotten, train",
            "The same share of their training images, the forget samples."),
    Measure("any_forgotten", lambda e: float(e.absorbed_by[list(e.gone)].sum()), "down", "percent",
            "Predicted as any erased class", "any forgotten",
            "Erased test images predicted as any erased class, not only their own."),
    Measure("forget_mass", lambda e: e.forget_mass, "down", "percent",
            "Probability left", "probability left",
            "Mean probability of the erased classes on their test images; finer than counting predictions."),
    Measure("acc_erased_before", lambda e: _most(per_class(e.confusion_before), e.before), "down", "percent",
            "Accuracy on a class erased before", "erased before, test",
            "Test images of a class that an earlier request erased, predicted as it; of several, the highest share, so that none is hidden.",
            "Classes that this request erases again do not count. No other measure reads samples of the others. Without any, it is not "
            "measured."),
    Measure("acc_rt", lambda e: accuracy(e.confusion, e.remain), "up", "percent",
            "Accuracy, test images", "remaining, test",
            "Test images of the remaining classes predicted correctly."),
    Measure("acc_r", lambda e: accuracy(e.train_confusion, e.remain), "up", "percent",
            "Accuracy, training images", "remaining, train",
            "The same share of their training images."),
    Measure("hmean_residual", lambda e: hmean_residual(acc_rt=_acc(e, "remain"), acc_ft=_acc(e, "forget")), "up", "number",
            "Harmonic mean, residual", "H-Mean, residual",
            "Harmonic mean of the accuracy on the remaining classes and one minus that on the erased ones."),
    Measure("hmean_drop",
            before(lambda e, o: hmean_drop(acc_rt=_acc(e, "remain"), acc_ft=_acc(e, "forget"), original_acc_ft=_acc(o, "forget"))),
            "up", "number",
            "Harmonic mean, drop", "H-Mean, drop",
            "Harmonic mean of the accuracy on the remaining classes and its drop on the erased ones."),
    Measure("aus",
            before(lambda e, o: aus(acc_rt=_acc(e, "remain"), acc_ft=_acc(e, "forget"), original_acc_rt=_acc(o, "remain"))),
            "up", "number",
            "Adaptive unlearning score", "AUS",
            "One minus the accuracy lost on the remaining classes, divided by one plus that left on the erased ones."),
)  # fmt: skip


def _most(accuracies: Sequence[float | None], classes: Sequence[int]) -> float | None:
    """The largest value of some classes, of which some may have none (None or NaN)."""
    found = [float(value) for class_ in classes if (value := accuracies[class_]) is not None and value == value]
    return max(found, default=None)


def _acc(evidence: Any, part: str) -> float:
    return accuracy(evidence.confusion, getattr(evidence, part))


def _distance(function: Callable[[Any, Any], float], part: str) -> Callable[[Any], Any]:
    return beside(lambda e, r: function(e.probabilities(part), r.probabilities(part)))


_DISTANCES = tuple(
    Measure(f"distance_to_retrained.{part}.{key}",
            _distance(function, part),
            direction, how, f"{title}, {'erased' if part == 'forget' else 'other'} images",
            f"{short} retrained, {'forgotten' if part == 'forget' else 'remaining'}{unit}", text)
    for part in ("forget", "remain")
    for key, function, direction, how, title, short, unit, text in (
        ("total_variation", total_variation, "down", "number", "Total variation", "TV to", "",
         "Probability that must move between classes to make both predictions the same; 0 to 1."),
        ("jensen_shannon", jensen_shannon, "down", "nats", "Jensen-Shannon", "JS to", " (nats)",
         "Jensen-Shannon divergence of both predictions, in nats; 0 to 0.693."),
        ("agreement", agreement, "up", "percent", "Same prediction", "same prediction as", "",
         "Test images for which both networks predict the same."),
    )
)  # fmt: skip

_ATTACK = (
    Measure("mia", lambda e: e.attack.called_members, "down", "percent",
            "Predicted as members", "predicted as members",
            "Erased training images that an attack on the confidence predicts as members of the training data."),
    Measure("mia_accuracy", lambda e: e.attack.accuracy, "", "percent",
            "Accuracy of that attack", "attack accuracy",
            "Accuracy of this attack on images not to be forgotten; near 50 %, it means nothing."),
)  # fmt: skip


_COST = (
    Measure("seconds", lambda e: e.seconds, "down", "seconds", "Time", "seconds",
            "Wall clock of preparation and steps, without compilation, evaluation and saving."),
    Measure("speedup", beside(lambda e, r: r.seconds / e.seconds if e.seconds and r.seconds else None), "up", "times",
            "Faster than retraining", "× faster than retraining",
            "Time of retraining divided by that of unlearning."),
)  # fmt: skip

# ------------------------------------------------------------------------------------------------- single samples

_SAMPLES = (
    Measure("acc_listed", lambda e: e.right(e.listed), "", "percent",
            "Accuracy, forgotten samples", "forgotten samples",
            "Training images to forget predicted correctly; a network that never saw them recognises most."),
    Measure("acc_listed_old_statistics", lambda e: e.old_statistics_accuracy, "", "percent",
            "Accuracy, forgotten samples, with the original's running statistics", "forgotten samples, original's statistics",
            "The same accuracy with the original's running statistics put back."),
    Measure("acc_unlisted", lambda e: e.right(~e.listed), "up", "percent",
            "Accuracy, remaining samples", "remaining samples",
            "The other training images predicted correctly."),
    Measure("acc_test", lambda e: accuracy(e.confusion, e.remain), "up", "percent",
            "Accuracy, test images", "test",
            "Test images of all classes predicted correctly."),
)  # fmt: skip

# ------------------------------------------------------------------------------------------------- a class per pixel

_PIXELS = (
    Measure("iou_f", lambda e: mean_iou(e.confusion, e.forget), "down", "number",
            "IoU", "IoU, erased",
            "Intersection over union of the erased class's pixels and those predicted as it; mean over classes."),
    Measure("iou_old_statistics", lambda e: e.old_statistics_iou, "down", "number",
            "IoU with the original's running statistics", "IoU, erased, original's statistics",
            "The same IoU with the original's running statistics put back."),
    Measure("iou_erased_before", lambda e: _most(iou(e.confusion).tolist(), e.before), "down", "number",
            "IoU of a class erased before", "IoU, erased before",
            "IoU of a class that an earlier request erased; of several, the highest."),
    Measure("predicted_f", lambda e: predicted_fraction(e.confusion, e.forget), "down", "percent",
            "Pixels predicted as erased", "pixels predicted as erased",
            "Fraction of all test pixels predicted as an erased class."),
    Measure("miou_r", lambda e: mean_iou(without_rows(e.confusion, e.gone), e.others), "up", "number",
            "mIoU", "mIoU, remaining",
            "Mean IoU of the remaining classes, without background and pixels of the erased class."),
    Measure("miou_r_counted", lambda e: mean_iou(e.confusion, e.others), "up", "number",
            "mIoU, erased pixels counted", "mIoU, remaining, erased pixels counted",
            "The same mean, with pixels of the erased class counted against the classes they become."),
    Measure("iou_background",
            lambda e: None if e.background is None else float(iou(without_rows(e.confusion, e.gone))[e.background]),
            "up", "number", "IoU of the background", "IoU, background",
            "IoU of the background, without pixels of the erased class."),
    Measure("pixel_accuracy", lambda e: _diagonal(without_rows(e.confusion, e.gone)), "up", "percent",
            "Pixel accuracy", "pixel accuracy",
            "Fraction of the pixels predicted correctly, without those of the erased class."),
    Measure("to_background", lambda e: None if e.background is None else float(e.absorbed_by[e.background]), "", "percent",
            "Erased pixels predicted as background", "erased pixels that become background",
            "Erased test pixels predicted as background."),
    Measure("same_as_retrained", beside(lambda e, r: e.agreement(r)), "up", "percent",
            "Erased pixels predicted as by the retrained network", "erased pixels predicted as by the retrained (ignored)",
            "Erased test pixels predicted as by the network retrained with these pixels ignored."),
)  # fmt: skip


def _diagonal(confusion: Any) -> float:
    return float(confusion.trace() / max(confusion.sum(), 1))


# ------------------------------------------------------------------------------------------------- a planted trigger


def _trigger(
    name: str, part: str, rows: str, column: str, direction: str, title: str, short: str, text: str
) -> Measure:
    def function(e: Any) -> float:
        confusion, classes = getattr(e, part), getattr(e, rows)
        if column == "target":
            return float(confusion[classes, e.target].sum() / confusion[classes].sum())
        return accuracy(confusion, classes)

    return Measure(name, function, direction, "percent", title, short, text)


_TRIGGER = (
    _trigger("asr", "stamped", "others", "target", "down", "Attack success", "attack success",
             "Test images of other classes, with the trigger, predicted as the target. The floor, a network never poisoned, also predicts it now and then."),
    Measure("asr_old_statistics", lambda e: e.old_success, "down", "percent",
            "Attack success with the original's running statistics", "attack success, original's statistics",
            "The same attack success with the original's running statistics put back."),
    _trigger("acc_stamped", "stamped", "others", "own", "up", "Accuracy with the trigger", "accuracy with the trigger",
             "The same images, predicted as their true class."),
    _trigger("acc", "clean", "all", "own", "up", "All classes", "all classes, clean",
             "Clean test images predicted correctly."),
    _trigger("acc_target", "clean", "targets", "own", "up", "The target class", "target, clean",
             "Clean test images of the target predicted correctly; a careless defence erases these."),
    _trigger("acc_others", "clean", "others", "own", "up", "The other classes", "other classes, clean",
             "Clean test images of all other classes predicted correctly."),
)  # fmt: skip

# ------------------------------------------------------------------------------------------------- two images, one person?

VERIFIED = ("forgotten", "remaining", "unseen")
"""The groups of people whose images are verified."""


def _verified(evidence: Any, group: str, key: str) -> float:
    return evidence.verification[group][key]


_VERIFICATION = tuple(
    Measure(f"verification.{group}.{key}", functools.partial(_verified, group=group, key=key), direction, how,
            f"{title}, {group} people", f"{short}, {group}", text)
    for group in VERIFIED
    for key, direction, how, title, short, text in (
        ("genuine", "", "number", "Cosine, same person", "genuine", "Mean cosine of two images of one person."),
        ("impostor", "", "number", "Cosine, different people", "impostor", "Mean cosine of images of two people."),
        ("eer", "", "percent", "Equal error rate", "EER",
         "Error rate where false acceptance of different people equals false rejection of the same person."),
        ("tar", "", "percent", "Accepted at 1 % false", "TAR at 1 %",
         "Pairs of one person accepted at the threshold that accepts 1 % of the pairs of different people."),
        ("rank_one", "", "percent", "Nearest is the same person", "rank one",
         "Images whose nearest other image shows the same person."),
    )
)  # fmt: skip

MEASURES: Table[Measure] = Table(
    "measures",
    {
        row.name: row
        for rows in (_ANSWERS, _DISTANCES, _ATTACK, LEFT, _COST, _SAMPLES, _PIXELS, _TRIGGER, _VERIFICATION)
        for row in rows
    },
    lambda row: isinstance(row, Measure),
)
"""Every measure by its name."""
