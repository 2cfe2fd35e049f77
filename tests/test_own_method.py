"""A method from outside: what it must be like, found where it is first traced, and said in one line."""

import jax.numpy as jnp
import numpy as np
import pytest

import delete_jax as dj
from delete_jax.losses import Decomposition
from delete_jax.methods import FORGET, METHODS, Method, Prepared, Term
from tests import tiny


def mean(outputs):
    return jnp.mean(outputs[FORGET].logits, -1)


def right(outputs, context):
    return {FORGET: Term(mean(outputs))}


def unlearned(method, **options):
    given = {"forget": [1], "epochs": 1, "batch_size": 8, "lr": 0.05, "parallel": "jit", **options}
    return dj.unlearn(*tiny.network(), *tiny.samples(32), method=method, **{"batch_norm": "train"} | given)


def losing(loss, **fields):
    return Method("mine", lambda outputs, context: loss(outputs), **fields)


def test_a_right_one(monkeypatch):
    result = unlearned(Method("mine", right))
    assert result.history
    monkeypatch.setitem(METHODS, "mine", lambda: Method("mine", right))
    by_name = unlearned("mine")
    assert by_name.history == result.history
    assert dj.sweep(*tiny.network(), *tiny.samples(32), [([1], Method("mine", right))], epochs=1, batch_norm="train")[
        0
    ].history
    unlearned(losing(lambda outputs: {FORGET: Term(np.zeros(8, np.float32))}))  # a constant is one, too


