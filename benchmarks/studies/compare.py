"""Methods side by side: mean ± std over seeds, beside the original and the network retrained without the classes.

    python benchmarks/studies/compare.py --config=configs/fashion_mnist.py --out=runs/compare

Each method's rate (the strength of one that is computed at once; alpha of ssd, share of esc) is chosen once, for all classes: first among
every other candidate, then between the best of these and its neighbours. The best is the one with the highest mean H-Mean
(residual) on held-out training samples, for the first seed's network; every score is in `table.json`. Test data are used
for the final figures only. A run that fails is shown as failed. The same command again continues, also with more classes,
methods or seeds: every finished cell is a line of OUT/cells.jsonl. A measure that came later has cells of its own: it is taken of networks that are
kept, and with --again of networks that are trained again for it.

Beside `table.md` there is the picture `tradeoff.png`, and a page to explore for each request, such as `comparison-1.html`.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import explore
import jax
from bench import Bench, Case, Way
from script import make_parser, run_script, write
from study import ANOTHER, Study, references, search
from table import MEAN, PERCENT, Column, mean_std, means, measured, note, table
from tradeoff import write_picture

import delete_jax as dj
from delete_jax.methods import METHODS
from delete_jax.metrics.audits import LEAST_RETRAINED
from delete_jax.options import AUTO
from delete_jax.reports.compare_page import MARK_OF_EXPERIMENTS
from delete_jax.reports.made_with import versions
from delete_jax.tasks import TASKS
from delete_jax.tasks.base import RETRAINED
from delete_jax.tasks.evidence import Evidence

RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
STRENGTHS = {  # where the learning rate is something else, or lies elsewhere
    "fisher": (1e-8, 3e-8, 1e-7, 3e-7, 1e-6, 3e-6, 1e-5, 3e-5, 1e-4),
    "wood_fisher": (0.3, 1, 3, 10, 30, 100, 300, 1000, 3000),
    "ssd": (1, 1.5, 2, 3, 5, 10, 20, 50, 100),
    "pour": (1,),  # has none
    "bias_shift": (1,),
    "cse": (1,),
    "esc": (0.005, 0.015, 0.05, 0.15),
    "esc_t": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1),
    "source_free": (1e-2, 3e-2, 1e-1, 3e-1, 1, 3, 10),
    "redistil": (1e-2, 3e-2, 1e-1, 3e-1, 1, 3),
    "mu_mis": (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3),
}
VARIANTS: dict[str, Way] = {  # methods with other settings than the default
    "redistil": Way("redistil", {"epochs": 2}),  # each of seven passes
    "redistil, twice the images": Way("redistil", {"epochs": 2, "hyperparameters": {"images": 14.0}}, like="redistil"),
    "delete, dispersion and neighbours": Way("delete", {"hyperparameters": {"dispersion": 0.1, "neighbours": 0.3}}),
    "anchored, adversarial": Way("anchored", {"hyperparameters": {"anchors": "adversarial"}}),
    "salun, random mask": Way("salun", {"hyperparameters": {"mask": "random"}}),
    # In train mode, the drift of the running statistics forgets, whatever the rate.
    "random_label, frozen": Way("random_label", {"batch_norm": "frozen"}),
    **{
        f"{name}, no rate": Way(name, {"batch_norm": "frozen", "epochs": None, "steps": None}, rate=AUTO)
        for name in ("delete", "anchored")
    },
    "delete, remaining labels": Way("delete", {"hyperparameters": {"remain": "labels"}}),
    "trew, remaining": Way("trew", {"hyperparameters": {"remain": True}}),
}
SELDOM = ("delete, remaining labels", "trew, remaining")
"""Variants that are compared where they are named, or with `--methods all`."""
DEFAULT_METHODS = (
    "delete", "anchored", "pour", "bias_shift", "source_free", "cse", "esc", "esc_t", "pour_distill", "mu_mis",
    "random_label", "gradient_ascent", "boundary_shrink", "boundary_expand", "salun", "bad_teacher", "l2ul_adv",
    "negative_gradient_plus", "scrub", "ssd", *(name for name in VARIANTS if name not in SELDOM),
)  # fmt: skip
AUDITS = "What the weights and the predictions give away, and whether the class comes back"
TABLES = {
    "What it predicts": (
        "acc_ft", "any_forgotten", "acc_rt", "acc_f", "acc_r", "hmean_residual", "hmean_drop", "aus", "seconds", "speedup",
    ),
    "How far that is from the retrained network, and what is left inside": (
        "distance_to_retrained.forget.total_variation", "distance_to_retrained.remain.total_variation",
        "distance_to_retrained.forget.jensen_shannon", "distance_to_retrained.forget.agreement",
        "probe", "probe_gap", "relearn_steps", "mia", "mia_accuracy",
    ),
    "What attacks still find, and the damage around what was erased": (
        "residual_auc", "residual_auc_gap", "probe_10", "probe_10_gap", "probe_10_others", "probe_10_others_gap",
        "shots_5", "shots_5_gap", "acc_ft_perturbed", "acc_ft_perturbed_gap", "acc_old_statistics", "over_unlearning", "nearest_class",
        "nearest_loss",
    ),
    AUDITS: (
        "class_rank", "class_rank_chance", "energy_auroc", "energy_auroc_gap", "max_logit_auroc", "max_logit_auroc_gap", "cmia",
        "quantised_acc_int8", "quantised_acc_int4", "pruned_acc_10", "pruned_acc_30", "pruned_acc_50", "steered_acc", "steered_acc_gap",
    ),
}  # fmt: skip
FLOOR = (
    f"Gaps are percentage points to the retrained network of the same seed. The floor is the row “{ANOTHER}”: its gaps average to 0 "
    "over seeds by construction, and their standard deviation is how far two retrained networks differ."
)
EXPERIMENTS = f"{MARK_OF_EXPERIMENTS.strip()} An experimental method of this project, which no paper has proposed."
ADDED = ("acc_old_statistics", "nearest_loss", *TABLES[AUDITS])
SEVERAL_SEEDS = ("cmia",)
"""Measures that want more networks than three seeds have (`metrics.audits.LEAST_RETRAINED`)."""
NAMES = tuple(name for names in TABLES.values() for name in names if name not in ADDED)
# A network that was trained costs what the retrained one does.
UNTIMED = {"original": ("seconds", "speedup"), "retrained": ("speedup",), ANOTHER: ("seconds", "speedup")}


def main() -> int:
    parser = make_parser(__doc__, classes=["1", "6", "9"])
    variants = ", ".join(f"'{name}'" for name in VARIANTS)
    parser.add_argument("--methods", nargs="+", default=DEFAULT_METHODS, help=f"names, or: all; also {variants}")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="candidates, rising")
    parser.add_argument(
        "--again", action="store_true", help="train networks again whose kept figures lack a measure that came later"
    )
    return run_script(parser, compare)


def compare(options: argparse.Namespace) -> None:
    ways = choose(options.methods, tuple(options.rates))
    loaded = Bench(options, "classification", "faces")
    explore.check_pages(options.out, options.classes)
    added = [name for name in ADDED if name not in SEVERAL_SEEDS or options.seeds >= LEAST_RETRAINED]
    study = Study(
        name="compare",
        bench=loaded,
        requests=options.classes,
        seeds=options.seeds,
        names=NAMES,
        more=explore.view,
        evidence=evidence,
        added=added,
        again=options.again,
    )
    record = study.run(ways, references(options.seeds), search)
    rates = record["rates"]
    columns = measured([*NAMES, *added], PERCENT)
    rows = [{k: v for k, v in row.items() if k not in UNTIMED.get(row["method"], ())} for row in record["rows"]]
    if len(options.classes) > 1:
        rows += means(rows, columns)
    lines, shown = [], marked(rows, ways)
    for title, names in TABLES.items():
        lines += [f"**{title}**", "", *folded(shown, [c for c in columns if c.name in names], study.heads)]
    lines += [EXPERIMENTS, ""] if shown != rows else []
    lines += [FLOOR, ""] if options.seeds > 1 else []
    lines.append(note("Percent, mean", options.seeds, "validation data", rates))
    edge = [way.name for way in ways if len(way.rates) > 1 and rates[way.name] in (way.rates[0], way.rates[-1])]
    if edge:
        lines.append(f"At the edge of its candidates: {', '.join(edge)}.")
    record |= {"rows": rows, "versions": versions(), "device": jax.devices()[0].device_kind}
    write(options.out, "table", lines, record)
    write_csv(options.out / "table.csv", rows, columns)
    write_picture(
        [row for row in rows if row["forget"] == (MEAN if len(options.classes) > 1 else rows[0]["forget"])],
        options.out / "tradeoff.png",
    )
    explore.write_pages(study, ways, rows, rates)


def evidence(case: Case, result: dj.Result) -> Evidence:
    """Collects the evidence on a network, with the retrained networks of the first seeds where there are enough of them: always the same
    ones, so that more seeds change no cell."""
    found, loaded = case.evidence(result), case.bench
    if loaded.seeds >= LEAST_RETRAINED:
        cases = (loaded.case(seed, case.forget) for seed in range(LEAST_RETRAINED))
        found.first.seeds = [one.network(RETRAINED) for one in cases]
    return found


def marked(rows: Sequence[dict[str, Any]], ways: Sequence[Way]) -> list[dict[str, Any]]:
    """The rows with a mark behind the names of experimental methods."""
    marks = {way.name: way.name + MARK_OF_EXPERIMENTS for way in ways if way.is_experimental}
    return [row | {"method": marks.get(row["method"], row["method"])} for row in rows]


def folded(rows: Sequence[dict[str, Any]], columns: Sequence[Column], heads: tuple[str, str]) -> list[str]:
    """A table of the means, with each class's below, folded; of one class, its own."""
    mean, single = ([row for row in rows if (row["forget"] == MEAN) == wanted] for wanted in (True, False))
    if not mean:
        return [*table(heads, columns, single), ""]
    return [
        *table(heads[1:], columns, mean),
        "",
        '<details markdown="1"><summary>Each class</summary>',
        "",
        *table(heads, columns, single),
        "",
        "</details>",
        "",
    ]


