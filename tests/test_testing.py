"""The checks of `delete_jax.testing`: for each point of a contract something that breaks it, and what is said of that."""

import dataclasses
import functools
import itertools
import re
import sys
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import delete_jax as dj
from delete_jax import models
from delete_jax.config import Config
from delete_jax.data import Split
from delete_jax.losses import Decomposition
from delete_jax.methods import FORGET, METHODS, REMAIN, TRAINED, Method, Prepared, Term
from delete_jax.methods.hyperparameters import POSITIVE, factory
from delete_jax.model import Model
from delete_jax.tasks import TASKS, Measured, Task, Training
from delete_jax.tasks.classification import page
from delete_jax.testing import check_method, check_network, check_task
from delete_jax.testing.demands import Subject, difference
from delete_jax.testing.task import check_measured
from tests import tiny


def said(check, *arguments) -> str:
    with pytest.raises(AssertionError) as caught:
        check(*arguments)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_difference_of_a_bit_is_one():
    zero, tiniest = np.zeros(3, np.float32), np.array([0, -0.0, 0], np.float32)
    assert difference({"a": zero}, {"a": zero.copy()}) == 0
    assert difference({"a": zero}, {"a": tiniest}) > 0
    assert difference({"a": zero}, {"a": zero + 2}) == 2


# ---------------------------------------------------------------------------------------------------------- methods


def answers(outputs):
    return jnp.mean(jnp.square(outputs[FORGET].logits), -1)


def right(outputs, context):
    return {FORGET: Term(answers(outputs))}


MINE = Method("mine", right)


def losing(loss):
    return MINE._replace(loss=lambda outputs, context: {FORGET: Term(loss(outputs))})


def editing(edit, **fields):
    """A method that is computed at once from the network's parameters."""
    settings = {"settings": (), **fields}
    return MINE._replace(edit=lambda setup: {**setup.teacher, "params": edit(setup)}, **settings)


def halved(setup):
    return jax.tree.map(lambda leaf: leaf / 2, setup.teacher["params"])


def drawing():
    """Not from the key: other numbers each time."""
    calls = itertools.count(1)
    return editing(lambda setup: jax.tree.map(lambda leaf: leaf / (2 + next(calls)), setup.teacher["params"]))


def of_its_network(setup):
    setup.teacher["params"]["Dense_0"] = halved(setup)["Dense_0"]
    return setup.teacher["params"]


def of_its_samples(setup):
    setup.streams[FORGET]["image"] += 1
    return Prepared()


def labels_of(images):
    return jnp.sum(images, (1, 2, 3), dtype=jnp.float32)


def brightened(setup):
    """By the number of the batch's size."""
    return jax.tree.map(lambda leaf: leaf + 1e-3 * setup.batch_size, setup.teacher["params"])


@factory(strength=POSITIVE)
def strong(strength=1.0):
    """Does nothing that is right."""
    return Method("strong", right)


