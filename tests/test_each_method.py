"""What is special about each method, on cases with known answers."""

import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

import delete_jax as dj
from delete_jax import memory
from delete_jax.columns import Rows, arrays
from delete_jax.methods import ANCHOR, FORGET, REMAIN, Context, Output, Setup, attacks, features, gradients
from delete_jax.methods.anchored import RADIUS, adversarial, reorientation
from delete_jax.methods.bad_teacher import bad_network, reinitialised, shuffled
from delete_jax.methods.base import in_batches
from delete_jax.methods.boundary_expand import NETWORK, UNIT
from delete_jax.methods.classifier import find_bias, find_classifier, named, names_of
from delete_jax.methods.l2ul import importance
from delete_jax.methods.pour import project
from delete_jax.methods.rfe import FASTER, split
from delete_jax.methods.salun import largest, random_mask, saliency_mask
from delete_jax.methods.wood_fisher import inverse_fisher
from delete_jax.model import Model
from delete_jax.step import init_state, make_train_step, sgd
from delete_jax.streams import split_streams
from tests import tiny

K = tiny.NUM_CLASSES
UNSIR = sys.modules[dj.methods.unsir.__module__]  # in the package, its name is the factory's


def same(images):
    return images


def linear_model(seed=0):
    """Logits `x W + b` of flattened 6x6 images: gradients are known in closed form."""
    kernel = jnp.asarray(np.random.default_rng(seed).normal(size=(36, K)) / 6)
    variables = {"params": {"kernel": kernel, "bias": jnp.zeros_like(kernel[0])}}

    def apply(variables, x):
        return x.reshape(len(x), -1) @ variables["params"]["kernel"] + variables["params"]["bias"][None]

    return Model(apply, lambda variables, x, key: (apply(variables, x), variables)), variables


def setup_of(model, variables, n=32, **settings) -> Setup:
    images, labels = tiny.samples(n)
    dtype = jax.tree.leaves(variables)[0].dtype
    streams = arrays(split_streams(images.astype(dtype), labels, [1], K, [FORGET, REMAIN]))
    for stream in streams.values():
        stream["weight"] = stream["weight"].astype(dtype)
    return Setup(model, variables, same, streams, K, (1,), jax.random.key(0), **{"batch_size": 8, **settings})


def logits_of(setup, stream):
    """The original's, `[n, k]`."""
    return np.asarray(setup.model.apply(setup.teacher, jnp.asarray(setup.streams[stream]["image"])))


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# ------------------------------------------------------------------------------------------------------------- attacks


def test_fgsm_is_one_signed_step(x64):
    model, variables = linear_model()
    setup = setup_of(model, variables)
    stream = setup.streams[FORGET]
    x, y = stream["image"], stream["label"]
    kernel = np.asarray(variables["params"]["kernel"])
    gradient = (softmax(x.reshape(len(x), -1) @ kernel) - np.eye(K)[y]) @ kernel.T
    low, high = x.min(), x.max()
    expected = np.clip(x + 0.1 * (high - low) * np.sign(gradient).reshape(x.shape), low, high)
    np.testing.assert_allclose(attacks.fgsm(setup, x, y, 0.1), expected, rtol=1e-12)


def test_fgsm_of_bytes():
    model, variables = linear_model()
    setup = setup_of(model, variables)._replace(preprocess=dj.data.normalize(np.array([0.4]), np.array([0.2])))
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (10, 6, 6, 1), dtype=np.uint8), np.arange(10) % K
    found = np.asarray(attacks.fgsm(setup, images, labels.astype(np.int32), 0.1))
    assert found.dtype == np.uint8
    moved = found.astype(int) - images
    inside = (images > 26) & (images < 229)
    assert set(np.abs(moved[inside])) <= {25, 26}, "0.1 of 255, rounded"
    assert np.abs(moved).max() <= 26
    before, after = (np.asarray(model.apply(variables, setup.preprocess(jnp.asarray(i)))) for i in (images, found))
    rows = np.arange(10)
    assert (np.log(softmax(after))[rows, labels] < np.log(softmax(before))[rows, labels]).all()


def test_pgd_stays_in_its_ball_and_reaches_its_target(x64):
    model, variables = linear_model()
    setup = setup_of(model, variables)
    x = setup.streams[FORGET]["image"]
    targets = jnp.full(len(x), 3, jnp.int32)
    span = x.max() - x.min()
    found = attacks.targeted_l2_pgd(setup, x, targets, jax.random.key(0), radius=0.4, step=0.1, steps=10)
    distance = np.sqrt(np.sum(np.square(np.asarray(found) - x), (1, 2, 3)))
    assert distance.max() <= 0.4 * span * (1 + 1e-9)
    assert distance.max() > 0.39 * span
    assert float(found.min()) >= x.min()
    assert float(found.max()) <= x.max()
    before, after = (softmax(np.asarray(model.apply(variables, i)))[:, 3] for i in (jnp.asarray(x), found))
    assert (after > before).all()


def test_in_batches_pads_and_cuts():
    x = jnp.arange(10.0)
    scaled = in_batches(lambda factor, x: factor * x, 2, x, size=4)
    np.testing.assert_array_equal(scaled, 2 * x)


# ----------------------------------------------------------------------------------------------------- trained methods


def test_salun_moves_only_the_most_salient_half(x64):
    model, variables = linear_model()
    method = dj.methods.salun(fraction=0.25)
    setup = setup_of(model, variables)
    mask = saliency_mask(setup, 0.25)
    stream = setup.streams[FORGET]
    x = stream["image"].reshape(len(stream["image"]), -1)
    error = softmax(x @ np.asarray(variables["params"]["kernel"])) - np.eye(K)[stream["label"]]
    sizes = np.concatenate([np.abs(error.mean(0)), np.abs(x.T @ error / len(x)).ravel()])  # one batch of 8
    chosen = np.concatenate([np.asarray(mask["bias"]), np.asarray(mask["kernel"]).ravel()]) > 0
    assert chosen.sum() == round(0.25 * sizes.size)
    assert sizes[chosen].min() >= sizes[~chosen].max()
    columns, constants, _ = method.prepare(setup)
    batch = {FORGET: stream | columns[FORGET]}
    tx = sgd(0.9, weight_decay=0.1)  # neither may move a masked weight
    step = jax.jit(make_train_step(model, method, tx, preprocess=same))
    state = init_state(variables, tx)
    for _ in range(3):
        state, _ = step(state, {}, batch, 0.1, jax.random.key(0), constants)
    for new, old, kept in zip(*map(jax.tree.leaves, (state.params, variables["params"], mask)), strict=True):
        assert (np.asarray(new == old) == (np.asarray(kept) == 0)).all()


def test_boundary_shrink_trains_towards_the_adversarial_answer(x64):
    model, variables = linear_model()
    setup = setup_of(model, variables)
    labels = dj.methods.boundary_shrink().prepare(setup).columns[FORGET]["adversarial_label"]
    stream = setup.streams[FORGET]
    adversarial = attacks.fgsm(setup, stream["image"], stream["label"], 0.1)
    np.testing.assert_array_equal(labels, np.asarray(model.apply(variables, adversarial)).argmax(-1))


