"""The numbers of a run, and its pictures, as one HTML file, a PNG and a JSON.

The page is meant for two readers: a data protection officer, who asks what was erased, from what and how that is known,
and a reviewer, who asks for every figure beside the same figure of the original and of the retrained network. It is one
file: no script, nothing loaded from elsewhere. Everything that comes from outside (class names, paths) is escaped.
"""

import base64
import functools
import io
import json
import math
import os
import re
import textwrap
import warnings
from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.ticker import MaxNLocator, PercentFormatter

NETWORKS = ("original", "retrained", "unlearned")
TOLERATED = 0.01  # an erased class may be answered for this fraction of its test samples: a stray sample is no memory
PARTLY = 0.10  # ... and above this one cannot speak of erasing at all
COST = 0.02  # loss of accuracy on the other classes that the headline must mention
DAMAGE = 0.10  # ... and the loss that is a failure
CLASS_COST = 0.05  # loss of one remaining class that the average must not hide
MAX_BARS = 20  # more classes than this are not drawn one by one
MAX_IMAGES = 12  # sample images shown of the forgotten, and of the remaining classes

# name -> (light, dark). The pictures are drawn in the light colours, which the page replaces by CSS variables.
# Blue, orange and grey also differ in lightness, so they stay apart for colour-blind readers and in grey print.
COLORS = {
    "ink": ("#1b2430", "#e7ebf1"), "muted": ("#556070", "#a3adbb"), "line": ("#d8dde5", "#353e4b"),
    "original": ("#97a1b0", "#7d8796"), "retrained": ("#dd8f0b", "#e9a53a"),
    "retrained_background": ("#7a5c9e", "#ab90cc"), "unlearned": ("#0b62a4", "#4aa3e6"),
    "forget": ("#bf4010", "#f0814d"), "remain": ("#0e746c", "#3dbbaf"),
}  # fmt: skip
PAGE_COLORS = {
    "page": ("#f4f6f9", "#12161c"), "card": ("#fefefe", "#1b212a"), "good": ("#0e746c", "#3dbbaf"),
    "warning": ("#9a5b00", "#e9a53a"), "bad": ("#b3261e", "#ff8a80"),
}  # fmt: skip
INK, MUTED, LINE = (COLORS[name][0] for name in ("ink", "muted", "line"))
STYLE = {
    "font.family": ["DejaVu Sans"], "font.size": 8, "axes.edgecolor": LINE, "axes.labelcolor": MUTED,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 9, "axes.titleweight": "bold",
    "text.color": INK, "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "grid.color": LINE, "grid.linewidth": 0.6, "lines.linewidth": 1.6, "legend.frameon": False, "legend.fontsize": 8,
    "axes.axisbelow": True, "axes.unicode_minus": True, "svg.fonttype": "none", "svg.hashsalt": "delete_jax",
    "text.parse_math": False,  # a class may be called "$5"
}  # fmt: skip
DIRECTIONS = {"down": "↓ lower is better", "up": "↑ higher is better", "": ""}


class Examples(NamedTuple):
    """Test samples to show, with the answers before and after; `m` may be 0, then the page shows none.

    images: uint8 [m, h, w, c], grey (c = 1) or RGB (c = 3); of other channels the first is shown.
    labels: int32 [m], true classes. before, after: float32 [m, k], probabilities of the original and the unlearned.
    """

    images: np.ndarray
    labels: np.ndarray
    before: np.ndarray
    after: np.ndarray


class Verdict(NamedTuple):
    """level: "good", "warning" or "bad"; label: two or three words; headline: one sentence; notes: what to know."""

    level: str
    label: str
    headline: str
    notes: list[str]


class Card(NamedTuple):
    label: str
    value: str
    direction: str  # key of DIRECTIONS
    details: list[str]


class Panel(NamedTuple):
    section: str
    title: str
    caption: str
    alt: str
    height: float  # inches, at a width of PANEL_WIDTH
    draw: Callable[[Axes], None]


class Parts(NamedTuple):
    """What a kind of report puts into the common page; HTML except for the first three and the last."""

    verdict: Verdict
    cards: list[Card]
    panels: list[Panel]
    comparison: str
    per_class: str
    samples: str
    limits: list[tuple[str, str]]
    sections: list[tuple[str, str]] = []  # noqa: RUF012


Measures = dict[str, list[tuple[str, str, str, Callable[[Any], str], tuple[str, ...]]]]
"""group -> measures: name, explanation, direction, how it is shown, path in the metrics"""

PANEL_WIDTH = 4.4  # inches; small, so that 8 pt type is still readable where the page is 400 px wide


def write_report(record: dict[str, Any], examples: Examples, directory: Path) -> None:
    """Write `report.html`, `report.png` and `report.json` (the record itself, in its order) into `directory`.

    Everything is made before anything is written, and each file is renamed into place, the JSON last: a run that fails
    or is killed leaves the older files whole, and a `report.json` means that the other two are there.

    A number that is not finite becomes null ("–" on the page), and the page says that training diverged if it was in
    the history: methods that blow up, as gradient ascent does, deserve a report too. NumPy and JAX values are
    converted.

    Args:
      record: the figures of the run; fractions in 0..1, times in seconds, digests in hex. Needed are `format` (1),
        `created`, `command`, `versions`, `device`, `dataset`, `forget`, `model`, `method`, `cost` and `networks`, where
        `original` and `unlearned` must be and `retrained` may be; `history` and `curve` may be absent, and so may
        single measures.
      examples: samples to show.
      directory: made if it is missing.

    Raises:
      ValueError: a key is missing, a shape does not fit the number of classes, or a value has no JSON form.
    """
    record = _plain(record, "record")
    _check(record, examples)
    write_files(record, directory, lambda record: common_parts(record, examples))


