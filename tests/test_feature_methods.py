"""Methods that read or change what enters the classifier, against independent computations in NumPy, float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax.flatten_util import ravel_pytree

import delete_jax as dj
from delete_jax.columns import arrays as as_arrays
from delete_jax.methods import ANCHOR, FORGET, REMAIN, Context, Output, attacks
from delete_jax.methods.bias_shift import BIAS
from delete_jax.methods.classifier import find_classifier, names_of
from delete_jax.methods.cse import channel_scores, factors
from delete_jax.methods.delete import similarity
from delete_jax.methods.esc import directions, learnt_mask
from delete_jax.methods.features import beside_logits, feature_batches, find_head, unseen
from delete_jax.methods.source_free import POOL
from delete_jax.step import init_state, make_train_step, sgd
from tests import tiny
from tests.test_each_method import HEADS, K, linear_model, same, setup_of, softmax, two_layers


def wide_network(d=7, seed=0):
    """Features `tanh(x A)` `[b, d]` in float64, d no multiple of k, and a linear classifier with a bias."""
    rng = np.random.default_rng(seed)
    params = {
        "stem": rng.normal(size=(36, d)) / 6,
        "head": {"kernel": rng.normal(size=(d, K)), "bias": rng.normal(size=K)},
    }
    params = jax.tree.map(jnp.asarray, params)

    def apply(variables, x):
        params = variables["params"]
        return features(variables, x) @ params["head"]["kernel"] + params["head"]["bias"][None]

    model = dj.Model(apply, lambda variables, x, key: (apply(variables, x), variables), classifier=("head",))
    return model, {"params": params}


def features(variables, x):
    return jnp.tanh(x.reshape(len(x), -1) @ variables["params"]["stem"])


def wide_setup(n=32, forget=(1,), **settings):
    model, variables = wide_network()
    images, labels = tiny.samples(n)
    streams = as_arrays(dj.streams.split_streams(images.astype(float), labels, forget, K, [FORGET, REMAIN]))
    for stream in streams.values():
        stream["weight"] = stream["weight"].astype(float)
    setup = setup_of(model, variables, classifier=("head",), **settings)
    return setup._replace(streams=streams, forget=tuple(forget))


def arrays(setup):
    """Features of forget and of remaining samples, and the kernel."""
    found = [np.asarray(features(setup.teacher, setup.streams[name]["image"])) for name in (FORGET, REMAIN)]
    return (*found, np.asarray(setup.teacher["params"]["head"]["kernel"]))


def kernel_after(method, setup):
    """The kernel after a method that changes nothing else."""
    result = method.edit(setup)["params"]
    np.testing.assert_array_equal(result["stem"], setup.teacher["params"]["stem"])
    np.testing.assert_array_equal(result["head"]["bias"], setup.teacher["params"]["head"]["bias"])
    return np.asarray(result["head"]["kernel"])


# ------------------------------------------------------------------------------------------------------------- features


@pytest.mark.parametrize("mode", ["apply", "apply_train"])
def test_features_beside_the_logits(mode, x64):
    setup = wide_setup()
    wide = beside_logits(setup.model, find_head(setup).classifier)
    x = setup.streams[FORGET]["image"]
    answer = wide.apply(setup.teacher, x)
    if mode == "apply_train":
        answer, updated = wide.apply_train(setup.teacher, x, jax.random.key(0))
        assert updated["params"] is setup.teacher["params"]
    np.testing.assert_allclose(answer[:, :K], setup.model.apply(setup.teacher, x), rtol=1e-12)
    np.testing.assert_allclose(answer[:, K:], features(setup.teacher, x), rtol=1e-12)


def test_their_gradient_reaches_the_layers_before(x64):
    setup = wide_setup()
    wide = beside_logits(setup.model, find_head(setup).classifier)
    x = setup.streams[FORGET]["image"]
    read, direct = (
        jax.grad(lambda params, f=f: jnp.sum(jnp.sin(f({"params": params}, x))))(setup.teacher["params"])
        for f in (lambda v, x: wide.apply(v, x)[:, K:], features)
    )
    np.testing.assert_allclose(read["stem"], direct["stem"], rtol=1e-10)
    for leaf in jax.tree.leaves(read["head"]):
        np.testing.assert_array_equal(leaf, 0)


@pytest.mark.usefixtures("full_precision")
@pytest.mark.parametrize("module", [tiny.Net(), tiny.Segmenter()], ids=["image", "pixel"])
def test_features_of_a_network_with_statistics(module):
    model, variables = tiny.network(module)
    setup = setup_of(model, variables)
    head = find_head(setup)
    x = jnp.asarray(setup.streams[FORGET]["image"])
    answer, updated = beside_logits(model, head.classifier).apply_train(variables, x, jax.random.key(0))
    logits, expected = model.apply_train(variables, x, jax.random.key(0))
    np.testing.assert_allclose(answer[..., :K], logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.asarray(answer[..., K:]) @ head.rows + head.bias, logits, rtol=1e-4, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, updated["batch_stats"], expected["batch_stats"])


@pytest.mark.parametrize(("kind", "how"), [("flax", "added"), ("flax", "set"), ("cosine", "added")])
def test_a_class_that_is_masked_is_no_scale_for_the_others(kind, how):
    """Where its logit is set, features cannot be read through it: some were taken for 0."""
    model, variables = two_layers(*HEADS[kind][:2])
    mask = np.where(np.arange(K) == 0, np.float32(-1e9), 0)[None]
    masked = model._replace(
        apply=lambda v, x: model.apply(v, x) + mask if how == "added" else jnp.where(mask < 0, mask, model.apply(v, x))
    )
    plain = setup_of(model, variables)
    setup = plain._replace(model=masked, classifier=names_of(find_classifier(plain).place))
    if (kind, how) == ("flax", "added"):
        np.testing.assert_allclose(find_head(setup).bias[1:], find_head(plain).bias[1:], atol=1e-4)
        return
    with pytest.raises(ValueError, match="not features times a kernel plus a bias"):
        find_head(setup)


@pytest.mark.parametrize("kind", HEADS)
def test_heads_whose_features_can_be_read(kind):
    last, params, *_ = HEADS[kind]
    setup = setup_of(*two_layers(last, params))
    if kind in ("cosine", "weight norm", "log-softmax"):
        with pytest.raises(ValueError, match="not features times a kernel plus a bias") as error:
            find_head(setup)
        assert "\n" not in str(error.value)
        return
    head = find_head(setup)
    stem = setup.teacher["params"]["stem"]["kernel"]
    h = np.tanh(setup.streams[FORGET]["image"].reshape(8, -1) @ np.asarray(stem))
    with jax.default_matmul_precision("highest"):  # NumPy's; the head is found in the device's own
        found, labels = (
            np.concatenate(part) for part in zip(*feature_batches(setup, head.classifier, FORGET), strict=True)
        )
    np.testing.assert_allclose(found, (14 if kind == "scaled" else 1) * h, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(labels, 1)


@pytest.mark.usefixtures("full_precision")
def test_of_label_maps_only_the_erased_class_counts():
    images, labels = tiny.label_maps(70, (1,))  # more than one batch
    model, variables = tiny.network(tiny.Segmenter())
    streams = as_arrays(dj.streams.split_streams(images, labels, [1], K, [FORGET, REMAIN]))
    setup = setup_of(model, variables)._replace(streams=streams)
    head = find_head(setup)
    for name, counted in ((FORGET, lambda label: label == 1), (REMAIN, lambda label: label != 255)):
        batches = list(feature_batches(setup, head.classifier, name))
        stored = streams[name]["label"]
        np.testing.assert_array_equal(np.concatenate([y for _, y in batches]), stored[counted(stored)])
        logits = np.asarray(model.apply(variables, jnp.asarray(streams[name]["image"])))[counted(stored)]
        np.testing.assert_allclose(np.concatenate([h for h, _ in batches]) @ head.rows + head.bias, logits, atol=1e-4)


def test_without_a_classifier():
    """A network whose logits come from no kernel."""
    model = dj.Model(lambda variables, x: x.reshape(len(x), -1)[:, :K] * variables["params"]["scale"][None], None)
    setup = setup_of(model, {"params": {"scale": jnp.ones(K)}})
    for name in ("esc", "esc_t", "cse", "source_free", "bias_shift", "pour_distill"):
        method = dj.methods.create(name)
        with pytest.raises(ValueError, match=r"needs the network's classifier, .*: name it, such as"):
            (method.edit or method.wrap)(setup)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_what_has_not_been_seen(dtype):
    images = np.ones((9, 6, 6, 1), dtype)
    setup = setup_of(*tiny.network())._replace(streams={FORGET: {"image": images}})
    noise = unseen(setup).streams[FORGET]["image"]
    assert noise.dtype == dtype
    assert noise.shape[1:] == (6, 6, 1)
    assert noise.std() > 0


# --------------------------------------------------------------------------------------------------------- closed forms


@pytest.mark.parametrize(("forget", "share", "count"), [((1,), 0.015, 1), ((1,), 0.3, 2), ((0, 2), 0.5, 4)])
def test_esc_drops_the_first_directions(forget, share, count, x64):
    setup = wide_setup(forget=forget)
    h, _, kernel = arrays(setup)
    first = np.linalg.svd(h, full_matrices=False)[2][:count].T
    expected = (np.eye(7) - first @ first.T) @ kernel
    np.testing.assert_allclose(kernel_after(dj.methods.esc(share), setup), expected, rtol=1e-9, atol=1e-12)


def test_esc_t_learns_a_mask(x64):
    setup = wide_setup(strength=0.3, batch_size=5, num_steps=4)
    h, _, w = arrays(setup)
    b = np.asarray(setup.teacher["params"]["head"]["bias"])
    head = find_head(setup)
    u = directions(setup, head)
    np.testing.assert_allclose(np.abs(np.linalg.svd(h, full_matrices=False)[2]), np.abs(u.T), atol=1e-8)
    mask = np.ones_like(u)
    for step in range(4):
        x = h[(5 * step + np.arange(5)) % len(h)]
        a = mask * u
        p = softmax(x @ a @ a.T @ w + b)
        slope = p.copy()  # of -log(1 - p_1) with respect to the logits
        slope[:, [0, 2, 3]] -= p[:, [0, 2, 3]] / (1 - p[:, [1]])
        slope /= 5
        mask = np.clip(mask - 0.3 * u * (x.T @ slope @ w.T @ a + w @ slope.T @ x @ a), 0, 1)
    np.testing.assert_allclose(learnt_mask(setup, head, u), mask, rtol=1e-8)
    threshold = float(np.sort(mask.ravel())[5]) + 1e-9
    kept = u * (mask > threshold)
    assert 0 < np.sum(mask <= threshold) < mask.size
    np.testing.assert_allclose(kernel_after(dj.methods.esc_t(threshold), setup), kept @ kept.T @ w, rtol=1e-8)


@pytest.mark.parametrize("forget", [(1,), (0, 2)])
def test_cse_weakens_channels(forget, x64):
    setup = wide_setup(64, forget=forget)
    h, others, kernel = arrays(setup)
    unit = np.var(others, axis=0).mean()
    forgotten, remaining = (np.cov(part.T, bias=True) / unit for part in (h, others))
    rho, v = scipy.linalg.eigh(forgotten, remaining + 1e-3 * np.eye(7))
    scores = v**2 @ rho
    np.testing.assert_allclose(channel_scores(forgotten * unit, remaining * unit), scores, rtol=1e-7)
    subsets = [np.array([c for c in range(7) if code >> c & 1]) for code in range(1, 2**7)]
    enough = [s for s in subsets if scores[s].sum() >= 0.85 * scores.sum()]
    smallest = max((s for s in enough if len(s) == min(map(len, enough))), key=lambda s: scores[s].sum())
    beta = np.zeros(7)
    beta[smallest] = np.clip((scores[smallest] - 0.1) / (scores[smallest] + 0.5), 0, 1)
    np.testing.assert_allclose(kernel_after(dj.methods.cse(), setup), (1 - beta)[:, None] * kernel, rtol=1e-7)
    assert 0 < (beta > 0).sum() < 7


def test_scores_that_weaken_nothing():
    np.testing.assert_array_equal(factors(np.full(4, 0.05)), 1)
    np.testing.assert_array_equal(factors(np.zeros(4)), 1)
    np.testing.assert_allclose(factors(np.array([1.0, 0.0, 1.0])), [0.4, 1, 0.4])
    assert np.isfinite(channel_scores(np.eye(3), np.zeros((3, 3)))).all()


def test_bias_shift(x64):
    setup = wide_setup(forget=(0, 2))
    before, after = setup.teacher["params"], dj.methods.bias_shift().edit(setup)["params"]
    np.testing.assert_array_equal(after["head"]["bias"], np.where([1, 0, 1, 0], BIAS, before["head"]["bias"]))
    np.testing.assert_array_equal(after["head"]["kernel"], before["head"]["kernel"])
    later = dj.methods.bias_shift().edit(wide_setup(forget=(2,))._replace(erased=(0,)))["params"]
    np.testing.assert_array_equal(later["head"]["bias"], after["head"]["bias"])
    last, params, *_ = HEADS["without a bias"]
    with pytest.raises(ValueError, match="classifier has no bias to shift: choose another method"):
        dj.methods.bias_shift().edit(setup_of(*two_layers(last, params)))


# ------------------------------------------------------------------------------------------------------- without samples


@pytest.mark.parametrize("name", ["source_free", "bias_shift"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_what_reads_no_sample(name, dtype):
    """The images may be anything; how many there are counts for `source_free`."""
    model, variables = tiny.network()
    rng = np.random.default_rng(0)
    labels = np.ones(16, int)
    preprocess = dj.data.normalize(0.5, 0.5) if dtype == np.uint8 else same

    def run(images):
        options = {"lr": 0.1, "batch_size": 4, "parallel": "jit", "preprocess": preprocess}
        result = dj.unlearn(
            model, variables, images, labels[: len(images)], forget=[1], method=name, **options, batch_norm="train"
        )
        return result.variables

    first, second = (run(rng.uniform(0, 255, (16, 6, 6, 1)).astype(dtype)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    fewer = run(np.zeros((8, 6, 6, 1), dtype))
    is_same = np.array_equal(first["params"]["Dense_0"]["kernel"], fewer["params"]["Dense_0"]["kernel"])
    assert is_same == (name == "bias_shift")


def test_source_free_takes_gradient_steps(x64):
    setup = wide_setup(strength=0.2, batch_size=50, num_steps=2, forget=(1, 2))
    _, _, w0 = arrays(setup)
    b0 = np.asarray(setup.teacher["params"]["head"]["bias"])
    pool_key, batch_key = jax.random.split(setup.key)
    pool = np.asarray(jax.random.normal(pool_key, (POOL, 7), float))
    is_forgotten = np.isin((pool @ w0 + b0).argmax(-1), (1, 2))
    w, b = w0, b0
    for step in range(2):
        slope = 0, 0
        for key, kind in zip(jax.random.split(jax.random.fold_in(batch_key, step)), (True, False), strict=True):
            alike = pool[is_forgotten == kind]
            h = alike[np.asarray(jax.random.randint(key, (50,), 0, len(alike)))]
            erased = np.isin(np.arange(K), (1, 2)) & kind
            error = (softmax(h @ w + b) - softmax(np.where(erased, -np.inf, h @ w0 + b0))) / 50
            slope = slope[0] + h.T @ error, slope[1] + error.sum(0)
        w, b = w - 0.2 * slope[0], b - 0.2 * slope[1]
    found = dj.methods.source_free().edit(setup)["params"]
    np.testing.assert_allclose(found["head"]["kernel"], w, rtol=1e-9)
    np.testing.assert_allclose(found["head"]["bias"], b, rtol=1e-9)
    np.testing.assert_array_equal(found["stem"], setup.teacher["params"]["stem"])


def test_source_free_erases_on_what_it_drew(x64):
    setup = wide_setup(strength=1.0, batch_size=64, num_steps=300)
    found = dj.methods.source_free().edit(setup)["params"]["head"]
    h = np.random.default_rng(0).normal(size=(2000, 7))
    head = setup.teacher["params"]["head"]
    before, after = (np.argmax(h @ np.asarray(p["kernel"]) + np.asarray(p["bias"]), -1) for p in (head, found))
    assert np.mean(before == 1) > 0.1
    assert np.mean(after == 1) < 0.005
    assert np.mean(after[before != 1] == before[before != 1]) > 0.9
    both = dj.methods.source_free().edit(setup._replace(erased=(3,)))["params"]["head"]  # 3 by an earlier request
    assert np.mean(after == 3) > 0.1
    answers = np.argmax(h @ np.asarray(both["kernel"]) + np.asarray(both["bias"]), -1)
    assert np.mean(np.isin(answers, [1, 3])) < 0.01


def test_source_free_of_a_class_that_is_never_the_answer(x64):
    setup = wide_setup()
    shifted = dj.methods.bias_shift().edit(setup)
    with pytest.raises(ValueError, match="assigns 0 of 16384 random features to the classes to erase"):
        dj.methods.source_free().edit(setup._replace(teacher=shifted))


# ----------------------------------------------------------------------------------------------------- trained methods


def test_pour_distill_moves_all_but_the_classifier(x64):
    setup = wide_setup(forget=(0, 2))
    method = dj.methods.pour_distill()
    model, start = method.wrap(setup)
    columns, constants, _ = method.prepare(setup)
    batch = {FORGET: setup.streams[FORGET] | columns.get(FORGET, {})}
    start = jax.tree.map(lambda leaf: 1.1 * leaf, start)
    tx = sgd(0.9, weight_decay=0.1)  # neither may move the classifier
    step = jax.jit(make_train_step(model, method, tx, preprocess=same))
    state, metrics = step(init_state(start, tx), {"original": setup.teacher}, batch, 0.01, jax.random.key(0), constants)
    original, _, kernel = arrays(setup)
    rows = kernel[:, [0, 2]]
    target = original @ (np.eye(7) - rows @ np.linalg.solve(rows.T @ rows, rows.T))
    student = np.asarray(features(start, setup.streams[FORGET]["image"]))
    np.testing.assert_allclose(metrics["loss"], np.square(student - target).sum(-1).mean(), rtol=1e-10)
    jax.tree.map(np.testing.assert_array_equal, state.params["head"], start["params"]["head"])
    assert float(jnp.abs(state.params["stem"] - start["params"]["stem"]).min()) > 0


@pytest.mark.pmap
@pytest.mark.parametrize("name", ["pour_distill", "mu_mis"])
def test_augmented_on_several_devices(name):
    """The teacher of a wrapped network runs in the step, on the images that the student sees."""
    model, variables = tiny.network()
    images, labels = tiny.samples(4 * 16)
    settings = {"forget": [1], "epochs": 1, "lr": 0.01, "batch_size": 8, "method": name, "parallel": "jit"}

    def run(**more):
        found = dj.unlearn(model, variables, images, labels, **({"batch_norm": "train"} | settings | more)).variables
        return ravel_pytree(jax.device_get(found))[0]

    augment = dj.data.augmentation(("flip", "crop"), padding=2)
    plain, augmented, spread = run(), run(augment=augment), run(augment=augment, parallel="pmap")
    assert np.linalg.norm(augmented - plain) > 10 * np.linalg.norm(augmented - spread)
    assert np.linalg.norm(augmented - spread) < 1e-5 * np.linalg.norm(plain)


def test_the_mean_cosine(x64):
    """Over pairs of different positions, each weighted by both; in label maps those of the erased class only."""
    rng = np.random.default_rng(0)
    erase = jnp.arange(K) == 1
    for shape in ((6,), (2, 3, 2)):
        h, weight = rng.normal(size=(*shape, 5)), rng.uniform(0, 2, shape) * (rng.uniform(size=shape) > 0.2)
        label = rng.integers(0, 3, shape)
        batch = {"weight": jnp.asarray(weight), "label": jnp.asarray(label)}
        batch["erase"] = jnp.broadcast_to(erase, (shape[0], *[1] * (len(shape) - 1), K))
        found = similarity(jnp.asarray(h), batch, Context(weights={FORGET: jnp.asarray(weight.sum())}))
        assert found.shape == shape
        u, w = h.reshape(-1, 5), (weight if len(shape) == 1 else weight * (label == 1)).ravel()
        u = u / np.linalg.norm(u, axis=1, keepdims=True)
        pairs = np.outer(w, w) * (1 - np.eye(len(w)))
        expected = np.sum(pairs * (u @ u.T)) / pairs.sum()
        np.testing.assert_allclose(np.sum(weight * np.asarray(found)) / weight.sum(), expected, rtol=1e-10)
    alone = similarity(jnp.ones((1, 5)), {"weight": jnp.ones(1)}, Context(weights={FORGET: jnp.ones(())}))
    np.testing.assert_allclose(alone, 0, atol=1e-12)


VARIANTS = {
    "spotter": dj.methods.delete(dispersion=0.5, neighbours=0.3),
    "spotter with remaining samples": dj.methods.delete(dispersion=0.5, neighbours=0.3, remain=True),
    "adversarial": dj.methods.anchored(anchors="adversarial"),
    "random mask": dj.methods.salun(mask="random"),
}


@pytest.mark.parametrize(
    "kind", [pytest.param(name, marks=() if name == "spotter" else pytest.mark.slow) for name in VARIANTS]
)
def test_variants_on_images_and_on_label_maps(kind):
    for module, (images, labels) in ((tiny.Net(), tiny.samples(16)), (tiny.Segmenter(), tiny.label_maps(8, (1,)))):
        model, variables = tiny.network(module)
        settings = {"forget": [1], "epochs": 1, "lr": 0.05, "batch_size": 4, "parallel": "jit"}
        result = dj.unlearn(model, variables, images, labels, method=VARIANTS[kind], **settings, batch_norm="train")
        assert np.isfinite([row["loss"] for row in result.history]).all()
        before, after = (ravel_pytree(tree["params"])[0] for tree in (variables, result.variables))
        assert float(jnp.abs(before - after).max()) > 0


def test_spotters_terms(x64):
    rng = np.random.default_rng(0)
    erase = jnp.broadcast_to(jnp.arange(K) == 1, (3, K))
    batch = {"erase": erase, "weight": jnp.ones(3)}
    outputs = {name: Output(batch, *jnp.asarray(rng.normal(size=(2, 3, K + 5)))) for name in (FORGET, ANCHOR)}
    narrow = {
        name: output._replace(logits=output.logits[:, :K], teacher_logits=output.teacher_logits[:, :K])
        for name, output in outputs.items()
    }
    context = Context(weights={FORGET: jnp.asarray(3.0)})
    plain = {name: dj.methods.delete().loss({FORGET: narrow[name]}, context)[FORGET].loss for name in narrow}
    terms = dj.methods.delete(dispersion=0.5, neighbours=0.3).loss(outputs, context)
    scattered = similarity(outputs[FORGET].logits[:, K:], batch, context)
    np.testing.assert_allclose(terms[FORGET].loss, 0.7 * plain[FORGET] + 0.5 * scattered, rtol=1e-12)
    np.testing.assert_allclose(terms[ANCHOR].loss, 0.3 * plain[ANCHOR], rtol=1e-12)
    near = dj.methods.delete(neighbours=0.3).loss(narrow, context)
    for term in near.values():
        np.testing.assert_allclose(sum(term.parts), term.loss, rtol=1e-12)
    default = dj.methods.delete(dispersion=0, neighbours=0.0)
    assert default is dj.methods.delete()
    assert default.wrap is None
    assert default.reorient is None


def test_neighbours_are_near():
    rng = np.random.default_rng(0)
    keys = jax.random.split(jax.random.key(0), 5)
    stored = rng.integers(0, 256, (5, 6, 6, 1), np.uint8)
    near = np.asarray(attacks.jitter(0.03)(jnp.asarray(stored), keys))
    assert near.dtype == np.uint8
    assert 0 < np.abs(near.astype(int) - stored).max() <= 8  # 0.03 of 255, rounded
    floats = rng.normal(size=(5, 6, 6, 1)).astype(np.float32)
    moved = np.asarray(attacks.jitter(0.03)(jnp.asarray(floats), keys)) - floats
    width = np.ptp(floats.reshape(5, -1), axis=1).reshape(5, 1, 1, 1)
    assert (np.abs(moved) <= 0.03001 * width).all()
    assert np.abs(moved / width).max() > 0.02


@pytest.mark.parametrize("mode", [pytest.param("pmap", marks=pytest.mark.pmap), "sharding"])
def test_pairs_over_eight_devices(mode):
    """The mean cosine is that of the whole batch, however it is spread."""
    model, variables = tiny.network()
    images, labels = tiny.samples(4 * 20)
    settings = {"forget": [1], "epochs": 1, "lr": 0.05, "batch_size": 8}

    def result(mode, dispersion):
        method = dj.methods.delete(dispersion=dispersion, neighbours=0.3)
        found = dj.unlearn(
            model, variables, images, labels, method=method, parallel=mode, **settings, batch_norm="train"
        )
        return ravel_pytree(jax.device_get(found.variables))[0]

    expected = result("jit", 30.0)
    assert np.linalg.norm(result(mode, 30.0) - expected) < 1e-5 * np.linalg.norm(expected)
    assert np.linalg.norm(result("jit", 0.0) - expected) > 1e-3 * np.linalg.norm(expected)


def sensitivity_loss(setup, method):
    """The loss of one step, and the columns of its forget stream."""
    model, start = method.wrap(setup)
    columns, constants, _ = method.prepare(setup)
    stream = setup.streams[FORGET] | columns[FORGET]
    step = jax.jit(make_train_step(model, method, sgd(), preprocess=setup.preprocess))
    state, metrics = step(init_state(start, sgd()), None, {FORGET: stream}, 0.1, jax.random.key(0), constants)
    return float(metrics["loss"]), stream, state


def test_mu_mis_of_a_linear_network(x64):
    """The gradient of a logit is its column of the kernel."""
    model, variables = linear_model()
    setup = setup_of(model, variables)
    loss, stream, state = sensitivity_loss(setup, dj.methods.mu_mis(weight=0.5))
    norms = np.square(np.asarray(variables["params"]["kernel"])).sum(0)
    other = (np.asarray(stream["shift"]) + stream["label"]) % K
    assert (other != stream["label"]).all()
    assert len(set(other.tolist())) > 1
    np.testing.assert_allclose(loss, np.mean(norms[stream["label"]] - 0.5 * norms[other]), rtol=1e-12)
    weights = -2 * np.bincount(stream["label"], minlength=K) + np.bincount(other, minlength=K)
    expected = np.asarray(variables["params"]["kernel"]) * (1 + 0.1 * weights / len(other))[None]
    np.testing.assert_allclose(state.params["kernel"], expected, rtol=1e-12)


def test_mu_mis_of_bytes_and_of_statistics():
    """With respect to what the network sees; the running statistics stay as they are."""
    model, variables = tiny.network()
    setup = setup_of(model, variables)
    images = setup.streams[FORGET]["image"]
    stored = np.clip(images * 50 + 100, 0, 255).astype(np.uint8)
    normalize = dj.data.normalize(0.4, 0.2)
    as_bytes = setup._replace(streams={FORGET: setup.streams[FORGET] | {"image": stored}}, preprocess=normalize)
    seen = np.asarray(normalize(jnp.asarray(stored)))
    as_floats = setup._replace(streams={FORGET: setup.streams[FORGET] | {"image": seen}})
    (one, _, state), (two, *_) = (sensitivity_loss(case, dj.methods.mu_mis()) for case in (as_bytes, as_floats))
    np.testing.assert_allclose(one, two, rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, state.model_state["batch_stats"], variables["batch_stats"])


def test_mu_mis_of_label_maps():
    """The mean over the positions that count: a map of one class is that class's mean logit."""
    model, variables = tiny.network(tiny.Segmenter())
    labels = np.ones((4, 6, 6), int)
    labels[:, 0] = 255
    images = tiny.samples(4)[0]
    streams = as_arrays(dj.streams.split_streams(images, labels, [1], K, [FORGET]))
    setup = setup_of(model, variables)._replace(streams=streams)
    loss, stream, _ = sensitivity_loss(setup, dj.methods.mu_mis())
    other = (np.asarray(stream["shift"]) + 1) % K

    def norm(image, class_):
        def mean(x):
            return jnp.mean(model.apply(variables, x[None])[0, 1:, :, class_])

        return float(jnp.sum(jnp.square(jax.grad(mean)(jnp.asarray(image)))))

    expected = np.mean([norm(image, 1) - norm(image, int(c)) for image, c in zip(images, other, strict=True)])
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
