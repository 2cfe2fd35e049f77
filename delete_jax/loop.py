"""The only Python loop over steps: iterate, step, check, log, evaluate, save, resume. Whatever trains here is a list of jobs."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.columns import Rows, without
from delete_jax.editing import edit, finished
from delete_jax.epochs import Epochs, Length, Part, parts
from delete_jax.job import Job, sizes
from delete_jax.layout import ALONE, HostRows, Layout, Placement, Streams
from delete_jax.memory import devices_have_memory, peak_bytes, resident_bytes
from delete_jax.methods.base import Method, answers_column
from delete_jax.model import Variables, as_saved, from_saved
from delete_jax.non_finite import NonFiniteError
from delete_jax.parallel import Trainer, make_trainer, scalars
from delete_jax.preparing import Ready, make_ready
from delete_jax.result import Result, Watch, check_finite, epoch_rows, evaluated, kept, kept_rows
from delete_jax.step import TrainState, init_state
from delete_jax.traced import is_ours

AHEAD = 2
"""How many batches are read, and how many wait on the devices, before their step."""


def fit(
    jobs: Iterable[Job], layout: Layout | Callable[[], Layout] = ALONE, watches: Iterable[Watch] | None = None
) -> Iterator[Result | NonFiniteError]:
    """Trains jobs for their steps, or continues where a store says that an earlier call was interrupted.

    Jobs that follow each other and are one program, which means the same network, method and settings but for rate, seed and length,
    run side by side where the layout has place for several. Each result is that of the job alone: bit by bit where it runs
    alone, else up to rounding. Jobs that differ only in their rate are prepared once, unless an own method's `prepare` may read it.

    Args:
      jobs: they may be made one by one: no more of them are taken than train at once.
      layout: how many train at once, and where; or a function that says so whenever the next ones begin.
      watches: who follows each job; nobody when None.

    Yields:
      The result of each job, in their order. If its training diverged, the error stands in its place; what was saved before is the last
      good state.

    Raises:
      ValueError: a method's own functions fail, or a store holds more steps than a job has, or steps that end within an epoch and are
        fewer.
    """
    kept_ready = _Kept()
    pairs = zip(jobs, itertools.repeat(Watch()) if watches is None else watches, strict=False)
    for wave, where in _waves(pairs, layout if callable(layout) else lambda: layout):
        if wave[0][0].method.edit is not None:
            yield _or_error(lambda pair=wave[0]: edit(*pair))
            continue
        courses = [_Course(job, kept_ready.ready(job), watch) for job, watch in wave]
        if _alike(courses):
            yield from _train(courses, where if len(courses) > 1 else ALONE, kept_ready)
        else:
            for course in courses:
                yield from _train([course], ALONE, kept_ready)


def one(job: Job, watch: Watch | None = None) -> Result:
    """The result of a single job (`fit`).

    Raises:
      NonFiniteError: its training diverged.
    """
    (result,) = fit([job], watches=[watch or Watch()])
    if isinstance(result, NonFiniteError):
        raise result
    return result


def _or_error(make: Any) -> Any:
    try:
        return make()
    except NonFiniteError as error:
        return error


def _waves(
    pairs: Iterable[tuple[Job, Watch]], layout: Callable[[], Layout]
) -> Iterator[tuple[list[tuple[Job, Watch]], Layout]]:
    """Cuts a list into parts that train at once, and says where."""
    wave: list[tuple[Job, Watch]] = []
    where = ALONE
    for job, watch in pairs:
        if wave and _program(job) != _program(wave[0][0]):
            yield wave, where
            wave = []
        if not wave:
            where = layout()
        wave.append((job, watch))
        if len(wave) == where.lanes or _program(job) is None:
            yield wave, where
            wave = []
    if wave:
        yield wave, where


def _program(job: Job) -> Any:
    """What must be equal for two jobs to be one compiled program; None for one that is a program of its own."""
    if job.method.wrap is not None or job.method.edit is not None:  # its network is made anew for each job; it has none
        return None
    options = dataclasses.replace(job.options, lr=1.0, seed=0, epochs=None, steps=None, finish=None)
    return job.model, job.method, options, id(job.variables), {name: id(tree) for name, tree in job.networks.items()}


class _Kept:
    """The last preparation, and the last samples on the devices: the jobs of a search have both in common."""

    def __init__(self) -> None:
        self._job: Job | None = None
        self._ready: Ready | None = None
        self._samples: tuple[Trainer, list[Streams], list[Streams]] | None = None

    def ready(self, job: Job) -> Ready:
        """A job's preparation; its time counts once."""
        last = self._job
        if last is None or self._ready is None or not _differ_in_rate_only(job, last):
            self._job, self._ready = job, make_ready(job)
            return self._ready
        return self._ready._replace(seconds=0.0)

    def samples(self, trainer: Trainer, streams: list[Streams], resident: int | str) -> list[Streams]:
        """The samples of some jobs on the trainer's devices."""
        if self._samples is not None:
            its, given, placed = self._samples
            if its is trainer and len(given) == len(streams) and all(map(lambda a, b: a is b, given, streams)):
                return placed
        self._samples = None  # before others take their place on the devices
        placed = trainer.placement.samples(streams, resident_bytes(resident))
        self._samples = trainer, streams, placed
        return placed


