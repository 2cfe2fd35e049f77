"""Tiny-ImageNet as it is unpacked, made small: what is read, and what is said where it is incomplete or damaged."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from delete_jax.data import load

WORDS = {"n02": "crane", "n10": "crane, bird", "n01": "goldfish, Carassius auratus", "n99": "not of the 200"}
IDS = ("n10", "n01", "n02")  # the file does not sort them
GREY = "train/n01/images/n01_1.JPEG"


def write_image(path: Path, shade: int, mode: str = "RGB", size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, shade // 2, 255 - shade)).convert(mode).save(path, "JPEG")


def write_tiny_imagenet(root: Path, size: int = 8, ids: tuple[str, ...] = IDS) -> None:
    """Three training images a class and two to test on, one of them grey."""
    root.mkdir(exist_ok=True)
    (root / "wnids.txt").write_text("\n".join(ids))
    (root / "words.txt").write_text("".join(f"{wnid}\t{WORDS.get(wnid, wnid)}\n" for wnid in [*WORDS, *ids]))
    lines = []
    for label, wnid in enumerate(sorted(ids)):
        for i in range(3):
            image = root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG"
            write_image(image, 50 * (label % 5) + i, "L" if i == 1 else "RGB", (size, size))
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t7\t7\n")
        for i in (1, 0):
            write_image(root / f"val/images/val_{2 * label + i}.JPEG", 50 * (label % 5) + 9, size=(size, size))
            lines.append(f"val_{2 * label + i}.JPEG\t{wnid}\t0\t0\t7\t7\n")
    (root / "val/val_annotations.txt").write_text("".join(lines))


@pytest.fixture
def folder(tmp_path) -> Path:
    write_tiny_imagenet(tmp_path)
    (tmp_path / "test/images").mkdir(parents=True)  # comes along, without labels
    return tmp_path


def test_tiny_imagenet(folder):
    dataset = load(f"tiny_imagenet:{folder}", validation=0)
    assert dataset.class_names == ("goldfish", "crane (n02)", "crane (n10)")
    assert dataset.train.images.shape == (9, 8, 8, 3)
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert dataset.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    with Image.open(folder / "train/n02/images/n02_0.JPEG") as image:
        assert (dataset.train.images[3] == np.asarray(image)).all()
    grey = dataset.train.images[1]
    with Image.open(folder / GREY) as image:
        assert image.mode == "L"
        assert (grey == np.asarray(image)[..., None]).all()
    # in the order of the annotations
    with Image.open(folder / "val/images/val_3.JPEG") as image:
        assert (dataset.test.images[2] == np.asarray(image)).all()


def test_lines_may_end_as_on_windows(folder):
    expected = load(f"tiny_imagenet:{folder}").digest
    for name in ("wnids.txt", "words.txt", "val/val_annotations.txt"):
        (folder / name).write_bytes((folder / name).read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert load(f"tiny_imagenet:{folder}").digest == expected


def append(text: str):
    return lambda path: path.write_text(path.read_text() + text)


NOTES = "val/val_annotations.txt"
SPOILT = {
    "no such folder": (".", shutil.rmtree, "wnids.txt: no such file; give the folder tiny-imagenet-200"),
    "no wnids": ("wnids.txt", Path.unlink, "no such file; give the folder tiny-imagenet-200"),
    "empty wnids": ("wnids.txt", lambda p: p.write_text("\n"), "is empty"),
    "wnids are no text": ("wnids.txt", lambda p: p.write_bytes(b"\xff\xfe"), "cannot be read as text"),
    "wnid twice": ("wnids.txt", append("\nn01"), "lists 'n01' twice"),
    "wnid without a folder": ("train/n02", shutil.rmtree, "no such folder, and .*wnids.txt lists it"),
    "folder without a wnid": ("train/n03", Path.mkdir, "is not in .*wnids.txt; remove it"),
    "no train": ("train", shutil.rmtree, "no such folder"),
    "no images in a class": (
        "train/n02/images",
        lambda p: [file.unlink() for file in p.iterdir()],
        "has no images; unpack",
    ),
    "no words": ("words.txt", Path.unlink, "no such file"),
    "word missing": ("words.txt", lambda p: p.write_text("n01\tgoldfish\nn02\n"), "has no name for 'n02'"),
    "no annotations": (NOTES, Path.unlink, "no such file"),
    "empty annotations": (NOTES, lambda p: p.write_text(""), "is empty"),
    "annotation without a class": (NOTES, append("val_9.JPEG\n"), "line 7: has no class; lines are NAME, WNID"),
    "annotation of another class": (NOTES, append("x.JPEG\tn99\n"), "line 7: has class 'n99', which wnids.txt"),
    "annotated twice": (NOTES, append("val_0.JPEG\tn01\n"), "line 7: lists 'val_0.JPEG' a second time"),
    "annotated and not there": (NOTES, append("../x.JPEG\tn01\n"), "lists '../x.JPEG', and .* has no such image"),
    "there and not annotated": (
        "val/images/x.JPEG",
        lambda p: write_image(p, 1),
        r"is not in .*annotations.txt \(1 such",
    ),
    "no val images": ("val/images", shutil.rmtree, "no such folder"),
    "truncated": (GREY, lambda p: p.write_bytes(p.read_bytes()[:-40]), "cannot be read as an image"),
    "no image": ("val/images/val_1.JPEG", lambda p: p.write_bytes(b"no image"), "cannot be read as an image"),
    "another size": (GREY, lambda p: write_image(p, 1, size=(8, 9)), "is 8x9, and .*n01_0.JPEG is 8x8; replace it"),
    "four colours": (GREY, lambda p: write_image(p, 1, mode="CMYK"), "has mode CMYK; convert it"),
    "a pipe": ("train/n01/images/x.JPEG", os.mkfifo, "is no file"),
    "an image elsewhere": ("train/n01/images/more/x.JPEG", lambda p: write_image(p, 1), "would be passed over"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_folders(folder, name):
    where, spoil, message = SPOILT[name]
    spoil(folder / where)
    with pytest.raises(ValueError, match=message) as caught:
        load(f"tiny_imagenet:{folder}")
    assert str(caught.value).startswith(str(folder / where))
    assert "\n" not in str(caught.value)


def test_no_option_counts(folder):
    with pytest.raises(ValueError, match=r"size=64 does not count .* \(it reads none\): leave it out"):
        load(f"tiny_imagenet:{folder}", size=64)