def write_files(record: dict[str, Any], directory: Path, make_parts: Callable[[dict[str, Any]], Parts]) -> None:
    """What `write_report` says of the files, for reports of any kind."""
    record = _plain(record, "record")
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # names in other scripts: the browser has the font
        parts = make_parts(record)
        page, png = _page(record, parts).encode(), _png(parts)
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    content = {"report.html": page, "report.png": png, "report.json": text.encode()}
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    temporary = {name: directory / f".{name}.tmp" for name in content}  # fixed: a killed run's rests are overwritten
    try:
        for name, data in content.items():
            with open(temporary[name], "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for name in content:
            os.replace(temporary[name], directory / name)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)


def common_parts(record: dict[str, Any], examples: Examples) -> Parts:
    present = _present(record)
    return Parts(
        verdict(record), _cards(record), _panels(record), measures_table(record, MEASURES, {name: name for name in present}),
        _per_class(record), samples(record, examples), _limits(record, examples),
    )  # fmt: skip


def verdict(record: dict[str, Any]) -> Verdict:
    """Say in plain words, from the numbers alone, whether the run did what it should; plain text, nothing escaped.

    Args:
      record: as for `write_report`; only `dataset`, `forget`, `networks` and `history` are read.

    Returns:
      level "good" if at most 1 % of the forgotten test samples are answered with an erased class and the accuracy on
      the other classes fell by at most 2 points; "bad" from 10 % or 10 points; else "warning".
    """
    record = _plain(record, "record")
    names, forgotten = record["dataset"]["class_names"], record["forget"]["classes"]
    networks = record["networks"]
    before, after = networks["original"]["metrics"], networks["unlearned"]["metrics"]
    retrained = networks.get("retrained", {}).get("metrics", {})
    one, notes = len(forgotten) == 1, []
    subject = f"Class {quoted(record)}" if one else f"Classes {quoted(record)}"
    was, are, its = ("was", "it is", "its") if one else ("were", "they are", "their")

    gone, still = after["acc_ft"], after.get("any_forgotten")
    drop = 0.0 if None in (before["acc_rt"], after["acc_rt"]) else before["acc_rt"] - after["acc_rt"]
    costly, damaged = drop > COST, drop > DAMAGE
    residual = 0.0 if gone is None else max(gone, still or 0)
    swapped = gone is not None and residual - gone > TOLERATED
    if residual > PARTLY:
        level, label, what = "bad", "Not erased", f"{was} not erased"
    elif residual > TOLERATED:
        level, label, what = "bad" if damaged else "warning", "Partly erased", f"{was} only partly erased"
    elif costly:
        level, label, what = "bad" if damaged else "warning", "Erased at a cost", f"{was} erased, but at a cost"
    else:
        level, label, what = "good", "Erased", f"{was} erased"
    if gone is None:
        level, label = "bad", "Not checked"
        said = f"Whether {subject[0].lower()}{subject[1:]} {was} erased could not be checked: there are no test images"
    else:
        again = "still " if gone > TOLERATED else ""
        said = f"{subject} {what}: {are} {again}recognised in {percent(gone)} of {its} test images "
        said += f"({percent(before['acc_ft'])} before)"
        said += f", and {percent(still)} are answered with one of the erased classes" if swapped else ""
    others = len(names) - len(forgotten)
    many = f"the other {_word(others)} classes are" if others > 1 else "the other class is"
    reference = f"; {percent(retrained['acc_rt'])} retrained from scratch" if retrained else ""
    headline = f"{said}; {many} recognised in {percent(after['acc_rt'])} "
    headline += f"({percent(before['acc_rt'])} before{reference})."

    if residual > TOLERATED:
        notes.append(f"Erasing is not complete: {percent(residual)} of the test images of what was erased are still "
                     "answered with it. Do not present this network as one that forgot.")  # fmt: skip
    if swapped:
        notes.append(f"The erased classes stand in for each other: {percent(gone)} are answered with their own class, "
                     f"{percent(still)} with any erased one. Masking all of them together avoids that.")  # fmt: skip
    if costly:
        notes.append(f"The accuracy on the other classes fell by {100 * drop:.1f} points. A smaller learning rate, "
                     "fewer steps or the other batch norm setting may keep it.")  # fmt: skip
    if before["acc_ft"] is not None and before["acc_ft"] <= PARTLY:
        notes.append(f"The original recognised only {percent(before['acc_ft'])} of these: there was little to erase.")
    counts = np.sum(floats(before["confusion"]), axis=1)
    p, q = floats(before["per_class"]), floats(after["per_class"])
    noise = 3 * np.sqrt((p * (1 - p) + q * (1 - q)) / np.maximum(counts, 1))  # a few test images fewer are no loss yet
    losses = np.where((p - q > CLASS_COST) & (p - q > noise), p - q, 0)
    losses[forgotten] = 0
    for c in [c for c in np.argsort(-losses, kind="stable") if losses[c]][:3]:
        also = f"; retrained {percent(retrained['per_class'][c])}" if retrained else ""
        notes.append(f"“{names[c]}” lost {100 * losses[c]:.1f} points, from {percent(p[c])} to {percent(q[c])}{also} "
                     f"({counts[c]:.0f} test images).")  # fmt: skip
    broken = int(np.sum(~np.isfinite(floats(record.get("history", {}).get("loss", [])))))
    if broken:
        notes.append(f"Training diverged: the loss was not finite at {broken} of the recorded steps.")
    if not retrained:
        notes.append(
            "No retrained reference was made: how a network that never saw the class would answer is not known."
        )
    if level == "good" and (broken or losses.any()):
        level, label = "warning", "Erased, see the notes"
    return Verdict(level, label, headline, notes)


# ---------------------------------------------------------------------------------------------------------- the record


