"""How good is no rate, and one that is found from forget samples alone? `lr="auto"` and "search" beside fixed rates.

    python benchmarks/studies/auto_rate.py --config=configs/digits.py:delete --classes 0 1 2 3 4 5 6 7 8 9 --out=runs/auto_digits
    python benchmarks/studies/auto_rate.py --config=configs/fashion_mnist.py --classes 1 3 6 9 --out=runs/auto_fashion
    python benchmarks/studies/auto_rate.py --config=configs/faces.py --classes 1 3 6 --out=runs/auto_faces
    python benchmarks/studies/auto_rate.py --config=configs/scenes.py --classes 2 5 6 --out=runs/auto_scenes
    python benchmarks/studies/auto_rate.py --config=configs/faces.py --classes 1 3 6 --ways "anchored, frozen, auto" --out=runs/auto_faces

The best fixed rate is chosen for all classes at once, by its score on held-out samples of the classes that stay, too: nobody
who holds forget samples alone can choose it. Figures are of test data, beside the original and the network retrained without
the class. `auto_rate.md` and `auto_rate.json` are written to OUT; the same command again continues.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import segmentation
from bench import Bench, Case, Rate, Way
from script import make_parser, markdown, run_script, write
from study import Study

import delete_jax as dj
from delete_jax.options import AUTO, SEARCH
from delete_jax.tasks.base import ORIGINAL, RETRAINED
from delete_jax.tasks.segmentation.measures import MapEvidence
from delete_jax.tasks.segmentation.task import look
from delete_jax.unlearning import cautions

RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
MODES = ("frozen", "train")
FIXED = 3e-4  # the rate of docs/results/anchors.md
# A rate serves a class when at most ERASED of it is left, and the others lose at most LOST.
ERASED, LOST = 0.005, 0.01


def ways() -> dict[str, tuple[Way, Rate | None]]:
    """Each way, by its name, with its rate, or None where it is chosen."""
    found: list[tuple[Way, Rate | None]] = []
    for name, mode in itertools.product(("delete", "anchored"), MODES):
        settings = {"method": name, "batch_norm": mode}
        found.append((Way(f"{name}, {mode}, search", settings), SEARCH))
        found.append((Way(f"{name}, {mode}, best fixed", settings, rates=RATES), None))
    safe = {"method": "anchored", "batch_norm": "frozen"}
    found.append((Way(f"anchored, frozen, {FIXED:g}", safe), FIXED))
    found.append((Way("anchored, frozen, auto", {**safe, "epochs": None, "steps": None}), AUTO))
    return {way.name: (way, rate) for way, rate in found}


WAYS = ways()


def main() -> int:
    parser = make_parser(__doc__, classes=[])
    parser.add_argument(
        "--ways", nargs="+", choices=WAYS, default=list(WAYS), help="beside the original and the retrained network"
    )
    return run_script(parser, run)


def run(options: argparse.Namespace) -> None:
    loaded = Bench(options, "classification", "faces", "segmentation")
    names = ("iou_f", "miou_r") if loaded.task.answers == "pixel" else ("acc_ft", "acc_rt")
    more: dict[str, Any] = {}
    if loaded.task.answers == "pixel":
        more = {"evidence": evidence, "score": segmentation.score}
    study = Study(
        name="auto_rate", bench=loaded, requests=options.classes, seeds=options.seeds, names=(*names, "lr", "kept", "warned"), more=found,
        **more,
    )  # fmt: skip
    chosen = {name: WAYS[name] for name in options.ways}
    rates = {name: rate for name, (_, rate) in chosen.items() if rate is not None}
    record = study.run([way for way, _ in chosen.values()], {name: name for name in (ORIGINAL, RETRAINED)}, rates=rates)
    write(options.out, "auto_rate", text(record, names, list(chosen), options.seeds), record)


def evidence(case: Case, result: dj.Result) -> MapEvidence:
    """Of a network that answers with maps, without others beside it."""
    return look(case.run, case.bench.dataset.test, {"one": result})["one"][0]


def found(case: Case, result: dj.Result) -> dict[str, Any]:
    """The rate, and what it says of itself: the share of kept answers, and whether it warns."""
    taken = next((row for row in result.search if row.get("taken", row is result.search[-1])), None)
    return {
        "lr": result.lr,
        "kept": taken and taken["kept"],
        "warned": bool(cautions(result.search)) if result.search else None,
    }


def text(record: Mapping[str, Any], names: tuple[str, str], ways: list[str], seeds: int) -> list[str]:
    """A line for each way: means over classes and seeds."""
    rows = record["rows"]
    before = {row["forget"]: row[names[1]] for row in rows if row["method"] == ORIGINAL}
    lines = []

    def served(left: np.ndarray, change: np.ndarray) -> int:
        return int(np.sum((left <= ERASED) & (change >= -LOST)))

    for name in (ORIGINAL, RETRAINED, *ways):
        mine = [row for row in rows if row["method"] == name]
        done = [row for row in mine if "failed" not in row]
        if not done:
            lines.append([name, "fails", *[""] * 7])
            continue
        left, others = (np.array([row[name] for row in done]) for name in names)  # by class and seed
        change = others - [before[row["forget"]] for row in done]
        of_class = change.mean(1)
        used = [rate for row in done for rate in row["lr"] if rate is not None]
        kept = [share for row in done for share in row["kept"] if share is not None]
        warned = [said for row in done for said in row["warned"] if said is not None]
        span = [f"{rate:g}" for rate in dict.fromkeys((min(used), max(used)))] if used else []
        lines.append([
            name + (f" ({len(mine) - len(done)} of {len(mine)} fail)" if len(done) < len(mine) else ""),
            f"{100 * left.mean():.1f}",
            f"{100 * others.mean():.1f}",
            f"{100 * of_class.mean():+.1f} ({100 * of_class.min():+.1f})",
            f"{served(left.mean(1), of_class)} of {len(mine)}",
            f"{served(left, change)} of {seeds * len(mine)}",
            " – ".join(span),
            f"{100 * np.mean(kept):.0f}" if kept else "",
            f"{sum(warned)} of {len(warned)}" if warned else "",
        ])  # fmt: skip
    heads = ["network", "left", "others", "their change (worst)", "classes served", "cells served", "rates", "kept", "warns"]  # fmt: skip
    return [
        *markdown(heads, lines),
        "",
        f"{len(before)} classes, {seeds} seed{'s' * (seeds > 1)}, percent of test data; {names[0]} and the change of {names[1]} from the "
        f"original's, in points. Served: at most {100 * ERASED:g} % left, at most {100 * LOST:g} point lost; a class, as the mean over "
        "seeds, and a cell, which is one class of one seed. Kept: the share of answers on reoriented forget images, as the search "
        "reports it; warns: how often one without a fixed rate does.",
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
