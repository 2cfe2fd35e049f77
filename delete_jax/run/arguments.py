"""The command line: a config file, settings in place of the file's, and the folder of the run."""

from __future__ import annotations

import ast
import dataclasses
import functools
import re
import runpy
import traceback
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from delete_jax.config import Config, VariantError, fields
from delete_jax.nearest import nearest
from delete_jax.options import AUTO, FOUND, SEARCH
from delete_jax.run.paths import expanded, local
from delete_jax.run.phases import FLAG
from delete_jax.run.shipped import shipped
from delete_jax.tasks import TASKS, of_settings

FLAGS = ("--config", "--workdir", FLAG, "--fields", "--list", "--version", "--help")
USAGE = "the flags are --config=FILE, --workdir=FOLDER, --config.FIELD=VALUE and --profile (see --help)"
FORMS = {"int": "a whole number", "float": "a number", "bool": "true or false", "tuple": "a list such as 3,4"}
DICT_FORM = "a dict such as \"{'temperature': 2.0}\""


class _DictParser(flags.ArgumentParser):
    """A dict, in Python's notation."""

    def parse(self, argument):
        try:
            return dict(ast.literal_eval(argument) if isinstance(argument, str) else argument)
        except (SyntaxError, TypeError) as error:  # absl wants a ValueError
            raise ValueError(str(error)) from error


RATE = float | str | None


class _Rate:
    """Stands for `RATE`."""


class _RateParser(flags.ArgumentParser):
    """A number, or the word for one that is to be found."""

    def parse(self, argument):
        return argument if argument in FOUND else float(argument)


config_flags.register_flag_parser_for_type(dict, _DictParser())
config_flags.register_flag_parser_for_type(_Rate, _RateParser())


def parse(argv: list[str]) -> tuple[Config, Path]:
    """Parses a command line; returns the config, which is not validated yet, and the workdir.

    Raises:
      ValueError: an unknown flag or field, a wrong type, a config file that cannot be read.
    """
    config, workdir = read(argv)
    if not workdir:
        raise ValueError(f"--config=FILE and --workdir=FOLDER are both needed: {USAGE}")
    return config, local(workdir, "--workdir")


def read(argv: list[str]) -> tuple[Config, str | None]:
    """As `parse`, where the workdir may be left out: None then."""
    # Two passes, each with flags of its own: config_flags alone would answer a missing file with a stand-in for a
    # config, and flags of the process would keep one call's settings for the next.
    values, overrides = flags.FlagValues(), flags.FlagValues()
    values.set_gnu_getopt()
    overrides.set_gnu_getopt()
    try:
        for name in ("config", "workdir"):
            flags.DEFINE_string(name, None, "", flag_values=values)
        rest = values([argument for argument in argv if argument != FLAG], known_only=True)  # `main` sees to that one
        _check_flags(rest)
        if not values.config:
            raise ValueError(f"--config=FILE and --workdir=FOLDER are both needed: {USAGE}")
        config = load_config(values.config)
        _check_names(rest, config)
        # config_flags reads the fields' types, which are strings in a file with postponed annotations; it knows no unions.
        for part in (config.task, config.unlearn):
            for field in dataclasses.fields(part):
                hint = typing.get_type_hints(type(part))[field.name]
                field.type = _Rate if hint == RATE else hint
        config_flags.DEFINE_config_dataclass("config", config, flag_values=overrides, sys_argv=rest)
        rest_of_flags = [argument.lstrip("-").split("=")[0] for argument in rest]
        rest = overrides(rest)
    except flags.UnrecognizedFlagError as error:
        raise _unknown_flag(f"--{error.flagname}") from error
    except flags.IllegalFlagValueError as error:
        raise ValueError(_with_form(str(error), config)) from error
    except RecursionError as error:  # absl looks for flags with similar names
        raise ValueError(f"an argument is too long: {USAGE}") from error
    except flags.Error as error:
        raise ValueError(str(error)) from error
    if len(rest) > 1:
        raise ValueError(f"unexpected argument {rest[1]!r}: {USAGE}")
    _split_words(overrides.config, rest_of_flags)
    lengths = ("epochs", "steps")
    if len(told := [name for name in lengths if f"config.unlearn.{name}" in rest_of_flags]) == 1:
        (other,) = {*lengths} - {*told}  # of the file: the command line's stands in place of it
        setattr(overrides.config.unlearn, other, None)
    return overrides.config, values.workdir


