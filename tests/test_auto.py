"""`lr="auto"`: which trainings are made, which one is taken, and that the result is that training, followed, kept and resumed."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import delete_jax as dj
from delete_jax import auto
from delete_jax.auto import CAREFUL, having_steps, is_alarming, taken_warnings
from delete_jax.job import checked_job
from delete_jax.methods import FORGET
from delete_jax.optimisers import polyak
from delete_jax.options import Options
from delete_jax.rate_search import NoRateError, hold_out
from delete_jax.reports.search import search_blocks
from delete_jax.result import Result
from delete_jax.run.log import JsonLog
from delete_jax.run.record import search_seconds
from delete_jax.streams import split_streams
from tests import tiny
from tests.test_unlearn import accuracies, trained

K = tiny.NUM_CLASSES
ARGUMENTS = {
    "forget": [1],
    "batch_size": 8,
    "parallel": "jit",
    "batch_norm": "frozen",
    "method": "anchored",
}
QUIET = pytest.mark.filterwarnings("ignore:other predictions have moved", "ignore:the network is unsure")


@pytest.fixture(scope="module")
def known():
    model, variables = tiny.network()
    images, labels = tiny.samples(160)
    return model, trained(model, variables, images, labels), images, labels


def make_job(known, **settings):
    model, variables, images, labels = known
    streams = split_streams(images, labels, (1,), K, [FORGET])
    options = {name: value for name, value in ARGUMENTS.items() if name not in ("forget", "method")}
    method = settings.pop("method", dj.methods.anchored())
    return checked_job(model, variables, streams, K, (1,), method, Options(**options | {"lr": "auto"} | settings))


@QUIET
def test_it_is_the_training_with_that_constant_on_four_fifths(known):
    """Bit by bit the same as a training by hand: Polyak's step, the constant as the rate, the samples that were not held out."""
    model, variables, images, labels = known
    found = dj.unlearn(model, variables, images, labels, lr="auto", **ARGUMENTS)
    (row,) = [row for row in found.search if row["taken"]]
    assert found.lr == row["lr"]
    assert len(found.history) == row["steps"] >= 120
    assert found.evaluations == []
    assert row["above"] <= 0.005
    assert row["recognised"] == 0
    own = {"image": images[labels == 1], "label": labels[labels == 1]}
    train, held_out = hold_out(own, seed=0)
    assert len(held_out["label"]) == 8
    by_hand = dj.unlearn(
        model,
        variables,
        train["image"],
        train["label"],
        lr=found.lr,
        tx=polyak(),
        **ARGUMENTS,
        epochs=row["steps"] // 4,
    )
    assert by_hand.history == found.history
    jax.tree.map(np.testing.assert_array_equal, found.variables, by_hand.variables)
    erased, others = accuracies(model, found.variables, images, labels, [1])
    assert erased == 0
    assert others >= accuracies(model, variables, images, labels, [1])[1] - 0.03


def erasing(times, at=None, dz=(0.1, 0.1, 0.1), agreement=0.9):
    """A stand-in for what is measured: erased from the training of that number on, with these values of dz."""
    numbers = iter(range(99))

    def measure(self, result):
        number = next(numbers)
        value = dz[min(number, len(dz) - 1)]
        named = {"dz": value, "dz_reoriented": value, "agreement": agreement}
        return {"above": 0.0 if number >= times else 0.5, "probability": 0.1, **named}

    return measure


LADDER = {
    "erased at once": (erasing(0), [(1.0, 1)], 0),
    "after twice as many steps": (erasing(1), [(1.0, 1), (1.0, 2)], 1),
    "after four times as many": (erasing(2), [(1.0, 1), (1.0, 2), (1.0, 4)], 2),
    "other predictions moved": (erasing(0, dz=(0.3, 0.2)), [(1.0, 1), (CAREFUL, 0)], 1),
    "the more careful one is worse": (erasing(0, dz=(0.3, 0.4)), [(1.0, 1), (CAREFUL, 0)], 0),
    "predictions of transfer images moved": (erasing(0, dz=(0.2, 0.1), agreement=0.7), [(1.0, 1), (CAREFUL, 0)], 1),
    "only the careful one erases": (erasing(3), [(1.0, 1), (1.0, 2), (1.0, 4), (CAREFUL, 0)], 3),
}


