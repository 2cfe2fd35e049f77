"""Is `lr="auto"` safe? Networks x classes x seeds, erased without a rate, at the best fixed rate, by search, and retrained.

    python benchmarks/studies/safe.py --out=runs/safe
    python benchmarks/studies/safe.py --networks fashion --classes 1 --seeds 1 --ways auto search retrained --out=runs/safe

Of each cell: what is left of the class on test data, also with the original's running statistics; the change of the accuracy of the
remaining classes; what the result says of itself (`dz`, agreement, confidence, whether it warns), and what it took. All ways are
`anchored` with frozen statistics. The best fixed rate is chosen by network, for all classes at once, on validation samples of the
*remaining* classes too, which nobody has who holds forget samples alone.

The thresholds of the warning are judged on all networks that erase, those of the rates that were tried among them: `DEV`
are the networks that thresholds may be chosen on, all others are reported. Cells are kept by network, in OUT/NETWORK/cells.jsonl; the same
command again continues. `safe.md`, `safe.json` and `safe.png` are about all networks that OUT has cells of.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from bench import Bench, Case, Rate, Way
from safe_networks import NAMES
from safe_table import FEW, FIXED, OURS, SEARCHED, SHOWN, STUDY, about, draw, kept, text
from script import Request, count, request, run_script, write
from study import FINAL, Study, every

import delete_jax as dj
from delete_jax import metrics
from delete_jax.drift import Drift
from delete_jax.options import AUTO, SEARCH
from delete_jax.predict import make_predictor
from delete_jax.reports.style import STYLE
from delete_jax.result import Row, Watch
from delete_jax.tasks.base import ORIGINAL, RETRAINED
from delete_jax.tasks.evidence import Evidence
from delete_jax.unlearning import unlearn_job

CONFIG = str(Path(__file__).with_name("safe_networks.py"))
SETTINGS = {"method": "anchored", "batch_norm": "frozen"}
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
WAYS: tuple[tuple[Way, Rate | None], ...] = (  # with the rate, or None where it is chosen
    (Way(OURS, SETTINGS), AUTO),
    (Way(FEW, {**SETTINGS, "epochs": 5, "batch_size": 128}), SEARCH),
    (Way(SEARCHED, SETTINGS), SEARCH),
    (Way(FIXED, SETTINGS, rates=RATES), None),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=CONFIG, help="a config file whose variants are the networks")
    parser.add_argument(
        "--networks", nargs="*", default=NAMES[:-1], help="none: nothing is trained, what is kept is shown"
    )
    parser.add_argument("--classes", type=request, nargs="+", default=[(3,), (8,), (1,)])
    parser.add_argument("--seeds", type=count, default=3)
    parser.add_argument(
        "--ways", nargs="+", choices=SHOWN, default=list(SHOWN), help="which rows of the table are computed"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    return run_script(parser, run)


def run(options: argparse.Namespace) -> None:
    cells = [Networked(options, network) for network in options.networks]
    known = {way.name: (way, rate) for way, rate in WAYS} | {RETRAINED: (None, None)}
    for way, rate in (known[name] for name in options.ways):  # one after the other: each is compiled once
        for own, seed, forget in itertools.product(cells, range(options.seeds), options.classes):
            own.fill(seed, forget, way, rate)
    rows = kept(options.out)
    if not rows:
        raise ValueError(f"--out={options.out} has no cells: name networks")
    record = about(rows)
    write(options.out, STUDY, text(record), record)
    with matplotlib.rc_context(STYLE):
        draw(rows).savefig(options.out / f"{STUDY}.png", dpi=150)


# ---- the cells


class Judge:
    """What a network is compared with: the original, on test data and on images made of validation samples of the class."""

    def __init__(self, case: Case):
        self.case, self.original = case, Evidence(case.run, case.network(ORIGINAL))
        self.remain = self.original.remain
        images, labels = case.bench.dataset.validation
        own = np.isin(labels, case.forget)
        erase = np.zeros((own.sum(), case.bench.dataset.num_classes), bool)
        erase[:, list(case.forget)] = True
        predict = make_predictor(case.run.model, case.run.preprocess)
        held_out = {"image": np.asarray(images[own]), "erase": erase}
        self.drift = Drift(predict, self.original.result.variables, held_out, case.run.config.seed)

    def figures(self, variables: Any) -> Row:
        """`left` of the class; `change` of the accuracy of the remaining classes, and of the `worst` of them. Fractions of test data."""
        return self._figures(Evidence(self.case.run, dj.Result(variables, [], [])))

    def _figures(self, found: Evidence) -> Row:
        new, old = found.confusion, self.original.confusion
        each = [metrics.accuracy(new, [kind]) - metrics.accuracy(old, [kind]) for kind in self.remain]
        change = metrics.accuracy(new, self.remain) - metrics.accuracy(old, self.remain)
        return {"left": metrics.accuracy(new, found.forget), "change": change, "worst": min(each)}

    def all(self, variables: Any) -> Row:
        """Also `old`, what is left with the original's running statistics, and how far images of the class have moved."""
        found = Evidence(self.case.run, dj.Result(variables, [], []), self.original)
        row = self._figures(found)
        old = found.old_statistics_accuracy
        return {**row, "old": row["left"] if old is None else old, **self.moved(variables)}

    def moved(self, variables: Any) -> Row:
        found = self.drift(variables)
        return {name: found[name] for name in ("dz", "dz_reoriented", "agreement")} | {
            "confidence": self.drift.confidence
        }


