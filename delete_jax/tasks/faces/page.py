"""The page of a run that forgot people: that of erased classes, with verification and where the networks look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from delete_jax import metrics, reports
from delete_jax.reports import COLORS, Panel, Parts, Verdict
from delete_jax.tasks.classification import page
from delete_jax.tasks.classification.left import Erased, still_found
from delete_jax.tasks.faces.measures import FaceExamples, mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

VERIFICATION: reports.MeasureGroups = {
    f"{group.capitalize()} people": tuple(
        f"verification.{group}.{name}" for name in ("genuine", "impostor", "eer", "tar", "rank_one")
    )
    for group in metrics.VERIFIED
}


def parts(record: dict[str, Any], examples: FaceExamples) -> Parts:
    """Composes the page.

    Args:
      record: as for erased classes; every network's metrics also have `verification`, by group of people.
      examples: test images, the cosines of pairs of images, and the networks' Grad-CAM maps.

    Raises:
      ValueError: metrics are missing, or a shape does not fit the number of classes.
    """
    common = page.parts(record, examples.common, VERIFICATION)
    forgotten = reports.Point(
        "Retraining barely removes verifiability.",
        "The features generalise to people that were never seen, so two images of a forgotten person can still be told to show "
        "the same one: never claim that a person cannot be verified.",
    )
    return common._replace(
        verdict=verdict(record),
        sections=[*common.sections, _verification(record, examples), _reasons(record, examples)],
        limits=[forgotten, *common.limits],
    )


def verdict(record: dict[str, Any]) -> Verdict:
    """Says in plain words, from the numbers alone, whether the people were forgotten: the verdict on erased classes."""
    people = Erased("a forgotten person's image", "the forgotten people's images", "person")
    return page.verdict(record)._replace(further=still_found(record, people))


def _verification(record: dict[str, Any], examples: FaceExamples) -> reports.Section:
    text = (
        "Pairs of test images, by the cosine of their features. A person who was forgotten should be as hard to verify as "
        "for the retrained network, and everybody else as easy as before."
    )
    table = reports.measure_table(record, VERIFICATION, label="Verification")
    return reports.Section(
        "Same person or not", [reports.Text(text), table, reports.Figures(_panels(record, examples))]
    )


def _panels(record: dict[str, Any], examples: FaceExamples) -> list[Panel]:
    after = examples.scores["unlearned"]
    colors = reports.network_colors(reports.present(record))

    def histogram(ax: Axes) -> None:
        shown = [scores for group in ("forgotten", "remaining") for scores in after[group] if len(scores)]
        lowest = min((float(scores.min()) for scores in shown), default=-1.0)
        bins = np.linspace(lowest, 1, 50)
        for group, color in (("forgotten", "forget"), ("remaining", "remain")):
            for kind, line in (("genuine", "-"), ("impostor", "--")):
                values = getattr(after[group], kind)
                if not len(values):  # one image a person: no two of the same
                    continue
                ax.hist(values, bins, density=True, histtype="step", color=COLORS[color][0], linestyle=line,
                        label=f"{group}, {'same' if kind == 'genuine' else 'different'}")  # fmt: skip
        ax.set_xlabel("cosine")
        ax.set_yticks([])
        if ax.has_data():
            ax.legend(loc="upper left")

    def curves(ax: Axes) -> None:
        from matplotlib.ticker import NullLocator, PercentFormatter

        for name, groups in examples.scores.items():
            for group, line in (("forgotten", "-"), ("remaining", ":")):
                if not all(map(len, groups[group])):
                    continue
                false, true = metrics.roc(groups[group])
                keep = np.unique(np.linspace(0, len(false) - 1, 400).astype(int))
                ax.plot(false[keep], true[keep], line, color=COLORS[colors[name]][0], label=f"{name}, {group}")
        ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="different people accepted", ylabel="same accepted")
        ax.set_xscale("symlog", linthresh=1e-3)
        ax.set_xticks([0, 1e-3, 1e-2, 1e-1, 1], ["0", "0.1 %", "1 %", "10 %", "100 %"], minor=False)
        ax.xaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %", decimals=0))
        ax.grid()
        if ax.lines:
            ax.legend(loc="lower right")

    cosines = "; ".join(
        f"{group} people: the same person {reports.number(mean(scores.genuine))} on average, different people "
        f"{reports.number(mean(scores.impostor))}"
        for group, scores in after.items()
    )
    accepted = "; ".join(
        f"{name}, {group} people: {reports.percent(metrics.true_acceptance(groups[group]))} accepted at 1 % false"
        for name, groups in examples.scores.items()
        for group in ("forgotten", "remaining")
    )
    text = "Pairs of images of the same person, and of two."
    further = "The further up and left, the better people are told apart."
    return [
        Panel("Cosines after unlearning", text, f"Histogram. {cosines}", 2.8, histogram),
        Panel("Acceptance", further, f"ROC curves. {accepted}", 2.8, curves),
    ]


def _reasons(record: dict[str, Any], examples: FaceExamples) -> reports.Section:
    """Grad-CAM over the images, a column for each network; empty where there are no maps."""
    if not examples.maps:
        return reports.Section("Where the network looks", [])
    names, forgotten = record["dataset"]["class_names"], record["forget"]["classes"]
    rows = []
    for i, image in enumerate(examples.images):
        label = int(examples.labels[i])
        pictures = [reports.Picture(image, "Test image")]
        pictures += [
            reports.Picture(_glow(image, maps[i]), f"Reasons of the {name} network")
            for name, maps in examples.maps.items()
        ]
        rows.append(reports.PictureRow(pictures, reports.mark(names[label], label in forgotten)))
    text = "Grad-CAM for the true person: bright is what speaks for them; dark means that nothing does."
    pictured = reports.Pictures("Grad-CAM", ["person", "image", *examples.maps], rows)
    return reports.Section("Where the network looks", [reports.Text(text), pictured])


def _glow(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The image `[h, w, c]` with a map `[h', w']` over it, relative to its maximum."""
    from matplotlib import colormaps

    heat = heat / max(float(heat.max()), 1e-12)
    rows, columns = (np.arange(n) * m // n for n, m in zip(image.shape[:2], heat.shape, strict=True))
    glow = 255 * colormaps["inferno"](heat[rows][:, columns])[..., :3]
    return (0.45 * (image if image.shape[-1] == 3 else image[..., :1]) + 0.55 * glow).astype(np.uint8)
