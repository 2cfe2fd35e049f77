"""The picture of a comparison: what each method forgets and costs, and what it leaves in the network.

    python benchmarks/compare.py --config=configs/fashion_mnist.py --out=runs/compare

draws it from the table's means, as `tradeoff.png`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import bench
import matplotlib
import numpy as np
from bench import ANOTHER
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from delete_jax import metrics
from delete_jax.report.style import COLORS, MUTED, STYLE
from delete_jax.tasks.base import ORIGINAL, RETRAINED

INK = {name: light for name, (light, _) in COLORS.items()}
MARKED = {"delete": INK["unlearned"], "anchored": INK["remain"], "redistil": INK["forget"]}


class Panel(NamedTuple):
    """Two measures against each other, and the network in whose seed-to-seed range a method ought to lie."""

    title: str
    across: str
    up: str
    floor: str


PANELS = (
    Panel("What it predicts", "acc_ft", "acc_rt", RETRAINED),
    # The gaps of the retrained network to itself are 0; those of another seed's average to 0 and show the range.
    Panel("What attacks still find", "residual_auc_gap", "probe_10_gap", ANOTHER),
)


def write_picture(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws a point for each row, numbered, in both panels. A row that failed or lacks a measure has none there.

    Args:
      rows: one for each network, with the values of the measures by seed.
      path: of the PNG.
    """
    shown = [row for row in rows if row["method"] not in (RETRAINED, ANOTHER) and "failed" not in row]
    with matplotlib.rc_context(STYLE):
        figure = Figure((10.4, 5.6), layout="constrained")
        for panel, ax in zip(PANELS, figure.subplots(1, len(PANELS)), strict=True):
            _draw(panel, ax, rows, shown)
        names = [f"{number}  {row['method']}" for number, row in enumerate(shown, start=1)]
        handles = [matplotlib.lines.Line2D([], [], linestyle="none") for _ in names]
        figure.legend(handles, names, loc="outside right center", handlelength=0, handletextpad=0, fontsize=7)
        figure.savefig(path, dpi=150)


def _draw(panel: Panel, ax: Axes, rows: Sequence[Mapping[str, Any]], shown: Sequence[Mapping[str, Any]]) -> None:
    floor = next((row for row in rows if row["method"] == panel.floor), {})
    if panel.across in floor and panel.up in floor:
        (x, width), (y, height) = (bench.mean_std(floor[name]) for name in (panel.across, panel.up))
        if width:
            corner, size = (100 * (x - width), 100 * (y - height)), (200 * width, 200 * height)
            ax.add_patch(Rectangle(corner, *size, facecolor=INK["retrained"], edgecolor="none", alpha=0.3))
        else:  # no retrained network predicts the class
            ax.axhspan(100 * (y - height), 100 * (y + height), color=INK["retrained"], alpha=0.3, linewidth=0)
        ax.plot(100 * x, 100 * y, "s", color=INK["retrained"], label="retrained: mean ± std over seeds")
        ax.legend(loc="best")
    for number, row in enumerate(shown, start=1):
        if panel.across in row and panel.up in row:
            color = MARKED.get(row["method"], INK["original"] if row["method"] == ORIGINAL else MUTED)
            point = [100 * float(np.mean(row[name])) for name in (panel.across, panel.up)]
            ax.plot(*point, "o", color=color, markersize=4)
            ax.annotate(str(number), point, (3, 2), textcoords="offset points", color=color, fontsize=7)
    for name, put in ((panel.across, ax.set_xlabel), (panel.up, ax.set_ylabel)):
        put(metrics.MEASURES[name].heading)
    ax.set_title(panel.title)
    ax.grid()
