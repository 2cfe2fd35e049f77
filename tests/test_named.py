"""Requests by the names of images' files: of samples, of people and of classes."""

import pathlib
import pickle

import numpy as np
import pytest

from delete_jax import data, tasks
from delete_jax.config import Config, DataConfig
from delete_jax.data.dataset import hold_out, take
from delete_jax.data.names import look_up
from delete_jax.run import study
from delete_jax.tasks import Classification, Faces, Instances
from tests.test_command import make_images


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """Images in three classes, four to train on and two to test with in each; the same names in all."""
    root = tmp_path_factory.mktemp("named") / "images"
    make_images(root)
    return root


def test_a_split_keeps_the_names(folder):
    """Through holding out and choosing; unpacking gives images and labels as ever."""
    dataset = data.load(f"folder:{folder}", validation=0.25)
    splits = [dataset.train, dataset.validation, dataset.test]
    assert [len(split.files) for split in splits] == [9, 3, 6]
    names = {f"train/{name}/{i}.png" for name in ("ant", "bee", "cat") for i in range(4)}
    assert {*dataset.train.files, *dataset.validation.files} == names
    for split in splits:
        for image, label, file in zip(split.images, split.labels, split.files, strict=True):
            assert file.split("/")[1] == dataset.class_names[label]
            np.testing.assert_array_equal(np.asarray(data.folder._read(folder / file, None)), image)
    images, labels = dataset.train
    assert images is dataset.train.images
    assert dataset.train._fields == ("images", "labels")
    chosen = take(dataset.train, np.array([3, 1]))
    assert chosen.files == (dataset.train.files[3], dataset.train.files[1])
    assert data.forget_remain(dataset.train, [1])[0].files == tuple(f for f in dataset.train.files if "/bee/" in f)
    assert pickle.loads(pickle.dumps(chosen)).files == chosen._replace(images=chosen.images + 1).files == chosen.files
    assert hold_out(data.Split(images, labels), 0.5, 0)[0].files is None
    with pytest.raises(ValueError, match="files has 1 names for 9 images: give one for each"):
        data.Split(images, labels, ["a"])


def test_ends_of_paths():
    known = [("train/cat/1.jpg", 1), ("train/dog/1.jpg", 2), ("train/dog/21.jpg", 2), ("test/dog/1.jpg", 2)]
    assert look_up(["dog/1.jpg", "cat/1.jpg", "21.jpg"], known) == {"dog/1.jpg": 2, "cat/1.jpg": 1, "21.jpg": 2}
    with pytest.raises(ValueError) as caught:
        look_up(["og/1.jpg", "1.jpg", "", "2.jpg"], known)
    assert str(caught.value) == (
        "there is no image og/1.jpg, , 2.jpg; several images end in 1.jpg (such as train/cat/1.jpg and train/dog/1.jpg): write more of "
        "the path"
    )


def request(folder, listed: str, task, **data_settings) -> tasks.Data:
    (folder.parent / "list.txt").write_text(listed, encoding="utf-8")
    task.files = str(folder.parent / "list.txt")
    return tasks.load(
        Config(task=task, data=DataConfig(**{"name": f"folder:{folder}", "validation": 0.25} | data_settings))
    )


def test_samples(folder):
    train = data.load(f"folder:{folder}", validation=0.25).train.files
    listed = [train[5], train[0].removeprefix("train/")]
    found = request(folder, f"\ufeff./{listed[0]}\r\n\n  {listed[1]}\n", Instances())
    assert found.extra.tolist() == [0, 5]
    assert found.files == tuple(listed)


def test_classes(folder):
    """Of test images, too; a name that several images of one class have is enough."""
    found = request(folder, "test/bee/1.png\nant/0.png\n", Classification())
    assert found.forget == (0, 1)
    assert found.files == ("test/bee/1.png", "ant/0.png")


def test_people(tmp_path):
    """Those on the images, of the people that the network is taught."""
    rng = np.random.default_rng(0)
    from PIL import Image

    for i in range(6):
        (tmp_path / "people" / f"n{i}").mkdir(parents=True)
        for j in range(9 - i):
            pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "people" / f"n{i}" / f"{i}_{j}.jpg")
    sizes = {"pretrain": 2, "people": 2, "unseen": 2, "train_images": 3, "test_images": 1}
    name = {"name": f"faces:{tmp_path / 'people'}", "size": 8, "validation": 0.34}
    people = data.load_faces(str(tmp_path / "people"), size=8, validation=0.34, **sizes)
    taught = [*people.people.train.files, *people.people.validation.files, *people.people.test.files]
    assert {file.split("/")[0] for file in taught} == {"n2", "n3"}
    assert len(set(taught)) == 8
    assert {file.split("/")[0] for file in people.unseen.files} == {"n4", "n5"}
    (one,) = (file for file in people.people.test.files if file.startswith("n3/"))
    found = request(tmp_path / "people", f"{one.partition('/')[2]}\n", Faces(**sizes), **name)
    assert (found.forget, found.files) == ((1,), (one.partition("/")[2],))
    with pytest.raises(ValueError, match=r"list.txt: of faces .*people, to teach, there is no image n5/5_0.jpg"):
        request(tmp_path / "people", "n5/5_0.jpg\n", Faces(**sizes), **name)


BAD = {
    "missing and ambiguous": ("cat/9.png\n0.png\nbee/x.png\n", "there is no image cat/9.png, bee/x.png; several images end in 0.png"),
    "test images": ("test/cat/0.png\n", "of the training images of folder:{folder}, there is no image test/cat/0.png"),
    "held out": ("{held}\n", "{held} is held out for validation (1 such): leave it out if the original was not trained on it"),
    "twice": ("ant/0.png\nant/0.png\n", "lists ant/0.png twice: leave one out"),
    "one image, two names": ("{first}\ntrain/{first}\n", "two of its names are of one image"),
    "nothing": ("\n \n", "has no names: give a file with a name of an image a line"),
    "a whole class": ("{all}", "no training sample of class 0 (ant) would remain"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_lists(case, folder):
    """One line that names what is wrong, before anything is trained."""
    listed, words = BAD[case]
    dataset = data.load(f"folder:{folder}", validation=0.25)
    names = {
        "held": dataset.validation.files[0].removeprefix("train/"),
        "first": dataset.train.files[0].removeprefix("train/"),
        "all": "\n".join(file for file in dataset.train.files if "/ant/" in file),
        "folder": folder,
    }
    with pytest.raises(ValueError) as caught:
        request(folder, listed.format(**names), Instances())
    assert words.format(**names) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "config.task.files" in str(caught.value)


def test_images_of_no_files_and_lists_that_are_none(folder, tmp_path):
    with pytest.raises(ValueError, match="the images of digits come from no files: leave it out, and name numbers"):
        request(folder, "a.png\n", Classification(), name="digits")
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe")
    for path, words in (
        (tmp_path / "list.txt", "it is no text in UTF-8"),
        (tmp_path, "Is a directory"),
        ("no.txt", "No such file or directory"),
    ):
        with pytest.raises(ValueError, match=rf"config.task.files={path}: cannot be read \({words}\)"):
            tasks.load(
                Config(task=Instances(files=str(path)), data=DataConfig(name=f"folder:{folder}", validation=0.25))
            )


def test_a_study_names_classes():
    arguments = ["--config=digits", "--methods=delete", "--workdir=study", "--config.task.files=list.txt"]
    with pytest.raises(
        ValueError, match=r"config.task.files is 'list.txt': a study names classes: leave it out, and give --forget"
    ):
        study.parse(arguments)
