"""Augmentation and normalisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delete_jax.data import augmentation, normalize

pytestmark = pytest.mark.usefixtures("fast_compile")


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


@pytest.mark.parametrize("names", [["rotate"], ["flip", "flop"], ["flip", "flip"], "flip"])
def test_wrong_names(names):
    with pytest.raises(ValueError, match="give a list of 'flip' and 'crop'"):
        augmentation(names)


def test_negative_padding():
    with pytest.raises(ValueError, match="padding=-1"):
        augmentation(["crop"], padding=-1)


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


def test_normalize_in_float64():
    mean, std = np.array([0.1, 0.2, 0.3]), np.array([0.5, 1.0, 2.0])
    with jax.enable_x64(True):
        result = normalize(mean, std, jnp.float64)(batch())
        assert result.dtype == jnp.float64
        np.testing.assert_allclose(result, (np.asarray(batch()) / 255 - mean) / std, rtol=1e-12)
