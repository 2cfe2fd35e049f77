"""The tables of a comparison: every measure (`table.md`, `table.csv`), and a few for a page (`short.md`).

    python benchmarks/studies/compare.py --config=configs/fashion_mnist.py --out=benchmarks/results/compare --tables --page=docs/results/comparison.md

writes them again from what `table.json` has, and the short ones into a page.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import Way
from script import markdown
from study import ANOTHER
from table import MEAN, PERCENT, Column, mean, mean_std, measured, note, shown, table

from delete_jax.reports.compare_page import MARK_OF_EXPERIMENTS
from delete_jax.tasks.base import ORIGINAL, RETRAINED

Row = dict[str, Any]
"""Of a `Study`: what was forgotten, how, at which rate, and the values of each measure by seed."""
Groups = Mapping[str, Sequence[str]]
"""The title of each table -> the measures in it."""
HEADS = ("forget", "method")
REFERENCES = (ORIGINAL, RETRAINED, ANOTHER)
SHORT: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "What it predicts": (
        "Compare each row with *retrained*. A good method forgets as much as retraining does and keeps the accuracy on the remaining classes, "
        "the one nearest to the erased class included. The floor is the row *retrained, another seed*, mean ± std: a smaller difference is no "
        "larger than that between two retrained networks.",
        {"acc_ft": "", "acc_rt": "", "nearest_class": "", "speedup": "× faster than retraining ↑"},
    ),
    "How far that is from the retrained network": (
        "TV, the total variation distance, is the probability that would have to move between classes to make both predictions the same, in "
        "percent. The floor is again the other seed: no method can be expected to come nearer to the retrained network than a second one does.",
        {
            "distance_to_retrained.forget.total_variation": "TV, forgotten ↓",
            "distance_to_retrained.remain.total_variation": "TV, remaining ↓",
            "distance_to_retrained.forget.agreement": "same prediction, forgotten ↑",
        },
    ),
    "What audits still find": (
        "A gap is the value minus that of the retrained network of the same seed, in percentage points. 0 is best, and below 0 is another trace "
        "of the class, not a better result. The floor is the ± of *retrained, another seed*: a gap within it says nothing.",
        {
            "residual_auc_gap": "AUC of the probability left: gap → 0",
            "probe_10_gap": "probe, 10 labels a class, forgotten: gap → 0",
            "probe_10_others_gap": "the same probe, remaining: gap → 0",
            "energy_auroc_gap": "AUC of the energy: gap → 0",
            "class_rank": "",
            "cmia": "",
            "quantised_acc_int4": "",
            "steered_acc_gap": "forgotten, steered: gap → 0",
        },
    ),
}
"""Titles of the short tables -> how to read each; its measures, and what stands above those with a long heading."""
START, END = "<!-- the short tables -->", "<!-- the end of the short tables -->"
"""The lines of a page that its short tables lie between."""
FLOOR = (
    f"Gaps are percentage points to the retrained network of the same seed. The floor is the row “{ANOTHER}”: its gaps average to 0 "
    "over seeds by construction, and their standard deviation is how far two retrained networks differ."
)
EXPERIMENTS = f"{MARK_OF_EXPERIMENTS.strip()} An experimental method of this project, which no paper has proposed."


def columns_of(rows: Sequence[Row], names: Iterable[str]) -> list[Column]:
    """The measures among these that some row has."""
    return measured([name for name in names if any(name in row for row in rows)], PERCENT)


def summarised(rows: Sequence[Row]) -> list[Row]:
    """The rows of means; of one request, its own."""
    return [row for row in rows if row["forget"] == MEAN] or list(rows)


def tables(groups: Groups, record: Row, ways: Sequence[Way]) -> list[str]:
    """The lines of `table.md`: every measure that some row has, mean ± std, and what to know of them."""
    rows, rates = record["rows"], record["rates"]
    lines, named = [], marked(rows, ways)
    for title, names in groups.items():
        if columns := columns_of(rows, names):
            lines += [f"**{title}**", "", *folded(named, columns)]
    seeds = max((len(value) for row in rows for value in row.values() if isinstance(value, list)), default=1)
    lines += [EXPERIMENTS, ""] if named != rows else []
    lines += [FLOOR, ""] if seeds > 1 else []
    lines.append(note("Percent, mean", seeds, "validation data", rates))
    edge = [way.name for way in ways if len(way.rates) > 1 and rates.get(way.name) in (way.rates[0], way.rates[-1])]
    if edge:
        lines.append(f"At the edge of its candidates: {', '.join(edge)}.")
    return lines


def short_tables(rows: Sequence[Row], ways: Sequence[Way]) -> list[str]:
    """The lines of `short.md`: a row for each method as it is by default, the means of a few measures, and how to read them."""
    defaults = {way.name for way in ways if way.name == way.unlearn["method"]}
    methods = [row for row in summarised(rows) if row["method"] in defaults]
    named = marked([row for row in summarised(rows) if row["method"] in REFERENCES] + methods, ways)
    lines = []
    for title, (how, headings) in SHORT.items():
        columns = columns_of(methods, headings)
        body = [
            [row["method"], *((shown if row["method"] == ANOTHER else mean)(row, column) for column in columns)]
            for row in named
        ]
        if columns:
            heads = ["method", *(headings[column.name] or column.heading for column in columns)]
            lines += [f"### {title}", "", how, "", *markdown(heads, body), ""]
    return lines


def spliced(page: Path, lines: Sequence[str]) -> str:
    """The text of a page, with these lines as its short tables.

    Raises:
      ValueError: the page has no place for them.
    """
    text = page.read_text()
    before, start, rest = text.partition(f"{START}\n")
    _, end, after = rest.partition(f"{END}\n")
    if not (start and end):
        raise ValueError(f"{page} has no place for the short tables: add the lines {START} and {END}")
    return "".join([before, start, "\n", *(f"{line}\n" for line in lines), end, after])


def marked(rows: Sequence[Row], ways: Sequence[Way]) -> list[Row]:
    """The rows with a mark behind the names of experimental methods."""
    marks = {way.name: way.name + MARK_OF_EXPERIMENTS for way in ways if way.is_experimental}
    return [row | {"method": marks.get(row["method"], row["method"])} for row in rows]


def folded(rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    """A table of the means, with each class's below, folded; of one class, its own."""
    of_all, single = ([row for row in rows if (row["forget"] == MEAN) == wanted] for wanted in (True, False))
    if not of_all:
        return [*table(HEADS, columns, single), ""]
    return [
        *table(HEADS[1:], columns, of_all),
        "",
        '<details markdown="1"><summary>Each class</summary>',
        "",
        *table(HEADS, columns, single),
        "",
        "</details>",
        "",
    ]


def write_csv(path: Path, rows: Sequence[Row], columns: Sequence[Column]) -> None:
    """Mean and std of every figure, as fractions."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["forget", "method", "rate", *(f"{column.name}_{part}" for column in columns for part in ("mean", "std"))]
        )
        for row in rows:
            pairs = (mean_std(row[column.name]) if column.name in row else ("", "") for column in columns)
            writer.writerow([row["forget"], row["method"], row["rate"], *(value for pair in pairs for value in pair)])
