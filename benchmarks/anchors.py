"""Do anchors make the learning rate matter less? `delete` against `anchored` over rates, batch norm modes and classes.

    python benchmarks/anchors.py --config=configs/fashion_mnist.py --classes 1 3 6 9 --out=runs/anchors
    python benchmarks/anchors.py --config=configs/digits.py --classes 0 1 2 3 4 5 6 7 8 9 --out=runs/anchors_digits

The anchors' transformations are chosen first, on held-out training samples of the first seed's network, at the rates 1e-3
and 1e-2. Then every rate is run for every class, seed and mode; test accuracy is shown, beside the original and the network
retrained without the class. `anchors.md`, `anchors.json` and `anchors.png` are written to OUT; the same command again
continues.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from bench import Bench, reference, run_script
from matplotlib.figure import Figure

import delete_jax as dj
from delete_jax.report import COLORS, STYLE

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
SETS = (("turn",), ("flip",), ("shift",), ("turn", "flip"), ("turn", "shift"), ("turn", "flip", "shift"))
CHOOSING_RATES = (1e-3, 1e-2)
MODES = ("train", "frozen")
# A rate serves a class when acc_ft is at most ERASED, and acc_rt at most LOST below the original's.
ERASED, LOST = 0.005, 0.01
REFERENCES = ("original", "retrained")
# Percent; below it a network is of no use, and the picture would show nothing else.
LOWEST = 80


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="config file, optionally FILE:VARIANT")
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument("--classes", type=int, nargs="+", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    return run_script(parser, study)


def study(options: argparse.Namespace) -> None:
    bench = Bench(options.config, options.out)
    dataset = bench.dataset
    sets = [(class_,) for class_ in options.classes]
    networks = [bench.networks(seed, sets) for seed in range(options.seeds)]

    def unlearn(seed: int, method: dj.methods.Method, classes: tuple[int, ...], rate: float, mode: str):
        bench.config.unlearn.batch_norm = mode
        return bench.unlearn(networks[seed], method, classes, rate)

    def score(transformations: tuple[str, ...], classes: tuple[int, ...], rate: float) -> float:
        def compute() -> dict[str, float]:
            try:
                result = unlearn(0, dj.methods.anchored(transformations=transformations), classes, rate, "train")
            except dj.NonFiniteError:
                return {"score": 0.0}
            return bench.score(result.variables, classes)

        return bench.cell(f"choose-{'-'.join(transformations)}-{classes[0]}-{rate:g}", compute)["score"]

    scores = {
        transformations: float(np.mean([score(transformations, c, rate) for c in sets for rate in CHOOSING_RATES]))
        for transformations in SETS
    }
    chosen = max(scores, key=lambda transformations: scores[transformations])
    print("; ".join(f"{' + '.join(names)}: {value:.4f}" for names, value in scores.items()), flush=True)
    methods = {"delete": dj.methods.delete(), "anchored": dj.methods.anchored(transformations=chosen)}

    def measured(variables, classes: tuple[int, ...]) -> dict[str, float]:
        found = bench.accuracies(variables, dataset.test, classes)
        return {"acc_ft": found["acc_f"], "acc_rt": found["acc_r"]}

    def cell(name: str, mode: str, classes: tuple[int, ...], rate: float, seed: int) -> dict[str, float]:
        def compute() -> dict[str, float]:
            try:
                return measured(unlearn(seed, methods[name], classes, rate, mode).variables, classes)
            except dj.NonFiniteError:  # the class is gone, and everything else
                return {"acc_ft": 0.0, "acc_rt": 0.0}

        key = name if name == "delete" else f"{name}-{'-'.join(chosen)}"
        return bench.cell(f"{key}-{mode}-{classes[0]}-{rate:g}-seed{seed}", compute)

    rows: list[dict[str, Any]] = []
    for classes in sets:
        label = dataset.class_names[classes[0]]
        for name in REFERENCES:
            trained = [reference(networks, seed, name, classes) for seed in range(options.seeds)]
            found = [measured(network.variables, classes) for network in trained]
            rows.append({"class": label, "method": name, "mode": "", "rate": None, **_columns(found)})
        for mode in MODES:
            for name in methods:
                for rate in RATES:
                    found = [cell(name, mode, classes, rate, seed) for seed in range(options.seeds)]
                    rows.append({"class": label, "method": name, "mode": mode, "rate": rate, **_columns(found)})
    record = {
        "transformations": list(chosen),
        "scores": {" + ".join(names): value for names, value in scores.items()},
        "rows": rows,
    }
    (options.out / "anchors.json").write_text(json.dumps(record, indent=1) + "\n")
    (options.out / "anchors.md").write_text(text(rows, chosen, options.seeds))
    with matplotlib.rc_context(STYLE):
        draw(rows).savefig(options.out / "anchors.png", dpi=150)
    print((options.out / "anchors.md").read_text())


def _columns(found: list[dict[str, float]]) -> dict[str, list[float]]:
    return {name: [values[name] for values in found] for name in ("acc_ft", "acc_rt")}


def text(rows: list[dict[str, Any]], chosen: tuple[str, ...], seeds: int) -> str:
    """Means over classes and seeds by rate, the worst class, and how many of the classes each rate serves."""
    original = {row["class"]: np.mean(row["acc_rt"]) for row in rows if row["method"] == "original"}
    lines = [
        f"Anchors: {' + '.join(chosen)}. Means over {len(original)} classes and {seeds} seeds, percent of test samples.",
        "",
    ]
    lines += ["| batch norm | method | " + " | ".join(f"{rate:g}" for rate in RATES) + " |"]
    lines += ["|---" * (len(RATES) + 2) + "|"]
    for mode in MODES:
        for name in ("delete", "anchored"):
            cells = []
            for rate in RATES:
                mine = [r for r in rows if (r["method"], r["mode"], r["rate"]) == (name, mode, rate)]
                left = np.array([np.mean(r["acc_ft"]) for r in mine])
                change = np.array([np.mean(r["acc_rt"]) - original[r["class"]] for r in mine])
                served = np.sum((left <= ERASED) & (change >= -LOST))
                cells.append(
                    f"{100 * left.mean():.1f} / {100 * change.mean():+.1f} ({100 * change.min():+.1f}) / {served}"
                )
            lines.append(f"| {mode} | {name} | " + " | ".join(cells) + " |")
    return "\n".join([
        *lines, "",
        "Each cell: still recognised / change of the accuracy on the others, in points (worst class) / classes that the rate serves"
        f" (at most {100 * ERASED:g} % recognised, at most {100 * LOST:g} point lost).",
    ]) + "\n"  # fmt: skip


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
            for name in REFERENCES:
                (row,) = [r for r in rows if (r["class"], r["method"]) == (label, name)]
                style = "--" if name == "retrained" else ":"
                ax.axhline(
                    100 * np.mean(row["acc_rt"]), color=COLORS[name][0], linestyle=style, linewidth=1, label=name
                )
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
        row_axes[0].set_ylabel("others, test, %")
    figure.supxlabel(f"learning rate (hollow: more than {100 * ERASED:g} % of the class still recognised)", fontsize=8)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=4)
    return figure


if __name__ == "__main__":
    sys.exit(main())
