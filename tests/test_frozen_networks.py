"""Frozen networks by name: a method reads those that it declares, and no others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import delete_jax as dj
from delete_jax import preparing
from delete_jax.methods.base import MASKED, ORIGINAL, Term, distill
from tests import tiny

MODEL, VARIABLES = tiny.network()
SECOND = tiny.network(seed=7)[1]
SAMPLES = tiny.samples(40)
SETTINGS = {"forget": [1], "epochs": 2, "lr": 0.05, "batch_size": 8, "batch_norm": "frozen", "parallel": "jit"}


def two_teachers(outputs, context):
    """Towards the mean of what two networks say, without the erased classes."""
    forget = outputs["forget"]
    masked = [
        jax.nn.log_softmax(jnp.where(forget.batch["erase"], -1e9, forget.answers[name]))
        for name in (ORIGINAL, "second")
    ]
    return {"forget": distill(jnp.logaddexp(*masked) - jnp.log(2.0), forget)}


METHOD = dj.methods.Method("two_teachers", two_teachers, networks=(ORIGINAL, "second"), settings=MASKED)


def unlearned(method=METHOD, networks=None, **options):
    networks = {"second": SECOND} if networks is None else networks
    return dj.unlearn(MODEL, VARIABLES, *SAMPLES, method=method, networks=networks, **SETTINGS | options)


def assert_same(found, expected, atol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), found.variables, expected.variables)


def by_hand():
    """The same training with the second network's answers computed beside it, as a column of the method's own."""
    target = MODEL.apply(SECOND, SAMPLES[0][SAMPLES[1] == 1])

    def prepare(setup):
        return dj.methods.Prepared(columns={"forget": {"other": target}})

    def loss(outputs, context):
        forget = outputs["forget"]
        answers = {ORIGINAL: forget.teacher_logits, "second": forget.batch["other"]}
        return two_teachers({"forget": forget._replace(answers=answers)}, context)

    return METHOD._replace(name="by_hand", loss=loss, prepare=prepare, networks=(ORIGINAL,))


def test_the_second_network_is_read():
    found = unlearned()
    assert_same(found, unlearned(by_hand(), networks={}))
    assert found.history[-1]["loss"] < found.history[0]["loss"]
    other = unlearned(networks={"second": VARIABLES})
    assert any(
        np.abs(a - b).max() > 1e-4
        for a, b in zip(*map(jax.tree.leaves, (found.variables, other.variables)), strict=True)
    )


def test_any_name_will_do():
    """Also one that a column of the original's answers is called by, and that of a column of the method's own."""

    def loss(outputs, context):
        forget = outputs["forget"]
        answers = {
            ORIGINAL: forget.answers[ORIGINAL],
            "second": forget.answers["teacher"] + 0 * forget.batch["teacher_logits_"],
        }
        return two_teachers({"forget": forget._replace(answers=answers)}, context)

    def prepare(setup):
        samples = len(setup.streams["forget"]["label"])
        return dj.methods.Prepared(columns={"forget": {"teacher_logits_": np.ones((samples, 1), np.float32)}})

    method = METHOD._replace(loss=loss, prepare=prepare, networks=(ORIGINAL, "teacher"))
    assert_same(unlearned(method, {"teacher": SECOND}), unlearned())


@pytest.mark.usefixtures("full_precision")
@pytest.mark.parametrize(
    "options",
    [
        {"micro_batch": 4},
        {"parallel": "sharding"},
        pytest.param({"parallel": "pmap"}, marks=pytest.mark.pmap),
        {"resident": 0},
    ],
    ids=str,
)
def test_wherever_it_trains(options):
    assert_same(unlearned(**options), unlearned())


def test_answers_are_computed_once_or_in_the_step(monkeypatch):
    seen = []
    make = preparing.make_predictor
    monkeypatch.setattr(preparing, "make_predictor", lambda *given: seen.append(make(*given)) or seen[-1])
    kept = unlearned()
    assert len(seen) == 1
    monkeypatch.setattr(preparing, "MOST_ANSWER_BYTES", 1)
    assert_same(unlearned(), kept)
    assert_same(unlearned(augment=lambda images, keys: images), kept)


def test_they_are_part_of_what_a_store_holds(tmp_path):
    store = dj.Checkpoints(tmp_path)
    unlearned(store=store)
    assert unlearned(store=store).history
    with pytest.raises(ValueError, match=r"made from something else \(networks\.second was"):
        unlearned(networks={"second": VARIABLES}, store=store)


def reading(name):
    """A method that reads a network and declares none."""
    return METHOD._replace(
        loss=lambda outputs, context: {"forget": Term(outputs["forget"].answers[name].sum(-1))}, networks=()
    )


@pytest.mark.parametrize(
    ("method", "networks", "message"),
    [
        (METHOD, {}, r"method two_teachers reads the network 'second': give its variables, networks=\{'second': …\}"),
        (METHOD, {"second": SECOND, "third": SECOND}, "reads no network 'third'; it declares original, second: leave it out"),
        ("delete", {"second": SECOND}, "method delete reads no network 'second'; it declares original"),
        (METHOD, {"second": SECOND, "original": SECOND}, "networks has 'original', which is always the network"),
        (METHOD, {"second": {"params": {}}}, r"networks\['second'\]: variables hold no weights"),
        (METHOD, {"second": {"params": {"w": np.ones(3)}}}, r"networks\['second'\]: the network cannot take images"),
        (METHOD, 5, "networks must be a dict of variables by name, got 5"),
        (METHOD, {"second": None}, r"networks\['second'\]: variables must be a dict"),
        (reading("second"), {}, "it reads the network 'second' and declares none: name it in Method"),
        (reading("original"), {}, "it reads the network 'original' and declares none"),
        (METHOD._replace(networks="second"), {}, r"networks must be a tuple of names such as \('original', 'second'\)"),
        (METHOD._replace(networks=("a b",)), {}, "networks must be a tuple of names"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(method, networks, message):
    with pytest.raises(ValueError, match=message) as caught:
        unlearned(method, networks)
    assert "\n" not in str(caught.value)
