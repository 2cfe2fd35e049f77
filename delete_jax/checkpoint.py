"""Checkpoints by Orbax, with digests: the only file that imports Orbax."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from delete_jax.given import integer, shown
from delete_jax.identity import digest
from delete_jax.processes import from_first

logger = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """No checkpoint, or none that is whole; the message names each and what is wrong with it."""


def seal(tree: Any, meta: Mapping[str, Any], epoch: int) -> str:
    """Computes the SHA-256 of a checkpoint: of its arrays (`identity.digest`), of all that `meta` says, and of its number."""
    said = {key: value for key, value in meta.items() if key != "digest"}
    text = json.dumps([digest(tree), epoch, said], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def is_earlier(tree: Any, meta: Mapping[str, Any]) -> bool:
    """Whether an earlier version wrote a checkpoint: it took the digest of the arrays alone, and did not say what they were
    made from."""
    return "identity" not in meta and meta["digest"] == digest(tree)


def _reason(error: BaseException) -> str:
    """Why something could not be written, in a few words."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    if any("RESOURCE_EXHAUSTED" in str(e) or "No space left" in str(e) for e in chain):
        return "no space left on the disk: free some, and run the same again"
    said = next((e.strerror for e in chain if isinstance(e, OSError) and e.strerror), None)
    return said or " ".join(f"{type(chain[-1]).__name__}: {chain[-1]}".split())[:120]


def _is_worth_saying(record: logging.LogRecord) -> bool:
    """False for what asyncio says of Orbax' tasks that failed beside the one whose failure is handled here."""
    text = record.getMessage()
    return not ("was never retrieved" in text and ("orbax" in text or "tensorstore" in text))


logging.getLogger("asyncio").addFilter(_is_worth_saying)  # it speaks when they are collected, at any later time


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


def _renamed(tree: Any, change: Callable[[str], str]) -> Any:
    """A nested dict with other keys. Orbax joins those on the way to an array by dots: two arrays would be one where a key has a dot."""
    if not isinstance(tree, dict):
        return tree
    return {change(key) if isinstance(key, str) else key: _renamed(part, change) for key, part in tree.items()}


def _without_dots(key: str) -> str:
    return key.replace("%", "%25").replace(".", "%2E")


def _with_dots(key: str) -> str:
    return key.replace("%2E", ".").replace("%25", "%")


