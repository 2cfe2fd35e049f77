"""Prepares digits and Fashion-MNIST: by one process at a time, without a word, and without remains of earlier attempts."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from delete_jax.data.damage import OURS, one_line
from delete_jax.data.paths import show

try:
    import fcntl
except ImportError:  # not on this system
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

_IDLE = 3600
"""Seconds without a new file after which nobody is taken to be at work on a preparation."""


def build(name: str, root: Path, source: str | None, file_format: str) -> Path:
    """Prepares a dataset, if another process has not done so meanwhile.

    Args:
        name: "digits" or "fashion_mnist".
        root: of the prepared datasets; made where it is missing.
        source: the folder with Fashion-MNIST's IDX files.
        file_format: TFDS' name of it.

    Returns:
        The prepared directory, `root/NAME/VERSION`.

    Raises:
        ValueError: the source is damaged, or nothing can be written there; nothing half-done stays.
    """
    if name not in OURS:
        raise ValueError(f"{name} is not prepared here, but {' and '.join(OURS)} are")
    import tensorflow_datasets as tfds

    builder_class = importlib.import_module(f"delete_jax.data.{name}.{name}_dataset_builder").Builder
    # Without the GCS check, which asks the network.
    config = tfds.download.DownloadConfig(manual_dir=source, try_download_gcs=False)
    try:
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder) as alone:
            for left in folder.glob("incomplete.*"):
                if alone or time.time() - _last_written(left) > _IDLE:
                    shutil.rmtree(left, ignore_errors=True)
            builder = builder_class(data_dir=root, file_format=file_format)
            with _silent():
                builder.download_and_prepare(download_config=config)
            return Path(builder.data_dir)
    except ValueError as error:  # ours, of the source; TFDS may have added lines to it
        raise ValueError(" ".join(str(error).split())) from error
    # A full disk is an OSError, or what array_record makes of it.
    except (OSError, RuntimeError) as error:
        found = root / name / str(builder_class.VERSION)
        if (found / "dataset_info.json").is_file():  # where locks do not work, another process may have been faster
            return found
        raise ValueError(
            f"{show(root)}: {name} cannot be prepared there ({one_line(error)}); free space on that disk, give a writable "
            "data_dir or set DELETE_JAX_DATA_DIR"
        ) from error


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Waits until no other process prepares in a folder; whether that is certain (not on every network file system)."""
    if fcntl is None:
        yield False
        return
    descriptor = os.open(folder, os.O_RDONLY)  # a process that dies lets go of it
    try:
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.warning("%s: another process prepares it; waiting until that one is done", show(folder))
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            alone = True
        except OSError:
            alone = False
        yield alone
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without TFDS' progress bars and its lines on stdout."""
    from tensorflow_datasets.core.utils import tqdm_utils

    active = getattr(tqdm_utils, "_active", True)
    tqdm_utils.display_progress_bar(False)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tqdm_utils.display_progress_bar(active)


def _last_written(folder: Path) -> float:
    times = [time.time()] if not folder.exists() else [folder.stat().st_mtime]
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            times.append(path.stat().st_mtime)
    return max(times)
