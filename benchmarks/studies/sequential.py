"""Requests that come one after the other: forget a class, later another, then a third.

    python benchmarks/studies/sequential.py --config=configs/fashion_mnist.py --rate=1e-2 --out=runs/sequential
    python benchmarks/studies/sequential.py --config=configs/digits.py --classes 3 5 --orders --rate=1e-3 --out=runs/orders

Each request starts from the network that the last one left, which knows what was erased from it. Five ways to answer it: the default
call (`anchored`, frozen statistics, no rate); `delete` and `anchored` in train mode with the samples of the new class alone; `delete`
with those of all classes asked for so far; and `delete` with the new ones alone, followed by `pour` for all classes so far, which needs
no samples. Shown after each request, as mean ± std over seeds: how much of every class asked for is still recognised, and the accuracy
on the classes that no request names; beside it the same classes forgotten at once, and the network retrained without them. Of more than
three requests: the class asked for now, and of those before the mean and the worst. Test samples; 120 steps a request, in batches of the config's size.

With `--orders`, two requests only: each of two methods and two modes of the statistics for the first, each for the second, and how much
of the first class is recognised afterwards. The same command again continues.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from bench import Bench, Case, Way
from matplotlib.figure import Figure
from script import Request, make_parser, run_script, write
from table import Column, table

import delete_jax as dj
from delete_jax import metrics
from delete_jax.methods.pour import project
from delete_jax.options import AUTO, LEAST_STEPS
from delete_jax.reports.style import COLORS, STYLE
from delete_jax.tasks.base import ORIGINAL, RETRAINED
from delete_jax.tasks.evidence import Evidence

OTHERS = "never asked for"
NOW, BEFORE, WORST = "asked for now", "asked for before, mean", "asked for before, worst"
MODES = ("train", "frozen")
FEW = 3


class Answer(NamedTuple):
    """How a request is answered: by which method, in which mode of the statistics, at the given rate or without one; with the samples of
    all classes so far or of the new alone, and then?"""

    method: str
    batch_norm: str = "train"
    without_rate: bool = False
    so_far: bool = False
    then_pour: bool = False

    def way(self, name: str) -> Way:
        settings = {"method": self.method, "batch_norm": self.batch_norm, "epochs": None}
        return Way(name, settings | {"steps": None if self.without_rate else LEAST_STEPS})


WAYS = {
    "default": Answer("anchored", "frozen", without_rate=True),
    "delete": Answer("delete"),
    "anchored": Answer("anchored"),
    "delete, all samples so far": Answer("delete", so_far=True),
    "delete, then pour": Answer("delete", then_pour=True),
}
ORDERS = {f"{method}, {mode}": Answer(method, mode) for method in ("delete", "anchored") for mode in MODES}


def main() -> int:
    parser = make_parser(__doc__, classes=["1", "6", "9"])
    parser.add_argument("--rate", type=float, help="the config's when left out")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY", help="all when left out")
    parser.add_argument("--orders", action="store_true", help="two requests, in all orders of methods and modes")
    return run_script(parser, run)


def run(options: argparse.Namespace) -> None:
    loaded = Bench(options, "classification", "faces")
    requests, rate = options.classes, loaded.config.unlearn.lr if options.rate is None else options.rate
    if not isinstance(rate, float):
        raise ValueError(f"--config={options.config}: its rate is {rate!r}; give --rate")
    if options.orders and len(requests) != 2:
        raise ValueError(f"--orders is of two requests, got --classes {' '.join(map(loaded.label, requests))}")
    study, made = ("orders", in_orders) if options.orders else ("sequential", functools.partial(follow, options.ways))
    about = {"study": study, "requests": requests, "rate": rate} | ({} if options.orders else {"ways": options.ways})
    seeds = [
        loaded.cells.get({**about, "seed": seed}, functools.partial(made, loaded, seed, requests, rate))
        for seed in range(options.seeds)
    ]
    names = [name for name in seeds[0][0] if name not in ("way", "after")]
    rows = [
        {**{name: same[0][name] for name in ("way", "after")}, **{name: [row[name] for row in same] for name in names}}
        for same in zip(*seeds, strict=True)
    ]
    write(options.out, study, text(rows, rate), {"rate": rate, "rows": rows})
    if not options.orders:
        with matplotlib.rc_context(STYLE):
            draw(rows, options.ways, names).savefig(options.out / "sequential.png", dpi=150)


def text(rows: Sequence[dict[str, Any]], rate: float) -> list[str]:
    """A line for each row, mean ± std."""
    names = [name for name in rows[0] if name not in ("way", "after")]
    columns = [Column(name, f"{name} ↑" if name == OTHERS else f"{name}, recognised") for name in names]
    below = f"Rate {rate:g}, percent of test samples, mean ± std over {len(rows[0][OTHERS])} seeds."
    return [*table(("way", "after"), columns, rows), "", below]


def follow(
    ways: Sequence[str], loaded: Bench, seed: int, requests: Sequence[Request], rate: float
) -> list[dict[str, Any]]:
    """One row after each request, for every way to answer them: what is recognised."""
    all_of_them = sum(requests, ())
    whole = loaded.case(seed, all_of_them)

    def row(way: str, after: str, result: dj.Result, done: int) -> dict[str, Any]:
        return {"way": way, "after": after, **recognised(loaded, whole, requests, result, done)}

    original = whole.network(ORIGINAL)
    rows = [row("", ORIGINAL, original, 0)]
    for name in ways:
        answer, current = WAYS[name], original
        for i, request in enumerate(requests):
            so_far = sum(requests[: i + 1], ())
            case = loaded.case(seed, so_far if answer.so_far else request)
            current = case.unlearn(answer.way(name), AUTO if answer.without_rate else rate, current)
            if answer.then_pour:
                poured = project(current.variables, so_far, loaded.dataset.num_classes, whole.run.model.classifier)
                current = current._replace(variables=poured)
            rows.append(row(name, f"{i + 1}. {loaded.label(request)}", current, i + 1))
        if name == "delete":
            at_once = whole.unlearn(answer.way(name), rate)
            rows.append(row(name, "all at once", at_once, len(requests)))
    return [*rows, row("", RETRAINED, whole.network(RETRAINED), len(requests))]


def recognised(
    loaded: Bench, whole: Case, requests: Sequence[Request], result: dj.Result, done: int
) -> dict[str, float | None]:
    """How much of each class that is asked for a network recognises, and of the others; `done`: how many requests it has answered."""
    confusion = Evidence(whole.run, result).confusion
    each: dict[str, float | None] = {
        loaded.label(request): metrics.accuracy(confusion, request) for request in requests
    }
    asked = sum(requests, ())
    others = [class_ for class_ in range(loaded.dataset.num_classes) if class_ not in asked]
    if len(requests) > FEW:
        values = [metrics.accuracy(confusion, request) for request in requests]
        now, before = values[max(done - 1, 0)], values[: max(done - 1, 0)]
        each = {NOW: now, BEFORE: float(np.mean(before)) if before else None, WORST: max(before) if before else None}
    return {**each, OTHERS: metrics.accuracy(confusion, others)}


def in_orders(loaded: Bench, seed: int, requests: Sequence[Request], rate: float) -> list[dict[str, Any]]:
    """One row for each pair of answers: what is recognised after the second request."""
    whole = loaded.case(seed, sum(requests, ()))
    first, second = (loaded.case(seed, request) for request in requests)
    rows = []
    for name, answer in ORDERS.items():
        start = first.unlearn(answer.way(name), rate)
        for after, other in ORDERS.items():
            result = second.unlearn(other.way(after), rate, start)
            rows.append({"way": name, "after": f"then {after}", **recognised(loaded, whole, requests, result, 2)})
    return rows


def draw(rows: list[dict[str, Any]], ways: Sequence[str], columns: list[str]) -> Figure:
    """A panel per way, a line per class (or per group of them) over the requests: mean and range over seeds."""
    figure = Figure((1.5 + 2.0 * len(ways), 2.9), layout="constrained")
    for ax, way in zip(figure.subplots(1, len(ways), sharey=True, squeeze=False)[0], ways, strict=True):
        shown = [rows[0], *(row for row in rows if row["way"] == way and row["after"] != "all at once")]
        for i, column in enumerate(columns):
            found = 100 * np.array([row[column] for row in shown], np.float64)  # None, of no class, is NaN
            mean = found.mean(1)
            error = np.abs(np.stack([found.min(1), found.max(1)]) - mean)
            color = COLORS[ORIGINAL][0] if column == OTHERS else f"C{i}"
            ax.errorbar(range(len(shown)), mean, error, fmt="o-", color=color, markersize=4, capsize=2, label=column)
        ax.set_xticks(range(len(shown)), [row["after"].replace(". ", ".\n") for row in shown], fontsize=6)
        ax.set_title(way, fontsize=8)
        ax.set_ylim(-3, 103)
        ax.grid(axis="y")
    figure.axes[0].set_ylabel("recognised, percent of test samples")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=min(len(columns), len(ways)))
    return figure


if __name__ == "__main__":
    sys.exit(main())
