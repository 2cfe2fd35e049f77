"""How long a training is: exactly so many steps, whole epochs, or what is done without either; and what is said of few steps."""

import json
import re
import warnings

import jax
import numpy as np
import pytest

import delete_jax as dj
from delete_jax import methods
from delete_jax.config import Config, UnlearnConfig, shorten, validate
from delete_jax.epochs import Epochs, Length, parts
from delete_jax.identity import IdentityError
from delete_jax.main import main
from delete_jax.network_check import UNRECOGNISED
from delete_jax.options import EPOCHS, FEW_STEPS, LEAST_STEPS, Options, few_steps
from delete_jax.run import arguments
from delete_jax.tasks import TASKS
from delete_jax.testing.method import difference
from tests import tiny

SETTINGS = {"forget": [1], "lr": 0.05, "batch_size": 4, "parallel": "jit"}
IN_EPOCH = 4  # of 16 forget samples


def unlearned(**settings) -> dj.Result:
    model, variables = tiny.network()
    return dj.unlearn(
        model, variables, *tiny.samples(64), **{"method": "delete", "batch_norm": "train"} | SETTINGS | settings
    )


def same(one: dj.Result, other: dj.Result) -> bool:
    return (
        difference(jax.device_get(one.variables), jax.device_get(other.variables)) == 0 and one.history == other.history
    )


class Kept:
    """A store in memory, with every state that was saved."""

    def __init__(self, saved=()):
        self.saved = list(saved)

    def restore(self):
        return self.saved[-1][1:] if self.saved else None

    def save(self, epoch, tree, meta):
        self.saved.append((epoch, jax.tree.map(np.copy, tree), meta))