def test_boundary_expand_adds_a_class_and_drops_it():
    model, variables = tiny.network()
    method = dj.methods.boundary_expand()
    wide, start = method.wrap(setup_of(model, variables))
    images, labels = map(jnp.asarray, tiny.samples(16))
    logits, expanded = model.apply(variables, images), wide.apply(start, images)
    assert expanded.shape == (16, K + 1)
    np.testing.assert_allclose(expanded[:, :K], logits, rtol=1e-6)
    train, updated = wide.apply_train(start, images, jax.random.key(0))
    np.testing.assert_allclose(train[:, :K], model.apply_train(variables, images, jax.random.key(0))[0], rtol=1e-6)
    assert jax.tree.structure(method.unwrap(updated)) == jax.tree.structure(variables)
    assert method.unwrap(variables) is variables
    result = dj.unlearn(
        model,
        variables,
        images,
        labels,
        forget=[1],
        method=method,
        epochs=4,
        lr=0.1,
        batch_size=4,
        parallel="jit",
        batch_norm="train",
    )
    assert not {UNIT, NETWORK} & result.variables["params"].keys()
    assert result.history[-1]["loss"] < result.history[0]["loss"]


def test_salun_moves_the_share_that_was_asked_for(x64):
    """Half of the inputs are always 0, and so are the gradients of their weights: which of them move is a tie."""
    model, variables = linear_model()
    setup = setup_of(model, variables)
    stream = setup.streams[FORGET]
    dark = {**stream, "image": np.where(np.arange(36).reshape(6, 6, 1) < 18, 0, stream["image"])}
    masks = [saliency_mask(setup._replace(streams={FORGET: dark}), share) for share in (0.01, 0.5, 0.75, 0.75, 1)]
    counts = [sum(int(leaf.sum()) for leaf in jax.tree.leaves(mask)) for mask in masks]
    assert counts == [max(round(share * 148), 1) for share in (0.01, 0.5, 0.75, 0.75, 1)]
    jax.tree.map(np.testing.assert_array_equal, masks[2], masks[3])
    values = jnp.array([1.0, 3, 2, 2, 2, 0])
    np.testing.assert_array_equal(largest(values, 0.5), [False, True, True, True, False, False])


def test_a_random_mask_is_of_the_same_share():
    model, variables = tiny.network()
    setup = setup_of(model, variables)
    masks = [random_mask(setup._replace(key=jax.random.key(seed)), 0.25) for seed in (0, 0, 1)]
    flat = [np.asarray(ravel_pytree(mask)[0]) for mask in masks]
    assert jax.tree.map(jnp.shape, masks[0]) == jax.tree.map(jnp.shape, variables["params"])
    assert set(flat[0]) == {0, 1}
    assert flat[0].sum() == round(0.25 * flat[0].size)
    np.testing.assert_array_equal(flat[0], flat[1])
    assert 0 < np.mean(flat[0] * flat[2]) < 0.25
    chosen = dj.methods.salun(fraction=0.25, mask="random").prepare(setup).constants["update_mask"]
    jax.tree.map(np.testing.assert_array_equal, chosen, masks[0])


def images_apart(model, variables):
    logits = np.asarray(model.apply(variables, jnp.asarray(tiny.samples(16)[0])))
    return (logits - logits.mean(1, keepdims=True)).std(0).mean()


def plain(names):
    """A network with a normalisation of its own, with these names for its arrays; a list without names."""
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(16, 36)), rng.uniform(0.7, 1.2, 16), rng.normal(0, 0.1, 16), rng.normal(size=(K, 16))]
    arrays = [jnp.asarray(array, jnp.float32) for array in arrays]
    if names is None:
        params, get = arrays, lambda params: params
    else:
        params, get = dict(zip(names, arrays, strict=True)), lambda params: [params[name] for name in names]

    def apply(variables, x):
        first, scale, shift, last = get(variables["params"])
        h = x.reshape(len(x), -1) @ first.T
        h = (h - h.mean(1, keepdims=True)) / (h.std(1, keepdims=True) + 1e-5)
        return jax.nn.relu(h * scale[None] + shift[None]) @ last.T

    return Model(apply, lambda variables, x, key: (apply(variables, x), variables)), {"params": params}


@pytest.mark.parametrize(
    "network",
    [
        tiny.network,
        lambda: plain(None),
        lambda: plain(("1.weight", "2.weight", "2.bias", "3.weight")),
        lambda: plain(("a", "b", "c", "d")),
        lambda: dj.models.from_nnx(nnx.Linear(36, K, rngs=nnx.Rngs(0))),
    ],
    ids=["linen", "list", "torch", "letters", "nnx"],
)
def test_a_bad_teacher_tells_images_apart(network):
    model, variables = network()
    if "nnx" in str(model):
        model = model._replace(apply=lambda v, x, apply=model.apply: apply(v, x.reshape(len(x), -1)))
    bad = bad_network(setup_of(model, variables))
    assert 1e-2 < images_apart(model, bad) < 10
    assert jax.tree.structure(bad) == jax.tree.structure(variables)
    for new, old in zip(jax.tree.leaves(bad["params"]), jax.tree.leaves(variables["params"]), strict=True):
        assert new.ndim < 2 or abs(np.corrcoef(np.ravel(new), np.ravel(old))[0, 1]) < 0.3


def test_a_bad_teacher_of_an_odd_network():
    """Where new weights make no sense, the old ones are shuffled; where these do not either, it says so."""

    def apply(variables, x):
        scale, w = variables["params"]["mean"], variables["params"]["w"]
        return (x.reshape(len(x), -1) * scale[None]) @ w

    rng = np.random.default_rng(0)
    params = {"mean": jnp.asarray(rng.uniform(1, 2, 36)), "w": jnp.asarray(rng.normal(size=(36, K)))}
    model = Model(apply, lambda variables, x, key: (apply(variables, x), variables))
    assert images_apart(model, reinitialised({"params": params}, jax.random.key(0))) == 0
    setup = setup_of(model, {"params": params})
    bad = bad_network(setup)
    jax.tree.map(np.testing.assert_array_equal, bad, shuffled({"params": params}, setup.key))
    np.testing.assert_array_equal(np.sort(bad["params"]["w"].ravel()), np.sort(params["w"].ravel()))
    once = model._replace(apply=lambda v, x: jnp.where(v["params"]["w"][0, 0] == params["w"][0, 0], apply(v, x), 0))
    with pytest.raises(ValueError, match="bad_teacher: with random weights this network answers all images alike"):
        bad_network(setup._replace(model=once))


