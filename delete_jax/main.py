"""Makes a trained network forget classes: trains or loads it, unlearns, measures and reports.

delete-jax --config=CONFIG[:VARIANT] --workdir=FOLDER [--config.FIELD=VALUE ...]

--config=digits             a config that comes with the package, or a Python file with get_config(variant)
--workdir=runs/digits       the folder of the run; running the same command again resumes it
--config.unlearn.lr=3e-3    a setting in place of the config's
--fields                    every such setting with its default and meaning; beside --config=CONFIG, as that has them
--list                      configs, tasks, datasets, networks, methods and measures; --list=methods only these
--profile                   where the time goes: a table after the run, and a trace of steps in WORKDIR/profile
--version                   the version
--help                      this text

Further commands, each with a --help of its own:

delete-jax convert          PyTorch's weights -> a folder that --config.teacher takes
delete-jax export           a run's network -> weights for PyTorch, or a function to serve without this package
delete-jax compare          finished runs -> one page to sort, hover and select
delete-jax study            methods × requests × seeds on one network -> a table with mean and standard deviation
delete-jax verify           a run, and what was exported of it -> what of it is still as the run wrote it, a line each

Examples:

delete-jax --config=digits --workdir=runs/digits
delete-jax --config=digits --config.teacher=runs/digits --config.unlearn.forget=4,5 --workdir=runs/two
delete-jax --config=digits --config.teacher=runs/digits --config.unlearn.method=delete --workdir=runs/delete
delete-jax compare runs/digits runs/delete --out=comparison.html
"""

# What takes long to import is imported inside, so that Ctrl-C finds somebody who answers.
from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import logging
import os
import shlex
import signal
import sys
import time

import delete_jax
from delete_jax.nearest import nearest
from delete_jax.run import phases
from delete_jax.run.pages import with_page

INTERRUPTED, TERMINATED, UNREAD = 130, 143, 141
COMMANDS = ("convert", "export", "compare", "study", "verify")  # files of `delete_jax.run`
PRINTS = ("--version", "--list", "--fields")  # flags that print something in place of a run


def main(argv: list[str], began: float | None = None) -> int:
    """Runs the command; returns its exit code: 0, 1 where `verify` found something that does not hold, 2 after one line that says what
    was wrong, 130 when it is interrupted, 141 when whoever reads its output has left.

    Args:
      argv: the name of the command, and its arguments.
      began: when `time.perf_counter` was that, the process began, of which `--profile` tells; now when None.
    """
    began = time.perf_counter() if began is None else began
    try:
        code = _main(argv, began)
        if sys.stdout is not None:  # nobody closed it
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):  # nothing is left to be written at the exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    except (ValueError, OSError, MemoryError) as error:
        _say(f"error: {with_page(_in_one_line(error))}")
        return 2
    except KeyboardInterrupt:  # where `run` does not answer for the signal
        _say("interrupted; the same command resumes")
        return INTERRUPTED


def _main(argv: list[str], began: float) -> int:
    words = argv[1:]
    if words and words[0] in COMMANDS:
        return _command(words[0], words[1:])
    if {"--help", "-h", "-help"} & set(words):
        from delete_jax.run.help import names_only

        print(__doc__, names_only(), sep="\n")
        return 0
    if words and words[0] and not words[0].startswith("-"):
        raise ValueError(
            f"unknown command {words[0]!r:.60}{nearest(words[0], COMMANDS)}: the commands are {', '.join(COMMANDS)}; a run is "
            "delete-jax --config=CONFIG --workdir=FOLDER (see --help)"
        )
    for i, word in enumerate(words):
        if word.partition("=")[0] in PRINTS:
            _print(word, [*words[:i], *words[i + 1 :]])
            return 0
    _quieten()
    if phases.FLAG not in words:
        _run(argv)
        return 0
    with phases.measuring(began) as clock:
        _run(argv)
        from rich.console import Console

        Console().print(clock.table())
    return 0


