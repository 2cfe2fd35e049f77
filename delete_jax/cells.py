"""Finished results of a long study, line by line on disk: a process that is killed loses the one that it was computing, and no other."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from delete_jax.given import path
from delete_jax.identity import IdentityError, comparable, differences
from delete_jax.writing import writing

NAME = "cells.jsonl"


class Cells:
    """Results by what they are of: in memory, and in `FOLDER/cells.jsonl` where a folder is given.

    The file's first line says what all of its results are of. Every further line is one result, `{"of": …, "cell": …}`, and is on the
    disk before `get` returns it. Lines are only added; of several about the same thing, the last counts. One process at a time.

    Examples:
      >>> import tempfile
      >>> from delete_jax.cells import Cells
      >>> folder = tempfile.mkdtemp()
      >>> about = {"method": "delete", "seed": 0}
      >>> Cells(folder, lambda: {"network": "a"}).get(about, lambda: {"acc_ft": 0.25})
      {'acc_ft': 0.25}
      >>> again = Cells(folder, lambda: {"network": "a"})
      >>> about in again, again.get(about, lambda: 1 / 0)
      (True, {'acc_ft': 0.25})
    """

    def __init__(self, folder: str | os.PathLike | None, identity: Callable[[], Mapping[str, Any]]):
        """Reads what is kept, and cuts off what a killed process left of a last line.

        Args:
          folder: where the file lies, made where it is missing; None keeps the results in memory alone.
          identity: what all results are of, as JSON takes it; called only where there is a folder.

        Raises:
          IdentityError: the file holds the results of something else, or a line of it is damaged.
        """
        self.path = None if folder is None else path("store", folder).expanduser() / NAME
        self._kept: dict[str, Any] = {}
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        mine = json.loads(json.dumps(identity()))
        if not self.path.exists():
            with writing(self.path, replace=False) as file:
                file.write((json.dumps(mine) + "\n").encode())
        lines = self._lines()
        found = next(lines, None)
        if (found := comparable(found, mine)) != mine:
            what = ", ".join(differences(found, mine)[:3]) if found else "nothing is in it"
            raise IdentityError(f"{self.path} holds another study ({what}): choose another folder, or delete it")
        for number, line in enumerate(lines, 2):
            if not isinstance(line, dict) or line.keys() != {"of", "cell"}:
                raise self._damaged(number)
            self._kept[_key(line["of"])] = line["cell"]

    def __contains__(self, of: Mapping[str, Any]) -> bool:
        return _key(of) in self._kept

    def get(self, of: Mapping[str, Any], make: Callable[[], Any]) -> Any:
        """The result about something, as JSON has it; made and kept where there is none yet.

        Args:
          of: what it is of, as JSON takes it.
          make: computes it: what JSON takes, or NumPy's numbers.

        Raises:
          OSError: it cannot be written.
        """
        key = _key(of)
        if key not in self._kept:
            cell = json.loads(json.dumps(make(), default=float))
            if self.path is not None:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"of": json.loads(key), "cell": cell}) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
            self._kept[key] = cell
        return self._kept[key]

    def _lines(self) -> Iterator[Any]:
        """The lines that are whole; what a killed process began to write is cut off."""
        assert self.path is not None
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            with writing(self.path) as file:
                file.write(whole)
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                raise self._damaged(number) from None

    def _damaged(self, number: int) -> IdentityError:
        return IdentityError(f"{self.path}, line {number} is damaged: delete the line, or choose another folder")


def _key(of: Mapping[str, Any]) -> str:
    return json.dumps(of, sort_keys=True)
