"""What `delete-jax --list` and `--fields` print: every row of every table, and every setting. `python -m delete_jax.run.listing` prints the page of measures."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from delete_jax import data, metrics, models, tasks
from delete_jax.config import Config
from delete_jax.data.loading import names
from delete_jax.methods import METHODS, describe
from delete_jax.nearest import nearest
from delete_jax.plugins import Table
from delete_jax.run.shipped import shipped


def listing(table: str | None = None) -> str:
    """Configs, tasks, datasets, networks, methods and measures, each with what a user must know of it.

    Args:
      table: one of these words, for that table alone.

    Raises:
      ValueError: there is no such table.
    """
    parts = {
        "configs": ("Configs (--config=NAME, NAME:VARIANT or NAME:quick)", _configs()),
        "tasks": ("Tasks (task=SETTINGS(…) in a config file, --config.task.…)", _from(tasks.TASKS, _task)),
        "datasets": ("Datasets (--config.data.name)", _datasets()),
        "networks": ("Networks (--config.model.name)", _from(models.NETWORKS, _network)),
        "methods": ("Methods (--config.unlearn.method)", _from(METHODS, lambda name: str(describe(name)))),
        "measures": ("Measures", _from(metrics.MEASURES, _measure)),
    }
    if table is not None and table not in parts:
        raise ValueError(f"--list={table}{nearest(table, parts)}: the tables are {', '.join(parts)}")
    shown = parts.values() if table is None else [parts[table]]
    return "\n\n".join("\n".join([head, *_indented(lines)]) for head, lines in shown)


def settings(config: Config | None = None) -> str:
    """Lists every setting with its value and its meaning.

    Args:
      config: whose values; those that differ from the defaults are marked. When None, the defaults, with those of each task.
    """
    if config is not None:
        default = Config(task=type(config.task)())
        usual = [*_settings(default, "config")]
        lines = ["Settings as this command uses them; those marked with * differ from the defaults", ""]
        pairs = zip(_settings(config, "config"), usual, strict=True)
        return "\n".join([*lines, *(f"{'*' if mine != its else ' '} {mine}" for mine, its in pairs)])
    lines = ["Settings, with the values that they have when the config does not set them", ""]
    lines += _settings(Config(), "config", skipped=("task",))
    for name, task in tasks.TASKS.items():
        if dataclasses.fields(task.settings):
            lines += ["", f"With the task {name}", "", *_settings(task.settings(), "config.task")]
    return "\n".join(lines)


def _settings(part: Any, where: str, skipped: tuple[str, ...] = ()) -> Iterator[str]:
    said = meanings(type(part))
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if dataclasses.is_dataclass(value):
            if field.name not in skipped:
                yield from _settings(value, f"{where}.{field.name}")
        else:
            yield f"{f'--{where}.{field.name}={value}':<40}  {said.get(field.name, '')}"


def meanings(kind: type) -> dict[str, str]:
    """Reads the meaning of each field of a dataclass from its docstring's lines "name: meaning"."""
    lines = [line for base in reversed(kind.__mro__) for line in (inspect.getdoc(base) or "").splitlines()]
    return {found[1]: found[2] for line in lines if (found := re.match(r"(\w+): (.+)", line))}


def _configs() -> Iterator[str]:
    for name, path in shipped().items():
        yield f"{name}: {path.read_text().split(chr(34) * 3)[1].splitlines()[0]}"


def _from(table: Table[Any], said: Callable[[str], str]) -> Iterator[str]:
    """What is said of each row of a table; of a row of another package also where it comes from, or why there is none."""
    for name in table:
        try:
            text = said(name)
        except Exception as error:
            if name not in table.sources:
                raise
            text = " ".join(f"{name}: it cannot be shown ({type(error).__name__}: {error})".split())
        yield f"{text}\n  from the package {table.sources[name]}" if name in table.sources else text
    yield from table.failed.values()


def _datasets() -> Iterator[str]:
    yield ", ".join(names())
    yield from (f"{task.prefix}… is for the task {name} alone" for name, task in tasks.TASKS.items() if task.prefix)
    yield from (f"{name} is from the package {package}" for name, package in data.KINDS.sources.items())
    yield from data.KINDS.failed.values()