def _plain(value: Any, where: str) -> Any:
    """A copy made of what JSON knows: arrays become lists, numbers that are not finite become None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise ValueError(f"{where} is a {type(value).__name__}: only numbers, strings, lists and dicts can be reported")


def _check(record: dict[str, Any], examples: Examples) -> None:
    """Raise a ValueError that says what is wrong, before anything is drawn."""
    if record.get("format") != 1:
        raise ValueError(f"record['format'] is {record.get('format')!r}: this version writes format 1")
    needed = {"": ("created", "command", "versions", "device", "dataset", "forget", "model", "method", "networks",
                   "cost"),
              "dataset": ("name", "digest", "class_names"), "forget": ("classes", "num_samples", "digest"),
              "networks": ("original", "unlearned"), "cost": ("unlearn_seconds",)}  # fmt: skip
    for key, names in needed.items():
        missing = [name for name in names if name not in (record[key] if key else record)]
        if missing:
            raise ValueError(f"record{f'[{key!r}]' if key else ''} lacks {', '.join(missing)}")
    k, classes = len(record["dataset"]["class_names"]), record["forget"]["classes"]
    if not 0 < len(set(classes)) < k or not all(0 <= c < k for c in classes):
        raise ValueError(f"record['forget']['classes'] is {classes}: give some, not all, of the classes 0..{k - 1}")
    for name, network in record["networks"].items():
        metrics = network.get("metrics", {})
        missing = [key for key in ("acc_ft", "acc_rt", "per_class", "confusion", "absorbed_by") if key not in metrics]
        if name not in NETWORKS or missing:
            raise ValueError(f"record['networks'][{name!r}]: known are {NETWORKS}; metrics missing: {missing}")
        for key, shape in (("per_class", (k,)), ("confusion", (k, k)), ("absorbed_by", (k,))):
            if floats(metrics[key]).shape != shape:
                raise ValueError(f"{key} of the {name} network has shape {floats(metrics[key]).shape}, not {shape}")
    images, (m, *_) = examples.images, (*np.shape(examples.labels), 0)
    if np.ndim(images) != 4 or images.dtype != np.uint8 or len(images) != m:
        raise ValueError(f"examples.images is {images.dtype} {np.shape(images)}: give uint8 [{m}, h, w, c]")
    if np.shape(examples.before) != (m, k) or np.shape(examples.after) != (m, k):
        shapes = np.shape(examples.before), np.shape(examples.after)
        raise ValueError(f"examples.before and examples.after have shapes {shapes}: give {(m, k)}")


def floats(values: Any) -> np.ndarray:
    return np.array(values, dtype=float)  # None becomes NaN


def _metric(record: dict[str, Any], network: str, *path: str) -> Any:
    value = record["networks"].get(network, {}).get("metrics")
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _present(record: dict[str, Any]) -> list[str]:
    return [name for name in NETWORKS if name in record["networks"]]


# ------------------------------------------------------------------------------------------------------------ in words


def percent(value: Any) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    if 0 < value < 0.0005:  # neither "none" nor "all" may be the work of rounding
        return "<0.1 %"
    return ">99.9 %" if 0.9995 <= value < 1 else f"{100 * value:.1f} %"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def seconds(value: float | None) -> str:
    if value is None:
        return "–"
    if value < 100:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    return f"{minutes} min {seconds:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _word(number: int) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    return words[number] if number < len(words) else str(number)


def quoted(record: dict[str, Any]) -> str:
    names = [f"“{record['dataset']['class_names'][c]}”" for c in record["forget"]["classes"]]
    if len(names) > 4:
        names[3:] = [f"{_word(len(names) - 3)} more"]
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def short(name: str, length: int = 16) -> str:
    name = " ".join(name.split())
    return name if len(name) <= length else name[: length - 1] + "…"


def faster(cost: dict[str, Any]) -> str:
    """How the time to unlearn compares."""
    return f"{cost['speedup']:.1f}× faster than retraining" if cost.get("speedup") else "no retraining to compare with"


def most_changed(before: np.ndarray, after: np.ndarray, forgotten: list[int]) -> list[int]:
    """What was erased and the classes whose figures changed most, as many as are drawn, in the order of the classes."""
    change = np.nan_to_num(np.abs(after - before))
    change[forgotten] += 2  # the erased ones first
    return sorted(np.argsort(-change, kind="stable")[:MAX_BARS].tolist())


def _cards(record: dict[str, Any]) -> list[Card]:
    def beside(show: Callable[[Any], str], *path: str) -> list[str]:
        return [f"{show(_metric(record, name, *path))} {name}" for name in _present(record)[:-1]]

    one = len(record["forget"]["classes"]) == 1
    second = ("Answered with any erased class", "any_forgotten")
    second = ("Probability given to the erased class", "forget_mass") if one else second
    distance, cost = ("distance_to_retrained", "forget", "total_variation"), record["cost"]
    same = [*beside(number, *distance)[:1], "0 = same answers"] if "retrained" in record["networks"] else []
    compiling = cost.get("unlearn_compile_seconds")
    compiled = [f"and {seconds(compiling)} compilation"] if compiling else []
    return [
        Card(f"Erased class{'' if one else 'es'} still recognised", percent(_metric(record, "unlearned", "acc_ft")),
              "down", beside(percent, "acc_ft")),
        Card(second[0], percent(_metric(record, "unlearned", second[1])), "down", beside(percent, second[1])),
        Card("Other classes recognised", percent(_metric(record, "unlearned", "acc_rt")), "up",
              beside(percent, "acc_rt")),
        Card("Distance to the retrained network", number(_metric(record, "unlearned", *distance)), "down",
              same or ["no retrained reference was made"]),
        Card("Time to unlearn", seconds(cost["unlearn_seconds"]), "down", [faster(cost), *compiled]),
    ]  # fmt: skip


MEASURES: Measures = {
    "The erased class": [
        ("Recognised, test images", "Test images of what was erased that are still answered with their own class.",
         "down", percent, ("acc_ft",)),
        ("Recognised, training images", "The same on the training images, the ones to be forgotten.",
         "down", percent, ("acc_f",)),
        ("Answered with any erased class", "Counts it too when one erased class stands in for another.",
         "down", percent, ("any_forgotten",)),
        ("Probability left", "Mean probability given to what was erased, on its test images; finer than the answers.",
         "down", percent, ("forget_mass",)),
    ],
    "Everything else": [
        ("Recognised, test images", "Test images of the other classes that are answered rightly.",
         "up", percent, ("acc_rt",)),
        ("Recognised, training images", "The same on the training images.", "up", percent, ("acc_r",)),
    ],
    "Both in one figure": [
        ("Harmonic mean, residual", "Balances what is kept with one minus what is left of the erased class.",
         "up", number, ("hmean_residual",)),
        ("Harmonic mean, drop", "Balances what is kept with how far recognition of the erased class fell.",
         "up", number, ("hmean_drop",)),
        ("Adaptive unlearning score", "One minus the accuracy lost elsewhere, divided by one plus what is left.",
         "up", number, ("aus",)),
    ],
    "Distance to the retrained network": [
        (f"{name}, {title} images", text, direction, show, ("distance_to_retrained", part, key))
        for part, title in (("forget", "erased"), ("remain", "other"))
        for name, text, direction, show, key in (
            ("Total variation", "Probability that would have to move for the answers to be the same; 0 to 1.",
             "down", number, "total_variation"),
            ("Jensen-Shannon", "The same question in nats; 0 to 0.693.", "down", number, "jensen_shannon"),
            ("Same answer", "Test images on which both networks name the same class.", "up", percent, "agreement"),
        )
    ],
}  # fmt: skip


# --------------------------------------------------------------------------------------------------------- the pictures


def _panels(record: dict[str, Any]) -> list[Panel]:
    """Every picture that the record has the numbers for, in the order of the page."""
    names, forgotten = [short(name) for name in record["dataset"]["class_names"]], record["forget"]["classes"]
    present, k = _present(record), len(names)
    panels = process_panels(record, "Accuracy while unlearning")

    absorbed = {name: floats(_metric(record, name, "absorbed_by")) for name in present[1:]}
    top = np.argsort(-np.nanmax(np.nan_to_num(list(absorbed.values())), axis=0), kind="stable")[: min(k, 8)].tolist()
    text = "The answers to the test images of what was erased" + (
        ", beside those of the network that never saw it: the closer, the better." if len(absorbed) > 1 else "."
    )
    text += f" The {len(top)} most frequent of {k} classes." if k > len(top) else ""
    panels.append(bars_panel("Where the erased images go", text, absorbed, top, names, forgotten))

    accuracy = {name: floats(_metric(record, name, "per_class")) for name in present}
    shown = most_changed(accuracy["original"], accuracy["unlearned"], forgotten)
    text = "Test images answered rightly, class by class; ✕ marks what was erased."
    if k > len(shown):
        text += f" Shown are what was erased and the classes that changed most, {len(shown)} of {k}."
    panels.append(bars_panel("Accuracy of each class", text, accuracy, shown, names, forgotten))

    for name, title in (("original", "Confusion before"), ("unlearned", "Confusion after")):
        counts = floats(_metric(record, name, "confusion"))
        total = counts.sum(1, keepdims=True)
        share = np.divide(counts, total, out=np.full((k, k), np.nan), where=total > 0)
        text = f"Answers of the {name} network to the test images; each row sums to 100 %."
        alt = f"{percent(np.trace(counts) / max(counts.sum(), 1))} of all test images are on the diagonal"
        panels.append(Panel("confusion", title, text, alt, PANEL_WIDTH,
                             functools.partial(_draw_confusion, share=share, names=names, forgotten=forgotten)))  # fmt: skip
    return panels


def process_panels(
    record: dict[str, Any], curve_title: str, names: tuple[str, str] = ("erased", "all others")
) -> list[Panel]:
    """The loss and its terms, and what is measured on validation data, over the steps."""
    history, curve = record.get("history") or {}, record.get("curve") or {}
    panels = []

    looks = (("forgetting", "forget", "-"), ("retention", "remain", "--"))
    terms = [(f"{key} term", history[key], color, line) for key, color, line in looks if history.get(key)]
    if not terms and history.get("loss"):
        terms = [("loss", history["loss"], "unlearned", "-")]
    if terms:
        both = len(terms) == 2
        text = "The loss; this method has no target that would split it into two terms."
        if both:
            text = "The loss is the sum of two terms: one pushes the class out, one holds the answers about all others."
        ends = "; ".join(f"{label} {number(v[0])} at first, {number(v[-1])} at last" for label, v, *_ in terms)
        panels.append(Panel("process", "Forgetting and retention" if both else "Loss", text, ends, 2.6,
                             lambda ax: _draw_lines(ax, history["step"], terms, percent=False)))  # fmt: skip
    if curve.get("step"):
        lines = [(names[0], curve["acc_f"], "forget", "-"), (names[1], curve["acc_r"], "remain", "--")]
        ends = "; ".join(f"{label} {percent(v[0])} at first, {percent(v[-1])} at last" for label, v, *_ in lines)
        text = "Measured on validation images, never on the test set."
        panels.append(Panel("process", curve_title, text, ends, 2.6,
                             lambda ax: _draw_lines(ax, curve["step"], lines, percent=True)))  # fmt: skip
    return panels


def bars_panel(
    title: str, caption: str, series: dict[str, np.ndarray], shown: list[int], names: list[str], forgotten: list[int]
) -> Panel:
    """Fractions of classes, a bar for each network."""
    alt = "; ".join(f"{names[c]}: " + ", ".join(f"{n} {percent(v[c])}" for n, v in series.items()) for c in shown)
    return Panel("classes", title, caption, alt, 0.7 + 0.31 * len(shown),
                 lambda ax: _draw_bars(ax, series, shown, names, forgotten))  # fmt: skip


def _legend(ax: Axes) -> None:
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2, handlelength=1.6, columnspacing=1.2)


def _draw_lines(ax: Axes, steps: list[float], lines: list[tuple[str, list[Any], str, str]], percent: bool) -> None:
    values = np.concatenate([floats(line[1]) for line in lines])
    values = values[np.isfinite(values)]
    if not percent and values.size and values.min() > 0 and values.max() > 20 * values.min():
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.yaxis.set_minor_formatter(lambda value, _: "")
    for label, data, color, line in lines:
        keep = np.unique(np.linspace(0, len(data) - 1, 500).astype(int))  # long runs: more points than pixels
        marker = "o" if len(keep) <= 30 else None
        ax.plot(floats(steps)[keep], floats(data)[keep], line, color=COLORS[color][0], label=label, marker=marker, ms=3)
    if percent:
        ax.set_ylim(-0.03, 1.03)
        ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %", decimals=0))
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.grid(axis="y")
    ax.set_xlabel("step")
    _legend(ax)


def _draw_bars(
    ax: Axes, series: dict[str, np.ndarray], shown: list[int], names: list[str], forgotten: list[int]
) -> None:
    height, y = 0.8 / len(series), np.arange(len(shown))
    for i, (name, values) in enumerate(series.items()):
        ax.barh(y + (i - (len(series) - 1) / 2) * height, np.nan_to_num(values[shown]), height * 0.92,
                color=COLORS[name][0], label=name)  # fmt: skip
    ax.set_yticks(y, [f"✕ {names[c]}" if c in forgotten else names[c] for c in shown])
    for label, c in zip(ax.get_yticklabels(), shown, strict=True):
        if c in forgotten:
            label.set(color=COLORS["forget"][0], fontweight="bold")
    ax.set_xlim(0, 1)
    ax.set_ylim(len(shown) - 0.5, -0.5)
    ax.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %", decimals=0))
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    _legend(ax)


def _draw_confusion(ax: Axes, share: np.ndarray, names: list[str], forgotten: list[int]) -> None:
    k, color = len(share), to_rgba(COLORS["unlearned"][0])[:3]
    # From transparent to blue, so that it suits the light and the dark page.
    fade = LinearSegmentedColormap.from_list("fade", [(*color, 0.0), (*color, 1.0)])
    ax.imshow(share, cmap=fade, norm=PowerNorm(0.5, 0, 1), interpolation="none")  # the root makes rare answers visible
    if k <= 30:
        size = 7.5 if k <= 12 else 5.5
        labels = [f"✕ {short(names[c], 11)}" if c in forgotten else short(names[c], 11) for c in range(k)]
        ax.set_xticks(range(k), labels, rotation=90, fontsize=size)
        ax.set_yticks(range(k), labels, fontsize=size)
        for c in forgotten:
            for axis in (ax.xaxis, ax.yaxis):
                axis.get_ticklabels()[c].set(color=COLORS["forget"][0], fontweight="bold")
    else:  # class numbers, and an edge mark at what was erased
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(10, integer=True))
        ax.plot([k + 1] * len(forgotten), forgotten, "<", color=COLORS["forget"][0], ms=4, clip_on=False)
        ax.plot(forgotten, [-2] * len(forgotten), "v", color=COLORS["forget"][0], ms=4, clip_on=False)
        ax.set(xlim=(-0.5, k - 0.5), ylim=(k - 0.5, -0.5))
    for i, j in np.argwhere(share > 0.005) if k <= 12 else []:
        ax.text(j, i, f"{100 * share[i, j]:.0f}", ha="center", va="center", fontsize=7,
                color="#ffffff" if share[i, j] > 0.45 else INK)  # fmt: skip
    ax.tick_params(length=0 if k <= 30 else 3)
    ax.spines[:].set_visible(True)
    number = "" if k <= 30 else " (number)"
    ax.set(xlabel=f"answer{number}", ylabel=f"true class{number}")


def svg(panel: Panel, name: str) -> str:
    """The panel as inline SVG that follows the page's colours and font, with ids of its own and no namespaces."""
    figure = Figure(figsize=(PANEL_WIDTH, panel.height), layout="constrained")
    panel.draw(figure.add_subplot())
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = re.sub(r"<metadata>.*?</metadata>", "", file.getvalue(), flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"<svg[^>]*?(viewBox=\"[^\"]*\")[^>]*>", rf'<svg role="img" aria-label="{_MARK}" \1>', text, count=1)
    text = text.replace("xlink:href", "href").replace(' id="', f' id="{name}-')
    text = text.replace('href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    for color, (light, _) in COLORS.items():
        text = text.replace(light, f"var(--{color})")
    return re.sub(r">\s+<", "><", text).replace(_MARK, escape(f"{panel.title}. {panel.alt}"), 1)


_MARK = "@alt@"


def _png(parts: Parts) -> bytes:
    """The same panels on one sheet, under the headline and the main figures: bytes of a PNG."""
    judged, panels = parts.verdict, parts.panels
    figure = Figure(figsize=(13, 10.4), layout="constrained", facecolor="#ffffff")
    figure.get_layout_engine().set(w_pad=0.16, h_pad=0.12)
    head, body = figure.subfigures(2, 1, height_ratios=[1, 3.6])
    headline = "\n".join(textwrap.wrap(" ".join(judged.headline.split()), 118)[:3])
    head.text(
        0.02, 0.92, judged.label.upper(), color=PAGE_COLORS[judged.level][0], fontsize=11, fontweight="bold", va="top"
    )
    head.text(0.02, 0.80, headline, fontsize=12.5, va="top", linespacing=1.4)
    for i, card in enumerate(parts.cards):
        x = 0.02 + 0.196 * i
        head.text(x, 0.33, card.value, fontsize=19, fontweight="bold", va="baseline")
        head.text(x, 0.26, f"{card.label} {DIRECTIONS[card.direction][:1]}", fontsize=8.5, va="top")
        head.text(x, 0.17, "\n".join(card.details), fontsize=7.5, color=MUTED, va="top", linespacing=1.4)
    half = len(panels) // 2
    grid = body.add_gridspec(2, 6, height_ratios=[1, 1.25])
    for i, row in enumerate((panels[:half], panels[half:])):
        width = 6 // len(row)
        for j, panel in enumerate(row):
            ax = body.add_subplot(grid[i, j * width : (j + 1) * width])
            panel.draw(ax)
            ax.set_title(panel.title, loc="left", pad=20)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120, metadata={"Software": None})
    return file.getvalue()