def _print(word: str, others: list[str]) -> None:
    """Prints what a flag of `PRINTS` asks for.

    Args:
      word: the flag, and its value where it has one. others: what else was given.
    """
    flag, equals, value = word.partition("=")
    if equals and flag != "--list":
        raise ValueError(f"{word}: {flag} takes no value: leave it out")
    _quieten()
    if flag == "--version":
        _check_read(flag, others, [])
        print(f"delete-jax {delete_jax.__version__}")
    elif flag == "--list":
        from delete_jax.run.arguments import load_config
        from delete_jax.run.listing import listing

        _check_read(flag, others, [word for word in others if word.startswith("--config=")])
        for other in others:
            load_config(other.removeprefix("--config="))  # which puts its networks and tasks into the tables
        print(listing(value if equals else None))
    else:
        from delete_jax.config import validate
        from delete_jax.run.arguments import read
        from delete_jax.run.listing import settings

        _check_read(flag, others, [word for word in others if word.partition("=")[0] not in (*PRINTS, phases.FLAG)])
        config = read(["delete-jax", *others])[0] if others else None
        if config is not None:
            validate(config)
        print(settings(config))


def _check_read(flag: str, others: list[str], read: list[str]) -> None:
    """Raises ValueError for the first of the others that a flag does not read."""
    if unread := [word for word in others if word not in read]:
        raise ValueError(f"{flag} runs nothing, so that {unread[0]:.60} would not count: leave one of them out")


def _run(argv: list[str]) -> None:
    with phases.phase(phases.IMPORTS):
        from delete_jax.config import validate
        from delete_jax.run.arguments import parse

    with phases.phase(phases.CHECKS):
        config, workdir = parse(argv)
        validate(config)
    _settle(config)
    _keep_programs()
    with phases.phase(phases.IMPORTS):
        from rich.console import Console

        from delete_jax.network_check import check_backend
        from delete_jax.run import stages

        check_backend()

    console = Console(stderr=False, soft_wrap=True)
    stages.run_stages(config, workdir, console, command=shlex.join(["delete-jax", *argv[1:]]))


def _command(name: str, arguments: list[str]) -> int:
    """Runs one of the commands that are no run."""
    if {"--help", "-h"} & set(arguments):
        from delete_jax.run.help import about

        print(about(name), end="")
        return 0
    _quieten()
    module = importlib.import_module(f"delete_jax.run.{name}")
    _settle(getattr(module.parse(arguments), "config", None))  # what is wrong with them is said first
    _keep_programs()
    from delete_jax.network_check import check_backend

    check_backend()
    return module.main(arguments) or 0


def _quieten() -> None:
    """Keeps libraries from reporting what the command says in one line."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax reports each file it touches
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA warns of each kernel that it times
    os.environ.pop("MPLBACKEND", None)  # it draws into files, and would fail for a name that Matplotlib does not know


def _settle(config: object) -> None:
    """Settles, before JAX uses a device, whether this process gives the same bits each time."""
    from delete_jax.settings import Settings

    if isinstance(config, Settings) and config.reproducible:
        from delete_jax.compiling import make_process_reproducible

        make_process_reproducible()


def _keep_programs() -> None:
    """Keeps compiled programs in the user's cache folder, where there is a writable one."""
    from delete_jax.compiling import use_compilation_cache

    with contextlib.suppress(ValueError):
        use_compilation_cache()


def run() -> None:
    """Runs the installed command `delete-jax`."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as a shell sets it for what runs in its background
            signal.signal(number, _leave)
    gc.set_threshold(100_000, 20, 100)  # tracing makes many small objects, and JAX hooks into each collection
    code = main(sys.argv, phases.process_began())
    for number in _SIGNALS:  # all is done
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


_SIGNALS = {signal.SIGINT: ("interrupted", INTERRUPTED), signal.SIGTERM: ("terminated", TERMINATED)}


def _leave(number, frame) -> None:
    """Ends the process at once, as a run may end at any instant: an exception would come up in an import of NumPy's, which
    then fails otherwise, in a callback, where it is lost, or in Orbax' threads."""
    word, code = _SIGNALS[number]
    if os.isatty(1):
        os.write(1, b"\x1b[?25h\n")  # the cursor, which a bar hides
    os.write(2, f"delete-jax: {word}; the same command resumes\n".encode())
    os._exit(code)


def _in_one_line(error: BaseException) -> str:
    """What was wrong, with the file and what to do where the system said it."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError):
        return f"there is not enough memory ({text}): choose smaller batches, images or data"
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            text += "; free some space: the same command resumes"
    return text


def _say(text: str) -> None:
    print(f"delete-jax: {text}", file=sys.stderr)


if __name__ == "__main__":
    run()
