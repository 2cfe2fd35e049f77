"""What the layers still know: the erased class in the features of each network, and how alike the networks are by layer.

    python benchmarks/features.py --config=configs/fashion_mnist.py --out=runs/compare

`--out` is the folder of a finished `benchmarks/compare.py` with the same config; its rates are used. `features.md`,
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
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from bench import (
    ANOTHER,
    REFERENCES,
    Bench,
    compared_classes,
    create,
    reference,
    reference_names,
    run_script,
    write_table,
)
from matplotlib.figure import Figure

from delete_jax import metrics, models
from delete_jax.loop import make_predictor
from delete_jax.report import COLORS, STYLE

METHODS = ("delete", "anchored", "pour", "negative_gradient_plus")
OTHERS = ("retrained", "original")
PROTOTYPE_SAMPLES = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="config file, optionally FILE:VARIANT")
    parser.add_argument("--out", type=Path, required=True, help="folder of a finished comparison")
    parser.add_argument("--methods", nargs="+", default=METHODS, help="some of the comparison's")
    parser.add_argument("--seeds", type=int, default=3)
    return run_script(parser, run, (ValueError, OSError))


def run(options: argparse.Namespace) -> None:
    table = json.loads((options.out / "table.json").read_text())
    if missing := set(options.methods) - set(table["rates"]):
        raise ValueError(f"not in {options.out / 'table.json'}: {', '.join(sorted(missing))}; compare them first")
    bench = Bench(options.config, options.out)
    dataset, module = bench.dataset, bench.run.module
    classes = compared_classes(table, dataset)
    networks = [bench.networks(seed, [(class_,) for class_ in classes]) for seed in range(options.seeds)]
    layers = ["stem", *(f"layer{i + 1}" for i in range(len(module.stages)))]
    predict = {layer: make_predictor(models.features(module, layer), bench.run.preprocess) for layer in layers}

    def variables(name: str, class_: int, seed: int) -> Any:
        if name in REFERENCES:
            return reference(networks, seed, name, (class_,)).variables
        rate = table["rates"][name]
        return bench.unlearn(networks[seed], create(name, rate), (class_,), rate).variables

    def measure(network: Any, class_: int, seed: int) -> dict[str, float]:
        train, test = dataset.train, dataset.test
        features, test_features = bench.features(network, train.images), bench.features(network, test.images)
        few = np.flatnonzero(train.labels == class_)[:PROTOTYPE_SAMPLES]
        last = network["params"]["fc"]
        kernel, bias = np.asarray(last["kernel"]), np.asarray(last["bias"])
        erased = test.images[test.labels == class_]
        alike = {
            f"{layer} {other}": metrics.linear_cka(
                predict[layer](network, erased), predict[layer](variables(other, class_, seed), erased)
            )
            for other in OTHERS
            for layer in layers
        }
        return {
            "nearest": metrics.nearest_class_mean(features, train.labels, test_features, test.labels, [class_]),
            "prototype": metrics.prototype_attack(kernel, bias, features[few], class_, test_features, test.labels),
            **alike,
        }

    def cell(name: str, class_: int, seed: int) -> dict[str, float]:
        rate = table["rates"].get(name, 0)
        return bench.cell(
            f"features-{name}-{class_}-{rate:g}-seed{seed}",
            lambda: measure(variables(name, class_, seed), class_, seed),
        )

    names = (*reference_names(options.seeds), *options.methods)
    found = {  # method by method: each is compiled once
        (class_, name): [cell(name, class_, seed) for seed in range(options.seeds)]
        for name in names
        for class_ in classes
    }
    rows = [(dataset.class_names[class_], name, found[class_, name]) for class_ in classes for name in names]
    columns = {"nearest": "nearest mean", "prototype": "prototype"} | {
        f"{layer} {other}": f"CKA to {other}, {layer}" for other in OTHERS for layer in layers
    }
    note = (
        f"Fractions of the erased class's test samples, and CKA on them; mean ± std over {options.seeds} seeds. What counts is"
        " the gap to the retrained network."
    )
    write_table(
        options.out,
        "features",
        ("forget", "method"),
        columns,
        rows,
        {"rates": table["rates"]},
        note,
        factor=1,
        digits=2,
    )
    with matplotlib.rc_context(STYLE):
        draw(rows, layers).savefig(options.out / "layers.png", dpi=150)
        print(options.out / "layers.png")


def draw(rows: list[tuple[str, str, list[dict[str, float]]]], layers: list[str]) -> Figure:
    """Columns: what was erased; rows: CKA by layer to the retrained and to the original network, mean and range over seeds."""
    forgotten = list(dict.fromkeys(row[0] for row in rows))
    figure = Figure((2.5 * len(forgotten) + 2.2, 4.4), layout="constrained")
    axes = figure.subplots(2, len(forgotten), sharex=True, sharey=True, squeeze=False)
    methods = [name for name in dict.fromkeys(row[1] for row in rows) if name not in REFERENCES]
    looks = {name: {"color": COLORS[name][0], "linestyle": "--"} for name in OTHERS}
    looks |= {ANOTHER: {"color": COLORS["retrained"][0], "linestyle": ":"}}
    looks |= {name: {"color": f"C{i}"} for i, name in enumerate(methods)}
    for row_axes, other in zip(axes, OTHERS, strict=True):
        for ax, label in zip(row_axes, forgotten, strict=True):
            for forget, name, seeds in rows:
                if forget != label or name == other:
                    continue
                values = np.array([[seed[f"{layer} {other}"] for layer in layers] for seed in seeds])
                mean = values.mean(0)
                error = np.abs(np.stack([values.min(0), values.max(0)]) - mean)
                ax.errorbar(layers, mean, error, marker="o", markersize=3, capsize=2, label=name, **looks[name])
            ax.set_title(f"{label}: to the {other}")
            ax.grid(axis="y")
        row_axes[0].set_ylabel("linear CKA, erased class")
    lines = {label: line for ax in axes.flat for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(lines.values(), lines.keys(), loc="outside right upper")
    return figure


if __name__ == "__main__":
    sys.exit(main())
