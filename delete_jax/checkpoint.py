"""Checkpoints by Orbax, with digests: the only file that imports Orbax."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

logger = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """No checkpoint, or none that is whole; the message names each and what is wrong with it."""


def digest(tree: Any) -> str:
    """SHA-256 of a pytree of arrays: of every leaf's path, dtype, shape and bytes. Independent of devices and of order."""
    sha = hashlib.sha256()
    leaves = jax.tree_util.tree_flatten_with_path(jax.device_get(tree))[0]
    for path, leaf in sorted((jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in leaves):
        sha.update(f"{path} {leaf.dtype.name} {leaf.shape}\n".encode())
        sha.update(np.ascontiguousarray(leaf).tobytes())
    return sha.hexdigest()


@contextlib.contextmanager
def _failing_quietly() -> Iterator[None]:
    """When reading one array fails, those still being read report to Orbax' closed event loop: on stderr, at length."""
    hook = sys.unraisablehook

    def report(unraisable) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            hook(unraisable)

    sys.unraisablehook = report
    try:
        yield
    except Exception:
        time.sleep(0.5)  # until those have come in
        raise
    finally:
        sys.unraisablehook = hook


class Checkpoints:
    """The saved states of one stage, in one directory: `save` and `restore` nested dicts of arrays.

    Saving waits until the checkpoint is whole on disk. Each carries a digest of its arrays, because Orbax restores a
    flipped bit without a word; `restore` skips damaged ones, naming them, in favour of the newest whole one.
    """

    def __init__(self, directory: epath.PathLike, meta: dict[str, Any] | None = None, keep: int = 2):
        """`directory` may be remote storage that epath and Orbax know, such as gs://BUCKET/FOLDER; `meta` (JSON) goes into every
        checkpoint; the `keep` newest ones are kept."""
        path = epath.Path(directory).expanduser()
        self.directory = path if "://" in os.fspath(path) else path.resolve()
        self._meta, self._keep = meta or {}, keep
        self._reported: set[str] = set()

    def save(self, epoch: int, tree: Any, meta: dict[str, Any]) -> None:
        """Saves a nested dict of arrays under the number `epoch`, keeping the newest few.

        Raises:
          CheckpointError: Orbax did not save it.
        """
        tree = jax.device_get(tree)  # host arrays restore on any number of devices
        self._set_aside(epoch)
        meta = {**self._meta, **meta, "digest": digest(tree)}
        items = ocp.args.Composite(tree=ocp.args.StandardSave(tree), meta=ocp.args.JsonSave(meta))
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._keep, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        with ocp.CheckpointManager(self.directory, options=options) as manager:
            if not manager.save(epoch, args=items, force=True):
                raise CheckpointError(f"checkpoint {epoch} was not saved in {self.directory}: is there a newer one?")
            manager.wait_until_finished()

    def restore(self) -> tuple[Any, dict[str, Any]] | None:
        """The newest whole checkpoint as (nested dict of host arrays, meta); None if there never was one.

        Nothing on disk is changed.

        Raises:
          CheckpointError: there are checkpoints, and all of them are damaged.
        """
        if not self.directory.is_dir():
            return None
        problems: list[str] = []
        options = ocp.CheckpointManagerOptions(create=False, cleanup_tmp_directories=False)
        with ocp.CheckpointManager(self.directory, options=options) as manager:
            for epoch in sorted(manager.all_steps(), reverse=True):
                path = self.directory / str(epoch)
                try:
                    items = ocp.args.Composite(tree=ocp.args.StandardRestore(), meta=ocp.args.JsonRestore())
                    with _failing_quietly():
                        saved = manager.restore(epoch, args=items)
                    tree, meta = saved["tree"], saved["meta"]
                    if digest(tree) == meta["digest"]:
                        self._report(problems)
                        return tree, meta
                    problem = "its arrays do not match their digest"
                except Exception as error:  # Orbax and TensorStore raise many kinds for damaged files
                    problem = f"it cannot be read ({type(error).__name__})"
                problems.append(f"{path}: {problem}")
        if problems:
            raise CheckpointError(f"no whole checkpoint is left in {self.directory} ({'; '.join(problems)})")
        return None

    def _report(self, problems: list[str]) -> None:
        for problem in problems:
            if problem not in self._reported:
                self._reported.add(problem)
                logger.warning("damaged checkpoint skipped: %s", problem)

    def _set_aside(self, epoch: int) -> None:
        """Renames checkpoints that `restore` skipped: Orbax saves nothing that is not newer than all it finds."""
        for path in self.directory.glob("*"):
            if path.name.isdigit() and int(path.name) >= epoch:
                number = sum(1 for _ in self.directory.glob(f"damaged-{path.name}*"))
                path.rename(path.with_name(f"damaged-{path.name}-{number}"))
