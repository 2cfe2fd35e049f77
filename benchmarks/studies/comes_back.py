"""Does an erased class come back, and which method passes every audit? Read from what `compare.py` keeps; nothing is trained.

    python benchmarks/studies/compare.py --config=configs/fashion_mnist.py --classes 1 --again --out=benchmarks/results/compare
    python benchmarks/studies/comes_back.py --table=benchmarks/results/compare/table.json --out=runs/comes_back

`comes_back.png` shows how much of the class a network recognises once its weights are rounded or cut, its features are steered, its
statistics are put back, or a few samples teach it. `comes_back.md` says, for each method and audit, whether its networks differ from the
retrained ones by more than two of these from different seeds do: by more than twice the standard deviation of their differences, and at
least by one point. Differences are taken by class and seed, and averaged.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from script import markdown, run_script, write
from study import ANOTHER
from table import MEAN

from delete_jax.reports.style import STYLE
from delete_jax.tasks.base import ORIGINAL, RETRAINED

NAME = "comes_back"
BACK = {  # measure -> what is done to the network
    "acc_ft": "nothing", "acc_old_statistics": "old statistics", "quantised_acc_int8": "8 bits", "quantised_acc_int4": "4 bits",
    "pruned_acc_10": "10 % cut", "pruned_acc_30": "30 % cut", "pruned_acc_50": "50 % cut", "acc_ft_perturbed": "images perturbed",
    "steered_acc": "features steered", "shots_5": "5 shots",
}  # fmt: skip
LEAST = 0.01
"""Differences below a point are none."""


class Audit(NamedTuple):
    """One figure that is compared with the retrained network's.

    harm: 1 where more of it is worse, -1 where less is, 0 where either tells the networks apart.
    """

    name: str
    heading: str
    harm: int


AUDITS = (
    *(Audit(name, heading, 1) for name, heading in BACK.items()),
    Audit("probe_10", "probe", 1),
    Audit("residual_auc", "AUC of what is left", 0),
    Audit("energy_auroc", "energy", 0),
    Audit("max_logit_auroc", "largest logit", 0),
    Audit("class_rank", "named by weights", 1),
    Audit("cmia", "told from retrained", 1),
    Audit("mia", "membership", 0),
    Audit("acc_rt", "remaining classes", -1),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True, help="table.json of compare.py")
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    return run_script(parser, run)


def run(options: argparse.Namespace) -> None:
    rows = [row for row in json.loads(options.table.read_text())["rows"] if row["forget"] != MEAN]
    by_method: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_method.setdefault(row["method"], []).append(row)
    if missing := {ORIGINAL, RETRAINED, ANOTHER} - set(by_method):
        raise ValueError(f"--table={options.table} has no row of {', '.join(sorted(missing))}")
    floor = {audit.name: allowed(audit, by_method[ANOTHER], by_method[RETRAINED]) for audit in AUDITS}
    found = {
        method: verdicts(own, by_method[RETRAINED], floor) for method, own in by_method.items() if method != ANOTHER
    }
    back = {method: [mean(own, name) for name in BACK] for method, own in by_method.items() if method != ANOTHER}
    record = {"back": back, "floor": floor, "differences": found}
    write(options.out, NAME, text(found, floor), record)
    with matplotlib.rc_context(STYLE):
        draw(back).savefig(options.out / f"{NAME}.png", dpi=150)


def values(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray | None:
    """A figure's values by class and seed, `[n]`; None where one is missing."""
    cells = [cell for row in rows for cell in row.get(name, [None])]
    return None if None in cells else np.array(cells, float)


