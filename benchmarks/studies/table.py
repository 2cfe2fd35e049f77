"""A table of means ± standard deviations over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from script import markdown

from delete_jax import metrics
from delete_jax.tasks.evidence import RELEARN_STEPS

PERCENT = (100, 1)


class Column(NamedTuple):
    """A figure in a table: its name in a row, what stands above it, how it is shown, and what where a seed has no value."""

    name: str
    heading: str
    factor: float = 100
    digits: int = 1
    missing: str = ""


def measured(names: Iterable[str], fractions: tuple[float, int] | None = None) -> list[Column]:
    """Makes the columns of measures.

    Args:
      fractions: factor and digits of all numbers between 0 and 1, where one table shall show them alike.
    """
    rows = [metrics.MEASURES[name] for name in names]
    scales: dict[str, tuple[float, int]] = {kind: (how.factor, how.digits) for kind, how in metrics.SHOWN.items()}
    if fractions is not None:
        scales |= dict.fromkeys(("percent", "points", "number"), fractions)
    missing = {"relearn_steps": f"> {RELEARN_STEPS}"}
    return [Column(row.name, row.heading, *scales[row.show], missing.get(row.name, "")) for row in rows]


def summary(names: Iterable[str], cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Collects the values of figures by seed, or why a seed's run failed."""
    if failed := [cell["failed"] for cell in cells if "failed" in cell]:
        return {"failed": failed[0]}
    return {name: [metrics.look_up(cell, name) for cell in cells] for name in names}


def mean_std(values: Sequence[float | None]) -> tuple[float, float]:
    """Computes both over seeds (n - 1); infinite where there is a seed without a value (a class that did not come back)."""
    if None in values:
        return math.inf, 0.0
    found = np.array(values, float)
    return float(np.mean(found)), float(np.std(found, ddof=1)) if len(found) > 1 else 0.0


def shown(row: Mapping[str, Any], column: Column) -> str:
    """Shows mean ± std of a figure; empty where the row has none."""
    if "failed" in row:
        return "failed"
    if None in row.get(column.name, [None]):
        return column.missing if column.name in row else ""
    average, deviation = mean_std(row[column.name])
    return f"{column.factor * average:z.{column.digits}f} ± {column.factor * deviation:.{column.digits}f}"


def mean(row: Mapping[str, Any], column: Column) -> str:
    """Shows the mean of a figure alone; empty where the row has none."""
    return shown(row, column).partition(" ± ")[0]


def table(heads: Sequence[str], columns: Sequence[Column], rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Makes a Markdown table of means ± std: what the rows have under `heads`, then their figures."""
    titles = [*heads, *(column.heading for column in columns)]
    return markdown(titles, ([*(row[head] for head in heads), *(shown(row, c) for c in columns)] for row in rows))


def means(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Averages every method's values by seed over what was forgotten; without figures that some row lacks."""
    averaged = []
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        common = [c.name for c in columns if all(None not in row.get(c.name, [None]) for row in mine)]
        values = {name: np.mean([row[name] for row in mine], axis=0).tolist() for name in common}
        failed = {"failed": "in some row"} if any("failed" in row for row in mine) else {}
        averaged.append({"forget": MEAN, "method": method, "rate": mine[0]["rate"], **values, **failed})
    return averaged


MEAN = "mean"
"""What is forgotten in a row of means."""


def means_first(
    requests: Sequence[Any], rows: Sequence[dict[str, Any]], columns: Sequence[Column]
) -> list[dict[str, Any]]:
    """Puts the means above the rows where there are several requests."""
    return [*means(rows, columns), *rows] if len(requests) > 1 else list(rows)


def note(start: str, seeds: int, held_out: str, rates: Mapping[str, float | str]) -> str:
    """Makes the line below a table."""
    chosen = ", ".join(f"{name} {rate:g}" for name, rate in rates.items() if not isinstance(rate, str))
    return f"{start} ± std over {seeds} seeds. Rates chosen on {held_out}: {chosen}."
