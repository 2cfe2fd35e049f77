"""The trade-off picture: where each network's point, its error bars and its label stand, for the template to draw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from delete_jax.metrics import SHOWN, Measure, show

WIDTH, HEIGHT = 440, 330
LEFT, RIGHT, TOP, BOTTOM = 50, 18, 12, 44  # margins around the frame
LETTER, LINE = 6.4, 14  # the size of a letter, roughly, at the labels' 12 px
Box = tuple[float, float, float, float]
LEAST_SPAN = {"percent": 0.05, "points": 0.05}
FEW = 10
"""Up to so many points, all have their names beside them."""
CORNERS = np.array([[1, 1, -1, -1], [1, -1, 1, -1]])
"""Towards the corners of the page; `[2, 4]`. Not along its axes, where many points may be level."""
COST = {"down": lambda value: value, "up": lambda value: -value, "retrained": abs, "": lambda value: 0 * value}
"""A number that is lower where a measure of this direction is better."""
METHOD = "method"
"""The role of what is compared; all others are references, which always have their names beside them."""


class Spot(NamedTuple):
    """A network's number and name, its role, and its two measures, one value for each seed."""

    number: int
    title: str
    role: str
    x: Sequence[float]
    y: Sequence[float]


class Tick(NamedTuple):
    """A place on an axis and what stands there."""

    at: float
    text: str


class Label(NamedTuple):
    """Where a name stands. anchor: "start", "middle" or "end". far: it needs a line to its point. box: left, top, right, bottom."""

    x: float
    y: float
    anchor: str
    far: bool
    box: Box


class Point(NamedTuple):
    """A drawn network. spread: half lengths of its error bars. label: None where only the tip names it. tip: its name and both values."""

    number: int
    title: str
    role: str
    x: float
    y: float
    spread: tuple[float, float]
    label: Label | None
    tip: str


class Chart(NamedTuple):
    """A picture of `WIDTH` × `HEIGHT`, in its own coordinates."""

    x_title: str
    y_title: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    points: list[Point]
    frame: tuple[float, float, float, float] = (LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM)
    size: tuple[int, int] = (WIDTH, HEIGHT)


class Axis(NamedTuple):
    """A measure between two values, drawn between two places."""

    measure: Measure
    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Computes where a value is drawn."""
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)

    def length(self, values: Sequence[float]) -> float:
        """Computes the drawn length of the standard deviation over seeds."""
        return round(abs(_deviation(values) / (self.high - self.low) * (self.end - self.start)), 1)

    @property
    def title(self) -> str:
        return self.measure.heading

    @property
    def ticks(self) -> list[Tick]:
        from matplotlib.ticker import MaxNLocator

        factor = SHOWN[self.measure.show].factor
        low, high = factor * self.low, factor * self.high
        if self.measure.show == "percent":
            low, high = max(low, 0), min(high, 100)
        values = [value for value in MaxNLocator(5).tick_values(low, high) if low - 1e-9 <= value <= high + 1e-9]
        return [Tick(self.place(value / factor), f"{value:g}".replace("-", "−")) for value in values]


def chart(x: Measure, y: Measure, spots: Sequence[Spot]) -> Chart:
    """Lays out the picture of two measures of some networks."""
    across = _axis(x, [spot.x for spot in spots], LEFT, WIDTH - RIGHT)
    up = _axis(y, [spot.y for spot in spots], HEIGHT - BOTTOM, TOP)
    means = [(float(np.mean(spot.x)), float(np.mean(spot.y))) for spot in spots]
    places = [(across.place(a), up.place(b)) for a, b in means]
    taken = [(a - 7, b - 7, a + 7, b + 7) for a, b in places]
    methods = [index for index, spot in enumerate(spots) if spot.role == METHOD]
    edge = at_the_edge(x, y, np.array(means)[methods], np.array(places)[methods])
    unnamed = {index for index, is_named in zip(methods, edge, strict=True) if not is_named and len(spots) > FEW}
    points = []
    for index, (spot, mean, place) in enumerate(zip(spots, means, places, strict=True)):
        label = None
        if index not in unnamed:
            label = _label(spot.title, place, taken)
            taken.append(label.box)
        shown = [f"{row.short} {show(value, row.show)}" for row, value in zip((x, y), mean, strict=True)]
        spread = (across.length(spot.x), up.length(spot.y))
        points.append(
            Point(spot.number, spot.title, spot.role, *place, spread, label, f"{spot.title}. {'; '.join(shown)}")
        )
    return Chart(across.title, up.title, across.ticks, up.ticks, points)


def at_the_edge(x: Measure, y: Measure, values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Finds the points at the edge of a cloud: those that no other one is better than in one measure and as good as in the other (the
    Pareto front), and those that lie farthest out on the page towards one of its corners.

    Args:
      x, y: the measures, which say what is better.
      values: `[n, 2]`.
      places: `[n, 2]`: where they are drawn.

    Returns:
      bool `[n]`.
    """
    costs = np.stack([COST[row.direction](column) for row, column in zip((x, y), values.T, strict=True)], axis=1)
    found = np.array([not ((costs <= cost).all(1) & (costs < cost).any(1)).any() for cost in costs], bool)
    if len(places):
        found[(places @ CORNERS).argmax(0)] = True
    return found


def _deviation(values: Sequence[float]) -> float:
    """The standard deviation over seeds; 0 for one seed."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _axis(measure: Measure, values: Sequence[Sequence[float]], start: float, end: float) -> Axis:
    """An axis with room for the mean and the deviation of every network."""
    low = min(float(np.mean(some)) - _deviation(some) for some in values)
    high = max(float(np.mean(some)) + _deviation(some) for some in values)
    span = max(high - low, LEAST_SPAN.get(measure.show, 1e-6))
    middle = (low + high) / 2
    return Axis(measure, middle - 0.6 * span, middle + 0.6 * span, start, end)


def _label(title: str, place: tuple[float, float], taken: Sequence[Box]) -> Label:
    """Beside its point, the nearest place that is free; the last one where none is."""
    width = LETTER * len(title)
    for x, y, anchor, far in _places(*place):
        left = x - {"start": 0, "middle": width / 2, "end": width}[anchor]
        label = Label(round(x, 1), round(y, 1), anchor, far, (left, y - LINE + 3, left + width, y + 3))
        if _is_inside(label.box) and not any(_overlap(label.box, other) for other in taken):
            break
    return label


def _is_inside(box: Box) -> bool:
    return box[0] >= LEFT and box[1] >= 2 and box[2] <= WIDTH - 2 and box[3] <= HEIGHT - BOTTOM


def _places(x: float, y: float) -> Iterator[tuple[float, float, str, bool]]:
    yield from ((x + 10, y + 4, "start", False), (x - 10, y + 4, "end", False))
    yield from ((x, y - 11, "middle", False), (x, y + 19, "middle", False))
    for step in range(1, 20):
        for down in (step, -step):
            yield x + 18, y + 4 + LINE * down, "start", True
            yield x - 18, y + 4 + LINE * down, "end", True


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