def load_config(file: str) -> Config:
    """Returns what `get_config()` of a config file returns; of "FILE:VARIANT", `get_config(VARIANT)`.

    Args:
      file: a path, or the name of a config that comes with the package, such as "digits". Where there is no such file,
        "configs/digits.py" is that one, too.

    Raises:
      ValueError: there is no such file, it fails, or it returns something else; names the file and the line.
    """
    path, *variant = [file] if expanded(file, "--config").is_file() else file.split(":", 1)
    if (there := expanded(path, "--config")).is_file():
        path = str(there)
    else:
        known = shipped()
        name = re.sub(r"configs/(\w+)\.py", r"\1", path)  # as in a checkout
        if name not in known:
            names = ", ".join(known)
            raise ValueError(
                f"--config={file}: there is no file {path}{nearest(path, known)}; name a config file, or one of {names}"
            )
        path = str(known[name])
    try:
        get_config = runpy.run_path(path).get("get_config")
        config = get_config(*variant) if callable(get_config) else None
    except (Exception, SystemExit) as error:  # a config file is a program: anything may go wrong in it
        if isinstance(error, VariantError) or (isinstance(error, ValueError) and path in str(error)):
            raise
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        if isinstance(error, SyntaxError):
            where, reason = f", line {error.lineno}", error.msg
        else:
            where, reason = f", line {lines[-1]}" if lines else "", _said_by(error)
        raise ValueError(f"--config={file}{where}: {type(error).__name__}: {reason}") from error
    if not callable(get_config):
        raise ValueError(f"--config={file}: it has no function get_config(variant) that returns a Config")
    if not isinstance(config, Config):
        raise ValueError(f"--config={file}: get_config returned {config!r:.60}, and it must return a Config")
    return config


def _words(item: Any) -> list[Any]:
    return [word.strip() for word in item.split(",")] if isinstance(item, str) else [item]


def _said_by(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "it cannot be shown"


def _split_words(config: Config, given: Iterable[str]) -> None:
    """Makes a list of words, such as flip,crop, what a list of numbers already is: one entry for each."""
    for name, hint, value in fields(config):
        if name in given and hint in (tuple[str, ...], tuple[int | str, ...]):
            *parents, last = name.split(".")[1:]
            part = functools.reduce(getattr, parents, config)
            setattr(part, last, tuple(part for item in value for part in _words(item)))


def _check_flags(arguments: Iterable[str]) -> None:
    """Raises ValueError for the first flag that is neither known nor a setting."""
    for argument in arguments:
        if argument.startswith("--") and argument != "--" and not re.match(r"--(no)?config\.", argument):
            raise _unknown_flag(argument.split("=")[0])


def _unknown_flag(flag: str) -> ValueError:
    return ValueError(f"unknown flag {flag:.60}{nearest(flag, FLAGS)}: {USAGE}")


def _check_names(arguments: Iterable[str], config: Config) -> None:
    """Raises ValueError for the first "--config.NAME…" that is no setting."""
    known = {name: value for name, _, value in fields(config)}
    for argument in arguments:
        if (match := re.match(r"--?(?:no)?(config\.[^=]*)", argument)) is None or match[1] in known:
            continue
        parent = match[1].rpartition(".")[0]
        if parent == "config" and match[1] == "config.task":
            name = of_settings(config.task).name
            raise ValueError(
                f"--config.task: the config file names the task, here {name}; give its settings, --config.task.…"
            )
        if isinstance(known.get(parent), dict):
            raise ValueError(f"--{match[1]}: give the whole of --{parent}, {DICT_FORM}")
        while not (inside := [name for name in known if name.startswith(parent + ".")]):
            parent = parent.rpartition(".")[0]
        names = dict.fromkeys(name.removeprefix(parent + ".").split(".")[0] for name in inside)
        meant = nearest(match[1].removeprefix(parent + ".").split(".")[0], names)
        raise ValueError(
            f"--{match[1]}: that is no field to set{_owners(match[1]) or meant}; {parent} has {', '.join(names)}"
        )


def _owners(name: str) -> str:
    """Which tasks have that setting, to stand behind it in a message."""
    owners = [
        task for task in TASKS.values() if name in (known for known, _, _ in fields(task.settings(), "config.task"))
    ]
    if not owners:
        return ""
    settings = " or ".join(f"task={task.settings.__name__}(…)" for task in owners)
    return (
        f" here, but one of the task {' and '.join(task.name for task in owners)}: start from a config with {settings}"
    )


def _with_form(message: str, config: Config) -> str:
    """absl's "flag --NAME=VALUE: whatever Python's conversion says", with what is allowed in its place."""
    match = re.match(r"flag (--(config\.[\w.]+)=.*?): ", message, re.DOTALL)
    if match is None:
        return message
    (hint,) = (hint for name, hint, _ in fields(config) if name == match[2])
    if hint == RATE:
        return f"{match[1]}: give a number, {AUTO} or {SEARCH}"
    if isinstance(hint, types.UnionType):  # int | None
        hint = typing.get_args(hint)[0]
    form = getattr(hint, "__origin__", hint).__name__
    return f"{match[1]}: give {(FORMS | {'dict': DICT_FORM})[form]}"
