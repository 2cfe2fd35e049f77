"""Makes a trained network forget classes: trains or loads it, unlearns, measures, reports.

delete-jax --config=FILE[:VARIANT] --workdir=FOLDER [--config.FIELD=VALUE ...]

--config=digits             a config that comes with the package, or a Python file with get_config(variant)
--workdir=runs/digits       the folder of the run; the same command again resumes it
--config.train.epochs=3     a setting in place of the file's
--list                      the configs, tasks, datasets, networks, methods and measures that there are
--help                      this text

JAX's own settings are environment variables, such as JAX_PLATFORMS=cpu or JAX_DEBUG_NANS=1. All settings, with the
values that they have when the config file does not set them:
"""

from __future__ import annotations

import _thread
import logging
import os
import shlex
import sys
import warnings
from pathlib import Path

import jax
from rich.console import Console

from delete_jax.config import Config, fields, validate
from delete_jax.run.arguments import parse
from delete_jax.run.stages import run_stages


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code: 0, 2 after one line that says what was wrong, 130 when interrupted."""
    if {"--help", "-h", "-help"} & set(argv[1:]):
        print(__doc__, *(f"--{name}={value}" for name, _, value in fields(Config())), sep="\n")
        return 0
    if "--list" in argv[1:]:
        from delete_jax.run.listing import listing

        print(listing())
        return 0
    console = Console(stderr=False, soft_wrap=True)
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax reports each file it touches
    try:
        config, workdir = parse(argv)
        validate(config)
        use_compilation_cache()
        run_stages(config, workdir, console, command=shlex.join(["delete-jax", *argv[1:]]))
    except (ValueError, OSError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"delete-jax: error: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        _say_no_more()
        print("delete-jax: interrupted; the same command resumes", file=sys.stderr)
        return 130
    return 0


def use_compilation_cache() -> None:
    """Keeps compiled steps in the user's cache folder, where there is a writable one."""
    # A killed process may leave half an entry there: it is compiled again, which needs no warning.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    if jax.config.values["jax_compilation_cache_dir"]:
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "delete_jax", "xla")
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(cache, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(cache))


def run() -> None:
    sys.unraisablehook = _interrupt_all_the_same
    sys.exit(main(sys.argv))


def _interrupt_all_the_same(unraisable) -> None:
    """Ctrl-C while Python runs a callback that may not raise, such as a garbage collector's, would be lost."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        _thread.interrupt_main()
    else:
        sys.__unraisablehook__(unraisable)


def _say_no_more() -> None:
    """A save that Ctrl-C stopped fails in Orbax' threads, or leaves half of what it was about to use: each would tell."""
    logging.disable()
    warnings.filterwarnings("ignore", "coroutine .* was never awaited")
    sys.unraisablehook = lambda _: None


if __name__ == "__main__":
    run()
