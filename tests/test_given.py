"""What callers pass in: the right value or one line, by the same rule at every door."""

import enum
import pathlib
import types

import jax.numpy as jnp
import numpy as np
import pytest

import delete_jax as dj
from delete_jax.class_names import class_names, read_class_names
from delete_jax.columns import Rows
from delete_jax.given import array, class_numbers, integer, listed, path, scalar
from delete_jax.request import known_requests
from delete_jax.watchdog import watched
from tests import tiny


class Tensor:
    """As PyTorch's: it can be indexed with, also where it is a truth value."""

    def __init__(self, values, dtype, **kinds):
        self.values, self.dtype, self.ndim, self.shape = np.asarray(values), dtype, np.ndim(values), np.shape(values)
        self.is_meta, self.is_quantized, self.layout = False, False, "torch.strided"
        vars(self).update(kinds)

    def __index__(self):
        return int(self.values)

    def __iter__(self):
        return (Tensor(value, self.dtype) for value in self.values)

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")

    def detach(self):
        return self

    cpu = resolve_conj = resolve_neg = detach

    def float(self):
        return Tensor(self.values.astype(np.float32), "torch.float32")

    def numpy(self):
        return self.values

    def item(self):
        return self.values.item()


Tensor.__module__ = "torch"


def test_arrays():
    for value in ([[1, 2]], np.array([[1, 2]], ">i4"), jnp.array([[1, 2]]), Tensor([[1, 2]], "torch.int64")):
        found = array(value, "labels")
        assert isinstance(found, np.ndarray)
        assert found.dtype.isnative
        assert found.tolist() == [[1, 2]]
    two = [Tensor([1, 2], "torch.int64"), Tensor([3, 4], "torch.int64")]
    assert array(two, "labels").tolist() == [[1, 2], [3, 4]]
    assert array(Tensor([0.5], "torch.bfloat16"), "images").dtype == np.float32


masked = np.ma.masked_array([1, 2, 3], [False, True, False])


class Masking:
    def __array__(self, dtype=None, copy=None):
        return masked


NO_ARRAYS = {
    "masked": (masked, "labels must not be a masked array, whose mask would be lost: fill it"),
    "a list of masked ones": ([masked, masked], "must not be a masked array"),
    "masked ones in lists of lists": ([[[1], masked], [[2], [3]]], "must not be a masked array"),
    "a class that gives one": (Masking(), "must not be a masked array"),
    "a masked number": (np.ma.masked, "must not be a masked array"),
    "sparse": (Tensor([1], "torch.int64", layout="torch.sparse_coo"), r"a dense tensor, got a sparse_coo one \(torch.int64\)"),
    "meta": (Tensor([1], "torch.int64", is_meta=True), "a dense tensor, got a meta one"),
    "quantised": (Tensor([1], "torch.qint8", is_quantized=True), "a dense tensor, got a quantised one"),
    "an object": (object(), "labels must be an array, got a object"),
    "ragged": ([[1, 2], [3]], "labels cannot be read as an array"),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_ARRAYS)
def test_what_is_no_array(name):
    value, words = NO_ARRAYS[name]
    with pytest.raises(ValueError, match=words) as caught:
        array(value, "labels")
    assert "\n" not in str(caught.value)


TRUTHS = [True, np.True_, np.array(True), jnp.array(True), Tensor(True, "torch.bool"), np.ma.masked_array(1, True)]


@pytest.mark.parametrize("value", [*TRUTHS, 1.0, "1", None, b"1", [1]])
def test_what_is_no_integer(value):
    with pytest.raises(ValueError, match="epochs must be an integer, got "):
        integer("epochs", value)


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), np.array(3), jnp.array(3), Tensor(3, "torch.int64")])
def test_integers_and_numbers(value):
    assert integer("epochs", value) == scalar(value) == 3
    assert class_numbers(value) == class_numbers([value]) == class_numbers({3}) == [3]


MASKS = [
    np.array([False, True]), jnp.array([False, True]), Tensor([False, True], "torch.bool"), [False, True],
    [np.False_, np.True_], [Tensor(False, "torch.bool"), Tensor(True, "torch.bool")], np.array([False, True], object),
    np.ma.masked_array([0, 1], [True, False]),
]  # fmt: skip