@QUIET
@pytest.mark.parametrize("name", LADDER)
def test_which_trainings_follow(name, known, monkeypatch):
    measure, trainings, taken = LADDER[name]
    monkeypatch.setattr(auto, "CAREFUL_STEPS", 12)
    monkeypatch.setattr(auto._Trainings, "_measured", measure)
    monkeypatch.setattr(auto._Trainings, "_last_stage", lambda self: None)
    found = dj.unlearn(*known, lr="auto", epochs=3, **ARGUMENTS)  # of four steps: a fifth of the samples is held out
    expected = [(lr, 12 * (times or 1)) for lr, times in trainings]
    assert [(row["lr"], row["steps"]) for row in found.search] == expected
    assert [row["taken"] for row in found.search] == [number == taken for number in range(len(trainings))]
    assert len(found.history) == found.search[taken]["steps"]


@QUIET
def test_a_longer_training_goes_on_where_the_shorter_ended(known, monkeypatch):
    """It has the bits of one that is so long from the start, and its rows; no step is taken twice."""
    monkeypatch.setattr(auto._Trainings, "_measured", erasing(1))
    found = dj.unlearn(*known, lr="auto", epochs=2, **ARGUMENTS, evaluate=lambda variables: {"seen": 1.0})
    job = make_job(known)
    train, _ = hold_out(job.streams[FORGET], 0)
    model, variables, *_ = known
    whole = dj.unlearn(
        model, variables, np.asarray(train["image"]), train["label"], lr=1.0, tx=polyak(), **ARGUMENTS, epochs=4
    )
    assert found.history == whole.history
    jax.tree.map(np.testing.assert_array_equal, found.variables, whole.variables)
    assert [row["epoch"] for row in found.evaluations] == list(range(5))
    assert found.search[1]["curve"]["step"] == [0, 4, 8, 16]
    short, long = found.search
    assert 0 < short["training_seconds"] < long["training_seconds"]
    assert found.seconds == pytest.approx(sum(row["seconds"] for row in found.search), rel=0.5)


@QUIET
def test_the_last_stage_is_trained_alone(known, monkeypatch):
    """Where the careful training moves other predictions, too: all parameters but those of the last stage keep their bits."""
    model, variables, images, labels = known
    names = list(variables["params"])
    last = {
        name: jax.tree.map(lambda leaf, name=name: jnp.full(leaf.shape, name == "Dense_0"), tree)
        for name, tree in variables["params"].items()
    }
    monkeypatch.setattr(auto, "CAREFUL_STEPS", 8)
    monkeypatch.setattr(auto._Trainings, "_measured", erasing(0, dz=(0.5, 0.4, 0.3)))
    monkeypatch.setattr(auto._Trainings, "_last_stage", lambda self: last)
    with pytest.warns(UserWarning, match=r"by 0\.30 of their spread"):
        found = dj.unlearn(model, variables, images, labels, lr="auto", epochs=2, **ARGUMENTS)
    assert [row["part"] for row in found.search] == ["all", "all", "last stage"]
    assert found.search[-1]["taken"]
    for name in names:
        same = [
            np.array_equal(a, b)
            for a, b in zip(
                *map(jax.tree.leaves, (found.variables["params"][name], variables["params"][name])), strict=True
            )
        ]
        assert not any(same) if name == "Dense_0" else all(same)
    assert found.history[0]["loss"] > 0


@QUIET
def test_the_last_stage_comes_first_where_nothing_erases(known, monkeypatch):
    """If it erases, the more careful training, which is longer, is not needed."""
    every = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), known[1]["params"])
    monkeypatch.setattr(auto._Trainings, "_measured", erasing(3))
    monkeypatch.setattr(auto._Trainings, "_last_stage", lambda self: every)
    found = dj.unlearn(*known, lr="auto", epochs=1, **ARGUMENTS)
    assert [(row["steps"], row["part"]) for row in found.search] == [
        (4, "all"),
        (8, "all"),
        (16, "all"),
        (4, "last stage"),
    ]
    assert found.search[-1]["taken"]


