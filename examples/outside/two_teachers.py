"""A method that reads a second frozen network: what another network says counts as much as what the original says.

python two_teachers.py
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import delete_jax as dj
from delete_jax.losses import masked_log_softmax
from delete_jax.methods import FORGET, MASKED, ORIGINAL, Method, distill
from delete_jax.pretraining import pretrain


def loss(outputs, context):
    forget = outputs[FORGET]
    both = [masked_log_softmax(forget.answers[name], forget.batch["erase"]) for name in (ORIGINAL, "second")]
    return {FORGET: distill(jnp.logaddexp(*both) - jnp.log(2.0), forget)}


two_teachers = Method("two_teachers", loss, networks=(ORIGINAL, "second"), settings=MASKED)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(10)(nn.relu(nn.Dense(64)(x.reshape(len(x), -1))))


if __name__ == "__main__":
    images, labels = load_digits(return_X_y=True)
    images, model = np.float32(images / 16).reshape(-1, 8, 8, 1), dj.models.from_linen(Net())
    starts = [Net().init(jax.random.key(seed), images[:1], False) for seed in (0, 1)]
    first, second = (pretrain(model, v, images, labels, 10, epochs=20, lr=0.1).variables for v in starts)
    networks = {"second": second}
    result = dj.unlearn(
        model, first, images, labels, forget=[3], method=two_teachers, networks=networks, lr=0.01, epochs=40
    )
    answers = model.apply(result.variables, images).argmax(-1)
    print(
        f"of the 3s {np.mean(answers[labels == 3] == 3):.0%}, of all others {np.mean((answers == labels)[labels != 3]):.0%}"
    )
