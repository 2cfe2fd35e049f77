"""What the devices and JAX do in the first steps of a training, for TensorBoard or Perfetto: a folder by `jax.profiler`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax

from delete_jax.result import Progress
from delete_jax.run.folder import Folder
from delete_jax.run.phases import TRACE, is_measuring, phase

FOLDER, MOST_STEPS = "profile", 20


def check_place(workdir: Path) -> None:
    """Raises ValueError where a trace is asked for and something else is in its place."""
    if is_measuring() and (place := workdir / FOLDER).exists() and not place.is_dir():
        raise ValueError(f"{place} is a file, and --profile writes a folder there: choose another --workdir")


@contextlib.contextmanager
def first_steps(folder: Folder, progress: Progress) -> Iterator[Progress]:
    """Traces what runs within until its first epoch, or `MOST_STEPS` of its steps, are done, where phases are measured.

    The Python calls are left out: there are millions of them while a step is compiled.

    Args:
      folder: of the run; the trace goes into its folder "profile".
      progress: is told what the given-back one is told.
    """
    if not is_measuring():
        yield progress
        return
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with phase(TRACE):
        jax.profiler.start_trace(folder.path / FOLDER, profiler_options=options)
    traced = _Traced(folder, progress)
    try:
        yield traced
    finally:
        traced.stop()


class _Traced:
    """Ends the trace when enough of the steps are done."""

    def __init__(self, folder: Folder, progress: Progress):
        self._folder, self._progress, self._is_on = folder, progress, True

    def __call__(
        self, step: int, num_steps: int, metrics: Mapping[str, float], rate: float, epoch_done: bool = False
    ) -> None:
        self._progress(step, num_steps, metrics, rate, epoch_done)
        if epoch_done or step >= MOST_STEPS:
            self.stop()

    def stop(self) -> None:
        if not self._is_on:
            return
        self._is_on = False
        with phase(TRACE):
            try:
                jax.profiler.stop_trace()
                self._folder.say(f"trace of the first steps: {self._folder.path / FOLDER}")
            except RuntimeError as error:  # no space left: the run itself needs no trace
                self._folder.say(f"note: the trace could not be written ({' '.join(str(error).split()):.120})")
