"""The pure step: weights, batch norm, traced values, and that it lowers for other hardware."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import delete_jax as dj
from delete_jax import predict as predicting
from delete_jax.columns import arrays
from delete_jax.data import augmentation, normalize, paired_augmentation
from delete_jax.network_check import not_finite
from delete_jax.non_finite import NonFiniteError
from delete_jax.optimisers import cosine, stepwise
from delete_jax.options import falling
from delete_jax.predict import make_predictor
from delete_jax.pretraining import pretraining_job
from delete_jax.step import init_state, make_eval_step, make_train_step, sgd
from delete_jax.streams import split_streams
from tests import tiny


def batch_of(images, labels, forget=(1,), **columns):
    streams = split_streams(images, labels, forget, tiny.NUM_CLASSES, ["forget"])
    return jax.tree.map(jnp.asarray, {"forget": arrays(streams)["forget"] | columns})


def test_first_step_is_plain_sgd(x64):
    """Parameters move by -lr times the gradient of the mean masked KL, computed here in another way."""
    model, variables = tiny.network()
    variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables)
    images, labels = tiny.samples(16)
    images = images.astype(np.float64)
    batch = batch_of(images, labels, weight=np.ones(4))
    x = batch["forget"]["image"]

    def loss(params):
        student = jax.nn.log_softmax(model.apply({**variables, "params": params}, x))
        teacher = model.apply(variables, x).at[:, 1].set(-jnp.inf)
        p = jax.nn.softmax(teacher)
        return jnp.mean(jnp.sum(jnp.where(p > 0, p * (jnp.log(jnp.where(p > 0, p, 1)) - student), 0), -1))

    step = jax.jit(make_train_step(model, dj.methods.delete(), sgd(), preprocess=_same, batch_norm="frozen"))
    state, metrics = step(init_state(variables, sgd()), {"original": variables}, batch, 0.1, jax.random.key(0))
    value, grads = jax.jit(jax.value_and_grad(loss))(variables["params"])
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-7)
    for new, old, grad in zip(*map(jax.tree.leaves, (state.params, variables["params"], grads)), strict=True):
        np.testing.assert_allclose(new, old - 0.1 * grad, rtol=1e-7, atol=1e-12)
    jax.tree.map(np.testing.assert_array_equal, state.model_state["batch_stats"], variables["batch_stats"])


def test_batch_norm_modes():
    model, variables = tiny.network()
    batch = batch_of(*tiny.samples(32))
    moved = {}
    for mode in ("train", "frozen"):
        step = jax.jit(make_train_step(model, dj.methods.delete(), sgd(), preprocess=_same, batch_norm=mode))
        state, _ = step(init_state(variables, sgd()), {"original": variables}, batch, 0.1, jax.random.key(0))
        moved[mode] = float(jnp.abs(state.model_state["batch_stats"]["BatchNorm_0"]["mean"]).max())
        scale = state.params["BatchNorm_0"]["scale"]
        assert float(jnp.abs(scale - 1).max()) > 0, "gamma trains in both modes"
    assert moved["train"] > 0
    assert moved["frozen"] == 0
    with pytest.raises(ValueError, match="train, frozen"):
        make_train_step(model, dj.methods.delete(), sgd(), preprocess=lambda x: x, batch_norm="eval")


def test_teacher_logits_may_be_given():
    model, variables = tiny.network()
    images, labels = tiny.samples(32)
    forget = images[labels == 1]
    logits = make_predictor(model, _same)(variables, forget)
    step = jax.jit(make_train_step(model, dj.methods.delete(), sgd(), preprocess=_same))
    start = init_state(variables, sgd())
    run = lambda batch, frozen: step(start, frozen, batch, 0.1, jax.random.key(0))[0].params  # noqa: E731
    given = run(batch_of(images, labels, teacher_logits=logits), {})
    computed = run(batch_of(images, labels), {"original": variables})
    for a, b in zip(jax.tree.leaves(given), jax.tree.leaves(computed), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def _same(x):
    return x


def test_predictor_pads_and_cuts():
    model, variables = tiny.network()
    images, _ = tiny.samples(70)
    step = make_eval_step(model, _same)
    np.testing.assert_allclose(
        make_predictor(model, _same)(variables, images), step(variables, images), rtol=2e-5, atol=1e-6
    )


def test_the_next_batch_is_queued_before_answers_are_read(monkeypatch):
    """An accelerator that waits for each to be read stands still meanwhile."""
    happened = []

    class Answers:
        def __init__(self, number):
            self.number = number

        def __bool__(self):
            return self.number < 2

        def __array__(self, *_, **__):
            happened.append(f"read {self.number}")
            return np.full((64, 2), self.number)

    def step(variables, images):
        happened.append(f"queue {images[0, 0]:.0f}")
        return (Answers(int(images[0, 0])),) * 2

    monkeypatch.setattr(predicting, "in_one_program", lambda options: lambda function: step)
    predict = make_predictor.__wrapped__(tiny.network()[0], _same)
    images = np.repeat(np.arange(3.0), 64)[:, None]
    assert predict({}, images[:-70]).tolist() == [[0, 0]] * 64 + [[1, 1]] * 58
    assert happened == ["queue 0", "queue 1", "read 0", "read 1"]
    with pytest.raises(NonFiniteError, match="some of images 128 to 190"):
        predict({}, images[:-1])


def test_the_network_is_traced_once_for_logits_and_classes():
    model, variables = tiny.network()
    traced = []
    counted = model._replace(apply=lambda *given: traced.append(given) or model.apply(*given))
    images = tiny.samples(5)[0]
    logits = make_predictor(counted, _same)(variables, images)
    classes = make_predictor(counted, _same, classes=True)(variables, images)
    np.testing.assert_array_equal(classes, logits.argmax(-1))
    assert len(traced) == 1


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_a_state_is_a_copy_that_needs_no_program(compiled, kind):
    """Of weights on the host or on a device, whatever their shapes; donating it leaves them alone."""
    arrays = {f"w{n}": kind(np.full(n, 1.5, np.float32)) for n in range(101, 109)}
    half = kind(np.ones(109, jnp.bfloat16))
    compiled.clear()
    state = init_state({"params": arrays | {"half": half}}, optax.identity())
    assert len(compiled) <= 3, compiled  # the half's cast, the step's 0, the optimiser's: none a shape
    assert state.params["half"].dtype == jnp.float32
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))
    jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)(state)
    assert state.params["w101"].is_deleted()
    for leaf in arrays.values():
        np.testing.assert_array_equal(leaf, 1.5)


def test_what_is_not_finite_is_named_without_compiling(compiled):
    kinds = {f"w{n}": jnp.ones(n, dtype) for n, dtype in enumerate((jnp.float32, jnp.bfloat16, jnp.int32, bool), 201)}
    bad = [np.array([1, np.nan]), np.array([1e300]), np.array([0, np.inf], jnp.bfloat16), np.array([1j * np.inf])]
    compiled.clear()
    assert not_finite({"params": kinds}) is None
    assert not_finite({"params": kinds | {"x": jax.ShapeDtypeStruct((2,), jnp.float32)}}) is None
    for values in bad:  # 1e300 is infinite as a float32, which is what the network would compute with
        assert not_finite({"params": kinds | {"x": values}}) == "params/x"
    assert compiled == []
    with jax.enable_x64(True):
        assert not_finite({"params": {"x": bad[1]}}) is None


def test_weight_decay_and_cosine():
    """As PyTorch: decay joins the gradient before momentum; the cosine ends at 0."""
    tx, params = sgd(0.5, 0.1, cosine(2)), {"w": jnp.array([2.0])}
    state, seen = tx.init(params), []
    with jax.numpy_dtype_promotion("standard"):  # optax' schedule multiplies int32 by float
        for _ in range(3):
            updates, state = tx.update({"w": jnp.array([1.0])}, state, params)
            seen.append(float(updates["w"][0]))
    g = 1 + 0.1 * 2
    np.testing.assert_allclose(seen, [-g, -0.5 * (g + 0.5 * g), 0], rtol=1e-6, atol=1e-9)


def test_a_rate_that_falls_at_milestones():
    """As PyTorch's MultiStepLR: multiplied by gamma after the epochs 2 and 3, of two steps each; what would not count is refused."""
    by_step = falling("step", (2, 3), 0.5, 4, 2)
    tx, params = sgd(0.0, 0.0, by_step), {"w": jnp.array([2.0])}
    state, seen = tx.init(params), []
    with jax.numpy_dtype_promotion("standard"):  # optax' schedule multiplies int32 by float
        for _ in range(8):
            updates, state = tx.update({"w": jnp.array([1.0])}, state, params)
            seen.append(-float(updates["w"][0]))
    np.testing.assert_allclose(seen, [1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25], rtol=1e-6)
    assert sgd(0.9, 5e-4, falling("step", (2, 3), None, 4, 2)) is sgd(0.9, 5e-4, falling("step", (2, 3), 0.1, 9, 2))
    assert sgd(0.9, 5e-4, falling(None, None, None, 4, 2)) is sgd(0.9, 5e-4, cosine(8))
    settings = {"epochs": 3, "lr": 0.1, "batch_size": 8, "schedule": "step", "milestones": (2,)}
    job = pretraining_job(*tiny.network(), *tiny.samples(16), tiny.NUM_CLASSES, **settings)
    assert job.options.tx is sgd(0.9, 5e-4, stepwise((4,), 0.1))
    for wrong, words in (
        (("cosine", None, None), "schedule is 'cosine': it must be None, for a cosine, or step"),
        (("step", None, None), "milestones is None: it must be given with schedule=step"),
        ((None, (2,), None), r"milestones is \(2,\): it must be left out, or schedule must be step"),
        ((None, None, 0.5), "gamma is 0.5: it must be left out, or schedule must be step"),
        (("step", (3, 2), None), r"milestones is \(3, 2\): it must be rising numbers of epochs"),
    ):
        with pytest.raises(ValueError, match=words):
            falling(*wrong, 4, 2)