judge = functools.cache(Judge)


def tried(case: Case, result: dj.Result) -> Row:
    """The score of a rate, and what it does: a cell that the warning is judged on, too."""
    return case.held_out(result) | judge(case).all(result.variables)


class Networked:
    """The cells of a network."""

    def __init__(self, options: argparse.Namespace, network: str):
        given = argparse.Namespace(config=f"{options.config}:{network}", out=options.out / network)
        self.bench = Bench(given, "classification")
        self.study = Study(
            name=STUDY, bench=self.bench, requests=options.classes, seeds=options.seeds, names=(), score=tried
        )

    @functools.cached_property
    def fixed(self) -> float:
        """The rate that is best for all classes together."""
        way = next(way for way, rate in WAYS if rate is None)
        return self.study.choose(way, every)[0]

    def fill(self, seed: int, forget: Request, way: Way | None, rate: Rate | None) -> None:
        """Makes a cell that is missing: of a way at a rate, or at the chosen one; of the retrained network where there is no way."""
        case, cells = self.bench.case(seed, forget), self.bench.cells
        about = {"study": STUDY, "seed": seed, "forget": list(forget)}
        if way is None:
            cells.get({**about, "network": RETRAINED}, lambda: judge(case).all(case.network(RETRAINED).variables))
            return
        rate = self.fixed if rate is None else rate
        cells.get({**about, "cell": FINAL, "rate": rate, **way.described()}, functools.partial(erased, case, way, rate))


def erased(case: Case, way: Way, rate: Rate) -> Row:
    """Erases the class and measures what that did, at each epoch, too; or why it failed."""
    beside, seen = judge(case), []

    def evaluate(variables: Any) -> Row:
        seen.append(beside.figures(variables))
        return seen[-1]

    job = case.job(way, rate, case.network(ORIGINAL).variables)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it would say is in the row
            result = unlearn_job(job, Watch(evaluate=evaluate))
    except ValueError as error:
        if isinstance(rate, str) or isinstance(error, dj.NonFiniteError):
            return {"failed": str(error)}
        raise
    names = ("step", "left", "change")
    row = beside.all(result.variables) | {
        "lr": result.lr, "steps": len(result.history), "trainings": max(len(result.search) + (rate == SEARCH), 1),
        "seconds": result.seconds,  # without compiling
        "course": {name: [step[name] for step in result.evaluations] for name in names},
    }  # fmt: skip
    taken = [step for step in result.search if step.get("taken")]
    if taken:  # what the result itself says
        said = ("dz", "dz_reoriented", "agreement", "confidence")
        row |= {"part": taken[0]["part"], **{name: taken[0][name] for name in said}}
        row["candidates"] = candidates(result, seen)
    return row


def candidates(result: dj.Result, seen: Sequence[Row]) -> list[Row]:
    """What each training of `lr="auto"` did in the end: those that go on from another are one. `seen` has an entry before the first
    step and after each epoch of each; none are found where a training was cut short."""
    last = {(row["lr"], row["part"]): row for row in result.search}  # of those that go on, the longest
    in_epoch = result.evaluations[1]["step"]
    ends = np.cumsum([row["steps"] // in_epoch + 1 for row in last.values()])
    if ends[-1] != len(seen):
        return []
    names = ("lr", "steps", "part", "above", "dz", "dz_reoriented", "agreement", "confidence", "taken")
    return [
        {**{name: row[name] for name in names}, **seen[end - 1]} for row, end in zip(last.values(), ends, strict=True)
    ]


if __name__ == "__main__":
    sys.exit(main())
