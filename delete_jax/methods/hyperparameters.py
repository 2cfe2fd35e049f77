"""Hyper-parameters: which values each kind allows, and the decorator that makes a function of them a factory of methods."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec

from delete_jax.given import scalar, shown
from delete_jax.methods.base import Frozen, Method

P = ParamSpec("P")


class Allowed(NamedTuple):
    """The values that a hyper-parameter may have: the same object checks them and describes them.

    words: the allowed values, to complete "must be ...".
    take: `value -> value`: a Python value that is hashable, the same for all equal settings. Raises ValueError or
        TypeError for a value that is not allowed; numpy and JAX scalars arrive as Python numbers.
    """

    words: str
    take: Callable[[Any], Any]


def number(words: str, allowed: Callable[[float], bool] = lambda value: True) -> Allowed:
    """Allows finite numbers for which `allowed` holds; `words` describe them. A bool is no number here."""

    def take(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError
        value = float(value)  # 1 and 1.0 are one setting
        if not math.isfinite(value) or not allowed(value):
            raise ValueError
        return value

    return Allowed(words, take)


def some_of(*names: str) -> Allowed:
    """Allows a tuple or list with at least one of these names; the order does not count."""

    def take(value: Any) -> tuple[str, ...]:
        if not isinstance(value, (tuple, list)):
            raise TypeError
        if not value or any(name not in names for name in value):
            raise ValueError
        return tuple(name for name in names if name in value)

    return Allowed(f"some of {', '.join(names)}", take)


def one_of(*names: str) -> Allowed:
    """Allows one of these names."""

    def take(value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError
        if value not in names:
            raise ValueError
        return value

    return Allowed(f"one of {', '.join(names)}", take)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def whole(words: str, least: int) -> Allowed:
    """Allows whole numbers of at least `least` that an int32 can hold, as labels are; `words` describe them. A bool is no number here."""

    def take(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError
        if not least <= value < 2**31:
            raise ValueError
        return int(value)

    return Allowed(words, take)


NUMBER = number("a number")
POSITIVE = number("a number above 0", lambda value: value > 0)
NOT_NEGATIVE = number("a number of at least 0", lambda value: value >= 0)
SHARE = number("a number above 0 and at most 1", lambda value: 0 < value <= 1)
INNER_SHARE = number("a number above 0 and below 1", lambda value: 0 < value < 1)
PROPER_SHARE = number("a number of at least 0 and below 1", lambda value: 0 <= value < 1)
FLAG = Allowed("True or False", _flag)
CLASS = whole("a class number", 0)
COUNT = whole("a whole number above 0", 1)


def factory(**kinds: Allowed) -> Callable[[Callable[P, Method]], Callable[P, Method]]:
    """Makes a function of hyper-parameters a factory of methods; give the kind of each of its parameters.

    The factory checks its arguments, fills in `Method.ranges` and `Method.hyperparameters`, and returns the same `Method` for equal settings, however
    they are given (`delete()`, `delete(1)`, `delete(temperature=np.float32(1))`): steps are compiled once per method. It
    accepts numpy and JAX scalars, and lists where a tuple is meant. Signature and docstring stay the function's.

    Raises:
      ValueError: (the factory) a value that its kind does not allow; names the method, the parameter and the value.
      TypeError: the kinds are not those of the function's parameters; (the factory) an unknown argument.
    """

    def decorate(function: Callable[P, Method]) -> Callable[P, Method]:
        signature = inspect.signature(function)
        if set(signature.parameters) != set(kinds):
            raise TypeError(f"{function.__name__} has parameters {[*signature.parameters]}, and kinds of {[*kinds]}")
        ranges = Frozen({name: kinds[name].words for name in signature.parameters})

        build: Callable[..., Method] = function

        @functools.cache
        def cached(*values: Any) -> Method:
            given = Frozen(dict(zip(signature.parameters, values, strict=True)))
            return build(*values)._replace(ranges=ranges, hyperparameters=given)

        @functools.wraps(function)
        def make(*args: P.args, **kwargs: P.kwargs) -> Method:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return cached(*(_taken(function.__name__, name, kinds[name], v) for name, v in bound.arguments.items()))

        return make

    return decorate


def _taken(method: str, name: str, kind: Allowed, value: Any) -> Any:
    try:
        return kind.take(scalar(value))
    except (TypeError, ValueError, OverflowError):  # a traced value raises a TypeError, 10**400 an OverflowError
        raise ValueError(f"{method}: {name} must be {kind.words}, got {shown(value)}") from None