def statistics_kept(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray | None:
    """The same; with the original's statistics those of the network as it is, where it has no others."""
    found = values(rows, name)
    is_same = found is None and name == "acc_old_statistics" and name in rows[0]
    return values(rows, "acc_ft") if is_same else found


def mean(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    found = statistics_kept(rows, name)
    return None if found is None else float(found.mean())


def allowed(audit: Audit, another: Sequence[Mapping[str, Any]], retrained: Sequence[Mapping[str, Any]]) -> float | None:
    """How far two retrained networks of different seeds are apart; None where it was not measured."""
    ours, theirs = values(another, audit.name), values(retrained, audit.name)
    if ours is None or theirs is None:
        return None
    return max(2 * float(np.sqrt(np.mean((ours - theirs) ** 2))), LEAST)


def verdicts(
    rows: Sequence[Mapping[str, Any]], retrained: Sequence[Mapping[str, Any]], floor: Mapping[str, float | None]
) -> dict[str, dict[str, Any]]:
    """For each audit that was made: the mean `difference` to the retrained network, and whether it is `passed`."""
    found = {}
    for audit in AUDITS:
        ours, theirs, most = statistics_kept(rows, audit.name), values(retrained, audit.name), floor[audit.name]
        if ours is None or theirs is None or most is None:
            continue
        difference = float(np.mean(ours - theirs))
        found[audit.name] = {"difference": difference, "passed": (audit.harm * difference or abs(difference)) <= most}
    return found


def text(found: Mapping[str, Mapping[str, Any]], floor: Mapping[str, float | None]) -> list[str]:
    """A table of differences in points, bold where an audit is failed; and who passes all of them."""
    made = [audit for audit in AUDITS if floor[audit.name] is not None and audit.name in found[ORIGINAL]]

    def cell(audits: Mapping[str, Any], name: str) -> str:
        if (one := audits.get(name)) is None:
            return ""
        shown = f"{100 * one['difference']:+.1f}"
        return shown if one["passed"] else f"**{shown}**"

    def failed(audits: Mapping[str, Any]) -> str:
        return str(sum(not one["passed"] for one in audits.values()))

    ordered = sorted(found, key=lambda method: int(failed(found[method])))
    body = [[method, failed(found[method]), *(cell(found[method], audit.name) for audit in made)] for method in ordered]
    head = ["floor, ±", "", *(f"{100 * (floor[audit.name] or 0):.1f}" for audit in made)]
    complete = [method for method in ordered if len(found[method]) == len(made) and method not in (ORIGINAL, RETRAINED)]
    passing = [method for method in complete if failed(found[method]) == "0"]
    says = f"All audits are passed by {', '.join(passing)}." if passing else "No method passes all audits."
    return [*markdown(["method", "failed", *(audit.heading for audit in made)], [head, *body]), "", says]


def draw(back: Mapping[str, Sequence[float | None]]) -> Figure:
    """Methods × what is done to the network: the share of the class that is recognised, from 0 to 1. Those with the least of it first."""

    def place(method: str) -> tuple[int, float]:
        return {RETRAINED: 0, ORIGINAL: 2}.get(method, 1), sum(share or 0.0 for share in back[method])

    names = sorted(back, key=place)
    cells = np.array([[np.nan if share is None else share for share in back[name]] for name in names])
    measured = [j for j in range(len(BACK)) if not np.isnan(cells[:, j]).all()]
    cells, headings = cells[:, measured], [list(BACK.values())[j] for j in measured]
    figure = Figure((9.4, 1.2 + 0.24 * len(names)), layout="constrained")
    ax = figure.subplots()
    ax.imshow(cells, cmap="Blues", vmin=0, vmax=1.25, aspect="auto")
    for (i, j), share in np.ndenumerate(cells):
        if not np.isnan(share):
            ax.text(
                j,
                i,
                f"{100 * share:.0f}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if share > 0.6 else "black",
            )
    ax.set_xticks(range(len(headings)), ["\n".join(heading.rsplit(" ", 1)) for heading in headings])
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(length=0)
    ax.xaxis.tick_top()
    ax.set_title("Recognised images of the erased class, %, after …")
    return figure


if __name__ == "__main__":
    sys.exit(main())