@QUIET
def test_store_and_log_have_the_training_that_was_taken(known, tmp_path, monkeypatch):
    """Nothing of the others; and the same call again returns it, bit by bit, without training."""
    model, variables, images, labels = known

    def run(**more):
        return dj.unlearn(
            model, variables, images, labels, lr="auto", store=dj.Checkpoints(tmp_path / "checkpoints"),
            log=JsonLog(tmp_path / "metrics.jsonl", "unlearned"), evaluate=lambda variables: {"acc": 1.0}, **ARGUMENTS | more,
        )  # fmt: skip

    with monkeypatch.context() as patched:
        patched.setattr(auto, "_hand_over", None)  # killed before the choice
        with pytest.raises(TypeError):
            run()
    assert not (tmp_path / "checkpoints").exists()
    assert not (tmp_path / "metrics.jsonl").exists()
    first = run()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "step"] == list(range(1, len(first.history) + 1))
    assert (
        len([line for line in lines if line["kind"] == "evaluation"])
        == len(first.evaluations)
        == first.history[-1]["epoch"] + 1
    )
    monkeypatch.setattr(auto, "_Trainings", None)  # it would fail
    again = run()
    jax.tree.map(np.testing.assert_array_equal, again.variables, jax.device_get(first.variables))
    assert (again.lr, list(again.search), again.history, again.evaluations) == (
        first.lr,
        list(first.search),
        first.history,
        first.evaluations,
    )
    assert again.seconds == pytest.approx(first.seconds)
    assert again.method == first.method
    with pytest.raises(
        ValueError, match=r"chose after \d+ steps, and at least 1600 were asked for: choose another folder"
    ):
        run(epochs=400)


@QUIET
def test_a_finish_comes_after_the_choice(known):
    plain, finished = (dj.unlearn(*known, lr="auto", finish=finish, **ARGUMENTS) for finish in (None, "zero"))
    assert [row["above"] for row in finished.search] == [row["above"] for row in plain.search]
    bias = finished.variables["params"]["Dense_0"]["bias"]
    assert bias[1] < plain.variables["params"]["Dense_0"]["bias"][1]


@QUIET
def test_maps():
    model, variables = tiny.network(tiny.Segmenter())
    rng = np.random.default_rng(0)
    labels = rng.integers(0, K, (16, 6, 6))
    images = (labels[..., None] + rng.normal(0, 0.1, (16, 6, 6, 1))).astype(np.float32)
    found = dj.unlearn(
        model, variables, images, labels, lr="auto", **ARGUMENTS | {"batch_norm": "train", "method": "delete"}
    )
    assert min(row["above"] for row in found.search if row["taken"]) <= 0.005


def test_nothing_erases(known, monkeypatch):
    monkeypatch.setattr(auto, "CAREFUL_STEPS", 4)
    monkeypatch.setattr(auto._Trainings, "_measured", erasing(99))
    with pytest.raises(
        NoRateError, match=r"anchored erases .* in none of 4 trainings \(at best 50\.0% .*\): give more samples"
    ) as caught:
        dj.unlearn(*known, lr="auto", epochs=1, **ARGUMENTS)
    assert "\n" not in str(caught.value)
    assert "batch_norm" not in str(caught.value)


def test_a_loss_without_minimum(known):
    with pytest.raises(NoRateError, match=r"the loss of gradient_ascent went below: give a number, or lr='search'"):
        dj.unlearn(*known, lr="auto", **ARGUMENTS | {"method": "gradient_ascent"})


@pytest.mark.filterwarnings("ignore:overflow")
def test_all_diverge(known):
    """Weights whose logits overflow in the first step. No rate is named, for none was given."""
    job = make_job(known)
    broken = job.method._replace(
        name="mine",
        loss=lambda outputs, context: jax.tree.map(lambda x: x * jnp.inf, job.method.loss(outputs, context)),
    )
    with pytest.raises(
        dj.NonFiniteError, match=r"lr='auto': all of \d trainings diverged: check that images and .*, or give a number$"
    ):
        dj.unlearn(*known, lr="auto", **ARGUMENTS | {"method": broken})


def test_an_optimiser_is_refused(known):
    with pytest.raises(
        ValueError, match=r"lr='auto' takes a step of its own, and tx was given: leave tx out, or give a number or"
    ):
        dj.unlearn(*known, lr="auto", tx=optax.adam(1.0), **ARGUMENTS)


