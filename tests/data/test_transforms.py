"""Augmentation and normalisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from delete_jax.data import augmentation, normalize, paired_augmentation


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


def batch(b: int = 64, size: int = 8) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).integers(1, 256, (b, size, size, 3), np.uint8))


def keys(b: int = 64) -> jax.Array:
    return jax.random.split(jax.random.key(0), b)


def test_no_names_is_no_function():
    assert augmentation([]) is None
    assert augmentation(()) is None


@pytest.mark.parametrize("names", [["rotate"], ["flip", "flop"], ["flip", "flip"], "flip", [["flip"]], 5, None, [0]])
def test_wrong_names(names):
    with pytest.raises(ValueError, match="give a list of 'flip' and 'crop'"):
        augmentation(names)
    with pytest.raises(ValueError, match="give a list of 'flip', 'scale' and 'crop'"):
        paired_augmentation(names)


def test_what_only_label_maps_have():
    with pytest.raises(ValueError, match="give a list of 'flip' and 'crop', each"):
        augmentation(["scale"])


@pytest.mark.parametrize("padding", [-1, 1.5, True, "4"])
def test_wrong_padding(padding):
    with pytest.raises(ValueError, match=f"padding={padding!r}"):
        augmentation(["crop"], padding=padding)


@pytest.mark.parametrize("factors", [(0, 1), (2, 1), (float("nan"), 1), (1, float("nan")), (1, float("inf"))])
def test_wrong_factors(factors):
    with pytest.raises(ValueError, match="give 0 < low <= high, finite"):
        paired_augmentation(["scale"], *factors)


def test_flip_mirrors_about_half_of_the_images():
    images = np.asarray(batch())
    flipped = np.asarray(augmentation(["flip"])(batch(), keys()))
    same = (flipped == images).all(axis=(1, 2, 3))
    mirrored = (flipped == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 16 < mirrored.sum() < 48
    assert flipped.dtype == np.uint8


@pytest.mark.parametrize("padding", [0, 1, 4])
def test_crop_moves_within_the_padding(padding):
    images = np.asarray(batch(256))
    cropped = np.asarray(augmentation(["crop"], padding)(batch(256), keys(256)))
    padded = np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    seen = set()
    for before, after in zip(padded, cropped, strict=True):
        places = [(t, s) for t in range(2 * padding + 1) for s in range(2 * padding + 1)]
        found = [(t, s) for t, s in places if (before[t : t + 8, s : s + 8] == after).all()]
        assert len(found) == 1
        seen.update(found)
    tops, lefts = (set(offsets) for offsets in zip(*seen, strict=True))
    assert tops == lefts == set(range(2 * padding + 1))  # every offset occurs, both ends included


def test_a_sample_does_not_depend_on_its_batch():
    augment = augmentation(["flip", "crop"])
    images, all_keys = batch(), keys()
    whole = augment(images, all_keys)
    order = np.random.default_rng(1).permutation(64)[:20]
    assert (augment(images[order], all_keys[order]) == whole[order]).all()
    assert (augment(images[5:6], all_keys[5:6]) == whole[5:6]).all()


def test_a_crop_changes_no_flip():
    flipped = augmentation(["flip"])(batch(), keys())
    both = augmentation(["flip", "crop"], padding=0)(batch(), keys())
    assert (flipped == both).all()


def test_jit():
    augment = augmentation(["flip", "crop"])
    result = jax.jit(augment)(batch(), keys())
    assert result.dtype == jnp.uint8
    assert (result == augment(batch(), keys())).all()


def test_normalize():
    mean, std = np.array([0.1, 0.2, 0.3], np.float32), np.array([0.5, 1.0, 2.0], np.float32)
    result = jax.jit(normalize(mean, std))(batch())
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, (np.asarray(batch()) / 255 - mean) / std, rtol=1e-5, atol=1e-6)


def test_normalize_brings_images_to_a_size():
    """As Pillow does with floats (bilinear), before the statistics are taken off."""
    mean, std = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.3, 0.25])
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    result = jax.jit(normalize(mean, std, size=20))(images)
    assert result.shape == (2, 20, 20, 3)
    channel = Image.fromarray(images[1, ..., 2].astype(np.float32)).resize((20, 20), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(result[1, ..., 2], (np.asarray(channel) / 255 - 0.3) / 0.25, rtol=1e-4, atol=1e-4)
    same = normalize(mean, std, size=8)(images)
    np.testing.assert_array_equal(same, normalize(mean, std)(images))


@pytest.mark.parametrize("size", [0, -1, 2.5, "8", True])
def test_wrong_size(size):
    with pytest.raises(ValueError, match=f"size={size!r}: give the side"):
        normalize(np.zeros(1), np.ones(1), size=size)


def test_normalize_in_float64():
    mean, std = np.array([0.1, 0.2, 0.3]), np.array([0.5, 1.0, 2.0])
    with jax.enable_x64(True):
        result = normalize(mean, std, jnp.float64)(batch())
        assert result.dtype == jnp.float64
        np.testing.assert_allclose(result, (np.asarray(batch()) / 255 - mean) / std, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
@pytest.mark.parametrize("names", [("flip",), ("flip", "crop"), ("crop", "scale", "flip")])
def test_floats_stay_floats(dtype, names):
    """As networks take them, a fraction of 1 each: rounding would leave 0 and 1."""
    with jax.enable_x64(dtype == "float64"):
        images = jnp.asarray(np.random.default_rng(0).normal(size=(16, 8, 8, 3)), dtype)
        maps = (jnp.zeros((16, 8, 8), jnp.int32),)
        moved, _ = paired_augmentation(names)(images, keys(16), maps)
        assert moved.dtype == images.dtype
        assert len(np.unique(np.asarray(moved, np.float64))) > 500
        if names == ("flip",):
            for before, after in zip(images, moved, strict=True):
                assert (after == before).all() or (after == before[:, ::-1]).all()
        if "scale" not in names:
            moved = augmentation(names)(images, keys(16))
            assert moved.dtype == images.dtype
            assert set(np.unique(np.asarray(moved, np.float64))) <= {0, *np.unique(np.asarray(images, np.float64))}


def test_floats_are_scaled_as_bytes_are():
    """The same picture as bytes and as fractions: what comes out differs by the rounding of bytes, which stays."""
    maps = (jnp.zeros((64, 8, 8), jnp.int32),)
    augment = paired_augmentation(["scale", "crop"])
    of_bytes, _ = augment(batch(), keys(), maps)
    of_floats, _ = augment(batch().astype(jnp.float32) / 255, keys(), maps)
    assert of_bytes.dtype == jnp.uint8
    rounded = jnp.round(of_floats * 255)
    assert float(jnp.abs(rounded - of_bytes.astype(jnp.float32)).max()) <= 1
    assert float((rounded == of_bytes.astype(jnp.float32)).mean()) > 0.99


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32, np.int8, bool])
def test_normalize_is_for_bytes(dtype):
    images = np.ones((2, 4, 4, 1), dtype)
    apply = normalize(np.array([0.5]), np.array([0.25]))
    for call in (apply, jax.jit(apply), lambda x: jax.eval_shape(apply, x)):
        with pytest.raises(ValueError, match=f"images are {np.dtype(dtype)}, and normalize is for bytes \\(uint8"):
            call(images)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.5, 0.5], [0.5], "mean has 2 numbers and std 1"),
        ([0.5], [0.0], "std=.* give finite numbers, above 0"),
        ([0.5], [-1.0], "std=.* give finite numbers, above 0"),
        ([0.5], [float("nan")], "std=.* give finite numbers, above 0"),
        ([0.5], [float("inf")], "std=.* give finite numbers, above 0"),
        ([float("nan")], [0.5], "mean=.* give finite numbers"),
    ],
)
def test_statistics_that_are_none(mean, std, message):
    with pytest.raises(ValueError, match=message):
        normalize(np.array(mean), np.array(std))


def test_statistics_that_do_not_fit():
    with pytest.raises(ValueError, match="std="):
        normalize(np.array([0.5]), np.array([1e-9]), jnp.float16)  # 0 in this dtype
    with pytest.raises(ValueError, match="give a float dtype"):
        normalize(np.array([0.5]), np.array([0.5]), jnp.int32)
    for dtype in (None, "float31", 16):
        with pytest.raises(ValueError, match=f"dtype must be a dtype or its name, such as 'float32', got {dtype!r}"):
            normalize(np.array([0.5]), np.array([0.5]), dtype)
    assert normalize(0.5, 0.5, "bfloat16")(np.ones((1, 2, 2, 1), np.uint8)).dtype == jnp.bfloat16
    three = normalize(np.full(3, 0.5), np.full(3, 0.5))
    with pytest.raises(ValueError, match="images have 1 channels, and mean and std 3 numbers"):
        three(np.ones((2, 4, 4, 1), np.uint8))
