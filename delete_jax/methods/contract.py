"""What a method that somebody brings must be like: checked where its functions are first called, in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delete_jax import losses
from delete_jax.given import shown
from delete_jax.methods.base import (
    FORGET,
    MASKED,
    NEEDS,
    ORIGINAL,
    REMAIN,
    Context,
    Method,
    Output,
    Prepared,
    Stream,
    Term,
)
from delete_jax.model import Variables, by_names, first_line
from delete_jax.precision import in_full_precision


class Declared(dict[str, Any]):
    """What a method may read, by name; something that it has not declared is refused by its name."""

    def __init__(self, what: str, field: str, declared: tuple[str, ...], values: Mapping[str, Any]):
        super().__init__(values)
        self.what, self.field, self.declared = what, field, declared

    def __missing__(self, name: str) -> Any:
        known = ", ".join(self.declared) or "none"
        raise ValueError(f"it reads the {self.what} {name!r} and declares {known}: name it in Method({self.field}=…)")


def checked_terms(method: Method, outputs: Mapping[str, Output], context: Context) -> dict[str, Term]:
    """Calls a method's loss, which may be anybody's code, while a step is traced.

    Raises:
      ValueError: it fails, or returns something else than a term with values per position for some streams; one line.
    """
    try:
        known = {name: output._replace(answers=_networks(method, output.answers)) for name, output in outputs.items()}
        terms = method.loss(Declared("stream", "streams", method.streams, known), context)
    except Exception as error:
        text = first_line(error)
        reason = text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"
        if ORIGINAL not in method.networks and "NoneType" in text:
            reason += f"; a method that reads teacher_logits declares Method(networks=({ORIGINAL!r},))"
        raise ValueError(f"method {method.name}: its loss cannot be traced: {reason}") from error
    wanted = f"{{{', '.join(outputs)}: Term(values)}}, a term for some or all of its streams"
    if not isinstance(terms, Mapping) or not terms:
        kind = "nothing" if isinstance(terms, Mapping) else _kind(terms)
        raise ValueError(f"method {method.name}: its loss must return {wanted}, got {kind}")
    for name, term in terms.items():
        if name not in outputs or not isinstance(term, Term):
            raise ValueError(f"method {method.name}: its loss must return {wanted}, got {_kind(term)} for {name!r}")
        shape = outputs[name].batch["weight"].shape
        if not isinstance(term.loss, (jax.Array, np.ndarray)):
            raise ValueError(
                f"method {method.name}: its loss must return {wanted}, got Term({shown(term.loss)}) for {name!r}"
            )
        found = term.loss.shape, term.loss.dtype
        if found[0] != shape or not jnp.issubdtype(found[1], jnp.floating):
            raise ValueError(
                f"method {method.name}: its loss must have a number for each position of {name}, float {list(shape)}, got "
                f"{found[1]} {list(found[0])}: the step takes the mean"
            )
        parts = term.parts
        if parts is not None and not (
            isinstance(parts, losses.Decomposition) and all(jnp.shape(part) == shape for part in parts)
        ):
            raise ValueError(
                f"method {method.name}: the parts of its loss must have a number for each position of {name}, {list(shape)}"
            )
    return dict(terms)


def _networks(method: Method, values: Mapping[str, Any]) -> Declared:
    return Declared("network", "networks", method.networks, values)


def _kind(value: Any) -> str:
    return f"an array {list(value.shape)}" if isinstance(value, jax.Array) else f"a {type(value).__name__}"


@in_full_precision
def called(method: Method, name: str, *arguments: Any) -> Any:
    """What one of a method's functions returns, called once before the training; a slip in it is a ValueError that names it."""
    try:
        return getattr(method, name)(*arguments)
    except (OSError, MemoryError, ValueError, jax.errors.JaxRuntimeError):  # of the machine, or one line already
        raise
    except Exception as error:
        raise ValueError(
            f"method {method.name}: its {name} fails: {type(error).__name__}: {first_line(error)}"
        ) from error


