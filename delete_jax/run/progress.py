"""How far a stage is: a bar on a terminal, one line per epoch elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class StageProgress:
    """Called by `loop.fit` after each dispatch; a context manager for one stage.

    The numbers shown are those of the newest step that the device has finished: showing them never waits for it.
    """

    def __init__(self, stage: str, console: Console, shown: tuple[str, ...] = ("loss",)):
        """`shown` names the metrics to show, where the method has them."""
        self._stage, self._console, self._shown = stage, console, shown
        self._bar: Progress | None = None
        self._first: tuple[float, int] | None = None

    def __enter__(self) -> StageProgress:
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[text]}"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=self._console)
            self._task = self._bar.add_task(self._stage, text="", total=None)
            self._bar.start()
        return self

    def __exit__(self, *exception) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(
        self, step: int, num_steps: int, metrics: Mapping[str, float], rate: float, epoch_done: bool = False
    ) -> None:
        numbers = "  ".join(f"{name} {metrics[name]:.4f}" for name in self._shown if name in metrics)
        trying = f"trying learning rate {metrics['lr']:g}  " if "lr" in metrics else ""
        text = f"{trying}{numbers}  {rate:,.0f} samples/s"
        now = time.perf_counter()
        self._first = self._first or (now, step)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, total=num_steps, text=text)
        elif epoch_done and trying:
            self._first = None
            self._console.print(f"{self._stage}: {text}", highlight=False)
        elif epoch_done:
            first_time, first_step = self._first
            left = (now - first_time) / max(step - first_step, 1) * (num_steps - step)
            self._console.print(f"{self._stage}: step {step}/{num_steps}  {text}  {left:.0f} s left", highlight=False)
