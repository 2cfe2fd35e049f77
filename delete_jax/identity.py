"""What a network was made from: kept with its states, and compared before any of them is reused."""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from delete_jax.columns import chunks, is_lazy
from delete_jax.methods import METHODS, Method, create
from delete_jax.result import Store


class IdentityError(ValueError):
    """A store holds the states of something else; the message says what differs."""


def digest(tree: Any) -> str:
    """SHA-256 of a pytree of arrays: of every leaf's path, dtype, shape and bytes. Independent of devices and of order."""
    sha = hashlib.sha256()
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_lazy)[0]
    for path, leaf in sorted(((jax.tree_util.keystr(path), leaf) for path, leaf in leaves), key=operator.itemgetter(0)):
        column = leaf if is_lazy(leaf) else np.asarray(jax.device_get(leaf))
        sha.update(f"{path} {np.dtype(column.dtype).name} {column.shape}\n".encode())
        for part in chunks(column) if is_lazy(leaf) else [column]:
            sha.update(np.ascontiguousarray(part).tobytes())
    return sha.hexdigest()


def describe_method(method: Method) -> dict[str, Any]:
    """A method and its hyper-parameters, as JSON takes them."""

    def show(value: Any) -> Any:
        if isinstance(value, Method):
            return describe_method(value)
        return list(value) if isinstance(value, tuple) else value

    return {"name": method.name, **{name: show(value) for name, value in method.hyperparameters.items()}}


def _completed(found: Any, mine: Mapping[str, Any]) -> Any:
    """What a state was made from: its method with the hyper-parameters that an earlier version did not have, its functions only
    where they can be compared with `mine`, those of this process (`traced.functions`)."""
    found = comparable(found, mine)
    method = found.get("method") if isinstance(found, dict) else None
    if not isinstance(method, dict) or method.get("name") not in METHODS:
        return found
    defaults = json.loads(json.dumps(describe_method(create(method["name"]))))
    return {**found, "method": defaults | method}


def comparable(found: Any, mine: Mapping[str, Any]) -> Any:
    """What something was made from, with this process' functions in place of those that other versions traced."""
    if not isinstance(found, dict) or "functions" not in mine:
        return found
    theirs = found.get("functions")
    same = isinstance(theirs, dict) and theirs.get("versions") == mine["functions"]["versions"]
    return found if same else {**found, "functions": mine["functions"]}


class Identified:
    """A store whose states are those of one thing.

    Each state carries `identity` in its meta; `restore` refuses states that carry another one, or none.
    """

    def __init__(self, store: Store, identity: Mapping[str, Any]):
        """`identity` is what JSON can hold."""
        self.store = store
        self.identity = json.loads(json.dumps(identity))

    @property
    def directory(self) -> str:
        """Where the store keeps its states; "" where it has no such place."""
        return str(getattr(self.store, "directory", ""))

    def save(self, epoch: int, tree: Any, meta: dict[str, Any]) -> None:
        self.store.save(epoch, tree, {**meta, "identity": self.identity})

    def wait(self) -> None:
        """Waits for what the store still writes, if it writes beside the training."""
        if (wait := getattr(self.store, "wait", None)) is not None:
            wait()

    def restore(self) -> tuple[Any, dict[str, Any]] | None:
        """What the store restores.

        Raises:
          IdentityError: that was made from something else.
        """
        saved = self.store.restore()
        if saved is None:
            return None
        found = _completed(saved[1].get("identity"), self.identity)
        if found != self.identity:
            where = self.directory or "the store"
            if found is None:
                what = "does not say what it was made from, as earlier versions wrote it"
            else:
                what = f"was made from something else ({', '.join(differences(found, self.identity)[:3])})"
            raise IdentityError(f"{where} holds a network that {what}: choose another folder, or delete it")
        return saved


def differences(found: Any, mine: Any, where: str = "") -> list[str]:
    """What differs between two values of JSON, one entry each: "name was …, now …"."""
    if isinstance(found, dict) and isinstance(mine, dict):
        keys = dict.fromkeys([*mine, *found])  # in this order: what says most comes first
        inside = [(key, f"{where}.{short(key)}" if where else short(key)) for key in keys]
        return [line for key, name in inside for line in differences(found.get(key), mine.get(key), name)]
    return [] if found == mine else [f"{where} was {short(found)}, now {short(mine)}"]


def short(value: Any) -> str:
    """A value in a message of one line: its first 60 characters."""
    text = str(value)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= 60 else text[:57] + "…"
