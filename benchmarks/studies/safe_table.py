"""What the cells of the study `safe` say: `python benchmarks/studies/safe.py --networks --out=OUT` reads what OUT has."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from safe_networks import NAMES
from script import markdown
from study import SEARCH as TRIED

from delete_jax import auto
from delete_jax.cells import NAME
from delete_jax.reports.style import COLORS
from delete_jax.result import Row
from delete_jax.tasks.base import RETRAINED

STUDY = "safe"
OURS, FIXED, SEARCHED, FEW = "auto", "best fixed rate", "search", "search, 5 epochs of 128"
SHOWN = {OURS: "unlearned", FEW: "forget", SEARCHED: "reference-1", FIXED: "remain", RETRAINED: "retrained"}
"""Ways, and the colour of each."""
DEV = ("resnet", "mlp", "weak_resnet")
"""The networks that constants and thresholds may be chosen on."""
WEAK = "weak"
"""How the names of networks begin that were not trained to the end."""
LOWEST = -6
"""A cell below so many points is drawn there, with its value beside it."""
ERASED, POINT, HARM = 0.005, 0.01, 0.03
"""What may be left of a class; which loss of the remaining classes counts; and which one must not come without a warning."""


def about(rows: Sequence[Row]) -> Row:
    """All that is shown of the cells."""
    return {
        "ways": ways(rows), "paired": paired(rows), "goals": goals(rows), "warning": thresholds(rows), "choice": choices(rows),
    }  # fmt: skip


def kept(out: Path) -> list[Row]:
    """All cells of a folder, with their network and way. Where another rate was the best for fewer classes, the last one counts."""
    found: dict[tuple[Any, ...], Row] = {}
    for path in sorted(out.glob(f"*/{NAME}"), key=lambda path: order(path.parent.name)):
        for line in map(json.loads, path.read_text().splitlines()[1:]):
            of = line["of"]
            if of.get("study") != STUDY:
                continue  # a network's digest
            way, rate, is_final = of.get("way", of.get("network")), of.get("rate"), of.get("cell") != TRIED
            cell = {
                "of": path.parent.name,
                "way": way,
                "is_final": is_final,
                "seed": of["seed"],
                "forget": of["forget"],
            }
            key = (*map(str, cell.values()), None if is_final else rate)
            found[key] = {**cell, "rate": rate, **line["cell"]}
    return list(found.values())


def order(network: str) -> tuple[bool, int, str]:
    """Networks come as they do in the file of networks, those that were not trained to the end last."""
    place = NAMES.index(network) if network in NAMES else len(NAMES)
    return network.startswith(WEAK), place, network


# ---- what they say


def is_erased(row: Row) -> bool:
    return "failed" not in row and max(row["left"], row["old"]) <= ERASED


def finals(rows: Iterable[Row], way: str) -> list[Row]:
    return [row for row in rows if row["is_final"] and row["way"] == way]


def trained(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if not row["of"].startswith(WEAK)]


def summary(rows: Sequence[Row]) -> Row:
    """Of cells of one way; means are over those that did not fail."""
    done = [row for row in rows if "failed" not in row]
    if not done:
        return {"cells": len(rows), "failed": len(rows)}
    change = np.array([row["change"] for row in done])
    found = {
        "cells": len(rows), "failed": len(rows) - len(done), "erased": sum(map(is_erased, rows)),
        "left": max(max(row["left"], row["old"]) for row in done), "change": change.mean(), "least": change.min(),
        "worst": np.mean([row["worst"] for row in done]), "within": int((change >= -POINT).sum()),
    }  # fmt: skip
    if "trainings" in done[0]:
        found |= {name: float(np.mean([row[name] for row in done])) for name in ("trainings", "steps", "seconds")}
    return {name: value if isinstance(value, int) else float(value) for name, value in found.items()}


def ways(rows: Sequence[Row]) -> list[Row]:
    """A summary for each way and network, and of all that were trained to the end."""
    networks = list(dict.fromkeys(row["of"] for row in rows))
    parts = {"trained": trained(rows), **{name: [row for row in rows if row["of"] == name] for name in networks}}
    return [
        {"networks": part, "way": name, **summary(found)}
        for part, own in parts.items()
        for name in SHOWN
        if (found := finals(own, name))
    ]


def paired(rows: Sequence[Row]) -> list[Row]:
    """The mean change by `lr="auto"` and by each other way, on the cells that both have, of networks that were trained to the end."""

    def changes(way: str) -> dict[str, float]:
        done = [row for row in trained(finals(rows, way)) if "failed" not in row]
        return {f"{row['of']} {row['seed']} {row['forget']}": row["change"] for row in done}

    ours, found = changes(OURS), []
    for way in SHOWN:
        theirs = changes(way)
        common = [cell for cell in theirs if cell in ours]
        if way != OURS and common:
            means = [float(np.mean([some[cell] for cell in common])) for some in (ours, theirs)]
            found.append({"way": way, "cells": len(common), "ours": means[0], "theirs": means[1]})
    return found


def rates(rows: Sequence[Row], most_dz: float | None = None) -> Row:
    """How often a network that erases is warned of, by what the remaining classes lose."""

    def share(which: Sequence[Row]) -> float | None:
        said = [auto.is_warned(row) if most_dz is None else row["dz"] > most_dz for row in which]
        return float(np.mean(said)) if said else None

    found = [row for row in rows if is_erased(row) and "dz" in row]
    parts = {
        "harmed": [row for row in found if row["change"] < -HARM],
        "lost": [row for row in found if row["change"] < -POINT],
        "safe": [row for row in found if row["change"] >= -POINT],
        "trained_safe": [row for row in trained(found) if row["change"] >= -POINT],
    }
    return {name: {"networks": len(part), "warned": share(part)} for name, part in parts.items()}


def thresholds(rows: Sequence[Row]) -> list[Row]:
    """The warning on all networks that ways and rates made: by the package's thresholds, and by that of `dz` alone that separates best on
    `DEV`."""
    pool = [row for row in rows if row["way"] != RETRAINED]
    halves = {"dev": [row for row in pool if row["of"] in DEV], "others": [row for row in pool if row["of"] not in DEV]}

    def separated(most: float) -> float:
        found = rates(halves["dev"], most)
        return (found["lost"]["warned"] or 0.0) - (found["safe"]["warned"] or 0.0)

    seen = sorted(row["dz"] for row in halves["dev"] if is_erased(row) and "dz" in row)
    best = max(seen, key=separated) if seen else auto.MOST_DZ
    return [
        {"half": half, "dz": most or auto.MOST_DZ, "alone": most is not None, **rates(part, most)}
        for half, part in halves.items()
        for most in (None, best)
    ]


CHOICES: Mapping[str, Callable[[Row], Any]] = {
    "least reoriented dz": lambda row: row["dz_reoriented"],
    "least dz": lambda row: row["dz"],
    "no alarm first, then least reoriented dz": lambda row: (auto.is_alarming(row), row["dz_reoriented"]),
    "the first": lambda row: 0,
    "the best on test data": lambda row: -row["change"],
}
"""Ways to choose among the trainings that erase: the smallest key is taken."""


def choices(rows: Sequence[Row]) -> list[Row]:
    """What other choices among the trainings of `lr="auto"` would have come to, where several erase."""
    found = []
    for row in finals(rows, OURS):
        able = [one for one in row.get("candidates", ()) if one["above"] <= ERASED]
        if len(able) > 1:
            found.append({"of": row["of"], **{name: min(able, key=key) for name, key in CHOICES.items()}})
    halves = {"dev": lambda name: name in DEV, "others": lambda name: name not in DEV}
    return [
        {
            "half": half, "choice": name, "cells": len(own), "change": float(np.mean([one[name]["change"] for one in own])),
            "least": min(one[name]["change"] for one in own), "left": max(one[name]["left"] for one in own),
        }
        for half, is_in in halves.items()
        if (own := [one for one in found if is_in(one["of"])])
        for name in CHOICES
    ]  # fmt: skip


def goals(rows: Sequence[Row]) -> Row:
    """What is asked of `lr="auto"`, and what came of it."""
    all_of_them = finals(rows, OURS)
    done = [row for row in all_of_them if "failed" not in row]
    whole = trained(done)
    harmed = [row for row in done if row["change"] < -HARM]
    safe = [row for row in done if row["change"] >= -POINT]
    return {
        "cells": len(all_of_them), "failed": len(all_of_them) - len(done), "erased": sum(map(is_erased, done)),
        "trained": len(whole), "within": sum(row["change"] >= -POINT for row in whole),
        "harmed": len(harmed), "unwarned": sum(not auto.is_warned(row) for row in harmed),
        "safe": len(safe), "false": sum(map(auto.is_warned, safe)),
        "trained_safe": len(trained(safe)), "trained_false": sum(map(auto.is_warned, trained(safe))),
    }  # fmt: skip


def text(record: Row) -> list[str]:
    def percent(share: float | None) -> str:
        return "–" if share is None else f"{100 * share:.0f} %"

    def warned(part: Row) -> str:
        return f"{percent(part['warned'])} of {part['networks']}"

    lines = []
    for row in record["ways"]:
        if row["failed"] == row["cells"]:
            lines.append([row["networks"], row["way"], f"0 of {row['cells']}", *[""] * 7])
            continue
        took = (
            [f"{row['trainings']:.1f}", f"{row['steps']:.0f}", f"{row['seconds']:.1f}"] if "steps" in row else [""] * 3
        )
        lines.append([
            row["networks"], row["way"], f"{row['erased']} of {row['cells']}", f"{100 * row['left']:.1f}",
            f"{100 * row['change']:+.1f} ({100 * row['least']:+.1f})", f"{100 * row['worst']:+.1f}",
            f"{row['within']} of {row['cells']}", *took,
        ])  # fmt: skip
    beside = [
        f"`auto` {100 * row['ours']:+.2f}, {row['way']} {100 * row['theirs']:+.2f} ({row['cells']} cells)"
        for row in record["paired"]
    ]
    heads = ["networks", "way", "erased", "most left", "remaining (worst cell)", "worst class, mean", "within a point"]
    goal = record["goals"]
    warning = [
        [row["half"], f"dz > {row['dz']:.3f}" + (" alone" if row["alone"] else f", or {auto.MOST_DZ / 2:g} if unsure, or agreement"),
         warned(row["harmed"]), warned(row["lost"]), warned(row["safe"]), warned(row["trained_safe"])]
        for row in record["warning"]
    ]  # fmt: skip
    choice = [
        [row["half"], row["choice"], str(row["cells"]), f"{100 * row['change']:+.1f} ({100 * row['least']:+.1f})", f"{100 * row['left']:.1f}"]
        for row in record["choice"]
    ]  # fmt: skip
    return [
        *markdown([*heads, "trainings", "steps", "seconds"], lines),
        "",
        f"Percent and points of test data. `auto`: erased {goal['erased']} of {goal['cells']} cells; of networks that were trained to the end, "
        f"{goal['within']} of {goal['trained']} within a point; {goal['harmed']} cells lose more than {100 * HARM:g} points, "
        f"{goal['unwarned']} of them without a warning; false alarms in {goal['false']} of {goal['safe']} cells that lose at most a "
        f"point ({goal['trained_false']} of {goal['trained_safe']} where the network was trained to the end).",
        "",
        f"On the cells that both have, networks trained to the end: {'; '.join(beside)}.",
        "",
        *markdown(
            ["half", "warned if", "of losses above 3 points", "above 1 point", "of all others", "trained to the end"],
            warning,
        ),
        "",
        *markdown(["half", "taken", "cells", "remaining (worst cell)", "most left"], choice),
    ]


def draw(rows: Sequence[Row]) -> Figure:
    """The change of the remaining classes by step, as mean and worst tenth of cells, and at the end of each cell."""
    figure = Figure((9.4, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for place, (name, key) in enumerate(SHOWN.items()):
        color, cells = COLORS[key][0], [row for row in finals(rows, name) if "failed" not in row]
        courses = [row["course"] for row in trained(cells) if "course" in row]
        if courses:
            steps = np.arange(np.median([course["step"][-1] for course in courses]) + 1)
            change = 100 * np.array([np.interp(steps, course["step"], course["change"]) for course in courses])
            left.plot(steps, change.mean(0), color=color, label=name)
            left.plot(steps, np.quantile(change, 0.1, 0), color=color, linewidth=0.8, linestyle=":")
        for is_weak, marker in ((False, "o"), (True, "x")):
            part = np.array([100 * row["change"] for row in cells if row["of"].startswith(WEAK) == is_weak])
            beside = place + np.linspace(-0.3, 0.3, len(part))
            right.scatter(beside, np.maximum(part, LOWEST), 9, color, marker=marker, linewidths=0.8)
            for x, value in zip(beside[part < LOWEST], part[part < LOWEST], strict=True):
                right.annotate(f"{value:.1f}", (x, LOWEST), (4, -3), textcoords="offset points", color=color)
    left.set_title("By step (networks trained to the end)")
    left.set_xlabel("step")
    left.set_ylabel("accuracy of the remaining classes, points")
    left.legend(title="mean, and the worst tenth (dotted)", loc="lower right")
    right.set_title("At the end, by cell (x: networks not trained to the end)")
    right.set_xticks(range(len(SHOWN)), [name.replace(", ", ",\n") for name in SHOWN])
    for ax in (left, right):
        ax.grid(axis="y")
        ax.axhline(-100 * POINT, color=COLORS["muted"][0], linewidth=0.8, linestyle="--")
    return figure