# ------------------------------------------------------------------------------------------------------------- the page


def _page(record: dict[str, Any], parts: Parts) -> str:
    """The whole HTML document."""
    judged, panels = parts.verdict, parts.panels
    title = f"Unlearning report: {quoted(record)} of {record['dataset']['name']}"
    notes = "".join(f"<li>{escape(note)}</li>" for note in judged.notes)
    notes = f'<section class="notes" aria-label="Notes"><h2>Please note</h2><ul>{notes}</ul></section>' if notes else ""
    cards = "".join(
        f'<div class="card"><p class="label">{escape(c.label)}</p><p class="value">{escape(c.value)}</p>'
        f'<p class="direction">{DIRECTIONS[c.direction]}</p>'
        f'<p class="small">{"<br>".join(map(escape, c.details))}</p></div>'
        for c in parts.cards
    )
    figures: dict[str, str] = {}
    for i, panel in enumerate(panels):
        figures[panel.section] = figures.get(panel.section, "") + figure(panel, f"p{i}")
    sections = [
        ("What was erased, from what, and how", _provenance(record)),
        ("Original, retrained, unlearned", parts.comparison),
        ("While unlearning", f'<div class="grid">{figures["process"]}</div>' if "process" in figures else ""),
        (
            "Class by class",
            f'<div class="grid">{figures["classes"]}</div>{parts.per_class}' if "classes" in figures else "",
        ),
        (
            "Which class is taken for which",
            f'<div class="grid">{figures["confusion"]}</div>' if "confusion" in figures else "",
        ),
        ("Samples before and after", parts.samples),
        *parts.sections,
        ("Limits", _list(parts.limits)),
    ]
    body = "".join(f"<section><h2>{head}</h2>{content}</section>" for head, content in sections if content)
    body = re.sub(r"(?<=\d) %", "\u00a0%", f'<div class="cards">{cards}</div>{notes}{body}')  # no line break before "%"
    headline = judged.headline.replace(" %", "\u00a0%")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
        f"<title>{escape(title)}</title><style>{_css()}</style></head><body><main>"
        f'<header><p class="kicker">Unlearning report · {escape(record["dataset"]["name"])} · '
        f"{escape(str(record['created']))}</p>"
        f'<div class="verdict {judged.level}"><p class="badge">{escape(judged.label)}</p>'
        f"<h1>{escape(headline)}</h1></div></header>{body}</main></body></html>\n"
    )


