"""The names of a network's classes, one rule for all who take them: the name of class i at position i, as many as there are classes."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from delete_jax.given import integer, is_masked, shown

MARK = "\ufeff"
"""What an editor may write at the beginning of a file; it belongs to no name."""
MOST_BYTES = 2**24
"""Of a file of names: a larger one is something else."""


def class_names(names: Any, num_classes: int) -> tuple[str, ...]:
    """Returns the names of the classes in the order of their numbers.

    Args:
      names: a list, tuple, array or other ordered collection of strings; or a mapping with one entry for each class, number ->
        name or name -> number, such as `id2label` and `label2id` of Hugging Face's configurations. Several classes may have the
        same name, and then cannot be looked up by it.
      num_classes: k.

    Raises:
      ValueError: not one name for each class, something that is no name, or no order.

    Examples:
      >>> from delete_jax.class_names import class_names
      >>> class_names({"bee": 1, "ant": 0}, 2)
      ('ant', 'bee')
    """
    if isinstance(names, Mapping):
        names = _in_order(names)
    if isinstance(names, (str, bytes, set, frozenset)) or not isinstance(names, Iterable) or is_masked(names):
        raise ValueError(
            f"class_names must be a list with the name of class i at position i, or a dict of numbers and names, got {shown(names)}"
        )
    found = list(names)
    for number, name in enumerate(found):
        if not isinstance(name, str):
            raise ValueError(f"class_names must be strings: that of class {number} is {shown(name)}")
        is_text = not set("\t\n\r\v\f") & set(name)
        if not name.strip() or name.startswith(MARK) or not is_text:
            what = "begins with a byte order mark" if name.startswith(MARK) else "is empty"
            what = what if is_text else "holds a tab or a line break"
            raise ValueError(f"class_names: the name of class {number} {what}: {shown(name)}")
    if len(found) != num_classes:
        raise ValueError(f"class_names has {len(found)} names for {num_classes} classes: give one for each")
    for first in (0, 1):
        if all(re.match(rf"{number}[\s:,]+[^\W\d_]", name) for number, name in enumerate(found, first)):
            raise ValueError(
                f"class_names have their numbers in front, such as {shown(found[0])}: give the names alone"
            )
    return tuple(str.__str__(name) for name in found)  # of an Enum its value


def _in_order(names: Mapping[Any, Any]) -> list[Any]:
    """The names of a mapping, number -> name or name -> number, by their numbers."""
    pairs = list(names.items())
    if all(isinstance(value, str) for _, value in pairs):  # JSON has its keys as strings
        numbers = [(int(key) if isinstance(key, str) and key.isdecimal() else key, name) for key, name in pairs]
    else:
        numbers = [(value, key) for key, value in pairs]
    found = {integer("class_names: the number of a class", number, 0): name for number, name in numbers}
    if sorted(found) != list(range(len(pairs))):
        raise ValueError(
            f"class_names must have the numbers 0 to {len(pairs) - 1}, each once, got {shown(sorted(n for n, _ in numbers))}"
        )
    return [found[number] for number in range(len(pairs))]


def read_class_names(path: Path) -> list[str]:
    """Reads names from a file with one on each line, in UTF-8 or, with a byte order mark, in UTF-16.

    Returns:
      The lines that are not empty, for `class_names` to check.

    Raises:
      ValueError: the file cannot be read as text; names it.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): name another file of class names") from None
    if len(content) > MOST_BYTES:
        raise ValueError(f"{path} is no file of class names: it has more than {MOST_BYTES >> 20} MiB")
    is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not encoded in UTF-8: save it as UTF-8") from None
    if "\0" in text:
        raise ValueError(f"{path} is no file of class names: it holds binary data")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and lines[0].startswith(("[", "{")):
        raise ValueError(f"{path} is no file of class names, but JSON or the like: write one name on each line")
    return lines
