"""Requests that come one after the other: forget a class, later another, then a third.

    python benchmarks/studies/sequential.py --config=configs/fashion_mnist.py --out=runs/sequential

Each request starts from the network that the last one left. Four ways to answer it: `delete` and `anchored` with the samples
of the new class alone; `delete` with those of all classes asked for so far; and `delete` with the new ones alone, followed by
`pour` for all classes so far, which needs no samples. Shown after each request, as mean ± std over seeds: how much of every
class asked for is still recognised, and the accuracy on the classes that no request names; beside it the same classes
forgotten at once, and the network retrained without them. Test samples; the unlearning settings are the config's. The same
command again continues.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from bench import Bench, Way
from matplotlib.figure import Figure
from script import Request, make_parser, run_script, write
from table import Column, table

import delete_jax as dj
from delete_jax import metrics
from delete_jax.methods.pour import project
from delete_jax.reports.style import COLORS, STYLE
from delete_jax.tasks.base import ORIGINAL, RETRAINED
from delete_jax.tasks.evidence import Evidence

OTHERS = "never asked for"


class Answer(NamedTuple):
    """How a request is answered: by which method, with the samples of all classes so far or of the new alone, and then?"""

    method: str
    so_far: bool = False
    then_pour: bool = False


WAYS = {
    "delete": Answer("delete"),
    "anchored": Answer("anchored"),
    "delete, all samples so far": Answer("delete", so_far=True),
    "delete, then pour": Answer("delete", then_pour=True),
}


def main() -> int:
    parser = make_parser(__doc__, classes=["1", "6", "9"])
    parser.add_argument("--rate", type=float, help="the config's when left out")
    return run_script(parser, run)


def run(options: argparse.Namespace) -> None:
    loaded = Bench(options, "classification", "faces")
    requests, rate = options.classes, loaded.config.unlearn.lr if options.rate is None else options.rate
    if isinstance(rate, str):
        raise ValueError(f"--config={options.config}: its rate is {rate!r}; give --rate")
    about = {"study": "sequential", "requests": requests, "rate": rate}
    seeds = [
        loaded.cells.get({**about, "seed": seed}, functools.partial(follow, loaded, seed, requests, rate))
        for seed in range(options.seeds)
    ]
    columns = [Column(label, f"{label}, recognised") for label in map(loaded.label, requests)]
    columns.append(Column(OTHERS, f"{OTHERS} ↑"))
    rows = [
        {"way": same[0]["way"], "after": same[0]["after"], **{c.name: [row[c.name] for row in same] for c in columns}}
        for same in zip(*seeds, strict=True)
    ]
    below = f"Rate {rate:g}, percent of test samples, mean ± std over {options.seeds} seeds."
    lines = [*table(("way", "after"), columns, rows), "", below]
    write(options.out, "sequential", lines, {"rate": rate, "rows": rows})
    with matplotlib.rc_context(STYLE):
        draw(rows, [column.name for column in columns]).savefig(options.out / "sequential.png", dpi=150)


def follow(loaded: Bench, seed: int, requests: Sequence[Request], rate: float) -> list[dict[str, Any]]:
    """One row after each request, for every way to answer them: what is recognised."""
    dataset, all_of_them = loaded.dataset, sum(requests, ())
    untouched = [class_ for class_ in range(dataset.num_classes) if class_ not in all_of_them]
    whole = loaded.case(seed, all_of_them)

    def row(way: str, after: str, result: dj.Result) -> dict[str, Any]:
        confusion = Evidence(whole.run, result).confusion
        each = {loaded.label(request): metrics.accuracy(confusion, request) for request in requests}
        return {"way": way, "after": after, **each, OTHERS: metrics.accuracy(confusion, untouched)}

    original = whole.network(ORIGINAL)
    rows = [row("", ORIGINAL, original)]
    for way, answer in WAYS.items():
        current = original
        for i, request in enumerate(requests):
            so_far = sum(requests[: i + 1], ())
            case = loaded.case(seed, so_far if answer.so_far else request)
            current = case.unlearn(Way(way, {"method": answer.method}), rate, current)
            if answer.then_pour:
                poured = project(current.variables, so_far, dataset.num_classes, whole.run.model.classifier)
                current = current._replace(variables=poured)
            rows.append(row(way, f"{i + 1}. {loaded.label(request)}", current))
        if way == "delete":
            rows.append(row(way, "all at once", whole.unlearn(Way(way, {"method": "delete"}), rate)))
    return [*rows, row("", RETRAINED, whole.network(RETRAINED))]


def draw(rows: list[dict[str, Any]], columns: list[str]) -> Figure:
    """A panel per way, a line per class over the requests: mean and range over seeds."""
    figure = Figure((9.4, 2.9), layout="constrained")
    for ax, way in zip(figure.subplots(1, len(WAYS), sharey=True), WAYS, strict=True):
        shown = [rows[0], *(row for row in rows if row["way"] == way and row["after"] != "all at once")]
        for i, column in enumerate(columns):
            found = 100 * np.array([row[column] for row in shown])
            mean = found.mean(1)
            error = np.abs(np.stack([found.min(1), found.max(1)]) - mean)
            color = COLORS[ORIGINAL][0] if column == OTHERS else f"C{i}"
            ax.errorbar(range(len(shown)), mean, error, fmt="o-", color=color, markersize=4, capsize=2, label=column)
        ax.set_xticks(range(len(shown)), [row["after"].replace(". ", ".\n") for row in shown], fontsize=6)
        ax.set_title(way, fontsize=8)
        ax.set_ylim(-3, 103)
        ax.grid(axis="y")
    figure.axes[0].set_ylabel("recognised, percent of test samples")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=len(columns))
    return figure


if __name__ == "__main__":
    sys.exit(main())