def figure(panel: Panel, name: str) -> str:
    """The panel with its title and caption."""
    return (
        f'<figure class="panel"><h3>{escape(panel.title)}</h3>{svg(panel, name)}'
        f"<figcaption>{escape(panel.caption)}</figcaption></figure>"
    )


def table(head: Iterable[str], body: str, label: str, kind: str = "") -> str:
    cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    head_row = f"<thead><tr>{cells}</tr></thead>" if cells else ""
    return (f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">'
            f'<table class="{kind}">'
            f'<caption class="hidden">{escape(label)}</caption>{head_row}{body}</table></div>')  # fmt: skip


def _provenance(record: dict[str, Any]) -> str:
    data, forget, model, method, cost = (record[key] for key in ("dataset", "forget", "model", "method", "cost"))

    def show(value: Any) -> str:
        if isinstance(value, list):
            return ", ".join(map(show, value)) or "none"
        if isinstance(value, dict):
            return ", ".join(f"{key} {show(item)}" for key, item in value.items())
        return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)

    def many(number: int) -> str:
        return f"{number:,}".replace(",", "\u00a0")

    sizes = [f"{many(data[f'num_{part}'])} {part}" for part in ("train", "validation", "test") if f"num_{part}" in data]
    one = len(forget["classes"]) == 1
    labels = f"label{'' if one else 's'} {show(forget['classes'])}; the dataset has {len(data['class_names'])} classes"
    how = (
        "DELETE: each forget sample is trained towards the original's own answer, with what is erased taken out of it."
    )
    settings = "; ".join(f"{key} = {show(value)}" for key, value in method.items())
    parts = {"teacher_seconds": "training the original", "retrain_seconds": "retraining",
             "unlearn_seconds": "unlearning", "unlearn_compile_seconds": "its compilation"}  # fmt: skip
    spent = [f"{name} {seconds(cost[key])}" for key, name in parts.items() if cost.get(key) is not None]
    spent += [f"{cost['samples_per_second']:.0f} samples/s"] if cost.get("samples_per_second") else []
    about = [f"{key} = {many(v) if isinstance(v, int) else show(v)}" for key, v in model.items() if key != "name"]
    networks = []
    for name, network in record["networks"].items():
        copied = [("", network.get("source")), ("sha256", network.get("digest"))]
        networks.append((f"{name.replace('_', ', ').capitalize()} network", copied))
    rows: list[tuple[str, list[Any]]] = [
        ("Erased", [forget.get("what") or f"{quoted(record)} ({labels})"]),
        ("Forget samples", [f"{many(forget['num_samples'])} training samples", ("sha256", forget["digest"])]),
        ("Dataset", [f"{data['name']}: {', '.join(sizes)}", ("digest", data["digest"])]),
        ("Model", ["; ".join([show(model.get("name")), *about])]),
        *networks,
        ("Method", [how, settings] if method.get("name") == "delete" else [settings]),
        ("Cost", ["; ".join(spent)]),
        ("Device", [show(record["device"])]),
        ("Command", [("", record["command"])]),
        ("Versions", [show(record["versions"])]),
        ("Created", [show(record["created"])]),
    ]

    def line(item: Any) -> str:  # a pair is something to copy: a digest, a path, a command
        if isinstance(item, str):
            return escape(item)
        return f"{escape(item[0])} <code>{escape(str(item[1]))}</code>".strip() if item[1] else ""

    body = "".join(f'<tr><th scope="row">{escape(head)}</th><td>{"<br>".join(filter(None, map(line, items)))}</td></tr>'
                   for head, items in rows)  # fmt: skip
    return table((), f"<tbody>{body}</tbody>", "Provenance", "provenance")


