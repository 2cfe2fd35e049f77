"""What the commands beside the run share: how their arguments are read."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import NoReturn

from delete_jax.nearest import nearest


class Parser(argparse.ArgumentParser):
    """Arguments of `delete-jax NAME`; what is wrong with them is a ValueError, and `--help` is answered elsewhere."""

    def __init__(self, name: str):
        super().__init__(f"delete-jax {name}", add_help=False, allow_abbrev=False)

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parses the arguments.

        Raises:
          ValueError: an unknown flag, or a missing argument.
        """
        self._check(arguments, r"(?!)")
        return self.parse_args(arguments)

    def parse_beside(self, arguments: Sequence[str], others: str) -> tuple[argparse.Namespace, list[str]]:
        """The arguments, and what is left for somebody else to read: flags that match a regular expression, with their values.

        Raises:
          ValueError: any other unknown flag, or a missing argument.
        """
        self._check(arguments, others)
        return self.parse_known_args(arguments)

    def _check(self, arguments: Sequence[str], others: str) -> None:
        known = [option for action in self._actions for option in action.option_strings]
        for word in arguments:
            flag = word.partition("=")[0]
            if word.startswith("--") and flag not in (*known, "--") and not re.match(others, word):
                self.error(f"unknown flag {word:.60}{nearest(flag, known)}")

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")