POSITIONS = r"a number for each position of forget, float \[8\], got "
TERMS = r"its loss must return \{forget: Term\(values\)\}, a term for some or all of its streams, got "
WRONG = {
    "a scalar": (losing(lambda o: {FORGET: Term(jnp.mean(mean(o)))}), POSITIONS + r"float32 \[\]: the step takes the mean"),
    "integers": (losing(lambda o: {FORGET: Term(o[FORGET].batch["label"])}), POSITIONS + r"int32 \[8\]"),
    "two numbers each": (losing(lambda o: {FORGET: Term(o[FORGET].logits)}), POSITIONS + r"float32 \[8, 4\]"),
    "an array": (losing(mean), TERMS + r"an array \[8\]"),
    "arrays": (losing(lambda o: {FORGET: mean(o)}), TERMS + r"an array \[8\] for 'forget'"),
    "nothing": (losing(lambda o: {}), TERMS + "nothing"),
    "None": (losing(lambda o: None), TERMS + "a NoneType"),
    "another stream": (losing(lambda o: {"x": Term(mean(o))}), TERMS + "a Term for 'x'"),
    "parts of another shape": (
        losing(lambda o: {FORGET: Term(mean(o), Decomposition(mean(o), mean(o), jnp.mean(mean(o))))}),
        "the parts of its loss must have a number for each position",
    ),
    "no teacher": (
        losing(lambda o: {FORGET: Term(mean(o) - o[FORGET].teacher_logits)}),
        r"reads teacher_logits declares Method\(networks=\('original',\)\)",
    ),
    "an undeclared stream": (
        losing(lambda o: {FORGET: Term(o["remain"].logits)}),
        "it reads the stream 'remain' and declares forget: name it in Method",
    ),
    "an unknown column": (losing(lambda o: {FORGET: Term(o[FORGET].batch["shift"])}), "its loss cannot be traced: KeyError: 'shift'"),
    "a slip": (losing(lambda o: 1 / 0), "its loss cannot be traced: ZeroDivisionError: division by zero"),
    "a concrete value": (losing(lambda o: {FORGET: Term(mean(o) * float(mean(o)[0]))}), "its loss cannot be traced: Concretization"),
    "one argument": (Method("mine", lambda outputs: {}), r"takes 1 positional argument but 2 were given"),
    "streams of letters": (Method("mine", right, streams="forget"), "streams must be a tuple of some of forget, remain, got 'forget'"),
    "no streams": (Method("mine", right, streams=()), "streams must name what it reads"),
    "an unknown stream": (Method("mine", right, streams=("forget", "rest")), "streams must be a tuple of some of forget, remain"),
    "an unknown need": (Method("mine", right, needs=("gpu",)), "needs must be a tuple of some of classes, maps, counterparts"),
    "an unknown setting": (Method("mine", right, settings=("rate",)), "settings must be a tuple of some of epochs, lr"),
    "no loss": (Method("mine", None), "loss must be a function, got None"),
    "prepare without a result": (Method("mine", right, prepare=lambda setup: None), "prepare must return a Prepared, got a NoneType"),
    "prepare with a slip": (Method("mine", right, prepare=lambda setup: setup.x), "its prepare fails: AttributeError: 'Setup' object has no"),
    "a short column": (
        Method("mine", right, prepare=lambda setup: Prepared({FORGET: {"a": jnp.zeros(3)}})),
        r"a value for each of the 8 samples of forget, got \[3\] for the column 'a'",
    ),
    "a column of no stream": (
        Method("mine", right, prepare=lambda setup: Prepared({"remain": {"a": jnp.zeros(3)}})),
        "made columns of 'remain', which is none of its streams",
    ),
    "reoriented to another shape": (
        Method("mine", right, reorient=lambda images, keys: images[:, :3]),
        r"reorient must return an image for each of those given, float32 \[8, 6, 6, 1\], got float32 \[8, 3, 6, 1\]",
    ),
    "another unwrapped": (Method("mine", right, unwrap=lambda variables: {"params": {}}), "unwrap must return variables like the original's"),
    "a list in it": (Method("mine", right, hyperparameters={"a": 1}), "its fields must be hashable: tuples for lists, Frozen for dicts"),
    "a list of columns": (Method("mine", right, prepare=lambda setup: Prepared([1])), "prepare must return columns as dicts by name"),
    "a number for constants": (Method("mine", right, prepare=lambda setup: Prepared({}, 5)), "prepare must return constants as dicts by name"),
    "a list of numbers": (losing(lambda o: {FORGET: Term([1.0] * 8)}), TERMS + r"Term\(\[1.0"),
    "nothing wrapped": (Method("mine", right, wrap=lambda setup: None), r"wrap must return \(model, variables\), got None"),
    "a check with a slip": (Method("mine", right, check=lambda num_classes: None), "its check fails: TypeError"),
    "a failing preparation": (Method("mine", right, prepare=lambda setup: {}[0]), "its prepare fails: KeyError"),
    "half a network": (Method("mine", edit=lambda setup: {"params": {}}), "edit must return variables like the original's: .* is missing"),
    "edit with a slip": (Method("mine", edit=lambda setup: 1 / 0), "its edit fails: ZeroDivisionError"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_one(name):
    method, words = WRONG[name]
    with pytest.raises(ValueError, match=words) as caught:
        unlearned(method)
    assert "\n" not in str(caught.value)
    assert "mine" in str(caught.value) or "reorient" in str(caught.value)


@pytest.mark.pmap
def test_wrong_in_parts_and_on_several_devices():
    method, _ = WRONG["a scalar"]
    for options in ({"micro_batch": 4}, {"parallel": "pmap"}, {"parallel": "sharding"}):
        with pytest.raises(ValueError, match="a number for each position of forget"):
            unlearned(method, **options)


@pytest.mark.parametrize(
    "augment", [lambda images, keys: images[:2], lambda images, keys: images.astype(jnp.int32), lambda images: images]
)
def test_augment_that_is_none(augment):
    with pytest.raises(ValueError, match=r"augment (must return an image for each of those given|cannot be traced)"):
        unlearned("delete", augment=augment)


def test_the_callers_network_stays_as_it_is():
    def prepare(setup):
        setup.teacher["params"]["Dense_0"] = None
        return Prepared()

    network = tiny.network()
    with pytest.raises((ValueError, AttributeError, TypeError)):
        dj.unlearn(
            *network,
            *tiny.samples(32),
            forget=[1],
            method=Method("mine", right, prepare=prepare),
            batch_size=8,
            parallel="jit",
        )
    assert network[1]["params"]["Dense_0"] is not None