def test_bad_teacher_averages_over_the_joined_batch(x64):
    """8 forget and 5 remaining samples that count: one mean over 13, whatever the streams' own means."""
    model, variables = linear_model()
    method = dj.methods.bad_teacher(remain=True)
    setup = setup_of(model, variables)
    constants = method.prepare(setup).constants
    batch = {name: jax.tree.map(lambda column: column[:8], stream) for name, stream in setup.streams.items()}
    batch[REMAIN]["weight"] = (np.arange(8) < 5).astype(float)
    start = jax.tree.map(lambda leaf: 1.5 * leaf, variables)
    step = jax.jit(make_train_step(model, method, sgd(), preprocess=same))
    _, metrics = step(init_state(start, sgd()), {"original": variables}, batch, 0.1, jax.random.key(0), constants)

    def divergences(teacher, stream):
        p, q = (softmax(np.asarray(model.apply(v, batch[stream]["image"]))) for v in (teacher, start))
        return (p * np.log(p / q)).sum(-1)

    joined = [*divergences(constants["bad_teacher"], FORGET), *divergences(variables, REMAIN)[:5]]
    np.testing.assert_allclose(metrics["loss"], np.mean(joined), rtol=1e-9)


def test_bad_teacher_is_another_network():
    _, variables = tiny.network()
    bad = reinitialised(variables, jax.random.key(1))
    assert jax.tree.map(jnp.shape, bad) == jax.tree.map(jnp.shape, variables)
    np.testing.assert_array_equal(bad["batch_stats"]["BatchNorm_0"]["var"], 1)
    np.testing.assert_array_equal(bad["params"]["BatchNorm_0"]["scale"], 1)
    np.testing.assert_array_equal(bad["params"]["Dense_0"]["bias"], 0)
    wide = reinitialised({"kernel": jnp.zeros((3, 3, 64, 128))}, jax.random.key(0))["kernel"]
    np.testing.assert_allclose(wide.std(), (2 / (9 * 64)) ** 0.5, rtol=0.02)
    method = dj.methods.bad_teacher(remain=True)
    assert method.streams == (FORGET, REMAIN)
    assert method.networks == ("original",)


def test_negative_gradient_plus_weighs_both(x64):
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, K)))
    labels = jnp.array([0, 1, 2])
    outputs = {
        name: Output({"label": labels, "erase": jnp.zeros((3, K), bool)}, part, None)
        for name, part in zip((FORGET, REMAIN), logits, strict=True)
    }
    terms = dj.methods.negative_gradient_plus(0.9).loss(outputs, Context())
    cross = [-np.log(softmax(np.asarray(part)))[np.arange(3), labels] for part in logits]
    np.testing.assert_allclose(terms[FORGET].loss, -0.1 * cross[0], rtol=1e-12)
    np.testing.assert_allclose(terms[REMAIN].loss, 0.9 * cross[1], rtol=1e-12)


def test_scrub_takes_turns():
    rng = np.random.default_rng(0)
    labels = jnp.array([0, 1, 2])
    outputs = {
        name: Output({"label": labels, "erase": jnp.zeros((3, K), bool)}, *jnp.asarray(rng.normal(size=(2, 3, K))))
        for name in (FORGET, REMAIN)
    }
    method = dj.methods.scrub()
    constants = method.prepare(Setup(None, None, None, {}, K, (1,), None, num_steps=9)).constants
    active = []
    for step in range(9):
        terms = method.loss(outputs, Context(constants, step))
        assert (terms[FORGET].loss <= 0).all()
        active.append([name for name in (FORGET, REMAIN) if bool((terms[name].loss != 0).any())])
    assert active == [[FORGET], [REMAIN]] * 3 + [[REMAIN]] * 3


def test_delete_on_remaining_samples(x64):
    """The mask is for forget samples alone. Remaining ones go towards the original's predictions, or towards their labels."""
    rng = np.random.default_rng(0)
    teacher, student = jnp.asarray(rng.normal(size=(2, 3, K)))
    label = np.array([0, 2, 3])
    batch = {"label": jnp.asarray(label), "erase": jnp.arange(K)[None] == 1}
    outputs = {name: Output(batch, student, teacher) for name in (FORGET, REMAIN)}
    p, q = softmax(np.asarray(teacher)), softmax(np.asarray(student))
    expected = {True: (p * np.log(p / q)).sum(-1), "labels": -np.log(q[np.arange(3), label])}
    masked = p * (np.arange(K) != 1)
    masked = masked / masked.sum(1, keepdims=True)
    for remain, value in expected.items():
        method = dj.methods.delete(remain=remain)
        assert method.streams == (FORGET, REMAIN)
        terms = method.loss(outputs, Context())
        np.testing.assert_allclose(terms[REMAIN].loss, value, rtol=1e-12)
        kept = masked[:, [0, 2, 3]]
        np.testing.assert_allclose(terms[FORGET].loss, (kept * np.log(kept / q[:, [0, 2, 3]])).sum(-1), rtol=1e-12)
    assert set(dj.methods.delete().loss(outputs, Context())) == {FORGET}


def test_unsir_learns_noise_impairs_and_repairs(x64, monkeypatch):
    """The noise: Adam on `log q_u + penalty |z|^2`, whose gradient is `deviation W (e_u - q) + 2 penalty z` where no pixel is clipped. It
    stands in for the forget samples in the first half of the steps; in the second, remaining samples alone count, half."""
    monkeypatch.setattr(UNSIR, "IMAGES", 4)  # of 8 samples of the class
    model, variables = linear_model()
    setup = setup_of(model, variables, num_steps=5)
    remain, kernel = setup.streams[REMAIN]["image"], np.asarray(variables["params"]["kernel"])
    mean, deviation, low, high = remain.mean(), remain.std(), remain.min(), remain.max()
    z = np.asarray(jax.random.normal(jax.random.fold_in(setup.key, 1), (4, 6, 6, 1))).reshape(4, 36)
    before = softmax(np.clip(mean + deviation * z, low, high) @ kernel)[:, 1]
    first, second = np.zeros_like(z), np.zeros_like(z)
    for step in range(1, 41):
        x = mean + deviation * z
        q = softmax(np.clip(x, low, high) @ kernel)
        gradient = deviation * ((np.eye(K)[1] - q) @ kernel.T) * ((x > low) & (x < high)) + 0.2 * z
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        z = z - 0.1 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    expected = np.clip(mean + deviation * z, low, high)
    assert (softmax(expected @ kernel)[:, 1] < before).all()
    method = dj.methods.unsir()
    prepared = method.prepare(setup)
    found = prepared.streams[FORGET]
    np.testing.assert_allclose(found["image"].reshape(8, 36), np.concatenate([expected] * 2), rtol=1e-9)
    np.testing.assert_array_equal(found["label"], setup.streams[FORGET]["label"])
    other = setup.streams[FORGET] | {"image": np.zeros((8, 6, 6, 1))}  # whose own images are not read
    blind = UNSIR.noise(setup._replace(streams={**setup.streams, FORGET: other}), 0.1)
    np.testing.assert_array_equal(blind, found["image"])

    rng = np.random.default_rng(0)
    batch = {"label": jnp.array([0, 1, 2]), "erase": jnp.zeros((3, K), bool)}
    logits = {name: jnp.asarray(rng.normal(size=(3, K))) for name in (FORGET, REMAIN)}
    outputs = {name: Output(batch, part, None) for name, part in logits.items()}
    cross = {name: -np.log(softmax(np.asarray(part)))[np.arange(3), np.arange(3)] for name, part in logits.items()}
    for step, (on_noise, on_remaining) in enumerate([(1, 1)] * 3 + [(0, 0.5)] * 2):
        terms = method.loss(outputs, Context(prepared.constants, jnp.int32(step)))
        np.testing.assert_allclose(terms[FORGET].loss, on_noise * cross[FORGET], rtol=1e-12)
        np.testing.assert_allclose(terms[REMAIN].loss, on_remaining * cross[REMAIN], rtol=1e-12)


