"""Losses, optimisers and changes of weights against PyTorch's own operations (`make torch`)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import delete_jax as dj
from delete_jax import metrics
from delete_jax.methods import FORGET, REMAIN, Context, Output
from delete_jax.options import falling
from delete_jax.step import sgd

torch = pytest.importorskip("torch", reason="the extra torch is not installed: make torch")
import torch.nn.functional as F  # noqa: E402
from torch.nn.utils import prune  # noqa: E402

K, ERASED = 5, [1, 3]


@pytest.mark.parametrize("name", ["delete", "trew"])
def test_losses_and_their_gradients(name, x64):
    """DELETE's and TREW's, with cross entropy on remaining samples, as PyTorch's `kl_div` and `cross_entropy`."""
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 2, 6, K))  # forget and remaining samples of each
    label, erase = np.array([1, 3, 1, 3, 3, 1]), np.isin(np.arange(K), ERASED)
    similarity = rng.normal(size=(K, K))
    method = dj.methods.create(name, remain="labels" if name == "delete" else True)
    context = Context({"similarity": jnp.asarray(similarity)})

    def mean(logits):
        outputs = {
            stream: Output({"label": jnp.asarray(label), "erase": jnp.asarray(erase)[None]}, own, jnp.asarray(frozen))
            for stream, own, frozen in zip((FORGET, REMAIN), logits, teacher, strict=True)
        }
        return sum(jnp.mean(term.loss) for term in method.loss(outputs, context).values())

    value, gradient = jax.value_and_grad(mean)(jnp.asarray(student))
    logits, frozen = torch.tensor(student, requires_grad=True), torch.tensor(teacher[0])
    tilt = 10 * torch.tensor(similarity[label]) if name == "trew" else 0
    target = torch.softmax((frozen + tilt).masked_fill(torch.tensor(erase), -torch.inf), -1)
    expected = F.kl_div(torch.log_softmax(logits[0], -1), target, reduction="batchmean")
    expected = expected + F.cross_entropy(logits[1], torch.tensor(label))
    expected.backward()
    np.testing.assert_allclose(value, expected.detach(), rtol=1e-12)
    np.testing.assert_allclose(gradient, logits.grad, rtol=1e-9, atol=1e-12)


def test_sgd_and_its_schedules(x64):
    """Momentum, decay, and a rate that falls at milestones or along a cosine, over three epochs of four steps."""
    start, target = np.random.default_rng(0).normal(size=(2, 7))
    for schedule, made in (
        (falling("step", (1, 2), 0.1, 3, 4), lambda tx: torch.optim.lr_scheduler.MultiStepLR(tx, [4, 8], 0.1)),
        (falling(None, None, None, 3, 4), lambda tx: torch.optim.lr_scheduler.CosineAnnealingLR(tx, 12)),
    ):
        tx, w = sgd(0.9, 5e-4, schedule), jnp.asarray(start)
        state = tx.init(w)
        theirs = torch.tensor(start, requires_grad=True)
        optimiser = torch.optim.SGD([theirs], lr=0.05, momentum=0.9, weight_decay=5e-4)
        scheduler = made(optimiser)
        with jax.numpy_dtype_promotion("standard"):  # optax' schedules multiply int32 by float
            for _ in range(12):
                updates, state = tx.update(w - target, state, w)
                w = w + 0.05 * updates
                optimiser.zero_grad()
                (torch.square(theirs - torch.tensor(target)).sum() / 2).backward()
                optimiser.step()
                scheduler.step()
        np.testing.assert_allclose(w, theirs.detach(), rtol=1e-6)


@pytest.mark.parametrize("bits", [4, 8])
def test_rounded_weights(bits):
    """As PyTorch's fake quantisation per channel, symmetric and narrow."""
    weight = np.random.default_rng(0).normal(size=(6, 40)).astype(np.float32)  # [k, d], as PyTorch has it
    most = 2 ** (bits - 1) - 1
    scale = torch.tensor(np.abs(weight).max(1) / most)
    expected = torch.fake_quantize_per_channel_affine(
        torch.tensor(weight), scale, torch.zeros(6, dtype=torch.int32), 0, -most, most
    )
    np.testing.assert_allclose(metrics.quantised(weight, bits, axis=0), expected, rtol=1e-6)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_cut_weights(share):
    """As PyTorch's global pruning by magnitude over two layers."""
    layers = [torch.nn.Linear(20, 10), torch.nn.Linear(10, 5)]
    params = [{"w": layer.weight.detach().numpy().copy(), "b": layer.bias.detach().numpy().copy()} for layer in layers]
    prune.global_unstructured([(layer, "weight") for layer in layers], prune.L1Unstructured, amount=share)
    for found, layer in zip(metrics.pruned(params, share), layers, strict=True):
        np.testing.assert_array_equal(found["w"], layer.weight.detach())
        np.testing.assert_array_equal(found["b"], layer.bias.detach())
