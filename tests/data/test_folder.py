"""Images in folders."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from delete_jax.data import load


def write_image(path: Path, mode: str = "RGB", size: tuple[int, int] = (6, 4), value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(value).integers(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(path)


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
    assert load(f"folder:{tmp_path}").train.images.shape == (2, 4, 6, 1)


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
        ("test", lambda p: [d.rename(d.with_name("." + d.name)) for d in list(p.iterdir())], "has no class folders"),
    ],
)
def test_spoilt_folders(folder, where, spoil, message):
    spoil(folder / where)
    with pytest.raises(ValueError, match=message) as caught:
        load(f"folder:{folder}")
    assert str(caught.value).startswith(f"{folder / where}:")
    assert "\n" not in str(caught.value)
