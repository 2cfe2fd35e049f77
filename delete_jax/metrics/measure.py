"""What a measure is, and how its value is shown: one row of a table of measures.

A row's function takes the *evidence* on one network: an object with what the measure reads, such as a confusion matrix or
features (`delete_jax.tasks.evidence` and the tasks' own). It returns a number, or None where the evidence has nothing to
measure it on (no retrained network, say).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from delete_jax.given import choice


class Measure(NamedTuple):
    """A row of the table of measures.

    Attributes:
      name: its key in a network's metrics. A dot separates the keys of nested dicts.
      function: maps the evidence to a number, or None.
      direction: "down" if lower is better, "up" if higher is better, "retrained" if near the retrained network is best, otherwise "".
      show: how it is shown: a key of `SHOWN`.
      title: in a report.
      short: its heading as a column of a table.
      text: one sentence that says what it is.
      definition: its source, the function whose docstring has the formula, and what that does not say: a paragraph of
        `docs/reference/measures.md`; "" if `text` is enough.
    """

    name: str
    function: Callable[[Any], Any]
    direction: str
    show: str
    title: str
    short: str
    text: str
    definition: str = ""

    @property
    def heading(self) -> str:
        """The short name with its direction: what stands above a column."""
        return f"{self.short} {ARROWS[self.direction]}".strip()


ARROWS = {"down": "↓", "up": "↑", "retrained": "→ 0", "": ""}


def _percent(value: float) -> str:
    if value < 0:
        return f"−{_percent(-value)}"
    if 0 < value < 0.0005:  # neither "none" nor "all" may be the work of rounding
        return "<0.1 %"
    return ">99.9 %" if 0.9995 <= value < 1 else f"{100 * value:.1f} %"


def _seconds(value: float) -> str:
    if value < 100:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    return f"{minutes} min {seconds:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _points(value: float) -> str:
    points = round(100 * value, 1)  # what rounds to 0 has no sign
    return f"{'−' if points < 0 else '+' if points > 0 else ''}{abs(points):.1f} points"


class Shown(NamedTuple):
    """text: a value in words. factor and digits: the same in a table whose heading names the unit."""

    text: Callable[[float], str]
    factor: float
    digits: int


SHOWN = {
    "percent": Shown(_percent, 100, 1),
    "points": Shown(_points, 100, 1),
    "number": Shown("{:.3f}".format, 1, 3),
    "nats": Shown("{:.3f}".format, 1, 2),
    "count": Shown("{:.0f}".format, 1, 1),
    "times": Shown("{:.1f}×".format, 1, 1),
    "seconds": Shown(_seconds, 1, 1),
    "bytes": Shown(lambda value: f"{value / 1e9:.1f} GB" if value >= 1e8 else f"{value / 1e6:.1f} MB", 1e-9, 1),
}
"""The ways in which a measure is shown, by name: `Measure.show`."""


def show(value: float | None, how: str) -> str:
    """Formats a value; "–" for None and for values that are not finite.

    Examples:
      >>> from delete_jax import metrics
      >>> metrics.show(0.125, "percent"), metrics.show(None, "percent")
      ('12.5 %', '–')

    Raises:
      ValueError: `how` is no key of `SHOWN`.
    """
    how = choice("way to show a value", how, SHOWN)
    return "–" if value is None or not math.isfinite(value) else SHOWN[how].text(value)


def before(function: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    """Returns the function of a measure beside the original network, which is its own original."""
    return lambda e: function(e, e.original or e)


def beside(function: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    """Returns the function of a measure that needs the retrained network, whose own it is not."""
    return lambda e: None if e.retrained is None else function(e, e.retrained)
