"""Prepares a dataset: `python -m delete_jax.data.prepare NAME [--data_dir DIR] [--source FOLDER]`.

Prints where it lies, its counts and its digest (without validation samples taken out).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from delete_jax.data import tfds_dirs
from delete_jax.data.loading import load


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code: 0, or 2 after a one-line message on stderr.

    Args:
        arguments: of the command line, without the program's name; None: those of this process.
    """
    parser = argparse.ArgumentParser("python -m delete_jax.data.prepare", description="Prepare a dataset.")
    parser.add_argument("name", help=f"{', '.join(tfds_dirs.NAMES)} or folder:PATH (which is only checked)")
    parser.add_argument(
        "--data_dir", help="root of the prepared TFDS datasets (default: $DELETE_JAX_DATA_DIR or TFDS')"
    )
    parser.add_argument("--source", help="folder with the IDX files of fashion_mnist")
    options = parser.parse_args(arguments)
    try:
        dataset = load(options.name, data_dir=options.data_dir, source=options.source, validation=0)
        if options.name in tfds_dirs.NAMES:
            where = tfds_dirs.prepared_dir(options.name, options.data_dir, options.source)
        else:
            where = options.name.partition(":")[2]
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    height, width, channels = dataset.train.images.shape[1:]
    print(f"{options.name}: {where}")
    print(f"train {len(dataset.train.labels)}, test {len(dataset.test.labels)}, {dataset.num_classes} classes")
    print(f"images {height}x{width}x{channels}")
    print(f"digest {dataset.digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