BROKEN = {
    "None": (None, "check_method: it was given None"),
    "no method": (5, "the method fails: method is no unlearning method"),
    "makes no method": (lambda: 5, r"<lambda>\(\) is a int: it must return a Method"),
    "a factory that fails": (lambda: {}[0], r"<lambda>\(\) fails: KeyError: 0"),
    "a list in it": (MINE._replace(hyperparameters={"a": 1}), "its fields must be hashable"),
    "new functions each time": (lambda: Method("mine", lambda o, c: {}), "made again it is not equal to itself, its loss differ"),
    "no name": (MINE._replace(name=""), "its name must be a string that is not empty"),
    "a lost setting": (MINE._replace(settings=TRAINED[1:]), "it is trained, and its settings leave out epochs: add them"),
    "hyper-parameters without ranges": (MINE._replace(hyperparameters=dj.methods.base.Frozen({"a": 1})), "its ranges are those of nothing"),
    "a range that JSON does not know": (strong()._replace(hyperparameters=dj.methods.base.Frozen({"strength": 1j})), "names, finite numbers, lists"),
    "check slips": (MINE._replace(check=lambda k, forget: 1 / 0), "check must refuse a request by ValueError alone: .*ZeroDivisionError"),
    "a loss without a gradient": (losing(lambda o: jax.lax.stop_gradient(answers(o))), "its parameters are the original's, bit for bit"),
    "a loss that rises": (losing(lambda o: (answers(o) - jax.lax.stop_gradient(2 * answers(o)))), "its loss on a batch seen three times goes from"),
    "NaN": (losing(lambda o: jnp.log(-answers(o))), "a short run fails: training diverged at step 1"),
    "another draw each time": (drawing(), "the same seed gives another result"),
    "reads the batch's size": (editing(brightened), "another batch_size gives another result, and 'batch_size' is not among its settings: add"),
    "reads no rate": (editing(halved, settings=("lr",)), "another lr gives the same result, and 'lr' is among its settings"),
    "a seed of its own": (editing(halved, settings=("seed",)), "another seed gives the same result, and 'seed' is among"),
    "a mask that it does not read": (MINE._replace(settings=(*TRAINED, "mask")), "another mask gives the same result"),
    "a mask that it reads": (
        losing(lambda o: jnp.sum(jnp.square(o[FORGET].logits) * o[FORGET].batch["erase"].astype(jnp.float32), -1)),
        "another mask gives another result, and 'mask' is not among its settings: add it",
    ),
    "remaining samples for nothing": (
        editing(halved, streams=(FORGET, REMAIN)), "other remain images give the same result, and 'remain' is among its streams: use",
    ),
    "an undeclared stream": (losing(lambda o: answers({FORGET: o[REMAIN]})), "reads the stream 'remain' and declares forget"),
    "a network changed in place": (editing(of_its_network), "its edit changes the arrays of its setup"),
    "samples changed in place": (MINE._replace(prepare=of_its_samples), "its prepare changes the arrays of its setup"),
    "a scalar": (losing(lambda o: jnp.mean(answers(o))), "a number for each position of forget"),
    "a mean over the batch": (losing(lambda o: answers(o) - 0.9 * jnp.mean(answers(o))), "a sample of weight 0 moves parameters by"),
    "a sum over a part": (
        MINE._replace(loss=lambda o, c: {FORGET: Term(answers(o) * jnp.sum(answers(o) * o[FORGET].batch["weight"]))}),
        "a batch in two parts gives a step that differs by",
    ),
    "a layer that unwrap loses": (MINE._replace(unwrap=lambda variables: {"params": {}}), "unwrap must return variables like the original's"),
    "parts that do not add up": (
        MINE._replace(loss=lambda o, c: {FORGET: Term(answers(o), Decomposition(*3 * [answers(o)]))}),
        "the parts of its loss add up to",
    ),
    "a wrong column": (MINE._replace(prepare=lambda s: Prepared({FORGET: {"a": jnp.zeros(3)}})), "a value for each of the .* samples"),
    "a slip on label maps": (
        losing(lambda o: answers(o) + labels_of(o[FORGET].batch["image"])),
        "a run with label maps must give a result, or be refused by ValueError: .* cannot be traced",
    ),
    "a class that is not there": (
        MINE._replace(prepare=lambda s: Prepared(constants={"first": jnp.int32(s.forget[0])})),
        "a run that forgets single samples must give a result, or be refused by ValueError: .* its prepare fails: IndexError",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_method(name):
    method, words = BROKEN[name]
    text = said(check_method, method)
    assert re.search(words, text), text


def test_a_method_that_is_not_its_row(monkeypatch):
    monkeypatch.setitem(METHODS, "mine", lambda: Method("mine", lambda outputs, context: {}))
    assert "its loss differ" in said(check_method, MINE)
    monkeypatch.setitem(METHODS, "strong", strong)
    assert "'b'" in said(check_method, strong()._replace(hyperparameters=dj.methods.base.Frozen({"b": 1})))


def test_right_methods():
    """Trained ones are checked where they take one class, and where they have a row."""
    for method in (editing(halved), "pour", functools.partial(dj.methods.esc, share=0.5)):
        assert check_method(method) is None


def test_a_method_that_takes_one_class_only():
    def check(num_classes, forget):
        if len(forget) != 1:
            raise ValueError("give one class")

    check_method(MINE._replace(check=check))
    assert "check refuses each of ((1, 2), (1,), (0,)) of 4 classes" in said(
        check_method, MINE._replace(check=lambda k, forget: check(k, ()))
    )


# --------------------------------------------------------------------------------------------------------- networks


class Odd(nn.Module):
    """A network with a mistake of the test's choice."""

    mistake: str = ""

    @nn.compact
    def __call__(self, x, train: bool):
        mean = self.variable("batch_stats", "mean", jnp.zeros, (1,))
        start = self.param(
            "start", nn.initializers.zeros, (1,)
        )  # hides what is behind it, as a trained network would not
        y = nn.Dense(8, name="first")(x.reshape(len(x), -1))
        if self.mistake == "batch statistics in evaluation" or (
            train and self.mistake == "statistics that do not follow"
        ):
            y = y - jnp.mean(y, 0, keepdims=True)
        if self.mistake == "the size of the batch":
            y = y + len(x)
        if train and not self.is_initializing() and self.mistake != "statistics that do not follow":
            mean.value = 0.9 * mean.value + 0.1 * jnp.mean(x)
        if self.mistake == "an unused parameter":
            self.param("unused", nn.initializers.ones, (3,))
        if self.mistake == "a gradient of NaN":
            y = y + jnp.sqrt(0 * jnp.sum(self.param("root", nn.initializers.ones, (1,))))
        return nn.Dense(4, name="head")(jnp.tanh(y) + start[None] * nn.Dense(8, name="behind")(y))


def odd(mistake="", **fields):
    module = Odd(mistake)
    model = models.from_linen(module)._replace(**fields)
    return model, module.init(jax.random.key(0), jnp.zeros((1, 6, 6, 1)), train=False)


RIGHT, VARIABLES = odd()
CALLS = itertools.count()


def scaled_params(variables, x, key):
    logits, updated = RIGHT.apply_train(variables, x, key)
    return logits, {**updated, "params": jax.tree.map(lambda leaf: 0.9 * leaf, updated["params"])}


def against_its_gradient(variables, x):
    logits = RIGHT.apply(variables, x)
    return 2 * jax.lax.stop_gradient(logits) - logits


def kept_count(variables, x):
    variables["params"]["head"]["bias"] = variables["params"]["head"]["bias"] + 1
    return RIGHT.apply(variables, x)


def noisy(variables, x):
    noise = jax.pure_callback(lambda: np.float32(next(CALLS)), jax.ShapeDtypeStruct((), jnp.float32))
    return RIGHT.apply(variables, x) + noise


def noisy_training(variables, x, key):
    return noisy(variables, x), RIGHT.apply_train(variables, x, key)[1]


BROKEN_NETWORKS = {
    "a tuple": (RIGHT._replace(apply=lambda v, x: (RIGHT.apply(v, x),)), "a check of dj.unlearn fails: the network's apply must answer with"),
    "a wide batch": (RIGHT._replace(apply=lambda v, x: RIGHT.apply(v, x)[:2]), "for 2 images|must answer|shape"),
    "probabilities": (RIGHT._replace(apply=lambda v, x: jax.nn.softmax(RIGHT.apply(v, x))), "answers with probabilities"),
    "another answer each time": (RIGHT._replace(apply=noisy), "depends on the other images in the batch, or on chance .*, draw nothing in apply"),
    "changed variables": (RIGHT._replace(apply=kept_count), "apply changes the variables that it is given"),
    "another shape in training": (
        RIGHT._replace(apply_train=lambda v, x, key: (RIGHT.apply(v, x)[:, :3], v)), r"apply_train answers with \[4, 3\], and apply with \[4, 4\]",
    ),
    "draws of its own": (RIGHT._replace(apply_train=noisy_training), "apply_train with the same key gives another answer"),
    "other parameters": (RIGHT._replace(apply_train=scaled_params), "apply_train returns other parameters: return those given"),
    "a classifier that is not there": (RIGHT._replace(classifier=("top",)), "finding its classifier fails: the classifier must be one kernel"),
    "a gradient of another sign": (RIGHT._replace(apply=against_its_gradient), "four steps do not lower DELETE's loss"),
    "batch statistics in evaluation": (None, "depends on the other images in the batch, or on chance .*: use running statistics in evaluation"),
    "statistics that do not follow": (None, "and no running statistics follow"),
    "the size of the batch": (None, "alone is another than in a batch"),
    "an unused parameter": (None, "no gradient reaches params/unused: use it, or keep it in another collection"),
    "a gradient of NaN": (None, "the gradient of params/root is NaN or infinite"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN_NETWORKS)
def test_a_broken_network(name):
    model, words = BROKEN_NETWORKS[name]
    model, variables = (model, VARIABLES) if model else odd(name)
    text = said(check_network, model, variables, (6, 6, 1))
    assert re.search(words, text), text


def test_maps_of_another_size():
    module = tiny.Segmenter()
    model, variables = tiny.network(module)
    half = Model(
        lambda v, x: model.apply(v, x)[:, ::2, ::2],
        lambda v, x, key: (model.apply_train(v, x, key)[0][:, ::2, ::2], model.apply_train(v, x, key)[1]),
    )
    assert "it answers at (3, 3) positions for images of (6, 6) pixels" in said(
        check_network, half, variables, (6, 6, 1)
    )


@pytest.mark.parametrize("shape", [(6, 6), (0, 6, 1), 6, "66a", (6, 6, 1.5)])
def test_no_shape(shape):
    assert "shape" in said(check_network, RIGHT, VARIABLES, shape)


def test_right_networks():
    assert check_network(RIGHT, VARIABLES, [6, 6, 1]) is None
    check_network(*tiny.network(tiny.Segmenter()), (6, 6, 1))


# ------------------------------------------------------------------------------------------------------------ tasks

TASK = TASKS["classification"]
DRAWN = np.random.default_rng(0)


@dataclasses.dataclass
class Settings:
    """A task's.

    often: how often.
    """

    often: int = 1


@dataclasses.dataclass
class Anything:
    """A task's.

    what: anything.
    """

    what: object = None


def other_data(config):
    found = TASK.load(config)
    images = found.dataset.train.images
    train = found.dataset.train._replace(images=images + DRAWN.integers(0, 2, images.shape, np.uint8))
    return found._replace(dataset=dataclasses.replace(found.dataset, train=train))


def planned(change):
    return lambda config, found: change(TASK.trainings(config, found))


def streamed(change):
    def streams(run, method, original):
        return {
            name: dict(stream) | change(name, stream) for name, stream in TASK.streams(run, method, original).items()
        }

    return streams


def shown_as(number, name):
    return lambda plan: [one._replace(shown_as=name) if i == number else one for i, one in enumerate(plan)]


TWO = {"original": {"acc_ft": 0.5}, "unlearned": {"acc_ft": 0.5}}
RIGHT_FIGURES = Measured(TWO, None, Split(np.zeros((1, 6, 6, 1), np.uint8), np.zeros(1, int)), "half of them")
BROKEN_TASKS = {
    "a class": (lambda: Settings, "check_task: it was given a type: give a tasks.Task"),
    "no word": (lambda: TASK._replace(name="my task"), "its name must be a word"),
    "the name of another": (lambda: TASK._replace(settings=Settings), r"TASKS\['classification'\] has other settings"),
    "no dataclass": (lambda: own(settings=dict), "settings is <class 'dict'>: it must be a dataclass"),
    "no default": (lambda: own(settings=dataclasses.make_dataclass("S", [("n", int)])), "S.n has no default"),
    "no meaning": (lambda: own(settings=dataclasses.make_dataclass("S", [("n", int, 1)])), "S.n has no meaning: add a line"),
    "another kind of answer": (lambda: TASK._replace(answers="sound"), "answers is 'sound': it must be one of image, pixel"),
    "an unknown reading": (lambda: TASK._replace(reads=("lr",)), r"reads is \('lr',\): it must be a tuple of some of mask"),
    "an unknown need": (lambda: TASK._replace(provides=("time",)), "provides is .* some of classes, maps, counterparts"),
    "data of its own": (lambda: own(prefix="mine:"), "it reads data of its own, mine:…: give a config with small ones"),
    "a default that is refused": (lambda: own(check=lambda config: [][0]), "validating a config fails: IndexError"),
    "a field of any type": (lambda: own(settings=Anything), "config.task.what of a wrong type must be refused by a ValueError that names it, got"),
    "other data each time": (lambda: own(load=other_data), "it loads other data the second time"),
    "a plan without an original": (lambda: own(trainings=planned(shown_as(0, ""))), "shown as '', 'retrained': show one as 'original'"),
    "a plan that shows one twice": (lambda: own(trainings=planned(lambda plan: [*plan, plan[1]._replace(name="b")])), "show none twice"),
    "a plan with a name twice": (lambda: own(trainings=planned(lambda plan: [*plan, plan[1]])), "name each once"),
    "a start that comes later": (
        lambda: own(trainings=planned(lambda plan: [plan[0]._replace(start="retrained"), plan[1]])), "starts from 'retrained', and before it are none",
    ),
    "a plan that fails": (lambda: own(trainings=lambda config, found: [Training("a")]), "its trainings fails: TypeError"),
    "a stream too many": (
        lambda: own(streams=lambda run, method, original: TASK.streams(run, method._replace(streams=(FORGET, REMAIN)), original)),
        "streams for a method that reads forget: it gives forget, remain",
    ),
    "streams of the original": (
        lambda: own(streams=lambda run, method, original: original["params"] and TASK.streams(run, method, original)),
        "streams for a method that reads forget fails: KeyError",
    ),
    "streams that are drawn": (
        lambda: own(streams=streamed(lambda name, stream: {"label": DRAWN.permutation(stream["label"])})), "others the second time",
    ),
    "no column": (lambda: own(streams=lambda run, method, original: {name: {"image": np.zeros((3, 6, 6, 1))} for name in method.streams}),
                  "forget has no column label, weight, erase"),
    "a short column": (lambda: own(streams=streamed(lambda name, stream: {"weight": stream["weight"][:-1]})), "must have one length above 0"),
    "no weights": (lambda: own(streams=streamed(lambda name, stream: {"weight": 0 * stream["weight"]})), "some above 0"),
    "a mask of numbers": (
        lambda: own(streams=streamed(lambda name, stream: {"erase": np.ones((len(stream["label"]), 4))})), "erase of forget is float64",
    ),
    "nothing to erase": (
        lambda: own(streams=streamed(lambda name, stream: {"erase": np.zeros((len(stream["label"]), 4), bool)})), "at each forget sample some",
    ),
    "a promise that is not kept": (lambda: own(provides=("classes", "counterparts")), "provides 'counterparts', and forget has no column"),
    "a measure that fails": (lambda: own(measure=lambda run, networks: 1 / 0), "a run fails: ZeroDivisionError"),
    "a line with its full stop": (
        lambda: own(measure=lambda run, networks: RIGHT_FIGURES._replace(metrics={name: {"acc_ft": 0.5} for name in networks}, summary="Done.")),
        "its summary is 'Done.'",
    ),
    "a measure that needs a reference": (
        lambda: own(measure=lambda run, networks: plainly(run, networks)._replace(notes=[str(networks["retrained"].seconds)])),
        "a run without references fails: KeyError: 'retrained'",
    ),
    "a page that is not there": (lambda: own(page="delete_jax.tasks.nowhere"), "a run fails: ModuleNotFoundError"),
}  # fmt: skip


def own(**fields):
    given = {"name": "own", "settings": Settings, "measure": plainly, "check": Task._field_defaults["check"]}
    return TASK._replace(**{**given, "try_out": Task._field_defaults["try_out"], **fields})


def plainly(run, networks):
    """As the task whose settings these are not."""
    return TASK.measure(run._replace(config=Config()), networks)


WHOLE_RUNS = {"a measure that needs a reference", "a page that is not there", "a measure that fails"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in WHOLE_RUNS else name for name in BROKEN_TASKS]
)
def test_a_broken_task(name):
    make, words = BROKEN_TASKS[name]
    tables = [dict(table) for table in (TASKS, models.NETWORKS)]
    text = said(check_task, make())
    assert re.search(words, text), text
    assert [dict(table) for table in (TASKS, models.NETWORKS)] == tables


@pytest.mark.slow
def test_a_page_with_two_verdicts(monkeypatch):
    """The run says that of its parts, and the same run again the other one."""
    module = types.ModuleType("two_verdicts")
    module.parts, module.verdict = page.parts, lambda record: page.verdict(record)._replace(label="Another")
    monkeypatch.setitem(sys.modules, "two_verdicts", module)
    assert "verdict(record) of its page says 'Another: Class" in said(check_task, own(page="two_verdicts"))


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        ({}, "its measure returns a dict: it must return a tasks.Measured"),
        (
            RIGHT_FIGURES._replace(metrics={**TWO, "another": {}}),
            "its measure has figures of original, unlearned, another: those of",
        ),
        (
            RIGHT_FIGURES._replace(metrics={**TWO, "original": {"mine": 1}}),
            "no figure of original is a row of metrics.MEASURES",
        ),
        (RIGHT_FIGURES._replace(metrics={**TWO, "original": {"acc_ft": "low"}}), "acc_ft of original is no number"),
        (
            RIGHT_FIGURES._replace(metrics={**TWO, "original": {"acc_ft": [0.5, 0.4]}}),
            "acc_ft of original is no number",
        ),
        (RIGHT_FIGURES._replace(summary="one\nanother"), "its summary is 'one"),
        (
            RIGHT_FIGURES._replace(erased=Split(np.zeros((0, 6, 6, 1)), np.zeros(0))),
            "its measure names no erased samples",
        ),
    ],
)
def test_broken_figures(measured, words):
    check_measured(Subject("task own"), RIGHT_FIGURES, TWO)
    assert words in said(check_measured, Subject("task own"), measured, TWO)