def _differ_in_rate_only(job: Job, other: Job) -> bool:
    """Whether one preparation serves both. Somebody's own `prepare` may read the rate (`Setup.strength`); none of this package does."""
    if job.method.prepare is not Method._field_defaults["prepare"] and not is_ours(job.method):
        return False
    same = all(getattr(job, name) is getattr(other, name) for name in ("variables", "streams", "networks"))
    return same and (job.model, job.forget, job.method, job.having(lr=1.0).options) == (
        other.model, other.forget, other.method, other.having(lr=1.0).options,
    )  # fmt: skip


class _Course:
    """A job on its way: what of it is done, and what there is to tell of it."""

    def __init__(self, job: Job, ready: Ready, watch: Watch):
        self.job, self.ready, self.watch = job, ready, watch
        self.state: TrainState | None = init_state(ready.start, job.options.tx, ready.part, job.options.seed)
        self.epoch, self.compile_seconds = 0, 0.0
        self.length = job.length(ready.streams)
        self.seconds = ready.seconds + watch.spent_seconds
        self.peak: int | None = 0
        self.error: NonFiniteError | None = None
        meta: Mapping[str, Any] = {}
        if watch.store is not None and (saved := watch.store.restore()) is not None:
            tree, meta = saved
            self.state = from_saved(tree, self.state)
            self.epoch, self.seconds, self.compile_seconds = meta["epoch"], meta["seconds"], meta["compile_seconds"]
            self.peak = meta.get("peak_bytes")
        self.history, self.evaluations = kept_rows(meta) if watch.log is None else watch.log.resume(self.epoch)
        self.source = str(getattr(watch.store, "directory", ""))
        if meta:
            _check_saved(int(self.state.step), self.length, self.source or "the store")
        # The metrics of this epoch's steps, on the devices, each with how many steps they are of.
        self.pending: list[tuple[Mapping[str, Any], int]] = []
        self.ready_parts = self.ready_steps = 0

    def start(self) -> TrainState:
        """The first state, which is handed over: its buffers are donated to the first step."""
        state, self.state = self.state, None
        assert state is not None
        return state

    @property
    def goes_on(self) -> bool:
        return self.error is None and self.done < self.length.steps

    @property
    def done(self) -> int:
        """Steps of the epochs that are done."""
        return self.length.after(self.epoch)

    def epochs(self) -> Epochs:
        """The batches that are still to come."""
        options = self.job.options
        return Epochs(self.epoch, self.length, options.seed, sizes(self.ready.streams), options.batch_size)

    def evaluate(self, variables: Variables) -> None:
        """Adds what the caller's `evaluate` says of the network now."""
        if self.watch.evaluate is not None:
            about = {"epoch": self.epoch, "step": self.done}
            found = evaluated(self.watch.evaluate, self.job.as_given(self.job.unwrapped(variables)))
            self.evaluations.append({**about, **found})

    def show(self, lane: Any, seconds: float) -> None:
        """Tells the display of the newest step that is done; it never waits for the device."""
        if self.watch.progress is None:
            return
        while self.ready_parts < len(self.pending) and self.pending[self.ready_parts][0]["loss"].is_ready():
            self.ready_steps += self.pending[self.ready_parts][1]
            self.ready_parts += 1
        if self.ready_parts:
            newest, count = self.pending[self.ready_parts - 1]
            metrics = {name: float(np.asarray(value)[lane][count - 1]) for name, value in newest.items()}
            speed = self.ready_steps * self.job.options.batch_size / max(seconds, 1e-9)
            self.watch.progress(self.done + self.ready_steps, self.length.steps, metrics, speed)

    def spend(self, seconds: float, compiling: float) -> None:
        self.seconds, self.compile_seconds = self.seconds + seconds, self.compile_seconds + compiling

    def needed(self, found: int | None) -> None:
        """Takes note of memory that steps have needed. Unknown once is unknown for the whole training, in whatever process that was."""
        self.peak = None if found is None or self.peak is None else max(self.peak, found)

    def end_epoch(self, lane: Any, state: TrainState, seconds: float) -> None:
        """Closes an epoch whose steps are done: checks, shows, evaluates, logs and saves it.

        Raises:
          NonFiniteError: a loss, a gradient norm or a weight is NaN or infinite; nothing is logged or saved.
        """
        options, watch, is_first = self.job.options, self.watch, self.epoch == 0
        parts = [
            {name: value[lane][:count] for name, value in part.items()} for part, count in jax.device_get(self.pending)
        ]
        rows = epoch_rows(self.epoch, self.done, parts)
        self.pending, self.ready_parts, self.ready_steps = [], 0, 0
        check_finite(rows, float(self.job.lr), state.variables)
        self.history += rows
        if watch.progress is not None:
            speed = len(rows) * options.batch_size / max(seconds, 1e-9)
            watch.progress(rows[-1]["step"], self.length.steps, rows[-1], speed, epoch_done=True)
        self.epoch += 1
        self.evaluate(state.variables)
        if watch.log is not None:  # before the checkpoint: a state that exists has its rows
            watch.log.append(rows, self.evaluations if is_first else self.evaluations[-1:])
        if watch.store is not None and (watch.every_epoch or not self.goes_on):
            meta = {
                **(kept(self.history, self.evaluations) if watch.log is None else {}),
                "epoch": self.epoch,
                "ended": self.done == self.length.steps,
                "seconds": self.seconds,
                "compile_seconds": self.compile_seconds,
                "evaluations": len(self.evaluations),
                "peak_bytes": self.peak,
                **watch.about,
            }
            watch.store.save(self.epoch, as_saved(jax.device_get(state)), meta)

    def result(self, state: TrainState) -> Result | NonFiniteError:
        if self.error is not None:
            return self.error
        times = self.seconds, self.compile_seconds
        made = Result(state.variables, self.history, self.evaluations, *times, self.source, peak_bytes=self.peak)
        return finished(made, self.job)


