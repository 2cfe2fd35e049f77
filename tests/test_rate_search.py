"""The rate from forget samples alone: which one is taken, on what evidence, and that the run is the one with that rate."""

import jax
import numpy as np
import pytest

import delete_jax as dj
from delete_jax import rate_search
from delete_jax.job import checked_job
from delete_jax.layout import ALONE, in_lanes
from delete_jax.methods import FORGET
from delete_jax.model import Model
from delete_jax.non_finite import NonFiniteError
from delete_jax.options import Options
from delete_jax.rate_search import RATES, find_rate, hold_out, make_judge, search_rate, warning
from delete_jax.result import Result
from delete_jax.run.log import JsonLog
from delete_jax.streams import split_streams
from tests import tiny
from tests.test_unlearn import accuracies, trained

K = tiny.NUM_CLASSES
ARGUMENTS = {
    "forget": [1], "method": "delete", "epochs": 3, "batch_size": 8, "parallel": "jit", "batch_norm": "frozen",
}  # fmt: skip


@pytest.fixture(scope="module")
def known():
    model, variables = tiny.network()
    images, labels = tiny.samples(160)
    return model, trained(model, variables, images, labels), images, labels


def test_rates():
    assert (RATES[0], RATES[1], RATES[2], RATES[-1], len(RATES)) == (1e-7, 3.16e-7, 1e-6, 1.0, 15)
    np.testing.assert_allclose(np.diff(np.log10(RATES)), 0.5, atol=1e-3)


def evidence(above, kept=1.0):
    return {
        "recognised": 0.0,
        "probability": above / 2,
        "above": above,
        "limit": 0.25,
        "kept": kept,
    }


def test_the_first_that_erases_is_taken():
    found = {
        1e-7: evidence(0.9),
        3.16e-7: evidence(0.1),
        1e-6: evidence(0.006),
        3.16e-6: evidence(0.005),
    }
    rows = find_rate(RATES, found.__getitem__, "delete")
    assert [row["lr"] for row in rows] == list(found)
    assert rows[-1] == {"lr": 3.16e-6, **found[3.16e-6]}


def test_no_rate_erases():
    trained = [lr if lr <= 1e-3 else NonFiniteError("diverged") for lr in RATES]

    def judge(lr):
        return evidence(0.5 if lr == 1e-4 else 0.75)

    with pytest.raises(
        ValueError, match=r"scrub erases .* at no rate from 1e-07 to 0\.001 \(at best 50\.0% .*, at 0\.0001\)"
    ):
        find_rate(trained, judge, "scrub")


def test_a_fifth_of_each_class_is_held_out():
    labels = np.repeat([3, 0, 1], [20, 7, 2])
    stream = {"label": labels, "image": np.arange(29)}
    train, held_out = hold_out(stream, seed=1)
    assert {class_: int((held_out["label"] == class_).sum()) for class_ in (3, 0, 1)} == {3: 4, 0: 1, 1: 1}
    assert sorted([*train["image"], *held_out["image"]]) == list(range(29))
    np.testing.assert_array_equal(labels[held_out["image"]], held_out["label"])
    np.testing.assert_array_equal(hold_out(stream, seed=1)[1]["image"], held_out["image"])
    assert (hold_out(stream, seed=2)[1]["image"] != held_out["image"]).any()
    maps = {"label": np.zeros((10, 2, 2), int), "image": np.arange(10)}
    assert len(hold_out(maps, 0)[1]["image"]) == 2
    with pytest.raises(ValueError, match="one class has a single sample"):
        hold_out({"label": np.array([1, 1, 2])}, 0)


def test_evidence_by_hand():
    """Two samples of class 1; their answers are known, so is what the original would say without class 1."""
    images = np.random.default_rng(0).normal(size=(2, 4, 4, 1)).astype(np.float32)
    held_out = {
        "image": images, "label": np.array([1, 1]), "weight": np.ones(2, np.float32),
        "erase": np.arange(3)[None].repeat(2, 0) == 1,
    }  # fmt: skip

    def predict(variables, images):
        return np.tile(np.log(np.array(variables, np.float32)), (len(images), 1))

    judge = make_judge(predict, [0.2, 0.7, 0.1], held_out, seed=0)
    first = judge([0.5, 0.4, 0.1])
    limit = 1 / 3
    expected = {"recognised": 0.0, "probability": 0.4, "above": 1.0, "limit": limit, "kept": 1.0}
    assert first == pytest.approx(expected)
    other = judge([0.1, 0.6, 0.3])
    assert other == pytest.approx(expected | {"recognised": 1.0, "probability": 0.6, "kept": 0.0})
    assert judge([0.5, 0.3, 0.2])["above"] == 0.0