def _task(name: str) -> str:
    task = tasks.TASKS[name]
    said = (inspect.getdoc(task.settings) or "").partition("\n")[0]
    lines = [
        f"  --config.task.{field.name}={getattr(task.settings(), field.name)}"
        for field in dataclasses.fields(task.settings)
    ]
    return "\n".join([f"{name}, {task.settings.__name__}: {said}", *lines])


def _network(name: str) -> str:
    network = models.NETWORKS[name]
    said = (inspect.getdoc(getattr(network.factory, "func", network.factory)) or "").partition("\n")[0]
    return f"{name} (a class per {network.answers}): {said}"


def _measure(name: str) -> str:
    row = metrics.MEASURES[name]
    return f"{row.name}: {row.title}. {row.text}"


def _indented(lines: Iterator[str]) -> list[str]:
    return [f"  {line}" for text in lines for line in text.splitlines()]


GAP, SUFFIX, OF_GAP = "Δ", "_gap", ": gap to retrained"


def measures_page() -> str:
    """Writes the table of measures as Markdown: `docs/reference/measures.md`."""
    lines = [
        "# Measures",
        "",
        "Every number in a report or a table is a row of `delete_jax.metrics.MEASURES`, of which `python -m delete_jax.run.listing >",
        "docs/reference/measures.md` makes this page. Reports show each value next to the original's and the retrained network's. Names with dots are",
        "nested in `report.json`. Where measures share a row, a slash is between what differs.",
        "",
        f"A measure marked {GAP} also has a gap, `NAME{SUFFIX}`: the value minus that of the retrained network, which never saw the class and still",
        "gives something away. So the gap is what counts; below 0, it is another trace, not a better result. Reports and tables add",
        f'"{OF_GAP}" to the name, and tables an arrow to 0.',
        "",
        "The floor is how far two retrained networks differ by their seed alone: in benchmarks, the row of another seed's. Over seeds, its gaps average",
        "to 0 by construction, so read their standard deviation.",
        "",
        "name | what it is | in a report<br>in a table",
        "---|---|---",
    ]
    folded = [
        '<details markdown="1"><summary>Exact definitions and their sources</summary>',
        *_definitions(),
        "\n</details>",
    ]
    return "\n".join([*lines, *_rows(), "", "## Definitions", "", *folded]) + "\n"


def _rows() -> Iterator[str]:
    """A row for each measure, but one for those whose texts differ in numbers alone, and none for gaps."""
    groups: dict[tuple[str, str], list[metrics.Measure]] = {}
    for row in metrics.MEASURES.own.values():
        if not _is_gap(row):
            groups.setdefault((re.sub(r"\d+", "", row.text), row.definition), []).append(row)
    for rows in groups.values():
        marks = [f" {GAP}" if row.name + SUFFIX in metrics.MEASURES else "" for row in rows]
        names = ", ".join(f"`{row.name}`{mark}" for row, mark in zip(rows, marks, strict=True))
        text, title, heading = (_joined([getattr(row, part) for row in rows]) for part in ("text", "title", "heading"))
        yield f"{names} | {text} | {title}<br>{heading}"


def _is_gap(row: metrics.Measure) -> bool:
    """Whether it is another row's gap to the retrained network."""
    of = metrics.MEASURES.get(row.name.removesuffix(SUFFIX))
    return of is not None and row.title == of.title + OF_GAP


def _joined(texts: Sequence[str]) -> str:
    """What texts of equally many words have in common, with a slash between the words that differ; others one after the other."""
    words = [text.split() for text in texts]
    if len({len(one) for one in words}) > 1:
        return "; ".join(texts)
    return " ".join("/".join(dict.fromkeys(place)) for place in zip(*words, strict=True))


def _definitions() -> Iterator[str]:
    """A paragraph for each exact definition, after the names of the measures that it defines."""
    names: dict[str, list[str]] = {}
    for row in metrics.MEASURES.own.values():
        if row.definition:
            names.setdefault(row.definition, []).append(f"`{row.name}`")
    for definition, defined in names.items():
        yield f"\n**{', '.join(defined)}.** {definition}"


if __name__ == "__main__":
    print(measures_page(), end="")
