"""Segmentation: the measures on counts known by hand, paired augmentation, pixels and targets of unlearning, DeepLab."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import delete_jax as dj
from delete_jax import metrics, models
from delete_jax.data import paired_augmentation
from delete_jax.methods import FORGET, Context, Output
from delete_jax.models import Block, DeepLabV3Plus
from delete_jax.models.inside import watch
from delete_jax.streams import split_streams
from delete_jax.tasks.segmentation.measures import MapEvidence, confusion_matrix, measure, reference_labels
from tests import tiny

# ------------------------------------------------------------------------------------------------------------- measures


def test_measures_by_hand():
    """Three classes and background 0; class 2 is erased; 6 of its 10 pixels become class 1, 4 background."""
    confusion = np.array([[50, 5, 0, 0], [2, 20, 1, 0], [4, 6, 0, 0], [0, 0, 0, 12]])
    found = measure(MapEvidence(confusion, [2]))
    assert found["iou_f"] == 0
    assert found["miou_r"] == pytest.approx((20 / (23 + 25 - 20) + 1) / 2)
    assert found["miou_r_counted"] == pytest.approx((20 / (23 + 31 - 20) + 1) / 2)
    assert found["iou_background"] == pytest.approx(50 / (55 + 52 - 50))
    assert found["pixel_accuracy"] == pytest.approx(82 / 90)
    assert found["predicted_f"] == pytest.approx(1 / 100)
    assert found["absorbed_by"] == pytest.approx([0.4, 0.6, 0, 0])
    np.testing.assert_allclose(found["per_class"], [50 / 57, 20 / 28, 0, 1])


def test_classes_that_do_not_occur_do_not_count():
    confusion = np.zeros((3, 3), int)
    confusion[0, 0] = 7
    assert np.isnan(metrics.iou(confusion)).tolist() == [False, True, True]
    assert metrics.mean_iou(confusion, [0, 1]) == 1
    assert np.isnan(metrics.mean_iou(confusion, [1, 2]))
    assert measure(MapEvidence(confusion, [2]))["per_class"] == [1, None, None]


def test_ignored_pixels_and_references():
    labels = np.array([[[0, 1], [255, 2]]], np.uint8)
    confusion = confusion_matrix(labels, np.array([[[0, 1], [1, 1]]]), 3)
    assert confusion.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert reference_labels(labels, [2], "retrained").tolist() == [[[0, 1], [255, 255]]]
    assert reference_labels(labels, [2], "retrained_background").tolist() == [[[0, 1], [255, 0]]]


# --------------------------------------------------------------------------------------------------------- augmentation


def pair(n: int = 6, size: tuple[int, int] = (16, 20)):
    """Images whose every pixel tells its place, and maps of the same."""
    rows, columns = np.meshgrid(*(np.arange(s) for s in size), indexing="ij")
    image = np.stack([10 * rows, 10 * columns, 255 * np.ones_like(rows)], -1).astype(np.uint8)
    keys = jax.random.split(jax.random.key(1), n)
    places = np.stack([rows + 1, columns + 1], -1).astype(np.int32)
    return np.repeat(image[None], n, 0), keys, (np.repeat(places[None], n, 0), np.ones((n, *size), np.float32))


@pytest.mark.parametrize("names", [("flip",), ("scale",), ("crop",), ("scale", "crop"), ("flip", "scale", "crop")])
def test_image_and_maps_move_alike(names):
    images, keys, maps = pair()
    moved, (places, weight) = jax.jit(paired_augmentation(names))(images, keys, maps)
    assert (moved.shape, moved.dtype, places.dtype) == (images.shape, np.uint8, maps[0].dtype)
    moved, places, inside = np.asarray(moved, int), np.asarray(places), np.asarray(weight) == 1
    np.testing.assert_array_equal(inside, moved[..., 2] == 255)  # where nothing was, both are 0
    np.testing.assert_array_equal(inside, places[..., 0] > 0)
    nearest = 10 * (places - 1)
    assert np.abs(moved[..., :2] - nearest)[inside].max() <= 5 + 1  # half a pixel, and rounding
    if names == ("flip",):
        flipped = (moved[:, 0, 0, 1] > 0).sum()
        assert 0 < flipped < len(moved)
        assert inside.all()
    if "scale" in names:
        factors = (moved[:, 8, 11, 1] - moved[:, 8, 10, 1]) / 10
        assert len(np.unique(np.abs(factors).round(3))) > 1
        assert ((np.abs(factors) > 0.4) & (np.abs(factors) < 2.2)).all()


def test_without_scale_nothing_is_interpolated():
    images, keys, maps = pair()
    moved, _ = paired_augmentation(("flip",))(images, keys, maps)
    for before, after in zip(images, np.asarray(moved), strict=True):
        assert any(np.array_equal(after, option) for option in (before, before[:, ::-1]))


@pytest.mark.parametrize(
    "arguments", [("flip",), (("zoom",),), (("flip", "flip"),), (("scale",), 0.0), (("scale",), 2, 1)]
)
def test_wrong_augmentation(arguments):
    with pytest.raises(ValueError, match=r"'flip', 'scale' and 'crop'|0 < low <= high"):
        paired_augmentation(*arguments)
    assert paired_augmentation(()) is None


# ------------------------------------------------------------------------------------------------------------ unlearning


def scenes(n: int = 16):
    """Images 8x8 of blobs, one class per quarter; labels are the blobs' classes on background 0; a rim is ignored."""
    rng = np.random.default_rng(0)
    labels = np.zeros((n, 8, 8), np.uint8)
    for label in labels:
        for row, column in ((0, 0), (0, 4), (4, 0), (4, 4)):
            label[row + 1 : row + 3, column + 1 : column + 3] = rng.integers(0, tiny.NUM_CLASSES)
    images = (60 * labels + rng.integers(0, 30, labels.shape))[..., None].astype(np.uint8)
    labels[:, 0] = 255
    return images, labels