def test_the_limit_is_never_below_one_percent():
    held_out = {
        "image": np.zeros((2, 4, 4, 1), np.float32), "label": np.zeros(2, int), "weight": np.ones(2, np.float32),
        "erase": np.arange(1000)[None].repeat(2, 0) == 0,
    }  # fmt: skip

    def predict(share, images):
        rest = np.full(999, np.log((1 - share) / 999))
        return np.tile(np.concatenate([[np.log(share)], rest]).astype(np.float32), (len(images), 1))

    judge = make_judge(predict, 0.5, held_out, seed=0)
    assert judge(0.009) == pytest.approx(
        {"recognised": 1.0, "probability": 0.009, "above": 0.0, "limit": 0.01, "kept": 0.0}
    )
    assert judge(0.011)["above"] == 1.0


def test_in_maps_the_erased_pixels_count():
    """Of each image the upper half shows class 2, which is erased; a border does not count."""
    labels = np.zeros((2, 4, 4), int)
    labels[:, :2] = 2
    labels[:, 0] = 255
    held_out = {
        "image": np.zeros((2, 4, 4, 1), np.float32), "label": labels, "weight": (labels < 255).astype(np.float32),
        "erase": np.tile(np.arange(3) == 2, (2, 1, 1, 1)),
    }  # fmt: skip
    logits = np.zeros((4, 4, 3), np.float32)
    logits[1, :, 2] = 9  # the only row that shows the class and counts
    logits[0, :, 1] = logits[2:, :, 0] = 9
    judge = make_judge(lambda variables, images: np.tile(variables, (len(images), 1, 1, 1)), logits, held_out, seed=0)
    assert judge(logits)["recognised"] == 1.0
    half = logits.copy()
    half[1, :2] = [9, 0, 0]
    assert judge(half)["recognised"] == judge(half)["above"] == 0.5
    assert judge(half)["kept"] == 14 / 16  # the other two pixels are still answered with the class


def test_a_large_drift_is_named():
    assert warning(()) is None
    assert warning([{"lr": 1e-3, **evidence(0.0, kept=0.8)}]) is None
    assert "0.001, also moves other answers" in warning([{"lr": 1e-3, **evidence(0.0, kept=0.5)}])


@pytest.mark.filterwarnings("ignore:the smallest rate that erases")
@pytest.mark.parametrize("name", ["delete", "anchored", "boundary_expand", "salun"])
def test_it_is_the_run_with_that_rate(known, name):
    model, variables, images, labels = known
    found = dj.unlearn(model, variables, images, labels, lr="search", **ARGUMENTS | {"method": name})
    assert found.lr == found.search[-1]["lr"] in RATES
    assert [row["lr"] for row in found.search] == list(RATES[: len(found.search)])
    assert found.seconds > sum(row["seconds"] for row in found.search) > 0
    fixed = dj.unlearn(model, variables, images, labels, lr=found.lr, **ARGUMENTS | {"method": name})
    jax.tree.map(np.testing.assert_array_equal, found.variables, fixed.variables)
    assert (fixed.lr, fixed.search, fixed.history) == (found.lr, (), found.history)
    assert accuracies(model, found.variables, images, labels, [1])[0] <= 0.05


@pytest.mark.filterwarnings("ignore:the smallest rate that erases")
def test_one_compilation_for_all_rates(known):
    """The step is traced twice at most (with the first and the following states), whatever number of rates is tried."""
    model, variables, images, labels = known
    traced = []

    def apply_train(variables, x, key):
        traced.append(x.shape)
        return model.apply_train(variables, x, key)

    def apply(variables, x):
        traced.append(x.shape)
        return model.apply(variables, x)

    watched = Model(apply, apply_train, model.classifier)
    found = dj.unlearn(watched, variables, images, labels, lr="search", **ARGUMENTS)
    first = len(traced)
    assert len(found.search) > 3
    dj.unlearn(watched, variables, images, labels, lr=found.lr, **ARGUMENTS)
    assert len(traced) == first
    assert sum(shape[0] == ARGUMENTS["batch_size"] for shape in traced) <= 2


@pytest.mark.filterwarnings("ignore:the smallest rate that erases")
def test_it_resumes_without_searching_again(known, tmp_path, monkeypatch):
    model, variables, images, labels = known

    def run(lr="search"):
        return dj.unlearn(
            model, variables, images, labels, lr=lr, store=dj.Checkpoints(tmp_path / "checkpoints"),
            log=JsonLog(tmp_path / "metrics.jsonl", "unlearned"), **ARGUMENTS,
        )  # fmt: skip

    first = run()
    monkeypatch.setattr("delete_jax.rate_search.find_rate", None)  # it would fail
    again = run()
    assert list(again.search) == list(first.search)
    jax.tree.map(np.testing.assert_array_equal, again.variables, jax.device_get(first.variables))
    with pytest.raises(ValueError, match=r"settings\.lr was search, now 0\.5"):
        run(lr=0.5)


