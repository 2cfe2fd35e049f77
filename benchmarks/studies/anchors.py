"""Do anchors make the learning rate matter less? `delete` against `anchored` over rates, batch norm modes and classes.

    python benchmarks/studies/anchors.py --config=configs/fashion_mnist.py --classes 1 3 6 9 --out=runs/anchors
    python benchmarks/studies/anchors.py --config=configs/digits.py:delete --classes 0 1 2 3 4 5 6 7 8 9 --out=runs/anchors_digits

The anchors' transformations are chosen first, on held-out training samples of the first seed's network, at the rates 1e-3
and 1e-2. Then every rate is run for every class, seed and mode; test accuracy is shown, beside the original and the network
retrained without the class. `anchors.md`, `anchors.json` and `anchors.png` are written to OUT; the same command again
continues.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import matplotlib
import numpy as np
from bench import Bench, Way
from matplotlib.figure import Figure
from script import make_parser, markdown, run_script, write
from study import Study

from delete_jax.reports.style import COLORS, STYLE
from delete_jax.tasks.base import ORIGINAL, RETRAINED

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
SETS = (("turn",), ("flip",), ("shift",), ("turn", "flip"), ("turn", "shift"), ("turn", "flip", "shift"))
CHOOSING_RATES = (1e-3, 1e-2)
MODES = ("train", "frozen")
# A rate serves a class when acc_ft is at most ERASED, and acc_rt at most LOST below the original's.
ERASED, LOST = 0.005, 0.01
REFERENCES = (ORIGINAL, RETRAINED)
NAMES = ("acc_ft", "acc_rt")
# Percent; below it a network is of no use, and the picture would show nothing else.
LOWEST = 80


def main() -> int:
    return run_script(make_parser(__doc__, classes=[]), run)


def run(options: argparse.Namespace) -> None:
    loaded = Bench(options, "classification", "faces")
    study = Study(name="anchors", bench=loaded, requests=options.classes, seeds=options.seeds, names=NAMES)
    scores = {names: choosing_score(study, names) for names in SETS}
    chosen = max(scores, key=lambda names: scores[names])
    listed = {" + ".join(names): score for names, score in scores.items()}
    print("; ".join(f"{names}: {score:.4f}" for names, score in listed.items()), flush=True)
    rows = []
    for forget in study.requests:
        for name in REFERENCES:
            rows.append(row(loaded.label(forget), name, "", None, study.reference(name, forget)))
        for mode in MODES:
            for name in ("delete", "anchored"):
                used = way(mode, chosen if name == "anchored" else ())
                cells = ((rate, study.final(used, rate, forget)) for rate in RATES)
                rows += [row(loaded.label(forget), name, mode, rate, found) for rate, found in cells]
    record = {"transformations": list(chosen), "scores": listed, "rows": rows}
    write(options.out, "anchors", text(rows, chosen, options.seeds), record)
    with matplotlib.rc_context(STYLE):
        draw(rows).savefig(options.out / "anchors.png", dpi=150)


def way(mode: str, transformations: tuple[str, ...]) -> Way:
    """`anchored` with these transformations; `delete` without any."""
    if not transformations:
        return Way(f"delete {mode}", {"method": "delete", "batch_norm": mode})
    settings = {"method": "anchored", "hyperparameters": {"transformations": transformations}, "batch_norm": mode}
    return Way(f"anchored {' '.join(transformations)} {mode}", settings)


def choosing_score(study: Study, transformations: tuple[str, ...]) -> float:
    return float(np.mean(list(study.held_out(way("train", transformations), CHOOSING_RATES).values())))


def row(label: str, method: str, mode: str, rate: float | None, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """A row with every seed's figures. Where a run diverged, the class is gone, and everything else."""
    values = {name: [cell.get(name, 0.0) for cell in cells] for name in NAMES}
    return {"class": label, "method": method, "mode": mode, "rate": rate, **values}