def measures_table(record: dict[str, Any], measures_by_group: Measures, networks: dict[str, str]) -> str:
    """Every measure of the networks (name -> what it is called) side by side."""
    present, body = list(networks), ""
    for group, measures in measures_by_group.items():
        rows = ""
        for name, text, direction, show, path in measures:
            values = [_metric(record, network, *path) for network in present]
            if any(value is not None for value in values):
                cells = "".join(f'<td class="{n}">{escape(show(v))}</td>' for n, v in zip(present, values, strict=True))
                rows += (f'<tr><th scope="row">{escape(name)}<span class="small">{escape(text)}</span>'
                         f'<span class="direction">{DIRECTIONS[direction]}</span></th>{cells}</tr>')  # fmt: skip
        if rows:
            head = f'<tr class="group"><th colspan="{len(present) + 1}" scope="rowgroup">{group}</th></tr>'
            body += f"<tbody>{head}{rows}</tbody>"
    text = "No retrained reference was made for this run, so there is no yardstick for what is attainable."
    if "retrained" in present:
        text = (f"{networks['retrained'].capitalize()}: trained from scratch without what was erased. It is the yardstick: the closer the "
                "unlearned network is to it, the better, also where a figure could go further.")  # fmt: skip
    return f"<p>{text}</p>" + table(
        ["Measure", *networks.values()], body, "All measures, side by side", "numbers compare"
    )


