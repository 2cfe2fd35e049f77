"""Tables whose rows other packages may add to, by entry points."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, Generic, TypeVar

Row = TypeVar("Row")


class Table(MutableMapping[str, Row], Generic[Row]):
    """A table of rows by name: those of this package first, then those of installed packages, then what a program or config file adds.

    A package adds rows by entry points of the group "delete_jax.NAME", such as "delete_jax.methods": the entry point's name is the
    row's, its object the row. They are imported when somebody looks at all rows, or for a name that is none of this package's. One that
    cannot be imported is no row. Asking for it by its name raises ValueError: one line that names the package and what is wrong with it.
    No package replaces a row that is there.

    Attributes:
      own: the rows of this package alone.
      sources: where rows of other packages come from: "PACKAGE VERSION" by the name of the row.
      failed: why an entry point gave no row: a line by its name.
    """

    _is_loading = False

    def __init__(
        self,
        name: str,
        rows: Mapping[str, Row],
        is_row: Callable[[Any], bool],
        key: Callable[[str, Any], str] = lambda name, row: name,
    ) -> None:
        """`is_row` says whether something is a row, `key` under which name the row of an entry point stands."""
        self.own, self._rows = dict(rows), dict(rows)
        self._group, self._is_row, self._key = f"delete_jax.{name}", is_row, key
        self._sources: dict[str, str] = {}
        self._failed: dict[str, str] = {}
        self._is_loaded = False

    def __getitem__(self, name: str) -> Row:
        if name not in self._rows:
            self._load()
        if name not in self._rows and (reason := self._failed.get(str(name).rstrip(":"))):
            raise ValueError(reason)
        return self._rows[name]

    def __setitem__(self, name: str, row: Row) -> None:
        self._rows[name] = row

    def __delitem__(self, name: str) -> None:
        del self._rows[name]

    def __iter__(self) -> Iterator[str]:
        yield from [name for name in self.own if name in self._rows]
        self._load()
        yield from [name for name in self._rows if name not in self.own]

    def __len__(self) -> int:
        self._load()
        return len(self._rows)

    def __repr__(self) -> str:
        return f"Table({self._group!r}: {', '.join(self)})"

    @property
    def sources(self) -> Mapping[str, str]:
        self._load()
        return self._sources

    @property
    def failed(self) -> Mapping[str, str]:
        self._load()
        return self._failed

    def _load(self) -> None:
        """Imports the rows of other packages, once. A package that looks at tables while it is imported sees what is there."""
        if self._is_loaded or Table._is_loading:
            return
        self._is_loaded = Table._is_loading = True
        try:
            self._import()
        finally:
            Table._is_loading = False

    def _import(self) -> None:
        for entry in sorted(importlib.metadata.entry_points(group=self._group), key=lambda entry: entry.name):
            package = f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else entry.value
            try:
                name, row = self._imported(entry)
            except (Exception, SystemExit) as error:  # it is anybody's program
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                self._failed[entry.name] = (
                    f"{entry.name!r} of the package {package} cannot be used ({reason:.200}): update or uninstall that package"
                )
                continue
            self._rows[name], self._sources[name] = row, package

    def _imported(self, entry: importlib.metadata.EntryPoint) -> tuple[str, Any]:
        row = entry.load()
        if not self._is_row(row):
            raise TypeError(f"{entry.value} is no row of {self._group}")
        name = self._key(entry.name, row)
        if name in self._rows:
            raise ValueError(f"{self._group} has a row of that name")
        if isinstance(getattr(row, "name", None), str) and row.name != name:
            raise ValueError(f"{entry.value} is called {row.name!r}")
        return name, row