def to_float(images):
    return images.astype(jnp.float32) / 128 - 1


def test_pixels_that_count():
    images, labels = scenes()
    every, some = (
        split_streams(images, labels, [2], tiny.NUM_CLASSES, ["forget"], pixels=pixels)["forget"]
        for pixels in ("all", "forget")
    )
    chosen = (labels == 2).any((1, 2))
    assert 0 < chosen.sum() < len(images)
    np.testing.assert_array_equal(every["weight"], labels[chosen] != 255)
    np.testing.assert_array_equal(some["weight"], labels[chosen] == 2)
    assert every["erase"].shape == (chosen.sum(), 1, 1, tiny.NUM_CLASSES)


@pytest.mark.parametrize("pixels", ["all", "forget"])
@pytest.mark.parametrize("augment", [None, paired_augmentation(("flip", "scale", "crop"))])
def test_unlearning_depends_on_the_pixels_that_count_only(pixels, augment):
    images, labels = scenes()
    model, variables = tiny.network(tiny.Segmenter(), size=8)
    settings = {
        "forget": [2], "epochs": 1, "lr": 0.1, "batch_size": 4, "preprocess": to_float, "parallel": "jit",
        "pixels": pixels, "augment": augment, "batch_norm": "frozen",
    }  # fmt: skip

    def run(labels):
        return dj.unlearn(model, variables, images, labels, **settings, method="delete").variables["params"]

    other = np.where((labels != 2) & (labels != 255), 1, labels)  # DELETE does not read the classes of other pixels
    ignored = np.where(labels == 2, labels, 255)
    first, second, third = run(labels), run(other.astype(np.uint8)), run(ignored.astype(np.uint8))
    same = [np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)]
    assert all(same)
    same = [np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(third), strict=True)]
    assert all(same) == (pixels == "forget")


class PixelNet(nn.Module):
    """Every pixel by itself: flipping its input flips its answer."""

    @nn.compact
    def __call__(self, x, train: bool):
        return nn.Conv(tiny.NUM_CLASSES, (1, 1))(nn.relu(nn.Conv(8, (1, 1))(x)))


def test_own_mask_moves_with_the_image():
    images, labels = scenes()
    model, variables = tiny.network(PixelNet(), size=8)
    settings = {"forget": [2], "mask": "own", "epochs": 1, "lr": 0.1, "batch_size": 4, "preprocess": to_float}
    flipped, plain = (
        dj.unlearn(
            model,
            variables,
            images,
            labels,
            augment=augment,
            parallel="jit",
            **settings,
            method="delete",
            batch_norm="train",
        ).history[-1]
        for augment in (paired_augmentation(("flip",)), None)
    )
    # A mask that stayed where it was would hit other pixels and change the loss.
    assert flipped["loss"] == pytest.approx(plain["loss"], rel=1e-5)
    assert plain["loss"] > 0.01


