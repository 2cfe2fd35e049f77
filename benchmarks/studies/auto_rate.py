"""How good is the rate that is found from forget samples alone? `lr="search"` beside fixed rates.

    python benchmarks/studies/auto_rate.py --config=configs/digits.py:delete --classes 0 1 2 3 4 5 6 7 8 9 --out=runs/auto_digits
    python benchmarks/studies/auto_rate.py --config=configs/fashion_mnist.py --classes 1 3 6 9 --out=runs/auto_fashion
    python benchmarks/studies/auto_rate.py --config=configs/faces.py --classes 1 3 6 --out=runs/auto_faces
    python benchmarks/studies/auto_rate.py --config=configs/scenes.py --classes 2 5 6 --out=runs/auto_scenes

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
from delete_jax.options import SEARCH
from delete_jax.tasks.base import ORIGINAL, RETRAINED

RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
MODES = ("frozen", "train")
FIXED = 3e-4  # the rate of docs/results/anchors.md
# A rate serves a class when at most ERASED of it is left, and the others lose at most LOST.
ERASED, LOST = 0.005, 0.01


def main() -> int:
    return run_script(make_parser(__doc__, classes=[]), run)


def run(options: argparse.Namespace) -> None:
    loaded = Bench(options, "classification", "faces", "segmentation")
    names = ("iou_f", "miou_r") if loaded.task.answers == "pixel" else ("acc_ft", "acc_rt")
    more: dict[str, Any] = {}
    if loaded.task.answers == "pixel":
        more = {"evidence": segmentation.evidence, "score": segmentation.score}
    study = Study(
        name="auto_rate", bench=loaded, requests=options.classes, seeds=options.seeds, names=(*names, "lr", "kept"), more=found,
        **more,
    )  # fmt: skip
    ways: list[Way] = []
    rates: dict[str, Rate] = {}
    for name, mode in itertools.product(("delete", "anchored"), MODES):
        settings = {"method": name, "batch_norm": mode}
        ways.append(Way(f"{name}, {mode}, search", settings))
        rates[ways[-1].name] = SEARCH
        ways.append(Way(f"{name}, {mode}, best fixed", settings, rates=RATES))
    ways.append(Way(f"anchored, frozen, {FIXED:g}", {"method": "anchored", "batch_norm": "frozen"}))
    rates[ways[-1].name] = FIXED
    record = study.run(ways, {name: name for name in (ORIGINAL, RETRAINED)}, rates=rates)
    write(options.out, "auto_rate", text(record, names, ways, options.seeds), record)


def found(case: Case, result: dj.Result) -> dict[str, Any]:
    """The rate, and what the search says of it."""
    return {"lr": result.lr, "kept": result.search[-1]["kept"] if result.search else None}


def text(record: Mapping[str, Any], names: tuple[str, str], ways: list[Way], seeds: int) -> list[str]:
    """A line for each way: means over classes and seeds."""
    rows = record["rows"]
    original = {row["forget"]: np.mean(row[names[1]]) for row in rows if row["method"] == ORIGINAL}
    lines = []
    for name in (RETRAINED, *(way.name for way in ways)):
        mine = [row for row in rows if row["method"] == name]
        done = [row for row in mine if "failed" not in row]
        if not done:
            lines.append([name, "fails", "", "", "", ""])
            continue
        left = np.array([np.mean(row[names[0]]) for row in done])
        change = np.array([np.mean(row[names[1]]) - original[row["forget"]] for row in done])
        used = [rate for row in done for rate in row["lr"] if rate is not None]
        kept = [share for row in done for share in row["kept"] if share is not None]
        span = [f"{rate:g}" for rate in dict.fromkeys((min(used), max(used)))] if used else []
        lines.append([
            name + (f" ({len(mine) - len(done)} of {len(mine)} fail)" if len(done) < len(mine) else ""),
            f"{100 * left.mean():.1f}",
            f"{100 * change.mean():+.1f} ({100 * change.min():+.1f})",
            f"{np.sum((left <= ERASED) & (change >= -LOST))}",
            " – ".join(span),
            f"{100 * np.mean(kept):.0f}" if kept else "",
        ])  # fmt: skip
    heads = ["network", "left", "change of the others (worst)", "classes served", "rates", "kept"]
    return [
        *markdown(heads, lines),
        "",
        f"{len(original)} classes, {seeds} seeds, percent of test data; {names[0]} and the change of {names[1]} from the original's, "
        f"in points. Served: at most {100 * ERASED:g} % left, at most {100 * LOST:g} point lost. Kept: what `lr=\"search\"` reports of "
        "reoriented forget images.",
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