def _check_saved(done: int, length: Length, source: str) -> None:
    """Raises ValueError where a training that was saved after so many steps is not the beginning of one of that length."""
    holds = f"{source} holds the network after {done} steps"
    if done > length.steps:
        raise ValueError(
            f"{holds}, and {length.steps} were asked for: choose another folder, or ask for at least {done} steps"
        )
    if done < length.steps and done % length.in_epoch:
        raise ValueError(
            f"{holds}, which end within an epoch of {length.in_epoch}: it cannot go on to {length.steps}; choose another folder, or ask "
            f"for {done} steps"
        )


def _alike(courses: Sequence[_Course]) -> bool:
    """Whether jobs of one program also have columns, constants and states of the same form, so that they can be joined."""
    if len(courses) == 1:
        return True
    for name in courses[0].job.method.networks:
        column = answers_column(name)
        if len({column in stream for course in courses for stream in course.ready.streams.values()}) > 1:
            for course in courses:  # some answers were too many to be kept
                streams, frozen = without(course.ready.streams, column), {name: course.job.frozen(name)}
                course.ready = course.ready._replace(streams=streams, networks=course.ready.networks | frozen)

    def form(course: _Course) -> Any:
        trees = course.state, dict(course.ready.constants)
        trees = jax.tree.map(lambda leaf: (jnp.shape(leaf), getattr(leaf, "dtype", type(leaf))), trees)
        columns = {
            name: {column: (values.shape[1:], values.dtype) for column, values in stream.items()}
            for name, stream in course.ready.streams.items()
        }
        return trees, columns, list(course.ready.networks)

    first, *others = map(form, courses)
    return all(other == first for other in others)


