"""Figures and names in words. How a measure is shown is defined in `delete_jax.metrics` once, for pages as for tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from delete_jax.metrics import show

_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def percent(value: float | None) -> str:
    """Formats a fraction: 0.5 is "50.0 %"; "–" for None and for what is not finite, as in all of these."""
    return show(value, "percent")


def number(value: float | None) -> str:
    """Formats a number with three digits after the point."""
    return show(value, "number")


def seconds(value: float | None) -> str:
    """Formats a time, in the unit that suits it."""
    return show(value, "seconds")


def thousands(value: int) -> str:
    """Formats a whole number, its thousands set apart by spaces that do not break."""
    return f"{value:,}".replace(",", "\u00a0")


def word(value: int) -> str:
    """Writes a number up to twelve as a word."""
    return _WORDS[value] if value < len(_WORDS) else str(value)


def setting(value: Any) -> str:
    """Formats any value of the record, such as a setting of the method."""
    if isinstance(value, list):
        return ", ".join(map(setting, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {setting(item)}" for key, item in value.items())
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def quoted(record: dict[str, Any]) -> str:
    """Formats the names of the erased classes in quotes; the first three and how many more of them where there are many. What was
    forgotten, where it is no class."""
    if not record["forget"]["classes"]:
        return record["forget"]["what"]
    return listed([record["dataset"]["class_names"][c] for c in record["forget"]["classes"]])


def listed(names: Sequence[str]) -> str:
    """Formats names in quotes; the first three and how many more of them where there are many."""
    shown = [f"“{name}”" for name in names]
    if len(shown) > 4:
        shown[3:] = [f"{word(len(shown) - 3)} more"]
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


def unmeasured(names: Sequence[str]) -> str:
    """Says that classes that were erased before are not measured, for want of test images."""
    are, them = ("is", "it") if len(names) == 1 else ("are", "them")
    return f"{listed(names)}, erased before, {are} not measured: no test images of {them} are left"


def short(name: str, length: int = 16) -> str:
    """Shortens a name for a picture: on one line, cut where it is too long."""
    name = " ".join(name.split())
    return name if len(name) <= length else name[: length - 1] + "…"


def faster(cost: dict[str, Any]) -> str:
    """Says how the time to unlearn compares with that of retraining."""
    speedup = cost.get("speedup")
    if not speedup:
        return "no retraining to compare with"
    return f"{speedup:.1f}× faster than retraining" if speedup >= 1 else f"{1 / speedup:.1f}× slower than retraining"