def text(rows: list[dict[str, Any]], chosen: tuple[str, ...], seeds: int) -> list[str]:
    """Means over classes and seeds by rate, the worst class, and how many of the classes each rate serves."""
    original = {row["class"]: np.mean(row["acc_rt"]) for row in rows if row["method"] == ORIGINAL}

    def cell(name: str, mode: str, rate: float) -> str:
        mine = [r for r in rows if (r["method"], r["mode"], r["rate"]) == (name, mode, rate)]
        left = np.array([np.mean(r["acc_ft"]) for r in mine])
        change = np.array([np.mean(r["acc_rt"]) - original[r["class"]] for r in mine])
        served = np.sum((left <= ERASED) & (change >= -LOST))
        return f"{100 * left.mean():.1f} / {100 * change.mean():+.1f} ({100 * change.min():+.1f}) / {served}"

    cells = [
        [mode, name, *(cell(name, mode, rate) for rate in RATES)] for mode in MODES for name in ("delete", "anchored")
    ]
    return [
        f"Anchors: {' + '.join(chosen)}. Means over {len(original)} classes and {seeds} seeds, percent of test samples.",
        "",
        *markdown(["batch norm", "method", *(f"{rate:g}" for rate in RATES)], cells),
        "",
        "Each cell: still recognised / change of the accuracy on the others, in points (worst class) / classes that the rate serves"
        f" (at most {100 * ERASED:g} % recognised, at most {100 * LOST:g} point lost).",
    ]


def draw(rows: list[dict[str, Any]]) -> Figure:
    """A panel per class and mode: accuracy on the others over the rate, mean and std; hollow where the class is left."""
    labels = list(dict.fromkeys(row["class"] for row in rows))
    columns = min(5, len(labels))
    lines = -(-len(labels) // columns)
    figure = Figure((2.3 * columns + 0.6, 2.1 * lines * len(MODES) + 0.6), layout="constrained")
    axes = figure.subplots(lines * len(MODES), columns, sharex=True, sharey="row", squeeze=False)
    for ax in axes.flat:
        ax.set_visible(False)
    for i, label in enumerate(labels):
        for m, mode in enumerate(MODES):
            ax = axes[m * lines + i // columns, i % columns]
            ax.set_visible(True)
            for name, style in zip(REFERENCES, (":", "--"), strict=True):
                (own,) = [100 * np.mean(r["acc_rt"]) for r in rows if (r["class"], r["method"]) == (label, name)]
                ax.axhline(own, color=COLORS[name][0], linestyle=style, linewidth=1, label=name)
            for name, color in (("delete", COLORS["unlearned"][0]), ("anchored", COLORS["forget"][0])):
                mine = [r for r in rows if (r["class"], r["method"], r["mode"]) == (label, name, mode)]
                rates, kept = [r["rate"] for r in mine], 100 * np.array([r["acc_rt"] for r in mine])
                ax.errorbar(rates, kept.mean(1), kept.std(1, ddof=1), color=color, marker="o", markersize=3, label=name)
                left = np.array([np.mean(r["acc_ft"]) > ERASED for r in mine])
                ax.plot(
                    np.array(rates)[left], kept.mean(1)[left], "o",
                    color="white", markeredgecolor=color, markersize=4, zorder=5,
                )  # fmt: skip
            ax.set_xscale("log")
            ax.set_xticks(RATES[::2], [f"{rate:g}" for rate in RATES[::2]])
            ax.set_ylim(LOWEST, 101)
            ax.set_title(f"{label}, {mode}")
            ax.grid(axis="y")
            ax.tick_params(labelbottom=True)
    for row_axes in axes:
        row_axes[0].set_ylabel("remaining, test, %")
    figure.supxlabel(f"learning rate (hollow: more than {100 * ERASED:g} % of the class still recognised)", fontsize=8)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=4)
    return figure


if __name__ == "__main__":
    sys.exit(main())