def test_unsir_of_bytes():
    """Noise is stored as the images are: rounded, within the bytes' span."""
    setup = setup_of(*linear_model())
    streams = {name: stream | {"image": np.uint8(60 * stream["image"] + 100)} for name, stream in setup.streams.items()}
    found = UNSIR.noise(setup._replace(streams=streams, preprocess=lambda x: jnp.float32(x) / 60), 0.1)
    remain = streams[REMAIN]["image"]
    assert (found.dtype, found.shape) == (np.uint8, (8, 6, 6, 1))
    assert abs(found.mean() - remain.mean()) < remain.std()
    assert np.ptp(found) > 10


@pytest.mark.parametrize("wasserstein", [0, 0.5])
def test_rfe_raises_the_loss_and_repairs_along_projected_gradients(x64, wasserstein):
    """Batches of all samples: both stages are known in closed form, the multiplier by its course, the projection by least squares."""
    model, variables = linear_model()
    setup = setup_of(model, variables, batch_size=32, num_steps=9, strength=0.05)
    weight = setup.streams[REMAIN]["weight"]
    weight[0] = 0  # does not count
    nearest = [0, 2, 3][softmax(logits_of(setup, FORGET)[:, [0, 2, 3]]).mean(0).argmax()]
    kept = setup.streams[REMAIN]["label"]
    places = {"near": (kept == nearest) & (weight > 0), "remote": (kept != nearest) & (weight > 0)}
    assert [*map(np.flatnonzero, places.values())] == [pytest.approx(found) for found in split(setup, 1)]
    x = {name: setup.streams[REMAIN]["image"].reshape(-1, 36)[place] for name, place in places.items()}
    y = {name: kept[place] for name, place in places.items()}
    x["forget"], y["forget"] = setup.streams[FORGET]["image"].reshape(-1, 36), setup.streams[FORGET]["label"]

    def seen(w, name, weights=lambda losses: np.full(len(losses), 1 / len(losses))):
        """The losses, and the gradient of a sum of them with these weights."""
        q = softmax(x[name] @ w[:36] + w[36])
        losses = -np.log(q[np.arange(len(q)), y[name]])
        error = weights(losses)[:, None] * (q - np.eye(K)[y[name]])
        return losses, np.concatenate([x[name].T @ error, error.sum(0)[None]])

    w = np.concatenate([np.asarray(variables["params"]["kernel"]), np.zeros((1, K))])
    held, clip, multiplier = seen(w, "remote")[0].mean(), 2.0, 0.0
    first, second, clipped, multipliers = np.zeros_like(w), np.zeros_like(w), 0, []
    for step in range(1, 6):
        losses, slope = seen(w, "remote")
        excess = losses.mean() - held
        losses, raised = seen(w, "forget", lambda losses: (losses < clip) / len(losses))
        clipped += (losses >= clip).sum()
        gradient = -raised + (multiplier + 10 * excess) * slope
        multiplier += 10 * excess
        multipliers.append(multiplier)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        w = w - 0.05 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    assert clipped
    assert multipliers[0] == 0
    assert multipliers[-1] > 0.1
    before, velocity, crossed = seen(w, "forget")[0], np.zeros_like(w), False
    for _ in range(4):
        now = seen(w, "forget")[0]
        crossed |= (np.argsort(now) != np.argsort(before)).any()
        pairs = np.sort(before)[np.argsort(np.argsort(now))]
        away = (2 * wasserstein * (now - pairs) - (1 - wasserstein)) / len(now)
        others = [seen(w, "forget", lambda losses, away=away: away)[1], seen(w, "remote")[1]]
        velocity = 0.9 * velocity + seen(w, "near")[1]
        span = np.stack([other.ravel() for other in others], 1)
        velocity -= (span @ np.linalg.lstsq(span, velocity.ravel())[0]).reshape(w.shape)
        w = w - FASTER * 0.05 * velocity
    assert crossed
    found = dj.methods.rfe(clip=clip, wasserstein=wasserstein).edit(setup)["params"]
    np.testing.assert_allclose(found["kernel"], w[:36], rtol=1e-8)
    np.testing.assert_allclose(found["bias"], w[36], rtol=1e-8, atol=1e-10)


def test_gradients_are_projected_off_others():
    """Float32, gradients of very different lengths, and others that span less than two directions."""
    rng = np.random.default_rng(0)
    tree, one, other = ({"a": rng.normal(size=(4, 3)), "b": rng.normal(size=5)} for _ in range(3))
    for others, span in (
        ((one, other), (one, other)),
        ((jax.tree.map(lambda leaf: 1e-6 * leaf, one), other), (one, other)),
        ((one, jax.tree.map(lambda leaf: 3 * leaf, one)), (one,)),
        ((one, jax.tree.map(np.zeros_like, one)), (one,)),
        ((jax.tree.map(np.zeros_like, one),), ()),
    ):
        trees = [jax.tree.map(jnp.float32, given) for given in (tree, *others)]
        found = ravel_pytree(gradients.projected(*trees))[0]
        expected = np.asarray(ravel_pytree(tree)[0])
        if span:
            matrix = np.stack([ravel_pytree(given)[0] for given in span], 1)
            expected = expected - matrix @ np.linalg.lstsq(matrix, expected)[0]
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_rfe_leaves_a_class_to_hold():
    model, variables = tiny.network()
    images, labels = tiny.samples(16)
    request = {"forget": [1], "method": dj.methods.rfe(adjacent=3), "batch_size": 8}
    with pytest.raises(ValueError, match="rfe: adjacent=3 leaves none of 3 remaining classes to hold"):
        dj.unlearn(model, variables, images, labels, **request)
    few = labels < 3  # no sample of the fourth class
    request["method"] = dj.methods.rfe(adjacent=2)
    with pytest.raises(ValueError, match="rfe: adjacent=2 leaves none of 2 remaining classes to hold"):
        dj.unlearn(model, variables, images[few], labels[few], **request)


