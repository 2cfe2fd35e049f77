"""The report of a segmentation run: the same three files, with IoU for accuracy and pictures for samples."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_rgba

from delete_jax import report
from delete_jax.report import Card, Measures, Verdict, number, percent

ERASED, PARTLY, COST = 0.02, 0.10, 0.02  # IoU left of an erased class, and mIoU lost by the others
NETWORKS = {
    "original": "original",
    "retrained": "retrained, erased pixels ignored",
    "retrained_background": "retrained, erased pixels background",
    "unlearned": "unlearned",
}
MEASURES: Measures = {
    "The erased class": [
        ("IoU", "Overlap of the erased class's pixels with those called so; mean over the erased classes.",
         "down", number, ("iou_f",)),
        ("Pixels called so", "Fraction of all test pixels that are called an erased class.",
         "down", percent, ("predicted_f",)),
    ],
    "Everything else": [
        ("mIoU", "Mean over the other classes, without background; pixels of the erased class are left out.",
         "up", number, ("miou_r",)),
        ("mIoU, erased pixels counted", "The same with those pixels counted against the classes that they become.",
         "up", number, ("miou_r_counted",)),
        ("IoU of the background", "Pixels of the erased class are left out.", "up", number, ("iou_background",)),
        ("Pixels called rightly", "Pixels of the erased class are left out.", "up", percent, ("pixel_accuracy",)),
    ],
}  # fmt: skip


class MapExamples(NamedTuple):
    """Test images to show: uint8 `[m, h, w, c]`, true maps uint8 `[m, h, w]`, and each network's answers `[m, h, w]`."""

    images: np.ndarray
    labels: np.ndarray
    answers: dict[str, np.ndarray]


def write_report(record: dict[str, Any], examples: MapExamples, directory: Path) -> None:
    """Writes `report.html`, `report.png` and `report.json`, as `report.write_report` does.

    Args:
      record: as for `report.write_report`, with metrics from `tasks.segmentation.measure`; networks are the keys of
        `NETWORKS`, of which "original" and "unlearned" must be there.
      examples: images to show.
      directory: made if it is missing.
    """
    report.write_files(record, directory, lambda record: _parts(record, examples))


def verdict(record: dict[str, Any]) -> Verdict:
    """In plain words, from the numbers alone, whether the run did what it should: at most 0.02 of IoU left, 0.02 lost."""
    networks = record["networks"]
    before, after = networks["original"]["metrics"], networks["unlearned"]["metrics"]
    left, lost = after["iou_f"], before["miou_r"] - after["miou_r"]
    label, level = "Erased", "good"
    if left > PARTLY:
        label, level = "Not erased", "bad"
    elif left > ERASED:
        label, level = "Partly erased", "warning"
    elif lost > COST:
        label, level = "Erased at a cost", "bad" if lost > PARTLY else "warning"
    said = f"IoU of {report.quoted(record)}: {number(left)} ({number(before['iou_f'])} before)"
    reference = networks.get("retrained", {}).get("metrics")
    beside = f"; {number(reference['miou_r'])} retrained from scratch" if reference else ""
    said += f"; mean IoU of the other classes: {number(after['miou_r'])} ({number(before['miou_r'])} before{beside})."
    notes = []
    if left > ERASED:
        notes.append(f"Erasing is not complete: {percent(after['predicted_f'])} of all pixels are still called so.")
    if lost > COST:
        notes.append(f"The others lost {lost:.3f} of mean IoU. A smaller learning rate or fewer steps may keep it.")
    names = record["dataset"]["class_names"]
    for i, (was, now) in enumerate(zip(before["per_class"], after["per_class"], strict=True)):
        if i not in record["forget"]["classes"] and None not in (was, now) and was - now > 2.5 * COST:
            notes.append(f"“{names[i]}” lost {was - now:.3f} of IoU, from {number(was)} to {number(now)}.")
    if not reference:
        notes.append("No retrained reference was made: what a network that never saw the class would do is not known.")
    return Verdict(level, label, said, notes)


