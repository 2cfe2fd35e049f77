"""The picture of a comparison: what each method forgets and costs, and what it leaves in the network.

    python benchmarks/studies/compare.py --config=configs/fashion_mnist.py --out=runs/compare

draws it from the table's means, as `tradeoff.png`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextPath
from matplotlib.ticker import FixedLocator, FormatStrFormatter, NullLocator
from study import ANOTHER
from table import mean_std

from delete_jax import metrics
from delete_jax.reports.scatter import at_the_edge
from delete_jax.reports.style import COLORS, MUTED, STYLE
from delete_jax.tasks.base import ORIGINAL, RETRAINED

INK = {name: light for name, (light, _) in COLORS.items()}
SIZE = 7.5
"""Of the letters of names."""
ROOM = np.array([9.0, 3.0])
"""What a name needs around it, in points."""
NEAR = 9
"""A name farther from its point, in points, needs a line to it."""
DISTANCES = (0, 1, 2, 5, 10, 20, 40, 80)
"""Of the ticks of a stretched scale from its center, in points."""
ANGLES = [
    np.array([np.cos(turn), np.sin(turn)])
    for turn in np.pi / 8 * np.array([0, 8, 1, 7, -1, -7, 2, 6, -2, -6, 4, -4, 3, 5, -3, -5])
]
MARKED = {"delete": INK["unlearned"], "anchored": INK["remain"], "redistil": INK["forget"]}
"""Methods with a colour, which always have their name."""


class Panel(NamedTuple):
    """Two measures against each other, and the network in whose seed-to-seed range a method ought to lie.

    legend: where its explanation stands.
    is_stretched: whether the scales are widened around that network, where most methods lie.
    """

    title: str
    across: str
    up: str
    floor: str
    legend: str
    is_stretched: bool = False


PANELS = (
    Panel("What it predicts", "acc_ft", "acc_rt", RETRAINED, "lower right", is_stretched=True),
    # The gaps of the retrained network to itself are 0; those of another seed's average to 0 and show the range.
    Panel("What attacks still find", "residual_auc_gap", "probe_10_gap", ANOTHER, "lower right"),
)


def write_picture(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws a point for each row in both panels; those at the edge of the cloud have names. A row that failed or lacks a measure has no point.

    Args:
      rows: one for each network, with the values of the measures by seed.
      path: of the PNG.
    """
    shown = [row for row in rows if row["method"] not in (RETRAINED, ANOTHER) and "failed" not in row]
    with matplotlib.rc_context(STYLE):
        figure = Figure((7.2, 7.8), layout="constrained")
        for panel, ax in zip(PANELS, figure.subplots(len(PANELS), 1), strict=True):
            _draw(panel, ax, rows, shown)
        figure.draw_without_rendering()  # from here on it is known where the points lie on the page
        for panel, ax in zip(PANELS, figure.axes, strict=True):
            _name(panel, ax, shown)
        figure.savefig(path, dpi=150)


def _draw(panel: Panel, ax: Axes, rows: Sequence[Mapping[str, Any]], shown: Sequence[Mapping[str, Any]]) -> None:
    floor = next((row for row in rows if row["method"] == panel.floor), {})
    if panel.across in floor and panel.up in floor:
        (x, width), (y, height) = (mean_std(floor[name]) for name in (panel.across, panel.up))
        if panel.is_stretched:
            _stretch(ax, 100 * y)
        if width:
            corner, size = (100 * (x - width), 100 * (y - height)), (200 * width, 200 * height)
            ax.add_patch(Rectangle(corner, *size, facecolor=INK["retrained"], edgecolor="none", alpha=0.3))
        else:  # no retrained network predicts the class
            ax.axhspan(100 * (y - height), 100 * (y + height), color=INK["retrained"], alpha=0.3, linewidth=0)
        ax.plot(100 * x, 100 * y, "s", color=INK["retrained"], label="retrained: mean ± std over seeds")
        ax.legend(loc=panel.legend, fontsize=8)
    for row in shown:
        if (point := _point(panel, row)) is not None:
            across, order = (5, 4) if row["method"] in (*MARKED, ORIGINAL) else (4, 3)
            ax.plot(*point, "o", color=_color(row["method"]), markersize=across, zorder=order)
    for name, put in ((panel.across, ax.set_xlabel), (panel.up, ax.set_ylabel)):
        put(metrics.MEASURES[name].heading)
    ax.set_title(panel.title)
    ax.grid()


