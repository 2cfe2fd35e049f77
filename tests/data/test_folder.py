"""Images in folders."""

import contextlib
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from delete_jax.data import forget_remain, load, split_digest


def write_image(path: Path, mode: str = "RGB", size: tuple[int, int] = (6, 4), value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(value).integers(0, 256, (*size[::-1], 3), np.uint8)
    image = Image.fromarray(noise[..., 0].astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(noise)
    (image if mode == "I;16" else image.convert(mode)).save(path)


@pytest.fixture
def folder(tmp_path) -> Path:
    for label, name in enumerate(("cat", "ant", "bee")):
        for split, count in (("train", 3), ("test", 2)):
            for i in range(count):
                write_image(tmp_path / split / name / f"{i}.png", value=100 * label + i)
    return tmp_path


def test_folder(folder):
    write_image(folder / "train/bee/extra.JPG")
    write_image(folder / "train/bee/extra2.jpeg")
    (folder / "train/bee/notes.txt").touch()
    (folder / "train/.hidden").mkdir()
    dataset = load(f"folder:{folder}", validation=0)
    assert dataset.class_names == ("ant", "bee", "cat")
    assert dataset.train.images.shape == (11, 4, 6, 3)
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2]
    assert dataset.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    with Image.open(folder / "test/cat/1.png") as image:
        assert (dataset.test.images[5] == np.asarray(image)).all()


def test_grey_images_have_one_channel(tmp_path):
    for split in ("train", "test"):
        write_image(tmp_path / split / "one" / "a.png", mode="L")
        write_image(tmp_path / split / "two" / "a.png", mode="L", value=1)
    assert load(f"folder:{tmp_path}", validation=0).train.images.shape == (2, 4, 6, 1)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize(
    ("where", "spoil", "message"),
    [
        ("train/cat/1.png", truncate, "cannot be read as an image"),
        ("test/cat/1.png", lambda p: p.write_bytes(b"no image"), "cannot be read as an image"),
        ("test/ant/0.png", lambda p: p.write_bytes(b""), "cannot be read as an image"),
        ("train/bee/2.png", lambda p: write_image(p, size=(5, 4)), "is 5x4 RGB, and .*train/ant/0.png is 6x4 RGB"),
        ("test/bee/1.png", lambda p: write_image(p, mode="L"), "is 6x4 grey, and .* is 6x4 RGB"),
        ("test/bee/1.png", lambda p: write_image(p, mode="RGBA"), "has mode RGBA; convert it"),
        ("train/bee/1.png", lambda p: write_image(p, mode="P"), "has mode P; convert it"),
        ("test/dog", lambda p: write_image(p / "0.png"), "has no counterpart .*train/dog"),
        ("train/dog", lambda p: write_image(p / "0.png"), "has no counterpart .*test/dog"),
        ("test/bee", lambda p: [f.unlink() for f in p.iterdir()], "has no images"),
        ("train", lambda p: p.rename(p.with_name("other")), "no such folder"),
        ("train/ant/x.gif", lambda p: write_image(p, mode="P"), "would be passed over"),
        ("train/ant/x.TIFF", write_image, "would be passed over"),
        ("train/ant/x.heic", Path.touch, "would be passed over"),
        ("train/ant/sub/x.png", write_image, r"would be passed over \(1 such in .*train/ant\): only .png, .* directly"),
        ("train/ant/sub/sub/x.gif", lambda p: write_image(p, mode="P"), "would be passed over"),
        ("train/ant/no suffix", lambda p: shutil.copy(p.with_name("0.png"), p), "would be passed over"),
        ("train/ant/link", lambda p: p.symlink_to(p.parent), "would be passed over"),
        ("train/x.png", write_image, "would be passed over .*: images belong in train/CLASS/"),
        ("train/ant/x.png", os.mkfifo, "is no file .* remove it"),
        ("train/ant/x.png", lambda p: p.symlink_to("nothing"), "is no file .* remove it"),
        ("test/bee/1.png", lambda p: write_image(p, mode="LA"), "has mode LA; convert it"),
        ("test/bee/1.png", lambda p: write_image(p, mode="I;16"), "has mode I;16; convert it"),
        ("test/bee/1.png", lambda p: write_image(p, mode="1"), "has mode 1; convert it"),
        ("test", lambda p: [d.rename(d.with_name("." + d.name)) for d in list(p.iterdir())], "has no class folders"),
    ],
)
def test_spoilt_folders(folder, where, spoil, message):
    spoil(folder / where)
    with pytest.raises(ValueError, match=message) as caught:
        load(f"folder:{folder}")
    assert str(caught.value).startswith(f"{folder / where}:")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("left", ["nothing", "an empty folder", "test images"])
def test_a_class_whose_images_were_deleted_keeps_its_number(folder, left):
    whole = load(f"folder:{folder}", validation=0.34)
    for split in ("train", "test"):
        for image in (folder / split / "bee").iterdir() if (split, left) != ("test", "test images") else ():
            image.unlink()
        if left == "nothing":
            (folder / split / "bee").rmdir()
    with pytest.raises(ValueError, match="has no images") if left != "nothing" else contextlib.nullcontext():
        assert load(f"folder:{folder}").class_names == ("ant", "cat")  # another numbering, for other networks
    found = load(f"folder:{folder}", validation=0.34, erased={1: "bee"})
    assert found.class_names == whole.class_names == ("ant", "bee", "cat")
    expected = forget_remain(whole.train, [1])[1], forget_remain(whole.validation, [1])[1]
    assert [split_digest(part) for part in (found.train, found.validation)] == [split_digest(part) for part in expected]
    assert found.test.labels.tolist() == ([0, 0, 1, 1, 2, 2] if left == "test images" else [0, 0, 2, 2])


def test_what_would_shift_the_number_of_an_erased_class_is_refused(folder):
    """Another class that is gone, has come or is called otherwise; a number that nothing has."""
    for split in ("train", "test"):
        shutil.rmtree(folder / split / "bee")
    assert load(f"folder:{folder}", erased={1: "bee"}).class_names == ("ant", "bee", "cat")
    for erased, here in (
        ({2: "bee"}, "that is 'cat'"),
        ({1: "Bee"}, "that is 'ant'"),
        ({9: "bee"}, "there are 3 classes"),
    ):
        ((number, called),) = erased.items()
        message = (
            f"class {number} of the network that forgot it is '{called}', and here {here}: all other classes must be as"
        )
        with pytest.raises(ValueError, match=message):
            load(f"folder:{folder}", erased=erased)
    for split in ("train", "test"):
        (folder / split / "ant").rename(folder / split / "fly")
    with pytest.raises(ValueError, match=r"class 1 .* is 'bee', and here that is 'cat'"):
        load(f"folder:{folder}", erased={1: "bee"})
    for split in ("train", "test"):
        (folder / split / "cat").rename(folder / split / ".cat")
    for image in (folder / "test" / "fly").iterdir():
        image.unlink()
    with pytest.raises(ValueError, match="test: has no images, and only erased classes may lack them: add the others"):
        load(f"folder:{folder}", erased={0: "bee", 1: "fly"})
    shutil.rmtree(folder / "test" / "fly")
    write_image(folder / "test" / "gnu" / "0.png")
    with pytest.raises(ValueError, match="has no counterpart"):
        load(f"folder:{folder}", erased={0: "bee"})
    for wrong in ({"bee": 1}, {1: 1}, ["bee"], "bee"):
        with pytest.raises(ValueError, match=r"erased=.*: give the names of classes by number, such as"):
            load(f"folder:{folder}", erased=wrong)


def test_numbers_are_in_the_order_that_they_had_with_the_name_that_is_gone(tmp_path):
    """With "other" they are sorted as text, and without it they would be as numbers."""
    for split in ("train", "test"):
        for value, name in enumerate(("2", "10", "other")):
            write_image(tmp_path / split / name / "0.png", value=value)
    whole = load(f"folder:{tmp_path}", validation=0)
    for split in ("train", "test"):
        shutil.rmtree(tmp_path / split / "other")
    found = load(f"folder:{tmp_path}", validation=0, erased={2: "other"})
    assert found.class_names == whole.class_names == ("10", "2", "other")
    assert (found.train.images == whole.train.images[:2]).all()
    assert found.train.labels.tolist() == [0, 1]


def test_all_that_is_read(tmp_path):
    """Every suffix, whatever its case, and every content that an image may have; what is hidden or no image is left out."""
    for split in ("train", "test"):
        for name in ("a", "b"):
            folder = tmp_path / split / name
            for i, suffix in enumerate(("png", "JPG", "jpeg", "jpe", "bmp", "webp")):
                write_image(folder / f"{i}.{suffix}", value=i)
            shutil.copy(folder / "2.jpeg", folder / "6.jfif")
            shutil.copy(folder / "2.jpeg", folder / "7.png")  # the content counts
            for junk in ("._0.png", ".DS_Store", "Thumbs.db", "README.txt", "labels.csv"):
                (folder / junk).write_bytes(b"\0\5\x16\7")
            (folder / "notes").mkdir()
            (folder / "notes" / "a.txt").touch()
        (tmp_path / split / "__MACOSX").mkdir()
        (tmp_path / split / ".git").mkdir()
        (tmp_path / split / "list.txt").touch()
    dataset = load(f"folder:{tmp_path}", validation=0)
    assert dataset.class_names == ("a", "b")
    assert np.bincount(dataset.train.labels).tolist() == [8, 8]
    for i, suffix in ((0, "png"), (4, "bmp")):
        with Image.open(tmp_path / f"train/a/{i}.{suffix}") as image:
            assert (dataset.train.images[i] == np.asarray(image)).all()
    assert (dataset.train.images[2] == dataset.train.images[7]).all()


def test_a_socket_is_not_opened(folder, monkeypatch):
    monkeypatch.chdir(folder / "train/ant")  # its address must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("x.png")
        with pytest.raises(ValueError, match=r"x\.png: is no file"):
            load(f"folder:{folder}")


def test_all_that_would_be_lost_is_counted(folder):
    for i in range(3):
        write_image(folder / f"test/cat/{i}.gif", mode="P")
    with pytest.raises(ValueError, match=r"test/cat/0\.gif: would be passed over \(3 such in .*test/cat\)"):
        load(f"folder:{folder}")


@pytest.mark.parametrize(
    ("names", "order"),
    [
        ([*map(str, range(12))], [*map(str, range(12))]),
        (["10", "9", "-1", "08"], ["-1", "08", "9", "10"]),
        (["10", "9", "a"], ["10", "9", "a"]),  # as text, as ever, where one is no number
        (["class 10", "class 9"], ["class 10", "class 9"]),
    ],
)
def test_order_of_classes(tmp_path, names, order):
    for split in ("train", "test"):
        for i, name in enumerate(names):
            Image.new("L", (2, 2), 10 * i).save(make(tmp_path / split / name) / "0.png")
    dataset = load(f"folder:{tmp_path}", validation=0)
    assert dataset.class_names == tuple(order)
    shades = [10 * names.index(name) for name in order]
    assert dataset.train.images[:, 0, 0, 0].tolist() == shades


def make(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_class_folders_may_be_links(folder):
    expected = load(f"folder:{folder}", validation=0).digest
    (folder / "train/bee").rename(folder / "elsewhere")
    (folder / "train/bee").symlink_to(folder / "elsewhere")
    assert load(f"folder:{folder}", validation=0).digest == expected


def test_names_that_are_not_utf8(folder):
    for split in ("train", "test"):
        os.rename(os.fsencode(folder / split / "bee"), os.fsencode(folder / split) + b"/\xff")
    with pytest.raises(ValueError, match=r"train/\\udcff: its name is not UTF-8; rename it") as caught:
        load(f"folder:{folder}")
    assert str(caught.value).isprintable()


def test_images_of_any_size_are_brought_to_one(tmp_path):
    for i, (split, size) in enumerate((("train", (30, 20)), ("train", (16, 50)), ("test", (8, 8)), ("test", (9, 8)))):
        write_image(tmp_path / split / "ab"[i % 2] / "0.png", size=size, value=i)
    dataset = load(f"folder:{tmp_path}", size=8, validation=0)
    assert dataset.train.images.shape == dataset.test.images.shape == (2, 8, 8, 3)
    with Image.open(tmp_path / "test/a/0.png") as image:
        assert (dataset.test.images[0] == np.asarray(image)).all()  # nothing to resize, nothing is lost
    with Image.open(tmp_path / "train/a/0.png") as image:
        middle = np.asarray(image.resize((8, 8), Image.Resampling.BILINEAR, box=(5, 0, 25, 20)))
    assert (dataset.train.images[0] == middle).all()
    with pytest.raises(ValueError, match=r"is 16x50 RGB, and .* is 30x20 RGB; .* or give a size"):
        load(f"folder:{tmp_path}", validation=0)


def test_home(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    expected = load(f"folder:{folder}").train
    assert (load(f"folder:~/{folder.name}").train.images == expected.images).all()
