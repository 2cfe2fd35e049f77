"""`lr="auto"`: no rate to choose. Polyak's step, for counted steps, judged on forget samples that are held out."""

from __future__ import annotations

import dataclasses
import itertools
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from delete_jax.columns import select
from delete_jax.drift import Drift
from delete_jax.editing import with_finish
from delete_jax.epochs import Length
from delete_jax.job import Job
from delete_jax.last_stage import last_stage
from delete_jax.loop import fit, one
from delete_jax.methods import FORGET, Prepared, Setup, Stream
from delete_jax.model import Variables
from delete_jax.non_finite import NonFiniteError
from delete_jax.options import AUTO, SEARCH
from delete_jax.predict import make_predictor
from delete_jax.processes import from_first
from delete_jax.rate_search import LEFT, NoRateError, hold_out, make_judge
from delete_jax.result import Progress, Result, Row, Watch, kept

TIMES = (1, 2, 4)
"""How many times as many steps as the job has are taken, one after the other, until it erases."""
CAREFUL, CAREFUL_STEPS = 0.3, 400
"""The constant and the least steps of the training that follows where the first moves other predictions."""
ALL, LAST = "all", "last stage"
"""What is trained: all parameters, or `last_stage`."""
MOST_DZ, LEAST_AGREEMENT, LEAST_CONFIDENCE = 0.25, 0.8, 0.5
"""Above which mean `dz`, and below which `agreement`, other predictions are in danger (`drift.Drift`); below which mean probability of
its own predictions, on reoriented images, a network is unsure: half as much `dz` is a danger then."""
BELOW = -1e-2
"""A loss below this has no minimum at 0."""
CURVE_SAMPLES = 256
"""How many held-out samples the curve is measured on."""


class _Plan(NamedTuple):
    """A training: the constant in front of Polyak's step, how many steps it takes at least, and which part it trains."""

    lr: float
    steps: int
    part: str = ALL


def unlearn_auto(job: Job, watch: Watch) -> Result:
    """Unlearns without a rate, from the forget samples alone.

    A fifth of them is held out. The network is trained on the others with Polyak's step (`optimisers.polyak`) for the job's steps (at
    least 120 where neither steps nor epochs were given); then for twice and four times as many, until the held-out samples are
    erased. Where their images
    show that other predictions have moved, or nothing is erased, up to two more careful trainings follow: with a constant of 0.3 for
    400 steps, and of the last stage alone; the last stage first where nothing is erased. Of the trainings that erase, the one is taken whose logits of the remaining classes have
    moved least on reoriented images. In most cases there is one training, and the result is its network.

    Args:
      job: with `lr="auto"`.
      watch: who follows. It is told of the training that was taken, after the choice: its rows and its last state. `evaluate` is called
        during each, `progress` is shown each. A call that is interrupted before the choice leaves nothing, and is made again whole.

    Returns:
      The result; `lr` is the constant, and `search` has a row for each training: `lr`, `steps` and the `part` that was trained;
      `recognised`, `probability`, `above`, `limit`, `kept` (`rate_search.make_judge`), `dz`, `dz_…` and `agreement` (`drift.Drift`) on
      the held-out samples; `confidence`, the original's on reoriented images; `seconds` that it added, `training_seconds` of the whole
      training; `curve`, columns over its steps; and whether it was `taken`. One that diverged has no figures.

    Raises:
      NoRateError: no training erases the samples that were held out, or the method's loss has no minimum at 0.
      NonFiniteError: all diverged.
      ValueError: a class has one sample only, or the store holds the result of fewer steps.
    """
    trained_on, held_out = hold_out(job.streams[FORGET], job.options.seed)
    base = dataclasses.replace(job, streams={FORGET: trained_on})
    steps = base.num_steps
    saved = watch.store.restore() if watch.store is not None else None
    if saved is not None:
        restored = _restored(base, saved[1], watch)
        for said in taken_warnings(restored.search):
            _warn(said)
        return restored
    trainings = _Trainings(base.having(finish=None), held_out, steps, watch)
    _warn(_unsure(trainings.confidence))
    jobs, watches = itertools.tee(trainings)
    for result in fit((pair[0] for pair in jobs), watches=(pair[1] for pair in watches)):
        trainings.judge(result)
    best = trainings.taken()
    rows = tuple({**row, "taken": row is best.row} for row in trainings.rows)
    _warn(_moved(best.row))
    seconds = sum(row["seconds"] for row in rows)
    _hand_over(best, rows, seconds, trainings.compile_seconds, watch)
    found = best.result._replace(
        seconds=seconds, compile_seconds=trainings.compile_seconds, lr=best.row["lr"], search=rows,
        evaluations=best.evaluations, source=str(getattr(watch.store, "directory", "")),
    )  # fmt: skip
    return with_finish(found, job)


