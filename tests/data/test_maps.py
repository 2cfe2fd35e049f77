"""Datasets with label maps, each from a tiny one in its real form on disk; bad files are named."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from delete_jax import data
from delete_jax.data import scenes
from delete_jax.data.dataset import Split, hold_out
from delete_jax.data.pets import read_pets
from delete_jax.data.voc import CLASS_NAMES, read_voc

PALETTE = [value for i in range(256) for value in (i, 255 - i, (7 * i) % 256)]


def write_voc(root: Path, class_: int = 15) -> None:
    """Three training and two validation images of different sizes, masks as VOC's: palette PNGs with 255 at the borders."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 2)):
        names = [f"2007_00{split}{i}" for i in range(count)]
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for i, name in enumerate(names):
            height, width = 20 + 10 * i, 40
            Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(
                root / "JPEGImages" / f"{name}.jpg"
            )
            mask = np.zeros((height, width), np.uint8)
            mask[5:15, 10:30] = 255
            mask[7:13, 12:28] = class_
            image = Image.fromarray(mask, "P")
            image.putpalette(PALETTE)
            image.save(root / "SegmentationClass" / f"{name}.png")


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
def test_voc(tmp_path):
    write_voc(tmp_path)
    dataset = data.load(f"voc:{tmp_path}", size=20, validation=0.34)
    assert (len(dataset.train.labels), len(dataset.validation.labels), len(dataset.test.labels)) == (2, 1, 2)
    assert dataset.class_names == CLASS_NAMES
    assert dataset.has_maps
    assert dataset.test.images.shape == (2, 20, 20, 3)
    first = dataset.test.labels[0]  # 40x20 pixels become 20x10, below there is nothing
    assert (first[10:] == 255).all()
    assert (dataset.test.images[0, 10:] == 0).all()
    assert set(np.unique(first[:10])) == {0, 15, 255}
    assert (first[4:6, 7:13] == 15).all()
    forget, remain = data.forget_remain(dataset.train, [15])
    assert (len(forget.labels), len(remain.labels)) == (2, 0)


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
def test_one_image_with_a_map(tmp_path):
    write_voc(tmp_path)
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("2007_00train0")
    with pytest.raises(ValueError, match="has 1 training image in all, so that nothing can be held out"):
        data.load(f"voc:{tmp_path}", size=8)


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
def test_images_of_maps_are_turned_upright(tmp_path):
    """A camera that was held sideways: the mask was drawn over the picture as it is shown."""
    write_voc(tmp_path)
    expected = data.load(f"voc:{tmp_path}", size=20, validation=0).train
    for file in (tmp_path / "JPEGImages").iterdir():
        exif = Image.Exif()
        exif[0x0112] = 6
        with Image.open(file) as image:
            image.transpose(Image.Transpose.ROTATE_90).save(file, exif=exif, quality=100, subsampling=0)
    found = data.load(f"voc:{tmp_path}", size=20, validation=0).train
    assert (found.labels == expected.labels).all()
    assert np.abs(found.images.astype(int) - expected.images).mean() < 8


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BAD_VOC = {
    "no listing": (lambda root: (root / "ImageSets/Segmentation/val.txt").unlink(), r"val\.txt: no such file"),
    "empty listing": (lambda root: (root / "ImageSets/Segmentation/val.txt").write_text(""), r"val\.txt: lists no"),
    "image missing": (lambda root: (root / "JPEGImages/2007_00train1.jpg").unlink(), r"train1\.jpg: no such file"),
    "truncated image": (lambda root: half(root / "JPEGImages/2007_00train1.jpg"), r"train1\.jpg: cannot be read"),
    "truncated mask": (lambda root: half(root / "SegmentationClass/2007_00val0.png"), r"val0\.png: cannot be read"),
    "mask of another size": (
        lambda root: Image.new("L", (40, 21)).save(root / "SegmentationClass/2007_00val0.png"),
        r"val0\.png: is 40x21, its image 40x20",
    ),
    "mask in colour": (
        lambda root: Image.new("RGB", (40, 20)).save(root / "SegmentationClass/2007_00val0.png"),
        r"val0\.png: has mode RGB",
    ),
    "image in four colours": (
        lambda root: Image.new("CMYK", (40, 30)).save(root / "JPEGImages/2007_00train1.jpg"),
        r"train1\.jpg: has mode CMYK",
    ),
    "PostScript": (
        lambda root: Image.new("RGB", (40, 30)).save(root / "JPEGImages/2007_00train1.jpg", "EPS"),
        r"train1\.jpg: cannot be read as an image \(it is no PNG",
    ),
    "pipe": (
        lambda root: [
            (root / "JPEGImages/2007_00train1.jpg").unlink(),
            os.mkfifo(root / "JPEGImages/2007_00train1.jpg"),
        ],
        r"train1\.jpg: is no file",
    ),
    "mask that loses what it says": (
        lambda root: Image.new("L", (40, 20)).save(root / "SegmentationClass/2007_00val0.png", "JPEG"),
        r"val0\.png: cannot be read as an image \(it is no PNG\)",
    ),
    "listing of another place": (
        lambda root: (root / "ImageSets/Segmentation/val.txt").write_text("../../x"),
        r"val\.txt: lists '\.\./\.\./x', which is outside the dataset",
    ),
    "listing of a whole path": (
        lambda root: (root / "ImageSets/Segmentation/val.txt").write_text("/etc/x"),
        r"val\.txt: lists '/etc/x', which is outside the dataset",
    ),
    "listing in another encoding": (
        lambda root: (root / "ImageSets/Segmentation/val.txt").write_bytes(b"\xff\xfe1"),
        r"val\.txt: cannot be read as text",
    ),
    "label out of range": (
        lambda root: Image.new("L", (40, 20), 21).save(root / "SegmentationClass/2007_00val0.png"),
        r"val0\.png: holds label 21; allowed are 0 to 20, and 255",
    ),
}


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
@pytest.mark.parametrize("name", BAD_VOC)
def test_bad_voc(name, tmp_path):
    write_voc(tmp_path)
    spoil, message = BAD_VOC[name]
    spoil(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        read_voc(tmp_path, 20)
    assert "\n" not in str(caught.value)


def prepare_pets(data_dir: Path, mask_height: int = 20, level: int = 3) -> Path:
    """Four and two records with the features of TFDS' oxford_iiit_pet."""
    import tensorflow_datasets as tfds

    def png(array: np.ndarray) -> io.BytesIO:
        file = io.BytesIO()
        Image.fromarray(array).save(file, "PNG")
        file.seek(0)
        return file

    class OxfordIiitPet(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("4.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(),
                "label": tfds.features.ClassLabel(names=["Abyssinian", "beagle"]),
                "file_name": tfds.features.Text(),
                "segmentation_mask": tfds.features.Image(shape=(None, None, 1)),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(4), "test": self._generate_examples(2)}

        def _generate_examples(self, count):
            for i in range(count):
                trimap = np.full((mask_height, 40), 2, np.uint8)
                trimap[4:16, 8:32] = level
                trimap[6:14, 10:30] = 1
                yield (
                    i,
                    {
                        "image": png(np.full((20, 40, 3), 40 * i, np.uint8)),
                        "label": i % 2,
                        "file_name": f"{i}.jpg",
                        "segmentation_mask": png(trimap),
                    },
                )

    builder = OxfordIiitPet(data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    return Path(builder.data_dir)


def test_pets(tmp_path):
    prepare_pets(tmp_path)
    dataset = data.load("oxford_iiit_pet", data_dir=str(tmp_path), size=20, validation=0)
    assert dataset.class_names == ("background", "Abyssinian", "beagle")
    assert dataset.train.images.shape == (4, 20, 20, 3)
    shades = dataset.train.images[:, 0, 0, 0]
    for shade, labels in zip(shades, dataset.train.labels, strict=True):
        breed = shade // 40 % 2 + 1
        assert (labels[4:6, 6:14] == breed).all()
        assert set(np.unique(labels[:10])) == {0, breed, 255}
        assert (labels[10:] == 255).all()


@pytest.mark.parametrize(
    ("settings", "message"), [({"mask_height": 21}, r"mask \d of train is"), ({"level": 7}, "trimap")]
)
def test_bad_pets(tmp_path, settings, message):
    folder = prepare_pets(tmp_path, **settings)
    with pytest.raises(ValueError, match=message):
        read_pets(folder, 20)


def test_pets_that_are_not_prepared(tmp_path):
    with pytest.raises(ValueError, match=r"oxford_iiit_pet: .* does not exist; run pip install"):
        data.load("oxford_iiit_pet", data_dir=str(tmp_path))


def garments(n: int = 60) -> Split:
    """Each garment is a frame as bright as its class says, so that a hole has to be filled."""
    labels = np.arange(n, dtype=np.int32) % 10
    images = np.zeros((n, 28, 28, 1), np.uint8)
    images[:, 4:24, 8:20] = (100 + 10 * labels)[:, None, None, None]
    images[:, 10:14, 12:16] = 0
    return Split(images, labels)


def test_scenes():
    composed = scenes.compose(garments(), 20, seed=3)
    again, other = scenes.compose(garments(), 20, seed=3), scenes.compose(garments(), 20, seed=4)
    np.testing.assert_array_equal(composed.images, again.images)
    assert (composed.images != other.images).any()
    assert composed.images.shape == (20, 64, 64, 1)
    classes = list(scenes.GARMENTS)
    for image, labels in zip(composed.images[..., 0], composed.labels, strict=True):
        sizes = [np.sum(labels[r : r + 32, c : c + 32] > 0) for r in (0, 32) for c in (0, 32)]
        assert set(sizes) <= {0, 20 * 12}  # whole garments, their holes too
        assert max(sizes) > 0
        for class_ in np.unique(labels[labels > 0]):
            shades = set(np.unique(image[labels == class_]))
            assert 100 + 10 * classes[class_ - 1] in shades
    assert {int(c) for c in np.unique(composed.labels)} == set(range(7))


def test_images_with_maps_are_held_out_as_a_whole():
    split = Split(np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1), np.zeros((10, 1, 1), np.uint8))
    kept, held_out = hold_out(split, 0.3, 0)
    assert (len(kept.labels), len(held_out.labels)) == (7, 3)
    assert sorted([*kept.images.ravel(), *held_out.images.ravel()]) == list(range(10))
