"""Methods side by side: mean ± std over seeds, beside the original and the network retrained without the classes.

    python benchmarks/studies/compare.py --config=configs/fashion_mnist.py --out=runs/compare

Each method's rate (the strength of one that is computed at once; alpha of ssd, share of esc) is chosen once, for all classes: first among
every other candidate, then between the best of these and its neighbours. The best is the one with the highest mean H-Mean
(residual) on held-out training samples, for the first seed's network; every score is in `table.json`. Test data are used
for the final figures only. A run that fails is shown as failed. The same command again continues, also with more classes,
methods or seeds: every finished cell is a line of OUT/cells.jsonl. A measure that came later has cells of its own: it is taken of networks that are
kept, and with --again of networks that are trained again for it.

Beside `table.md`, with every measure, there are `short.md`, with the means of a few, the picture `tradeoff.png`, and a page to explore for each
request, such as `comparison-1.html`.

    python benchmarks/studies/compare.py --config=configs/fashion_mnist.py --out=benchmarks/results/compare --tables --page=docs/results/comparison.md

writes the tables and the picture again from what `table.json` has, and the short tables into a page.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import explore
import jax
from bench import Bench, Case, Way
from compare_tables import columns_of, short_tables, spliced, summarised, tables, write_csv
from script import make_parser, run_script, write
from study import ANOTHER, Study, references, search
from table import PERCENT, means, measured
from tradeoff import write_picture

import delete_jax as dj
from delete_jax.methods import METHODS
from delete_jax.metrics.audits import LEAST_RETRAINED
from delete_jax.options import AUTO
from delete_jax.reports.made_with import versions
from delete_jax.tasks import TASKS
from delete_jax.tasks.base import RETRAINED
from delete_jax.tasks.evidence import Evidence
from delete_jax.writing import writing

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
    "rfe": (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3),
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
DEFAULT_METHODS = (
    "delete", "anchored", "pour", "bias_shift", "source_free", "cse", "esc", "esc_t", "pour_distill", "mu_mis",
    "random_label", "gradient_ascent", "boundary_shrink", "boundary_expand", "salun", "bad_teacher", "l2ul_adv",
    "negative_gradient_plus", "scrub", "ssd", "unsir", "rfe", *VARIANTS,
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
ADDED = ("acc_old_statistics", "nearest_loss", *TABLES[AUDITS])
SEVERAL_SEEDS = ("cmia",)
"""Measures that want more networks than three seeds have (`metrics.audits.LEAST_RETRAINED`)."""
NAMES = tuple(name for names in TABLES.values() for name in names if name not in ADDED)
# A network that was trained costs what the retrained one does.
TIMES = ("seconds", "speedup")
UNTIMED = {"original": TIMES, "retrained": ("speedup",), ANOTHER: TIMES}


def main() -> int:
    parser = make_parser(__doc__, classes=["1", "6", "9"])
    variants = ", ".join(f"'{name}'" for name in VARIANTS)
    parser.add_argument("--methods", nargs="+", default=DEFAULT_METHODS, help=f"names, or: all; also {variants}")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="candidates, rising")
    parser.add_argument(
        "--again", action="store_true", help="train networks again whose kept figures lack a measure that came later"
    )
    parser.add_argument(
        "--tables",
        action="store_true",
        help="compute nothing: write the tables and the picture of OUT/table.json again",
    )
    parser.add_argument("--page", type=Path, help="a Markdown page whose short tables are replaced")
    return run_script(parser, compare)


def compare(options: argparse.Namespace) -> None:
    ways = choose(options.methods, tuple(options.rates))
    if options.page:
        spliced(options.page, [])  # a wrong page is found at once
    if options.tables:
        write_all(options, ways, json.loads((options.out / "table.json").read_text()))
        return
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
    rows = timed([{k: v for k, v in row.items() if k not in UNTIMED.get(row["method"], ())} for row in record["rows"]])
    if len(options.classes) > 1:
        rows += means(rows, measured([*NAMES, *added], PERCENT))
    record |= {"rows": rows, "versions": versions(), "device": jax.devices()[0].device_kind}
    write_all(options, ways, record)
    explore.write_pages(study, ways, rows, record["rates"])


def timed(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leaves out a method's times of seeds whose cells lack them: those that were measured beside other work are taken out of the cells."""

    def known(name: str, method: str) -> list[int]:
        series = [row[name] for row in rows if row["method"] == method and name in row]
        return [seed for seed, values in enumerate(zip(*series, strict=True)) if None not in values]

    kept = []
    for row in rows:
        times = {name: [row[name][seed] for seed in known(name, row["method"])] for name in TIMES if name in row}
        kept.append({name: values for name, values in {**row, **times}.items() if values or name not in times})
    return kept


def write_all(options: argparse.Namespace, ways: Sequence[Way], record: dict[str, Any]) -> None:
    """Writes the tables and the picture of all rows, and the short tables into the page."""
    rows = record["rows"]
    write(options.out, "table", tables(TABLES, record, ways), record)
    write_csv(options.out / "table.csv", rows, columns_of(rows, [name for names in TABLES.values() for name in names]))
    write_picture(summarised(rows), options.out / "tradeoff.png")
    lines = short_tables(rows, ways)
    with writing(options.out / "short.md") as file:
        file.write("\n".join([*lines, ""]).encode())
    if options.page:
        text = spliced(options.page, lines)
        with writing(options.page) as file:
            file.write(text.encode())


def evidence(case: Case, result: dj.Result) -> Evidence:
    """Collects the evidence on a network, with the retrained networks of the first seeds where there are enough of them: always the same
    ones, so that more seeds change no cell."""
    found, loaded = case.evidence(result), case.bench
    if loaded.seeds >= LEAST_RETRAINED:
        cases = (loaded.case(seed, case.forget) for seed in range(LEAST_RETRAINED))
        found.first.seeds = [one.network(RETRAINED) for one in cases]
    return found


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


if __name__ == "__main__":
    sys.exit(main())
