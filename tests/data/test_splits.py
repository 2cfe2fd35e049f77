"""What is too little, too much or out of range is found before it is used."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from delete_jax.data import Dataset, Split, forget_remain, load, load_faces, missing
from delete_jax.data.drawn_faces import draw_faces
from delete_jax.data.memory import TooLarge, empty_images
from delete_jax.data.scenes import compose
from delete_jax.data.splits import check_splits


def split(*labels: int) -> Split:
    return Split(np.zeros((len(labels), 2, 2, 1), np.uint8), np.array(labels, np.int32))


def maps(*labels: int) -> Split:
    return Split(np.zeros((len(labels), 2, 2, 1), np.uint8), np.array([[[c, 255], [c, 0]] for c in labels], np.uint8))


def dataset(train: Split, validation: Split, test: Split, classes: int = 3) -> Dataset:
    names = tuple(f"class {i}" for i in range(classes))
    return Dataset("toy", train, validation, test, names, np.zeros(1, np.float32), np.ones(1, np.float32))


def test_missing():
    found = dataset(split(0, 1, 2), split(0, 1), split(0, 2))
    assert missing(found, [0]) == []
    assert missing(found, [1, 2, np.int64(5)]) == [
        ("train", 5), ("validation", 2), ("validation", 5), ("test", 1), ("test", 5),
    ]  # fmt: skip
    assert missing(dataset(maps(1), maps(2), maps(0)), [0, 1]) == [("validation", 1), ("test", 1)]


NOTHING_HELD_OUT = r"^toy: has 1 training image in {}, so that nothing can be held out for validation=0.1: add images"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((split(), split(), split(0)), "has no training samples"),
        ((split(0, 1, 2), split(0), split()), "has no test samples"),
        ((split(0, 1, 2), split(), split(0)), NOTHING_HELD_OUT.format("each class")),
        ((maps(0), maps(), maps(0)), NOTHING_HELD_OUT.format("all")),
        ((split(0, 2), split(0), split(0)), r"class 1 \(class 1\) has no training sample"),
        ((split(0, 1, 2, 3), split(0), split(0)), "a training sample has the label 3, and classes are 0 to 2"),
        ((split(0, 1, 2), split(0), split(-1)), "a test sample has the label -1"),
    ],
)
def test_splits_that_cannot_be_used(parts, message):
    with pytest.raises(ValueError, match=message):
        check_splits(dataset(*parts), 0.1)


def test_splits_that_can():
    check_splits(dataset(split(0, 1, 2), split(0), split(1)), 0.1)
    check_splits(dataset(split(0, 1, 2), split(), split(1)), 0)
    check_splits(dataset(maps(0), maps(0), maps(0)), 0.1)  # in maps a class may occur nowhere
    check_splits(dataset(split(0, 2), split(0), split(2)), 0.1, [1])
    with pytest.raises(ValueError, match=r"class 2 \(class 2\) has no training sample"):
        check_splits(dataset(split(0), split(0), split(0)), 0.1, [1])


@pytest.fixture
def folder(tmp_path):
    for part, counts in (("train", (1, 1)), ("test", (1, 1))):
        for name, count in zip("ab", counts, strict=True):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                Image.new("L", (2, 2), i).save(tmp_path / part / name / f"{i}.png")
    return tmp_path


def test_one_image_a_class(folder):
    with pytest.raises(ValueError, match=r"has 1 training image in each class, so .* one to hold out"):
        load(f"folder:{folder}")
    assert len(load(f"folder:{folder}", validation=0).train.labels) == 2
    Image.new("L", (2, 2)).save(folder / "train/b/1.png")
    assert load(f"folder:{folder}").validation.labels.tolist() == [1]


def test_one_image_a_person():
    few = {"pretrain": 2, "people": 2, "unseen": 1, "train_images": 1, "test_images": 1, "size": 8}
    with pytest.raises(ValueError, match=r"faces drawn, .*: has 1 training image in each class"):
        load_faces("drawn", **few)
    assert len(load_faces("drawn", **few, validation=0).people.train.labels) == 2


def test_more_classes_than_a_byte_has_beside_ignore():
    parts = maps(0), maps(0), maps(0)
    dataset(*parts, classes=255)
    with pytest.raises(ValueError, match="toy: has 256 classes; label maps can hold 255"):
        dataset(*parts, classes=256)
    with pytest.raises(ValueError, match="label maps can hold 255"):
        dataclasses.replace(dataset(*parts), class_names=tuple(map(str, range(300))))
    dataset(split(0), split(0), split(0), classes=300)


def test_scenes_need_their_garments():
    garments = Split(np.zeros((4, 28, 28, 1), np.uint8), np.arange(4, dtype=np.int32))
    with pytest.raises(ValueError, match="Fashion-MNIST has no 'Sandal'"):
        compose(garments, 2, 0)


FACES = {"pretrain": 2, "people": 2, "unseen": 2, "train_images": 2, "test_images": 1, "size": 8}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 8193}, "size=8193: give the side .*, and at most 8192"),
        ({"size": 10**30}, "size="),
        ({"size": 8.0}, r"size=8\.0: give the side of the images in pixels"),
        ({"size": 1}, "size=1: a face is drawn on at least 2 pixels"),
        ({"people": 10**9}, "at most 10000000 can be drawn: give fewer people or images"),
        ({"people": 10**5, "size": 8192}, r"take .* GiB, and this machine has .* GiB of memory: give a smaller size"),
        ({"people": 0}, "people=0: give how many, an integer from 1"),
        ({"pretrain": -1}, "pretrain=-1"),
        ({"unseen": True}, "unseen=True"),
        ({"train_images": 1.5}, r"train_images=1\.5"),
        ({"seed": 1.5}, r"seed=1\.5: give an integer from 0"),
        ({"validation": float("nan")}, "validation=nan"),
        ({"validation": "0.1"}, "validation='0.1'"),
    ],
)
def test_faces_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_faces("drawn", **FACES | changes)
    assert "\n" not in str(caught.value)


def test_no_name():
    for wrong in ("", None, 5):
        with pytest.raises(ValueError, match="give 'drawn', 'lfw', or the path"):
            load_faces(wrong, **FACES)
        with pytest.raises(ValueError, match="dataset"):
            load(wrong)


@pytest.mark.parametrize("size", [True, 2.0, "8", 10**6, -1])
def test_sizes_that_are_none(size):
    with pytest.raises(ValueError, match=rf"size={size!r}: give the side of the images"):
        load("voc:x", size=size)


def test_more_than_memory_holds(monkeypatch):
    with pytest.raises(TooLarge, match=r"^x: 1000000000x1000x1000x3 bytes of images take .* GiB"):
        empty_images((10**9, 1000, 1000, 3), "x")
    monkeypatch.setattr(
        "delete_jax.data.memory._physical_memory", lambda: 24
    )  # NumPy would give more: Linux promises it
    assert empty_images((2, 3, 4, 1), "x").shape == (2, 3, 4, 1)
    with pytest.raises(TooLarge, match="x: 5x5x1 bytes of images take"):
        empty_images((5, 5, 1), "x")
    monkeypatch.setattr("delete_jax.data.memory._physical_memory", lambda: 2**200)
    with pytest.raises(TooLarge):
        empty_images((10**9, 10**9, 10**9, 3), "x")
    with pytest.raises(TooLarge):
        empty_images((2**59, 1, 1, 3), "x")  # NumPy's own MemoryError


def test_numpy_numbers_count():
    assert draw_faces(range(2), np.int64(2), np.int64(8)).images.shape == (4, 8, 8, 3)
    found = load_faces("drawn", **{name: np.int64(value) for name, value in FACES.items()}, seed=np.int32(0))
    assert found.people.digest == load_faces("drawn", **FACES).people.digest


def test_a_split_without_samples_has_none_to_forget():
    """Such as held-out samples, of which a dataset may have none."""
    for labels in (np.zeros(0, np.int32), np.zeros((0, 4, 4), np.int32)):
        forget, remain = forget_remain(Split(np.zeros((0, 4, 4, 1), np.uint8), labels), [1])
        assert len(forget.labels) == len(remain.labels) == 0
