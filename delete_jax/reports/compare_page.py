"""The comparison page: methods side by side in one offline HTML file, to sort, hover and select.

The page has four views: a table of measures, the trade-off in pictures, a class × class matrix of each network, and a map of
each network's features. A small script, which the page's own policy allows by its hash, links them; without it the page is
plain tables and static pictures. Nothing is loaded from anywhere.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np

from delete_jax.metrics import MEASURES, SHOWN, Measure, per_class, show
from delete_jax.reports.figures import MAX_BARS, most_changed
from delete_jax.reports.page import environment
from delete_jax.reports.record import ORIGINAL, RETRAINED
from delete_jax.reports.scatter import METHOD, Chart, Spot, chart
from delete_jax.reports.style import COLORS, PAGE_COLORS
from delete_jax.reports.words import short
from delete_jax.writing import making, writing

REFERENCE = "reference"
GENERATOR = "delete_jax comparison"
MARK = f'<meta name="generator" content="{GENERATOR}">'
"""In every such page, which a new one may replace."""
MARK_WITHIN = 2000
"""So many bytes at its beginning."""
MARK_OF_EXPERIMENTS = " †"
"""Behind the name of a method that this project proposed itself."""
TRADE_OFFS = (
    ("acc_ft", "acc_rt", "Forgetting and remaining accuracy", "Best: top left."),
    ("iou_f", "miou_r", "Forgetting and the remaining classes", "Best: top left."),
    ("asr", "acc", "Attack success and clean accuracy", "Best: top left."),
    ("acc_listed", "acc_test", "Forgotten samples and test accuracy", "Best: beside the retrained network."),
    ("residual_auc_gap", "probe_10_gap", "What is left, compared with the retrained network",
     "Best: at 0, where the retrained network is by definition. Below 0 is another trace, not a better result."),
)  # fmt: skip
UNITS = {"percent": " %", "points": " points", "seconds": " s", "times": "×", "bytes": " GB"}
OTHERS = -1
"""Stands for the classes that are not shown one by one."""
MAP_SIDE = 220
LEAST_CONFUSED = 5
"""So many places are kept for remaining classes, however many were forgotten."""
LONG = 32
"""Letters of a class's name where there is room for it."""
DENSE = 12
"""A matrix of more classes is drawn smaller."""


class Compared(NamedTuple):
    """A row of the table: one network, or one for each seed.

    title: its name on the page. role: `ORIGINAL`, `REFERENCE` or `METHOD`.
    values: by the names of `metrics.MEASURES`, one value for each seed; None where a seed has none.
    confusion: counts int `[k, k]` of the first seed's network on test data; None where there are none.
    predictions: the classes int `[m]` that the same network predicts for the samples of the map.
    points: two coordinates float `[m, 2]` of its features; None, as `predictions`, where there is no map.
    facts: how it was made, one line each.
    is_experimental: whether its method is one of this project, which no paper has proposed: its name gets a mark.
    agreement: the fraction float `[k]` of each class's test samples for which it predicts the same class as the retrained network
        of the same seed; NaN for a class without samples, None where there is nothing to agree with.
    """

    title: str
    role: str
    values: Mapping[str, Sequence[float | None]]
    confusion: np.ndarray | None = None
    predictions: np.ndarray | None = None
    points: np.ndarray | None = None
    facts: Sequence[str] = ()
    agreement: np.ndarray | None = None
    is_experimental: bool = False

    @property
    def label(self) -> str:
        """Its name as the page shows it, with the mark."""
        return self.title + MARK_OF_EXPERIMENTS * self.is_experimental


class Comparison(NamedTuple):
    """What the page shows.

    title: what was forgotten, and of what. class_names: of all `k` classes. forgotten: numbers of the forgotten ones.
    networks: the original first. labels: the true classes int `[m]` of the samples of the map; None without one.
    """

    title: str
    class_names: Sequence[str]
    forgotten: Sequence[int]
    networks: Sequence[Compared]
    labels: np.ndarray | None = None


