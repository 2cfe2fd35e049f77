"""Loading: digits, Fashion-MNIST from IDX files, prepared directories, what goes wrong, what is not imported."""

import gzip
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from delete_jax.data import Dataset, Split, forget_remain, load, prepare, split_digest, tfds_dirs
from delete_jax.data.dataset import hold_out, pixel_statistics
from tests.processes import printed_by


@pytest.fixture(scope="module")
def digits_dir(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("digits"))
    load("digits", data_dir=path)
    return path


def write_idx(path: Path, array: np.ndarray, magic: bytes | None = None) -> None:
    header = magic or bytes([0, 0, 8, array.ndim])
    data = header + np.array(array.shape, ">u4").tobytes() + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture
def idx_dir(tmp_path) -> Path:
    folder = tmp_path / "idx"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 40), ("t10k", 10)):
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", rng.integers(0, 256, (count, 28, 28), np.uint8))
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", (np.arange(count) % 10).astype(np.uint8))
    return folder


def prepare_cifar(data_dir: Path, num_classes: int = 10) -> Path:
    """Prepares three and one images a class with the features of TFDS' cifar10 or cifar100, whose own preparation needs
    TensorFlow."""
    import tensorflow_datasets as tfds

    class Cifar(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = f"cifar{num_classes}"
        VERSION = tfds.core.Version("3.0.2")

        def _info(self):
            features = {
                "id": tfds.features.Text(),
                "image": tfds.features.Image(shape=(32, 32, 3)),
                "label": tfds.features.ClassLabel(names=[f"class {i}" for i in range(num_classes)]),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(3 * num_classes), "test": self._generate_examples(num_classes)}

        def _generate_examples(self, count):
            for i in range(count):
                png = io.BytesIO()
                Image.fromarray(np.full((32, 32, 3), (i % 128, 2 * i % 256, 255 - i % 256), np.uint8)).save(png, "PNG")
                yield i, {"id": str(i), "image": png.getvalue(), "label": i % num_classes}

    builder = Cifar(data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    return Path(builder.data_dir)


def test_digits_are_scikit_learns(digits_dir):
    from sklearn.datasets import load_digits

    dataset = load("digits", data_dir=digits_dir, validation=0)
    assert isinstance(dataset, Dataset)
    assert dataset.train.images.shape == (1437, 8, 8, 1)
    assert dataset.test.images.shape == (360, 8, 8, 1)
    assert dataset.validation.images.shape == (0, 8, 8, 1)
    assert dataset.train.images.dtype == np.uint8
    assert dataset.train.labels.dtype == np.int32
    assert dataset.class_names == tuple("0123456789")
    assert dataset.num_classes == 10
    reference = load_digits()
    for split in (dataset.train, dataset.test):
        share = np.bincount(split.labels) / len(split.labels)
        np.testing.assert_allclose(share, np.bincount(reference.target) / 1797, atol=0.002)
    both = [np.concatenate(parts) for parts in zip(dataset.train, dataset.test, strict=True)]
    ours = sorted((int(label), image.tobytes()) for image, label in zip(*both, strict=True))
    pixels = np.round(reference.images * 255 / 16).astype(np.uint8)
    assert ours == sorted((int(label), p.tobytes()) for p, label in zip(pixels, reference.target, strict=True))


def test_statistics_are_of_the_remaining_training_pixels(digits_dir):
    dataset = load("digits", data_dir=digits_dir)
    pixels = dataset.train.images / 255
    assert dataset.mean.dtype == dataset.std.dtype == np.float32
    np.testing.assert_allclose(dataset.mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(dataset.std, pixels.std(axis=(0, 1, 2)), rtol=1e-6)


def test_statistics_are_per_channel_and_std_has_a_floor():
    images = np.random.default_rng(0).integers(0, 256, (1500, 2, 3, 3), np.uint8)
    images[..., 1] = 51
    mean, std = pixel_statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std[[0, 2]], (images / 255).std(axis=(0, 1, 2))[[0, 2]], rtol=1e-6)
    assert std[1] == np.float32(1e-6)


def test_building_twice_is_identical(digits_dir, tmp_path):
    first, second = load("digits", data_dir=digits_dir), load("digits", data_dir=str(tmp_path))
    assert first.digest == second.digest
    assert first.digest is first.digest  # computed once


def test_the_second_load_reads_what_is_prepared(digits_dir, monkeypatch):
    monkeypatch.setattr(tfds_dirs, "_prepare", lambda *_: pytest.fail("prepared again"))
    monkeypatch.setenv("DELETE_JAX_DATA_DIR", digits_dir)
    assert load("digits").num_classes == 10


def test_digest_sees_pixels_labels_and_names(digits_dir):
    import dataclasses

    dataset = load("digits", data_dir=digits_dir)
    images, labels = dataset.test.images.copy(), dataset.test.labels.copy()
    images[5, 0, 0, 0] ^= 1
    labels[5] += 1
    others = [
        dataclasses.replace(dataset, test=Split(images, dataset.test.labels)),
        dataclasses.replace(dataset, test=Split(dataset.test.images, labels)),
        dataclasses.replace(dataset, class_names=(*dataset.class_names[:9], "nine")),
        load("digits", data_dir=digits_dir, seed=1),
    ]
    assert len({dataset.digest, *(other.digest for other in others)}) == 5
    flat = Split(dataset.test.images.reshape(360, 4, 16, 1), dataset.test.labels)
    assert split_digest(flat) != split_digest(dataset.test)


def test_unwritable_data_dir(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file/data: digits cannot be prepared there .*writable data_dir"):
        load("digits", data_dir=str(tmp_path / "file" / "data"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "mnist"},
            "unknown dataset 'mnist': give one of digits, fashion_mnist, cifar10, cifar100, scenes, oxford_iiit_pet, ",
        ),
        ({"name": "digits", "validation": 1.0}, r"validation=1.0: .* in \[0, 1\)"),
        ({"name": "digits", "validation": -0.1}, r"validation=-0.1: .* in \[0, 1\)"),
        ({"name": "digits", "seed": -1}, "seed=-1"),
        ({"name": "digits", "source": "x"}, r"source='x' does not count for the dataset digits \(it reads data_dir\)"),
        ({"name": "digits", "size": 8}, r"size=8 does not count for the dataset digits \(it reads data_dir\)"),
        (
            {"name": "folder:x", "data_dir": "y"},
            r"data_dir='y' does not count for the dataset folder:x \(it reads size\)",
        ),
        ({"name": "voc:x", "size": 0}, "size=0: give the side"),
        ({"name": "folder:"}, "dataset 'folder:': give the path of a folder"),
        ({"name": "digits:x"}, "unknown dataset 'digits:x'"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        load(**arguments)


def test_validation_is_stratified_and_seeded():
    labels = np.repeat(np.arange(5), [1, 2, 5, 40, 100]).astype(np.int32)
    np.random.default_rng(0).shuffle(labels)
    split = Split(np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1), labels)
    kept, held_out = hold_out(split, 0.1, seed=3)
    assert np.bincount(held_out.labels, minlength=5).tolist() == [0, 1, 1, 4, 10]
    numbers = np.concatenate([kept.images, held_out.images]).ravel()
    assert sorted(numbers.tolist()) == list(range(len(labels)))
    assert (np.diff(kept.images.ravel()) > 0).all()  # both keep the order
    assert split_digest(hold_out(split, 0.1, seed=3)[1]) == split_digest(held_out)
    assert split_digest(hold_out(split, 0.1, seed=4)[1]) != split_digest(held_out)
    assert np.bincount(hold_out(split, 0.99, seed=0)[0].labels).tolist() == [1, 1, 1, 1, 1]
    assert len(hold_out(split, 0.0, seed=0)[1].labels) == 0


def test_forget_remain():
    labels = np.array([2, 0, 1, 2, 3], np.int32)
    split = Split(np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1), labels)
    forget, remain = forget_remain(split, [2, np.int64(3)])
    assert forget.images.ravel().tolist() == [0, 3, 4]
    assert forget.labels.tolist() == [2, 2, 3]
    assert remain.images.ravel().tolist() == [1, 2]
    assert forget_remain(split, [])[0].images.shape == (0, 1, 1, 1)
    for wrong in ([-1], [1.5], [True], ["2"]):
        with pytest.raises(ValueError, match="forget"):
            forget_remain(split, wrong)


def test_fashion_mnist_from_idx_files(idx_dir, tmp_path):
    dataset = load("fashion_mnist", data_dir=str(tmp_path / "data"), source=str(idx_dir), validation=0)
    assert dataset.train.images.shape == (40, 28, 28, 1)
    assert dataset.test.images.shape == (10, 28, 28, 1)
    assert dataset.class_names[1] == "Trouser"
    assert (tmp_path / "data/fashion_mnist/3.0.1/dataset_info.json").is_file()
    for prefix, split in (("train", dataset.train), ("t10k", dataset.test)):
        with gzip.open(idx_dir / f"{prefix}-images-idx3-ubyte.gz") as file:
            pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)
        expected = sorted((i % 10, image.tobytes()) for i, image in enumerate(pixels))
        assert expected == sorted((int(y), x.tobytes()) for x, y in zip(split.images, split.labels, strict=True))
    # From now on the source is not needed; plain files are as good as gzipped ones.
    again = load("fashion_mnist", data_dir=str(tmp_path / "data"), source="/nowhere", validation=0)
    for file in idx_dir.glob("*.gz"):
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    plain = load("fashion_mnist", data_dir=str(tmp_path / "plain"), source=str(idx_dir), validation=0)
    assert dataset.digest == again.digest == plain.digest


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("file", "spoil", "message"),
    [
        ("train-images-idx3-ubyte", truncate, "cannot be read as an IDX file"),
        ("t10k-labels-idx1-ubyte", lambda p: p.write_bytes(b"not gzip"), "cannot be read as an IDX file"),
        ("t10k-labels-idx1-ubyte", lambda p: p.write_bytes(gzip.compress(b"")), "starts with 0x,"),
        (
            "t10k-labels-idx1-ubyte",
            lambda p: write_idx(p, np.zeros(10, np.uint8), magic=bytes([0, 0, 9, 1])),
            "starts with 0x00000901, .* starts with 0x00000801",
        ),
        ("train-labels-idx1-ubyte", lambda p: write_idx(p, np.zeros(39, np.uint8)), "has 39 labels and .* 40 images"),
        ("train-labels-idx1-ubyte", lambda p: write_idx(p, np.full(40, 10, np.uint8)), "has the label 10"),
        ("t10k-images-idx3-ubyte", lambda p: write_idx(p, np.zeros((10, 8, 8), np.uint8)), r"images of \(8, 8\)"),
        (
            "train-labels-idx1-ubyte",
            lambda p: p.write_bytes(gzip.compress(gzip.decompress(p.read_bytes())[:-3])),
            "holds 37 bytes after its header",
        ),
        ("train-images-idx3-ubyte", Path.unlink, "has neither train-images-idx3-ubyte nor"),
    ],
)
def test_spoilt_idx_files(idx_dir, tmp_path, file, spoil, message):
    spoil(idx_dir / f"{file}.gz")
    with pytest.raises(ValueError, match=message) as caught:
        load("fashion_mnist", data_dir=str(tmp_path / "data"), source=str(idx_dir))
    assert "\n" not in str(caught.value)
    assert file in str(caught.value)
    assert not list((tmp_path / "data").glob("fashion_mnist/*"))  # nothing half-done stays