def choose(names: Sequence[str], rates: tuple[float, ...]) -> list[Way]:
    """The methods and variants that were asked for, "all" being those for images with a class each; DELETE with both masks.

    Raises:
      ValueError: there is no such method.
    """
    if list(names) == ["all"]:
        provided = set(TASKS["classification"].provides)
        names = [name for name in METHODS if set(dj.methods.create(name).needs) <= provided and name not in VARIANTS]
        names += VARIANTS
    ways = []
    for name in names:
        variant = VARIANTS.get(name, Way(name, {}))  # called by its method
        method, like = variant.name, variant.like
        if like and like not in names:
            raise ValueError(f"{name} takes the rate of {like}: compare that, too")
        unlearn = {"method": method, "hyperparameters": {}, **variant.unlearn}
        dj.methods.create(method, **unlearn["hyperparameters"])
        candidates = () if like or variant.rate else STRENGTHS.get(method, rates)
        ways.append(Way(name, unlearn, rates=candidates, rate=variant.rate, like=like))
        if name == "delete":
            ways.append(Way("delete, own mask", {"method": name, "mask": "own"}, like=name, several=True))
    return ways


def compared_classes(table: dict[str, Any], loaded: Bench) -> list[int]:
    """Finds the classes that were erased alone in a comparison's `table.json`."""
    names = {row["forget"] for row in table["rows"]}
    return [class_ for class_, name in enumerate(loaded.dataset.class_names) if name in names]


def write_csv(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[Column]) -> None:
    """Mean and std of every figure, as fractions."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["forget", "method", "rate", *(f"{column.name}_{part}" for column in columns for part in ("mean", "std"))]
        )
        for row in rows:
            pairs = (mean_std(row[column.name]) if column.name in row else ("", "") for column in columns)
            writer.writerow([row["forget"], row["method"], row["rate"], *(value for pair in pairs for value in pair)])


if __name__ == "__main__":
    sys.exit(main())
