"""Prepares a dataset: `python -m delete_jax.data.prepare NAME [--data_dir DIR] [--source FOLDER]`.

Prints where it lies, its counts and its digest (without validation samples taken out).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from delete_jax.data.loading import Where, find, load, names
from delete_jax.data.paths import show


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code: 0, or 2 after a one-line message on stderr.

    Args:
        arguments: of the command line, without the program's name; None: those of this process.
    """
    parser = _Parser("python -m delete_jax.data.prepare", description="Prepare a dataset.")
    parser.add_argument("name", help=f"one of {', '.join(names())}; what is named by a path is only checked")
    parser.add_argument(
        "--data_dir", help="root of the prepared TFDS datasets (default: $DELETE_JAX_DATA_DIR or TFDS')"
    )
    parser.add_argument("--source", help="folder with the IDX files of fashion_mnist")
    options = parser.parse_args(arguments)
    try:
        dataset = load(options.name, data_dir=options.data_dir, source=options.source, validation=0)
        kind, name = find(options.name)
        where = kind.folder(name, Where(options.data_dir, options.source))
    except KeyboardInterrupt:
        print("interrupted; the same command begins again", file=sys.stderr)
        return 130
    except Exception as error:  # whatever it is, a traceback helps nobody who prepares data
        kind_of_error = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        print(f"error: {kind_of_error}{' '.join(str(error).split())}", file=sys.stderr)
        return 2
    height, width, channels = dataset.train.images.shape[1:]
    print(f"{options.name}: {show(where)}")
    print(f"train {len(dataset.train.labels)}, test {len(dataset.test.labels)}, {dataset.num_classes} classes")
    print(f"images {height}x{width}x{channels}")
    print(f"digest {dataset.digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
