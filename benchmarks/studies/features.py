"""What the layers still know: the erased class in the features of each network, and how alike the networks are by layer.

    python benchmarks/studies/features.py --config=configs/fashion_mnist.py --out=runs/compare

`--out` is the folder of a finished `benchmarks/studies/compare.py` with the same config; its rates are used. `features.md`,
`features.json` and `layers.png` are written there; the same command again continues. Test samples of the erased class, as mean
± std over seeds:

* nearest mean: how many are nearest to the mean feature of their own class's training samples;
* prototype: how many are recognised after ten training samples of the class have rewritten its part of the last layer;
* CKA (linear) to the retrained and to the original network, by layer, activations averaged over positions.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import matplotlib
import numpy as np
from bench import Bench, Case
from compare import choose, compared_classes
from matplotlib.figure import Figure
from script import make_parser, run_script, write
from study import ANOTHER, Study, references
from table import Column, measured, table

import delete_jax as dj
from delete_jax import metrics
from delete_jax.reports.style import COLORS, STYLE
from delete_jax.tasks.base import ORIGINAL, RETRAINED

METHODS = ("delete", "anchored", "pour", "negative_gradient_plus")
OTHERS = (RETRAINED, ORIGINAL)


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--methods", nargs="+", default=METHODS, help="some of the comparison's")
    return run_script(parser, run)


def run(options: argparse.Namespace) -> None:
    compared = json.loads((options.out / "table.json").read_text())
    if missing := set(options.methods) - set(compared["rates"]):
        raise ValueError(f"not in {options.out / 'table.json'}: {', '.join(sorted(missing))}; compare them first")
    loaded = Bench(options, "classification", "faces")
    requests = [(class_,) for class_ in compared_classes(compared, loaded)]
    columns = measured(("nearest_mean", "prototype"), fractions=(1, 2)) + [
        Column(f"cka_{other}.{layer}", f"{metrics.MEASURES[f'cka_{other}'].short}, {layer}", 1, 2)
        for other in OTHERS
        for layer in loaded.run.network.layers
    ]
    names = [column.name for column in columns]
    study = Study(name="features", bench=loaded, requests=requests, seeds=options.seeds, names=names, more=alike)
    rows = study.run(choose(options.methods, ()), references(options.seeds), rates=compared["rates"])["rows"]
    note = (
        f"Fractions of the erased class's test samples, and CKA on them; mean ± std over {options.seeds} seeds. What counts is"
        " the gap to the retrained network."
    )
    lines = [*table(study.heads, columns, rows), "", note]
    write(options.out, "features", lines, {"rows": rows, "rates": compared["rates"]})
    with matplotlib.rc_context(STYLE):
        draw(rows, loaded.run.network.layers).savefig(options.out / "layers.png", dpi=150)
        print(options.out / "layers.png")


def alike(case: Case, result: dj.Result) -> dict[str, dict[str, float]]:
    """By layer how alike the features are to those of `OTHERS`."""

    def by_layer(other: str) -> dict[str, float]:
        one, two = case.evidence(result), case.evidence(case.network(other))
        return {layer: metrics.linear_cka(one.layer(layer), two.layer(layer)) for layer in case.run.network.layers}

    return {f"cka_{other}": by_layer(other) for other in OTHERS}


def draw(rows: list[dict[str, Any]], layers: tuple[str, ...]) -> Figure:
    """Columns: what was erased; rows: CKA by layer to the retrained and to the original network, mean and range over seeds."""
    forgotten = list(dict.fromkeys(row["forget"] for row in rows))
    figure = Figure((2.5 * len(forgotten) + 2.2, 4.4), layout="constrained")
    axes = figure.subplots(2, len(forgotten), sharex=True, sharey=True, squeeze=False)
    methods = [name for name in dict.fromkeys(row["method"] for row in rows) if name not in (*OTHERS, ANOTHER)]
    looks = {name: {"color": COLORS[name][0], "linestyle": "--"} for name in OTHERS}
    looks |= {ANOTHER: {"color": COLORS[RETRAINED][0], "linestyle": ":"}}
    looks |= {name: {"color": f"C{i}"} for i, name in enumerate(methods)}
    for row_axes, other in zip(axes, OTHERS, strict=True):
        for ax, label in zip(row_axes, forgotten, strict=True):
            for row in rows:
                name = row["method"]
                if row["forget"] != label or name == other or "failed" in row:
                    continue
                values = np.array([row[f"cka_{other}.{layer}"] for layer in layers])
                mean = values.mean(1)
                error = np.abs(np.stack([values.min(1), values.max(1)]) - mean)
                ax.errorbar(layers, mean, error, marker="o", markersize=3, capsize=2, label=name, **looks[name])
            ax.set_title(f"{label}: to the {other}")
            ax.grid(axis="y")
        row_axes[0].set_ylabel("linear CKA, erased class")
    lines = {label: line for ax in axes.flat for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(lines.values(), lines.keys(), loc="outside right upper")
    return figure


if __name__ == "__main__":
    sys.exit(main())
