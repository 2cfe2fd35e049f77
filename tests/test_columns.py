"""Images that stay on the host, and masks that are made on the device: bit for bit what arrays on the devices give."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import delete_jax as dj
from delete_jax import columns, memory
from delete_jax.columns import Erased, Rows, place
from delete_jax.data import augmentation
from delete_jax.identity import digest
from delete_jax.streams import erase_mask, split_streams
from tests import tiny
from tests.pages import snippets

N = 80


class Source:
    """Images that are read from somewhere; remembers how many at once."""

    def __init__(self, images):
        self.images, self.shape, self.dtype, self.most = images, images.shape, images.dtype, 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.most = max(self.most, len(index))
        return self.images[index]


def as_float(images):
    return images.astype(np.float32) / 64


def stored():
    images, labels = tiny.samples(N)
    return np.clip(images * 64 + 64, 0, 255).astype(np.uint8), labels


def unlearn(images, labels, method=None, **options):
    model, variables = tiny.network()
    settings = {"forget": [1], "lr": 0.05, "epochs": 2, "batch_size": 16, "preprocess": as_float} | options
    return dj.unlearn(model, variables, images, labels, method=method, **{"batch_norm": "train"} | settings)


def assert_equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(left), jax.device_get(right))


def memory_map(tmp_path, images):
    np.save(tmp_path / "images.npy", images)
    return np.load(tmp_path / "images.npy", mmap_mode="r")


@pytest.mark.parametrize("mode", ["jit", pytest.param("pmap", marks=pytest.mark.pmap), "sharding"])
@pytest.mark.parametrize("method", [dj.methods.delete(), dj.methods.delete(remain=True)], ids=["forget", "both"])
def test_images_on_the_host_give_the_same_bits(mode, method, tmp_path):
    images, labels = stored()
    here = unlearn(images, labels, method, parallel=mode)
    source = Source(images)
    there = unlearn(source, labels, method, parallel=mode, resident=0)
    assert_equal(there.variables, here.variables)
    assert there.history == here.history
    assert source.most <= 64  # the predictor's batch; a step's is smaller
    mapped = unlearn(memory_map(tmp_path, images), labels, method, parallel=mode, resident=0)
    assert_equal(mapped.variables, here.variables)


ATTACKING = [
    dj.methods.boundary_shrink(), dj.methods.l2ul_adv(), dj.methods.l2ul_imp(), dj.methods.anchored(anchors="adversarial"),
]  # fmt: skip


@pytest.mark.parametrize(
    "method",
    [pytest.param(one, id=one.name, marks=pytest.mark.slow if one.name == "l2ul_imp" else ()) for one in ATTACKING],
)
@pytest.mark.parametrize("kind", [pytest.param("uint8", marks=pytest.mark.slow), "float32"])
def test_methods_that_perturb_images_on_the_host(method, kind, tmp_path):
    images, labels = stored()
    images = images if kind == "uint8" else images.astype(np.float32)
    here = unlearn(images, labels, method, parallel="jit")
    mapped = unlearn(memory_map(tmp_path, images), labels, method, parallel="jit", resident=0)
    assert_equal(mapped.variables, here.variables)


def test_with_augmentation_and_parts():
    images, labels = stored()
    settings = {
        "augment": augmentation(("flip", "crop"), padding=1),
        "micro_batch": 8,
        "batch_norm": "frozen",
        "parallel": "jit",
    }
    assert_equal(
        unlearn(images, labels, resident=0, **settings).variables, unlearn(images, labels, **settings).variables
    )


@pytest.mark.parametrize("lr", [pytest.param("auto", marks=pytest.mark.slow), "search"])
def test_without_a_rate(lr):
    images, labels = stored()
    here = unlearn(images, labels, lr=lr, parallel="jit", epochs=5)
    there = unlearn(Source(images), labels, lr=lr, parallel="jit", epochs=5, resident=0)
    assert there.lr == here.lr
    assert_equal(there.variables, here.variables)


def test_what_fits_goes_to_the_devices(monkeypatch):
    images, labels = stored()
    one = split_streams(images, labels, [1], tiny.NUM_CLASSES, ["forget", "remain"])
    sizes = {name: stream["image"].nbytes for name, stream in one.items()}
    kinds = [
        {name: type(stream["image"]) for name, stream in place(one, most).items()}
        for most in (sum(sizes.values()), sizes["forget"], sizes["forget"] - 1)
    ]
    array = {"forget": np.ndarray, "remain": np.ndarray}
    assert kinds == [array, array | {"remain": Rows}, {"forget": Rows, "remain": Rows}]
    assert memory.resident_bytes(17) == 17
    monkeypatch.setattr(memory, "free_bytes", lambda: 3000)
    assert memory.resident_bytes("auto") == 1500
    monkeypatch.setattr(memory, "free_bytes", lambda: None)
    assert memory.resident_bytes("auto") > 2**60


def test_on_this_machine_something_is_free():
    from delete_jax.memory import free_bytes

    assert free_bytes() is None or 2**20 < free_bytes() < 2**50


def test_a_large_selection_is_not_copied(monkeypatch, tmp_path):
    images, labels = stored()
    monkeypatch.setattr(columns, "MOST_COPIED_BYTES", images[labels == 1].nbytes)
    split = split_streams(images, labels, [1], tiny.NUM_CLASSES, ["forget", "remain"])
    assert isinstance(split["forget"]["image"], np.ndarray)
    assert split["remain"]["image"].source is images
    np.testing.assert_array_equal(split["remain"]["image"], images[labels != 1])
    mapped = split_streams(memory_map(tmp_path, images), labels, [1], tiny.NUM_CLASSES, ["forget"])
    assert isinstance(mapped["forget"]["image"], Rows)


def test_rows():
    images, _ = stored()
    rows = Rows(images, np.array([5, 3, 9, 3]))
    assert (rows.shape, rows.dtype, rows.ndim, rows.size) == ((4, *images.shape[1:]), np.uint8, 4, 4 * images[0].size)
    assert rows.nbytes == 4 * images[0].nbytes
    np.testing.assert_array_equal(rows[1:3], images[[3, 9]])
    np.testing.assert_array_equal(rows[np.array([[2, 0], [1, 1]])], images[[[9, 5], [3, 3]]])
    np.testing.assert_array_equal(rows[2], images[9])
    np.testing.assert_array_equal(rows.select(np.array([True, False, True, False])), images[[5, 9]])
    np.testing.assert_array_equal(np.concatenate(list(columns.chunks(rows))), images[[5, 3, 9, 3]])


def dense(labels, forget, k, mask):
    """The masks, written down."""
    erased = np.isin(np.arange(k), forget)
    if mask == "own":
        return (labels[..., None] == np.arange(k)) & erased
    return np.broadcast_to(erased, (len(labels), *[1] * (labels.ndim - 1), k))


@pytest.mark.parametrize("mask", ["union", "own"])
@pytest.mark.parametrize("shape", [(7,), (7, 2, 3)])
def test_masks_from_class_numbers(mask, shape):
    k = 5
    labels = np.random.default_rng(0).integers(0, k, shape)
    labels.flat[0] = 255 if len(shape) > 1 else labels.flat[0]
    expected = dense(labels, [1, 3], k, mask)
    lazy = erase_mask(labels, [1, 3], k, mask)
    assert (lazy.shape, lazy.ndim, len(lazy)) == (expected.shape, expected.ndim, 7)
    np.testing.assert_array_equal(lazy, expected)
    np.testing.assert_array_equal(jnp.asarray(lazy), expected)
    index = np.array([[3, 1], [0, 0]])
    np.testing.assert_array_equal(lazy[index], expected[index])
    np.testing.assert_array_equal(jax.jit(lambda erased, index: erased[index])(lazy, index), expected[index])
    chosen = labels.reshape(7, -1)[:, 0] != 3
    assert isinstance(lazy.select(chosen), Erased)
    np.testing.assert_array_equal(lazy.select(chosen), expected[chosen])
    assert digest({"erase": lazy}) == digest({"erase": expected})  # so that older checkpoints are known again


def test_masks_do_not_grow_with_samples_times_classes():
    labels = np.zeros(1000, np.int64)
    for mask in ("union", "own"):
        lazy = erase_mask(labels, [1], 21_000, mask)
        assert sum(leaf.nbytes for leaf in jax.tree.leaves(lazy)) <= 21_000 + 4 * 1000


def test_a_digest_does_not_depend_on_where_images_are(tmp_path):
    images, _ = stored()
    for lazy in (Rows(images), Rows(memory_map(tmp_path, images)), memory_map(tmp_path, images)):
        assert digest({"image": lazy}) == digest({"image": images})
    assert digest({"image": Rows(images, np.arange(N)[::-1])}) != digest({"image": images})


def test_an_interrupted_run_goes_on_with_images_elsewhere(tmp_path):
    images, labels = stored()
    whole = unlearn(images, labels, epochs=4)
    unlearn(images, labels, epochs=2, store=dj.Checkpoints(tmp_path / "store"))
    resumed = unlearn(Source(images), labels, epochs=4, resident=0, store=dj.Checkpoints(tmp_path / "store"))
    assert_equal(resumed.variables, whole.variables)


def test_a_reader_that_fails_ends_the_run():
    images, labels = stored()

    class Broken(Source):
        def __getitem__(self, index):
            if len(index) == 16:  # a step's batch
                raise OSError("the disk is gone")
            return super().__getitem__(index)

    with pytest.raises(OSError, match="the disk is gone"):
        unlearn(Broken(images), labels, parallel="jit", resident=0)


@pytest.mark.parametrize("value", ["yes", -1, 0.5, None, True])
def test_a_wrong_resident_is_refused(value):
    with pytest.raises(ValueError, match="resident"):
        unlearn(*stored(), resident=value)


def test_records(tmp_path, monkeypatch):
    from array_record.python.array_record_module import ArrayRecordWriter

    images, labels = stored()
    writer = ArrayRecordWriter(str(tmp_path / "train.array_record"), "group_size:1")
    for image in images:
        writer.write(image.tobytes())
    writer.close()
    (snippet,) = snippets("devices", "images = dj.data.Records(source, decode)  # decode: a record -> uint8 [h, w, c]")
    monkeypatch.chdir(tmp_path)
    exec(
        snippet, names := {"dj": dj, "decode": lambda record: np.frombuffer(record, np.uint8).reshape(images.shape[1:])}
    )
    records = names["images"]
    assert (records.shape, records.dtype) == (images.shape, np.uint8)
    found = unlearn(records, labels, dj.methods.delete(remain=True), resident=0)
    assert_equal(found.variables, unlearn(images, labels, dj.methods.delete(remain=True)).variables)


def test_a_dataset_of_grain():
    grain = pytest.importorskip("grain", reason="Grain is not installed: make test")
    images, labels = stored()
    (snippet,) = snippets("devices", "import grain")
    names = {
        "dj": dj,
        "np": np,
        "paths": range(len(images)),
        "read": lambda i: {"image": images[i], "label": labels[i]},
    }
    exec(snippet, names)
    np.testing.assert_array_equal(names["labels"], labels)
    found = unlearn(names["images"], names["labels"], dj.methods.delete(remain=True), resident=0)
    assert_equal(found.variables, unlearn(images, labels, dj.methods.delete(remain=True)).variables)
    source = grain.MapDataset.source(images)
    with pytest.raises(ValueError, match="the source has no end: leave out repeat"):
        dj.data.Records(source.repeat(), np.asarray)
    odd = source.filter(lambda image: (image != images[1]).any())
    with pytest.raises(ValueError, match="record 1 is None, as Grain has it for a sample that filter leaves out"):
        dj.data.Records(odd, np.asarray)[np.array([0, 1])]


def test_a_memory_map_as_the_guide_has_it(tmp_path, monkeypatch):
    images, labels = stored()
    model, variables = tiny.network()
    np.save(tmp_path / "images.npy", images)
    (snippet,) = snippets("devices", "# images.npy holds uint8 [n, h, w, c]")
    names = {"dj": dj, "np": np, "model": model, "variables": variables, "labels": labels, "preprocess": as_float}
    monkeypatch.chdir(tmp_path)
    exec(snippet, names)
    assert isinstance(names["images"], np.memmap)
    assert names["result"].history


def test_records_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="no records"):
        dj.data.Records([], np.asarray)
    with pytest.raises(ValueError, match=r"\[h, w, c\], got an array of shape \(2, 2\)"):
        dj.data.Records([np.zeros((2, 2))], np.asarray)
    with pytest.raises(ValueError, match="record 0 is None"):
        dj.data.Records([None, np.zeros((2, 2, 1))], np.asarray)
    with pytest.raises(ValueError, match="record 1 is None"):
        dj.data.Records([np.zeros((2, 2, 1)), None], np.asarray)[np.array([0, 1])]
    with pytest.raises(ValueError, match="the source has no end"):
        dj.data.Records(range(sys.maxsize), np.asarray)
    records = dj.data.Records([np.zeros((2, 2, 1), np.uint8), np.zeros((3, 2, 1), np.uint8)], np.asarray)
    with pytest.raises(ValueError, match=r"record 1 is an image of uint8 \(3, 2, 1\)"):
        records[np.array([0, 1])]