@pytest.mark.slow
def test_to_background(x64):
    rng = np.random.default_rng(0)
    student, teacher = jnp.asarray(rng.normal(size=(2, 1, 1, 3, 4)))
    label = jnp.array([[[2, 1, 255]]])
    batch = {"label": label, "erase": (jnp.arange(4) == 2).reshape(1, 1, 1, 4)}
    method = dj.methods.to_background()
    term = method.loss({FORGET: Output(batch, student, teacher)}, Context())[FORGET]
    log_q = jax.nn.log_softmax(student)
    np.testing.assert_allclose(term.loss[0, 0, 0], -log_q[0, 0, 0, 0], rtol=1e-10)
    delete = dj.methods.delete().loss({FORGET: Output(batch, student, teacher)}, Context())[FORGET]
    np.testing.assert_allclose(term.loss[0, 0, 1:], delete.loss[0, 0, 1:], rtol=1e-10)


@pytest.mark.parametrize("background", [2, 4])
def test_to_background_needs_a_background(background):
    images, labels = scenes()
    model, variables = tiny.network(tiny.Segmenter(), size=8)
    with pytest.raises(ValueError, match="cannot be the background"):
        dj.unlearn(
            model, variables, images, labels, forget=[2], method=dj.methods.to_background(background), epochs=1,
            batch_size=8, preprocess=to_float, parallel="jit",
        )  # fmt: skip


def test_a_batch_without_pixels_that_count_is_harmless():
    images, labels = scenes(8)
    labels[:] = 255
    labels[0, 4, 4] = 2  # one pixel of one image
    images, labels = np.repeat(images[:1], 4, 0), np.repeat(labels[:1], 4, 0)
    model, variables = tiny.network(tiny.Segmenter(), size=8)
    result = dj.unlearn(
        model, variables, images, labels, forget=[2], epochs=3, lr=0.1, batch_size=1, pixels="forget",
        preprocess=to_float, augment=paired_augmentation(("scale", "crop")), parallel="jit", method="delete", batch_norm="train",
    )  # fmt: skip
    assert np.isfinite([row["loss"] for row in result.history]).all()


# -------------------------------------------------------------------------------------------------------------- networks


def shapes(initialised: nn.Module, module: nn.Module, shape: tuple[int, ...], layer: str):
    """Of the variables of one network, and of what the other makes with them of images: logits, a layer's output."""
    x = jnp.zeros(shape)
    variables = jax.eval_shape(lambda: initialised.init(jax.random.key(0), x, train=False))
    seen = jax.eval_shape(lambda v: watch(module, v, x, layer), variables)
    return variables, seen.logits, seen.outputs


@pytest.mark.parametrize(
    ("name", "millions"), [("deeplab_small", 0.1), pytest.param("deeplab_resnet50", 40.35, marks=pytest.mark.slow)]
)
def test_deeplab_shapes(name, millions):
    module = models.create(name, 21)
    size = (49, 66)
    variables, logits, last = shapes(module, module, (2, *size, 3), models.NETWORKS[name].layers[-1])
    assert (logits.shape, logits.dtype) == ((2, *size, 21), jnp.float32)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert parameters / 1e6 == pytest.approx(millions, rel=0.16 if name == "deeplab_small" else 1e-3)
    stride = 8 if name == "deeplab_small" else 16
    assert last.shape[1] == -(-size[0] // stride)


@pytest.mark.parametrize(("output_stride", "rows"), [(8, 8), (16, 4)])
def test_dilation_in_place_of_strides(output_stride, rows):
    """The same weights fit both output strides, as torchvision's and DeepLab's own do."""
    settings = {
        "block": Block,
        "stages": (1, 1, 1, 2),
        "features": (4, 5, 6, 7),
        "pyramid_features": 4,
        "low_features": 4,
    }
    module = DeepLabV3Plus(3, output_stride=output_stride, atrous_rates=(1,), **settings)
    other = DeepLabV3Plus(3, output_stride=24 - output_stride, atrous_rates=(1,), **settings)
    for initialised in (module, other):
        _, logits, last = shapes(initialised, module, (1, 64, 64, 1), "layer4")
        assert last.shape == (1, rows, rows, 7)
        assert logits.shape == (1, 64, 64, 3)