def _alone() -> ocp.options.MultiprocessingOptions:
    """Keeps Orbax from waiting for the other processes, which do not call it."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    return ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0}, barrier_sync_key_prefix="first")


class Checkpoints:
    """Checkpoints in one directory. `save` and `restore` work on nested dicts of arrays.

    `save` returns when the checkpoint is complete on disk. Each checkpoint has a digest of its arrays and of everything stored
    with them, because Orbax does not notice a flipped bit. `restore` reports damaged checkpoints, skips them, and returns the
    newest undamaged one.

    If several processes run (`jax.distributed`), each must make the same calls. Process 0 alone reads and writes the
    directory: `save` returns in all of them once it has saved, `restore` sends all of them what it found, and its
    `CheckpointError` is raised in all of them.
    """

    def __init__(
        self,
        directory: epath.PathLike,
        meta: dict[str, Any] | None = None,
        keep: int = 2,
        asynchronous: bool = False,
    ):
        """Opens a directory, which need not exist yet.

        Args:
          directory: a local folder, or remote storage that epath and Orbax support, such as gs://BUCKET/FOLDER.
          meta: plain JSON that is stored in every checkpoint.
          keep: how many of the newest checkpoints to keep.
          asynchronous: `save` returns when it has copied the arrays, and a thread writes them. One checkpoint is written at a
            time. If that fails, the next `save`, `restore` or `wait` raises the error; `unlearn` waits before it returns.

        Raises:
          ValueError: the directory is no path, `keep` is no number of at least 1, or `meta` is no JSON.
        """
        try:
            path = epath.Path(directory).expanduser()
        except (TypeError, RuntimeError) as error:
            raise ValueError(f"directory must be the path of a folder, got {shown(directory)} ({error})") from None
        if not os.fspath(directory) or os.fspath(path).startswith("~"):
            raise ValueError(f"directory must be the path of a folder, got {shown(directory)}: write it in full")
        integer("keep", keep, 1)
        try:
            json.dumps(meta)
        except (TypeError, ValueError) as error:
            raise ValueError(f"meta must be plain JSON, got {shown(meta)} ({error})") from None
        self.directory = path if "://" in os.fspath(path) else path.resolve()
        self._meta, self._keep = meta or {}, keep
        self._reported: set[str] = set()
        self._writer = ThreadPoolExecutor(1, "checkpoint") if asynchronous else None
        self._writing: Future[None] | None = None

    def save(self, epoch: int, tree: Any, meta: dict[str, Any]) -> None:
        """Saves a nested dict of arrays under the number `epoch`, and removes all but the newest checkpoints.

        Raises:
          CheckpointError: Orbax could not save it; or, with `asynchronous`, the one before it.
        """
        tree = jax.device_get(tree)  # host arrays restore on any number of devices
        from_first(lambda: self._begin(epoch, tree, meta))

    def wait(self) -> None:
        """Waits until what was saved is on disk.

        Raises:
          CheckpointError: it could not be saved.
        """
        if self._writer is not None:
            from_first(self._finish)

    def _begin(self, epoch: int, tree: Any, meta: dict[str, Any]) -> None:
        if self._writer is None:
            return self._write(epoch, tree, meta)
        self._finish()
        # On a CPU, host arrays may be the devices' own memory, which the next step reuses.
        tree = jax.tree.map(np.array, tree)
        self._writing = self._writer.submit(self._write, epoch, tree, dict(meta))

    def _finish(self) -> None:
        if (writing := self._writing) is not None:
            self._writing = None  # an error is raised once
            writing.result()

    def _write(self, epoch: int, tree: Any, meta: dict[str, Any]) -> None:
        self._set_aside(epoch)
        meta = json.loads(json.dumps({**self._meta, **meta}))
        meta["digest"] = seal(tree, meta, epoch)
        items = ocp.args.Composite(
            tree=ocp.args.StandardSave(_renamed(tree, _without_dots)), meta=ocp.args.JsonSave(meta)
        )
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._keep,
            create=False,
            enable_async_checkpointing=False,
            cleanup_tmp_directories=True,
            multiprocessing_options=_alone(),
        )
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with _failing_quietly(), ocp.CheckpointManager(self.directory, options=options) as manager:
                saved = manager.save(epoch, args=items, force=True)
                manager.wait_until_finished()
        except Exception as error:  # Orbax and TensorStore raise many kinds for a full or read-only disk
            raise CheckpointError(
                f"{self.directory}: checkpoint {epoch} could not be saved ({_reason(error)}); what was saved before is whole"
            ) from error
        if not saved:
            raise CheckpointError(f"checkpoint {epoch} was not saved in {self.directory}: is there a newer one?")

    def restore(self) -> tuple[Any, dict[str, Any]] | None:
        """Returns the newest undamaged checkpoint as (nested dict of host arrays, meta); None if there never was one.

        Nothing on disk is changed.

        Raises:
          CheckpointError: all checkpoints are damaged.
        """
        return from_first(self._restore)

    def _restore(self) -> tuple[Any, dict[str, Any]] | None:
        self._finish()
        if not self.directory.is_dir():
            return None
        problems: list[str] = []
        with self._reader() as manager:
            for epoch in sorted(manager.all_steps(), reverse=True):
                found = self._read(manager, epoch)
                if not isinstance(found, str):
                    self._report(problems)
                    return found
                problems.append(f"{self.directory / str(epoch)}: {found}")
        if problems:
            raise CheckpointError(f"no whole checkpoint is left in {self.directory} ({'; '.join(problems)})")
        return None

    def _reader(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            create=False, cleanup_tmp_directories=False, multiprocessing_options=_alone()
        )
        return ocp.CheckpointManager(self.directory, options=options)

    def _read(self, manager: ocp.CheckpointManager, epoch: int) -> tuple[Any, dict[str, Any]] | str:
        """A checkpoint (nested dict of host arrays, meta), or what is wrong with it."""
        with (
            warnings.catch_warnings()
        ):  # a coroutine that Orbax did not come to is let go of when the inner one returns
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            return self._read_aloud(manager, epoch)

    def _read_aloud(self, manager: ocp.CheckpointManager, epoch: int) -> tuple[Any, dict[str, Any]] | str:
        items = ocp.args.Composite(tree=ocp.args.StandardRestore(), meta=ocp.args.JsonRestore())
        try:
            with _failing_quietly():
                saved = manager.restore(epoch, args=items)
            tree, meta = _renamed(saved["tree"], _with_dots), saved["meta"]
            if is_earlier(tree, meta) or meta["digest"] == seal(tree, meta, epoch):
                return tree, meta
            return "its content does not match its digest"
        except Exception as error:  # Orbax and TensorStore raise many kinds for damaged files
            return f"it cannot be read ({type(error).__name__})"

    def _report(self, problems: list[str]) -> None:
        for problem in problems:
            if problem not in self._reported:
                self._reported.add(problem)
                logger.warning("damaged checkpoint skipped: %s", problem)

    def _set_aside(self, epoch: int) -> None:
        """Renames checkpoints that `restore` skipped: Orbax saves nothing that is not newer than all it finds.

        Raises:
          CheckpointError: one of them is whole: another process saves here.
        """
        newer = [path for path in self.directory.glob("*") if path.name.isdigit() and int(path.name) >= epoch]
        if not newer:
            return
        with self._reader() as manager:
            for path in newer:
                if not isinstance(self._read(manager, int(path.name)), str):
                    raise CheckpointError(f"{path} is whole and not older than {epoch}: another process saves there")
        for path in newer:
            number = sum(1 for _ in self.directory.glob(f"damaged-{path.name}*"))
            path.rename(path.with_name(f"damaged-{path.name}-{number}"))
