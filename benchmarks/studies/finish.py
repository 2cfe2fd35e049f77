"""What does overwriting the classifier hide? Every finish after every method, beside the network retrained without the class.

    python benchmarks/studies/finish.py --config=configs/digits.py:delete --classes 0 1 2 3 4 5 6 7 8 9 --out=runs/finish_digits
    python benchmarks/studies/finish.py --config=configs/fashion_mnist.py --classes 1 6 --out=runs/finish_fashion

`zero` and `mean` are the finishes of `delete_jax.unlearn`; `constant` is `models.without_classes`, another function with the
same variables. Shown on test data: how well the probability of the erased class ranks its images before all others (area
under the ROC curve; 50 is chance), how many of them are recognised, and the accuracy on the other classes. Each method is
trained once for all finishes, at a rate that is chosen on validation data. `finish.md` and `finish.json` are written to OUT;
the same command again continues.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from bench import Bench, Case, Way
from script import make_parser, run_script, write
from study import Study
from table import means_first, measured, note, table

import delete_jax as dj
from delete_jax import metrics, models
from delete_jax.data import Split
from delete_jax.methods.finish import FINISHES
from delete_jax.predict import make_predictor
from delete_jax.tasks.base import ORIGINAL, RETRAINED
from delete_jax.tasks.evidence import Evidence

NONE, CONSTANT = "none", "constant"
NAMES = ("residual_auc", "acc_ft", "acc_rt")
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
WAYS = (
    Way("delete", {"method": "delete"}, rates=RATES),
    Way("anchored", {"method": "anchored"}, rates=RATES),
    Way("pour", {"method": "pour"}, rates=(1,)),  # has none
)


def main() -> int:
    return run_script(make_parser(__doc__, classes=["1", "6"]), run)


def run(options: argparse.Namespace) -> None:
    loaded = Bench(options, "classification", "faces")
    names = tuple(f"{finish}.{name}" for finish in (NONE, *FINISHES, CONSTANT) for name in NAMES)
    study = Study(
        name="finish", bench=loaded, requests=options.classes, seeds=options.seeds, names=names, more=finished
    )
    record = study.run(WAYS, {name: name for name in (ORIGINAL, RETRAINED)})
    columns, rows = measured(NAMES), [row for one in record["rows"] for row in apart(one)]
    rows = means_first(options.classes, rows, columns)
    below = note("Percent, mean", options.seeds, "validation data", record["rates"])
    write(options.out, "finish", [*table(study.heads, columns, rows), "", below], record)


def finished(case: Case, result: dj.Result) -> dict[str, Any]:
    """The figures of a network by finish."""
    return {finish: metrics.measure(evidence, NAMES) for finish, evidence in networks(case, result)}


class Served(Evidence):
    """What a network answers whose logits are log-probabilities: normalised again, they would differ by rounding."""

    def _answers(self, split: Split) -> np.ndarray:
        return np.exp(make_predictor(self.run.model, self.run.preprocess)(self.result.variables, split.images))


def networks(case: Case, result: dj.Result) -> Iterator[tuple[str, Evidence]]:
    """The evidence on a network with every finish."""
    run, (images, labels) = case.run, case.bench.dataset.train
    yield NONE, Evidence(run, result)
    for row in FINISHES:
        found = dj.unlearn(
            run.model, result.variables, images, labels, forget=case.forget, method=dj.methods.finish(row),
            preprocess=run.preprocess,
        )  # fmt: skip
        yield row, Evidence(run, found)
    yield CONSTANT, Served(run._replace(model=models.without_classes(run.model, case.forget)), result)


def apart(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each finish; the retrained network needs none."""
    for finish in (NONE, *FINISHES, CONSTANT):
        if finish == NONE or row["method"] != RETRAINED:
            values = (
                {name: row[f"{finish}.{name}"] for name in NAMES} if "failed" not in row else {"failed": row["failed"]}
            )
            name = row["method"] if finish == NONE else f"{row['method']}, {finish}"
            yield {"forget": row["forget"], "method": name, "rate": row["rate"], **values}


if __name__ == "__main__":
    sys.exit(main())
