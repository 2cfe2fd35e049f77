"""What earlier requests erased from a network, and how. It is kept with the network, so that the next request knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from delete_jax.methods import METHODS, Method, create
from delete_jax.model import Variables, without_params

Answered = dict[str, Any]
"""A request that a network has answered: `forget`, the numbers of the erased classes; `method`, its name; and `batch_norm`, "train" if
the running statistics were updated and "frozen" if not. The method and the mode are None where nobody knows."""


def classes_of(requests: Iterable[Mapping[str, Any]]) -> tuple[int, ...]:
    """The classes that some of these requests erased, sorted."""
    return tuple(sorted({class_ for request in requests for class_ in request["forget"]}))


def answer(forget: Sequence[int], method: Method, batch_norm: str) -> tuple[Answered, ...]:
    """A request as it is kept with the network; nothing where no class is erased."""
    if not forget:
        return ()
    mode = "train" if moves_statistics(method, batch_norm) else "frozen"
    return ({"forget": list(forget), "method": method.name, "batch_norm": mode},)


def of_classes(classes: Sequence[int]) -> tuple[Answered, ...]:
    """What is known of classes that were erased elsewhere."""
    return ({"forget": list(classes), "method": None, "batch_norm": None},) if classes else ()


def checked(requests: Any, num_classes: int) -> tuple[Answered, ...]:
    """Requests that a file says were answered.

    Raises:
      ValueError: they are no such list, or name a class that the network does not have.
    """
    found = []
    for request in requests if isinstance(requests, (list, tuple)) else [requests]:
        classes = request.get("forget") if isinstance(request, dict) else None
        if not isinstance(classes, list) or not all(
            type(class_) is int and 0 <= class_ < num_classes for class_ in classes
        ):
            raise ValueError(
                f'erased must be a list such as [{{"forget": [3], "method": "delete", "batch_norm": "train"}}] with classes 0 to '
                f"{num_classes - 1}, got {request!r:.80}"
            )
        found.append({"forget": classes, "method": request.get("method"), "batch_norm": request.get("batch_norm")})
    return tuple(found)


def moves_statistics(method: Method, batch_norm: str) -> bool:
    """Whether a method updates running statistics in that mode."""
    return method.edit is None and (batch_norm == "train" or "batch_norm" not in method.settings)


def warnings_of(
    requests: Sequence[Mapping[str, Any]], forget: Sequence[int], method: Method, batch_norm: str, variables: Variables
) -> list[str]:
    """What to know before a request is answered by a network that has answered others, one line each.

    Args:
      requests: the earlier ones.
      forget, method, batch_norm: of the request to come.
      variables: the network's.
    """
    said = []
    if again := sorted(set(forget) & set(classes_of(requests))):
        said.append(f"{_named(again)} erased before: this request erases {'it' if len(again) == 1 else 'them'} again")
    if not moves_statistics(method, batch_norm) or not _has_statistics(variables):
        return said
    for request in requests:
        if not (classes := sorted(set(request["forget"]) - set(forget))):
            continue
        in_statistics = request["batch_norm"] == "train" and not _is_anchored(request["method"])
        how = ", " + HOW[None if request["batch_norm"] is None else in_statistics].format(request["method"])
        said.append(
            f"{_named(classes)} erased before{how}, and this request updates the running statistics in train mode, which can bring the "
            "class back: use batch_norm='frozen'"
        )
    return said


HOW = {
    True: "by {} in train mode, which erases in the running statistics",
    False: "by {}",
    None: "nobody knows how",
}
"""How classes were erased before, by whether that was in the running statistics; None where nobody knows."""


def _named(classes: Sequence[int]) -> str:
    return f"class {classes[0]} was" if len(classes) == 1 else f"classes {', '.join(map(str, classes))} were"


def _is_anchored(method: str | None) -> bool:
    """Whether a method trains on images of other kinds, too, so that the running statistics do not follow the forget samples alone."""
    return method is not None and method in METHODS and create(method).reorient is not None


def _has_statistics(variables: Variables) -> bool:
    """Whether a network has anything but parameters that a training updates, such as running statistics."""
    leaves = jax.tree.leaves(without_params(variables))
    return any(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves)