def having_steps(job: Job, steps: int) -> Job:
    """The job with so many steps: as many as were asked for, or in whole epochs at least that many."""
    if job.options.steps is not None:
        return job.having(steps=steps)
    return job.having(epochs=-(-steps // job.length().in_epoch))


def taken_warnings(search: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a user must know of the training that was taken (`Result.search` of `unlearn_auto`): a line each."""
    return [said for row in search if row.get("taken") and (said := _moved(row)) is not None]


def _unsure(confidence: float) -> str | None:
    """What is known before anything is trained, and says nothing about its outcome."""
    if confidence >= LEAST_CONFIDENCE:
        return None
    return (
        f"the network is unsure of its own predictions (mean probability {confidence:.0%} on reoriented forget images): they protect the "
        "remaining classes less, and what moves them is judged more strictly; check that `preprocess` is that of its training"
    )


def _moved(row: Mapping[str, Any]) -> str | None:
    if not is_warned(row):
        return None
    return (
        f"other predictions have moved, too: on images made of held-out forget samples, the logits of the remaining classes by "
        f"{row['dz']:.2f} of their spread (at most {_most_dz(row['confidence'])} is safe), and {row['agreement']:.0%} of the predictions are "
        f"those of the masked original (at least {LEAST_AGREEMENT:.0%} is safe); check the classes that stay"
    )


def _warn(said: str | None) -> None:
    if said is not None:
        warnings.warn(said, stacklevel=7)  # where `unlearn` was called


def is_alarming(row: Mapping[str, Any]) -> bool:
    """Whether a training moved other predictions so far that a more careful one is worth its time."""
    return row["dz"] > MOST_DZ or row["agreement"] < LEAST_AGREEMENT


def is_warned(row: Mapping[str, Any]) -> bool:
    """Whether a training moved other predictions, as far as images of forget samples show it."""
    return is_alarming(row) or row["dz"] > _most_dz(row["confidence"])


def _most_dz(confidence: float) -> float:
    return MOST_DZ if confidence >= LEAST_CONFIDENCE else MOST_DZ / 2


def _restored(job: Job, meta: Mapping[str, Any], watch: Watch) -> Result:
    """The result that the store holds, which is always a finished one."""
    rows, where = tuple(meta.get("search", ())), str(getattr(watch.store, "directory", "")) or "the store"
    taken = next((row for row in rows if row.get("taken")), None)
    if taken is None:
        raise ValueError(
            f"{where} holds a network for which an earlier version chose a rate: choose another folder, or delete it"
        )
    if taken["steps"] < (asked := job.num_steps):
        raise ValueError(
            f"{where} holds the network that lr={AUTO!r} chose after {taken['steps']} steps, and at least {asked} were asked for: "
            "choose another folder, or ask for fewer"
        )
    result = one(job.having(lr=float(meta["lr"]), epochs=None, steps=taken["steps"]), watch)
    return result._replace(lr=float(meta["lr"]), search=rows)


class _Memory:
    """A store and a log that keep the last state and the rows of a training in memory, until it is taken or not."""

    def __init__(self, lr: float, part: str) -> None:
        self.lr, self.part = lr, part
        self.saved: tuple[Any, dict[str, Any]] | None = None
        self.history: list[Row] = []
        self.evaluations: list[Row] = []
        self.curve: dict[str, list[float]] = {"step": [], "above": [], "dz": []}

    def restore(self) -> tuple[Any, dict[str, Any]] | None:
        return self.saved

    def save(self, epoch: int, tree: Any, meta: dict[str, Any]) -> None:
        self.saved = jax.tree.map(np.array, tree), meta  # the next step may reuse this memory

    def resume(self, epoch: int) -> tuple[list[Row], list[Row]]:
        return list(self.history), list(self.evaluations)

    def append(self, history: list[Row], evaluations: list[Row]) -> None:
        self.history += history
        self.evaluations += evaluations


class _Candidate(NamedTuple):
    """A training that erases: its row, its result, what of its evaluations the caller asked for, and its last state with its meta."""

    row: Row
    result: Result
    evaluations: list[Row]
    saved: tuple[Any, dict[str, Any]]


class _Trainings:
    """The trainings of `unlearn_auto`: iterated over, each follows from what `judge` made of those before."""

    def __init__(self, job: Job, held_out: Stream, steps: int, watch: Watch) -> None:
        started = time.perf_counter()
        self._job, self._steps, self._watch = job, steps, watch
        seed, predict = job.options.seed, make_predictor(job.model, job.options.preprocess)
        self._judge = make_judge(predict, job.variables, held_out, seed)
        self._judge_few = self._judge
        if (count := len(held_out["label"])) > CURVE_SAMPLES:
            part = np.sort(np.random.default_rng(seed).permutation(count)[:CURVE_SAMPLES])
            few = {name: select(column, part) for name, column in held_out.items()}
            self._judge_few = make_judge(predict, job.variables, few, seed)
        self._drift = Drift(predict, job.variables, held_out, seed)
        self.confidence = float(from_first(lambda: self._drift.confidence))
        self.rows: list[Row] = []
        self.compile_seconds = time.perf_counter() - started  # next to nothing of it is answers
        self._best: _Candidate | None = None
        self._memory, self._judging = _Memory(0.0, ALL), 0.0
        self._errors: list[NonFiniteError] = []

    def __iter__(self) -> Iterator[tuple[Job, Watch]]:
        for times in TIMES:
            yield self._next(_Plan(1.0, times * self._steps))
            if self._best is not None or self._memory.saved is None:
                break
        plans = [_Plan(CAREFUL, max(CAREFUL_STEPS, self._steps)), _Plan(1.0, self._steps, LAST)]
        # What so many steps do not erase, shorter ones seldom do; the last stage takes fewer of them and moves least.
        is_stuck = self._best is None and self._memory.saved is not None
        for plan in plans[::-1] if is_stuck else plans:
            if self._best is not None and not is_alarming(self._best.row):
                return
            if plan.part == ALL or self._last_stage() is not None:
                yield self._next(plan)

    def _next(self, plan: _Plan) -> tuple[Job, Watch]:
        """The job of a plan; one with the same constant and part goes on where the last ended."""
        is_first = not self.rows
        is_cut = self._job.num_steps % self._job.length().in_epoch != 0
        if is_first or is_cut or (plan.lr, plan.part) != (self._memory.lr, self._memory.part):
            self._memory = _Memory(plan.lr, plan.part)
        self._judging = 0.0
        job = having_steps(self._job.having(lr=plan.lr), plan.steps)
        if plan.part == LAST:
            job = dataclasses.replace(job, method=_masked(job.method, self._last_stage()))
        progress = None if self._watch.progress is None else _shown(self._watch.progress, None if is_first else plan.lr)
        done = 0 if self._memory.saved is None else self._memory.saved[1]["epoch"] + 1
        watch = Watch(
            self._evaluate(itertools.count(done), job.length()), self._memory, self._memory, progress, every_epoch=False
        )
        return job, watch

    def _evaluate(self, epochs: Iterator[int], length: Length) -> Callable[[Variables], Row]:
        """The caller's evaluation, after each epoch; the curve is measured after the first, second, fourth, … as well."""
        memory = self._memory

        def evaluate(variables: Variables) -> Row:
            epoch = next(epochs)
            if _is_power(epoch):
                started = time.perf_counter()
                above, dz = from_first(lambda: (self._judge_few(variables)["above"], self._drift(variables)["dz"]))
                _add(memory.curve, length.after(epoch), above, dz)
                self._judging += time.perf_counter() - started
            return {} if self._watch.evaluate is None else self._watch.evaluate(variables)

        return evaluate

    def judge(self, result: Result | NonFiniteError) -> None:
        """Takes note of what a training came to.

        Raises:
          NoRateError: its loss went below 0.
        """
        memory = self._memory
        row: Row = {"lr": memory.lr, "steps": len(memory.history), "part": memory.part}
        earlier = [other for other in self.rows if (other["lr"], other["part"]) == (memory.lr, memory.part)]
        before = earlier[-1] if earlier else {"training_seconds": 0.0, "compile_seconds": 0.0}  # what it went on from
        started = time.perf_counter()
        try:
            if isinstance(result, NonFiniteError):
                raise result
            if min(step["loss"] for step in result.history) < BELOW:
                raise NoRateError(
                    f"lr={AUTO!r} takes Polyak's step, which is for losses of minimum 0, and the loss of {self._job.method.name} went "
                    f"below: give a number, or lr={SEARCH!r}"
                )
            row |= self._measured(result)
        except NonFiniteError as error:
            self._errors.append(error)
            memory.saved = None
            self.rows.append({**row, "seconds": self._judging})
            return
        _add(memory.curve, len(result.history), row["above"], row["dz"])
        judging = self._judging + time.perf_counter() - started
        spent = result.seconds - before["training_seconds"]
        self.compile_seconds += result.compile_seconds - before["compile_seconds"]
        row |= {
            "confidence": self.confidence, "seconds": spent + judging, "training_seconds": result.seconds,
            "compile_seconds": result.compile_seconds, "curve": {name: list(column) for name, column in memory.curve.items()},
        }  # fmt: skip
        self.rows.append(row)
        if row["above"] <= LEFT and (self._best is None or row["dz_reoriented"] < self._best.row["dz_reoriented"]):
            assert memory.saved is not None
            evaluations = [] if self._watch.evaluate is None else list(result.evaluations)
            self._best = _Candidate(row, result, evaluations, memory.saved)

    def _measured(self, result: Result) -> Row:
        variables = result.variables
        return from_first(lambda: self._judge(variables) | self._drift(variables))

    def taken(self) -> _Candidate:
        """The training that erases and has moved other logits least.

        Raises:
          NoRateError: none erases; the message says how near the best came.
          NonFiniteError: all diverged.
        """
        if self._best is not None:
            return self._best
        measured = [row for row in self.rows if "above" in row]
        if not measured:
            raise NonFiniteError(
                f"lr={AUTO!r}: all of {len(self.rows)} trainings diverged: check that images and `preprocess` are those of the network's "
                "training, or give a number"
            ) from self._errors[0]
        nearest = min(measured, key=lambda row: (row["above"], row["probability"]))
        advice = "batch_norm='frozen', " if self._job.options.batch_norm != "frozen" else ""
        raise NoRateError(
            f"lr={AUTO!r}: {self._job.method.name} erases the held-out forget samples in none of {len(self.rows)} trainings (at best "
            f"{nearest['above']:.1%} of them are left above the limit, after {nearest['steps']} steps): give more samples or epochs, "
            f"{advice}lr={SEARCH!r}, or a number"
        )

    def _last_stage(self) -> Any | None:
        if self._job.method.wrap is not None or self._job.options.trainable is not None:
            return None  # its parameters are not the network's, or somebody has said which are trained
        job, images = self._job, self._job.images
        stored = jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)
        return last_stage(job.model, job.variables, jax.eval_shape(job.options.preprocess, stored))


# Not `trainable="last_stage"`, whose steps are others: the cap of Polyak's step is a share of the norm of what is trained. With a mask that
# is all of the network, as in the measured trainings. With that cap, the parameters are the same up to rounding; but it would be a constant of
# the step, which would be compiled anew for each network.
def _masked(method: Any, mask: Any) -> Any:
    """The method, which trains only the parameters where the mask is one."""

    def prepare(setup: Setup) -> Prepared:
        prepared = method.prepare(setup)
        own = prepared.constants.get("update_mask")
        both = mask if own is None else jax.tree.map(lambda a, b: a * b.astype(a.dtype), own, mask)
        return prepared._replace(constants={**prepared.constants, "update_mask": both})

    return method._replace(prepare=prepare)


def _hand_over(best: _Candidate, rows: Sequence[Row], seconds: float, compile_seconds: float, watch: Watch) -> None:
    """Tells the caller's log and store of the training that was taken. The state comes last: one that exists has its rows."""
    if watch.log is not None:
        watch.log.resume(0)  # what an interrupted call left goes
        watch.log.append(best.result.history, best.evaluations)
    if watch.store is not None:
        tree, meta = best.saved
        own = kept(best.result.history, best.evaluations) if watch.log is None else {}
        spent = {"seconds": seconds, "compile_seconds": compile_seconds, "evaluations": len(best.evaluations)}
        watch.store.save(
            meta["epoch"], tree, {**meta, **own, **spent, **watch.about, "lr": best.row["lr"], "search": rows}
        )


def _shown(progress: Progress, lr: float | None) -> Progress:
    """Shows a training: the first after some of its epochs, those that follow with their constant, at their end alone."""
    epochs = itertools.count(1)

    def show(step: int, num_steps: int, metrics: Mapping[str, float], rate: float, epoch_done: bool = False) -> None:
        is_due = step == num_steps or (epoch_done and lr is None and _is_power(next(epochs)))
        progress(step, num_steps, metrics if lr is None else {"lr": lr, **metrics}, rate, epoch_done and is_due)

    return show


def _is_power(number: int) -> bool:
    """Whether it is 0 or a power of 2."""
    return number & (number - 1) == 0


def _add(curve: dict[str, list[float]], step: int, above: float, dz: float) -> None:
    if step in curve["step"]:  # the last one, measured on fewer samples before
        above_at = curve["step"].index(step)
        curve["above"][above_at], curve["dz"][above_at] = above, dz
        return
    for name, value in (("step", step), ("above", above), ("dz", dz)):
        curve[name].append(value)
