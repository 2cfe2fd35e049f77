"""The pages of a comparison: the table to sort, the trade-off, class × class matrices and maps of features, linked.

    python benchmarks/studies/compare.py --config=configs/fashion_mnist.py --out=runs/compare

writes one for each request beside its table, such as `comparison-1.html`, which opens offline. Matrices, maps and agreement
are those of the first seed. They are stored with that seed's figures when a network is measured; a method whose figures come
from an earlier version, which stored none, has a row but no matrix (remove its lines in OUT/cells.jsonl to measure it again).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench import Case, Rate, Way, key, named
from script import Request
from study import ANOTHER, Study

import delete_jax as dj
from delete_jax import metrics
from delete_jax.metrics.principal import choose_samples, principal_axes
from delete_jax.reports.compare_page import METHOD, REFERENCE, Compared, Comparison, check_free, write_comparison
from delete_jax.tasks.base import ORIGINAL, RETRAINED

VIEW = "view"
"""The name of `view` in a cell."""


def view(case: Case, result: dj.Result) -> dict[str, Any]:
    """What a page shows of a network of the first seed beside its figures; nothing for other seeds. A `Study`'s `more`."""
    if case.run.config.seed:
        return {}
    evidence, test = case.evidence(result), case.bench.dataset.test
    samples = choose_samples(test.labels, case.forget)
    features, predictions = evidence.features(test.images[samples]), evidence.test.argmax(-1)
    found = {"confusion": evidence.confusion.tolist(), "predictions": predictions[samples].tolist()}
    # The retrained network has no features in common with the original: it gets axes of its own, and agrees with itself.
    basis = features
    if evidence.retrained is not None:
        basis = case.evidence(case.network(ORIGINAL)).features(test.images[samples])
        others = evidence.retrained.test.argmax(-1)
        found["agreement"] = metrics.agreement_by_class(
            test.labels, predictions, others, case.bench.dataset.num_classes
        )
    points = principal_axes(basis).project(features).round(4)  # a picture needs no more, and cells may be kept
    return {VIEW: found | {"points": points.tolist()}}


def check_pages(out: Path, requests: Sequence[Request]) -> None:
    """Raises ValueError where a file stands in the place of a page."""
    for forget in requests:
        check_free(_page(out, forget))


def write_pages(study: Study, ways: Sequence[Way], rows: Sequence[dict[str, Any]], rates: Mapping[str, Rate]) -> None:
    """Writes the page of each request, from the study's rows and its finished cells."""
    names = {way.name: way for way in ways}
    for forget in study.requests:
        mine = [row for row in rows if row["forget"] == study.bench.label(forget)]
        networks = []
        for row in mine:
            way = names.get(row["method"])
            cells = (
                study.final(way, rates[way.like or way.name], forget) if way else study.reference(row["method"], forget)
            )
            network = _network(row, cells[0].get(VIEW, {}))
            networks.append(network._replace(is_experimental=way is not None and way.is_experimental))
        dataset, path = study.bench.dataset, _page(study.bench.out, forget)
        labels = dataset.test.labels[choose_samples(dataset.test.labels, forget)]
        title = f"Forgetting “{study.bench.label(forget)}” of {dataset.name}"
        write_comparison(Comparison(title, dataset.class_names, forget, networks, labels), path)
        print(path)


def _page(out: Path, forget: Request) -> Path:
    return out / f"comparison-{key(forget)}.html"


def _network(row: dict[str, Any], stored: dict[str, Any]) -> Compared:
    """A row of a page: its figures over seeds, and what was stored of the first seed's network."""
    name = row["method"]
    role = name if name == ORIGINAL else REFERENCE if name in (RETRAINED, ANOTHER) else METHOD
    network = Compared(
        title=f"{name} (failed)" if "failed" in row else name,
        role=role,
        values={measure: row[measure] for measure in metrics.MEASURES if measure in row},
        facts=[f"rate {named(row['rate'])}"] if role == METHOD else [],
    )
    if name == ANOTHER or "failed" in row:
        return network
    # As numbers where some are None: a class without samples agrees with nothing.
    arrays: dict[str, Any] = {
        key: np.array(value, float if key == "agreement" else None) for key, value in stored.items()
    }
    return network._replace(**arrays)