@pytest.mark.parametrize(
    ("method", "words"),
    [("finetune", "reads remain"), ("scrub", "reads forget and remain"), ("ssd", "is computed at once")],
)
def test_who_cannot(known, method, words):
    with pytest.raises(ValueError, match=f"lr='auto' is for .*{method} {words}.*: give a number"):
        dj.unlearn(*known, lr="auto", **ARGUMENTS | {"method": method})


def test_steps_are_whole_epochs(known):
    job = make_job(known)  # 40 samples in batches of 8
    assert [having_steps(job, steps).num_steps for steps in (1, 5, 6, 120)] == [5, 5, 10, 120]
    job = make_job(known, steps=7)
    assert [having_steps(job, steps).num_steps for steps in (1, 5, 6, 120)] == [1, 5, 6, 120]


@QUIET
def test_steps_that_were_asked_for_are_made(known, monkeypatch):
    """Fewer than the rule's, to the step, and what follows is the training of that length."""
    monkeypatch.setattr(auto._Trainings, "_measured", erasing(1))
    with pytest.warns(UserWarning, match="anchored makes 10 steps, and so few steps cost accuracy"):
        found = dj.unlearn(*known, lr="auto", steps=10, **ARGUMENTS)
    assert [row["steps"] for row in found.search] == [10, 20]
    train, _ = hold_out(make_job(known).streams[FORGET], 0)
    by_hand = dj.unlearn(
        *known[:2], np.asarray(train["image"]), train["label"], lr=1.0, tx=polyak(), steps=20, **ARGUMENTS
    )
    assert found.history == by_hand.history
    jax.tree.map(np.testing.assert_array_equal, found.variables, by_hand.variables)


def test_an_unsure_network_is_named_before_anything_is_trained(known, monkeypatch):
    """Its logits are a tenth: it predicts the same, and is sure of nothing."""
    model, variables, images, labels = known
    flat = dj.Model(lambda v, x: model.apply(v, x) / 10, lambda v, x, key: model.apply_train(v, x, key))
    monkeypatch.setattr(auto, "fit", None)
    with (
        pytest.warns(UserWarning, match=r"unsure of its own predictions \(mean probability \d\d% on"),
        pytest.raises(TypeError),
    ):
        dj.unlearn(flat, variables, images, labels, lr="auto", **ARGUMENTS)


def row_of(**values):
    return {
        "lr": 1.0,
        "steps": 120,
        "part": "all",
        "above": 0.0,
        "dz": 0.1,
        "dz_reoriented": 0.1,
        "agreement": 0.9,
        "confidence": 0.9,
        "taken": True,
    } | values


def test_taken_warnings():
    assert not is_alarming(row_of(dz=0.25, agreement=0.8))
    assert is_alarming(row_of(dz=0.26))
    assert is_alarming(row_of(agreement=0.79))
    assert taken_warnings([row_of(taken=False, dz=9.0), row_of()]) == []
    (said,) = taken_warnings([row_of(dz=0.31, agreement=0.777)])
    assert "by 0.31 of their spread" in said
    assert "78% of the predictions" in said
    unsure = row_of(dz=0.13, confidence=0.49)
    assert not is_alarming(unsure)  # no further training
    (said,) = taken_warnings([unsure])
    assert "by 0.13 of their spread (at most 0.125 is safe)" in said
    assert taken_warnings([unsure | {"dz": 0.125}]) == taken_warnings([unsure | {"confidence": 0.5}]) == []


def test_what_the_report_shows():
    rows = [
        row_of(taken=False, above=0.5, training_seconds=1.0),
        row_of(steps=240, training_seconds=2.0, curve={"step": [0, 240], "above": [1.0, 0.0], "dz": [0.0, 0.1]}),
    ]
    note, text, figures, table = search_blocks(rows, ["check the classes that stay"])
    assert note.text == "Note: check the classes that stay."
    assert "in 2 trainings" in text.text
    assert "for 240 steps" in text.text
    assert next(panel.alt for panel in figures.panels).startswith("above the limit 100.0 % at first, 0.0 % at last")
    assert "1, 240 steps, all (taken)" in str(table)
    assert search_seconds(Result({}, [], [], seconds=5.0, search=rows)) == 3.0
    assert search_seconds(Result({}, [], [], seconds=5.0, search=[{"lr": 1e-3, "seconds": 2.0}])) == 2.0