def check_method(method: Method) -> None:
    """Raises ValueError for a field of a method that is of the wrong kind: a NamedTuple takes anything."""
    try:
        hash(method)
    except TypeError:
        raise ValueError(
            f"method {shown(method.name)}: its fields must be hashable: tuples for lists, Frozen for dicts"
        ) from None
    functions = ("loss", "prepare", "check", "unwrap", "reorient", "wrap", "edit")
    for name in functions:
        value = getattr(method, name)
        if not callable(value) and not (value is None and name in ("reorient", "wrap", "edit")):
            raise ValueError(f"method {method.name}: {name} must be a function, got {shown(value)}")
    for name, choices in (("streams", (FORGET, REMAIN)), ("needs", tuple(NEEDS)), ("settings", MASKED)):
        value = getattr(method, name)
        if not isinstance(value, tuple) or any(part not in choices for part in value) or len(set(value)) < len(value):
            raise ValueError(
                f"method {method.name}: {name} must be a tuple of some of {', '.join(choices)}, got {shown(value)}"
            )
    names = method.networks
    if not isinstance(names, tuple) or not all(isinstance(name, str) and name.isidentifier() for name in names):
        raise ValueError(
            f"method {method.name}: networks must be a tuple of names such as ({ORIGINAL!r}, 'second'), got {shown(names)}"
        )
    if not method.streams:
        raise ValueError(f"method {method.name}: streams must name what it reads, {FORGET} or {REMAIN}, got none")


def check_networks(method: Method, given: Mapping[str, Variables]) -> None:
    """Raises ValueError unless the further frozen networks that a method declares are given, and no others."""
    if ORIGINAL in given:
        raise ValueError(f"networks has {ORIGINAL!r}, which is always the network that is unlearned: leave it out")
    wanted = [name for name in method.networks if name != ORIGINAL]
    if missing := [name for name in wanted if name not in given]:
        raise ValueError(
            f"method {method.name} reads the network {missing[0]!r}: give its variables, networks={{{missing[0]!r}: …}}"
        )
    if unread := [name for name in given if name not in wanted]:
        raise ValueError(
            f"method {method.name} reads no network {unread[0]!r}; it declares {', '.join(method.networks) or 'none'}: leave it out"
        )


def check_prepared(method: Method, prepared: Any, streams: Mapping[str, Stream]) -> None:
    """Raises ValueError unless a method's `prepare` returned what joins its streams.

    Args:
      streams: those that it was given.
    """
    if not isinstance(prepared, Prepared):
        raise ValueError(f"method {method.name}: prepare must return a Prepared, got a {type(prepared).__name__}")
    for name in ("columns", "constants", "streams"):
        value = getattr(prepared, name)
        if not isinstance(value, Mapping) or (
            name != "constants" and not all(isinstance(v, Mapping) for v in value.values())
        ):
            raise ValueError(f"method {method.name}: prepare must return {name} as dicts by name, got {shown(value)}")
    streams = {**streams, **prepared.streams}
    for name, columns in prepared.columns.items():
        if name not in streams:
            raise ValueError(f"method {method.name}: prepare made columns of {name!r}, which is none of its streams")
        count = len(streams[name]["label"])
        for column, values in columns.items():
            if jnp.ndim(values) < 1 or len(values) != count:
                raise ValueError(
                    f"method {method.name}: prepare must make a value for each of the {count} samples of {name}, got "
                    f"{list(jnp.shape(values))} for the column {column!r}"
                )


def check_edited(method: Method, edited: Any, original: Variables, name: str = "edit") -> None:
    """Raises ValueError unless a method's `edit`, or its `unwrap`, returned variables like the original's."""

    found, wanted = ({names: jnp.shape(leaf) for names, leaf in by_names(tree).items()} for tree in (edited, original))
    if wrong := [names for names in {**wanted, **found} if found.get(names) != wanted.get(names)]:
        names = wrong[0]
        what = "is missing" if names not in found else f"has the shape {list(found[names])}"
        what = f"{'/'.join(names)} {what}"
        raise ValueError(f"method {method.name}: {name} must return variables like the original's: {what}")
    leaves = zip(*(jax.tree.leaves(tree) for tree in (edited, original)), strict=True)
    if any(jnp.iscomplexobj(one) and not jnp.iscomplexobj(other) for one, other in leaves):
        raise ValueError(f"method {method.name}: {name} must return real numbers, got complex ones")
