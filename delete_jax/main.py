"""The command: parse, validate, run the stages.

python -m delete_jax.main --config=configs/digits.py --workdir=runs/digits
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
from pathlib import Path

import jax
from absl import flags
from ml_collections import config_flags
from rich.console import Console

from delete_jax.config import validate
from delete_jax.stages import run_stages

FLAGS = flags.FLAGS
USAGE = "see: delete-jax --help"


def define_flags() -> None:
    """Registers the flags; once per process."""
    if "workdir" in FLAGS:
        return
    config_flags.DEFINE_config_file(
        "config", None, "Config file, such as configs/digits.py or configs/digits.py:quick."
    )
    flags.DEFINE_string("workdir", None, "Folder of the run; the same command again resumes it.")
    jax.config.config_with_absl()


def parse(argv: list[str]):
    """The config and workdir of a command line.

    Raises:
      ValueError: an unknown flag or field, a wrong type, a config file that cannot be read.
    """
    define_flags()
    try:
        rest = FLAGS(argv)
        if FLAGS.config is None or not FLAGS.workdir:
            raise ValueError("--config=FILE and --workdir=FOLDER are both needed")
    except (flags.Error, OSError, ImportError, SyntaxError, TypeError, AttributeError) as error:
        raise ValueError(_first_line(error)) from error
    except KeyError as error:  # config_flags' answer to a field that is not there
        raise ValueError(f"{error.args[0]}: look for a typing mistake in --config.…") from error
    if len(rest) > 1:
        raise ValueError(f"unexpected argument {rest[1]!r}: settings are given as --config.FIELD=VALUE")
    return FLAGS.config, Path(FLAGS.workdir)


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code: 0, or 2 after one line that says what was wrong."""
    console = Console(stderr=False, soft_wrap=True)
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax reports each file it touches
    try:
        config, workdir = parse(argv)
        validate(config)
        if not jax.config.jax_compilation_cache_dir:
            cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "delete_jax" / "xla"
            jax.config.update("jax_compilation_cache_dir", str(cache))
        run_stages(config, workdir, console, command=shlex.join(["delete-jax", *argv[1:]]))
    except (ValueError, OSError) as error:
        print(f"delete-jax: error: {_first_line(error)}", file=sys.stderr)
        return 2
    return 0


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def run() -> None:
    sys.exit(main(sys.argv))


if __name__ == "__main__":
    run()
