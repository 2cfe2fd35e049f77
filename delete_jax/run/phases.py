"""Where the seconds of a run go: what `--profile` measures. Nothing is measured, and nothing slower, without it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

FLAG = "--profile"
IMPORTS, DATA, CHECKS, COMPILE, STEPS = "imports", "data", "checks", "compile", "steps"
EVALUATION, CHECKPOINTS, REPORT, TRACE, OTHER = "evaluation", "checkpoints", "report", "trace", "other"
PHASES = (IMPORTS, DATA, CHECKS, COMPILE, STEPS, EVALUATION, CHECKPOINTS, REPORT, TRACE, OTHER)


class Clock:
    """The seconds of each phase since a process began. Each second counts once: in the innermost phase, and what JAX says of its
    own compiling, wherever that was, as `COMPILE`."""

    def __init__(self, began: float):
        """`began`: when `time.perf_counter` was, or would have been, that. Until now, Python and the command were imported."""
        self.began, self._marked = began, began
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._open = [IMPORTS]
        self._compiled: list[tuple[float, float]] = []
        self._mark()
        self._open = [OTHER]

    def _mark(self) -> None:
        now = time.perf_counter()
        self.seconds[self._open[-1]] += now - self._marked
        self._marked = now

    def enter(self, name: str) -> None:
        self._mark()
        self._open.append(name)

    def leave(self) -> None:
        self._mark()
        self._open.pop()

    def listen(self, event: str, duration_secs: float, **_: str | int) -> None:
        """Takes a duration that JAX reports when it ends; one function is traced within another."""
        if not event.startswith("/jax/core/compile/"):
            return
        now, inside = time.perf_counter(), 0.0
        while self._compiled and self._compiled[-1][0] > now - duration_secs:
            inside += self._compiled.pop()[1]
        self._compiled.append((now, duration_secs))
        self.seconds[COMPILE] += duration_secs - inside
        self.seconds[self._open[-1]] -= duration_secs - inside

    def total(self) -> float:
        """Returns the seconds since the process began, all of which are in a phase."""
        self._mark()
        return self._marked - self.began

    def table(self) -> Table:
        """Lists each phase with its seconds and its share, and their sum."""
        from rich.table import Table

        total = self.total()
        table = Table("phase")
        table.add_column("seconds", justify="right")
        table.add_column("share", justify="right")
        for name, seconds in self.seconds.items():
            table.add_row(name, f"{seconds:.2f}", f"{seconds / total:.1%}", end_section=name == OTHER)
        table.add_row("total", f"{total:.2f}", "100.0%")
        return table


_clock: Clock | None = None


@contextlib.contextmanager
def measuring(began: float) -> Iterator[Clock]:
    """Measures the phases of what runs within, and all since `began` (`Clock`)."""
    global _clock
    clock = _clock = Clock(began)
    with phase(IMPORTS):
        import jax.monitoring
    jax.monitoring.register_event_duration_secs_listener(clock.listen)
    try:
        yield clock
    finally:
        _clock = None
        jax.monitoring.unregister_event_duration_listener(clock.listen)


def is_measuring() -> bool:
    """Whether this run was asked for where its time goes."""
    return _clock is not None


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """Assigns what runs within, or the function that this decorates, to that phase, except for what is of a phase within it."""
    if (clock := _clock) is None:
        yield
        return
    clock.enter(name)
    try:
        yield
    finally:
        clock.leave()


def process_began() -> float:
    """Finds when this process began, on the clock of `time.perf_counter`; where the system does not tell (Linux does): now."""
    now = time.perf_counter()
    try:
        ticks = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]  # since the machine was started
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(ticks) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, LookupError, ValueError):
        return now
    return now - max(age, 0.0)