def _train(courses: list[_Course], layout: Layout, last: _Kept) -> list[Result | NonFiniteError]:
    """Trains jobs at once, until the longest is done."""
    if not any(course.goes_on for course in courses):
        return [course.result(course.start()) for course in courses]
    ready, options, several = courses[0].ready, courses[0].job.options, layout.lanes > 1
    mode = Layout(len(courses), layout.devices[: len(courses)]) if several else options.parallel
    how = (ready.model, courses[0].job.method, options.tx, options.preprocess, ready.augment, ready.batch_norm)
    trainer = make_trainer(*how, mode, options.num_parts, options.reproducible, ready.part)
    on = trainer.placement
    streams = last.samples(trainer, [course.ready.streams for course in courses], options.resident)
    epochs = [course.epochs() for course in courses]
    state = on.each([course.start() for course in courses])
    networks, constants = on.shared(ready.networks), on.each([dict(course.ready.constants) for course in courses])
    numbers = on.each([scalars(float(course.job.lr), course.job.options.seed) for course in courses])
    for lane, course in enumerate(courses):
        if course.epoch == 0:
            course.evaluate(on.part(state, lane).variables)
    where = [lane if several else ... for lane in range(len(courses))]
    on_device = devices_have_memory()
    compiled, compiling, started = False, 0.0, time.perf_counter()
    queued: deque[Any] = deque()
    with contextlib.closing(_read_ahead(on, streams, parts(epochs, trainer.call_steps))) as planned:
        for part, rows in planned:
            active = [course.error is None and goes for course, goes in zip(courses, part.goes_on, strict=True)]
            if not any(active):
                break
            flags = on.each([np.asarray(flag) for flag in active]) if several else None
            given = (networks, streams, part.picks, *numbers, constants, part.taken, rows, flags)
            state, metrics = trainer.steps(state, *given)
            if not compiled:  # dispatch returns once the step is compiled
                needs = trainer.needs(state, *given, waiting=0 if rows is None else AHEAD) if on_device else 0
                for course in courses:
                    course.needed(needs)
                compiled, compiling = True, time.perf_counter() - started
            if trainer.must_wait:
                jax.block_until_ready(metrics)
            if rows is not None:  # else batches that wait for their step would fill the device
                queued.append(metrics)
                if len(queued) > AHEAD:
                    jax.block_until_ready(queued.popleft())
            running = [lane for lane, is_active in enumerate(active) if is_active]
            for lane in running:
                courses[lane].pending.append((metrics, part.taken))
                courses[lane].show(where[lane], time.perf_counter() - started - compiling)
            if not any(part.ends[lane] for lane in running):
                continue
            jax.block_until_ready(state)
            seconds = time.perf_counter() - started - compiling
            share = seconds / (len(running) if len(layout.devices) == 1 else 1)  # the lanes of a device share its time
            for lane in running:
                courses[lane].spend(share, compiling)
                if not on_device:
                    courses[lane].needed(peak_bytes())
                if part.ends[lane]:
                    try:
                        courses[lane].end_epoch(where[lane], on.part(state, lane), share)
                    except NonFiniteError as error:
                        courses[lane].error = error
            compiling, started = 0.0, time.perf_counter()
    return [course.result(on.part(state, lane)) for lane, course in enumerate(courses)]


def _read_ahead(
    on: Placement, streams: Sequence[Streams], parts: Iterator[Part]
) -> Generator[tuple[Part, list[HostRows] | None], None, None]:
    """Each part with what it needs from the host, which a thread reads while the devices compute; None if that is nothing."""
    if not any(isinstance(column, Rows) for own in streams for stream in own.values() for column in stream.values()):
        yield from ((part, None) for part in parts)
        return
    with ThreadPoolExecutor(1, "read-ahead") as reader:
        waiting: deque[tuple[Part, Future[list[HostRows]]]] = deque()
        try:
            while True:
                for part in itertools.islice(parts, 1 + AHEAD - len(waiting)):
                    waiting.append((part, reader.submit(on.read, streams, part.picks, part.taken)))
                if not waiting:
                    return
                part, rows = waiting.popleft()
                yield part, rows.result()
        finally:  # also when training stops early
            reader.shutdown(cancel_futures=True)
