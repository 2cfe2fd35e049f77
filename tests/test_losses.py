"""Masked KL and its decomposition: properties in float64, the original code's numbers, extreme logits."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from delete_jax import losses

GOLDEN = np.load(pathlib.Path(__file__).parent / "goldens" / "loss.npz")


def delete_loss(student, teacher, erase):
    return losses.kl_divergence(losses.masked_log_softmax(teacher, erase), jax.nn.log_softmax(student))


@jax.jit
def value_and_gradient(student, teacher, erase):
    return jax.value_and_grad(lambda s: jnp.mean(delete_loss(s, teacher, erase)))(student)


@pytest.fixture
def case(x64):
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(0, 3, (2, 5, 7))
    erase = np.zeros((5, 7), bool)
    erase[np.arange(5), [0, 1, 2, 3, 3]] = True
    erase[3, 5] = erase[4, 6] = True
    return jnp.asarray(teacher), jnp.asarray(student), jnp.asarray(erase)


@pytest.mark.parametrize("name", GOLDEN["names"].tolist())
def test_agrees_with_the_original_code(name, precision):
    teacher, student, labels = (GOLDEN[f"{name}.{part}"] for part in ("teacher", "student", "labels"))
    erase = labels[:, None] == np.arange(teacher.shape[1])
    value, grad = value_and_gradient(jnp.asarray(student, precision), jnp.asarray(teacher, precision), erase)
    exact = precision == "float64"
    expected = GOLDEN[f"{name}.value"]
    np.testing.assert_allclose(value, expected, rtol=1e-12 if exact else 2e-6, atol=1e-12 if exact else 2e-6)
    np.testing.assert_allclose(grad, GOLDEN[f"{name}.grad"], rtol=0, atol=1e-12 if exact else 1e-6)


def test_gradient_is_student_minus_target(case):
    teacher, student, erase = case
    grad = jax.grad(lambda s: delete_loss(s, teacher, erase).sum())(student)
    target = jax.nn.softmax(teacher, where=~erase)
    np.testing.assert_allclose(grad, jax.nn.softmax(student) - target, atol=1e-14)


def test_teachers_erased_logits_do_not_matter(case):
    teacher, student, erase = case
    changed = jnp.where(erase, 1e6, teacher)
    np.testing.assert_array_equal(delete_loss(student, teacher, erase), delete_loss(student, changed, erase))


def test_masked_equals_sliced(case):
    teacher, _, erase = case
    for z, u in zip(np.asarray(teacher), np.asarray(erase), strict=True):
        masked = losses.masked_log_softmax(jnp.asarray(z), jnp.asarray(u))
        np.testing.assert_allclose(masked[~u], jax.nn.log_softmax(jnp.asarray(z[~u])), rtol=1e-14)
        assert np.all(np.isneginf(masked[u]))


def test_decomposition_of_delete_is_mass_and_dark_knowledge(case):
    teacher, student, erase = case
    target, answer = losses.masked_log_softmax(teacher, erase), jax.nn.log_softmax(student)
    parts = losses.decompose(target, answer, erase)
    erased_mass = jnp.sum(jnp.exp(answer), -1, where=erase)
    renormalised = losses.masked_log_softmax(student, erase)
    np.testing.assert_allclose(parts.forgetting, -jnp.log1p(-erased_mass), rtol=1e-10)
    np.testing.assert_array_equal(parts.within, 0)
    np.testing.assert_allclose(
        parts.retention,
        optax.losses.kl_divergence_with_log_targets(
            jnp.where(erase, -1e9, renormalised), jnp.where(erase, -1e9, target)
        ),
        rtol=1e-10,
    )


@pytest.mark.parametrize("target", ["delete", "teacher", "one_hot", "nothing_erased"])
def test_terms_add_up_for_any_target(case, target):
    teacher, student, erase = case
    erase = jnp.zeros_like(erase) if target == "nothing_erased" else erase
    log_p = {
        "delete": losses.masked_log_softmax(teacher, erase),
        "teacher": jax.nn.log_softmax(teacher),
        "one_hot": losses.one_hot_log(jnp.array([0, 5, 1, 3, 2]), 7, jnp.float64),
        "nothing_erased": jax.nn.log_softmax(teacher),
    }[target]
    log_q = jax.nn.log_softmax(student)
    parts = losses.decompose(log_p, log_q, erase)
    np.testing.assert_allclose(sum(parts), losses.kl_divergence(log_p, log_q), rtol=1e-12)
    assert all(np.all(np.asarray(part) >= -1e-15) for part in parts)
    if target == "nothing_erased":
        np.testing.assert_array_equal(parts.forgetting, 0)


def test_segmentation_mask_broadcasts(x64):
    logits = jnp.asarray(np.random.default_rng(1).normal(size=(2, 2, 3, 4, 5)))
    erase = jnp.array([False, True, False, False, True]).reshape(1, 1, 1, 5)
    maps = delete_loss(logits[0], logits[1], erase)
    assert maps.shape == (2, 3, 4)
    one = delete_loss(logits[0, 1, 2, 3], logits[1, 1, 2, 3], erase[0, 0, 0])
    np.testing.assert_allclose(maps[1, 2, 3], one, rtol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("hot", [0, 1])
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_finite_for_extreme_logits(dtype, hot, scale):
    logits = jnp.zeros((1, 3), dtype).at[0, hot].set(scale).astype(jnp.float32)
    erase = jnp.array([[True, False, False]])

    def total(student, teacher):
        log_p, log_q = losses.masked_log_softmax(teacher, erase), jax.nn.log_softmax(student)
        return jnp.sum(losses.kl_divergence(log_p, log_q)) + sum(map(jnp.sum, losses.decompose(log_p, log_q, erase)))

    for student, teacher in ((logits, jnp.zeros((1, 3))), (jnp.zeros((1, 3)), logits), (logits, logits[:, ::-1])):
        value, grad = jax.value_and_grad(total)(student, teacher)
        assert np.isfinite(value)
        assert np.all(np.isfinite(grad))
