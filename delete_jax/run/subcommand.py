"""What the commands beside the run share: how their arguments are read."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from delete_jax.nearest import nearest


class Parser(argparse.ArgumentParser):
    """Arguments of `delete-jax NAME`; what is wrong with them is a ValueError, and `--help` is answered elsewhere."""

    def __init__(self, name: str):
        super().__init__(f"delete-jax {name}", add_help=False, allow_abbrev=False)

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The arguments.

        Raises:
          ValueError: an unknown flag, or a missing argument.
        """
        known = [option for action in self._actions for option in action.option_strings]
        for word in arguments:
            if word.startswith("--") and (flag := word.partition("=")[0]) not in (*known, "--"):
                self.error(f"unknown flag {word:.60}{nearest(flag, known)}")
        return self.parse_args(arguments)

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")
