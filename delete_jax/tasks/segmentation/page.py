"""The page of a run that erased classes of pixels: IoU for accuracy, and maps for samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from delete_jax import reports
from delete_jax.data.dataset import IGNORE
from delete_jax.reports import COLORS, Parts, Picture, PictureRow, Point, Verdict, metric, number, percent

if TYPE_CHECKING:
    from delete_jax.tasks.segmentation.measures import MapExamples

ERASED, PARTLY, COST = 0.02, 0.10, 0.02  # IoU left of an erased class, and mIoU lost by the others
CLASS_COST = 0.05  # IoU lost by one of the others
TITLES = {
    "original": "original",
    "retrained": "retrained, erased pixels ignored",
    "retrained_background": "retrained, erased pixels background",
    "unlearned": "unlearned",
}
GROUPS: reports.MeasureGroups = {
    "The erased class": (
        "iou_f",
        "iou_old_statistics",
        "iou_erased_before",
        "predicted_f",
        "to_background",
        "same_as_retrained",
    ),
    "Everything else": ("miou_r", "miou_r_counted", "iou_background", "pixel_accuracy"),
}
LIMITS = [
    Point("The answers forget, the inside may not.", "This report is about what the network answers."),
    Point("Measured on this test set.", "Other images, altered images or attacks may be answered differently."),
    Point("Erased pixels must become something.", "DELETE leaves that to the original network, which answers with the class "
          "that they resemble most; a network retrained with those pixels as background answers background."),
    Point("One run.", "Small differences may be chance; a claim about the method needs several seeds."),
    Point("Nothing else is deleted.", "The original checkpoint, the images, their copies and backups still exist unless "
          "deleted separately. The method is approximate; this page is evidence, not a proof."),
]  # fmt: skip


def parts(record: dict[str, Any], examples: MapExamples) -> Parts:
    """Composes the page.

    Args:
      record: of the run, as `delete_jax.reports.record` describes it, with metrics from `tasks.segmentation.measures`.
      examples: images and maps to show.

    Raises:
      ValueError: metrics are missing, or a shape does not fit the number of classes.
    """
    k = len(record["dataset"]["class_names"])
    needed = dict.fromkeys(("iou_f", "predicted_f", "miou_r", "pixel_accuracy"), ())
    reports.check_metrics(record, {**needed, "per_class": (k,), "absorbed_by": (k,)})
    reports.check_images(examples.images, examples.labels)
    return Parts(
        verdict(record),
        [
            _card(record, "iou_f", "IoU of the erased class"),
            _card(record, "predicted_f", "Pixels predicted as erased"),
            _card(record, "miou_r", "Mean IoU of the others"),
            _card(record, "pixel_accuracy", "Pixel accuracy"),
            reports.time_card(record),
        ],
        [
            reports.provenance(record, TITLES),
            reports.comparison(record, GROUPS, TITLES),
            reports.process(record, "Pixel accuracy while unlearning"),
            _class_by_class(record),
            _maps(record, examples),
        ],
        LIMITS,
    )


def verdict(record: dict[str, Any]) -> Verdict:
    """Says in plain words, from the numbers alone, whether the run did what it should: at most 0.02 of IoU left, also
    with the original's running statistics put back, and 0.02 lost."""
    networks, forgotten = record["networks"], record["forget"]["classes"]
    before, after = networks["original"]["metrics"], networks["unlearned"]["metrics"]
    left, lost = after["iou_f"], before["miou_r"] - after["miou_r"]
    inside = after.get("iou_old_statistics") or 0.0
    label, level = "Erased", "good"
    if left <= ERASED < inside:
        label, level = "Hidden, not erased", "bad" if max(inside, lost) > PARTLY else "warning"
    elif left > PARTLY:
        label, level = "Not erased", "bad"
    elif left > ERASED:
        label, level = "Partly erased", "warning"
    elif lost > COST:
        label, level = "Erased at a cost", "bad" if lost > PARTLY else "warning"
    earlier, was, now = (
        record["forget"].get("erased", []),
        before.get("iou_erased_before"),
        after.get("iou_erased_before"),
    )
    back = None not in (was, now) and now - was > ERASED
    if back and level != "bad":
        label, level = "An erased class came back", "bad" if now > PARTLY else "warning"
    said = f"IoU of {reports.quoted(record)}: {number(left)} ({number(before['iou_f'])} before)"
    reference = metric(record, "retrained", "miou_r")
    beside = "" if reference is None else f"; {number(reference)} retrained from scratch"
    said += f"; mean IoU of the other classes: {number(after['miou_r'])} ({number(before['miou_r'])} before{beside})"
    names = record["dataset"]["class_names"]
    if earlier and now is not None:
        listed = ", ".join(f"“{names[c]}”" for c in earlier)
        said += f"; {listed}, erased before: IoU of at most {number(was)} → {number(now)}"
    elif earlier:
        said += f"; {reports.unmeasured([names[c] for c in earlier])}"
    said += "."
    notes = []
    if back:
        notes.append(
            "This request brought back what an earlier one erased. Do not present this network as one that forgot both."
        )
    if left <= ERASED < inside:
        notes.append(f"The weights still know it: with the original's running statistics put back, its IoU is {number(inside)}. Unlearn "
                     "with frozen statistics, or with anchors.")  # fmt: skip
    if left > ERASED:
        notes.append(f"Erasing is not complete: {percent(after['predicted_f'])} of all pixels are still called so.")
    paid = []
    if lost > COST:
        paid.append(f"The others lost {lost:.3f} of mean IoU. A smaller learning rate or fewer steps may keep it.")
    for i, (was, now) in enumerate(zip(before["per_class"], after["per_class"], strict=True)):
        if i not in (*forgotten, *earlier) and None not in (was, now) and was - now > CLASS_COST:
            paid.append(f"“{names[i]}” lost {was - now:.3f} of IoU, from {number(was)} to {number(now)}.")
    notes += paid
    if "retrained" not in networks:
        notes.append("No retrained reference was made: what a network that never saw the class would do is not known.")
    return Verdict(level, label, said, notes, lost=paid)


