"""What is asked for: classes by number or name, methods, rates and sizes, of every kind that people bring."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

import delete_jax as dj
from delete_jax.network_check import UNRECOGNISED, as_is, check_evaluation, unrecognised
from delete_jax.options import Options
from delete_jax.request import check_forget, check_samples
from delete_jax.result import Watch, checked_watch
from delete_jax.streams import split_streams
from tests.tiny import NUM_CLASSES, network, samples

NAMES = ("ant", "bee", "cat", "bee fly")


@pytest.mark.parametrize(
    ("forget", "expected"),
    [
        (3, (3,)),
        ([3, 1, 3], (1, 3)),
        ([1, 0], (0, 1)),
        ([1, 1, 1], (1,)),
        ([0, 0, 2], (0, 2)),
        ({3}, (3,)),
        (range(1, 3), (1, 2)),
        ((class_ for class_ in (2, 0)), (0, 2)),
        (np.int64(2), (2,)),
        (jnp.int32(2), (2,)),
        (np.array([2, 0], np.uint8), (0, 2)),
        (jnp.array([2]), (2,)),
        ([np.int8(1), jnp.int32(2)], (1, 2)),
        (np.array(1), (1,)),
    ],
    ids=lambda value: f"{type(value).__name__} {value!r:.24}" if "object at" not in repr(value) else "generator",
)
def test_classes_by_number(forget, expected):
    found = check_forget(forget, 4)
    assert found == expected
    assert {type(class_) for class_ in found} == {int}


@pytest.mark.parametrize(
    ("forget", "words"),
    [
        (np.array([False, False, False, True]), "must hold numbers, got a mask of truth values"),
        (np.arange(32) % 4 == 3, "must hold numbers, got a mask of truth values"),
        ([0, 0, 0, 1], "forget must hold class numbers, and 4 numbers that are 0 or 1 may be a mask"),
        ((np.arange(32) % 4 == 3).astype(np.int64), "and 32 numbers that are 0 or 1 may be a mask"),
        ([True], "must be an integer, got True"),
        ([2.7], "must be an integer, got 2.7"),
        ([3.0], "must be an integer, got 3.0"),
        (np.array([1.0]), "must be an integer, got 1.0"),
        (float("inf"), "must be an integer, got inf"),
        (None, "must be an integer, got None"),
        ({3: "cat"}, "must be an integer, got {3: 'cat'}"),
        ([[1, 2]], r"must be an integer, got \[1, 2\]"),
        (np.ones((2, 2), int), r"an array of shape \(2, 2\)"),
        ("3", "class '3' cannot be looked up: give its number, or class_names"),
        (b"cat", "must be an integer, got b'cat'"),
        ([-1], "class -1 cannot be forgotten: the network has classes 0 to 3"),
        ([4], "class 4 cannot be forgotten"),
        ([10**30], "class 10+ cannot be forgotten"),
        ([], "no class to forget"),
        (range(4), "all 4 classes"),
    ],
    ids=str,
)
def test_what_is_no_class(forget, words):
    with pytest.raises(ValueError, match=words) as caught:
        check_forget(forget, 4)
    assert "\n" not in str(caught.value)


def test_classes_by_name():
    assert check_forget("cat", 4, NAMES) == (2,)
    assert check_forget(["bee fly", 0, "bee"], 4, NAMES) == (0, 1, 3)
    assert check_forget(np.array(["bee", "ant"]), 4, NAMES) == (0, 1)
    with pytest.raises(ValueError, match="class 'dog' is unknown: the classes are ant, bee, cat, bee fly"):
        check_forget(["dog"], 4, NAMES)
    with pytest.raises(ValueError, match="class 'a' stands for several classes"):
        check_forget(["a"], 3, ("a", "b", "a"))


def test_a_number_that_is_another_classes_name_is_refused():
    names = ("1", "2", "10")
    assert check_forget(["1"], 3, names) == (0,)
    assert check_forget([0], 3, names) == (0,)  # no class is called 0
    for number in (1, 2):
        if str(number) in names:
            with pytest.raises(ValueError, match=f"called '{number}' or number {number}, which is called"):
                check_forget([number], 3, names)
    assert check_forget([1], 3, ("0", "1", "2")) == (1,)  # it is the same class


def test_labels_of_maps_leave_room_for_the_ignored():
    images, maps = np.zeros((2, 4, 4, 1), np.uint8), np.zeros((2, 4, 4), np.int32)
    check_samples(images, maps, 255)
    with pytest.raises(ValueError, match="pixels to ignore with 255: a network of 256 classes"):
        check_samples(images, maps, 256)
    check_samples(images, np.array([255, 0]), 256)  # one label per image: 255 is a class
    with pytest.raises(
        ValueError, match=r"label -100 is outside .* 4 classes \(0 to 3, and 255 for pixels that do not count\)"
    ):
        check_samples(images, np.where(np.arange(4) == 1, -100, maps), 4)  # as PyTorch marks them


@pytest.fixture
def call():
    """A short run of the library call with something in place of its arguments."""
    model, variables = network()
    images, labels = samples(32)

    def run(**given):
        settings = {"forget": [1], "epochs": 1, "lr": 0.01, "batch_size": 8, "parallel": "jit"} | given
        return dj.unlearn(model, variables, images, labels, **{"method": "delete", "batch_norm": "train"} | settings)

    return run


def test_a_method_by_its_name(call):
    by_name, by_factory = call(method="random_label"), call(method=dj.methods.random_label())
    assert by_name.history == by_factory.history
    for method, words in (
        ("deleet", "unknown method 'deleet'"),
        (dj.methods.delete, r"call it, delete\(\)"),
        (5, "one of delete_jax.methods"),
    ):
        with pytest.raises(ValueError, match=words):
            call(method=method)


def test_numbers_of_numpy_and_jax(call):
    plain = call(epochs=2, lr=0.5, batch_size=8, seed=3)
    for kind in (np.int64, jnp.int32):
        other = call(epochs=kind(2), lr=np.float32(0.5), batch_size=kind(8), seed=kind(3))
        assert other.history == plain.history


BAD_OPTIONS = {
    "epochs": (0, -1, 1.5, 2.0, "2", True, float("nan"), 10**12),
    "steps": (0, -1, 1.5, 2.0, "2", True, float("nan"), 10**12),
    "batch_size": (0, -8, 8.0, "8", None, True, 10**12),
    "seed": (-1, 2**32, 1.5, "3", None, True),
    "lr": (0, -1, float("nan"), float("inf"), 1e39, 1e-50, 10**400, "x", 1j, True),
    "batch_norm": ("eval", None),
    "parallel": ("ddp", None),
    "finish": ("constant", 5),
    "preprocess": (5,),
    "augment": ("flip",),
    "evaluate": (5,),
    "progress": (5,),
    "tx": (0.9,),
    "log": ("metrics.jsonl",),
    "store": ("checkpoints",),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD_OPTIONS.items() for value in values])
def test_options_out_of_range_are_named(name, value):
    watch = [value if name == part else None for part in Watch._fields[:4]]
    make = (lambda: checked_watch(*watch)) if name in Watch._fields else (lambda: Options(**{name: value}))
    with pytest.raises(ValueError, match=f"{name}|learning rate|batch size".replace("_", ".")) as caught:
        make()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_samples_and_classes_are_those_of_the_network(call):
    names = ("ant", "bee", "cat", "dog")
    assert len(names) == NUM_CLASSES
    assert call(forget=["bee"], class_names=names).history == call(forget=[1]).history


@pytest.mark.parametrize(
    ("shape", "is_refused"),
    [
        ((1, 6, 6), True),
        ((3, 32, 32), True),
        ((3, 20, 30), True),
        ((1, 1, 64), False),  # a row of a table
        ((1, 3, 30), False),
        ((1, 50, 30), False),  # 50 steps of 30 numbers
        ((4, 4, 3), False),
        ((3, 3, 3), False),
        ((6, 6, 1), False),
    ],
)
def test_channels_first_are_refused_also_where_the_network_takes_them(shape, is_refused):
    """What turns, mirrors and shifts images would take channels for rows: of images that differ along columns alone, the anchors
    of `anchored` would be these images themselves."""

    def apply(variables, x):
        return x.reshape(len(x), -1) @ variables["params"]["w"]

    model = dj.Model(apply, lambda variables, x, key: (apply(variables, x), variables))
    given = model, {"params": {"w": np.ones((np.prod(shape), 4), np.float32)}}, np.zeros((8, *shape), np.float32), as_is
    if is_refused:
        said = r"seem to be \[c, h, w\].* images must be \[n, h, w, c\], channels last: give images.transpose\(0, 2, 3, 1\), and turn them"
        with pytest.raises(ValueError, match=said):
            check_evaluation(*given)
    else:
        assert check_evaluation(*given).shape == (2, 4)


# ------------------------------------------------------------------------------------- what a network does not know


def brightest():
    """A linear network that predicts the brightest of four pixels, which it knows, and its samples."""

    def apply(variables, x):
        return x.reshape(len(x), -1) @ variables["params"]["w"]

    model = dj.Model(apply, lambda variables, x, key: (apply(variables, x), variables))
    labels = np.arange(64) % 4
    images = np.eye(4, dtype=np.float32)[labels].reshape(64, 2, 2, 1)
    return model, {"params": {"w": 4 * np.eye(4, dtype=np.float32)}}, images, labels


def test_labels_that_number_the_classes_otherwise_are_warned_of(monkeypatch):
    """Training on samples of another class would leave the class that was asked for, and judge itself on these samples."""
    monkeypatch.setattr("delete_jax.sweeping.sweep_jobs", lambda jobs: [])  # before the next: it imports that
    monkeypatch.setattr("delete_jax.unlearning.unlearn_job", lambda job, watch: None)  # what is said stands before
    model, variables, images, labels = brightest()
    begin = f"^{UNRECOGNISED} 0% of the 16 samples of class 3 that were looked at, and takes most of the others for class 2: "
    with pytest.warns(UserWarning, match=begin) as caught:
        dj.unlearn(model, variables, images, (labels + 1) % 4, forget=3)
    assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", UNRECOGNISED)
        dj.unlearn(model, variables, images, labels, forget=3)
        dj.unlearn(model, variables, images, np.where(labels == 2, 3, labels), forget=3)  # it knows half of these
        dj.unlearn(model, variables, images[:4], (labels[:4] + 1) % 4, forget=3)  # of one sample
        dj.unlearn(model, variables, images, (labels + 1) % 4, forget=3, method="finetune")  # which reads none of them
        with pytest.warns(UserWarning, match="^class 3 was erased before: this request erases it again$"):
            dj.unlearn(model, variables, images, (labels + 1) % 4, forget=3, erased=3)
    requests = [(asked, name) for asked in (1, [2, 3]) for name in ("delete", "trew", "finetune")]
    with pytest.warns(UserWarning, match=UNRECOGNISED) as caught:  # once for each request
        dj.sweep(model, variables, images, (labels + 1) % 4, requests)
    said = [str(warning.message).partition(" that were")[0] for warning in caught]
    assert said == [
        f"{UNRECOGNISED} 0% of the {what}" for what in ("16 samples of class 1", "32 samples of classes 2, 3")
    ]


def test_pixels_that_a_network_does_not_know():
    def apply(variables, x):
        return x @ variables["params"]["w"]

    model = dj.Model(apply, lambda variables, x, key: (apply(variables, x), variables))
    variables = {"params": {"w": np.eye(4, dtype=np.float32)}}
    maps = np.random.default_rng(0).integers(0, 4, (12, 5, 5))
    images = np.eye(4, dtype=np.float32)[maps]
    maps[:, 0] = 255
    for forget, shift, share in (([1], 0, None), ([1], 1, "0%"), ([1, 2], 3, "0%")):
        labels = np.where(maps == 255, 255, (maps + shift) % 4)
        stream = split_streams(images, labels, forget, 4, ["forget"])["forget"]
        said = unrecognised(model, variables, stream, forget, as_is)
        assert said is None if share is None else said.startswith(f"{UNRECOGNISED} {share} of the ")
    assert unrecognised(model, variables, {name: column[:3] for name, column in stream.items()}, [1, 2], as_is) is None