def write_comparison(comparison: Comparison, path: Path) -> None:
    """Writes the page, whole or not at all; the same comparison gives the same bytes.

    Raises:
      ValueError: there is a file of something else, or it cannot be written.
    """
    check_free(path)
    content = render_comparison(comparison).encode()
    try:
        with making(path.parent), writing(path) as file:
            file.write(content)
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror}): name another file") from error


def check_free(path: Path) -> None:
    """Raises ValueError where something is in the way that is no comparison page."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file, such as {path / 'comparison.html'}")
    if path.is_symlink():
        raise ValueError(f"{path} is a link, which a page would take the place of: name the file that it leads to")
    if not path.exists():
        return
    start = b""
    if path.is_file():  # a device may have no end
        try:
            with path.open("rb") as file:
                start = file.read(MARK_WITHIN)
        except OSError as error:
            raise ValueError(f"{path} cannot be read ({error.strerror}): name another file") from error
    if MARK.encode() not in start:
        raise ValueError(f"{path} exists and is no comparison page: name another file")


def render_comparison(comparison: Comparison) -> str:
    """Renders the whole HTML document."""
    script = resources.files("delete_jax.reports").joinpath("compare_page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    shown = _shown_classes(comparison)
    return environment().get_template("compare_page.html.jinja").render(
        comparison=comparison, generator=GENERATOR, digest=digest, colors=COLORS | PAGE_COLORS,
        columns=_columns(comparison), charts=_charts(comparison), shown=shown, which=_which_classes(comparison, shown),
        matrices=_matrices(comparison, shown), dense=len(shown) > DENSE,
        maps=_maps(comparison), names=[short(name) for name in comparison.class_names],
        long_names=[short(name, LONG) for name in comparison.class_names], side=MAP_SIDE,
        first=next((i for i, network in enumerate(comparison.networks) if network.role == METHOD), 0),
    )  # fmt: skip


# -------------------------------------------------------------------------------------------------------- the table


class Cell(NamedTuple):
    """text: mean ± std. value: the mean, by which rows are sorted; None without one."""

    text: str
    value: float | None


class Column(NamedTuple):
    """A measure and its cell for every network."""

    measure: Measure
    cells: list[Cell]


def _columns(comparison: Comparison) -> list[Column]:
    """The measures that some network has, in the order of `MEASURES`."""
    found = []
    for name, row in MEASURES.items():
        cells = [_cell(network.values.get(name, ()), row) for network in comparison.networks]
        if any(cell.value is not None for cell in cells):
            found.append(Column(row, cells))
    return found


def _cell(values: Sequence[float | None], row: Measure) -> Cell:
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return Cell("–", None)
    mean = float(np.mean(known))
    if len(known) == 1:
        return Cell(show(mean, row.show), mean)
    how = SHOWN[row.show]
    deviation = float(np.std(known, ddof=1))
    text = f"{how.factor * mean:.{how.digits}f} ± {how.factor * deviation:.{how.digits}f}{UNITS.get(row.show, '')}"
    return Cell(text.replace("-", "−"), mean)


def _charts(comparison: Comparison) -> list[tuple[str, str, Chart]]:
    """Title, how to read it, and the picture of each trade-off that was measured for some method."""
    found = []
    for x, y, title, text in TRADE_OFFS:
        spots = []
        for number, network in enumerate(comparison.networks):
            if network.title == RETRAINED and x.endswith("_gap"):
                spots.append(Spot(number, network.title, network.role, [0.0], [0.0]))
                continue
            given = [network.values.get(name, ()) for name in (x, y)]
            across, up = ([value for value in values if value is not None] for values in given)
            if across and up and [len(across), len(up)] == [len(values) for values in given]:
                spots.append(Spot(number, network.label, network.role, across, up))
        if any(spot.role == METHOD for spot in spots):
            found.append((title, text, chart(MEASURES[x], MEASURES[y], spots)))
    return found


# ---------------------------------------------------------------------------------------------- matrices and maps


def _shown_classes(comparison: Comparison) -> list[int]:
    """All classes, in order; of many, the forgotten ones and those that some network confuses most with them. Where no class
    was forgotten, those whose accuracy changed most between the networks."""
    k, forgotten = len(comparison.class_names), list(comparison.forgotten)
    tables = [network.confusion for network in comparison.networks if network.confusion is not None]
    if k <= MAX_BARS or not tables:
        return list(range(min(k, MAX_BARS)))
    if not forgotten:
        accuracies = np.nan_to_num(np.array([per_class(table) for table in tables], float))
        return most_changed(accuracies.min(0), accuracies.max(0), forgotten)
    shares = [np.nan_to_num(_shares(table)) for table in tables]
    confused = np.max([np.maximum(one[forgotten].max(0), one[:, forgotten].max(1)) for one in shares], axis=0)
    confused[forgotten] = 0
    shown = forgotten[: MAX_BARS - LEAST_CONFUSED]
    most = np.argsort(-confused, kind="stable")[: MAX_BARS - len(shown)]
    return sorted(shown + [int(c) for c in most if confused[c] > 0])


def _which_classes(comparison: Comparison, shown: list[int]) -> str:
    """One sentence on what is shown of many classes, and where the rest is; empty where all are shown."""
    k, forgotten = len(comparison.class_names), len(comparison.forgotten)
    if len(shown) == k:
        return ""
    erased = sum(c in comparison.forgotten for c in shown)
    which = "those whose accuracy differs most between the networks"
    if erased:
        which = f"{erased} of the {forgotten} forgotten ones" if erased < forgotten else "the forgotten ones"
        which += " and those that some network confuses most often with forgotten ones"
    return f"Shown are {len(shown)} of {k} classes: {which}. “other” stands for all remaining classes together."


def _shares(counts: np.ndarray) -> np.ndarray:
    """Each row of a matrix as fractions of its sum; NaN in rows without samples."""
    total = counts.sum(1, keepdims=True)
    return np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)


class Matrix(NamedTuple):
    """shares: of each row of a network's matrix, float `[s, s]`; its last row and column are `OTHERS` where there are more
    classes than are shown; NaN in rows without samples. classes: of the rows and columns. agreement: of each row with the
    retrained network, float `[s]`; None as in `Compared`."""

    number: int
    network: Compared
    classes: list[int]
    shares: np.ndarray
    agreement: np.ndarray | None


def _matrices(comparison: Comparison, shown: list[int]) -> list[Matrix]:
    k = len(comparison.class_names)
    classes = [*shown, *([OTHERS] if len(shown) < k else [])]
    place = np.full(k, len(shown))
    place[shown] = np.arange(len(shown))
    found = []
    for number, network in _ordered(comparison):
        if network.confusion is not None:
            counts = np.zeros((len(classes), len(classes)))
            np.add.at(counts, (place[:, None], place[None]), network.confusion)
            agreement = None
            if network.agreement is not None:  # of several classes together: each counts as often as it has samples
                samples, same = np.zeros(len(classes)), np.zeros(len(classes))
                np.add.at(samples, place, network.confusion.sum(1))
                np.add.at(same, place, network.confusion.sum(1) * np.nan_to_num(network.agreement))
                agreement = np.divide(same, samples, out=np.full(len(classes), np.nan), where=samples > 0)
            found.append(Matrix(number, network, classes, _shares(counts), agreement))
    return found


def _maps(comparison: Comparison) -> list[tuple[int, Compared, np.ndarray]]:
    """The points of each network, scaled to the square that they are drawn in."""
    found = []
    for number, network in _ordered(comparison):
        if network.points is not None:
            low, high = network.points.min(0), network.points.max(0)
            scale = (MAP_SIDE - 16) / max(float((high - low).max()), 1e-12)
            centred = (network.points - (low + high) / 2) * scale * (1, -1)
            found.append((number, network, np.round(centred + MAP_SIDE / 2, 1)))
    return found


def _ordered(comparison: Comparison) -> list[tuple[int, Compared]]:
    """The networks with their numbers, as they stand beside each other: original, methods, references."""
    roles = (ORIGINAL, METHOD, REFERENCE)
    return sorted(enumerate(comparison.networks), key=lambda pair: roles.index(pair[1].role))