def _per_class(record: dict[str, Any]) -> str:
    names, present, rows = record["dataset"]["class_names"], _present(record), ""
    counts = np.sum(floats(_metric(record, "original", "confusion")), axis=1)
    for c, name in enumerate(names):
        mark = "✕ " if c in record["forget"]["classes"] else ""
        cells = "".join(f'<td class="{n}">{escape(percent(_metric(record, n, "per_class")[c]))}</td>' for n in present)
        rows += f'<tr><th scope="row">{mark}{escape(name)}</th><td>{counts[c]:.0f}</td>{cells}</tr>'
    numbers = table(["Class", "Images", *present], f"<tbody>{rows}</tbody>", "Accuracy of each class", "numbers")
    opened = " open" if len(names) <= MAX_BARS else ""
    return f"<details{opened}><summary>The same as numbers</summary>{numbers}</details>"


def samples(record: dict[str, Any], examples: Examples, heads: tuple[str, str] = ("Erased", "Not erased")) -> str:
    """Images of the forgotten classes and of others, each under its head, with the answers before and after."""
    names, forgotten, content = record["dataset"]["class_names"], record["forget"]["classes"], ""
    labels = np.asarray(examples.labels)
    for head, chosen in zip(heads, (np.isin(labels, forgotten), ~np.isin(labels, forgotten)), strict=True):
        shown = ""
        for i in np.flatnonzero(chosen)[:MAX_IMAGES]:
            answers = ""
            for when, p in (("before", examples.before[i]), ("after", examples.after[i])):
                answers += f"<span>{when}: {escape(names[int(np.argmax(p))])} {100 * float(np.max(p)):.0f} %</span>"
            true, source = escape(names[labels[i]]), image(examples.images[i])
            shown += (f'<figure class="sample"><img src="{source}" alt="A test image of class {true}">'
                      f"<figcaption><strong>{true}</strong>{answers}</figcaption></figure>")  # fmt: skip
        content += f'<h3>{head}</h3><div class="samples">{shown}</div>' if shown else ""
    return f"<p>Test images with the first answer and its probability.</p>{content}" if content else ""


