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
from matplotlib.ticker import FixedLocator, FormatStrFormatter, NullLocator
from study import ANOTHER
from table import mean_std

from delete_jax import metrics
from delete_jax.reports.style import COLORS, MUTED, STYLE
from delete_jax.tasks.base import ORIGINAL, RETRAINED

INK = {name: light for name, (light, _) in COLORS.items()}
LABEL = np.array([11.0, 8.0])
"""Width and height of a number on the page, in points."""
DISTANCES = (0, 1, 2, 5, 10, 20, 40, 80)
"""Of the ticks of a stretched scale from its center, in points."""
ANGLES = [
    np.array([np.cos(turn), np.sin(turn)])
    for turn in np.pi / 8 * np.array([1, 0, 2, -1, -2, 3, -3, 4, -4, 5, -5, 6, -6, 7, -7, 8])
]
MARKED = {"delete": INK["unlearned"], "anchored": INK["remain"], "redistil": INK["forget"]}


class Panel(NamedTuple):
    """Two measures against each other, and the network in whose seed-to-seed range a method ought to lie.

    is_stretched: whether the scales are widened around that network, where most methods lie.
    """

    title: str
    across: str
    up: str
    floor: str
    is_stretched: bool = False


PANELS = (
    Panel("What it predicts", "acc_ft", "acc_rt", RETRAINED, is_stretched=True),
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
        figure = Figure((7.2, 8.4), layout="constrained")
        for panel, ax in zip(PANELS, figure.subplots(len(PANELS), 1), strict=True):
            _draw(panel, ax, rows, shown)
        names = [f"{number}  {row['method']}" for number, row in enumerate(shown, start=1)]
        handles = [matplotlib.lines.Line2D([], [], linestyle="none") for _ in names]
        figure.legend(handles, names, loc="outside right center", handlelength=0, handletextpad=0, fontsize=7)
        figure.draw_without_rendering()  # from here on it is known where the points lie on the page
        for panel, ax in zip(PANELS, figure.axes, strict=True):
            _number(panel, ax, shown)
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
        ax.legend(loc="best")
    for row in shown:
        if (point := _point(panel, row)) is not None:
            ax.plot(*point, "o", color=_color(row), markersize=4)
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


def _number(panel: Panel, ax: Axes, shown: Sequence[Mapping[str, Any]]) -> None:
    """Writes each row's number beside its point."""
    found = {number: point for number, row in enumerate(shown, start=1) if (point := _point(panel, row)) is not None}
    if not found:
        return
    scale = 72 / ax.figure.dpi
    points = scale * ax.transData.transform(list(found.values()))
    places = label_places(points, scale * ax.get_window_extent().get_points())
    for (number, point), offset in zip(found.items(), places - points, strict=True):
        color = _color(shown[number - 1])
        line = {"arrowstyle": "-", "color": color, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 2}
        text = ax.annotate(
            str(number), point, offset, textcoords="offset points", ha="center", va="center", color=color, fontsize=7,
            arrowprops=line if np.hypot(*offset) > LABEL[0] else None,
        )  # fmt: skip
        text.set_in_layout(False)


def label_places(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """The centers of labels: each as near to its point as it can be without covering a point or another label.

    Args:
      points: `[n, 2]` on the page.
      corners: `[2, 2]`: the lower left and the upper right, between which all labels lie.

    Returns:
      `[n, 2]`; a label for which no place is found lies on its point.
    """
    places = points.copy()
    taken: list[np.ndarray] = []
    for index in np.lexsort(-points.T):  # from above
        for at in (points[index] + distance * angle for distance in range(8, 120, 3) for angle in ANGLES):
            is_inside = (at > corners[0] + LABEL / 2).all() and (at < corners[1] - LABEL / 2).all()
            covers = (np.abs(points - at) < LABEL / 2 + 2).all(-1).any()
            if is_inside and not covers and not any((np.abs(other - at) < LABEL).all() for other in taken):
                places[index] = at
                break
        taken.append(places[index])
    return places


def _point(panel: Panel, row: Mapping[str, Any]) -> list[float] | None:
    """In percent; None where the row lacks a measure."""
    names = (panel.across, panel.up)
    return [100 * float(np.mean(row[name])) for name in names] if all(name in row for name in names) else None


def _color(row: Mapping[str, Any]) -> str:
    return MARKED.get(row["method"], INK["original"] if row["method"] == ORIGINAL else MUTED)
