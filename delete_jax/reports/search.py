"""How the learning rate was found, or that none was needed: `Result.search` in blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from delete_jax.reports.figures import Series, lines
from delete_jax.reports.parts import Block, Column, Details, Figures, Group, Row, Table, Text
from delete_jax.reports.words import percent, seconds


def search_blocks(rows: Sequence[Mapping[str, Any]], notes: Sequence[str] = ()) -> list[Block]:
    """Makes the part about the search for a rate; nothing where one was given.

    Args:
      rows: of the record's `search`: of `lr="auto"` one has `taken`, of `lr="search"` none.
      notes: what a user is warned of.
    """
    if not rows:
        return []
    taken = next((row for row in rows if row.get("taken")), None)
    found = _trainings(rows, taken) if taken is not None else _rates(rows)
    return [*(Text(f"Note: {note}.") for note in notes), *found]


def _trainings(rows: Sequence[Mapping[str, Any]], taken: Mapping[str, Any]) -> list[Block]:
    times = "once" if len(rows) == 1 else f"in {len(rows)} trainings"
    text = (
        f"No learning rate was given. The network was trained {times} with Polyak's step (the loss over the squared norm of its gradient, "
        f"times a constant, here {taken['lr']:g}), for {taken['steps']:g} steps. A fifth of the forget samples was held out: a training "
        "erases where all of them but 0.5 % give the erased classes a probability below the limit, chance (or 1 %, where there are "
        "more than 100 classes). Of those that erase, the one is taken that has moved the logits of the remaining classes least. This "
        "movement, dz, is measured on images made of held-out forget samples, relative to the spread of the original's logits: "
        "reoriented, inverted, noise and transfer images. Agreement: how many transfer images are predicted as the original predicts "
        "them without the erased classes. Both are signs of what other predictions have lost, and no measure of it."
    )
    columns = [
        Column(name, name == "Above the limit")
        for name in ("Above the limit", "dz", "dz, reoriented", "Agreement", "Kept", "Time")
    ]
    shown = []
    for row in rows:
        name = f"{row['lr']:g}, {row['steps']:g} steps, {row.get('part', 'all')}{' (taken)' if row is taken else ''}"
        cells = [
            percent(row.get("above")), _number(row.get("dz")), _number(row.get("dz_reoriented")), percent(row.get("agreement")),
            percent(row.get("kept")), seconds(row.get("training_seconds")),
        ]  # fmt: skip
        shown.append(Row(name, cells))
    table = Table("The trainings", "Constant, steps, part that was trained", columns, [Group("", shown)])
    curve = taken.get("curve") or {}
    panels = []
    if curve.get("step"):
        series = [Series("above the limit", curve["above"], "forget")]
        panels = [
            lines("Erased", "Of held-out forget samples, while the network that was taken was trained.", curve["step"], series, fractions=True),
            lines("Moved", "dz, on images made of held-out forget samples.", curve["step"], [Series("dz", curve["dz"], "remain", "--")]),
        ]  # fmt: skip
    return [Text(text), *([Figures(panels)] if panels else []), Details("The trainings", [table], False)]


def _rates(rows: Sequence[Mapping[str, Any]]) -> list[Block]:
    text = (
        f"The learning rate, {rows[-1]['lr']:g}, is the smallest that erased a fifth of the forget samples, which were held out for "
        "this search: to all of them but 0.5 % the network gives the erased classes a probability below the limit, chance (or 1 %, "
        "where there are more than 100 classes). Kept: of these images turned, mirrored or shifted, how many are answered as the original answers without the "
        "erased classes. It is a sign of what other answers have lost, and no measure of it."
    )
    columns = [
        Column("Recognised"),
        Column("Probability of the erased"),
        Column("Above the limit", True),
        Column("Kept"),
    ]
    names = ("recognised", "probability", "above", "kept")
    shown = [Row(f"{row['lr']:g}", [percent(row.get(name)) for name in names]) for row in rows]
    table = Table("The rates that were tried", "Learning rate", columns, [Group("", shown)])
    return [Text(text), Details("The rates that were tried", [table], False)]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