def test_trew_leans_towards_similar_classes(x64):
    model, variables = linear_model()
    setup = setup_of(model, variables)
    similarity = dj.methods.trew().prepare(setup).constants["similarity"]
    rows = np.asarray(variables["params"]["kernel"]).T
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(similarity, rows @ rows.T, rtol=1e-10)
    rng = np.random.default_rng(0)
    teacher, student = jnp.asarray(rng.normal(size=(2, 3, K)))
    batch = {"label": jnp.array([1, 1, 1]), "erase": jnp.arange(K)[None] == 1}
    context = Context({"similarity": similarity})

    outputs = {name: Output(batch, student, teacher) for name in (FORGET, REMAIN)}

    def loss(method):
        return method.loss(outputs, context)[FORGET].loss

    np.testing.assert_allclose(loss(dj.methods.trew(beta=0.0)), loss(dj.methods.delete()), rtol=1e-10)
    target = softmax(np.where(np.arange(K) == 1, -np.inf, np.asarray(teacher))) * np.exp(10 * similarity[1][None])
    p = (target / target.sum(1, keepdims=True))[:, [0, 2, 3]]
    q = softmax(np.asarray(student))[:, [0, 2, 3]]
    np.testing.assert_allclose(loss(dj.methods.trew()), np.sum(p * np.log(p / q), -1), rtol=1e-10)
    assert set(dj.methods.trew().loss(outputs, context)) == {FORGET}
    both = dj.methods.trew(remain=True).loss(outputs, context)
    np.testing.assert_array_equal(both[FORGET].loss, loss(dj.methods.trew()))
    np.testing.assert_allclose(both[REMAIN].loss, -np.log(softmax(np.asarray(student))[:, 1]), rtol=1e-12)


@pytest.mark.parametrize(
    ("method", "constants"),
    [
        (dj.methods.delete(), {}),
        (dj.methods.delete(temperature=2), {}),
        (dj.methods.trew(), {"similarity": np.eye(K)}),
        (dj.methods.to_background(), {}),
    ],
    ids=["delete", "soft delete", "trew", "to_background"],
)
def test_targets_without_the_erased_classes_leave_nothing_within(method, constants, x64):
    teacher, student = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, K)))
    batch = {"label": jnp.array([1, 1, 2]), "erase": jnp.isin(jnp.arange(K), jnp.array([1, 2]))[None]}
    term = method.loss({FORGET: Output(batch, student, teacher)}, Context(constants))[FORGET]
    np.testing.assert_array_equal(term.parts.within, 0)
    np.testing.assert_allclose(sum(term.parts), term.loss, rtol=1e-12)


def test_importance_is_scaled_within_each_tensor(x64):
    model, variables = linear_model()
    setup = setup_of(model, variables)
    found = importance(setup)
    for leaf in jax.tree.leaves(found):
        assert (float(leaf.min()), float(leaf.max())) == (0, 1)
    x = setup.streams[FORGET]["image"].reshape(8, -1)
    z = x @ np.asarray(variables["params"]["kernel"])
    gradient = np.abs(x.T @ (z / np.linalg.norm(z, axis=1, keepdims=True)) / 8)
    expected = (gradient - gradient.min()) / (gradient.max() - gradient.min())
    np.testing.assert_allclose(found["kernel"], expected, rtol=1e-8, atol=1e-12)


# ------------------------------------------------------------------------------------------------------------- anchors


@pytest.mark.parametrize("shape", [(8, 8, 1), (4, 8, 3)])
def test_reorientation_keeps_the_pixels(shape):
    images = jnp.arange(5 * np.prod(shape), dtype=jnp.int32).reshape(5, *shape)
    keys = jax.random.split(jax.random.key(0), 5)
    found = jax.jit(reorientation(("turn", "flip", "shift")))(images, keys)
    assert found.shape == images.shape
    assert found.dtype == images.dtype
    for before, after in zip(images, found, strict=True):
        np.testing.assert_array_equal(jnp.sort(before.ravel()), jnp.sort(after.ravel()))
    assert bool((found != images).any())
    mirrored = reorientation(("flip",))(images, keys)
    for before, after in zip(images, mirrored, strict=True):
        assert any(bool((after == option).all()) for option in (before, before[:, ::-1]))


