"""Requests that come one after the other: forget a class, later another, then a third.

    python benchmarks/sequential.py --config=configs/fashion_mnist.py --out=runs/sequential

Each request starts from the network that the last one left, with the samples of its own class alone. Shown after each
request, as mean ± std over seeds: how much of every class asked for so far is still recognised, and the accuracy on the
classes that no request names; beside it the same classes forgotten at once, and the network retrained without them. Test
samples; the unlearning settings are the config's. The same command again continues.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from bench import Bench
from matplotlib.figure import Figure

import delete_jax as dj
from delete_jax import metrics
from delete_jax.report import COLORS, STYLE


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="config file, optionally FILE:VARIANT")
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument("--classes", type=int, nargs="+", default=[1, 6, 9], help="the requests, in order")
    parser.add_argument("--method", default="delete")
    parser.add_argument("--rate", type=float, help="the config's when left out")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    try:
        run(options)
    except ValueError as error:
        print(f"sequential: error: {error}", file=sys.stderr)
        return 2
    return 0


def run(options: argparse.Namespace) -> None:
    bench = Bench(options.config, options.out)
    dataset = bench.dataset
    requests, rate = tuple(options.classes), options.rate or bench.config.unlearn.lr
    method = dj.methods.create(options.method)
    untouched = [class_ for class_ in range(dataset.num_classes) if class_ not in requests]

    def accuracies(variables) -> dict[str, float]:
        predictions = bench.predict(variables, dataset.test.images).argmax(-1)
        confusion = metrics.confusion_matrix(dataset.test.labels, predictions, dataset.num_classes)
        each = {dataset.class_names[class_]: metrics.accuracy(confusion, [class_]) for class_ in requests}
        return each | {"others": metrics.accuracy(confusion, untouched)}

    def measure(seed: int) -> list[dict[str, Any]]:
        networks = bench.networks(seed, [requests])
        rows = [{"after": "original", **accuracies(networks["original"].variables)}]
        current = networks
        for i, class_ in enumerate(requests):
            result = bench.unlearn(current, method, (class_,), rate)
            current = networks | {"original": networks["original"]._replace(variables=result.variables)}
            rows.append({"after": f"{i + 1}. {dataset.class_names[class_]}", **accuracies(result.variables)})
        at_once = bench.unlearn(networks, method, requests, rate)
        rows.append({"after": "all at once", **accuracies(at_once.variables)})
        return [*rows, {"after": "retrained", **accuracies(networks[requests].variables)}]

    name = f"sequential-{options.method}-{'-'.join(map(str, requests))}-{rate:g}"
    seeds = [bench.cell(f"{name}-seed{seed}", lambda seed=seed: measure(seed)) for seed in range(options.seeds)]
    columns = list(seeds[0][0])[1:]
    values = {
        rows[0]["after"]: {column: [100 * row[column] for row in rows] for column in columns}
        for rows in zip(*seeds, strict=True)
    }
    lines = ["| after | " + " | ".join(f"{c}, recognised" for c in columns[:-1]) + " | others ↑ |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for after, found in values.items():
        cells = (f"{np.mean(v):.1f} ± {np.std(v, ddof=1) if len(v) > 1 else 0:.1f}" for v in found.values())
        lines.append(f"| {after} | " + " | ".join(cells) + " |")
    lines += ["", f"{options.method}, rate {rate:g}, percent of test samples, mean ± std over {options.seeds} seeds."]
    (options.out / "sequential.md").write_text("\n".join(lines) + "\n")
    (options.out / "sequential.json").write_text(json.dumps({"rate": rate, "percent": values}, indent=2) + "\n")
    with matplotlib.rc_context(STYLE):
        draw(values, columns).savefig(options.out / "sequential.png", dpi=150)
    print("\n".join(lines))


def draw(values: dict[str, dict[str, list[float]]], columns: list[str]) -> Figure:
    """A line per class over the requests, mean and range over seeds; forgetting at once and retraining apart, right."""
    figure = Figure((6.4, 3.4), layout="constrained")
    ax = figure.subplots()
    places = np.arange(len(values))
    for i, column in enumerate(columns):
        color = COLORS["remain"][0] if column == "others" else f"C{i}"
        found = np.array([values[after][column] for after in values])
        mean = found.mean(1)
        error = np.abs(np.stack([found.min(1), found.max(1)]) - mean)
        label = "classes never asked for" if column == "others" else column
        ax.plot(places[:-2], mean[:-2], "o-", color=color, label=label, markersize=4)
        ax.errorbar(places, mean, error, fmt="o", color=color, markersize=4, capsize=2)
    ax.axvline(len(places) - 2.5, color=COLORS["line"][0])
    ax.set_xticks(places, list(values))
    ax.set_ylabel("recognised, percent of test samples")
    ax.set_xlabel("after request")
    ax.set_ylim(-3, 103)
    ax.grid(axis="y")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


if __name__ == "__main__":
    sys.exit(main())