@pytest.mark.filterwarnings("ignore:the smallest rate that erases")
def test_a_finish_does_not_hide_what_is_left(known):
    """It overwrites the class' row of the classifier: with it, the smallest rate of all would pass for one that erases."""
    found = dj.unlearn(*known, lr="search", finish="zero", **ARGUMENTS)
    assert found.lr == dj.unlearn(*known, lr="search", **ARGUMENTS).lr > RATES[0]


@pytest.mark.filterwarnings("ignore:the smallest rate that erases")
def test_maps():
    model, variables = tiny.network(tiny.Segmenter())
    rng = np.random.default_rng(0)
    labels = rng.integers(0, K, (16, 6, 6))
    images = (labels[..., None] + rng.normal(0, 0.1, (16, 6, 6, 1))).astype(np.float32)
    found = dj.unlearn(model, variables, images, labels, lr="search", **ARGUMENTS | {"batch_norm": "train"})
    assert found.search[-1]["above"] <= 0.005


@pytest.mark.parametrize(
    ("method", "words"),
    [("finetune", "reads remain samples"), ("scrub", "reads forget and remain"), ("ssd", "is computed at once")],
)
def test_who_cannot(known, method, words):
    model, variables, images, labels = known
    with pytest.raises(ValueError, match=f"lr='search' is for .*{method} {words}.*: give a number"):
        dj.unlearn(model, variables, images, labels, lr="search", **ARGUMENTS | {"method": method})


def test_another_word(known):
    model, variables, images, labels = known
    with pytest.raises(ValueError, match="a number above 0, within float32, 'auto' or 'search', got 'fast'"):
        dj.unlearn(model, variables, images, labels, lr="fast", **ARGUMENTS)


@pytest.mark.filterwarnings("ignore:the smallest rate that erases")
def test_the_search_shows_how_far_it_is(known):
    """Each rate is a training of its own, done once; the training with the rate that was found has none to show."""
    shown = []

    def progress(step, num_steps, metrics, rate, epoch_done=False):
        shown.append((metrics.get("lr"), epoch_done))

    found = dj.unlearn(*known, lr="search", progress=progress, **ARGUMENTS)
    assert [lr for lr, done in shown if done and lr is not None] == [row["lr"] for row in found.search]
    assert shown[-1] == (None, True)


def test_rates_at_once_find_the_same(known):
    """As lanes of one device: the same rate, by the same numbers up to rounding."""
    model, variables, images, labels = known
    streams = split_streams(images, labels, (1,), tiny.NUM_CLASSES, [FORGET])
    options = Options(
        **{name: value for name, value in ARGUMENTS.items() if name not in ("forget", "method")}, lr="search"
    )
    job = checked_job(model, variables, streams, tiny.NUM_CLASSES, (1,), dj.methods.delete(), options)
    alone, at_once = search_rate(job, layout=ALONE), search_rate(job, layout=in_lanes(4))
    assert [row["lr"] for row in at_once] == [row["lr"] for row in alone]
    for row, other in zip(at_once, alone, strict=True):
        for name in ("recognised", "probability", "above", "kept"):
            assert row[name] == pytest.approx(other[name], abs=0.02)


@pytest.mark.parametrize(
    ("seconds", "compiling", "beside", "lanes"),
    [
        (1.0, 0.3, [], [1, 4]),
        (1.0, 0.3, [0.2, 0.2], [1, 4, 4]),
        (1.0, 0.3, [1.5, 1.5], [1, 4, 1]),  # slower than alone
        (1.0, 9.0, [], [1, 1]),  # compiling a second program would take longer
        (0.1, 0.0, [], [1, 1]),
        (100.0, 0.3, [], [1, 1]),  # steps that are long
        (100.0, 0.3, [50.0], [1, 1, 1]),
    ],
)
def test_where_rates_train(seconds, compiling, beside, lanes, monkeypatch):
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)
    faster = rate_search._Faster(num_steps=2000)
    found = [faster().lanes]
    for seconds_each in ([seconds], beside):
        made = [Result({}, [], [], each, compiling) for each in seconds_each]
        if made:
            assert list(faster.learn(made)) == made
            found.append(faster().lanes)
    assert found == lanes


@pytest.mark.filterwarnings("ignore:the smallest rate that erases")
def test_an_own_method_prepares_itself_for_each_rate(known):
    """It may read the rate; the package's own methods do not, and are prepared once."""
    model, variables, images, labels = known
    seen = []

    def prepare(setup):
        seen.append(setup.strength)
        return dj.methods.Prepared()

    method = dj.methods.delete()._replace(name="mine", prepare=prepare)
    result = dj.unlearn(model, variables, images, labels, lr="search", **ARGUMENTS | {"method": method})
    assert seen == [*(row["lr"] for row in result.search), result.lr]
