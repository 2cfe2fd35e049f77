"""What a method is, as data: for lists, pages and messages."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from delete_jax.methods.base import NEEDS, TRAINED, Method


class Hyperparameter(NamedTuple):
    """One argument of a method's factory.

    Attributes:
      name: its name in `create` and in the factory.
      default: its value if left out.
      range: the allowed values, in words.
    """

    name: str
    default: Any
    range: str


class Description(NamedTuple):
    """What a method does and what it needs. `str()` formats it in a few lines.

    Attributes:
      name: as in `delete_jax.methods.METHODS`.
      summary: one sentence.
      reads: the streams that it reads, with its default hyper-parameters.
      needs: what the forget samples must come with: some of `base.CLASSES`, `base.MAPS`, `base.COUNTERPARTS`.
      hyperparameters: in the factory's order.
      settings: those of the training's settings (`base.TRAINED`) that change the result.
      paper: who proposed it and where.
      is_experimental: whether that is this project, and no paper.
    """

    name: str
    summary: str
    reads: tuple[str, ...]
    needs: tuple[str, ...]
    hyperparameters: tuple[Hyperparameter, ...]
    settings: tuple[str, ...]
    paper: str
    is_experimental: bool = False

    def __str__(self) -> str:
        mark = " (experimental)" if self.is_experimental else ""
        lines = [f"{self.name}{mark}: {self.summary}", f"  reads: {', '.join(self.reads)}"]
        lines += [f"  needs: {NEEDS[need][0]}" for need in self.needs]
        lines += [f"  {name}: {range_} (default {_words(default)})" for name, default, range_ in self.hyperparameters]
        unused = [name for name in TRAINED if name not in self.settings]
        lines += [f"  settings that do not count: {', '.join(unused)}"] if unused else []
        return "\n".join([*lines, f"  paper: {self.paper}"])


def _words(default: Any) -> str:
    return ", ".join(default) if isinstance(default, tuple) else str(default)


def describe_factory(factory: Callable[..., Method]) -> Description:
    """Describes the methods that a factory makes (see `hyperparameters.factory`)."""
    method = factory()
    parameters = inspect.signature(factory).parameters.values()
    return Description(
        method.name,
        (inspect.getdoc(factory) or "").partition("\n")[0],
        method.streams,
        method.needs,
        tuple(Hyperparameter(p.name, p.default, method.ranges[p.name]) for p in parameters),
        method.settings,
        method.paper,
        method.is_experimental,
    )