@pytest.mark.parametrize("empty", [False, True])
def test_fashion_mnist_is_nowhere(tmp_path, monkeypatch, empty):
    debian = tmp_path / "debian"
    if empty:
        debian.mkdir()
    monkeypatch.setattr(tfds_dirs, "_DEBIAN_FASHION_MNIST", str(debian))
    with pytest.raises(
        ValueError, match=r"found neither .*/fashion_mnist/VERSION nor files in .*debian; .*source=.*run"
    ):
        load("fashion_mnist", data_dir=str(tmp_path))


def test_debians_folder_is_the_default_source(idx_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_dirs, "_DEBIAN_FASHION_MNIST", str(idx_dir))
    assert len(load("fashion_mnist", data_dir=str(tmp_path / "data")).test.labels) == 10


def test_cifar10_is_read_from_what_tfds_prepared(tmp_path):
    directory = prepare_cifar(tmp_path)
    (directory.parent / "incomplete.ABC_3.0.3").mkdir()  # what an interrupted preparation leaves
    (directory.parent / "2.9.10").mkdir()
    dataset = load("cifar10", data_dir=str(tmp_path), validation=0)
    assert dataset.train.images.shape == (30, 32, 32, 3)
    assert dataset.class_names[3] == "class 3"
    i = dataset.train.images[:, 0, 0, 0]
    assert sorted(i.tolist()) == list(range(30))
    assert (dataset.train.labels == i % 10).all()
    assert (dataset.train.images[:, 5, 7] == np.stack([i, 2 * i, 255 - i], axis=-1)).all()
    _, std = pixel_statistics(dataset.train.images)
    assert std.shape == (3,)


