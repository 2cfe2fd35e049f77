"""People: drawn, in folders, from TFDS; who is chosen, and what is said where there are too few."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from delete_jax.data.drawn_faces import draw_faces
from delete_jax.data.faces import load_faces

FEW = {"pretrain": 1, "people": 2, "unseen": 1, "train_images": 3, "test_images": 1, "size": 8, "validation": 0.34}


def test_drawn_faces():
    faces = draw_faces(range(3, 6), 4, size=24)
    assert (faces.images.shape, faces.images.dtype, faces.labels.tolist()) == (
        (12, 24, 24, 3), np.uint8, [0] * 4 + [1] * 4 + [2] * 4,
    )  # fmt: skip
    again, other = draw_faces(range(3, 6), 4, size=24), draw_faces(range(3, 6), 4, size=24, seed=1)
    np.testing.assert_array_equal(faces.images, again.images)
    assert (faces.images != other.images).any((1, 2, 3)).all()
    np.testing.assert_array_equal(draw_faces(range(4, 5), 4, size=24).images, faces.images[4:8])
    # In the middle of the face a person is more like himself than like others.
    middle = faces.images[:, 8:18, 8:16].astype(float).mean((1, 2)).reshape(3, 4, 3)
    within = np.linalg.norm(middle - middle.mean(1, keepdims=True), axis=-1).mean()
    between = np.linalg.norm(middle.mean(1)[:, None] - middle.mean(1)[None], axis=-1).max()
    assert between > 2 * within


def write_people(root: Path, counts: dict[str, int]) -> None:
    for i, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for j in range(count):
            pixels = np.full((20, 30, 3), (40 * i + j) % 256, np.uint8)
            pixels[:, :5] = pixels[:, -5:] = 255  # outside the middle square
            Image.fromarray(pixels).save(root / name / f"{j:04d}_01.png")


def test_people_in_folders(tmp_path):
    write_people(tmp_path, {"n1": 4, "n2": 6, "n3": 3, "n4": 5, "n5": 4})
    (tmp_path / "n2" / "notes.txt").write_text("no image")
    faces = load_faces(str(tmp_path), **FEW)
    assert faces.pretrain.class_names == ("n2",)  # by the number of images, then by name
    assert faces.people.class_names == ("n4", "n1")
    assert [len(split.labels) for split in (faces.people.train, faces.people.validation, faces.people.test)] == [
        4,
        2,
        2,
    ]
    shades = [{int(v) // 40 for v in split.images[split.labels == 0][:, 0, 0, 0]} for split in
              (faces.people.train, faces.people.test)]  # fmt: skip
    assert shades == [{3}, {3}]
    assert set(faces.unseen.images.ravel() // 40) == {4}
    assert faces.people.train.images.shape[1:] == (8, 8, 3)
    assert faces.people.train.images.max() < 250
    np.testing.assert_array_equal(faces.people.mean, faces.pretrain.mean)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"n1": 9, "n2": 5, "n3": 4}, r"4 people with 4 images each are needed .* 3 have so many"),
        ({"n1": 9, "n2": 9, "n3": 4, "n4": 3}, r"3 have so many; the 4 largest have 9 to 3: ask for fewer"),
        ({}, "no such folder"),
    ],
)
def test_too_few(tmp_path, counts, message):
    write_people(tmp_path / "people", counts)
    with pytest.raises(ValueError, match=message) as caught:
        load_faces(str(tmp_path / "people"), **FEW)
    assert "\n" not in str(caught.value)


def test_damaged_face(tmp_path):
    write_people(tmp_path, {f"n{i}": 4 for i in range(4)})
    path = tmp_path / "n2" / "0001_01.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"n2/0001_01\.png: cannot be read"):
        load_faces(str(tmp_path), **FEW)


def test_lfw(tmp_path):
    import tensorflow_datasets as tfds

    class Lfw(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """The features of TFDS' lfw."""

        VERSION = tfds.core.Version("0.1.1")

        def _info(self):
            features = {"label": tfds.features.Text(), "image": tfds.features.Image(shape=(250, 250, 3))}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(20):
                file = io.BytesIO()
                Image.fromarray(np.full((250, 250, 3), 40 * (i % 4), np.uint8)).save(file, "PNG")
                file.seek(0)
                yield i, {"label": f"Person_{i % 4}", "image": file}

    Lfw(data_dir=tmp_path, file_format="array_record").download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )
    faces = load_faces("lfw", data_dir=str(tmp_path), **FEW)
    assert faces.people.class_names == ("Person_1", "Person_2")
    assert set(faces.people.test.images.ravel()) == {40, 80}
    with pytest.raises(ValueError, match=r"lfw: .* does not exist; run pip install"):
        load_faces("lfw", data_dir=str(tmp_path / "nothing"), **FEW)


@pytest.mark.parametrize(("name", "option"), [("drawn", "data_dir"), ("drawn", "source"), ("lfw", "source")])
def test_an_option_that_would_not_count(name, option):
    with pytest.raises(ValueError, match=f"{option}='x' does not count for the dataset of faces {name}"):
        load_faces(name, **FEW, **{option: "x"})


def test_what_is_no_image_of_people(tmp_path):
    write_people(tmp_path, {f"n{i}": 4 for i in range(4)})
    expected = load_faces(str(tmp_path), **FEW)
    for junk in ("._0000_01.png", ".DS_Store", "Thumbs.db"):
        (tmp_path / "n1" / junk).write_bytes(b"\0\5\x16\7")
    (tmp_path / "__MACOSX" / "n1").mkdir(parents=True)
    (tmp_path / "README.txt").touch()
    found = load_faces(str(tmp_path), **FEW)
    assert found.people.digest == expected.people.digest


@pytest.mark.parametrize(
    ("where", "spoil", "message"),
    [
        ("n1/x.gif", Path.touch, r"n1/x\.gif: would be passed over"),
        ("n1/x.png", os.mkfifo, r"n1/x\.png: is no file"),
        (
            "n1/sub/0000_01.png",
            lambda p: shutil.copytree(p.parents[1], p.parent),
            r"n1/sub/.*: would be passed over \(4 such",
        ),
        ("x.png", lambda p: shutil.copy(p.with_name("n1") / "0000_01.png", p), r"/x\.png: would be passed over"),
        ("n1", lambda p: os.rename(p, os.fsencode(p) + b"\xff"), "its name is not UTF-8"),
    ],
)
def test_people_that_would_be_lost(tmp_path, where, spoil, message):
    write_people(tmp_path, {f"n{i}": 4 for i in range(4)})
    spoil(tmp_path / where)
    with pytest.raises(ValueError, match=message) as caught:
        load_faces(str(tmp_path), **FEW)
    assert str(caught.value).isprintable()


def test_grey_and_sideways_faces(tmp_path):
    pixels = np.zeros((20, 20), np.uint8)
    pixels[:10] = 200
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    for i in range(4):
        (tmp_path / f"n{i}").mkdir()
        for j in range(4):
            Image.fromarray(pixels).save(tmp_path / f"n{i}" / f"{j}.png", exif=exif)
    faces = load_faces(str(tmp_path), **FEW)
    assert (faces.unseen.images[:, 0] == 0).all()
    assert (faces.unseen.images[:, 7] == 200).all()