def image(image: np.ndarray) -> str:
    step = -(-max(image.shape[:2]) // 128)  # shown small, so a large photograph is thinned out
    pixels = np.asarray(image)[::step, ::step]
    pixels = pixels if pixels.shape[-1] == 3 else np.repeat(pixels[..., :1], 3, axis=-1)
    file = io.BytesIO()
    imsave(file, np.ascontiguousarray(pixels), format="png", metadata={"Software": None})
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _limits(record: dict[str, Any], examples: Examples) -> list[tuple[str, str]]:
    rows = floats(_metric(record, "unlearned", "confusion"))[record["forget"]["classes"]]
    n, rate = rows.sum(), _metric(record, "unlearned", "acc_ft")
    points = [
        ("The answers forget, the inside may not.",
         "This report is about what the network answers. Its inner features may still carry the class: in this "
         "project's measurements on Fashion-MNIST, a linear probe on frozen features recognised the erased class in "
         "70 to 97 % of the images after unlearning and in 71 to 97 % before. A network retrained without the class "
         "scores high as well (57 to 94 %), so the gap to it counts. No probe was run for this page."),
        ("Measured on this test set.", "Other images, altered images or attacks may be answered differently."),
    ]  # fmt: skip
    if n > 0 and rate is not None:  # Wilson's upper bound, z = 1.96
        z2 = 1.96**2
        upper = (rate + z2 / (2 * n) + math.sqrt(z2 * (rate * (1 - rate) + z2 / (4 * n)) / n)) / (1 + z2 / n)
        text = f"There are {n:.0f} test images of what was erased. With {percent(rate)} of them recognised, the rate "
        text += f"on further images of the same kind may be up to {percent(upper)} (95 % confidence)."
        points.append(("A finite sample.", text))
    seed = "" if record["method"].get("seed") is None else f" with seed {record['method']['seed']}"
    text = f"These are figures of one run{seed}: small differences may be chance; a claim about the method needs more."
    points.append(("One run.", text))
    if "retrained" not in record["networks"]:
        text = "Nothing here says how close the result is to never having seen the class."
        points.append(("No retrained reference was made.", text))
    text = (
        "The original checkpoint, the forget samples, their copies and backups still exist unless deleted separately. "
    )
    text += "The method is approximate; this page is evidence, not a proof."
    points.append(("Nothing else is deleted.", text))
    if len(examples.labels):
        text = "Samples of the erased class may be among them: hand it on accordingly."
        points.append(("This page shows images.", text))
    return points


def _list(points: list[tuple[str, str]]) -> str:
    return '<ul class="limits">' + "".join(f"<li><strong>{a}</strong> {escape(b)}</li>" for a, b in points) + "</ul>"


def _css() -> str:
    light, dark = (";".join(f"--{name}:{pair[i]}" for name, pair in (COLORS | PAGE_COLORS).items()) for i in (0, 1))
    font = "--font:system-ui,-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif"
    head = f":root{{{font};{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    return head + _CSS.replace("\n", "")


_CSS = """
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 var(--font)}
main{max-width:1120px;margin:0 auto;padding:32px 20px 64px} p{margin:0 0 12px}
h1{font-size:clamp(1.2rem,2.2vw,1.5rem);line-height:1.4;font-weight:600;margin:0;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:44px 0 12px} h3{font-size:1rem;margin:0 0 8px}
.kicker,.small,.direction,figcaption{color:var(--muted);font-size:.84rem;overflow-wrap:anywhere}
.verdict,.notes,.card,.panel,.scroll,.sample{background:var(--card);border:1px solid var(--line);border-radius:10px}
.verdict{border-left:6px solid;padding:18px 22px}
.badge{font-weight:700;font-size:.84rem;letter-spacing:.06em;text-transform:uppercase;margin:0 0 6px}
.good{border-left-color:var(--good)} .good .badge{color:var(--good)}
.warning{border-left-color:var(--warning)} .warning .badge{color:var(--warning)}
.bad{border-left-color:var(--bad)} .bad .badge{color:var(--bad)}
.notes{border-color:var(--warning);padding:14px 22px;margin-top:16px}
.notes h2{font-size:1rem;margin:0 0 6px;color:var(--warning)} .notes ul{margin:0;padding-left:20px}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:14px;margin-top:16px}
.card{padding:14px 16px} .card p{margin:0} .card .direction{margin-bottom:6px}
.card .label{font-size:.9rem;font-weight:600;line-height:1.3;min-height:2.6em}
.value{font-size:1.9rem;font-weight:650;line-height:1.3;font-variant-numeric:tabular-nums}
.scroll+.grid{margin-top:16px} .grid{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:16px;align-items:start}
.panel{margin:0;padding:16px} .panel svg{display:block;width:100%;height:auto;overflow:visible}
.panel text{font-family:var(--font)!important} .panel image,.sample img{image-rendering:pixelated}
figcaption{margin-top:8px} .scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.94rem}
th,td{text-align:left;vertical-align:top;padding:9px 14px;border-top:1px solid var(--line)}
thead th,.provenance tr:first-child>*{border-top:0}
thead th{font-size:.84rem;color:var(--muted)} tbody th{font-weight:600}
.provenance th{width:170px;white-space:nowrap} .provenance td,code{overflow-wrap:anywhere}
code{font:.86em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.numbers td,.numbers thead th:not(:first-child){text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.numbers th .small,.numbers th .direction{display:block;font-weight:400}
.numbers .unlearned{font-weight:700;color:var(--unlearned)}
.group th{background:var(--page);font-size:.84rem;color:var(--muted)}
details{margin-top:16px} summary{cursor:pointer;padding:6px 0;font-weight:600}
.samples{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:12px;margin-bottom:20px}
.sample{margin:0;padding:12px} .sample strong,.sample span{display:block} .sample strong{color:var(--ink)}
.sample img{width:96px;height:96px;object-fit:contain;display:block;background:#000;border-radius:4px}
.limits{padding-left:20px;max-width:80ch} .limits li{margin-bottom:10px}
.maps td,.maps th{padding:4px 6px;border:0;text-align:center} .map{width:112px;image-rendering:pixelated;display:block}
.keys{display:flex;flex-wrap:wrap;gap:6px 16px} .dot{display:inline-block;width:.9em;height:.9em;margin-right:.4em}
.hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
@media screen and (max-width:720px){
main{padding:20px 14px 48px} .grid{grid-template-columns:minmax(0,1fr)} .verdict{padding:14px 16px} .panel{padding:12px}
.cards,.samples{grid-template-columns:repeat(2,minmax(0,1fr))} .card:last-child{grid-column:1/-1}
.card:last-child .label{min-height:0} .value{font-size:1.5rem} th,td{padding:8px} table{font-size:.86rem}
.provenance,.provenance tbody,.provenance tr,.provenance th,.provenance td{display:block;width:auto}
.provenance td{border-top:0;padding-top:0} .provenance th{padding-bottom:2px}
.numbers td,.numbers th{padding:8px 5px} .numbers{font-size:.8rem} .compare thead{display:none}
.compare,.compare tbody{display:block} .compare tr{display:flex;flex-wrap:wrap}
.compare th{flex:1 0 100%} .compare td{flex:1;border:0;padding-top:0;text-align:left}
.compare td::before{content:attr(class);display:block;font-size:.78rem;font-weight:400;color:var(--muted)}}
@media print{
@page{size:A4;margin:14mm} body{background:#fff;font-size:10.5pt} main{padding:0;max-width:none}
h2,h3{break-after:avoid} h2{margin-top:22px} .panel,.card,.sample,.verdict,.notes,tr{break-inside:avoid}
.cards{grid-template-columns:repeat(5,minmax(0,1fr));gap:8px} .card{padding:8px 10px}
code{font-size:.72em}
.samples{grid-template-columns:repeat(6,minmax(0,1fr));gap:8px} .sample{padding:8px} .sample img{width:72px;height:72px}
.value{font-size:1.25rem}
th,td{padding:5px 8px} *{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""