def test_exactly_so_many_steps():
    """Rows, evaluations and the display count the steps of a last epoch that is cut short, and its bits are those of a longer one."""
    shown = []
    own = {
        "evaluate": lambda variables: {},
        "progress": lambda *seen, epoch_done=False: shown.append((seen[:2], epoch_done)),
    }
    cut, whole = unlearned(steps=10, **own), unlearned(epochs=3)
    assert [(row["epoch"], row["step"]) for row in cut.history] == [(i // IN_EPOCH + 1, i + 1) for i in range(10)]
    assert cut.history == whole.history[:10]
    assert [(row["epoch"], row["step"]) for row in cut.evaluations] == [(0, 0), (1, 4), (2, 8), (3, 10)]
    assert {seen[1] for seen, _ in shown} == {10}
    assert [seen[0] for seen, is_done in shown if is_done] == [4, 8, 10]
    assert same(unlearned(steps=12), whole)
    assert len(unlearned(steps=3).history) == 3
    assert len(unlearned(method="finetune", steps=5).history) == 5


def test_parts_end_where_the_last_epoch_is_cut():
    lanes = [Epochs(0, Length(steps, 4), 0, {"forget": 16}, 4) for steps in (10, 3)]
    found = [(part.taken, part.goes_on, part.ends) for part in parts(lanes, 100)]
    assert found == [
        (3, [True, True], [False, True]), (1, [True, False], [True, False]), (4, [True, False], [True, False]),
        (2, [True, False], [True, False]),
    ]  # fmt: skip


@pytest.mark.parametrize("interrupted", [1, 2])
def test_resumed_is_direct(interrupted):
    """After a whole epoch, and within the epoch that is cut short."""
    store, direct = Kept(), unlearned(steps=10)
    assert same(unlearned(steps=10, store=store), direct)
    assert [(epoch, meta["ended"]) for epoch, _, meta in store.saved] == [(1, False), (2, False), (3, True)]
    assert same(unlearned(steps=10, store=Kept(store.saved[:interrupted])), direct)
    assert same(unlearned(steps=10, store=Kept(store.saved)), direct)
    assert same(unlearned(steps=12, store=Kept(store.saved[:interrupted])), unlearned(epochs=3))


def test_a_cut_epoch_does_not_go_on():
    store = Kept()
    unlearned(steps=10, store=store)
    with pytest.raises(
        ValueError, match="holds the network after 10 steps, which end within an epoch of 4: it cannot go on to 12"
    ):
        unlearned(epochs=3, store=store)
    with pytest.raises(
        ValueError, match="holds the network after 10 steps, and 9 were asked for: choose another folder"
    ):
        unlearned(steps=9, store=store)


def test_what_is_computed_at_once_is_not_of_another_length():
    """Its steps are not those of the loop: a store must not answer for another number of them."""
    store = Kept()
    settings = {"method": "esc_t", "store": store, "batch_size": 16}
    unlearned(steps=3, **settings)
    with pytest.raises(IdentityError, match="num_steps was 3, now 4"):
        unlearned(steps=4, **settings)


def test_requests_of_a_sweep_make_them_too():
    model, variables = tiny.network()
    settings = {name: value for name, value in SETTINGS.items() if name in ("batch_size",)}
    one, other = dj.sweep(
        model,
        variables,
        *tiny.samples(64),
        [dj.Request(1, lr=0.05, method="delete"), dj.Request([1, 2], method="delete", lr=1e-3)],
        steps=10,
        **{"batch_norm": "train"} | settings,
    )
    assert (len(one.history), len(other.history)) == (10, 10)
    assert one.history[-1]["epoch"] == 3
    assert other.history[-1]["epoch"] == 2
    assert difference(one.variables, unlearned(steps=10).variables) < 1e-5


def test_without_either():
    """Whole epochs of at least so many steps where a method settles, else five."""
    assert len(unlearned().history) == LEAST_STEPS == 120
    assert len(unlearned(batch_size=3).history) == 120  # of six
    assert len(unlearned(batch_size=1).history) == 8 * 16
    for name in ("finetune", "gradient_ascent"):
        result = unlearned(method=name, lr=1e-6, batch_size=16)
        assert result.history[-1]["epoch"] == EPOCHS == 5


@pytest.mark.parametrize(("name", "settles"), [
    ("delete", True), ("anchored", True), ("random_label", True), ("gradient_ascent", False), ("mu_mis", False), ("l2ul_adv", False),
    ("finetune", False), ("scrub", False), ("redistil", False), ("pour", False), ("esc_t", False),
])  # fmt: skip
def test_which_methods_settle(name, settles):
    assert methods.create(name).settles == settles
    assert (few_steps(methods.create(name), LEAST_STEPS - 1) is not None) == settles
    assert few_steps(methods.create(name), LEAST_STEPS) is None


@pytest.fixture
def said():
    """Warnings of few steps, which other tests do not see."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", UNRECOGNISED)
        yield caught


def test_few_steps_are_warned_of_once(said):
    unlearned(epochs=1)
    (warning,) = said
    assert str(warning.message) == (
        "delete makes 4 steps, and so few steps cost accuracy of the remaining classes, which falls while a class goes and recovers "
        "afterwards: give steps=120 or more in place of epochs"
    )
    assert re.match(FEW_STEPS, str(warning.message))
    assert warning.filename == __file__
    said.clear()
    unlearned(epochs=30), unlearned(steps=120), unlearned(), unlearned(steps=1, method="finetune")
    assert not said
    model, variables = tiny.network()
    images, labels = tiny.samples(64)
    requests = [dj.Request(asked, "delete", 0.05) for asked in (1, 2, [1, 2])]
    dj.sweep(model, variables, images, labels, requests, epochs=1, batch_size=4, batch_norm="train")
    dj.study(
        model, variables, train=(images, labels), test=(images, labels), forget=[1, 2], methods=["delete"], seeds=2, lr=0.05, steps=2,
        batch_size=4, parallel="jit", batch_norm="train",
    )  # fmt: skip
    assert [str(one.message).split(",")[0] for one in said] == ["delete makes 4 steps", "delete makes 2 steps"]
    assert {one.filename for one in said} == {__file__}


@pytest.mark.parametrize("steps", [0, -1, True, float("nan"), 1.5, "120", 10**10])
def test_numbers_that_are_none(steps):
    with pytest.raises(ValueError, match="steps must be a"):
        Options(steps=steps)


def test_one_of_both():
    with pytest.raises(ValueError, match=r"^give epochs or steps, got epochs=5 and steps=120$"):
        unlearned(epochs=5, steps=120)
    with pytest.raises(
        ValueError, match=r"^config.unlearn.epochs is 5 and config.unlearn.steps is 120: give one of them$"
    ):
        validate(Config(unlearn=UnlearnConfig(epochs=5, steps=120)))
    short = shorten(Config(unlearn=UnlearnConfig(steps=120, **tiny.PAPER)))
    assert (short.unlearn.epochs, short.unlearn.steps) == (1, None)


def test_the_command_line_stands_in_place_of_the_file():
    def length(*settings):
        unlearn = arguments.read(["delete-jax", "--config=digits:delete", *settings])[0].unlearn
        return unlearn.epochs, unlearn.steps

    assert [length(), length("--config.unlearn.steps=7"), length("--config.unlearn.epochs=7")] == [
        (10, None),
        (None, 7),
        (7, None),
    ]
    assert length("--config.unlearn.steps=7", "--config.unlearn.epochs=7") == (7, 7)  # which is refused


@pytest.fixture
def _as_in_the_command():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("_as_in_the_command")
def test_a_run_of_the_command(tmp_path, monkeypatch, capsys):
    """Says before anything is trained that there are few steps, makes as many as were told, and its record says both. The samples are
    selected once."""
    tiny.small_runs(monkeypatch)
    task, made = TASKS["classification"], []
    counted = task._replace(streams=lambda *given: made.append(given) or task.streams(*given))
    monkeypatch.setitem(TASKS, "classification", counted)
    given = [
        "--config=digits:quick",
        "--config.unlearn.method=delete",
        "--config.parallel=jit",
        "--config.retrain=false",
        "--config.unlearn.batch_size=8",
    ]
    note = "note: delete makes {} steps, and so few steps cost accuracy"
    assert main(["delete-jax", *given, "--config.unlearn.steps=5", f"--workdir={tmp_path / 'run'}"]) == 0
    out = capsys.readouterr().out
    assert out.count("so few steps") == 1
    assert note.format(5) in out.split("teacher")[0]
    assert "give config.unlearn.steps=120 or more" in out
    method = json.loads((tmp_path / "run" / "report.json").read_text())["method"]
    assert (method["steps"], method["epochs"], method["num_steps"]) == (5, 3, 5)
    assert len(made) == 1
    teacher = f"--config.teacher={tmp_path / 'run'}"
    own = [f"--workdir={tmp_path / 'study'}", "--methods=delete", "--lr=0.05", "--seeds=2", teacher]
    assert main(["delete-jax", "study", *given, "--config.unlearn.epochs=2", *own]) == 0
    out = capsys.readouterr().out
    assert out.count("so few steps") == 1
    assert note.format(4) in out.split("1/2")[0]
