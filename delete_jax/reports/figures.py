"""The pictures of a page: lines over steps, bars of classes, confusion matrices.

Matplotlib is imported when something is drawn, so that what a page says can be had without it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from delete_jax.reports.parts import Panel
from delete_jax.reports.record import floats
from delete_jax.reports.style import COLORS, INK, PANEL_WIDTH
from delete_jax.reports.words import number, percent, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_BARS = 20  # more classes than this are not drawn one by one


class Series(NamedTuple):
    """Figures with a place in the legend. color: a key of `COLORS`; line: of Matplotlib, where lines are drawn."""

    title: str
    values: Any
    color: str
    line: str = "-"


def lines(title: str, caption: str, steps: Sequence[float], series: Sequence[Series], fractions: bool = False) -> Panel:
    """Lines over the steps of a run; the scale is logarithmic for positive numbers of different magnitudes.

    Args:
      steps: those of every series. fractions: whether the values are between 0 and 1, shown as percentages.
    """
    show = percent if fractions else number
    alt = "; ".join(f"{s.title} {show(s.values[0])} at first, {show(s.values[-1])} at last" for s in series)
    return Panel(title, caption, alt, 2.6, functools.partial(_draw_lines, steps=steps, series=series, share=fractions))


def bars(
    title: str, caption: str, series: Sequence[Series], shown: list[int], names: list[str], marked: list[int]
) -> Panel:
    """Fractions of classes, a bar for each series.

    Args:
      series: values float `[k]` in 0..1. shown: the classes that are drawn, in order. names: of all k.
      marked: the erased classes.
    """
    alt = "; ".join(f"{names[c]}: " + ", ".join(f"{s.title} {percent(s.values[c])}" for s in series) for c in shown)
    draw = functools.partial(_draw_bars, series=series, shown=shown, names=names, marked=marked)
    legend = 0.16 * -(-len(series) // _legend_columns(series))
    return Panel(title, caption, alt, 0.54 + legend + 0.31 * len(shown), draw)


def confusion(title: str, caption: str, counts: np.ndarray, names: list[str], marked: list[int]) -> Panel:
    """Draws a confusion matrix, counts `[k, k]`; colours and numbers are shares of a row."""
    total = counts.sum(1, keepdims=True)
    share = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    alt = f"{percent(np.trace(counts) / max(counts.sum(), 1))} of all test images are on the diagonal"
    return Panel(
        title, caption, alt, PANEL_WIDTH, functools.partial(_draw_confusion, share=share, names=names, marked=marked)
    )


def most_changed(before: np.ndarray, after: np.ndarray, forgotten: list[int]) -> list[int]:
    """Chooses what was erased and the classes whose figures changed most, as many as are drawn, in the order of the classes."""
    change = np.nan_to_num(np.abs(after - before))
    change[forgotten] += 2  # the erased ones first
    return sorted(np.argsort(-change, kind="stable")[:MAX_BARS].tolist())


def most_frequent(fractions: Mapping[str, np.ndarray], most: int = 8) -> list[int]:
    """Chooses the classes of which some network has most, in falling order; fractions: float `[k]` of each network."""
    top = np.max(np.nan_to_num(list(fractions.values())), axis=0)
    return np.argsort(-top, kind="stable")[:most].tolist()


def _legend_columns(series: Sequence[Series]) -> int:
    return 3 if max(len(s.title) for s in series) <= 16 else 1


def _legend(ax: Axes, columns: int) -> None:
    ax.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2, handlelength=1.6, columnspacing=1.2
    )


def _draw_lines(ax: Axes, steps: Sequence[float], series: Sequence[Series], share: bool) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    values = np.concatenate([floats(s.values) for s in series])
    values = values[np.isfinite(values)]
    if not share and values.size and values.min() > 0 and values.max() > 20 * values.min():
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.yaxis.set_minor_formatter(lambda value, _: "")
    for s in series:
        keep = np.unique(np.linspace(0, len(s.values) - 1, 500).astype(int))  # long runs: more points than pixels
        marker = "o" if len(keep) <= 30 else None
        color = COLORS[s.color][0]
        ax.plot(floats(steps)[keep], floats(s.values)[keep], s.line, color=color, label=s.title, marker=marker, ms=3)
    if share:
        ax.set_ylim(-0.03, 1.03)
        ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %", decimals=0))
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.grid(axis="y")
    ax.set_xlabel("step")
    _legend(ax, len(series))


def _draw_bars(ax: Axes, series: Sequence[Series], shown: list[int], names: list[str], marked: list[int]) -> None:
    from matplotlib.ticker import PercentFormatter

    height, y = 0.8 / len(series), np.arange(len(shown))
    for i, s in enumerate(series):
        offset = (i - (len(series) - 1) / 2) * height
        ax.barh(y + offset, np.nan_to_num(s.values[shown]), height * 0.92, color=COLORS[s.color][0], label=s.title)
    ax.set_yticks(y, [f"✕ {names[c]}" if c in marked else names[c] for c in shown])
    for label, c in zip(ax.get_yticklabels(), shown, strict=True):
        if c in marked:
            label.set(color=COLORS["forget"][0], fontweight="bold")
    ax.set_xlim(0, 1)
    ax.set_ylim(len(shown) - 0.5, -0.5)
    ax.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %", decimals=0))
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    _legend(ax, _legend_columns(series))


def _draw_confusion(ax: Axes, share: np.ndarray, names: list[str], marked: list[int]) -> None:
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm, to_rgba
    from matplotlib.ticker import MaxNLocator

    k, color = len(share), to_rgba(COLORS["unlearned"][0])[:3]
    # From transparent to blue, so that it suits the light and the dark page.
    fade = LinearSegmentedColormap.from_list("fade", [(*color, 0.0), (*color, 1.0)])
    ax.imshow(share, cmap=fade, norm=PowerNorm(0.5, 0, 1), interpolation="none")  # the root makes rare answers visible
    if k <= 30:
        size = 7.5 if k <= 12 else 5.5
        labels = [f"✕ {short(names[c], 11)}" if c in marked else short(names[c], 11) for c in range(k)]
        ax.set_xticks(range(k), labels, rotation=90, fontsize=size)
        ax.set_yticks(range(k), labels, fontsize=size)
        for c in marked:
            for axis in (ax.xaxis, ax.yaxis):
                axis.get_ticklabels()[c].set(color=COLORS["forget"][0], fontweight="bold")
    else:  # class numbers, and an edge mark at what was erased
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(10, integer=True))
        ax.plot([k + 1] * len(marked), marked, "<", color=COLORS["forget"][0], ms=4, clip_on=False)
        ax.plot(marked, [-2] * len(marked), "v", color=COLORS["forget"][0], ms=4, clip_on=False)
        ax.set(xlim=(-0.5, k - 0.5), ylim=(k - 0.5, -0.5))
    for i, j in np.argwhere(share > 0.005) if k <= 12 else []:
        ax.text(j, i, f"{100 * share[i, j]:.0f}", ha="center", va="center", fontsize=7,
                color="#ffffff" if share[i, j] > 0.45 else INK)  # fmt: skip
    ax.tick_params(length=0 if k <= 30 else 3)
    ax.spines[:].set_visible(True)
    suffix = "" if k <= 30 else " (number)"
    ax.set(xlabel=f"answer{suffix}", ylabel=f"true class{suffix}")