def _stretch(ax: Axes, center: float) -> None:
    """Makes both scales logarithmic around (0, center), in points: a tenth of one is seen beside forty."""

    def forward(value: np.ndarray) -> np.ndarray:
        return np.arcsinh(np.asarray(value) - center)

    def backward(value: np.ndarray) -> np.ndarray:
        return np.sinh(value) + center

    ax.set_xscale("asinh", linear_width=1)
    ax.set_yscale("function", functions=(forward, backward))
    for axis, middle in ((ax.xaxis, 0), (ax.yaxis, round(center))):
        ticks = [middle + side * away for away in DISTANCES for side in (-1, 1)]
        axis.set_major_locator(FixedLocator([tick for tick in ticks if 0 <= tick <= 100]))
        axis.set_major_formatter(FormatStrFormatter("%d"))
        axis.set_minor_locator(NullLocator())


def _name(panel: Panel, ax: Axes, shown: Sequence[Mapping[str, Any]]) -> None:
    """Writes the names of the original, of the coloured methods, and of those at the edge of the cloud beside their points."""
    rows, found = [], []
    for row in shown:
        if (point := _point(panel, row)) is not None:
            rows.append(row)
            found.append(point)
    if not found:
        return
    scale, values = 72 / ax.figure.dpi, np.array(found)
    points = scale * ax.transData.transform(values)
    is_method = np.array([row["method"] != ORIGINAL for row in rows])
    named = np.array([row["method"] in MARKED or row["method"] == ORIGINAL for row in rows])
    across, up = (metrics.MEASURES[name] for name in (panel.across, panel.up))
    named[is_method] |= at_the_edge(across, up, values[is_method], points[is_method])
    names = [row["method"] for row, has_name in zip(rows, named, strict=True) if has_name]
    sizes = np.array([[TextPath((0, 0), name, size=SIZE).get_extents().width, SIZE] for name in names]) + ROOM
    places = label_places(points[named], sizes, points, scale * ax.get_window_extent().get_points())
    for name, value, offset, (width, height) in zip(names, values[named], places - points[named], sizes, strict=True):
        gap = np.hypot(*np.maximum(np.abs(offset) - [width / 2, height / 2], 0))
        line = {"arrowstyle": "-", "color": _color(name), "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}
        text = ax.annotate(
            name, value, offset, textcoords="offset points", ha="center", va="center", color=_color(name), fontsize=SIZE,
            arrowprops=line if gap > NEAR else None,
        )  # fmt: skip
        text.set_in_layout(False)


def label_places(points: np.ndarray, sizes: np.ndarray, taken: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """The centers of labels: each as near to its point as it can be without covering a point or another label.

    Args:
      points: `[n, 2]` on the page: those that have a label.
      sizes: `[n, 2]`: width and height of each label.
      taken: `[m, 2]`: all points.
      corners: `[2, 2]`: the lower left and the upper right, between which all labels lie.

    Returns:
      `[n, 2]`; a label for which no place is found lies on its point.
    """
    places = points.copy()
    done: list[int] = []
    for index in np.lexsort(-points.T):  # from above
        half = sizes[index] / 2
        for at in (points[index] + angle * (half + distance) for distance in range(3, 120, 3) for angle in ANGLES):
            is_inside = (at > corners[0] + half).all() and (at < corners[1] - half).all()
            covers = (np.abs(taken - at) < half + 2).all(-1).any()
            meets = any((np.abs(places[other] - at) < half + sizes[other] / 2).all() for other in done)
            if is_inside and not covers and not meets:
                places[index] = at
                break
        done.append(index)
    return places


def _point(panel: Panel, row: Mapping[str, Any]) -> list[float] | None:
    """In percent; None where the row lacks a measure."""
    names = (panel.across, panel.up)
    return [100 * float(np.mean(row[name])) for name in names] if all(name in row for name in names) else None


def _color(method: str) -> str:
    return MARKED.get(method, INK["original"] if method == ORIGINAL else MUTED)