def test_the_newest_version_is_taken(tmp_path):
    for version in ("3.0.2", "3.0.10", "2.11.0"):
        (tmp_path / "cifar10" / version).mkdir(parents=True)
        (tmp_path / "cifar10" / version / "dataset_info.json").write_text('{"fileFormat": "array_record"}')
    assert tfds_dirs.prepared_dir("cifar10", str(tmp_path), None).name == "3.0.10"


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_missing(tmp_path, name):
    builder = rf"tfds.builder\('{name}', data_dir='{tmp_path}', file_format='array_record'\).download_and_prepare\(\)"
    command = rf"pip install 'delete_jax\[data\]' and then python -c .*{builder}"
    with pytest.raises(ValueError, match=rf"{name}/VERSION does not exist; run {command}"):
        load(name, data_dir=str(tmp_path))


@pytest.mark.parametrize("info", [{"fileFormat": "tfrecord"}, {}])
def test_cifar10_in_another_file_format(tmp_path, info):
    directory = tmp_path / "cifar10" / "3.0.2"
    directory.mkdir(parents=True)
    (directory / "dataset_info.json").write_text(json.dumps({"name": "cifar10", "version": "3.0.2", **info}))
    with pytest.raises(ValueError, match=r"3\.0\.2: is prepared as tfrecord, and only array_record .* move it away"):
        load("cifar10", data_dir=str(tmp_path))


def test_prepare_command(digits_dir, tmp_path, capsys):
    assert prepare.main(["digits", "--data_dir", digits_dir]) == 0
    out = capsys.readouterr().out
    assert f"{digits_dir}/digits/1.0.0" in out
    assert "train 1437, test 360, 10 classes" in out
    assert f"digest {load('digits', data_dir=digits_dir, validation=0).digest}" in out
    assert prepare.main(["cifar10", "--data_dir", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "cifar10/VERSION does not exist" in captured.err


def test_importing_the_package_is_light():
    code = (
        "import sys, delete_jax.data; print([m for m in ('tensorflow_datasets', 'sklearn', 'PIL') if m in sys.modules])"
    )
    assert printed_by(code).strip() == "[]"


def test_tensorflow_is_never_imported(tmp_path):
    code = (
        "import sys; from delete_jax.data import load\n"
        f"for _ in range(2): load('digits', data_dir={str(tmp_path)!r})\n"
        "print('tensorflow in sys.modules:', 'tensorflow' in sys.modules)"
    )
    assert printed_by(code).endswith("tensorflow in sys.modules: False\n")
