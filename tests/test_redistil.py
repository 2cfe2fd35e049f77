"""`redistil`: which layers start afresh, what the others keep, and the images and answers that teach."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import delete_jax as dj
from delete_jax.methods import FORGET, Setup
from delete_jax.methods.features import find_head
from delete_jax.methods.redistil import fresh_layers, transfer_stream
from delete_jax.methods.transfer import KINDS, transfer_images
from delete_jax.models import BatchNorm
from delete_jax.network_check import as_is
from delete_jax.streams import split_streams
from tests import tiny
from tests.pages import snippets

K = tiny.NUM_CLASSES
SETTINGS = {"forget": [1], "batch_size": 8, "parallel": "jit", "lr": 0.05}


class Block(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Conv(self.features, (3, 3), padding=1, use_bias=False, param_dtype=x.dtype)(x)
        return nn.relu(BatchNorm()(x, train))


class Deep(nn.Module):
    """Two stages and a classifier; the first normalises as Flax does."""

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        x = Block(4, name="layer1_0")(x, train)
        x = Block(8, name="layer2_0")(x, train)
        x = Block(8, name="layer2_1")(x, train)
        return nn.Dense(K, name="fc")(jnp.mean(x, (1, 2)))


@pytest.fixture(scope="module")
def deep():
    model, variables = tiny.network(Deep())
    images, labels = tiny.samples(96)
    found = dj.unlearn(
        model,
        variables,
        images,
        labels,
        forget=[0],
        method="finetune",
        epochs=30,
        lr=0.1,
        batch_size=32,
        parallel="jit",
        batch_norm="train",
    )
    return model, jax.device_get(found.variables), images, labels


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.slow
def test_what_starts_afresh_and_what_stays(deep):
    model, variables, images, labels = deep
    result = dj.unlearn(
        model, variables, images, labels, method=dj.methods.redistil(), epochs=2, **SETTINGS, batch_norm="train"
    )
    after = jax.device_get(result.variables)
    for part in ("params", "batch_stats"):
        for name in ("norm", "layer1_0"):
            assert same(after[part][name], variables[part][name]), name
        for name in ("layer2_0", "layer2_1"):
            assert not same(after[part][name], variables[part][name]), name
    assert not same(after["params"]["fc"], variables["params"]["fc"])
    assert jax.tree.structure(after) == jax.tree.structure(variables)
    start = dj.unlearn(
        model,
        variables,
        images,
        labels,
        method=dj.methods.redistil(),
        epochs=1,
        **{"batch_norm": "train"} | {**SETTINGS, "lr": 1e-12},
    ).variables["params"]
    kernel, before = (np.asarray(tree["layer2_0"]["Conv_0"]["kernel"]) for tree in (start, variables["params"]))
    assert abs(np.corrcoef(kernel.ravel(), before.ravel())[0, 1]) < 0.3  # nothing is left of it
    np.testing.assert_array_equal(start["layer2_0"]["BatchNorm_0"]["scale"], 1)


def test_it_erases_and_teaches_the_others(deep):
    model, variables, images, labels = deep
    method = dj.methods.redistil(images=20)
    result = dj.unlearn(model, variables, images, labels, method=method, epochs=6, **SETTINGS, batch_norm="train")
    answers = np.asarray(model.apply(result.variables, images)).argmax(-1)
    before = np.asarray(model.apply(variables, images)).argmax(-1)
    others = (labels != 1) & (before == labels) & (labels != 0)
    assert (answers[labels == 1] == 1).mean() == 0
    assert (answers[others] == labels[others]).mean() > 0.6  # chance among the three that stay: a third


def test_the_page(deep):
    model, variables, images, labels = deep
    (snippet,) = snippets("redistil", "result = dj.unlearn(")
    names = {"dj": dj, "model": model, "variables": variables, "images": images, "labels": labels}
    exec(snippet, names)
    assert len(names["result"].history) == 2 * -(-7 * 24 // 128)  # seven images for each of the class's 24


def test_which_layers():
    def chosen(names, fresh=None):
        setup = Setup(None, {"params": {name: np.zeros(2) for name in names}}, as_is, {}, K, (1,), jax.random.key(0))
        return fresh_layers(setup, fresh)

    names = ["conv1", "bn1", "layer1_0", "layer1_1", "layer3_0", "layer3_1", "layer2_0", "fc"]
    assert chosen(names) == ("layer3_0", "layer3_1")
    assert chosen(["patch_embed", "pos_embed", *(f"block{i}" for i in range(12)), "head"]) == ("block11",)
    assert chosen(names, ("layer2", "layer3")) == ("layer2_0", "layer3_0", "layer3_1")
    with pytest.raises(ValueError, match=r"no layer's name begins with 'stage9': there are bn1, conv1"):
        chosen(names, ("layer2", "stage9"))
    with pytest.raises(ValueError, match=r"cannot be seen by their names \(Conv_0, Dense_0\): give fresh="):
        chosen(["Conv_0", "Dense_0"])


def test_only_linen_networks():
    def apply(variables, x):
        hidden = jnp.tanh(x.reshape(len(x), -1) @ variables["params"]["layer1"]["kernel"])
        hidden = jnp.tanh(hidden @ variables["params"]["layer2"]["kernel"])
        return hidden @ variables["params"]["fc"]["kernel"]

    rng = np.random.default_rng(0)
    shapes = {"layer1": (36, 8), "layer2": (8, 8), "fc": (8, K)}
    params = {name: {"kernel": rng.normal(size=shape).astype(np.float32)} for name, shape in shapes.items()}
    model = dj.Model(apply, lambda variables, x, key: (apply(variables, x), variables))
    with pytest.raises(ValueError, match=r"redistil is for Linen networks \(models.from_linen\)"):
        dj.unlearn(model, {"params": params}, *tiny.samples(64), method="redistil", epochs=1, **SETTINGS)


def test_no_rate_is_found_for_it(deep):
    with pytest.raises(ValueError, match="redistil starts over: it erases at any rate: give a number"):
        dj.unlearn(*deep, method="redistil", **{**SETTINGS, "lr": "auto"})


@pytest.mark.parametrize(
    ("dtype", "kinds"), [(np.uint8, KINDS), (np.float32, ("same", "turned", "shrunk", "inverted"))]
)
def test_transfer_images(dtype, kinds):
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3)).astype(dtype)
    made = {kind: np.asarray(transfer_images(images, jax.random.key(1), 60, (kind,))) for kind in kinds}
    for kind, found in made.items():
        assert (found.shape, found.dtype) == ((60, 8, 8, 3), dtype), kind
        assert found.min() >= images.min()
        assert found.max() <= images.max()
        assert len(np.unique(found.reshape(60, -1), axis=0)) >= (5 if kind == "same" else 30), kind
        np.testing.assert_array_equal(found, transfer_images(images, jax.random.key(1), 60, (kind,)))
    originals = {image.tobytes() for image in images}
    assert {image.tobytes() for image in made["same"]} == originals
    pixels = [np.sort(image.ravel()) for image in images]
    low, high = (0, 255) if dtype == np.uint8 else (images.min(), images.max())
    for image in made["turned"]:
        assert any((np.sort(image.ravel()) == one).all() for one in pixels)
    for image in made["inverted"]:
        assert any(np.allclose(np.sort((low + high - image.astype(float)).ravel()), one) for one in pixels)
    assert all((image == low).all(-1).any() for image in made["shrunk"])
    mixed = transfer_images(images, jax.random.key(1), 600)
    assert 20 < sum(image.tobytes() in originals for image in np.asarray(mixed)) < 120  # a tenth, and turns by nothing


def test_the_answers_that_teach(deep):
    """The original's own; drawn so that answers that are rare among the transfer images are not rare in the stream."""
    model, variables, images, labels = deep
    streams = split_streams(images, labels, [1], K, [FORGET])
    streams[FORGET]["weight"][0] = 0
    setup = Setup(model, variables, as_is, streams, K, (1,), jax.random.key(0), classifier=("fc",))
    stream, means = transfer_stream(setup, find_head(setup), 400)
    assert {name: column.shape for name, column in stream.items()} == {
        "image": (400, 6, 6, 1), "label": (400,), "weight": (400,), "erase": (400, K), "teacher_logits": (400, K),
    }  # fmt: skip
    np.testing.assert_allclose(stream["teacher_logits"], model.apply(variables, stream["image"]), rtol=1e-4, atol=1e-5)
    masked = np.where(stream["erase"], -np.inf, stream["teacher_logits"])
    np.testing.assert_array_equal(stream["label"], masked.argmax(-1))
    assert (stream["label"] != 1).all()
    both = transfer_stream(setup._replace(erased=(3,)), find_head(setup), 100)[0]  # 3 by an earlier request
    assert not np.isin(both["label"], [1, 3]).any()
    assert np.asarray(both["erase"])[0].tolist() == [class_ in (1, 3) for class_ in range(K)]
    assert means.shape == (K, 8)
    pool = np.asarray(transfer_images(streams[FORGET]["image"][1:], jax.random.split(setup.key)[0], 800))
    answers = np.where(np.arange(K) == 1, -np.inf, np.asarray(model.apply(variables, pool))).argmax(-1)
    rare = np.bincount(answers, minlength=K)
    rarest = min((n, class_) for class_, n in enumerate(rare) if n > 20)[1]
    assert (stream["label"] == rarest).mean() > rare[rarest] / 800


def test_the_kinds_of_transfer_images(deep):
    model, variables, images, labels = deep
    streams = split_streams(images, labels, [1], K, [FORGET])
    setup = Setup(
        model, variables, as_is, streams, K, (1,), jax.random.key(0), classifier=("fc",), batch_size=8, num_steps=6
    )
    method = dj.methods.redistil(transformations=["same"])
    made = method.prepare(setup).streams[FORGET]["image"]
    assert {image.tobytes() for image in np.asarray(made)} <= {image.tobytes() for image in images[labels == 1]}
    every = dj.methods.redistil(transformations=KINDS[::-1])
    assert every is dj.methods.redistil()