def _card(record: dict[str, Any], name: str, title: str) -> reports.Card:
    return reports.measure_card(record, name, title, TITLES)


def _class_by_class(record: dict[str, Any]) -> reports.Section:
    names, forgotten = [reports.short(name) for name in record["dataset"]["class_names"]], record["forget"]["classes"]
    absorbed = reports.network_series(record, "absorbed_by", TITLES)
    del absorbed["original"]
    top = reports.most_frequent({name: series.values for name, series in absorbed.items()})
    text = "What the test pixels of the erased class become."
    if "retrained_background" in absorbed:
        text += " The two references were told different things about them: nothing, or that they are background."
    goes = reports.bars("Where the erased pixels go", text, list(absorbed.values()), top, names, forgotten)
    overlap = reports.network_series(record, "per_class", TITLES)
    shown = reports.most_changed(overlap["original"].values, overlap["unlearned"].values, forgotten)
    text = "✕ marks what was erased."
    each = reports.bars("IoU of each class", text, list(overlap.values()), shown, names, forgotten)
    return reports.Section("Class by class", [reports.Figures([goes, each])])


def _maps(record: dict[str, Any], examples: MapExamples) -> reports.Section:
    """A row per image: image, truth, and each network's map; the erased class in its own strong colour."""
    if not len(examples.images):
        return reports.Section("Samples before and after", [])
    names, forgotten = record["dataset"]["class_names"], record["forget"]["classes"]
    networks = reports.present(record, TITLES)
    palette = _palette(len(names), forgotten)
    rows = []
    for i, image in enumerate(examples.images):
        truth = np.where(examples.labels[i] == IGNORE, len(names), examples.labels[i])
        pictures = [Picture(image, "Test image"), Picture(palette[truth], "True classes")]
        pictures += [
            Picture(palette[examples.answers[name][i]], f"Answer of the {called} network")
            for name, called in networks.items()
        ]
        rows.append(PictureRow(pictures))
    used = sorted({*np.unique(examples.labels[examples.labels < len(names)]).tolist(), *forgotten})
    keys = [reports.Key(f"#{bytes(palette[c]).hex()}", reports.mark(names[c], c in forgotten)) for c in used]
    pictured = reports.Pictures("Images", ["image", "truth", *networks.values()], rows)
    return reports.Section("Samples before and after", [reports.Legend(keys), pictured])


def _palette(num_classes: int, forgotten: list[int]) -> np.ndarray:
    """Colours uint8 `[k + 1, 3]` of the classes, and grey for pixels that do not count."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    palette = np.array([[20, 24, 30], *(255 * np.array(colormaps["tab20"](i % 20)[:3]) for i in range(1, num_classes))])
    for i, class_ in enumerate(forgotten):
        palette[class_] = 255 * np.array(to_rgb(COLORS["forget"][0])) * (1 - 0.25 * (i % 3))
    return np.concatenate([palette, [[128, 128, 128]]]).astype(np.uint8)
