"""Requests that come one after the other: forget a class, later another, then a third.

    python benchmarks/sequential.py --config=configs/fashion_mnist.py --out=runs/sequential

Each request starts from the network that the last one left. Four ways to answer it: `delete` and `anchored` with the samples
of the new class alone; `delete` with those of all classes asked for so far; and `delete` with the new ones alone, followed by
`pour` for all classes so far, which needs no samples. Shown after each request, as mean ± std over seeds: how much of every
class asked for is still recognised, and the accuracy on the classes that no request names; beside it the same classes
forgotten at once, and the network retrained without them. Test samples; the unlearning settings are the config's. The same
command again continues.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from bench import Bench, run_script
from matplotlib.figure import Figure

import delete_jax as dj
from delete_jax import metrics
from delete_jax.methods.pour import project
from delete_jax.report import COLORS, STYLE

WAYS = ("delete", "anchored", "delete, all samples so far", "delete, then pour")
OTHERS = "never asked for"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="config file, optionally FILE:VARIANT")
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument("--classes", type=int, nargs="+", default=[1, 6, 9], help="the requests, in order")
    parser.add_argument("--rate", type=float, help="the config's when left out")
    parser.add_argument("--seeds", type=int, default=3)
    return run_script(parser, run)


def run(options: argparse.Namespace) -> None:
    bench = Bench(options.config, options.out)
    dataset = bench.dataset
    requests, rate = tuple(options.classes), options.rate or bench.config.unlearn.lr
    untouched = [class_ for class_ in range(dataset.num_classes) if class_ not in requests]

    def accuracies(variables) -> dict[str, float]:
        predictions = bench.predict(variables, dataset.test.images).argmax(-1)
        confusion = metrics.confusion_matrix(dataset.test.labels, predictions, dataset.num_classes)
        each = {dataset.class_names[class_]: metrics.accuracy(confusion, [class_]) for class_ in requests}
        return each | {OTHERS: metrics.accuracy(confusion, untouched)}

    def answer(way: str, networks: dict[Any, Any], so_far: tuple[int, ...]) -> Any:
        method = dj.methods.anchored() if way == "anchored" else dj.methods.delete()
        classes = so_far if way == "delete, all samples so far" else so_far[-1:]
        variables = bench.unlearn(networks, method, classes, rate).variables
        return project(variables, so_far, dataset.num_classes) if way == "delete, then pour" else variables

    def measure(seed: int) -> dict[str, dict[str, dict[str, float]]]:
        networks = bench.networks(seed, [requests])
        original = networks["original"]
        found = {"": {"original": accuracies(original.variables)}}
        for way in WAYS:
            current, found[way] = networks, {}
            for i, class_ in enumerate(requests):
                variables = answer(way, current, requests[: i + 1])
                found[way][f"{i + 1}. {dataset.class_names[class_]}"] = accuracies(variables)
                current = networks | {"original": original._replace(variables=variables)}
        at_once = bench.unlearn(networks, dj.methods.delete(), requests, rate).variables
        found["delete"] |= {"all at once": accuracies(at_once)}
        return found | {" ": {"retrained": accuracies(networks[requests].variables)}}

    name = f"sequential-{'-'.join(map(str, requests))}-{rate:g}"
    seeds = [bench.cell(f"{name}-seed{seed}", lambda seed=seed: measure(seed)) for seed in range(options.seeds)]
    values = {
        way: {after: {c: [100 * s[way][after][c] for s in seeds] for c in row} for after, row in rows.items()}
        for way, rows in seeds[0].items()
    }
    columns = list(values[""]["original"])
    lines = ["| way | after | " + " | ".join(f"{c}, recognised" for c in columns[:-1]) + f" | {OTHERS} ↑ |"]
    lines.append("|---" * (len(columns) + 2) + "|")
    for way, rows in values.items():
        for after, found in rows.items():
            cells = (f"{np.mean(v):.1f} ± {np.std(v, ddof=1) if len(v) > 1 else 0:.1f}" for v in found.values())
            lines.append(f"| {way.strip()} | {after} | " + " | ".join(cells) + " |")
    lines += ["", f"Rate {rate:g}, percent of test samples, mean ± std over {options.seeds} seeds."]
    (options.out / "sequential.md").write_text("\n".join(lines) + "\n")
    (options.out / "sequential.json").write_text(json.dumps({"rate": rate, "percent": values}, indent=2) + "\n")
    with matplotlib.rc_context(STYLE):
        draw(values, columns).savefig(options.out / "sequential.png", dpi=150)
    print("\n".join(lines))


def draw(values: dict[str, dict[str, dict[str, list[float]]]], columns: list[str]) -> Figure:
    """A panel per way, a line per class over the requests: mean and range over seeds."""
    figure = Figure((9.4, 2.9), layout="constrained")
    for ax, way in zip(figure.subplots(1, len(WAYS), sharey=True), WAYS, strict=True):
        rows = values[""] | {after: found for after, found in values[way].items() if after != "all at once"}
        for i, column in enumerate(columns):
            found = np.array([row[column] for row in rows.values()])
            mean = found.mean(1)
            error = np.abs(np.stack([found.min(1), found.max(1)]) - mean)
            color = COLORS["original"][0] if column == OTHERS else f"C{i}"
            ax.errorbar(range(len(rows)), mean, error, fmt="o-", color=color, markersize=4, capsize=2, label=column)
        ax.set_xticks(range(len(rows)), [after.replace(". ", ".\n") for after in rows], fontsize=6)
        ax.set_title(way, fontsize=8)
        ax.set_ylim(-3, 103)
        ax.grid(axis="y")
    figure.axes[0].set_ylabel("recognised, percent of test samples")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=len(columns))
    return figure


if __name__ == "__main__":
    sys.exit(main())