def _parts(record: dict[str, Any], examples: MapExamples) -> report.Parts:
    names = record["dataset"]["class_names"]
    present = [name for name in NETWORKS if name in record["networks"]]
    cost = record["cost"]
    after = record["networks"]["unlearned"]["metrics"]

    def beside(key: str, show) -> list[str]:
        return [f"{show(record['networks'][n]['metrics'][key])} {NETWORKS[n]}" for n in present if n != "unlearned"]

    cards = [
        Card("IoU of the erased class", number(after["iou_f"]), "down", beside("iou_f", number)),
        Card("Pixels called so", percent(after["predicted_f"]), "down", beside("predicted_f", percent)),
        Card("Mean IoU of the others", number(after["miou_r"]), "up", beside("miou_r", number)),
        Card("Pixels called rightly", percent(after["pixel_accuracy"]), "up", beside("pixel_accuracy", percent)),
        Card("Time to unlearn", report.seconds(cost["unlearn_seconds"]), "down", [report.faster(cost)]),
    ]
    forgotten, short = record["forget"]["classes"], [report.short(name) for name in names]
    panels = report.process_panels(record, "Pixels called rightly while unlearning")
    absorbed = {n: report.floats(record["networks"][n]["metrics"]["absorbed_by"]) for n in present[1:]}
    top = np.argsort(-np.max(list(absorbed.values()), axis=0), kind="stable")[:8].tolist()
    panels.append(report.bars_panel(
        "Where the erased pixels go", "What the test pixels of the erased class become. The two references were told different "
        "things about them: nothing, or that they are background.", absorbed, top, short, forgotten))  # fmt: skip
    per_class = {n: report.floats(record["networks"][n]["metrics"]["per_class"]) for n in present}
    shown = report.most_changed(per_class["original"], per_class["unlearned"], forgotten)
    panels.append(report.bars_panel(
        "IoU of each class", "✕ marks what was erased.", per_class, shown, short, forgotten))  # fmt: skip
    return report.Parts(
        verdict(record),
        cards,
        panels,
        report.measures_table(record, MEASURES, {name: NETWORKS[name] for name in present}),
        "",
        _pictures(record, examples, present),
        LIMITS,
    )


LIMITS = [
    ("The answers forget, the inside may not.", "This report is about what the network answers."),
    ("Measured on this test set.", "Other images, altered images or attacks may be answered differently."),
    ("Erased pixels must become something.", "DELETE leaves that to the original network, which answers with the class that "
     "they resemble most; a network retrained with those pixels as background answers background."),
    ("One run.", "Small differences may be chance; a claim about the method needs several seeds."),
    ("Nothing else is deleted.", "The original checkpoint, the images, their copies and backups still exist unless deleted "
     "separately. The method is approximate; this page is evidence, not a proof."),
]  # fmt: skip


def _pictures(record: dict[str, Any], examples: MapExamples, present: list[str]) -> str:
    """A row per image: image, truth, and each network's map; the erased class in its own strong colour."""
    names, forgotten = record["dataset"]["class_names"], record["forget"]["classes"]
    palette = np.array([[20, 24, 30], *(np.array(colormaps["tab20"](i % 20)[:3]) * 255 for i in range(1, len(names)))])
    for i, class_ in enumerate(forgotten):
        palette[class_] = np.array(to_rgba(report.COLORS["forget"][0])[:3]) * 255 * (1 - 0.25 * (i % 3))
    palette = np.concatenate([palette, [[128, 128, 128]]]).astype(np.uint8)
    columns = ["image", "truth", *present]
    head = "".join(f'<th scope="col">{escape(NETWORKS.get(column, column))}</th>' for column in columns)
    body = ""
    for i, image in enumerate(examples.images):
        truth = np.where(examples.labels[i] == 255, len(names), examples.labels[i])
        maps = [palette[truth], *(palette[examples.answers[name][i]] for name in present)]
        texts = ["Test image", "True classes", *(f"Answer of the {NETWORKS[name]} network" for name in present)]
        body += "<tr>" + "".join(
            f'<td><img class="map" src="{report.image(picture)}" alt="{escape(text)}"></td>'
            for picture, text in zip([image, *maps], texts, strict=True)
        ) + "</tr>"  # fmt: skip
    used = sorted(set(np.unique(examples.labels[examples.labels < len(names)])) | set(forgotten))
    legend = "".join(
        f'<span class="key"><span class="dot" style="background:#{bytes(palette[c]).hex()}"></span>'
        f"{'✕ ' if c in forgotten else ''}{escape(names[c])}</span>"
        for c in used
    )
    return (
        f'<p class="keys">{legend}</p><div class="scroll" tabindex="0" role="region" aria-label="Images">'
        f'<table class="maps"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )
