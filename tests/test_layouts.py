"""The contract of layouts: a job has one result, wherever it lies and whatever lies beside it."""

import dataclasses

import jax
import numpy as np
import pytest

import delete_jax as dj
from delete_jax import loop
from delete_jax.data import augmentation
from delete_jax.job import checked_job
from delete_jax.layout import ALONE, Layout, a_job_a_device, in_lanes
from delete_jax.loop import fit, one
from delete_jax.options import Options
from delete_jax.request import Selection, as_samples, split
from delete_jax.result import Watch
from tests import tiny

MODEL, VARIABLES = tiny.network()
SETTINGS = {"epochs": 2, "batch_size": 8, "parallel": "jit"}


def samples(path=None):
    """Classes of different sizes; from a memory map where there is a path."""
    images, labels = tiny.samples(75)
    labels[(labels == 3) & (np.arange(75) > 37)] = 2
    if path is not None:
        np.save(path, images)
        images = np.load(path, mmap_mode="r")
    return as_samples(MODEL, VARIABLES, images, labels, Options(batch_norm="train", lr=1e-3).preprocess)


def job(forget, lr, seed, method="delete", path=None, **options):
    how, method = Options(lr=lr, seed=seed, **{"batch_norm": "train"} | SETTINGS | options), dj.methods.create(method)
    given = samples(path)
    streams, classes = split(given, Selection([forget]), method, how.augment)
    return checked_job(MODEL, VARIABLES, streams, given.num_classes, classes, method, how)


def three(**options):
    """Three jobs of different lengths; the one in the middle is looked at."""
    return [job(1, 0.05, 0, **options), job(2, 0.02, 1, **options), job(3, 0.05, 2, **options)]


def assert_same(found, expected, exactly=False):
    for leaf, other in zip(jax.tree.leaves(found.variables), jax.tree.leaves(expected.variables), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=0 if exactly else 2e-6, atol=0 if exactly else 1e-6)
    for rows, others in ((found.history, expected.history), (found.evaluations, expected.evaluations)):
        assert [list(row) for row in rows] == [list(row) for row in others]
        for row, other in zip(rows, others, strict=True):
            np.testing.assert_allclose(list(row.values()), list(other.values()), rtol=0 if exactly else 5e-5, atol=1e-6)


LAYOUTS = {"lanes of one device": lambda: in_lanes(3), "a job a device": a_job_a_device}
OPTIONS = {
    "plain": {},
    "augmented": {"augment": augmentation(("flip", "crop"), padding=1)},
    "frozen statistics": {"batch_norm": "frozen"},
    "micro-batches": {"micro_batch": 4},
    "low rank": {"trainable": "lora:2"},
    "images on the host": {"resident": 0},
    "both": {"micro_batch": 4, "resident": 0},
    "finish": {"finish": "zero"},
}
OFTEN = ("plain", "low rank")
"""Options that are tried on several devices in each run of the tests; the others among the slow ones."""


class Kept:
    """A store in memory."""

    def __init__(self):
        self.states = []

    def restore(self):
        return self.states[-1] if self.states else None

    def save(self, epoch, tree, meta):
        self.states.append((tree, dict(meta)))


def evaluate(variables):
    return {"norm": float(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(jax.device_get(variables))))}


@pytest.mark.devices(8)
def test_there_are_eight_devices():
    assert a_job_a_device().lanes == 8
    assert in_lanes(1) == ALONE


@pytest.mark.parametrize(
    ("layout", "options"),
    [
        *(("lanes of one device", name) for name in OPTIONS),
        *(
            pytest.param(
                "a job a device", name, marks=[pytest.mark.devices(3), *([] if name in OFTEN else [pytest.mark.slow])]
            )
            for name in OPTIONS
        ),
    ],
)
def test_beside_others(layout, options, monkeypatch):
    """As lane 2 of 3 of unequal lengths, and on a device of its own: everything that follows a job follows it there too."""
    model = dj.models.from_linen(tiny.Net(), classifier="Dense_0")
    jobs = [dataclasses.replace(one, model=model) for one in three(**OPTIONS[options])]
    shown = {number: [] for number in range(4)}

    def watch(number):
        def progress(step, num_steps, metrics, rate, epoch_done=False):
            shown[number].append((step, num_steps, epoch_done))

        return Watch(evaluate, store=Kept(), progress=progress)

    alone = one(jobs[1], watch(3))
    trained = []
    train = loop._train
    monkeypatch.setattr(loop, "_train", lambda courses, *rest: trained.append(len(courses)) or train(courses, *rest))
    watches = [watch(number) for number in range(3)]
    found = list(fit(jobs, LAYOUTS[layout](), watches))
    assert trained == [3]
    assert_same(found[1], alone)
    assert [len(result.history) for result in found] == [own.num_steps for own in jobs]
    steps = jobs[1].num_steps
    assert (steps, steps, True) == shown[1][-1]
    assert {entry for entry in shown[1] if entry[2]} == {entry for entry in shown[3] if entry[2]}
    store = watches[1].store
    assert [meta["epoch"] for _, meta in store.states] == [1, 2]
    # What one of them kept after an epoch is gone on with alone, and in the same layout.
    for again in (ALONE, LAYOUTS[layout]()):
        begun = Kept()
        begun.states = store.states[:1]
        resumed = list(fit(jobs, again, [Watch(evaluate), Watch(evaluate, store=begun), Watch(evaluate)]))
        assert_same(resumed[1], alone)


@pytest.mark.parametrize("mode", ["sharding", pytest.param("pmap", marks=pytest.mark.pmap)])
@pytest.mark.parametrize("options", [{}, {"micro_batch": 8}, {"resident": 0}], ids=str)
@pytest.mark.usefixtures("full_precision")
def test_on_all_devices(mode, options, tmp_path):
    settings = {"batch_size": 16, "batch_norm": "frozen"}
    expected = one(job(2, 0.02, 1, **settings), Watch(evaluate))
    found = one(
        job(2, 0.02, 1, path=tmp_path / "images.npy", **settings | options | {"parallel": mode}), Watch(evaluate)
    )
    assert_same(found, expected)


def test_from_a_memory_map(tmp_path):
    expected = one(job(2, 0.02, 1))
    for resident in ("auto", 0):
        found = one(job(2, 0.02, 1, path=tmp_path / "images.npy", resident=resident))
        assert_same(found, expected, exactly=True)


def test_resumed_alone(tmp_path):
    """Bit by bit, with what was said on the way."""
    whole = one(job(2, 0.02, 1), Watch(evaluate))
    store = Kept()
    one(job(2, 0.02, 1, epochs=1), Watch(evaluate, store=store))
    assert_same(one(job(2, 0.02, 1), Watch(evaluate, store=store)), whole, exactly=True)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_one_that_diverges_harms_no_other(layout):
    jobs = [job(1, 0.05, 0), job(1, 1e30, 0), job(2, 0.05, 0)]
    found = list(fit(jobs, LAYOUTS[layout]()))
    assert isinstance(found[1], dj.NonFiniteError)
    for number in (0, 2):
        assert_same(found[number], one(jobs[number]))


def test_what_is_no_one_program_runs_apart():
    """Another method, other settings, and methods that put another network in place."""
    jobs = [
        job(1, 0.05, 0), job(2, 0.05, 0, "anchored"), job(1, 0.05, 0, "boundary_expand"), job(2, 0.05, 0, "boundary_expand"),
        job(1, 1.0, 0, "pour"), job(1, 0.05, 0, batch_norm="frozen"),
    ]  # fmt: skip
    found = list(fit(jobs, in_lanes(3)))
    for result, own in zip(found, jobs, strict=True):
        assert_same(result, one(own), exactly=True)


@pytest.fixture(params=[2, 3, 16])
def several_steps_a_call(request, monkeypatch):
    """As on accelerators; epochs are longer or shorter than that. Gives the trainers that are made."""
    make, made = loop.make_trainer, []

    def trainer(*how):
        made.append(make(*how)._replace(call_steps=request.param))
        return made[-1]

    monkeypatch.setattr(loop, "make_trainer", trainer)
    return made


@pytest.mark.parametrize("options", ["plain", "images on the host"])
def test_several_steps_a_call(several_steps_a_call, options):
    jobs = three(**OPTIONS[options])
    expected = [one(own) for own in jobs]
    for layout in (in_lanes(3), a_job_a_device(), ALONE):
        for result, other in zip(fit(jobs, layout), expected, strict=True):
            assert_same(result, other)


@pytest.mark.parametrize("parallel", ["sharding", pytest.param("pmap", marks=pytest.mark.pmap)])
@pytest.mark.parametrize("resident", ["auto", 0])
def test_several_steps_a_call_of_many_devices(several_steps_a_call, parallel, resident):
    own = job(3, 0.05, 2, batch_norm="frozen")
    assert_same(one(own.having(parallel=parallel, resident=resident)), one(own))


def test_one_program_serves_any_number_of_steps(several_steps_a_call):
    """Nothing is compiled for what is left of an epoch."""
    jobs = three()
    assert len({own.num_steps for own in jobs}) == 3
    jax.clear_caches()
    for _ in fit(jobs, ALONE):
        pass
    assert {trainer.compiled._cache_size() for trainer in several_steps_a_call} == {1}


def test_rates_share_one_preparation(monkeypatch):
    made = []
    ready = loop.make_ready
    monkeypatch.setattr(loop, "make_ready", lambda own: made.append(own.options.lr) or ready(own))
    first = job(1, 0.05, 0)
    jobs = [first, first.having(lr=0.02), first.having(lr=0.01), job(1, 0.01, 0)]
    found = list(fit(jobs))
    assert made == [0.05, 0.01], "the last has samples of its own"
    assert_same(found[2], found[3], exactly=True)


@pytest.mark.devices(2)
def test_as_many_devices_as_jobs():
    with pytest.raises(ValueError, match="3 jobs cannot lie on 2 devices: give one, or one for each job"):
        list(fit(three(), Layout(3, tuple(jax.devices()[:2]))))


def test_jobs_are_told_apart():
    """By what their results are made from; a job that is made again is the same one."""
    first = job(1, 0.05, 0)
    assert job(1, 0.05, 0).digest() == first.digest()
    others = [
        job(2, 0.05, 0), job(1, 0.02, 0), job(1, 0.05, 1), job(1, 0.05, 0, "anchored"), job(1, 0.05, 0, batch_norm="frozen"),
        job(1, 0.05, 0, epochs=3), job(1, 0.05, 0, finish="zero"), job(1, 0.05, 0, preprocess=lambda images: 2 * images),
    ]  # fmt: skip
    assert len({first.digest(), *(other.digest() for other in others)}) == 1 + len(others)
