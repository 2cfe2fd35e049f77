"""The report of a run that forgot people: the common one, with verification and where the network looks."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator, PercentFormatter

from delete_jax import metrics, report
from delete_jax.metrics import Scores
from delete_jax.report import COLORS, Examples, Panel, percent
from delete_jax.tasks.faces import GROUPS

COLUMNS = (("eer", "equal error rate"), ("tar", "accepted at 1 % false"), ("rank_one", "nearest is the same person"))


class FaceExamples(NamedTuple):
    """scores: by network and group. images uint8 `[m, h, w, c]` with labels `[m]` and each network's Grad-CAM maps
    `[m, h', w']` for the true person."""

    scores: dict[str, dict[str, Scores]]
    images: np.ndarray
    labels: np.ndarray
    maps: dict[str, np.ndarray]


def write_report(record: dict[str, Any], examples: Examples, faces: FaceExamples, directory: Path) -> None:
    """Writes `report.html`, `report.png` and `report.json`, as `report.write_report` does.

    Args:
      record: as there; every network's metrics also have `verification`, by group, from `tasks.faces.measure`.
      examples, directory: as there.
      faces: what is shown of verification and of the networks' reasons.
    """

    def parts(record: dict[str, Any]) -> report.Parts:
        common = report.common_parts(record, examples)
        forgotten = (
            ("Retraining barely removes verifiability.", "The features generalise to people that were never seen, so two images "
             "of a forgotten person can still be told to show the same one: never claim that a person cannot be verified."),
        )  # fmt: skip
        return common._replace(
            sections=[
                ("Same person or not", _verification(record) + _grid(_panels(faces))),
                ("Where the network looks", _cams(record, faces)),
            ],
            limits=[*forgotten, *common.limits],
        )

    report.write_files(record, directory, parts)


def _verification(record: dict[str, Any]) -> str:
    present = list(record["networks"])
    body = ""
    for group in GROUPS:
        head = (
            f'<tr class="group"><th colspan="{len(present) + 1}" scope="rowgroup">{group.capitalize()} people</th></tr>'
        )
        rows = ""
        for key, text in COLUMNS:
            cells = "".join(
                f'<td class="{name}">{percent(record["networks"][name]["metrics"]["verification"][group][key])}</td>'
                for name in present
            )
            rows += f'<tr><th scope="row">{text.capitalize()}</th>{cells}</tr>'
        body += f"<tbody>{head}{rows}</tbody>"
    text = (
        "Pairs of test images, by the cosine of their features. A person who was forgotten should be as hard to verify as "
        "for the retrained network, and everybody else as easy as before."
    )
    return f"<p>{text}</p>" + report.table(["Measure", *present], body, "Verification", "numbers compare")


def _panels(faces: FaceExamples) -> list[Panel]:
    after = faces.scores["unlearned"]

    def histogram(ax: Axes) -> None:
        lowest = min(float(scores.min()) for group in ("forgotten", "remaining") for scores in after[group])
        bins = np.linspace(lowest, 1, 50)
        for group, color in (("forgotten", "forget"), ("remaining", "remain")):
            for kind, line in (("genuine", "-"), ("impostor", "--")):
                values = getattr(after[group], kind)
                ax.hist(values, bins, density=True, histtype="step", color=COLORS[color][0], linestyle=line,
                        label=f"{group}, {'same' if kind == 'genuine' else 'different'}")  # fmt: skip
        ax.set_xlabel("cosine")
        ax.set_yticks([])
        ax.legend(loc="upper left")

    def curves(ax: Axes) -> None:
        for name, groups in faces.scores.items():
            for group, line in (("forgotten", "-"), ("remaining", ":")):
                false, true = metrics.roc(groups[group])
                keep = np.unique(np.linspace(0, len(false) - 1, 400).astype(int))
                ax.plot(false[keep], true[keep], line, color=COLORS[name][0], label=f"{name}, {group}")
        ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="different people accepted", ylabel="same accepted")
        ax.set_xscale("symlog", linthresh=1e-3)
        ax.set_xticks([0, 1e-3, 1e-2, 1e-1, 1], ["0", "0.1 %", "1 %", "10 %", "100 %"], minor=False)
        ax.xaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %", decimals=0))
        ax.grid()
        ax.legend(loc="lower right")

    return [
        Panel(
            "faces",
            "Cosines after unlearning",
            "Pairs of images of the same person, and of two.",
            "Histogram",
            2.8,
            histogram,
        ),
        Panel(
            "faces",
            "Acceptance",
            "The further up and left, the better people are told apart.",
            "ROC curves",
            2.8,
            curves,
        ),
    ]


def _grid(panels: list[Panel]) -> str:
    figures = "".join(report.figure(panel, f"f{i}") for i, panel in enumerate(panels))
    return f'<div class="grid">{figures}</div>'


def _cams(record: dict[str, Any], faces: FaceExamples) -> str:
    names = record["dataset"]["class_names"]
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in ("person", "image", *faces.maps))
    body = ""
    for i, image in enumerate(faces.images):
        colour = image if image.shape[-1] == 3 else np.repeat(image[..., :1], 3, -1)
        pictures = [colour]
        for maps in faces.maps.values():
            heat = maps[i] / max(float(maps[i].max()), 1e-12)
            rows, columns = (np.arange(n) * m // n for n, m in zip(image.shape[:2], heat.shape, strict=True))
            glow = 255 * colormaps["inferno"](heat[rows][:, columns])[..., :3]
            pictures.append((0.45 * colour + 0.55 * glow).astype(np.uint8))
        label = int(faces.labels[i])
        mark = "✕ " if label in record["forget"]["classes"] else ""
        cells = "".join(
            f'<td><img class="map" src="{report.image(picture)}" alt="{escape(text)}"></td>'
            for picture, text in zip(
                pictures, ("Test image", *(f"Reasons of the {n} network" for n in faces.maps)), strict=True
            )
        )
        body += f'<tr><th scope="row">{mark}{escape(names[label])}</th>{cells}</tr>'
    text = "Grad-CAM for the true person: bright is what speaks for them; dark means that nothing does."
    return (
        f'<p>{text}</p><div class="scroll" tabindex="0" role="region" aria-label="Grad-CAM"><table class="maps">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
