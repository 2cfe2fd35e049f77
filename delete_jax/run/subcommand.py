"""What the commands beside the run share: how their arguments are read."""

from __future__ import annotations

import argparse
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Arguments of `delete-jax NAME`; what is wrong with them is a ValueError, and `--help` is answered elsewhere."""

    def __init__(self, name: str):
        super().__init__(f"delete-jax {name}", add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")
