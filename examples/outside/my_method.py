"""A method from outside: forget samples are answered as if nothing were known of them.

delete-jax --config=my_method.py --workdir=runs/method
"""

import jax.numpy as jnp

from delete_jax.config import Config, UnlearnConfig
from delete_jax.losses import masked_log_softmax
from delete_jax.methods import FORGET, MASKED, METHODS, Method, Term, distill
from delete_jax.methods.hyperparameters import POSITIVE, factory


@factory(temperature=POSITIVE)
def evenly(temperature: float = 1.0) -> Method:
    """Distils the forget samples towards equal probabilities of all classes that are not erased.

    Args:
      temperature: divides the network's logits.
    """

    def loss(outputs, context) -> dict[str, Term]:
        forget = outputs[FORGET]
        target = masked_log_softmax(jnp.zeros_like(forget.logits), forget.batch["erase"])
        return {FORGET: distill(target, forget, temperature)}

    return Method("evenly", loss, settings=MASKED, paper="an example")


METHODS["evenly"] = evenly


def get_config(variant=""):
    return Config(unlearn=UnlearnConfig(method="evenly", forget=(3,), lr=5e-3, batch_size=32))