@pytest.mark.parametrize("mask", MASKS, ids=lambda value: type(value).__name__)
def test_a_mask_is_no_list_of_numbers(mask):
    network, (images, labels) = tiny.network(), tiny.samples(8)
    for call in (
        lambda: class_numbers(mask, 4),
        lambda: dj.unlearn(*network, images, labels, forget=mask, **tiny.PAPER),
        lambda: dj.unlearn(*network, images, labels, forget_indices=mask, **tiny.PAPER),
        lambda: dj.sweep(*network, images, labels, [dj.Request(mask, method="delete", lr=1e-3)], batch_norm="train"),
        lambda: dj.sweep(*network, images, labels, mask, batch_norm="train"),
    ):
        with pytest.raises(ValueError, match=r"truth values|integer|masked"):
            call()


def test_a_mask_of_zeros_and_ones_is_no_list_of_numbers():
    mask = np.array([0, 0, 1, 0], np.uint8)
    for call in (
        lambda: class_numbers(mask, 4),
        lambda: known_requests((), mask, 4),
        lambda: dj.metrics.absorbed_by(np.eye(4, dtype=int), mask.tolist()),
        lambda: dj.models.without_classes(tiny.network()[0], mask),
        lambda: dj.data.forget_remain(dj.data.Split(*tiny.samples(8)), mask),
    ):
        with pytest.raises(
            ValueError, match=r"^(forget|erased|classes) must hold class numbers, and 4 numbers that are 0 or 1 may"
        ):
            call()


def test_lists():
    assert listed(range(2), "x") == listed(np.arange(2), "x") == listed(Tensor([0, 1], "torch.int64"), "x") == [0, 1]
    assert listed("ab", "x") == ["ab"]
    assert listed(np.array(3), "x") == [3]
    with pytest.raises(ValueError, match=r"x must be a list of numbers, got an array of shape \(1, 2\)"):
        listed(np.array([[1, 2]]), "x")


# -------------------------------------------------------------------------------------------------------- class names

NAMES = ("ant", "bee", "cat")


@pytest.mark.parametrize(
    "names",
    [
        NAMES, list(NAMES), np.array(NAMES), iter(NAMES), dict.fromkeys(NAMES).keys(), {"cat": 2, "ant": 0, "bee": np.int64(1)},
        {2: "cat", 0: "ant", 1: "bee"}, {"0": "ant", "2": "cat", "1": "bee"}, types.MappingProxyType({0: "ant", 1: "bee", 2: "cat"}),
    ],
)  # fmt: skip
def test_names(names):
    found = class_names(names, 3)
    assert found == NAMES
    assert {type(name) for name in found} == {str}


