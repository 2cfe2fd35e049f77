"""A comparison as pages to explore: the table to sort, the trade-off, class × class matrices and maps of features, linked.

    python benchmarks/explore.py --config=configs/fashion_mnist.py --out=runs/compare

`--out` is the folder of a finished `benchmarks/compare.py` with the same config. For each request it writes there one page
that opens offline, such as `comparison-1.html`. Matrices and maps are those of the first seed, for which each method runs once more.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import bench
import numpy as np
from bench import ANOTHER, Bench, Case, Request
from compare import choose

import delete_jax as dj
from delete_jax import metrics
from delete_jax.metrics.principal import Axes, choose_samples, principal_axes
from delete_jax.report.compare_page import METHOD, REFERENCE, Comparison, Network, check_free, write_comparison
from delete_jax.tasks.base import ORIGINAL, RETRAINED
from delete_jax.tasks.evidence import Evidence


def main() -> int:
    return bench.run_script(bench.make_parser(__doc__, seeds=0), explore)


def explore(options: argparse.Namespace) -> None:
    table = json.loads((options.out / "table.json").read_text())
    loaded = Bench(options, "classification", "faces")
    names = loaded.dataset.class_names
    for label in dict.fromkeys(row["forget"] for row in table["rows"] if row["forget"] != "mean"):
        forget = tuple(sorted(names.index(name) for name in label.split(" + ")))
        path = options.out / f"comparison-{bench.key(forget)}.html"
        check_free(path)
        rows = [row for row in table["rows"] if row["forget"] == label]
        write_comparison(compared(loaded, forget, rows, table["rates"]), path)
        print(path)


def compared(loaded: Bench, forget: Request, rows: list[dict[str, Any]], rates: dict[str, float]) -> Comparison:
    """A request's rows of the table, with the matrices and maps of the first seed's networks."""
    case, test = loaded.case(0, forget), loaded.dataset.test
    samples = choose_samples(test.labels, forget)
    axes = principal_axes(Evidence(case.run, case.network(ORIGINAL)).features(test.images[samples]))
    networks = []
    for row in rows:
        name = row["method"]
        role = name if name == ORIGINAL else REFERENCE if name in (RETRAINED, ANOTHER) else METHOD
        values = {measure: row[measure] for measure in metrics.MEASURES if measure in row}
        network = Network(f"{name} (failed)" if "failed" in row else name, role, values)
        if role == METHOD:
            network = network._replace(facts=[f"rate {bench.named(row['rate'])}"])
        if name != ANOTHER and "failed" not in row:
            found = loaded.cell(
                f"explore-{name}-{bench.key(forget)}-{row['rate']}", lambda n=name: view(case, n, rates, samples, axes)
            )
            network = network._replace(**{key: np.array(value) for key, value in found.items()})
        networks.append(network)
    title = f"Forgetting “{loaded.label(forget)}” of {loaded.dataset.name}"
    return Comparison(title, loaded.dataset.class_names, forget, networks, test.labels[samples])


def view(case: Case, name: str, rates: dict[str, float], samples: np.ndarray, axes: Axes) -> dict[str, Any]:
    """A network's matrix on test data, and its predictions and points for the samples of the map."""
    evidence = Evidence(case.run, made(case, name, rates))
    features = evidence.features(case.bench.dataset.test.images[samples])
    own = principal_axes(features) if name == RETRAINED else axes
    return {
        "confusion": evidence.confusion.tolist(),
        "predictions": evidence.test[samples].argmax(-1).tolist(),
        "points": own.project(features).tolist(),
    }


def made(case: Case, name: str, rates: dict[str, float]) -> dj.Result:
    """The network of a row."""
    if name in (ORIGINAL, RETRAINED):
        return case.network(name)
    (way,) = (way for way in choose([name.removesuffix(", own mask")], ()) if way.name == name)
    return case.unlearn(way, rates[way.like or name])


if __name__ == "__main__":
    sys.exit(main())