@pytest.mark.usefixtures("full_precision")
def test_anchors_are_distilled_with_the_mask():
    """With frozen statistics: the gradient is that of DELETE on the forget batch plus that on its reoriented copy."""
    model, variables = tiny.network()
    setup = setup_of(model, variables)
    stream = jax.tree.map(jnp.asarray, setup.streams[FORGET])
    seen = []
    method = dj.methods.anchored(weight=0.5)

    def spy(outputs, context):
        jax.debug.callback(seen.append, outputs[ANCHOR].batch)
        return method.loss(outputs, context)

    spied = method._replace(loss=spy)
    step = make_train_step(model, spied, sgd(), preprocess=same, batch_norm="frozen")
    start = init_state(jax.tree.map(lambda leaf: 1.1 * leaf, variables), sgd())
    state, metrics = jax.jit(step)(start, {"original": variables}, {FORGET: stream}, 1.0, jax.random.key(0))
    jax.effects_barrier()
    anchors = jax.tree.map(jnp.asarray, seen[0])
    assert anchors["image"].shape == stream["image"].shape
    assert bool((anchors["image"] != stream["image"]).any())
    plain = jax.jit(make_train_step(model, dj.methods.delete(), sgd(), preprocess=same, batch_norm="frozen"))

    def update(batch):
        new, metrics = plain(start, {"original": variables}, {FORGET: batch}, 1.0, jax.random.key(0))
        return ravel_pytree(new.params)[0] - ravel_pytree(start.params)[0], float(metrics["loss"])

    (on_forget, first), (on_anchors, second) = update(stream), update(anchors)
    moved = ravel_pytree(state.params)[0] - ravel_pytree(start.params)[0]
    np.testing.assert_allclose(moved, on_forget + 0.5 * on_anchors, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(metrics["loss"], first + 0.5 * second, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_adversarial_anchors_are_near_and_of_another_class(dtype):
    model, variables = tiny.network()
    images, labels = tiny.samples(64)
    trained = dj.unlearn(
        model,
        variables,
        images,
        labels,
        forget=[1],
        method="finetune",
        epochs=5,
        lr=0.1,
        batch_size=8,
        parallel="jit",
        batch_norm="train",
    )
    setup = setup_of(model, trained.variables, 64)
    x, width, of_floats = setup.streams[FORGET]["image"], np.ptp(setup.streams[FORGET]["image"]), same
    if dtype == np.uint8:
        x, width = np.clip(x * 50 + 100, 0, 255).astype(np.uint8), 255
        of_floats = dj.data.normalize(0.4, 0.2)
    setup = setup._replace(streams={FORGET: setup.streams[FORGET] | {"image": x}}, preprocess=of_floats)
    found = np.asarray(adversarial(setup))
    assert found.dtype == dtype
    moved = np.abs(found.astype(float) - x)
    assert 0.8 * RADIUS * width < moved.max() <= RADIUS * width * (1 + 1e-5) + (0.5 if dtype == np.uint8 else 0)

    def answers(images):
        return np.asarray(model.apply(trained.variables, of_floats(jnp.asarray(images))))

    before, after = answers(x), answers(found)
    best = np.where(np.arange(K) == 1, -np.inf, before).argmax(-1)
    rows = np.arange(len(x))
    assert (np.log(softmax(after))[rows, best] > np.log(softmax(before))[rows, best]).all()
    columns = dj.methods.anchored(dj.methods.random_label(), anchors="adversarial").prepare(setup).columns[FORGET]
    np.testing.assert_array_equal(columns["anchor"], found)
    assert "random_label" in columns


def test_the_step_takes_the_anchors_that_were_prepared():
    model, variables = tiny.network()
    setup = setup_of(model, variables)
    method, seen = dj.methods.anchored(anchors="adversarial"), []
    stream = jax.tree.map(jnp.asarray, setup.streams[FORGET] | method.prepare(setup).columns[FORGET])

    def spy(outputs, context):
        jax.debug.callback(seen.append, {name: output.batch["image"] for name, output in outputs.items()})
        return method.loss(outputs, context)

    step = jax.jit(make_train_step(model, method._replace(loss=spy), sgd(), preprocess=same))
    step(init_state(variables, sgd()), {"original": variables}, {FORGET: stream}, 0.1, jax.random.key(0))
    jax.effects_barrier()
    np.testing.assert_array_equal(seen[0][ANCHOR], stream["anchor"])
    np.testing.assert_array_equal(seen[0][FORGET], stream["image"])
    assert bool((stream["anchor"] != stream["image"]).any())


@pytest.mark.parametrize(
    "base",
    [
        "gradient_ascent",
        pytest.param("random_label", marks=pytest.mark.slow),
        pytest.param("salun", marks=pytest.mark.slow),
        pytest.param("bad_teacher", marks=pytest.mark.slow),
    ],
)
def test_any_forget_only_method_takes_anchors(base):
    model, variables = tiny.network()
    images, labels = tiny.samples(32)
    result = dj.unlearn(
        model, variables, images, labels, forget=[1], method=dj.methods.create("anchored", method=base), epochs=1,
        lr=0.05, batch_size=4, parallel="jit", batch_norm="train",
    )  # fmt: skip
    assert np.isfinite(result.history[-1]["loss"])


@pytest.mark.parametrize("base", ["finetune", "scrub", "pour", "anchored", "nope"])
def test_others_do_not(base):
    with pytest.raises(ValueError, match=r"anchored: method must|unknown method"):
        dj.methods.create("anchored", method=base)


# ---------------------------------------------------------------------------------------------------- computed at once


def test_diagonal_fisher_of_single_samples(x64):
    model, variables = linear_model()
    setup = setup_of(model, variables, batch_size=1)
    stream = setup.streams[FORGET]
    x = stream["image"].reshape(len(stream["image"]), -1)
    error = softmax(x @ np.asarray(variables["params"]["kernel"])) - np.eye(K)[stream["label"]]
    found = gradients.diagonal_fisher(setup, FORGET)
    np.testing.assert_allclose(found["kernel"], (x**2).T @ error**2 / len(x), rtol=1e-10)
    np.testing.assert_allclose(found["bias"], (error**2).mean(0), rtol=1e-10)


def test_the_last_batch_counts_its_own_samples(x64):
    model, variables = linear_model()
    setup = setup_of(model, variables, batch_size=5)  # 8 samples: 5 and 3
    batches = list(gradients.gradient_batches(setup, FORGET))
    whole, _ = next(gradients.gradient_batches(setup._replace(batch_size=8), FORGET))
    assert [samples for _, samples in batches] == [5, 3]
    sum_ = sum(samples * gradient["kernel"] for gradient, samples in batches)
    np.testing.assert_allclose(sum_ / 8, whole["kernel"], rtol=1e-10)
    np.testing.assert_allclose(gradients.mean_gradient(setup, FORGET)["kernel"], whole["kernel"], rtol=1e-10)
    squares = sum(samples**2 * np.square(gradient["kernel"]) for gradient, samples in batches)
    np.testing.assert_allclose(gradients.diagonal_fisher(setup, FORGET)["kernel"], squares / 8, rtol=1e-10)


def test_samples_that_do_not_fit_are_read_batch_by_batch(x64, monkeypatch):
    class Counted(Rows):
        def __getitem__(self, key):
            reads.append(len(found := super().__getitem__(key)))
            return found

    reads = []
    model, variables = linear_model()
    setup = setup_of(model, variables, batch_size=5)
    stream = setup.streams[FORGET]
    lazy = setup._replace(streams={FORGET: {**stream, "image": Counted(np.asarray(stream["image"]))}})
    expected = list(gradients.gradient_batches(setup, FORGET))
    monkeypatch.setattr(memory, "free_bytes", lambda: stream["image"].nbytes)
    found = list(gradients.gradient_batches(lazy, FORGET))
    assert reads == [5, 3]
    jax.tree.map(lambda mine, other: np.testing.assert_allclose(mine, other, rtol=1e-10), found, expected)
    reads.clear()
    monkeypatch.setattr(features, "BATCH", 4)
    classifier = find_classifier(setup)
    (_, labels), (_, rest) = features.feature_batches(lazy, classifier, FORGET)
    assert reads == [4, 4]
    assert [*labels, *rest] == stream["label"].tolist()


def test_inverse_fisher_is_exact(x64):
    model, variables = linear_model()
    setup = setup_of(model, variables)
    rows = [ravel_pytree(g)[0] for g, _ in gradients.gradient_batches(setup, REMAIN, batch_size=1)]
    matrix = np.eye(rows[0].size) + np.stack(rows).T @ np.stack(rows) / len(rows)
    vector = jnp.asarray(np.random.default_rng(0).normal(size=rows[0].size))
    np.testing.assert_allclose(inverse_fisher(setup, vector), np.linalg.solve(matrix, vector), rtol=1e-9)


def test_wood_fisher_steps_uphill_on_the_forget_samples(x64):
    model, variables = linear_model()
    setup = setup_of(model, variables, strength=0.1, batch_size=8)
    gradient = gradients.mean_gradient(setup, FORGET)
    ascent = dj.methods.wood_fisher(remain=False).edit(setup)
    np.testing.assert_allclose(
        ascent["params"]["kernel"], variables["params"]["kernel"] + 0.1 * gradient["kernel"], rtol=1e-12
    )
    newton = dj.methods.wood_fisher().edit(setup)
    moved = ravel_pytree(newton["params"])[0] - ravel_pytree(variables["params"])[0]
    assert float(moved @ ravel_pytree(gradient)[0]) > 0


def test_ssd_dampens_what_matters_more_for_the_forget_samples(x64):
    model, variables = linear_model()
    setup = setup_of(model, variables)
    forgotten, kept = (np.asarray(gradients.diagonal_fisher(setup, name)["kernel"]) for name in (FORGET, REMAIN))
    on_all = (8 * forgotten + 24 * kept) / 32
    weight = np.asarray(variables["params"]["kernel"])
    expected = np.where(forgotten > 1.5 * on_all, np.minimum(0.8 * on_all / forgotten, 1) * weight, weight)
    found = dj.methods.ssd(alpha=1.5, dampening=0.8).edit(setup)["params"]["kernel"]
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert 0 < np.mean(expected != weight) < 1


@pytest.mark.slow
def test_fisher_noise_has_the_stated_variance():
    """Where the information is 0 the variance is strength times its limit."""
    model, variables = tiny.network(tiny.Net(features=256))
    setup = setup_of(model, variables, strength=1e-4)
    flat = {name: {**stream, "weight": np.zeros_like(stream["weight"])} for name, stream in setup.streams.items()}
    noisy = dj.methods.fisher().edit(setup._replace(streams=flat))
    moved = jax.tree.map(lambda a, b: np.asarray(a - b), noisy["params"], variables["params"])
    np.testing.assert_allclose(moved["Conv_0"]["kernel"].std(), (1e-4 * 1e3) ** 0.5, rtol=0.05)
    np.testing.assert_allclose(moved["BatchNorm_0"]["scale"].std(), (1e-4 * 1e3 * 10) ** 0.5, rtol=0.15)
    np.testing.assert_allclose(moved["Dense_0"]["kernel"].std(), (1e-4 * 1e2 * 10) ** 0.5, rtol=0.1)
    np.testing.assert_array_equal(
        noisy["batch_stats"]["BatchNorm_0"]["mean"], variables["batch_stats"]["BatchNorm_0"]["mean"]
    )


def test_pour_leaves_the_bias_of_the_class_alone(x64):
    model, variables = linear_model()
    bias = jnp.asarray(np.random.default_rng(1).normal(size=K))
    variables = {"params": {**variables["params"], "bias": bias}}
    for forget in ((1,), (0, 2)):
        projected = project(variables, forget, K, ("kernel",))
        x = jnp.asarray(tiny.samples(16)[0], jnp.float64)
        logits = model.apply(projected, x)
        for class_ in forget:
            np.testing.assert_allclose(logits[:, class_], bias[class_], atol=1e-12)
        kernel, new = (np.asarray(v["params"]["kernel"]) for v in (variables, projected))
        rows = kernel[:, list(forget)]
        complement = np.eye(36) - rows @ np.linalg.solve(rows.T @ rows, rows.T)
        np.testing.assert_allclose(new, complement @ kernel, atol=1e-12)
        np.testing.assert_allclose(project(projected, forget, K, ("kernel",))["params"]["kernel"], new, atol=1e-12)


def two_layers(last, params, num_classes=K):
    """Features `tanh(x A)` of 6x6 images, then `last(features, params)`; A has as many columns as there are classes."""
    stem = np.random.default_rng(1).normal(size=(36, num_classes)) / 6
    variables = {"params": {"stem": {"kernel": stem, "bias": np.zeros(num_classes)}, **params}}
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), variables)

    def apply(variables, x):
        stem = variables["params"]["stem"]
        features = jnp.tanh(x.reshape(len(x), -1) @ stem["kernel"] + stem["bias"][None])
        return last(features, variables["params"])

    return Model(apply, lambda variables, x, key: (apply(variables, x), variables)), variables