WRONG_NAMES = {
    "too many": ([*NAMES, "dog"], "4 names for 3 classes: give one for each"),
    "too few": (NAMES[:2], "2 names for 3 classes"),
    "a string": ("abc", "must be a list with the name of class i at position i, or a dict of numbers and names, got 'abc'"),
    "bytes": (b"abc", "must be a list"),
    "a set": (set(NAMES), "must be a list"),
    "a number": (5, "must be a list"),
    "numbers": ([0, 1, 2], "must be strings: that of class 0 is 0"),
    "bytes inside": ([b"ant", "bee", "cat"], "must be strings: that of class 0 is b'ant'"),
    "none inside": (["ant", None, "cat"], "must be strings: that of class 1 is None"),
    "empty": (["ant", " ", "cat"], "the name of class 1 is empty"),
    "a mark": (["\ufeffant", "bee", "cat"], "the name of class 0 begins with a byte order mark"),
    "numbered": (["0 ant", "1 bee", "2 cat"], "have their numbers in front, such as '0 ant': give the names alone"),
    "numbered from 1": (["1: ant", "2: bee", "3: cat"], "have their numbers in front"),
    "a tab": (["ant\t0", "bee", "cat"], "the name of class 0 holds a tab or a line break"),
    "a dict with a gap": ({0: "ant", 1: "bee", 3: "cat"}, "must have the numbers 0 to 2, each once"),
    "a dict with a mask": ({"ant": False, "bee": True, "cat": 2}, "the number of a class must be an integer, got False"),
    "a dict of both": ({"ant": 0, 1: "bee", "cat": 2}, "must be an integer, got 'bee'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_NAMES)
def test_what_are_no_names(name):
    names, words = WRONG_NAMES[name]
    with pytest.raises(ValueError, match=words) as caught:
        class_names(names, 3)
    assert "\n" not in str(caught.value)
    images, labels = tiny.samples(8, num_classes=3)
    network = tiny.network(tiny.Net(3))
    for call in (
        lambda: dj.unlearn(*network, images, labels, forget="bee", class_names=names, **tiny.PAPER),
        lambda: dj.sweep(
            *network,
            images,
            labels,
            [dj.Request("bee", method="delete", lr=1e-3)],
            class_names=names,
            batch_norm="train",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            call()


class Animal(str, enum.Enum):  # noqa: UP042  # a StrEnum says its value by itself
    ANT = "ant"
    BEE = "bee"
    CAT = "cat"


def test_names_that_look_like_others():
    """Of an Enum its values; torchvision's MNIST has a dash behind the number."""
    assert class_names(list(Animal), 3) == NAMES
    assert class_names(["0 - zero", "1 - one", "2 - two"], 3) == ("0 - zero", "1 - one", "2 - two")


def test_a_name_of_two_classes():
    """ImageNet has two cranes: nobody can know which is meant."""
    assert class_names(["crane", "bee", "crane"], 3) == ("crane", "bee", "crane")
    images, labels = tiny.samples(8, num_classes=3)
    with pytest.raises(ValueError, match="class 'crane' stands for several classes: give its number"):
        dj.unlearn(*tiny.network(tiny.Net(3)), images, labels, forget="crane", class_names=["crane", "bee", "crane"])


def test_a_file_of_names(tmp_path):
    path = tmp_path / "names.txt"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_bytes("ant\r\nbée\n\n cat \n".encode(encoding))
        assert read_class_names(path) == ["ant", "bée", "cat"]
    for content, words in (
        ("bée".encode("latin-1"), "is not encoded in UTF-8"),
        (b"a\0b", "it holds binary data"),
        (b'["ant",\n"bee"]', "but JSON or the like"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"names.txt .*{words}"):
            read_class_names(path)
    with pytest.raises(ValueError, match="cannot be read"):
        read_class_names(tmp_path)


# ------------------------------------------------------------------------------------------- images, weights, requests


class Source:
    def __init__(self, images, give=lambda found: found, dtype=None):
        self.images, self.give, self.shape, self.dtype = images, give, images.shape, dtype or images.dtype

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.give(self.images[index])


def test_sources():
    images, _ = tiny.samples(8)
    for source in (Source(images.astype(">f4")), Source(images, lambda found: found.astype(np.float64))):
        found = Rows(source)[2:4]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, images[2:4])
    memory = np.zeros((4, *images.shape[1:]), np.float32)

    def into_the_same(found):
        memory[: len(found)] = found
        return memory[: len(found)]

    source = Rows(Source(images, into_the_same))
    first, second = source[:4], source[4:8]
    np.testing.assert_array_equal(np.concatenate([first, second]), images)
    for give, words in (
        (lambda found: found[:1], r"gave float32 \[1, 6, 6, 1\] where it said float32 \[2, 6, 6, 1\]"),
        (lambda found: found.astype(np.int32).astype(complex), "gave complex128"),
        (np.ma.masked_array, "images must not be a masked array"),
    ):
        with pytest.raises(ValueError, match=words):
            Rows(Source(images, give))[2:4]
    with pytest.raises(ValueError, match="a dtype of NumPy, got a Source"):
        Rows(Source(images, dtype="torch.float32"))


W = np.random.default_rng(0).normal(size=(36, 4)).astype(np.float32)
WEIGHTS = {
    "int8": (W.astype(np.int8), "floating-point numbers of 16 bits or more: params/w is int8"),
    "bool": (W > 0, "params/w is bool"),
    "complex": (W.astype(complex), "params/w is complex128"),
    "float8": (jnp.asarray(W, jnp.float8_e4m3fn), "params/w is float8_e4m3fn"),
    "objects": (W.astype(object), "params/w is object"),
    "text": (W.astype(str), "params/w is <U"),
    "masked": (np.ma.masked_array(W, W > 0), "params/w is a masked array"),
    "a tensor": (Tensor(W, "torch.float32"), "params/w is a Tensor: convert the network by models.from_torch"),
    "a list": (W.tolist(), "variables must hold arrays of NumPy or JAX: params/w/0/0 is a float"),
    "swapped bytes": (W.astype(">f4"), r"params/w is >f4; convert it, such as .astype\('float32'\)"),
}


def plain():
    """A linear network for tiny images, and samples for it."""

    def apply(variables, x):
        return x.reshape(len(x), -1) @ variables["params"]["w"]

    model = dj.Model(apply, lambda variables, x, key: (apply(variables, x), variables))
    return model, {"params": {"w": np.eye(36, 4, dtype=np.float32)}}, tiny.samples(8)


def evaluation():
    model, variables, samples = plain()
    return dj.evaluate(model, {"original": variables, "unlearned": variables}, train=samples, test=samples, forget=1)


def study(**more):
    model, variables, samples = plain()
    given = {"forget": [1], "methods": ["delete"], "epochs": 1, "batch_size": 8, "lr": 0.1, "seeds": 1}
    return dj.study(model, variables, train=samples, test=samples, **{"batch_norm": "train"} | given | more)


NET = dj.models.ResNet(3, stages=(1,), features=(4,))
FACES = {"pretrain": 2, "people": 2, "unseen": 2, "train_images": 2, "test_images": 1}
PATHS = {
    "save_torch": lambda given: dj.models.save_torch(NET, {}, given),
    "load_torch": lambda given: dj.models.load_torch(NET, given),
    "save_exported": lambda given: dj.models.save_exported(*plain()[:2], given, (6, 6, 1)),
    "report": lambda given: dj.report(evaluation(), given),
    "study": lambda given: study(store=given),
    "Checkpoints": lambda given: dj.Checkpoints(given),
    "watched": lambda given: watched(lambda: 0, given),
    "data.load": lambda given: dj.data.load("digits", data_dir=given),
    "data.load, source": lambda given: dj.data.load("fashion_mnist", source=given),
    "data.load, name": lambda given: dj.data.load(given),
    "data.load_faces": lambda given: dj.data.load_faces(given, **FACES),
}


class Bytes:
    def __fspath__(self):
        return b"a"


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("given", [5, b"a", ["a"], 0.5, True, object()], ids=lambda given: type(given).__name__)
def test_what_is_no_path(name, given):
    with pytest.raises(ValueError) as caught:
        PATHS[name](given)
    assert "\n" not in str(caught.value)


def test_paths():
    """As they are given: text, or what makes text of itself."""
    assert path("path", "a/b.jax") == path("path", pathlib.Path("a", "b.jax")) == pathlib.Path("a/b.jax")
    for wrong in ("", "a\0b", "a\udcff", b"a", Bytes(), None):
        with pytest.raises(ValueError, match=r"path must be a path: text in UTF-8, or a pathlib\.Path, got "):
            path("path", wrong)


SEEDS = {
    "unlearn": lambda seed: dj.unlearn(
        *plain()[:2], *tiny.samples(8), forget=1, epochs=1, batch_size=8, seed=seed, **tiny.PAPER
    ),
    "study": lambda seed: study(seeds=[seed]),
    "load_torch": lambda seed: dj.models.load_torch(NET, {}, 3, new_head=True, seed=seed),
    "init": lambda seed: dj.models.init(NET, (8, 8, 3), seed),
    "data.load": lambda seed: dj.data.load("digits", seed=seed),
    "data.load_faces": lambda seed: dj.data.load_faces("drawn", seed=seed, **FACES),
    "draw_few": lambda seed: dj.metrics.draw_few([0, 1], 1, seed=seed),
    "membership": lambda seed: dj.metrics.membership(*[np.full((4, 2), 0.5), [0, 1, 0, 1]] * 3, seed=seed),
}


@pytest.mark.parametrize("name", SEEDS)
@pytest.mark.parametrize("seed", ["x", "3", 1.5, None, -1, [1], True, np.float32(2)], ids=repr)
def test_what_is_no_seed(name, seed):
    with pytest.raises(ValueError, match="seed") as caught:
        SEEDS[name](seed)
    assert "\n" not in str(caught.value)


def test_seeds_are_read_alike():
    expected = dj.models.init(NET, (8, 8, 3), 3)["params"]["fc"]["kernel"]
    for seed in (np.int64(3), jnp.int32(3), np.array(3)):
        assert np.array_equal(dj.models.init(NET, [8, np.int64(8), 3], seed)["params"]["fc"]["kernel"], expected)
    for seed in (2**32, 2**70):
        with pytest.raises(ValueError, match="seed must be at least 0 and at most 4294967295"):
            dj.models.init(NET, (8, 8, 3), seed)


@pytest.mark.parametrize("shape", [5, "abc", None, (), (8, 8, 3.0), (0, 8, 3), (8, 8, -3)], ids=repr)
def test_what_is_no_image_shape(shape):
    for read in (lambda: dj.models.init(NET, shape, 0), lambda: dj.models.shapes(NET, shape)):
        with pytest.raises(ValueError, match=r"image_shape=.*: give positive integers"):
            read()


def test_what_is_given_to_a_study():
    for given, words in (
        ({"seeds": []}, "seeds is empty"),
        ({"seeds": 2**70}, "seeds must be at least 1 and at most 1000000"),
        ({"on_cell": 5}, "on_cell must be a function, got 5"),
    ):
        with pytest.raises(ValueError, match=words):
            study(**given)
    with pytest.raises(ValueError, match="give a function"):
        watched(5, "logs")


@pytest.mark.parametrize("name", WEIGHTS)
def test_what_are_no_weights(name):
    weights, words = WEIGHTS[name]
    images, labels = tiny.samples(8)

    def apply(variables, x):
        return x.reshape(len(x), -1) @ variables["params"]["w"]

    model = dj.Model(apply, lambda variables, x, key: (apply(variables, x), variables))
    for call in (
        lambda: dj.unlearn(model, {"params": {"w": weights}}, images, labels, forget=[1], **tiny.PAPER),
        lambda: dj.sweep(model, {"params": {"w": weights}}, images, labels, [[1]], batch_norm="train"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_numbers_that_jax_cannot_hold():
    """Integers beyond int32 beside the weights, and images beyond float32."""
    (model, variables), (images, labels) = tiny.network(), tiny.samples(8)
    with pytest.raises(ValueError, match="counts/n holds numbers beyond int32"):
        dj.unlearn(model, {**variables, "counts": {"n": np.int64(2**40)}}, images, labels, forget=[1])
    wide = images.astype(np.float64)
    wide[-1, 0, 0] = -1e300
    with pytest.raises(ValueError, match="values beyond float32"):
        dj.unlearn(model, variables, wide, labels, forget=[1])


def test_images_and_labels_of_other_kinds():
    """Swapped bytes, tensors and memory maps give what the array gives."""
    network, (images, labels) = tiny.network(), tiny.samples(16)
    settings = {"forget": [1], "epochs": 1, "lr": 0.05, "batch_size": 8, "parallel": "jit"}
    expected = dj.unlearn(*network, images, labels, **settings, method="delete", batch_norm="train").history
    for some, numbers in (
        (images.astype(">f4"), labels.astype(">i8")),
        (Tensor(images, "torch.float32"), Tensor(labels, "torch.int64")),
        (Rows(Source(images.astype(">f4"))), labels),
    ):
        assert dj.unlearn(*network, some, numbers, **settings, method="delete", batch_norm="train").history == expected
    numbers = settings | {name: Tensor(settings[name], "torch") for name in ("epochs", "lr", "batch_size")}
    assert (
        dj.unlearn(*network, images, labels, **{"method": "delete", "batch_norm": "train"} | numbers).history
        == expected
    )
    for some, numbers in ((np.ma.masked_array(images), labels), (images, np.ma.masked_array(labels))):
        with pytest.raises(ValueError, match="must not be a masked array"):
            dj.unlearn(*network, some, numbers, **settings)


@pytest.mark.parametrize(
    "options",
    [
        {"class_names": 5}, {"parallel": np.array(["jit"])}, {"mask": np.array(["union"])}, {"pixels": 3}, {"batch_norm": ["train"]},
        {"finish": np.array("zero")}, {"epochs": Tensor(True, "torch.bool")}, {"lr": np.ma.masked}, {"preprocess": "x"},
    ],
)  # fmt: skip
def test_options_of_other_types(options):
    images, labels = tiny.samples(8)
    given = {"forget": "bee" if "class_names" in options else [1], **options}
    with pytest.raises(ValueError, match=next(iter(options)).split("_")[0].replace("lr", "rate")) as caught:
        dj.unlearn(*tiny.network(), images, labels, **given)
    assert "\n" not in str(caught.value)