@pytest.mark.parametrize("module", [tiny.Net(), tiny.Segmenter()], ids=["classification", "segmentation"])
def test_lowers_for_cpu_cuda_and_tpu(module):
    model, variables = tiny.network(module)
    labels = np.arange(8) % 4 if isinstance(module, tiny.Net) else np.arange(8 * 36).reshape(8, 6, 6) % 4
    images = np.zeros((8, 6, 6, 1), np.uint8)
    batch = batch_of(images, labels)
    preprocess = normalize(np.array([0.5]), np.array([0.2]))
    augment = augmentation(("flip", "crop"), padding=1) if labels.ndim == 1 else paired_augmentation(("flip", "scale"))
    step = make_train_step(model, dj.methods.delete(), sgd(), preprocess=preprocess, augment=augment)
    arguments = (init_state(variables, sgd()), {"original": variables}, batch, jnp.float32(0.1), jax.random.key(0))
    exported = jax.export.export(jax.jit(step, donate_argnums=0), platforms=("cpu", "cuda", "tpu"))(*arguments)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    state, metrics = jax.jit(exported.call)(*arguments)
    expected, _ = jax.jit(step)(*arguments)
    assert np.isfinite(float(metrics["loss"]))
    np.testing.assert_allclose(
        jax.tree.leaves(state.params)[0], jax.tree.leaves(expected.params)[0], rtol=1e-6, atol=1e-7
    )
