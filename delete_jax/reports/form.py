"""The form of plain JSON as data: what a value must be, part for part.

A form is one of

* a `Kind`: a single value that fits;
* `Maybe(form)`: null, or what has that form;
* `[form]`: a list whose entries have that form;
* `{name: form}`: a dict with these names. A name that ends in "?" may be missing; the names that are not mentioned have the form of
  `...`, or any form where there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from delete_jax.given import shown

DEEPEST, LARGEST = 8, 1e300
"""Of what a setting may be nested in, and of numbers, which a float must hold."""


class Kind(NamedTuple):
    """what: it is called in a message, such as "a string". fits: whether a value is one."""

    what: str
    fits: Callable[[Any], bool]


class Maybe(NamedTuple):
    """Null, or what has that form."""

    form: Any


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < LARGEST  # NaN is not


def is_setting(value: Any, depth: int = 0) -> bool:
    """Whether it is made of numbers, strings, truth values and nulls, in lists and dicts that are not nested deeply."""
    if isinstance(value, (list, dict)):
        inside = value.values() if isinstance(value, dict) else value
        return depth < DEEPEST and all(is_setting(item, depth + 1) for item in inside)
    return value is None or isinstance(value, (str, bool)) or is_number(value)


STRING = Kind("a string", lambda value: isinstance(value, str))
NUMBER = Kind("a finite number", is_number)
COUNT = Kind("a whole number of at least 0", lambda value: type(value) is int and 0 <= value < 2**63)
TRUTH = Kind("true or false", lambda value: isinstance(value, bool))
SETTING = Kind("a number, a string, true, false or null, or a list or dict of these", is_setting)


def check_form(value: Any, form: Any, where: str) -> None:
    """Checks a value, part for part.

    Args:
      value: plain JSON.
      form: what it must be, as above.
      where: what it is called in a message.

    Raises:
      ValueError: names the first part that has another form.

    Examples:
      >>> from delete_jax.reports.form import COUNT, STRING, check_form
      >>> check_form({"name": "digits", "sizes": [5, 3]}, {"name": STRING, "sizes": [COUNT], "digest?": STRING}, "dataset")
    """
    if isinstance(form, Maybe):
        if value is not None:
            check_form(value, form.form, where)
    elif isinstance(form, Kind):
        _require(form.fits(value), value, form.what, where)
    elif isinstance(form, list):
        _require(isinstance(value, list), value, "a list", where)
        for i, item in enumerate(value):
            check_form(item, form[0], f"{where}[{i}]")
    else:
        _require(isinstance(value, dict), value, "a dict", where)
        if missing := [name for name in form if name is not ... and not name.endswith("?") and name not in value]:
            raise ValueError(f"{where} lacks {', '.join(missing)}")
        for key, item in value.items():
            inside = form.get(key, form.get(f"{key}?", form.get(...)))
            if inside is not None:
                check_form(item, inside, f"{where}[{key!r:.60}]")


def _require(holds: bool, value: Any, what: str, where: str) -> None:
    if not holds:
        raise ValueError(f"{where} is {shown(value)}: it must be {what}")