def square(seed=0, num_classes=K):
    return np.random.default_rng(seed).normal(size=(num_classes, num_classes))


HEADS = {  # last layer, its parameters, where its kernel is and which axis the classes are, its bias
    "flax": (lambda h, p: h @ p["w"] + p["b"][None], {"w": square(), "b": np.ones(K)}, "w", -1, "b"),
    "transposed": (lambda h, p: h @ p["w"].T + p["b"][None], {"w": square(), "b": np.ones(K)}, "w", 0, "b"),
    "without a bias": (lambda h, p: h @ p["w"].T, {"w": square()}, "w", 0, None),
    "convolution": (
        lambda h, p: jnp.einsum("bd,kdij->bk", h, p["w"]) + p["b"].reshape(1, K),
        {"w": square()[..., None, None], "b": np.ones((K, 1, 1))}, "w", 0, "b",
    ),
    "scaled": (lambda h, p: 7 * (h @ p["w"]) * p["a"][None] + p["b"][None], {"w": square(), "a": np.full(K, 2.0), "b": np.ones(K)}, "w", -1, "b"),
    "cosine": (lambda h, p: 9 * h @ (p["w"] / jnp.linalg.norm(p["w"], axis=0, keepdims=True)), {"w": square()}, "w", -1, None),
    "weight norm": (
        lambda h, p: h @ (p["w"] / jnp.linalg.norm(p["w"], axis=0, keepdims=True) * p["a"][None]),
        {"w": square(), "a": np.array([2.0, 1.0, 3.0, 2.0])}, "w", -1, None,
    ),
    "log-softmax": (lambda h, p: jax.nn.log_softmax(h @ p["w"] + p["b"][None]), {"w": square(), "b": np.ones(K)}, "w", -1, "b"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HEADS)
def test_the_classifier_is_found_by_what_it_does(kind):
    last, params, kernel, axis, bias = HEADS[kind]
    model, variables = two_layers(last, params)
    setup = setup_of(model, variables)
    found = find_classifier(setup)
    assert (names_of(found.place), found.axis) == ((kernel,), axis)
    np.testing.assert_array_equal(found.rows(variables["params"]).shape, (K, K))
    same_again = found.with_rows(variables["params"], found.rows(variables["params"]))
    jax.tree.map(np.testing.assert_array_equal, same_again, variables["params"])
    place = find_bias(setup, found)
    assert (place and names_of(place)) == (bias and (bias,))
    assert find_classifier(setup._replace(classifier=(kernel,))) == found


@pytest.mark.parametrize("num_classes", [2, 3, 17, 40])
def test_the_classifier_among_few_and_many_classes(num_classes):
    params = {"w": square(num_classes=num_classes), "b": np.zeros(num_classes)}
    model, variables = two_layers(lambda h, p: h @ p["w"].T + p["b"][None], params, num_classes)
    setup = setup_of(model, variables)._replace(num_classes=num_classes)
    found = find_classifier(setup)
    assert (names_of(found.place), found.axis) == (("w",), 0)
    assert names_of(find_bias(setup, found)) == ("b",)


def test_a_stem_like_a_classifier_is_left_alone():
    """As many channels as classes and a bias, and a head whose kernel no class can be told in: better none than that."""
    model, variables = two_layers(lambda h, p: (h @ p["w"]) @ jnp.ones((K, K)), {"w": square()})
    with pytest.raises(ValueError, match=r"none of those with k rows or columns does \(stem/kernel, w\): name it"):
        find_classifier(setup_of(model, variables))


def test_the_classifier_is_taken_where_it_is_said_to_be():
    layer = {"kernel": jnp.zeros((8, K)), "bias": jnp.zeros(K)}
    params = {"heads": {"a": layer, "b": {**layer, "kernel": jnp.ones((K, 3))}}, "fc": {"kernel": jnp.zeros((8, 3))}}
    (found,) = named(params, K, ("heads", "b"))
    assert (names_of(found.place), found.axis) == (("heads", "b", "kernel"), 0)
    assert float(found.rows(params).sum()) == 3 * K
    assert named(params, K, ("heads", "b", "kernel")) == [found]
    for wrong, words in (
        (("fc",), r"or \[4, d\]: fc holds fc/kernel of shape \(8, 3\)"),
        (("heads",), "heads leads to several, heads/a/kernel, heads/b/kernel"),
        (("top",), "top is not there; the parameters are …, heads/a/bias"),
    ):
        with pytest.raises(ValueError, match=words):
            named(params, K, wrong)


class TwoHeads(nn.Module):
    """Which of its two last layers is meant cannot be told by what they do."""

    @nn.compact
    def __call__(self, x, train: bool):
        features = nn.relu(nn.Dense(8)(jnp.mean(x, (1, 2))))
        first, second = (nn.Dense(K, name=name)(features) for name in ("first", "second"))
        return first + second


@pytest.mark.parametrize("name", ["pour", "fisher", "boundary_expand", "trew", "bias_shift"])
def test_methods_on_the_classifier_take_the_named_one(name):
    method = dj.methods.create(name)
    setup = setup_of(*tiny.network(TwoHeads()), strength=1e-4)
    run = method.edit or method.wrap or method.prepare
    with pytest.raises(ValueError, match=r"each of these makes logits \(first/kernel, second/kernel\): name it"):
        run(setup)
    one, other = (run(setup._replace(classifier=(head,))) for head in ("first", "second"))
    arrays = [[leaf for leaf in jax.tree.leaves(tree) if not callable(leaf)] for tree in (one, other)]
    assert any((np.asarray(a) != np.asarray(b)).any() for a, b in zip(*arrays, strict=True)) or method.wrap
    if method.wrap:  # it starts from the same, but its new output is another layer's
        images = setup.streams[FORGET]["image"]
        a, b = (model.apply(start, images) for model, start in (one, other))
        assert bool((a[:, K] != b[:, K]).any())


def test_pour_can_follow_another_method_on_a_named_classifier():
    _, variables = tiny.network(TwoHeads())
    params = project(variables, (1,), K, ("second",))["params"]
    np.testing.assert_allclose(params["second"]["kernel"][:, 1], 0, atol=1e-6)
    np.testing.assert_array_equal(params["first"]["kernel"], variables["params"]["first"]["kernel"])
    with pytest.raises(ValueError, match="not told by its shape"):
        project(variables, (1,), K)


@pytest.mark.parametrize("kind", HEADS)
def test_the_new_class_is_a_class_of_its_own(kind):
    """Its logit comes from its own column and bias alone: what was learnt for the first class is not touched."""
    last, params, kernel, _, bias = HEADS[kind]
    model, variables = two_layers(last, params)
    wide, start = dj.methods.boundary_expand().wrap(setup_of(model, variables))
    unit = start["params"][UNIT]
    scaled = "a" in params
    scales = [leaf.item() for leaf in unit.pop("scales", [])]
    assert scales == ([2.0] if scaled else [])  # their mean
    assert {name: leaf.shape for name, leaf in unit.items()} == {"kernel": (K, 1)} | ({"bias": (1,)} if bias else {})
    assert all(float(jnp.abs(leaf).max()) <= K**-0.5 for leaf in unit.values())
    start["params"][UNIT] = unit | ({"scales": [jnp.full(1, 2.0)]} if scaled else {})
    x = jnp.asarray(tiny.samples(8)[0])
    for answer in (wide.apply, lambda variables, x: wide.apply_train(variables, x, jax.random.key(0))[0]):
        np.testing.assert_allclose(answer(start, x)[:, :K], model.apply(variables, x), rtol=1e-6)
        gradient = jax.grad(lambda params: answer({"params": params}, x)[:, K].sum())(start["params"])
        assert all(float(jnp.abs(leaf).min()) > 0 for leaf in jax.tree.leaves(gradient[UNIT]))
        if kind != "log-softmax":  # there, all classes are in each logit
            for name in [kernel, *([bias] if bias else []), *(["a"] if scaled else [])]:
                np.testing.assert_array_equal(gradient[NETWORK][name], 0)
    if kind in ("flax", "transposed"):
        stem = variables["params"]["stem"]
        features = jnp.tanh(x.reshape(8, -1) @ stem["kernel"] + stem["bias"][None])
        np.testing.assert_allclose(
            wide.apply(start, x)[:, K], (features @ unit["kernel"])[:, 0] + unit["bias"], rtol=1e-5
        )


@pytest.mark.parametrize("kind", ["flax", "transposed", "convolution", "scaled"])
def test_pour_of_any_layout(kind):
    """The logit of the erased class no longer depends on the image, and no other layer has changed."""
    last, params, *_ = HEADS[kind]
    model, variables = two_layers(last, params)
    result = dj.methods.pour().edit(setup_of(model, variables))
    logits = model.apply(result, jnp.asarray(tiny.samples(16)[0]))
    assert float(jnp.ptp(logits[:, 1])) < 1e-5 < float(jnp.ptp(logits[:, 0]))
    jax.tree.map(np.testing.assert_array_equal, result["params"]["stem"], variables["params"]["stem"])


@pytest.mark.parametrize(
    ("name", "hyperparameters", "words"),
    [
        ("salun", {"fraction": 0}, "above 0 and at most 1"),
        ("salun", {"remain": 1}, "True or False"),
        ("salun", {"mask": "union"}, "one of salient, random"),
        ("anchored", {"anchors": "turned"}, "one of reoriented, adversarial"),
        ("delete", {"dispersion": -0.1}, "at least 0"),
        ("delete", {"remain": "predictions"}, "False, True or labels"),
        ("delete", {"remain": 1}, "False, True or labels"),
        ("delete", {"neighbours": 1}, "at least 0 and below 1"),
        ("mu_mis", {"weight": 0}, "above 0"),
        ("esc", {"share": 1.5}, "above 0 and at most 1"),
        ("esc_t", {"threshold": 1}, "above 0 and below 1"),
        ("negative_gradient_plus", {"alpha": 1}, "below 1"),
        ("trew", {"beta": "much"}, "a number"),
        ("trew", {"remain": "labels"}, "True or False"),
        ("ssd", {"alpha": 0}, "above 0"),
        ("anchored", {"transformations": ("zoom",)}, "turn, flip, shift"),
        ("anchored", {"weight": 0}, "above 0"),
        ("boundary_shrink", {"step": -1}, "above 0"),
        ("l2ul_imp", {"pull": 0}, "above 0"),
        ("wood_fisher", {"remain": "no"}, "True or False"),
        ("unsir", {"penalty": -1}, "at least 0"),
        ("rfe", {"adjacent": 1.5}, "a whole number above 0, got 1.5"),
    ],
)
def test_wrong_settings_are_named(name, hyperparameters, words):
    with pytest.raises(ValueError, match=words):
        dj.methods.create(name, **hyperparameters)


def test_a_method_computed_at_once_evaluates_and_diverges_like_the_others():
    model, variables = tiny.network()
    images, labels = tiny.samples(32)
    settings = {"forget": [1], "batch_size": 8, "parallel": "jit", "epochs": 3}
    result = dj.unlearn(
        model,
        variables,
        images,
        labels,
        method=dj.methods.pour(),
        evaluate=lambda v: {"size": len(v)},
        **settings,
        batch_norm="train",
        lr=1e-3,
    )
    assert [(row["epoch"], row["size"]) for row in result.evaluations] == [(0, 2), (3, 2)]
    assert result.history == []
    broken = dj.methods.pour()._replace(edit=lambda setup: jax.tree.map(lambda leaf: leaf * jnp.nan, setup.teacher))
    with pytest.raises(dj.NonFiniteError, match="pour made batch_stats/BatchNorm_0/mean NaN"):
        dj.unlearn(model, variables, images, labels, method=broken, **settings)
